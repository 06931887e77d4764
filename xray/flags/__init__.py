"""Flags of the commands: from a dataclass, by tyro, with the checks that they share."""

import argparse
import contextlib
import io
import math
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from annotated_types import Interval
from tyro.constructors import PrimitiveConstructorSpec

from xray.errors import FlagError, UnreadFlagsError
from xray.flags.helptexts import description_of, wide_enough, with_helptexts
from xray.flags.types import appends, has_path, has_several, in_words
from xray.flags.wrong import explain, fields_of

MAX_SEED = 2**32 - 1
"""The largest that NumPy, PyTorch and Lightning all take."""

# Types of flags with their range, which `check_ranges` reads.
Count = Annotated[int, Interval(ge=1, lt=MAX_SEED + 1)]
CountOrZero = Annotated[int, Interval(ge=0, lt=MAX_SEED + 1)]
Seed = Annotated[int, Interval(ge=0, le=MAX_SEED)]
FoldNumber = Annotated[int, Interval(ge=0, le=99)]
Processes = Annotated[int, Interval(ge=0, le=512)]
Prune = Annotated[int, Interval(ge=0, le=4)]
Port = Annotated[int, Interval(ge=0, le=65535)]
Positive = Annotated[float, Interval(gt=0, lt=math.inf)]
NotNegative = Annotated[float, Interval(ge=0, lt=math.inf)]
Share = Annotated[float, Interval(ge=0, le=1)]
ShareBelowOne = Annotated[float, Interval(ge=0, lt=1)]
ShareAboveZero = Annotated[float, Interval(gt=0, le=1)]
ShareWithin = Annotated[float, Interval(gt=0, lt=1)]
Schedule = Literal["step", "cosine", "onecycle", "plateau"]
OptimizerName = Literal["sgd", "adam", "adamw"]

AUTO: Any = "auto"
"""The value of a flag that is chosen from the data, and replaced before anything else reads it."""

if TYPE_CHECKING:
    CountOrAuto = int
    CountOrZeroOrAuto = int
    PositiveOrAuto = float
    ShareOrAuto = float
    ShareWithinOrAuto = float
    NumbersOrAuto = tuple[float, ...]
    StagesOrAuto = int
    ProposalsOrAuto = int
    ScheduleOrAuto = Schedule
    OptimizerOrAuto = OptimizerName
else:
    CountOrAuto = Count | Literal["auto"]
    CountOrZeroOrAuto = CountOrZero | Literal["auto"]
    PositiveOrAuto = Positive | Literal["auto"]
    ShareOrAuto = Share | Literal["auto"]
    ShareWithinOrAuto = ShareWithin | Literal["auto"]
    NumbersOrAuto = tuple[float, ...] | Literal["auto"]
    StagesOrAuto = Annotated[int, Interval(ge=0, le=5)] | Literal["auto"]
    ProposalsOrAuto = Annotated[int, Interval(ge=2, le=MAX_SEED)] | Literal["auto"]
    ScheduleOrAuto = Literal["auto", "step", "cosine", "onecycle", "plateau"]
    OptimizerOrAuto = Literal["auto", "sgd", "adam", "adamw"]


