"""Each loss against numbers worked by hand, and against libraries that have the same one."""

import math

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from xray.models.segmentation.losses import LOSSES, loss_of_levels, segmentation_loss

# p = 0.8 and 0.4 over truth 1 and 0, p = 0.6 and 0.2 over truth 1 and 0.
P = torch.tensor([[[[0.8, 0.4], [0.6, 0.2]]]])
X = torch.log(P / (1 - P))
Y = torch.tensor([[[[1, 0], [1, 0]]]], dtype=torch.uint8)
OPTIONS = {"weighted_bce": {"beta": 0.25}, "combined": {"beta": 0.25}}

# −log of 0.8, 0.6 (right where p is 0.6 or 0.4) and 0.8.
L8, L6 = -math.log(0.8), -math.log(0.6)


def value(name, logits=X, truth=Y, **options):
    return float(segmentation_loss(name, **(OPTIONS.get(name, {}) | options))(logits, truth))


def test_dice_by_hand():
    # Σyp = 0.8 + 0.6 = 1.4; Σy² = 2; Σp² = 0.64 + 0.16 + 0.36 + 0.04 = 1.2.
    assert value("dice", smooth=0) == pytest.approx(1 - 2.8 / 3.2, abs=1e-6)
    assert value("dice") == pytest.approx(1 - 3.8 / 4.2, abs=1e-6)


def test_dice_averages_classes_and_sums_over_the_batch():
    # A second radiograph whose truth is empty, p 0.5 everywhere: Σp² grows by 4 · 0.25.
    # A second class that is perfect: 1 − (2 · 2 + 1) / (2 + 2 + 1) = 0 for p = y.
    logits = torch.zeros(2, 2, 2, 2)
    truth = torch.zeros(2, 2, 2, 2)
    logits[0, 0], truth[0, 0] = X[0, 0], Y[0, 0]
    logits[:, 1], truth[0, 1] = -100, Y[0, 0]
    logits[0, 1][Y[0, 0] == 1] = 100
    assert value("dice", logits, truth) == pytest.approx(0.5 * (1 - 3.8 / 5.2), abs=1e-6)


def test_bce_by_hand():
    # −log p over truth, −log(1 − p) elsewhere: 0.8, 0.6 | 0.6, 0.8.
    assert value("bce") == pytest.approx((2 * L8 + 2 * L6) / 4, abs=1e-6)


def test_weighted_bce_by_hand():
    # β = 1/4: positives weigh 4. (4 L8 + 4 L6 + L6 + L8) / 4.
    assert value("weighted_bce") == pytest.approx(5 * (L8 + L6) / 4, abs=1e-6)


def test_focal_by_hand():
    # (1 − q)²: 0.04 where q is 0.8, 0.16 where it is 0.6.
    assert value("focal") == pytest.approx((2 * 0.04 * L8 + 2 * 0.16 * L6) / 4, abs=1e-6)
    # α 0.25 for the two positives (q 0.8, 0.6), 0.75 for the two negatives: together 1 for each q.
    assert value("focal", alpha=0.25) == pytest.approx((0.04 * L8 + 0.16 * L6) / 4, abs=1e-6)
    assert value("focal", gamma=0) == pytest.approx(value("bce"), abs=1e-6)


def test_combined_by_hand():
    assert value("combined") == pytest.approx(2 * (1 - 3.8 / 4.2) + 5 * (L8 + L6) / 4, abs=1e-6)


def test_mixed_by_hand():
    # D without squares: (2 · 1.4 + 1) / (2 + 2 + 1), as Σp = 0.8 + 0.4 + 0.6 + 0.2 = 2.
    focal = (2 * 0.04 * L8 + 2 * 0.16 * L6) / 4
    assert value("mixed") == pytest.approx(10 * focal - math.log(3.8 / 5), abs=1e-6)


def test_bce_dice_focal_by_hand():
    bce, dice, focal = (2 * L8 + 2 * L6) / 4, 1 - 3.8 / 4.2, (2 * 0.04 * L8 + 2 * 0.16 * L6) / 4
    assert value("bce_dice_focal") == pytest.approx(3 * bce + dice + 4 * focal, abs=1e-6)


def test_tversky_by_hand():
    # TP 1.4, FP 0.4 + 0.2 = 0.6, FN 0.2 + 0.4 = 0.6: TP / (TP + 0.3 · 0.6 + 0.7 · 0.6) = 1.4 / 2.
    assert value("tversky", smooth=0) == pytest.approx(0.3, abs=1e-6)
    assert value("tversky") == pytest.approx(1 - 2.4 / 3, abs=1e-6)
    # TP / (TP + 0.9 · 0.6 + 0 · 0.6): only false pixels count.
    assert value("tversky", alpha=0.9, beta=0, smooth=0) == pytest.approx(1 - 1.4 / 1.94, abs=1e-6)


