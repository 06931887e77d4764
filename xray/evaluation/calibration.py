"""Calibration: are 80 % of the boxes or labels with a score of 0.8 right? And what corrects scores.

Brier 1950; expected calibration error over 15 equal bins and temperature scaling of Guo et al. 2017 (arXiv:1706.04599),
here for one probability p instead of a softmax: logit(p) is divided by the temperature.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, log_expit

from xray.evaluation.resampling import percentile_interval, resampled_sums
from xray.structures.thresholds import logits, scale

N_BINS = 15
LOWEST, HIGHEST = 0.05, 20.0
"""The range of temperatures: where scores of right and wrong do not overlap, the best temperature would be 0."""
N_FOLDS = 5
MOST_STEPS = 100
"""Of Newton's; five to ten are enough."""


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """m scores and their outcomes.

    scores: (m,) float64 in [0, 1]. truth: (m,) float64 in [0, 1]: 1 for right, 0 for wrong; for many outcomes of one
    score, the share that is right. weights: (m,) float64, above 0. patients: (m,) int64, numbered from 0.
    """

    scores: np.ndarray
    truth: np.ndarray
    weights: np.ndarray
    patients: np.ndarray

    @classmethod
    def of(cls, scores: object, truth: object, patients: object, weights: object = None) -> "Outcomes":
        """From anything NumPy can read; weights default to 1. Raises ValueError if lengths or ranges do not fit."""
        scores, truth = (np.asarray(values, dtype=np.float64).reshape(-1) for values in (scores, truth))
        patients = np.asarray(patients, dtype=np.int64).reshape(-1)
        weights = np.ones(len(scores)) if weights is None else np.asarray(weights, dtype=np.float64).reshape(-1)
        if not len(scores) == len(truth) == len(weights) == len(patients):
            raise ValueError(f"lengths differ: {len(scores)}, {len(truth)}, {len(weights)}, {len(patients)}")
        if len(scores) and not (min(scores.min(), truth.min()) >= 0 and max(scores.max(), truth.max()) <= 1):
            raise ValueError("scores and truth must be in [0, 1]")
        rows = weights > 0
        return cls(scores[rows], truth[rows], weights[rows], patients[rows])


@dataclasses.dataclass(frozen=True)
class Fit:
    """How well scores are calibrated. brier, log_loss: means, lower is better (log_loss in nats).

    weights, confidence, frequency: (N_BINS,) of scores in equal bins of [0, 1], 1 in the last: the weight of each bin,
    its mean score and its share that is right; NaN in an empty one.
    """

    brier: float
    log_loss: float
    weights: np.ndarray
    confidence: np.ndarray
    frequency: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean distance of confidence and frequency, weighted by the bins' weights."""
        filled = self.weights > 0
        gaps = np.abs(self.confidence[filled] - self.frequency[filled])
        return float((self.weights[filled] * gaps).sum() / self.weights.sum())


@dataclasses.dataclass(frozen=True)
class Calibration:
    """One kind of score before and after it is calibrated.

    n: scores. share: of them that are right. temperature, intercept: fitted on all scores; the temperature is above 1
    where scores are too sure, NaN where none was fitted; the intercept None where a temperature alone is.
    fold_temperatures, fold_intercepts: for each fold of patients, fitted on the other folds; `after` is of scores that
    are calibrated so, each by what was fitted without its patient. None where there was too little to fit, or where
    several findings stand together, each calibrated by its own fit.
    brier_ci95: of `before`; None without resamples. frequency_ci95: (B, 2), of each bin before; None without
    resamples.
    """

    name: str
    n: int
    share: float
    before: Fit
    temperature: float
    fold_temperatures: tuple[float, ...] | None
    after: Fit | None
    brier_ci95: list[float] | None = None
    frequency_ci95: np.ndarray | None = None
    intercept: float | None = None
    fold_intercepts: tuple[float, ...] | None = None

    @property
    def metrics(self) -> dict[str, Any]:
        """The part of metrics.json about this kind of score."""
        before, after = self.before, self.after
        numbers: dict[str, Any] = {"n": self.n, "share_right": self.share}
        numbers |= {"brier": before.brier, "ece": before.ece, "log_loss": before.log_loss}
        if self.brier_ci95:
            numbers["brier_ci95"] = self.brier_ci95
        numbers["temperature"] = self.temperature
        if self.intercept is not None:
            numbers["intercept"] = self.intercept
        if self.fold_temperatures is not None:
            numbers["temperatures_of_folds"] = list(self.fold_temperatures)
        if self.fold_intercepts is not None:
            numbers["intercepts_of_folds"] = list(self.fold_intercepts)
        if after is not None:
            scaled = {"brier": after.brier, "ece": after.ece, "log_loss": after.log_loss}
            numbers |= {f"{name}_cross_fitted": value for name, value in scaled.items()}
        for name, fit in (("reliability", before), ("reliability_cross_fitted", after)):
            if fit is not None:
                columns = {"weight": fit.weights, "confidence": fit.confidence, "frequency": fit.frequency}
                numbers[name] = {column: values[fit.weights > 0].tolist() for column, values in columns.items()}
        return numbers


