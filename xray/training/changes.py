"""Augmentation of pixels, drawn by `xray.training.augment`, computed for a whole batch at a time on any device.

The same steps in the same order as albumentations', rounded to whole grey levels wherever albumentations rounds: place
and distortion (bilinear, masks nearest), tone, local contrast (CLAHE), blur or noise, holes. Nothing here waits for the
device.

Canvases of 16 bits come as float32 grey levels, 0 to 255 with fractions, and stay so without any rounding.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xray.radiographs.canvas import in_levels
from xray.training.distortion import CELLS, NODES

LONGEST_KERNEL = 5
MOST_HOLES = 4

SOURCE = slice(0, 6)
FLIPPED, CLIP_LIMIT, NOISE = 6, 7, 8
KERNEL = slice(9, 9 + LONGEST_KERNEL)
HOLES = slice(KERNEL.stop, KERNEL.stop + 4 * MOST_HOLES)
TABLE = slice(HOLES.stop, HOLES.stop + 256)
LATTICE = slice(TABLE.stop, TABLE.stop + 2 * NODES**2)
"""Columns of `Changes.values`."""

LEVELS = 256
N_TILES = 8
"""Tiles of CLAHE along a side of the canvas."""

AT_A_TIME = 8
"""Canvases moved in one operation: the source of each pixel takes eight times the memory of the canvas."""


@dataclasses.dataclass(frozen=True)
class Change:
    """The change of one canvas.

    seed: of the noise. flipped: whether it is mirrored. `source` includes the mirroring of pixels, not that of the
    channels of masks.
    source: (2, 3) float64, pixel (x, y, 1) of the result → where it lies on the canvas as stored.
    table: (256,) uint8, what each grey level becomes; None leaves them.
    clip_limit: of CLAHE with 8 × 8 tiles; 0 for none.
    kernel: (3,) or (5,) float64, of a blur along rows and columns; None for none.
    noise: standard deviation in grey levels; 0 for none.
    holes: (N, 4) int xyxy, up to four rectangles that turn black.
    lattice: of a distortion (`xray.training.distortion`); None for none.
    """

    seed: int
    flipped: bool
    source: np.ndarray
    table: np.ndarray | None = None
    clip_limit: float = 0.0
    kernel: np.ndarray | None = None
    noise: float = 0.0
    holes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 4), dtype=np.int64))
    lattice: np.ndarray | None = None


class Changes(NamedTuple):
    """The changes of a batch, in two tensors and a few numbers, so that they travel to the device without a wait.

    values: (B, 528) float32, see the columns above.
    chosen: (n,) int64, the places in the batch that distortion, CLAHE, blur, noise and holes change, one after the
    other.
    counts: how many each of these five changes; n together.
    seeds: of the noise of each canvas that has some.
    """

    values: Tensor
    chosen: Tensor
    counts: tuple[int, int, int, int, int]
    seeds: tuple[int, ...]


def stack_changes(changes: Sequence[Change]) -> Changes:
    """The changes of a batch's canvases in their order."""
    values = np.zeros((len(changes), LATTICE.stop), dtype=np.float32)
    chosen: tuple[list[int], ...] = ([], [], [], [], [])
    for place, (change, row) in enumerate(zip(changes, values, strict=True)):
        row[SOURCE] = change.source.ravel()
        row[FLIPPED], row[CLIP_LIMIT], row[NOISE] = change.flipped, change.clip_limit, change.noise
        row[TABLE] = np.arange(256) if change.table is None else change.table
        if change.kernel is not None:
            margin = (LONGEST_KERNEL - len(change.kernel)) // 2
            row[KERNEL] = np.pad(change.kernel, margin)
        black = change.holes.ravel()
        row[HOLES][: len(black)] = black
        if change.lattice is not None:
            row[LATTICE] = change.lattice.ravel()
        is_bent = change.lattice is not None
        wanted = (is_bent, change.clip_limit > 0, change.kernel is not None, change.noise > 0, len(black) > 0)
        for places, is_wanted in zip(chosen, wanted, strict=True):
            if is_wanted:
                places.append(place)
    flat = torch.tensor([place for places in chosen for place in places], dtype=torch.int64)
    bent, clahe, blur, noise, holes = chosen
    counts = (len(bent), len(clahe), len(blur), len(noise), len(holes))
    return Changes(torch.from_numpy(values), flat, counts, tuple(changes[place].seed for place in noise))


