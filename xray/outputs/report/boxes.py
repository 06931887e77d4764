"""The report's sections about boxes."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from xray.evaluation.alignment import Alignment
from xray.evaluation.box_matching import IOU_THRESHOLD, Matches, match_boxes
from xray.evaluation.box_metrics import (
    FP_PER_IMAGE,
    FrocCurve,
    Ranked,
    by_category,
    froc_curve,
    precision_recall,
    sensitivity_at,
)
from xray.evaluation.boxes import BoxEvaluation
from xray.findings import NO_FINDING_NAME
from xray.outputs.report import parts as parts
from xray.outputs.report.figures import BLUE, FAINT, ORANGE, panel_grid, thinned
from xray.outputs.report.parts import MOST_LISTED, Bar, Section, Tile, figure
from xray.structures.boxes import box_iou

SCORE_BINS = np.linspace(0, 1, 26)


def box_tiles(boxes: BoxEvaluation) -> list[Tile]:
    """The means."""
    metrics = boxes.metrics
    baseline = metrics.get("baseline_map40", math.nan)
    ratio = f"; the detector reaches {metrics['map40'] / baseline:.1f} ×" if baseline > 0 else ""
    at_ious = f"AP50 {metrics['coco_ap50']:.3f} · AP75 {metrics['coco_ap75']:.3f}" if "coco_ap" in metrics else ""
    return parts.metric_tiles(
        metrics,
        ("map40", "mAP@0.4", "mean over the findings"),
        ("map40_kaggle", "mAP@0.4, Kaggle", "15 classes"),
        ("baseline_map40", "Mean-box baseline", f"mAP@0.4{ratio}"),
        ("coco_ap", "COCO AP", at_ious if metrics.get("coco_ap", -1) >= 0 else ""),
        is_main=True,
    )


def box_sections(boxes: BoxEvaluation, is_main: bool) -> list[Section]:
    """The table of findings and the figures; where boxes are what the report is about also single errors."""
    alignment = boxes.alignment
    of_boxes = "" if is_main else "of the boxes"
    pooled = "In grey, all findings together." if len(boxes.metrics["ap40"]) > 1 else ""
    sections = [
        _findings_section(boxes, is_main),
        figure("precision_recall.png", precision_recall_figure(boxes), of_boxes),
        figure("froc.png", froc_figure(boxes), of_boxes, pooled),
        figure("scores.png", score_figure(boxes), of_boxes),
    ]
    if is_main:
        matches = match_boxes(alignment.truth, alignment.predictions)
        sections += [_false_positives_section(boxes, matches), _misses_section(alignment, matches)]
    return sections


def _findings_section(boxes: BoxEvaluation, is_main: bool) -> Section:
    alignment, metrics, truth = boxes.alignment, boxes.metrics, boxes.alignment.truth
    intervals, baselines = metrics.get("ap40_ci95"), metrics.get("baseline_ap40")

    def row(
        name: str, n_images: str, n_boxes: int, ap: float, ends: list[float] | None, baseline: float = math.nan
    ) -> list[str | Bar]:
        numbers = [f"{n_boxes:,}", parts.number(ap), parts.interval(ends)]
        return [name, n_images, *numbers, Bar(ap, ends, baseline), parts.number(baseline)]

    rows = []
    for label, name in alignment.categories.items():
        images = truth.images[truth.labels == label]
        ap, ends = metrics["ap40"].get(name, math.nan), (intervals or {}).get(name)
        rate = metrics["sensitivity_at_fp"].get(name, {})
        cells = row(name, f"{len(np.unique(images)):,}", len(images), ap, ends, (baselines or {}).get(name, math.nan))
        rows.append(cells + [parts.number(rate.get(at, math.nan), 2) for at in ("0.5", "2", "8")])
    mean, ends = metrics["map40"], metrics.get("map40_ci95")
    baseline = metrics.get("baseline_map40", math.nan)
    rows.append([*row("Mean of the findings", "", len(truth), mean, ends, baseline), "", "", ""])
    if "ap40_no_finding" in metrics:
        n_normal = int(boxes.located.normal.sum())
        ap, ends = metrics["ap40_no_finding"], metrics.get("ap40_no_finding_ci95")
        rows.append([*row(NO_FINDING_NAME, f"{n_normal:,}", n_normal, ap, ends), "", "", ""])
    hint = "AP is the average precision at IoU > 0.4; FP are false positives per image."
    if intervals:
        hint += " The thin line on a bar is its 95 % interval."
    if baselines:
        hint += " The mark is the AP of predicting every finding's mean box on every radiograph."
    if unlocated := metrics.get("n_unlocated"):
        named = ", ".join(f"{name} on {number:,}" for name, number in unlocated.items())
        hint += f" Findings that may be there without a box are not scored: {named} radiographs."
    head = ["!Finding", "#Radiographs", "#Boxes", "#AP", "#95 % interval" if intervals else None, "|"]
    head += ["#Mean box" if baselines else None, "#Sens. at ½ FP", "#at 2 FP", "#at 8 FP"]
    table = parts.table(head, rows, len(alignment.categories))
    return Section("Findings" if is_main else "Boxes", hint, table, is_printed=True)


MISSED = 0.5
"""Score from which a truth box that is found is no miss any more."""


def false_positives(alignment: Alignment, matches: Matches) -> np.ndarray:
    """Rows of the predictions that are wrong, from the highest score down."""
    wrong = matches.order[~matches.is_true[matches.order]]
    return wrong[np.isin(alignment.predictions.labels[wrong], list(alignment.categories))]


def misses(alignment: Alignment, matches: Matches) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the truth from the hardest on: never found, then found at a low score, the largest first of equals.

    Returns them (M,) and, of each row of the truth, the score at which it is found (-1: never) and its share of the
    radiograph.
    """
    truth = alignment.truth
    found_at = np.append(alignment.predictions.scores, -1.0)[matches.found_by]
    share = ((truth.boxes[:, 2:] - truth.boxes[:, :2]) / alignment.sizes[truth.images]).prod(axis=1)
    return np.lexsort((-share, found_at)), found_at, share


