"""Convolutions that a CPU does faster: 3 × 3 with a quarter of the products, sums and activations in the same pass.

Winograd's minimal filtering F(4 × 4, 3 × 3) makes 16 outputs of a 3 × 3 convolution from 36 products in place of 144
(Lavin and Gray 2016, arXiv:1509.09308). In PyTorch's own operators it is three matrix products: into the space in which
the convolution is a product (Bᵀ d B), the product of the channels there, and back (Aᵀ m A).
"""

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
"""Where the polynomials are evaluated, beside infinity. The usual 0, ±1, ±2 have twice the rounding error."""

WIDE = 128
"""Channels from which on the products saved are worth the way there and back."""
LARGE = 1024
"""Pixels of the output from which on they are."""
TILES = 64
"""Tiles of 4 × 4 outputs done at a time, so that what lies between stays in the cache."""

NOTHING, RELU, RELU6 = ("none", []), ("relu", []), ("hardtanh", [0.0, 6.0])
"""Activations as oneDNN names them."""

_scratch = threading.local()


def quicken(model: nn.Module) -> nn.Module:
    """Puts faster convolutions into a model for inference on a CPU, in place; returns it.

    Comes after `xray.training.folding.fold_batch_norms`: where a norm stands between, nothing is joined.
    """
    if not torch.backends.mkldnn.is_available():
        return model
    for module in list(model.modules()):
        # A class of its own may run its parts in another order.
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _join_blocks(module)
            _join_activations(module)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Conv2d and _is_zero_padded(child):
                setattr(module, name, QuickConv2d(child))
    return model


class QuickConv2d(nn.Module):
    """A convolution, a sum and an activation as one, with the weights of an nn.Conv2d.

    Where it is faster and weights are float32, by Winograd's algorithm: it is off by about 3e-6 of the largest output,
    a plain convolution by 1e-6.
    """

    def __init__(self, conv: nn.Conv2d, activation: tuple[str, list[float]] = NOTHING) -> None:
        super().__init__()
        self.weight, self.bias, self.activation = conv.weight, conv.bias, activation
        self.places = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.is_wide = _is_wide(conv)
        self._products: Tensor | None = None

    def forward(self, features: Tensor, addend: Tensor | None = None) -> Tensor:
        """(B, C, H, W) → (B, K, H', W').

        addend: of the output's shape, added before the activation; it is overwritten with the output.
        """
        features = features.to(self.weight.dtype)
        height, width = features.shape[-2:]
        even = height % 4 == 0 and width % 4 == 0 and height * width >= LARGE
        if self.is_wide and even and self.weight.dtype == torch.float32:
            if self._products is None:
                self._products = _weights_of_products(self.weight)
            return winograd(features, self._products, self.bias, self.activation, addend)
        if addend is None:
            return torch.ops.mkldnn._convolution_pointwise(
                features, self.weight, self.bias, *self.places, *self.activation, ""
            )
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            addend, features, self.weight, self.bias, *self.places, "add", 1.0, *self.activation, ""
        )


