"""Suppression of many boxes on a CPU against torchvision's own."""

import pytest
import torch
from torchvision.ops import box_iou, nms

from xray.models.detection import suppression
from xray.models.detection.suppression import suppress, suppress_together


def boxes_of(groups, count, seed, spread=0.3):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand((groups, count, 2), generator=generator) * 512
    return torch.cat([corner, corner + torch.rand((groups, count, 2), generator=generator) * 512 * spread], 2)


def kept_by_torchvision(boxes, real, threshold):
    keep = torch.zeros_like(real)
    for group, inside, kept in zip(boxes, real, keep, strict=True):
        (present,) = inside.nonzero(as_tuple=True)
        kept[present[nms(group[present], -torch.arange(len(present), dtype=torch.float32), threshold)]] = True
    return keep


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("spread", [0.1, 1.5])
def test_the_kernel_keeps_what_torchvision_keeps(threshold, spread):
    boxes = boxes_of(2, 700, 1, spread)
    real = torch.rand((2, 700), generator=torch.Generator().manual_seed(2)) < 0.9
    assert real.sum(1).min() >= suppression.MANY
    found = suppress(boxes, real, threshold)
    assert torch.equal(found, kept_by_torchvision(boxes, real, threshold))
    assert 0 < found.sum() < real.sum()
    assert torch.equal(found, suppress_together(boxes, real, threshold))


def test_an_overlap_of_just_the_threshold_does_not_suppress():
    # Twice the area: an overlap of exactly a half, and one a little above.
    boxes = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 4], [100, 0, 108, 8], [100, 0, 108, 4.01]])
    assert box_iou(boxes[:1], boxes[1:2]).item() == 0.5
    many = torch.cat([boxes, boxes_of(1, 600, 3, 0.001)[0] + 1000])[None]
    found = suppress(many, torch.ones(many.shape[:2], dtype=torch.bool), 0.5)
    assert found[0, :4].tolist() == [True, True, True, False]


def test_what_is_no_number_suppresses_nothing():
    boxes = boxes_of(1, 600, 4)
    boxes[0, 5] = float("nan")
    boxes[0, 7, 2:] = boxes[0, 7, :2]
    real = torch.ones((1, 600), dtype=torch.bool)
    assert torch.equal(suppress(boxes, real, 0.5), kept_by_torchvision(boxes, real, 0.5))
