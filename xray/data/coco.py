"""Anyone's own radiographs with a COCO file of boxes or masks, of any categories → a source to convert."""

import hashlib
import json
import math
import os
import posixpath
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.command import InputError
from xray.data import source as reasons
from xray.data.attributes import ATTRIBUTES, age_band
from xray.data.boxes import BoxTable, xywh_to_xyxy
from xray.data.canvas import MAX_PIXELS
from xray.data.conversion import write_store
from xray.data.names import LINK_OUT, check_inside, fault_of, leads_out
from xray.data.radiograph import source_id
from xray.data.source import Dropped, Source, SourceImage, has_area, snap

if TYPE_CHECKING:
    from xray.data.decoding import Decode

OUTSIDE_FOLDER = "file name leads out of the data path"
NO_SUCH_IMAGE = "annotation of an unknown image"
UNKNOWN_CATEGORY = "unknown category"
CROWD = "crowd region"
MALFORMED = "malformed entry"
REPEATED_IMAGE = "repeated image"


def convert_coco(
    data_path: Path | str,
    save_path: Path | str,
    *,
    annotations: str | None = None,
    image_size: int = 1024,
    n_folds: int = 5,
    readers: str = "fuse",
    seed: int = 0,
    n_workers: int = 1,
    overwrite: bool = False,
    decode: "Decode | None" = None,
) -> dict[str, Any]:
    """Converts a directory with a COCO file into a dataset directory; returns the content of its conversion.json.

    The arguments are those of `read_coco` and of `xray.data.conversion.write_store`. Raises InputError as they do.
    """
    return write_store(
        read_coco(data_path, annotations),
        save_path,
        image_size=image_size,
        n_folds=n_folds,
        readers=readers,
        seed=seed,
        n_workers=n_workers,
        overwrite=overwrite,
        decode=decode,
    )


def read_coco(data_path: Path | str, annotations: str | None = None) -> Source:
    """Reads and cleans a COCO file; looks at no pixel.

    data_path: directory of the radiographs, which stand under images/ or where the file names say.
    annotations: the COCO file, relative to `data_path`; found by itself where there is one only.

    An image's `patient`, `view`, `sex`, `age` and `manufacturer` are kept, and its id as `coco_id`; an annotation's
    `readers` (a list of names) too. Categories become 1 … K in the order of their ids, each keeping its own as
    `source_category_id`. Boxes are in the pixels of the image entry's width and height where it has them.

    Raises InputError for a missing directory or file, and for one that is not COCO.
    """
    root = Path(data_path)
    if not root.is_dir():
        raise InputError(f"no data at {root}: give the directory that holds the radiographs and their COCO file")
    file = _find_annotations(root, annotations)
    content = file.read_bytes()
    images, rows, categories = _parse(content, file)
    dropped: list[Dropped] = []
    number_of_category = {category["source_category_id"]: category["id"] for category in categories}
    number_of_image, source_images = _read_images(root, images, file.name, dropped)
    boxes, readers, places, masks, with_lost = _read_boxes(
        rows, number_of_image, number_of_category, file.name, dropped
    )

    # An image all of whose annotations were left out is not normal: nothing is known about it.
    has_box = np.bincount(boxes.images, minlength=len(source_images)) > 0
    lost = [number for number in with_lost if not has_box[number]]
    dropped += [Dropped(source_images[number].file_name, reasons.NO_BOX_LEFT) for number in lost]
    new_number = np.cumsum(~np.isin(np.arange(len(source_images)), lost)) - 1
    return Source(
        kind="coco",
        layout=posixpath.basename(file.name),
        images=[image for number, image in enumerate(source_images) if number not in set(lost)],
        boxes=BoxTable(new_number[boxes.images], boxes.labels, boxes.boxes, boxes.scores),
        readers=readers,
        places=places,
        categories=categories,
        fingerprint=hashlib.sha256(content).hexdigest(),
        masks=masks,
        dropped=dropped,
    )


