"""The confidence of a mask's components, against a plain fit and where there is little to fit on."""

import numpy as np
import pytest
from scipy.special import expit, logit

from xray.inference.mask_confidence import LOWEST, Weights, fit_weights


def test_the_default_is_the_score_itself():
    scores = np.array([0.0, 0.3, 1.0])
    np.testing.assert_array_equal(Weights().probability(scores, np.ones(3)), scores)


def test_evidence_is_weighed_in_logits():
    weights = Weights(-1, 0.5, 2)
    found = weights.probability(np.array([0.8, 0.8, 1.0]), np.array([0.3, 0.0, 1.0]))
    expected = expit(-1 + 0.5 * logit([0.8, 0.8, 1 - LOWEST]) + 2 * logit([0.3, LOWEST, 1 - LOWEST]))
    np.testing.assert_allclose(found, expected)


def test_with_many_components_the_fit_finds_the_weights_that_made_them():
    rng = np.random.default_rng(0)
    scores, beside = rng.uniform(0.5, 0.98, 20_000), rng.uniform(0.001, 0.9, 20_000)
    made = Weights(-2.5, 1.2, 0.7)
    is_true = rng.random(20_000) < made.probability(scores, beside)
    fitted = fit_weights(scores, beside, is_true)
    np.testing.assert_allclose(
        [fitted.intercept, fitted.of_mask, fitted.of_boxes], [made.intercept, made.of_mask, made.of_boxes], atol=0.15
    )


def test_more_evidence_never_makes_a_component_less_likely():
    rng = np.random.default_rng(1)
    scores, beside = rng.uniform(0.5, 0.98, 200), rng.uniform(0.001, 0.9, 200)
    fitted = fit_weights(scores, beside, scores < 0.6)
    assert fitted.of_mask == 0
    assert fitted.of_boxes >= 0


@pytest.mark.parametrize("truth", [False, True])
def test_a_few_components_of_one_kind_are_no_certainty(truth):
    scores = np.array([0.6, 0.7, 0.9])
    fitted = fit_weights(scores, np.array([0.1, 0.2, 0.1]), np.full(3, truth))
    # Of three of one kind the next is another with one chance in five.
    np.testing.assert_allclose(fitted.probability(scores, np.full(3, 0.1)), 0.8 if truth else 0.2, atol=1e-3)


def test_components_that_are_all_alike_and_none():
    fitted = fit_weights(np.full(4, 0.7), np.zeros(4), np.array([True, False, False, False]))
    assert (fitted.of_mask, fitted.of_boxes) == (0, 0)
    # Wanted are 2 / 3 once and 1 / 5 three times.
    assert fitted.probability(np.array([0.9]), np.array([0.5])) == pytest.approx((2 / 3 + 3 / 5) / 4, abs=1e-4)
    assert fit_weights(np.zeros(0), np.zeros(0), np.zeros(0, dtype=bool)) == Weights()


@pytest.mark.parametrize("apart", [1e-12, 1e-7, 1e-2])
def test_what_lies_between_scores_that_are_nearly_the_same_is_chance(apart):
    scores = np.array([0.7, 0.7 + apart])
    for is_true in ([False, True], [True, False]):
        fitted = fit_weights(scores, np.array([0.1, 0.1 + apart]), np.array(is_true))
        found = fitted.probability(np.array([0.5, 0.7, 0.95]), np.array([0.01, 0.1, 0.9]))
        assert np.all((found > 0.1) & (found < 0.9))


@pytest.mark.filterwarnings("error")
def test_extreme_evidence_is_a_probability():
    found = Weights(0, 1e6, 1e6).probability(np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(found, [0, 0.5, 1])
