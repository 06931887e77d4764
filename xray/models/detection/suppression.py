"""Non-maximum suppression of many groups of boxes at once: no group may suppress another."""

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

MANY = 500
"""From this many boxes on, a kernel of our own is faster on a CPU, although its compiler takes 0.3 s to import."""
STEPS = 4
"""Rounds of the parallel suppression between two checks of whether it is over; each check waits for the GPU."""


def suppress(boxes: Tensor, real: Tensor, threshold: float) -> Tensor:
    """Which boxes of each group remain when none overlaps a better one that remains by more than `threshold` IoU.

    boxes: (N, K, 4) xyxy, N groups of K, in each the best first. real: (N, K) bool, False for filling.
    Returns (N, K) bool. Same as torchvision's `batched_nms`.
    """
    if boxes.device.type == "cpu":
        return _suppress_in_turn(boxes, real, threshold)
    return suppress_together(boxes, real, threshold)


def _suppress_in_turn(boxes: Tensor, real: Tensor, threshold: float) -> Tensor:
    keep = torch.zeros_like(real)
    order = -torch.arange(boxes.shape[1], dtype=boxes.dtype)
    for group, inside, group_keep in zip(boxes, real, keep, strict=True):
        (present,) = inside.nonzero(as_tuple=True)
        if len(present) >= MANY and group.dtype == torch.float32:
            group_keep[present] = _keep_best(group[present], threshold)
        else:
            group_keep[present[nms(group[present], order[: len(present)], threshold)]] = True
    return keep


def _keep_best(boxes: Tensor, threshold: float) -> Tensor:
    """(N, 4), the best first → (N,) bool: what torchvision's `nms` keeps, many comparisons at a time."""
    from xray.models.kernels.suppression_kernel import keep_best

    # torchvision compares in double precision. No float32 lies between the threshold and the last one below it.
    limit = np.float32(threshold)
    if float(limit) > threshold:
        limit = np.nextafter(limit, np.float32(-1))
    keep = np.empty(len(boxes), dtype=np.uint8)
    keep_best(boxes.detach().T.contiguous().numpy(), limit, keep)
    return torch.from_numpy(keep).bool()


def suppress_together(boxes: Tensor, real: Tensor, threshold: float) -> Tensor:
    """`suppress` in parallel, for GPUs: K² comparisons a group, then rounds until nothing changes.

    A round keeps each box that no kept box suppresses. The decision on the best box is right from the start; after a
    round, so is that on each box for which all better boxes were decided rightly before. The rounds therefore end at
    the greedy result, mostly after fewer than ten.
    """
    x1, y1, x2, y2 = boxes[..., None].unbind(-2)  # (N, K, 1)
    area = (x2 - x1) * (y2 - y1)
    common = (torch.minimum(x2, x2.mT) - torch.maximum(x1, x1.mT)).clamp_(min=0)
    common.mul_((torch.minimum(y2, y2.mT) - torch.maximum(y1, y1.mT)).clamp_(min=0))
    overlap = common / (area + area.mT - common)
    # [n, i, j]: box j is better than i and would suppress it.
    suppresses = (overlap > threshold).tril_(-1)
    keep = real
    while True:
        before = keep
        for _ in range(STEPS):
            before, keep = keep, real & ~(suppresses & keep[:, None]).any(-1)
        if torch.equal(before, keep):
            return keep
