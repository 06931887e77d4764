"""What `xray.models.kernels.winograd` does with tiles, compiled by numba.

Arrays are flat and places unsigned: signed ones could count from the end, and asking for that at every pixel would
keep the compiler from doing many channels at a time. One loop for each output, as with more arrays in a loop it gives
up proving that they do not overlap.
"""

import numba
import numpy as np

from xray.models.kernels.winograd import FAR, NEAR

_U, _F = np.uint64, np.float32
_jit = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})

_NEAR, _FAR, _NEAR2, _FAR2 = _F(NEAR), _F(FAR), _F(NEAR**2), _F(FAR**2)
_NEAR3, _FAR3, _NEAR2FAR, _NEARFAR2 = _F(NEAR**3), _F(FAR**3), _F(NEAR**2 * FAR), _F(NEAR * FAR**2)
_BOTH2, _SUM2 = _F(NEAR**2 * FAR**2), _F(NEAR**2 + FAR**2)


@_jit
def tiles_to_products(pixels, height, width, channels, top, down, inside, apart, next_tile):
    """Bᵀ d B of the tiles of `down` rows from row `top` on: (H, W, C) → 36 × tiles × C, both flat.

    apart: from one of the 36 places of a tile to the next, in `inside`. next_tile: from tile to tile.
    """
    height, width, n, top, down = _U(height), _U(width), _U(channels), _U(top), _U(down)
    six, tile, row = _U(6) * n, _U(36) * n, width * n
    across = width // _U(4)
    apart, next_tile = _U(apart), _U(next_tile)
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
            place = (below * across + beside) * next_tile
            for line in range(_U(6)):
                _to_products(half, line * six, n, inside, line * _U(6) * apart + place, apart, n)


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
def products_to_tiles(multiplied, apart, next_tile, bias, is_summed, low, high, width, n_out, top, down, out):
    """Aᵀ m A with bias and limits, 36 × tiles × K into or onto `down` rows of tiles of `out` (H, W, K), all flat.

    apart, next_tile: of `multiplied`, as `tiles_to_products` has them.
    """
    width, n, top, down = _U(width), _U(n_out), _U(top), _U(down)
    six, row, across = _U(6) * n, width * n, width // _U(4)
    apart, next_tile = _U(apart), _U(next_tile)
    half, line = np.empty(_U(4) * six, _F), np.empty(_U(4) * n, _F)
    for below in range(down):
        for beside in range(across):
            place = (below * across + beside) * next_tile
            for column in range(_U(6)):
                _to_output(multiplied, column * apart + place, _U(6) * apart, half, column * n, six, n)
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
def slopes_to_products(slopes, width, n_out, top, down, inside, apart, next_tile):
    """A g Aᵀ, through which gradients of tiles go back: `down` rows of tiles of (H, W, K) → 36 × tiles × K, both flat.

    apart, next_tile: of `inside`, as `tiles_to_products` has them.
    """
    width, n, top, down = _U(width), _U(n_out), _U(top), _U(down)
    four, row, across = _U(4) * n, width * n, width // _U(4)
    apart, next_tile = _U(apart), _U(next_tile)
    half = np.empty(_U(6) * four, _F)
    for below in range(down):
        for beside in range(across):
            begin = (top + _U(4) * below) * row + _U(4) * beside * n
            for column in range(_U(4)):
                _from_output(slopes, begin + column * n, row, half, column * n, four, n)
            place = (below * across + beside) * next_tile
            for line in range(_U(6)):
                _from_output(half, line * four, n, inside, line * _U(6) * apart + place, apart, n)


@_jit
def _from_output(g, at, step, out, to, stride, n):
    """A of four vectors of n channels that lie `step` apart, to six that lie `stride` apart."""
    g1, g2, g3 = at + step, at + _U(2) * step, at + _U(3) * step
    for c in range(n):
        out[to + c] = g[at + c]
    to += stride
    for c in range(n):
        out[to + c] = g[at + c] + _NEAR2 * g[g2 + c] + (_NEAR * g[g1 + c] + _NEAR3 * g[g3 + c])
    to += stride
    for c in range(n):
        out[to + c] = g[at + c] + _NEAR2 * g[g2 + c] - (_NEAR * g[g1 + c] + _NEAR3 * g[g3 + c])
    to += stride
    for c in range(n):
        out[to + c] = g[at + c] + _FAR2 * g[g2 + c] + (_FAR * g[g1 + c] + _FAR3 * g[g3 + c])
    to += stride
    for c in range(n):
        out[to + c] = g[at + c] + _FAR2 * g[g2 + c] - (_FAR * g[g1 + c] + _FAR3 * g[g3 + c])
    to += stride
    for c in range(n):
        out[to + c] = g[g3 + c]


@_jit
def _within(value, low, high):
    # NaN is neither below nor above, and stays.
    return low if value < low else (high if value > high else value)
