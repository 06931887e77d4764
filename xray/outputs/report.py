"""A page on how good predictions are: one HTML file that needs nothing else, readable on light and dark screens.

Its figures also stand beside it as PNG files.
"""

import datetime
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from string import Template

import numpy as np

from xray import __version__
from xray.data.store import ANNOTATIONS, Store
from xray.evaluation import Evaluation
from xray.outputs import report_parts as parts
from xray.outputs.report_boxes import box_method, box_sections, box_tiles
from xray.outputs.report_figures import DARK, LIGHT, Figure, on_white
from xray.outputs.report_labels import label_method, label_sections, label_tiles
from xray.outputs.report_masks import mask_method, mask_sections, mask_tiles
from xray.outputs.report_parts import section, text

TEMPLATE = Path(__file__).with_name("report.html")
FIGURE_FILES = (
    "precision_recall.png", "froc.png", "scores.png", "dice_histogram.png", "mask_areas.png", "triplet.png", "gate.png",
    "roc.png", "precision_recall_labels.png",
)  # fmt: skip


def write_report(
    path: Path | str, evaluation: Evaluation, store: Store, predictions_name: str, warnings: Sequence[str] = ()
) -> list[Path]:
    """Writes the report, complete or not at all, and its figures beside it; returns the figures' paths.

    Figures of an earlier report there that this one does not have are removed.

    predictions_name: where the predictions came from, as the reader of the report would name it.
    warnings: what the reader should know before believing the numbers, one sentence each.
    """
    path = Path(path)
    title, tiles, sections = _contents(evaluation)
    pages, figures = [], {}
    for part in sections:
        if isinstance(part, Figure):
            light = part.draw(LIGHT)
            figures[part.file] = on_white(light)
            part = parts.figure_section(part, light, part.draw(DARK))
        pages.append(part)
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=title,
        subtitle=f"{text(predictions_name)} against {text(store.path)} · {now}",
        warnings="\n".join(f'<p class="warning">{text(warning)}</p>' for warning in warnings),
        tiles="\n".join([*tiles, _radiographs_tile(evaluation)]),
        sections="\n".join([*pages, _dataset_section(evaluation, store), _method_section(evaluation)]),
        footer=f"Written by xray {__version__}; every number is in metrics.json beside this page.",
    )
    for name in FIGURE_FILES:
        if name in figures:
            _write(path.with_name(name), figures[name])
        else:
            path.with_name(name).unlink(missing_ok=True)
    _write(path, page.encode())
    return [path.with_name(name) for name in figures]


def _contents(evaluation: Evaluation) -> tuple[str, list[str], list[str | Figure]]:
    """Title, tiles and sections; first what the predictions are about: masks, otherwise boxes, otherwise labels."""
    boxes, masks, labels = evaluation.boxes, evaluation.masks, evaluation.labels
    tiles: list[str] = []
    sections: list[str | Figure] = []
    if masks:
        tiles += mask_tiles(masks)
        sections += mask_sections(masks)
    elif boxes:
        tiles += box_tiles(boxes, main=True)
        sections += box_sections(boxes, main=True)
    if labels:
        is_main = not (masks or boxes)
        tiles += label_tiles(labels, is_main)
        sections += label_sections(labels, is_main)
    if masks and boxes:
        sections += box_sections(boxes, main=False)
    title = "Segmentation report" if masks else "Detection report" if boxes else "Classification report"
    return title, tiles, sections


def _radiographs_tile(evaluation: Evaluation) -> str:
    alignment, masks = evaluation.alignment, evaluation.masks
    n = len(alignment)
    if masks:
        note = f"{(masks.true > 0).any(axis=1).sum():,} with a true mask"
    elif evaluation.boxes:
        note = f"{n - len(np.unique(alignment.truth.images)):,} without findings · {len(alignment.truth):,} boxes"
    else:
        patients = {record["patient"] for record in alignment.records if record.get("patient") is not None}
        note = f"{len(patients):,} patients" if patients else ""
    return parts.tile("Radiographs", f"{n:,}", None, note)


def _dataset_section(evaluation: Evaluation, store: Store) -> str:
    alignment = evaluation.alignment
    records, truth, sizes = alignment.records, alignment.truth, alignment.sizes
    patients = {str(record["patient"]) for record in records if record.get("patient") is not None}
    groups = sorted({(record["split"], record["fold"]) for record in records})
    places = ", ".join(split if fold < 0 else f"{split} fold {fold}" for split, fold in groups)
    conversion = store.conversion
    facts = {
        "Dataset": f"{store.path} ({conversion.get('source', 'source not known')})",
        "Fingerprint": f"SHA-256 of {ANNOTATIONS}: {_sha256(store.path / ANNOTATIONS)}",
        "Scored": f"{places}: {len(records):,} of {len(store):,} radiographs",
        "Patients": f"{len(patients):,}" if patients else "not known; each radiograph counts as a patient",
    }
    if evaluation.boxes or len(truth):
        per_image = np.bincount(truth.images, minlength=len(records))
        facts["Radiographs"] = (
            f"{(per_image == 0).sum():,} without findings, {(per_image > 0).sum():,} with {len(truth):,} boxes, at "
            f"most {per_image.max(initial=0)} in one"
        )
    facts["Sizes"] = (
        f"width {parts.spread(sizes[:, 0])}, height {parts.spread(sizes[:, 1])} pixels (least, median, most)"
    )
    if evaluation.boxes:
        facts["Box area"] = _areas(((truth.boxes[:, 2:] - truth.boxes[:, :2]) / sizes[truth.images]).prod(axis=1))
    if evaluation.masks:
        shares = evaluation.masks.true / sizes.prod(axis=1)[:, None]
        facts["Mask area"] = _areas(shares[shares > 0])
    facts["Conversion"] = (
        ", ".join(f"{name} {value}" for name, value in conversion.get("parameters", {}).items()) or "not recorded"
    )
    dropped = conversion.get("dropped", {}).get("counts", {})
    facts["Left out there"] = ", ".join(f"{count:,} × {reason}" for reason, count in dropped.items()) or "nothing"
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in facts.items())
    return section("Dataset", "", f"<dl>{rows}</dl>")


def _areas(shares: np.ndarray) -> str:
    if not len(shares):
        return "none"
    low, median, high = 100 * np.quantile(shares, [0.05, 0.5, 0.95])
    return f"median {median:.1f} % of the radiograph; 5th to 95th percentile {low:.2f}–{high:.1f} %"


def _method_section(evaluation: Evaluation) -> str:
    said = ""
    if evaluation.masks:
        said += mask_method(evaluation.masks)
    if evaluation.labels:
        said += label_method(evaluation.labels)
    if evaluation.boxes:
        said += box_method(evaluation.boxes)
    if any("_ci95" in name for name in evaluation.metrics):
        said += "<p>Intervals are percentiles of a bootstrap that draws patients, with all their radiographs.</p>"
    return section("How this is computed", "", said)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    os.replace(temporary, path)
