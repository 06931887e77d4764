"""Original sizes of radiographs that were made smaller, from the tables that their editions come with.

The pictures of VinBigData in 512 or 1024 pixels, resized pictures of SIIM-ACR and others stand beside a table of the
original widths and heights, in whose pixels boxes and run lengths are. Conversion and inference read it here, whatever
its columns are called and its numbers are spelt.
"""

import csv
import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from xray.datasets.sources.tables import plain_name, read_table, separator, spellings
from xray.errors import InputError
from xray.radiographs.canvas import MAX_PIXELS
from xray.radiographs.names import check_inside
from xray.structures.values import Names, finite_number, shown

if TYPE_CHECKING:
    import pandas as pd

Size = tuple[int, int]
"""Width and height, in pixels."""

SIDES = (
    ("originalwidth", "originalheight"),
    ("origwidth", "origheight"),
    ("originalimagewidth", "height"),
    ("imagewidth", "imageheight"),
    ("imgwidth", "imgheight"),
    ("width", "height"),
    ("dim1", "dim0"),
    ("columns", "rows"),
    ("cols", "rows"),
    ("w", "h"),
)
"""Columns of width and height, without case and punctuation; dim0 is an array's first axis, the height."""
WORDS = (
    ("width", "height"), ("columns", "rows"), ("cols", "rows"), ("xsize", "ysize"), ("sizex", "sizey"),
    ("imgw", "imgh"), ("origw", "origh"), ("xdim", "ydim"), ("dimx", "dimy"),
)  # fmt: skip
"""Parts of two names that are equal except for this part: raw_width and raw_height, n_cols and n_rows."""
OF_ORIGINALS = ("orig", "raw", "full", "source", "src", "dicom", "dcm", "native")
"""Words of columns that go before plain width and height."""
BESIDE = ("", "image", "img", "im", "picture", "file", "n", "nb", "num", "px", "pixels", "radiograph", "scan", "xray")
"""What names of columns may hold beside one of WORDS where they do not say that they are of the originals."""
OF_OTHERS = ("new", "resize", "target", "png", "jpg", "jpeg", "scale", "crop", "box", "pad", "thumb", "mask", "lesion")
"""Words of columns that are of something else."""
CORNERS = (("x", "y"), ("left", "top"), ("xcenter", "ycenter"), ("xmid", "ymid"), ("cx", "cy"), ("bboxx", "bboxy"))
"""Beside these, width and height are those of boxes, as in the tables of RSNA's challenge."""
IDS = (
    "imageid", "filename", "file", "image", "imageindex", "imagename", "imagepath", "filepath", "path", "newfilename",
    "imgid", "img", "name", "id", "uid", "sopinstanceuid", "patientid",
)  # fmt: skip
"""Columns that may name the pictures, in the order in which they are looked at."""

KNOWN_NAMES = (
    "{}_meta.csv", "test_meta.csv", "train_meta.csv", "{}.csv", "test.csv", "train.csv", "sample_submission.csv",
    "meta.csv", "sizes.csv", "image_sizes.csv",
)  # fmt: skip
"""Of tables that are looked for; {} is the name of the pictures' folder."""
MOST_TABLES = 200
"""CSV files of a folder whose header is looked at."""

SPLITS = ("train", "test", "val", "valid", "validation")
"""Folders that may hold other pictures of the same names."""
TWO_SIZES = "it gives two sizes"

