"""What a server lets be heard: its own lines, which name nobody, and nothing that a library says of a file."""

import logging
import sys
import warnings

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


def tell(level: int = logging.WARNING) -> None:
    """Sends the lines of the server itself to stderr; those of everyone else go nowhere unless asked for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    own = logging.getLogger("xray")
    own.addHandler(handler)
    own.setLevel(level)
    own.propagate = False
    # Without any handler Python writes warnings of all loggers to stderr.
    logging.getLogger().addHandler(logging.NullHandler())
