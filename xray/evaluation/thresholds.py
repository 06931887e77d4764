"""Fits a calibration and a threshold for each finding, and measures both on patients that they were not fitted on.

The probability of a detection is that it is true at IoU > 0.4 (`match_boxes`); that of a label, that the radiograph
has the finding. Temperature and intercept have the least log loss with the targets of Platt 1999; the threshold is a
point of the FROC curve: of a label it is the ROC curve, with false positives divided by radiographs.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from xray.evaluation.box_matching import match_boxes
from xray.evaluation.box_metrics import froc_curve
from xray.evaluation.calibration import (
    N_BINS,
    N_FOLDS,
    Calibration,
    Outcomes,
    bin_of,
    deal_patients,
    described,
    fit_line,
    fit_of,
    smoothed,
)
from xray.evaluation.evaluate import Evaluation
from xray.evaluation.labels import LabelScores
from xray.evaluation.resampling import draw_patients, percentile_interval, resampled_sums
from xray.structures.thresholds import DECIMALS, OperatingPoint, Point, scale

LEAST = 10
"""How many true and how many false outcomes a fit needs; the true ones in at least N_FOLDS patients."""


@dataclasses.dataclass(frozen=True)
class Scored:
    """The scores of one finding: of detections, or of radiographs.

    scores: (m,) float64 in [0, 1]. is_true: (m,) bool. patients: (m,) int64, in [0, P). truth, images: (P,) float64,
    for each patient the number of true findings, and of radiographs on which the finding is scored.
    """

    name: str
    scores: np.ndarray
    is_true: np.ndarray
    patients: np.ndarray
    truth: np.ndarray
    images: np.ndarray

    def inside(self, chosen: np.ndarray) -> "Scored":
        """The patients for which `chosen`, (P,) bool, holds; they keep their numbers."""
        rows = chosen[self.patients]
        parts = (self.scores[rows], self.is_true[rows], self.patients[rows])
        return Scored(self.name, *parts, np.where(chosen, self.truth, 0), np.where(chosen, self.images, 0))

    @property
    def lack(self) -> str:
        """Why nothing can be fitted, in words; empty where a fit is possible."""
        n_true, n_false = int(self.is_true.sum()), int((~self.is_true).sum())
        n_patients = len(np.unique(self.patients[self.is_true]))
        if n_true < LEAST or n_false < LEAST:
            return f"{n_true} true and {n_false} false, {LEAST} of each needed"
        return f"true in {n_patients} patients, {N_FOLDS} needed" if n_patients < N_FOLDS else ""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The fit of one finding. point: fitted on all patients. lack: why nothing was fitted, or empty. n: scores. n_true:
    true ones among them. n_truth: true findings. numbers: `sensitivity`, `fp_per_image`, `ece` (of scores as they are)
    and `ece_calibrated`, each patient by a point fitted on others, and of each a `…_ci95` where there were resamples;
    empty where nothing was fitted. is_separated: whether each true score is above each false one.
    """

    name: str
    point: Point
    lack: str
    n: int
    n_true: int
    n_truth: int
    numbers: dict[str, Any]
    is_separated: bool = False


def scored_findings(evaluation: Evaluation) -> tuple[Literal["boxes", "labels"], list[Scored]]:
    """The findings that can be fitted: detections where there are boxes, else labels of radiographs; and also
    "abnormal", where there are "No finding" rows."""
    findings: list[Scored] = []
    findings += scored_boxes(evaluation)
    for label in (curve.label for curve in evaluation.labels.curves) if evaluation.labels else ():
        is_wanted = label.origin == "no finding" or (label.origin == "rows" and evaluation.boxes is None)
        if is_wanted:
            findings.append(scored_label(evaluation, label))
    return ("labels" if evaluation.boxes is None else "boxes"), findings


def scored_label(evaluation: Evaluation, label: LabelScores) -> Scored:
    """The scores of a label of whole radiographs."""
    patients = evaluation.alignment.patients[label.places]
    n_patients = int(evaluation.alignment.patients.max()) + 1
    truth = np.bincount(patients, label.truth, n_patients)
    images = np.bincount(patients, minlength=n_patients).astype(np.float64)
    return Scored(label.name, label.scores, np.asarray(label.truth, dtype=bool), patients, truth, images)


