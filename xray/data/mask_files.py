"""Masks as sources keep them, in pictures of their own → connected components with boxes and run lengths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xray.data.radiograph import read_radiograph
from xray.data.rle import coco_counts, runs_of


def read_mask(path: Path | str) -> np.ndarray:
    """A picture of a mask → (height, width) bool.

    Where its brightest grey is at least half white, the mask is what is brighter than half white, which leaves out the
    fringes of a lossy picture; otherwise (classes numbered 1, 2, …) all that is not black. Raises RadiographError.
    """
    grey = read_radiograph(path).pixels
    return grey > (127 if grey.max() > 127 else 0)


def components(mask: np.ndarray, min_pixels: int = 1) -> tuple[np.ndarray, list[dict[str, Any]], int]:
    """The 8-connected components of a (height, width) bool mask that have at least `min_pixels` pixels.

    Returns their boxes (N, 4) float64 xyxy around the pixels, edges included, from the left to the right; a plain COCO
    RLE of each; and the number of smaller ones, which are left out.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = np.flatnonzero(areas >= min_pixels) + 1
    kept = kept[np.lexsort((stats[kept, cv2.CC_STAT_TOP], stats[kept, cv2.CC_STAT_LEFT]))]
    corners = stats[kept][:, [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP]].astype(np.float64)
    sides = stats[kept][:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].astype(np.float64)
    boxes = np.concatenate([corners, corners + sides], axis=1)
    rles = []
    for label, (left, _, right, _) in zip(kept.tolist(), boxes.astype(int).tolist(), strict=True):
        # Its own columns suffice; those to the left only move the runs.
        starts, ends = runs_of(labels[:, left:right] == label)
        offset = left * mask.shape[0]
        rles.append(_plain_rle(starts + offset, ends + offset, mask.shape))
    return boxes, rles, int((areas < min_pixels).sum())


def whole_mask(mask: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """A (height, width) bool mask with a pixel → the box (4,) float64 xyxy around all of it, and its plain COCO RLE."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)
    return box, _plain_rle(*runs_of(mask), mask.shape)


def _plain_rle(starts: np.ndarray, ends: np.ndarray, shape: Sequence[int]) -> dict[str, Any]:
    return {"size": list(shape), "counts": coco_counts(starts, ends, shape[0] * shape[1]).tolist()}