@torch.no_grad()
def change_images(images: Tensor, changes: Changes) -> Tensor:
    """(B, 1, S, S) uint8 or float32 canvases as stored → (B, 1, S, S) of that type as changed, on their device.

    The same noise for the same canvas on the same kind of device.
    """
    values = changes.values
    bent, *chosen = changes.chosen.split(list(changes.counts))
    parts = zip(images.split(AT_A_TIME), values.split(AT_A_TIME), strict=True)
    placed = torch.cat([_as(part, _place(part, drawn[:, SOURCE], "bilinear")) for part, drawn in parts])
    _distort(placed, bent, values, "bilinear")
    parts = zip(placed.split(AT_A_TIME), values.split(AT_A_TIME), strict=True)
    result = torch.cat([_look_up(part, drawn[:, TABLE]) for part, drawn in parts])
    steps = (
        lambda part, drawn: equalize(part, drawn[:, CLIP_LIMIT]),
        lambda part, drawn: _blur(part, drawn[:, KERNEL]),
        lambda part, drawn: _add_noise(part, drawn[:, NOISE], changes.seeds),
        lambda part, drawn: _pierce(part, drawn[:, HOLES]),
    )
    for step, places in zip(steps, chosen, strict=True):
        if len(places):
            part = step(result.index_select(0, places), values.index_select(0, places))
            result.index_copy_(0, places, part)
    return result


@torch.no_grad()
def change_masks(masks: Tensor, changes: Changes, mirrored_channels: Sequence[int]) -> Tensor:
    """(B, K, S, S) uint8 masks of 0 and 1 as stored → as changed, by nearest neighbour.

    mirrored_channels: the order of the channels on a flipped radiograph, see `xray.training.augment.Augmentation`.
    """
    values = changes.values
    parts = zip(masks.split(AT_A_TIME), values.split(AT_A_TIME), strict=True)
    result = torch.cat([_place(part, drawn[:, SOURCE], "nearest").to(torch.uint8) for part, drawn in parts])
    _distort(result, changes.chosen[: changes.counts[0]], values, "nearest")
    if list(mirrored_channels) == sorted(mirrored_channels):
        return result
    # A list as an index would be copied to the device, and waited for.
    other_sides = torch.stack([result[:, channel] for channel in mirrored_channels], dim=1)
    return torch.where((values[:, FLIPPED] > 0).view(-1, 1, 1, 1), other_sides, result)


