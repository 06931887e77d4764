"""RoIAlign over all levels of a pyramid at once, as a weighted sum of cells."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from xray.models.detection.anchors import Layout

BINS = 7
"""Cells a side of the features that the box head sees of a region."""
POINTS = 2
"""Points a side of each bin at which the features are read."""
POOLED_LEVELS = 4
"""Levels that regions are read from; the fifth one is for proposals only."""


def pyramid_rows(pyramid: list[Tensor]) -> Tensor:
    """The cells of a pyramid as one table, without copies of single levels where these are channels_last.

    pyramid: L maps (B, C, H, W). Returns (rows, C) float32: ordered by level, radiograph, row and column.
    """
    channels = pyramid[0].shape[1]
    return torch.cat([level.permute(0, 2, 3, 1).reshape(-1, channels) for level in pyramid]).float()


def pool_regions(rows: Tensor, boxes: Tensor, images: Tensor, batch: int, layout: Layout) -> Tensor:
    """The features of each region: RoIAlign (He et al. 2017, arXiv:1703.06870) on the level that its size asks for.

    rows: `pyramid_rows` of `batch` radiographs. boxes: (R, 4) xyxy in canvas pixels. images: (R,) int64, whose.
    Returns (R, C, 7, 7), channels_last, as torchvision's MultiScaleRoIAlign with sampling ratio 2 does. One kernel
    reads all levels, and its gradient is a sum in a fixed order, without the atomic additions of torchvision's.
    """
    with torch.no_grad():
        index, weight = _cells(boxes, images, batch, layout)
    pooled = _WeightedSum.apply(rows, index, weight)
    return pooled.view(len(boxes), BINS, BINS, rows.shape[1]).permute(0, 3, 1, 2)


def level_of(boxes: Tensor, layout: Layout) -> Tensor:
    """Equation 1 of Lin et al. 2017 (arXiv:1612.03144): (R, 4) → (R,) int64, 0 for stride 4."""
    stride = layout.stride[:POOLED_LEVELS].log2()
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(-1)
    level = torch.floor(4 + torch.log2(torch.sqrt(width * height) / 224) + 1e-6)
    return (torch.clamp(level, stride[0], stride[-1]) - stride[0]).long()


def _cells(boxes: Tensor, images: Tensor, batch: int, layout: Layout) -> tuple[Tensor, Tensor]:
    """The table's rows that each bin of each region is a sum of, and their weights: (R · 49, 16) int32 and float32."""
    level = level_of(boxes, layout)
    side = layout.side[level]
    last = (side - 1)[:, None, None, None]
    corner = boxes.view(-1, 2, 2) / layout.stride[level][:, None, None]  # (R, first or second corner, x or y)
    start = corner[:, 0]
    bin_size = (corner[:, 1] - start).clamp(min=1) / BINS
    steps = torch.arange(BINS, device=boxes.device)[:, None]
    halves = torch.arange(POINTS, device=boxes.device) + 0.5
    # (R, x or y, bin, point), rounded as in torchvision's kernel.
    start, bin_size = start[:, :, None, None], bin_size[:, :, None, None]
    point = (start + steps * bin_size) + halves * bin_size / POINTS
    low = point.long().minimum(last)
    high = (low + 1).minimum(last)
    share = torch.where(low >= last, 0, point - low)
    # A region narrower than a cell counts as one cell wide, which at the far edges lies outside: there, all is 0.
    inside = point <= layout.side[level][:, None, None, None]
    cell = torch.stack([low, high], -1).flatten(-2)  # (R, x or y, bin, 4)
    part = (torch.stack([1 - share, share], -1) * inside[..., None]).flatten(-2)
    x, y = cell.unbind(1)
    part_x, part_y = part.unbind(1)
    base = batch * layout.first[level] + images * side * side
    y = base[:, None, None] + y * side[:, None, None]
    index = y[:, :, None, :, None] + x[:, None, :, None, :]  # (R, bin y, bin x, 4, 4)
    weight = part_y[:, :, None, :, None] * part_x[:, None, :, None, :] / POINTS**2
    terms = (2 * POINTS) ** 2
    return index.reshape(-1, terms).int(), weight.reshape(-1, terms)


class _WeightedSum(torch.autograd.Function):
    """out[n] = Σ_k weight[n, k] · rows[index[n, k]], differentiable in `rows`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(index, weight)
        ctx.n_rows = len(rows)
        return F.embedding_bag(index, rows, per_sample_weights=weight, mode="sum")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        # The transposed sum: of each row, over the places that read it, found by sorting.
        index, weight = ctx.saved_tensors
        readers, order = index.flatten().sort(stable=True)
        begin = torch.searchsorted(readers, torch.arange(ctx.n_rows, device=index.device, dtype=index.dtype))
        places = (order // index.shape[1]).int()
        summed = F.embedding_bag(
            places,
            gradient.contiguous(),
            begin.int(),
            per_sample_weights=weight.flatten()[order],
            mode="sum",
        )
        return summed, None, None