def _false_positives_section(boxes: BoxEvaluation, matches: Matches) -> Section:
    """The highest-scored predictions that are wrong, and in what way."""
    alignment = boxes.alignment
    predictions, wrong = alignment.predictions, false_positives(alignment, matches)
    rows = [
        [
            parts.source_id(alignment, predictions.images[row]),
            alignment.categories[predictions.labels[row]],
            f"{predictions.scores[row]:.3f}",
            parts.box(predictions.boxes[row]),
            _why_wrong(boxes, matches, row),
        ]
        for row in wrong[:MOST_LISTED]
    ]
    hint = f"{parts.shown(len(rows), len(wrong))} from the highest score down."
    head = ["@Radiograph", "!Finding", "#Score", "~Box (x1, y1, x2, y2)", "What is there"]
    return Section("Strongest false positives", hint, parts.table(head, rows))


def _why_wrong(boxes: BoxEvaluation, matches: Matches, row: int) -> str:
    alignment = boxes.alignment
    predictions, truth = alignment.predictions, alignment.truth
    here = np.flatnonzero(truth.images == predictions.images[row])
    if len(here) == 0:
        is_known = boxes.located.normal[predictions.images[row]]
        return "a radiograph without findings" if is_known else "a radiograph without a box"
    if matches.iou[row] > IOU_THRESHOLD:
        return "a finding that a stronger box had found"
    overlaps = box_iou(predictions.boxes[row], truth.boxes[here])[0]
    best = overlaps.argmax()
    if overlaps[best] > IOU_THRESHOLD:
        return f"{alignment.categories[truth.labels[here[best]]]}, IoU {overlaps[best]:.2f}"
    if matches.iou[row] > 0:
        return f"the same finding, but IoU {matches.iou[row]:.2f}"
    return "nothing" if overlaps[best] == 0 else f"nothing above IoU {overlaps[best]:.2f}"


