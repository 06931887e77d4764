"""Rows of predictions.json."""

import numpy as np
from pycocotools import mask as coco_mask


def result(name, category, box, score, masked=False):
    """A COCO result of a box x, y, width, height in a radiograph of 1000 x 2000; masked: with the box filled."""
    row = {"image_id": name, "category_id": category, "bbox": list(box), "score": score}
    if masked:
        x, y, width, height = box
        pixels = np.zeros((2000, 1000), dtype=np.uint8, order="F")
        pixels[y : y + height, x : x + width] = 1
        encoded = coco_mask.encode(pixels)
        row["segmentation"] = {"size": [2000, 1000], "counts": encoded["counts"].decode()}
    return row
