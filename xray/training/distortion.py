"""Smooth distortions of a canvas: elastic, of a grid, and of a lens. Pixels, masks and outlines follow one field.

A distortion is a field of displacements, a uniform cubic B-spline over a lattice of 11 × 11 coefficients (the free-form
deformation of Rueckert et al. 1999, "Nonrigid registration using free-form deformations", IEEE Trans. Med. Imaging
18(8)): each pixel of the result comes from where its displacement points to. Nothing folds: the coefficients are so
small that the field can be inverted, which is how the points of an outline find their place.

The kinds are those of albumentations' ElasticTransform, GridDistortion and OpticalDistortion, which SIIM-ACR's first
place used (alpha 120 and sigma 6; 5 steps of ±0.3). With these at 512 pixels, albumentations 2.0.8 gives ellipses boxes
that are off by up to 6 pixels and, after the elastic one, 2.6 % too wide on average; a detector would learn such boxes.
"""

import cv2
import numpy as np

CELLS = 8
"""Cells of the lattice along a side of the canvas."""
NODES = CELLS + 3
"""Coefficients along an axis: those of a cubic B-spline reach a cell beyond the canvas on either side."""

ELASTIC = 0.2
"""The most by which an elastic distortion moves a coefficient, as a share of a cell. Below 0.25 nothing folds, see
`inverse`."""
GRID = 0.3
"""The most by which a cell of a distorted grid is wider or narrower than the others, as a share."""
OPTICAL, CENTRE = 0.07, 0.1
"""The most by which a lens moves the middle of an edge, and by which its own centre is off, in halves of the canvas."""

CLOSE = 0.01
"""How exactly a point is followed, in canvas pixels."""
MOST_ROUNDS = 200

Lattice = np.ndarray
"""(2, 11, 11) float32: of x and of y, coefficients of displacement in canvas pixels, by row and column."""


def draw_lattice(random: np.random.Generator, size: int) -> Lattice:
    """One of the three kinds, as likely as the others, on a canvas of `size` pixels a side."""
    cell = size / CELLS
    match int(random.integers(3)):
        case 0:
            lattice = ELASTIC * cell * random.uniform(-1, 1, (2, NODES, NODES))
        case 1:
            steps = GRID * cell * random.uniform(-1, 1, (2, CELLS))
            within = np.cumsum(steps - steps.mean(axis=1, keepdims=True), axis=1)[:, :-1]
            # The edges of the canvas stay where they are: 0 there, and opposite numbers on both sides of them.
            edge = np.zeros((2, 1))
            moved = np.concatenate([-within[:, :1], edge, within, edge, -within[:, -1:]], axis=1)
            lattice = np.stack([np.tile(moved[0], (NODES, 1)), np.tile(moved[1], (NODES, 1)).T])
        case _:
            strength, centre = random.uniform(-OPTICAL, OPTICAL), random.uniform(-CENTRE, CENTRE, 2)
            # −1 … 1 from edge to edge; the outermost coefficients lie a cell beyond.
            line = (np.arange(NODES) - 1) * 2 / CELLS - 1
            x, y = np.meshgrid(line - centre[0], line - centre[1])
            lattice = strength * size / 2 * (x**2 + y**2) * np.stack([x, y])
    return lattice.astype(np.float32)


def spline_weights(spots: np.ndarray, size: int) -> np.ndarray:
    """(P,) places along an axis in canvas pixels → (P, 11), how much each coefficient counts there.

    Beyond the canvas they are those of its edge.
    """
    away = np.abs(spots.clip(0, size)[:, None] * (CELLS / size) + 1 - np.arange(NODES))
    # The uniform cubic B-spline, 2/3 at its middle and 0 from two cells away.
    return ((2 - away).clip(0) ** 3 - 4 * (1 - away).clip(0) ** 3) / 6


def displacements(points: np.ndarray, lattice: Lattice, size: int) -> np.ndarray:
    """(P, 2) points of the result in canvas pixels → (P, 2), how far from each its source lies."""
    of_x, of_y = (spline_weights(points[:, axis], size) for axis in (0, 1))
    return np.einsum("py,cyx,px->pc", of_y, lattice, of_x, optimize=True)


def inverse(points: np.ndarray, lattice: Lattice, size: int) -> np.ndarray:
    """(P, 2) points of the canvas before the distortion, in its pixels → (P, 2) where they are after it, to CLOSE.

    By the fixed point of q = p − u(q). It is found because a step changes u by less than itself: the derivatives of a
    B-spline are means of the differences of its coefficients, and those of all kinds add up to less than 1.
    """
    places = points
    for _ in range(MOST_ROUNDS):
        before, places = places, points - displacements(places, lattice, size)
        if len(points) == 0 or np.abs(places - before).max() < CLOSE / 10:
            break
    return places


def distort(image: np.ndarray, lattice: Lattice, interpolation: int) -> np.ndarray:
    """(S, S, K) uint8 → (S, S, K) uint8, black where nothing was. interpolation: of OpenCV."""
    size = image.shape[0]
    middles = np.arange(size) + 0.5
    weights = spline_weights(middles, size)
    field = (weights @ lattice @ weights.T + np.stack(np.meshgrid(middles, middles)) - 0.5).astype(np.float32)
    channels = [
        cv2.remap(np.ascontiguousarray(channel), field[0], field[1], interpolation, borderMode=cv2.BORDER_CONSTANT)
        for channel in np.moveaxis(image, 2, 0)
    ]
    return np.stack(channels, axis=2)
