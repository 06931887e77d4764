"""Losses between the logits of masks and their truth, by name; each is one formula.

All take logits (B, K, H, W) of any float type and truth (B, K, H, W) of 0 and 1, compute in float32, which 16-bit
training needs for sums over a million pixels, and return a scalar. p is the logits' sigmoid, y the truth. Overlap
losses sum over the pixels of the whole batch, class by class, and average the classes. The batch is that of all
processes that train together.

known: (B, K) bool, the masks whose truth is known; None where all are. The others enter no sum and no mean, and a class
of which the batch has no known mask does not count among the classes. Without any known mask, losses are 0.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from xray.models.batch_shares import averaged, mean_of_known, summed
from xray.models.losses import focal as binary_focal


class Loss(Protocol):
    """A loss as `segmentation_loss` returns it."""

    def __call__(self, logits: Tensor, truth: Tensor, *, known: Tensor | None = None) -> Tensor:
        """A scalar; see this module."""


SMOOTH = 1.0
"""Pixels added to both sides of an overlap. Without them masks that are all empty give no gradient; with them it is of
the order of 1 / area², which is not 0 and yet too small to learn from: add BCE or focal for that."""


def segmentation_loss(name: str, **options: float | None) -> Loss:
    """The loss of a name in LOSSES with its options fixed, e.g. `segmentation_loss("weighted_bce", beta=0.01)`.

    Raises ValueError for an unknown name, an option that the loss does not have, or one missing.
    """
    if name not in LOSSES:
        raise ValueError(f"the loss {name} is unknown: use one of {', '.join(LOSSES)}")
    parameters = [p for p in list(inspect.signature(LOSSES[name]).parameters.values())[2:] if p.name != "known"]
    unknown = sorted(set(options) - {parameter.name for parameter in parameters})
    if unknown:
        raise ValueError(f"the loss {name} has no option {', '.join(unknown)}")
    missing = [p.name for p in parameters if p.default is p.empty and options.get(p.name) is None]
    if missing:
        raise ValueError(f"the loss {name} needs {', '.join(missing)}")
    return partial(LOSSES[name], **options)


def loss_of_levels(loss: Loss, logits: Tensor | list[Tensor], truth: Tensor, known: Tensor | None = None) -> Tensor:
    """`loss`, averaged over the outputs of a deeply supervised network (Zhou et al. 2020, with equal weights)."""
    if isinstance(logits, Tensor):
        return loss(logits, truth, known=known)
    return torch.stack([loss(level, truth, known=known) for level in logits]).mean()


def dice(logits: Tensor, truth: Tensor, smooth: float = SMOOTH, known: Tensor | None = None) -> Tensor:
    """1 − (2Σyp + s) / (Σy² + Σp² + s).

    Milletari et al. 2016, V-Net, arXiv:1606.04797, whose s is 0. Alone, this loss learns nothing from a batch of empty
    masks (see SMOOTH).
    """
    p, y = _probabilities(logits, truth)
    overlap, total = _class_sums(y * p, known), _class_sums(y, known) + _class_sums(p * p, known)
    return _class_mean(1 - (2 * overlap + smooth) / (total + smooth).clamp_min(1e-7), known)


def bce(logits: Tensor, truth: Tensor, known: Tensor | None = None) -> Tensor:
    """Binary cross entropy, −mean[y log p + (1 − y) log(1 − p)]."""
    x, y = _float(logits, truth)
    return _cross_entropy(x, y, None, known)


def weighted_bce(logits: Tensor, truth: Tensor, beta: float, known: Tensor | None = None) -> Tensor:
    """−mean[(1/β) y log p + (1 − y) log(1 − p)].

    beta: the share of positive pixels, in (0, 1]; 0.010753784 in SIIM-ACR. Positive and negative pixels then weigh
    about the same together.
    """
    if not 0 < beta <= 1:
        raise ValueError(f"beta is {beta}: the share of positive pixels must be in (0, 1]")
    x, y = _float(logits, truth)
    return _cross_entropy(x, y, x.new_tensor(1 / beta), known)


def focal(
    logits: Tensor, truth: Tensor, gamma: float = 2.0, alpha: float | None = None, known: Tensor | None = None
) -> Tensor:
    """−mean[a (1 − q)^γ log q] (Lin et al. 2017, arXiv:1708.02002): see `xray.models.losses.focal`."""
    x, y = _float(logits, truth)
    return binary_focal(x, y, gamma, alpha, None if known is None else _of_pixels(known, x))


def combined(logits: Tensor, truth: Tensor, beta: float, known: Tensor | None = None) -> Tensor:
    """2 · Dice + weighted BCE (β the share of positive pixels)."""
    return 2 * dice(logits, truth, known=known) + weighted_bce(logits, truth, beta, known)


def mixed(
    logits: Tensor, truth: Tensor, gamma: float = 2.0, focal_weight: float = 10.0, known: Tensor | None = None
) -> Tensor:
    """10 · focal − log D with D = (2Σyp + 1) / (Σy + Σp + 1) over the batch.

    The U-Net recipes of SIIM-ACR; unlike V-Net's Dice, D has no squares.
    """
    p, y = _probabilities(logits, truth)
    overlap = (2 * _class_sums(y * p, known) + 1) / (_class_sums(y, known) + _class_sums(p, known) + 1)
    return focal_weight * focal(logits, truth, gamma, known=known) - _class_mean(torch.log(overlap), known)


def bce_dice_focal(
    logits: Tensor,
    truth: Tensor,
    bce_weight: float = 3.0,
    dice_weight: float = 1.0,
    focal_weight: float = 4.0,
    gamma: float = 2.0,
    known: Tensor | None = None,
) -> Tensor:
    """3 · BCE + 1 · Dice + 4 · focal: the weights of SIIM-ACR's first place."""
    cross_entropy, overlap = bce(logits, truth, known), dice(logits, truth, known=known)
    return bce_weight * cross_entropy + dice_weight * overlap + focal_weight * focal(logits, truth, gamma, known=known)


