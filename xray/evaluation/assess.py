"""What an evaluation says beyond its metrics: the dataset, calibration, confusion between findings, and groups."""

import dataclasses
from typing import Any

import numpy as np

from xray.datasets.fingerprint import fingerprint
from xray.datasets.store import Store
from xray.evaluation.box_metrics import match_boxes
from xray.evaluation.calibration import Calibration, Outcomes, calibrate
from xray.evaluation.confusion import Confusion, confusion
from xray.evaluation.evaluate import Evaluation
from xray.evaluation.resampling import draw_patients
from xray.evaluation.subgroups import Group, group_metrics, subgroups
from xray.structures.triplet import LEVELS

ALL_FINDINGS = "All findings"


@dataclasses.dataclass(frozen=True)
class Assessment:
    """Parts that are not defined are None or empty.

    dataset, scored: `fingerprint` of the whole and of the radiographs that were scored.
    boxes: calibration of scores as the chance that a box is right, all findings first.
    labels: of a radiograph's score as the chance that it shows the label. pixels: of probability maps.
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
        """What metrics.json says of it."""
        kinds = {"boxes": self.boxes, "labels": self.labels, "pixels": self.pixels}
        found: dict[str, Any] = {"fingerprint": {"dataset": self.dataset, "scored": self.scored}}
        calibration = {kind: {one.name: one.metrics for one in several} for kind, several in kinds.items() if several}
        if calibration:
            found["calibration"] = calibration
        if self.confusion:
            found["confusion"] = self.confusion.metrics
        if self.groups:
            found["subgroups"] = group_metrics(list(self.groups))
        return found


def assess(store: Store, evaluation: Evaluation, n_resamples: int = 0, box_threshold: float = 0.3) -> Assessment:
    """All of it. n_resamples: of the patients, 0 leaves intervals out. box_threshold: of boxes in the confusion."""
    alignment = evaluation.alignment
    times = draw_patients(alignment.patients, n_resamples) if n_resamples else None
    is_confusable = evaluation.boxes is not None and len(alignment.categories) > 1
    return Assessment(
        fingerprint(store),
        fingerprint(store, alignment.rows),
        tuple(_box_calibrations(evaluation, times)),
        tuple(_label_calibrations(evaluation, times)),
        tuple(_pixel_calibrations(evaluation, times)),
        confusion(alignment.truth, alignment.predictions, alignment.categories, box_threshold)
        if is_confusable
        else None,
        tuple(subgroups(evaluation, n_resamples)),
    )


def _box_calibrations(evaluation: Evaluation, times: np.ndarray | None) -> list[Calibration]:
    if evaluation.boxes is None:
        return []
    alignment = evaluation.alignment
    predictions = alignment.predictions
    is_true = match_boxes(alignment.truth, predictions).is_true
    patients = alignment.patients[predictions.images]
    known = np.isin(predictions.labels, list(alignment.categories))
    chosen = {ALL_FINDINGS: known} if len(alignment.categories) > 1 else {}
    chosen |= {name: predictions.labels == label for label, name in alignment.categories.items()}
    found = [
        calibrate(name, Outcomes.of(predictions.scores[rows], is_true[rows], patients[rows]), times)
        for name, rows in chosen.items()
    ]
    return [one for one in found if one]


def _label_calibrations(evaluation: Evaluation, times: np.ndarray | None) -> list[Calibration]:
    if evaluation.labels is None:
        return []
    found = []
    for curve in evaluation.labels.curves:
        label = curve.label
        name = f"{label.name} (classifier)" if label.origin == "classifier" else label.name
        outcomes = Outcomes.of(label.scores, label.truth, evaluation.alignment.patients)
        found.append(calibrate(name, outcomes, times))
    return [one for one in found if one]


def _pixel_calibrations(evaluation: Evaluation, times: np.ndarray | None) -> list[Calibration]:
    """Of each mask with a probability map; every radiograph weighs the same, whatever its number of pixels."""
    if evaluation.masks is None or evaluation.cache is None or not len(evaluation.mapped):
        return []
    # Pixels and true pixels at or over each level → at it.
    counts = -np.diff(evaluation.cache.counts().astype(np.int64), axis=2)
    counts = counts.reshape(len(evaluation.alignment), len(evaluation.mapped), 2, len(LEVELS))
    patients = np.repeat(evaluation.alignment.patients, len(LEVELS))
    found = []
    for number, name in enumerate(evaluation.mapped.values()):
        pixels, true = counts[:, number, 0], counts[:, number, 1]
        weights = pixels / pixels.sum(axis=1, keepdims=True)
        share = np.divide(true, pixels, out=np.zeros(pixels.shape), where=pixels > 0)
        levels = np.tile(LEVELS, len(pixels))
        found.append(calibrate(name, Outcomes.of(levels, share.ravel(), patients, weights.ravel()), times))
    return [one for one in found if one]
