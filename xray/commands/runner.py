"""What every command shares: flags from a dataclass, and one clear line instead of a traceback."""

import errno
import os
import select
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from xray import interrupts
from xray.errors import DISK_FULL, FlagError, InputError, UnreadFlagsError, is_disk_full
from xray.flags import parse_flags
from xray.flags.meant import with_meant
from xray.radiographs.names import visible

EXIT_FAILED = 1
EXIT_WRONG_FLAGS = 2


def run_command(main: Callable[..., int | None], *args: Any, debug: bool = False) -> int:
    """Calls `main(*args)` and returns the exit status of the process.

    An InputError becomes one line on stderr and status 1 (a FlagError 2); so does any other exception, named by its
    type. With `debug` they propagate with their traceback, but for an UnreadFlagsError. Ctrl-C gives 130, SIGTERM 143:
    a command that began with `interrupts.watch` ends right here, with what it had started.
    """
    # Read when torch is first imported. Waiting threads give their core away: on a machine with other work, spinning
    # threads made training steps 2 to 8 times longer.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with interrupts.interruptible():
            return int(main(*args) or 0)
    except BaseException as error:
        # Libraries make other exceptions of an interruption, and some exit by themselves.
        if (which := interrupts.ending(error)) is not None:
            return interrupts.end(which)
        if isinstance(error, BrokenPipeError) and _is_nobody_reading():
            raise  # `xray.__main__.start` ends quietly
        if not isinstance(error, Exception) or (debug and not isinstance(error, UnreadFlagsError)):
            raise
        print(f"error: {visible(_error_line(error))}", file=sys.stderr)
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
        print(f"error: {visible(_error_line(error))}", file=sys.stderr)
        return EXIT_WRONG_FLAGS
    from xray.storage.places import run_here

    def run() -> int | None:
        return run_here(main, config, check, check_out, stay_remote(config) if stay_remote else ())

    return run_command(run, debug=getattr(config, "debug", False))


def _is_nobody_reading() -> bool:
    """Whether the reader of what is printed has gone, as of `xray train --help | head`."""
    try:
        pipe = select.poll()
        pipe.register(sys.stdout.fileno(), 0)
        return any(what & select.POLLERR for _, what in pipe.poll(0))
    except (OSError, ValueError, AttributeError):
        return False  # what stands for stdout is no file


def _error_line(error: Exception) -> str:
    """What an exception says, in one line."""
    if is_disk_full(error) and not isinstance(error, InputError):
        return DISK_FULL
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, InputError):
        return with_meant(message, sys.argv[1:])
    if isinstance(error, OSError) and "AF_UNIX path too long" in message:
        return "the path of the folder for temporary files is too long for sockets: set TMPDIR to a shorter one"
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        name = "" if error.filename is None else f" ({Path(os.fsdecode(error.filename)).name} cannot be written)"
        return f"the disk can only be read{name}: give --save-path a folder on another one"
    if isinstance(error, OSError) and error.filename is not None:
        # The folders of a file inside the data may name a patient.
        message = f"{error.strerror}: {Path(os.fsdecode(error.filename)).name}"
    return f"unexpected {type(error).__name__}: {message} (run again with --debug for the traceback)"
