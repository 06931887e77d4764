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

import numba
import numpy as np
import torch
from torch import Tensor

NEAR, FAR = 0.75, 1.5
POINTS = (0.0, NEAR, -NEAR, FAR, -FAR)
"""Where the polynomials are evaluated, beside infinity. The usual 0, ±1, ±2 have twice the rounding error."""
TILES = 64
"""Tiles of 4 × 4 outputs done at a time, so that intermediate values stay in the cache."""

Activation = tuple[str, list[float]]
NOTHING: Activation = ("none", [])
RELU: Activation = ("relu", [])
RELU6: Activation = ("hardtanh", [0.0, 6.0])
"""Activations as oneDNN names them."""
LIMITS = {"none": (-np.inf, np.inf), "relu": (0.0, np.inf), "hardtanh": (0.0, 6.0)}
"""Between which they leave values as they are."""

_scratch = threading.local()


def winograd(
    features: Tensor, products: Tensor, bias: Tensor | None, activation: Activation, addend: Tensor | None
) -> Tensor:
    """A 3 × 3 convolution of stride 1 and padding 1: (B, C, H, W) float32 → (B, K, H, W), H and W multiples of 4.

    products: (36, C, K), the weights where they are multiplied. bias: (K,). activation: one of those above.
    addend: of the output's shape, added before the activation; in channels_last it is overwritten with the output.
    Values that are not finite stay so.
    """
    batch, channels, height, width = features.shape
    n_out = products.shape[-1]
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

    def convolve(place: tuple[int, int]) -> None:
        image, top = place
        inside, multiplied = _buffer("inside", 36, tiles, channels), _buffer("multiplied", 36, tiles, n_out)
        _there(flat[image], height, width, channels, top, down, inside.numpy().reshape(-1))
        torch.bmm(inside, products, out=multiplied)
        _back(
            multiplied.numpy().reshape(-1), added, addend is not None, low, high, width, n_out, top, down,
            places_of[image],
        )  # fmt: skip

    _in_threads(convolve, [(image, top) for image in range(batch) for top in range(0, height, 4 * down)])
    return out.permute(0, 3, 1, 2)


def rows_of_tiles(height: int, width: int, most: int) -> int:
    """How many rows of tiles are done at a time: as many each time, of at most `most` tiles or one row."""
    rows, across = height // 4, width // 4
    return max(n for n in range(1, rows + 1) if rows % n == 0 and (n == 1 or n * across <= most))


# Kernels. Arrays are flat and places unsigned: signed ones could count from the end, and asking for that at every pixel
# would keep the compiler from doing many channels at a time. One loop for each output, as with more arrays in a loop it
# gives up proving that they do not overlap.

_U, _F = np.uint64, np.float32
_jit = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})

_NEAR, _FAR, _NEAR2, _FAR2 = _F(NEAR), _F(FAR), _F(NEAR**2), _F(FAR**2)
_NEAR3, _FAR3, _NEAR2FAR, _NEARFAR2 = _F(NEAR**3), _F(FAR**3), _F(NEAR**2 * FAR), _F(NEAR * FAR**2)
_BOTH2, _SUM2 = _F(NEAR**2 * FAR**2), _F(NEAR**2 + FAR**2)


@_jit
def _there(pixels, height, width, channels, top, down, inside):
    """Bᵀ d B of the tiles of `down` rows from row `top` on: (H, W, C) → (36, tiles, C), both flat."""
    height, width, n, top, down = _U(height), _U(width), _U(channels), _U(top), _U(down)
    six, tile, row = _U(6) * n, _U(36) * n, width * n
    across = width // _U(4)
    tiles = down * across * n
    half, patch = np.empty(tile, _F), np.empty(tile, _F)
    for below in range(down):
        y = top + _U(4) * below
        for beside in range(across):
            x = _U(4) * beside
            # y and x count from the border of zeros, which is one pixel wide.
            if y == _U(0) or x == _U(0) or y + _U(4) == height or x + _U(4) == width:
                _cut(pixels, height, width, n, y, x, patch)
                for column in range(_U(6)):
                    _to_products(patch, column * n, six, half, column * n, six, n)
            else:
                begin = (y - _U(1)) * row + (x - _U(1)) * n
                for column in range(_U(6)):
                    _to_products(pixels, begin + column * n, row, half, column * n, six, n)
            place = (below * across + beside) * n
            for line in range(_U(6)):
                _to_products(half, line * six, n, inside, line * _U(6) * tiles + place, tiles, n)


@_jit
def _cut(pixels, height, width, n, y, x, patch):
    """A tile at the border, with its zeros: (6, 6, C), flat."""
    for line in range(_U(6)):
        for column in range(_U(6)):
            to, down, right = (line * _U(6) + column) * n, y + line, x + column
            if down == _U(0) or right == _U(0) or down > height or right > width:
                for c in range(n):
                    patch[to + c] = _F(0)
            else:
                begin = ((down - _U(1)) * width + right - _U(1)) * n
                for c in range(n):
                    patch[to + c] = pixels[begin + c]


