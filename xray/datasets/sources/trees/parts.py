"""What readers of trees share: names of splits, paths that a file gives, XML, the table of the original radiographs."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from xray.datasets import source as reasons
from xray.datasets.sources.coco_images import FILE_SIDES
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.safe_xml import LONGEST_XML, parse_xml
from xray.datasets.sources.tables import read_table
from xray.errors import InputError
from xray.radiographs.canvas import MAX_PIXELS
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.names import is_inside
from xray.radiographs.radiograph import RadiographError, radiograph_size
from xray.structures.values import whole_number

ORIGINALS = "sizes.csv"
"""The table that `xray export` writes: file_name (from the tree's root on), width, height (of the original), patient.
Inference finds it, too, see `xray.datasets.sizes`."""
TABLE_NOT_USED = "table of original sizes without file_name, width and height was not used"
UNREADABLE_XML = "unreadable XML"
NOT_IN_TREE = "picture that no annotation file names"

LONGEST_PATH, LONGEST_NAME = 2000, 250
"""Characters of a path, and of a name in it, that a file system can have."""


def located(text: str, bases: Sequence[Path], root: Path) -> Path | None:
    """The file or folder below `root` that a path in somebody's file means; None where there is none.

    It is looked up from each of the folders `bases`. Where it leads out of the tree, or is the absolute path of another
    machine, it is the longest of its ends that is there: /content/set/images/train → images/train.
    """
    parts = [part for part in text.strip().replace("\\", "/").split("/") if part not in ("", ".")]
    if len(text) > LONGEST_PATH or max(map(len, parts), default=0) > LONGEST_NAME:
        return None  # The system raises an error for these, where it only denies others.
    is_whole = not text.strip().startswith(("/", "\\")) and ":" not in text[:3]
    for base in bases if is_whole else ():
        if is_inside(base.joinpath(*parts), root) and base.joinpath(*parts).exists():
            return base.joinpath(*parts)
    for first in range(len(parts)):
        if ".." in parts[first:] or ":" in parts[first]:
            continue
        if (root.joinpath(*parts[first:])).exists() and is_inside(root.joinpath(*parts[first:]), root):
            return root.joinpath(*parts[first:])
    return None


def read_xml(path: Path) -> tuple[Element, bytes]:
    """The root element of an XML file, and its bytes. Raises ValueError as `parse_xml` does."""
    if path.stat().st_size > LONGEST_XML:
        raise ValueError("it is larger than 1 GiB")
    content = path.read_bytes()
    return parse_xml(content), content


def root_tag(path: Path) -> str:
    """The name of an XML file's first element, by its first bytes; empty where there is none, or no file."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return ""
    found = re.search(rb"<\s*([A-Za-z_][\w.-]*)", re.sub(rb"<[?!][^>]*>", b"", head))
    return found[1].decode() if found else ""


@dataclasses.dataclass(frozen=True)
class Original:
    """What a tree's table says of the radiograph that a picture was made of. size: (width, height) in pixels."""

    size: tuple[int, int] | None = None
    patient: str | None = None

    def facts(self, of_file: tuple[int, int] | None) -> dict[str, Any]:
        """What a collector is told of the picture, whose own size is `of_file`."""
        facts: dict[str, Any] = {"patient": self.patient, "size": self.size}
        if self.size is not None and of_file not in (None, self.size):
            facts |= dict(zip(FILE_SIDES, of_file or (), strict=True))
        return facts


def read_originals(collector: Collector) -> dict[str, Original]:
    """File name → what sizes.csv, at the root of the tree, says of it; empty where there is none.

    Raises InputError for a size that is none.
    """
    path = collector.root / ORIGINALS
    if not path.is_file():
        return {}
    table, content = read_table(path, [], ["file_name", "width", "height", "patient"])
    if not {"file_name", "width", "height"} <= set(table.columns):
        collector.warnings.append(FileWarning(TABLE_NOT_USED, ORIGINALS))
        return {}
    collector.read(content)
    known: dict[str, Original] = {}
    for row in table.to_dict("records"):
        try:
            width, height = whole_number(row["width"]), whole_number(row["height"])
            if width is not None and height is not None and not (width > 0 < width * height <= MAX_PIXELS):
                raise ValueError(f"{width} x {height} is no size")
        except ValueError as error:
            raise InputError(f"{path} line {row['line']}: {error}: correct it, or remove the table") from None
        known[row["file_name"]] = Original((width, height) if width and height else None, row.get("patient") or None)
    return known


def read_sizes(collector: Collector, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """(width, height) of pictures as their headers have them. One that cannot be read is entered as left out."""

    def size(name: str) -> tuple[int, int] | str:
        try:
            return radiograph_size(collector.paths[name])
        except RadiographError as error:
            return str(error)

    names, sizes = list(names), {}
    with ThreadPoolExecutor(8) as pool:
        for name, result in zip(names, pool.map(size, names), strict=True):
            if isinstance(result, str):
                collector.lose(name, name, reasons.UNREADABLE, result)
            else:
                sizes[name] = result
    return sizes
