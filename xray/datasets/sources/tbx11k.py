"""TBX11K: 11,200 radiographs of healthy, sick and tuberculous people, with boxes of active and of healed tuberculosis.

annotations/json/TBX11K_train.json and TBX11K_val.json are COCO files whose boxes are in pixels of the pictures of 512 x
512 in imgs/tb/, imgs/health/ and imgs/sick/; all_test.json names those of imgs/test/. Where there is no JSON file,
annotations/xml/tb0001.xml, … are read, with lists/TBX11K_train.txt, TBX11K_val.txt and all_test.txt (tb/tb0001.png, …)
for the splits; their boxes are in pixels of the originals, of which each says the size, and of which the pictures are
squeezed. data.csv of the simplified edition (fname, source, bbox, tb_type, image_type) is read where there is neither.

What becomes of them: a radiograph of imgs/sick/ has the category "Sick but Non-TB", without boxes: it shows no
tuberculosis, and is not normal. Of one in imgs/tb/ without a box the kind of tuberculosis is unknown. The test set has
no public truth: everything is unknown there. imgs/extra/ are other sets (Montgomery, Shenzhen, DA, DB) whose
tuberculosis has no boxes; they are left out, and named. PulmonaryTuberculosis is in the files and never used; it
becomes a category where it is. Patients are not known.
"""

import ast
from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from xray.datasets import source as reasons
from xray.datasets.source import TEST, TRAIN, VAL, Source, data_root
from xray.datasets.sources.coco_images import read_categories
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.set_tables import (
    FAR_BEYOND,
    UNKNOWN_FINDING,
    as_number,
    check_units,
    find_tables,
    is_far_beyond,
    one_table,
    read_json,
)
from xray.datasets.sources.tables import plain_name, read_table
from xray.datasets.sources.trees.parts import UNREADABLE_XML, read_xml
from xray.datasets.sources.trees.voc_objects import corners_in, size_in
from xray.errors import InputError
from xray.radiographs.radiograph import source_id
from xray.structures.boxes import xywh_to_xyxy
from xray.structures.values import identity, is_missing, shown

ACTIVE, OBSOLETE, SICK = "ActiveTuberculosis", "ObsoletePulmonaryTuberculosis", "Sick but Non-TB"
CATEGORIES = (ACTIVE, OBSOLETE, SICK)
SIDE = 512
"""Pixels of a side of the set's pictures, in which the boxes are."""
OTHER_SET = "radiograph of another set, without boxes of its own"
NO_SIZE = "XML file without the size of its radiograph"
BOX_ON_NORMAL = "box of tuberculosis on a radiograph without it"

_UNITS = f"boxes in pixels of the pictures of {SIDE} x {SIDE}, as in annotations/json/"
_FILES = (
    (TRAIN, ("TBX11K_train.json", "all_train.json")),
    (VAL, ("TBX11K_val.json", "all_val.json")),
    (TEST, ("all_test.json", "TBX11K_test.json")),
)
_BOTH = ("TBX11K_trainval.json", "all_trainval.json", "TBX11K_trainval_only_tb.json")
"""Read in place of those of the two splits, where they are missing: all of it trains."""
_KINDS = {"tb": "tb", "health": "healthy", "healthy": "healthy", "sick": "sick", "sickbutnotb": "sick",
          "sickbutnontb": "sick", "extra": "extra", "test": "test"}  # fmt: skip
"""Folder, or image_type of the simplified edition → what it means."""
_LISTS = {
    TRAIN: ("TBX11K_train.txt", "all_train.txt"),
    VAL: ("TBX11K_val.txt", "all_val.txt"),
    TEST: ("all_test.txt", "TBX11K_test.txt"),
}
_UNITS_OF_XML = "boxes in pixels of the size that each XML file says"
_NAMES = (ACTIVE, OBSOLETE, "PulmonaryTuberculosis")
_TYPES = {"activetb": ACTIVE, "latenttb": OBSOLETE}


def read_tbx11k(data_path: Path | str) -> Source:
    """Reads the annotations of TBX11K; looks at no pixel.

    Raises InputError where there are none, a file is no COCO file, or boxes are in other units.
    """
    root = data_root(data_path, "put the folder TBX11K/ of https://github.com/yun-liu/Tuberculosis there")
    paths = {split: one_table(root, *names) for split, names in _FILES}
    if paths[TRAIN] is None and paths[VAL] is None:
        paths = {TRAIN: one_table(root, *_BOTH), TEST: paths[TEST]}
    xml = find_tables(root, "tb*.xml") if not any(paths.values()) else []
    simplified = one_table(root, "data.csv") if not (any(paths.values()) or xml) else None
    if simplified is None and not (any(paths.values()) or xml):
        raise InputError(
            f"{root} has no annotations/json/TBX11K_train.json and no annotations/xml/tb0001.xml, …: put one there"
        )
    layout = "simplified" if simplified else "xml" if xml else "tbx11k"
    collector = Collector("tbx11k", root, CATEGORIES, layout=layout)
    if simplified is not None:
        _read_simplified(collector, simplified)
    if xml:
        _read_xml(collector, xml)
    for split, path in paths.items():
        if path is not None:
            _read_coco(collector, path, split)
    return collector.source()


