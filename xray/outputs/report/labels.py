"""The report's sections about labels of whole radiographs."""

from functools import partial

import numpy as np

from xray.evaluation.labels import LabelEvaluation
from xray.outputs.report import parts as parts
from xray.outputs.report.figures import Figure
from xray.outputs.report.label_figures import label_precision_recall_figure, roc_figure
from xray.outputs.report.parts import DASH, MOST_LISTED

ORIGINS = {
    "rows": "highest score of its rows",
    "maps": "probability map",
    "classifier": "classifier",
    "no finding": "1 − “No finding”",
}


def label_tiles(labels: LabelEvaluation, main: bool) -> list[str]:
    """The AUROC, or its mean over several labels; main: labels are what the report is about."""
    metrics = labels.metrics
    if len(metrics["auroc"]) != 1:
        n = sum(found.label.origin in ("rows", "maps") for found in labels.curves) or len(labels.curves)
        tiles = [parts.tile("AUROC", metrics["mean_auroc"], None, f"mean over {n} labels", main)]
        if main:
            tiles.append(
                parts.tile("Average precision", metrics["mean_average_precision"], None, f"mean over {n} labels")
            )
        return tiles
    ((name, auroc),) = metrics["auroc"].items()
    tiles = [parts.tile("AUROC", auroc, metrics.get("auroc_ci95", {}).get(name), name, main)]
    if main:
        ends = metrics.get("average_precision_ci95", {}).get(name)
        tiles.append(parts.tile("Average precision", metrics["average_precision"][name], ends, name))
        point = metrics["operating_points"][name]
        for title in ("sensitivity", "specificity"):
            ends = point.get(f"{title}_ci95")
            tiles.append(parts.tile(title.capitalize(), point[title], ends, f"at {point['threshold']:g}"))
    return tiles


def label_sections(labels: LabelEvaluation, main: bool) -> list[str | Figure]:
    """The table and the curves; where labels are what the report is about also single errors."""
    sections: list[str | Figure] = [
        _table_section(labels),
        Figure(
            "roc.png",
            "ROC of whole radiographs",
            "The dot is the point at the threshold; the dashed line is chance.",
            partial(roc_figure, labels),
        ),
        Figure(
            "precision_recall_labels.png",
            "Precision and recall of whole radiographs",
            "The dot is the point at the threshold; the dashed line is the share of positives.",
            partial(label_precision_recall_figure, labels),
        ),
    ]
    return [*sections, *(_mistake_sections(labels) if main else [])]


def label_method(labels: LabelEvaluation) -> str:
    """How the numbers are computed, in HTML paragraphs."""
    origins = {found.label.origin for found in labels.curves}
    said = ""
    if "rows" in origins:
        said += "<p>A radiograph's score of a label is the highest of its rows, 0 without one.</p>"
    if "maps" in origins:
        said += (
            "<p>A radiograph's score by its probability map is the probability that the triplet's least area of its "
            "pixels reaches: it exceeds <em>top</em> exactly if the triplet calls the radiograph positive, so that the "
            "dot on the curve is what the rule does.</p>"
        )
    return (
        said + "<p>AUROC is the chance that a positive radiograph is ranked above a negative one, a tie counting half; "
        "average precision is the sum of precision × rise in recall, without interpolation.</p>"
    )


def _table_section(labels: LabelEvaluation) -> str:
    """The areas under the curves, and below them the points at the thresholds."""
    has_intervals = any("auroc_ci95" in name for name in labels.metrics)
    ends_head = ["#95 % interval"] if has_intervals else []

    def ends(values: list[float] | None) -> list[str]:
        return [parts.interval(values) or DASH] if has_intervals else []

    areas, points = [], []
    for found in labels.curves:
        label, behind = found.label, "_classifier" if found.label.origin == "classifier" else ""
        area, precision = (
            labels.metrics.get(f"{name}{behind}_ci95", {}).get(label.name) for name in ("auroc", "average_precision")
        )
        named = [parts.name(label.name), f'<span class="dim">{ORIGINS[label.origin]}</span>']
        row = [*named, f"{label.truth.sum():,}", parts.number(found.curve.auroc), *ends(area)]
        row += [parts.bar(found.curve.auroc, area), parts.number(found.curve.average_precision), *ends(precision)]
        areas.append(row)
        row = [*named, f"{found.point['threshold']:g}"]
        for name in ("sensitivity", "specificity"):
            row += [parts.number(found.point[name]), *ends(found.point.get(f"{name}_ci95"))]
        points.append([*row, parts.number(found.point["precision"])])
    named = ["Label", "Score"]
    head = [*named, "#Positive", "#AUROC", *ends_head, "", "#Average precision", *ends_head]
    hint = f"Of {len(labels.alignment):,} radiographs; labels that all of them have, or none, have no curve."
    if has_intervals:
        hint += " The thin line on a bar is its 95 % interval."
    first = parts.section("Whole radiographs", hint, parts.table(head, areas))
    head = [*named, "#Threshold", "#Sensitivity", *ends_head, "#Specificity", *ends_head, "#Precision"]
    hint = "Radiographs with at least this score are called positive."
    return first + "\n" + parts.section("Whole radiographs at the threshold", hint, parts.table(head, points))


def _mistake_sections(labels: LabelEvaluation) -> list[str]:
    """The negatives with the highest scores and the positives with the lowest."""
    sections = []
    for title, is_positive, direction in (
        ("Surest false positives", False, "from the highest score down"),
        ("Surest misses", True, "from the lowest score up"),
    ):
        errors = [
            (found.label.scores[place], found.label.name, place)
            for found in labels.curves
            for place in np.flatnonzero(
                (found.label.truth == is_positive) & ((found.label.scores >= found.label.lowest) != is_positive)
            ).tolist()
        ]
        errors.sort(key=lambda error: error[0], reverse=not is_positive)
        rows = [
            [parts.image(labels.alignment, place), parts.name(name), f"{score:.3f}"]
            for score, name, place in errors[:MOST_LISTED]
        ]
        hint = f"{parts.shown(len(rows), len(errors))} {direction}."
        sections.append(parts.section(title, hint, parts.table(["Radiograph", "Label", "#Score"], rows)))
    return sections
