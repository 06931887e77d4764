"""Free-response ROC: how many findings are found for how many false alarms an image."""

import dataclasses

import numpy as np

FP_PER_IMAGE = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The operating points of the LUNA16 challenge, widely used since; its score is their mean sensitivity."""


@dataclasses.dataclass(frozen=True)
class FrocCurve:
    """One point for each distinct score, from the highest down; predictions of equal score enter together.

    thresholds: (P,) float64, predictions of at least this score count.
    fp_per_image: (P,) float64, false positives divided by all images, those without findings among them.
    sensitivity: (P,) float64, share of truth boxes found, in [0, 1].
    """

    thresholds: np.ndarray
    fp_per_image: np.ndarray
    sensitivity: np.ndarray


def froc_curve(is_true: np.ndarray, scores: np.ndarray, n_truth: int, n_images: int) -> FrocCurve:
    """The FROC curve of predictions sorted from the highest score down.

    is_true: (N,) bool; a second prediction on a finding already found is a false positive, as in the AP.
    scores: (N,) float64, descending.
    n_truth: truth boxes; a curve without any has sensitivity 0.
    """
    # A reader can set a threshold only between scores, so a run of equal scores gives its last point only.
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.zeros(0, dtype=np.int64)
    found = np.cumsum(is_true)[last]
    return FrocCurve(scores[last], (last + 1 - found) / max(n_images, 1), found / max(n_truth, 1))


def sensitivity_at(curve: FrocCurve, fp_per_image: float) -> float:
    """The highest sensitivity reached with at most `fp_per_image` false positives an image; 0 if there is none."""
    return float(curve.sensitivity[curve.fp_per_image <= fp_per_image].max(initial=0.0))
