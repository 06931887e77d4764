"""The boxes of anybody's table: numbers in any spelling, corners or sides, pixels or shares; and whether they fit."""

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xray.datasets.sources.box_names import FORMS, Form, read_keyed
from xray.datasets.sources.edges import ENOUGH, FAR, FEWEST, MANY, MOST_OPENED, SizesOf, is_much, passing, spread
from xray.datasets.sources.tables import factorize
from xray.errors import FlagError, InputError
from xray.structures.values import finite_number, is_missing

if TYPE_CHECKING:
    import pandas as pd

PIXELS, SHARE = "pixels", "share"
Units = str | int
"""PIXELS of the radiograph, SHARE of its sides, or N: pixels of a picture of N x N."""

_COMMON_SIDES = (224, 256, 299, 320, 384, 448, 512, 600, 640, 768, 800, 1024)
"""Sides that pictures are resized to."""

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_PAIR = re.compile(r"[\[(]\s*[-+.\d]+(?:\s*,\s*|\s+)[-+.\d]+\s*[\])]")
_THOUSANDS = re.compile(r"[+-]?\d{1,3},\d{3}")


def units_of(text: str) -> Units:
    """The value of --units. Raises FlagError for what it cannot be."""
    if text in (PIXELS, SHARE):
        return text
    if re.fullmatch(r"\d{1,5}", text, re.ASCII) and int(text) > 0:
        return int(text)
    raise FlagError(f"--units {text}: give pixels, share, or the side N of the pictures that the boxes were drawn on")


