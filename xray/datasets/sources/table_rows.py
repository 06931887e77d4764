"""The rows of anybody's table, handed to a collector: what each says of its radiograph, and the boxes."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from xray.datasets import source as reasons
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.edges import MAY_BE_SMALLER, SAME_SIZE, said_of_reach
from xray.datasets.sources.named_files import PathEnds
from xray.datasets.sources.review_words import COUNTS, PENDING, REJECTED
from xray.datasets.sources.table_boxes import (
    PIXELS,
    Reading,
    check_reading,
    drawn_on,
    may_be_corners,
    read_lists,
    read_numbers,
    to_corners,
    to_pixels,
)
from xray.datasets.sources.table_columns import Columns
from xray.datasets.sources.table_facts import Facts
from xray.datasets.sources.table_labels import BAD, BLANK, NEGATIVE, POSITIVE, UNCERTAIN, Labels, label_list
from xray.datasets.sources.tables import factorize
from xray.errors import InputError
from xray.findings import NO_FINDING_BOX
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.radiograph import radiograph_size
from xray.structures.values import is_missing, one_spelling

if TYPE_CHECKING:
    import pandas as pd

Policy = Literal["unknown", "negative", "positive"]

NO_ID = "row without an id"
UNKNOWN_LABEL = "label neither 1, 0, -1 nor blank"
LISTS_DIFFER = "as many labels as boxes, or one, are needed"
BOX_WITHOUT_LABEL = "box without a label"
BOX_OF_NORMAL = "box on a row that means nothing was found"
BOX_OF_NEGATIVE = "box on a row whose labels are all 0"
BOX_OF_UNCERTAIN = "box of an uncertain label"
BOX_REJECTED = "box that a review has not confirmed"
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
        self.states = np.zeros(len(cells), dtype=np.int8) if labels.states is None else labels.states
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
        if n := int((self.codes == UNCERTAIN)[is_used & (self.states == COUNTS)].sum()):
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
        is_withheld = np.zeros(n, dtype=bool)
        is_withheld[self.image_of[is_used & (self.states != COUNTS)]] = True
        # What a review has not let pass is not blank.
        is_blank &= ~is_unsaid & ~is_withheld[:, None]
        if blank == "unknown" and (n_blank := int(is_blank.any(axis=1).sum())):
            self.collector.warnings.append(FileWarning(BLANK_UNKNOWN, self.name, f"{n_blank} of {n} radiographs"))
        if blank != "unknown":
            codes[is_blank] = NEGATIVE if blank == "negative" else POSITIVE
        unknown = (codes == BLANK) | (codes == UNCERTAIN) | ((codes == NEGATIVE) & self._rejected())
        is_normal = np.zeros(n, dtype=bool)
        is_normal[self.image_of[is_used & self.labels.normal]] = True
        is_normal &= (codes == NEGATIVE).all(axis=1) & ~unknown.any(axis=1)
        facts = Facts(self.collector, self.name, self.cells, self.columns, self.names, self.image_of, self.place)
        further = facts.read()
        self.sizes = {image: size for image, size in enumerate(further.get("size", ())) if size is not None}
        ids = np.array(self.ids)
        # Without a column of labels only the boxes say what a radiograph shows.
        shown = (codes == POSITIVE) & bool(self.columns.labels)
        elsewhere = (codes == POSITIVE) & self._boxes_in_doubt(n)
        for number, name in enumerate(self.names):
            labels = ids[shown[number]].tolist()
            self.collector.describe(
                name,
                labels=labels,
                unlocated=labels,
                unknown=ids[unknown[number]].tolist(),
                elsewhere=ids[elsewhere[number]].tolist(),
                normal=bool(is_normal[number]),
                **{key: values[number] for key, values in further.items()},
            )
        for row in np.flatnonzero(is_used).tolist() if self.columns.reader else ():
            self.collector.describe(self.names[self.image_of[row]], reader=self.readers[row])

    def _rejected(self) -> np.ndarray:
        """(n, K) bool, a review has rejected the category there, and no other reader says that it is absent."""
        rejected = np.zeros((len(self.names), len(self.ids)), dtype=bool)
        if self.labels.rejected is None:
            return rejected
        absent: dict[tuple[int, int], set[str]] = {}
        concerned = np.isin(self.image_of, self.image_of[self.labels.rejected.any(axis=1)])
        denied = (self.codes == NEGATIVE) & concerned[:, None]
        for row, category in zip(*(axis.tolist() for axis in np.nonzero(denied)), strict=True):
            absent.setdefault((int(self.image_of[row]), category), set()).add(self.readers[row])
        for row, category in zip(*(axis.tolist() for axis in np.nonzero(self.labels.rejected)), strict=True):
            image = int(self.image_of[row])
            if image >= 0 and not absent.get((image, category), set()) - {self.readers[row]}:
                rejected[image, category] = True
        return rejected

    def _boxes_in_doubt(self, n: int) -> np.ndarray:
        """(n, K) bool, categories of boxes that are uncertain or rejected: beside others that are not, these may be
        no background."""
        in_doubt = np.zeros((n, len(self.ids)), dtype=bool)
        is_named = self.codes == UNCERTAIN
        if self.labels.rejected is not None:
            is_named = is_named | self.labels.rejected
        rows = np.unique(self.row_of)
        rows = rows[self.image_of[rows] >= 0]
        np.logical_or.at(in_doubt, self.image_of[rows], is_named[rows])
        return in_doubt

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
            labels = label_list(str(self.cells[self.columns.labels[0]].iat[row]), place)
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
        if self.states[row] == REJECTED or (self.states[row] == PENDING and not (codes == UNCERTAIN).any()):
            if not is_none:
                self.collector.leave_out(place, BOX_REJECTED, action="box ignored")
        elif self.labels.normal[row]:
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
