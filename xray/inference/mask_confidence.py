"""How sure a component of a mask is where no box of a detector stands for it: a probability fitted on truth.

The mean probability of a component's pixels says little of whether the component is a finding: its pixels are those
above a threshold, so that their mean is above it too, in healthy radiographs as well. What a detector saw in the same
radiograph is evidence of its own. Both are weighed by a logistic regression, fitted as in Platt 1999 ("Probabilistic
Outputs for Support Vector Machines and Comparisons to Regularized Likelihood Methods").
"""

import dataclasses

import numpy as np

LOWEST = 1e-3
"""Scores are kept this far from 0 and 1, whose logits are infinite; it is also the score of a radiograph without a
box."""

LEAST_SPREAD = 0.25
"""The least spread of logits that is assumed: differences between nearly equal scores are chance, and in units of such
a spread any other score would be far away."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of the evidence for a component: its probability is σ(intercept + of_mask × logit(its score) + of_boxes ×
    logit(the highest score of the detector's boxes in the radiograph)). The default leaves the score as it is."""

    intercept: float = 0.0
    of_mask: float = 1.0
    of_boxes: float = 0.0

    def probability(self, scores: np.ndarray, box_scores: np.ndarray) -> np.ndarray:
        """scores, box_scores: (n,) in [0, 1], of components and of the best box beside each → (n,) in [0, 1]."""
        if self == Weights():
            return np.asarray(scores)
        z = self.intercept + _evidence(scores, box_scores) @ np.array([self.of_mask, self.of_boxes])
        probability: np.ndarray = np.exp(-np.logaddexp(0, -z))
        return probability


def fit_weights(scores: np.ndarray, box_scores: np.ndarray, is_true: np.ndarray) -> Weights:
    """The weights of least log loss; the default where there is no component.

    scores, box_scores: as for `Weights.probability`. is_true: (n,) bool, whether a component is a finding.
    As there may be few true or few false components, they count as in Platt 1999, (true + 1) / (true + 2) and 1 /
    (false + 2) in place of 1 and 0, and the weights of the evidence, in units of its spread (at least LEAST_SPREAD),
    have a normal prior of width 1. They are not negative: more evidence never makes a component less likely.
    """
    from scipy.optimize import minimize  # here, as inference without a fit does without
    from scipy.special import expit

    if not len(scores):
        return Weights()
    evidence = _evidence(scores, box_scores)
    middle, spread = evidence.mean(axis=0), np.maximum(evidence.std(axis=0), LEAST_SPREAD)
    x = np.column_stack([np.ones(len(scores)), (evidence - middle) / spread])
    n_true = int(is_true.sum())
    wanted = np.where(is_true, (n_true + 1) / (n_true + 2), 1 / (len(scores) - n_true + 2))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ weights
        slopes = np.array([0.0, *weights[1:]])
        value = (np.logaddexp(0, z) - wanted * z).sum() + (slopes**2).sum() / 2
        return float(value), x.T @ (expit(z) - wanted) + slopes

    fitted = minimize(loss, np.zeros(3), jac=True, method="L-BFGS-B", bounds=[(None, None), (0, None), (0, None)])
    slopes = fitted.x[1:] / spread
    return Weights(float(fitted.x[0] - slopes @ middle), *map(float, slopes))


def _evidence(scores: np.ndarray, box_scores: np.ndarray) -> np.ndarray:
    """(n, 2) logits."""
    p = np.clip(np.column_stack([scores, box_scores]).astype(np.float64), LOWEST, 1 - LOWEST)
    return np.log(p / (1 - p))
