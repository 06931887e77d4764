"""Thresholds by hand and against scikit-learn, temperatures against a search, and what is measured on whom."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit

from xray.evaluation import thresholds
from xray.evaluation.calibration import HIGHEST, LOWEST, Outcomes, fit_line, fit_of, fit_temperature, smoothed
from xray.evaluation.thresholds import N_FOLDS, Scored, calibrations, fit_point, fit_thresholds, parts_of, threshold_at
from xray.structures.thresholds import OperatingPoint, scale


def scored(scores: list, is_true: list, n_truth: int = 0, n_images: int = 0) -> Scored:
    """Each score of a patient of its own; then those patients who have none."""
    m = len(scores)
    truth, images = np.zeros(max(m, n_images)), np.ones(max(m, n_images))
    truth[:m] = is_true
    truth[-1:] += max(0, n_truth - sum(is_true))
    return Scored("x", np.array(scores), np.array(is_true, dtype=bool), np.arange(m), truth, images)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        # Of four findings 1, 1, 2, 2 are found with 0, 1, 1, 2 false positives in four images.
        ("sensitivity=0.25", 0.85),
        ("sensitivity=0.3", 0.65),
        ("sensitivity=0.5", 0.65),
        # Never reached: all that there is would be a threshold that shows everything.
        ("sensitivity=0.9", None),
        ("fp-per-image=0.1", 0.85),
        ("fp-per-image=0.25", 0.65),
        # One more false positive would be allowed, and finds nothing more.
        ("fp-per-image=0.5", 0.65),
    ],
)
def test_thresholds_by_hand(at: str, expected: float | None) -> None:
    one = scored([0.7, 0.9, 0.6, 0.8], [1, 1, 0, 0], n_truth=4)
    assert threshold_at(one, OperatingPoint.of(at)) == expected


def test_equal_scores_enter_together_and_nothing_may_be_found() -> None:
    ties = scored([0.8, 0.8, 0.5], [1, 0, 1])
    assert threshold_at(ties, OperatingPoint.of("sensitivity=0.5")) == 0.65
    # Nothing is below the lowest.
    assert threshold_at(ties, OperatingPoint.of("sensitivity=1")) == 0.5
    # With 0.8 there is one in three already.
    assert threshold_at(ties, OperatingPoint.of("fp-per-image=0.3")) == pytest.approx(0.800001)
    assert threshold_at(scored([], []), OperatingPoint.of("sensitivity=0.5")) is None
    # What is within the target finds nothing true: nothing is shown.
    nothing = scored([0.9, 0.7, 0.6], [0, 0, 1])
    assert threshold_at(nothing, OperatingPoint.of("fp-per-image=0.4")) == pytest.approx(0.900001)
    # The sixth decimal is the last: no middle lets the lower one in, and a score is what a file holds of it.
    close = scored([0.5000014, 0.4999996], [1, 0])
    assert threshold_at(close, OperatingPoint.of("sensitivity=1")) == 0.500001


def separated(n_true: int, n_false: int) -> Scored:
    rng = np.random.default_rng(n_true)
    scores = np.concatenate([rng.uniform(0.45, 0.9, n_true), rng.uniform(0.01, 0.433, n_false)])
    return scored(scores.tolist(), [1] * n_true + [0] * n_false)


@pytest.mark.parametrize("at", ["fp-per-image=0.125", "sensitivity=1"])
@pytest.mark.parametrize("sizes", [(10, 10), (20, 80), (300, 1200)])
def test_what_is_separated_gets_the_middle_of_the_gap_and_no_certainty(at: str, sizes: tuple[int, int]) -> None:
    one = separated(*sizes)
    [fitted] = fit_thresholds([one], OperatingPoint.of(at))
    lowest, highest = one.scores[one.is_true].min(), one.scores[~one.is_true].max()
    assert fitted.is_separated
    assert fitted.point.threshold == pytest.approx((lowest + highest) / 2, abs=1e-6)
    assert fitted.numbers["fp_per_image"] <= 0.02
    # Nothing that is shown is called all but impossible, and all together are as sure as Platt's targets.
    assert fitted.point.probability(np.array(fitted.point.threshold)) > 0.1
    assert fitted.point.temperature > LOWEST
    n_true, n_false = sizes
    sure = n_true * (n_true + 1) / (n_true + 2) + n_false / (n_false + 2)
    assert fitted.point.probability(one.scores).sum() == pytest.approx(sure)


def test_scores_under_a_half_that_are_mostly_true_need_the_intercept() -> None:
    # No temperature makes them so.
    low = scored([0.3] * 40 + [0.2] * 40, [1] * 36 + [0] * 4 + [1] * 24 + [0] * 16)
    outcomes = Outcomes.of(low.scores, low.is_true, low.patients)
    assert fit_temperature(outcomes) == HIGHEST
    point = fit_point(low, OperatingPoint.of("sensitivity=1"))
    # Two scores, and a line through two points: the shares that are true, but for Platt's targets.
    targets = smoothed(outcomes).truth
    shares = [float(targets[low.scores == score].mean()) for score in (0.3, 0.2)]
    assert point.probability(np.array([0.3, 0.2])) == pytest.approx(shares)
    assert shares == pytest.approx([0.9, 0.6], abs=0.02)


@pytest.mark.parametrize("is_opposite", [True, False])
def test_scores_that_tell_nothing_get_the_share_that_is_true_and_keep_their_order(is_opposite: bool) -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.3, 0.9, 500).round(6)
    truth = scores < np.quantile(scores, 0.1) if is_opposite else rng.random(500) < 0.1
    one = scored(scores.tolist(), truth.astype(int).tolist())
    [fitted] = fit_thresholds([one], OperatingPoint.of("sensitivity=0.9"))
    if is_opposite:
        assert fitted.point.temperature == HIGHEST
    probabilities = fitted.point.probability(np.sort(scores))
    assert (np.diff(probabilities) >= 0).all()
    assert probabilities == pytest.approx(np.full(500, 0.1), abs=0.05)
    assert fitted.numbers["ece_calibrated"] < 0.1 < 0.4 < fitted.numbers["ece"]


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 1e-5, 0.02, 0.3, 0.5, 0.51, 0.9, 1.0]), st.integers(1, 5), st.integers(1, 5)),
        min_size=1,
        max_size=8,
    ),
)
def test_the_line_is_that_of_a_logistic_regression(rows: list[tuple[float, int, int]]) -> None:
    scores = [score for score, n_true, n_false in rows for _ in range(n_true + n_false)]
    truth = [value for _, n_true, n_false in rows for value in [1] * n_true + [0] * n_false]
    outcomes = smoothed(Outcomes.of(scores, truth, np.arange(len(scores))))
    temperature, intercept = fit_line(outcomes)
    assert LOWEST <= temperature <= HIGHEST

    def loss(line: np.ndarray) -> float:
        return fit_of(outcomes, scale(outcomes.scores, 1 / line[0], line[1])).log_loss

    best = minimize(loss, [1, 0], bounds=[(1 / HIGHEST, 1 / LOWEST), (-40, 40)], method="L-BFGS-B")
    assert loss(np.array([1 / temperature, intercept])) <= best.fun + 1e-7


def drawn(n: int = 400, seed: int = 0, temperature: float = 2.5) -> Scored:
    """One radiograph a patient, whose scores are too sure by a known temperature."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-1, 2, n)
    return scored(expit(temperature * z).round(6).tolist(), (rng.random(n) < expit(z)).astype(int).tolist())


