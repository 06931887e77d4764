"""A page on how well a detector did: one HTML file that needs nothing else, readable on light and dark screens."""

import base64
import datetime
import hashlib
import html
import math
import os
from collections.abc import Sequence
from pathlib import Path
from string import Template

import numpy as np

from xray import __version__
from xray.data.boxes import box_iou
from xray.data.predictions import NO_FINDING_CATEGORY
from xray.data.store import ANNOTATIONS, Store
from xray.detection.evaluation import Evaluation
from xray.detection.metrics import IOU_THRESHOLD, Matches, match_boxes
from xray.findings import NO_FINDING_NAME
from xray.outputs.report_figures import DARK, LIGHT, froc_figure, precision_recall_figure, score_figure

TEMPLATE = Path(__file__).with_name("report.html")
MOST_LISTED = 25
DASH = '<span class="dim">–</span>'


def write_report(
    path: Path | str, evaluation: Evaluation, store: Store, predictions_name: str, warnings: Sequence[str] = ()
) -> None:
    """Writes the report, complete or not at all.

    predictions_name: where the predictions came from, as the reader of the report would name it.
    warnings: what the reader should know before believing the numbers, one sentence each.
    """
    path = Path(path)
    matches = match_boxes(evaluation.truth, evaluation.predictions)
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title="Detection report",
        subtitle=f"{_text(predictions_name)} against {_text(store.path)} · {now}",
        warnings="\n".join(f'<p class="warning">{_text(warning)}</p>' for warning in warnings),
        tiles="\n".join(_tiles(evaluation)),
        sections="\n".join(
            [
                _findings_section(evaluation),
                *_figure_sections(evaluation),
                _false_positives_section(evaluation, matches),
                _misses_section(evaluation, matches),
                _dataset_section(evaluation, store),
                _method_section(evaluation),
            ]
        ),
        footer=f"Written by xray {__version__}; every number is in metrics.json beside this page.",
    )
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)


def _tiles(evaluation: Evaluation) -> list[str]:
    metrics = evaluation.metrics
    tiles = [_tile("mAP@0.4", metrics["map40"], metrics.get("map40_ci95"), "mean over the findings", main=True)]
    if "map40_kaggle" in metrics:
        tiles.append(_tile("mAP@0.4, Kaggle", metrics["map40_kaggle"], metrics.get("map40_kaggle_ci95"), "15 classes"))
    if "baseline_map40" in metrics:
        baseline = metrics["baseline_map40"]
        ratio = metrics["map40"] / baseline if baseline > 0 else math.nan
        note = f"mAP@0.4; the detector reaches {ratio:.1f} ×" if math.isfinite(ratio) else "mAP@0.4"
        tiles.append(_tile("Mean-box baseline", baseline, None, note))
    if "coco_ap" in metrics:
        note = f"AP50 {metrics['coco_ap50']:.3f} · AP75 {metrics['coco_ap75']:.3f}"
        tiles.append(_tile("COCO AP", metrics["coco_ap"], None, note if metrics["coco_ap"] >= 0 else ""))
    n_normal = len(evaluation.rows) - len(np.unique(evaluation.truth.images))
    note = f"{n_normal:,} without findings · {len(evaluation.truth):,} boxes"
    tiles.append(_tile("Radiographs", f"{len(evaluation.rows):,}", None, note))
    return tiles


def _tile(label: str, value: float | str, interval: list[float] | None, note: str, main: bool = False) -> str:
    text = value if isinstance(value, str) else _number(value)
    notes = " · ".join(part for part in (_interval(interval), _text(note)) if part)
    return (
        f'<div class="tile{" main" if main else ""}"><div class="label">{_text(label)}</div>'
        f'<div class="value">{text}</div><div class="note">{notes}</div></div>'
    )


