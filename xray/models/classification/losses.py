"""Losses between the logits of labels and their truth.

All take logits (B, K) of any float type and truth (B, K) of 0 and 1, compute in float32 and return a scalar. p is the
logits' sigmoid, y the truth. known: (B, K) bool, the entries of which the truth is known: the mean is over these alone,
in the batch of all processes; without any known entry it is 0. None where all are known.
"""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from xray.models.batch_shares import averaged, mean_of_known
from xray.models.losses import focal as binary_focal


class Loss(Protocol):
    """A loss as `classification_loss` returns it."""

    def __call__(self, logits: Tensor, truth: Tensor, *, known: Tensor | None = None) -> Tensor:
        """A scalar; see this module."""


def classification_loss(name: str, positive_weights: Sequence[float] | None = None) -> Loss:
    """The loss of a name: "bce" with the weight of each label's positives (see `balancing_weights`), or "focal".

    Raises ValueError for another name.
    """
    if name == "bce":
        return partial(bce, positive_weights=positive_weights)
    if name == "focal":
        return focal
    raise ValueError(f"the loss {name} is unknown: use bce or focal")


def balancing_weights(n_positive: np.ndarray, n_images: int | np.ndarray, largest: float = 100.0) -> list[float]:
    """Weights with which the positives of each label weigh as much as its negatives: negatives / positives.

    n_positive: (K,) radiographs with each label. n_images: all radiographs, or (K,) those of which each label is known.
    Weights lie in [1 / largest, largest], so that a label with a handful
    of positives does not drown the others; a label without any gets 1.
    """
    positives = np.asarray(n_positive, dtype=np.float64)
    ratio = (n_images - positives) / np.maximum(positives, 1)
    return np.where(positives > 0, np.clip(ratio, 1 / largest, largest), 1.0).tolist()


def bce(
    logits: Tensor,
    truth: Tensor,
    positive_weights: Sequence[float] | None = None,
    known: Tensor | None = None,
) -> Tensor:
    """−mean[w y log p + (1 − y) log(1 − p)].

    positive_weights: w of each label (K,); None for 1.
    """
    x, y = _float(logits, truth)
    weights = None if positive_weights is None else x.new_tensor(positive_weights)
    if known is None:
        return averaged(F.binary_cross_entropy_with_logits(x, y, pos_weight=weights))
    return mean_of_known(F.binary_cross_entropy_with_logits(x, y, pos_weight=weights, reduction="none"), known)


def focal(
    logits: Tensor, truth: Tensor, gamma: float = 2.0, alpha: float | None = None, known: Tensor | None = None
) -> Tensor:
    """−mean[a (1 − q)^γ log q] (Lin et al. 2017, arXiv:1708.02002): see `xray.models.losses.focal`."""
    return binary_focal(*_float(logits, truth), gamma, alpha, known)


def _float(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    if logits.shape != truth.shape or logits.ndim != 2:
        raise ValueError(f"logits {tuple(logits.shape)} and truth {tuple(truth.shape)} must both be (B, K)")
    return logits.float(), truth.float()
