"""Which findings of a radiograph its report, its presentation state and its picture hold: the same ones."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from xray.findings import NO_FINDING_NAME
from xray.structures.predictions import NO_FINDING_CATEGORY
from xray.structures.radiograph_findings import RadiographFindings

MAX_FINDINGS = 200
"""Findings of one report; a reader is helped by none beyond."""
ABNORMAL = "abnormal"
"""The label that a radiograph has if it is not normal."""


@dataclasses.dataclass(frozen=True)
class Reported:
    """A finding of a report.

    label: its category id. box: (x1, y1, x2, y2) in original pixels, inside the radiograph. row: of the table.
    """

    name: str
    label: int
    box: tuple[float, float, float, float]
    score: float
    row: int


def reported(findings: RadiographFindings, threshold: float, size: tuple[int, int]) -> list[Reported]:
    """The findings that are reported, the surest first.

    threshold: lowest score. size: (width, height) of the radiograph.
    """
    found, table, categories = [], findings.table, findings.categories
    for row in np.argsort(-table.scores, kind="stable").tolist():
        label, score = int(table.labels[row]), float(table.scores[row])
        name = categories.get(label, NO_FINDING_NAME if label == NO_FINDING_CATEGORY else f"category {label}")
        box = table.boxes[row].clip(0, [*size, *size])
        # A classifier's row says of the whole radiograph what its label does already.
        is_label = name in findings.labels and (box == [0, 0, *size]).all()
        if score >= threshold and name != NO_FINDING_NAME and not is_label:
            found.append(Reported(name, label, tuple(box.tolist()), score, row))
    return found[:MAX_FINDINGS]


def has_label(labels: Mapping[str, float], threshold: float) -> bool:
    """Whether labels of a whole radiograph say that there is a finding; "abnormal" where it is the only one.

    threshold: lowest probability of one.
    """
    named = [value for name, value in labels.items() if name not in (ABNORMAL, NO_FINDING_NAME)]
    return any(value >= threshold for value in named or [labels.get(ABNORMAL, -1.0)])


def probabilities_of(findings: RadiographFindings) -> dict[str, float]:
    """What is known of the whole radiograph, "No finding" first: name → probability."""
    table, labels = findings.table, findings.labels
    is_normal = (table.labels == NO_FINDING_CATEGORY) & (NO_FINDING_CATEGORY not in findings.categories)
    probabilities = {name: value for name, value in labels.items() if name != ABNORMAL}
    if is_normal.any():
        return {NO_FINDING_NAME: float(table.scores[is_normal].max())} | probabilities
    if ABNORMAL in labels:
        return {NO_FINDING_NAME: 1 - labels[ABNORMAL]} | probabilities
    return probabilities
