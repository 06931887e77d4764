"""Labels of whole radiographs: their curves, the point at a threshold, and how far both would vary."""

import dataclasses
import math
from typing import Any, Literal

import numba
import numpy as np

from xray.evaluation.alignment import Alignment
from xray.evaluation.label_metrics import Curve, operating_curve
from xray.evaluation.resampling import draw_patients, percentile_interval

Origin = Literal["rows", "maps", "classifier", "no finding"]
"""Where a label's scores are from: the highest of its rows, its probability map, a classifier's output, or 1 − the
score of the "No finding" row."""


@dataclasses.dataclass(frozen=True)
class LabelScores:
    """One label's scores of those m of n radiographs of which it is known whether they show it.

    scores: (m,) float64 in [0, 1]. truth: (m,) bool. threshold: what a user sets. lowest: the lowest score that is
    called positive, which is `threshold` unless the rule asks for more than it. at: (m,) int64, the radiographs, in
    [0, n); None where it is known of all.
    """

    name: str
    origin: Origin
    scores: np.ndarray
    truth: np.ndarray
    threshold: float
    lowest: float
    at: np.ndarray | None = None

    @classmethod
    def of_known(
        cls,
        name: str,
        origin: Origin,
        scores: np.ndarray,
        truth: np.ndarray,
        known: np.ndarray,
        threshold: float,
        lowest: float,
    ) -> "LabelScores":
        """From all n radiographs; known: (n,) bool, the others are left out: they are neither positive nor negative."""
        at = np.flatnonzero(known)
        return cls(name, origin, scores[at], truth[at], threshold, lowest, at)

    @property
    def places(self) -> np.ndarray:
        """(m,) int64, the radiographs, in [0, n)."""
        return np.arange(len(self.scores)) if self.at is None else self.at

    def inside(self, chosen: np.ndarray) -> "LabelScores":
        """Those radiographs for which `chosen`, (n,) bool, holds."""
        rows = chosen[self.places]
        return dataclasses.replace(self, scores=self.scores[rows], truth=self.truth[rows], at=self.places[rows])

    @property
    def full_name(self) -> str:
        """The name, with " (classifier)" behind it for a classifier's scores, which may stand beside others."""
        return f"{self.name} (classifier)" if self.origin == "classifier" else self.name


@dataclasses.dataclass(frozen=True)
class LabelCurve:
    """A label whose curve is defined, and the numbers of its operating point (as in metrics.json)."""

    label: LabelScores
    curve: Curve
    point: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class LabelEvaluation:
    """The labels of n radiographs that can be scored. metrics: the part of metrics.json about them."""

    alignment: Alignment
    curves: tuple[LabelCurve, ...]
    metrics: dict[str, Any]


