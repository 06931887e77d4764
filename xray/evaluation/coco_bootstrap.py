"""How far COCO's AP would vary with other patients."""

from collections.abc import Sequence

import numba
import numpy as np

from xray.evaluation.box_intervals import mean_of_present
from xray.evaluation.box_metrics import COCO_RECALLS, match_coco
from xray.evaluation.resampling import draw_patients, percentile_interval
from xray.structures.boxes import BoxTable


def resample_coco(
    truth: BoxTable, predictions: BoxTable, patients: np.ndarray, labels: Sequence[int], times: np.ndarray
) -> dict[int, np.ndarray]:
    """COCO's AP (IoU 0.50 to 0.95) of each label that the truth has, in each resample: label → (n_resamples,).

    patients: (n_images,) int. times: of `draw_patients`. NaN where a resample does not contain the label.
    """
    order, is_true = match_coco(truth, predictions)
    samples = {}
    for label in labels:
        of_truth = patients[truth.images[truth.labels == label]]
        if not len(of_truth):
            continue
        mine = order[predictions.labels[order] == label]
        right = is_true[mine]
        rows = np.flatnonzero(right.any(axis=1))
        of_predictions = patients[predictions.images[mine]]
        samples[label] = _resampled(np.ascontiguousarray(right[rows].T), rows, of_predictions, of_truth, times)
    return samples


def coco_interval(
    truth: BoxTable, predictions: BoxTable, patients: np.ndarray, labels: Sequence[int], n_resamples: int
) -> list[float] | None:
    """95 % interval of COCO's AP, the mean over the labels; None with fewer than two patients or without truth."""
    times = draw_patients(patients, n_resamples)
    samples = {} if times is None else resample_coco(truth, predictions, patients, labels, times)
    return percentile_interval(mean_of_present(list(samples.values()))) if samples else None


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _resampled(right, rows, patients, truth_patients, times):
    """AP of one label in each resample.

    right: (T, P) bool, at each threshold, of the P predictions that are right at any. rows: (P,) where they stand among
    all N, which are sorted from the highest score down. patients: (N,), of all.

    As in `box_intervals`, copies of a prediction stand side by side, and only right ones raise precision.
    """
    n_resamples, (n_thresholds, n_right) = len(times), right.shape
    result = np.empty(n_resamples)
    seen = np.empty(n_right)
    weights = np.empty(n_right)
    precision = np.empty(n_right)
    recall = np.empty(n_right)
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
            seen[number] = total
            weights[number] = times[sample, patients[rows[number]]]
        area = 0.0
        for t in range(n_thresholds):
            # Those that are right at this threshold, put together at the front.
            found, n = 0.0, 0
            for number in range(n_right):
                if right[t, number] and weights[number] > 0:
                    found += weights[number]
                    precision[n] = found / seen[number]
                    recall[n] = found / n_truth
                    n += 1
            for number in range(n - 1, 0, -1):
                precision[number - 1] = max(precision[number - 1], precision[number])
            number = 0
            for level in COCO_RECALLS:
                while number < n and recall[number] < level:
                    number += 1
                if number == n:
                    break
                area += precision[number]
        result[sample] = area / (n_thresholds * len(COCO_RECALLS))
    return result
