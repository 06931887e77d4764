"""Whether a canvas is large enough for the boxes on it."""

import math

import numpy as np

SMALLEST = 1.0
"""Canvas pixels: a side of a box below which it has no anchor, and its regression target overflows."""
SMALL = 8.0
"""Canvas pixels, two cells of a detector's finest map: shorter sides are hard to find and to place."""
STEP = 128
"""Canvas sizes that are advised are multiples of it."""


def about_small_boxes(shorter: np.ndarray, longest: int, canvas_size: int) -> list[str]:
    """Sentences about boxes that are small on their canvas; none where all is well.

    shorter: (N,) the shorter side of each box in canvas pixels. longest: the longest side of a radiograph in original
    pixels; no larger canvas is advised.
    """
    if len(shorter) == 0:
        return []
    low, sentences = float(np.quantile(shorter, 0.05)), []
    if n_tiny := int((shorter < SMALLEST).sum()):
        which = "1 box is narrower" if n_tiny == 1 else f"{n_tiny:,} boxes are narrower"
        sentences.append(f"{which} than a pixel of the canvas: training widens what is below one pixel to one")
    advised = min(longest, STEP * math.ceil(canvas_size * SMALL / max(low, 0.01) / STEP))
    if low < SMALL and advised > 1.2 * canvas_size:
        sentences.append(
            f"1 box in 20 has a side of at most {low:.1f} canvas pixels, too little to be found well: convert with "
            f"--image-size {advised}"
        )
    return sentences
