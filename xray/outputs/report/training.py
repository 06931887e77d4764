"""The report's section about how a model was trained: curves from the metrics.csv of a run."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from xray.errors import InputError
from xray.outputs.report import parts as parts
from xray.outputs.report.figures import BLUE, FAINT, ORANGE, panel_grid
from xray.outputs.report.parts import Section

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
STROKES = (
    (BLUE, "-"), (ORANGE, (0, (4, 2))), (BLUE, (0, (1.2, 1.4))), (ORANGE, (0, (5, 1.5, 1.2, 1.5))), (FAINT, "-"),
)  # fmt: skip
"""Colour and dashes of each line of a panel; there are no more lines."""


@dataclasses.dataclass(frozen=True)
class TrainingCurves:
    """A run's numbers by epoch, counted from 1. columns: name in metrics.csv → (epochs,) float64, NaN where not
    measured. epochs: (epochs,) int64."""

    epochs: np.ndarray
    columns: Mapping[str, np.ndarray]

    @property
    def loss(self) -> str:
        """The column of the training's loss."""
        return LOSS if LOSS in self.columns else "train/loss"

    @property
    def metrics(self) -> dict[str, Any]:
        """The part of metrics.json about it."""
        names = {"loss": self.loss} | {name: name for name in SCORES}
        numbers = {name: self.columns[key].tolist() for name, key in names.items() if key in self.columns}
        return {"epochs": self.epochs.tolist()} | numbers


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
    finite = {name: np.where(np.isfinite(column), column, np.nan) for name, column in numbers.items()}
    measured = {name: column for name, column in finite.items() if not np.isnan(column).all()}
    return TrainingCurves(table.index.to_numpy(np.int64) + 1, measured)


def training_sections(curves: TrainingCurves | None) -> list[Section]:
    """The last and best values of the curves, and their figure; nothing without curves."""
    if curves is None:
        return []
    rows = []
    for name, title in {curves.loss: "Training loss", **SCORES}.items():
        if name not in curves.columns:
            continue
        values = curves.columns[name]
        measured = np.flatnonzero(~np.isnan(values))
        falls = name in (curves.loss, "false_positive_rate")
        best = measured[(np.argmin if falls else np.argmax)(values[measured])]
        numbers = [parts.number(values[measured[-1]]), parts.number(values[best])]
        rows.append([title, *numbers, f"{curves.epochs[best]:,}"])
    hint = f"{len(curves.epochs):,} epochs; validation as it was measured while training, of its own settings."
    figure_hint = "By epoch: the loss and its terms, what was measured on the validation fold, and the learning rate."
    return [
        Section("Training", hint, parts.table(["!Curve", "#Last", "#Best", "#at epoch"], rows)),
        Section("Training curves", figure_hint, file="training.png", png=training_figure(curves)),
    ]


def training_figure(curves: TrainingCurves) -> bytes:
    """Panels of loss, loss terms, validation and learning rate, as far as there are any → PNG."""
    columns, prefix = curves.columns, "train/loss_"
    terms = [name for name in columns if name.startswith(prefix) and name not in TOTALS]
    rates = [name for name in columns if name == "lr" or name.startswith("lr-")][:1]
    lines = {
        "Training loss": {curves.loss: "loss"} if curves.loss in columns else {},
        "Terms of the loss": {name: name.removeprefix(prefix).replace("_", " ") for name in terms},
        "Validation": {name: title for name, title in SCORES.items() if name in columns},
        "Learning rate": dict.fromkeys(rates, "learning rate"),
    }
    panels = [(title, (title, list(names.items())[: len(STROKES)])) for title, names in lines.items() if names]

    def draw(axes: Axes, panel: tuple[str, list[tuple[str, str]]]) -> None:
        panel_title, names = panel
        for (name, title), (colour, stroke) in zip(names, STROKES, strict=False):
            values = columns[name]
            at = ~np.isnan(values)
            mark = "o" if at.sum() <= 30 else ""
            axes.plot(
                curves.epochs[at], values[at], marker=mark, markersize=2.6, color=colour, linewidth=1.4,
                linestyle=stroke, label=title,
            )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        if len(names) > 1:
            axes.legend(fontsize=6.5, frameon=False, handlelength=2.2)
        if panel_title == "Learning rate":
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 1.03 if panel_title == "Validation" else None)

    return panel_grid(panels, "epoch", "", draw)
