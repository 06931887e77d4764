"""The files of a dataset directory, as they are read."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from xray.errors import InputError
from xray.file_names import IMAGES
from xray.radiographs.canvas import MAX_PIXELS


def check_record(path: Path, record: dict[str, Any], needs_size: bool) -> None:
    """Raises InputError where an entry of `images` in annotations.json is none. needs_size: of an image with boxes."""
    sides: list[Any] = [record.get("width"), record.get("height")]
    if needs_size or sides != [None, None]:
        if any(type(side) is not int or side < 1 for side in sides):
            raise damaged(path, "an image's width or height is not positive")
        if sides[0] * sides[1] > MAX_PIXELS:
            raise damaged(path, f"an image has more than {MAX_PIXELS // 10**6} million pixels")
    if not isinstance(record.get("patient"), str | int | None) or not isinstance(record.get("readers", []), list):
        raise damaged(path, "an image's patient is no text, or its readers no list")
    if not -1 <= int(record["fold"]) < 2**31:
        raise damaged(path, "an image's fold is not counted from 0")


def bits_of(conversion: dict[str, Any]) -> int:
    """Bits of a pixel as conversion.json has them; raises ValueError for another number than 8 or 16."""
    bits = conversion["parameters"].get("bits", 8)
    if bits not in (8, 16):
        raise ValueError(f"bits is {bits!r}, neither 8 nor 16")
    return int(bits)


def dtype_of(bits: int) -> np.dtype[Any]:
    """Of the canvases in images.npy."""
    return np.dtype("|u1" if bits == 8 else "<u2")


def map_images(path: Path, size: int, bits: int) -> np.ndarray:
    """images.npy of a dataset directory, (N, size, size), mapped into memory. Raises InputError if it is damaged."""
    file = path / IMAGES
    if not file.is_file():
        raise InputError(
            f"{path} holds annotations but no {IMAGES}: convert it again with --overwrite, without --table-only"
        )
    try:
        images: np.ndarray = np.load(file, mmap_mode="r")
    except Exception as error:  # whatever NumPy raises on a damaged header
        raise damaged(path, f"{IMAGES} cannot be mapped: {error}") from None
    if images.dtype != dtype_of(bits) or images.ndim != 3 or images.shape[1:] != (size, size):
        raise damaged(path, f"{IMAGES} is {images.dtype} {images.shape}, not {dtype_of(bits)} (N, {size}, {size})")
    return images


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a dataset directory. Raises InputError if it is damaged."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(file.parent, f"{file.name} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise damaged(file.parent, f"{file.name} holds a {type(content).__name__}, not an object")
    return content


def damaged(path: Path, what: str) -> InputError:
    """The error of a dataset directory that no conversion has left so."""
    return InputError(f"the dataset {path} is damaged ({what}): convert it again with --overwrite")