def read_numbers(table: "pd.DataFrame", columns: Sequence[str], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Four columns of text → (N, 4) float64, NaN for what is no number, and (N,) bool, where all four are empty.

    A comma is a decimal one, unless all numbers with one could have thousands: then InputError says so.
    """
    values, empty = np.zeros((len(table), 4)), np.ones(len(table), dtype=bool)
    texts = [factorize(table[column]) for column in columns]
    with_comma = [text for distinct, _ in texts for text in distinct if _DECIMAL_COMMA.fullmatch(text)]
    if with_comma and all(_THOUSANDS.fullmatch(text) for text in with_comma):
        raise InputError(
            f"{name}: is {with_comma[0]} more than a thousand, or a decimal fraction? Write it with a point, or without"
        )
    for place, (distinct, codes) in enumerate(texts):
        numbers = np.array([*map(_number, distinct), np.nan])
        is_blank = np.array([*map(is_missing, distinct), True])
        values[:, place] = numbers[codes]
        empty &= is_blank[codes]
    return values, empty


def _number(text: str) -> float:
    if _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    value = float(text) if _NUMBER.fullmatch(text) else np.nan
    return value if np.isfinite(value) else np.nan


def read_lists(table: "pd.DataFrame", column: str, form: Form) -> list[np.ndarray]:
    """A column of lists → for each row (M, 4) float64; (0, 4) where it is empty, (1, 4) NaN for what is no list.

    "[1, 2, 3, 4]", "(1 2 3 4)", "1;2;3;4" and "[[1, 2, 3, 4], [5, 6, 7, 8]]" are lists, and so are numbers by name in
    the order of `form`, "[{'x': 1, 'y': 2, 'width': 3, 'height': 4}]".
    """
    distinct, codes = factorize(table[column])
    lists = [*(_list(text, form) for text in distinct), np.zeros((0, 4))]
    return [lists[code] for code in codes.tolist()]


def _list(text: str, form: Form = "xywh") -> np.ndarray:
    if is_missing(text) or not text.strip("[](){} ,;"):
        return np.zeros((0, 4))
    if "{" in text and ":" in text:
        return np.array(read_keyed(text, form) or [[np.nan] * 4], dtype=np.float64)
    if len(_PAIR.findall(text)) > 2 or re.fullmatch(r"(?:\d+,\d+(?:\s+|$)){3,}", text):
        return np.full((1, 4), np.nan)  # points of an outline, or decimal commas
    bare = text.translate(str.maketrans("[](){}\"'", "        "))
    words = [word.strip() for word in re.split(r"[;,\s]+" if ";" not in bare else r"[;\s]+", bare) if word.strip()]
    numbers = np.array([_number(word) for word in words])
    if len(numbers) % 4 or not np.isfinite(numbers).all():
        return np.full((1, 4), np.nan)
    return numbers.reshape(-1, 4)


def to_corners(numbers: np.ndarray, form: Form) -> np.ndarray:
    """(N, 4) in a form → xyxy, in the same units."""
    first, second = numbers[:, :2], numbers[:, 2:]
    if form == "xyxy":
        return numbers.copy()
    start = first - second / 2 if form == "cxcywh" else first
    return np.concatenate([start, start + second], axis=1)


def to_pixels(corners: np.ndarray, units: Units, sizes: np.ndarray) -> np.ndarray:
    """(N, 4) xyxy in units → pixels of the radiographs. sizes: (N, 2) width and height; not used with PIXELS."""
    if units == PIXELS:
        return corners
    scale = sizes / (1.0 if units == SHARE else float(units))
    pixels: np.ndarray = corners * np.concatenate([scale, scale], axis=1)
    return pixels


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the numbers are read."""

    form: Form
    units: Units

    @property
    def flags(self) -> str:
        """As it is given to the command."""
        return f"--box {self.form} --units {self.units}"

    def misfits(self, numbers: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """(N,) bool, which boxes are none, or pass an edge. sizes: (N, 2), NaN where it is not known: then only the
        first two edges, and for shares all."""
        corners = to_corners(numbers, self.form)
        limits = sizes
        if self.units != PIXELS:
            limits = np.full((len(numbers), 2), 1.0 if self.units == SHARE else float(self.units))
        inverted = (corners[:, 2:] < corners[:, :2]).any(axis=1)
        misfit: np.ndarray = np.logical_or(passing(corners, limits), inverted)
        return misfit


def check_reading(numbers: np.ndarray, given: Reading, name: str, known: np.ndarray, sizes_of: SizesOf) -> np.ndarray:
    """Raises InputError where boxes do not fit as the flags read them, and do in another way, which it names.

    numbers: (N, 4) as the table has them, finite. known: (N, 2) sizes of their radiographs, as far as the table says
    them. sizes_of: opens radiographs, of which a few are.
    Returns (N, 2) the sizes of boxes from everywhere, NaN for the others: what is so of them is so of all.
    """
    if not len(numbers):
        return known
    if given.units != SHARE and (np.abs(numbers) <= 1 + FAR).all():
        raise InputError(
            f"{name}: all boxes lie between 0 and 1, so they are shares of the sides and no pixels: give --units share"
        )
    # The largest are the first that would pass an edge; and as many from everywhere, which speak for all.
    largest = np.argsort(-numbers.max(axis=1), kind="stable")[:MOST_OPENED]
    fair = np.zeros(len(numbers), dtype=bool)
    fair[spread(np.arange(len(numbers)), MOST_OPENED)] = True
    unknown = np.isnan(known).any(axis=1)
    sizes = known.copy()
    opened = np.unique(np.concatenate([largest, np.flatnonzero(fair)]))
    opened = opened[unknown[opened]]
    sizes[opened] = sizes_of(opened)
    fair |= ~unknown | (given.units != PIXELS)
    fair_sizes = np.where(fair[:, None], sizes, np.nan)
    misfits = given.misfits(numbers, sizes)
    if not misfits.any():
        return fair_sizes
    others = [Reading(form, given.units) for form in FORMS if form != given.form]
    of_units = sorted(FORMS, key=lambda form: form != given.form)
    others += [Reading(form, units) for units in (PIXELS, SHARE) if units != given.units for form in of_units]
    counts = {other: int(other.misfits(numbers, sizes).sum()) for other in others}
    best = min(counts, key=lambda other: counts[other])
    n, n_fair, n_given = int(fair.sum()), int(misfits[fair].sum()), int(misfits.sum())
    is_most = n_fair > 0 and 2 * n_fair >= n
    # Small boxes in the middle fit as centres too; that all thirds are larger than the firsts is no chance.
    is_telling = best.form == "xyxy" and best.units == given.units and len(numbers) >= FEWEST
    enough = is_most or is_telling or is_much(n_fair, n, is_known=True)
    if enough and 4 * counts[best] < n_given and (counts[best] == 0 or n_given > FEWEST):
        raise InputError(
            f"{name}: {n_given} of {len(numbers)} boxes are none or pass the edges of their radiographs with "
            f"{given.flags}, and {counts[best] or 'none'} with {best.flags}: give that"
        )
    # Sizes that the table does not say are those of the files, which may have been made smaller.
    n_passing = int(passing(to_corners(numbers[fair], given.form), sizes[fair]).sum())
    of_files = given.units == PIXELS and bool(unknown.all()) and is_much(n_passing, n, is_known=True)
    if of_files or is_much(n_fair, n):
        first = int(np.flatnonzero(misfits & fair)[0])
        box = ", ".join(f"{value:g}" for value in numbers[first].tolist())
        beside = " in {:g} x {:g}".format(*sizes[first].tolist()) if np.isfinite(sizes[first]).all() else ""
        raise InputError(
            f"{name}: {n_fair} of {n} boxes {'' if n == len(numbers) else 'from everywhere '}are none or pass the "
            f"edges of their radiographs (the first: {box}{beside}): check --box and --units, and where the files are "
            "smaller than those that were annotated, give --width and --height"
        )
    return fair_sizes


def fits_better(numbers: np.ndarray, given: Reading, other: Reading, sizes: np.ndarray) -> tuple[int, int] | None:
    """How many boxes are none or pass an edge as `given` and as `other`, where that says that the other is meant.

    numbers: (N, 4), finite. sizes: as for `Reading.misfits`. None where it does not.
    """
    n_given, n_other = (int(reading.misfits(numbers, sizes).sum()) for reading in (given, other))
    is_many = n_given > 1 and n_given >= MANY * len(numbers)
    return (n_given, n_other) if is_many and 4 * n_other < n_given and (n_other == 0 or n_given > FEWEST) else None


def may_be_corners(numbers: np.ndarray) -> bool:
    """Whether many boxes (N, 4), read as x, y, width, height, could all be two corners as well."""
    return len(numbers) >= ENOUGH and bool((numbers[:, 2:] > numbers[:, :2]).all())


def drawn_on(corners: np.ndarray, sizes: np.ndarray) -> int | None:
    """The side of resized pictures that boxes (N, 4), in pixels, seem to be drawn on; None where they fill the files.

    sizes: (N, 2), NaN where not known.
    """
    known = np.isfinite(sizes).all(axis=1)
    if known.sum() < ENOUGH:
        return None
    reach, smallest = float(corners[known].max()), float(sizes[known].min())
    side = next((side for side in _COMMON_SIDES if reach <= side), None)
    return side if side and reach >= 0.85 * side and smallest >= 1.3 * side else None


def sides_in(column: "pd.Series") -> list[int]:
    """Pixels, of each row; 0 for what is no size."""
    texts, code_of = factorize(column)
    values: list[int] = []
    for text in texts:
        try:
            values.append(max(0, round(finite_number(text) or 0)))
        except ValueError:
            values.append(0)
    values.append(0)
    return [values[code] for code in code_of.tolist()]