def test_lovasz_by_hand():
    # Logits 2, −1 over truth 1, 1 and 0.5, −3 over truth 0, 0. Hinge errors 1 − (±1) · logit: −1, 2, 1.5, −2.
    # From the largest: 2 (true), 1.5 (false), −1 (true), −2 (false). 1 − IoU as they turn wrong one after another,
    # with 2 true pixels: 1 − 1/2, 1 − 1/3, 1 − 0/3, 1 − 0/4: it grows by 1/2, 1/6, 1/3, 0.
    # Loss: 2 · 1/2 + 1.5 · 1/6 + 0 + 0 = 1.25.
    logits = torch.tensor([[[[2.0, -1.0], [0.5, -3.0]]]])
    truth = torch.tensor([[[[1, 1], [0, 0]]]])
    assert value("lovasz", logits, truth) == pytest.approx(1.25, abs=1e-6)
    # Empty: the first wrong pixel makes the IoU 0, so only the largest error counts: 1 + 2 = 3.
    assert value("lovasz", logits, truth * 0) == pytest.approx(3.0, abs=1e-6)
    # Both as one batch: the mean of the masks.
    both = value("lovasz", torch.cat([logits, logits]), torch.cat([truth, truth * 0]))
    assert both == pytest.approx((1.25 + 3) / 2, abs=1e-6)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(3, 2, 9, 7, generator=generator)
    truth = (torch.rand(3, 2, 9, 7, generator=generator) < 0.3).float()
    return logits, truth


@pytest.mark.parametrize("name", LOSSES)
def test_masks_that_are_not_known_teach_nothing(name, batch):
    options = {"beta": 0.1} if name in ("weighted_bce", "combined") else {}
    loss, (logits, truth) = segmentation_loss(name, **options), batch
    # Of one class: as without the radiographs.
    known = torch.tensor([[True], [False], [True]])
    x = logits[:, :1].clone().requires_grad_()
    value = loss(x, truth[:, :1], known=known)
    value.backward()
    torch.testing.assert_close(value.detach(), loss(logits[[0, 2], :1], truth[[0, 2], :1]))
    assert (x.grad[1] == 0).all()
    assert (x.grad[0] != 0).any()
    # A class of which nothing is known is not there.
    known = torch.tensor([[True, False]] * 3)
    torch.testing.assert_close(loss(logits, truth, known=known), loss(logits[:, :1], truth[:, :1]))
    # All of them: as if nobody asked; none: 0.
    torch.testing.assert_close(loss(logits, truth, known=torch.ones(3, 2, dtype=torch.bool)), loss(logits, truth))
    x = logits.clone().requires_grad_()
    nothing = loss(x, truth, known=torch.zeros(3, 2, dtype=torch.bool))
    nothing.backward()
    assert nothing == 0
    assert (x.grad == 0).all()


def test_unknown_masks_by_hand():
    # p = 0.5 everywhere, 2 x 2 pixels: one radiograph with 2 true pixels, one of which nobody knows, one empty.
    logits, truth = torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)
    truth[0, 0, 0] = truth[1, 0, 0] = 1
    known = torch.tensor([[True], [False], [True]])
    assert float(segmentation_loss("bce")(logits, truth, known=known)) == pytest.approx(math.log(2))
    # Σyp = 1, Σy² = 2, Σp² = 2 over the two that are known.
    assert float(segmentation_loss("dice")(logits, truth, known=known)) == pytest.approx(1 - 3 / 5)


