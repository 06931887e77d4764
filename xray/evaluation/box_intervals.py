"""How far the average precision would vary with other patients: percentile intervals of the bootstrap."""

import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from xray.evaluation.box_metrics import by_category, has_vinbig_categories
from xray.evaluation.coco_metrics import COCO_RECALLS, match_coco
from xray.evaluation.located import Located
from xray.evaluation.resampling import N_RESAMPLES, draw_patients, percentile_interval
from xray.structures.boxes import BoxTable
from xray.structures.predictions import NO_FINDING_CATEGORY

ALL_POINTS = np.zeros(0)


def bootstrap_intervals(
    truth: BoxTable,
    predictions: BoxTable,
    patients: np.ndarray,
    categories: dict[int, str],
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    with_coco: bool = False,
    located: Located | None = None,
) -> dict[str, Any]:
    """95 % intervals of the numbers that `detection_metrics` gives for the same tables.

    patients: (n_images,) int, the patient of each radiograph, as `draw_patients` takes them.
    located: as for `detection_metrics`.

    A drawn radiograph counts with its boxes as often as it was drawn. A finding that a resample does not contain has no
    AP there; its interval is that of the other resamples. A finding of a single patient has no interval.

    Returns map40_ci95 [low, high] and ap40_ci95 {name: [low, high]}; with VinBig's categories also map40_kaggle_ci95
    and ap40_no_finding_ci95; with_coco: also coco_ap_ci95. Empty when there are fewer than two patients.
    """
    patients = np.asarray(patients, dtype=np.int64)
    times = draw_patients(patients, n_resamples, seed)
    if times is None:
        return {}
    if located is not None:
        truth, predictions = located.of(truth), located.of(predictions)
    samples = resample_findings(truth, predictions, patients, categories, times, located)
    findings = [label for label in samples if label in categories]
    varying = [label for label in findings if len(np.unique(patients[truth.images[truth.labels == label]])) > 1]
    of_each = {categories[label]: percentile_interval(samples[label]) for label in varying}
    intervals: dict[str, Any] = {"ap40_ci95": of_each}
    if findings:
        intervals["map40_ci95"] = percentile_interval(mean_of_present([samples[label] for label in findings]))
    if has_vinbig_categories(categories) and samples:
        intervals["map40_kaggle_ci95"] = percentile_interval(mean_of_present(list(samples.values())))
        if NO_FINDING_CATEGORY in samples:
            intervals["ap40_no_finding_ci95"] = percentile_interval(samples[NO_FINDING_CATEGORY])
    coco = resample_coco(truth, predictions, patients, sorted(categories), times) if with_coco else {}
    if coco:
        intervals["coco_ap_ci95"] = percentile_interval(mean_of_present(list(coco.values())))
    return intervals


def resample_findings(
    truth: BoxTable,
    predictions: BoxTable,
    patients: np.ndarray,
    categories: dict[int, str],
    times: np.ndarray,
    located: Located | None = None,
) -> dict[int, np.ndarray]:
    """AP at IoU 0.4 of each category that the truth has, in each resample: category id → (n_resamples,).

    patients: (n_images,) int. times: of `draw_patients`. With VinBig's categories "No finding" (15) is one more. NaN
    where a resample does not contain the category. located: as for `detection_metrics`.
    """
    return {
        one.label: resample_ap(one.is_true, patients[one.images], patients[one.truth_images], times)
        for one in by_category(truth, predictions, len(patients), categories, located)
        if one.n_truth
    }


def resample_coco(
    truth: BoxTable, predictions: BoxTable, patients: np.ndarray, labels: Sequence[int], times: np.ndarray
) -> dict[int, np.ndarray]:
    """COCO's AP (IoU 0.50 to 0.95) of each label that the truth has, in each resample: label → (n_resamples,).

    patients: (n_images,) int. times: of `draw_patients`. NaN where a resample does not contain the label.
    """
    order, is_true = match_coco(truth, predictions)
    samples = {}
    for label in labels:
        truth_patients = patients[truth.images[truth.labels == label]]
        rows = order[predictions.labels[order] == label]
        if len(truth_patients):
            of_rows = patients[predictions.images[rows]]
            samples[label] = resample_ap(is_true[rows], of_rows, truth_patients, times, COCO_RECALLS)
    return samples


