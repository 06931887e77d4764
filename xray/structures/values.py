"""Numbers, ids and names as tables and JSON files spell them: the one place where the meaning of a cell is decided.

pandas writes a column of whole numbers as 3.0 once a value is missing, spreadsheets and web tools write "3", and what
is missing is null, "", NaN or not there at all. All of these are read here, by every source and for predictions.
"""

import math
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

LARGEST = 2**53
"""Whole numbers beyond this one are not exact once a tool has kept them as floating point."""

_WHOLE = re.compile(r"[+-]?\d{1,400}(\.0*)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)
_MISSING = frozenset(("", "nan", "null", "none", "na", "n/a", "<na>"))

_Value = TypeVar("_Value")


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: None, NaN, blank text, or what tables write for it (nan, null, NA)."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.strip().casefold() in _MISSING


def whole_number(value: Any) -> int | None:
    """3, 3.0, "3" and " 3.0 " → 3; None where the value is missing.

    Raises ValueError for what is no whole number: 3.5, "x", true, infinity, lists, and floats beyond 2^53.
    """
    if is_missing(value):
        return None
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value.strip().partition(".")[0])
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST:
        return int(value)
    raise ValueError(f"{shown(value)} is no whole number")


def finite_number(value: Any) -> float | None:
    """A finite number in any spelling ("2000.0", 2000, " 1e3 ") → float; None where the value is missing.

    Raises ValueError for anything else, infinity and true among them.
    """
    if is_missing(value):
        return None
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise ValueError(f"{shown(value)} is no finite number")


def identity(value: Any) -> int | str | None:
    """What an id is compared by: the number where it spells a whole one, else its text; None where it is missing.

    Raises ValueError for what is neither number nor text.
    """
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        # "nan" and "NA" may be names here; pandas writes them as empty cells.
        return whole_number(text) if _WHOLE.fullmatch(text) else text
    if isinstance(value, float) and math.isfinite(value) and not value.is_integer():
        return repr(value)
    return whole_number(value)


def text_of(value: Any) -> str | None:
    """An id or a name as text: its own where it is text ("003"), "3" for 3, 3.0 and "3.0"; None where it is missing.

    Raises ValueError for what is neither number nor text.
    """
    if isinstance(value, str):
        text = value.strip()
        return (text.partition(".")[0] if _WHOLE.fullmatch(text) else text) or None
    number = identity(value)
    return None if number is None else str(number)


def caseless(name: str) -> str:
    """A name without case, and with single blanks, by which names are compared."""
    return " ".join(name.casefold().split())


def flag_of(value: Any) -> bool | None:
    """0, 0.0, "0", false, "False", "no" and their opposites → bool; None where the value is missing.

    Raises ValueError for anything else.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().casefold() in ("false", "true", "no", "yes", "f", "t", "n", "y"):
        return value.strip().casefold()[0] in "ty"
    number = whole_number(value)
    if number not in (None, 0, 1):
        raise ValueError(f"{shown(value)} is neither 0 nor 1")
    return None if number is None else bool(number)


def shown(value: Any) -> str:
    """A value as messages quote it, cut to 40 characters."""
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"


class Names(Generic[_Value]):
    """What stands under a name, looked up as the name is spelt, or else by the whole number that it spells.

    A table that lost its zeros says 7 or "7.0" where the file is 007.png; where two names spell one number, only the
    exact spelling counts.
    """

    def __init__(self, by_name: Mapping[str, _Value]) -> None:
        self._by_name = dict(by_name)
        self._by_number: dict[int, str | None] = {}
        for name in self._by_name:
            number = identity(name)
            if isinstance(number, int):
                self._by_number[number] = None if number in self._by_number else name

    def name(self, text: Any) -> str | None:
        """The name that is meant; None for none."""
        if isinstance(text, str) and text in self._by_name:
            return text
        try:
            number = identity(text)
        except ValueError:
            return None
        if isinstance(number, int):
            return self._by_number.get(number)
        return number if number in self._by_name else None

    def get(self, text: Any) -> _Value | None:
        """What stands under the name that is meant; None for none."""
        name = self.name(text)
        return None if name is None else self._by_name[name]


def one_spelling(texts: Iterable[Any]) -> list[str | None]:
    """Names of one column as text, where those that spell one whole number all get the spelling of the first.

    So patient 17, 17.0 and "17" are one patient. None where the name is missing, or is what tables write
    for that, such as NaN. Raises ValueError as `identity` does.
    """
    first: dict[int | str, str] = {}
    result: list[str | None] = []
    for text in texts:
        key = None if is_missing(text) else identity(text)
        result.append(None if key is None else first.setdefault(key, text_of(text) or str(key)))
    return result
