"""Findings in radiographs that were turned upright → findings in the files' own pixels."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from xray.inference.findings import Findings
from xray.radiographs.canvas import Canvas
from xray.structures.masks import decode_mask, encode_pixels
from xray.structures.predictions import is_no_finding


def turned_back(findings: Findings, turns: Sequence[int], sizes: Sequence[tuple[int, int]]) -> Findings:
    """The same findings, their boxes, masks and maps turned as the files are.

    findings: of a batch of B. turns: of each the quarter turns, anticlockwise as np.rot90 counts them, by which it was
    turned before the models looked. sizes: (width, height) of each file, in original pixels.
    """
    if not any(turns):
        return findings
    table, masks = findings.table, dict(findings.masks)
    boxes = table.boxes.copy()
    # "No finding" has a unit box, which is no place in the radiograph.
    has_place = ~is_no_finding(table)
    for image, (turn, size) in enumerate(zip(turns, sizes, strict=True)):
        if turn:
            rows = (table.images == image) & has_place
            boxes[rows] = boxes_turned_back(boxes[rows], turn, size)
            masks |= {row: _mask_back(masks[row], turn) for row in np.flatnonzero(rows).tolist() if row in masks}
    maps = findings.maps
    if maps is not None:
        places = enumerate(zip(turns, sizes, strict=True))
        maps = np.stack([map_turned_back(maps[image], turn, size) for image, (turn, size) in places])
    return dataclasses.replace(findings, table=dataclasses.replace(table, boxes=boxes), masks=masks, maps=maps)


def boxes_turned_back(boxes: np.ndarray, turn: int, size: tuple[int, int]) -> np.ndarray:
    """Boxes (N, 4) xyxy in np.rot90(file, turn) → (N, 4) in the file, whose (width, height) is `size`."""
    width, height = size
    x1, y1, x2, y2 = boxes.T
    corners = {
        0: (x1, y1, x2, y2),
        1: (width - y2, x1, width - y1, x2),
        2: (width - x2, height - y2, width - x1, height - y1),
        3: (y1, height - x2, y2, height - x1),
    }
    return np.stack(corners[turn % 4], axis=1)


def map_turned_back(channels: np.ndarray, turn: int, size: tuple[int, int]) -> np.ndarray:
    """(K, S, S) on the canvas of np.rot90(file, turn) → on that of the file, whose (width, height) is `size`."""
    if turn % 4 == 0:
        return channels
    side = channels.shape[-1]
    left, top, right, bottom = Canvas(*(size[::-1] if turn % 2 else size), side).content
    content = np.rot90(channels[:, top:bottom, left:right], -turn, axes=(1, 2))
    result = np.zeros_like(channels)
    left, top, right, bottom = Canvas(*size, side).content
    result[:, top:bottom, left:right] = content
    return result


def _mask_back(rle: dict[str, Any], turn: int) -> dict[str, Any]:
    return encode_pixels(np.ascontiguousarray(np.rot90(decode_mask(rle), -turn)))
