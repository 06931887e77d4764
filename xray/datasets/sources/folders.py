"""Radiographs sorted into a folder for each class (as Kaggle's chest X-ray pneumonia set) → a source with labels.

Layouts: `CLASS/…`; or `train/CLASS/…`, `val/CLASS/…`, `test/CLASS/…`, which become the splits of these names. Only
training folders are dealt into folds. The validation folder of the best known set holds 16 radiographs, too few to
choose a model by: `train --fold auto` then holds back a fold.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xray.datasets.naming import source_ids
from xray.datasets.normal_words import sounds_normal
from xray.datasets.source import COPY, Dropped, Source, SourceImage, data_root, listed
from xray.datasets.source import SPLITS as ORDER
from xray.datasets.sources.mask_account import tracked
from xray.datasets.sources.mask_folders import without_masks
from xray.datasets.sources.patients import name_patients
from xray.errors import InputError
from xray.radiographs.file_kinds import LINK, Content, content_of
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.names import LINK_OUT, WHAT_TO_DO
from xray.radiographs.radiograph import SUFFIXES, find_radiographs
from xray.structures.boxes import BoxTable

SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Names of folders that divide the set, and the split that each becomes."""

NO_CLASS = "file outside the class folders"
NO_SPLIT = "folder beside the splits"
EMPTY_FOLDER = "folder without radiographs"
TWO_CLASSES = "file in two classes"

_HEAD = 1 << 16
"""Bytes by which two files of one size are told apart before they are read to the end."""


@dataclasses.dataclass(frozen=True)
class _File:
    """A radiograph. name: relative to the source. label: its class folder's name, in lower case."""

    path: Path
    name: str
    split: str
    label: str


def read_folders(
    data_path: Path | str, *, normal: str | None = None, patients: Path | str | None = None, n_workers: int = 1
) -> Source:
    """Lists the radiographs of class folders; opens only those that may be copies of each other.

    normal: the class whose radiographs have no label, "" for none. None takes the one that is named like it: NORMAL,
        healthy, negative, No finding, no_…. The other classes become the categories, in sorted order. Upper and lower
        case make no difference to class names.
    patients: as `xray.datasets.sources.patients.name_patients` reads it; nothing is guessed from file names.

    Folders of masks beside the radiographs are left out, see `mask_folders.without_masks`. A file that
    stands, byte for byte, in two classes is left out of both; of copies within a class one is kept, that in the test
    split if there is one, or else that in the validation split. Ids are those of `xray.datasets.naming.source_ids`.

    Raises InputError for a missing directory, for one without class folders, without a training split, with the splits
    inside the class folders, with a single class to train on, or where it is not clear which class is normal.
    """
    root = data_root(data_path, "give the directory that holds a folder of radiographs for each class")
    dropped: list[Dropped] = []
    layout, parts = _find_parts(root, dropped)
    files, names, warnings = _list_files(root, parts, dropped)
    n_links = sum(drop.reason == LINK_OUT for drop in dropped) + sum(warning.kind == LINK for warning in warnings)
    _check_classes(root, files, names, n_links)
    files = _without_copies(files, n_workers, dropped)
    without = _normal_class(root, names, normal)
    classes = sorted(name for label, name in names.items() if label != without)
    number = {name.casefold(): place for place, name in enumerate(classes, start=1)}
    images = [
        SourceImage(
            file.path,
            file.name,
            own_id,
            split=file.split,
            labels=() if file.label == without else (number[file.label],),
        )
        for file, own_id in zip(files, source_ids([file.name for file in files]), strict=True)
    ]
    digest = hashlib.sha256(json.dumps([classes, [[image.file_name, image.labels] for image in images]]).encode())
    if patients is not None:
        images, content = name_patients(images, Path(patients), dropped)
        digest.update(content)
    return Source(
        kind="folders",
        layout=layout,
        images=images,
        boxes=BoxTable.empty(),
        readers=[],
        places=[],
        categories=[{"id": place, "name": name} for place, name in enumerate(classes, start=1)],
        fingerprint=digest.hexdigest(),
        dropped=dropped,
        warnings=warnings,
    )