def bin_of(scores: np.ndarray) -> np.ndarray:
    """(m,) scores → (m,) int64, the number of their bin."""
    return np.minimum((np.asarray(scores) * N_BINS).astype(np.int64), N_BINS - 1)


def fit_of(outcomes: Outcomes, scores: np.ndarray | None = None) -> Fit:
    """All numbers of the outcomes' scores, or of `scores` in their place. There must be at least one.

    The log loss is the mean of −ln of the probability given to the real outcome; scores are kept 1e-6 from 0 and 1.
    """
    scores = outcomes.scores if scores is None else scores
    z = logits(scores)
    log_losses = -(outcomes.truth * log_expit(z) + (1 - outcomes.truth) * log_expit(-z))
    log_loss = np.average(log_losses, weights=outcomes.weights)
    brier = np.average(_squares(outcomes, scores), weights=outcomes.weights)
    bins = bin_of(scores)
    weights = np.bincount(bins, outcomes.weights, N_BINS)
    sums = [np.bincount(bins, outcomes.weights * values, N_BINS) for values in (scores, outcomes.truth)]
    means = [np.divide(total, weights, out=np.full(N_BINS, math.nan), where=weights > 0) for total in sums]
    return Fit(float(brier), float(log_loss), weights, *means)


def _squares(outcomes: Outcomes, scores: np.ndarray) -> np.ndarray:
    """(m,) squared distances of scores and truth, of which the Brier score is the weighted mean."""
    squares: np.ndarray = outcomes.truth * (1 - scores) ** 2 + (1 - outcomes.truth) * scores**2
    return squares


def fit_temperature(outcomes: Outcomes) -> float:
    """The temperature in [LOWEST, HIGHEST] of the least log loss; NaN where all outcomes are right, all are wrong, or
    there is none.

    The loss is convex in the temperature's inverse β, so its derivative Σ w z (σ(β z) − y) changes sign once at most.
    """
    share = np.average(outcomes.truth, weights=outcomes.weights) if len(outcomes.scores) else math.nan
    if not 0 < share < 1:
        return math.nan
    z = logits(outcomes.scores)
    weighted = outcomes.weights * z
    target = float(weighted @ outcomes.truth)

    def slope(inverse: float) -> float:
        return float(weighted @ expit(inverse * z)) - target

    low, high = 1 / HIGHEST, 1 / LOWEST
    if slope(low) >= 0:
        return HIGHEST
    if slope(high) <= 0:
        return LOWEST
    return 1 / float(brentq(slope, low, high, xtol=1e-12, rtol=1e-12))


def fit_line(outcomes: Outcomes) -> tuple[float, float]:
    """The temperature, in [LOWEST, HIGHEST], and the intercept of the least log loss together: Platt 1999, of logits.

    outcomes: with a truth above 0 and below 1 somewhere, as `smoothed` makes it, or there may be no such numbers.

    The loss is convex in the temperature's inverse and the intercept. Newton's steps, each halved until it lessens the
    loss, as in Lin, Lin and Weng 2007 ("A note on Platt's probabilistic outputs for support vector machines").
    """
    z, weights, truth = logits(outcomes.scores), outcomes.weights, outcomes.truth
    columns = np.stack([z, np.ones_like(z)])

    def loss(line: np.ndarray) -> float:
        u = line @ columns
        return float(weights @ (np.logaddexp(0, u) - truth * u))

    line = np.array([1.0, _intercept(outcomes, z)])
    for _ in range(MOST_STEPS):
        probabilities = expit(line @ columns)
        slope = columns @ (weights * (probabilities - truth))
        if np.abs(slope).max() <= 1e-10 * weights.sum():
            break
        curvature = (columns * (weights * probabilities * (1 - probabilities))) @ columns.T
        step = np.linalg.solve(curvature + 1e-12 * np.eye(2) * max(1.0, float(curvature.max())), slope)
        before, length = loss(line), 1.0
        while length > 1e-10 and loss(line - length * step) > before - 1e-4 * length * float(slope @ step):
            length /= 2
        line = line - length * step
    inverse = float(np.clip(line[0], 1 / HIGHEST, 1 / LOWEST))
    return 1 / inverse, float(line[1]) if inverse == line[0] else _intercept(outcomes, inverse * z)


