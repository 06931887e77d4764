"""Pascal VOC trees: an XML file for each picture → a source.

`Annotations/`, `JPEGImages/` and `ImageSets/Main/{train,val,test}.txt`, or XML files beside their pictures, as LabelImg
and Roboflow write them; then the folders train/, valid/ and test/ are the splits.

What the corners of a box mean differs by at most a pixel. In VOC itself they are pixels, counted from 1, of which the
last is inside: x1 = xmin - 1, x2 = xmax. supervision adds 1 to edges. LabelImg, CVAT (datumaro), Label Studio and
Roboflow write edges as they are (LabelImg makes 0 a 1). The file's <database> tells them apart.
"""

import posixpath
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element

from xray.datasets import source as reasons
from xray.datasets.source import TEST, TRAIN, VAL, Source, relative_name
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.normal_names import NormalNames
from xray.datasets.sources.object_review import IGNORED, REVIEWED, withheld_by
from xray.datasets.sources.splits import split_of_folder
from xray.datasets.sources.trees.parts import (
    NOT_IN_TREE,
    UNREADABLE_XML,
    Original,
    read_originals,
    read_sizes,
    read_xml,
    root_tag,
)
from xray.datasets.sources.trees.shapes import around, turned_rectangle
from xray.datasets.sources.trees.voc_objects import (
    EXACT,
    Corners,
    corners_in,
    degrees_of,
    in_original,
    is_marked,
    offsets_of,
    polygon_of,
    said_of,
    size_in,
    text_of,
)
from xray.datasets.sources.trees.whole import WholeLabels
from xray.errors import InputError
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.names import is_inside, leads_out
from xray.radiographs.radiograph import source_id

Difficult = Literal["keep", "ignore"]

NOT_IN_SETS = "annotation that no list of ImageSets/Main names"
NO_XML = "picture of a list without an annotation file"
DIFFICULT = "objects marked as difficult, taken as any other"
DIFFICULT_LEFT = "object marked as difficult"
PARTS = "parts of an object, not read"
TWO_PICTURES = "annotation file whose own name and <filename> are two pictures"
LABELS = "labelmap.txt"
_MOST_LOOKED_AT = 50


def find_voc(root: Path) -> list[Path]:
    """The XML files of VOC annotations in a tree; empty where the first ones are none."""
    found = sorted(path for path in root.rglob("*.xml") if not path.name.startswith(".") and is_inside(path, root))
    files = [path for path in found if path.is_file()]
    return files if any(root_tag(path) == "annotation" for path in files[:_MOST_LOOKED_AT]) else []


def read_voc_tree(root: Path, files: list[Path], difficult: Difficult, corners: Corners, normal: NormalNames) -> Source:
    """Reads the XML files that `find_voc` found.

    difficult: keep takes such objects as any other; ignore leaves them out, and a detection of their category in that
        radiograph is then neither right nor wrong.
    corners: what a box's corners are, pixels as in VOC itself, or edges; auto decides as described above.
    normal: names that mean that nothing was found.

    A picture without XML is no part of the set. Where <size> has the picture's aspect, boxes are in its pixels.
    Raises InputError where one picture is in two lists of ImageSets, and where nothing is left.
    """
    with_pictures = [folder for folder in ("JPEGImages", "images") if (root / folder).is_dir()]
    is_voc = (root / "JPEGImages").is_dir()
    collector = Collector("tree", root, layout="voc", folders=with_pictures if is_voc else ())
    collector.read(f"{difficult} {corners}".encode())
    lists = _read_lists(root)
    originals = read_originals(collector)
    used: dict[str, Path] = {}
    trees: list[tuple[str, Path, Element]] = []
    for path in files:
        place = relative_name(path, root)
        if lists is not None and path.stem not in lists:
            collector.leave_out(place, NOT_IN_SETS)
            continue
        try:
            tree, content = read_xml(path)
        except (ValueError, OSError) as error:
            _lose_picture(collector, path, place, UNREADABLE_XML, str(error))
            continue
        if tree.tag != "annotation":
            continue
        collector.read(content)
        name = _picture_of(collector, path, tree, place)
        if name is None:
            continue
        if name in used:
            collector.lose(name, place, reasons.DUPLICATE, f"{relative_name(used[name], root)} is of the same picture")
            continue
        used[name] = path
        trees.append((name, path, tree))
    for stem in sorted(set(lists or ()) - {path.stem for path in files}):
        collector.leave_out(stem, NO_XML)
    # Categories in the order of the tree's list, or else of their names: that of the files says nothing.
    named = {text_of(each, "name") for _, _, tree in trees for each in tree.iterfind("object")} - {""}
    listed = _listed_labels(root, named, collector)
    whole = WholeLabels(collector, [*listed, *sorted(named)], normal)
    for category in [*listed, *sorted(named)]:
        if not whole.is_normal(category):
            collector.category(category)
    sizes = read_sizes(collector, (name for name, _, _ in trees))
    for name, path, tree in trees:
        split = (lists or {}).get(path.stem) if lists is not None else split_of_folder(relative_name(path, root))
        known = originals.get(name, Original())
        _read_tree(collector, name, path, tree, split or TRAIN, known, sizes.get(name), difficult, corners, whole)
    whole.finish()
    return collector.source(NOT_IN_TREE)