def _misses_section(alignment: Alignment, matches: Matches) -> Section:
    """The truth boxes that no prediction finds, then those that only a low score finds."""
    truth = alignment.truth
    order, found_at, share = misses(alignment, matches)
    missed = order[found_at[order] < MISSED]
    rows = [
        [
            parts.source_id(alignment, truth.images[row]),
            alignment.categories[truth.labels[row]],
            "never" if found_at[row] < 0 else f"{found_at[row]:.3f}",
            parts.percent(share[row]),
            parts.box(truth.boxes[row]),
            _strongest_on(alignment, row),
        ]
        for row in missed[:MOST_LISTED]
    ]
    n_never = int((found_at < 0).sum())
    hint = (
        f"{n_never:,} of {len(truth):,} findings are not found at any score, {len(missed) - n_never:,} at scores under "
        f"{MISSED:g} only. {parts.shown(len(rows), len(missed))} from the hardest on, the largest first."
    )
    head = ["@Radiograph", "!Finding", "#Found at score", "#Of the image", "~Box (x1, y1, x2, y2)"]
    return Section("Misses", hint, parts.table([*head, "Strongest box on it"], rows))


def _strongest_on(alignment: Alignment, row: int) -> str:
    """The strongest prediction of any finding that overlaps a truth box enough; otherwise the nearest one."""
    categories, predictions, truth = alignment.categories, alignment.predictions, alignment.truth
    here = np.flatnonzero((predictions.images == truth.images[row]) & np.isin(predictions.labels, list(categories)))
    overlaps = box_iou(truth.boxes[row], predictions.boxes[here])[0]
    enough = np.flatnonzero(overlaps > IOU_THRESHOLD)
    if len(enough) == 0:
        return "none" if overlaps.max(initial=0) == 0 else f"none above IoU {overlaps.max():.2f}"
    best = enough[predictions.scores[here[enough]].argmax()]
    name = categories[predictions.labels[here[best]]]
    return f"{name} {predictions.scores[here[best]]:.3f}, IoU {overlaps[best]:.2f}"


def panels(boxes: BoxEvaluation) -> list[Ranked]:
    """The findings that occur in the truth or in the predictions, "No finding" last where it is scored."""
    alignment = boxes.alignment
    tables = (alignment.truth, alignment.predictions)
    ranked = by_category(*tables, len(alignment), alignment.categories, boxes.located)
    return [one for one in ranked if one.n_truth or len(one.scores)]


