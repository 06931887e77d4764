"""Benchmark `fuse`: weighted boxes fusion of a whole test set, against ensemble-boxes in a loop over radiographs."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
from ensemble_boxes import weighted_boxes_fusion as fuse_one_usually
from rich.table import Table

from benchmarks import harness
from benchmarks.harness import Timing, number_text, spread, spread_text, timed
from benchmarks.material import SIDE, draw_labels, draw_places
from xray.errors import FlagError
from xray.flags import Count, ShareWithin
from xray.structures.boxes import BoxTable
from xray.structures.fusion import weighted_boxes_fusion

LARGEST_DIFFERENCE = 1e-6
"""By which scores and coordinates relative to the radiograph may differ; ensemble-boxes sums in single precision."""

Usual = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]
"""What ensemble-boxes takes for a radiograph: boxes in [0, 1], scores and labels, an array a model each."""

Fused = tuple[np.ndarray, np.ndarray, np.ndarray]
"""What it gives for one: boxes, scores, labels."""


@dataclasses.dataclass(frozen=True)
class Config(harness.Flags):
    """Radiographs per second of weighted boxes fusion: ours against ensemble-boxes, from and to arrays in memory.

    The radiographs go by in blocks, each fused by both in turn, so that both do all of them once.
    """

    n_images: Count = 3000
    """Number of radiographs."""
    n_models: Count = 10
    """Models, or views of them (5 models and their mirrored views are 10)."""
    n_boxes: Count = 100
    """Boxes that each of them gives for a radiograph."""
    repeats: Count = 10
    """Number of blocks; also how often ours fuses all radiographs at once."""
    iou: ShareWithin = 0.4
    """Boxes that overlap by more than this IoU, in (0, 1), are taken for one."""
    score: Literal["avg", "max", "box_and_model_avg", "absent_model_aware_avg"] = "avg"
    """How a fused box is scored."""


def main(config: Config) -> None:
    """Measures, prints a table and writes the JSON file."""
    if config.n_images < config.repeats:
        raise FlagError(f"--n-images is {config.n_images}: give at least {config.repeats}, as many as --repeats")
    harness.benchmark("fuse", config, measure, show, ["numpy", "numba", "ensemble-boxes"])


def measure(config: Config, folder: Path, tell: harness.Tell) -> dict[str, Any]:
    """Runs the benchmark and returns all its numbers. Raises InputError if the two do not give the same boxes."""
    table, models = draw_boxes(config.n_images, config.n_models, config.n_boxes)
    usual = as_usual(table, models, config.n_images, config.n_models)
    edges = np.linspace(0, config.n_images, config.repeats + 1).round().astype(int).tolist()
    # The first block is for warming up and comes again.
    blocks = [range(min(5, config.n_images)), *map(range, edges[:-1], edges[1:])]
    rows = [np.flatnonzero((table.images >= block.start) & (table.images < block.stop)) for block in blocks]
    parts = [(table.select(chosen), models[chosen]) for chosen in rows]

    def ours(part: BoxTable, of_models: np.ndarray) -> BoxTable:
        return weighted_boxes_fusion(part, of_models, [1.0] * config.n_models, config.iou, score=config.score).table

    def usually(image: int) -> Fused:
        return fuse_one_usually(*usual[image], iou_thr=config.iou, conf_type=config.score)

    def in_turn(work: Callable[[int], Any]) -> Callable[[], Timing]:
        numbers = iter(range(len(blocks)))

        def run() -> Timing:
            number = next(numbers)
            return timed(len(blocks[number]), work, number)

        return run

    contenders = {
        "ours": in_turn(lambda number: ours(*parts[number])),
        "ensemble-boxes": in_turn(lambda number: [usually(image) for image in blocks[number]]),
    }
    timings = harness.alternate(contenders, config.repeats, tell)
    fused: dict[str, list[Any]] = {name: [run.result for run in runs] for name, runs in timings.items()}
    difference, n_again = largest_difference(blocks[1:], fused["ours"], fused["ensemble-boxes"], usually)
    if difference > LARGEST_DIFFERENCE:
        raise harness.refuse(f"the fused boxes differ by {difference:.1e}")
    whole = harness.alternate({"ours": lambda: timed(config.n_images, ours, table, models)}, config.repeats, tell)
    return {
        "n_fused": sum(map(len, fused["ours"])),
        "largest_difference": difference,
        "n_fused_in_double": n_again,
        "results": [harness.entry("", timings, [("ours", "ensemble-boxes")])],
        "whole": harness.entry("", whole, [])["contenders"]["ours"],
    }


def show(report: dict[str, Any]) -> list[Table | str]:
    """The numbers of `measure` as a table."""
    parameters, whole, [entry] = report["parameters"], report["whole"], report["results"]
    totals = "; ".join(
        f"{name} {number_text(sum(side['seconds']))} s, {number_text(sum(side['cpu_seconds']))} s of processor time"
        for name, side in entry["contenders"].items()
    )
    n_boxes = parameters["n_images"] * parameters["n_models"] * parameters["n_boxes"]
    return [
        harness.table_of([entry], "Weighted boxes fusion", {"ensemble-boxes": "ensemble-boxes in a loop"}),
        f"all {parameters['n_images']} radiographs: {totals}",
        f"all radiographs in one call of ours: {spread_text(spread(whole['seconds']))} s, "
        f"{spread_text(spread(whole['cpu_seconds']))} s of processor time",
        f"{n_boxes:,} boxes ({parameters['n_images']} radiographs x {parameters['n_models']} models or views x "
        f"{parameters['n_boxes']}) fused to {report['n_fused']:,}, all compared: they differ by "
        f"{report['largest_difference']:.0e} at most ({report['n_fused_in_double']} radiographs after ensemble-boxes "
        "did them in double precision, on whose overlaps its single precision decides)",
    ]


def draw_boxes(n_images: int, n_models: int, n_boxes: int) -> tuple[BoxTable, np.ndarray]:
    """Boxes of several models and the model of each; models agree roughly on where something is and how sure it is.

    Categories are as unequal as findings are, most scores are low as detectors' are, and no two are equal: of equal
    ones ensemble-boxes takes any first.
    """
    rng = np.random.default_rng(0)
    n = n_images * n_boxes
    places, labels, certainty = draw_places(n, rng), draw_labels(n, rng), rng.beta(0.5, 6, n)
    tables = []
    for _ in range(n_models):
        boxes = (places + rng.normal(0, 25, places.shape)).clip(0, SIDE)
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
        np.split(column[order], bounds) for column in ((table.boxes / SIDE).clip(0, 1), table.scores, table.labels)
    ]
    return [
        tuple(column[image * n_models : (image + 1) * n_models] for column in columns)  # type: ignore[misc]
        for image in range(n_images)
    ]


def largest_difference(
    blocks: list[range], ours: list[BoxTable], usual: list[list[Fused]], usually: Callable[[int], Fused]
) -> tuple[float, int]:
    """The largest difference between both ways' boxes, in scores and relative coordinates; inf: not the same number.

    ensemble-boxes rounds to single precision, which now and then puts an overlap on the other side of the threshold.
    A radiograph that differs is therefore fused by it once more in double precision, which counts instead. Second: the
    number of those.
    """
    largest, n_again = 0.0, 0
    for block, table, of_block in zip(blocks, ours, usual, strict=True):
        bounds = np.searchsorted(table.images, np.arange(block.start, block.stop + 1)).tolist()
        for place, (image, theirs) in enumerate(zip(block, of_block, strict=True)):
            boxes = table.select(np.arange(bounds[place], bounds[place + 1]))
            difference = difference_of(boxes, theirs)
            if difference > LARGEST_DIFFERENCE:
                with mock.patch.object(np, "float32", np.float64):
                    difference = difference_of(boxes, usually(image))
                n_again += 1
            largest = max(largest, difference)
    return largest, n_again


def difference_of(ours: BoxTable, usual: Fused) -> float:
    """Of one radiograph: each of our boxes against the nearest of theirs, which has to be nobody else's."""
    theirs = np.column_stack([usual[2], usual[0], usual[1]])
    if len(ours) != len(theirs):
        return np.inf
    if not len(ours):
        return 0.0
    rows = np.column_stack([ours.labels, ours.boxes / SIDE, ours.scores])
    distances = np.abs(rows[:, None] - theirs[None]).max(axis=2)
    nearest = distances.argmin(axis=1)
    return float(distances.min(axis=1).max()) if len(np.unique(nearest)) == len(ours) else np.inf