def _find_annotations(root: Path, chosen: str | None) -> Path:
    if chosen is not None:
        if (root / chosen).is_file():
            return root / chosen
        raise InputError(f"there is no {chosen} in {root}: give --annotations relative to --data-path")
    if (root / "annotations.json").is_file():
        return check_inside(root / "annotations.json", root)
    for pattern in ("instances*.json", "*.json", "annotations/instances*.json", "annotations/*.json"):
        found = sorted(file for file in root.glob(pattern) if file.is_file())
        if len(found) == 1:
            return check_inside(found[0], root)
        if found:
            names = ", ".join(file.relative_to(root).as_posix() for file in found[:5])
            raise InputError(f"{root} holds several JSON files ({names}): choose one with --annotations")
    raise InputError(f"{root} holds no COCO file (*.json): put it there, or name it with --annotations")


def _parse(content: bytes, file: Path) -> tuple[list[Any], list[Any], list[dict[str, Any]]]:
    """The images and annotations as they stand in the file, and its categories renumbered."""
    try:
        coco = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON ({error}): give a COCO file") from None
    lists = [coco.get(key) if isinstance(coco, dict) else None for key in ("images", "annotations", "categories")]
    if not all(isinstance(entries, list) for entries in lists):
        raise InputError(f"{file} is not a COCO file: it needs the lists images, annotations and categories")
    images, rows, found = lists
    try:
        names = {int(category["id"]): str(category["name"]) for category in found}
    except (TypeError, KeyError, ValueError, OverflowError):
        raise InputError(f"{file} has a category without id or name: each needs both") from None
    if len(names) < len(found) or not names:
        raise InputError(
            f"{file} has {len(found)} categories with {len(names)} distinct ids: it needs at least one, each its own id"
        )
    categories = [
        {"id": number, "name": names[source_id], "source_category_id": source_id}
        for number, source_id in enumerate(sorted(names), start=1)
    ]
    return images, rows, categories


def _read_images(
    root: Path, entries: list[Any], table: str, dropped: list[Dropped]
) -> tuple[dict[Any, int], list[SourceImage]]:
    """The usable images, and their number by the file's own id (-1 for those left out)."""
    files = _list_files(root)
    number_of: dict[Any, int] = {}
    found: list[tuple[str, dict[str, Any]]] = []
    taken: set[str] = set()
    for position, entry in enumerate(entries):
        place = f"{table} image {position}"
        own_id = entry.get("id") if isinstance(entry, dict) else None
        file_name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(own_id, int | str) or not isinstance(file_name, str) or not file_name:
            dropped.append(Dropped(place, MALFORMED, detail="an image needs id and file_name"))
            continue
        if own_id in number_of:
            dropped.append(Dropped(place, REPEATED_IMAGE, detail=f"id {own_id}"))
            continue
        number_of[own_id] = -1
        name = posixpath.normpath(file_name.replace("\\", "/"))
        if fault_of(name) is not None:
            dropped.append(Dropped(place, OUTSIDE_FOLDER))
            continue
        path = next((path for path in (f"images/{name}", name) if path in files), None)
        if path is None:
            dropped.append(Dropped(name, reasons.MISSING_FILE))
        elif leads_out(root / path, root):
            dropped.append(Dropped(path, LINK_OUT))
        elif path in taken:
            dropped.append(Dropped(place, REPEATED_IMAGE, detail=path))
        else:
            taken.add(path)
            number_of[own_id] = len(found)
            found.append((path, entry))
    stems = Counter(source_id(path) for path, _ in found)
    images = [_image(root, path, entry, stems[source_id(path)] == 1) for path, entry in found]
    return number_of, images