def _find_parts(root: Path, dropped: list[Dropped]) -> tuple[str, list[tuple[str, Path]]]:
    """The layout, "splits" or "classes", and the folders that hold class folders with the split of each."""
    folders = _folders(root, root, dropped)
    parts = [(SPLITS[folder.name.casefold()], folder) for folder in folders if folder.name.casefold() in SPLITS]
    if not parts:
        inside = {
            folder: [sub.name for sub in _folders(folder, root, []) if sub.name.casefold() in SPLITS]
            for folder in folders
        }
        divided = [folder for folder, splits in inside.items() if splits]
        if divided:
            what = f"{divided[0]} holds {' and '.join(f'{name}/' for name in inside[divided[0]])}"
            if len(divided) == 1:
                raise InputError(f"{what}: give --data-path {divided[0]}")
            raise InputError(f"{what}: the splits must be the outer folders, as in {root / 'train' / divided[0].name}")
        return "classes", [("train", root)]
    if all(split != "train" for split, _ in parts):
        raise InputError(
            f"{root} holds {parts[0][1].name}/ but no train/: give --data-path {parts[0][1]} to convert its "
            "classes alone"
        )
    for folder in folders:
        if folder.name.casefold() not in SPLITS:
            n = len(_radiographs(folder, root, []))
            if n:
                dropped.append(Dropped(folder.name, NO_SPLIT, detail=f"{n} radiograph{'s' * (n > 1)}"))
    dropped += [Dropped(path.name, NO_CLASS) for path in _strays(root)]
    # Training folders first: it is their spelling of a class that counts.
    return "splits", sorted(parts, key=lambda part: ORDER.index(part[0]))


def _list_files(
    root: Path, parts: Iterable[tuple[str, Path]], dropped: list[Dropped]
) -> tuple[list[_File], dict[str, str], list[FileWarning]]:
    """The radiographs below the class folders, the classes, name in lower case → name as first met, and what was
    skipped: masks, and files that are no radiographs that can be read."""
    by_folder: list[tuple[str, Path, list[Path]]] = []
    passed_over: list[FileWarning] = []
    for split, part in parts:
        dropped += [Dropped(path.relative_to(root).as_posix(), NO_CLASS) for path in _strays(part)]
        for folder in _folders(part, root, dropped if part != root else []):
            inside = sorted(_radiographs(folder, root, passed_over))
            if not inside:
                dropped.append(Dropped(folder.relative_to(root).as_posix(), EMPTY_FOLDER))
            by_folder.append((split, folder, inside))
    remaining, warnings = without_masks([path for _, _, inside in by_folder for path in inside], root)
    is_radiograph = set(remaining)
    files: list[_File] = []
    names: dict[str, str] = {}
    for split, folder, inside in by_folder:
        label = folder.name.casefold()
        radiographs = [path for path in inside if path in is_radiograph]
        if radiographs:
            names.setdefault(label, folder.name)
        files += [_File(path, path.relative_to(root).as_posix(), split, label) for path in radiographs]
    return files, names, [*passed_over, *warnings]


def _folders(folder: Path, root: Path, dropped: list[Dropped]) -> list[Path]:
    """Folders inside, sorted, without what macOS adds to archives."""
    return listed(folder, root, dropped, lambda path: path.name != "__MACOSX" and path.is_dir())


def _radiographs(folder: Path, root: Path, passed_over: list[FileWarning]) -> list[Path]:
    try:
        return find_radiographs(folder, root, passed_over)
    except InputError:
        return []


def _strays(folder: Path) -> list[Path]:
    """Radiographs that stand in a folder itself."""
    inside = sorted(folder.iterdir())
    return [
        path
        for path in inside
        if path.name[0] != "." and path.is_file() and content_of(path, SUFFIXES) == Content.RADIOGRAPH
    ]


