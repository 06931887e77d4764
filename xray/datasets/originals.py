"""Original sizes of pictures that were made smaller: results are given in the pixels of the original radiograph."""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from xray.datasets.sizes import Size, SizeTable, find_sizes, header_of, original_sizes, read_sizes, size_columns
from xray.errors import FlagError, InputError
from xray.radiographs.canvas import MAX_PIXELS, Canvas, is_resized, reshaped
from xray.radiographs.decoding import Decoded, Undecodable
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.radiograph import PICTURE_SUFFIXES, RadiographError, radiograph_size

Original = Size | str | None
"""(width, height) of a file's original, a text that says why it is not known, or None: the file is the original."""

PICTURES = PICTURE_SUFFIXES
"""Files that may have been made from larger radiographs; DICOM files are the originals themselves."""
USUAL_SIDES = (128, 224, 256, 299, 320, 384, 448, 512, 600, 640, 768, 800, 896, 1024, 1280)
"""Pixels of the longer side of pictures that were made smaller for training."""
SAMPLED = 64
"""Pictures whose headers show whether all are of one size."""
MOST_FOLDERS = 16
"""Folders below the data path that are searched for tables."""

SIZE_UNKNOWN = "original size not known, so the answer is in pixels of the picture"
NOT_USED = "table that may hold original sizes was not used"
ADVICE = "give the table with --sizes, or --sizes none if the pictures are the originals"

_SIZE = re.compile(r"(\d{1,6}) ?[xX×] ?(\d{1,6})")
_VINBIG_ID = re.compile(r"[0-9a-f]{32}")
_SIIM_ID = re.compile(r"1\.2\.276\.0\.7230010\.[\d.]+")
SIIM_SIDE = 1024
"""Pixels a side of all radiographs of SIIM-ACR's challenge."""


def find_originals(
    data_path: Path,
    paths: Sequence[Path],
    names: Sequence[str],
    ids: Sequence[str],
    sizes: str = "",
    beside: Sequence[Path] = (),
) -> tuple[tuple[Original, ...], list[FileWarning]]:
    """The original sizes of files, empty where all files are the originals; and warnings about them.

    data_path: a folder or one file. paths, names, ids: of each file, its path, the same below the data path, its id.
    sizes: a CSV file, WIDTHxHEIGHT for all pictures, "none" where they are the originals, or empty for the tables in or
    above the folder that have a known name. beside: further files that may be such tables.

    Where a table names some of the pictures, what it does not name cannot be answered. Raises InputError for a table
    that cannot be read or, given by name, names none of the pictures; FlagError where there are no pictures.
    """
    pictures = [number for number, path in enumerate(paths) if path.suffix.lower() in PICTURES]
    if sizes == "none" or not (pictures or sizes):
        return (), []
    if not pictures:
        raise FlagError(f"--sizes is for PNG and JPEG files, and {data_path} has none: DICOM files are the originals")
    originals: list[Original] = [None] * len(paths)
    known: Sequence[Original]
    if given := _SIZE.fullmatch(sizes):
        known = [_one_size(given)] * len(pictures)
    else:
        # What a table may call a file; the first tells its folder.
        spelt = [
            (f"{paths[n].absolute().parent.name}/{paths[n].name}", names[n], ids[n], paths[n].name) for n in pictures
        ]
        tables, others = ([read_sizes(Path(sizes))], []) if sizes else _tables_around(data_path, paths, beside)
        known = original_sizes(tables, spelt)
        if all(size is None for size in known):
            if sizes:
                raise InputError(
                    f"{sizes} names none of the {len(pictures)} pictures of {data_path}, such as {names[pictures[0]]}: "
                    "give a table with their ids or file names"
                )
            near = [path for path in others if _speaks_of(path, spelt)]
            if not near and not _seem_resized(
                data_path, [paths[n] for n in pictures], [ids[n] for n in pictures], beside
            ):
                return (), []
            warnings = [FileWarning(NOT_USED, path.name, ADVICE) for path in near]
            return (), warnings + [FileWarning(SIZE_UNKNOWN, names[number], ADVICE) for number in pictures]
        of = " and ".join(dict.fromkeys(table.path.name for table in tables))
        nowhere = f"its original size is not known: {of} names other files, not this one"
        known = [nowhere if size is None else size for size in known]
    for number, size in zip(pictures, known, strict=True):
        originals[number] = size
    return tuple(originals), []