_SUFFIX = re.compile(r"\.(dicom|dcm|png|jpe?g|tiff?|bmp)$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class SizeTable:
    """A table of original sizes.

    path: of its file. content: the file's bytes. columns: column that may name pictures → what it says of each name:
    a size, or in words why it gives none.
    """

    path: Path
    content: bytes
    columns: Mapping[str, Mapping[str, Size | str]]

    def of(self, pictures: Sequence[Sequence[str]]) -> list[Size | str | None]:
        """The size of each picture, or in words why the table gives none; None for those that it does not name.

        pictures: the names that each may have, surest first: its path, its id, its file name. Of the columns that may
        name pictures, the one that names most of these does.
        """
        best: list[Size | str | None] = [None] * len(pictures)
        for by_name in self.columns.values():
            sizes = _looked_up(by_name, pictures)
            if sum(size is not None for size in sizes) > sum(size is not None for size in best):
                best = sizes
        return best


def size_columns(columns: Iterable[str]) -> tuple[str, str] | None:
    """Of the names of a table's columns those of width and height; None where it has none, or they are of boxes."""
    plain = spellings(columns)
    pairs = _pairs(plain)
    first = [pair for pair, beside in pairs if any(word in beside for word in OF_ORIGINALS)]
    others = [pair for pair, beside in pairs if beside in BESIDE]
    for width, height in (*first, *SIDES, *others):
        if width in plain and height in plain:
            has_corners = any(x in plain and y in plain for x, y in CORNERS)
            of_boxes = has_corners and (width == "w" or (width == "width" and "w" not in plain))
            return None if of_boxes else (plain[width], plain[height])
    return None


def _pairs(plain: Iterable[str]) -> list[tuple[tuple[str, str], str]]:
    """Pairs of columns whose names are equal except for one of WORDS, in the order of WORDS, and the rest of the name.

    plain: the names without case and punctuation, the last first.
    """
    names = list(plain)[::-1]
    return [
        ((name, other), name.replace(width, "", 1))
        for width, height in WORDS
        for name in names
        if width in name
        and (other := name.replace(width, height, 1)) in names
        and not any(word in name for word in OF_OTHERS)
    ]


def size_table(path: Path, table: "pd.DataFrame", content: bytes) -> SizeTable | None:
    """A table as `read_table` reads it → its sizes; None where it has no columns of them, or none that names."""
    sides = size_columns(table.columns)
    spelling = spellings(table.columns)
    columns = [spelling[name] for name in IDS if name in spelling]
    if sides is None or not columns:
        return None
    pairs = list(zip(*(table[side].tolist() for side in sides), strict=True))
    size_of = {pair: _size(*pair) for pair in dict.fromkeys(pairs)}
    sizes = [size_of[pair] for pair in pairs]
    by_column = {column: _by_name(table[column].tolist(), sizes) for column in columns}
    return SizeTable(path, content, by_column)


def read_sizes(path: Path) -> SizeTable:
    """The table of sizes in a CSV file. Raises InputError if it cannot be read or has no sizes, or no names."""
    table, content = read_table(path)
    sizes = size_table(path, table, content)
    if sizes is None:
        names = ", ".join(name for name in table.columns if name != "line")
        raise InputError(
            f"{path} tells no original sizes (its columns are {names}): it needs image_id or a file name, and "
            "width,height or dim1,dim0 or columns,rows"
        )
    return sizes


def find_sizes(folders: Sequence[Path], known_as: Sequence[str]) -> tuple[list[SizeTable], list[Path]]:
    """Tables of sizes in some folders that have a known name, and paths of others that seem to be ones.

    known_as: names of the pictures' folders, such as "test", to which test_meta.csv belongs. A table of another name is
    not used, as its sizes may be those of other pictures.
    Raises InputError for a table with sizes that cannot be read, or is a link that leads out of its folder.
    """
    wanted = [pattern.format(name) for pattern in KNOWN_NAMES for name in known_as or ("",)]
    tables, others = [], []
    for folder in dict.fromkeys(folders):
        present = _tables_in(folder)
        for name in dict.fromkeys(wanted):
            if name in present and size_columns(header_of(folder / name)):
                table, content = read_table(check_inside(folder / name, folder))
                if (sizes := size_table(folder / name, table, content)) is not None:
                    tables.append(sizes)
        others += [folder / name for name in present if name not in wanted and _seems_of_sizes(folder / name)]
    return tables, others


def original_sizes(tables: Sequence[SizeTable], pictures: Sequence[Sequence[str]]) -> list[Size | str | None]:
    """The original size of each picture as the tables have it together.

    pictures: as for `SizeTable.of`; a first name with folders in it prefers a table called after the last of them.
    Returns for each picture its size, or a text that says why there is none; None where no table names it.
    """
    answers = [(table.path.name, table.of(pictures)) for table in tables]
    result: list[Size | str | None] = []
    for number, names in enumerate(pictures):
        folder = PurePosixPath(names[0]).parent.name
        given = [(name, size) for name, of_table in answers if (size := of_table[number]) is not None]
        given_for_folder = [(name, size) for name, size in given if folder and _first_word(name) == folder.lower()]
        if folder.lower() in SPLITS and not given_for_folder and _stem(names[0]).isdecimal():
            # The first picture of test/ and that of train/ may both be called 1.png.
            given = [(name, size) for name, size in given if _first_word(name) not in SPLITS]
        given = given_for_folder or given
        sizes = {size: name for name, size in reversed(given) if not isinstance(size, str)}
        if len(sizes) > 1:
            (one, first), (other, second) = list(sizes.items())[::-1][:2]
            result.append(f"{first} says {one[0]} x {one[1]}, {second} {other[0]} x {other[1]}")
        elif sizes:
            result.append(next(iter(sizes)))
        else:
            result.append(f"{given[0][0]}: {given[0][1]}" if given else None)
    return result


def _first_word(name: str) -> str:
    return re.split(r"[_.\- ]", name.lower())[0]


def _size(width: str, height: str) -> Size | str:
    try:
        across, down = finite_number(width), finite_number(height)
    except ValueError as error:
        return f"its size is unusable: {error}"
    if across is None or down is None:
        return "its size is empty"
    if not all(side.is_integer() and side >= 1 for side in (across, down)) or across * down > MAX_PIXELS:
        return f"its size is unusable: {shown(width)} x {shown(height)}"
    return int(across), int(down)


def _by_name(names: Sequence[str], sizes: Sequence[Size | str]) -> dict[str, Size | str]:
    """Name → size. A table with a row a box repeats them; where the rows disagree, none is known."""
    by_name: dict[str, Size | str] = {}
    for name, size in zip(names, sizes, strict=True):
        before = by_name.setdefault(name, size)
        if before in (size, TWO_SIZES) or isinstance(size, str):
            continue
        by_name[name] = size if isinstance(before, str) else TWO_SIZES
    by_name.pop("", None)
    return by_name


def _looked_up(by_name: Mapping[str, Size | str], pictures: Sequence[Sequence[str]]) -> list[Size | str | None]:
    names = Names({_path(name): size for name, size in by_name.items()})
    # A table may name the files by paths of its own, with a suffix of another edition: what then counts is the stem.
    by_stem: dict[str, list[Size | str]] = {}
    for name, size in by_name.items():
        by_stem.setdefault(_stem(_path(name)), []).append(size)
    stems = Names({stem: sizes[0] for stem, sizes in by_stem.items() if len(set(sizes)) == 1})
    result = []
    for of_picture in pictures:
        exact = (names.get(name) for name in (*of_picture, *(_SUFFIX.sub("", name) for name in of_picture)))
        tails = (stems.get(_stem(name)) for name in of_picture)
        result.append(next((size for size in (*exact, *tails) if size is not None), None))
    return result


def _path(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def _stem(name: str) -> str:
    return _SUFFIX.sub("", name.rsplit("/", 1)[-1])


def _tables_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.lower().endswith(".csv") and entry.is_file())
    except OSError:
        return []
    return names[:MOST_TABLES]


def header_of(path: Path) -> list[str]:
    """The names of a CSV file's columns, stripped; none where it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            line = file.readline(2**16)
            return [name.strip() for name in next(csv.reader([line], delimiter=separator(line)), [])]
    except (OSError, csv.Error):
        return []


def _seems_of_sizes(path: Path) -> bool:
    columns = header_of(path)
    return size_columns(columns) is not None and any(plain_name(name) in IDS for name in columns)
