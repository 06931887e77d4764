"""What describes a YOLO tree: data.yaml, or obj.data and obj.names (Darknet, CVAT), or classes.txt (LabelImg)."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xray.datasets.source import TEST, TRAIN, VAL, relative_name
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.trees.parts import located
from xray.errors import InputError
from xray.files import read_yaml_text
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.names import is_inside
from xray.structures.values import shown, whole_number

OTHER_DESCRIPTION = "description of a tree beside the one that is taken, not read"
YAML_LENGTH = 1_000_000
_KEYS = {TRAIN: ("train",), VAL: ("val", "valid", "validation"), TEST: ("test",)}
NO_LABELS = (
    "classes.txt", "notes.txt", "readme.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "trainval.txt",
    "obj.names", "requirements.txt", "predefined_classes.txt", "labels.txt", "readme.dataset.txt",
    "readme.roboflow.txt",
)  # fmt: skip
_NAMES_FILES = ("classes.txt", "obj.names", "predefined_classes.txt", "labels.txt")


@dataclasses.dataclass
class Description:
    """What describes a tree. names: class number → name. splits: split → folders or lists of pictures, as written."""

    file: Path
    names: dict[int, str]
    splits: dict[str, list[str]]
    bases: list[Path]


def find_yolo(root: Path) -> list[Path]:
    """The files that describe a YOLO tree, the likeliest first; empty where there is none.

    These are YAML files with names, one called data.yaml first; or else obj.data, or a list of names.
    """
    folders = (root, *_folders(root))
    described = []
    for folder in folders:
        files = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")], key=_is_unusual)
        for path in files:
            content = _yaml(path) if is_inside(path, root) else None
            # A file of the known name is one, damaged or not: that its reader says.
            if not _is_unusual(path)[0] or (isinstance(content, dict) and "names" in content):
                described.append(path)
    if described:
        return described
    for folder in folders:
        for name in ("obj.data", *_NAMES_FILES):
            if (folder / name).is_file() and is_inside(folder / name, root) and _has_labels(folder):
                return [folder / name]
    return []


def named_yaml(root: Path, text: str) -> Path:
    """The file of --yaml. Raises InputError where there is none."""
    path = root / text if (root / text).is_file() else Path(text)
    if not path.is_file():
        raise InputError(f"there is no {text}, neither in {root} nor here: check --yaml")
    return path


def _is_unusual(path: Path) -> tuple[bool, str]:
    return path.name != "data.yaml", path.name


def chosen_of(files: Sequence[Path], root: Path, collector: Collector) -> Path:
    """The one of several descriptions that is used: data.yaml at the root, or any where all say the same.

    Those that are not used are named. Raises InputError where the first of them would be a guess.
    """
    first, *others = files
    if others and (_is_unusual(first)[0] or first.parent != root):
        said = {path: _content_of(path, root) for path in files}
        # What describes no tree is not meant.
        other = next((path for path in others if said[path] not in (None, said[first])), None)
        if other is not None:
            names = [content[0] for content in (said[first], said[other]) if content is not None]
            what = "pictures" if len(names) == 2 and names[0] == names[1] else "names"
            raise InputError(
                f"{relative_name(first, root)} and {relative_name(other, root)} in {root} describe trees of other "
                f"{what}: say with --yaml which is meant, or give the folder of one tree as --data-path"
            )
    taken = f"{relative_name(first, root)} is taken; --yaml chooses another"
    collector.warnings += [FileWarning(OTHER_DESCRIPTION, relative_name(path, root), taken) for path in others]
    return first


def _content_of(path: Path, root: Path) -> tuple[dict[int, str], dict[str, list[str]]] | None:
    """Names and pictures; None of a file that describes no tree."""
    try:
        tree = _of_yaml(path, root)
    except InputError:
        return None
    # Seen from the root, so that equal words of two folders are not the same.
    places = {
        split: [str(located(place, tree.bases, root) or place) for place in places]
        for split, places in tree.splits.items()
    }
    return tree.names, places


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _has_labels(folder: Path) -> bool:
    names = (path for path in folder.rglob("*.txt") if path.name.lower() not in NO_LABELS)
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


def describe(file: Path, root: Path) -> Description:
    if file.suffix in (".yaml", ".yml"):
        return _of_yaml(file, root)
    if file.name == "obj.data":
        lines = (line.partition("=") for line in lines_of(file))
        values = {key.strip(): value.strip() for key, _, value in lines}
        names = located(values.get("names", "obj.names"), [file.parent, root], root)
        if names is None:
            raise InputError(f"{file} names {values.get('names')}, which is not in {root}: put it there")
        splits = {split: [values[key]] for split, keys in _KEYS.items() for key in keys if key in values}
        return Description(file, _names(lines_of(names), names), splits, [file.parent, root])
    return Description(file, _names(lines_of(file), file), {}, [file.parent, root])


def _of_yaml(file: Path, root: Path) -> Description:
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
    return Description(file, _names(content.get("names"), file), splits, bases)


def _names(value: Any, file: Path) -> dict[int, str]:
    """Class number → name. Raises InputError where there are none, or their numbers are none."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    try:
        names = {whole_number(key): _name_of(name, file) for key, name in value.items()}
    except (AttributeError, ValueError):
        names = {}
    if not names or any(number is None or not 0 <= number < 10_000 for number in names) or not all(names.values()):
        raise InputError(f"{file} has no names of classes: it needs a list of them, or numbers from 0 with their names")
    return {number: name for number, name in names.items() if number is not None}


def _name_of(name: Any, file: Path) -> str:
    """Raises InputError for true and false, as YAML reads yes, no, on and off, and for lists."""
    if isinstance(name, bool | list | dict):
        raise InputError(f"{file}: the name of a class is {shown(name)}: write it in quotation marks")
    return "" if name is None else str(name).strip()


def lines_of(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): it should be a text file") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
