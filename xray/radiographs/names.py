"""Names from outside: image ids and file names of tables, JSON files, archives and folders, before they become paths.

Reading: a name must lead to a file in the data path, links followed (`inside`, `leads_out`); a name that cannot be that
of such a file is refused (`fault_of`). Writing: `safe_name` makes of any id a file name that every system takes.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from xray.errors import InputError

LINK_OUT = "link that leads out of the data path"
WHAT_TO_DO = (
    "only what lies within --data-path itself is read: move the files there, or give as --data-path the folder that "
    "holds them, with copies of any tables"
)
"""Of somebody whose radiographs lie on another disk."""
UNSAFE_NAME = "name that is no path inside the data path"

MAX_BYTES = 150
"""Of a safe name in UTF-8; systems take 255, of which suffixes and the mark of an unfinished file need some."""
MAX_ID_BYTES = 1024
"""Of a name as a whole, with its folders."""

# Separators and wildcards of any system, and what web servers decode.
_FORBIDDEN = frozenset('/\\:*?"<>|%')
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\.|$)", re.IGNORECASE)


class UnsafeNameError(InputError):
    """A name leads out of the folder that it is looked up in, or could not be in any."""


def has_control(text: str) -> bool:
    """Whether a text holds a control character, a line break, or half of a character."""
    return _CONTROL.search(text) is not None


def visible(text: str) -> str:
    r"""A text for a line of output, its control characters as Python writes them ("\n", "\x1b"): a name of a file, a
    patient or a reader can then neither begin a line of its own nor command a terminal."""
    return _CONTROL.sub(lambda found: ascii(found.group())[1:-1], text)


def fault_of(name: str) -> str | None:
    """Why a name cannot be that of a file below a folder, with / between folders; None where it can."""
    if not name or not name.strip():
        return "it is empty"
    if has_control(name):
        return "it holds a control character"
    if "\\" in name:
        return "it holds a backslash"
    if name.startswith("/") or name[1:2] == ":":
        return "it is absolute"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "it leads through . or .."
    if len(os.fsencode(name)) > MAX_ID_BYTES or any(len(os.fsencode(part)) > 255 for part in name.split("/")):
        return "it is too long"
    return None


def inside(root: Path | str, name: str | Path) -> Path:
    """The path of a name below a folder, which need not exist.

    Raises UnsafeNameError if it is absolute, leads through "..", or, links followed, out of the folder; a folder that
    is a link itself counts as the place that it leads to.
    """
    text = str(name)
    path = Path(root, text)
    is_relative = text and not Path(text).is_absolute() and ".." not in Path(text).parts and "\0" not in text
    if not is_relative or not is_inside(path, root):
        raise UnsafeNameError(f"{text[:80]!r} leads out of {root}: only what lies in that folder itself is used")
    return path


def is_inside(path: Path | str, root: Path | str) -> bool:
    """Whether a path lies in a folder once all links are followed."""
    try:
        return Path(path).resolve().is_relative_to(Path(root).resolve())
    except (OSError, ValueError, RuntimeError):  # loops of links, names that no system takes
        return False


def leads_out(path: Path | str, root: Path | str) -> bool:
    """Whether a path, whose parents are inside a folder, is a link that leads out of it, or nowhere."""
    # Few files are links, and following all of them would cost more than listing them.
    return os.path.islink(path) and not (os.path.exists(path) and is_inside(path, root))


def check_inside(path: Path, root: Path) -> Path:
    """The same path. Raises UnsafeNameError if it is there and, links followed, lies outside the folder `root`."""
    if os.path.exists(path) and not is_inside(path, root):
        raise UnsafeNameError(f"{path} is a link that leads out of {root}: {WHAT_TO_DO}")
    return path


def safe_name(name: str) -> str:
    """A file name for any id: itself where every system takes it so, else made safe, with a hash that tells it apart.

    It holds no separator, wildcard, control or look-alike of these, is no device's name, does not begin with a dot, a
    dash or a tilde, does not end in a dot or a space, and has at most 150 bytes.
    """
    safe = "".join(mark if _is_safe(mark) else "_" for mark in unicodedata.normalize("NFC", name))
    safe = safe.lstrip(". -~").rstrip(". ") or "image"
    if _DEVICE.match(safe):
        safe = f"_{safe}"
    safe = _cut(safe, MAX_BYTES)
    if safe == name:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{_cut(safe, MAX_BYTES - 13)}-{digest}"


def unique_names(ids: Iterable[str], taken: Iterable[str] = (), longest: int | None = None) -> list[str]:
    """Names of files after ids: without blanks and separators, each different from the others in any case.

    taken: names in lower case that none may have. longest: characters that are kept of an id; None for all.
    """
    names: list[str] = []
    before = set(taken)
    for each in ids:
        # Lists of VOC's end a name at a blank.
        plain = safe_name(re.sub(r"[^\w.-]+", "_", each, flags=re.ASCII).strip(".")[:longest] or "image")
        name, number = plain, 1
        while name.casefold() in before:
            number += 1
            name = f"{plain}-{number}"
        before.add(name.casefold())
        names.append(name)
    return names


def safe_path(name: str) -> str:
    """`safe_name` of each part of an id that has folders in it, such as one/a; of the whole where that is no path."""
    if fault_of(name) is not None:
        return safe_name(name)
    return "/".join(safe_name(part) for part in name.split("/"))


def _is_safe(mark: str) -> bool:
    # Some signs are made into others when systems compare names, such as the full-width slash.
    plain = unicodedata.normalize("NFKC", mark)
    return mark.isprintable() and _FORBIDDEN.isdisjoint(plain) and (mark == "." or "." not in plain)


def _cut(text: str, n_bytes: int) -> str:
    return text.encode("utf-8", "replace")[:n_bytes].decode("utf-8", "ignore").rstrip(". ")
