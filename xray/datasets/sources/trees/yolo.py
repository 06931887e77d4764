"""YOLO trees: data.yaml, pictures, and a text file of labels for each → a source, as Ultralytics understands them.

Older ones have obj.data and obj.names (Darknet, CVAT), or classes.txt (LabelImg, Label Studio) in place of data.yaml.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from xray.datasets import source as reasons
from xray.datasets.source import SPLITS, TRAIN, Source, relative_name
from xray.datasets.sources.coco_images import FaultError
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.normal_names import NormalNames
from xray.datasets.sources.splits import split_of, split_of_folder
from xray.datasets.sources.table_boxes import SHARE, Reading, fits_better
from xray.datasets.sources.trees.parts import NOT_IN_TREE, located, read_originals, read_sizes
from xray.datasets.sources.trees.shapes import Corners
from xray.datasets.sources.trees.whole import WholeLabels
from xray.datasets.sources.trees.yolo_description import NO_LABELS, Description, chosen_of, describe, lines_of
from xray.datasets.sources.trees.yolo_lines import BEYOND, read_line
from xray.errors import InputError
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.names import leads_out
from xray.radiographs.radiograph import source_id
from xray.structures.values import whole_number

BACKGROUND = "pictures without a label file, taken as ones without findings"
NOT_LABELLED = "picture of a split that has no label files; an empty one says that there is no finding"
MISSING_SPLIT = "split of the tree's description that is not there"
SAME_SPLIT = "split that is the same as another one, not used"
IN_TWO_SPLITS = "picture in two splits"
LABELS_ALONE = "labels without a picture"
LABELS_ELSEWHERE = "picture whose labels may be a file in another place"
NOT_IN_LIST = "picture of a list that is not there"


def read_yolo_tree(root: Path, files: Sequence[Path], normal: NormalNames) -> Source:
    """Reads the tree that `files`, which `find_yolo` found, describe.

    A picture's labels are where Ultralytics looks: its path with the last /images/ made /labels/ and the suffix .txt;
    or else beside it. A picture without a label file, or with an empty one, has no findings; a split of which no
    picture has one is not labelled, and left out. Pictures in no split are left out. Where two splits are the same
    pictures the first of train, val and test counts; a single picture in two belongs to the later one, so that no test
    picture is trained on. normal: classes that mean that nothing was found.

    Raises InputError for descriptions that differ, for a tree without names or without labels, for label files of
    predictions and poses, and where all coordinates are pixels.
    """
    collector = Collector("tree", root, layout="yolo")
    file = chosen_of(files, root, collector)
    tree = describe(file, root)
    whole = WholeLabels(collector, [tree.names[number] for number in sorted(tree.names)], normal)
    for number in sorted(tree.names):
        if not whole.is_normal(tree.names[number]):
            collector.category(tree.names[number])
    if len(set(tree.names.values())) < len(tree.names):
        raise InputError(f"{file} has two classes of one name: rename one of them")
    collector.read(file.read_bytes())
    classes = [tree.names.get(number, "") for number in range(max(tree.names) + 1)]
    originals = read_originals(collector)
    pictures = _pictures(collector, tree)
    labels = {name: _labels_of(root, name) for name in pictures}
    if not any(labels.values()):
        wanted = _label_name(next(iter(pictures)))
        raise InputError(
            f"none of the {len(pictures)} pictures of {root} has a label file, such as {wanted}: put labels/ beside "
            "images/"
        )
    _name_strays(collector, labels)
    for split in set(pictures.values()):
        names = [name for name, of in pictures.items() if of == split]
        if not any(labels[name] for name in names):
            # Test sets are given out without their truth, which must not become that there is nothing.
            for name in names:
                collector.set_aside(name, NOT_LABELLED)
                del pictures[name]
    sizes = read_sizes(collector, (name for name in pictures if labels[name] is not None))
    n_lines = n_beyond = 0
    upright: list[Corners] = []
    for name, split in pictures.items():
        known = originals.get(name)
        size = (known.size if known else None) or sizes.get(name)
        path = labels[name]
        collector.describe(
            name, split=split, patient=known.patient if known else None, size=known.size if known else None
        )
        if path is None:
            collector.warnings.append(FileWarning(BACKGROUND, name))
        elif size is not None:
            read, beyond = _read_labels(collector, path, name, size, classes, upright, whole)
            n_lines, n_beyond = n_lines + read, n_beyond + beyond
    if n_beyond == n_lines > 0:
        raise InputError(
            f"all coordinates in the label files of {root} lie beyond the picture, as if they were pixels: YOLO's are "
            "shares of the picture's width and height, divide by these"
        )
    _refuse_corners(upright, root)
    whole.finish()
    return collector.source(NOT_IN_TREE)


def _refuse_corners(upright: Sequence[Corners], root: Path) -> None:
    """Raises InputError where what was read as centre, width and height can only be two corners.

    upright: x1, y1, x2, y2 of all boxes, in shares, as they were read.
    """
    corners = np.array(upright, dtype=np.float64).reshape(-1, 4)
    numbers = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
    nothing = np.full((len(numbers), 2), np.nan)
    counts = fits_better(numbers, Reading("cxcywh", SHARE), Reading("xyxy", SHARE), nothing)
    if counts is not None:
        raise InputError(
            f"{counts[0]} of {len(numbers)} boxes in the label files of {root} pass the edges of their pictures, and "
            f"{counts[1] or 'none'} if they were two corners: YOLO's are centre, width and height"
        )


def _pictures(collector: Collector, tree: Description) -> dict[str, str]:
    """Name of each picture of the tree → its split."""
    if not tree.splits:
        return {name: split_of_folder(name) or TRAIN for name in collector.files.names}
    of_split: dict[str, list[str]] = {}
    for split in SPLITS:
        places = tree.splits.get(split, [])
        found = [_listed(collector, place, tree, split) for place in places]
        for place, names in zip(places, found, strict=True):
            if names is None:
                collector.warnings.append(FileWarning(MISSING_SPLIT, tree.file.name, f"{split}: {place}"))
        of_split[split] = list(dict.fromkeys(name for names in found for name in names or ()))
    result: dict[str, str] = {}
    seen: list[set[str]] = []
    for split, names in of_split.items():
        if names and set(names) in seen:
            collector.warnings.append(FileWarning(SAME_SPLIT, tree.file.name, split))
            continue
        seen.append(set(names))
        for name in names:
            if name in result:
                collector.leave_out(name, IN_TWO_SPLITS, f"{result[name]} and {split}", f"taken for {split}")
            result[name] = split
    if not result:
        given = ", ".join(place for places in tree.splits.values() for place in places)
        raise InputError(f"{tree.file} names {given}, and no picture is there: give --data-path the folder they are in")
    return result


def _listed(collector: Collector, place: str, tree: Description, split: str) -> list[str] | None:
    """The pictures of a folder, or of a text file of paths; None where there is no such thing.

    Of train/images the end images is not meant where that has the folders train/ and val/.
    """
    path = located(place, tree.bases, collector.root)
    if path is None:
        return None
    if path.is_dir():
        folder = "" if path.resolve() == collector.root.resolve() else f"{_name(path, collector.root)}/"
        names = [name for name in collector.files.names if name.startswith(folder)]
        wanted = place.replace("\\", "/").strip(" ./")
        is_whole, says_split = f"/{folder}".endswith(f"/{wanted}/"), split_of(wanted) == split
        is_other = not is_whole and says_split and any(split_of_folder(name) not in (None, split) for name in names)
        return None if is_other else names
    names = []
    for line in lines_of(path):
        picture = located(line, [path.parent, *tree.bases], collector.root)
        name = None if picture is None else _name(picture, collector.root)
        if name in collector.paths:
            names.append(name)
        else:
            collector.leave_out(_name(path, collector.root), NOT_IN_LIST, line)
    return names


def _name(path: Path, root: Path) -> str:
    is_plain = path.is_relative_to(root) and ".." not in path.parts
    return relative_name(path, root) if is_plain else relative_name(path.resolve(), root.resolve())


def _label_name(name: str) -> str:
    """Where Ultralytics looks for a picture's labels."""
    stem = f"/{name}".rpartition(".")[0]
    return "/labels/".join(stem.rsplit("/images/", 1))[1:] + ".txt"


