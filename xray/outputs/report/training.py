"""The report's section about how a model was trained: curves from the metrics.csv of a run."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from xray.errors import InputError
from xray.outputs.report import parts as parts
from xray.outputs.report.figures import Figure, Theme, panel_grid

CURVES = "metrics.csv"
LOSS = "train/loss_epoch"
TOTALS = ("train/loss", LOSS, "train/loss_step")
SCORES = {
    "map40": "mAP@0.4",
    "map40_kaggle": "mAP@0.4, Kaggle",
    "coco_ap": "COCO AP",
    "dice": "Dice",
    "dice_positive": "Dice, positives",
    "false_positive_rate": "False-positive rate",
    "mean_auroc": "AUROC",
    "mean_average_precision": "Average precision",
}
MOST_LINES = 4


@dataclasses.dataclass(frozen=True)
class TrainingCurves:
    """A run's numbers by epoch, counted from 1. columns: name in metrics.csv → (epochs,) float64, NaN where not
    measured. epochs: (epochs,) int64. task: as in the run's model.json, "" where there is none."""

    epochs: np.ndarray
    columns: Mapping[str, np.ndarray]
    task: str

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json says of it."""
        losses = self.columns.get(LOSS, self.columns.get("train/loss"))
        found: dict[str, Any] = {"epochs": self.epochs.tolist()}
        if losses is not None:
            found["loss"] = losses.tolist()
        return found | {name: self.columns[name].tolist() for name in SCORES if name in self.columns}


def run_of(predictions: Path) -> Path | None:
    """The run that predictions were made by while it was trained; None for those that were made otherwise."""
    folder = predictions.absolute().parent
    run = folder.parent
    return run if folder.name == "validation" and (run / CURVES).is_file() else None


def read_curves(run: Path) -> TrainingCurves:
    """Reads a run's metrics.csv. Raises InputError if there is none or it is something else."""
    file = run / CURVES
    try:
        table = pd.read_csv(file)
        epochs = pd.to_numeric(table["epoch"], errors="coerce")
        table = table[epochs.notna()].assign(epoch=epochs.dropna().astype(np.int64))
        # A run that was resumed may have begun an epoch twice: of each number the last counts.
        table = table.groupby("epoch", sort=True).last()
    except FileNotFoundError:
        raise InputError(f"{run} has no {CURVES}: give --run the folder of a training") from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(f"{file} is no table of a training ({type(error).__name__}): give another --run") from None
    if table.empty:
        raise InputError(f"{file} holds no epoch: give --run a training that has finished one")
    numbers = {str(name): pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64) for name in table}
    kept = {name: np.where(np.isfinite(column), column, np.nan) for name, column in numbers.items()}
    task = ""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        task = str(json.loads((run / "model.json").read_text())["task"])
    measured = {name: column for name, column in kept.items() if not np.isnan(column).all()}
    return TrainingCurves(table.index.to_numpy(np.int64) + 1, measured, task)


def training_sections(curves: TrainingCurves | None) -> list[str | Figure]:
    """The figure of the curves, and their last and best values; nothing without curves."""
    if curves is None:
        return []
    rows = []
    named = {LOSS: "Training loss"} if LOSS in curves.columns else {"train/loss": "Training loss"}
    for name, title in {**named, **SCORES}.items():
        if name not in curves.columns:
            continue
        values = curves.columns[name]
        measured = np.flatnonzero(~np.isnan(values))
        falls = name in (*TOTALS, "false_positive_rate")
        best = measured[(np.argmin if falls else np.argmax)(values[measured])]
        cells = [parts.name(title), parts.number(values[measured[-1]]), parts.number(values[best])]
        rows.append([*cells, f"{curves.epochs[best]:,}"])
    hint = f"{len(curves.epochs):,} epochs; validation as it was measured while training, of its own settings."
    table = parts.table(["Curve", "#Last", "#Best", "#at epoch"], rows)
    title = "Training curves"
    said = "By epoch: the loss and its terms, what was measured on the validation fold, and the learning rate."
    figure = Figure("training.png", title, said, partial(draw_training, curves))
    return [parts.section("Training", hint, table), figure]


def draw_training(curves: TrainingCurves, theme: Theme) -> bytes:
    """Panels of loss, loss terms, validation and learning rate, as far as there are any → PNG."""
    columns = curves.columns
    total = {LOSS: "loss"} if LOSS in columns else {"train/loss": "loss"}
    prefix = "train/loss_"
    terms = {name: name.removeprefix(prefix) for name in columns if name.startswith(prefix) and name not in TOTALS}
    rates = [name for name in columns if name == "lr" or name.startswith("lr-")][:1]
    panels = {
        "Training loss": {name: title for name, title in total.items() if name in columns},
        "Terms of the loss": {name: title.replace("_", " ") for name, title in terms.items()},
        "Validation": {name: title for name, title in SCORES.items() if name in columns},
        "Learning rate": dict.fromkeys(rates, "learning rate"),
    }
    shown = [(title, dict(list(lines.items())[: MOST_LINES + 1])) for title, lines in panels.items() if lines]

    def draw(axes: Axes, lines: dict[str, str]) -> None:
        strokes = ("-", (0, (4, 2)), (0, (1.2, 1.4)), (0, (5, 1.5, 1.2, 1.5)), "-")
        for number, (name, title) in enumerate(lines.items()):
            values = columns[name]
            at = ~np.isnan(values)
            colour = (theme.blue, theme.orange, theme.blue, theme.orange, theme.faint)[number]
            mark = "o" if at.sum() <= 30 else ""
            axes.plot(
                curves.epochs[at], values[at], marker=mark, markersize=2.6, color=colour, linewidth=1.4,
                linestyle=strokes[number], label=title,
            )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        if len(lines) > 1:
            axes.legend(fontsize=6.5, frameon=False, handlelength=2.2)
        if set(lines) <= set(SCORES):
            axes.set_ylim(0, 1.03)
        elif set(lines) == set(rates):
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)

    return panel_grid(shown, theme, "epoch", "", draw)
