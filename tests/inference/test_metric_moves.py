"""What rougher arithmetic would do to a metric: hand-worked cases, and that what does not count does not."""

import dataclasses

import numpy as np
import pytest

from xray.inference.findings import Findings
from xray.inference.metric_moves import _expected_auroc, are_small, expected_moves, in_words
from xray.structures.boxes import BoxTable
from xray.structures.triplet import Triplet

N = 24
NAMES = {1: "Nodule", 2: "Effusion"}
HALF = Triplet(0.5, 0.0, 0.5)


@pytest.fixture
def table():
    """Two boxes a radiograph of each of two categories, far apart; scores from 0.02 to 0.95."""
    random = np.random.default_rng(3)
    images, labels = np.repeat(np.arange(N), 4), np.tile([1, 1, 2, 2], N)
    corners = np.tile([[0, 0], [500, 0], [0, 500], [500, 500]], (N, 1)) + random.uniform(0, 50, (4 * N, 2))
    boxes = np.concatenate([corners, corners + random.uniform(80, 200, (4 * N, 2))], 1)
    return BoxTable.of(images, labels, boxes, random.uniform(0.02, 0.95, 4 * N))


def moves(one, other, **more):
    return expected_moves(Findings(one, **more), Findings(other, **more), N, NAMES, HALF)


def test_equal_findings_do_not_move(table):
    assert moves(table, table) == {"mAP@0.4": 0, "COCO AP": 0}
    # Nor does another category, such as "No finding".
    more = BoxTable.concatenate([table, BoxTable.of([0], [15], [[0, 0, 1, 1]], [0.5])])
    assert moves(table, more) == {"mAP@0.4": 0, "COCO AP": 0}


def test_rounding_is_small_and_damage_is_not(table):
    random = np.random.default_rng(0)
    noisy = dataclasses.replace(
        table,
        scores=np.clip(table.scores + random.normal(0, 0.01, len(table)), 0, 1),
        boxes=table.boxes + random.normal(0, 0.5, table.boxes.shape),
    )
    assert are_small(moves(table, noisy))
    # A box that moved by more than IoU 0.9 allows was once a refusal; of a faint one it says nothing.
    faint = table.scores < 0.05
    assert 0 < faint.sum() < 8
    assert are_small(moves(table, table.select(~faint)))
    # One of ten probable boxes lost, every score drawn anew, every box shifted by a third of its size.
    lost = table.select(np.arange(len(table)) % 10 > 0)
    shuffled = dataclasses.replace(table, scores=random.permutation(table.scores))
    sides = table.boxes[:, 2:] - table.boxes[:, :2]
    shifted = dataclasses.replace(table, boxes=table.boxes + np.tile(sides / 3, 2))
    for damaged in (lost, shuffled, shifted):
        found = moves(table, damaged)
        assert found["mAP@0.4"] < -0.02
        assert not are_small(found)


def test_where_little_is_found_nothing_is_said(table):
    faint = dataclasses.replace(table, scores=table.scores / 1000)
    assert moves(faint, faint) == {}
    assert expected_moves(Findings(table), Findings(table), N, {}, HALF) == {}  # boxes that do not count
    empty = np.zeros((N, 1, 8, 8), np.float32)
    assert moves(faint, faint, maps=empty, labels={"x": np.full(N, 1e-3)}) == {}


def test_dice_by_hand():
    """A mask of 4 of 16 pixels, sure to the nearest level; the rough one loses one of them."""
    exact, rough = np.zeros((1, 1, 4, 4)), np.zeros((1, 1, 4, 4))
    exact[0, 0, 0] = 0.95
    rough[0, 0, 0, :3] = 0.95
    empty = BoxTable.empty()
    found = expected_moves(Findings(empty, maps=exact), Findings(empty, maps=rough), 1, {}, HALF)
    assert found == {"Dice": pytest.approx(2 * 3 / 7 - 1)}


def test_auroc_by_hand():
    probability = np.array([0.9, 0.2])
    # The first has it and the second has not: 0.9 · 0.8 = 0.72; the other way round: 0.2 · 0.1 = 0.02.
    assert _expected_auroc(probability, np.array([0.8, 0.3])) == pytest.approx(0.72 / 0.74)
    assert _expected_auroc(probability, np.array([0.3, 0.8])) == pytest.approx(0.02 / 0.74)
    assert _expected_auroc(probability, np.array([0.5, 0.5])) == 0.5


def test_auroc_is_that_of_drawn_truths():
    random = np.random.default_rng(1)
    probability = random.uniform(0, 1, 40)
    scores = np.clip(probability + random.normal(0, 0.2, 40), 0, 1)
    labels = {"x": probability, "rare": np.full(40, 1e-3)}
    empty = BoxTable.empty()
    rough = {"x": scores, "rare": random.uniform(0, 1, 40)}
    found = expected_moves(Findings(empty, labels=labels), Findings(empty, labels=rough), 40, {}, HALF)
    areas = []
    for _ in range(400):
        truth = random.random(40) < probability
        pairs = [np.sign(s[truth][:, None] - s[~truth]) / 2 + 0.5 for s in (scores, probability)]
        areas.append(pairs[0].mean() - pairs[1].mean())
    assert found["AUROC"] == pytest.approx(np.mean(areas), abs=0.006)


def test_in_words():
    assert in_words({"mAP@0.4": 0.00041, "COCO AP": -0.0011}) == "mAP@0.4 +0.0004, COCO AP -0.0011"
    assert are_small({"Dice": -0.0029})
    assert not are_small({"Dice": 0.0, "AUROC": 0.003})
