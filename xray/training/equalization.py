"""Contrast-limited adaptive histogram equalisation (CLAHE) of a batch of canvases on any device.

K. Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV, 1994, with the clipping, the
rounding and the borders of OpenCV's createCLAHE, whose pictures these are to within a grey level.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 256


def equalize(images: Tensor, clip_limits: Tensor, n_tiles: int = 8) -> Tensor:
    """(B, 1, S, S) uint8 → (B, 1, S, S) uint8, by the histograms of `n_tiles` × `n_tiles` tiles.

    clip_limits: (B,) float, above 0: how many times the mean of a histogram one of its levels may count.
    Raises ValueError for canvases too small to be continued to whole tiles by reflection.
    """
    size = images.shape[-1]
    missing = -size % n_tiles
    if missing >= size:
        raise ValueError(f"canvases of {size} pixels are too small for {n_tiles} × {n_tiles} tiles")
    padded = F.pad(images.float(), (0, missing, 0, missing), mode="reflect").to(torch.uint8) if missing else images
    side = (size + missing) // n_tiles
    tables = _tables(_histograms(padded[:, 0], n_tiles, side), clip_limits, side * side)  # (B, tiles, 256)
    return _interpolate(images[:, 0], tables, n_tiles, side)[:, None]


def _histograms(images: Tensor, n_tiles: int, side: int) -> Tensor:
    """(B, n_tiles · side, n_tiles · side) uint8 → (B, n_tiles², 256) int64."""
    tiles = images.reshape(-1, n_tiles, side, n_tiles, side).transpose(2, 3).reshape(len(images), n_tiles**2, -1)
    # In place of bincount, which waits for the device to learn how long its result is.
    counts = torch.zeros((*tiles.shape[:2], LEVELS), dtype=torch.int64, device=images.device)
    return counts.scatter_add_(2, tiles.long(), counts.new_ones(()).expand(tiles.shape))


def _tables(counts: Tensor, clip_limits: Tensor, n_pixels: int) -> Tensor:
    """(B, T, 256) counts → (B, T, 256) float32, what each grey level of each tile becomes."""
    limits = (clip_limits.double() * n_pixels / LEVELS).long().clamp(min=1).view(-1, 1, 1)
    excess = (counts - limits).clamp(min=0).sum(-1, keepdim=True)
    left_over = excess % LEVELS
    # What is left after every level had its share goes to levels at equal distances, from the first on.
    step = (LEVELS // left_over.clamp(min=1)).clamp(min=1)
    level = torch.arange(LEVELS, device=counts.device)
    shared = excess // LEVELS + ((level % step == 0) & (level // step < left_over))
    cumulated = (counts.minimum(limits) + shared).cumsum(-1)
    return (cumulated * ((LEVELS - 1) / n_pixels)).round().clamp(0, LEVELS - 1).float()


def _interpolate(images: Tensor, tables: Tensor, n_tiles: int, side: int) -> Tensor:
    """(B, S, S) uint8 → (B, S, S) uint8: each pixel by the tables of the four tiles whose middles are around it."""
    at = torch.arange(images.shape[-1], device=images.device, dtype=torch.float32) / side - 0.5
    before = at.floor()
    share = at - before
    first, second = before.int().clamp(min=0), (before.int() + 1).clamp(max=n_tiles - 1)
    flat = tables.flatten()
    canvas = n_tiles**2 * torch.arange(len(images), device=images.device, dtype=torch.int32).view(-1, 1, 1)

    def look_up(down: Tensor, across: Tensor) -> Tensor:
        index = (canvas + n_tiles * down[:, None] + across) * LEVELS + images
        return flat.index_select(0, index.flatten()).view(images.shape)

    upper = torch.lerp(look_up(first, first), look_up(first, second), share)
    lower = torch.lerp(look_up(second, first), look_up(second, second), share)
    return torch.lerp(upper, lower, share[:, None]).round().clamp(0, LEVELS - 1).to(torch.uint8)
