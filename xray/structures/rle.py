"""Kaggle's two run-length texts ↔ masks.

A text lists pairs of whole numbers, one pair a run of mask pixels, counted down the columns from the upper left pixel:

- "relative" (SIIM-ACR Pneumothorax): `gap length`, the gap counted from the end of the run before, the first from
  pixel 0;
- "absolute" (Kaggle's other challenges): `start length`, the start counted from pixel 1.

No mask is `-1`, or nothing at all. Whole numbers may be spelt as floating point, as pandas does beside an empty cell.
"""

from typing import Literal

import cv2
import numpy as np

from xray.errors import InputError
from xray.structures.values import is_missing, whole_number

Dialect = Literal["relative", "absolute"]

BEYOND = "runs beyond the image"
DISORDER = "overlapping or unsorted runs"
MALFORMED = "malformed run lengths"

_NO_MASK = ("-1", "-1.0")


class RunLengthError(InputError):
    """Run lengths that are no mask of the image; `reason` is one of this module's three texts."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def decode(text: str, height: int, width: int, dialect: Dialect) -> np.ndarray:
    """A run-length text → (height, width) bool.

    Raises RunLengthError as `read_runs` does.
    """
    starts, ends = read_runs(text, height, width, dialect)
    counts = coco_counts(starts, ends, height * width)
    # Runs and the gaps between them alternate, beginning with a gap, which may be empty.
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def encode(mask: np.ndarray, dialect: Dialect) -> str:
    """A (height, width) mask, nonzero where it is → its text; without a pixel "-1", or "" in the absolute dialect."""
    starts, ends = runs_of(mask)
    if len(starts) == 0:
        return "-1" if dialect == "relative" else ""
    firsts = starts + 1
    if dialect == "relative":
        firsts = starts - np.concatenate([[0], ends[:-1]])
    return " ".join(map(str, np.stack([firsts, ends - starts], axis=1).ravel().tolist()))


def is_empty(text: str) -> bool:
    """Whether a text says that there is no mask."""
    return is_missing(text) or text.strip() in _NO_MASK


def read_runs(text: str, height: int, width: int, dialect: Dialect) -> tuple[np.ndarray, np.ndarray]:
    """A run-length text → starts and ends (exclusive) of its runs, two (N,) int64, counted from 0 down the columns.

    Runs are in ascending order and do not overlap; two may touch.

    Raises RunLengthError for what is not pairs of whole numbers, runs without a pixel, runs that overlap or stand in no
    order (a negative gap in the relative dialect), and runs beyond the last pixel; the message names the run.
    """
    n_pixels = height * width
    if is_empty(text):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    words = text.split()
    try:
        values = _numbers(words)
    except (ValueError, OverflowError):
        faulty = next((word for word in words if not _is_number(word)), words[0])
        message = f"the run lengths hold {faulty[:20]!r}, which is no whole number of pixels"
        raise RunLengthError(MALFORMED, message) from None
    if len(values) % 2:
        message = f"the run lengths are {len(values)} numbers: runs are pairs, so one is missing or too many"
        raise RunLengthError(MALFORMED, message)
    firsts, lengths = values[0::2], values[1::2]
    _refuse(MALFORMED, lengths < 1, values, "has no pixel")
    # Before anything is summed: larger numbers might overflow.
    beyond = f"reaches beyond the {width} x {height} pixels"
    _refuse(BEYOND, (lengths > n_pixels) | (firsts > n_pixels), values, beyond)
    if dialect == "relative":
        _refuse(DISORDER, firsts < 0, values, "begins before the run in front of it ends")
        ends = np.cumsum(firsts + lengths)
        starts = ends - lengths
    else:
        _refuse(BEYOND, firsts < 1, values, "begins before the first pixel, which is 1")
        starts = firsts - 1
        ends = starts + lengths
        backwards = np.concatenate([[False], starts[1:] < starts[:-1]])
        _refuse(DISORDER, backwards, values, "begins before the run in front of it")
        overlaps = np.concatenate([[False], starts[1:] < ends[:-1]])
        _refuse(DISORDER, overlaps, values, "overlaps the run in front of it")
    _refuse(BEYOND, ends > n_pixels, values, beyond)
    return starts, ends


def other(dialect: Dialect) -> Dialect:
    """The dialect that a text may have been written in by mistake."""
    return "absolute" if dialect == "relative" else "relative"


def fits(text: str, height: int, width: int, dialect: Dialect) -> bool:
    """Whether a text is a mask in a dialect."""
    try:
        read_runs(text, height, width, dialect)
    except RunLengthError:
        return False
    return True


def is_telling(text: str, dialect: Dialect) -> bool:
    """Whether a text that is a mask only in the other dialect was written in it, and is not a damaged one of `dialect`.

    One or two runs fit by chance. Of relative run lengths read as absolute, nearly every run begins before the end of
    the one in front of it, as each column of a mask begins about a column's height after the end of the last.
    """
    values = _numbers(text.split())
    starts, ends = values[0::2], values[0::2] + values[1::2]
    if len(starts) < 3:
        return False
    return dialect == "relative" or bool(np.mean(starts[1:] < ends[:-1]) > 0.5)


def runs_of(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A (height, width) mask → starts and ends (exclusive) of its runs, two (N,) int64, counted down the columns."""
    # A pixel outside before the first and after the last lets runs touch both ends.
    flat = np.zeros(mask.size + 2, dtype=np.uint8)
    # OpenCV turns large masks around several times faster than NumPy.
    flat[1:-1] = cv2.transpose((np.asarray(mask) != 0).view(np.uint8)).reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return changes[0::2], changes[1::2]


def coco_counts(starts: np.ndarray, ends: np.ndarray, n_pixels: int) -> np.ndarray:
    """Ascending runs → COCO's counts of alternately clear and set pixels, int64 with the sum `n_pixels`."""
    counts = np.diff(np.stack([starts, ends], axis=1).ravel(), prepend=0, append=n_pixels)
    # As COCO has it, the first count may be 0, the last may not.
    return counts[:-1] if counts[-1] == 0 else counts


def _numbers(words: list[str]) -> np.ndarray:
    """(N,) int64. Raises ValueError or OverflowError for what is no whole number."""
    try:
        return np.array([int(word) for word in words], dtype=np.int64)
    except ValueError:
        numbers = [whole_number(word) for word in words]
        if None in numbers:
            raise ValueError("a number is missing") from None
        return np.array(numbers, dtype=np.int64)


def _is_number(word: str) -> bool:
    try:
        _numbers([word])
    except (ValueError, OverflowError):
        return False
    return True


def _refuse(reason: str, faulty: np.ndarray, values: np.ndarray, what: str) -> None:
    if faulty.any():
        run = int(np.argmax(faulty))
        raise RunLengthError(reason, f"run {run + 1} of the mask ({values[2 * run]} {values[2 * run + 1]}) {what}")
