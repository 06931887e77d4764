"""The rows of anybody's table, handed to a collector: what each says of its radiograph, and the boxes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from xray.datasets import source as reasons
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.edges import MAY_BE_SMALLER, SAME_SIZE, said_of_reach
from xray.datasets.sources.named_files import PathEnds
from xray.datasets.sources.splits import split_meant
from xray.datasets.sources.table_boxes import (
    PIXELS,
    Reading,
    check_reading,
    drawn_on,
    may_be_corners,
    read_lists,
    read_numbers,
    sides_in,
    to_corners,
    to_pixels,
)
from xray.datasets.sources.table_columns import Columns
from xray.datasets.sources.table_labels import BAD, BLANK, NEGATIVE, POSITIVE, UNCERTAIN, Labels, label_list
from xray.datasets.sources.tables import factorize
from xray.errors import InputError
from xray.findings import NO_FINDING_BOX
from xray.radiographs.attributes import plain_attributes
from xray.radiographs.canvas import MAX_PIXELS
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.radiograph import radiograph_size
from xray.structures.values import is_missing, one_spelling

if TYPE_CHECKING:
    import pandas as pd

Policy = Literal["unknown", "negative", "positive"]

NO_ID = "row without an id"
NO_SIZE = "width and height that no radiograph has"
UNKNOWN_LABEL = "label neither 1, 0, -1 nor blank"
LISTS_DIFFER = "as many labels as boxes, or one, are needed"
BOX_WITHOUT_LABEL = "box without a label"
BOX_OF_NORMAL = "box on a row that means nothing was found"
BOX_OF_NEGATIVE = "box on a row whose labels are all 0"
BOX_OF_UNCERTAIN = "box of an uncertain label"
AT_ODDS = "row of which one column means nothing was found, and another of such a name does not"
CONTRADICTORY = "row that means nothing was found, beside a finding"
BLANK_UNKNOWN = (
    "table with blank labels (nothing, none, NA or the like), whose radiographs count as unknown (--blank negative if "
    "they mean no finding)"
)
UNSAID = (
    "radiographs with labels that say nothing, which count as unknown (a line for them in --map makes them findings)"
)
UNSAID_CELLS = "radiographs with cells that say that nobody knows, which count as unknown"
BLANK_SPLIT = "table with radiographs without a split, which train"
UNCERTAIN_LABELS = "uncertain labels"
MAY_BE_CORNERS = "boxes that may be two corners"
WITHOUT_LABELS = "table without a column of labels: its boxes are of one category, Finding"


class TableRows:
    """N rows that name n radiographs.

    image_of: (N,) number of each row's radiograph; -1 where it has none. names: of the radiographs' files.
    numbers, row_of: (M, 4) the numbers of all boxes as they stand there, and (M,) their rows.
    codes: (N, K) what each row says of each category, see `table_labels`.
    """

    def __init__(
        self, collector: Collector, name: str, cells: "pd.DataFrame", columns: Columns, labels: Labels
    ) -> None:
        self.collector, self.name, self.cells, self.columns, self.labels = collector, name, cells, columns, labels
        self.lines = cells["line"].tolist()
        self.codes = labels.codes.copy()
        self.ids = [collector.category(category) for category in labels.categories]
        self.numbers, self.row_of = self._numbers()
        if not columns.labels:
            collector.warnings.append(FileWarning(WITHOUT_LABELS, name))
            self.codes[np.setdiff1d(np.arange(len(cells)), self.row_of)] = BLANK
        self.names, self.image_of = self._images()
        self.readers = self._readers()
        self.sizes: dict[int, tuple[float, float]] = {}

    def place(self, row: int) -> str:
        """Where a row stands, for the record."""
        return f"{self.name} line {self.lines[row]}"

    def _numbers(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.columns.box:
            return np.zeros((0, 4)), np.zeros(0, dtype=np.int64)
        if len(self.columns.box) == 4:
            numbers, empty = read_numbers(self.cells, self.columns.box, self.name)
            return numbers[~empty], np.flatnonzero(~empty)
        lists = read_lists(self.cells, self.columns.box[0], self.columns.form or "xywh")
        counts = np.array([len(one) for one in lists], dtype=np.int64)
        return np.concatenate([np.zeros((0, 4)), *lists]), np.repeat(np.arange(len(lists)), counts)

    def _images(self) -> tuple[list[str], np.ndarray]:
        texts, code_of = factorize(self.cells[self.columns.id])
        first = np.full(len(texts) + 1, -1, dtype=np.int64)
        first[code_of[::-1]] = np.arange(len(code_of))[::-1]
        numbers: dict[str, int] = {}
        image = np.full(len(texts) + 1, -1, dtype=np.int64)
        meant_by = PathEnds(self.collector.files, texts).meant_by
        for code, text in enumerate(texts):
            if is_missing(text) and not meant_by(text):
                self._nameless(np.flatnonzero(code_of == code))
                continue
            names, place = meant_by(text), self.place(int(first[code]))
            if not names:
                self.collector.leave_out(place, reasons.MISSING_FILE, text)
            elif len(names) == 1:
                image[code] = numbers.setdefault(names[0], len(numbers))
            else:
                # A finding of one would be learned as that of another, or as none.
                for name in names:
                    self.collector.lose(name, place, reasons.REPEATED_NAME, f"{text} may be {' or '.join(names[:5])}")
        return list(numbers), image[code_of]

    def _nameless(self, rows: np.ndarray) -> None:
        """Rows without an id: those that are blank are nothing, a finding may be that of any radiograph."""
        used = (*self.columns.labels, *self.columns.box)
        filled = [row for row in rows.tolist() if any(not is_missing(self.cells[column].iat[row]) for column in used)]
        findings = [row for row in filled if (self.codes[row] == POSITIVE).any()]
        if findings:
            raise InputError(
                f"{self.place(findings[0])} has a finding and no {self.columns.id}, so that a radiograph without a "
                "finding may not be normal: write the id there, or delete the row"
            )
        for row in filled:
            self.collector.leave_out(self.place(row), NO_ID)

    def _readers(self) -> list[str]:
        if self.columns.reader is None:
            return [""] * len(self.cells)
        texts, code_of = factorize(self.cells[self.columns.reader])
        spelt = [name or "" for name in one_spelling(texts)] + [""]
        return [spelt[code] for code in code_of.tolist()]

    def judge(self, uncertain: Policy) -> None:
        """Decides what -1 means, and names the rows that cannot be used or contradict others."""
        is_used = self.image_of >= 0
        if n := int((self.codes == UNCERTAIN)[is_used].sum()):
            said = f"{n} labels of -1, or of a word for it, are {uncertain}"
            self.collector.warnings.append(FileWarning(UNCERTAIN_LABELS, self.name, said))
        if uncertain != "unknown":
            self.codes[self.codes == UNCERTAIN] = POSITIVE if uncertain == "positive" else NEGATIVE
        for row in np.flatnonzero((self.codes == BAD).any(axis=1) & is_used).tolist():
            self.collector.lose(self.names[self.image_of[row]], self.place(row), UNKNOWN_LABEL)
        for row in np.flatnonzero(self.labels.at_odds & is_used).tolist():
            self.collector.lose(self.names[self.image_of[row]], self.place(row), AT_ODDS)
        normal = np.flatnonzero(self.labels.normal & is_used).tolist()
        if normal:
            # A reader who found something did not find nothing.
            positive = np.flatnonzero((self.codes == POSITIVE).any(axis=1) & is_used).tolist()
            found = {(self.image_of[row], self.readers[row]) for row in positive}
            for row in normal:
                if (self.image_of[row], self.readers[row]) in found:
                    self.collector.leave_out(self.place(row), CONTRADICTORY, action="the finding counts")

    def describe(self, blank: Policy) -> None:
        """Enters what the rows say of each radiograph as a whole."""
        n, is_used = len(self.names), self.image_of >= 0
        codes = np.zeros((n, len(self.ids)), dtype=np.int8)
        np.maximum.at(codes, self.image_of[is_used], self.codes[is_used].clip(0))
        is_blank, is_unsaid = codes == BLANK, np.zeros(codes.shape, dtype=bool)
        if self.labels.unsaid is not None:
            np.logical_or.at(is_unsaid, self.image_of[is_used], self.labels.unsaid[is_used])
        if n_unsaid := int((is_blank & is_unsaid).any(axis=1).sum()):
            said = f"{', '.join(self.labels.unsaid_names[:5])}: {n_unsaid} of {n}"
            kind = UNSAID_CELLS if self.columns.is_wide or self.columns.said else UNSAID
            self.collector.warnings.append(FileWarning(kind, self.name, said))
        is_blank &= ~is_unsaid
        if blank == "unknown" and (n_blank := int(is_blank.any(axis=1).sum())):
            self.collector.warnings.append(FileWarning(BLANK_UNKNOWN, self.name, f"{n_blank} of {n} radiographs"))
        if blank != "unknown":
            codes[is_blank] = NEGATIVE if blank == "negative" else POSITIVE
        unknown = (codes == BLANK) | (codes == UNCERTAIN)
        is_normal = np.zeros(n, dtype=bool)
        is_normal[self.image_of[is_used & self.labels.normal]] = True
        is_normal &= (codes == NEGATIVE).all(axis=1)
        further = self._further(n)
        ids = np.array(self.ids)
        # Without a column of labels only the boxes say what a radiograph shows.
        shown = (codes == POSITIVE) & bool(self.columns.labels)
        for number, name in enumerate(self.names):
            labels = ids[shown[number]].tolist()
            self.collector.describe(
                name,
                labels=labels,
                unlocated=labels,
                unknown=ids[unknown[number]].tolist(),
                normal=bool(is_normal[number]),
                **{key: values[number] for key, values in further.items()},
            )
        for row in np.flatnonzero(is_used).tolist() if self.columns.reader else ():
            self.collector.describe(self.names[self.image_of[row]], reader=self.readers[row])

    def _further(self, n: int) -> dict[str, list[Any]]:
        """Patient, split, size, view, sex and age of each radiograph, by the first of its rows that says so."""
        further: dict[str, list[Any]] = {}
        columns = self.columns
        if columns.patient:
            texts, code_of = factorize(self.cells[columns.patient])
            further["patient"] = self._first(n, [*one_spelling(texts), None], code_of, "patient")
        if columns.split:
            texts, code_of = factorize(self.cells[columns.split])
            splits = [None if is_missing(text) else split_meant(text) for text in texts]
            for text, split in zip(texts, splits, strict=True):
                if split is None and not is_missing(text):
                    raise InputError(f"{self.name}: {text!r} in {columns.split} is no split: write train, val or test")
            further["split"] = self._first(n, [*splits, None], code_of, "split")
            if n_blank := further["split"].count(None):
                self.collector.warnings.append(FileWarning(BLANK_SPLIT, self.name, f"{n_blank} of {n} radiographs"))
        if columns.size:
            pairs = list(zip(*(sides_in(self.cells[column]) for column in columns.size), strict=True))
            known = [pair if min(pair) > 0 and pair[0] * pair[1] <= MAX_PIXELS else None for pair in pairs]
            if self.columns.box:
                self._lose_sizes(known)
            further["size"] = self._first(n, known, np.arange(len(known)), "size")
            self.sizes = {image: size for image, size in enumerate(further["size"]) if size is not None}
        for key in ("view", "sex", "age"):
            if column := getattr(columns, key):
                texts, code_of = factorize(self.cells[column])
                values = [plain_attributes({key: text}).get(key) for text in texts]
                further[key] = self._first(n, [*values, None], code_of)
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

    def _first(self, n: int, values: Sequence[Any], code_of: np.ndarray, must_agree: str = "") -> list[Any]:
        """For each radiograph the first value of its rows. must_agree: what InputError says of two different ones."""
        result: list[Any] = [None] * n
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

    def enter_boxes(self, reading: Reading, same_size: bool = False) -> None:
        """Enters the boxes, after a look at whether they fit; `describe` comes before.

        same_size: the user says that the files are as large as when they were annotated.
        """
        images = self.image_of[self.row_of]
        chosen = (self.codes == POSITIVE).any(axis=1)[self.row_of] & (images >= 0)
        checked = np.flatnonzero(chosen & np.isfinite(self.numbers).all(axis=1))
        is_needed = reading.units != PIXELS
        sizes = check_reading(
            self.numbers[checked],
            reading,
            self.name,
            self._known_sizes(images[checked]),
            lambda places: self._sizes_of(images[checked[places]], is_needed),
        )
        if reading.form == "xywh" and may_be_corners(self.numbers[checked]):
            said = "every third number is larger than the first, every fourth than the second: is it --box xyxy?"
            self.collector.warnings.append(FileWarning(MAY_BE_CORNERS, self.name, said))
        corners = to_corners(self.numbers, reading.form)
        if is_needed:
            sizes = np.full((len(images), 2), np.nan)
            sizes[checked] = self._sizes_of(images[checked], is_needed)
            corners = to_pixels(corners, reading.units, sizes)
        elif not same_size:
            advice = (
                "give --units N if they were drawn on pictures of N x N, --width and --height, columns of the sizes "
                f"that the pictures had, or {SAME_SIZE}"
            )
            is_said = self.columns.size is not None
            said = said_of_reach(corners[checked], sizes, self.name, advice, is_said)
            if side := drawn_on(corners[checked], self._known_sizes(images[checked])):
                said = f"none passes {side} pixels, and the radiographs are larger: "
                said += f"--units {side} if they were drawn there"
            if said:
                self.collector.warnings.append(FileWarning(MAY_BE_SMALLER, self.name, said))
        n_boxes = np.bincount(self.row_of, minlength=len(self.cells))
        position = np.arange(len(self.row_of)) - np.searchsorted(self.row_of, self.row_of)
        for number in np.flatnonzero(images >= 0).tolist():
            row = int(self.row_of[number])
            self._box(row, corners[number], self.numbers[number], int(position[number]), int(n_boxes[row]))

    def _box(self, row: int, corners: np.ndarray, numbers: np.ndarray, position: int, n_boxes: int) -> None:
        """Enters one of a row's boxes, the one at `position`."""
        name, place, codes = self.names[self.image_of[row]], self.place(row), self.codes[row]
        positive = np.flatnonzero(codes == POSITIVE).tolist()
        if n_boxes > 1 and len(positive) > 1 and not self.columns.is_wide:
            labels = label_list(str(self.cells[self.columns.labels[0]].iat[row]))
            if len(labels) != n_boxes:
                if position == 0:
                    self.collector.lose(name, place, LISTS_DIFFER, f"{len(labels)} labels, {n_boxes} boxes")
                return
            wanted = labels[position].casefold()
            positive = [k for k, category in enumerate(self.labels.categories) if category.casefold() == wanted]
        for category in positive:
            self.collector.box(name, self.ids[category], corners.tolist(), place, self.readers[row])
        if positive:
            return
        # Zeros, or VinBigData's [0, 0, 1, 1], stand for no box.
        is_none = not np.isfinite(numbers).all() or tuple(numbers) == NO_FINDING_BOX or len(set(numbers.tolist())) == 1
        if self.labels.normal[row]:
            if not is_none:
                self.collector.leave_out(place, BOX_OF_NORMAL, action="box ignored")
        elif (codes == UNCERTAIN).any():
            self.collector.leave_out(place, BOX_OF_UNCERTAIN, action="box ignored")
        elif not is_none:
            self.collector.lose(name, place, BOX_OF_NEGATIVE if (codes == NEGATIVE).all() else BOX_WITHOUT_LABEL)

    def _sizes_of(self, images: np.ndarray, is_needed: bool) -> np.ndarray:
        """(M,) images → (M, 2) widths and heights, of the table or of their files; NaN where one cannot be read.

        is_needed: a radiograph without a size is then left out.
        """
        for image in sorted(set(images.tolist()) - self.sizes.keys()):
            name = self.names[image]
            try:
                width, height = radiograph_size(self.collector.paths[name])
                self.sizes[image] = (width, height)
            except InputError as error:
                self.sizes[image] = (np.nan, np.nan)
                if is_needed:
                    self.collector.lose(name, name, reasons.UNREADABLE, str(error))
        return self._known_sizes(images)

    def _known_sizes(self, images: np.ndarray) -> np.ndarray:
        """(M,) images → (M, 2), of those whose sizes are known by now."""
        nothing = (np.nan, np.nan)
        sizes = [self.sizes.get(image, nothing) for image in images.tolist()]
        return np.array(sizes, dtype=np.float64).reshape(-1, 2)
