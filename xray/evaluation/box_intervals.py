"""How far the average precision would vary with other patients: percentile intervals of the bootstrap."""

import math
from typing import Any

import numba
import numpy as np

from xray.evaluation.box_metrics import add_no_finding, has_vinbig_categories, match_boxes
from xray.evaluation.resampling import N_RESAMPLES, draw_patients, percentile_interval
from xray.structures.boxes import BoxTable
from xray.structures.predictions import NO_FINDING_CATEGORY


def bootstrap_intervals(
    truth: BoxTable,
    predictions: BoxTable,
    patients: np.ndarray,
    categories: dict[int, str],
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """95 % intervals of the numbers that `detection_metrics` gives for the same tables.

    patients: (n_images,) int, the patient of each radiograph, as `draw_patients` takes them.

    A drawn radiograph counts with its boxes as often as it was drawn. A finding that a resample does not contain has
    no AP there; its interval is over the resamples that do. A finding of one patient alone has no interval.

    Returns map40_ci95 [low, high] and ap40_ci95 {name: [low, high]}; with VinBig's categories also map40_kaggle_ci95
    and ap40_no_finding_ci95. Empty when there are fewer than two patients.
    """
    patients = np.asarray(patients, dtype=np.int64)
    times = draw_patients(patients, n_resamples, seed)
    if times is None:
        return {}
    samples = resample_findings(truth, predictions, patients, categories, times)
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
    return intervals


def resample_findings(
    truth: BoxTable, predictions: BoxTable, patients: np.ndarray, categories: dict[int, str], times: np.ndarray
) -> dict[int, np.ndarray]:
    """AP at IoU 0.4 of each category that the truth has, in each resample: category id → (n_resamples,).

    patients: (n_images,) int. times: of `draw_patients`. With VinBig's categories "No finding" (15) is one more. NaN
    where a resample does not contain the category.
    """
    truth = truth.select(np.isin(truth.labels, list(categories)))
    labels = sorted(categories)
    if has_vinbig_categories(categories):
        truth = add_no_finding(truth, len(patients))
        labels.append(NO_FINDING_CATEGORY)
    matches = match_boxes(truth, predictions)
    ordered = predictions.select(matches.order)
    is_true = matches.is_true[matches.order]
    samples = {}
    for label in labels:
        mine = ordered.labels == label
        of_truth = patients[truth.images[truth.labels == label]]
        if len(of_truth):
            samples[label] = resample_ap(is_true[mine], patients[ordered.images[mine]], of_truth, times)
    return samples


def resample_ap(is_true: np.ndarray, patients: np.ndarray, truth_patients: np.ndarray, times: np.ndarray) -> np.ndarray:
    """AP of one category in each resample → (n_resamples,) float64; NaN where none of its truth boxes is drawn.

    is_true, patients: (N,) of its predictions, from the highest score down. truth_patients: (M,) of its truth boxes.
    """
    found: np.ndarray = _resampled_ap(np.flatnonzero(is_true), patients, truth_patients, times)
    return found


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _resampled_ap(true_rows, patients, truth_patients, times):
    """AP of one category in each resample: predictions sorted, weighted by how often their patient was drawn.

    true_rows: the predictions that are right, ascending; patients: of all predictions.

    Repeated copies of a prediction stand side by side; the highest precision from a true copy on is that after its
    last copy, so one step of weight w gives exactly what w steps would. Precision falls at each false one, so its
    highest values are found at the true ones.
    """
    n_resamples, n_true = len(times), len(true_rows)
    result = np.empty(n_resamples)
    precision = np.empty(n_true)
    for sample in range(n_resamples):
        n_truth = 0
        for patient in truth_patients:
            n_truth += times[sample, patient]
        found, seen, start = 0, 0, 0
        for number in range(n_true):
            stop = true_rows[number]
            for row in range(start, stop + 1):
                seen += times[sample, patients[row]]
            start = stop + 1
            found += times[sample, patients[stop]]
            precision[number] = found / seen if seen else 0.0
        highest, area = 0.0, 0.0
        for number in range(n_true - 1, -1, -1):
            highest = max(highest, precision[number])
            area += highest * times[sample, patients[true_rows[number]]]
        result[sample] = area / n_truth if n_truth else np.nan
    return result


def mean_of_present(samples: list[np.ndarray]) -> np.ndarray:
    """Mean over those of several numbers that a resample has: a list of (n_resamples,) → (n_resamples,)."""
    stacked = np.stack(samples)
    present = ~np.isnan(stacked)
    counts = present.sum(axis=0)
    means: np.ndarray = np.divide(
        np.where(present, stacked, 0).sum(axis=0), counts, out=np.full(len(counts), math.nan), where=counts > 0
    )
    return means
