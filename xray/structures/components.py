"""Probability maps → findings: connected components with box, score and mask at original size."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from xray.radiographs.canvas import Canvas
from xray.structures.boxes import BoxTable
from xray.structures.triplet import Triplet, apply_triplet

SMALLEST = 1e-4
"""Components under this share of the radiograph are specks, not findings."""


def mask_findings(
    probability: np.ndarray, canvas: Canvas, categories: Sequence[int], triplet: Triplet, image: int = 0
) -> tuple[BoxTable, dict[int, dict[str, Any]]]:
    """Each 8-connected component of a mask becomes a box.

    probability: (K, S, S) float in [0, 1], a channel for each of `categories`.
    triplet: decides, at original size, which pixels are the mask; Triplet(t, 0, t) is a plain threshold.
    image: what the table's `images` say.
    Returns the boxes in original pixels (scores: mean probability inside), and the COCO RLE at original size of each
    row. Specks below SMALLEST of the radiograph's area are left out, unless a channel has nothing larger.
    """
    boxes: list[tuple[int, int, int, int]] = []
    labels, scores, masks = [], [], {}
    for label, channel in zip(categories, probability, strict=True):
        if not (channel > triplet.bottom).any():
            continue
        original = canvas.unletterbox(np.ascontiguousarray(channel, dtype=np.float32))
        mask = apply_triplet(original, triplet).astype(np.uint8)
        n, numbers, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        if n == 1:
            continue
        areas = stats[1:, cv2.CC_STAT_AREA]
        least = min(SMALLEST * original.size, areas.max())
        for number in range(1, n):
            x, y, width, height, area = stats[number].tolist()
            if area < least:
                continue
            # Within its box alone: a radiograph has millions of pixels, a finding a few of them.
            box = slice(y, y + height), slice(x, x + width)
            inside = numbers[box] == number
            whole = np.zeros(numbers.shape, dtype=np.uint8, order="F")
            whole[box] = inside
            rle = coco_mask.encode(whole)
            masks[len(boxes)] = {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}
            boxes.append((x, y, x + width, y + height))
            labels.append(label)
            scores.append(float(original[box][inside].mean()))
    return BoxTable.of(np.full(len(boxes), image), labels, np.array(boxes).reshape(-1, 4), scores), masks
