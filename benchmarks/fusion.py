"""Weighted boxes fusion of many radiographs: boxes as several models would give them, our way and ensemble-boxes'."""

from typing import Any
from unittest import mock

import numpy as np
from ensemble_boxes import weighted_boxes_fusion as fuse_one_usually

from benchmarks.timing import Timing, timed
from xray.structures.boxes import BoxTable
from xray.structures.fusion import weighted_boxes_fusion

SIZE = 3000
"""Width and height of the radiographs, in pixels."""
N_CATEGORIES = 14
CLOSE_ENOUGH = 1e-6
"""By which scores and coordinates relative to the radiograph may differ; ensemble-boxes sums in single precision."""

Usual = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]
"""What ensemble-boxes takes for a radiograph: boxes in [0, 1], scores and labels, an array a model each."""

Fused = tuple[np.ndarray, np.ndarray, np.ndarray]
"""What it gives for one: boxes, scores, labels."""


def draw_boxes(n_images: int, n_models: int, n_boxes: int, seed: int = 0) -> tuple[BoxTable, np.ndarray]:
    """Boxes of several models and the model of each; models agree roughly on where something is and how sure it is.

    Categories are as unequal as findings are, most scores are low as detectors' are, and no two are equal: of equal
    ones ensemble-boxes takes any first.
    """
    rng = np.random.default_rng(seed)
    n = n_images * n_boxes
    corner = rng.uniform(0, 0.67 * SIZE, (n, 2))
    places = np.concatenate([corner, corner + rng.uniform(0.02 * SIZE, 0.24 * SIZE, (n, 2))], axis=1)
    frequency = np.arange(1, N_CATEGORIES + 1) ** -0.7
    labels = rng.choice(np.arange(1, N_CATEGORIES + 1), n, p=frequency / frequency.sum())
    certainty = rng.beta(0.5, 6, n)
    tables = []
    for _ in range(n_models):
        boxes = (places + rng.normal(0, 25, places.shape)).clip(0, SIZE)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        scores = 0.99 * certainty * rng.uniform(0.5, 1, n) + 0.01 * rng.random(n)
        tables.append(BoxTable.of(np.repeat(np.arange(n_images), n_boxes), labels, boxes, scores))
    return BoxTable.concatenate(tables), np.repeat(np.arange(n_models), n)


def as_usual(table: BoxTable, models: np.ndarray, n_images: int, n_models: int) -> list[Usual]:
    """The same boxes as ensemble-boxes takes them, one entry a radiograph."""
    # Boxes of a radiograph, within it of a model, lie side by side in this order.
    order = np.lexsort((models, table.images))
    keys = (table.images * n_models + models)[order]
    bounds = np.searchsorted(keys, np.arange(1, n_images * n_models))
    columns = [
        np.split(column[order], bounds) for column in ((table.boxes / SIZE).clip(0, 1), table.scores, table.labels)
    ]
    return [
        tuple(column[image * n_models : (image + 1) * n_models] for column in columns)  # type: ignore[misc]
        for image in range(n_images)
    ]


class Ways:
    """Both ways over blocks of radiographs, a block a round, keeping what they make of each.

    The first block is for warming up and comes again.
    """

    def __init__(self, n_images: int, n_models: int, n_boxes: int, n_blocks: int, iou: float, score: str) -> None:
        self.n_models, self.iou, self.score = n_models, iou, score
        self.table, self.models = draw_boxes(n_images, n_models, n_boxes)
        self.usual = as_usual(self.table, self.models, n_images, n_models)
        edges = np.linspace(0, n_images, n_blocks + 1).round().astype(int).tolist()
        self.blocks = [range(min(5, n_images)), *map(range, edges[:-1], edges[1:])]
        self.of_block = []
        for block in self.blocks:
            rows = np.flatnonzero((self.table.images >= block.start) & (self.table.images < block.stop))
            self.of_block.append((self.table.select(rows), self.models[rows]))
        self.fused: dict[str, list[Any]] = {"ours": [], "usual": []}

    def _ours(self, table: BoxTable, models: np.ndarray) -> BoxTable:
        return weighted_boxes_fusion(table, models, [1.0] * self.n_models, self.iou, score=self.score).table

    def _usually(self, image: int) -> Fused:
        return fuse_one_usually(*self.usual[image], iou_thr=self.iou, conf_type=self.score)

    def time_ours(self) -> Timing:
        """Our fusion of the next block; `n` is its number of radiographs."""
        number = len(self.fused["ours"])

        def work() -> int:
            self.fused["ours"].append(self._ours(*self.of_block[number]))
            return len(self.blocks[number])

        return timed(work)

    def time_usual(self) -> Timing:
        """ensemble-boxes on one radiograph of the next block after the other."""
        number = len(self.fused["usual"])

        def work() -> int:
            self.fused["usual"].append([self._usually(image) for image in self.blocks[number]])
            return len(self.blocks[number])

        return timed(work)

    def time_whole(self) -> Timing:
        """Our fusion of all radiographs at once."""

        def work() -> int:
            self._ours(self.table, self.models)
            return sum(len(block) for block in self.blocks[1:])

        return timed(work)

    def difference(self) -> tuple[float, int]:
        """The largest difference between what both have made, in scores and relative coordinates; inf: other boxes.

        ensemble-boxes rounds to single precision, which now and then puts an overlap on the other side of the
        threshold. A radiograph that differs is therefore fused by it once more in double precision, which counts
        instead. Second: the number of those.
        """
        largest, n_again = 0.0, 0
        for number, block in enumerate(self.blocks):
            ours = self.fused["ours"][number]
            bounds = np.searchsorted(ours.images, np.arange(block.start, block.stop + 1)).tolist()
            for place, (image, usual) in enumerate(zip(block, self.fused["usual"][number], strict=True)):
                mine = ours.select(np.arange(bounds[place], bounds[place + 1]))
                found = _difference(mine, usual)
                if found > CLOSE_ENOUGH:
                    with mock.patch.object(np, "float32", np.float64):
                        found = _difference(mine, self._usually(image))
                    n_again += 1
                largest = max(largest, found)
        return largest, n_again


def _difference(ours: BoxTable, usual: Fused) -> float:
    """Of one radiograph: each of our boxes against the nearest of theirs, which has to be nobody else's."""
    theirs = np.column_stack([usual[2], usual[0], usual[1]])
    if len(ours) != len(theirs):
        return np.inf
    if not len(ours):
        return 0.0
    mine = np.column_stack([ours.labels, ours.boxes / SIZE, ours.scores])
    distances = np.abs(mine[:, None] - theirs[None]).max(axis=2)
    nearest = distances.argmin(axis=1)
    return float(distances.min(axis=1).max()) if len(np.unique(nearest)) == len(ours) else np.inf
