"""The report's section about how a model was trained: curves from the metrics.csv of a run."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from xray.errors import InputError
from xray.file_names import CURVES
from xray.outputs.report import parts as parts
from xray.outputs.report.figures import BLUE, FAINT, ORANGE, panel_grid
from xray.outputs.report.parts import Section, figure

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
    (BLUE, "-", "o"), (ORANGE, (0, (4, 2)), "s"), (BLUE, (0, (1.2, 1.4)), "^"),
    (ORANGE, (0, (5, 1.5, 1.2, 1.5)), "D"), (FAINT, "-", "v"),
)  # fmt: skip
"""Colour and dashes of each line of a panel, and the mark of each value of a single step; there are no more."""
STEP, MEAN = "at the last step of each epoch", "mean of each epoch"


def curve_metrics(curves: pd.DataFrame) -> dict[str, Any]:
    """The part of metrics.json about the curves of `read_curves`."""
    names = {"loss": _loss(curves)} | {name: name for name in SCORES}
    numbers = {name: curves[key].tolist() for name, key in names.items() if key in curves}
    return {"epochs": curves.index.tolist()} | numbers


def _loss(curves: pd.DataFrame) -> str:
    """The column of the training's loss."""
    return LOSS if LOSS in curves else "train/loss"


def run_of(predictions: Path) -> Path | None:
    """The run that predictions were made by while it was trained; None for those that were made otherwise."""
    folder = predictions.absolute().parent
    run = folder.parent
    return run if folder.name == "validation" and (run / CURVES).is_file() else None


def read_curves(run: Path) -> pd.DataFrame:
    """Reads a run's metrics.csv → a row an epoch, numbered from 1; float64, NaN where a column was not measured.

    Raises InputError if there is none or it is something else.
    """
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
    table = table.apply(pd.to_numeric, errors="coerce").astype(np.float64).replace([np.inf, -np.inf], np.nan)
    return table.set_index(table.index + 1).dropna(axis=1, how="all")


def training_sections(curves: pd.DataFrame | None) -> list[Section]:
    """The last and best values of the curves, and their figure; nothing without curves."""
    if curves is None:
        return []
    rows = []
    for name, title in {_loss(curves): "Training loss", **SCORES}.items():
        if name in curves:
            values = curves[name].dropna()
            falls = name in (_loss(curves), "false_positive_rate")
            best, epoch = (values.min(), values.idxmin()) if falls else (values.max(), values.idxmax())
            rows.append([title, parts.number(values.iloc[-1]), parts.number(best), f"{epoch:,}"])
    hint = f"{len(curves):,} epochs; validation as it was measured while training, of its own settings."
    return [
        Section("Training", hint, parts.table(["!Curve", "#Last", "#Best", "#at epoch"], rows)),
        figure("training.png", training_figure(curves)),
    ]


def training_figure(curves: pd.DataFrame) -> bytes:
    """Panels of loss, loss terms, validation and learning rate, as far as there are any → PNG.

    Means of epochs are lines; what a single step had, the terms of the loss among it, are marks.
    """
    prefix = "train/loss_"
    columns = list(map(str, curves))
    terms = [name for name in columns if name.startswith(prefix) and name not in TOTALS]
    rates = [name for name in columns if name == "lr" or name.startswith("lr-")][:1]
    lines: dict[str, dict[str, str]] = {
        "Training loss": {_loss(curves): "loss"} if _loss(curves) in curves else {},
        "Terms of the loss": {name: name.removeprefix(prefix).replace("_", " ") for name in terms},
        "Validation": {name: title for name, title in SCORES.items() if name in curves},
        "Learning rate": dict.fromkeys(rates, "learning rate"),
    }
    panels = [(title, (title, list(names.items())[: len(STROKES)])) for title, names in lines.items() if names]

    def draw(axes: Axes, panel: tuple[str, list[tuple[str, str]]]) -> None:
        panel_title, names = panel
        of_steps = panel_title.startswith("Terms") or names[0][0] == TOTALS[0]
        for (name, title), (colour, dashes, mark) in zip(names, STROKES, strict=False):
            values = curves[name].dropna()
            if of_steps:
                # What single steps had says little of the way between them.
                axes.plot(values.index, values, color=colour, linewidth=0.5, alpha=0.35)
                axes.plot(values.index, values, mark, color=colour, markersize=3.2, alpha=0.85, label=title)
            else:
                mark = "o" if len(values) <= 30 else ""
                axes.plot(
                    values.index, values, marker=mark, markersize=2.6, color=colour, linewidth=1.4, linestyle=dashes,
                    label=title,
                )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        is_loss = names[0][0] in (*TOTALS, *terms)
        if len(names) > 1 or is_loss:
            # Below the axis, where it covers no curve.
            axes.legend(
                fontsize=7, title_fontsize=7, frameon=False, handlelength=2.4, ncols=2, loc="upper left",
                bbox_to_anchor=(0, -0.1), borderaxespad=0.3, title=(STEP if of_steps else MEAN) if is_loss else None,
                alignment="left",
            )  # fmt: skip
        if panel_title == "Learning rate":
            # A rate of 0, as at the end of a cosine, has no place on a logarithmic axis: below the lowest other one,
            # the axis is linear.
            drawn = curves[[name for name, _ in names]].to_numpy(dtype=np.float64)
            if (drawn > 0).any():
                lowest = float(drawn[drawn > 0].min())
                axes.set_yscale("symlog", linthresh=lowest, linscale=0.5)
                axes.set_ylim(bottom=0 if (drawn == 0).any() else lowest / 2)
        else:
            axes.set_ylim(0, 1.03 if panel_title == "Validation" else None)

    return panel_grid(panels, "epoch", "", draw, most_columns=2)
