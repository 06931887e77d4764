"""The triplet rule of SIIM-ACR's first place."""

import dataclasses

import numpy as np

LEVELS = np.arange(256) / 255
"""The probabilities that 8 bits tell apart."""


@dataclasses.dataclass(frozen=True)
class Triplet:
    """A radiograph is positive if at least `min_area` of its pixels exceed `top`; its mask is then those over `bottom`.

    top, bottom: probabilities in [0, 1]. min_area: a fraction of the image, in [0, 1]; with 0 every radiograph is
    positive, so that only `bottom` matters. The defaults won SIIM-ACR, whose 2,000 of 1024² pixels these are.
    """

    top: float = 0.75
    min_area: float = 2000 / 1024**2
    bottom: float = 0.3

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0 <= value <= 1:
                raise ValueError(f"{field.name} is {value}: it must be in [0, 1]")


def quantise(probability: np.ndarray) -> np.ndarray:
    """Probabilities in [0, 1] → uint8, rounded to the nearest of 255ths; uint8 stays as it is.

    Raises ValueError for values outside [0, 1] or that are no numbers.
    """
    if probability.dtype == np.uint8:
        return probability
    if probability.size and not (probability.min() >= 0 and probability.max() <= 1):
        raise ValueError("probabilities must be in [0, 1]")
    return np.rint(probability.astype(np.float32) * 255).astype(np.uint8)


def first_level_over(threshold: float) -> int:
    """The lowest of the 256 levels that exceeds `threshold`; 256 where none does."""
    return int(np.searchsorted(LEVELS, threshold, side="right"))


def apply_triplet(probability: np.ndarray, triplet: Triplet) -> np.ndarray:
    """One radiograph's probabilities (H, W), floats in [0, 1] or uint8 in 255ths → its mask (H, W) bool.

    They are held to 8 bits, so that a search and what is made of its result agree on every pixel.
    """
    levels = quantise(probability)
    area = np.count_nonzero(levels >= first_level_over(triplet.top))
    if area < triplet.min_area * levels.size:
        return np.zeros(levels.shape, dtype=bool)
    return levels >= first_level_over(triplet.bottom)
