"""Predictions on disk while they are made: memory does not grow, and an interrupted command continues where it stopped.

A file of checked JSON lines. The first line holds the fingerprint (models, flags, radiographs) and the choices of the
command; each other line holds the findings of the radiographs that follow those of the line before. A line that a crash
cut short, or that was damaged since, is removed with all lines after it.
"""

import bisect
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xray.errors import InputError
from xray.files import CheckedLog, differing
from xray.structures.boxes import BoxTable
from xray.structures.predictions import Predictions


@dataclasses.dataclass(frozen=True)
class Portion:
    """Findings in consecutive radiographs.

    stop: position after the last of them, in the order of the whole. table: boxes; `images` are positions. masks: row
    of the table → COCO RLE. sizes: position → width and height of each that could be read. labels: position → {label:
    probability}. failures: (position, file name, reason) of radiographs that could not be read. warnings: (position,
    kind).
    """

    stop: int
    table: BoxTable = dataclasses.field(default_factory=BoxTable.empty)
    masks: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = dataclasses.field(default_factory=dict)
    labels: dict[int, dict[str, float]] = dataclasses.field(default_factory=dict)
    failures: list[tuple[int, str, str]] = dataclasses.field(default_factory=list)
    warnings: list[tuple[int, str]] = dataclasses.field(default_factory=list)


class PredictionJournal:
    """An open journal; as a context manager it closes the file and keeps it.

    image_ids: source ids of all radiographs. done: how many of them are done. choices: the first argument that
    `choose_once` was given.
    """

    def __init__(
        self, path: Path, fingerprint: Mapping[str, Any], image_ids: Sequence[str], discard: bool = False
    ) -> None:
        """Opens a journal, or continues one of the same fingerprint.

        fingerprint: name → what must be the same, JSON. discard: a journal of another fingerprint is thrown away.
        Raises InputError if there is one of another fingerprint, or another command writes it.
        """
        self.path, self.image_ids = path, tuple(image_ids)
        self.choices: dict[str, Any] | None = None
        self._fingerprint = json.loads(json.dumps(fingerprint))
        self._stops: list[int] = []
        self._log = CheckedLog(path, f"another command is writing into {path.parent}: wait for it, or stop it")
        try:
            self._read(discard)
        except BaseException:
            self._log.close()
            raise

    def __enter__(self) -> "PredictionJournal":
        return self

    def __exit__(self, *exception: object) -> None:
        self._log.close()

    @property
    def done(self) -> int:
        """Number of radiographs, from the first on, that were processed or failed so far."""
        return self._stops[-1] if self._stops else 0

    def choose_once(self, choices: Mapping[str, Any]) -> dict[str, Any]:
        """Notes the choices of this command. A command that continues the journal gets the choices of the first one."""
        if self.choices is None:
            self._log.cut(0)
            self.choices = json.loads(json.dumps(choices))
            self._log.append([{"claims": self._fingerprint, "settled": self.choices}])
        return self.choices

    def add(self, portion: Portion) -> None:
        """Appends the next portion; from then on it survives the end of this process."""
        self._log.append([_content(portion)])
        self._stops.append(portion.stop)

    def portions(self) -> Iterator[Portion]:
        """All portions, in order, one in memory at a time."""
        for number in range(len(self._stops)):
            yield self._portion(number)

    def predictions(self, positions: Sequence[int]) -> tuple[Predictions, dict[int, dict[str, float]]]:
        """The boxes and labels of the radiographs at these positions alone."""
        masks: dict[int, dict[str, Any]] = {}
        labels: dict[int, dict[str, float]] = {}
        tables, n_rows = [], 0
        for number in sorted({bisect.bisect_right(self._stops, position) for position in positions}):
            portion = self._portion(number)
            table, of_table = portion.table.select_masked(np.isin(portion.table.images, positions), portion.masks)
            masks |= {n_rows + row: mask for row, mask in of_table.items()}
            labels |= {position: portion.labels[position] for position in positions if position in portion.labels}
            tables.append(table)
            n_rows += len(table)
        return Predictions(self.image_ids, BoxTable.concatenate(tables), masks), labels

    def remove(self) -> None:
        """Deletes the file, once its content is written elsewhere."""
        self.path.unlink()

    def _portion(self, number: int) -> Portion:
        return _parsed(self._log.line(number + 1))

    def _read(self, discard: bool) -> None:
        """Reads how much is done, and cuts off lines that are damaged or of another fingerprint."""
        lines = self._log.read()
        first = next(lines, {})
        stops = [content["stop"] for content in lines]
        names = differing(first.get("claims", {}), self._fingerprint)
        if names and stops and not discard:
            raise InputError(
                f"{self.path.parent} holds unfinished predictions of another command ({', '.join(names)} changed): "
                "repeat that command to continue with them, or add --overwrite to start again"
            )
        if names or not stops:
            self._log.cut(0)
        else:
            self._stops, self.choices = stops, first["settled"]
            self._log.cut(len(stops) + 1)


def stamp(path: Path) -> tuple[int, int] | None:
    """Bytes and time of a file's last change, None where it is gone: for fingerprints."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


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
