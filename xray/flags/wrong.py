"""Wrong flags in one line: which flag, what was given, what it takes, and what was probably meant.

tyro alone decides what is wrong, and tells it in a box with the help of every flag that is near. What is said here
comes after it, from the command line and the types of the flags, and needs nothing but tyro's public names.
"""

import dataclasses
import difflib
import sys
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from xray.errors import spelled
from xray.flags.types import choices, fits, in_words, listed, marks_of, n_values

END = "--"
"""After it nothing is a flag."""
LONGEST = 60
"""Characters of the values that are repeated."""

_POSITIONAL: Any = tyro.conf.Positional
_OWN_NAME = type(tyro.conf.arg())
_LONG_DASHES = "‐‑‒–—―−"
"""What pages and word processors make of one short dash, or of two."""


class Flag(NamedTuple):
    """A field of a command's dataclass, as it is given on the command line."""

    name: str
    """--n-epochs; of one that stands alone, NAME."""
    kind: Any
    """Its annotated type."""
    is_required: bool


class Given(NamedTuple):
    """A flag as it stands on a command line, "" for what stands before the first, and what follows it."""

    name: str
    """With dashes."""
    values: list[str]
    file: str
    """Where it stands, if not on the command line."""

    def flag(self, flags: Mapping[str, Flag]) -> Flag | None:
        """The flag that this is, or that it switches off."""
        off = flags.get(self.name.replace("--no-", "--", 1))
        return flags.get(self.name) or (off if off and n_values(off.kind) == 0 else None)

    def surplus(self, flags: Mapping[str, Flag]) -> list[str]:
        """Values that follow and belong to no flag."""
        flag = self.flag(flags)
        count = n_values(flag.kind) if flag else 0
        return [] if count is None else self.values[count:]


def is_flag(arg: str) -> bool:
    """Whether tyro takes an argument for a flag, known or not, and never for a value: -1, -inf and -nan are values."""
    name = arg.partition("=")[0]
    is_number = name[1:].lower() in ("inf", "infinity", "nan")
    return name.startswith("-") and name.lstrip("-")[:1].isalpha() and not is_number


def fields_of(config_type: Any) -> Iterator[tuple[str, Any]]:
    """Name and annotated type of all fields of a dataclass, or of those that a union has."""
    if isinstance(config_type, type) and dataclasses.is_dataclass(config_type):
        hints = typing.get_type_hints(config_type, include_extras=True)
        yield from ((field.name, hints[field.name]) for field in dataclasses.fields(config_type))
    for part in typing.get_args(config_type):
        yield from fields_of(part)


