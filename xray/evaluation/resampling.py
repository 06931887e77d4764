"""How far a number would vary with other patients: percentile intervals of the bootstrap.

Patients are drawn with replacement, and all radiographs of a patient come along, since they resemble one another
(Efron and Tibshirani 1993, ch. 8).
"""

import math

import numpy as np

CONFIDENCE = 0.95
N_RESAMPLES = 1000


def draw_patients(patients: np.ndarray, n_resamples: int, seed: int = 0) -> np.ndarray | None:
    """How often each patient is drawn in each resample → (n_resamples, n_patients), of the smallest unsigned type.

    patients: (n,) int, the patient of each radiograph, numbered from 0; where patients are not known, a number of its
        own for each radiograph.
    None where there are fewer than two patients.
    """
    n_patients = int(np.asarray(patients).max(initial=-1)) + 1
    if n_patients < 2:
        return None
    generator = np.random.default_rng(seed)
    # Hardly any patient is drawn more than a few times, so that a byte each nearly always holds the number.
    times = np.empty((n_resamples, n_patients), dtype=np.uint8)
    for sample in range(n_resamples):
        drawn = np.bincount(generator.integers(0, n_patients, n_patients), minlength=n_patients)
        if drawn.max() > np.iinfo(times.dtype).max:
            times = times.astype(np.uint32)
        times[sample] = drawn
    return times


def resampled_sums(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums over patients in each resample: times (R, P) of `draw_patients`, values (P,) or (P, K) → (R,) or (R, K)."""
    # A few rows at a time: the product needs them as float64.
    parts = [times[start : start + 64] @ values for start in range(0, len(times), 64)]
    return np.concatenate(parts)


def percentile_interval(sample: np.ndarray) -> list[float]:
    """[low, high] that hold the middle 95 % of a number's values over the resamples, without NaN. Both are NaN where no
    value is left.
    """
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(sample, [tail, 1 - tail]) if not np.isnan(sample).all() else (math.nan, math.nan)
    return [float(low), float(high)]


def mean_interval(values: np.ndarray, counted: np.ndarray, patients: np.ndarray, times: np.ndarray) -> list[float]:
    """The interval of a mean over the radiographs that count, with the arguments of `resampled_mean`."""
    return percentile_interval(resampled_mean(values, counted, patients, times))


def resampled_mean(values: np.ndarray, counted: np.ndarray, patients: np.ndarray, times: np.ndarray) -> np.ndarray:
    """A mean over those radiographs that count, in each resample → (n_resamples,); NaN where none does.

    values, counted: (n,) or (n, K), the latter bool. patients: (n,). times: of `draw_patients`.
    """
    n_patients = times.shape[1]
    of_image = [np.where(counted, part, 0).reshape(len(patients), -1).sum(axis=1) for part in (values, 1)]
    total, number = (resampled_sums(times, np.bincount(patients, part, minlength=n_patients)) for part in of_image)
    means: np.ndarray = np.divide(total, number, out=np.full(len(times), math.nan), where=number > 0)
    return means
