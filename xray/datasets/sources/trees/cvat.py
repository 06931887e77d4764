"""CVAT's own XML, "CVAT for images 1.1": boxes, polygons, masks, ellipses and tags of all pictures of a task.

Coordinates are edges in pixels, from 0. A box may be turned, clockwise about its centre. A mask is run lengths along
the rows of its own box, clear pixels first. Tags are labels of the whole picture. <image subset="…"> is its split.
"""

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from xray.datasets import source as reasons
from xray.datasets.source import TRAIN, Source, relative_name
from xray.datasets.sources.coco_images import MALFORMED
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.normal_names import NormalNames
from xray.datasets.sources.object_review import IGNORED, REVIEWED, withheld_by
from xray.datasets.sources.splits import split_named, split_of_folder
from xray.datasets.sources.trees.parts import NOT_IN_TREE, read_xml, root_tag
from xray.datasets.sources.trees.shapes import Corners, Polygon, around, coordinate, ellipse, turned_rectangle
from xray.datasets.sources.trees.whole import WholeLabels
from xray.errors import InputError
from xray.radiographs.canvas import MAX_PIXELS
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.names import is_inside
from xray.structures.masks import encode_pixels
from xray.structures.values import shown, whole_number

NO_AREA = "lines, points and skeletons, which have no area: their label is known to be there, not where"
OTHER_SHAPE = "shape of a kind that is not known"
_WITHOUT_AREA = ("polyline", "points", "skeleton", "cuboid")
_SHAPES = ("box", "polygon", "mask", "ellipse")


def find_cvat(root: Path) -> list[Path]:
    """CVAT's XML files at the root of a tree, or one or two folders below."""
    found = [path for pattern in ("*.xml", "*/*.xml", "*/*/*.xml") for path in sorted(root.glob(pattern))[:50]]
    return [path for path in found if is_inside(path, root) and root_tag(path) == "annotations"]


def read_cvat_tree(root: Path, files: Sequence[Path], normal: NormalNames) -> Source:
    """Reads all files that `find_cvat` found; a picture that none of them lists is no part of the set.

    normal: labels that mean that nothing was found. A listed picture without shapes has no findings.
    Raises InputError for what is no XML, for tracks of videos, and where nothing is left.
    """
    collector = Collector("tree", root, layout="cvat")
    images: list[tuple[Path, Element]] = []
    labels: dict[str, None] = {}
    for file in files:
        try:
            tree, content = read_xml(file)
        except ValueError as error:
            raise InputError(f"{file} cannot be read: {error}: export it again") from None
        if tree.find("track") is not None:
            raise InputError(f"{file} has tracks of a video: export it as `CVAT for images 1.1`")
        collector.read(content)
        labels |= dict.fromkeys((each.text or "").strip() for each in tree.iterfind("meta//labels/label/name"))
        images += [(file, image) for image in tree.iterfind("image")]
    shapes = [each for _, image in images for each in image if each.tag in (*_SHAPES, *_WITHOUT_AREA, "tag")]
    used = dict.fromkeys(sorted({each.get("label", "").strip() for each in shapes}))
    whole = WholeLabels(collector, [label for label in (*labels, *used) if label], normal)
    for label in [*labels, *used]:
        if label and not whole.is_normal(label):
            collector.category(label)
    seen: set[str] = set()
    for file, image in images:
        place = f"{relative_name(file, root)} image {image.get('id', '?')}"
        name = collector.file_of(image.get("name", ""), place)
        if name is None:
            continue
        if name in seen:
            collector.lose(name, place, reasons.DUPLICATE, "the picture is listed twice")
            continue
        seen.add(name)
        _read_image(collector, name, image, place, whole)
    whole.finish()
    return collector.source(NOT_IN_TREE)


