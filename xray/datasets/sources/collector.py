"""Gathers a source's radiographs, labels and boxes, judges what its tables alone show to be wrong, and makes a Source.

Every reader of somebody's tables does the same with what it reads: boxes that are none cost their radiograph, repeated
rows count once, radiographs without a file are named. So that all do it in the same way, it is done here.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xray.datasets import source as reasons
from xray.datasets.annotation import reasons_in_words
from xray.datasets.source import TRAIN, Dropped, Source, SourceImage, relative_name
from xray.datasets.sources.named_files import NamedFiles, without_copies
from xray.errors import InputError
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.names import UNSAFE_NAME, fault_of
from xray.radiographs.radiograph import find_radiographs
from xray.structures.boxes import BoxTable
from xray.structures.values import caseless

MOST_UNLISTED = 1000
"""More files without a row are named by their folders: somebody's table is of a part of a large set."""


@dataclasses.dataclass
class _Entry:
    """What is known of one radiograph so far."""

    split: str = TRAIN
    patient: str | None = None
    size: tuple[int | None, int | None] = (None, None)
    readers: dict[str, None] = dataclasses.field(default_factory=dict)
    labels: dict[int, None] = dataclasses.field(default_factory=dict)
    unknown: tuple[int, ...] = ()
    unlocated: tuple[int, ...] = ()
    elsewhere: tuple[int, ...] = ()
    normal: bool = False
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    n_boxes: int = 0
    is_lost: bool = False


