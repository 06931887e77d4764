"""The report's figures of boxes: a panel for each finding."""

import dataclasses
import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from xray.evaluation.box_metrics import add_no_finding, match_boxes, precision_recall
from xray.evaluation.boxes import BoxEvaluation
from xray.evaluation.froc import FP_PER_IMAGE, FrocCurve, froc_curve, sensitivity_at
from xray.findings import NO_FINDING_NAME
from xray.outputs.report.figures import Theme, panel_grid, thinned

SCORE_BINS = np.linspace(0, 1, 26)


@dataclasses.dataclass(frozen=True)
class Panel:
    """One finding's predictions, from the highest score down.

    is_true: (N,) bool. scores: (N,) float64. n_truth: boxes in the truth.
    """

    name: str
    is_true: np.ndarray
    scores: np.ndarray
    n_truth: int


def panels(boxes: BoxEvaluation) -> list[Panel]:
    """The findings that occur in the truth or in the predictions, "No finding" last where it is scored."""
    names = boxes.names()
    truth = boxes.alignment.truth
    if NO_FINDING_NAME in set(names.values()) - set(boxes.alignment.categories.values()):
        truth = add_no_finding(truth, len(boxes.alignment))
    matches = match_boxes(truth, boxes.alignment.predictions)
    ordered = boxes.alignment.predictions.select(matches.order)
    is_true = matches.is_true[matches.order]
    result = []
    for label, name in names.items():
        mine, n_truth = ordered.labels == label, int((truth.labels == label).sum())
        if mine.any() or n_truth:
            result.append(Panel(name, is_true[mine], ordered.scores[mine], n_truth))
    return result


def precision_recall_figure(boxes: BoxEvaluation, theme: Theme) -> bytes:
    """Precision over recall for each finding in the truth, with the envelope whose area is the AP → PNG."""
    shown = [panel for panel in panels(boxes) if panel.n_truth]
    aps = {**boxes.metrics["ap40"], NO_FINDING_NAME: boxes.metrics.get("ap40_no_finding", math.nan)}

    def draw(axes: Axes, panel: Panel) -> None:
        precision, recall = precision_recall(panel.is_true, panel.n_truth)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        recall, precision, envelope = thinned(recall, precision, envelope)
        # The envelope is 0 beyond the highest recall reached.
        x = np.concatenate([[0], recall, recall[-1:], [1]])
        y = np.concatenate([envelope[:1], envelope, [0], [0]]) if len(envelope) else np.zeros(len(x))
        axes.fill_between(x, y, step="pre", color=theme.blue, alpha=0.18, linewidth=0)
        axes.plot(recall, precision, color=theme.blue, linewidth=1.3)
        axes.set(xlim=(0, 1), ylim=(0, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        # Where the curve is not: a good one leaves its lower left corner free, a poor one the upper right.
        ap = aps[panel.name]
        right, up, side = (0.05, 0.07, "left") if ap > 0.5 else (0.97, 0.88, "right")
        axes.text(right, up, f"AP {ap:.2f}", fontsize=8.5, ha=side)

    return panel_grid([(panel.name, panel) for panel in shown], theme, "recall", "precision", draw)


def froc_figure(boxes: BoxEvaluation, theme: Theme) -> bytes:
    """Sensitivity over false positives an image for each finding in the truth, all of them pooled first → PNG."""
    n_images = len(boxes.alignment)
    shown = [panel for panel in panels(boxes) if panel.n_truth and panel.name in boxes.metrics["ap40"]]
    pooled = _pool(shown)
    pooled_curve = froc_curve(pooled.is_true, pooled.scores, pooled.n_truth, n_images)
    drawn = [pooled, *shown] if len(shown) != 1 else shown

    def draw(axes: Axes, panel: Panel) -> None:
        curve = froc_curve(panel.is_true, panel.scores, panel.n_truth, n_images)
        if panel is not pooled and len(shown) > 1:
            _step(axes, pooled_curve, theme.faint, 0.9, "all findings")
        _step(axes, curve, theme.blue, 1.5, panel.name)
        at = [sensitivity_at(curve, rate) for rate in FP_PER_IMAGE]
        axes.plot(FP_PER_IMAGE, at, "o", color=theme.blue, markersize=2.8)
        axes.set_xscale("log", base=2)
        axes.set(xlim=(0.1, 9), ylim=(0, 1.03), yticks=(0, 0.5, 1))
        axes.xaxis.set_major_locator(FixedLocator([0.125, 0.5, 2, 8]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels(["⅛", "½", "2", "8"])

    return panel_grid([(panel.name, panel) for panel in drawn], theme, "false positives per image", "sensitivity", draw)


def score_figure(boxes: BoxEvaluation, theme: Theme) -> bytes:
    """How many true and false positives have which score, for each finding; counts on a logarithmic axis → PNG."""
    shown = panels(boxes)

    def draw(axes: Axes, panel: Panel) -> None:
        for chosen, colour, label in ((~panel.is_true, theme.orange, "false"), (panel.is_true, theme.blue, "true")):
            counts, _ = np.histogram(panel.scores[chosen], SCORE_BINS)
            axes.stairs(counts, SCORE_BINS, color=colour, linewidth=1.3, label=label, baseline=0.7)
            axes.stairs(counts, SCORE_BINS, color=colour, alpha=0.15, fill=True, baseline=0.7)
        axes.set_yscale("log")
        axes.set(xlim=(0, 1), xticks=(0, 0.5, 1))
        axes.set_ylim(0.7, max(12, 2 * axes.get_ylim()[1]))
        axes.yaxis.set_minor_locator(NullLocator())

    return panel_grid([(panel.name, panel) for panel in shown], theme, "score", "boxes", draw, legend=True)


def _step(axes: Axes, curve: FrocCurve, colour: str, width: float, label: str) -> None:
    rate, sensitivity = curve.fp_per_image.clip(1e-9), curve.sensitivity
    rate, sensitivity = thinned(rate, sensitivity, along=(np.log2(rate) + 4) / 8)
    x = np.concatenate([[1e-9], rate, [1e9]])
    y = np.concatenate([[0], sensitivity, sensitivity[-1:] if len(sensitivity) else [0]])
    axes.step(x, y, where="post", color=colour, linewidth=width, label=label)


def _pool(shown: list[Panel]) -> Panel:
    """All findings as one: a false positive of any finding counts."""
    scores = np.concatenate([panel.scores for panel in shown] or [np.zeros(0)])
    is_true = np.concatenate([panel.is_true for panel in shown] or [np.zeros(0, dtype=bool)])
    order = np.argsort(-scores, kind="stable")
    return Panel("All findings", is_true[order], scores[order], sum(panel.n_truth for panel in shown))
