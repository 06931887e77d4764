"""A page on how good predictions are: one HTML file that needs nothing else, readable on light and dark screens.

Beside it stand the same page as Markdown, and its figures as PNG files.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from xray.datasets.store import Store
from xray.evaluation import calibration
from xray.evaluation.assess import Assessment, assess
from xray.evaluation.evaluate import Evaluation
from xray.outputs.report import parts as parts
from xray.outputs.report.boxes import box_sections, box_tiles
from xray.outputs.report.calibration import calibration_sections
from xray.outputs.report.galleries import Pixels, galleries
from xray.outputs.report.groups import confusion_sections, group_facts, group_sections
from xray.outputs.report.labels import label_sections, label_tiles
from xray.outputs.report.masks import mask_sections, mask_tiles
from xray.outputs.report.page import Page, method_paragraphs, write_page
from xray.outputs.report.parts import Section, Tile
from xray.outputs.report.training import training_sections


def write_report(
    path: Path | str,
    evaluation: Evaluation,
    store: Store,
    predictions_name: str,
    warnings: Sequence[str] = (),
    assessment: Assessment | None = None,
    curves: pd.DataFrame | None = None,
    pixels: Pixels | None = None,
) -> Page:
    """Writes the report, as HTML and as Markdown, and its figures beside it; returns its content.

    Each file is complete or not there. Figures of an earlier report there that this one does not have are removed.

    predictions_name: where the predictions came from, as the reader of the report would name it.
    warnings: what the reader should know before believing the numbers, one sentence each.
    assessment: of the evaluation; made here, without intervals, where it is not given.
    curves: `read_curves` of the run that the predictions are of.
    pixels: the radiographs, for pictures of single errors.
    """
    assessment = assessment or assess(store, evaluation)
    boxes, masks, labels = evaluation.boxes, evaluation.masks, evaluation.labels
    tiles: list[Tile] = []
    sections: list[Section] = []
    # First what the predictions are about: masks, otherwise boxes, otherwise labels.
    if masks:
        tiles, sections = mask_tiles(masks), mask_sections(masks)
    elif boxes:
        tiles, sections = box_tiles(boxes), box_sections(boxes, is_main=True)
    pictures = galleries(evaluation, pixels) if pixels else []
    sections += pictures if masks or boxes else []
    if labels:
        is_main = not (masks or boxes)
        tiles += label_tiles(labels, is_main)
        sections += label_sections(labels, is_main) + (pictures if is_main else [])
    if masks and boxes:
        sections += box_sections(boxes, is_main=False)
    has_intervals = any("_ci95" in name for name in evaluation.metrics)
    method = method_paragraphs(
        masks=masks, labels=labels, boxes=boxes, assessment=assessment, calibration=calibration,
        has_intervals=has_intervals,
    )  # fmt: skip
    page = Page(
        "Segmentation report" if masks else "Detection report" if boxes else "Classification report",
        f"{predictions_name} against {store.path.absolute().name}",
        warnings,
        [*tiles, Tile("Radiographs", f"{len(evaluation.alignment):,}", _radiographs_note(evaluation))],
        [
            *sections,
            *confusion_sections(assessment.confusion),
            *calibration_sections(assessment),
            *group_sections(assessment.groups),
            *training_sections(curves),
            _dataset_section(evaluation, store, assessment),
            Section("How this is computed", paragraphs=method),
        ],
    )
    return write_page(Path(path), page)


def _radiographs_note(evaluation: Evaluation) -> str:
    alignment, masks = evaluation.alignment, evaluation.masks
    if masks:
        return f"{(masks.true > 0).any(axis=1).sum():,} with a true mask"
    if evaluation.boxes:
        n_normal, n_boxes = int(evaluation.boxes.located.normal.sum()), len(evaluation.boxes.alignment.truth)
        return f"{n_normal:,} without findings · {n_boxes:,} boxes"
    patients = {record["patient"] for record in alignment.records if record.get("patient") is not None}
    return f"{len(patients):,} patients" if patients else ""


def _dataset_section(evaluation: Evaluation, store: Store, assessment: Assessment) -> Section:
    alignment = evaluation.alignment
    records, truth, sizes = alignment.records, alignment.truth, alignment.sizes
    patients = {str(record["patient"]) for record in records if record.get("patient") is not None}
    groups = sorted({(record["split"], record["fold"]) for record in records})
    places = ", ".join(split if fold < 0 else f"{split} fold {fold}" for split, fold in groups)
    conversion, whole = store.conversion, assessment.dataset
    n_unknown = assessment.scored["n_without_patient"]
    of_patients = f"{len(patients):,}" if patients else "not known; each radiograph counts as a patient"
    if patients and n_unknown:
        of_patients += f"; {n_unknown:,} radiographs of unknown ones, which count as patients of their own"
    in_all = f"{whole['n_images']:,} radiographs, {whole['n_boxes']:,} boxes"
    in_all += f", {whole['n_masks']:,} masks" if whole["n_masks"] else ""
    in_all += f", {whole['n_patients']:,} patients" if whole["n_patients"] else ""
    facts = {
        "Dataset": f"{store.path.absolute().name} ({conversion.get('source', 'source not known')}): {in_all}",
        "Annotations": f"SHA-256 {whole['annotations_sha256']}",
        "Split": f"SHA-256 {whole['split_sha256']}",
        "Scored": f"{places}: {len(records):,} of {len(store):,} radiographs",
        "Their annotations": f"SHA-256 {assessment.scored['annotations_sha256']}",
        "Patients": of_patients,
    }
    if evaluation.boxes or len(truth):
        per_image = np.bincount(truth.images, minlength=len(records))
        n_unlocated = int(store.unlocated[alignment.rows].any(axis=1).sum())
        of_boxes = f"boxes ({n_unlocated:,} may have findings without one)" if n_unlocated else "findings"
        facts["Radiographs"] = (
            f"{(per_image == 0).sum():,} without {of_boxes}, {(per_image > 0).sum():,} with {len(truth):,} boxes, at "
            f"most {per_image.max(initial=0)} in one"
        )
    facts["Sizes"] = (
        f"width {parts.spread(sizes[:, 0])}, height {parts.spread(sizes[:, 1])} pixels (least, median, most)"
    )
    if evaluation.boxes:
        facts["Box area"] = _areas(((truth.boxes[:, 2:] - truth.boxes[:, :2]) / sizes[truth.images]).prod(axis=1))
    if evaluation.masks:
        shares = evaluation.masks.shares(evaluation.masks.true)
        facts["Mask area"] = _areas(shares[shares > 0])
    facts["Conversion"] = (
        ", ".join(f"{name} {value}" for name, value in conversion.get("parameters", {}).items()) or "not recorded"
    )
    dropped = conversion.get("dropped", {}).get("counts", {})
    facts["Left out there"] = ", ".join(f"{count:,} × {reason}" for reason, count in dropped.items()) or "nothing"
    hint = "The hashes are over what is annotated and how it is split, not over files: they are the same anywhere."
    return Section("Dataset", hint, facts={**facts, **group_facts(assessment.groups)})


def _areas(shares: np.ndarray) -> str:
    if not len(shares):
        return "none"
    low, median, high = 100 * np.quantile(shares, [0.05, 0.5, 0.95])
    return f"median {median:.1f} % of the radiograph; 5th to 95th percentile {low:.2f}–{high:.1f} %"
