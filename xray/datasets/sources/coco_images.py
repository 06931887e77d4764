"""The images and categories of a COCO file: which radiographs there are, and which ids mean them."""

import functools
import math
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xray.datasets import source as reasons
from xray.datasets.naming import source_ids
from xray.datasets.source import TRAIN, Dropped, SourceImage
from xray.datasets.sources.coco_paths import PathsElsewhere, is_absolute
from xray.datasets.sources.patients import patient_in
from xray.datasets.sources.splits import split_meant
from xray.errors import InputError
from xray.radiographs.attributes import ATTRIBUTES, age_band
from xray.radiographs.canvas import MAX_PIXELS
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.names import LINK_OUT, UNSAFE_NAME, fault_of, is_inside, leads_out
from xray.structures.values import caseless, identity, is_missing, one_spelling, shown, text_of, whole_number

FILE_SIDES = ("file_width", "file_height")
"""Keys of a record: the pixels in which its COCO file counts, where these are not the original ones."""
OUTSIDE_FOLDER = "file name leads out of the data path"
MALFORMED = "malformed entry"
REPEATED_IMAGE = "repeated image"
TWO_SIZES = "one file with two sizes"
TWO_SPLITS = "one file in two splits"
NO_SPLIT = "split that is none of train, val and test; it trains"
FOUND_BY_END = "paths of another machine, whose files were found by the end of the path"
JOINED = "radiograph listed under several ids: their annotations are joined"


def read_categories(entries: list[Any], file: Path) -> list[dict[str, Any]]:
    """Categories renumbered 1 … K in the order of their ids, each keeping its own as `source_category_id`.

    Raises InputError for one without id or name, and for two of one id or of one name, in upper or lower case.
    """
    names: dict[int, str] = {}
    by_name: dict[str, int] = {}
    for entry in entries:
        try:
            number, name = whole_number(entry["id"]), text_of(entry["name"])
        except (TypeError, KeyError, ValueError) as error:
            detail = f" ({error})" if type(error) is ValueError else ""
            raise InputError(f"{file} has a category without id or name{detail}: each needs both") from None
        if number is None or name is None:
            raise InputError(f"{file} has a category without id or name: each needs both")
        if number in names:
            raise InputError(f"{file} has two categories with the id {number}, {names[number]!r} and {name!r}: it "
                             "needs distinct ids, one for each")  # fmt: skip
        key = caseless(name)
        if key in by_name:
            raise InputError(
                f"{file} has two categories named {name!r} (ids {by_name[key]} and {number}): "
                "rename one, or remove one and give its annotations the id of the other"
            )
        # The name as it is spelt in the file, by which users look a category up.
        names[number], by_name[key] = entry["name"] if isinstance(entry["name"], str) else name, number
    if not names:
        raise InputError(f"{file} has 0 categories: it needs at least one")
    return [
        {"id": number, "name": names[source_id], "source_category_id": source_id}
        for number, source_id in enumerate(sorted(names), start=1)
    ]


