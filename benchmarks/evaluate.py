"""Benchmark `evaluate`: the metric over a whole test set's detections, against pycocotools."""

import contextlib
import dataclasses
import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.table import Table

from benchmarks import harness
from benchmarks.harness import timed
from benchmarks.material import draw_labels, draw_places
from xray.evaluation.box_intervals import bootstrap_intervals
from xray.evaluation.box_metrics import detection_metrics
from xray.evaluation.coco_metrics import coco_metrics
from xray.file_names import PREDICTIONS
from xray.findings import CATEGORIES, FINDINGS
from xray.flags import Count
from xray.structures.boxes import BoxTable, xyxy_to_xywh
from xray.structures.predictions import read_predictions

LARGEST_DIFFERENCE = 1e-12
NAMES = dict(enumerate(FINDINGS, 1))
COCO_NAMES = ("coco_ap", "coco_ap50", "coco_ap75")
TITLES = {
    "ours": "COCO AP",
    "all": "all of metrics.json",
    "ours_file": "COCO AP from a file",
    "usual": "as it comes",
    "lean": "area “all” only",
    "usual_file": "as it comes",
}
PAIRS = (("ours", "usual"), ("ours", "lean"), ("all", "usual"), ("all", "lean"), ("ours_file", "usual_file"))


@dataclasses.dataclass(frozen=True)
class Config(harness.Flags):
    """Detections per second of COCO's AP, AP50 and AP75: ours against pycocotools' COCOeval, the same numbers.

    Both start from what they work on in memory, and once more from a predictions.json; ours also with mAP@0.4, FROC
    and intervals of 1,000 resamples.
    """

    n_images: Count = 3000
    """Number of radiographs."""
    n_boxes: Annotated[int, Interval(ge=1, le=100)] = 100
    """Predicted boxes of each, at most the 100 that COCO takes."""
    repeats: Count = 5
    """Number of measured rounds; one more goes before them and is not counted."""


def main(config: Config) -> None:
    """Measures, prints a table and writes the JSON file."""
    harness.benchmark("evaluate", config, measure, show, ["numpy", "numba", "pycocotools"])


def measure(config: Config, folder: Path, tell: harness.Tell) -> dict[str, Any]:
    """Runs the benchmark and returns all its numbers. Raises InputError if the ways do not give the same AP."""
    truth = draw_truth(config.n_images)
    ways = ways_to_score(truth, draw_predictions(truth, config.n_images, config.n_boxes), config.n_images, folder)
    n = config.n_images * config.n_boxes
    contenders = {name: functools.partial(timed, n, work) for name, work in ways.items()}
    timings = harness.alternate(contenders, config.repeats, tell)
    metrics = np.array([[run.result[name] for name in COCO_NAMES] for runs in timings.values() for run in runs])
    difference = float(np.ptp(metrics, axis=0).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise harness.refuse(f"the APs differ by {difference:.1e}")
    return {
        "n_truth": len(truth),
        "metrics": timings["ours"][0].result,
        "largest_difference": difference,
        "results": [harness.entry("", timings, PAIRS)],
    }


def show(report: dict[str, Any]) -> list[Table | str]:
    """The numbers of `measure` as a table."""
    parameters, metrics = report["parameters"], report["metrics"]
    return [
        harness.table_of(report["results"], "The metric against pycocotools", TITLES, in_seconds=True),
        f"{parameters['n_images'] * parameters['n_boxes']:,} detections on {parameters['n_images']} radiographs with "
        f"{report['n_truth']:,} true boxes: AP {metrics['coco_ap']:.6f}, AP50 {metrics['coco_ap50']:.6f}, AP75 "
        f"{metrics['coco_ap75']:.6f}; all ways agree to {report['largest_difference']:.0e}",
    ]


def draw_truth(n_images: int, seed: int = 0) -> BoxTable:
    """Nine boxes on every third radiograph on average, of categories as unequal as findings are; whole pixels."""
    rng = np.random.default_rng(seed)
    n = 9 * -(-n_images // 3)
    images = np.sort(rng.choice(rng.permutation(n_images)[: -(-n_images // 3)], n))
    return BoxTable.of(images, draw_labels(n, rng), draw_places(n, rng).round())


def draw_predictions(truth: BoxTable, n_images: int, n_boxes: int) -> BoxTable:
    """`n_boxes` of every radiograph: up to a third of them around its truth, the others anywhere and less certain.

    Coordinates to 0.01 pixel and scores to 6 decimals, as in a file; some scores are equal.
    """
    rng = np.random.default_rng(1)
    n = n_images * n_boxes
    labels, boxes, scores = draw_labels(n, rng), draw_places(n, rng), rng.beta(0.5, 6, n)
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


def ways_to_score(
    truth: BoxTable, drawn: BoxTable, n_images: int, folder: Path
) -> dict[str, Callable[[], dict[str, float]]]:
    """Each way to score the same predictions, in memory and from a predictions.json in `folder` → COCO's APs."""
    results = _as_coco(drawn)
    path = folder / PREDICTIONS
    path.write_text(json.dumps(results))
    # What was drawn would differ from what a file holds in the last bit of x2 and y2.
    predictions = _read(path)
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(n_images)],
        "categories": CATEGORIES,
        "annotations": [
            box | {"id": number, "iscrowd": 0, "area": box["bbox"][2] * box["bbox"][3]}
            for number, box in enumerate(_as_coco(truth), 1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        detections = coco.loadRes(results)

    def usual(source: Any) -> dict[str, float]:
        # As it comes: four areas, three limits to the boxes of an image, and its summary.
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(coco, coco.loadRes(source) if isinstance(source, str) else source, "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return dict(zip(COCO_NAMES, evaluation.stats[:3].tolist(), strict=True))

    def lean() -> dict[str, float]:
        # Kept to the numbers that ours gives: one area, one limit.
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(coco, detections, "bbox")
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluation.params.maxDets = [100]
            evaluation.evaluate()
            evaluation.accumulate()
        precision = evaluation.eval["precision"][..., 0, 0]
        means = [part[part > -1].mean() for part in (precision, precision[0], precision[5])]
        return dict(zip(COCO_NAMES, map(float, means), strict=True))

    def everything() -> dict[str, float]:
        # mAP@0.4, FROC, COCO's AP, intervals of 1,000 resamples.
        metrics = detection_metrics(truth, predictions, n_images, NAMES)
        bootstrap_intervals(truth, predictions, np.arange(n_images), NAMES)
        return {name: metrics[name] for name in COCO_NAMES}

    return {
        "ours": lambda: coco_metrics(truth, predictions, NAMES),
        "all": everything,
        "ours_file": lambda: coco_metrics(truth, _read(path), NAMES),
        "usual": lambda: usual(detections),
        "lean": lean,
        "usual_file": lambda: usual(str(path)),
    }


def _read(path: Path) -> BoxTable:
    """Predictions with the numbers of their radiographs."""
    predictions = read_predictions(path)
    numbers = np.array([int(name) for name in predictions.image_ids], dtype=np.int64)
    return dataclasses.replace(predictions.table, images=numbers[predictions.table.images])


def _as_coco(table: BoxTable) -> list[dict[str, Any]]:
    columns = (table.images, table.labels, xyxy_to_xywh(table.boxes).round(2), table.scores)
    return [
        {"image_id": image, "category_id": label, "bbox": box, "score": score}
        for image, label, box, score in zip(*(column.tolist() for column in columns), strict=True)
    ]
