"""On a radiograph with findings that have no box, background says nothing of them: formulas by hand, and gradients."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from xray.models.detection.anchor_fit import RETINANET
from xray.models.detection.detector import build_detector
from xray.models.detection.matching import match, overlaps, pad_truth
from xray.models.detection.proposals import ProposalNetwork
from xray.models.detection.regions import RegionHeads, Samples

SIZE, CATEGORIES = 64, 3


class Fixed(RegionHeads):
    """Heads whose logits are given."""

    def __init__(self, logits, soft_targets=False):
        super().__init__(torch.nn.Identity(), torch.nn.Identity(), 4, 0.0, 10, soft_targets)
        self.given = logits

    def _predict(self, rows, layout, boxes, present, shape):
        return self.given[present], torch.zeros(len(present), CATEGORIES + 1, 4)


def samples(labels, unlocated, shares=None):
    """Of each radiograph its samples' labels; unlocated: its row of C + 1."""
    labels = torch.tensor(labels)
    boxes = torch.tensor([0.0, 0, 10, 10]).expand(*labels.shape, 4)
    return Samples(boxes, labels >= 0, labels, boxes, shares, None if unlocated is None else torch.tensor(unlocated))


def of(*unlocated, whole=True):
    """A row (C + 1,) that names categories."""
    return [whole and bool(unlocated), *(label in unlocated for label in range(1, CATEGORIES + 1))]


def test_the_softmax_of_background_leaves_out_what_is_not_located():
    logits = torch.log(torch.tensor([[4.0, 2, 1, 3], [1.0, 2, 4, 3], [4.0, 2, 1, 3]])).requires_grad_()
    heads = Fixed(logits)
    losses = heads.losses_of(None, None, samples([[0, 2], [0, -1]], [of(3), of()]))
    # Background of the first: 4 of 4 + 2 + 1. Its finding: 4 of all 10. The second says all: 4 of 10.
    expected = -(math.log(4 / 7) + math.log(4 / 10) + math.log(4 / 10)) / 3
    assert float(losses["loss_classifier"].detach()) == pytest.approx(expected, rel=1e-6)
    losses["loss_classifier"].backward()
    assert logits.grad[0, 3] == 0
    # Where nothing else is likely, background does not grow beyond it: no gradient.
    assert (logits.grad[1:, 3] != 0).all()
    likely = torch.tensor([[0.0, -30, -30, 20]], requires_grad=True)
    Fixed(likely).losses_of(None, None, samples([[0]], [of(3)]))["loss_classifier"].backward()
    assert likely.grad.abs().max() < 1e-6


def test_a_finding_of_a_share_of_the_readers_beside_one_that_is_not_located():
    logits = torch.log(torch.tensor([[4.0, 2, 1, 3]]))
    given = samples([[2]], [of(3)], torch.tensor([[0.25]]))
    counted = Fixed(logits).losses_of(None, None, given)["loss_classifier"]
    assert float(counted) == pytest.approx(-0.25 * math.log(1 / 10), rel=1e-6)
    # As a soft target, background has the rest of it, without what is not located.
    soft = Fixed(logits, soft_targets=True).losses_of(None, None, given)["loss_classifier"]
    assert float(soft) == pytest.approx(-0.25 * math.log(1 / 10) - 0.75 * math.log(4 / 7), rel=1e-6)


def detector_of(family, seed=0):
    torch.manual_seed(seed)
    options = {"fpn_channels": 16, "rpn_samples": 32, "roi_samples": 16, "proposals": 60, "family": family}
    return build_detector(CATEGORIES, SIZE, "mobilenet_v2", norm="frozen", **options).train()


