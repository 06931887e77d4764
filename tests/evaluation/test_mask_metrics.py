"""The masks' metrics against hand-worked cases and a pixel-by-pixel reference."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from xray.evaluation.mask_metrics import dice_scores, mask_sums, segmentation_metrics


def test_four_radiographs_by_hand():
    # 1: 6 of 8 true pixels found and 4 false: Dice 12/18, IoU 6/12. 2: a false alarm: 0 and 0.
    # 3: both empty: 1 and 1. 4: missed altogether: 0 and 0.
    metrics = segmentation_metrics(np.array([6, 0, 0, 0]), np.array([10, 5, 0, 0]), np.array([8, 0, 0, 7]))
    assert metrics == {
        "dice": pytest.approx((2 / 3 + 0 + 1 + 0) / 4),
        "dice_positive": pytest.approx((2 / 3 + 0) / 2),
        "sensitivity": 0.5,
        "false_positive_rate": 0.5,
        "iou": pytest.approx((0.5 + 0 + 1 + 0) / 4),
        "n_images": 4,
    }


def test_predicting_nothing_scores_the_share_of_normals():
    # SIIM-ACR: 2,379 of 10,675 are positive, so empty masks score 1 − 2379 / 10675 = 0.777.
    true = np.where(np.arange(10675) < 2379, 500, 0)
    metrics = segmentation_metrics(np.zeros(10675), np.zeros(10675), true)
    assert metrics["dice"] == pytest.approx(0.7771, abs=1e-4)
    assert metrics["dice_positive"] == metrics["sensitivity"] == metrics["false_positive_rate"] == 0


def test_what_cannot_be_measured_is_left_out():
    assert "false_positive_rate" not in segmentation_metrics(np.array([1]), np.array([1]), np.array([1]))
    only_normal = segmentation_metrics(np.array([0]), np.array([3]), np.array([0]))
    assert only_normal == {"dice": 0.0, "false_positive_rate": 1.0, "iou": 0.0, "n_images": 1}


def test_classes_count_each_by_itself():
    # Left lung perfect, right lung half: one radiograph, mean of 1 and 2·5/(10 + 5).
    metrics = segmentation_metrics(np.array([[10, 5]]), np.array([[10, 5]]), np.array([[10, 10]]))
    assert metrics["dice"] == pytest.approx((1 + 10 / 15) / 2)
    assert metrics["n_images"] == 1


@pytest.mark.parametrize(
    ("sums", "message"),
    [
        (([1, 2], [1], [1]), "must be equal"),
        (([], [], []), "no radiographs"),
        (([5], [4], [6]), "larger than one of its masks"),
        (([-1], [4], [6]), "negative"),
    ],
)
def test_sums_that_cannot_be(sums, message):
    with pytest.raises(ValueError, match=message):
        segmentation_metrics(*(np.array(values) for values in sums))


@given(st.data())
def test_against_pixels(data):
    masks = arrays(bool, (3, 2, 4, 5), elements=st.booleans())
    predicted, true = data.draw(masks), data.draw(masks)
    sums = [values.numpy() for values in mask_sums(torch.from_numpy(predicted), torch.from_numpy(true))]
    scores = dice_scores(*sums)
    for image, k in np.ndindex(3, 2):
        p = set(map(tuple, np.argwhere(predicted[image, k])))
        t = set(map(tuple, np.argwhere(true[image, k])))
        expected = 1.0 if not p and not t else 2 * len(p & t) / (len(p) + len(t))
        assert scores[image, k] == pytest.approx(expected)
    iou = np.mean(
        [
            1.0 if not (p | t).any() else (p & t).sum() / (p | t).sum()
            for p, t in zip(predicted.reshape(6, -1), true.reshape(6, -1), strict=True)
        ]
    )
    assert segmentation_metrics(*sums)["iou"] == pytest.approx(iou)


def test_shapes_that_differ():
    with pytest.raises(ValueError, match="differ in shape"):
        mask_sums(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 3))
