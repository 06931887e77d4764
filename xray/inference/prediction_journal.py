"""Predictions on disk while they are made: memory stays flat, and what an interruption left is gone on with.

A file of checked JSON lines. The first says what was claimed (models, flags, radiographs) and settled; each other holds
what was found in the radiographs after those of the line before. From a line on that a crash cut short, or that was
damaged since, all is cut off.
"""

import bisect
import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from xray.errors import InputError
from xray.files import from_line, to_line
from xray.structures.boxes import BoxTable
from xray.structures.predictions import Predictions

try:
    import fcntl
except ImportError:  # Windows has no flock; there, two commands that write into one folder are not told apart.
    fcntl = None  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True)
class Portion:
    """What was found in consecutive radiographs.

    stop: position after the last of them, in the order of the whole. table: boxes; `images` are positions. masks: row
    of the table → COCO RLE. sizes: position → width and height of each that could be read. labels: position → {label:
    probability}. failures: (position, file name, reason) of those that could not. warnings: (position, kind) of those
    whose user should know something.
    """

    stop: int
    table: BoxTable = dataclasses.field(default_factory=BoxTable.empty)
    masks: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = dataclasses.field(default_factory=dict)
    labels: dict[int, dict[str, float]] = dataclasses.field(default_factory=dict)
    failures: list[tuple[int, str, str]] = dataclasses.field(default_factory=list)
    warnings: list[tuple[int, str]] = dataclasses.field(default_factory=list)


class PredictionJournal:
    """An open journal; a context manager that closes it and leaves it where it is.

    image_ids: source ids of all radiographs. done: how many of them are. settled: what `settle` was first given.
    """

    def __init__(self, path: Path, claims: Mapping[str, Any], image_ids: Sequence[str], discard: bool = False) -> None:
        """Opens a journal, or goes on with one of the same claims.

        claims: name → what must be the same, JSON. discard: one with other claims is thrown away.
        Raises InputError if there is one with other claims, or another command writes it.
        """
        self.path, self.image_ids = path, tuple(image_ids)
        self.settled: dict[str, Any] | None = None
        self._claims = json.loads(json.dumps(claims))
        self._starts: list[int] = []  # of each line, in bytes
        self._stops: list[int] = []
        self._file = self._open_locked()
        try:
            self._file.truncate(self._read(discard))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "PredictionJournal":
        return self

    def __exit__(self, *exception: object) -> None:
        # Where the disk is full, the end of a line is still waiting to be written.
        with contextlib.suppress(OSError):
            self._file.close()

    @property
    def done(self) -> int:
        """Radiographs found or failed so far."""
        return self._stops[-1] if self._stops else 0

    def settle(self, choices: Mapping[str, Any]) -> dict[str, Any]:
        """Notes what this command chose by itself; one that goes on gets what the first one chose."""
        if self.settled is None:
            self._file.truncate(0)
            self.settled = json.loads(json.dumps(choices))
            self._append({"claims": self._claims, "settled": self.settled}, 0)
        return self.settled

    def add(self, portion: Portion) -> None:
        """Appends the next portion; from then on it survives the end of this process."""
        start = self._append(_content(portion), len(self._starts) + 1)
        self._starts.append(start)
        self._stops.append(portion.stop)

    def portions(self) -> Iterator[Portion]:
        """All portions, in order, one in memory at a time."""
        for number in range(len(self._starts)):
            yield self._portion(number)

    def predictions(self, positions: Sequence[int]) -> tuple[Predictions, dict[int, dict[str, float]]]:
        """The boxes and labels of the radiographs at these positions alone."""
        masks: dict[int, dict[str, Any]] = {}
        labels: dict[int, dict[str, float]] = {}
        tables, n_rows = [], 0
        numbers = sorted({bisect.bisect_right(self._stops, position) for position in positions})
        for number in numbers:
            portion = self._portion(number)
            kept = np.flatnonzero(np.isin(portion.table.images, positions))
            tables.append(portion.table.select(kept))
            own = {n_rows + row: old for row, old in enumerate(kept.tolist())}
            masks |= {row: portion.masks[old] for row, old in own.items() if old in portion.masks}
            n_rows += len(kept)
            labels |= {position: portion.labels[position] for position in positions if position in portion.labels}
        return Predictions(self.image_ids, BoxTable.concatenate(tables), masks), labels

    def remove(self) -> None:
        """Deletes the file: what it holds stands elsewhere now."""
        self.path.unlink()

    def _portion(self, number: int) -> Portion:
        self._file.seek(self._starts[number])
        content = from_line(self._file.readline(), number + 1)
        assert content is not None  # checked when the journal was opened, or written since
        return _parsed(content)

    def _append(self, content: dict[str, Any], number: int) -> int:
        start = self._file.seek(0, 2)
        self._file.write(to_line(content, number))
        self._file.flush()
        return start

    def _open_locked(self) -> BinaryIO:
        file = open(self.path, "a+b")  # noqa: SIM115 (closed on exit)
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                raise InputError(
                    f"another command is writing into {self.path.parent}: wait for it, or stop it"
                ) from None
        return file

    def _read(self, discard: bool) -> int:
        """Learns from the file what is done; returns how many of its bytes are good."""
        self._file.seek(0)
        first = from_line(self._file.readline(), 0)
        if first is None:
            return 0
        end = self._file.tell()
        claims = first.get("claims", {})
        while (content := from_line(line := self._file.readline(), len(self._starts) + 1)) is not None:
            self._starts.append(end)
            self._stops.append(content["stop"])
            end += len(line)
        differing = [name for name in {**claims, **self._claims} if claims.get(name) != self._claims.get(name)]
        if differing and self._starts and not discard:
            raise InputError(
                f"{self.path.parent} holds unfinished predictions of another command ({', '.join(differing)} changed): "
                "repeat that command to go on with them, or add --overwrite to start anew"
            )
        if differing or not self._starts:
            self._starts, self._stops = [], []
            return 0
        self.settled = first["settled"]
        return end


def stamp(path: Path) -> tuple[int, int] | None:
    """Bytes and time of a file's last change, None where it is gone: for claims."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _content(portion: Portion) -> dict[str, Any]:
    table = portion.table
    return {
        "stop": portion.stop,
        # Python writes floats so that they read back as the same numbers.
        "images": table.images.tolist(),
        "labels": table.labels.tolist(),
        "boxes": table.boxes.tolist(),
        "scores": table.scores.tolist(),
        "masks": list(portion.masks.items()),
        "sizes": list(portion.sizes.items()),
        "probabilities": list(portion.labels.items()),
        "failures": portion.failures,
        "warnings": portion.warnings,
    }


def _parsed(content: dict[str, Any]) -> Portion:
    return Portion(
        content["stop"],
        BoxTable.of(content["images"], content["labels"], content["boxes"], content["scores"]),
        dict(content["masks"]),
        {position: tuple(size) for position, size in content["sizes"]},
        dict(content["probabilities"]),
        [tuple(failure) for failure in content["failures"]],
        # A journal of an older version has none.
        [tuple(warning) for warning in content.get("warnings", [])],
    )