def parse_flags(
    config_type: Any,
    args: Sequence[str] | None = None,
    default: Any = None,
    *,
    kinds: Mapping[str, Any] | None = None,
    beside: Sequence[str] = (),
    files: Sequence[str] = (),
    **tyro_options: Any,
) -> Any:
    """Reads command-line flags into a `config_type`.

    config_type: a dataclass, or any annotation tyro understands (a union of dataclasses gives subcommands).
    args: the flags, without the program's name; `sys.argv[1:]` when None.
    default: an instance whose values stand where a flag is not given.
    kinds, beside, files: what an error may name, see `xray.flags.wrong.explain`.
    tyro_options: passed to `tyro.cli`, e.g. `description`.

    Raises UnreadFlagsError or FlagError, in one line, where the flags are wrong; --help ends the process.
    """
    if default is not None:
        tyro_options["default"] = default
    if args is None:
        args = sys.argv[1:]
        refuse_repeated(config_type, args)
    if is_help := bool({"-h", "--help"} & {*args}):
        own = config_type.__doc__ if isinstance(config_type, type) else None
        if description := tyro_options.get("description") or own:
            with wide_enough():
                tyro_options["description"] = description_of(description)
    args = _with_words(config_type, args)
    _refuse_empty_paths(config_type, args)
    said = io.StringIO()
    try:
        # `--n-epochs`, never `--config.n-epochs`; a flag that is on or off reads `--tta / --no-tta`.
        texts = with_helptexts(config_type) if is_help else contextlib.nullcontext()
        with contextlib.redirect_stderr(said), texts, wide_enough():
            config = tyro.cli(config_type, args=args, config=(tyro.conf.OmitArgPrefixes,), **tyro_options)
        sys.stderr.write(said.getvalue())
        return config
    except SystemExit as end:
        if not end.code:
            raise
    words, others = "", bool(tyro_options.get("return_unknown_args"))
    # What fails to explain an error must not hide it.
    with contextlib.suppress(Exception):
        words = explain(config_type, args, kinds, beside, files, others)
    # What is not understood is said in tyro's own words, without their box.
    plain = re.sub(r"\x1b\[[0-9;]*m|[\u2500-\u257f]+|-{4,}", " ", said.getvalue())
    raise UnreadFlagsError(words or plain)


def alone_or_one_of(default: str, *others: str) -> PrimitiveConstructorSpec[bool | str]:
    """Of a field `bool | Literal[…]`: a flag that may stand alone, or with a word.

    `--sr` and `--sr DEFAULT` give True, `--sr off` and `--no-sr` False, and any other word itself.
    """
    words = (default, *others, "off")

    def read(given: list[str]) -> bool | str:
        if len(given) > 1 or not {*given} <= {*words}:
            raise ValueError(f"{' '.join(given)!r} is none of {', '.join(words)}")
        word = "".join(given)
        return word if word in others else word != "off"

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[{'|'.join(words)}]",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, bool | str),
        str_from_instance=lambda value: [value if isinstance(value, str) else default if value else "off"],
    )


def _with_words(config_type: Any, args: Sequence[str]) -> list[str]:
    """The flags with `--sr off` in place of `--no-sr`, of those fields that `alone_or_one_of` reads."""
    negated = {
        f"--no-{name.replace('_', '-')}": [f"--{name.replace('_', '-')}", "off"]
        for name, kind in fields_of(config_type)
        if any(isinstance(one, PrimitiveConstructorSpec) for one in getattr(kind, "__metadata__", ()))
    }
    return [one for arg in args for one in negated.get(arg.replace("_", "-"), [arg])]