@_jit
def _to_products(d, at, step, out, to, stride, n):
    """Bᵀ of six vectors of n channels that lie `step` apart, to six that lie `stride` apart."""
    d1, d2, d3, d4, d5 = at + step, at + _U(2) * step, at + _U(3) * step, at + _U(4) * step, at + _U(5) * step
    for c in range(n):
        out[to + c] = _BOTH2 * d[at + c] - _SUM2 * d[d2 + c] + d[d4 + c]
    to += stride
    for c in range(n):
        out[to + c] = d[d4 + c] - _FAR2 * d[d2 + c] + (_NEAR * d[d3 + c] - _NEARFAR2 * d[d1 + c])
    to += stride
    for c in range(n):
        out[to + c] = d[d4 + c] - _FAR2 * d[d2 + c] - (_NEAR * d[d3 + c] - _NEARFAR2 * d[d1 + c])
    to += stride
    for c in range(n):
        out[to + c] = d[d4 + c] - _NEAR2 * d[d2 + c] + (_FAR * d[d3 + c] - _NEAR2FAR * d[d1 + c])
    to += stride
    for c in range(n):
        out[to + c] = d[d4 + c] - _NEAR2 * d[d2 + c] - (_FAR * d[d3 + c] - _NEAR2FAR * d[d1 + c])
    to += stride
    for c in range(n):
        out[to + c] = _BOTH2 * d[d1 + c] - _SUM2 * d[d3 + c] + d[d5 + c]


@_jit
def _to_output(m, at, step, out, to, stride, n):
    """Aᵀ of six vectors of n channels that lie `step` apart, to four that lie `stride` apart."""
    m1, m2, m3, m4, m5 = at + step, at + _U(2) * step, at + _U(3) * step, at + _U(4) * step, at + _U(5) * step
    for c in range(n):
        out[to + c] = m[at + c] + (m[m1 + c] + m[m2 + c]) + (m[m3 + c] + m[m4 + c])
    to += stride
    for c in range(n):
        out[to + c] = _NEAR * (m[m1 + c] - m[m2 + c]) + _FAR * (m[m3 + c] - m[m4 + c])
    to += stride
    for c in range(n):
        out[to + c] = _NEAR2 * (m[m1 + c] + m[m2 + c]) + _FAR2 * (m[m3 + c] + m[m4 + c])
    to += stride
    for c in range(n):
        out[to + c] = _NEAR3 * (m[m1 + c] - m[m2 + c]) + _FAR3 * (m[m3 + c] - m[m4 + c]) + m[m5 + c]


@_jit
def _back(multiplied, bias, is_summed, low, high, width, n_out, top, down, out):
    """Aᵀ m A with bias and limits, (36, tiles, K) into or onto `down` rows of tiles of `out` (H, W, K), all flat."""
    width, n, top, down = _U(width), _U(n_out), _U(top), _U(down)
    six, row, across = _U(6) * n, width * n, width // _U(4)
    tiles = down * across * n
    half, line = np.empty(_U(4) * six, _F), np.empty(_U(4) * n, _F)
    for below in range(down):
        for beside in range(across):
            place = (below * across + beside) * n
            for column in range(_U(6)):
                _to_output(multiplied, column * tiles + place, _U(6) * tiles, half, column * n, six, n)
            for y in range(_U(4)):
                _to_output(half, y * six, n, line, _U(0), n, n)
                for x in range(_U(4)):
                    begin, to = x * n, (top + _U(4) * below + y) * row + (_U(4) * beside + x) * n
                    if is_summed:
                        for c in range(n):
                            out[to + c] = _within(out[to + c] + (line[begin + c] + bias[c]), low, high)
                    else:
                        for c in range(n):
                            out[to + c] = _within(line[begin + c] + bias[c], low, high)


@_jit
def _within(value, low, high):
    # NaN is neither below nor above, and stays.
    return low if value < low else (high if value > high else value)


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
        # A thread takes the process's number when it first asks for it; what is set after that, it keeps.
        torch.get_num_threads()
        torch.set_num_threads(1)

    pool = ThreadPoolExecutor(n_threads, "convolution", initializer=alone)
    together = threading.Barrier(n_threads)
    for future in [pool.submit(together.wait) for _ in range(n_threads)]:
        future.result()
    # Other threads start with the number that those threads have set for themselves.
    torch.set_num_threads(n_threads)
    return pool


def _buffer(name: str, *shape: int) -> Tensor:
    """Working memory of this thread, kept from call to call: to allocate it takes as long as to fill it."""
    size = int(np.prod(shape))
    buffer = getattr(_scratch, name, None)
    if buffer is None or len(buffer) < size:
        # Made in inference mode it would be another kind of tensor.
        with torch.inference_mode(False):
            buffer = torch.empty(size)
        setattr(_scratch, name, buffer)
    return buffer[:size].view(shape)


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


def weights_of_products(weight: Tensor) -> Tensor:
    """(K, C, 3, 3) → (36, C, K) float32, where they are multiplied."""
    kernel = torch.from_numpy(matrices()[1])
    inside = torch.einsum("ai,bj,kcij->abck", kernel, kernel, weight.detach().double())
    return inside.reshape(36, *inside.shape[2:]).float().contiguous()
