"""Benchmark `evaluate`: the metric over a whole test set's detections, against pycocotools."""

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import reports
from xray.errors import FlagError

CLOSE_ENOUGH = 1e-12
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
class Evaluate:
    """Detections per second of COCO's AP, AP50 and AP75: ours against pycocotools' COCOeval, the same numbers.

    Both start from what they work on in memory, and once more from a predictions.json; ours also with mAP@0.4, FROC
    and intervals of 1,000 resamples.
    """

    n_images: int = 3000
    """Number of radiographs."""
    n_boxes: int = 100
    """Predicted boxes of each, at most the 100 that COCO takes."""
    repeats: int = 5
    """Number of measured rounds; one more goes before them and is not counted."""
    save_path: Path | None = None
    """JSON file for the numbers."""
    debug: bool = False
    """Show the traceback of an error."""


def benchmark_evaluation(config: Evaluate) -> None:
    """Measures, prints a table and writes the JSON file."""
    reports.check_at_least(config, n_images=1, n_boxes=1, repeats=1)
    if config.n_boxes > 100:
        raise FlagError(f"--n-boxes is {config.n_boxes}: COCO takes 100 of an image, give at most that")
    reports.check_save_path(config.save_path)
    report = measure_evaluation(config)
    show_evaluation(report)
    reports.save_report(config.save_path, report)


def measure_evaluation(config: Evaluate) -> dict[str, Any]:
    """Runs the benchmark and returns all its numbers. Raises InputError if they do not give the same AP."""
    from rich.console import Console
    from rich.progress import Progress

    from benchmarks import evaluation, timing

    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="xray-benchmark-") as folder,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task("scoring", total=len(TITLES) * (config.repeats + 1))
        ways = evaluation.Ways(config.n_images, config.n_boxes, Path(folder))
        timings = timing.alternate(
            {name: getattr(ways, f"time_{name}") for name in TITLES},
            config.repeats,
            functools.partial(progress.advance, task),
        )
    difference = ways.difference()
    if not difference <= CLOSE_ENOUGH:
        raise reports.refuse(f"the APs differ by {difference:.1e}")
    results: dict[str, dict[str, Any]] = {
        name: {
            "seconds": dataclasses.asdict(timing.Spread.of([run.seconds for run in runs])),
            "all_seconds": [run.seconds for run in runs],
            "cpu_seconds": [run.cpu_seconds for run in runs],
        }
        for name, runs in timings.items()
    }
    ratios = [
        {
            "ours": ours,
            "pycocotools": usual,
            "ratio": dataclasses.asdict(timing.ratio(timings, ours, usual)),
            "cpu_ratio": sum(results[usual]["cpu_seconds"]) / sum(results[ours]["cpu_seconds"]),
        }
        for ours, usual in PAIRS
    ]
    return {
        "benchmark": "evaluate",
        "parameters": {name: getattr(config, name) for name in ("n_images", "n_boxes", "repeats")},
        "n_truth": len(ways.truth),
        "metrics": ways.found["ours"][-1],
        "largest_difference": difference,
        "results": results,
        "ratios": ratios,
        **reports.surroundings(["numpy", "numba", "pycocotools"]),
    }


def show_evaluation(report: dict[str, Any]) -> None:
    """Prints the numbers of `measure_evaluation` as a table."""
    from rich.table import Table

    results, parameters = report["results"], report["parameters"]
    table = Table(title="The metric, seconds: median (lowest-highest)")
    for name in ("ours", "pycocotools"):
        table.add_column(name)
    for name in ("ours", "pycocotools", "ratio", "processor s", "ratio"):
        table.add_column(name, justify="right")
    for entry in report["ratios"]:
        sides = [results[entry["ours"]], results[entry["pycocotools"]]]
        cpu = " / ".join(f"{sum(side['cpu_seconds']) / parameters['repeats']:.2f}" for side in sides)
        table.add_row(
            TITLES[entry["ours"]], TITLES[entry["pycocotools"]],
            *(reports.spread_text(side["seconds"], 2) for side in sides),
            reports.spread_text(entry["ratio"]), cpu, f"{entry['cpu_ratio']:.1f}",
        )  # fmt: skip
    console = reports.printer()
    console.print(table)
    found = report["metrics"]
    console.print(
        f"{parameters['n_images'] * parameters['n_boxes']:,} detections on {parameters['n_images']} radiographs with "
        f"{report['n_truth']:,} true boxes: AP {found['coco_ap']:.6f}, AP50 {found['coco_ap50']:.6f}, AP75 "
        f"{found['coco_ap75']:.6f}; all ways agree to {report['largest_difference']:.0e}",
        soft_wrap=True,
    )
    console.print(reports.surroundings_text(report), soft_wrap=True)
