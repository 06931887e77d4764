"""The curves and areas against hand-worked cases and torchmetrics."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_precision_recall_curve,
    binary_roc,
)

from xray.evaluation.label_metrics import classification_metrics, operating_curve


def test_five_radiographs_by_hand():
    # From the highest: positive 0.9, negative 0.8, positive and negative both 0.5, negative 0.1.
    curve = operating_curve(np.array([0.5, 0.9, 0.1, 0.8, 0.5]), np.array([1, 1, 0, 0, 0]))
    assert curve.thresholds.tolist() == [np.inf, 0.9, 0.8, 0.5, 0.1]
    assert curve.sensitivity.tolist() == [0, 0.5, 0.5, 1, 1]
    assert curve.false_positive_rate == pytest.approx([0, 0, 1 / 3, 2 / 3, 1])
    assert curve.precision == pytest.approx([1, 1, 1 / 2, 2 / 4, 2 / 5])
    # Of the 6 pairs of a positive and a negative: 0.9 beats all 3; 0.5 loses to 0.8, ties with 0.5, beats 0.1.
    assert curve.auroc == pytest.approx((3 + 0 + 0.5 + 1) / 6)
    # Recall rises to 1/2 at precision 1 and to 1 at precision 2/4.
    assert curve.average_precision == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    # A threshold between two probabilities acts as the upper one does.
    assert [curve.at(threshold) for threshold in (1, 0.9, 0.85, 0.5, 0.0)] == [0, 1, 1, 3, 4]


@given(st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=2, max_size=40))
def test_against_torchmetrics(rows):
    scores, truth = np.array([row[0] / 10 for row in rows]), np.array([row[1] for row in rows])
    assume(0 < truth.sum() < len(truth))
    curve = operating_curve(scores, truth)
    theirs = torch.from_numpy(scores), torch.from_numpy(truth).long()
    assert curve.auroc == pytest.approx(float(binary_auroc(*theirs)), abs=1e-6)
    assert curve.average_precision == pytest.approx(float(binary_average_precision(*theirs)), abs=1e-6)
    fpr, tpr, _ = binary_roc(*theirs)
    assert curve.false_positive_rate == pytest.approx(fpr.numpy(), abs=1e-6)
    assert curve.sensitivity == pytest.approx(tpr.numpy(), abs=1e-6)
    precision, recall, _ = binary_precision_recall_curve(*theirs)
    assert curve.precision == pytest.approx(precision.numpy()[::-1], abs=1e-6)
    assert curve.sensitivity == pytest.approx(recall.numpy()[::-1], abs=1e-6)


def test_labels_that_cannot_be_measured_are_left_out():
    probabilities = np.array([[0.2, 0.1, 0.3], [0.7, 0.9, 0.4]])
    truth = np.array([[0, 0, 1], [1, 0, 1]])
    metrics = classification_metrics(probabilities, truth, ["Nodule", "Nobody", "Everybody"])
    assert metrics == {
        "auroc": {"Nodule": 1.0},
        "average_precision": {"Nodule": 1.0},
        "mean_auroc": 1.0,
        "mean_average_precision": 1.0,
        "n_images": 2,
    }
    assert classification_metrics(probabilities[:, 1:], truth[:, 1:], ["Nobody", "Everybody"]) == {
        "auroc": {}, "average_precision": {}, "n_images": 2
    }  # fmt: skip
    assert operating_curve(np.array([]), np.array([])) is None


def test_means_over_labels():
    # One label ranked right, one exactly wrong: areas 1 and 0; precision of the wrong one 1/2.
    probabilities = np.array([[0.2, 0.8], [0.7, 0.3]])
    metrics = classification_metrics(probabilities, np.array([[0, 0], [1, 1]]), ["a", "b"])
    assert metrics["mean_auroc"] == 0.5
    assert metrics["mean_average_precision"] == 0.75


def test_bad_values():
    with pytest.raises(ValueError, match=r"1 of 2 probabilities are no numbers"):
        operating_curve(np.array([np.nan, 0.1]), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"must both be \(N,\)"):
        operating_curve(np.array([0.1]), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"must both be \(N, 2\)"):
        classification_metrics(np.zeros((3, 1)), np.zeros((3, 1)), ["a", "b"])
