"""Finds masks that lie in one tree with the radiographs they were drawn on, and leaves them out.

Their folders are called masks/ or similar, or they have the names of the radiographs, with or without _mask. Names
alone decide nothing, the pictures are read, too: a folder masks/ may hold radiographs of people who wore a mask.
"""

import contextlib
import dataclasses
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

from xray.datasets.sources.mask_values import looks_like_mask
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.radiograph import PICTURE_SUFFIXES, source_id
from xray.radiographs.workers import Failed, in_workers

LEFT_OUT = "masks beside radiographs, left out"
KEPT = "named like masks, kept as radiographs"

SAMPLE = 5
"""Number of pictures of a group that are read."""
MOST_READ = 200
"""Number of pictures that are read in all; the pictures of further groups count as radiographs."""

_WORD = (
    "masks?|maske|segs?|segmentations?|segmented|labels?|labelmaps?|annotations?|gts?|ground[ _-]?truth|contours?|rois?"
)
_FOLDER = re.compile(rf"(^|[\W_\d])({_WORD})($|[\W_\d])|mask|segmentation|annotation|contour", re.IGNORECASE)
_FILE_END = re.compile(
    rf"([\W_]+|(?-i:(?<=[a-z0-9])(?=[A-Z])))((left|right|lungs?)[\W_]*)?({_WORD})([\W_]*(left|right|\d{{1,3}}))?$",
    re.IGNORECASE,
)
_FILE_START = re.compile(rf"^({_WORD})[\W_]+", re.IGNORECASE)
_FILE_WHOLE = re.compile(rf"((left|right|lungs?)[\W_]*)?({_WORD})([\W_]*(left|right|lungs?|\d{{1,3}}))?", re.IGNORECASE)
_MOST_FOLDERS = 8
"""More folders with a file of one name say nothing about masks: every patient may have a frontal.png."""
_MOST_NAMES = 8
"""Pictures of a patient's folder, whose names are those of all other patients' as well."""


@dataclasses.dataclass
class _Group:
    """Pictures that are either all masks or all radiographs.

    is_named: their names, or their folder's, say so; otherwise they only have the names of `others`.
    """

    pictures: list[Path] = dataclasses.field(default_factory=list)
    others: list[Path] = dataclasses.field(default_factory=list)
    is_named: bool = True


def without_masks(paths: Sequence[Path], root: Path, n_workers: int = 1) -> tuple[list[Path], list[FileWarning]]:
    """The files that are no masks, in the same order, and a warning for each folder of masks that are left out.

    paths: files below the folder `root`. n_workers: processes that read pictures; 0 reads them in this one.

    PNG and JPEG files are masks where their folder's name or their own says so, or where files in another folder, or
    with another suffix, have the same names; and where a sample of them is drawn in a few values
    (`mask_values.looks_like_mask`) and, for the latter, the others are not. What is named like masks and is
    none stays, with a warning. At most 200 pictures are read.
    """
    root = Path(root)
    named = [*_named_folders(paths, root), *_named_files(paths)]
    twins = [*_twins(paths, root), *_repeated(paths)]
    sampled = _Sampled(n_workers)
    sampled.read([*named, *twins])
    # Folders of one name may hold masks here and radiographs there.
    parted = [part for group in named if sampled.are_mixed(group) for part in _by_place(group)]
    sampled.read(parted)
    groups = [*named, *twins, *parted]
    masks = {path for group in groups if sampled.are_masks(group) for path in group.pictures}
    left_out = [path for path in paths if path in masks]
    like_masks = {path for group in named for path in group.pictures}
    like_masks_only = [path for path in paths if path in like_masks and path not in masks]
    warnings = [*_by_folder(left_out, root, LEFT_OUT), *_by_folder(like_masks_only, root, KEPT)]
    return [path for path in paths if path not in masks], warnings


def _by_folder(paths: Iterable[Path], root: Path, kind: str) -> list[FileWarning]:
    folders: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        folders[path.parent.relative_to(root).as_posix()].append(path)
    return [
        FileWarning(kind, f"{folder}/" if folder != "." else "the data path itself", _counted(pictures))
        for folder, pictures in folders.items()
    ]


def _counted(paths: Sequence[Path]) -> str:
    return f"{len(paths)} files, such as {paths[0].name}" if len(paths) > 1 else paths[0].name


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES


def _named_folders(paths: Sequence[Path], root: Path) -> list[_Group]:
    """Pictures in folders, at any depth below the root, that are called like masks: a group for each such name."""
    groups: dict[Hashable, _Group] = defaultdict(_Group)
    for path in filter(_is_picture, paths):
        name = next((part for part in path.relative_to(root).parts[:-1] if _FOLDER.search(part)), None)
        if name is not None:
            groups[name.casefold()].pictures.append(path)
    return list(groups.values())