def lovasz(logits: Tensor, truth: Tensor, known: Tensor | None = None) -> Tensor:
    """Lovász hinge: the convex extension of 1 − IoU at the hinge errors e = 1 − (2y − 1) · logit.

    Σ max(e, 0) · g over the pixels from the largest error down, with g the growth of 1 − IoU as each pixel is added to
    the wrong ones; per mask, averaged. An empty mask is pulled at its most wrong pixel only. Berman et al. 2018,
    arXiv:1705.08790, algorithm 1.
    """
    x, y = _float(logits, truth)
    x, y = x.flatten(0, 1).flatten(1), y.flatten(0, 1).flatten(1)
    errors, order = torch.sort(1 - (2 * y - 1) * x, dim=1, descending=True)
    ranked = y.gather(1, order)
    n_positive = ranked.sum(1, keepdim=True)
    # Of whole numbers, whose running sums PyTorch's strict mode allows on a GPU; exact up to 16 million pixels.
    left = n_positive - ranked.cumsum(1, dtype=torch.int32)
    union = n_positive + (1 - ranked).cumsum(1, dtype=torch.int32)
    jaccard = 1 - left / union
    growth = torch.diff(jaccard, dim=1, prepend=torch.zeros_like(n_positive))
    of_mask = (F.relu(errors) * growth).sum(1)
    return averaged(of_mask.mean()) if known is None else mean_of_known(of_mask, known.flatten())


def tversky(
    logits: Tensor,
    truth: Tensor,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = SMOOTH,
    known: Tensor | None = None,
) -> Tensor:
    """1 − (TP + s) / (TP + α FP + β FN + s), with TP = Σyp, FP = Σ(1 − y)p, FN = Σy(1 − p).

    beta above alpha weighs missed pixels more than false ones. Salehi et al. 2017, arXiv:1706.05721, whose best were
    0.3 and 0.7, and whose s is 0.
    """
    p, y = _probabilities(logits, truth)
    hit, false, missed = (_class_sums(values, known) for values in (y * p, (1 - y) * p, y * (1 - p)))
    loss = 1 - (hit + smooth) / (hit + alpha * false + beta * missed + smooth).clamp_min(1e-7)
    return _class_mean(loss, known)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "dice": dice,
    "bce": bce,
    "weighted_bce": weighted_bce,
    "focal": focal,
    "combined": combined,
    "mixed": mixed,
    "bce_dice_focal": bce_dice_focal,
    "lovasz": lovasz,
    "tversky": tversky,
}


def _float(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    if logits.shape != truth.shape or logits.ndim != 4:
        raise ValueError(f"logits {tuple(logits.shape)} and truth {tuple(truth.shape)} must both be (B, K, H, W)")
    return logits.float(), truth.float()


def _probabilities(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    x, y = _float(logits, truth)
    return torch.sigmoid(x), y


def _cross_entropy(x: Tensor, y: Tensor, weight: Tensor | None, known: Tensor | None) -> Tensor:
    if known is None:
        return averaged(F.binary_cross_entropy_with_logits(x, y, pos_weight=weight))
    losses = F.binary_cross_entropy_with_logits(x, y, pos_weight=weight, reduction="none")
    return mean_of_known(losses, _of_pixels(known, x))


def _of_pixels(known: Tensor, like: Tensor) -> Tensor:
    return known[..., None, None].expand_as(like)


def _class_sums(values: Tensor, known: Tensor | None) -> Tensor:
    return summed((values if known is None else torch.where(known[..., None, None], values, 0)).sum((0, 2, 3)))


def _class_mean(values: Tensor, known: Tensor | None) -> Tensor:
    """Mean of (K,) numbers over the classes of which some mask is known."""
    if known is None:
        return values.mean()
    counts = summed(known.sum(0).to(values)) > 0
    return torch.where(counts, values, 0).sum() / counts.sum().clamp(min=1)
