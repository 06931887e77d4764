"""Keeps worker processes that are ended while they start from printing a traceback.

Preloaded by the server process that workers are forked from, and imported by nothing else: it changes its process.

A pool that is stopped (pebble 5.2.3) removes the names of its locks before it ends its processes. A worker that is just
starting then finds no lock of that name, and multiprocessing would print a traceback, although the command is done and
its result is right. The same happens to a worker whose command was killed.
"""

import os
import sys
from types import TracebackType


def report_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Prints what ended this process, unless that is only that the process that started it has gone."""
    if not issubclass(kind, (FileNotFoundError, EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, traceback)


def replace_excepthook() -> None:
    """For a process that has just been forked."""
    sys.excepthook = report_error


os.register_at_fork(after_in_child=replace_excepthook)
