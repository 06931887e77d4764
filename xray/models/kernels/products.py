"""Products of float32 matrices on a CPU, by the library that is fast on the processor at hand.

PyTorch asks MKL for them, which uses AVX-512 on Intel's processors alone: on AMD's with AVX-512 it reaches 105 GFLOP/s
a core where oneDNN reaches 240. oneDNN offers PyTorch convolutions and linear layers; this module expresses products as
such. Where MKL is fast, or PyTorch does not use it, everything is left as it is.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xray.models.device import of_processor

SMALL_BATCH = 16
"""With one thread, PyTorch gives convolutions of 1 × 1 to oneDNN from so many pictures on only."""


@functools.cache
def prefers_onednn() -> bool:
    """Whether oneDNN multiplies float32 faster than what PyTorch asks: on x86 with AVX-512 that is not Intel's."""
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return has_both and torch.backends.cpu.get_cpu_capability() == "AVX512" and _vendor() not in ("", "GenuineIntel")


def _vendor() -> str:
    return of_processor().get("vendor_id", "")


def is_ours(*tensors: Tensor) -> bool:
    """Whether products of these tensors are computed here: float32 on such a CPU, neither autocast nor compiled."""
    plain = all(one.dtype == torch.float32 and one.device.type == "cpu" for one in tensors)
    is_lowered = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
    return plain and not is_lowered and prefers_onednn()


def multiply(left: Tensor, right: Tensor, addend: Tensor | None = None) -> Tensor:
    """left (M, K) · right (K, N) + addend (N,) by oneDNN, float32, without a gradient. Transposed views are as good."""
    return torch.ops.mkldnn._linear_pointwise(left, right.T, addend, "none", [], "")


class BatchedProducts:
    """P matrices that many others are multiplied by: (P, C, K) float32, kept as the faster library wants them.

    Factors and results lie in flat memory: of P · n · C numbers, the element (p, row, c) lies at
    p · strides(n, C)[0] + row · strides(n, C)[1] + c.
    """

    def __init__(self, matrices: Tensor) -> None:
        self.shape, self.by_onednn = matrices.shape, prefers_onednn()
        self._matrices = matrices.mT.reshape(-1, self.shape[1], 1, 1) if self.by_onednn else matrices

    def __getstate__(self) -> dict[str, Any]:
        """For copies and other processes: matrices that oneDNN has packed can be neither copied nor pickled."""
        packed = self._matrices
        shape = (self.shape[0] * self.shape[2], self.shape[1], 1, 1)
        return {**vars(self), "_matrices": packed.to_dense().reshape(shape) if packed.is_mkldnn else packed}

    def strides(self, n: int, width: int) -> tuple[int, int]:
        """From one of the P matrices, of n rows and `width` columns, to the next, and from row to row."""
        return (width, self.shape[0] * width) if self.by_onednn else (n * width, width)

    def prepare(self, n: int) -> None:
        """Comes before `multiply` of matrices of n rows, which several threads may do at the same time."""
        matrices = self._matrices
        if self.by_onednn and not matrices.is_mkldnn:
            shape = [1, self.shape[0] * self.shape[1], n, 1]
            reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # its stub lacks the shape
            self._matrices = reorder(matrices.detach().to_mkldnn(), [0, 0], [1, 1], [1, 1], self.shape[0], shape)

    def multiply(self, factors: Tensor, n: int, out: Tensor) -> Tensor:
        """P times (n, C) · (C, K), flat → flat: in `out`, or, where oneDNN wants memory of its own, there."""
        places, channels, n_out = self.shape
        if not self.by_onednn:
            torch.bmm(factors.view(places, n, channels), self._matrices, out=out.view(places, n, n_out))
            return out
        # A convolution of n pixels, its channels in groups: one for each of the P products.
        pixels = factors.view(1, n, 1, places * channels).permute(0, 3, 1, 2)
        products = torch.ops.mkldnn._convolution_pointwise(
            pixels, self._matrices, None, [0, 0], [1, 1], [1, 1], places, "none", [], ""
        )
        return products.permute(0, 2, 3, 1).reshape(-1)


def add_batched_products(left: Tensor, right: Tensor, total: Tensor) -> None:
    """total (P, C, K) += left (P, n, C)ᵀ · right (P, n, K), float32, all contiguous."""
    if not is_ours(left, right, total):
        total.baddbmm_(left.mT, right)
        return
    for one, other, result in zip(left, right, total, strict=True):
        result += multiply(one.T, other)


def point_convolution(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of 1 × 1 with stride 1: (B, C, H, W) → (B, K, H, W), as F.conv2d computes it."""
    batch, _, height, width = features.shape
    if 0 < batch < SMALL_BATCH and batch * height * width % SMALL_BATCH == 0 and is_ours(features, weight):
        return _PointConvolution.apply(features, weight, bias)
    return F.conv2d(features, weight, bias)


class _PointConvolution(torch.autograd.Function):
    """Where a row of pixels ends is all the same to it: as more pictures of less height all goes to oneDNN."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(features, weight)
        output = _as_maps(F.conv2d(_as_small_pictures(features), weight, bias), features)
        # It is the only view of its tensor. If it were marked as a view, activations could not change it in place.
        return torch.ops.aten._unsafe_view(output, output.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        features, weight = ctx.saved_tensors
        of_features, of_weight, of_bias = torch.ops.aten.convolution_backward(
            _as_small_pictures(gradient), _as_small_pictures(features), weight, [len(weight)],
            [1, 1], [0, 0], [1, 1], False, [0, 0], 1, list(ctx.needs_input_grad),
        )  # fmt: skip
        return None if of_features is None else _as_maps(of_features, features), of_weight, of_bias


def _as_small_pictures(maps: Tensor) -> Tensor:
    pixels = maps.permute(0, 2, 3, 1).contiguous()
    return pixels.view(SMALL_BATCH, -1, 1, pixels.shape[-1]).permute(0, 3, 1, 2)


def _as_maps(pictures: Tensor, like: Tensor) -> Tensor:
    pixels = pictures.permute(0, 2, 3, 1).reshape(len(like), *like.shape[2:], -1)
    return pixels.permute(0, 3, 1, 2)


def linear(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As F.linear: (N, C) → (N, K)."""
    if features.ndim == 2 and len(features) and is_ours(features, weight):
        return _Linear.apply(features, weight, bias)
    return F.linear(features, weight, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(features, weight)
        return multiply(features, weight.T, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        features, weight = ctx.saved_tensors
        of_features = multiply(gradient, weight) if ctx.needs_input_grad[0] else None
        of_weight = multiply(gradient.T, features) if ctx.needs_input_grad[1] else None
        return of_features, of_weight, gradient.sum(0) if ctx.needs_input_grad[2] else None


class QuickLinear(nn.Linear):
    """A linear layer, by `linear`."""

    def forward(self, features: Tensor) -> Tensor:
        """(N, C) → (N, K)."""
        return linear(features, self.weight, self.bias)


def speed_up_linear(model: nn.Module) -> None:
    """Lets each linear layer of `model` be computed by `linear`, in place; the state dict keeps its names."""
    if prefers_onednn():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = QuickLinear
