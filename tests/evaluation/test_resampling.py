"""Resamples of patients, and the interval of a mean against resamples that are written out."""

import numpy as np
import pytest

from xray.evaluation.resampling import draw_patients, mean_interval, percentile_interval, resampled_sums


def test_patients_are_drawn_with_replacement() -> None:
    times = draw_patients(np.array([0, 0, 1, 2]), 50)
    assert times.shape == (50, 3)
    assert (times.sum(axis=1) == 3).all()
    assert times.max() > 1
    np.testing.assert_array_equal(times, draw_patients(np.array([0, 0, 1, 2]), 50))
    assert draw_patients(np.zeros(5, dtype=int), 50) is None
    assert draw_patients(np.zeros(0, dtype=int), 50) is None


def test_a_resample_takes_a_byte_a_patient() -> None:
    times = draw_patients(np.arange(5000), 100, seed=4)
    assert times.nbytes == 500_000
    # All draws at once, as they are defined.
    for counts, draw in zip(times, np.random.default_rng(4).integers(0, 5000, (100, 5000)), strict=True):
        np.testing.assert_array_equal(counts, np.bincount(draw, minlength=5000))


def test_more_than_a_byte_holds_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unlucky:
        def integers(self, low: int, high: int, n: int) -> np.ndarray:
            return np.full(n, 7)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Unlucky())
    times = draw_patients(np.arange(300), 3)
    assert times[:, 7].tolist() == [300] * 3
    assert times.sum() == 900


@pytest.mark.parametrize("shape", [(40,), (40, 3)])
def test_sums_in_each_resample(shape: tuple[int, ...]) -> None:
    times, values = draw_patients(np.arange(40), 150), np.random.default_rng(1).random(shape)
    expected = [sum(count * value for count, value in zip(counts, values, strict=True)) for counts in times]
    np.testing.assert_allclose(resampled_sums(times, values), expected, rtol=1e-12)


def test_the_interval_of_a_mean_is_that_of_written_out_resamples() -> None:
    rng = np.random.default_rng(3)
    patients = np.array([0, 0, 1, 2, 2, 2, 3, 4])
    values, counted = rng.random((8, 2)), rng.random((8, 2)) < 0.6
    times = draw_patients(patients, 200)
    means = []
    for drawn in times:
        copies = np.repeat(np.arange(8), drawn[patients])
        means.append(values[copies][counted[copies]].mean() if counted[copies].any() else np.nan)
    np.testing.assert_allclose(mean_interval(values, counted, patients, times), np.nanquantile(means, [0.025, 0.975]))


def test_what_never_counts_has_no_interval() -> None:
    times = draw_patients(np.arange(3), 20)
    assert np.isnan(mean_interval(np.ones(3), np.zeros(3, dtype=bool), np.arange(3), times)).all()
    assert percentile_interval(np.array([np.nan, 1.0, 1.0])) == [1.0, 1.0]