def _intercept(outcomes: Outcomes, z: np.ndarray) -> float:
    """What is added to logits so that probabilities have the mean of the truth, which is where the loss is least."""
    share = np.average(outcomes.truth, weights=outcomes.weights)
    middle = float(logits(np.array(share)))

    def excess(intercept: float) -> float:
        return float(np.average(expit(z + intercept), weights=outcomes.weights) - share)

    return float(brentq(excess, middle - z.max() - 1, middle - z.min() + 1, xtol=1e-12))


def smoothed(outcomes: Outcomes) -> Outcomes:
    """Outcomes of truth 0 and 1 with the targets of Platt 1999 (section 2.2): (N+ + 1) / (N+ + 2) for what is right,
    1 / (N− + 2) for what is wrong.

    Without them, the best temperature of scores that do not overlap is 0, however few they are.
    """
    n_right = float(outcomes.weights @ outcomes.truth)
    n_wrong = float(outcomes.weights.sum()) - n_right
    return dataclasses.replace(
        outcomes, truth=np.where(outcomes.truth > 0.5, (n_right + 1) / (n_right + 2), 1 / (n_wrong + 2))
    )


def deal_patients(outcomes: Outcomes, n_folds: int = N_FOLDS) -> np.ndarray:
    """(patients,) int64, a fold for each patient: by chance, but patients with a right outcome are spread evenly."""
    n = int(outcomes.patients.max(initial=-1)) + 1
    has_right = np.bincount(outcomes.patients, outcomes.truth, n) > 0
    order = np.lexsort((np.random.default_rng(0).permutation(n), ~has_right))
    folds = np.empty(n, dtype=np.int64)
    folds[order] = np.arange(n) % n_folds
    return folds


def calibrate(name: str, outcomes: Outcomes, times: np.ndarray | None = None) -> Calibration | None:
    """The calibration of one kind of score by a temperature alone; None where there is no score.

    times: of `draw_patients`, numbering the patients likewise; None leaves the intervals out.
    """
    if not len(outcomes.scores):
        return None
    scaled, temperatures = _cross_fitted(outcomes)
    found = described(name, outcomes, scaled, times)
    return dataclasses.replace(found, temperature=fit_temperature(outcomes), fold_temperatures=temperatures)


def described(
    name: str, outcomes: Outcomes, calibrated: np.ndarray | None, times: np.ndarray | None = None
) -> Calibration:
    """One kind of score as it is, and as it is calibrated: (m,) scores, or None where it is not. There must be at least
    one; nothing is said of how the scores were calibrated. times: as of `calibrate`."""
    brier_ci95, frequency_ci95 = (None, None) if times is None else _intervals(outcomes, times)
    return Calibration(
        name,
        n=len(outcomes.scores),
        share=float(np.average(outcomes.truth, weights=outcomes.weights)),
        before=fit_of(outcomes),
        temperature=math.nan,
        fold_temperatures=None,
        after=None if calibrated is None else fit_of(outcomes, calibrated),
        brier_ci95=brier_ci95,
        frequency_ci95=frequency_ci95,
    )


def _cross_fitted(outcomes: Outcomes) -> tuple[np.ndarray | None, tuple[float, ...] | None]:
    """The scores, each scaled by the temperature of the other folds of patients, and these temperatures."""
    # Patients without a score are left out, as they would leave folds empty.
    known, patients = np.unique(outcomes.patients, return_inverse=True)
    n_folds = min(N_FOLDS, len(known))
    if n_folds < 2:
        return None, None
    fold = deal_patients(dataclasses.replace(outcomes, patients=patients), n_folds)[patients]
    scaled, temperatures = np.empty_like(outcomes.scores), []
    for number in range(n_folds):
        held = fold == number
        others = Outcomes(*(getattr(outcomes, part.name)[~held] for part in dataclasses.fields(Outcomes)))
        temperatures.append(fit_temperature(others))
        if math.isnan(temperatures[-1]):
            return None, None
        scaled[held] = scale(outcomes.scores[held], temperatures[-1])
    return scaled, tuple(temperatures)


def _intervals(outcomes: Outcomes, times: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Of the Brier score, and of each bin's frequency (B, 2)."""
    n_patients = times.shape[1]
    places = outcomes.patients * N_BINS + bin_of(outcomes.scores)
    weights, right, squares = (
        np.bincount(places, outcomes.weights * values, n_patients * N_BINS).reshape(n_patients, N_BINS)
        for values in (1.0, outcomes.truth, _squares(outcomes, outcomes.scores))
    )
    sums = resampled_sums(times, np.concatenate([weights, right, squares.sum(axis=1, keepdims=True)], axis=1))
    drawn, right_drawn, squares_drawn = sums[:, :N_BINS], sums[:, N_BINS:-1], sums[:, -1]
    with np.errstate(invalid="ignore"):
        brier, frequency = squares_drawn / drawn.sum(axis=1), right_drawn / drawn
    return percentile_interval(brier), np.array([percentile_interval(column) for column in frequency.T])
