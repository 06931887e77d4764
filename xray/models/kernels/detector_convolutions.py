"""Training wide 3 × 3 convolutions on a CPU with a quarter of the products, forward and backward.

In the pyramid and the proposals' head alone they are a third of a training step. Winograd's F(4 × 4, 3 × 3) of
`xray.models.kernels.winograd` serves all three: the output, the gradient of the input, which is a convolution too, and
the gradient of the weights, whose products run over tiles in place of pixels (Lavin and Gray 2016, arXiv:1509.09308).
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xray.models.kernels.winograd import NOTHING, matrices, winograd

WIDE = 128
"""Channels from which on the products saved are worth the way there and back."""
LARGE = 32 * 32
"""Pixels of a map from which on they are, the weights being transformed anew in each step."""
TILES = 256
"""Tiles of 4 × 4 pixels whose products are summed at a time: their sum, 9 MB, should not be read more often."""


class QuickConv2d(nn.Conv2d):
    """A convolution that `is_wide`, by `convolve`."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        has_bias = convolution.bias is not None
        super().__init__(convolution.in_channels, convolution.out_channels, 3, padding=1, bias=has_bias, device="meta")
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, K, H, W)."""
        return convolve(features, self.weight, self.bias)


def quicken_convolutions(model: nn.Module) -> None:
    """Lets each convolution of `model` that `is_wide` be computed by `convolve`, in place.

    The state dict keeps its names and tensors.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv2d and is_wide(child):
                setattr(parent, name, QuickConv2d(child))


def is_wide(convolution: nn.Conv2d) -> bool:
    """Whether it is 3 × 3 with stride 1 and padding 1, and has so many channels that `convolve` may be faster."""
    shape = (convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation)
    plain = shape == ((3, 3), (1, 1), (1, 1), (1, 1)) and convolution.groups == 1
    plain = plain and convolution.padding_mode == "zeros"
    return plain and min(convolution.in_channels, convolution.out_channels) >= WIDE


def convolve(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3 × 3 convolution with padding 1: (B, C, H, W) → (B, K, H, W).

    By Winograd's algorithm on a CPU in float32 where maps are large enough: the same numbers to about 3e-6 of the
    largest, where a plain convolution's are to 1e-6.
    """
    height, width = features.shape[-2:]
    is_float = features.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    on_cpu = features.device.type == "cpu" and not torch.compiler.is_compiling()
    if on_cpu and is_float and height % 4 == 0 and width % 4 == 0 and height * width >= LARGE:
        return _Winograd.apply(features, weight, bias)
    return F.conv2d(features, weight, bias, padding=1)


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(features, weight)
        found = winograd(features, _products(weight), bias, NOTHING, None)
        # It is a view of a tensor that nobody else has. Marked as one, activations could not change it in place.
        return torch.ops.aten._unsafe_view(found, found.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        features, weight = ctx.saved_tensors
        of_features = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            turned = weight.flip(2, 3).transpose(0, 1)
            of_features = winograd(gradient, _products(turned), None, NOTHING, None)
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(features, gradient).contiguous(memory_format=_format(weight))
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_features, of_weight, of_bias


def weight_gradient(features: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of a 3 × 3 convolution's weights: (K, C, 3, 3).

    features: (B, C, H, W), its input. gradient: (B, K, H, W), of its output. H and W are multiples of 4.
    """
    batch, channels, height, width = features.shape
    n_out, across = gradient.shape[1], width // 4
    to_output, kernel, to_products = matrices()
    there = _square(to_products)  # (36, 36)
    back = _square(to_output).T.contiguous()  # (36, 16)
    down = max(n for n in range(1, height // 4 + 1) if height // 4 % n == 0 and (n == 1 or n * across <= TILES))
    tiles = down * across
    pixels = features.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    slopes = gradient.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    padded = torch.zeros((4 * down + 2, width + 2, channels))
    row, column, _ = padded.stride()
    overlapping = padded.as_strided((6, 6, down, across, channels), (row, column, 4 * row, 4 * column, 1))
    windows = torch.empty(overlapping.shape)
    squares = torch.empty((4, 4, down, across, n_out))
    summed = torch.zeros((36, channels, n_out))
    inside, slope_inside = torch.empty((36, tiles * channels)), torch.empty((36, tiles * n_out))
    for image in range(batch):
        for top in range(0, height, 4 * down):
            start, stop = max(top - 1, 0), min(top + 4 * down + 1, height)
            first = start - (top - 1)
            padded[0].zero_()
            padded[-1].zero_()
            padded[first : first + stop - start, 1:-1] = pixels[image, start:stop]
            windows.copy_(overlapping)
            squares.copy_(slopes[image, top : top + 4 * down].view(down, 4, across, 4, n_out).permute(1, 3, 0, 2, 4))
            torch.mm(there, windows.view(36, -1), out=inside)
            torch.mm(back, squares.view(16, -1), out=slope_inside)
            summed.baddbmm_(inside.view(36, tiles, channels).mT, slope_inside.view(36, tiles, n_out))
    found = torch.mm(_square(kernel).T, summed.view(36, -1))  # (9, C · K)
    return found.view(3, 3, channels, n_out).permute(3, 2, 0, 1)


def _products(weight: Tensor) -> Tensor:
    """(K, C, 3, 3) → (36, C, K): the weights where they are multiplied."""
    n_out, channels = weight.shape[:2]
    taps = weight.detach().permute(2, 3, 1, 0).reshape(9, -1)
    return torch.mm(_square(matrices()[1]), taps).view(36, channels, n_out)


def _square(matrix: np.ndarray) -> Tensor:
    """Along rows and columns of a tile at once."""
    return torch.from_numpy(np.kron(matrix, matrix)).float()


def _format(weight: Tensor) -> torch.memory_format:
    last = weight.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
