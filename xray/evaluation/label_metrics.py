"""ROC and precision–recall curves of image labels, exact, and the areas under them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Curve:
    """Operating points from the highest threshold down; radiographs of equal probability enter together.

    thresholds: (P,) float64; a radiograph is called positive from this probability up. The first is infinite.
    sensitivity: (P,) float64, share of the positives called positive (recall, true-positive rate).
    false_positive_rate: (P,) float64, share of the negatives called positive.
    precision: (P,) float64, share of those called positive that are; 1 at the first point, where there are none.
    """

    thresholds: np.ndarray
    sensitivity: np.ndarray
    false_positive_rate: np.ndarray
    precision: np.ndarray

    @property
    def auroc(self) -> float:
        """Area under sensitivity over false-positive rate, by trapezes: the chance that a positive is ranked above a
        negative, a tie counting half."""
        return float(np.trapezoid(self.sensitivity, self.false_positive_rate))

    @property
    def average_precision(self) -> float:
        """Σ (R_n − R_{n−1}) P_n over the operating points, without interpolation (scikit-learn's definition)."""
        return float((np.diff(self.sensitivity) * self.precision[1:]).sum())

    def at(self, threshold: float) -> int:
        """The operating point of a threshold: the last whose own is not lower."""
        return int(np.count_nonzero(self.thresholds >= threshold)) - 1


def operating_curve(probabilities: np.ndarray, truth: np.ndarray) -> Curve | None:
    """The curve of one label, or None where all radiographs are positive, or none is: it is not defined then.

    probabilities: (N,) floats; scores of any scale do. truth: (N,) of 0 and 1.
    Raises ValueError for shapes that differ and for probabilities that are no numbers.
    """
    scores, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(truth).astype(bool)
    if scores.shape != labels.shape or scores.ndim != 1:
        raise ValueError(f"probabilities {scores.shape} and truth {labels.shape} must both be (N,)")
    if np.isnan(scores).any():
        raise ValueError(f"{np.isnan(scores).sum()} of {len(scores)} probabilities are no numbers")
    n_positive = int(labels.sum())
    if n_positive in (0, len(labels)):
        return None
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    hits = np.cumsum(labels[order])
    # A threshold lies only between scores, so a run of equal ones gives its last point.
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    hits, called = np.append(0, hits[last]), np.append(0, last + 1)
    return Curve(
        thresholds=np.append(np.inf, scores[last]),
        sensitivity=hits / n_positive,
        false_positive_rate=(called - hits) / (len(labels) - n_positive),
        precision=np.append(1.0, hits[1:] / called[1:]),
    )


def classification_metrics(
    probabilities: np.ndarray, truth: np.ndarray, names: Sequence[str], known: np.ndarray | None = None
) -> dict[str, Any]:
    """The metrics of a set of radiographs.

    probabilities: (N, K) floats. truth: (N, K) of 0 and 1. names: the K labels. known: (N, K) bool, what of the truth
    is known; the rest is left out. None for all.
    Returns `auroc` and `average_precision` as {name: value}, without the labels that all radiographs have or none,
    their means `mean_auroc` and `mean_average_precision` where there is a label left, and `n_images`; where something
    is not known also `n_unknown` {name: radiographs left out}.
    Raises ValueError for shapes that do not fit and for probabilities that are no numbers.
    """
    probabilities, truth = np.asarray(probabilities), np.asarray(truth)
    if probabilities.shape != truth.shape or probabilities.ndim != 2 or probabilities.shape[1] != len(names):
        raise ValueError(f"probabilities {probabilities.shape} and truth {truth.shape} must both be (N, {len(names)})")
    known = np.ones(truth.shape, dtype=bool) if known is None else np.asarray(known)
    curves = {
        name: operating_curve(probabilities[known[:, k], k], truth[known[:, k], k]) for k, name in enumerate(names)
    }
    metrics: dict[str, Any] = {
        "auroc": {name: curve.auroc for name, curve in curves.items() if curve},
        "average_precision": {name: curve.average_precision for name, curve in curves.items() if curve},
    }
    if metrics["auroc"]:
        metrics["mean_auroc"] = float(np.mean(list(metrics["auroc"].values())))
        metrics["mean_average_precision"] = float(np.mean(list(metrics["average_precision"].values())))
    if not known.all():
        n_unknown = (~known).sum(axis=0).tolist()
        metrics["n_unknown"] = {name: number for name, number in zip(names, n_unknown, strict=True) if number}
    return {**metrics, "n_images": len(truth)}
