"""Whose boxes train and how much each counts, worked out by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from xray.datasets.store import open_store
from xray.errors import FlagError, InputError
from xray.models.detection.detector import build_detector
from xray.models.detection.matching import pad_truth
from xray.models.detection.regions import Samples
from xray.structures.boxes import BoxTable
from xray.training.augment import Augmentation
from xray.training.loaders import collate_boxes
from xray.training.loading import BoxDataset
from xray.training.readers import readings


@pytest.fixture(scope="module")
def store(side_store):
    """Row 0 was read by R1, R2 and R3, of whom two drew the first box and one the second; row 1 by R8 alone."""
    whole = open_store(side_store)
    read_by = [["R1", "R2", "R3"], ["R8"], []]
    records = [dict(record, readers=read_by[row]) if row < 3 else record for row, record in enumerate(whole.records)]
    boxes = BoxTable.of([0, 0, 1, 2], [1, 2, 1, 2], [[5, 5, 30, 30], [40, 40, 70, 80], [5, 5, 30, 30], [1, 1, 9, 9]])
    readers = [["R1", "R2"], ["R3"], ["R8"], []]
    return dataclasses.replace(whole, records=records, boxes=boxes, readers=readers, masks={})


ROWS = np.arange(3)


def test_all_readers_count_alike(store):
    found = readings(store, ROWS)
    assert found.rows.tolist() == [0, 1, 2]
    assert found.boxes.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(found.shares, [2 / 3, 1 / 3, 1, 1])


def test_chosen_readers_have_their_boxes_and_radiographs_alone(store):
    found = readings(store, ROWS, readers=["R1", "R3"])
    assert found.rows.tolist() == [0]
    assert found.boxes.tolist() == [0, 1]
    np.testing.assert_allclose(found.shares[:2], [1 / 2, 1 / 2])
    others = readings(store, ROWS, without=["R8"])
    assert others.rows.tolist() == [0]
    assert others.boxes.tolist() == [0, 1]


def test_weights_of_readers(store):
    found = readings(store, ROWS, weights=["R3=2"])
    np.testing.assert_allclose(found.shares, [2 / 4, 2 / 4, 1, 1])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"readers": ["R4"]}, r"--readers names 'R4', and the dataset has no such reader \(R1, R2, R3, R8\)"),
        ({"without": ["r1"]}, "--without-readers names 'r1'"),
        ({"weights": ["R1=0"]}, "--reader-weights is 'R1=0': give NAME=NUMBER"),
        ({"weights": ["R1"]}, "--reader-weights is 'R1'"),
        ({"weights": ["R9=1"]}, "--reader-weights names 'R9'"),
    ],
)
def test_what_is_refused(store, flags, words):
    with pytest.raises(FlagError, match=words):
        readings(store, ROWS, **flags)


def test_nothing_left_is_refused(store):
    with pytest.raises(InputError, match="none of the training radiographs was read by a chosen reader"):
        readings(store, np.array([2]), readers=["R8"])


def test_shares_stay_with_their_boxes(store):
    shares = readings(store, ROWS).shares
    augmentation = Augmentation("light", {1: 2, 2: 1, 3: 3}, flip=0.5)
    dataset = BoxDataset(store, ROWS, augmentation, seed=3, boxes=np.array([0, 1, 2]), shares=shares)
    seen = set()
    for epoch in range(12):
        item = dataset[(epoch, 0, 0)]
        assert len(item["boxes"]) == len(item["labels"]) == len(item["shares"])
        side = (item["boxes"][:, 2:] - item["boxes"][:, :2]).prod(1)
        for area, share, label in zip(side.tolist(), item["shares"].tolist(), item["labels"].tolist(), strict=True):
            # The larger box is the one that R3 alone drew.
            assert share == pytest.approx(1 / 3 if area > 450 else 2 / 3)
            seen.add((round(share, 2), label))
    assert seen == {(0.33, 1), (0.33, 2), (0.67, 1), (0.67, 2)}
    assert len(dataset[2]["boxes"]) == 0
    batch = collate_boxes([dataset[0], dataset[1], dataset[2]])
    truth = pad_truth(batch["targets"])
    assert truth.shares.shape == truth.labels.shape
    assert truth.shares[2].tolist() == [0.0] * truth.labels.shape[1]


@pytest.mark.parametrize("soft", [False, True])
def test_the_loss_of_a_box_that_one_of_four_readers_drew(soft):
    """−(s ln p(label) + (1 − s) ln p(background)) with soft targets, −s ln p(label) without."""
    torch.manual_seed(0)
    heads = build_detector(2, 64, "mobilenet_v2", fpn_channels=8, soft_targets=soft).roi_heads
    logits = torch.tensor([[1.0, 0.5, -1.0], [0.3, -0.2, 0.9]])
    offsets = torch.zeros(2, 3, 4)
    heads._predict = lambda *_: (logits, offsets)
    boxes = torch.tensor([[[0.0, 0, 20, 20], [30, 30, 40, 40]]])
    wanted = torch.tensor([[[2.0, 0, 22, 20], [0, 0, 1, 1]]])
    real, labels = torch.tensor([[True, True]]), torch.tensor([[1, 0]])
    shares = torch.tensor([[0.25, 0.25]])
    losses = heads.losses_of(None, None, Samples(boxes, real, labels, wanted, shares))
    whole = heads.losses_of(None, None, Samples(boxes, real, labels, wanted))
    surprise = -logits.log_softmax(-1)
    expected = 0.25 * surprise[0, 1] + surprise[1, 0] + (0.75 * surprise[0, 0] if soft else 0)
    torch.testing.assert_close(losses["loss_classifier"], expected / 2)
    torch.testing.assert_close(whole["loss_classifier"], (surprise[0, 1] + surprise[1, 0]) / 2)
    torch.testing.assert_close(losses["loss_box_reg"], 0.25 * whole["loss_box_reg"])