class FaultError(Exception):
    """Why an image, an annotation or a line cannot be used: one of a few fixed texts, and a detail."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


class Images:
    """The usable images of a COCO file.

    number_of: the file's own id (the result of `identity`) → number in `images`, -1 for one that was left out.
    """

    def __init__(
        self,
        root: Path,
        entries: list[Any],
        table: str,
        dropped: list[Dropped],
        beside: str = ".",
        folders: Sequence[str] | None = None,
    ) -> None:
        """beside: the folder of the COCO file, relative to the root. folders: where its files may be, each ending in a
        slash, the first that has one counts; if not given, those that `read_coco` names.

        Raises InputError where one id stands for two files, as their annotations could not be told apart, and where the
        path of another machine could be one of two files.
        """
        self._folders = _folders_of(table, beside) if folders is None else list(folders)
        self._root, self._table, self._beside, self._dropped = root, table, beside, dropped
        self._files = _list_files(root)
        self._names = [name for _, name in map(_id_and_name, entries) if name is not None]
        self.number_of: dict[int | str, int] = {}
        self.warnings: list[FileWarning] = []
        named: dict[int | str, str] = {}
        grouped: dict[str, list[tuple[int | str, dict[str, Any]]]] = {}
        for position, entry in enumerate(entries):
            place = f"{table} image {position}"
            own_id, name = _id_and_name(entry)
            if own_id is None or name is None:
                dropped.append(Dropped(place, MALFORMED, detail="an image needs id and file_name"))
                if own_id is not None:
                    self.number_of.setdefault(own_id, -1)
                continue
            if own_id in named and named[own_id] != name:
                raise InputError(
                    f"{table} gives the id {own_id!r} to two files, {named[own_id]} and {name} (image {position}): "
                    "their annotations cannot be told apart, so give each image an id of its own"
                )
            if own_id in named:
                dropped.append(Dropped(place, REPEATED_IMAGE, "taken once", f"id {own_id}"))
            named[own_id] = name
            self.number_of.setdefault(own_id, -1)
            path = self._path_of(name, place)
            if path is not None:
                grouped.setdefault(path, []).append((own_id, entry))
        self.images = self._gather(grouped)

    def rank(self, number: int) -> tuple[bool, int | str]:
        """By which images are put in order: the file's own ids, as pycocotools orders them, numbers before texts."""
        return _rank(self.images[number].extra["coco_id"])

    def _path_of(self, name: str, place: str) -> str | None:
        """The file of an image, relative to the root; None, with an entry in `dropped`, where there is none to use."""
        fault = fault_of(name)
        path = None
        if fault is None:
            path = next((path for folder in self._folders if (path := f"{folder}{name}") in self._files), None)
        elif (seen := posixpath.normpath(posixpath.join(self._beside, name))) in self._files:
            path = seen  # ../images/1.png, from the file's own folder
        if path is None and "/" in name:
            path = self._elsewhere.path_of(name)
            if path is not None:
                self.warnings.append(FileWarning(FOUND_BY_END, name, path))
        if path is None and fault is not None and not is_absolute(name):
            if ".." in name.replace("\\", "/").split("/"):
                self._dropped.append(Dropped(place, OUTSIDE_FOLDER, detail=shown(name)))
            else:
                self._dropped.append(Dropped(place, UNSAFE_NAME, detail=f"{fault}: {shown(name)}"))
        elif path is None:
            # What lies behind a folder that is a link is not listed.
            tried = [] if fault else [posixpath.normpath(f"{folder}{name}") for folder in self._folders]
            if any(self._is_linked(self._root / file) for file in tried):
                self._dropped.append(Dropped(name, LINK_OUT))
            else:
                detail = self._elsewhere.looked_for(name, tried)
                self._dropped.append(
                    Dropped(name if name.isprintable() else shown(name), reasons.MISSING_FILE, detail=detail)
                )
        elif leads_out(self._root / path, self._root):
            self._dropped.append(Dropped(path, LINK_OUT))
            return None
        return path

    def _is_linked(self, path: Path) -> bool:
        """Whether a file is there, and links lead to it out of the root."""
        return os.path.exists(path) and not is_inside(path, self._root)

    @functools.cached_property
    def _elsewhere(self) -> PathsElsewhere:
        with_folder = (name for name in self._names if "/" in name and fault_of(name) is None)
        is_beside = any(f"{folder}{name}" in self._files for name in with_folder for folder in self._folders)
        return PathsElsewhere(self._files, self._names, self._table, is_beside)

    def _gather(self, grouped: dict[str, list[tuple[int | str, dict[str, Any]]]]) -> list[SourceImage]:
        ids = source_ids(list(grouped))
        patients = [patient_in(entry) for entries in grouped.values() for _, entry in entries]
        spelling = iter(one_spelling(patient if _is_id(patient) else None for patient in patients))
        images: list[SourceImage] = []
        for source_id, (path, entries) in zip(ids, grouped.items(), strict=True):
            coco_ids = sorted({coco_id for coco_id, _ in entries}, key=_rank)
            people = [next(spelling) for _ in entries]
            try:
                image = self._image(path, source_id, coco_ids, [entry for _, entry in entries], people)
            except FaultError as fault:
                self._dropped.append(Dropped(path, fault.reason, detail=fault.detail))
                continue
            if len(coco_ids) > 1:
                self.warnings.append(FileWarning(JOINED, path, ", ".join(map(str, coco_ids[:5]))))
            self.number_of |= dict.fromkeys(coco_ids, len(images))
            images.append(image)
        return images

    def _image(
        self,
        path: str,
        source_id: str,
        coco_ids: list[int | str],
        entries: list[dict[str, Any]],
        people: list[str | None],
    ) -> SourceImage:
        """One file as all its entries describe it. Raises FaultError where they cannot be used."""
        try:
            sizes = list(dict.fromkeys(size for entry in entries if (size := _size(entry)) is not None))
            for patient in map(patient_in, entries):
                if not _is_id(patient):
                    raise ValueError(f"its patient, {shown(patient)}, is neither number nor text")
        except ValueError as error:
            raise FaultError(MALFORMED, str(error)) from None
        patients = list(dict.fromkeys(name for name in people if name is not None))
        if len(sizes) > 1:
            raise FaultError(TWO_SIZES, " and ".join(f"{width} x {height}" for width, height in sizes))
        if len(patients) > 1:
            raise FaultError(MALFORMED, f"it is listed for {len(patients)} patients")
        said = [entry["split"] for entry in entries if not is_missing(entry.get("split"))]
        meant = (split_meant(text) for text in said if isinstance(text, str))
        splits = list(dict.fromkeys(split for split in meant if split is not None))
        if len(splits) > 1:
            raise FaultError(TWO_SPLITS, " and ".join(splits))
        if said and not splits:
            self.warnings.append(FileWarning(NO_SPLIT, path, shown(said[0])))
        width, height = sizes[0] if sizes else (None, None)
        known: dict[str, Any] = {}
        for entry in reversed(entries):
            known |= {key: entry[key] for key in (*ATTRIBUTES, *FILE_SIDES) if _is_plain(entry.get(key))}
        if "age" in known:
            # A table may have years; so exact, and over 89 in particular, they could tell who it is.
            known["age"] = age_band(known["age"])
        several = {"coco_ids": coco_ids} if len(coco_ids) > 1 else {}
        return SourceImage(
            path=self._root / path,
            file_name=path,
            source_id=source_id,
            patient=patients[0] if patients else None,
            split=splits[0] if splits else TRAIN,
            width=width,
            height=height,
            readers=tuple(dict.fromkeys(name for entry in entries for name in names_in(entry.get("readers")))),
            extra={
                "coco_id": coco_ids[0],
                **several,
                **{key: value for key, value in known.items() if value is not None},
            },
        )