def _read_lists(root: Path) -> dict[str, str] | None:
    """Stem of each annotation in ImageSets/Main → its split; None where there are no such lists."""
    folder = next((path for path in sorted(root.glob("ImageSets/Main")) if path.is_dir()), root / "ImageSets")
    result: dict[str, str] = {}
    found = False
    for name, split in (("train", TRAIN), ("val", VAL), ("test", TEST), ("trainval", TRAIN)):
        path = folder / f"{name}.txt"
        if not path.is_file() or leads_out(path, root):
            continue
        found = True
        for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
            words = line.split()
            # Lists of a class have 1, 0 or -1 behind the name.
            stem = source_id(words[0].replace("\\", "/").rpartition("/")[2]) if words else ""
            if not stem or (name == "trainval" and stem in result):
                continue
            if result.setdefault(stem, split) != split:
                raise InputError(
                    f"{stem} is in two lists of {folder}, for {result[stem]} and {split}: take it out of one of them"
                )
    return result if found else None


def _listed_labels(root: Path, used: set[str], collector: Collector) -> list[str]:
    """The names in labelmap.txt (`name:colour:parts:actions`), which CVAT writes, and xray."""
    path = root / LABELS
    if not path.is_file() or leads_out(path, root):
        return []
    content = path.read_bytes()
    collector.read(content)
    lines = [line.strip() for line in content.decode("utf-8-sig", "replace").splitlines()]
    names = [line.rsplit(":", 3)[0].strip() for line in lines if line and not line.startswith("#")]
    return [name for name in names if name and (name in used or name != "background")]


def _picture_of(collector: Collector, path: Path, tree: Element, place: str) -> str | None:
    """The picture of an XML file: the one of its own name, in its folder or anywhere; or else its <filename>."""
    folder = relative_name(path.parent, collector.root) if path.parent != collector.root else ""
    given = text_of(tree, "filename").replace("\\", "/").rpartition("/")[2]
    beside = [name for name in collector.files.names if name.rpartition("/")[0] == folder] if folder else []
    by_stem = [name for name in beside if source_id(name.rpartition("/")[2]) == path.stem] or [
        name for name in collector.files.meant_by(path.stem) if source_id(name.rpartition("/")[2]) == path.stem
    ]
    by_name = collector.files.meant_by(given) if given else []
    if len(by_stem) > 1:
        # One stem, several suffixes or folders: <filename> says which.
        by_stem = [name for name in by_stem if name in by_name] or by_stem
        # train/annotations/1.xml is of train/images/1.png, and annotations/train/1.xml of images/train/1.png.
        split = split_of_folder(place)
        by_stem = [name for name in by_stem if split and split_of_folder(name) == split] or by_stem
        shared = {name: len(posixpath.commonpath([f"/{name}", f"/{place}"])) for name in by_stem}
        by_stem = [name for name in by_stem if shared[name] == max(shared.values())]
    if len(by_stem) == 1:
        if given and source_id(given) != path.stem and by_name and by_stem[0] not in by_name:
            for name in (*by_stem, *by_name):
                collector.lose(name, place, TWO_PICTURES, f"{by_stem[0]} and {by_name[0]}")
            return None
        return by_stem[0]
    return collector.file_of(given if not by_stem and given else path.stem, place)


def _lose_picture(collector: Collector, path: Path, place: str, reason: str, detail: str) -> None:
    names = collector.files.meant_by(path.stem)
    if len(names) == 1:
        collector.lose(names[0], place, reason, detail)
    else:
        collector.leave_out(place, reason, detail)


def _read_tree(
    collector: Collector,
    name: str,
    path: Path,
    tree: Element,
    split: str,
    known: Original,
    of_file: tuple[int, int] | None,
    difficult: Difficult,
    corners: Corners,
    whole: WholeLabels,
) -> None:
    place = relative_name(path, collector.root)
    size = size_in(tree)
    collector.describe(name, split=split, **({"size": size} | known.facts(of_file) if known.size else {"size": size}))
    offsets = offsets_of(tree, corners)
    doubtful = []
    everything = list(tree.iterfind("object"))
    objects = [each for each in everything if not withheld_by(said_of(each))]
    marked = [text_of(each, "name") for each in objects if whole.is_normal(text_of(each, "name"))]
    whole.add(name, (), len(objects) - len(marked), place, marked)
    for number, each in enumerate(everything):
        where = f"{place} object {number}"
        if why := withheld_by(said_of(each)):
            collector.leave_out(where, REVIEWED, why, IGNORED)
            continue
        if whole.is_normal(text_of(each, "name")):
            continue
        category = collector.categories.get(text_of(each, "name"))
        if category is None:
            collector.lose(name, where, reasons.UNKNOWN_CLASS, "an object without a name")
            continue
        if each.find("part") is not None:
            collector.warnings.append(FileWarning(PARTS, where))
        if is_marked(each, "difficult"):
            if difficult == "ignore":
                collector.leave_out(where, DIFFICULT_LEFT)
                doubtful.append(category)
                continue
            collector.warnings.append(FileWarning(DIFFICULT, where))
        box = corners_in(each, "bndbox")
        if box is None:
            collector.lose(name, where, reasons.NOT_A_NUMBER, "no bndbox with four numbers")
            continue
        edges = [box[0] + offsets.first, box[1] + offsets.first, box[2] + offsets.last, box[3] + offsets.last]
        polygon = polygon_of(each)
        if polygon is None and (degrees := degrees_of(each)):
            center = ((edges[0] + edges[2]) / 2, (edges[1] + edges[3]) / 2)
            polygon = turned_rectangle((edges[0], edges[1], edges[2], edges[3]), degrees, center)
            edges = list(around(polygon))
        if known.size is not None:
            edges, polygon = in_original(edges, polygon, corners_in(each, EXACT), size or of_file, known.size)
        collector.box(name, category, edges, where, mask=None if polygon is None else [polygon])
    if doubtful:
        # Beside other boxes of their category, too.
        collector.describe(name, unlocated=doubtful, elsewhere=doubtful)
    whole.withhold(name, [text_of(each, "name") for each in everything if withheld_by(said_of(each))])