def _named_files(paths: Sequence[Path]) -> list[_Group]:
    """Pictures called like masks of another file in the same tree: a group for each word in their names.

    Or called so and nothing else, beside other files, such as mask.png in the folder of a patient.
    """
    stems = {source_id(path) for path in paths} | {path.name for path in paths}
    n_in = Counter(path.parent for path in paths)
    groups: dict[Hashable, _Group] = defaultdict(_Group)
    for path in filter(_is_picture, paths):
        stem = source_id(path)
        for pattern in (_FILE_END, _FILE_START):
            word = pattern.search(stem)
            if word and (stem[: word.start()] + stem[word.end() :]) in stems:
                groups[word.group().casefold()].pictures.append(path)
                break
        else:
            if _FILE_WHOLE.fullmatch(stem) and n_in[path.parent] > 1:
                groups[stem.casefold()].pictures.append(path)
    return list(groups.values())


def _twins(paths: Sequence[Path], root: Path) -> list[_Group]:
    """Pictures of which nine in ten have the names of others in another folder, or with another suffix.

    One group for all folders of two names, such as images/ and lungs/ of many patients.
    """
    places: dict[str, set[tuple[Path, str]]] = defaultdict(set)
    files: dict[tuple[Path, str], dict[str, Path]] = defaultdict(dict)
    for path in paths:
        place = (path.parent, path.suffix.lower())
        places[source_id(path)].add(place)
        files[place][source_id(path)] = path
    shared: Counter[tuple[tuple[Path, str], tuple[Path, str]]] = Counter()
    for same_stem in places.values():
        if 1 < len(same_stem) <= _MOST_FOLDERS:
            shared.update((one, other) for one in same_stem for other in same_stem if one != other)
    groups: dict[tuple[Any, ...], _Group] = defaultdict(lambda: _Group(is_named=False))
    for (one, other), n in shared.items():
        if one[1] in PICTURE_SUFFIXES and n >= 0.9 * len(files[one]):
            # Folders side by side have names of their own; in trees side by side it is the trees that have.
            names = _difference(one[0].relative_to(root).parts, other[0].relative_to(root).parts)
            group = groups[(*names, one[1], other[1])]
            group.pictures += files[one].values()
            group.others += [files[other][stem] for stem in sorted(files[one].keys() & files[other].keys())]
    return list(groups.values())


def _repeated(paths: Sequence[Path]) -> list[_Group]:
    """Pictures of one name in the folders of several patients, each of which holds the same few others."""
    inside: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        inside[path.parent].append(path)
    alike: dict[tuple[str, ...], list[list[Path]]] = defaultdict(list)
    for pictures in inside.values():
        if 1 < len(pictures) <= _MOST_NAMES:
            alike[tuple(sorted(path.name.casefold() for path in pictures))].append(pictures)
    groups = []
    for all_names, folders in alike.items():
        of_name = {
            name: [path for folder in folders for path in folder if path.name.casefold() == name] for name in all_names
        }
        for one, other in itertools.permutations(of_name, 2) if len(folders) > 1 else ():
            if _is_picture(of_name[one][0]):
                groups.append(_Group(of_name[one], of_name[other], is_named=False))
    return groups


def _difference(one: Sequence[str], other: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Two paths without the folders that they begin or end with together."""
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    one, other = one[start:], other[start:]
    while one and other and one[-1] == other[-1]:
        one, other = one[:-1], other[:-1]
    return tuple(one), tuple(other)


def _by_place(group: _Group) -> list[_Group]:
    places: dict[Path, _Group] = defaultdict(_Group)
    for path in group.pictures:
        places[path.parent].pictures.append(path)
    return list(places.values())


class _Sampled:
    """Which pictures of the groups are masks, as far as a sample of them was read, each once."""

    def __init__(self, n_workers: int) -> None:
        self._n_workers = n_workers
        self._is_mask: dict[Path, bool | None] = {}
        self._n_left = MOST_READ

    def read(self, groups: Iterable[_Group]) -> None:
        """Reads a sample of each."""
        sampled = dict.fromkeys(path for group in groups for path in (*_sample(group.pictures), *_sample(group.others)))
        # DICOM files are radiographs here, whatever they show.
        self._is_mask.update((path, False) for path in sampled if not _is_picture(path))
        wanted = [path for path in sampled if path not in self._is_mask][: self._n_left]
        self._n_left -= len(wanted)
        if not wanted:
            return
        outcomes = in_workers(looks_like_mask, wanted, self._n_workers, lambda path: path.name)
        with contextlib.closing(outcomes):
            for path, outcome in zip(wanted, outcomes, strict=True):
                self._is_mask[path] = None if isinstance(outcome, Failed) else outcome

    def are_masks(self, group: _Group) -> bool:
        """Whether all pictures of a group are, and what they only share names with is not."""
        are_masks = self._of(group.pictures)
        if group.is_named:
            return bool(are_masks) and all(are_masks)
        others = self._of(group.others)
        return bool(are_masks and others) and all(are_masks) and not any(others)

    def are_mixed(self, group: _Group) -> bool:
        return len(set(self._of(group.pictures))) > 1

    def _of(self, paths: Sequence[Path]) -> list[bool]:
        """Of those in the sample that could be read."""
        answers = [self._is_mask.get(path) for path in _sample(paths)]
        return [is_mask for is_mask in answers if is_mask is not None]


def _sample(paths: Sequence[Path]) -> list[Path]:
    """A few of them, from the first to the last."""
    n = min(SAMPLE, len(paths))
    return [paths[number * (len(paths) - 1) // max(1, n - 1)] for number in range(n)]
