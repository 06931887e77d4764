"""Anyone's own radiographs with a COCO file of boxes or masks, of any categories → a source to convert."""

import dataclasses
import hashlib
import posixpath
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xray.datasets import source as reasons
from xray.datasets.category_map import NORMAL_LABELS, plain
from xray.datasets.source import Dropped, Source, SourceImage, data_root
from xray.datasets.sources.coco_annotations import Annotations, Crowds, Unplaced, read_annotations, without_normal
from xray.datasets.sources.coco_extras import CocoFile, in_original_pixels
from xray.datasets.sources.coco_images import Images, read_categories
from xray.datasets.sources.coco_known import NOT_ANNOTATED, Categories, Said, known_by_entry, said_of, with_known
from xray.datasets.sources.edges import refuse_boxes_beyond
from xray.datasets.sources.normal_names import NormalNames, refuse_without_findings, said_of_doubt
from xray.datasets.sources.splits import split_of
from xray.errors import InputError
from xray.file_names import ANNOTATIONS
from xray.radiographs.names import check_inside
from xray.structures.boxes import BoxTable


def read_coco(
    data_path: Path | str,
    annotations: str | None = None,
    crowds: Crowds = "auto",
    unplaced: Unplaced = "refuse",
    normal: Sequence[str] = (),
    kept: Sequence[str] = (),
    same_size: bool = False,
) -> Source:
    """Reads and cleans a COCO file; looks at no pixel.

    data_path: directory of the radiographs, which stand where the file names say, seen from there or from the COCO
        file's own folder, or in images/ or a folder of that named after the file (images/default for
        annotations/instances_default.json).
    annotations: the COCO file, relative to `data_path` or to here; found by itself where there is one only.
    crowds, unplaced: as for `xray.datasets.sources.coco_annotations.read_annotations`.
    normal, kept: which categories mean that nothing was found, and which do not, see `NormalNames`.
    same_size: as for `xray.datasets.sources.edges.refuse_boxes_beyond`.

    An image's `patient`, `split`, `view`, `sex`, `age` and `manufacturer` are kept, and its id as `coco_id` (`coco_ids`
    where one file is listed under several); an annotation's `readers` (a list of names) too. Categories become 1 … K in
    the order of their ids, each keeping its own as `source_category_id`. Boxes are in the pixels of the image entry's
    width and height where it has them.

    Raises InputError for a missing directory or file, for one that is not COCO, and where ids, names or annotations
    could mean more than one radiograph or category.
    """
    root = data_root(data_path, "give the directory that holds the radiographs and their COCO file")
    file = _find_annotations(root, annotations)
    content = file.read_bytes()
    names = NormalNames(normal, kept)
    source = source_of(root, file, CocoFile.of(content, file), crowds, unplaced, content, names)
    refuse_without_findings(source.categories, source.notes.get(NORMAL_LABELS, ()), str(file))
    source.warnings += said_of_doubt((category["name"] for category in source.categories), kept, file.name)
    refuse_boxes_beyond(source, str(file), same_size)
    return source


