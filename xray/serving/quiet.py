"""What a server logs: its own lines, which name no patient, and nothing that a library says of a file."""

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
    # All of them: pydicom's warnings name its callers as their module, so they cannot be told apart.
    warnings.filterwarnings("ignore")


def _only_needed_lines(record: logging.LogRecord) -> bool:
    """Lets pass the HTTP server's lines that its operator needs, without tracebacks."""
    is_cut_off = isinstance((record.exc_info or (None, None))[1], asyncio.CancelledError)
    record.exc_info, record.exc_text = None, None
    # That clients are cut off when the server is interrupted needs no line.
    return not is_cut_off and "graceful shutdown" not in str(record.msg)


@contextlib.contextmanager
def telling(level: int = logging.WARNING) -> Iterator[None]:
    """Sends the server's own log lines to stderr, and those of all libraries nowhere."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    xray, http, root = logging.getLogger("xray"), logging.getLogger("uvicorn.error"), logging.getLogger()
    before = xray.level
    xray.setLevel(level)
    # Without any handler at its root, Python writes the warnings of all loggers to stderr.
    handlers = ((xray, handler), (http, handler), (root, logging.NullHandler()))
    for logger, its_handler in handlers:
        logger.addHandler(its_handler)
    http.addFilter(_only_needed_lines)
    try:
        yield
    finally:
        http.removeFilter(_only_needed_lines)
        for logger, its_handler in handlers:
            logger.removeHandler(its_handler)
        xray.setLevel(before)
