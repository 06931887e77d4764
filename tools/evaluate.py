"""Scores predictions against the truth of a dataset: metrics.json, report.html, and a table on the screen."""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    # The repository's root in place of tools/, so that no tool here shadows a package.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import dataclasses
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xray.command import FlagError, InputError, command

if TYPE_CHECKING:
    from xray.data.store import Store
    from xray.detection.evaluation import Evaluation

METRICS = "metrics.json"
REPORT = "report.html"


@dataclasses.dataclass(frozen=True)
class Config:
    """Scores predictions: mAP at IoU > 0.4 per finding and over Kaggle's 15 classes, COCO AP, FROC."""

    predictions: Path
    """predictions.json of tools/infer.py or tools/fuse.py, COCO results of another detector, or a submission.csv."""
    data_path: Path = Path("data/vinbig")
    """Dataset directory written by tools/convert.py, with the truth."""
    save_path: Path = Path("runs/evaluation")
    """Folder for metrics.json and report.html."""
    split: Literal["train", "test"] | None = None
    """Score the images of this split; by default all images of each split and fold that the predictions touch."""
    fold: int | None = None
    """Score the images of this fold of the train split."""
    baseline: bool = False
    """Also score each finding's mean box, taken from the training images that are not scored."""
    resamples: int = 1000
    """Resamples of the patients for the 95 % intervals; 0 leaves the intervals out."""
    overwrite: bool = False
    """Replace a report at --save-path."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: Config) -> None:
    """Scores, writes both files and prints the table; what may mislead goes to stderr and into the report."""
    if not 0 <= config.resamples <= 100_000:
        raise FlagError(f"--resamples is {config.resamples}: give 0 to 100000")
    if config.split == "test" and config.fold is not None:
        raise FlagError("--split test and --fold: test images are in no fold, leave one of the two out")
    existing = [name for name in (METRICS, REPORT) if (config.save_path / name).exists()]
    if existing and not config.overwrite:
        raise InputError(f"{config.save_path / existing[0]} exists: give --overwrite, or another --save-path")
    if config.save_path.exists() and not config.save_path.is_dir():
        raise InputError(f"{config.save_path} is a file: give --save-path a folder")

    from rich.console import Console

    from xray.data.predictions import read_predictions
    from xray.data.store import open_store
    from xray.detection.evaluation import evaluate, plain_numbers
    from xray.outputs.submission import read_submission

    store = open_store(config.data_path, pixels=False)
    predictions = (read_submission if config.predictions.suffix == ".csv" else read_predictions)(config.predictions)
    with Console(stderr=True).status("scoring"):
        result = evaluate(store, predictions, config.split, config.fold, config.baseline, config.resamples)
    warnings = warn(result, store)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    config.save_path.mkdir(parents=True, exist_ok=True)
    with Console(stderr=True).status("drawing the report"):
        from xray.outputs.report import write_report

        write_report(config.save_path / REPORT, result, store, str(config.predictions), warnings)
    temporary = config.save_path / (METRICS + ".part")
    temporary.write_text(json.dumps(plain_numbers(result.metrics), indent=1, allow_nan=False) + "\n")
    os.replace(temporary, config.save_path / METRICS)
    show(result.metrics)
    print(f"report: {config.save_path / REPORT}")


def warn(result: "Evaluation", store: "Store") -> list[str]:
    """What the reader should know before believing the numbers."""
    warnings = []
    if result.n_without_prediction:
        warnings.append(
            f"{result.n_without_prediction} of {len(result.rows)} scored images have no prediction at all: they count "
            "as images without detections"
        )
    if result.unknown_ids:
        warnings.append(
            f"{len(result.unknown_ids)} images in the predictions are not in {store.path} and are left out "
            f"(the first is {result.unknown_ids[0]!r})"
        )
    if store.conversion.get("parameters", {}).get("readers") == "all":
        warnings.append(
            "the truth holds the boxes of all readers, so that one finding may have to be found several times"
        )
    return warnings


def show(metrics: dict) -> None:
    """Prints the AP of each finding, then the means."""
    from rich.console import Console
    from rich.table import Table

    intervals, baselines = metrics.get("ap40_ci95"), metrics.get("baseline_ap40")
    table = Table(box=None, pad_edge=False)
    table.add_column("finding")
    for name in ["boxes", "AP@0.4", *(["95 % interval"] if intervals else []), *(["mean box"] if baselines else [])]:
        table.add_column(name, justify="right")
    for name, n_boxes in metrics["n_truth"].items():
        cells = [f"{n_boxes}", number(metrics["ap40"].get(name, math.nan))]
        cells += [interval(intervals.get(name))] if intervals else []
        cells += [number(baselines.get(name, math.nan))] if baselines else []
        table.add_row(name, *cells)
    Console(highlight=False).print(table)
    n_findings = len(metrics["ap40"])
    print(
        f"mAP@0.4 {metrics['map40']:.4f} {interval(metrics.get('map40_ci95'))} over {n_findings} findings in "
        f"{metrics['n_images']} images"
    )
    if "map40_kaggle" in metrics:
        print(
            f"mAP@0.4 {metrics['map40_kaggle']:.4f} {interval(metrics.get('map40_kaggle_ci95'))} over Kaggle's classes"
        )
    print(f"COCO AP {metrics['coco_ap']:.4f}, AP50 {metrics['coco_ap50']:.4f}, AP75 {metrics['coco_ap75']:.4f}")
    if "baseline_map40" in metrics:
        baseline = metrics["baseline_map40"]
        ratio = f": the detector reaches {metrics['map40'] / baseline:.1f} times that" if baseline > 0 else ""
        print(f"mAP@0.4 {baseline:.4f} for each finding's mean box{ratio}")


def number(value: float) -> str:
    """A metric for the table; a dash where it is not defined."""
    return "–" if math.isnan(value) else f"{value:.4f}"


def interval(ends: list[float] | None) -> str:
    """An interval for the table; empty where there is none."""
    return f"[{ends[0]:.3f}, {ends[1]:.3f}]" if ends and not math.isnan(ends[0]) else ""


if __name__ == "__main__":
    sys.exit(command(Config, main))
