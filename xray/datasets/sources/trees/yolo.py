"""YOLO trees: data.yaml, pictures, and a text file of labels for each → a source, as Ultralytics understands them.

Older ones have obj.data and obj.names (Darknet, CVAT), or classes.txt (LabelImg, Label Studio) in place of data.yaml.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xray.datasets import source as reasons
from xray.datasets.source import SPLITS, TEST, TRAIN, VAL, Source, relative_name
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.splits import split_of_folder
from xray.datasets.sources.table_boxes import SHARE, Reading, fits_better
from xray.datasets.sources.trees.parts import NOT_IN_TREE, located, read_originals, read_sizes
from xray.datasets.sources.trees.shapes import Corners
from xray.datasets.sources.trees.yolo_lines import BEYOND, LineError, read_line
from xray.errors import InputError
from xray.files import read_yaml_text
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.names import is_inside, leads_out
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

YAML_LENGTH = 1_000_000
_KEYS = {TRAIN: ("train",), VAL: ("val", "valid", "validation"), TEST: ("test",)}
_NO_LABELS = (
    "classes.txt", "notes.txt", "readme.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "trainval.txt",
    "obj.names", "requirements.txt", "predefined_classes.txt", "labels.txt", "readme.dataset.txt",
    "readme.roboflow.txt",
)  # fmt: skip
_NAMES_FILES = ("classes.txt", "obj.names", "predefined_classes.txt", "labels.txt")


@dataclasses.dataclass
class _Tree:
    """What describes a tree. names: class number → name. splits: split → folders or lists of pictures, as written."""

    file: Path
    names: dict[int, str]
    splits: dict[str, list[str]]
    bases: list[Path]


def find_yolo(root: Path) -> Path | None:
    """The file that describes a YOLO tree: data.yaml, another YAML file with names, obj.data, or a list of names."""
    for folder in (root, *_folders(root)):
        yamls = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")], key=lambda path: path.name != "data.yaml")
        for path in yamls:
            content = _yaml(path) if is_inside(path, root) else None
            # A file of the known name is one, damaged or not: that its reader says.
            if path.name == "data.yaml" or (isinstance(content, dict) and "names" in content):
                return path
        for name in ("obj.data", *_NAMES_FILES):
            if (folder / name).is_file() and is_inside(folder / name, root) and _has_labels(folder):
                return folder / name
    return None


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _has_labels(folder: Path) -> bool:
    names = (path for path in folder.rglob("*.txt") if path.name.lower() not in _NO_LABELS)
    return any(map(_is_of_labels, itertools.islice(names, 200)))


def _is_of_labels(path: Path) -> bool:
    """Whether the first line of a text file is a class and four numbers or more."""
    try:
        with open(path, encoding="utf-8") as file:
            words = next((line.split() for line in file if line.strip()), [])
        return len(words) > 4 and len([float(word) for word in words]) > 4
    except (OSError, ValueError):
        return False


def _yaml(path: Path) -> Any:
    try:
        return read_yaml_text(path, "data.yaml", "give the tree's root", YAML_LENGTH)
    except InputError:
        return None


def read_yolo_tree(root: Path, file: Path) -> Source:
    """Reads the tree that `file`, which `find_yolo` found, describes.

    A picture's labels are where Ultralytics looks: its path with the last /images/ made /labels/ and the suffix .txt;
    or else beside it. A picture without a label file, or with an empty one, has no findings; a split of which no
    picture has one is not labelled, and left out. Pictures in no split are left out. Where two splits are the same
    pictures the first of train, val and test counts; a single picture in two belongs to the later one, so that no test
    picture is trained on.

    Raises InputError for a tree without names or without labels, for label files of predictions and poses, and where
    all coordinates are pixels.
    """
    collector = Collector("tree", root, layout="yolo")
    tree = _describe(file, root)
    for number in sorted(tree.names):
        collector.category(tree.names[number])
    if len(collector.categories) < len(tree.names):
        raise InputError(f"{file} has two classes of one name: rename one of them")
    collector.read(file.read_bytes())
    categories = [collector.categories.get(tree.names.get(number, "")) for number in range(max(tree.names) + 1)]
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
            read, beyond = _read_labels(collector, path, name, size, categories, upright)
            n_lines, n_beyond = n_lines + read, n_beyond + beyond
    if n_beyond == n_lines > 0:
        raise InputError(
            f"all coordinates in the label files of {root} lie beyond the picture, as if they were pixels: YOLO's are "
            "shares of the picture's width and height, divide by these"
        )
    _refuse_corners(upright, root)
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


def _describe(file: Path, root: Path) -> _Tree:
    if file.suffix in (".yaml", ".yml"):
        return _of_yaml(file, root)
    if file.name == "obj.data":
        lines = (line.partition("=") for line in _lines(file))
        values = {key.strip(): value.strip() for key, _, value in lines}
        names = located(values.get("names", "obj.names"), [file.parent, root], root)
        if names is None:
            raise InputError(f"{file} names {values.get('names')}, which is not in {root}: put it there")
        splits = {split: [values[key]] for split, keys in _KEYS.items() for key in keys if key in values}
        return _Tree(file, _names(_lines(names), names), splits, [file.parent, root])
    return _Tree(file, _names(_lines(file), file), {}, [file.parent, root])


def _of_yaml(file: Path, root: Path) -> _Tree:
    content = read_yaml_text(file, "data.yaml", "give the tree's root", YAML_LENGTH)
    if not isinstance(content, dict):
        raise InputError(f"{file} describes no tree: it needs names, and train, val or test")
    if content.get("kpt_shape") is not None:
        raise InputError(f"{file} describes poses (kpt_shape), whose labels are not read: give boxes or outlines")
    splits: dict[str, list[str]] = {}
    for split, keys in _KEYS.items():
        value = next((content[key] for key in keys if content.get(key)), None)
        if value is not None:
            splits[split] = [str(each) for each in (value if isinstance(value, list) else [value])]
    bases = [file.parent, root]
    if isinstance(content.get("path"), str):
        base = located(content["path"], [file.parent, root], root)
        bases = [*([base] if base is not None and base.is_dir() else []), *bases]
    return _Tree(file, _names(content.get("names"), file), splits, bases)


def _names(value: Any, file: Path) -> dict[int, str]:
    """Class number → name. Raises InputError where there are none, or their numbers are none."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    try:
        names = {whole_number(key): "" if name is None else str(name).strip() for key, name in value.items()}
    except (AttributeError, ValueError):
        names = {}
    if not names or any(number is None or not 0 <= number < 10_000 for number in names) or not all(names.values()):
        raise InputError(f"{file} has no names of classes: it needs a list of them, or numbers from 0 with their names")
    return {number: name for number, name in names.items() if number is not None}


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): it should be a text file") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _pictures(collector: Collector, tree: _Tree) -> dict[str, str]:
    """Name of each picture of the tree → its split."""
    if not tree.splits:
        return {name: split_of_folder(name) or TRAIN for name in collector.files.names}
    of_split: dict[str, list[str]] = {}
    for split in SPLITS:
        places = tree.splits.get(split, [])
        found = [_listed(collector, place, tree) for place in places]
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


