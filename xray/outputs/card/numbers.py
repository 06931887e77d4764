"""The card's tables of numbers: metrics with their intervals, thresholds, calibration, groups."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from xray.outputs.card.facts import Facts, dict_in, interval_in, value_in
from xray.outputs.report import parts as parts
from xray.outputs.report.calibration import KINDS
from xray.outputs.report.groups import MEASURES
from xray.outputs.report.parts import Bar, Section, Tile
from xray.structures.thresholds import SHOWN_FROM

INTERVAL = "#95 % interval"
OVERALL = {
    "map40": ("mAP@0.4", "mean over findings of the average precision of boxes, IoU > 0.4 (PASCAL VOC 2010)"),
    "map40_kaggle": ("mAP@0.4, Kaggle", "the same with “No finding” as a fifteenth class"),
    "ap40_no_finding": ("AP of “No finding”", "of radiographs without findings"),
    "coco_ap": ("COCO AP", "mean over IoU 0.50 to 0.95"),
    "coco_ap50": ("COCO AP, IoU 0.5", ""),
    "coco_ap75": ("COCO AP, IoU 0.75", ""),
    "dice": ("Dice", "overlap of masks, 1 where both are empty (SIIM-ACR)"),
    "dice_positive": ("Dice, positives", "of radiographs with a true mask alone"),
    "false_positive_rate": ("False-positive rate", "share of radiographs without a true mask that get one"),
    "mean_auroc": ("AUROC", "mean over findings, of whole radiographs"),
    "mean_average_precision": ("Average precision", "mean over findings, of whole radiographs"),
}
"""Key of metrics.json → its title, and what it measures."""
MAIN = ("map40", "dice", "mean_auroc")
SENSITIVITY_AT = {"0.125": "⅛", "1": "1", "8": "8"}
"""False positives an image of LUNA16's operating points that are shown."""


def tiles(facts: Facts) -> list[Tile]:
    """The main numbers, and of how many radiographs."""
    metrics = facts.metrics or facts.validation
    found = [
        parts.tile(OVERALL[name][0], value_in(metrics, name), interval_in(metrics, name), "", place == 0)
        for place, name in enumerate(name for name in MAIN if not math.isnan(value_in(metrics, name)))
    ]
    n = metrics.get("n_images")
    what = "scored" if facts.metrics else "in validation, while training"
    return [*found, Tile("Radiographs", f"{n:,}", what)] if isinstance(n, int) else found


def result_sections(facts: Facts) -> list[Section]:
    """What was measured: overall, by finding, at thresholds, by group, and calibration."""
    metrics = facts.metrics
    if not metrics:
        return _of_training(facts)
    hint = (
        "Each number with the 95 % interval of a bootstrap over patients (over radiographs where patients are not "
        "known). How each is computed stands in the report."
    )
    return [
        Section("Quantitative analyses", hint, _overall(metrics)),
        *_by_finding(metrics),
        *_threshold_sections(facts),
        *_group_section(metrics),
        *_calibration_section(metrics),
    ]


def _of_training(facts: Facts) -> list[Section]:
    metrics = facts.validation
    if not metrics:
        paragraph = "Not known: there is no evaluation. xray evaluate makes one, and xray card --report takes it."
        return [Section("Quantitative analyses", paragraphs=[paragraph]), *_threshold_sections(facts)]
    epoch = facts.models[0].description.get("epoch")
    when = "" if epoch is None else f", epoch {epoch + 1}"
    warning = (
        f"Measured by the training itself on what it held back{when}, by which it also chose these weights: the "
        "numbers are flattered, and have no intervals. xray evaluate makes better ones."
    )
    return [
        Section("Quantitative analyses", table=_overall(metrics), warning=warning),
        *_by_finding(metrics),
        *_threshold_sections(facts),
    ]


def _overall(metrics: Mapping[str, Any]) -> parts.Table:
    rows = [
        [title, parts.number(value_in(metrics, name)), parts.interval(interval_in(metrics, name)), meaning]
        for name, (title, meaning) in OVERALL.items()
        if not math.isnan(value_in(metrics, name))
    ]
    return parts.table(["!Metric", "#Value", INTERVAL, "~What it is"], rows)