def _read_coco(collector: Collector, path: Path, split: str) -> None:
    top, content = read_json(path, dict, "TBX11K")
    collector.read(content)
    entries, annotations, categories = top.get("images"), top.get("annotations", []), top.get("categories")
    if not all(isinstance(value, list) for value in (entries, annotations, categories)):
        raise InputError(
            f"{path} is not a COCO file, it needs the lists images, annotations and categories: download it again"
        )
    names = {each["source_category_id"]: each["name"] for each in read_categories(categories, path)}
    boxes = [_xyxy(row.get("bbox") if isinstance(row, dict) else None) for row in annotations]
    table = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    check_units(path, table, (SIDE, SIDE), _UNITS)
    rows_of: dict[Hashable, list[int]] = defaultdict(list)
    for number, row in enumerate(annotations):
        rows_of[_id_of(row, "image_id")].append(number)
    for number, entry in enumerate(entries):
        place = f"{path.name} image {number}"
        own_id = _id_of(entry, "id")
        rows = rows_of.pop(own_id, []) if own_id is not None else []
        file_name = entry.get("file_name") if isinstance(entry, dict) else None
        if own_id is None or not isinstance(file_name, str):
            raise InputError(f"{path} image {number} has no id or no file_name: download it again")
        kind = _kind_of(file_name)
        if kind == "extra" and not rows:
            for other in collector.files.meant_by(file_name):
                collector.set_aside(other, OTHER_SET)
            continue
        name = collector.file_of(file_name, place, near=PurePosixPath(file_name).parent.name)
        if name is None:
            continue
        _describe(collector, name, split, "test" if split == TEST and not rows else kind or _kind_of(name), bool(rows))
        for row in rows:
            where = f"{path.name} annotation {row}"
            category = names.get(_id_of(annotations[row], "category_id"))
            _add_box(collector, name, category, boxes[row], where, kind)
    for rows in rows_of.values():
        for row in rows:
            # TBX11K's own files have none; one of an edited file may be any radiograph's.
            raise InputError(f"{path} annotation {row} is of an image that the file does not list: download it again")


def _describe(collector: Collector, name: str, split: str, kind: str | None, has_boxes: bool) -> None:
    """What is known of a radiograph: it is healthy, sick or tuberculous, or nobody says."""
    active, obsolete, sick = (collector.category(name) for name in CATEGORIES)
    unknown: Sequence[int] = ()
    if kind == "test" or (kind is None and not has_boxes):
        unknown = (active, obsolete, sick)
    elif kind == "tb" and not has_boxes:
        unknown = (active, obsolete)
    labels = [sick] if kind == "sick" else []
    collector.describe(
        name, split=split, size=(SIDE, SIDE), labels=labels, unlocated=labels, unknown=unknown, normal=kind == "healthy"
    )


def _add_box(
    collector: Collector, name: str, category: str | None, box: list[float], place: str, kind: str | None
) -> None:
    if category is None:
        collector.lose(name, place, UNKNOWN_FINDING)
    elif kind in ("healthy", "sick"):
        collector.lose(name, place, BOX_ON_NORMAL, f"it is in the folder of the {kind}")
    elif is_far_beyond(np.array([box]), (SIDE, SIDE))[0]:
        collector.lose(name, place, FAR_BEYOND, f"{box} in {SIDE} x {SIDE}")
    else:
        collector.box(name, collector.category(category), box, place)


def _read_xml(collector: Collector, files: Sequence[Path]) -> None:
    """The radiographs of the lists, or all where there is none, with the boxes of their XML files."""
    split_of = _listed(collector)
    # A list of the test set alone says nothing of the others.
    has_lists, boxes_of = not {TRAIN, VAL}.isdisjoint(split_of.values()), _boxes_in_xml(collector, files)
    table = [box for _, boxes in boxes_of.values() for _, box, _ in boxes]
    known = set(collector.files.ids.values())
    for stem in sorted(boxes_of.keys() - known):
        collector.leave_out(f"{stem}.xml", reasons.MISSING_FILE, f"{stem}.png")
    check_units(files[0].parent, np.array(table, dtype=np.float64).reshape(-1, 4), (SIDE, SIDE), _UNITS_OF_XML)
    for name in split_of if has_lists else collector.files.names:
        kind, (fault, boxes) = _kind_of(name), boxes_of.get(collector.files.ids[name], ((), []))
        if kind == "extra":
            collector.set_aside(name, OTHER_SET)
            continue
        split = split_of.get(name, TEST if kind == "test" else TRAIN)
        _describe(collector, name, split, kind, bool(boxes))
        if fault:
            collector.lose(name, f"{source_id(name)}.xml", *fault)
        for place, box, category in boxes:
            _add_box(collector, name, category, box, place, kind)