def _check_classes(root: Path, files: Sequence[_File], names: dict[str, str], n_links: int) -> None:
    """Raises InputError unless there are two classes to train on. n_links: what was left out since it leads out."""
    if not files and n_links:
        raise InputError(
            f"no radiograph in the folders of {root}: {WHAT_TO_DO} (links that lead nowhere or out of it: {n_links})"
        )
    if not files:
        raise InputError(
            f"no radiograph in the folders of {root}: it needs a folder for each class, by itself or in train/ and "
            f"test/, with files named {', '.join(SUFFIXES)}"
        )
    counts = Counter(file.label for file in files if file.split == "train")
    if len(counts) < 2:
        classes = ", ".join(f"{names[label]} ({n} radiograph{'s' * (n > 1)})" for label, n in counts.items()) or "none"
        raise InputError(
            f"{root} holds a single class to train on, {classes}: a classifier needs two classes at least, so add the "
            "folder of another one, such as NORMAL"
        )


def _normal_class(root: Path, names: dict[str, str], chosen: str | None) -> str | None:
    """Which class, in lower case, makes no label."""
    if chosen is None:
        candidates = [label for label in names if _sounds_normal(label)]
        if len(candidates) > 1:
            listing = " and ".join(names[label] for label in candidates)
            raise InputError(f"{root} holds {listing}: say with --normal which of them means that nothing was found")
        return candidates[0] if candidates else None
    if chosen and chosen.casefold() not in names:
        raise InputError(
            f"{root} has no class folder {chosen} for --normal: its classes are {', '.join(names.values())}"
        )
    return chosen.casefold() or None


def _sounds_normal(label: str) -> bool:
    words = re.sub(r"[\W_]+", " ", label).split()
    return sounds_normal(label) or (len(words) > 1 and words[0] == "no")


def _without_copies(files: list[_File], n_threads: int, dropped: list[Dropped]) -> list[_File]:
    """The files without those that are, byte for byte, another one."""
    # Of copies, the one in the test split is used, or else in the validation split.
    groups = [sorted(group, key=lambda file: -ORDER.index(file.split)) for group in _copies(files, n_threads)]
    left_out = set()
    for first, *others in groups:
        is_contradiction = any(file.label != first.label for file in others)
        if is_contradiction:
            other = next(file for file in others if file.label != first.label)
            dropped.append(Dropped(first.name, TWO_CLASSES, detail=f"the same as {other.name}"))
            left_out.add(first)
        reason = TWO_CLASSES if is_contradiction else COPY
        dropped += [Dropped(file.name, reason, detail=f"the same as {first.name}") for file in others]
        left_out |= set(others)
    return [file for file in files if file not in left_out]


def _copies(files: list[_File], n_threads: int) -> list[list[_File]]:
    """Groups of two and more files of the same bytes; only what agrees in size and beginning is read to the end."""
    groups = [files]
    for n_bytes in (0, _HEAD, None):
        suspects = [file for group in groups for file in group]
        # Most of the work happens in libraries that let other threads run meanwhile.
        pool = concurrent.futures.ThreadPoolExecutor(max(1, n_threads))
        try:
            keys = pool.map(functools.partial(_key, n_bytes), [file.path for file in suspects])
            keys_of_all = list(tracked(keys, "looking for copies", len(suspects)))
        finally:
            # An interrupted command does not wait for the rest.
            pool.shutdown(cancel_futures=True)
        alike: dict[Any, list[_File]] = {}
        for file, key in zip(suspects, keys_of_all, strict=True):
            if key is not None:
                alike.setdefault(key, []).append(file)
        groups = [group for group in alike.values() if len(group) > 1]
    return groups


def _key(n_bytes: int | None, path: Path) -> tuple[int, bytes] | None:
    """Size and hash of the first `n_bytes` of a file, of all if None; None where it is empty or cannot be read."""
    try:
        size = os.path.getsize(path)
        if size == 0:
            return None
        if n_bytes == 0:
            return size, b""
        with open(path, "rb") as file:
            if n_bytes is None:
                return size, hashlib.file_digest(file, "sha256").digest()
            return size, hashlib.sha256(file.read(n_bytes)).digest()
    except OSError:
        return None