def test_the_probability_of_one_score_by_hand() -> None:
    # Where all scores are 0.9 and 21 of 30 are right, the best makes 0.9 into 0.7, but for Platt's targets.
    one = scored([0.9] * 30, [1] * 21 + [0] * 9)
    point = fit_point(one, OperatingPoint.of("sensitivity=0.9"))
    assert point.probability(np.array(0.9)) == pytest.approx((21 * 22 / 23 + 9 / 11) / 30)
    assert point.threshold == 0.9


def test_the_optimum_is_that_of_a_search_and_the_threshold_that_of_scikit_learn() -> None:
    one = drawn()
    point = fit_point(one, OperatingPoint.of("sensitivity=0.8"))
    outcomes = smoothed(Outcomes.of(one.scores, one.is_true, one.patients))
    best = minimize(lambda line: fit_of(outcomes, scale(one.scores, 1 / line[0], line[1])).log_loss, [1, 0])
    assert (1 / point.temperature, point.intercept) == pytest.approx(tuple(best.x), abs=1e-3)
    metrics = pytest.importorskip("sklearn.metrics")
    false_rate, rate, levels = metrics.roc_curve(one.is_true, one.scores, drop_intermediate=False)
    place = np.flatnonzero(rate >= 0.8)[0]
    assert levels[place + 1] < point.threshold <= levels[place]
    n_false = int((~one.is_true).sum())
    within = np.flatnonzero(false_rate * n_false / len(one.scores) <= 0.1)
    place = np.flatnonzero(rate == rate[within[-1]])[0]
    assert levels[place + 1] < threshold_at(one, OperatingPoint.of("fp-per-image=0.1")) <= levels[place]


