"""Anchors of a canvas, and where the cells of a feature pyramid lie; both computed once per canvas size and device."""

import dataclasses
import math

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList


@dataclasses.dataclass(frozen=True)
class Layout:
    """A pyramid over a canvas of `size` pixels a side: L levels of square maps, A anchors in all.

    Everything here is the same for each radiograph of a batch. Anchors are ordered by level, row, column and, within a
    cell, ratio and side.

    size: pixels. sides: cells a side of each level. per_cell: anchors of each cell.
    anchors: (A, 4) float32 xyxy in canvas pixels.
    side: (L,) int64, `sides` on the device. first: (L,) int64, cells of the levels before each.
    stride: (L,) float32, canvas pixels from one cell to the next, a power of 2.
    """

    size: int
    sides: tuple[int, ...]
    per_cell: int
    anchors: Tensor
    side: Tensor
    first: Tensor
    stride: Tensor

    @property
    def anchors_of_level(self) -> list[int]:
        """How many anchors each level has."""
        return [self.per_cell * side * side for side in self.sides]

    def cells(self, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Numbers of anchors, any shape, int64 → level, row, column and place in its cell of each, of that shape."""
        level = (anchors[..., None] >= self.per_cell * self.first[1:]).sum(-1)
        within = anchors - self.per_cell * self.first[level]
        cell, side = within // self.per_cell, self.side[level]
        return level, cell // side, cell % side, within % self.per_cell


def make_layout(generator: AnchorGenerator, size: int, sides: tuple[int, ...], device: torch.device) -> Layout:
    """The layout of L square feature maps of `sides` cells over a canvas of `size` pixels a side."""
    # The generator reads nothing but shapes, type and device.
    maps = [torch.empty((1, 1, side, side), device=device) for side in sides]
    (anchors,) = generator(ImageList(torch.empty((1, 1, size, size), device=device), [(size, size)]), maps)
    first = [sum(side * side for side in sides[:level]) for level in range(len(sides))]
    # As torchvision infers it, also where the canvas is no multiple of the stride.
    stride = [2.0 ** round(math.log2(size / side)) for side in sides]
    per_level = (torch.tensor(values, device=device) for values in (sides, first, stride))
    return Layout(size, sides, generator.num_anchors_per_location()[0], anchors, *per_level)


class Layouts:
    """The layouts of an anchor generator, each made once."""

    def __init__(self, generator: AnchorGenerator) -> None:
        self._generator = generator
        self._made: dict[tuple[int, tuple[int, ...], torch.device], Layout] = {}

    def __call__(self, pyramid: list[Tensor], size: int) -> Layout:
        """Anchors and cells of these square maps over canvases of `size` pixels a side."""
        key = (size, tuple(level.shape[-1] for level in pyramid), pyramid[0].device)
        if key not in self._made:
            # A layout that is made during a validation must serve training, too.
            with torch.inference_mode(False), torch.no_grad():
                self._made[key] = make_layout(self._generator, *key)
        return self._made[key]