IMAGES = torch.randint(0, 256, (2, 1, SIZE, SIZE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
BOX = torch.tensor([[8.0, 8, 40, 44]])


def targets(*unlocated):
    found = [
        {"boxes": BOX, "labels": torch.tensor([1])},
        {"boxes": BOX[:0], "labels": torch.zeros(0, dtype=torch.long)},
    ]
    if unlocated:
        for target, row in zip(found, unlocated, strict=True):
            target["unlocated"] = torch.tensor(row)
    return found


@pytest.mark.parametrize("family", ["faster_rcnn", RETINANET])
def test_where_all_is_located_nothing_changes_by_a_bit(family):
    values = []
    for given in (targets(), targets(of(), of())):
        detector = detector_of(family)
        torch.manual_seed(3)
        losses = detector(IMAGES, given)
        sum(losses.values()).backward()
        values.append((losses, [parameter.grad for parameter in detector.parameters() if parameter.grad is not None]))
    (plain, plain_gradients), (asked, gradients) = values
    for name, value in plain.items():
        assert torch.equal(value, asked[name]), name
    assert all(torch.equal(one, other) for one, other in zip(plain_gradients, gradients, strict=True))


def test_no_anchor_is_background_where_something_is_not_located():
    detector = detector_of("faster_rcnn")
    drawn = []

    def recording(self, rows, layout, truth, finding, labels, chosen, real):
        drawn.append(labels.gather(1, chosen)[real])
        return of_network(self, rows, layout, truth, finding, labels, chosen, real)

    of_network = ProposalNetwork.losses_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProposalNetwork, "losses_of", recording)
        detector(IMAGES, targets(of(2), of(2, whole=False)))
        losses = detector(IMAGES, targets(of(2), of(3)))
    # The first teaches by its box alone; the second, whose category has no box in this training, by background too.
    assert (drawn[0] == 1).any()
    assert (drawn[0] == 0).sum() == 32
    assert (drawn[1] == 1).all()
    # Without any anchor that counts: 0.
    nothing = detector(IMAGES[1:], targets(of(2), of(3))[1:])
    assert float(nothing["loss_objectness"].detach()) == 0
    assert all(torch.isfinite(value) for value in (*losses.values(), *nothing.values()))


def test_retinanets_entries_of_what_is_not_located_do_not_enter():
    """By hand, at logits of 0: an entry is ln 2 / 4 by alpha, 0.25 for what is wanted and 0.75 for the rest."""
    detector = detector_of(RETINANET)
    maps = list(detector.eval().backbone((IMAGES - detector.mean) / detector.std).values())
    layout = detector.layout(maps, SIZE)
    truth = pad_truth(targets(of(1, 3), of(2)))
    _, labels = match(overlaps(truth, layout.anchors), truth, 0.4, 0.5, every_finding=True)
    logits = torch.zeros(2, len(layout.anchors), CATEGORIES + 1, requires_grad=True)
    losses = detector.losses(logits, torch.zeros(2, len(layout.anchors), 4), layout, truth)
    positive, background = [(labels == 1).sum(1).numpy(), (labels == 0).sum(1).numpy()]
    # Four entries an anchor, with the background's own: 1 and 3 are left out of the first radiograph, but for its
    # finding, 2 of the second.
    first = (positive[0] * (0.25 + 2 * 0.75) + background[0] * 2 * 0.75) / positive[0]
    second = background[1] * 3 * 0.75
    expected = np.log(2) / 4 * (first + second) / 2
    assert float(losses["classification"].detach()) == pytest.approx(float(expected), rel=1e-5)
    losses["classification"].backward()
    assert (logits.grad[0, :, 3] == 0).all()
    assert (logits.grad[0, labels[0] == 0][:, 1] == 0).all()
    assert (logits.grad[0, labels[0] == 1][:, 1] != 0).all()
    assert (logits.grad[1, :, 2] == 0).all()
    assert (logits.grad[1, :, 3] != 0).any()


def test_the_masked_softmax_is_that_of_the_other_categories():
    logits = torch.randn(5, CATEGORIES + 1, generator=torch.Generator().manual_seed(2))
    loss = Fixed(logits).losses_of(None, None, samples([[0] * 5], [of(1)]))["loss_classifier"]
    expected = F.cross_entropy(logits[:, [0, 2, 3]], torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(loss, expected)