def take_flags(args: Sequence[str], **defaults: Any) -> tuple[dict[str, Any], list[str]]:
    """Name → value of the flags with these names, each of its default's type (None: a text), and all other arguments.

    Raises FlagError for a flag without a value, or with one of another type.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name, default in defaults.items():
        kind = str if default is None else type(default)
        spellings = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
        parser.add_argument(*spellings, dest=name, type=_reader(kind), default=default, nargs="?", const="")
    try:
        values, others = parser.parse_known_args(args)
    except argparse.ArgumentError as error:
        raise FlagError(f"{str(error.argument_name).partition('/')[0]} {error.message}") from None
    for name, value in vars(values).items():
        if value == "":
            raise FlagError(f"--{name.replace('_', '-')} needs a value")
    return vars(values), others


def _reader(kind: type) -> Any:
    """Of argparse: reads a value of a type, or says in words what would be one."""

    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"takes {in_words(kind)}; it was given {text!r}") from None

    return read


def check_ranges(config: Any, annotated: type | None = None) -> None:
    """Raises FlagError for the first field outside the Interval of its annotation, NaN among them.

    annotated: the class whose annotations count, by default that of `config`; those of its parents count too.
    A field that is None is a flag that was not given; words, as in `FoldNumber | Literal["all"]`, have no range.
    """
    for name, hint in typing.get_type_hints(annotated or type(config), include_extras=True).items():
        value = getattr(config, name, None)
        numbers = [one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, int | float)]
        # `Share | None` and `tuple[Share, ...]` have the interval in one of their parts.
        for part in (hint, *typing.get_args(hint)) if numbers else ():
            for interval in getattr(part, "__metadata__", ()):
                if isinstance(interval, Interval):
                    for number in numbers:
                        _check_interval(name, number, interval)


def _check_interval(name: str, value: Any, interval: Interval) -> None:
    gt, ge, lt, le = interval.gt, interval.ge, interval.lt, interval.le
    if ge is not None and le is not None and not ge <= value <= le:
        raise FlagError(f"--{name.replace('_', '-')} is {value}: give {ge} to {le}")
    require(gt is None or value > gt, name, value, f"above {gt}")
    require(ge is None or value >= ge, name, value, f"at least {ge}")
    require(lt is None or value < lt, name, value, f"below {lt}")
    require(le is None or value <= le, name, value, f"at most {le}")


def require(holds: bool, name: str, value: object, wanted: str) -> None:
    """Raises a FlagError that names the flag, its value and what it must be, unless `holds`."""
    if not holds:
        raise FlagError(f"--{name.replace('_', '-')} is {value}: it must be {wanted}")


def check_paths(config: Any, *names: str) -> None:
    """Raises FlagError for the first of these fields, a path or several, that is empty."""
    for name in names:
        value = getattr(config, name)
        if not value or "" in (value if isinstance(value, tuple | list) else [value]):
            raise FlagError(f"--{name.replace('_', '-')} is empty: give a path")


def check_part(split: str | None, fold: int | None) -> None:
    """Raises FlagError where both a split and a fold are asked for, and the split has no folds."""
    if split in ("val", "test") and fold is not None:
        raise FlagError(f"--split {split} and --fold: {split} images are in no fold, leave one of the two out")


def flag_value(args: Sequence[str], name: str) -> str | None:
    """The value of `--name VALUE` or `--name=VALUE`, with dashes or underscores, the last one if there are several;
    an empty text for a flag without one, None where it is not given."""
    spelled, given = "--" + name.replace("_", "-"), None
    for place, arg in enumerate(args):
        flag, equals, value = arg.partition("=")
        if flag.replace("_", "-") == spelled:
            following = args[place + 1] if place + 1 < len(args) and not args[place + 1].startswith("--") else ""
            given = value if equals else following
    return given


def _refuse_empty_paths(config_type: Any, args: Sequence[str]) -> None:
    """Raises FlagError for `--some-path ""`, which pathlib takes for the current directory.

    A shell makes an empty text of a variable that is not set.
    """
    names = {name.replace("_", "-") for name, kind in fields_of(config_type) if has_path(kind)}
    current = ""
    for arg in args:
        # Of a value, what follows its own = is no value of a flag.
        flag, equals, value = arg.partition("=") if arg.startswith("--") else ("", "", arg)
        current = flag or current
        if not (value if equals else arg) and current.removeprefix("--").replace("_", "-") in names:
            raise FlagError(f"{current} is empty: give a path")


def refuse_repeated(config_type: Any, args: Sequence[str]) -> None:
    """Raises FlagError for a path, or a flag of several values, that is given twice: tyro would forget the first ones.

    Of any other flag the last one counts, so that a script may end with the flags of its caller.
    """
    kinds = {"--" + name.replace("_", "-"): kind for name, kind in fields_of(config_type)}
    given = [arg.partition("=")[0].replace("_", "-") for arg in args if arg.startswith("--")]
    for flag in dict.fromkeys(given):
        kind, count = kinds.get(flag, bool), given.count(flag)
        if count > 1 and has_several(kind) and not appends(kind):
            raise FlagError(f"{flag} is given {count} times: give all its values after one {flag}")
        if count > 1 and (has_path(kind) or flag.endswith("-path")):
            raise FlagError(f"{flag} is given {count} times: give it once")
