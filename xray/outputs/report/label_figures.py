"""The report's figures of labels: a panel for each, with its operating point."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes

from xray.evaluation.labels import LabelCurve, LabelEvaluation
from xray.outputs.report.figures import Theme, panel_grid, thinned


def roc_figure(labels: LabelEvaluation, theme: Theme) -> bytes:
    """Sensitivity over the false-positive rate of each label, the point at its threshold marked → PNG."""

    def draw_one(axes: Axes, found: LabelCurve, colour: str) -> tuple[float, float, str]:
        curve, point = found.curve, found.point
        axes.plot(*thinned(curve.false_positive_rate, curve.sensitivity), color=colour, linewidth=1.5)
        numbers = f"sens. {point['sensitivity']:.2f}, spec. {point['specificity']:.2f}"
        said = f"AUROC {curve.auroc:.3f}\n● {point['threshold']:g}: {numbers}"
        return 1 - point["specificity"], point["sensitivity"], said

    def draw(axes: Axes, curves: list[LabelCurve]) -> None:
        axes.plot([0, 1], [0, 1], color=theme.faint, linewidth=0.8, linestyle=(0, (4, 3)))
        _draw_all(axes, curves, theme, draw_one, (0.98, 0.04, "right", "bottom"))

    return panel_grid(_by_name(labels), theme, "1 − specificity", "sensitivity", draw)


def label_precision_recall_figure(labels: LabelEvaluation, theme: Theme) -> bytes:
    """Precision over recall of each label, the point at its threshold marked → PNG."""

    def draw_one(axes: Axes, found: LabelCurve, colour: str) -> tuple[float, float, str]:
        curve, point = found.curve, found.point
        # The average precision is the area under these steps.
        axes.step(*thinned(curve.sensitivity, curve.precision), where="pre", color=colour, linewidth=1.5)
        said = f"AP {curve.average_precision:.3f}\n● {point['threshold']:g}: recall {point['sensitivity']:.2f}, prec. "
        said += f"{point['precision']:.2f}" if np.isfinite(point["precision"]) else "–"
        return point["sensitivity"], point["precision"], said

    def draw(axes: Axes, curves: list[LabelCurve]) -> None:
        share = curves[0].label.truth.mean()
        axes.axhline(share, color=theme.faint, linewidth=0.8, linestyle=(0, (4, 3)))
        # A good curve leaves its lower left corner free, a poor one the upper right.
        is_good = curves[0].curve.average_precision > 0.5
        corner = (0.02, 0.04, "left", "bottom") if is_good else (0.98, 0.97, "right", "top")
        _draw_all(axes, curves, theme, draw_one, corner)

    return panel_grid(_by_name(labels), theme, "recall (sensitivity)", "precision", draw)


def _draw_all(
    axes: Axes,
    curves: list[LabelCurve],
    theme: Theme,
    draw_one: Callable[[Axes, LabelCurve, str], tuple[float, float, str]],
    corner: tuple[float, float, str, str],
) -> None:
    """Curves, points and, in a corner of the panel, what they say; a classifier's in the other colour."""
    axes.set(xlim=(0, 1), ylim=(0, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    colours = [theme.orange if found.label.origin == "classifier" else theme.blue for found in curves]
    said = []
    for found, colour in zip(curves, colours, strict=True):
        x, y, words = draw_one(axes, found, colour)
        if np.isfinite(y):
            axes.plot(x, y, "o", color=colour, markersize=5, clip_on=False, zorder=5)
        said.append(f"classifier {words}" if found.label.origin == "classifier" else words)
    x, y, side, edge = corner
    order = range(len(said)) if edge == "top" else reversed(range(len(said)))
    for place, number in enumerate(order):
        shift = 22 * place * (-1 if edge == "top" else 1)
        axes.annotate(
            said[number], (x, y), (0, shift), xycoords="axes fraction", textcoords="offset points", ha=side, va=edge,
            fontsize=7, color=theme.ink if len(said) == 1 else colours[number], linespacing=1.3,
        )  # fmt: skip


def _by_name(labels: LabelEvaluation) -> list[tuple[str, list[LabelCurve]]]:
    names = dict.fromkeys(found.label.name for found in labels.curves)
    return [(name, [found for found in labels.curves if found.label.name == name]) for name in names]