def _listed(collector: Collector) -> dict[str, str]:
    """File → split, of the lists that are there."""
    split_of: dict[str, str] = {}
    paths = {split: one_table(collector.root, *names) for split, names in _LISTS.items()}
    if not (paths[TRAIN] or paths[VAL]):
        paths[TRAIN] = one_table(collector.root, "TBX11K_trainval.txt", "all_trainval.txt")
    for split, path in paths.items():
        if path is None:
            continue
        content = path.read_bytes()
        collector.read(content)
        for line, text in enumerate(content.decode("utf-8-sig", "replace").splitlines(), 1):
            place, folder = f"{path.name} line {line}", PurePosixPath(text.strip()).parent.name
            if not text.strip() or _kind_of(text.strip()) == "extra":
                continue
            name = collector.file_of(text.strip(), place, near=folder)
            if name is not None and split_of.setdefault(name, split) != split:
                collector.lose(name, place, reasons.CONTRADICTORY, f"it is in {split_of[name]}, too")
    return split_of


_Boxes = list[tuple[str, list[float], str | None]]
"""Place, box in pixels of SIDE x SIDE, and category, None for one that is none."""


def _boxes_in_xml(collector: Collector, files: Sequence[Path]) -> dict[str, tuple[tuple[str, ...], _Boxes]]:
    """Id of a radiograph → what is wrong with its XML file, and its boxes."""
    found: dict[str, tuple[tuple[str, ...], _Boxes]] = {}
    for path in files:
        try:
            tree, content = read_xml(path)
        except ValueError as error:
            found[path.stem] = ((UNREADABLE_XML, str(error)), [])
            continue
        collector.read(content)
        size = size_in(tree)
        boxes: _Boxes = []
        for number, each in enumerate(tree.iterfind("object")):
            corners = corners_in(each, "bndbox") or [float("nan")] * 4
            category = (each.findtext("name") or "").strip()
            scale = [SIDE / side for side in size or (float("nan"),) * 2]
            scaled = [value * scale[axis % 2] for axis, value in enumerate(corners)]
            boxes.append((f"{path.name} object {number}", scaled, category if category in _NAMES else None))
        found[path.stem] = ((NO_SIZE,) if boxes and size is None else (), boxes)
    return found


def _read_simplified(collector: Collector, path: Path) -> None:
    """data.csv of the simplified edition: a row a box, or a radiograph without one."""
    table, content = read_table(path, ["fname", "bbox", "image_type"], ["source", "tb_type"])
    collector.read(content)
    corners = [_simple_box(text) for text in table["bbox"].tolist()]
    given = [box for box in corners if box is not None]
    check_units(path, np.array(given, dtype=np.float64).reshape(-1, 4), (SIDE, SIDE), _UNITS)
    n = len(table)
    sources, types = (table[name].tolist() if name in table.columns else [""] * n for name in ("source", "tb_type"))
    rows = zip(table["fname"], table["image_type"], sources, types, corners, table["line"], strict=True)
    known: dict[str, tuple[str | None, str]] = {}
    for image, image_type, source, tb_type, box, line in rows:
        place, split = f"{path.name} line {line}", {"val": VAL, "test": TEST}.get(source.casefold(), TRAIN)
        if not image and box is not None:
            raise InputError(f"{path} line {line} has a box but no fname: write the fname there, or delete the row")
        if not image or (name := collector.file_of(image, place)) is None:
            continue
        kind = _KINDS.get(plain_name(image_type))
        if kind is None:
            collector.lose(name, place, UNKNOWN_FINDING, shown(image_type))
            continue
        if known.setdefault(name, (kind, split)) != (kind, split):
            collector.lose(
                name, place, reasons.CONTRADICTORY, f"it is {image_type} of {source or TRAIN} here, and not before"
            )
        _describe(collector, name, split, kind, box is not None)
        if box is not None:
            _add_box(collector, name, _TYPES.get(plain_name(tb_type)), box, place, kind)


def _simple_box(text: str) -> list[float] | None:
    """ "{'xmin': …, 'ymin': …, 'width': …, 'height': …}" → x1, y1, x2, y2, NaN where it is none; None for "none"."""
    if is_missing(text):
        return None
    try:
        entry: Any = ast.literal_eval(text)
        x, y, width, height = (as_number(entry[key]) for key in ("xmin", "ymin", "width", "height"))
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        return [float("nan")] * 4
    return [x, y, x + width, y + height]


def _xyxy(bbox: Any) -> list[float]:
    """COCO's box → x1, y1, x2, y2; NaN for what is none."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return [float("nan")] * 4
    corners: list[float] = xywh_to_xyxy(np.array([[as_number(value) for value in bbox]]))[0].tolist()
    return corners


def _id_of(entry: Any, key: str) -> int | str | None:
    try:
        return identity(entry[key])
    except (TypeError, KeyError, ValueError):
        return None


def _kind_of(name: str) -> str | None:
    """What the folders of a file say of its radiograph; None where they say nothing."""
    folders = PurePosixPath(name.replace("\\", "/")).parts[:-1]
    return next((_KINDS[part] for part in map(plain_name, reversed(folders)) if part in _KINDS), None)