def _listed(collector: Collector, place: str, tree: _Tree) -> list[str] | None:
    """The pictures of a folder, or of a text file of paths; None where there is no such thing."""
    path = located(place, tree.bases, collector.root)
    if path is None:
        return None
    if path.is_dir():
        folder = "" if path.resolve() == collector.root.resolve() else f"{_name(path, collector.root)}/"
        return [name for name in collector.files.names if name.startswith(folder)]
    names = []
    for line in _lines(path):
        picture = located(line, [path.parent, *tree.bases], collector.root)
        name = None if picture is None else _name(picture, collector.root)
        if name in collector.paths:
            names.append(name)
        else:
            collector.leave_out(_name(path, collector.root), NOT_IN_LIST, line)
    return names


def _name(path: Path, root: Path) -> str:
    return relative_name(path, root) if path.is_relative_to(root) else relative_name(path.resolve(), root.resolve())


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
    categories: list[int | None],
    upright: list[Corners],
) -> tuple[int, int]:
    """Enters the labels of a picture, and its boxes in `upright`, too.

    Returns how many lines there were, and how many beyond the picture.
    """
    where = _name(path, collector.root)
    content = path.read_bytes()
    collector.read(content)
    n_lines = n_beyond = 0
    for number, text in enumerate(content.decode("utf-8-sig", "replace").splitlines(), 1):
        if not text.strip():
            continue
        place = f"{where} line {number}"
        n_lines += 1
        try:
            line = read_line(text, len(categories), place)
            category = categories[line.number]
            if category is None:
                raise LineError(reasons.UNKNOWN_CLASS, f"class {line.number} has no name")
        except LineError as error:
            n_beyond += error.reason == BEYOND
            collector.lose(name, place, error.reason, error.detail)
            continue
        if line.polygon is None:
            upright.append(line.corners)
        mask = None if line.polygon is None else [_in_pixels(line.polygon, size)]
        collector.box(name, category, _in_pixels(line.corners, size), place, mask=mask)
    return n_lines, n_beyond


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
        is_of_labels = "/labels/" in f"/{name}" and path.name.lower() not in _NO_LABELS
        if is_of_labels and path not in used and path.is_file():
            pictures = [stem for stem in collector.files.names if _label_name(stem) == name]
            if not pictures:
                collector.leave_out(name, LABELS_ALONE)
            if not pictures and (picture := without.get(path.stem)) is not None:
                collector.lose(picture, picture, LABELS_ELSEWHERE, name)
