"""The report's sections about labels of whole radiographs."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes

from xray.evaluation.labels import LabelCurve, LabelEvaluation
from xray.outputs.report import parts as parts
from xray.outputs.report.figures import BLUE, DASHED, FAINT, INK, ORANGE, panel_grid, thinned
from xray.outputs.report.parts import MOST_LISTED, Bar, Section, Tile, figure
from xray.structures.thresholds import SHOWN_FROM

ORIGINS = {
    "rows": "highest score of its rows",
    "maps": "probability map",
    "classifier": "classifier",
    "no finding": "1 − “No finding”",
}


def label_tiles(labels: LabelEvaluation, is_main: bool) -> list[Tile]:
    """The AUROC, or its mean over several labels; is_main: labels are what the report is about."""
    metrics = labels.metrics
    if len(metrics["auroc"]) != 1:
        n = sum(curve.label.origin in ("rows", "maps") for curve in labels.curves) or len(labels.curves)
        rows = [("mean_auroc", "AUROC", f"mean over {n} labels")]
        rows += [("mean_average_precision", "Average precision", f"mean over {n} labels")] if is_main else []
        return parts.metric_tiles(metrics, *rows, is_main=is_main)
    ((name, auroc),) = metrics["auroc"].items()
    tiles = [parts.tile("AUROC", auroc, metrics.get("auroc_ci95", {}).get(name), name, is_main)]
    if is_main:
        ends, point = metrics.get("average_precision_ci95", {}).get(name), metrics["operating_points"][name]
        tiles.append(parts.tile("Average precision", metrics["average_precision"][name], ends, name))
        at = f"at {point['threshold']:g}"
        tiles += parts.metric_tiles(point, ("sensitivity", "Sensitivity", at), ("specificity", "Specificity", at))
    return tiles


def label_sections(labels: LabelEvaluation, is_main: bool) -> list[Section]:
    """The tables and the curves; where labels are what the report is about also single errors."""
    sections = [
        _areas_section(labels),
        _points_section(labels),
        figure("roc.png", roc_figure(labels)),
        figure("precision_recall_labels.png", label_precision_recall_figure(labels)),
    ]
    for title, is_positive, direction in (
        ("Surest false positives", False, "from the highest score down"),
        ("Surest misses", True, "from the lowest score up"),
    ):
        errors = mistakes(labels, is_positive) if is_main else []
        rows = [
            [parts.source_id(labels.alignment, place), name, f"{score:.3f}"]
            for score, name, place in errors[:MOST_LISTED]
        ]
        hint = f"{parts.shown(len(rows), len(errors))} {direction}."
        table = parts.table(["@Radiograph", "!Label", "#Score"], rows)
        sections += [Section(title, hint, table)] if is_main else []
    return sections


def mistakes(labels: LabelEvaluation, is_positive: bool) -> list[tuple[float, str, int]]:
    """(score, label, place of the radiograph) of the negatives that are called positive, from the highest score down,
    or of the positives that are not (`is_positive`), from the lowest up."""
    errors = [
        (float(label.scores[row]), label.name, int(label.places[row]))
        for label in (curve.label for curve in labels.curves)
        for row in np.flatnonzero((label.truth == is_positive) & ((label.scores >= label.lowest) != is_positive))
    ]
    return sorted(errors, key=lambda error: error[0], reverse=not is_positive)


def _areas_section(labels: LabelEvaluation) -> Section:
    """The areas under the curves."""
    ends_title = "#95 % interval" if "auroc_ci95" in labels.metrics else None
    rows = []
    for one in labels.curves:
        label, behind = one.label, "_classifier" if one.label.origin == "classifier" else ""
        area, precision = (
            labels.metrics.get(f"{name}{behind}_ci95", {}).get(label.name) for name in ("auroc", "average_precision")
        )
        row: list[str | Bar] = [label.name, ORIGINS[label.origin], f"{label.truth.sum():,}"]
        row += [parts.number(one.curve.auroc), parts.interval(area), Bar(one.curve.auroc, area)]
        rows.append([*row, parts.number(one.curve.average_precision), parts.interval(precision)])
    head = ["!Label", "~Score", "#Positive", "#AUROC", ends_title, "|", "#Average precision", ends_title]
    hint = f"Of {len(labels.alignment):,} radiographs; labels that all of them have, or none, have no curve."
    if unknown := labels.metrics.get("n_unknown"):
        named = ", ".join(f"{name} on {number:,}" for name, number in unknown.items())
        hint += f" Labels that are not known count for nothing: {named}."
    hint += " The thin line on a bar is its 95 % interval." if ends_title else ""
    return Section("Whole radiographs", hint, parts.table(head, rows), is_printed=True)


def _points_section(labels: LabelEvaluation) -> Section:
    """The points at the thresholds."""
    ends_title = "#95 % interval" if "auroc_ci95" in labels.metrics else None
    rows = []
    for one in labels.curves:
        cells = [one.label.name, ORIGINS[one.label.origin], f"{one.point['threshold']:g}"]
        for name in ("sensitivity", "specificity"):
            cells += [parts.number(one.point[name]), parts.interval(one.point.get(f"{name}_ci95"))]
        rows.append([*cells, parts.number(one.point["precision"])])
    head = ["!Label", "~Score", "#Threshold", "#Sensitivity", ends_title, "#Specificity", ends_title, "#Precision"]
    hint = (
        "Radiographs with at least this score are called positive. Pictures need not show the same: there, boxes have "
        f"a score of {SHOWN_FROM:g} or more, or what was fitted."
    )
    same = {f"{one.point['threshold']:g}" for one in labels.curves}
    at = f"at a score of {same.pop()} or more" if len(same) == 1 else "at the threshold"
    return Section(f"Whole radiographs called positive {at}", hint, parts.table(head, rows), is_printed=True)


def roc_figure(labels: LabelEvaluation) -> bytes:
    """Sensitivity over the false-positive rate of each label, the point at its threshold marked → PNG."""

    def draw_one(axes: Axes, one: LabelCurve, colour: str) -> tuple[float, float, str]:
        curve, point = one.curve, one.point
        axes.plot(*thinned(curve.false_positive_rate, curve.sensitivity), color=colour, linewidth=1.5)
        numbers = f"sens. {point['sensitivity']:.2f}, spec. {point['specificity']:.2f}"
        text = f"AUROC {curve.auroc:.3f}\n● {point['threshold']:g}: {numbers}"
        return 1 - point["specificity"], point["sensitivity"], text

    def draw(axes: Axes, curves: list[LabelCurve]) -> None:
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=DASHED)
        _draw_all(axes, curves, draw_one, (0.98, 0.04, "right", "bottom"))

    return panel_grid(_by_name(labels), "1 − specificity", "sensitivity", draw)


def label_precision_recall_figure(labels: LabelEvaluation) -> bytes:
    """Precision over recall of each label, the point at its threshold marked → PNG."""

    def draw_one(axes: Axes, one: LabelCurve, colour: str) -> tuple[float, float, str]:
        curve, point = one.curve, one.point
        # The average precision is the area under these steps.
        axes.step(*thinned(curve.sensitivity, curve.precision), where="pre", color=colour, linewidth=1.5)
        text = f"AP {curve.average_precision:.3f}\n● {point['threshold']:g}: recall {point['sensitivity']:.2f}, prec. "
        return point["sensitivity"], point["precision"], text + parts.number(point["precision"], 2)

    def draw(axes: Axes, curves: list[LabelCurve]) -> None:
        axes.axhline(curves[0].label.truth.mean(), color=FAINT, linewidth=0.8, linestyle=DASHED)
        # A good curve leaves its lower left corner free, a poor one the upper right.
        is_good = curves[0].curve.average_precision > 0.5
        corner = (0.02, 0.04, "left", "bottom") if is_good else (0.98, 0.97, "right", "top")
        _draw_all(axes, curves, draw_one, corner)

    return panel_grid(_by_name(labels), "recall (sensitivity)", "precision", draw)


def _draw_all(
    axes: Axes,
    curves: list[LabelCurve],
    draw_one: Callable[[Axes, LabelCurve, str], tuple[float, float, str]],
    corner: tuple[float, float, str, str],
) -> None:
    """Curves, points and, in a corner of the panel, their numbers; a classifier's in the other colour."""
    axes.set(xlim=(0, 1), ylim=(0, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    texts = []
    for one in curves:
        is_classifier = one.label.origin == "classifier"
        colour = ORANGE if is_classifier else BLUE
        x, y, text = draw_one(axes, one, colour)
        if np.isfinite(y):
            axes.plot(x, y, "o", color=colour, markersize=5, clip_on=False, zorder=5)
        texts.append((f"classifier {text}" if is_classifier else text, colour))
    x, y, side, edge = corner
    step = -22 if edge == "top" else 22
    for place, (text, colour) in enumerate(texts if edge == "top" else reversed(texts)):
        axes.annotate(
            text, (x, y), (0, step * place), xycoords="axes fraction", textcoords="offset points", ha=side, va=edge,
            fontsize=7, color=INK if len(texts) == 1 else colour, linespacing=1.3,
        )  # fmt: skip


def _by_name(labels: LabelEvaluation) -> list[tuple[str, list[LabelCurve]]]:
    by_name: dict[str, list[LabelCurve]] = {}
    for curve in labels.curves:
        by_name.setdefault(curve.label.name, []).append(curve)
    return list(by_name.items())
