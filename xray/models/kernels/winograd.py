"""Winograd's convolutions on a CPU: 3 × 3 with a quarter of the products.

Minimal filtering F(4 × 4, 3 × 3) makes 16 outputs of a 3 × 3 convolution from 36 products in place of 144 (Lavin and
Gray 2016, arXiv:1509.09308): every tile of 6 × 6 pixels is taken to where the convolution is a product (Bᵀ d B), the
channels are multiplied there, which is a matrix product for each of the 36 places, and the way back (Aᵀ m A) leads to
4 × 4 outputs.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xray.models.kernels.products import BatchedProducts, add_batched_products

NEAR, FAR = 0.75, 1.5
POINTS = (0.0, NEAR, -NEAR, FAR, -FAR)
"""Where the polynomials are evaluated, beside infinity. The usual 0, ±1, ±2 have twice the rounding error."""
TILES = 64
"""Tiles of 4 × 4 outputs done at a time, so that intermediate values stay in the cache."""

TILES_OF_SUM = 256
"""Tiles whose products are summed at a time for gradients: their sum, 9 MB, should not be read more often."""

Activation = tuple[str, list[float]]
NOTHING: Activation = ("none", [])
RELU: Activation = ("relu", [])
RELU6: Activation = ("hardtanh", [0.0, 6.0])
"""Activations as oneDNN names them."""
LIMITS = {"none": (-np.inf, np.inf), "relu": (0.0, np.inf), "hardtanh": (0.0, 6.0)}
"""The range in which each activation leaves values as they are."""

_scratch = threading.local()


def winograd(
    features: Tensor, products: BatchedProducts, bias: Tensor | None, activation: Activation, addend: Tensor | None
) -> Tensor:
    """A 3 × 3 convolution of stride 1 and padding 1: (B, C, H, W) float32 → (B, K, H, W), H and W multiples of 4.

    products: of (36, C, K), the weights where they are multiplied. bias: (K,). activation: one of those above.
    addend: of the output's shape, added before the activation; in channels_last it is overwritten with the output.
    Values that are not finite stay so.
    """
    # numba takes 0.3 s and 60 MiB to import; narrow networks, and those with a GPU, do without.
    from xray.models.kernels.winograd_kernels import products_to_tiles, tiles_to_products

    batch, channels, height, width = features.shape
    n_out = products.shape[2]
    pixels = features.detach().contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy()
    if addend is None:
        out = torch.empty((batch, height, width, n_out))
    else:
        out = addend.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    flat, places_of = pixels.reshape(batch, -1), out.detach().numpy().reshape(batch, -1)
    added = np.zeros(n_out, dtype=np.float32) if bias is None else bias.detach().contiguous().numpy()
    low, high = map(np.float32, LIMITS[activation[0]])
    down = rows_of_tiles(height, width, TILES)
    tiles = down * (width // 4)
    strides, strides_out = products.strides(tiles, channels), products.strides(tiles, n_out)
    products.prepare(tiles)

    def convolve(place: tuple[int, int]) -> None:
        image, top = place
        inside, multiplied = buffer("inside", 36 * tiles * channels), buffer("multiplied", 36 * tiles * n_out)
        tiles_to_products(flat[image], height, width, channels, top, down, inside.numpy(), *strides)
        multiplied = products.multiply(inside, tiles, multiplied)
        products_to_tiles(
            multiplied.numpy(), *strides_out, added, addend is not None, low, high, width, n_out, top, down,
            places_of[image],
        )  # fmt: skip

    in_threads(convolve, [(image, top) for image in range(batch) for top in range(0, height, 4 * down)])
    return out.permute(0, 3, 1, 2)


def rows_of_tiles(height: int, width: int, most: int) -> int:
    """How many rows of tiles are done at a time: as many each time, of at most `most` tiles or one row."""
    rows, across = height // 4, width // 4
    return max(n for n in range(1, rows + 1) if rows % n == 0 and (n == 1 or n * across <= most))


def in_threads(work: Callable[[Any], None], things: Sequence[Any]) -> None:
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
        # A thread takes over the number of the process when it first asks for it; a number set after that stays.
        torch.get_num_threads()
        torch.set_num_threads(1)

    pool = ThreadPoolExecutor(n_threads, "convolution", initializer=alone)
    together = threading.Barrier(n_threads)
    for future in [pool.submit(together.wait) for _ in range(n_threads)]:
        future.result()
    # Other threads start with the number that those threads have set for themselves.
    torch.set_num_threads(n_threads)
    return pool


def buffer(name: str, size: int) -> Tensor:
    """Working memory of this thread, kept from call to call: to allocate it takes as long as to fill it."""
    memory = getattr(_scratch, name, None)
    if memory is None or len(memory) < size:
        # Made in inference mode it would be another kind of tensor.
        with torch.inference_mode(False):
            memory = torch.empty(size)
        setattr(_scratch, name, memory)
    return memory[:size]


@functools.cache
def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def weights_of_products(weight: Tensor) -> BatchedProducts:
    """(K, C, 3, 3) → of (36, C, K) float32, where they are multiplied; rounded once."""
    kernel = torch.from_numpy(matrices()[1])
    inside = torch.einsum("ai,bj,kcij->abck", kernel, kernel, weight.detach().double())
    return BatchedProducts(inside.reshape(36, *inside.shape[2:]).float().contiguous())


def products_of(weight: Tensor) -> BatchedProducts:
    """As `weights_of_products`, for weights that change at every step: in float32 throughout."""
    n_out, channels = weight.shape[:2]
    taps = weight.detach().permute(2, 3, 1, 0).reshape(9, -1)
    return BatchedProducts(torch.mm(_square(matrices()[1]), taps).view(36, channels, n_out))


def weight_gradient(features: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of a 3 × 3 convolution's weights: (K, C, 3, 3).

    features: (B, C, H, W), its input. gradient: (B, K, H, W), of its output. H and W are multiples of 4.
    """
    from xray.models.kernels.winograd_kernels import slopes_to_products, tiles_to_products

    batch, channels, height, width = features.shape
    n_out, across = gradient.shape[1], width // 4
    down = rows_of_tiles(height, width, TILES_OF_SUM)
    tiles = down * across
    pixels, slopes = (
        values.detach().contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy().reshape(batch, -1)
        for values in (features, gradient)
    )
    summed = torch.zeros((36, channels, n_out))
    inside, slope_inside = buffer("inside", 36 * tiles * channels), buffer("slopes", 36 * tiles * n_out)
    to_inside, to_slope = inside.numpy(), slope_inside.numpy()
    for image in range(batch):
        for top in range(0, height, 4 * down):

            def transform(row: int, image: int = image, top: int = top) -> None:
                first = row * across
                tiles_to_products(
                    pixels[image], height, width, channels, top + 4 * row, 1, to_inside[first * channels :],
                    tiles * channels, channels,
                )  # fmt: skip
                slopes_to_products(
                    slopes[image], width, n_out, top + 4 * row, 1, to_slope[first * n_out :], tiles * n_out, n_out
                )

            in_threads(transform, range(down))
            add_batched_products(inside.view(36, tiles, channels), slope_inside.view(36, tiles, n_out), summed)
    taps = torch.mm(_square(matrices()[1]).T, summed.view(36, -1))  # (9, C · K)
    return taps.view(3, 3, channels, n_out).permute(3, 2, 0, 1)


def _square(matrix: np.ndarray) -> Tensor:
    """Along rows and columns of a tile at once."""
    return torch.from_numpy(np.kron(matrix, matrix)).float()