class QuickBlock(nn.Module):
    """torchvision's residual block, its norms folded, with sums and activations inside its convolutions.

    overwrites: whether nobody else reads its input, in whose memory it then leaves its output.
    """

    def __init__(self, block: BasicBlock | Bottleneck, overwrites: bool) -> None:
        super().__init__()
        convs = [block.conv1, block.conv2] + ([block.conv3] if isinstance(block, Bottleneck) else [])
        self.convs = nn.ModuleList(QuickConv2d(conv, RELU) for conv in convs)
        self.downsample = None if block.downsample is None else QuickConv2d(block.downsample[0])
        self.overwrites = overwrites

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H', W')."""
        found = features
        *first, last = self.convs
        for conv in first:
            found = conv(found)
        features = features.to(found.dtype)
        if self.downsample is not None:
            features = self.downsample(features)
        elif not self.overwrites:
            features = features.clone()
        return last(found, features)


def winograd(
    features: Tensor, products: Tensor, bias: Tensor | None, activation: tuple[str, list[float]], addend: Tensor | None
) -> Tensor:
    """A 3 × 3 convolution of stride 1 and padding 1: (B, C, H, W) float32 → (B, K, H, W), H and W multiples of 4.

    products: (36, C, K), the weights where they are multiplied. addend: as in `QuickConv2d`.
    """
    batch, _, height, width = features.shape
    pixels = features.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    if addend is None:
        out = torch.empty((batch, height, width, products.shape[-1]))
    else:
        out = addend.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    # Whole rows of tiles, an equal number each time.
    across = width // 4
    down = max(n for n in range(1, height // 4 + 1) if height // 4 % n == 0 and (n == 1 or n * across <= TILES))
    places = [(image, top) for image in range(batch) for top in range(0, height, 4 * down)]

    def convolve(place: tuple[int, int]) -> None:
        image, top = place
        rows = out[image, top : top + 4 * down]
        _convolve_rows(pixels[image], top, rows, products, bias, addend is not None)
        if activation == RELU:
            rows.relu_()
        elif activation == RELU6:
            F.relu6(rows, inplace=True)

    _in_threads(convolve, places)
    return out.permute(0, 3, 1, 2)


def _convolve_rows(pixels: Tensor, top: int, out: Tensor, products: Tensor, bias: Tensor | None, summed: bool) -> None:
    """Rows of an image (H, W, C) from `top` on, convolved into `out` (h, W, K), or added to it."""
    height, width, channels = pixels.shape
    down, across, n_out = len(out) // 4, width // 4, out.shape[-1]
    tiles = down * across
    there, back = _transforms()
    padded = _buffer("padded", 4 * down + 2, width + 2, channels)
    start, stop = max(top - 1, 0), min(top + 4 * down + 1, height)
    first = start - (top - 1)
    for border in (padded[:first], padded[first + stop - start :], padded[:, :1], padded[:, -1:]):
        border.zero_()
    padded[first : first + stop - start, 1:-1] = pixels[start:stop]
    row, column, _ = padded.stride()
    windows = _buffer("windows", 6, 6, down, across, channels)
    windows.copy_(padded.as_strided(windows.shape, (row, column, 4 * row, 4 * column, 1)))
    inside = torch.mm(there, windows.view(36, -1), out=_buffer("inside", 36, tiles * channels))
    multiplied = torch.bmm(inside.view(36, tiles, channels), products, out=_buffer("multiplied", 36, tiles, n_out))
    result = torch.mm(back, multiplied.view(36, -1), out=_buffer("result", 16, tiles * n_out))
    if bias is not None:
        result.view(-1, n_out).add_(bias)
    found = result.view(4, 4, down, across, n_out)
    places = out.view(down, 4, across, 4, n_out).permute(1, 3, 0, 2, 4)
    places.add_(found) if summed else places.copy_(found)


def _in_threads(work: Callable[[Any], None], things: Sequence[Any]) -> None:
    """`work` for each thing, in as many threads as PyTorch uses, each of which takes the next one when it is free.

    PyTorch's own threads would wait for each other after every small operation, which costs more than it saves where
    something else runs on a core.
    """
    n_threads = min(torch.get_num_threads(), len(things))
    if n_threads == 1:
        for thing in things:
            work(thing)
        return
    left = iter(things)
    inference = torch.is_inference_mode_enabled()

    def take() -> None:
        with torch.inference_mode(inference), torch.set_grad_enabled(False):
            for thing in left:
                work(thing)

    for future in [_pool(torch.get_num_threads()).submit(take) for _ in range(n_threads)]:
        future.result()


@functools.lru_cache(maxsize=1)
def _pool(n_threads: int) -> ThreadPoolExecutor:
    def alone() -> None:
        # A thread takes over the process's number when it first asks for it, and keeps what it is then told.
        torch.get_num_threads()
        torch.set_num_threads(1)

    pool = ThreadPoolExecutor(n_threads, "convolution", initializer=alone)
    together = threading.Barrier(n_threads)
    for future in [pool.submit(together.wait) for _ in range(n_threads)]:
        future.result()
    # What those threads set for themselves is also what others start with.
    torch.set_num_threads(n_threads)
    return pool


def _buffer(name: str, *shape: int) -> Tensor:
    """Memory of this thread to work in, kept from call to call: to get it anew takes as long as to fill it."""
    size = int(np.prod(shape))
    kept = getattr(_scratch, name, None)
    if kept is None or len(kept) < size:
        # Outside of inference mode it would be another kind of tensor.
        with torch.inference_mode(False):
            kept = torch.empty(size)
        setattr(_scratch, name, kept)
    return kept[:size].view(shape)


@functools.cache
def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Aᵀ (4, 6), G (6, 3) and Bᵀ (6, 6) of F(4, 3) at POINTS: Aᵀ [(G g) · (Bᵀ d)] is d convolved with g.

    By Toom and Cook: the interpolation of a polynomial from its values (Blahut, Fast Algorithms for Signal Processing,
    2010, chapter 5).
    """
    n = len(POINTS) + 1
    to_output, kernel, to_products = np.zeros((4, n)), np.zeros((n, 3)), np.zeros((n, n))
    for row, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        to_output[:, row] = point ** np.arange(4)
        kernel[row] = point ** np.arange(3) / np.prod([point - other for other in others])
        to_products[row, :-1] = np.poly(others)[::-1]
    to_output[-1, -1] = kernel[-1, -1] = 1
    to_products[-1] = np.poly(POINTS)[::-1]
    return to_output, kernel, to_products