def scored_boxes(evaluation: Evaluation) -> Iterator[Scored]:
    """The scores of the boxes of each finding; of none where there are no boxes."""
    if evaluation.boxes is None:
        return
    alignment, located = evaluation.boxes.alignment, evaluation.boxes.located
    truth, table, patients = alignment.truth, alignment.predictions, alignment.patients
    n_patients = int(patients.max()) + 1
    is_true = match_boxes(truth, table).is_true
    for label, name in alignment.categories.items():
        rows = table.labels == label
        n_truth = np.bincount(patients[truth.images[truth.labels == label]], minlength=n_patients)
        everywhere = located.everywhere[:, list(located.categories).index(label)]
        images = np.bincount(patients, everywhere, n_patients)
        if rows.any() or n_truth.any():
            yield Scored(
                name, table.scores[rows], is_true[rows], patients[table.images[rows]], n_truth.astype(float), images
            )


def fit_thresholds(findings: list[Scored], at: OperatingPoint, n_resamples: int = 0) -> list[Fitted]:
    """Fits each finding on all patients, and measures it on each of N_FOLDS parts of the patients by a fit on the other
    parts.

    n_resamples: of the patients, for the 95 % intervals; 0 leaves them out.
    """
    fitted = []
    for one in findings:
        n, n_true, n_truth = len(one.scores), int(one.is_true.sum()), round(one.truth.sum())
        if one.lack:
            fitted.append(Fitted(one.name, Point(), one.lack, n, n_true, n_truth, {}))
            continue
        numbers = _measured(one, parts_of(one), at, n_resamples)
        is_separated = bool(one.scores[one.is_true].min() > one.scores[~one.is_true].max())
        fitted.append(Fitted(one.name, fit_point(one, at), "", n, n_true, n_truth, numbers, is_separated))
    return fitted


def fit_point(one: Scored, at: OperatingPoint) -> Point:
    """Temperature and intercept of the least log loss with Platt's targets, and the threshold of the operating point.

    Where all scores are right, or all wrong, they stay as they are.
    """
    temperature, intercept = _line_of(one)
    return Point(temperature, threshold_at(one, at), intercept)


def _line_of(one: Scored) -> tuple[float, float]:
    """The temperature and intercept of `fit_point`."""
    is_both = bool(len(one.is_true)) and not one.is_true.all() and bool(one.is_true.any())
    return fit_line(smoothed(Outcomes.of(one.scores, one.is_true, one.patients))) if is_both else (1.0, 0.0)


def threshold_at(one: Scored, at: OperatingPoint) -> float | None:
    """The score from which a finding counts as found.

    sensitivity: that or more is reached; None where even the lowest score does not reach it, or without scores.
    fp-per-image: the highest sensitivity that keeps to it; a threshold just above all scores where nothing true does.
    Of all thresholds with this sensitivity, those with the fewest false positives lie between two scores: the middle of
    them is taken, since new radiographs have scores between, too.
    """
    if not len(one.scores):
        return None
    # As files hold them, and as `Point.is_positive` compares them.
    scores = np.round(one.scores, DECIMALS)
    order = np.argsort(-scores, kind="stable")
    curve = froc_curve(one.is_true[order], scores[order], round(one.truth.sum()), round(one.images.sum()))
    # Shares that are equal but for rounding are equal.
    if at.kind == "sensitivity":
        reached = np.flatnonzero(curve.sensitivity >= at.value - 1e-9)
        return _middle(curve.thresholds, int(reached[0])) if len(reached) else None
    within = np.flatnonzero(curve.fp_per_image <= at.value + 1e-9)
    most = curve.sensitivity[within[-1]] if len(within) else 0.0
    if not most:
        return round(float(curve.thresholds[0]) + 10**-DECIMALS, DECIMALS)
    return _middle(curve.thresholds, int(np.flatnonzero(curve.sensitivity >= most)[0]))


def _middle(levels: np.ndarray, place: int) -> float:
    """Between a level, of falling ones with DECIMALS, and the next lower one; it never lets the lower one in."""
    level = float(levels[place])
    if place + 1 == len(levels):
        return level
    lower = float(levels[place + 1])
    middle = round((level + lower) / 2, DECIMALS)
    return middle if middle > lower else level


def parts_of(one: Scored) -> np.ndarray:
    """(P,) int64, the part, in [0, N_FOLDS), of each patient; patients with a true finding are spread evenly.

    Patients who have no radiograph of this finding get -1.
    """
    known = np.flatnonzero(one.images > 0)
    has_true = np.bincount(one.patients, one.is_true, len(one.images))[known] > 0
    parts = np.full(len(one.images), -1, dtype=np.int64)
    parts[known] = deal_patients(Outcomes.of(np.zeros(len(known)), has_true, np.arange(len(known))), N_FOLDS)
    return parts


