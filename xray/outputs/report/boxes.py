"""The report's sections about boxes."""

import math
from functools import partial

import numpy as np

from xray.evaluation.box_metrics import IOU_THRESHOLD, Matches, match_boxes
from xray.evaluation.boxes import BoxEvaluation
from xray.findings import NO_FINDING_NAME
from xray.outputs.report import parts as parts
from xray.outputs.report.box_figures import froc_figure, precision_recall_figure, score_figure
from xray.outputs.report.figures import Figure
from xray.outputs.report.parts import DASH, MOST_LISTED
from xray.structures.boxes import box_iou
from xray.structures.predictions import NO_FINDING_CATEGORY


def box_tiles(boxes: BoxEvaluation, main: bool) -> list[str]:
    """The means; main: boxes are what the report is about."""
    metrics = boxes.metrics
    tiles = [parts.tile("mAP@0.4", metrics["map40"], metrics.get("map40_ci95"), "mean over the findings", main)]
    if "map40_kaggle" in metrics:
        ends = metrics.get("map40_kaggle_ci95")
        tiles.append(parts.tile("mAP@0.4, Kaggle", metrics["map40_kaggle"], ends, "15 classes"))
    if "baseline_map40" in metrics:
        baseline = metrics["baseline_map40"]
        ratio = metrics["map40"] / baseline if baseline > 0 else math.nan
        note = f"mAP@0.4; the detector reaches {ratio:.1f} ×" if math.isfinite(ratio) else "mAP@0.4"
        tiles.append(parts.tile("Mean-box baseline", baseline, None, note))
    if "coco_ap" in metrics and main:
        note = f"AP50 {metrics['coco_ap50']:.3f} · AP75 {metrics['coco_ap75']:.3f}"
        ends = metrics.get("coco_ap_ci95")
        tiles.append(parts.tile("COCO AP", metrics["coco_ap"], ends, note if metrics["coco_ap"] >= 0 else ""))
    return tiles


def box_sections(boxes: BoxEvaluation, main: bool) -> list[str | Figure]:
    """The table of findings and the figures; where boxes are what the report is about also single errors."""
    sections: list[str | Figure] = [_findings_section(boxes, "Findings" if main else "Boxes"), *_figures(boxes, main)]
    if main:
        matches = match_boxes(boxes.alignment.truth, boxes.alignment.predictions)
        sections += [_false_positives_section(boxes, matches), _misses_section(boxes, matches)]
    return sections


def box_method(boxes: BoxEvaluation) -> str:
    """How the numbers are computed, in HTML paragraphs."""
    said = (
        "<p>AP is that of PASCAL VOC 2010: all-point interpolation, a prediction being right if its IoU with the truth "
        "box of the same finding that it overlaps most is greater than 0.4 and no stronger prediction has taken that "
        "box. Findings without a box in the truth have no AP and are left out of the means.</p>"
    )
    if "map40_kaggle" in boxes.metrics:
        said += (
            f"<p>Kaggle's mean takes “{NO_FINDING_NAME}” (category {NO_FINDING_CATEGORY}) as a fifteenth class, with "
            "the unit box as the truth of each radiograph without findings.</p>"
        )
    if "coco_ap" in boxes.metrics:
        said += "<p>COCO AP is the mean over IoU 0.50 to 0.95, as in pycocotools, with all predictions of an image.</p>"
    return said


def _figures(boxes: BoxEvaluation, main: bool) -> list[Figure]:
    of_boxes = "" if main else " of the boxes"
    return [
        Figure(
            "precision_recall.png",
            f"Precision and recall{of_boxes}",
            "The line is the precision after each prediction, from the highest score down; the area is the AP.",
            partial(precision_recall_figure, boxes),
        ),
        Figure(
            "froc.png",
            f"Free-response ROC{of_boxes}",
            "Share of the findings that are found, against false positives per image; dots from ⅛ to 8."
            + (" In grey, all findings together." if len(boxes.metrics["ap40"]) > 1 else ""),
            partial(froc_figure, boxes),
        ),
        Figure(
            "scores.png",
            f"Scores{of_boxes}",
            "Number of true and false positives by score, on a logarithmic axis.",
            partial(score_figure, boxes),
        ),
    ]


def _findings_section(boxes: BoxEvaluation, title: str) -> str:
    alignment, metrics, truth = boxes.alignment, boxes.metrics, boxes.alignment.truth
    intervals, baselines = metrics.get("ap40_ci95"), metrics.get("baseline_ap40")
    head = ["Finding", "#Radiographs", "#Boxes", "#AP", *(["#95 % interval"] if intervals else []), ""]
    head += ["#Mean box"] if baselines else []
    head += ["#Sens. at ½ FP", "#at 2 FP", "#at 8 FP"]
    rows = []
    for label, name in alignment.categories.items():
        mine = truth.labels == label
        ap, ends = metrics["ap40"].get(name, math.nan), (intervals or {}).get(name)
        baseline = (baselines or {}).get(name, math.nan)
        rate = metrics["sensitivity_at_fp"].get(name, {})
        row = [parts.name(name), f"{len(np.unique(truth.images[mine])):,}", f"{mine.sum():,}", parts.number(ap)]
        row += [*([parts.interval(ends) or DASH] if intervals else []), parts.bar(ap, ends, baseline)]
        row += [parts.number(baseline)] if baselines else []
        rows.append(row + [parts.number(rate.get(at, math.nan), 2) for at in ("0.5", "2", "8")])
    mean = [parts.name("Mean of the findings"), "", f"{len(truth):,}", parts.number(metrics["map40"])]
    mean += [parts.interval(metrics.get("map40_ci95")) or DASH] if intervals else []
    mean += [parts.bar(metrics["map40"], metrics.get("map40_ci95"), metrics.get("baseline_map40", math.nan))]
    mean += [parts.number(metrics["baseline_map40"])] if baselines else []
    rows.append([*mean, "", "", ""])
    if "ap40_no_finding" in metrics:
        n_normal = len(alignment) - len(np.unique(truth.images))
        ends = metrics.get("ap40_no_finding_ci95")
        normal = [NO_FINDING_NAME, f"{n_normal:,}", f"{n_normal:,}", parts.number(metrics["ap40_no_finding"])]
        normal += [parts.interval(ends) or DASH] if intervals else []
        normal += [parts.bar(metrics["ap40_no_finding"], ends), *([DASH] if baselines else []), "", "", ""]
        rows.append(normal)
    hint = "AP is the average precision at IoU &gt; 0.4; FP are false positives per image."
    if intervals:
        hint += " The thin line on a bar is its 95 % interval."
    if baselines:
        hint += " The mark is the AP of predicting every finding's mean box on every radiograph."
    return parts.section(title, hint, parts.table(head, rows, mean_row=len(alignment.categories)))