def flags_of(config_type: Any) -> dict[str, Flag]:
    """Name → flag of a dataclass; the names of those that stand alone have no dashes."""
    needed = {
        field.name
        for field in dataclasses.fields(config_type)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    flags = {}
    for name, kind in fields_of(config_type):
        own: Any = next((mark for mark in marks_of(kind) if isinstance(mark, _OWN_NAME)), None)
        if _POSITIONAL in marks_of(kind):
            shown = getattr(own, "metavar", None) or name.upper()
        else:
            shown = "--" + (getattr(own, "name", None) or name).replace("_", "-")
        flags[shown] = Flag(shown, kind, name in needed)
    return flags


def program() -> str:
    """This command as its user typed it: "xray train" or "python xray/train.py"."""
    name = Path(sys.argv[0] if sys.argv else "").name
    if name.startswith("xray "):
        return name
    script, _, stage = name.partition(" ")
    return f"{spelled(script.removesuffix('.py'))} {stage}".rstrip()


def nearest(given: str, names: Collection[str], after: str = ": ") -> str:
    """`after` and "did you mean a or b?", with up to three names that are much like what was given; or nothing."""
    plain = {name.strip("-").lower().replace("_", "-"): name for name in names}
    word = given.strip("-" + _LONG_DASHES).lower().replace("_", "-")
    close = difflib.get_close_matches(word, plain, 3)
    alike = [difflib.SequenceMatcher(None, name, word).ratio() for name in close]
    # None was meant of those that are clearly less alike.
    close = [name for name, ratio in zip(close, alike, strict=True) if ratio > alike[0] - 0.1]
    close = close or [name for name in plain if word in name.split("-")][:3]
    return f"{after}did you mean {listed([plain[name] for name in close])}?" if close else ""


def about_device(device: str) -> str:
    """ "; did you mean cuda?" for what others call it: gpu, nvidia, CUDA; or nothing."""
    is_gpu = device.lower().startswith(("gpu", "cuda", "nvidia", "rocm", "hip"))
    return "; did you mean cuda?" if is_gpu else nearest(device, ("auto", "cpu"), "; ")


def explain(
    config_type: Any,
    args: Sequence[str],
    kinds: Mapping[str, Any] | None = None,
    beside: Sequence[str] = (),
    files: Sequence[str] = (),
    takes_others: bool = False,
) -> str:
    """What is wrong with flags that tyro has refused, in one line; an empty text where nothing is found.

    config_type: a dataclass, or the union of those of several sources. kinds: what chooses a dataclass, such as "--task
    segmentation" → all that could have been chosen, first the one that is chosen by itself. beside: flags that somebody
    else reads. files: the file in which each of the first of `args` stands. takes_others: flags that are not known here
    are no fault.
    """
    command, sources = program(), _sources(config_type)
    if sources:
        if not args or args[0] not in sources:
            return f"{command}: {_no_source(args, sources, command)}"
        command, kinds, config_type, args = f"{command} {args[0]}", sources, sources[args[0]], args[1:]
    flags, given = flags_of(config_type), _grouped(args, files)
    chosen = next((name for name, kind in (kinds or {}).items() if kind is config_type), "")
    if chosen.startswith("--") and chosen != next(iter(kinds or {})):
        command += f" {chosen}"
    if words := _long_dash(args, [*[name for name in flags if name.startswith("-")], *beside]):
        return words
    if not takes_others:
        if words := _unknown(given, flags, kinds or {}, chosen, beside):
            return f"{words} ({command} --help lists all flags)"
        if words := _stray(given, flags, command):
            return words
    last = {flag.name: one for one in given if (flag := one.flag(flags))}
    for one in given:
        flag = one.flag(flags)
        # Of a flag given twice the last value counts.
        if flag and (last[flag.name] is one or not one.values) and (words := _wrong_values(one, flag)):
            return one.file + words
    n_alone = sum(len(one.surplus(flags)) for one in given)
    there = [*last, *[name for name in flags if not name.startswith("-")][:n_alone]]
    missing = [
        f"{flag.name} ({listed(choices(flag.kind))})" if choices(flag.kind) else flag.name
        for flag in flags.values()
        if flag.is_required and flag.name not in there
    ]
    return (
        f"{command} needs {listed(missing, 'and')}: {command} --help explains {'each' if len(missing) > 1 else 'it'}"
        if missing
        else ""
    )


def _sources(config_type: Any) -> dict[str, Any]:
    """Name → dataclass of a union's parts; nothing of a dataclass."""
    parts = () if isinstance(config_type, type) else typing.get_args(config_type)
    names = ((next((mark.name for mark in marks_of(part) if getattr(mark, "name", None)), ""), part) for part in parts)
    return {name: typing.get_args(part)[0] for name, part in names if name}


def _no_source(args: Sequence[str], sources: Mapping[str, Any], command: str) -> str:
    every = f"Sources: {', '.join(sources)}"
    if args and args[0] and args[0][0] not in "-" + _LONG_DASHES:
        return f"there is no source {args[0]}{nearest(args[0], sources, '; ') or '.'} {every}"
    later = next((arg for arg in args if arg in sources), next(iter(sources)))
    return f"the source comes first, as in {command} {later} --data-path PATH. {every}"


def _grouped(args: Sequence[str], files: Sequence[str]) -> list[Given]:
    groups = [Given("", [], "")]
    for place, arg in enumerate(args):
        if arg == END:
            groups.append(Given(END, [*args[place + 1 :]], ""))
            break
        if is_flag(arg):
            name, equals, value = arg.partition("=")
            file = f"{files[place]}: " if place < len(files) else ""
            groups.append(Given(name.replace("_", "-"), [value] if equals else [], file))
        else:
            groups[-1].values.append(arg)
    return groups


def _unknown(
    given: Sequence[Given], flags: Mapping[str, Flag], kinds: Mapping[str, Any], chosen: str, beside: Sequence[str]
) -> str:
    """The first flag that does not exist, in words."""
    place = next((n for n, one in enumerate(given) if one.name not in ("", END) and one.flag(flags) is None), None)
    if place is None:
        return ""
    one, before = given[place], given[place - 1]
    if one.name in ("-h", "--help"):
        return f"{one.name} takes no value"
    if one.file and one.name in beside:
        return f"{one.file}{one.name.lstrip('-')} is no flag of a recipe: give {one.name} on the command line"
    positive = one.name.replace("--no-", "--", 1)
    if positive in flags:
        return f"{one.file}there is no {one.name}: {positive} takes {in_words(flags[positive].kind)}"
    having = [name for name, kind in kinds.items() if {one.name, positive} & {*flags_of(kind)}]
    if having:
        return f"{one.file}{one.name} is a flag of {listed(having, 'and')}, not of {chosen}"
    names = [name for name in flags if name.startswith("-")]
    meant = nearest(one.name, [*names, *beside])
    if not meant and not before.values and (flag := before.flag(flags)) and n_values(flag.kind) != 0:
        meant = f"; a value that begins with a dash is given as {flag.name}=…"
    return f"{one.file}there is no flag {one.name}{meant}"


def _long_dash(args: Sequence[str], names: Collection[str]) -> str:
    """The first argument that is a flag but for its dash, in words."""
    for arg in args:
        name = arg.partition("=")[0]
        if name[:1] and name[0] in _LONG_DASHES and (meant := nearest(name, names)):
            return f"{_shown([name])} has another dash than a flag{meant}"
    return ""


def _stray(given: Sequence[Given], flags: Mapping[str, Flag], command: str) -> str:
    """The first value that belongs to no flag, in words."""
    alone = [name for name in flags if not name.startswith("-")]
    n_free = len(alone)
    for one in given:
        flag, surplus = one.flag(flags), one.surplus(flags)
        if len(surplus) <= n_free:
            n_free -= len(surplus)
            continue
        if flag and n_values(flag.kind) == 0:
            switch = "true or false" if one.file else f"{flag.name} or --no-{flag.name[2:]}"
            return f"{one.file}{flag.name} is on or off: give {switch}, without {_shown(one.values)}"
        if flag:
            many = f"{len(one.values)} values: {_shown(one.values)}"
            return f"{one.file}{flag.name} takes {in_words(flag.kind)}; it was given {many}"
        wrong = surplus[n_free]
        if one.name == END:
            return f"{_shown([wrong])} follows {END}, after which nothing is a flag: leave {END} out"
        already = f", and {listed(alone, 'and')} is there already" if alone else ""
        return f"{_shown([wrong])} is no flag, and no flag's value{already} ({command} --help lists all flags)"
    return ""


def _wrong_values(one: Given, flag: Flag) -> str:
    """What is wrong with the values of a flag, in words."""
    count = n_values(flag.kind)
    values = one.values[:count]
    if count == 0 or (values and fits(flag.kind, values)) or (not values and count is None):
        return ""
    if not values:
        return f"{flag.name} needs a value: it takes {in_words(flag.kind)}"
    wrong = [value for value in values if not fits(flag.kind, [value])] or values
    number = "" if len(wrong) == 1 else f"{len(wrong)} values: "
    meant = nearest(wrong[0], choices(flag.kind))
    return f"{flag.name} takes {in_words(flag.kind)}; it was given {number}{_shown(wrong)}{meant}"


def _shown(values: Sequence[str]) -> str:
    text = " ".join(repr(value) for value in values)
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"