@functools.cache
def _transforms() -> tuple[Tensor, Tensor]:
    """(36, 36) and (16, 36) float32: both directions of a tile at once."""
    to_output, _, to_products = _matrices()
    with torch.inference_mode(False):
        return tuple(torch.from_numpy(np.kron(matrix, matrix)).float() for matrix in (to_products, to_output))


def _weights_of_products(weight: Tensor) -> Tensor:
    """(K, C, 3, 3) → (36, C, K) float32."""
    kernel = torch.from_numpy(_matrices()[1])
    inside = torch.einsum("ai,bj,kcij->abck", kernel, kernel, weight.detach().double())
    return inside.reshape(36, *inside.shape[2:]).float().contiguous()


def _is_zero_padded(conv: nn.Conv2d) -> bool:
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _is_wide(conv: nn.Conv2d) -> bool:
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    plain = shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")
    return plain and min(conv.in_channels, conv.out_channels) >= WIDE


def _join_blocks(stage: nn.Sequential) -> None:
    before = None
    for name, block in list(stage.named_children()):
        if type(block) in (BasicBlock, Bottleneck) and _is_folded(block):
            # What the first block of a stage reads, others may read too.
            block = QuickBlock(block, overwrites=isinstance(before, QuickBlock))
            setattr(stage, name, block)
        before = block


def _is_folded(block: BasicBlock | Bottleneck) -> bool:
    norms = [module for name, module in block.named_children() if name.startswith("bn")]
    if block.downsample is not None:
        norms += list(block.downsample)[1:]
    return all(type(norm) is nn.Identity for norm in norms) and type(block.relu) is nn.ReLU


def _join_activations(sequence: nn.Sequential) -> None:
    conv_name = conv = None
    for name, module in list(sequence.named_children()):
        if type(module) is nn.Conv2d and _is_zero_padded(module):
            conv_name, conv = name, module
        elif type(module) in (nn.ReLU, nn.ReLU6) and conv is not None:
            setattr(sequence, conv_name, QuickConv2d(conv, RELU if type(module) is nn.ReLU else RELU6))
            setattr(sequence, name, nn.Identity())
            conv = None
        elif type(module) is not nn.Identity:
            conv = None
