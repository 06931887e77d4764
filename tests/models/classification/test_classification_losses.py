"""The label losses against numbers worked by hand and against libraries."""

import math

import numpy as np
import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from xray.models.classification.losses import balancing_weights, classification_loss, focal

# p = 0.8 and 0.4 for one radiograph, 0.6 and 0.2 for another.
P = torch.tensor([[0.8, 0.4], [0.6, 0.2]])
X = torch.log(P / (1 - P))
Y = torch.tensor([[1, 0], [0, 1]])
L = {p: -math.log(p) for p in (0.8, 0.6, 0.4, 0.2)}


def test_bce_by_hand():
    # q = 0.8, 0.6 | 0.4, 0.2.
    assert float(classification_loss("bce")(X, Y)) == pytest.approx(sum(L.values()) / 4, abs=1e-6)
    # Positives weigh 3 for the first label, 10 for the second.
    weighted = classification_loss("bce", positive_weights=[3, 10])(X, Y)
    assert float(weighted) == pytest.approx((3 * L[0.8] + L[0.6] + L[0.4] + 10 * L[0.2]) / 4, abs=1e-6)


def test_focal_by_hand():
    expected = (0.2**2 * L[0.8] + 0.4**2 * L[0.6] + 0.6**2 * L[0.4] + 0.8**2 * L[0.2]) / 4
    assert float(classification_loss("focal")(X, Y)) == pytest.approx(expected, abs=1e-6)
    theirs = sigmoid_focal_loss(X, Y.float(), alpha=0.3, gamma=1.5, reduction="mean")
    ours = focal(X, Y, gamma=1.5, alpha=0.3)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


def test_balancing_weights():
    # 100 radiographs: 25 positive → 75/25; 50 → 1; 1 → 99 but never over 20 here; none → 1; all → 1/20.
    weights = balancing_weights(np.array([25, 50, 1, 0, 100]), 100, largest=20)
    assert weights == pytest.approx([3, 1, 20, 1, 0.05])


def test_weights_of_labels_that_are_not_known_everywhere():
    # 10 positive of 40 known, 10 of all 100.
    assert balancing_weights(np.array([10, 10]), np.array([40, 100])) == pytest.approx([3, 9])


def test_unknown_entries_by_hand():
    known = torch.tensor([[True, False], [True, True]])
    # Without the second entry of the first radiograph, whose q is 0.6.
    expected = (L[0.8] + L[0.4] + L[0.2]) / 3
    assert float(classification_loss("bce")(X, Y, known=known)) == pytest.approx(expected, abs=1e-6)
    expected = (3 * L[0.8] + L[0.4] + 10 * L[0.2]) / 3
    assert float(classification_loss("bce", [3, 10])(X, Y, known=known)) == pytest.approx(expected, abs=1e-6)
    expected = (0.2**2 * L[0.8] + 0.6**2 * L[0.4] + 0.8**2 * L[0.2]) / 3
    assert float(classification_loss("focal")(X, Y, known=known)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["bce", "focal"])
def test_unknown_entries_teach_nothing(name):
    loss, generator = classification_loss(name), torch.Generator().manual_seed(0)
    logits, truth = torch.randn(6, 3, generator=generator), torch.randint(2, (6, 3), generator=generator)
    known = torch.rand(6, 3, generator=generator) < 0.5
    x = logits.clone().requires_grad_()
    value = loss(x, truth, known=known)
    value.backward()
    # As of the known ones alone, whatever stands in the others.
    alone = logits[known][:, None].requires_grad_()
    expected = loss(alone, truth[known][:, None])
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(x.grad[known], alone.grad[:, 0])
    assert (x.grad[~known] == 0).all()
    assert torch.equal(loss(logits, torch.where(known, truth, 1 - truth), known=known), value.detach())
    # Of a batch without any, 0, and no gradient that is no number.
    x = torch.full((2, 3), 300.0, requires_grad=True)
    nothing = loss(x, truth[:2], known=torch.zeros(2, 3, dtype=torch.bool))
    nothing.backward()
    assert nothing == 0
    assert (x.grad == 0).all()


@pytest.mark.parametrize("name", ["bce", "focal"])
def test_extreme_logits_stay_finite(name):
    logits = torch.tensor([[300.0], [-300.0]], dtype=torch.bfloat16, requires_grad=True)
    loss = classification_loss(name)(logits, torch.tensor([[0], [1]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_bad_values():
    with pytest.raises(ValueError, match="the loss hinge is unknown"):
        classification_loss("hinge")
    for name in ("bce", "focal"):
        with pytest.raises(ValueError, match=r"must both be \(B, K\)"):
            classification_loss(name)(X, Y[:, 0])
