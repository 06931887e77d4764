"""Labels of whole radiographs against torchmetrics, and their intervals against resamples that are written out."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from xray.evaluation.alignment import Alignment
from xray.evaluation.label_metrics import operating_curve
from xray.evaluation.labels import LabelScores, _resampled, evaluate_labels
from xray.structures.boxes import BoxTable

NOBODY = BoxTable.empty()


def alignment_of(n: int) -> Alignment:
    return Alignment(np.arange(n), [{}] * n, NOBODY, NOBODY, {}, {}, {1: "Nodule"}, np.ones(n, dtype=bool), (), 0)


def label(scores: list, truth: list, name: str = "Nodule", origin: str = "rows", lowest: float = 0.5) -> LabelScores:
    return LabelScores(name, origin, np.array(scores), np.array(truth, dtype=bool), 0.5, lowest)


def test_numbers_and_points_by_hand() -> None:
    found = evaluate_labels(
        alignment_of(5),
        [
            label([0.5, 0.9, 0.1, 0.8, 0.4], [1, 1, 0, 0, 0]),
            label([0.5, 0.9, 0.1, 0.8, 0.4], [1, 1, 1, 1, 1], "Everybody"),
            label([0.4, 0.3, 0.2, 0.1, 0.0], [1, 0, 0, 0, 0], origin="classifier"),
            label([0.5, 0.9, 0.1, 0.8, 0.4], [0, 0, 0, 0, 0], "Nobody"),
        ],
    )
    scores, truth = torch.tensor([0.5, 0.9, 0.1, 0.8, 0.4]), torch.tensor([1, 1, 0, 0, 0])
    assert found.metrics["auroc"] == {"Nodule": pytest.approx(float(binary_auroc(scores, truth)), abs=1e-6)}
    precision = float(binary_average_precision(scores, truth))
    assert found.metrics["average_precision"] == {"Nodule": pytest.approx(precision, abs=1e-6)}
    assert found.metrics["mean_auroc"] == found.metrics["auroc"]["Nodule"]
    assert found.metrics["auroc_classifier"] == {"Nodule": 1.0}
    # From 0.5 up: both positives, one of three negatives.
    point = {"threshold": 0.5, "sensitivity": 1.0, "specificity": 2 / 3, "precision": 2 / 3}
    assert found.metrics["operating_points"]["Nodule"] == pytest.approx(point)
    # The classifier calls nobody positive.
    nobody = found.metrics["operating_points_classifier"]["Nodule"]
    assert (nobody["sensitivity"], nobody["specificity"]) == (0, 1)
    assert np.isnan(nobody["precision"])
    assert [curve.label.origin for curve in found.curves] == ["rows", "classifier"]
    assert not any("ci95" in name for name in found.metrics)


def test_abnormal_is_no_label_beside_the_others() -> None:
    right, wrong = [0.9, 0.1], [0.1, 0.9]
    labels = [label(right, [1, 0]), label(wrong, [1, 0], "abnormal", "no finding")]
    both = evaluate_labels(alignment_of(2), labels).metrics
    assert both["auroc"] == {"Nodule": 1.0, "abnormal": 0.0}
    assert both["mean_auroc"] == 1.0
    assert evaluate_labels(alignment_of(2), labels[1:]).metrics["mean_auroc"] == 0.0
    assert evaluate_labels(alignment_of(2), [label(right, [1, 1])]) is None


def test_a_resample_equals_scoring_the_copies() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        scores, truth = rng.integers(0, 6, 14) / 5, rng.random(14) < 0.4
        patients = np.arange(14) // 2
        times = np.bincount(rng.integers(0, 7, 7), minlength=7)
        order = np.argsort(-scores, kind="stable")
        ordered = scores[order]
        is_last = np.append(ordered[1:] != ordered[:-1], True)
        n_called = int((scores >= 0.6).sum())
        ours = _resampled(truth[order], is_last, patients[order], n_called, times[None])[0]
        copies = np.repeat(np.arange(14), times[patients])
        curve = operating_curve(scores[copies], truth[copies])
        if curve is None:
            assert np.isnan(ours).all()
            continue
        at = curve.at(0.6)
        theirs = [curve.auroc, curve.average_precision, curve.sensitivity[at], 1 - curve.false_positive_rate[at]]
        np.testing.assert_allclose(ours, theirs)


def test_intervals_hold_the_number() -> None:
    rng = np.random.default_rng(2)
    truth = rng.random(60) < 0.4
    scores = np.clip(truth * 0.3 + rng.random(60) * 0.6, 0, 1)
    metrics = evaluate_labels(alignment_of(60), [label(scores, truth)], 300).metrics
    for low_high, value in (
        (metrics["auroc_ci95"]["Nodule"], metrics["auroc"]["Nodule"]),
        (metrics["average_precision_ci95"]["Nodule"], metrics["average_precision"]["Nodule"]),
        *(
            (metrics["operating_points"]["Nodule"][f"{name}_ci95"], metrics["operating_points"]["Nodule"][name])
            for name in ("sensitivity", "specificity")
        ),
    ):
        assert low_high[0] < value < low_high[1]


def test_the_interval_of_a_mean_over_labels() -> None:
    """Resample by resample: of a label with itself it is the label's own; a classifier's beside it plays no part."""
    rng = np.random.default_rng(3)
    truth = rng.random((2, 40)) < 0.4
    scores = np.clip(truth * 0.3 + rng.random((2, 40)) * 0.6, 0, 1)
    one, other = (label(scores[k], truth[k], name) for k, name in enumerate(("Nodule", "Effusion")))
    same = [one, label(scores[0], truth[0], "Again"), label(rng.random(40), truth[0], origin="classifier")]
    metrics = evaluate_labels(alignment_of(40), same, 200).metrics
    assert metrics["mean_auroc_ci95"] == pytest.approx(metrics["auroc_ci95"]["Nodule"])
    both = evaluate_labels(alignment_of(40), [one, other], 200).metrics
    low, high = both["mean_average_precision_ci95"]
    assert low < both["mean_average_precision"] < high
    widths = [end - start for start, end in both["average_precision_ci95"].values()]
    assert high - low < max(widths)
