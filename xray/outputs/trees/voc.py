"""A dataset as Pascal VOC: JPEGImages/, Annotations/, ImageSets/Main/SPLIT.txt, and the labels in labelmap.txt.

Corners are the first and the last pixel of a box, counted from 1, as in VOC itself; all that a box touches is inside.
The exact box in pixels of the original radiograph stands beside them, for xray alone. Pictures are PNG.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from xray.datasets.sources.trees.voc import LABELS
from xray.datasets.sources.trees.voc_objects import EXACT, SIDES, XRAY
from xray.datasets.store import Store
from xray.files import complete
from xray.outputs.trees.plan import Item, Masks, Plan
from xray.radiographs.names import safe_name
from xray.structures.boxes import BoxTable


def write_voc(store: Store, plan: Plan, out: Path, masks: Masks) -> list[str]:
    """Writes annotations and lists; returns what is to be said of them."""
    for folder in ("Annotations", "ImageSets/Main"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    rows_of = store.boxes.rows_by_image()
    for item in plan.items:
        tree = _annotation(store, item, rows_of.get(item.row, []))
        ElementTree.indent(tree)
        with complete(out / "Annotations" / f"{item.name}.xml") as temporary:
            temporary.write_bytes(ElementTree.tostring(tree, encoding="utf-8", xml_declaration=True))
    for split, items in plan.splits.items():
        with complete(out / "ImageSets" / "Main" / f"{split}.txt") as temporary:
            temporary.write_text("".join(f"{item.name}\n" for item in items))
    with complete(out / LABELS) as temporary:
        names = "".join(f"{name}:::\n" for name in store.categories.values())
        temporary.write_text(f"# label:color_rgb:parts:actions\n{names}", encoding="utf-8")
    return [f"{len(store.masks)} masks are not written, which VOC's boxes have no place for"] if store.masks else []


def _annotation(store: Store, item: Item, rows: list[int]) -> ElementTree.Element:
    tree = ElementTree.Element("annotation")
    width, height = item.picture
    _add(tree, "folder", "JPEGImages")
    _add(tree, "filename", f"{item.name}.png")
    _add(ElementTree.SubElement(tree, "source"), "database", XRAY)
    size = ElementTree.SubElement(tree, "size")
    for tag, value in (("width", width), ("height", height), ("depth", 1)):
        _add(size, tag, value)
    _add(tree, "segmented", 0)
    for row in rows:
        each = ElementTree.SubElement(tree, "object")
        _add(each, "name", store.categories[int(store.boxes.labels[row])])
        for tag, content in (("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
            _add(each, tag, content)
        _corners(each, "bndbox", pixels_of(store.boxes.boxes[row], item))
        _corners(each, EXACT, [repr(float(value)) for value in store.boxes.boxes[row]])
    return tree


def pixels_of(box: np.ndarray, item: Item) -> list[int]:
    """x1, y1, x2, y2 in original pixels → xmin, ymin, xmax, ymax: the first and last pixel that it touches, from 1."""
    x1, y1, x2, y2 = (box * item.scale).tolist()
    width, height = item.picture
    first = [min(math.floor(x1) + 1, width), min(math.floor(y1) + 1, height)]
    return [*first, max(min(math.ceil(x2), width), first[0]), max(min(math.ceil(y2), height), first[1])]


def _corners(each: ElementTree.Element, tag: str, values: Sequence[Any]) -> None:
    box = ElementTree.SubElement(each, tag)
    for side, value in zip(SIDES, values, strict=True):
        _add(box, side, value)


def _add(tree: ElementTree.Element, tag: str, value: Any) -> None:
    ElementTree.SubElement(tree, tag).text = str(value)


def voc_predictions(
    store: Store, split: str, items: Sequence[Item], rows: dict[int, list[int]], table: BoxTable, out: Path
) -> None:
    """VOC's results files, one a category: comp4_det_SPLIT_CATEGORY.txt with `name confidence xmin ymin xmax ymax`."""
    out.mkdir(parents=True, exist_ok=True)
    lines: dict[int, list[str]] = {category: [] for category in store.categories}
    for item in items:
        for row in rows.get(item.row, ()):
            x1, y1, x2, y2 = (table.boxes[row] * item.scale).tolist()
            # Edges to pixels counted from 1: the first is 1 to the right of its edge, the last ends at its own.
            corners = f"{x1 + 1:.2f} {y1 + 1:.2f} {x2:.2f} {y2:.2f}"
            lines[int(table.labels[row])].append(f"{item.name} {table.scores[row]:.6f} {corners}\n")
    names = [safe_name(name.replace(" ", "_")) for name in store.categories.values()]
    if len({name.casefold() for name in names}) < len(names):
        # Blanks or case alone tell some of them apart.
        names = [f"{name}-{category}" for name, category in zip(names, store.categories, strict=True)]
    for category, name in zip(store.categories, names, strict=True):
        with complete(out / f"comp4_det_{split}_{name}.txt") as temporary:
            temporary.write_text("".join(lines[category]))