def _labels_of(root: Path, name: str) -> Path | None:
    beside = name.rpartition(".")[0] + ".txt"
    for text in dict.fromkeys((_label_name(name), beside)):
        if (root / text).is_file() and not leads_out(root / text, root):
            return root / text
    return None


def _read_labels(
    collector: Collector,
    path: Path,
    name: str,
    size: tuple[int, int],
    classes: list[str],
    upright: list[Corners],
    whole: WholeLabels,
) -> tuple[int, int]:
    """Enters the labels of a picture, and its boxes in `upright`, too.

    classes: names by number, "" where there is none.
    Returns how many lines of findings there were, and how many beyond the picture.
    """
    where = _name(path, collector.root)
    content = path.read_bytes()
    collector.read(content)
    n_lines = n_beyond = 0
    marked: list[str] = []
    for number, text in enumerate(content.decode("utf-8-sig", "replace").splitlines(), 1):
        if not text.strip():
            continue
        place = f"{where} line {number}"
        if (label := _class_of(text, classes)) and whole.is_normal(label):
            marked.append(label)  # Whatever its box is, it is of no finding.
            continue
        n_lines += 1
        try:
            line = read_line(text, len(classes), place)
            category = collector.categories.get(classes[line.number])
            if category is None:
                raise FaultError(reasons.UNKNOWN_CLASS, f"class {line.number} has no name")
        except FaultError as error:
            n_beyond += error.reason == BEYOND
            collector.lose(name, place, error.reason, error.detail)
            continue
        if line.polygon is None:
            upright.append(line.corners)
        mask = None if line.polygon is None else [_in_pixels(line.polygon, size)]
        collector.box(name, category, _in_pixels(line.corners, size), place, mask=mask)
    whole.add(name, (), n_lines, where, marked)
    return n_lines, n_beyond


