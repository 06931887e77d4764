"""What every command shares: flags from a dataclass, and one clear line instead of a traceback."""

import dataclasses
import errno
import importlib.util
import os
import sys
import typing
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import tyro

from xray import interrupts

EXIT_FAILED = 1
EXIT_WRONG_FLAGS = 2

MAX_SEED = 2**32 - 1
"""The largest that NumPy, PyTorch and Lightning all take."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DISK_FULL = "the disk is full: make room there, then give the same command again"


class InputError(Exception):
    """Something the user gave is not usable. The message says what was found, where, and what to do about it."""


class FlagError(InputError):
    """A flag's value cannot be used; the command ends with exit status 2."""


def parse_flags(config_type: Any, args: Sequence[str] | None = None, default: Any = None, **tyro_options: Any) -> Any:
    """Reads command-line flags into a `config_type`; wrong flags end the process with exit status 2.

    config_type: a dataclass, or any annotation tyro understands (a union of dataclasses gives subcommands).
    args: the flags, without the program's name; `sys.argv[1:]` when None.
    default: an instance whose values stand where a flag is not given.
    tyro_options: passed to `tyro.cli`, e.g. `description`.
    """
    if default is not None:
        tyro_options["default"] = default
    _refuse_empty_paths(config_type, sys.argv[1:] if args is None else args)
    # `--n-epochs`, never `--config.n-epochs`; a flag that is on or off reads `--tta / --no-tta`.
    return tyro.cli(config_type, args=args, config=(tyro.conf.OmitArgPrefixes,), **tyro_options)


def run_command(main: Callable[..., int | None], *args: Any, debug: bool = False) -> int:
    """Calls `main(*args)` and returns the exit status of the process.

    An InputError becomes one line on stderr and status 1 (a FlagError 2); so does any other exception, named by its
    type. With `debug` they propagate with their traceback. Ctrl-C gives 130, SIGTERM 143: a command that began with
    `interrupts.watch` ends right here, with what it had started.
    """
    # Read when torch is first imported. Threads that wait for each other give their core away: on a machine with other
    # work, where one of them is kept waiting, spinning made training steps 2 to 8 times longer.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with interrupts.gently():
            return int(main(*args) or 0)
    except BaseException as error:
        # Libraries make other exceptions of an interruption, and some exit by themselves.
        if (which := interrupts.ending(error)) is not None:
            return interrupts.end(which)
        if debug or not isinstance(error, Exception):
            raise
        print(f"error: {_told(error)}", file=sys.stderr)
        return EXIT_WRONG_FLAGS if isinstance(error, FlagError) else EXIT_FAILED


def command(
    config_type: Any,
    main: Callable[[Any], int | None],
    check: Callable[[Any], object] | None = None,
    check_out: Callable[[Any], object] | None = None,
    stay_remote: Callable[[Any], Collection[str]] | None = None,
    **tyro_options: Any,
) -> int:
    """Parses `sys.argv` into `config_type` and runs `main(config)`; for `sys.exit(command(Config, main))`.

    A `debug: bool` field in the config, where there is one, keeps tracebacks. Flags that are s3:// addresses reach
    `main` as folders of this machine; see xray/storage/places.py for that, and for `check` and `check_out`, called
    before anything is downloaded. stay_remote: config → names of the fields that keep their address.
    """
    try:
        config = parse_flags(config_type, **tyro_options)
    except FlagError as error:
        print(f"error: {_told(error)}", file=sys.stderr)
        return EXIT_WRONG_FLAGS
    from xray.storage.places import run_here

    def run() -> int | None:
        return run_here(main, config, check, check_out, stay_remote(config) if stay_remote else ())

    return run_command(run, debug=_debug_flag(config))


def check_range(config: Any, **ranges: tuple[float, float]) -> None:
    """Raises FlagError for the first flag of `config` outside its range (lowest, highest), NaN among them.

    A flag that is None has not been given.
    """
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if value is not None and not low <= value <= high:
            raise FlagError(f"--{name.replace('_', '-')} is {value}: give {low} to {high}")


def need(what: str, extra: str, *modules: str) -> None:
    """Raises InputError, naming the pip install, if a module of an extra of setup.cfg is not there.

    what: who needs it, e.g. "--sr".
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise InputError(f'{what} needs {module}: pip install -e ".[{extra}]" in the folder of xray')


def is_disk_full(error: BaseException) -> bool:
    """Whether the system refused to write because there is no space; Rust's and C++'s writers only say so in words."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return True
    return any(os.strerror(number) in str(error) for number in NO_SPACE)


def _refuse_empty_paths(config_type: Any, args: Sequence[str]) -> None:
    """Raises FlagError for `--some-path ""`, which pathlib takes for the current directory.

    It is what a shell makes of a variable that is not set.
    """
    names = {field.replace("_", "-") for field, kind in _fields(config_type) if Path in (kind, *typing.get_args(kind))}
    current = ""
    for arg in args:
        flag, equals, value = arg.partition("=")
        current = flag if flag.startswith("--") else current
        if not (value if equals else arg) and current.removeprefix("--").replace("_", "-") in names:
            raise FlagError(f"{current} is empty: give a path")


def _fields(config_type: Any) -> Iterator[tuple[str, Any]]:
    """Name and type of all fields of a dataclass, or of those that a union has."""
    if isinstance(config_type, type) and dataclasses.is_dataclass(config_type):
        hints = typing.get_type_hints(config_type)
        yield from ((field.name, hints[field.name]) for field in dataclasses.fields(config_type))
    for part in typing.get_args(config_type):
        yield from _fields(part)


def _debug_flag(config: Any) -> bool:
    return dataclasses.is_dataclass(config) and bool(getattr(config, "debug", False))


def _told(error: Exception) -> str:
    """What an exception says, in one line."""
    if isinstance(error, InputError):
        return _one_line(error)
    if is_disk_full(error):
        return DISK_FULL
    said = _one_line(error)
    if isinstance(error, OSError) and error.filename is not None:
        # The folders of a file inside the data may name a patient.
        said = f"{error.strerror}: {Path(os.fsdecode(error.filename)).name}"
    return f"unexpected {type(error).__name__}: {said} (run again with --debug for the traceback)"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