def _is_id(value: Any) -> bool:
    """Whether a value is a number or a text, or is missing."""
    try:
        identity(value)
    except ValueError:
        return False
    return True


def _rank(own_id: int | str) -> tuple[bool, int | str]:
    return isinstance(own_id, str), own_id


def _folders_of(table: str, beside: str) -> list[str]:
    """Where the files of a COCO file may be, each ending in a slash; "" is the root itself."""
    kind = table.removesuffix(".json").removeprefix("instances_")
    folder = "" if beside == "." else f"{beside}/"
    return list(dict.fromkeys(["", folder, "images/", f"images/{kind}/", f"{folder}images/"]))


def names_in(value: Any) -> tuple[str, ...]:
    """A list of readers' names as text, whatever else it holds left aside."""
    names = []
    for name in value if isinstance(value, list) else ():
        try:
            names.append(text_of(name))
        except ValueError:
            continue
    return tuple(name for name in names if name is not None)


def _id_and_name(entry: Any) -> tuple[int | str | None, str | None]:
    if not isinstance(entry, dict):
        return None, None
    try:
        own_id = identity(entry.get("id"))
    except ValueError:
        own_id = None
    file_name = entry.get("file_name")
    if not isinstance(file_name, str) or not file_name.strip():
        return own_id, None
    return own_id, posixpath.normpath(file_name.replace("\\", "/"))


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    """Width and height of an image entry; None where it has none, or zeros, as tools write that do not know them.

    Raises ValueError for what is no size: the boxes' unit is then not known.
    """
    sides = []
    for name in ("width", "height"):
        try:
            side = whole_number(entry.get(name))
        except ValueError as error:
            raise ValueError(f"its {name}: {error}") from None
        if side is not None and side < 0:
            raise ValueError(f"its {name} is {side}")
        sides.append(side or 0)
    width, height = sides
    if not (width and height):
        return None
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"its size, {shown(width)} x {shown(height)}, is more than {MAX_PIXELS // 10**6} million pixels"
        )
    return width, height


def _is_plain(value: Any) -> bool:
    if is_missing(value):
        return False
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _list_files(root: Path) -> set[str]:
    """All files under a directory, relative to it, with / between folders; links to folders are followed once."""
    files: set[str] = set()
    for folder, _, names in os.walk(root):
        relative = Path(folder).relative_to(root).as_posix()
        files.update(name if relative == "." else f"{relative}/{name}" for name in names)
    return files