def _class_of(text: str, classes: Sequence[str]) -> str | None:
    try:
        number = whole_number(text.split()[0])
    except ValueError:
        return None
    return classes[number] if number is not None and 0 <= number < len(classes) else None


def _in_pixels(shares: Iterable[float], size: tuple[int, int]) -> list[float]:
    return [share * size[place % 2] for place, share in enumerate(shares)]


def _name_strays(collector: Collector, labels: dict[str, Path | None]) -> None:
    """Names label files whose picture is not there: they may be of radiographs that were forgotten.

    labels: picture → its label file. A picture without one of whose name there is a stray one is left out: its findings
    may stand in that, as in labels/valid/ of images/val/, or in a file with the suffix .TXT.
    """
    used = {path for path in labels.values() if path is not None}
    without = {source_id(name.rpartition("/")[2]): name for name, path in labels.items() if path is None}
    for path in sorted(collector.root.rglob("*.[tT][xX][tT]")):
        name = _name(path, collector.root)
        is_of_labels = "/labels/" in f"/{name}" and path.name.lower() not in NO_LABELS
        if is_of_labels and path not in used and path.is_file():
            pictures = [stem for stem in collector.files.names if _label_name(stem) == name]
            if not pictures:
                collector.leave_out(name, LABELS_ALONE)
            if not pictures and (picture := without.get(path.stem)) is not None:
                collector.lose(picture, picture, LABELS_ELSEWHERE, name)
