"""Which boxes learn from which findings: overlaps, assignment, sampling and box offsets, batched over radiographs.

Everything keeps fixed shapes, with a mask of what is real: counting would make the processor wait for the GPU.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from xray.models.batch_shares import draw_seeds

LARGEST_GROWTH = math.log(1000 / 16)
"""Largest log ratio of a box's width or height to its anchor's, as in torchvision: exp() of more would overflow."""


class Truth(NamedTuple):
    """The findings of a batch, padded to the most that a radiograph has, at least 1.

    boxes: (B, G, 4) float32 xyxy in canvas pixels. labels: (B, G) int64, 0 where there is none.
    shares: (B, G) float32 in [0, 1], the share of the readers who drew each; None where all count alike.
    unlocated: (B, C + 1) bool by category id, which categories may lie in each radiograph outside its boxes. Entry 0,
    the background: whether any of these is learned by the detector, so that "no finding at all" is not known either.
    None where all are located.
    """

    boxes: Tensor
    labels: Tensor
    shares: Tensor | None = None
    unlocated: Tensor | None = None

    @property
    def real(self) -> Tensor:
        """(B, G) bool: not padding."""
        return self.labels > 0


def pad_truth(targets: list[dict[str, Tensor]]) -> Truth:
    """Per radiograph `boxes` (N, 4), `labels` (N,), from 1, maybe `shares` (N,) and `unlocated` (C + 1,) → all of them
    in one tensor each."""
    boxes = pad_sequence([target["boxes"].float() for target in targets], batch_first=True)
    labels = pad_sequence([target["labels"].long() for target in targets], batch_first=True)
    if boxes.shape[1] == 0:
        boxes, labels = boxes.new_zeros((len(targets), 1, 4)), labels.new_zeros((len(targets), 1))
    shares = None
    if "shares" in targets[0]:
        shares = labels.new_zeros(labels.shape, dtype=torch.float32)
        padded = pad_sequence([target["shares"] for target in targets], batch_first=True)
        shares[:, : padded.shape[1]] = padded
    unlocated = torch.stack([target["unlocated"] for target in targets]) if "unlocated" in targets[0] else None
    return Truth(boxes, labels, shares, unlocated)


def overlaps(truth: Truth, boxes: Tensor) -> Tensor:
    """Intersection over union of each finding with each box, −1 for padding.

    boxes: (B, N, 4), or (N, 4) where they are the same for every radiograph. Returns (B, G, N) in [0, 1].
    """
    gx1, gy1, gx2, gy2 = truth.boxes[..., None, :].unbind(-1)  # (B, G, 1)
    x1, y1, x2, y2 = (boxes[:, None] if boxes.ndim == 3 else boxes).unbind(-1)  # (B, 1, N) or (N,)
    # In place: with findings × anchors × radiographs these are the largest tensors of a training step.
    common = (torch.minimum(gx2, x2) - torch.maximum(gx1, x1)).clamp_(min=0)
    common.mul_((torch.minimum(gy2, y2) - torch.maximum(gy1, y1)).clamp_(min=0))
    union = ((gx2 - gx1) * (gy2 - gy1) + (x2 - x1) * (y2 - y1)).sub_(common)
    return common.div_(union).masked_fill_(~truth.real[..., None], -1)


def match(overlap: Tensor, truth: Truth, low: float, high: float, every_finding: bool) -> tuple[Tensor, Tensor]:
    """Assigns each box to the finding that it overlaps most (torchvision's Matcher, batched).

    overlap: (B, G, N). A box with an overlap of at least `high` belongs to that finding, below `low` to the background;
    other boxes are left out. every_finding: the boxes that overlap a finding most belong to it, however small the
    overlap (Ren et al. 2015, arXiv:1506.01497, section 3.1.2).
    Returns the finding (B, N) int64 in [0, G), and the label (B, N): its own, 0 background, −1 left out.
    """
    best, finding = overlap.max(dim=1)
    labels = truth.labels.gather(1, finding)
    belongs = best >= high
    if every_finding:
        most = overlap.amax(dim=2, keepdim=True)
        belongs = belongs | ((overlap == most) & truth.real[..., None]).any(dim=1)
    background = torch.where(best < low, 0, -1)
    return finding, torch.where(belongs, labels, background)


def sample(labels: Tensor, count: int, positives: float) -> tuple[Tensor, Tensor]:
    """Draws boxes for the loss: up to `count` a radiograph, of which at most the share `positives` has a finding.

    labels: (B, N), above 0 a finding, 0 background, below 0 never drawn. Draws from torch's default generator.
    Returns (B, K) with K = min(count, N): the numbers of the drawn boxes, and which are real; where there are too few,
    the rest repeats them.
    """
    total = labels.shape[1]
    slots, most = min(count, total), min(int(count * positives), total)
    keys = _random_keys(draw_seeds(len(labels), labels.device), total)
    is_positive, is_negative = labels > 0, labels == 0
    # The largest of random keys are a random subset.
    positive = torch.where(is_positive, keys, -1).topk(most).indices
    negative = torch.where(is_negative, keys, -1).topk(slots).indices
    n_positive = is_positive.sum(1, keepdim=True).clamp(max=most)
    n = n_positive + torch.minimum(is_negative.sum(1, keepdim=True), count - n_positive)
    slot = torch.arange(slots, device=labels.device).expand(len(labels), -1)
    source = slot % n.clamp(min=1)
    place = torch.where(source < n_positive, source, most + source - n_positive)
    return torch.cat([positive, negative], 1).gather(1, place), slot < n


def _random_keys(seeds: Tensor, count: int) -> Tensor:
    """(B, count) int32 of at least 0, each a hash of its row's seed and its place.

    So they do not depend on the other radiographs of the batch, nor on how many boxes these have.
    """
    place = torch.arange(count, device=seeds.device)
    keys = (seeds[:, None] + place * 0x61C88647).bitwise_and_(0xFFFFFFFF)
    # Two multiplications, by a constant below 2³¹ so that int64 holds the products; each bit depends on all.
    for _ in range(2):
        keys.bitwise_xor_(keys >> 16).mul_(0x45D9F3B).bitwise_and_(0xFFFFFFFF)
    return keys.bitwise_xor_(keys >> 16).bitwise_right_shift_(1).to(torch.int32)


def encode(boxes: Tensor, anchors: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Offsets (…, 4) that lead from `anchors` to `boxes`, both (…, 4): centre in units of the anchor, log size.

    weights: factors of x, y, width and height (Girshick 2015, arXiv:1504.08083; as in torchvision).
    """
    size, box_size = anchors[..., 2:] - anchors[..., :2], boxes[..., 2:] - boxes[..., :2]
    centre, box_centre = anchors[..., :2] + 0.5 * size, boxes[..., :2] + 0.5 * box_size
    wx, wy, ww, wh = weights
    dx, dy = ((box_centre - centre) / size).unbind(-1)
    dw, dh = torch.log(box_size / size).unbind(-1)
    return torch.stack([wx * dx, wy * dy, ww * dw, wh * dh], -1)


def decode(offsets: Tensor, anchors: Tensor, weights: tuple[float, float, float, float], size: int | None) -> Tensor:
    """Where `offsets` (…, 4) lead from `anchors` (…, 4), cut off at the canvas of `size` pixels a side: (…, 4).

    size: None leaves them whole.
    """
    wx, wy, ww, wh = weights
    dx, dy, dw, dh = offsets.unbind(-1)
    x1, y1, x2, y2 = anchors.unbind(-1)
    width, height = x2 - x1, y2 - y1
    x = dx / wx * width + (x1 + 0.5 * width)
    y = dy / wy * height + (y1 + 0.5 * height)
    half_width = 0.5 * (torch.exp((dw / ww).clamp(max=LARGEST_GROWTH)) * width)
    half_height = 0.5 * (torch.exp((dh / wh).clamp(max=LARGEST_GROWTH)) * height)
    boxes = torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], -1)
    return boxes if size is None else boxes.clamp(0, size)


def large_enough(boxes: Tensor, least: float) -> Tensor:
    """(…, 4) → (…) bool: both sides at least `least` pixels."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= least).all(-1)
