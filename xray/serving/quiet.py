"""What a server lets be heard: its own lines, which name nobody, and nothing that a library says of a file."""

import asyncio
import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator

LIBRARIES = ("pydicom", "pynetdicom", "highdicom", "PIL", "multipart", "python_multipart", "asyncio", "py.warnings")
"""Loggers that repeat pieces of what came in: values of elements, file names, messages, addresses."""


def silence_libraries() -> None:
    """Keeps what libraries say of a file from every log: patients' names and identifiers stand in it.

    For a process that serves; there is no way back. It is done for the whole process, as Python's way to do it for a
    block is not safe where threads read files at the same time.
    """
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    # pydicom has warnings point at its callers, so their module says nothing of where they come from.
    warnings.filterwarnings("ignore")


def _only_its_words(record: logging.LogRecord) -> bool:
    """Of the HTTP server's lines those that say something to whoever runs it, without tracebacks."""
    is_cut_off = isinstance((record.exc_info or (None, None))[1], asyncio.CancelledError)
    record.exc_info, record.exc_text = None, None
    # Whoever still waits when it is interrupted is cut off, which needs no telling.
    return not is_cut_off and "graceful shutdown" not in str(record.msg)


@contextlib.contextmanager
def telling(level: int = logging.WARNING) -> Iterator[None]:
    """Sends the lines of the server itself to stderr; those of everyone else go nowhere."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    own, http, root = logging.getLogger("xray"), logging.getLogger("uvicorn.error"), logging.getLogger()
    before, nobody = own.level, logging.NullHandler()
    own.setLevel(level)
    # Without any handler at its root, Python writes what all loggers warn of to stderr.
    for logger, its in ((own, handler), (http, handler), (root, nobody)):
        logger.addHandler(its)
    http.addFilter(_only_its_words)
    try:
        yield
    finally:
        http.removeFilter(_only_its_words)
        for logger, its in ((own, handler), (http, handler), (root, nobody)):
            logger.removeHandler(its)
        own.setLevel(before)
