"""Brier, ECE and temperature against numbers by hand, a search, and what scores were drawn from."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from xray.evaluation.calibration import (
    HIGHEST,
    LOWEST,
    N_BINS,
    Outcomes,
    calibrate,
    deal_patients,
    fit_of,
    fit_temperature,
    scale,
)
from xray.evaluation.resampling import draw_patients

SCORES, TRUTH = [0.9, 0.8, 0.8, 0.3, 0.1], [1, 1, 0, 0, 1]


def outcomes(scores: object = SCORES, truth: object = TRUTH, weights: object = None) -> Outcomes:
    return Outcomes.of(scores, truth, np.arange(len(scores)), weights)


def test_five_scores_by_hand() -> None:
    fit = fit_of(outcomes())
    # (0.1² + 0.2² + 0.8² + 0.3² + 0.9²) / 5
    assert fit.brier == pytest.approx((0.01 + 0.04 + 0.64 + 0.09 + 0.81) / 5)
    # Bins of 1/15: 0.9 in bin 13 (gap 0.1), the two 0.8 in bin 12 (0.5 right, gap 0.3), 0.3 in 4, 0.1 in 1.
    assert fit.ece == pytest.approx((0.1 + 2 * 0.3 + 0.3 + 0.9) / 5)
    assert fit.log_loss == pytest.approx(-np.log([0.9, 0.8, 0.2, 0.7, 0.1]).mean())
    np.testing.assert_array_equal(np.flatnonzero(fit.weights), [1, 4, 12, 13])
    assert fit.frequency[12] == 0.5
    assert math.isnan(fit.frequency[0])


def test_both_ends_belong_to_a_bin() -> None:
    found = fit_of(outcomes([0.0, 1.0], [0, 1]))
    assert found.weights[0] == found.weights[N_BINS - 1] == 1
    assert found.ece == 0


def test_weights_and_shares_are_many_scores_at_once() -> None:
    # Three of 0.8, two of which right, and one of 0.2.
    one_by_one = fit_of(outcomes([0.8, 0.8, 0.8, 0.2], [1, 1, 0, 0]))
    at_once = fit_of(outcomes([0.8, 0.2], [2 / 3, 0], [3, 1]))
    assert at_once.brier == pytest.approx(one_by_one.brier)
    assert at_once.ece == pytest.approx(one_by_one.ece)
    assert at_once.log_loss == pytest.approx(one_by_one.log_loss)
    single = fit_temperature(outcomes([0.8, 0.8, 0.8, 0.2], [1, 1, 0, 0]))
    assert fit_temperature(outcomes([0.8, 0.2], [2 / 3, 0], [3, 1])) == pytest.approx(single)


def test_the_temperature_of_one_score_by_hand() -> None:
    # Where all scores are 0.9 and 70 % are right, the best is the one that makes 0.9 into 0.7.
    found = fit_temperature(outcomes(np.full(10, 0.9), [1] * 7 + [0] * 3))
    assert found == pytest.approx(float(logit(0.9) / logit(0.7)))
    assert scale(np.array([0.9, 0.5, 0.1]), found) == pytest.approx([0.7, 0.5, 0.3])


def test_a_known_temperature_is_found_again() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(-1, 2, 40_000)
    truth = rng.random(len(z)) < expit(z)
    found = outcomes(expit(2.5 * z), truth)
    assert fit_temperature(found) == pytest.approx(2.5, rel=0.03)
    result = calibrate("x", found)
    assert result.after.ece < 0.01 < 0.06 < result.before.ece
    assert result.after.brier < result.before.brier
    assert result.temperature == fit_temperature(found)
    assert min(result.fold_temperatures) < result.temperature < max(result.fold_temperatures)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.floats(0.1, 5)), min_size=2, max_size=40),
)
def test_the_temperature_is_the_minimum(rows: list) -> None:
    scores, truth, weights = zip(*rows, strict=True)
    found = outcomes(scores, np.array(truth, dtype=float), weights)
    temperature = fit_temperature(found)
    if len(set(truth)) == 1:
        assert math.isnan(temperature)
        return
    assert LOWEST <= temperature <= HIGHEST

    def loss(inverse: float) -> float:
        z = logit(np.clip(found.scores, 1e-6, 1 - 1e-6)) * inverse
        return float(np.average(np.logaddexp(0, z) - z * found.truth, weights=found.weights))

    other = minimize_scalar(loss, bounds=(1 / HIGHEST, 1 / LOWEST), method="bounded", options={"xatol": 1e-9})
    assert loss(1 / temperature) <= other.fun + 1e-9
    # A convex function whose slope vanishes, or an end of the range where it does not.
    slope = (loss(1 / temperature + 1e-6) - loss(1 / temperature - 1e-6)) / 2e-6
    is_end = min(abs(temperature - LOWEST), abs(temperature - HIGHEST)) < 1e-9
    assert abs(slope) < 1e-4 or (is_end and (slope < 0) == (temperature == LOWEST))


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_bounds(rows: list) -> None:
    found = outcomes(*zip(*rows, strict=True))
    fit = fit_of(found)
    assert 0 <= fit.brier <= 1
    assert 0 <= fit.ece <= 1
    assert fit.log_loss >= 0
    assert fit.weights.sum() == len(rows)
    # Jensen: no gap of a bin can be larger than the root of the mean square.
    assert fit.ece <= math.sqrt(fit.brier) + 1e-12


def test_scaling_keeps_the_order_and_the_middle() -> None:
    scores = np.linspace(0.001, 0.999, 99)
    for temperature in (0.3, 1.0, 7.0):
        scaled = scale(scores, temperature)
        assert (np.diff(scaled) > 0).all()
        assert scale(np.array([0.5]), temperature)[0] == 0.5
    np.testing.assert_allclose(scale(scores, 1.0), scores)


def test_no_patient_has_a_part_in_its_own_temperature() -> None:
    # Twelve patients of five scores; changing what came of one leaves the temperature of its own fold as it was.
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(12), 5)
    scores, truth = rng.random(60), rng.random(60) < 0.5
    flipped = truth.copy()
    # What it has that is right keeps its place in the deal: one right score remains.
    own = np.flatnonzero(patients == 4)
    truth[own[0]] = flipped[own[0]] = True
    truth[own[1:]], flipped[own[1:]] = False, True
    before, after = (calibrate("x", Outcomes.of(scores, one, patients)) for one in (truth, flipped))
    same = np.array(before.fold_temperatures) == np.array(after.fold_temperatures)
    fold = deal_patients(Outcomes.of(scores, truth, patients))
    assert same.tolist() == [number == fold[4] for number in range(5)]
    assert calibrate("x", Outcomes.of(scores, truth, patients)).fold_temperatures == before.fold_temperatures


def test_what_cannot_be_fitted() -> None:
    assert calibrate("x", outcomes([], [])) is None
    all_right = calibrate("x", outcomes([0.4, 0.8], [1, 1]))
    assert math.isnan(all_right.temperature)
    assert (all_right.after, all_right.fold_temperatures) == (None, None)
    one_patient = calibrate("x", Outcomes.of([0.4, 0.8], [0, 1], [0, 0]))
    assert one_patient.after is None
    assert one_patient.temperature == LOWEST  # 0.4 wrong, 0.8 right: the surer the better
    assert fit_temperature(outcomes([0.2, 0.8], [1, 0])) == HIGHEST
    with pytest.raises(ValueError, match="lengths differ"):
        Outcomes.of([0.1], [0, 1], [0, 1])
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        Outcomes.of([1.1], [0], [0])


def test_intervals_are_those_of_written_out_resamples() -> None:
    rng = np.random.default_rng(1)
    patients = rng.integers(0, 8, 60)
    patients[:8] = np.arange(8)
    found = Outcomes.of(rng.random(60), rng.random(60) < 0.4, patients, rng.random(60) + 0.5)
    times = draw_patients(patients, 200)
    result = calibrate("x", found, times)
    briers, frequencies = [], []
    for drawn in times:
        copies = np.repeat(np.arange(60), drawn[patients])
        copy = Outcomes(found.scores[copies], found.truth[copies], found.weights[copies], patients[copies])
        briers.append(fit_of(copy).brier)
        frequencies.append(fit_of(copy).frequency)
    np.testing.assert_allclose(result.brier_ci95, np.quantile(briers, [0.025, 0.975]))
    expected = np.nanquantile(np.stack(frequencies), [0.025, 0.975], axis=0).T
    np.testing.assert_allclose(result.frequency_ci95, expected, equal_nan=True)


def test_what_metrics_json_says() -> None:
    numbers = calibrate("x", outcomes(), None).metrics
    assert numbers["n"] == 5
    assert numbers["brier"] == pytest.approx(0.318)
    assert numbers["reliability"]["confidence"] == pytest.approx([0.1, 0.3, 0.8, 0.9])
    assert len(numbers["temperatures_of_folds"]) == 5
    assert numbers["log_loss"] == pytest.approx(fit_of(outcomes()).log_loss)