def _by_finding(metrics: Mapping[str, Any]) -> list[Section]:
    """A table of boxes and masks, and one of whole radiographs."""
    froc, truth = dict_in(metrics, "sensitivity_at_fp"), dict_in(metrics, "n_truth")
    hint = "Sensitivity at ⅛, 1 and 8 false positives an image." if froc else ""
    places = _finding_table(metrics, {"ap40": "AP@0.4", "dice_by_category": "Dice"}, truth, froc)
    labels = _finding_table(metrics, {"auroc": "AUROC", "average_precision": "Average precision"}, {}, {})
    found = {"Results by finding": (hint, places), "Results by finding, whole radiographs": ("", labels)}
    return [Section(title, hint, table) for title, (hint, table) in found.items() if table.rows]


def _finding_table(
    metrics: Mapping[str, Any], measures: Mapping[str, str], truth: Mapping[str, Any], froc: Mapping[str, Any]
) -> parts.Table:
    """measures: part of metrics.json → its title. truth: finding → true boxes. froc: finding → sensitivities."""
    measured = [name for name in measures if dict_in(metrics, name)]
    head: list[str | None] = ["!Finding", "#True boxes" if truth else None]
    for name in measured:
        head += [f"#{measures[name]}", INTERVAL, "|" if name == measured[0] else None]
    head += [f"#at {words}" if froc else None for words in SENSITIVITY_AT.values()]
    rows: list[list[str | Bar]] = []
    for finding in dict.fromkeys(finding for name in measured for finding in dict_in(metrics, name)):
        row: list[str | Bar] = [finding, _count(truth, finding)]
        for name in measured:
            ends = interval_in({"one_ci95": dict_in(metrics, f"{name}_ci95").get(finding)}, "one")
            value = value_in(dict_in(metrics, name), finding)
            row += [parts.number(value), parts.interval(ends), Bar(value, ends)]
        rows.append([*row, *(parts.number(value_in(dict_in(froc, finding), at)) for at in SENSITIVITY_AT)])
    return parts.table(head, rows)


def _threshold_sections(facts: Facts) -> list[Section]:
    section = _fitted(facts) if facts.thresholds is not None else _not_fitted(facts)
    masks = [dict_in(model.description, "thresholds") for model in facts.models if model.task == "segmentation"]
    if masks:
        stated = ", ".join(f"{name} {value}" for given in masks for name, value in given.items())
        section = dataclasses.replace(section, paragraphs=[*section.paragraphs, f"Of masks: {stated or 'not known'}."])
    return [section]


def _fitted(facts: Facts) -> Section:
    assert facts.thresholds is not None  # the caller has looked
    measured = dict_in(facts.fit, "cross_fitted")
    rows = []
    for finding, point in facts.thresholds.of.items():
        numbers = dict_in(measured, finding)
        n = numbers.get("n_true")
        threshold = parts.number(math.nan if point.threshold is None else point.threshold)
        row = [finding, f"{n:,}" if isinstance(n, int) else parts.DASH, threshold]
        row += [parts.number(point.temperature, 2), parts.number(point.intercept, 2)]
        for name in ("sensitivity", "fp_per_image", "ece", "ece_calibrated"):
            row.append(parts.number(value_in(numbers, name)))
            if name in ("sensitivity", "fp_per_image"):
                row.append(parts.interval(interval_in(numbers, name)))
        rows.append(row)
    head = ["!Finding", "#True", "#Threshold", "#Temperature", "#Intercept", "#Sensitivity", INTERVAL]
    head += ["#FP an image", INTERVAL, "#ECE", "#calibrated"]
    hint = (
        f"Fitted by xray evaluate --fit at {facts.thresholds.at}: pages and DICOM objects show what reaches its "
        "threshold, with calibrated probabilities, σ(logit(score) / temperature + intercept). Each patient is measured "
        "by what was fitted on others. A finding "
        f"without a threshold had too few examples: it keeps its scores, and is shown from {SHOWN_FROM:g}."
    )
    return Section("Decision thresholds", hint, parts.table(head, rows))