def resample_ap(
    is_true: np.ndarray,
    patients: np.ndarray,
    truth_patients: np.ndarray,
    times: np.ndarray,
    recalls: np.ndarray = ALL_POINTS,
) -> np.ndarray:
    """AP of one category in each resample → (n_resamples,) float64; NaN where none of its truth boxes is drawn.

    is_true: (N,), or (N, T) at T thresholds, of its predictions from the highest score down. patients: (N,), the
    patient of each prediction. truth_patients: (M,), the patient of each truth box. recalls: where precision is read as
    in COCO; ALL_POINTS for the area under the whole curve as in VOC 2010.
    """
    is_true = is_true if is_true.ndim == 2 else is_true[:, None]
    rows = np.flatnonzero(is_true.any(axis=1))
    at_thresholds = np.ascontiguousarray(is_true[rows].T)
    aps: np.ndarray = _resampled_ap(at_thresholds, rows, patients, truth_patients, times, recalls)
    return aps


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _resampled_ap(right, rows, patients, truth_patients, times, recalls):
    """AP of one category in each resample: predictions sorted, weighted by how often their patient was drawn.

    right: (T, P) bool, at each threshold, of the P predictions that are right at any. rows: (P,) where these stand
    among all N. patients: (N,), of all.

    Repeated copies of a prediction stand side by side; the highest precision from a true copy on is that after its
    last copy, so one step of weight w gives exactly what w steps would. Precision falls at each false one, so its
    highest values are at the true ones.
    """
    n_resamples, (n_thresholds, n_right) = len(times), right.shape
    result = np.empty(n_resamples)
    drawn_so_far, weights = np.empty(n_right), np.empty(n_right)
    precision, recall, steps = np.empty(n_right), np.empty(n_right), np.empty(n_right)
    for sample in range(n_resamples):
        n_truth = 0
        for patient in truth_patients:
            n_truth += times[sample, patient]
        if n_truth == 0:
            result[sample] = np.nan
            continue
        total, start = 0, 0
        for number in range(n_right):
            for row in range(start, rows[number] + 1):
                total += times[sample, patients[row]]
            start = rows[number] + 1
            drawn_so_far[number] = total
            weights[number] = times[sample, patients[rows[number]]]
        area = 0.0
        for t in range(n_thresholds):
            # Predictions that are drawn and right at this threshold are put together at the front.
            hits, n = 0.0, 0
            for number in range(n_right):
                if right[t, number] and weights[number] > 0:
                    hits += weights[number]
                    precision[n], recall[n], steps[n] = hits / drawn_so_far[number], hits / n_truth, weights[number]
                    n += 1
            for number in range(n - 1, 0, -1):
                precision[number - 1] = max(precision[number - 1], precision[number])
            if len(recalls) == 0:
                for number in range(n - 1, -1, -1):
                    area += precision[number] * steps[number]
            number = 0
            for level in recalls:
                while number < n and recall[number] < level:
                    number += 1
                if number == n:
                    break
                area += precision[number]
        result[sample] = area / (n_thresholds * (len(recalls) if len(recalls) else n_truth))
    return result


def mean_of_present(samples: list[np.ndarray]) -> np.ndarray:
    """Mean over several numbers, without those that a resample lacks: a list of (n_resamples,) → (n_resamples,)."""
    stacked = np.stack(samples)
    present = ~np.isnan(stacked)
    counts = present.sum(axis=0)
    means: np.ndarray = np.divide(
        np.where(present, stacked, 0).sum(axis=0), counts, out=np.full(len(counts), math.nan), where=counts > 0
    )
    return means