def _findings_section(evaluation: Evaluation) -> str:
    metrics, truth = evaluation.metrics, evaluation.truth
    intervals, baselines = metrics.get("ap40_ci95"), metrics.get("baseline_ap40")
    head = ["Finding", "#Radiographs", "#Boxes", "#AP", *(["#95 % interval"] if intervals else []), ""]
    head += ["#Mean box"] if baselines else []
    head += ["#Sens. at ½ FP", "#at 2 FP", "#at 8 FP"]
    rows = []
    for label, name in evaluation.categories.items():
        mine = truth.labels == label
        ap, interval = metrics["ap40"].get(name, math.nan), (intervals or {}).get(name)
        baseline = (baselines or {}).get(name, math.nan)
        rate = metrics["sensitivity_at_fp"].get(name, {})
        row = [f'<span class="name">{_text(name)}</span>', f"{len(np.unique(truth.images[mine])):,}", f"{mine.sum():,}"]
        row += [_number(ap), *([_interval(interval) or DASH] if intervals else []), _bar(ap, interval, baseline)]
        row += [_number(baseline)] if baselines else []
        rows.append(row + [_number(rate.get(at, math.nan), 2) for at in ("0.5", "2", "8")])
    mean = ['<span class="name">Mean of the findings</span>', "", f"{len(truth):,}", _number(metrics["map40"])]
    mean += [_interval(metrics.get("map40_ci95")) or DASH] if intervals else []
    mean += [_bar(metrics["map40"], metrics.get("map40_ci95"), metrics.get("baseline_map40", math.nan))]
    mean += [_number(metrics["baseline_map40"])] if baselines else []
    rows.append([*mean, "", "", ""])
    if "ap40_no_finding" in metrics:
        n_normal = len(evaluation.rows) - len(np.unique(truth.images))
        interval = metrics.get("ap40_no_finding_ci95")
        normal = [NO_FINDING_NAME, f"{n_normal:,}", f"{n_normal:,}", _number(metrics["ap40_no_finding"])]
        normal += [_interval(interval) or DASH] if intervals else []
        normal += [_bar(metrics["ap40_no_finding"], interval, math.nan), *([DASH] if baselines else []), "", "", ""]
        rows.append(normal)
    hint = "AP is the average precision at IoU &gt; 0.4; FP are false positives per image."
    if intervals:
        hint += " The thin line on a bar is its 95 % interval."
    if baselines:
        hint += " The mark is the AP of predicting every finding's mean box on every radiograph."
    mean_row = len(evaluation.categories)
    return _section("Findings", hint, _table(head, rows, mean_row=mean_row))


def _figure_sections(evaluation: Evaluation) -> list[str]:
    figures = (
        (
            "Precision and recall",
            "The line is the precision after each prediction, from the highest score down; the area is the AP.",
            precision_recall_figure,
        ),
        (
            "Free-response ROC",
            "Share of the findings that are found, against false positives per image; dots from ⅛ to 8. In grey, all "
            "findings together.",
            froc_figure,
        ),
        ("Scores", "Number of true and false positives by score, on a logarithmic axis.", score_figure),
    )
    return [_section(title, hint, _picture(draw, evaluation, title)) for title, hint, draw in figures]


def _picture(draw: object, evaluation: Evaluation, title: str) -> str:
    light, dark = draw(evaluation, LIGHT), draw(evaluation, DARK)
    # PNG: the width stands in bytes 16 to 20; figures are drawn with two pixels for one of the page.
    width = int.from_bytes(light[16:20], "big") // 2
    data = [f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in (light, dark)]
    return (
        f'<div class="scroll"><picture><source srcset="{data[1]}" media="(prefers-color-scheme: dark)">'
        f'<img src="{data[0]}" width="{width}" alt="{_text(title)}, one panel for each finding"></picture></div>'
    )


def _false_positives_section(evaluation: Evaluation, matches: Matches) -> str:
    """The highest-scored predictions that are wrong, and in what way."""
    predictions = evaluation.predictions
    wrong = matches.order[~matches.is_true[matches.order]]
    wrong = wrong[np.isin(predictions.labels[wrong], list(evaluation.categories))]
    rows = [
        [
            _image(evaluation, int(predictions.images[row])),
            _name(evaluation, int(predictions.labels[row])),
            f"{predictions.scores[row]:.3f}",
            _box(predictions.boxes[row]),
            _text(_why_wrong(evaluation, matches, int(row))),
        ]
        for row in wrong[:MOST_LISTED]
    ]
    hint = f"{_shown(len(rows), len(wrong))} from the highest score down."
    head = ["Radiograph", "Finding", "#Score", "Box (x1, y1, x2, y2)", "What is there"]
    return _section("Strongest false positives", hint, _table(head, rows) if rows else "<p>There are none.</p>")


