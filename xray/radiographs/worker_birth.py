"""How a worker process comes into the world quietly.

Preloaded by the server that workers are forked from, and imported by nothing else: it changes the process it is in.

A pool that is stopped (pebble 5.2.3) takes the names of its locks away before it ends its processes. A worker that is
just starting then finds no lock of that name, and multiprocessing prints a traceback for it, although the command is
done and its result is right. So is one whose command was killed and no longer says what to do.
"""

import os
import sys
from types import TracebackType


def tell(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Says what ended this process before it began, unless that is only that nobody waits for it any more."""
    if not issubclass(kind, (FileNotFoundError, EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, traceback)


def be_quiet() -> None:
    """For a process that has just been forked."""
    sys.excepthook = tell


os.register_at_fork(after_in_child=be_quiet)