def test_against_libraries(batch):
    logits, truth = batch
    multilabel = {"mode": "multilabel", "from_logits": True}
    assert value("bce", *batch) == pytest.approx(float(F.binary_cross_entropy(logits.sigmoid(), truth)), rel=1e-5)
    focal = smp.losses.FocalLoss("multilabel", gamma=2.0, alpha=0.25)(logits, truth)
    assert value("focal", *batch, alpha=0.25) == pytest.approx(float(focal), rel=1e-5)
    focal = sigmoid_focal_loss(logits, truth, alpha=-1, gamma=3, reduction="mean")
    assert value("focal", *batch, gamma=3) == pytest.approx(float(focal), rel=1e-5)
    tversky = smp.losses.TverskyLoss(**multilabel, alpha=0.3, beta=0.7, smooth=1.0)(logits, truth)
    assert value("tversky", *batch) == pytest.approx(float(tversky), rel=1e-5)
    lovasz = [
        float(smp.losses.LovaszLoss("binary", per_image=False)(x[None, None], y[None, None]))
        for x, y in zip(logits.flatten(0, 1), truth.flatten(0, 1), strict=True)
    ]
    assert value("lovasz", *batch) == pytest.approx(sum(lovasz) / 6, rel=1e-5)
    # The library's Dice has no squares and counts the smoothing twice as we do not: 2Σyp + 1 over Σy + Σp + 1 is its
    # (Σyp + 0.5) / ((Σy + Σp) / 2 + 0.5).
    dice = smp.losses.DiceLoss("binary", smooth=0.5, log_loss=True)(logits[:, :1], truth[:, :1])
    one = (logits[:, :1], truth[:, :1])
    assert value("mixed", *one) == pytest.approx(10 * value("focal", *one) + float(dice), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name, batch):
    logits, truth = batch
    loss = segmentation_loss(name, **OPTIONS.get(name, {}))
    logits = logits.clone().requires_grad_()
    loss(logits, truth).backward()
    generator = torch.Generator().manual_seed(4)
    direction = torch.randn(logits.shape, generator=generator)
    step = 1e-2 / direction.norm()
    with torch.no_grad():
        rise = (loss(logits + step * direction, truth) - loss(logits - step * direction, truth)) / (2 * step)
    assert float((logits.grad * direction).sum()) == pytest.approx(float(rise), rel=0.05, abs=2e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_empty_masks_still_give_a_gradient(name):
    logits = torch.zeros(2, 1, 512, 512, requires_grad=True)
    loss = segmentation_loss(name, **OPTIONS.get(name, {}))(logits, torch.zeros_like(logits))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad.abs().sum() > 0
    # Downhill is towards fewer pixels.
    assert (logits.grad >= 0).all()
    # What Dice and Tversky give is there but teaches nothing; the recipes' losses have a pixel's usual gradient.
    strength = float(logits.grad.sum())
    assert strength < 1e-4 if name in ("dice", "tversky") else strength > 0.05


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_logits_stay_finite(name, dtype):
    logits = torch.tensor([[[[-300.0, 300.0], [-300.0, 300.0]]]], dtype=dtype, requires_grad=True)
    truth = torch.tensor([[[[1, 1], [0, 0]]]], dtype=torch.uint8)
    loss = segmentation_loss(name, **OPTIONS.get(name, {}))(logits, truth)
    assert loss.dtype == torch.float32
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_right_is_better_than_wrong(name, batch):
    _, truth = batch
    loss = segmentation_loss(name, **OPTIONS.get(name, {}))
    right = 20 * (2 * truth - 1)
    assert loss(right, truth) == pytest.approx(0, abs=1e-4)
    assert loss(-right, truth) > 0.9


def test_half_precision_sums_are_exact_enough():
    # In bfloat16 a sum of a million pixels would stop growing at 256.
    logits = torch.full((1, 1, 1024, 1024), 2.0, dtype=torch.bfloat16)
    truth = torch.zeros(1, 1, 1024, 1024)
    truth[..., :512] = 1
    p, half = 1 / (1 + math.exp(-2)), 1024 * 512
    expected = 1 - (2 * half * p + 1) / (half + 2 * half * p * p + 1)
    assert value("dice", logits, truth) == pytest.approx(expected, rel=1e-5)


def test_levels_are_averaged(batch):
    logits, truth = batch
    loss = segmentation_loss("bce")
    levels = [logits, logits * 0]
    assert float(loss_of_levels(loss, levels, truth)) == pytest.approx(
        (float(loss(logits, truth)) + math.log(2)) / 2, rel=1e-6
    )
    assert loss_of_levels(loss, logits, truth) == loss(logits, truth)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("jaccard", {}, "the loss jaccard is unknown: use one of dice, bce"),
        ("bce", {"beta": 0.1}, "the loss bce has no option beta"),
        ("combined", {}, "the loss combined needs beta"),
        ("weighted_bce", {"beta": None}, "the loss weighted_bce needs beta"),
    ],
)
def test_names_and_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        segmentation_loss(name, **options)


@pytest.mark.parametrize("beta", [0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none(beta):
    with pytest.raises(ValueError, match="share of positive pixels"):
        segmentation_loss("weighted_bce", beta=beta)(X, Y)


@pytest.mark.parametrize("name", LOSSES)
def test_shapes_never_broadcast(name):
    with pytest.raises(ValueError, match=r"must both be \(B, K, H, W\)"):
        segmentation_loss(name, **OPTIONS.get(name, {}))(X, Y[:, 0])
    with pytest.raises(ValueError, match=r"must both be \(B, K, H, W\)"):
        segmentation_loss(name, **OPTIONS.get(name, {}))(X.expand(2, 1, 2, 2), Y)