def _why_wrong(evaluation: Evaluation, matches: Matches, row: int) -> str:
    predictions, truth = evaluation.predictions, evaluation.truth
    here = np.flatnonzero(truth.images == predictions.images[row])
    if len(here) == 0:
        return "a radiograph without findings"
    if matches.iou[row] > IOU_THRESHOLD:
        return "a finding that a stronger box had found"
    overlaps = box_iou(predictions.boxes[row], truth.boxes[here])[0]
    best = int(overlaps.argmax())
    if overlaps[best] > IOU_THRESHOLD:
        return f"{evaluation.categories[int(truth.labels[here[best]])]}, IoU {overlaps[best]:.2f}"
    if matches.iou[row] > 0:
        return f"the same finding, but IoU {matches.iou[row]:.2f}"
    return "nothing" if overlaps[best] == 0 else f"nothing above IoU {overlaps[best]:.2f}"


def _misses_section(evaluation: Evaluation, matches: Matches) -> str:
    """The truth boxes that no prediction finds, then those that only a low score finds."""
    truth, predictions = evaluation.truth, evaluation.predictions
    found_at = np.full(len(truth), -1.0)
    found = matches.found_by >= 0
    found_at[found] = predictions.scores[matches.found_by[found]]
    sizes = np.array([(record["width"], record["height"]) for record in evaluation.records], dtype=np.float64)
    sides = (truth.boxes[:, 2:] - truth.boxes[:, :2]) / sizes[truth.images]
    share = sides.prod(axis=1)
    order = np.lexsort((-share, found_at))
    rows = [
        [
            _image(evaluation, int(truth.images[row])),
            _name(evaluation, int(truth.labels[row])),
            "never" if found_at[row] < 0 else f"{found_at[row]:.3f}",
            f"{100 * share[row]:.1f} %",
            _box(truth.boxes[row]),
            _text(_instead(evaluation, int(row))),
        ]
        for row in order[:MOST_LISTED]
    ]
    never = int((~found).sum())
    hint = (
        f"{never:,} of {len(truth):,} findings are not found at any score. "
        f"{_shown(len(rows), len(truth))} from the hardest on, the largest first."
    )
    head = ["Radiograph", "Finding", "#Found at score", "#Of the image", "Box (x1, y1, x2, y2)", "Strongest box on it"]
    return _section("Misses", hint, _table(head, rows) if rows else "<p>There are none.</p>")


def _instead(evaluation: Evaluation, row: int) -> str:
    """The strongest prediction of whatever finding that overlaps a truth box enough; otherwise the nearest one."""
    predictions, truth = evaluation.predictions, evaluation.truth
    here = np.flatnonzero(
        (predictions.images == truth.images[row]) & np.isin(predictions.labels, list(evaluation.categories))
    )
    overlaps = box_iou(truth.boxes[row], predictions.boxes[here])[0]
    enough = np.flatnonzero(overlaps > IOU_THRESHOLD)
    if len(enough) == 0:
        return "none" if overlaps.max(initial=0) == 0 else f"none above IoU {overlaps.max():.2f}"
    best = enough[predictions.scores[here[enough]].argmax()]
    name = evaluation.categories[int(predictions.labels[here[best]])]
    return f"{name} {predictions.scores[here[best]]:.3f}, IoU {overlaps[best]:.2f}"


def _dataset_section(evaluation: Evaluation, store: Store) -> str:
    records, truth = evaluation.records, evaluation.truth
    sizes = np.array([(record["width"], record["height"]) for record in records])
    patients = {str(record["patient"]) for record in records if record.get("patient") is not None}
    groups = sorted({(record["split"], record["fold"]) for record in records})
    places = ", ".join(split if fold < 0 else f"{split} fold {fold}" for split, fold in groups)
    per_image = np.bincount(truth.images, minlength=len(records))
    sides = (truth.boxes[:, 2:] - truth.boxes[:, :2]) / sizes[truth.images] if len(truth) else np.zeros((0, 2))
    share = 100 * np.quantile(sides.prod(axis=1), [0.05, 0.5, 0.95]) if len(truth) else None
    conversion = store.conversion
    facts = {
        "Dataset": f"{store.path} ({conversion.get('source', 'source not known')})",
        "Fingerprint": f"SHA-256 of {ANNOTATIONS}: {_sha256(store.path / ANNOTATIONS)}",
        "Scored": f"{places}: {len(records):,} of {len(store):,} radiographs",
        "Patients": f"{len(patients):,}" if patients else "not known; each radiograph counts as a patient",
        "Radiographs": f"{(per_image == 0).sum():,} without findings, {(per_image > 0).sum():,} with "
        f"{len(truth):,} boxes, at most {per_image.max(initial=0)} in one",
        "Sizes": f"width {_range(sizes[:, 0])}, height {_range(sizes[:, 1])} pixels (least, median, most)",
        "Box area": f"median {share[1]:.1f} % of the radiograph; 5th to 95th percentile {share[0]:.2f}–{share[2]:.1f} %"
        if share is not None
        else "no boxes",
        "Conversion": ", ".join(f"{name} {value}" for name, value in conversion.get("parameters", {}).items())
        or "not recorded",
        "Left out there": ", ".join(
            f"{count:,} × {reason}" for reason, count in conversion.get("dropped", {}).get("counts", {}).items()
        )
        or "nothing",
    }
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts.items())
    return _section("Dataset", "", f"<dl>{rows}</dl>")


