"""Formulas that the losses of several tasks share."""

import torch
import torch.nn.functional as F
from torch import Tensor

from xray.models.batch_shares import averaged, mean_of_known


def focal(
    logits: Tensor, truth: Tensor, gamma: float = 2.0, alpha: float | None = None, known: Tensor | None = None
) -> Tensor:
    """−mean[a (1 − q)^γ log q] with q = p where y is 1, otherwise 1 − p (Lin et al. 2017, arXiv:1708.02002).

    logits, truth: of one shape, the truth y of 0 and 1; p is the logits' sigmoid.
    gamma: 0 gives binary cross entropy. alpha: a is alpha where y is 1 and 1 − alpha elsewhere; None: a is 1.
    known: bool of the same shape, the entries that the mean is over; None for all.
    Returns a scalar.
    """
    signed = torch.where(truth > 0.5, logits, -logits)
    # log q and log(1 − q), each from the logit: neither overflows nor loses its gradient.
    loss = -torch.exp(gamma * F.logsigmoid(-signed)) * F.logsigmoid(signed)
    if alpha is not None:
        loss = loss * torch.where(truth > 0.5, alpha, 1 - alpha)
    return averaged(loss.mean()) if known is None else mean_of_known(loss, known)