def _image(root: Path, path: str, entry: dict[str, Any], is_unique: bool) -> SourceImage:
    sides = [entry.get("width"), entry.get("height")]
    is_sized = all(type(side) is int and side > 0 for side in sides) and sides[0] * sides[1] <= MAX_PIXELS
    own = {key: entry[key] for key in ATTRIBUTES if _is_plain(entry.get(key))}
    if "age" in own:
        # A table may have years; so exact, and over 89 in particular, they could tell who it is.
        own["age"] = age_band(own["age"])
    patient = entry.get("patient")
    readers = entry.get("readers")
    return SourceImage(
        path=root / path,
        file_name=path,
        # Two folders may hold a file of the same name.
        source_id=source_id(path) if is_unique else posixpath.join(posixpath.dirname(path), source_id(path)),
        patient=str(patient) if isinstance(patient, str | int) else None,
        width=sides[0] if is_sized else None,
        height=sides[1] if is_sized else None,
        readers=_names(readers),
        extra={"coco_id": entry["id"], **{key: value for key, value in own.items() if value is not None}},
    )


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _read_boxes(
    rows: list[Any],
    number_of_image: dict[Any, int],
    number_of_category: dict[int, int],
    table: str,
    dropped: list[Dropped],
) -> tuple[BoxTable, list[tuple[str, ...]], list[str], dict[int, Any], list[int]]:
    """The usable boxes with their readers, places and masks, and the images with an annotation that was left out."""
    images, labels, boxes, readers, places = [], [], [], [], []
    masks: dict[int, Any] = {}
    lost: dict[int, None] = {}
    seen: set[tuple[Any, ...]] = set()
    for position, row in enumerate(rows):
        place = f"{table} annotation {position}"
        fault, image, label, box = _judge(row, number_of_image, number_of_category)
        if fault is None and image >= 0:
            names = _names(row.get("readers"))
            key = (image, label, *box, names)
            fault = reasons.DUPLICATE if key in seen else None
            seen.add(key)
        if fault is not None:
            dropped.append(Dropped(place, fault))
            if image >= 0:
                lost[image] = None
        # The annotations of an image that was left out go with it; the image stands in the account.
        elif image >= 0:
            if row.get("segmentation"):
                masks[len(images)] = row["segmentation"]
            images.append(image)
            labels.append(label)
            boxes.append(box)
            readers.append(names)
            places.append(place)
    return BoxTable.of(images, labels, boxes), readers, places, masks, list(lost)


def _judge(
    row: Any, number_of_image: dict[Any, int], number_of_category: dict[int, int]
) -> tuple[str | None, int, int, tuple[float, ...]]:
    """(fault or None, image number or -1, category, xyxy box snapped to the grid) of one annotation."""
    none = (math.nan,) * 4
    if not isinstance(row, dict) or not isinstance(row.get("image_id"), int | str):
        return MALFORMED, -1, 0, none
    if row["image_id"] not in number_of_image:
        return NO_SUCH_IMAGE, -1, 0, none
    image = number_of_image[row["image_id"]]
    category = row.get("category_id")
    if not isinstance(category, int) or category not in number_of_category:
        return UNKNOWN_CATEGORY, image, 0, none
    label = number_of_category[category]
    if row.get("iscrowd"):
        return CROWD, image, label, none
    box = row.get("bbox") or _bounds(row.get("segmentation"))
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            xyxy = snap(xywh_to_xyxy(np.array(box, dtype=np.float64).reshape(1, 4)))[0]
    except (TypeError, ValueError, OverflowError):
        return reasons.NOT_A_NUMBER, image, label, none
    if not np.isfinite(xyxy).all():
        return reasons.NOT_A_NUMBER, image, label, none
    if (xyxy[2:] < xyxy[:2]).any():
        return reasons.INVERTED, image, label, none
    if not has_area(xyxy):
        return reasons.EMPTY, image, label, none
    return None, image, label, tuple(xyxy.tolist())


def _bounds(segmentation: Any) -> list[float] | None:
    """x, y, width, height around polygons, for annotations that have only these."""
    try:
        points = np.concatenate([np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation])
        low, high = points.min(axis=0), points.max(axis=0)
    except (TypeError, ValueError, OverflowError):
        return None
    return [*low.tolist(), *(high - low).tolist()]


def _names(value: Any) -> tuple[str, ...]:
    return tuple(str(name) for name in value) if isinstance(value, list) else ()


def _list_files(root: Path) -> set[str]:
    """All files under a directory, relative to it, with / between folders; links to folders are followed once."""
    files = set()
    for folder, _, names in os.walk(root):
        relative = Path(folder).relative_to(root).as_posix()
        files.update(name if relative == "." else f"{relative}/{name}" for name in names)
    return files
