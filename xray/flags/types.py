"""What a flag's type takes: how many values, which, and in words."""

import math
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro
from annotated_types import Interval
from tyro.constructors import PrimitiveConstructorSpec

UNLIMITED = 2**32 - 1
"""Bounds from here on are not worth their digits."""

_APPENDS: Any = tyro.conf.UseAppendAction


def marks_of(kind: Any) -> tuple[Any, ...]:
    """What a type is annotated with."""
    return getattr(kind, "__metadata__", ())


def n_values(kind: Any) -> int | None:
    """How many values follow a flag of this type; None: that depends."""
    if appends(kind):
        return 1
    if _special(kind):
        return None
    counts = {_count(part) for part in _parts(kind)}
    return counts.pop() if len(counts) == 1 else None


def appends(kind: Any) -> bool:
    """Whether a flag of this type may be given several times."""
    return _APPENDS in marks_of(kind)


def has_several(kind: Any) -> bool:
    """Whether a flag of this type takes several values."""
    return any(_elements(part) for part in _parts(kind))


def has_path(kind: Any) -> bool:
    """Whether a flag of this type takes a path, or several."""
    return any(Path in (_bare(part), *_elements(part)) for part in _parts(kind))


def choices(kind: Any) -> list[str]:
    """The words of which a flag of this type takes one, or some."""
    return [word for part in _parts(kind) for word in _words(part)]


def fits(kind: Any, values: Sequence[str]) -> bool:
    """Whether values are of a type. Ranges are looked at later, and a type that is not known here fits."""
    if [*values] == ["None"]:
        return True  # tyro takes it for a flag that was not given, where that is possible
    if (spec := _special(kind)) is not None:
        try:
            spec.instance_from_str([*values])
        except ValueError:
            return False
        return True
    return any(_part_fits(part, values) for part in _parts(kind))


def in_words(kind: Any) -> str:
    """What a flag of this type takes: "a whole number from 1, or auto"."""
    if (spec := _special(kind)) is not None:
        return f"nothing, or {listed(spec.metavar.strip('[]').split('|'))}"
    if appends(kind):
        return f"{in_words(_elements(_bare(kind))[0])} each time that it is given"
    return ", or ".join(_part_words(part) for part in _parts(kind))


def listed(names: Sequence[str], word: str = "or") -> str:
    """a, b or c."""
    return f"{', '.join(names[:-1])} {word} {names[-1]}" if len(names) > 1 else "".join(names)


def _special(kind: Any) -> PrimitiveConstructorSpec[Any] | None:
    return next((mark for mark in marks_of(kind) if isinstance(mark, PrimitiveConstructorSpec)), None)


def _bare(part: Any) -> Any:
    return typing.get_args(part)[0] if marks_of(part) else part


def _parts(kind: Any) -> list[Any]:
    """The alternatives of a type, each with its interval if it has one, but for None."""
    bare = _bare(kind)
    if typing.get_origin(bare) in (typing.Union, types.UnionType):
        return [part for one in typing.get_args(bare) if one is not type(None) for part in _parts(one)]
    return [kind]


def _elements(part: Any) -> tuple[Any, ...]:
    """Types of a tuple's elements, the last one `...` where there may be any number; nothing of any other type."""
    return typing.get_args(_bare(part)) if typing.get_origin(_bare(part)) is tuple else ()


def _count(part: Any) -> int | None:
    if elements := _elements(part):
        return None if elements[-1] is ... else len(elements)
    return 0 if _bare(part) is bool else 1


def _words(part: Any) -> list[str]:
    bare = _bare((*_elements(part), part)[0])
    return [str(word) for word in typing.get_args(bare)] if typing.get_origin(bare) is Literal else []


def _part_fits(part: Any, values: Sequence[str]) -> bool:
    if elements := _elements(part):
        each = elements[:1] * len(values) if elements[-1] is ... else elements
        return len(each) == len(values) and all(fits(one, [value]) for one, value in zip(each, values, strict=True))
    if len(values) != 1:
        return False
    if words := _words(part):
        return values[0] in words
    if _bare(part) in (int, float):
        try:
            _bare(part)(values[0])
        except ValueError:
            return False
    return True


def _part_words(part: Any) -> str:
    elements = _elements(part)
    if words := _words(part):
        return f"any of {', '.join(words)}" if elements else listed(words)
    one = (*elements, part)[0]
    noun = {int: "whole number", float: "number", Path: "path"}.get(_bare(one), "text")
    if elements and elements[-1] is not ...:
        noun = f"{len(elements)} {noun}s"
    else:
        noun = f"{noun}s" if elements else f"a {noun}"
    interval = next((mark for mark in marks_of(one) if isinstance(mark, Interval)), None)
    return f"{noun} {_range(interval)}".rstrip() if interval else noun


def _range(interval: Any) -> str:
    gt, ge, lt, le = (
        None if bound is None or bound >= UNLIMITED or math.isinf(bound) else bound
        for bound in (interval.gt, interval.ge, interval.lt, interval.le)
    )
    if ge is not None and le is not None:
        return f"from {ge} to {le}"
    bounds = ((gt, "above"), (ge, "from"), (lt, "below"), (le, "up to"))
    return " and ".join(f"{word} {bound}" for bound, word in bounds if bound is not None)
