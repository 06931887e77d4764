"""Whether pixels show a frontal chest radiograph, how it is turned, and whether it is inverted: a small network.

A thumbnail of the radiograph, its grey values replaced by their ranks so that windows and gamma curves do not matter,
is shown to the network in its four quarter turns. For each turn the network says how much the picture then looks like
an upright frontal chest, and like the negative of one. The eight numbers, and a zero for "none of these", become
probabilities by a softmax: a turned radiograph gets the answer of the upright one, turned. Where the upright picture
alone is sure, its other turns are left out.

The network is four convolutions and two products in NumPy, so that a decoding worker needs nothing else. Its weights,
and the thresholds that were fitted on held-out patients, are in frontal.npz; scripts/train_frontal.py makes it.
"""

import dataclasses
import functools
from pathlib import Path

import cv2
import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

SIDE = 64
"""Of a thumbnail, in pixels."""
REDUCED = 128
"""Side at which empty borders are looked for."""
LEAST_RANGE = 0.06
"""Share of the range of grey that must lie between the darker and the brighter pixels of a line within the picture."""
LEAST_SIDE = 0.3
"""Share of a side that must be left when empty borders are cut off."""
SURE = 4.0
"""What the network must say of a picture as it lies to be sure that it is upright: 0.98, were it asked nothing else.

Of 1443 real frontal radiographs 1253 reach it, and none of their decisions changed."""
WEIGHTS = Path(__file__).with_name("frontal.npz")

TURNS = (0, 1, 2, 3)
"""Quarter turns, anticlockwise as np.rot90 counts them, that make the radiograph upright."""


@dataclasses.dataclass(frozen=True)
class PixelView:
    """What the pixels of a radiograph look like.

    frontal: probability, in [0, 1], that they are a frontal chest radiograph, however turned and even if inverted.
    turn: quarter turns, anticlockwise, after which it is upright, 0 to 3, where it is one; turned: the probability that
    it is turned at all. inverted: that it is a negative. Both are shares of `frontal`, in [0, 1]. within: top, bottom,
    left and right of what lies within empty borders, in shares of the height and of the width, as the pixels lie.
    """

    frontal: float
    turn: int = 0
    turned: float = 0.0
    inverted: float = 0.0
    within: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0)

    @property
    def middle(self) -> float:
        """Of what lies within empty borders, as a share of the width, after it is turned `turn` times."""
        top, bottom, left, right = self.within
        return (left + right, top + bottom, 2 - left - right, 2 - top - bottom)[self.turn] / 2


def thumbnail(pixels: np.ndarray) -> NDArray[np.float32]:
    """(H, W) uint8 or uint16 display grey → (SIDE, SIDE) float32 in [-1, 1], the ranks of what lies in its borders."""
    whole, within = _reduced(pixels)
    return _ranks(whole, within)