class Collector:
    """A source that is being read, row by row.

    kind: of the source, such as "nih". root: its directory. categories: names, ids 1 … K in this order; some readers
    add more with `category`.
    files: the radiographs below `root` (or below `folders` of it), found when it is made; links that lead out of it are
        left out and named. paths: name → file, where the reader has found them by itself.
    dropped, warnings, notes: what was left out, what else is said, and further entries of conversion.json; readers add
        to them.
    """

    def __init__(
        self,
        kind: str,
        root: Path,
        categories: Iterable[str] = (),
        folders: Sequence[str] = (),
        layout: str = "",
        paths: dict[str, Path] | None = None,
    ) -> None:
        self.kind, self.root, self.layout = kind, root, layout or kind
        self.dropped: list[Dropped] = []
        self.warnings: list[FileWarning] = []
        self.notes: dict[str, Any] = {}
        self._ids: dict[str, int] = {}
        for name in categories:
            self.category(name)
        self.paths = self._find(folders) if paths is None else paths
        self.files = NamedFiles(self.paths)
        self._hash = hashlib.sha256()
        self._entries: dict[str, _Entry] = {}
        self._aside: set[str] = set()
        self._boxes: list[tuple[str, int, tuple[float, float, float, float], str, str]] = []
        self._masks: dict[int, Any] = {}
        self._seen: set[tuple[Any, ...]] = set()

    def _find(self, folders: Sequence[str]) -> dict[str, Path]:
        roots = [self.root / folder for folder in folders if (self.root / folder).is_dir()] or [self.root]
        found: dict[str, Path] = {}
        for folder in roots:
            for path in find_radiographs(folder, passed_over=self.warnings):
                found[relative_name(path, self.root)] = path
        return without_copies(found, self.dropped)

    def read(self, content: bytes) -> None:
        """Enters the bytes of a table, so that an interrupted conversion continues with the same tables only."""
        self._hash.update(hashlib.sha256(content).digest())

    def category(self, name: str) -> int:
        """The id of a category, which becomes the next one where it is new."""
        return self._ids.setdefault(name, len(self._ids) + 1)

    @property
    def categories(self) -> dict[str, int]:
        """Name → id."""
        return dict(self._ids)

    def file_of(self, text: str, place: str, near: str = "") -> str | None:
        """The name of the file that a table means by `text`, which is then one of the source's radiographs.

        near: what a folder above the file is called like, such as "train" for train_data/, which decides where two
            splits have a file of one name.
        None where there is none, or several that it may be, which is entered in `dropped` with `place`, where the table
        says so.
        """
        if fault := fault_of(text):
            self.leave_out(place, UNSAFE_NAME, fault)
            return None
        names = self.files.meant_by(text)
        if near and len(names) > 1:
            names = [name for name in names if near in name.rpartition("/")[0].casefold()] or names
        if len(names) == 1:
            self._entries.setdefault(names[0], _Entry())
            return names[0]
        if names:
            self.leave_out(place, reasons.REPEATED_NAME, f"{text} may be {' or '.join(names[:5])}")
            for name in names:
                # A finding of one would be learned as that of another, or as none.
                self._entries.setdefault(name, _Entry()).is_lost = True
        else:
            self.leave_out(place, reasons.MISSING_FILE, text)
        return None

    def describe(
        self,
        name: str,
        *,
        split: str | None = None,
        patient: str | None = None,
        size: tuple[int | None, int | None] | None = None,
        labels: Iterable[int] = (),
        unknown: Iterable[int] | None = None,
        unlocated: Iterable[int] | None = None,
        elsewhere: Iterable[int] | None = None,
        reader: str = "",
        normal: bool | None = None,
        **extra: Any,
    ) -> None:
        """Adds what a table says of a radiograph; `name` as `file_of` gave it. Arguments as in SourceImage.

        labels add up; the others replace what was said before, where they are given. extra: `view`, `sex`, `age`, ….
        """
        entry = self._entries.setdefault(name, _Entry())
        entry.split = split or entry.split
        entry.patient = patient or entry.patient
        entry.size = size or entry.size
        entry.labels |= dict.fromkeys(labels)
        entry.unknown = entry.unknown if unknown is None else tuple(unknown)
        entry.unlocated = entry.unlocated if unlocated is None else tuple(unlocated)
        entry.elsewhere = entry.elsewhere if elsewhere is None else tuple(elsewhere)
        entry.normal = entry.normal if normal is None else normal
        if reader:
            entry.readers[reader] = None
        entry.extra |= {key: value for key, value in extra.items() if value not in (None, "")}

    def box(
        self, name: str, category: int, corners: Sequence[float], place: str, reader: str = "", mask: Any = None
    ) -> None:
        """Adds a box: xyxy in original pixels, NaN for what is no number. place: where it was read, "boxes.csv line 3".

        mask: COCO polygons or run lengths in original pixels. A box that is none costs its radiograph; one that repeats
        another of the same reader is left out alone.
        """
        entry = self._entries.setdefault(name, _Entry())
        if reader:
            entry.readers[reader] = None
        left, top, right, bottom = (float(value) for value in corners)
        sides = (right - left, bottom - top)
        if not np.isfinite((left, top, right, bottom)).all():
            self.lose(name, place, reasons.NOT_A_NUMBER)
        elif min(sides) < 0:
            self.lose(name, place, reasons.INVERTED)
        elif min(sides) == 0:
            self.lose(name, place, reasons.EMPTY)
        elif (key := (name, category, left, top, right, bottom, reader, str(mask))) in self._seen:
            self.leave_out(place, reasons.DUPLICATE)
        else:
            self._seen.add(key)
            if mask is not None:
                self._masks[len(self._boxes)] = mask
            self._boxes.append((name, category, (left, top, right, bottom), place, reader))
            entry.n_boxes += 1

    def lose(self, name: str, place: str, reason: str, detail: str = "") -> None:
        """An annotation that cannot be used: its radiograph is left out, as it would be learned as one without it."""
        self._entries.setdefault(name, _Entry()).is_lost = True
        self.leave_out(place, reason, detail)

    def set_aside(self, name: str, reason: str, detail: str = "") -> None:
        """A file that is left out although a table names it, once for all tables that do, whatever they say."""
        if name not in self._aside:
            self._aside.add(name)
            self.leave_out(name, reason, detail)

    def is_aside(self, name: str) -> bool:
        """Whether a file was set aside."""
        return name in self._aside

    def leave_out(self, place: str, reason: str, detail: str = "", action: str = Dropped.action) -> None:
        """Enters something that is left out, or changed as `action` says."""
        self.dropped.append(Dropped(place, reason, action, detail))

    def source(self, unlisted: str = reasons.NOT_IN_TABLE, squashed: bool = False) -> Source:
        """All of it as a Source, radiographs in the order of their names. Boxes are not clipped yet.

        unlisted: the reason for which files that no table named are left out. squashed: as in Source.
        Raises InputError where no radiograph is left, and for categories that differ in case alone.
        """
        self._check_categories()
        self._name_unlisted(unlisted)
        used = []
        for name in self.files.names:
            entry = self._entries.get(name)
            if entry is None or name in self._aside:
                continue
            if entry.is_lost:
                self.leave_out(name, reasons.LOST_ANNOTATION if entry.n_boxes else reasons.NO_BOX_LEFT)
            else:
                used.append(name)
        if not used:
            raise InputError(
                f"no radiograph of {self.root} can be used: {reasons_in_words(self.dropped) or 'there is none'}"
            )
        number = {name: row for row, name in enumerate(used)}
        order = sorted(
            (row for row, box in enumerate(self._boxes) if box[0] in number),
            key=lambda row: (number[self._boxes[row][0]], row),
        )
        boxes = [self._boxes[row] for row in order]
        return Source(
            kind=self.kind,
            layout=self.layout,
            images=[self._image(name) for name in used],
            boxes=BoxTable.of(
                [number[name] for name, *_ in boxes], [box[1] for box in boxes], [box[2] for box in boxes]
            ),
            readers=[(reader,) if reader else () for *_, reader in boxes],
            places=[box[3] for box in boxes],
            categories=[{"id": number, "name": name} for name, number in self._ids.items()],
            fingerprint=self._hash.hexdigest(),
            masks={new: self._masks[row] for new, row in enumerate(order) if row in self._masks},
            dropped=self.dropped,
            warnings=self.warnings,
            squashed=squashed,
            notes=self.notes,
        )

    def _check_categories(self) -> None:
        """Raises InputError for two that only case tells apart: each would be absent where the other is meant."""
        spelt: dict[str, str] = {}
        for name in self._ids:
            other = spelt.setdefault(caseless(name), name)
            if other != name:
                raise InputError(
                    f"{self.root} has the categories {other!r} and {name!r}, which upper and lower case alone tell "
                    "apart: write them in one way"
                )

    def _name_unlisted(self, reason: str) -> None:
        names = [name for name in self.files.names if name not in self._entries and name not in self._aside]
        if len(names) <= MOST_UNLISTED:
            for name in names:
                self.leave_out(name, reason)
            return
        by_folder: dict[str, list[str]] = {}
        for name in names:
            by_folder.setdefault(name.partition("/")[0] if "/" in name else ".", []).append(name)
        for folder, inside in by_folder.items():
            self.leave_out(f"{folder}/", reason, f"{len(inside)} files, such as {inside[0]}")

    def _image(self, name: str) -> SourceImage:
        entry = self._entries[name]
        return SourceImage(
            self.paths[name],
            name,
            self.files.ids[name],
            entry.patient,
            entry.split,
            *entry.size,
            readers=tuple(entry.readers),
            labels=tuple(sorted(entry.labels)),
            unknown=entry.unknown,
            unlocated=entry.unlocated,
            elsewhere=entry.elsewhere,
            normal=entry.normal,
            extra=entry.extra,
        )