def test_no_patient_is_measured_by_a_fit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    flat = drawn(300)
    patients = rng.integers(0, 60, 300)
    count = np.bincount(patients, minlength=61).astype(float)
    one = Scored("x", flat.scores, flat.is_true, patients, np.bincount(patients, flat.is_true, 61), count)
    parts, at, seen = parts_of(one), OperatingPoint.of("fp-per-image=0.2"), []
    # The patient without a radiograph is in none.
    assert parts[60] == -1
    assert set(parts[:60]) == set(range(N_FOLDS))
    with monkeypatch.context() as patched:
        original = thresholds.fit_point
        patched.setattr(thresholds, "fit_point", lambda part, at: seen.append(part) or original(part, at))
        [fitted] = fit_thresholds([one], at, n_resamples=100)
    # Each part, and then all for what is kept.
    assert len(seen) == N_FOLDS + 1
    for part, fitted_on in enumerate(seen[:N_FOLDS]):
        assert set(fitted_on.patients) == set(np.flatnonzero((parts != part) & (count > 0)))
        assert fitted_on.images.sum() == count[parts != part].sum()
    assert len(seen[-1].scores) == 300
    # Once more, row by row.
    hits = false = 0
    probabilities = np.zeros(300)
    for row in range(300):
        others = parts[patients] != parts[patients[row]]
        held = Scored("x", one.scores[others], one.is_true[others], patients[others], one.truth, one.images)
        held = one.inside(np.isin(np.arange(61), np.unique(held.patients)))
        point = fit_point(held, at)
        found = one.scores[row] >= point.threshold
        hits, false = hits + (found and one.is_true[row]), false + (found and not one.is_true[row])
        probabilities[row] = scale(one.scores[row], point.temperature, point.intercept)
    numbers = fitted.numbers
    assert numbers["sensitivity"] == pytest.approx(hits / one.is_true.sum())
    assert numbers["fp_per_image"] == pytest.approx(false / 300)
    outcomes = Outcomes.of(one.scores, one.is_true, patients)
    assert numbers["ece"] == pytest.approx(fit_of(outcomes).ece)
    assert numbers["ece_calibrated"] == pytest.approx(fit_of(outcomes, probabilities).ece)
    for name in ("sensitivity", "fp_per_image"):
        low, high = numbers[f"{name}_ci95"]
        assert low < numbers[name] < high