def change_canvas(
    image: np.ndarray, mask: np.ndarray | None, change: Change, mirrored_channels: Sequence[int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Changes one canvas (S, S) of 16 bits and its mask: → (S, S) float32, and (K, S, S) uint8 or None."""
    changes = stack_changes([change])
    changed = change_images(torch.from_numpy(in_levels(image))[None, None], changes)[0, 0].numpy()
    if mask is None:
        return changed, None
    return changed, change_masks(torch.from_numpy(mask)[None], changes, mirrored_channels)[0].numpy()


def _place(images: Tensor, sources: Tensor, mode: str) -> Tensor:
    """(B, K, S, S) uint8 → (B, K, S, S) float32, each pixel from where `sources` (B, 6) say; 0 outside."""
    size = images.shape[-1]
    line = torch.arange(size, dtype=torch.float32, device=images.device)
    # In place of F.affine_grid: its matrix product may run in TF32, whose ten bits are less than a canvas has pixels.
    of_x, of_y, offset = sources.reshape(-1, 2, 3, 1, 1).unbind(2)  # each (B, 2, 1, 1)
    spots = of_x * line + of_y * line[:, None] + offset  # (B, 2, S, S) of x and y
    return _sample(images, spots, mode)


def _sample(images: Tensor, spots: Tensor, mode: str) -> Tensor:
    """(B, K, S, S) uint8, and (B, 2, S, S) x and y in pixels, which are overwritten → (B, K, S, S) float32."""
    # For grid_sample, −1 and 1 are the outer edges of the first and the last pixel.
    grid = spots.add_(0.5).mul_(2 / images.shape[-1]).sub_(1).permute(0, 2, 3, 1)
    return F.grid_sample(images.float(), grid, mode, "zeros", align_corners=False)


def _distort(images: Tensor, chosen: Tensor, values: Tensor, mode: str) -> None:
    """Distorts those of the canvases or masks (B, K, S, S) uint8 that are `chosen` (n,), in place.

    As `xray.training.distortion.distort`.
    """
    size = images.shape[-1]
    line = torch.arange(size, dtype=torch.float32, device=images.device)
    node = torch.arange(NODES, dtype=torch.float32, device=images.device)
    away = ((line[:, None] + 0.5) * (CELLS / size) + 1 - node).abs()
    taps = ((2 - away).clamp(min=0) ** 3 - 4 * (1 - away).clamp(min=0) ** 3) / 6  # (S, 11), of pixels' middles
    for places in chosen.split(AT_A_TIME) if len(chosen) else ():
        lattices = values.index_select(0, places)[:, LATTICE].reshape(-1, 2, NODES, NODES)
        # Sums in place of matrix products, which may run in TF32.
        rows = (lattices[:, :, None] * taps[:, :, None]).sum(3)  # (n, 2, S, 11)
        spots = torch.stack([line.expand(size, size), line[:, None].expand(size, size)]).repeat(len(places), 1, 1, 1)
        for number in range(NODES):
            spots.addcmul_(rows[..., number, None], taps[:, number])
        moved = _sample(images.index_select(0, places), spots, mode)
        images.index_copy_(0, places, _as(images, moved))


def _as(images: Tensor, values: Tensor) -> Tensor:
    """float32 values of 0 to 255 in the type of the canvases: rounded for uint8, as they are for float32."""
    return values.round().to(torch.uint8) if images.dtype == torch.uint8 else values


def _look_up(levels: Tensor, tables: Tensor) -> Tensor:
    """(B, 1, S, S) grey levels and (B, 256) tables → (B, 1, S, S), uint8, or float32 between two entries."""
    if levels.dtype != torch.uint8:
        below = levels.floor().clamp(max=LEVELS - 2)
        at = below.to(torch.int32) + LEVELS * torch.arange(len(levels), device=levels.device).view(-1, 1, 1, 1)
        flat, index = tables.flatten(), at.flatten()
        lower, upper = (flat.index_select(0, index + step).view(levels.shape) for step in (0, 1))
        return torch.lerp(lower, upper, levels - below)
    first = 256 * torch.arange(len(levels), dtype=torch.int32, device=levels.device).view(-1, 1, 1, 1)
    index = levels.to(torch.int32) + first
    return tables.to(torch.uint8).flatten().index_select(0, index.flatten()).view(levels.shape)


def _blur(images: Tensor, kernels: Tensor) -> Tensor:
    size, margin = images.shape[-1], LONGEST_KERNEL // 2
    values = F.pad(images.float(), (margin,) * 4, mode="reflect")
    taps = kernels.reshape(-1, LONGEST_KERNEL, 1, 1, 1).unbind(1)
    along = sum((tap * values[..., start : start + size] for start, tap in enumerate(taps)), values.new_zeros(()))
    both = sum((tap * along[..., start : start + size, :] for start, tap in enumerate(taps)), values.new_zeros(()))
    return _as(images, both.clamp(0, 255))


def _add_noise(images: Tensor, deviations: Tensor, seeds: Sequence[int]) -> Tensor:
    # One canvas at a time, so that none depends on the others of its batch.
    noise = torch.empty(images.shape, device=images.device)
    for canvas, seed in zip(noise, seeds, strict=True):
        canvas.normal_(generator=torch.Generator(images.device).manual_seed(seed))
    # Fractions of uint8 are cut off, as albumentations does.
    return (images + deviations.view(-1, 1, 1, 1) * noise).clamp(0, 255).to(images.dtype)


def _pierce(images: Tensor, holes: Tensor) -> Tensor:
    line = torch.arange(images.shape[-1], device=images.device)
    x1, y1, x2, y2 = holes.reshape(-1, MOST_HOLES, 4, 1).unbind(2)  # each (B, 4, 1)
    across, down = (line >= x1) & (line < x2), (line >= y1) & (line < y2)  # (B, 4, S)
    inside = (down[..., :, None] & across[..., None, :]).any(1, keepdim=True)
    return images.masked_fill(inside, 0)


# Contrast-limited adaptive histogram equalisation


def equalize(images: Tensor, clip_limits: Tensor) -> Tensor:
    """CLAHE, by the histograms of `N_TILES` × `N_TILES` tiles: (B, 1, S, S) uint8 or float32 → the same.

    K. Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV, 1994, with the clipping, the
    rounding and the borders of OpenCV's createCLAHE, whose results differ from these by at most one grey level.
    clip_limits: (B,) float, above 0: the largest count of a grey level, in units of its histogram's mean.
    Raises ValueError for canvases too small to be continued to whole tiles by reflection.
    """
    size = images.shape[-1]
    missing = -size % N_TILES
    if missing >= size:
        raise ValueError(f"canvases of {size} pixels are too small for {N_TILES} × {N_TILES} tiles")
    whole = images if images.dtype == torch.uint8 else images.round().to(torch.uint8)
    padded = F.pad(whole.float(), (0, missing, 0, missing), mode="reflect").to(torch.uint8) if missing else whole
    side = (size + missing) // N_TILES
    tables = _tables(_histograms(padded[:, 0], side), clip_limits, side * side)  # (B, tiles, 256)
    return _interpolate(images[:, 0], tables, side)[:, None]


def _histograms(images: Tensor, side: int) -> Tensor:
    """(B, N_TILES · side, N_TILES · side) uint8 → (B, N_TILES², 256) int64."""
    tiles = images.reshape(-1, N_TILES, side, N_TILES, side).transpose(2, 3).reshape(len(images), N_TILES**2, -1)
    # In place of bincount, which waits for the device to learn how long its result is.
    counts = torch.zeros((*tiles.shape[:2], LEVELS), dtype=torch.int64, device=images.device)
    return counts.scatter_add_(2, tiles.long(), counts.new_ones(()).expand(tiles.shape))


def _tables(counts: Tensor, clip_limits: Tensor, n_pixels: int) -> Tensor:
    """(B, T, 256) counts → (B, T, 256) float32, what each grey level of each tile becomes."""
    limits = (clip_limits.double() * n_pixels / LEVELS).long().clamp(min=1).view(-1, 1, 1)
    excess = (counts - limits).clamp(min=0).sum(-1, keepdim=True)
    left_over = excess % LEVELS
    # The remainder goes to levels at equal distances, from the first on.
    step = (LEVELS // left_over.clamp(min=1)).clamp(min=1)
    level = torch.arange(LEVELS, device=counts.device)
    shared = excess // LEVELS + ((level % step == 0) & (level // step < left_over))
    cumulated = (counts.minimum(limits) + shared).cumsum(-1)
    return (cumulated * ((LEVELS - 1) / n_pixels)).round().clamp(0, LEVELS - 1).float()


def _interpolate(images: Tensor, tables: Tensor, side: int) -> Tensor:
    """(B, S, S) → (B, S, S) of its type: each pixel by the tables of the four tiles whose middles are around it."""
    at = torch.arange(images.shape[-1], device=images.device, dtype=torch.float32) / side - 0.5
    before = at.floor()
    share = at - before
    first, second = before.int().clamp(min=0), (before.int() + 1).clamp(max=N_TILES - 1)
    flat = tables.flatten()
    canvas = N_TILES**2 * torch.arange(len(images), device=images.device, dtype=torch.int32).view(-1, 1, 1)

    is_fine = images.dtype != torch.uint8
    levels = images.floor().clamp(max=LEVELS - 2).int() if is_fine else images

    def look_up(down: Tensor, across: Tensor) -> Tensor:
        index = ((canvas + N_TILES * down[:, None] + across) * LEVELS + levels).flatten()
        values = flat.index_select(0, index).view(images.shape)
        if not is_fine:
            return values
        return torch.lerp(values, flat.index_select(0, index + 1).view(images.shape), images - levels)

    upper = torch.lerp(look_up(first, first), look_up(first, second), share)
    lower = torch.lerp(look_up(second, first), look_up(second, second), share)
    return _as(images, torch.lerp(upper, lower, share[:, None]).clamp(0, LEVELS - 1))