def _read_image(collector: Collector, name: str, image: Element, place: str, whole: WholeLabels) -> None:
    split = split_named(image.get("subset", "")) or split_of_folder(name) or TRAIN
    try:
        width, height = (whole_number(image.get(side)) for side in ("width", "height"))
    except ValueError:
        width = height = None
    size = (width, height) if width and height and 0 < width * height <= MAX_PIXELS else None
    collector.describe(name, split=split, size=size)
    tags = [each.get("label", "").strip() for each in image.iterfind("tag") if not _withheld(each)]
    for each in image.iterfind("tag"):
        if why := _withheld(each):
            collector.leave_out(f"{place} tag", REVIEWED, why, "label ignored")
    n_shapes = 0
    marked: list[str] = []
    for each in image:
        if each.tag not in (*_SHAPES, *_WITHOUT_AREA, "tag") and each.get("label") is not None:
            collector.lose(name, f"{place} {each.tag}", OTHER_SHAPE, shown(each.get("label")))
    for number, each in enumerate(each for each in image if each.tag in (*_SHAPES, *_WITHOUT_AREA)):
        where = f"{place} {each.tag} {number}"
        label = each.get("label", "").strip()
        if why := _withheld(each):
            collector.leave_out(where, REVIEWED, why, IGNORED)
            continue
        if whole.is_normal(label):
            marked.append(label)
            continue
        n_shapes += 1
        category = collector.categories.get(label)
        if category is None:
            collector.lose(name, where, reasons.UNKNOWN_CLASS, shown(each.get("label")))
            continue
        if each.tag in _WITHOUT_AREA:
            # What somebody has marked is there; without a box it must not become background.
            collector.warnings.append(FileWarning(NO_AREA, where, label))
            tags.append(label)
            continue
        try:
            corners, mask = _shape(each, size)
        except (ValueError, ArithmeticError) as error:
            collector.lose(name, where, MALFORMED, str(error))
            continue
        collector.box(name, category, corners, where, mask=mask)
    whole.add(name, tags, n_shapes, place, marked)
    whole.withhold(name, [each.get("label", "").strip() for each in image if _withheld(each)])


def _withheld(each: Element) -> str:
    """The attribute by which a shape or tag does not count; empty where it does."""
    return withheld_by({part.get("name", ""): (part.text or "").strip() for part in each.iterfind("attribute")})


def _shape(each: Element, size: tuple[int, int] | None) -> tuple[Sequence[float], object]:
    """The upright box around a shape, and its mask if it is none itself. Raises ValueError."""
    degrees = _number(each, "rotation", 0.0)
    if each.tag == "box":
        corners: Corners = (_number(each, "xtl"), _number(each, "ytl"), _number(each, "xbr"), _number(each, "ybr"))
        if not degrees % 360:
            return corners, None
        center = ((corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2)
        polygon: Polygon = turned_rectangle(corners, degrees, center)
        return around(polygon), [polygon]
    if each.tag == "ellipse":
        radii = (_number(each, "rx"), _number(each, "ry"))
        polygon, corners = ellipse((_number(each, "cx"), _number(each, "cy")), radii, degrees)
        return corners, [polygon]
    if each.tag == "polygon":
        polygon = [coordinate(value) for point in each.get("points", "").split(";") for value in point.split(",")]
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon needs three points or more")
        return around(polygon), [polygon]
    return _mask(each, size)


def _mask(each: Element, size: tuple[int, int] | None) -> tuple[Sequence[float], object]:
    if size is None:
        raise ValueError("a mask needs the picture's width and height")
    left, top, width, height = (int(_number(each, name)) for name in ("left", "top", "width", "height"))
    runs = [whole_number(run) for run in each.get("rle", "").split(",")]
    inside = left >= 0 and top >= 0 and width > 0 and height > 0 and left + width <= size[0] and top + height <= size[1]
    if not inside or any(run is None or run < 0 for run in runs) or sum(run or 0 for run in runs) > width * height:
        raise ValueError("run lengths that do not fit their box, or a box that does not fit the picture")
    values = np.repeat(np.arange(len(runs)) % 2, np.array(runs, dtype=np.int64)).astype(np.uint8)
    # Clear pixels at the end need not be written.
    part = np.pad(values, (0, width * height - len(values))).reshape(height, width)
    if not part.any():
        raise ValueError("a mask without a pixel")
    pixels = np.zeros((size[1], size[0]), dtype=np.uint8)
    pixels[top : top + height, left : left + width] = part
    columns, rows = np.flatnonzero(part.any(axis=0)), np.flatnonzero(part.any(axis=1))
    corners = (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)
    return [float(corner) for corner in corners], encode_pixels(pixels)


def _number(each: Element, name: str, default: float | None = None) -> float:
    value = each.get(name)
    return default if value is None and default is not None else coordinate(value)
