"""What a command says in one line instead of a traceback: errors of what the user gave, and of a full disk."""

import errno
import importlib.util
import os
import sys
from pathlib import Path

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DISK_FULL = "the disk is full: make room there, then give the same command again"


class InputError(Exception):
    """Something the user gave is not usable. The message says what was found, where, and what to do about it."""


class FlagError(InputError):
    """A flag's value cannot be used; the command ends with exit status 2."""


class UnreadFlagsError(FlagError):
    """The flags cannot be read. With --debug too this is one line: there is nothing to be found in a traceback."""


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


BY_SCRIPT = "XRAY_BY_SCRIPT"
"""Environment variable of processes that a script of a checkout starts: they spell commands as that one does."""
_PROGRAM = Path(sys.argv[0] if sys.argv else "")
_IS_COMMAND = BY_SCRIPT not in os.environ and (
    _PROGRAM.name.split(" ")[0] in ("xray", "xray.exe") or _PROGRAM.parts[-2:] == ("xray", "__main__.py")
)
"""Whether this process was started as `xray NAME` or `python -m xray NAME`, and not by a script of a checkout."""


def spelled(name: str) -> str:
    """A command as its user would type it: "xray infer", or "python tools/infer.py" in a checkout."""
    if _IS_COMMAND:
        return f"xray {name.replace('_', '-')}"
    return "python xray/train.py" if name == "train" else f"python tools/{name}.py"


def spelling() -> dict[str, str]:
    """What the environment of a process `python -m xray NAME` needs so that it spells commands as this one does."""
    return {} if _IS_COMMAND else {BY_SCRIPT: "1"}