def _method_section(evaluation: Evaluation) -> str:
    text = (
        "<p>AP is that of PASCAL VOC 2010: all-point interpolation, a prediction being right if its IoU with the truth "
        "box of the same finding that it overlaps most is greater than 0.4 and no stronger prediction has taken that "
        "box. Findings without a box in the truth have no AP and are left out of the means.</p>"
    )
    if "map40_kaggle" in evaluation.metrics:
        text += (
            f"<p>Kaggle's mean takes “{NO_FINDING_NAME}” (category {NO_FINDING_CATEGORY}) as a fifteenth class, with "
            "the unit box as the truth of each radiograph without findings.</p>"
        )
    if "coco_ap" in evaluation.metrics:
        text += "<p>COCO AP is the mean over IoU 0.50 to 0.95, by pycocotools, with all predictions of an image.</p>"
    if "map40_ci95" in evaluation.metrics:
        text += "<p>Intervals are percentiles of a bootstrap that draws patients, with all their radiographs.</p>"
    return _section("How this is computed", "", text)


def _section(title: str, hint: str, body: str) -> str:
    hint = f'<p class="hint">{hint}</p>' if hint else ""
    return f"<section>\n<h2>{_text(title)}</h2>\n{hint}\n{body}\n</section>"


def _table(head: list[str], rows: list[list[str]], mean_row: int = -1) -> str:
    """A table of HTML cells; a heading that starts with # is of a column of numbers."""
    kind = ['class="number"' if name.startswith("#") else "" for name in head]
    heads = "".join(f"<th {how}>{_text(name.removeprefix('#'))}</th>" for name, how in zip(head, kind, strict=True))
    body = "".join(
        ('<tr class="mean">' if number == mean_row else "<tr>")
        + "".join(f"<td {how}>{cell}</td>" for cell, how in zip(row, kind, strict=True))
        + "</tr>\n"
        for number, row in enumerate(rows)
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _bar(value: float, interval: list[float] | None, mark: float) -> str:
    if math.isnan(value):
        return ""
    parts = f'<i style="width:{100 * value:.1f}%"></i>'
    if interval and not math.isnan(interval[0]):
        parts += f'<b style="left:{100 * interval[0]:.1f}%;width:{100 * (interval[1] - interval[0]):.1f}%"></b>'
    if not math.isnan(mark):
        parts += f'<u style="left:{100 * mark:.1f}%"></u>'
    return f'<span class="bar" aria-hidden="true">{parts}</span>'


def _image(evaluation: Evaluation, image: int) -> str:
    return f'<span class="id">{_text(evaluation.records[image]["source_id"])}</span>'


def _name(evaluation: Evaluation, label: int) -> str:
    return f'<span class="name">{_text(evaluation.categories[label])}</span>'


def _box(box: np.ndarray) -> str:
    return f'<span class="name dim">{", ".join(f"{value:.0f}" for value in box)}</span>'


def _shown(n_shown: int, n_all: int) -> str:
    return f"{n_shown:,} of {n_all:,}" if n_shown < n_all else f"All {n_all:,}"


def _number(value: float, digits: int = 3) -> str:
    return DASH if math.isnan(value) else f"{value:.{digits}f}"


def _interval(interval: list[float] | None) -> str:
    return "" if interval is None or math.isnan(interval[0]) else f"{interval[0]:.3f}–{interval[1]:.3f}"


def _range(values: np.ndarray) -> str:
    return f"{values.min()}, {np.median(values):.0f}, {values.max()}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(value: object) -> str:
    return html.escape(str(value))