def test_a_known_temperature_is_found_and_helps() -> None:
    [fitted] = fit_thresholds([drawn(4000)], OperatingPoint.of("sensitivity=0.9"), n_resamples=50)
    assert fitted.point.temperature == pytest.approx(2.5, rel=0.1)
    assert fitted.point.intercept == pytest.approx(0, abs=0.1)
    assert fitted.numbers["ece_calibrated"] < 0.5 * fitted.numbers["ece"]
    assert fitted.numbers["sensitivity"] == pytest.approx(0.9, abs=0.03)
    # Resampled errors of calibration are those of the scores when every patient is drawn once.
    one = drawn(50)
    once = np.ones((1, 50), dtype=np.uint8)
    bins = thresholds._bins_of(one, one.scores)
    expected = fit_of(Outcomes.of(one.scores, one.is_true, one.patients)).ece
    assert thresholds._resampled_ece(once, bins) == pytest.approx([expected])


def test_too_few_are_not_fitted_and_said() -> None:
    few = scored([0.9] * 9 + [0.1] * 20, [1] * 9 + [0] * 20)
    all_true = scored([0.9] * 30, [1] * 30)
    one_patient = Scored(
        "x", np.full(40, 0.5), np.arange(40) < 20, np.repeat([0, 1], 20), np.array([20.0, 0]), np.array([20.0, 20])
    )
    fitted = fit_thresholds([few, all_true, one_patient], OperatingPoint.of("sensitivity=0.9"), 10)
    assert [one.lack for one in fitted] == [
        "9 true and 20 false, 10 of each needed",
        "30 true and 0 false, 10 of each needed",
        "true in 1 patients, 5 needed",
    ]
    assert all(one.point.temperature == 1 and one.point.threshold is None and not one.numbers for one in fitted)


def test_the_report_calibrates_as_the_fit_does() -> None:
    """Its numbers are those of the fit, and all findings together are each finding's scores by its own fit."""
    rng = np.random.default_rng(2)
    findings = [shifted(rng, name, shift) for name, shift in (("high", 3.0), ("low", -2.0))]
    few = Scored("few", np.array([0.5, 0.9]), np.array([False, True]), np.array([0, 1]), np.ones(300), np.ones(300))
    none = Scored("none", np.zeros(0), np.zeros(0, dtype=bool), np.zeros(0, dtype=int), np.ones(300), np.ones(300))
    fitted = fit_thresholds([*findings, few], OperatingPoint("fp-per-image", 0.125))
    together, *single = calibrations([*findings, few, none], "together")
    assert [one.name for one in (together, *single)] == ["together", "high", "low", "few"]
    for one, of_fit in zip(single[:2], fitted[:2], strict=True):
        assert (one.temperature, one.intercept) == (of_fit.point.temperature, of_fit.point.intercept)
        assert one.before.ece == of_fit.numbers["ece"]
        assert one.after.ece == pytest.approx(of_fit.numbers["ece_calibrated"])
        assert one.after.ece < 0.05 < one.before.ece
        assert len(one.fold_temperatures) == len(one.fold_intercepts) == 5
        assert one.metrics["intercept"] == one.intercept
    # Too few to fit: --fit keeps their scores.
    assert (single[2].after, single[2].intercept, math.isnan(single[2].temperature)) == (None, None, True)
    n = [len(one.scores) for one in (*findings, few)]
    mean = np.average([single[0].after.brier, single[1].after.brier, single[2].before.brier], weights=n)
    assert together.after.brier == pytest.approx(mean)
    assert (together.n, together.intercept, together.fold_temperatures) == (sum(n), None, None)
    assert [one.name for one in calibrations([few], "together")] == ["few"]
    assert calibrations([few, none], "together")[0].after is None


def shifted(rng: np.random.Generator, name: str, shift: float) -> Scored:
    """Scores whose logits are too high by `shift`, of 300 patients."""
    z = rng.normal(-1, 2, 3000)
    truth, patients = rng.random(3000) < 1 / (1 + np.exp(-z)), rng.integers(0, 300, 3000)
    n_truth = np.bincount(patients, truth, 300)
    return Scored(name, 1 / (1 + np.exp(-z - shift)), truth, patients, n_truth, np.ones(300))
