"""Numbers beside the metrics of an evaluation: the dataset, calibration, confusion between findings, and groups."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from xray.datasets.fingerprint import fingerprint
from xray.datasets.store import Store
from xray.evaluation.calibration import Calibration, Outcomes, calibrate
from xray.evaluation.confusion import Confusion, confusion
from xray.evaluation.evaluate import Evaluation
from xray.evaluation.resampling import draw_patients
from xray.evaluation.subgroups import Group, subgroups
from xray.evaluation.thresholds import calibrations, scored_boxes, scored_label
from xray.structures.triplet import LEVELS

ALL_FINDINGS = "All findings"


@dataclasses.dataclass(frozen=True)
class Assessment:
    """Parts that are not defined are None or empty.

    dataset, scored: `fingerprint` of the whole and of the radiographs that were scored.
    boxes: calibration of scores as the chance that a box is right, all findings first, each by its own fit.
    labels: of a radiograph's score as the chance that it shows the label. Both are calibrated as `evaluate --fit` does.
    pixels: of probability maps, by a temperature alone.
    """

    dataset: dict[str, Any]
    scored: dict[str, Any]
    boxes: tuple[Calibration, ...]
    labels: tuple[Calibration, ...]
    pixels: tuple[Calibration, ...]
    confusion: Confusion | None
    groups: tuple[Group, ...]

    @property
    def metrics(self) -> dict[str, Any]:
        """The part of metrics.json about this assessment."""
        kinds = {"boxes": self.boxes, "labels": self.labels, "pixels": self.pixels}
        metrics: dict[str, Any] = {"fingerprint": {"dataset": self.dataset, "scored": self.scored}}
        calibration = {kind: {one.name: one.metrics for one in several} for kind, several in kinds.items() if several}
        if calibration:
            metrics["calibration"] = calibration
        if self.confusion:
            metrics["confusion"] = self.confusion.metrics
        for group in self.groups:
            metrics.setdefault("subgroups", {}).setdefault(group.attribute, {})[group.name] = group.numbers
        return metrics

    def calibration_lines(self) -> Iterator[str]:
        """A sentence about each kind of score: of all findings together, or the mean over them."""
        kinds = {"boxes": self.boxes, "labels": self.labels, "pixels": self.pixels}
        for kind, several in kinds.items():
            names = [one.name for one in several]
            chosen = several[:1] if names[:1] == [ALL_FINDINGS] else several
            if not chosen:
                continue
            of = chosen[0].name if len(chosen) == 1 else f"mean of {len(chosen)}"
            before = sum(one.before.ece for one in chosen) / len(chosen)
            after = [one.after.ece for one in chosen if one.after]
            line = f"expected calibration error (ECE) of {kind}, {of}: {before:.4f}"
            if len(chosen) > 1:
                worst = max(chosen, key=lambda one: one.before.ece)
                line += f", largest {worst.before.ece:.4f} ({worst.name})"
            if len(after) == len(chosen):
                how = "by temperature" if kind == "pixels" else "as --fit does"
                line += f"; {sum(after) / len(after):.4f} calibrated {how} (cross-fitted by patient)"
            yield line


def assess(store: Store, evaluation: Evaluation, n_resamples: int = 0, box_threshold: float = 0.3) -> Assessment:
    """The whole assessment. n_resamples: of the patients; 0 leaves intervals out. box_threshold: the score from which a
    box counts in the confusion."""
    alignment = evaluation.alignment
    times = draw_patients(alignment.patients, n_resamples) if n_resamples else None
    curves = evaluation.labels.curves if evaluation.labels else ()
    by_label = [dataclasses.replace(scored_label(evaluation, one.label), name=one.label.full_name) for one in curves]
    boxes = calibrations(list(scored_boxes(evaluation)), ALL_FINDINGS, times)
    labels = calibrations(by_label, times=times)
    pixels = [one for name, outcomes in _pixel_outcomes(evaluation) if (one := calibrate(name, outcomes, times))]
    boxes_of = evaluation.boxes.alignment if evaluation.boxes and len(alignment.categories) > 1 else None
    return Assessment(
        fingerprint(store),
        fingerprint(store, alignment.rows),
        tuple(boxes),
        tuple(labels),
        tuple(pixels),
        confusion(boxes_of.truth, boxes_of.predictions, boxes_of.categories, box_threshold) if boxes_of else None,
        tuple(subgroups(evaluation, n_resamples)),
    )


def _pixel_outcomes(evaluation: Evaluation) -> Iterator[tuple[str, Outcomes]]:
    """Outcomes of the pixels of each mask with a probability map; every radiograph has the same weight, whatever its
    number of pixels."""
    if evaluation.masks is None or evaluation.cache is None or not len(evaluation.mapped):
        return
    # Pixels and true pixels at or over each level → at it.
    counts = -np.diff(evaluation.cache.counts.astype(np.int64), axis=2)
    counts = counts.reshape(len(evaluation.alignment), len(evaluation.mapped), 2, len(LEVELS))
    masks = evaluation.masks
    for number, (label, name) in enumerate(evaluation.mapped.items()):
        counted = masks.counted[:, list(masks.categories).index(label)]
        patients = np.repeat(evaluation.alignment.patients[counted], len(LEVELS))
        pixels, true = counts[counted, number, 0], counts[counted, number, 1]
        weights = pixels / pixels.sum(axis=1, keepdims=True)
        share = np.divide(true, pixels, out=np.zeros(pixels.shape), where=pixels > 0)
        yield name, Outcomes.of(np.tile(LEVELS, len(pixels)), share.ravel(), patients, weights.ravel())
