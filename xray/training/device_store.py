"""The canvases of a dataset directory on the device that trains, where batches are gathered (`--store-device`)."""

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from xray.datasets.mask_canvas import mask_canvas
from xray.datasets.store import Store
from xray.errors import InputError

RESERVED_FOR_THE_MODEL = 0.5
"""Share of a GPU's memory that canvases leave to weights, features and gradients."""
AT_A_TIME = 64 * 2**20
"""Bytes of canvases that are read before they are sent to the device."""
SHOWN = 256 * 2**20
"""Bytes from which on the progress is shown."""


def where_to_store(store_device: str, device: torch.device) -> torch.device | None:
    """The config's `store_device` → the device that canvases are put on; None where they stay in their file.

    device: the one that trains. Raises InputError for "cuda" where `device` is no GPU.
    """
    if store_device == "cpu":
        return None
    if device.type != "cuda":
        raise InputError(
            f"--store-device {store_device}, but training runs on the {device.type}: use --store-device cpu"
        )
    return device


class DeviceStore:
    """Canvases, and masks, of some rows of a store, gathered by row on their device without waiting for it.

    rows: those whose canvases are kept; asking for others is an error. masks: whether their masks are kept too; eight
    pixels a byte, and only of radiographs that have any.
    Raises InputError where the device is a GPU and they take more of its memory than may be used.
    """

    def __init__(self, store: Store, rows: np.ndarray, device: torch.device, masks: bool = False) -> None:
        rows = np.unique(rows)
        check_memory(store, rows, device, masks)
        image_shape, mask_shape = _shapes(store, rows, masks)
        masked = _with_masks(store, rows) if masks else rows[:0]
        self._size = store.canvas_size
        self._images = torch.empty(image_shape, dtype=torch.uint8 if store.bits == 8 else torch.int16, device=device)
        self._place = _places(len(store), rows, device)
        self._masks: Tensor | None = None
        hidden = self._images.nbytes < SHOWN or not sys.stderr.isatty()
        with Progress(console=Console(stderr=True), transient=True, disable=hidden) as progress:
            task = progress.add_task("canvases onto the device", total=len(rows) + len(masked))
            images = store.images
            assert images is not None
            _fill(self._images, lambda number: _signed(images[rows[number]]), lambda n: progress.advance(task, n))
            if masks:
                # Canvases without a mask share the first one, which is empty.
                self._masks = torch.zeros(mask_shape, dtype=torch.uint8, device=device)
                self._mask_place = _places(len(store), masked, device) + 1
                _fill(
                    self._masks[1:],
                    lambda number: np.packbits(mask_canvas(store, int(masked[number])), axis=-1),
                    lambda n: progress.advance(task, n),
                )

    def __deepcopy__(self, memo: dict[int, Any]) -> "DeviceStore":
        # Averaging the weights copies the whole task. Canvases never change, and the memory has no room for a copy.
        return self

    @property
    def nbytes(self) -> int:
        """How much of the device's memory is used, in bytes."""
        return self._images.nbytes + (0 if self._masks is None else self._masks.nbytes)

    def images(self, rows: Tensor) -> Tensor:
        """(B,) int64 rows of the store, on the device → (B, 1, S, S) uint8, or float32 of 0 to 255 of 16 bits."""
        images = self._images.index_select(0, self._place.index_select(0, rows))[:, None]
        return images if images.dtype == torch.uint8 else (images.float() + 2**15) / 257

    def masks(self, rows: Tensor) -> Tensor:
        """(B,) int64 rows of the store, on the device → (B, K, S, S) uint8 of 0 and 1."""
        assert self._masks is not None
        packed = self._masks.index_select(0, self._mask_place.index_select(0, rows))
        # numpy's packbits: the first pixel is the highest bit.
        shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
        return ((packed[..., None] >> shifts) & 1).flatten(-2)[..., : self._size]


def check_memory(store: Store, rows: np.ndarray, device: torch.device, masks: bool) -> None:
    """Raises InputError where the device is a GPU and a DeviceStore would take more of its memory than may be used."""
    if device.type == "cpu":
        return
    free, total = torch.cuda.mem_get_info(device)
    of_images, of_masks = map(math.prod, _shapes(store, rows, masks))
    needed, reserved = of_images * store.bits // 8 + of_masks, RESERVED_FOR_THE_MODEL * total
    if needed > free - reserved:
        raise InputError(
            f"--store-device cuda: {len(rows)} canvases of {store.canvas_size} pixels take {needed / 2**30:.1f} GiB; "
            f"of the GPU's {total / 2**30:.1f} GiB {free / 2**30:.1f} are free and {reserved / 2**30:.1f} are kept for "
            "the model: use --store-device cpu, or convert with a smaller --image-size"
        )


def _shapes(store: Store, rows: np.ndarray, masks: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of the canvases in pixels, and of the masks in bytes."""
    size = store.canvas_size
    n_masks = 1 + len(_with_masks(store, rows)) if masks else 0
    return (len(rows), size, size), (n_masks, len(store.categories), size, -(-size // 8))


def _signed(canvas: np.ndarray) -> np.ndarray:
    """uint8 as it is; uint16 as int16 from -32768 up, as PyTorch gathers no uint16."""
    return canvas if canvas.dtype == np.uint8 else (canvas ^ np.uint16(2**15)).view(np.int16)


def _with_masks(store: Store, rows: np.ndarray) -> np.ndarray:
    return np.intersect1d(rows, store.boxes.images[sorted(store.masks)])


def _places(n: int, rows: np.ndarray, device: torch.device) -> Tensor:
    """(n,) int64: where each row lies among `rows`, -1 for the others."""
    places = np.full(n, -1, dtype=np.int64)
    places[rows] = np.arange(len(rows))
    return torch.from_numpy(places).to(device)


def _fill(target: Tensor, read: Callable[[int], np.ndarray], advance: Callable[[int], None]) -> None:
    """Puts `read(0)`, `read(1)` … into `target` (N, …) of their type, a part at a time."""
    per_part = max(1, AT_A_TIME // max(1, target[:1].nbytes))
    for start in range(0, len(target), per_part):
        part = target[start : start + per_part]
        part.copy_(torch.from_numpy(np.stack([read(start + number) for number in range(len(part))])))
        advance(len(part))