def _not_fitted(facts: Facts) -> Section:
    points = dict_in(facts.metrics, "operating_points")
    hint = ""
    if any(model.task != "segmentation" for model in facts.models):
        hint = (
            f"Nothing was fitted: findings are shown from a confidence of {SHOWN_FROM:g}, which is not calibrated. "
            "xray evaluate --fit fits thresholds."
        )
    rows = []
    for finding in points:
        numbers = dict_in(points, finding)
        row = [finding, parts.number(value_in(numbers, "threshold"), 2)]
        for name in ("sensitivity", "specificity", "precision"):
            row.append(parts.number(value_in(numbers, name)))
            if name != "precision":
                row.append(parts.interval(interval_in(numbers, name)))
        rows.append(row)
    if not rows:
        return Section("Decision thresholds", paragraphs=[hint] if hint else [])
    head = ["!Finding", "#Threshold", "#Sensitivity", INTERVAL, "#Specificity", INTERVAL, "#Precision"]
    return Section(
        "Decision thresholds", f"{hint} Below, whole radiographs as they were scored.", parts.table(head, rows)
    )


def _group_section(metrics: Mapping[str, Any]) -> list[Section]:
    groups = [
        (attribute, name, dict_in(dict_in(dict_in(metrics, "subgroups"), attribute), name))
        for attribute in dict_in(metrics, "subgroups")
        for name in dict_in(dict_in(metrics, "subgroups"), attribute)
    ]
    measured = [name for name in MEASURES if any(not math.isnan(value_in(one, name)) for _, _, one in groups)]
    if not groups or not measured:
        return [Section("Results by group", paragraphs=["Not known: the evaluation says nothing of groups."])]
    head: list[str | None] = ["!Group", "!Value", "#Radiographs", "#Patients"]
    for name in measured:
        title, _, count_title = MEASURES[name]
        head += [count_title, f"#{title}", INTERVAL]
    rows, before = [], ""
    for attribute, name, numbers in groups:
        row = ["" if attribute == before else attribute, name]
        row += [_count(numbers, "n_images"), _count(numbers, "n_patients")]
        for measure in measured:
            row += [_count(numbers, MEASURES[measure][1]), parts.number(value_in(numbers, measure))]
            row.append(parts.interval(interval_in(numbers, measure)))
        rows.append(row)
        before = attribute
    hint = (
        "Each group scored by itself. A mean is over the findings that the group has, which may not be those of "
        "another; many groups are looked at, so that one may stand out by chance."
    )
    return [Section("Results by group", hint, parts.table(head, rows))]


def _count(numbers: Mapping[str, Any], name: str) -> str:
    value = numbers.get(name)
    return f"{value:,}" if isinstance(value, int) else parts.DASH


def _calibration_section(metrics: Mapping[str, Any]) -> list[Section]:
    calibration = dict_in(metrics, "calibration")
    rows = []
    for kind, (what, _, _) in KINDS.items():
        for name in dict_in(calibration, kind):
            numbers = dict_in(dict_in(calibration, kind), name)
            row = [what.capitalize(), name, _count(numbers, "n"), parts.percent(value_in(numbers, "share_right"))]
            row += [parts.number(value_in(numbers, "brier"), 4), parts.interval(interval_in(numbers, "brier"))]
            row += [parts.number(value_in(numbers, key), 4) for key in ("ece", "ece_cross_fitted")]
            rows.append([*row, *(parts.number(value_in(numbers, key), 2) for key in ("temperature", "intercept"))])
    if not rows:
        return [Section("Calibration", paragraphs=["Not known: the evaluation says nothing of it."])]
    hint = (
        "How far a score is the chance of being right. Lower Brier scores and expected calibration errors (ECE) are "
        "better; calibrated is by temperature and intercept, each patient by those of others."
    )
    head = ["!Scores of", "!Finding", "#Number", "#Right", "#Brier", INTERVAL, "#ECE", "#calibrated"]
    head += ["#Temperature", "#Intercept"]
    return [Section("Calibration", hint, parts.table(head, rows))]
