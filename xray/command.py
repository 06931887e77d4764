"""What every command shares: flags from a dataclass, and one clear line instead of a traceback."""

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

EXIT_FAILED = 1
EXIT_WRONG_FLAGS = 2
EXIT_INTERRUPTED = 130


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
    # `--n-epochs`, never `--config.n-epochs`; a flag that is on or off reads `--tta / --no-tta`.
    return tyro.cli(config_type, args=args, config=(tyro.conf.OmitArgPrefixes,), **tyro_options)


def run_command(main: Callable[..., int | None], *args: Any, debug: bool = False) -> int:
    """Calls `main(*args)` and returns the exit status of the process.

    An InputError becomes one line on stderr and status 1 (a FlagError 2); so does any other exception, named by its
    type. With `debug` they propagate with their traceback. Ctrl-C gives 130.
    """
    # Read when torch is first imported. Threads that wait for each other give their core away: on a machine with other
    # work, where one of them is kept waiting, spinning made training steps 2 to 8 times longer.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return int(main(*args) or 0)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except FlagError as error:
        if debug:
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return EXIT_WRONG_FLAGS
    except InputError as error:
        if debug:
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return EXIT_FAILED
    except Exception as error:
        if debug:
            raise
        where = f"{type(error).__name__}: {_one_line(error)}"
        print(f"error: unexpected {where} (run again with --debug for the traceback)", file=sys.stderr)
        return EXIT_FAILED


def command(config_type: Any, main: Callable[[Any], int | None], **tyro_options: Any) -> int:
    """Parses `sys.argv` into `config_type` and runs `main(config)`; for `sys.exit(command(Config, main))`.

    A `debug: bool` field in the config, where there is one, keeps tracebacks.
    """
    config = parse_flags(config_type, **tyro_options)
    return run_command(main, config, debug=_debug_flag(config))


def _debug_flag(config: Any) -> bool:
    return dataclasses.is_dataclass(config) and bool(getattr(config, "debug", False))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
