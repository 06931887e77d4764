"""Boxes of a COCO file that are none of COCO's: shares of the sides, or two corners."""

from pathlib import Path

import numpy as np

from xray.datasets.sources.table_boxes import PIXELS, Reading, fits_better
from xray.errors import InputError


def refuse_other_units(boxes: np.ndarray, sizes: np.ndarray, file: Path) -> None:
    """Raises InputError where boxes of a file are not x, y, width and height in pixels.

    boxes: (N, 4) xyxy, as they are if they are COCO's. sizes: (N, 2) width and height of their radiographs, NaN where
    the file does not say.
    """
    if len(boxes) and boxes.min() >= 0 and boxes.max() <= 1 and (boxes % 1).any():
        raise InputError(
            f"all boxes of {file} lie between 0 and 1, as if they were shares of the radiograph's width and height: "
            "multiply them by these, COCO boxes are [x, y, width, height] in pixels"
        )
    numbers = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    counts = fits_better(numbers, Reading("xywh", PIXELS), Reading("xyxy", PIXELS), sizes)
    if counts is not None:
        n_beyond, n_other = counts
        raise InputError(
            f"{n_beyond} of {len(boxes)} boxes of {file} pass the edges of their radiographs, and {n_other or 'none'} "
            "if they were two corners: COCO boxes are [x, y, width, height], so write x2 - x1 and y2 - y1 there"
        )
