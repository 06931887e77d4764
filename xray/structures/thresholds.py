"""Which findings count as found, and how probable they are: a calibration and a threshold for each, as fitted.

A temperature T and an intercept b make a probability of a score p: σ(logit(p) / T + b). It is the scaling of Platt 1999
of a score's logit; without the intercept, the temperature scaling of Guo et al. 2017 (arXiv:1706.04599, section 4.2),
which cannot correct the scores of a rare finding that are all too high. The order of the scores of a finding stays.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from xray.errors import FlagError
from xray.structures.boxes import BoxTable
from xray.structures.predictions import NO_FINDING_CATEGORY
from xray.structures.radiograph_findings import RadiographFindings

EPSILON = 1e-6
"""Scores are kept this far from 0 and 1, whose logits are infinite; files hold six decimals."""
DECIMALS = 6
"""Of a score in predictions.json, from which thresholds are fitted."""
SHOWN_FROM = 0.3
"""Of a finding for which no threshold was fitted, or of all without a fit: the lowest confidence that is shown."""
ABNORMAL = "abnormal"
"""The label that a radiograph has if it has any; its score is 1 − that of "No finding"."""


def logits(scores: np.ndarray) -> np.ndarray:
    """Of scores in [0, 1], kept EPSILON from both ends."""
    from scipy.special import logit  # here, as inference without a fit does without

    values: np.ndarray = logit(np.clip(scores, EPSILON, 1 - EPSILON))
    return values


def scale(scores: np.ndarray, temperature: float | np.ndarray, intercept: float = 0.0) -> np.ndarray:
    """Scores in [0, 1] with their logits divided by the temperature, above 0, and the intercept added; in the same
    order."""
    from scipy.special import expit

    scaled: np.ndarray = expit(logits(scores) / temperature + intercept)
    return scaled


@dataclasses.dataclass(frozen=True)
class Point:
    """What was fitted for one finding.

    temperature: above 0. intercept: any; a temperature of 1 and an intercept of 0 leave scores as they are. threshold:
    lowest score, as models give it, that counts as found; above 1 where none does; None where none was fitted.
    """

    temperature: float = 1.0
    threshold: float | None = None
    intercept: float = 0.0

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Scores of any shape in [0, 1] → calibrated probabilities."""
        if self.temperature == 1 and self.intercept == 0:
            return np.asarray(scores)
        return scale(np.asarray(scores), self.temperature, self.intercept)

    def is_positive(self, scores: np.ndarray, from_probability: float | None = None) -> np.ndarray:
        """Whether scores count as found. from_probability: what a user set in place of the threshold."""
        if from_probability is None and self.threshold is not None:
            # As files hold them: the threshold is one of these, and a score must not fail it by its seventh decimal.
            return np.asarray(np.round(scores, DECIMALS) >= self.threshold)
        return np.asarray(self.probability(scores) >= (SHOWN_FROM if from_probability is None else from_probability))


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
    """kind: what is to be reached. value: a sensitivity in (0, 1], or false positives an image above 0."""

    kind: Literal["sensitivity", "fp-per-image"]
    value: float

    def __str__(self) -> str:
        return f"{self.kind}={self.value:g}"

    @classmethod
    def of(cls, text: str) -> "OperatingPoint":
        """From "sensitivity=0.9" or "fp-per-image=0.25". Raises FlagError for anything else."""
        name, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if name == "sensitivity" and 0 < value <= 1:
            return cls("sensitivity", value)
        if name == "fp-per-image" and 0 < value < math.inf:
            return cls("fp-per-image", value)
        raise FlagError(
            f"--at is {text!r}: give sensitivity=S, above 0 and up to 1, or fp-per-image=F, above 0, such as "
            "sensitivity=0.9 or fp-per-image=0.25"
        )


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """What was fitted for the findings of a run or an ensemble.

    kind: what the scores are of, "boxes" or, of classifiers alone, "labels" of whole radiographs. of: name of a
    finding, or ABNORMAL → its point; a finding that is not there keeps its scores, and counts from SHOWN_FROM.
    at: the operating point, such as "sensitivity=0.9". digest: SHA-256 of the file, in hex.
    from_probability: what a user set in place of all thresholds, in [0, 1]; None where nothing is.
    """

    kind: Literal["boxes", "labels"]
    of: Mapping[str, Point]
    at: str
    digest: str = ""
    from_probability: float | None = None

    @property
    def description(self) -> str:
        """What an SR says of them; it changes with whatever changes what is shown."""
        if self.from_probability is not None:
            shown = f"from a calibrated probability of {self.from_probability:g}"
        else:
            shown = f"from thresholds of their own, at {self.at}"
        return f"{shown} (fit sha256:{self.digest[:16]})"

    def instead(self, from_probability: float | None) -> "Thresholds":
        """The same with what a user set, if it is anything."""
        return self if from_probability is None else dataclasses.replace(self, from_probability=from_probability)

    def probabilities(self, table: BoxTable, categories: Mapping[int, str]) -> np.ndarray:
        """(N,) calibrated probabilities of rows, "No finding" among them. categories: id → name."""
        values = table.scores.astype(np.float64)
        for label in np.unique(table.labels).tolist():
            rows = table.labels == label
            if _is_no_finding(label, categories):
                values[rows] = 1 - self._point(ABNORMAL).probability(1 - values[rows])
            else:
                values[rows] = self._point(categories.get(label)).probability(values[rows])
        return values

    def is_positive(self, table: BoxTable, categories: Mapping[int, str]) -> np.ndarray:
        """(N,) bool, which rows count as found; rows of "No finding" are no finding."""
        found = np.zeros(len(table), dtype=bool)
        for label in np.unique(table.labels).tolist():
            if not _is_no_finding(label, categories):
                rows = table.labels == label
                point = self._point(categories.get(label))
                found[rows] = point.is_positive(table.scores[rows], self.from_probability)
        return found

    def calibrated(self, table: BoxTable, categories: Mapping[int, str]) -> BoxTable:
        """All rows, probabilities in place of scores."""
        return dataclasses.replace(table, scores=self.probabilities(table, categories))

    def shown(self, findings: RadiographFindings) -> RadiographFindings:
        """What people are shown: the rows that count as found, and those of "No finding", with their probabilities.

        has_findings of it: whether a row counts as found, or a label of the whole radiograph where those were fitted.
        """
        table, categories, labels = findings.table, findings.categories, findings.labels
        kept = self.is_positive(table, categories)
        has_findings = bool(self.positive_labels(labels)) or bool(kept.any())
        if _is_no_finding(NO_FINDING_CATEGORY, categories):
            kept |= table.labels == NO_FINDING_CATEGORY
        rows, masks = self.calibrated(table, categories).select_masked(kept, findings.masks)
        probabilities = self.probabilities_of_labels(labels)
        return dataclasses.replace(findings, table=rows, masks=masks, labels=probabilities, has_findings=has_findings)

    def probabilities_of_labels(self, labels: Mapping[str, float]) -> dict[str, float]:
        """Label of a whole radiograph → its probability.

        That of a classifier beside detectors stays as it is, but for ABNORMAL: it is the boxes that were fitted.
        """
        return {name: self._of_label(name, value)[0] for name, value in labels.items()}

    def positive_labels(self, labels: Mapping[str, float]) -> list[str]:
        """The labels that count as found; none beside detectors, where boxes do."""
        return [name for name, value in labels.items() if self.kind == "labels" and self._of_label(name, value)[1]]

    def _of_label(self, name: str, score: float) -> tuple[float, bool]:
        point = self._point(name) if name == ABNORMAL or self.kind == "labels" else Point()
        one = np.array([score], dtype=np.float64)
        return float(point.probability(one)[0]), bool(point.is_positive(one, self.from_probability)[0])

    def _point(self, name: str | None) -> Point:
        return self.of.get(name or "", Point())


def in_force(
    fitted: Thresholds | None, *asked: float | None, default: float = SHOWN_FROM
) -> tuple[float, Thresholds | None]:
    """What decides which findings are shown: the lowest confidence, and fitted thresholds, which take its place.

    asked: what a user set, in [0, 1], the first that is anything before the others.
    """
    wanted = next((value for value in asked if value is not None), None)
    return default if wanted is None else wanted, fitted and fitted.instead(wanted)


def _is_no_finding(label: int, categories: Mapping[int, str]) -> bool:
    return label == NO_FINDING_CATEGORY and label not in categories