def source_of(
    root: Path,
    file: Path,
    coco: CocoFile,
    crowds: Crowds,
    unplaced: Unplaced,
    content: bytes,
    normal: NormalNames,
    folders: Sequence[str] | None = None,
) -> Source:
    """What `read_coco` says, of one file, which may have no category besides normal ones.

    folders: as for `Images`. content: the file's bytes.
    """
    # A file that lies elsewhere has no folder of its own here: its names are seen from the root.
    beside = file.parent.relative_to(root).as_posix() if file.parent.is_relative_to(root) else "."
    coco = in_original_pixels(coco)
    rows = coco.annotations
    categories, taken = without_normal(read_categories(coco.categories, file), normal, file)
    dropped: list[Dropped] = []
    images = Images(root, coco.images, file.name, dropped, beside, folders)
    parsed = read_annotations(rows, images, categories, file, dropped, taken, crowds, unplaced)
    normal.check_boxes(taken.values(), parsed.n_marked, parsed.n_contradictory, str(file))
    numbering = {category["source_category_id"]: category["id"] for category in categories}
    names = {plain(category["name"]): category["id"] for category in categories}
    by_entry = known_by_entry(coco.images, Categories(numbering, names, taken, normal), file.name, dropped)
    said = [said_of(image, by_entry) for image in images.images]
    boxed = _boxed(parsed, said)

    # What is known of these is not whole.
    has_box = np.bincount(parsed.boxes.images, minlength=len(images.images)) > 0
    for number in sorted(parsed.lost):
        reason, place = reasons.LOST_ANNOTATION if has_box[number] else reasons.NO_BOX_LEFT, ""
        if (why := said[number].not_annotated) and number in parsed.not_annotated:
            reason, place = NOT_ANNOTATED, why
        if number in parsed.contradictory:
            # The picture itself is what is wrong, so it is counted once.
            reason, place = reasons.NORMAL_WITH_FINDINGS, parsed.contradictory[number]
        dropped.append(Dropped(images.images[number].file_name, reason, detail=place))
    # The order of a file's entries says nothing: the same entries in any order are the same dataset.
    order = sorted(set(range(len(images.images))) - parsed.lost, key=lambda number: images.rank(number))
    new_number = np.full(len(images.images), -1, dtype=np.int64)
    new_number[order] = np.arange(len(order))
    numbers, labels = new_number[parsed.boxes.images].tolist(), parsed.boxes.labels.tolist()
    corners = parsed.boxes.boxes.tolist()
    rows_kept = sorted(
        (row for row, number in enumerate(numbers) if number >= 0),
        key=lambda row: (numbers[row], labels[row], corners[row], parsed.readers[row], str(parsed.masks.get(row))),
    )
    boxes, masks = parsed.boxes.select_masked(np.array(rows_kept, dtype=np.int64), parsed.masks)
    every = numbering.values()
    return Source(
        kind="coco",
        layout=posixpath.basename(file.name),
        images=[
            _image(with_known(images.images[number], said[number], boxed[number], every), number in parsed.normal)
            for number in order
        ],
        boxes=BoxTable(new_number[boxes.images], boxes.labels, boxes.boxes, boxes.scores),
        readers=[parsed.readers[row] for row in rows_kept],
        places=[parsed.places[row] for row in rows_kept],
        categories=categories,
        fingerprint=hashlib.sha256(content + f"{crowds} {unplaced}{taken or ''}".encode()).hexdigest(),
        masks=masks,
        dropped=dropped,
        warnings=images.warnings + parsed.warnings,
        sizes_of_files=True,
        notes={NORMAL_LABELS: list(taken.values())} if taken else {},
    )


def _boxed(parsed: Annotations, said: Sequence[Said]) -> list[set[int]]:
    """The categories of each image's boxes. What the entries say is held against the annotations on the way.

    Labels of annotations that have no area are added to what is said; images that are normal by one and show something
    by the other are lost.
    """
    boxed: list[set[int]] = [set() for _ in said]
    for image, label in zip(parsed.boxes.images.tolist(), parsed.boxes.labels.tolist(), strict=True):
        boxed[image].add(label)
    for image, labels in parsed.without_area.items():
        for key in ("labels", "unlocated"):
            said[image].ids.setdefault(key, set()).update(labels)
    for image, labels in parsed.withheld.items():
        shown_ids = boxed[image] | said[image].ids.get("labels", set())
        said[image].ids.setdefault("unknown", set()).update(labels - shown_ids)
        said[image].ids.setdefault("unlocated", set()).update(labels)
    for number, one in enumerate(said):
        is_shown = bool(boxed[number] or one.ids or one.normal or number in parsed.normal or number in parsed.withheld)
        if one.not_annotated and not is_shown and number not in parsed.lost:
            parsed.lost.add(number)
            parsed.not_annotated.add(number)
        is_normal = number in parsed.normal or bool(one.normal)
        if is_normal and (boxed[number] or one.ids.get("labels")):
            parsed.lost.add(number)
            parsed.contradictory.setdefault(number, one.normal)
        elif is_normal and number not in parsed.lost and not one.foreign and number not in parsed.withheld:
            parsed.normal.add(number)
        else:
            parsed.normal.discard(number)
    return boxed


def _image(image: SourceImage, is_normal: bool) -> SourceImage:
    return dataclasses.replace(image, normal=True) if is_normal else image


def _find_annotations(root: Path, chosen: str | None) -> Path:
    if chosen is not None:
        path = root / chosen if (root / chosen).is_file() else Path(chosen)
        if not path.is_file():
            raise InputError(f"there is no {chosen}, neither in {root} nor here: check --annotations")
        return path
    if (root / ANNOTATIONS).is_file():
        return check_inside(root / ANNOTATIONS, root)
    for pattern in ("instances*.json", "*.json", "annotations/instances*.json", "annotations/*.json"):
        candidates = sorted(file for file in root.glob(pattern) if file.is_file())
        if len(candidates) == 1:
            return check_inside(candidates[0], root)
        if candidates:
            names = ", ".join(file.relative_to(root).as_posix() for file in candidates[:5])
            splits = [split_of(file.relative_to(root).as_posix()) for file in candidates]
            are_splits = None not in splits and len(set(splits)) > 1
            together = "; they seem to be splits, which `convert tree` takes together" if are_splits else ""
            raise InputError(f"{root} holds several JSON files ({names}): choose one with --annotations{together}")
    raise InputError(f"{root} holds no COCO file (*.json): put it there, or name it with --annotations")
