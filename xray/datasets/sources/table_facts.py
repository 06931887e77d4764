"""What the rows of anybody's table say of their radiographs besides labels and boxes: patient, split, size, view, …."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.datasets.sources.collector import Collector
from xray.datasets.sources.splits import split_meant
from xray.datasets.sources.table_boxes import sides_in
from xray.datasets.sources.table_columns import Columns
from xray.datasets.sources.tables import factorize
from xray.errors import InputError
from xray.radiographs.attributes import plain_attributes
from xray.radiographs.canvas import MAX_PIXELS
from xray.radiographs.file_warnings import FileWarning
from xray.structures.values import is_missing, one_spelling

if TYPE_CHECKING:
    import pandas as pd

NO_SIZE = "width and height that no radiograph has"
BLANK_SPLIT = "table with radiographs without a split, which train"


@dataclasses.dataclass(frozen=True)
class Facts:
    """A table of N rows, of n radiographs.

    table: its file's name. names: of the radiographs' files. image_of: (N,) number of each row's radiograph, -1 for
    none. place: where a row stands, for messages.
    """

    collector: Collector
    table: str
    cells: "pd.DataFrame"
    columns: Columns
    names: Sequence[str]
    image_of: np.ndarray
    place: Callable[[int], str]

    def read(self) -> dict[str, list[Any]]:
        """Patient, split, size, view, sex and age of each radiograph, by the first of its rows that says so."""
        further: dict[str, list[Any]] = {}
        columns = self.columns
        if columns.patient:
            texts, code_of = factorize(self.cells[columns.patient])
            further["patient"] = self._first([*one_spelling(texts), None], code_of, "patient")
        if columns.split:
            texts, code_of = factorize(self.cells[columns.split])
            splits = [None if is_missing(text) else split_meant(text) for text in texts]
            for text, split in zip(texts, splits, strict=True):
                if split is None and not is_missing(text):
                    raise InputError(f"{self.table}: {text!r} in {columns.split} is no split: write train, val or test")
            further["split"] = self._first([*splits, None], code_of, "split")
            if n_blank := further["split"].count(None):
                self.collector.warnings.append(
                    FileWarning(BLANK_SPLIT, self.table, f"{n_blank} of {len(self.names)} radiographs")
                )
        if columns.size:
            pairs = list(zip(*(sides_in(self.cells[column]) for column in columns.size), strict=True))
            known = [pair if min(pair) > 0 and pair[0] * pair[1] <= MAX_PIXELS else None for pair in pairs]
            if self.columns.box:
                self._lose_sizes(known)
            further["size"] = self._first(known, np.arange(len(known)), "size")
        for key in ("view", "sex", "age"):
            if column := getattr(columns, key):
                texts, code_of = factorize(self.cells[column])
                values = [plain_attributes({key: text}).get(key) for text in texts]
                further[key] = self._first([*values, None], code_of)
        return further

    def _lose_sizes(self, known: Sequence[tuple[int, int] | None]) -> None:
        """Loses radiographs whose size is there and is none: their boxes may be of another one than the file's."""
        is_filled = np.zeros(len(known), dtype=bool)
        for column in self.columns.size or ():
            texts, code_of = factorize(self.cells[column])
            is_filled |= np.array([*(not is_missing(text) for text in texts), False])[code_of]
        is_none = np.array([size is None for size in known], dtype=bool)
        for row in np.flatnonzero(is_filled & is_none & (self.image_of >= 0)).tolist():
            self.collector.lose(self.names[self.image_of[row]], self.place(row), NO_SIZE)

    def _first(self, values: Sequence[Any], code_of: np.ndarray, must_agree: str = "") -> list[Any]:
        """For each radiograph the first value of its rows. must_agree: what InputError says of two different ones."""
        result: list[Any] = [None] * len(self.names)
        for row, (image, code) in enumerate(zip(self.image_of.tolist(), code_of.tolist(), strict=True)):
            value = values[code]
            if image < 0 or value is None:
                continue
            if result[image] is None:
                result[image] = value
            elif must_agree and result[image] != value:
                raise InputError(
                    f"{self.place(row)}: {self.names[image]} has two values of {must_agree}, {result[image]} and "
                    f"{value}: correct the table"
                )
        return result
