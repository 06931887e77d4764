"""Scores of the predictions that a recipe's rows make, on all folds together."""

import contextlib
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.differences import main_metric, predictions_on, summary
from benchmarks.ingredients import START, Ingredient
from xray.file_names import PREDICTIONS

if TYPE_CHECKING:
    from xray.datasets.store import Store
    from xray.evaluation.comparison import Comparison

COST, TUNED, PREDICTED = "cost.json", "tuned.json", "out_of_fold"
METRICS = {"map40": "mAP@0.4", "coco_ap": "COCO AP", "coco_ap75": "AP75", "dice": "Dice", "dice_positive": "Dice +"}


class Scores:
    """The numbers of each row, the default's first, on the radiographs of the chosen folds.

    config: of the benchmark.
    """

    def __init__(self, config: Any, store: "Store", folds: Sequence[int]) -> None:
        self.config, self.store, self.folds = config, store, folds
        self.rows = rows_of_folds(store, folds)
        self._scored: dict[Path, tuple[dict[str, Any], Any]] = {}
        self.metric = ""

    def of(self, row: Ingredient) -> dict[str, Any]:
        """Means over the seeds, the difference from the default, its interval and the processor time."""
        runs = [run_of(self.config, row, seed) for seed in self.config.seeds]
        line = {"name": row.name, "title": row.title, "flags": list(row.flags)}
        if row.what == "tune":
            tuned = [read_json(run / TUNED) for run in runs]
            values = {tuned[0]["metric"]: float(np.mean([one["value"] for one in tuned]))}
            gains = [one["value"] - one["single"] for one in tuned]
            return line | summary(values, gains, [one["sample"] for one in tuned])
        costs = [read_json(run / COST, {"cpu_seconds": 0.0})["cpu_seconds"] for run in runs]
        return line | self._beside_default(self._files(row.name)) | {"cpu_seconds": float(np.mean(costs))}

    @functools.cached_property
    def others(self) -> list[dict[str, Any]]:
        """The same of the files of --beside, which were made elsewhere."""
        lines = []
        for name, _, path in (text.partition("=") for text in self.config.beside):
            numbers = self._beside_default([[Path(path)]] * len(self.config.seeds))
            lines.append({"name": name, "title": name, "flags": []} | numbers)
        return lines

    def _files(self, name: str) -> list[list[Path]]:
        """For each seed what a row predicts of each fold."""
        return [
            [self.config.save_path / name / f"seed{seed}" / f"fold{fold}" / PREDICTED / PREDICTIONS
             for fold in self.folds] for seed in self.config.seeds
        ]  # fmt: skip

    def _beside_default(self, files: Sequence[Sequence[Path]]) -> dict[str, Any]:
        from xray.evaluation.comparison import TOTAL, compare

        values, gains, samples = [], [], []
        for own, start in zip(files, self._files(START), strict=True):
            (first_metrics, first), (metrics, second) = self._score(start), self._score(own)
            self.metric = self.metric or main_metric(self.store, first_metrics)
            comparison: Comparison = compare(self.store, first, second, self.config.resamples)
            found = next(d for d in comparison.differences if d.metric == self.metric and d.name == TOTAL)
            values.append(metrics)
            gains.append(found.difference)
            samples.append(found.sample)
        means = {name: float(np.mean([one[name] for one in values])) for name in METRICS if name in values[0]}
        return summary(means, gains, samples)

    def _score(self, files: Sequence[Path]) -> tuple[dict[str, Any], Any]:
        from xray.datasets.fingerprint import fingerprint
        from xray.evaluation.evaluate import evaluate
        from xray.evaluation.scored import scored_of

        key = files[0]
        if key not in self._scored:
            result = evaluate(self.store, predictions_on(self.store, self.rows, files))
            annotations = fingerprint(self.store, result.alignment.rows)["annotations_sha256"]
            self._scored[key] = result.metrics, scored_of(result, annotations)
        return self._scored[key]


def rows_of_folds(store: "Store", folds: Sequence[int]) -> np.ndarray:
    """The radiographs of the chosen folds."""
    return np.flatnonzero((store.splits == "train") & np.isin(store.folds, folds))


def run_of(config: Any, row: Ingredient, seed: int) -> Path:
    """Where a row trains. config: of the benchmark."""
    return Path(config.save_path) / row.name / f"seed{seed}"


def read_json(path: Path, default: Any = None) -> Any:
    """The content of a file, or `default` where there is none."""
    with contextlib.suppress(FileNotFoundError):
        return json.loads(path.read_text())
    return default
