"""COCO trees: a JSON file for each split (COCO's own layout, Roboflow's, RF-DETR's) → one source.

`annotations/instances_train2017.json` with `train2017/` or `images/train2017/`, or `train/_annotations.coco.json`
beside its pictures; the name of the file or of its folder says the split. Ids count within their file.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xray.datasets.category_map import NORMAL_LABELS
from xray.datasets.naming import source_ids
from xray.datasets.source import Dropped, Source, SourceImage, relative_name
from xray.datasets.sources.coco import source_of
from xray.datasets.sources.coco_annotations import Crowds, Unplaced
from xray.datasets.sources.coco_extras import CocoFile
from xray.datasets.sources.normal_names import NormalNames, refuse_without_findings
from xray.datasets.sources.splits import split_named, split_of
from xray.datasets.sources.trees.parts import NOT_IN_TREE
from xray.errors import InputError
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.names import is_inside
from xray.radiographs.radiograph import find_radiographs
from xray.structures.boxes import BoxTable
from xray.structures.values import caseless

PLACEHOLDER = "category that only names the group of the others, left out"
NOT_ASKED = "categories that a file does not have are unknown in its radiographs"
UNION = "file that repeats those of its splits, not read"
MOST_FILES = 500
"""JSON files whose beginning and keys are looked at."""
_KEYS = (b'"images"', b'"annotations"', b'"categories"')


def find_coco(root: Path) -> list[Path]:
    """The COCO files of a tree: at its root, and one or two folders below; `instances*` alone, where there are such."""
    found = [path for pattern in ("*.json", "*/*.json", "*/*/*.json") for path in sorted(root.glob(pattern))]
    # One for each split, not one for each radiograph.
    found = [path for path in found[:MOST_FILES] if is_inside(path, root) and _is_coco(path)]
    instances = [path for path in found if path.name.startswith("instances")]
    return instances or found


def _is_coco(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            if not file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
                return False
        content = path.read_bytes()
    except OSError:
        return False
    return all(key in content for key in _KEYS)


def read_coco_tree(
    root: Path,
    files: Sequence[Path],
    crowds: Crowds,
    unplaced: Unplaced,
    normal: NormalNames,
) -> Source:
    """Reads all files of `find_coco` as one source.

    Categories are joined by name, in upper or lower case. A category that one file has and another lacks is unknown in
    the radiographs of that other. A file for `trainval` beside ones for both parts is not read. A radiograph in two
    files is refused: it would be in two splits, or half of its annotations in each. normal: categories that mean that
    nothing was found.
    """
    warnings: list[FileWarning] = []
    files = _without_unions(files, root, warnings)
    contents = {file: file.read_bytes() for file in files}
    lists = {file: CocoFile.of(content, file) for file, content in contents.items()}
    lists = _without_placeholders(lists, root, warnings)
    names = {file: _names_in(coco) for file, coco in lists.items()}
    taken = normal.among(dict.fromkeys(name for of_file in names.values() for name in of_file), str(root))
    splits = {file: split_of(relative_name(file, root)) for file in files}
    sources = {
        file: source_of(
            root, file, lists[file], crowds, unplaced, contents[file], _of_file(normal, names[file]),
            _folders(root, file),
        )
        for file in files
    }  # fmt: skip
    _refuse_repeats(sources, root)
    refuse_without_findings([each for source in sources.values() for each in source.categories], taken, str(root))
    result = _joined(sources, splits, warnings)
    result.fingerprint = hashlib.sha256("".join(source.fingerprint for source in sources.values()).encode()).hexdigest()
    result.layout = "coco"
    result.notes = {NORMAL_LABELS: list(taken)} if taken else {}
    used = {image.path for image in result.images}
    named = {drop.where for drop in result.dropped}
    for path in find_radiographs(root, passed_over=result.warnings):
        name = relative_name(path, root)
        if path not in used and name not in named:
            result.dropped.append(Dropped(name, NOT_IN_TREE))
    return result


def _names_in(coco: CocoFile) -> list[str]:
    return [str(entry["name"]) for entry in coco.categories if isinstance(entry, dict) and entry.get("name")]


def _of_file(normal: NormalNames, names: Sequence[str]) -> NormalNames:
    """The same for one file, which need not have all of the chosen labels."""
    if not normal.chosen:
        return normal
    have = {name.casefold() for name in names}
    return dataclasses.replace(normal, chosen=[text for text in normal.chosen if text.casefold() in have] or [""])


def _without_unions(files: Sequence[Path], root: Path, warnings: list[FileWarning]) -> list[Path]:
    unions = [file for file in files if "trainval" in file.stem.casefold()]
    parts = {split_named(file.stem) for file in files if file not in unions}
    if not unions or not {"train", "val"} <= parts:
        return list(files)
    warnings += [FileWarning(UNION, relative_name(file, root)) for file in unions]
    return [file for file in files if file not in unions]


def _folders(root: Path, file: Path) -> list[str]:
    """Where the pictures of a COCO file may be: beside it, in a folder of its own name, in one of its split."""
    beside = "" if file.parent == root else f"{relative_name(file.parent, root)}/"
    kind = file.stem.removeprefix("instances_")
    split = split_of(relative_name(file, root))
    folders = [f"{beside}", f"{kind}/", f"images/{kind}/", f"{beside}images/"]
    for folder in sorted(path for pattern in ("*", "*/*") for path in root.glob(pattern) if path.is_dir()):
        name = relative_name(folder, root)
        if split and split_of(name) == split:
            folders += [f"{name}/", f"{name}/images/"]
    return list(dict.fromkeys([*folders, "", "images/"]))


def _without_placeholders(lists: dict[Path, CocoFile], root: Path, warnings: list[FileWarning]) -> dict[Path, CocoFile]:
    """Without the category that Roboflow writes in front: its name is the others' supercategory, and it has nothing."""
    used: set[str] = set()
    for coco in lists.values():
        ids = {str(row.get("category_id")) for row in coco.annotations if isinstance(row, dict)}
        used |= {_name(entry) for entry in coco.categories if isinstance(entry, dict) and str(entry.get("id")) in ids}
    result = {}
    for file, coco in lists.items():
        entries = [entry for entry in coco.categories if isinstance(entry, dict)]
        kept = coco.categories
        for entry in entries:
            groups = {str(other.get("supercategory")) for other in entries if other is not entry}
            has_rows = _name(entry) in used and not any(
                _name(other) == _name(entry) for other in entries if other is not entry
            )
            if groups == {str(entry.get("name"))} != {str(entry.get("supercategory"))} and not has_rows:
                kept = [other for other in coco.categories if other is not entry]
                warnings.append(FileWarning(PLACEHOLDER, relative_name(file, root), str(entry.get("name"))))
                break
        result[file] = dataclasses.replace(coco, categories=kept)
    return result


