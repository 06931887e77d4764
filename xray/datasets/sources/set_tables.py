"""What the readers of public sets share: finding a set's tables, ids without a radiograph, units of boxes, sizes."""

import fnmatch
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.datasets import source as reasons
from xray.datasets.sizes import SizeTable, find_sizes, original_sizes
from xray.datasets.sources.collector import Collector
from xray.datasets.sources.edges import ENOUGH, is_enlarged, is_much, passing
from xray.errors import InputError
from xray.radiographs.attributes import plain_attributes
from xray.radiographs.names import check_inside
from xray.radiographs.radiograph import PICTURE_SUFFIXES
from xray.structures.values import finite_number, is_missing

if TYPE_CHECKING:
    import pandas as pd

DEPTH = 4
"""Tables are looked for in --data-path and in folders so many levels below it."""
MOST_FOLDERS = 200
"""A folder with more of them than this is not looked into for tables: these are patients'."""
PACKED = ("gz", "zip")

FAR_BEYOND = "box far beyond the edge"
REPEATED = "radiograph with two rows"
UNKNOWN_FINDING = "unknown finding"


def find_tables(root: Path, *patterns: str) -> list[Path]:
    """The files at most DEPTH folders down whose name fits a pattern, in any case; the first patterns' first.

    Folders among more than MOST_FOLDERS are not looked into. A .csv may be packed, as Kaggle's and other programs
    download it: .csv.zip, .csv.gz; one beside the same file unpacked is not taken. Of one pattern those of fewer
    folders come first. Hidden files and folders are left out.
    Raises UnsafeNameError for one that is a link out of `root`.
    """
    found: list[tuple[int, int, Path]] = []
    for parent, folders, names in os.walk(root):
        depth = len(Path(parent).relative_to(root).parts)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if depth >= DEPTH or len(folders) > MOST_FOLDERS:
            folders.clear()
        for name in names:
            if name.startswith("."):
                continue
            plain = _unpacked(name)
            if plain != name and plain in names:
                continue
            fits = (k for k, pattern in enumerate(patterns) if fnmatch.fnmatchcase(plain.lower(), pattern.lower()))
            if (rank := next(fits, None)) is not None:
                found.append((rank, depth, Path(parent, name)))
    return [check_inside(path, root) for _, _, path in sorted(found)]


def _unpacked(name: str) -> str:
    """The name of a packed .csv without the suffix of its packing."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and suffix.lower() in PACKED and stem.lower().endswith(".csv") else name


def one_table(root: Path, *patterns: str) -> Path | None:
    """The file of the first pattern that any fits; None for none. Raises InputError for two that differ."""
    for pattern in patterns:
        found = find_tables(root, pattern)
        if len(found) > 1 and len({path.read_bytes() for path in found}) > 1:
            names = " and ".join(path.relative_to(root).as_posix() for path in found[:3])
            raise InputError(f"{root} holds {names}, which differ: leave one of them there")
        if found:
            return found[0]
    return None


def need_table(root: Path, patterns: Sequence[str], what: str) -> Path:
    """`one_table`, which raises InputError where there is none. what: the set's name, for the message."""
    path = one_table(root, *patterns)
    if path is None:
        raise InputError(f"{root} has no {patterns[0]}: give the directory that holds it and the radiographs of {what}")
    return path


def read_json(path: Path, kind: type = object, what: str = "") -> tuple[Any, bytes]:
    """The content of a JSON file, and its bytes. Raises InputError where it is none, or no `kind` at its top.

    what: the set's name, for the message.
    """
    try:
        content = path.read_bytes()
        top = json.loads(content)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}): download it again") from None
    if not isinstance(top, kind):
        raise InputError(f"{path} holds a {type(top).__name__}, not the {kind.__name__} of {what}: download it again")
    return top, content


def rows_once(path: Path, table: "pd.DataFrame", collector: Collector) -> "pd.DataFrame":
    """The table without rows that repeat another in all cells; the collector names them."""
    again = table.drop(columns="line").duplicated().to_numpy()
    for line in table["line"][again]:
        collector.leave_out(f"{path.name} line {line}", reasons.DUPLICATE)
    return table[~again].reset_index(drop=True)


def as_number(cell: Any) -> float:
    """A cell as a number; NaN where it is empty, or none."""
    try:
        number = finite_number(cell)
    except ValueError:
        return float("nan")
    return float("nan") if number is None else number


def as_numbers(table: "pd.DataFrame", columns: Sequence[str]) -> np.ndarray:
    """(N, len(columns)) float64, NaN where a cell is empty or no number."""
    rows = [[as_number(cell) for cell in table[name]] for name in columns]
    return np.array(rows, dtype=np.float64).T.reshape(-1, len(columns))


def check_ids(path: Path, table: "pd.DataFrame", column: str, is_finding: Iterable[bool]) -> None:
    """Raises InputError for a row that has a finding and no image id: which radiograph would be without it?"""
    for name, line, has_finding in zip(table[column].tolist(), table["line"].tolist(), is_finding, strict=True):
        if has_finding and not name:
            raise InputError(
                f"{path} line {line} has a finding but no {column}, so any radiograph may lack it: write the {column} "
                "there, or delete the row"
            )