def evaluate_labels(alignment: Alignment, labels: list[LabelScores], n_resamples: int = 0) -> LabelEvaluation | None:
    """Scores the labels of which some radiographs are positive and some negative; None where there is no such label.

    metrics: `auroc` and `average_precision` {name: value} with their means `mean_auroc` and `mean_average_precision`,
    and `operating_points` {name: {threshold, sensitivity, specificity, precision}}; the same three with `_classifier`
    behind them for scores of the origin "classifier". n_resamples: of the patients, for the …_ci95 intervals, of which
    those of sensitivity and specificity stand in `operating_points`; 0 leaves them out. In each resample a mean is over
    the labels that some of the drawn have, and some have not. Radiographs of which a label is not known do not count
    for it: `n_unknown` {name: how many}, of the labels that have some. Labels that are not scored are named in
    `only_positive` and `only_negative`, which all or none of the radiographs show of which they are known, and
    `never_known`.
    """
    times = draw_patients(alignment.patients, n_resamples) if n_resamples else None
    metrics: dict[str, Any] = {"n_images": len(alignment), "auroc": {}, "average_precision": {}}
    if times is not None:
        metrics |= {"auroc_ci95": {}, "average_precision_ci95": {}}
    curves: list[LabelCurve] = []
    one_sided: list[LabelScores] = []
    drawn: dict[str, np.ndarray] = {}
    for label in labels:
        curve = operating_curve(label.scores, label.truth)
        if curve is None:
            one_sided.append(label)
            continue
        behind = "_classifier" if label.origin == "classifier" else ""
        point = _point(label, curve)
        numbers: dict[str, Any] = {f"auroc{behind}": curve.auroc, f"average_precision{behind}": curve.average_precision}
        if times is not None:
            samples = resample_label(label, alignment.patients[label.places], times).T
            if not behind:
                drawn[label.name] = samples[:2]
            auroc, precision, sensitivity, specificity = map(percentile_interval, samples)
            point |= {"sensitivity_ci95": sensitivity, "specificity_ci95": specificity}
            numbers |= {f"auroc{behind}_ci95": auroc, f"average_precision{behind}_ci95": precision}
        for key, value in {**numbers, f"operating_points{behind}": point}.items():
            metrics.setdefault(key, {})[label.name] = value
        if len(label.places) < len(alignment):
            metrics.setdefault("n_unknown", {})[label.name] = len(alignment) - len(label.places)
        curves.append(LabelCurve(label, curve, point))
    if not curves:
        return None
    for side in (True, False):
        if of_side := [label.full_name for label in one_sided if len(label.truth) and bool(label.truth[0]) == side]:
            metrics["only_positive" if side else "only_negative"] = of_side
    if nothing := [label.full_name for label in one_sided if not len(label.truth)]:
        metrics["never_known"] = nothing
    # "Abnormal" is no category beside the others: it is all of them.
    names = {one.label.name for one in curves if one.label.origin != "no finding"} or set(metrics["auroc"])
    for k, name in enumerate(("auroc", "average_precision")):
        metrics[f"mean_{name}"] = float(np.mean([value for label, value in metrics[name].items() if label in names]))
        if of_names := [samples[k] for label, samples in drawn.items() if label in names]:
            is_known = ~np.isnan(of_names)
            n_known = is_known.sum(axis=0)
            total = np.where(is_known, of_names, 0).sum(axis=0)
            mean = np.divide(total, n_known, out=np.full(len(total), math.nan), where=n_known > 0)
            metrics[f"mean_{name}_ci95"] = percentile_interval(mean)
    return LabelEvaluation(alignment, tuple(curves), metrics)


def _point(label: LabelScores, curve: Curve) -> dict[str, Any]:
    at = curve.at(label.lowest)
    called = label.scores >= label.lowest
    return {
        "threshold": label.threshold,
        "sensitivity": float(curve.sensitivity[at]),
        "specificity": float(1 - curve.false_positive_rate[at]),
        "precision": float(curve.precision[at]) if called.any() else math.nan,
    }


def resample_label(label: LabelScores, patients: np.ndarray, times: np.ndarray) -> np.ndarray:
    """AUROC, average precision, sensitivity and specificity in each resample → (n_resamples, 4).

    patients: (m,) int, of the label's radiographs. times: of `draw_patients`. NaN where all radiographs that are drawn
    are positive, or none is.
    """
    order = np.argsort(-label.scores, kind="stable")
    scores = label.scores[order]
    is_last = np.append(scores[1:] != scores[:-1], True)
    n_called = int((scores >= label.lowest).sum())
    samples: np.ndarray = _resampled(label.truth[order], is_last, patients[order], n_called, times)
    return samples


@numba.njit(cache=True, nogil=True)
def _resampled(truth, is_last, patients, n_called, times):
    """AUROC, average precision, sensitivity and specificity of one label in each resample → (n_resamples, 4).

    Radiographs are sorted from the highest score down and weighted by how often their patient was drawn; is_last: the
    last of those with one score, which enter the curve together. NaN where all drawn are positive, or none is.
    """
    n_resamples, n = len(times), len(truth)
    result = np.full((n_resamples, 4), np.nan)
    for sample in range(n_resamples):
        hits, called, hits_before, false_before = 0, 0, 0, 0
        hits_at, false_at = 0, 0
        area, precision = 0.0, 0.0
        for row in range(n):
            weight = times[sample, patients[row]]
            called += weight
            if truth[row]:
                hits += weight
            if is_last[row]:
                area += 0.5 * (hits + hits_before) * (called - hits - false_before)
                if called:
                    precision += (hits - hits_before) * hits / called
                hits_before, false_before = hits, called - hits
            if row + 1 == n_called:
                hits_at, false_at = hits, called - hits
        n_positive, n_negative = hits, called - hits
        if n_positive and n_negative:
            result[sample, 0] = area / n_positive / n_negative
            result[sample, 1] = precision / n_positive
            result[sample, 2] = hits_at / n_positive
            result[sample, 3] = 1 - false_at / n_negative
    return result
