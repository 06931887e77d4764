"""The pictures of a tree: the radiograph's part of each canvas, without the border, as PNG of 8 or 16 bits."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from xray.datasets.store import Store
from xray.errors import InputError
from xray.files import complete
from xray.outputs.trees.plan import Item
from xray.radiographs.canvas import in_8_bits, is_resized
from xray.radiographs.names import UnsafeNameError, inside
from xray.radiographs.pictures import of_full_range
from xray.radiographs.radiograph import RadiographError, read_radiograph


def find_originals(store: Store, items: Sequence[Item], folder: Path) -> dict[int, Path]:
    """Row → the file that it was converted from. Raises InputError where one is missing, naming the first."""
    found: dict[int, Path] = {}
    missing: list[str] = []
    for item in items:
        name = store.records[item.row]["file_name"]
        try:
            path = inside(folder, name)
        except UnsafeNameError:
            path = folder / "…"
        if path.is_file():
            found[item.row] = path
        else:
            missing.append(name)
    if missing:
        raise InputError(
            f"{len(missing)} of {len(items)} original files are not in {folder}, such as {missing[0]}: give "
            "--originals the --data-path that the dataset was converted from"
        )
    return found


def write_pictures(
    store: Store, items: Sequence[Item], place: Callable[[Item], Path], originals: dict[int, Path] | None, bits: int
) -> int:
    """Writes a PNG for each item; those that are there already stay. Returns how many were written.

    place: where an item's picture goes; its folder must exist. originals: row → file, from which pictures of 16 bits
    are made; None takes the dataset's canvases.
    """

    def write(item: Item) -> bool:
        path = place(item)
        if path.exists():
            return False
        pixels = _of_canvas(store, item, bits) if originals is None else _of_file(originals[item.row], item, bits)
        fits, content = cv2.imencode(".png", pixels)
        assert fits
        with complete(path) as temporary:
            temporary.write_bytes(content.tobytes() if pixels.dtype == np.uint8 else of_full_range(content.tobytes()))
        return True

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # resizing and coding run outside Python's lock
        try:
            return sum(track(pool.map(write, items), "pictures", len(items), console=Console(stderr=True)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _of_canvas(store: Store, item: Item, bits: int) -> np.ndarray:
    assert store.images is not None
    left, top, right, bottom = store.canvas(item.row).content
    pixels = np.ascontiguousarray(store.images[item.row, top:bottom, left:right])
    return in_8_bits(pixels) if bits == 8 else pixels


def _of_file(path: Path, item: Item, bits: int) -> np.ndarray:
    try:
        pixels = read_radiograph(path, bits).pixels
    except RadiographError as error:
        raise InputError(f"{error}: repair it, or export 8 bits without --originals") from None
    height, width = pixels.shape
    if not is_resized((width, height), item.original, squashed=True):
        raise InputError(
            f"{path.name} is {width} x {height}, the dataset has it as {item.original[0]} x {item.original[1]}: it is "
            "another file than the one that was converted"
        )
    if (width, height) == item.picture:
        return pixels
    # As conversion does: area averaging where both sides get smaller.
    shrinks = item.picture[0] <= width and item.picture[1] <= height
    return cv2.resize(pixels, item.picture, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