def check_units(path: Path, boxes: np.ndarray, size: tuple[int, int] | None, units: str) -> None:
    """Raises InputError where the boxes of a whole table cannot be in the units that they should be in.

    boxes: (N, 4) xyxy. size: width and height of all radiographs in those units; None where each has its own.
    units: the same in words.
    """
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    if len(boxes) and boxes.max() <= 1:
        raise InputError(f"{path}: all its boxes lie between 0 and 1, so they are no pixels: it needs {units}")
    if not len(boxes) or size is None:
        return
    beyond = is_far_beyond(boxes, size)
    if is_much(int(beyond.sum()), len(beyond), is_known=True):
        raise InputError(
            f"{path}: {beyond.sum()} of {len(boxes)} boxes reach beyond {size[0]} x {size[1]}, up to "
            f"{boxes.max():.0f}: it needs {units}"
        )
    across, down = (boxes[:, 2:].max(axis=0) / np.array(size)).tolist()
    if len(boxes) >= ENOUGH and is_enlarged((across, down)):
        raise InputError(
            f"{path}: none of {len(boxes)} boxes reaches beyond {boxes[:, 2].max():.0f}, {boxes[:, 3].max():.0f} of "
            f"{size[0]} x {size[1]}, so they are of smaller pictures: it needs {units}; if they are right, "
            f"`convert table --same-size` reads them"
        )


def is_far_beyond(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, 4) xyxy → (N,) bool, whether a box passes an edge of its radiograph, see `edges`."""
    return passing(boxes, np.array(size))


def attributes_of(table: "pd.DataFrame", columns: Mapping[str, Sequence[str]]) -> Callable[[int], dict[str, str]]:
    """What a table says of a row's radiograph beside its findings, in the words of xray.radiographs.attributes.

    columns: attribute → names of columns that may hold it, as `read_table` spells them; the first that is there counts.
    """
    known = {
        name: table[column].tolist()
        for name, candidates in columns.items()
        if (column := next((each for each in candidates if each in table.columns), None)) is not None
    }
    plain: dict[tuple[str, ...], dict[str, str]] = {}

    def attributes(row: int) -> dict[str, str]:
        values = tuple(column[row] for column in known.values())
        if values not in plain:
            given = zip(known, values, strict=True)
            plain[values] = plain_attributes({name: value for name, value in given if not is_missing(value)})
        return plain[values]

    return attributes


def give_sizes(
    collector: Collector, names: Sequence[str], known_as: Sequence[str] = (), own: SizeTable | None = None
) -> bool:
    """Tells a collector the original sizes of those radiographs that are pictures made from DICOM files.

    Their boxes are in pixels of the originals, so one whose size no table gives is lost. names: of files, from
    `Collector.file_of`. known_as: names of their folders, as for `xray.datasets.sizes.find_sizes`. own: the set's own
    table, where somebody has added the sizes to it.
    Returns whether there are such pictures.
    """
    pictures = [name for name in names if name.lower().endswith(PICTURE_SUFFIXES)]
    for name, size in _sizes_in_tables(collector, pictures, known_as, own).items():
        if isinstance(size, tuple):
            collector.describe(name, size=size)
        else:
            collector.lose(
                name, name, reasons.SIZE_UNKNOWN, size or "its boxes are in pixels of the original, see docs/data.md"
            )
    return bool(pictures)


def check_resized(collector: Collector, path: Path, reach: Mapping[str, tuple[float, float]], known_as: str) -> None:
    """Tells a collector the original sizes of pictures that were made smaller, as far as a table has them.

    reach: file → the largest x and y of its boxes, in pixels of the original. path: the table of boxes.
    Raises InputError where no table has them and boxes of many files reach beyond the pictures: they were made smaller,
    and boxes that seem to fit would be wrong, too.
    """
    sizes = _sizes_in_tables(collector, list(reach), [known_as])
    unknown = []
    for name, size in sizes.items():
        if isinstance(size, tuple):
            collector.describe(name, size=size)
        else:
            unknown.append(name)
    beyond = [name for name in unknown if _reaches_beyond(collector.paths[name], reach[name])]
    if is_much(len(beyond), len(unknown), is_known=True):
        raise InputError(
            f"{path}: boxes of {len(beyond)} of {len(unknown)} radiographs reach beyond their pictures (the first is "
            f"{beyond[0]}), which were made smaller: put the originals there, or a table {known_as}_meta.csv with "
            "image_id,width,height of the originals"
        )


def _reaches_beyond(path: Path, corner: tuple[float, float]) -> bool:
    import PIL.Image

    try:
        with PIL.Image.open(path) as picture:
            return bool(is_far_beyond(np.array([[0, 0, *corner]]), picture.size)[0])
    except (OSError, ValueError, PIL.Image.DecompressionBombError):
        return False  # It is told when it is decoded.


def _sizes_in_tables(
    collector: Collector, pictures: Sequence[str], known_as: Sequence[str], own: SizeTable | None = None
) -> dict[str, tuple[int, int] | str | None]:
    """Picture → its original size as tables around it have it, or in words why not; None where none names it."""
    folders = {collector.root / Path(name).parent for name in pictures}
    around = {parent for folder in folders for parent in folder.parents if parent.is_relative_to(collector.root)}
    tables, _ = find_sizes(sorted(folders | around), known_as)
    for table in tables:
        collector.read(table.content)
    tables += [own] if own is not None else []
    sizes = original_sizes(tables, [(name, collector.files.ids[name], Path(name).name) for name in pictures])
    return dict(zip(pictures, sizes, strict=True))