def _false_positives_section(boxes: BoxEvaluation, matches: Matches) -> str:
    """The highest-scored predictions that are wrong, and in what way."""
    alignment, predictions = boxes.alignment, boxes.alignment.predictions
    wrong = matches.order[~matches.is_true[matches.order]]
    wrong = wrong[np.isin(predictions.labels[wrong], list(alignment.categories))]
    rows = [
        [
            parts.image(alignment, int(predictions.images[row])),
            parts.name(alignment.categories[int(predictions.labels[row])]),
            f"{predictions.scores[row]:.3f}",
            parts.box(predictions.boxes[row]),
            parts.text(_why_wrong(boxes, matches, int(row))),
        ]
        for row in wrong[:MOST_LISTED]
    ]
    hint = f"{parts.shown(len(rows), len(wrong))} from the highest score down."
    head = ["Radiograph", "Finding", "#Score", "Box (x1, y1, x2, y2)", "What is there"]
    return parts.section("Strongest false positives", hint, parts.table(head, rows))


def _why_wrong(boxes: BoxEvaluation, matches: Matches, row: int) -> str:
    predictions, truth = boxes.alignment.predictions, boxes.alignment.truth
    here = np.flatnonzero(truth.images == predictions.images[row])
    if len(here) == 0:
        return "a radiograph without findings"
    if matches.iou[row] > IOU_THRESHOLD:
        return "a finding that a stronger box had found"
    overlaps = box_iou(predictions.boxes[row], truth.boxes[here])[0]
    best = int(overlaps.argmax())
    if overlaps[best] > IOU_THRESHOLD:
        return f"{boxes.alignment.categories[int(truth.labels[here[best]])]}, IoU {overlaps[best]:.2f}"
    if matches.iou[row] > 0:
        return f"the same finding, but IoU {matches.iou[row]:.2f}"
    return "nothing" if overlaps[best] == 0 else f"nothing above IoU {overlaps[best]:.2f}"


def _misses_section(boxes: BoxEvaluation, matches: Matches) -> str:
    """The truth boxes that no prediction finds, then those that only a low score finds."""
    alignment, truth, predictions = boxes.alignment, boxes.alignment.truth, boxes.alignment.predictions
    found_at = np.full(len(truth), -1.0)
    found = matches.found_by >= 0
    found_at[found] = predictions.scores[matches.found_by[found]]
    share = ((truth.boxes[:, 2:] - truth.boxes[:, :2]) / alignment.sizes[truth.images]).prod(axis=1)
    order = np.lexsort((-share, found_at))
    rows = [
        [
            parts.image(alignment, int(truth.images[row])),
            parts.name(alignment.categories[int(truth.labels[row])]),
            "never" if found_at[row] < 0 else f"{found_at[row]:.3f}",
            parts.percent(share[row]),
            parts.box(truth.boxes[row]),
            parts.text(_instead(boxes, int(row))),
        ]
        for row in order[:MOST_LISTED]
    ]
    never = int((~found).sum())
    hint = (
        f"{never:,} of {len(truth):,} findings are not found at any score. "
        f"{parts.shown(len(rows), len(truth))} from the hardest on, the largest first."
    )
    head = ["Radiograph", "Finding", "#Found at score", "#Of the image", "Box (x1, y1, x2, y2)", "Strongest box on it"]
    return parts.section("Misses", hint, parts.table(head, rows))


def _instead(boxes: BoxEvaluation, row: int) -> str:
    """The strongest prediction of whatever finding that overlaps a truth box enough; otherwise the nearest one."""
    categories, predictions, truth = boxes.alignment.categories, boxes.alignment.predictions, boxes.alignment.truth
    here = np.flatnonzero((predictions.images == truth.images[row]) & np.isin(predictions.labels, list(categories)))
    overlaps = box_iou(truth.boxes[row], predictions.boxes[here])[0]
    enough = np.flatnonzero(overlaps > IOU_THRESHOLD)
    if len(enough) == 0:
        return "none" if overlaps.max(initial=0) == 0 else f"none above IoU {overlaps.max():.2f}"
    best = enough[predictions.scores[here[enough]].argmax()]
    name = categories[int(predictions.labels[here[best]])]
    return f"{name} {predictions.scores[here[best]]:.3f}, IoU {overlaps[best]:.2f}"
