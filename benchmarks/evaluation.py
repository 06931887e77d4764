"""The metric over many detections: truth and predictions, COCO's AP our way and pycocotools', and all that we say."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.timing import Timing, timed
from xray.evaluation.box_intervals import bootstrap_intervals
from xray.evaluation.box_metrics import coco_metrics, detection_metrics
from xray.findings import CATEGORIES, FINDINGS
from xray.structures.boxes import BoxTable, xyxy_to_xywh
from xray.structures.predictions import Predictions, read_predictions

SIZE = 3000
"""Width and height of the radiographs, in pixels."""
NAMES = dict(enumerate(FINDINGS, 1))
COCO_NAMES = ("coco_ap", "coco_ap50", "coco_ap75")


def draw_truth(n_images: int, seed: int = 0) -> BoxTable:
    """Nine boxes on every third radiograph on average, of categories as unequal as findings are; whole pixels."""
    rng = np.random.default_rng(seed)
    n = 9 * -(-n_images // 3)
    images = np.sort(rng.choice(rng.permutation(n_images)[: -(-n_images // 3)], n))
    return BoxTable.of(images, _labels(n, rng), _places(n, rng).round())


def draw_predictions(truth: BoxTable, n_images: int, n_boxes: int, seed: int = 1) -> BoxTable:
    """`n_boxes` of every radiograph: up to a third of them around its truth, the others anywhere and less certain.

    Coordinates to 0.01 pixel and scores to 6 decimals, as in a file; some scores are equal.
    """
    rng = np.random.default_rng(seed)
    n = n_images * n_boxes
    labels, boxes, scores = _labels(n, rng), _places(n, rng), rng.beta(0.5, 6, n)
    first = np.searchsorted(truth.images, truth.images)
    near = np.flatnonzero(np.arange(len(truth)) - first < max(1, n_boxes // 3))
    near = np.repeat(near, 3 if n_boxes >= 3 else 1)
    # The number of each within its radiograph, which is its row among that radiograph's predictions.
    numbers = np.arange(len(near)) - np.searchsorted(truth.images[near], truth.images[near])
    near, numbers = near[numbers < n_boxes], numbers[numbers < n_boxes]
    rows = truth.images[near] * n_boxes + numbers
    labels[rows] = truth.labels[near]
    boxes[rows] = truth.boxes[near] + rng.normal(0, 40, (len(near), 4))
    scores[rows] = rng.beta(1.2, 3, len(near))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return BoxTable.of(np.repeat(np.arange(n_images), n_boxes), labels, boxes.round(2), scores.round(6))


def _labels(n: int, rng: np.random.Generator) -> np.ndarray:
    frequency = np.arange(1, len(NAMES) + 1) ** -0.7
    return rng.choice(np.arange(1, len(NAMES) + 1), n, p=frequency / frequency.sum())


def _places(n: int, rng: np.random.Generator) -> np.ndarray:
    corner = rng.uniform(0, 0.67 * SIZE, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(0.02 * SIZE, 0.24 * SIZE, (n, 2))], axis=1)


class Ways:
    """The same truth and predictions scored in different ways, in memory and from a predictions.json in `folder`."""

    def __init__(self, n_images: int, n_boxes: int, folder: Path) -> None:
        self.n_images = n_images
        self.truth = draw_truth(n_images)
        drawn = draw_predictions(self.truth, n_images, n_boxes)
        boxes = xyxy_to_xywh(drawn.boxes).round(2)
        self.results = [
            {"image_id": image, "category_id": label, "bbox": box, "score": score}
            for image, label, box, score in zip(
                drawn.images.tolist(), drawn.labels.tolist(), boxes.tolist(), drawn.scores.tolist(), strict=True
            )
        ]
        self.path = folder / "predictions.json"
        self.path.write_text(json.dumps(self.results))
        # What was drawn would differ from what a file holds in the last bit of x2 and y2.
        self.predictions = self._numbered(read_predictions(self.path))
        with contextlib.redirect_stdout(io.StringIO()):
            self.coco = COCO()
            self.coco.dataset = {
                "images": [{"id": image} for image in range(n_images)],
                "categories": CATEGORIES,
                "annotations": _annotations(self.truth),
            }
            self.coco.createIndex()
            self.detections = self.coco.loadRes(self.results)
        self.found: dict[str, list[dict[str, Any]]] = {}

    @staticmethod
    def _numbered(predictions: Predictions) -> BoxTable:
        number = np.array([int(name) for name in predictions.image_ids], dtype=np.int64)
        table = predictions.table
        return BoxTable(number[table.images], table.labels, table.boxes, table.scores)

    def time_ours(self) -> Timing:
        """COCO's AP."""
        return self._timed("ours", lambda: coco_metrics(self.truth, self.predictions, NAMES))

    def time_usual(self) -> Timing:
        """pycocotools as it comes: four areas, three limits to the boxes of an image, and its summary."""
        return self._timed("usual", lambda: self._usual(self.detections))

    def time_lean(self) -> Timing:
        """pycocotools kept to the numbers that ours gives: one area, one limit."""

        def work() -> dict[str, float]:
            with contextlib.redirect_stdout(io.StringIO()):
                evaluation = COCOeval(self.coco, self.detections, "bbox")
                evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
                evaluation.params.maxDets = [100]
                evaluation.evaluate()
                evaluation.accumulate()
            precision = evaluation.eval["precision"][..., 0, 0]
            means = [part[part > -1].mean() for part in (precision, precision[0], precision[5])]
            return dict(zip(COCO_NAMES, map(float, means), strict=True))

        return self._timed("lean", work)

    def time_ours_file(self) -> Timing:
        """COCO's AP from predictions.json."""
        return self._timed(
            "ours_file", lambda: coco_metrics(self.truth, self._numbered(read_predictions(self.path)), NAMES)
        )

    def time_usual_file(self) -> Timing:
        """pycocotools as it comes from predictions.json."""

        def work() -> dict[str, float]:
            with contextlib.redirect_stdout(io.StringIO()):
                detections = self.coco.loadRes(str(self.path))
            return self._usual(detections)

        return self._timed("usual_file", work)

    def time_all(self) -> Timing:
        """Everything that metrics.json says of boxes: mAP@0.4, FROC, COCO's AP, intervals of 1,000 resamples."""

        def work() -> dict[str, float]:
            metrics = detection_metrics(self.truth, self.predictions, self.n_images, NAMES)
            bootstrap_intervals(self.truth, self.predictions, np.arange(self.n_images), NAMES)
            return {name: metrics[name] for name in COCO_NAMES}

        return self._timed("all", work)

    def _usual(self, detections: COCO) -> dict[str, float]:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(self.coco, detections, "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return dict(zip(COCO_NAMES, evaluation.stats[:3].tolist(), strict=True))

    def _timed(self, name: str, work: Any) -> Timing:
        def count() -> int:
            self.found.setdefault(name, []).append(work())
            return len(self.predictions)

        return timed(count)

    def difference(self) -> float:
        """The largest difference between any two of the numbers that all ways gave in all rounds."""
        numbers = np.array([[row[name] for name in COCO_NAMES] for rows in self.found.values() for row in rows])
        return float((numbers.max(axis=0) - numbers.min(axis=0)).max())


def _annotations(table: BoxTable) -> list[dict[str, Any]]:
    boxes = xyxy_to_xywh(table.boxes)
    columns = (table.images.tolist(), table.labels.tolist(), boxes.tolist(), boxes[:, 2:].prod(axis=1).tolist())
    return [
        {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": 0}
        for number, (image, label, box, area) in enumerate(zip(*columns, strict=True), 1)
    ]