def precision_recall_figure(boxes: BoxEvaluation) -> bytes:
    """Precision over recall for each finding in the truth, with the envelope whose area is the AP → PNG."""
    aps = {**boxes.metrics["ap40"], NO_FINDING_NAME: boxes.metrics.get("ap40_no_finding", math.nan)}

    def draw(axes: Axes, panel: Ranked) -> None:
        precision, recall = precision_recall(panel.is_true, panel.n_truth)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        recall, precision, envelope = thinned(recall, precision, envelope)
        # The envelope is 0 beyond the highest recall reached.
        x = np.concatenate([[0], recall, recall[-1:], [1]])
        y = np.concatenate([envelope[:1], envelope, [0], [0]]) if len(envelope) else np.zeros(len(x))
        axes.fill_between(x, y, step="pre", color=BLUE, alpha=0.18, linewidth=0)
        axes.plot(recall, precision, color=BLUE, linewidth=1.3)
        axes.set(xlim=(0, 1), ylim=(0, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        # Where the curve is not: a good one leaves its lower left corner free, a poor one the upper right.
        ap = aps[panel.name]
        right, up, side = (0.05, 0.07, "left") if ap > 0.5 else (0.97, 0.88, "right")
        axes.text(right, up, f"AP {ap:.2f}", fontsize=8.5, ha=side)

    return panel_grid([(panel.name, panel) for panel in panels(boxes) if panel.n_truth], "recall", "precision", draw)


def froc_figure(boxes: BoxEvaluation) -> bytes:
    """Sensitivity over false positives an image for each finding in the truth, all of them pooled first → PNG."""
    findings = [panel for panel in panels(boxes) if panel.n_truth and panel.name in boxes.metrics["ap40"]]
    # All findings as one: a false positive of any finding counts, divided by the radiographs on which that is scored.
    columns = ([getattr(one, name) for one in findings] for name in ("is_true", "scores", "images", "truth_images"))
    is_true, scores, images, truth_images = (np.concatenate([np.zeros(0, int), *parts]) for parts in columns)
    order = np.argsort(-scores, kind="stable")
    n_images = np.repeat([one.n_images for one in findings], [len(one.scores) for one in findings])
    pooled = Ranked(0, "All findings", is_true[order], scores[order], images[order], truth_images, len(boxes.alignment))
    is_even = boxes.located.is_whole
    of_pooled = pooled.n_images if is_even else n_images[order]
    pooled_curve = froc_curve(pooled.is_true, pooled.scores, pooled.n_truth, of_pooled)

    def draw(axes: Axes, panel: Ranked) -> None:
        curve = froc_curve(panel.is_true, panel.scores, panel.n_truth, panel.n_images)
        if panel is pooled:
            curve = pooled_curve
        if panel is not pooled and len(findings) > 1:
            _step(axes, pooled_curve, FAINT, 0.9)
        _step(axes, curve, BLUE, 1.5)
        axes.plot(FP_PER_IMAGE, [sensitivity_at(curve, rate) for rate in FP_PER_IMAGE], "o", color=BLUE, markersize=2.8)
        axes.set_xscale("log", base=2)
        axes.set(xlim=(0.1, 9), ylim=(0, 1.03), yticks=(0, 0.5, 1))
        axes.xaxis.set_major_locator(FixedLocator([0.125, 0.5, 2, 8]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels(["⅛", "½", "2", "8"])

    drawn = [pooled, *findings] if len(findings) != 1 else findings
    return panel_grid([(panel.name, panel) for panel in drawn], "false positives per image", "sensitivity", draw)


def _step(axes: Axes, curve: FrocCurve, colour: str, width: float) -> None:
    rate, sensitivity = curve.fp_per_image.clip(1e-9), curve.sensitivity
    rate, sensitivity = thinned(rate, sensitivity, along=(np.log2(rate) + 4) / 8)
    x = np.concatenate([[1e-9], rate, [1e9]])
    y = np.concatenate([[0], sensitivity, sensitivity[-1:] if len(sensitivity) else [0]])
    axes.step(x, y, where="post", color=colour, linewidth=width)


def score_figure(boxes: BoxEvaluation) -> bytes:
    """How many true and false positives have which score, for each finding; counts on a logarithmic axis → PNG."""

    def draw(axes: Axes, panel: Ranked) -> None:
        for rows, colour, label in ((~panel.is_true, ORANGE, "false"), (panel.is_true, BLUE, "true")):
            counts, _ = np.histogram(panel.scores[rows], SCORE_BINS)
            axes.stairs(counts, SCORE_BINS, color=colour, linewidth=1.3, label=label, baseline=0.7)
            axes.stairs(counts, SCORE_BINS, color=colour, alpha=0.15, fill=True, baseline=0.7)
        axes.set_yscale("log")
        axes.set(xlim=(0, 1), xticks=(0, 0.5, 1))
        axes.set_ylim(0.7, max(12, 2 * axes.get_ylim()[1]))
        axes.yaxis.set_minor_locator(NullLocator())

    return panel_grid([(panel.name, panel) for panel in panels(boxes)], "score", "boxes", draw, legend=True)
