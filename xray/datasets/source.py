"""What a converter reads from the files of a source, before any pixel: images, readers' boxes, and what was left out.

Cleaning happens twice: a converter leaves out what is wrong by its table alone; what depends on the true size of a
radiograph (boxes beyond its edge) is cleaned after decoding. Both record it in the same list of `Dropped`.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from xray.errors import InputError
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.names import LINK_OUT, leads_out
from xray.structures.boxes import BoxTable

TRAIN, VAL, TEST = "train", "val", "test"
SPLITS = (TRAIN, VAL, TEST)
"""What a radiograph is for: to train on, to validate a training on, to be seen by no training."""

FINE_GRID = 2.0**20
"""Coordinates that a file gives are kept to 1/1048576 pixel: what is scored is what the file says."""
GRID = 64.0
"""Coordinates of fused boxes, whose last bits depend on the machine, are kept to 1/64 pixel. Both are fractions of a
power of two, so x + width is exact and never passes the edge."""

UNREADABLE = "unreadable file"
MISSING_FILE = "missing file"
NO_BOX_LEFT = "image without a usable box"
LOST_ANNOTATION = "radiograph with an annotation that could not be used"
"""Its annotations are incomplete: a finding that was left out would be learned as background."""
SIZE_MISMATCH = "file and table disagree on the size"
CLIPPED = "box beyond the edge"
OUTSIDE = "box outside the image"
EMPTY = "empty box"
INVERTED = "inverted box"
NOT_A_NUMBER = "coordinates not numbers"
DUPLICATE = "duplicate row"
MASK_WITHOUT_IMAGE = "mask without an image"
IMAGE_WITHOUT_MASK = "image without a mask"
UNREADABLE_MASK = "unreadable mask"
SPECK = "speck of a mask"
REPEATED_NAME = "several files of one id"
COPY = "second copy of a file"
UNKNOWN_CLASS = "unknown class"
NOT_IN_TABLE = "file without a row in the table"
NO_ID = "row without an image id"
CONTRADICTORY = "contradictory row"
NORMAL_WITH_FINDINGS = "picture said to be normal, with findings"
BOX_WITHOUT_FINDING = "box on a No finding row"
SIZE_UNKNOWN = "original size unknown"


@dataclasses.dataclass(frozen=True)
class Dropped:
    """One row or file that conversion left out or changed.

    where: the row or file, relative to the source, e.g. "train.csv line 17".
    reason: one of a few fixed texts, by which conversion.json counts.
    action: what was done with it.
    detail: anything more, e.g. the decoder's message.
    """

    where: str
    reason: str
    action: str = "left out"
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class SourceImage:
    """One radiograph of a source.

    path: the file to decode.
    file_name: the same, relative to the source.
    source_id: the source's own id, by which predictions name the radiograph.
    split: one of SPLITS; only train images are dealt into folds.
    width, height: original pixels where a table gives them: boxes are in these units even if the file is smaller.
    readers: who read the image, where known.
    labels: category ids that the image as a whole shows, where the source says so; None leaves that to its boxes.
    unknown: category ids of which the source does not say whether the image shows them: neither positive nor negative.
    unlocated: category ids that may lie somewhere in the image without a box. The unknown ones are so without being
        named here, and those among the labels that have no box.
    elsewhere: category ids that may lie in the image beside the boxes that they have, too: see `category_map`.
    normal: the source says of the radiograph as a whole that it shows nothing, not only none of the categories.
    extra: further keys for its entry in annotations.json.
    """

    path: Path
    file_name: str
    source_id: str
    patient: str | None = None
    split: str = "train"
    width: int | None = None
    height: int | None = None
    readers: tuple[str, ...] = ()
    labels: tuple[int, ...] | None = None
    unknown: tuple[int, ...] = ()
    unlocated: tuple[int, ...] = ()
    elsewhere: tuple[int, ...] = ()
    normal: bool = False
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Source:
    """All that a converter read.

    kind: "vinbig", "coco", …; layout: a word for the variant of the source, for conversion.json.
    boxes: one row a reader's box, in original pixels; `images` index into the list of images. Not yet clipped.
    readers: who drew each box; an empty tuple where nobody is named.
    places: where each box was read, for the record of boxes that are clipped.
    masks: row of `boxes` → COCO polygons or RLE in original pixels.
    categories: COCO categories, ids 1 … K.
    dropped: what was left out so far.
    warnings: about files that are used, or were skipped.
    fingerprint: hash of the tables read, so that an interrupted conversion continues only with the same ones.
    squashed: square files are whole radiographs squeezed without keeping their aspect, and are stretched back.
    sizes_of_files: widths and heights are those that the files had when they were annotated: that one has another size
        now, in which its boxes are not, is said.
    refused: digest of a canvas → the reason for which a radiograph that looks so, to the pixel, is left out.
    notes: further entries of conversion.json, such as the category map that was applied.
    """

    kind: str
    layout: str
    images: list[SourceImage]
    boxes: BoxTable
    readers: list[tuple[str, ...]]
    places: list[str]
    categories: list[dict[str, Any]]
    fingerprint: str
    masks: dict[int, Any] = dataclasses.field(default_factory=dict)
    dropped: list[Dropped] = dataclasses.field(default_factory=list)
    warnings: list[FileWarning] = dataclasses.field(default_factory=list)
    squashed: bool = False
    sizes_of_files: bool = False
    refused: dict[bytes, str] = dataclasses.field(default_factory=dict)
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)


def digest_of(canvas: np.ndarray) -> bytes:
    """What tells canvases (S, S) uint8 apart, equal for equal pixels."""
    return hashlib.blake2b(np.ascontiguousarray(canvas).data, digest_size=16).digest()


def data_root(data_path: Path | str, advice: str) -> Path:
    """The directory of a source. Raises InputError, which ends with the advice, where there is none."""
    root = Path(data_path)
    if not root.is_dir():
        what = f"{root} is a file, and a folder is needed" if root.exists() else f"no data at {root}"
        raise InputError(f"{what}: {advice}")
    return root


def listed(
    folder: Path, root: Path, dropped: list[Dropped], is_wanted: Callable[[Path], bool], beside: Path | None = None
) -> list[Path]:
    """The wanted files or folders that stand in a folder itself, sorted by name; hidden ones are not.

    Links that lead out of `root`, and of the folder `beside` if there is one, are left out, and entered in `dropped`.
    """
    inside = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not is_wanted(path):
            continue
        if leads_out(path, root) and (beside is None or leads_out(path, beside)):
            dropped.append(Dropped(relative_name(path, root), LINK_OUT))
        else:
            inside.append(path)
    return inside


def relative_name(path: Path, root: Path) -> str:
    """A file by its path below the source's directory; one outside of it by its folder and its name."""
    text, start = str(path), f"{root}/"
    if text.startswith(start):
        return text[len(start) :]
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else f"{path.parent.name}/{path.name}"


def snap(boxes: np.ndarray, grid: float = GRID) -> np.ndarray:
    """Coordinates rounded to 1/`grid` pixel: to x, y, width, height and back they then stay the same to the bit."""
    return np.round(np.asarray(boxes, dtype=np.float64) * grid) / grid


def clip_boxes(boxes: np.ndarray, widths: np.ndarray | int, heights: np.ndarray | int) -> np.ndarray:
    """(N, 4) xyxy boxes cut at the edges of their radiographs, (N,) and (N,), or of one radiograph.

    A box wholly outside has no area left.
    """
    return boxes.clip(0, np.stack([widths, heights, widths, heights], axis=-1))


def has_area(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) xyxy → (N,) bool, whether both sides are longer than zero."""
    is_large: np.ndarray = np.all((boxes[..., 2:] - boxes[..., :2]) > 0, axis=-1)
    return is_large


def natural(name: str) -> tuple[Any, ...]:
    """A sort key that puts R9 before R10."""
    parts = [part for part in re.split(r"(\d{1,18})", name) if part]
    # What is a digit to Python need not be a number to it: ².
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)