def calibrations(findings: list[Scored], together: str = "", times: np.ndarray | None = None) -> list[Calibration]:
    """Scores as they are and as `evaluate --fit` calibrates them: each patient by what was fitted on the others.

    Where that fits nothing, for want of outcomes, scores stay as they are. A finding without scores is left out.
    together: name of an entry in front for all findings, where there are several; none where empty. times: of
    `draw_patients`; None leaves the intervals out.
    """
    entries, parts = [], []
    for one in findings:
        outcomes = Outcomes.of(one.scores, one.is_true, one.patients)
        calibrated, lines = (None, []) if one.lack else _cross_fitted(one)
        parts.append((outcomes, one.scores if calibrated is None else calibrated))
        if not len(one.scores):
            continue
        entry = described(one.name, outcomes, calibrated, times)
        if lines:
            temperature, intercept = _line_of(one)
            temperatures, intercepts = zip(*lines, strict=True)
            entry = dataclasses.replace(
                entry, temperature=temperature, intercept=intercept, fold_temperatures=temperatures,
                fold_intercepts=intercepts,
            )  # fmt: skip
        entries.append(entry)
    if together and len(findings) > 1 and entries:
        joined = Outcomes(*(np.concatenate(one) for one in zip(*(map(_columns, (o for o, _ in parts))), strict=True)))
        calibrated = np.concatenate([scores for _, scores in parts])
        is_any = any(entry.after for entry in entries)
        entries.insert(0, described(together, joined, calibrated if is_any else None, times))
    return entries


def _columns(outcomes: Outcomes) -> list[np.ndarray]:
    return [outcomes.scores, outcomes.truth, outcomes.weights, outcomes.patients]


def _cross_fitted(one: Scored) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """(m,) scores, each calibrated by what was fitted on the other parts of the patients, and temperature and intercept
    of each part."""
    parts, calibrated, lines = parts_of(one), np.empty(len(one.scores)), []
    for part in range(N_FOLDS):
        lines.append(_line_of(one.inside((parts >= 0) & (parts != part))))
        rows = parts[one.patients] == part
        calibrated[rows] = scale(one.scores[rows], *lines[-1])
    return calibrated, lines


def _measured(one: Scored, parts: np.ndarray, at: OperatingPoint, n_resamples: int) -> dict[str, Any]:
    """The numbers of `Fitted`: each patient is measured by a point that was fitted without the patient."""
    probabilities, is_positive = np.empty(len(one.scores)), np.zeros(len(one.scores), dtype=bool)
    for part in range(N_FOLDS):
        point = fit_point(one.inside((parts >= 0) & (parts != part)), at)
        rows = parts[one.patients] == part
        probabilities[rows] = point.probability(one.scores[rows])
        is_positive[rows] = point.is_positive(one.scores[rows])
    n_patients = len(one.images)
    hits, false = (np.bincount(one.patients, is_positive & right, n_patients) for right in (one.is_true, ~one.is_true))
    counts = np.stack([hits, one.truth, false, one.images], axis=1)
    bins = [_bins_of(one, scores) for scores in (one.scores, probabilities)]
    outcomes = Outcomes.of(one.scores, one.is_true, one.patients)
    total = counts.sum(axis=0)
    values = {
        "sensitivity": total[0] / total[1],
        "fp_per_image": total[2] / total[3],
        "ece": fit_of(outcomes).ece,
        "ece_calibrated": fit_of(outcomes, probabilities).ece,
    }
    times = draw_patients(np.arange(n_patients), n_resamples) if n_resamples else None
    if times is None:
        return values
    drawn = resampled_sums(times, counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        samples = [drawn[:, 0] / drawn[:, 1], drawn[:, 2] / drawn[:, 3]]
    samples += [_resampled_ece(times, of_bins) for of_bins in bins]
    intervals = {f"{name}_ci95": percentile_interval(each) for name, each in zip(values, samples, strict=True)}
    return values | intervals


def _bins_of(one: Scored, scores: np.ndarray) -> np.ndarray:
    """(P, 2 N_BINS): of each patient and bin of the scores their sum minus the true ones, and their number."""
    places = one.patients * N_BINS + bin_of(scores)
    n_places = len(one.images) * N_BINS
    columns = [np.bincount(places, values, n_places) for values in (scores - one.is_true, np.ones(len(scores)))]
    return np.concatenate([column.reshape(-1, N_BINS) for column in columns], axis=1)


def _resampled_ece(times: np.ndarray, of_bins: np.ndarray) -> np.ndarray:
    """(R,) expected calibration error in each resample: Σ |confidence − frequency| n_bin / n = Σ |gap sums| / n."""
    drawn = resampled_sums(times, of_bins)
    with np.errstate(invalid="ignore"):
        errors: np.ndarray = np.abs(drawn[:, :N_BINS]).sum(axis=1) / drawn[:, N_BINS:].sum(axis=1)
    return errors