def in_original_pixels(
    items: Iterable[Decoded | Undecodable], originals: Sequence[Original]
) -> Iterator[Decoded | Undecodable]:
    """Decoded files as their original radiographs: of that width and height, and on the canvas that training saw.

    originals: of each index; empty where all files are the originals. A file of another aspect is not decoded, unless
    it is a square into which the radiograph was squeezed; nor is one whose original size is not known.
    """
    for item in items:
        original = originals[item.index] if originals else None
        if isinstance(item, Undecodable) or original is None:
            yield item
        elif isinstance(original, str) or (fault := misfit((item.width, item.height), original)):
            reason = original if isinstance(original, str) else fault
            yield Undecodable(item.index, item.path, f"{item.path.name}: {reason}")
        else:
            size = len(item.canvas)
            whole = dataclasses.replace(item, width=original[0], height=original[1])
            places = (Canvas(*item.size_on_canvas, size), Canvas(*whole.size_on_canvas, size))
            yield dataclasses.replace(whole, canvas=reshaped(item.canvas, *places))


def misfit(file: Size, original: Original) -> str:
    """Why results for a file cannot be given in the pixels of its original; empty where they can."""
    if original is None or isinstance(original, str):
        return original or ""
    if is_resized(file, original, squashed=True):
        return ""
    return f"it is {file[0]} x {file[1]}, its original {original[0]} x {original[1]}: neither is the other resized"


def enlarged(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """(h, w) uint8 of a file that was made smaller → (height, width), to draw on in original pixels."""
    if pixels.shape == (height, width):
        return pixels
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)


def _one_size(given: re.Match[str]) -> Size:
    width, height = (int(side) for side in given.groups())
    if not 1 <= width * height <= MAX_PIXELS:
        raise FlagError(f"--sizes is {given[0]}: give sides of 1 or more, {MAX_PIXELS // 10**6} million pixels at most")
    return width, height


def _tables_around(
    data_path: Path, paths: Sequence[Path], beside: Sequence[Path]
) -> tuple[list[SizeTable], list[Path]]:
    """The tables of sizes in, above and below the data path, and those of other names that seem to be such."""
    root = (data_path.parent if data_path.is_file() else data_path).absolute()
    below = sorted({path.absolute().parent for path in paths} - {root})[:MOST_FOLDERS]
    folders = [root, root.parent, *below]
    tables, others = find_sizes(folders, list(dict.fromkeys(folder.name for folder in (root, *below))))
    used = {table.path for table in tables}
    given = [path for path in beside if path.absolute() not in used and size_columns(header_of(path))]
    return tables + [read_sizes(path) for path in given], others


def _speaks_of(path: Path, spelt: Sequence[Sequence[str]]) -> bool:
    try:
        return any(size is not None for size in read_sizes(path).of(spelt))
    except InputError:
        return False


def _seem_resized(data_path: Path, paths: Sequence[Path], ids: Sequence[str], beside: Sequence[Path]) -> bool:
    """Whether these are pictures of a challenge whose longer sides all have one length usual for resized ones."""
    root = (data_path.parent if data_path.is_file() else data_path).absolute()
    samples = [*beside, root / "sample_submission.csv", root.parent / "sample_submission.csv"]
    columns = [header_of(path)[:1] for path in samples]
    is_siim = ["ImageId"] in columns or all(map(_SIIM_ID.fullmatch, ids))
    if not (is_siim or ["image_id"] in columns or all(map(_VINBIG_ID.fullmatch, ids))):
        return False
    sides = set()
    for path in paths[:: -(-len(paths) // SAMPLED)]:
        try:
            sides.add(max(radiograph_size(path)))
        except RadiographError:
            continue  # the error is reported when the file is decoded
    return len(sides) == 1 and sides <= set(USUAL_SIDES) and not (is_siim and sides == {SIIM_SIDE})