def _refuse_repeats(sources: dict[Path, Source], root: Path) -> None:
    first: dict[str, Path] = {}
    for file, source in sources.items():
        for image in source.images:
            other = first.setdefault(image.file_name, file)
            if other is not file:
                listed = " and by ".join(relative_name(one, root) for one in (other, file))
                raise InputError(
                    f"{image.file_name} is listed by {listed}: a radiograph belongs to one split, so remove it from "
                    "one of them, or convert one file alone with `convert coco --annotations`"
                )


def _joined(sources: dict[Path, Source], splits: dict[Path, str | None], warnings: list[FileWarning]) -> Source:
    """One source of several, categories by name."""
    names: dict[str, str] = {}
    own_ids: dict[str, set[int]] = {}
    order: dict[str, tuple[int, int]] = {}
    for number, source in enumerate(sources.values()):
        for category in source.categories:
            key = caseless(category["name"])
            names.setdefault(key, category["name"])
            own_ids.setdefault(key, set()).add(category["source_category_id"])
            order.setdefault(key, (category["source_category_id"], number))
    keys = sorted(names, key=lambda key: order[key])
    new_id = {key: number for number, key in enumerate(keys, 1)}
    # Ids of a file mean the same in all of them, or results that name them cannot be understood.
    all_ids = [own_id for ids in own_ids.values() for own_id in ids]
    is_one_numbering = len(all_ids) == len(set(all_ids)) == len(keys)
    categories: list[dict[str, Any]] = [{"id": new_id[key], "name": names[key]} for key in keys]
    if is_one_numbering:
        for key, category in zip(keys, categories, strict=True):
            category["source_category_id"] = next(iter(own_ids[key]))
    images: list[SourceImage] = []
    tables: list[BoxTable] = []
    readers, places, dropped = [], [], []
    masks: dict[int, Any] = {}
    for file, source in sources.items():
        numbering = {category["id"]: new_id[caseless(category["name"])] for category in source.categories}
        absent = sorted(set(new_id.values()) - set(numbering.values()))
        if absent:
            lacking = ", ".join(names[keys[number - 1]] for number in absent)
            warnings.append(FileWarning(NOT_ASKED, file.name, lacking))
        lookup = np.array([0, *(numbering[number] for number in range(1, len(numbering) + 1))], dtype=np.int64)
        n_rows = sum(len(table) for table in tables)
        masks |= {n_rows + row: mask for row, mask in source.masks.items()}
        boxes = source.boxes
        tables.append(BoxTable(boxes.images + len(images), lookup[boxes.labels], boxes.boxes, boxes.scores))
        readers += source.readers
        places += source.places
        dropped += source.dropped
        warnings += source.warnings
        images += [_renumbered(image, splits[file], numbering, absent) for image in source.images]
    ids = source_ids([image.file_name for image in images])
    images = [dataclasses.replace(image, source_id=one) for image, one in zip(images, ids, strict=True)]
    return Source(
        "tree", "coco", images, BoxTable.concatenate(tables), readers, places, categories, "", masks, dropped, warnings
    )


def _renumbered(image: SourceImage, split: str | None, numbering: dict[int, int], absent: list[int]) -> SourceImage:
    def new(ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(numbering[one] for one in ids)

    labels = None if image.labels is None else new(image.labels)
    # Whoever says that nothing was found says so of all.
    unknown = new(image.unknown) if image.normal else (*new(image.unknown), *absent)
    unlocated, elsewhere = new(image.unlocated), new(image.elsewhere)
    # What a file is called counts before what it says of a radiograph.
    return dataclasses.replace(
        image, split=split or image.split, labels=labels, unknown=unknown, unlocated=unlocated, elsewhere=elsewhere
    )


def _name(entry: dict[str, Any]) -> str:
    return caseless(str(entry.get("name")))