def _reduced(pixels: np.ndarray) -> tuple[NDArray[np.float32], tuple[int, int, int, int]]:
    """(REDUCED, REDUCED) of a radiograph, and top, bottom, left and right in it without empty borders."""
    # Every so many pixels are enough, and forty times faster than the mean of all of them.
    step = max(1, min(pixels.shape) // (3 * REDUCED))
    sample = pixels[step // 2 :: step, step // 2 :: step]
    whole = cv2.resize(sample, (REDUCED, REDUCED), interpolation=cv2.INTER_AREA).astype(np.float32)
    return whole, _within_borders(whole)


def _ranks(whole: np.ndarray, within: tuple[int, int, int, int]) -> NDArray[np.float32]:
    top, bottom, left, right = within
    small = cv2.resize(whole[top:bottom, left:right], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    # Equal values share the middle of their ranks, so that the negative of a picture has the negative ranks.
    values, places, counts = np.unique(small, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - counts / 2) / small.size * 2 - 1 if len(values) > 1 else np.zeros(1)
    shape: NDArray[np.float32] = ranks.astype(np.float32)[places.reshape(small.shape)]
    return shape


def _within_borders(small: np.ndarray) -> tuple[int, int, int, int]:
    """top, bottom, left, right without the lines at the edges that are of one grey, but for a few letters."""
    low, high = np.percentile(small, (1, 99))
    least = LEAST_RANGE * (high - low)
    spans = []
    for lines in (small, small.T):
        # Short lines side by side are sorted faster than partitioned.
        line = np.sort(np.ascontiguousarray(lines), axis=1)
        darker, brighter = line[:, REDUCED // 10], line[:, REDUCED - 1 - REDUCED // 10]
        inside = np.flatnonzero(brighter - darker > least)
        first, last = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, REDUCED)
        spans += [first, last] if last - first >= LEAST_SIDE * REDUCED else [0, REDUCED]
    return spans[0], spans[1], spans[2], spans[3]


def look(pixels: np.ndarray) -> PixelView:
    """What (H, W) uint8 or uint16 display grey looks like."""
    whole, within = _reduced(pixels)
    top, bottom, left, right = (place / REDUCED for place in within)
    return dataclasses.replace(_seen(_ranks(whole, within)), within=(top, bottom, left, right))


def _seen(picture: np.ndarray) -> PixelView:
    """What a thumbnail shows; most radiographs are upright, and sure enough after a quarter of the work."""
    upright, negative = network(picture[None, None], weights())[0]
    if upright >= SURE and upright - negative >= SURE:
        logits = np.full((len(TURNS), 2), -np.inf)
        logits[0] = upright, negative
        return view_of(logits)
    return view_of(scores(picture))


def scores(picture: np.ndarray) -> NDArray[np.float32]:
    """A thumbnail → (4, 2): for each quarter turn how much it then is an upright chest, and the negative of one."""
    return network(np.stack([np.rot90(picture, turn) for turn in TURNS])[:, None], weights())


def view_of(logits: np.ndarray) -> PixelView:
    """What `scores` mean."""
    values = np.append(logits.astype(np.float64).ravel(), 0.0)
    values = np.exp(values - values.max())
    shares = values / values.sum()
    of_chest = shares[:-1].reshape(len(TURNS), 2)
    frontal = float(of_chest.sum())
    turn = int(of_chest.sum(axis=1).argmax())
    within = of_chest / max(frontal, 1e-12)
    return PixelView(frontal, turn, float(within[1:].sum()), float(within[:, 1].sum()))


def network(pictures: np.ndarray, values: dict[str, np.ndarray]) -> NDArray[np.float32]:
    """(B, 1, SIDE, SIDE) float32 → (B, 2)."""
    # Channels last: what a convolution gathers then lies in runs, which is copied twice as fast.
    x = np.ascontiguousarray(pictures.transpose(0, 2, 3, 1), dtype=np.float32)
    number = 0
    while f"conv{number}.weight" in values:
        x = _halving(x, values[f"conv{number}.weight"], values[f"conv{number}.bias"])
        number += 1
    x = x.transpose(0, 3, 1, 2).reshape(len(x), -1) @ values["dense0.weight"].T + values["dense0.bias"]
    np.maximum(x, 0, out=x)
    result: NDArray[np.float32] = x @ values["dense1.weight"].T + values["dense1.bias"]
    return result


def _halving(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A convolution of stride 2 and ReLU: (B, H, W, C) → (B, H/2, W/2, D). weight: (D, C, side, side)."""
    n_out, n_in, side, _ = weight.shape
    edge = side // 2
    n, height, width, _ = x.shape
    padded = np.zeros((n, height + 2 * edge, width + 2 * edge, n_in), np.float32)
    padded[:, edge : edge + height, edge : edge + width] = x
    rows, columns = -(-height // 2), -(-width // 2)
    along_n, along_y, along_x, along_c = padded.strides
    # A line of a window is one run of memory: it is copied as a whole.
    windows = as_strided(
        padded,
        (n, rows, columns, side, side * n_in),
        (along_n, 2 * along_y, 2 * along_x, along_y, along_c),
        writeable=False,
    )
    y = windows.reshape(n * rows * columns, side * side * n_in) @ weight.transpose(2, 3, 1, 0).reshape(-1, n_out)
    y += bias
    np.maximum(y, 0, out=y)
    result: np.ndarray = y.reshape(n, rows, columns, n_out)
    return result


@functools.lru_cache(maxsize=1)
def weights() -> dict[str, np.ndarray]:
    """Name → values, float32, of the network; and "thresholds" as `image_check` reads them."""
    return read_weights(WEIGHTS)


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Name → values, float32, of an .npz file; the weights of convolutions lie in memory as they are multiplied."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: _laid_out(stored[name].astype(np.float32)) for name in stored.files}


def _laid_out(weight: np.ndarray) -> np.ndarray:
    """The same values; those of a convolution, (D, C, side, side), in memory as `network` multiplies by them."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1) if weight.ndim == 4 else weight
