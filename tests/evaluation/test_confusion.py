"""Confusion between findings: cases by hand, and what any matrix must fulfil."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xray.evaluation.confusion import confusion
from xray.structures.boxes import BoxTable

NAMES = {1: "effusion", 2: "nodule", 4: "opacity"}
SQUARE, SHIFTED, FAR = (0, 0, 100, 100), (20, 0, 120, 100), (500, 500, 600, 600)  # IoU of the first two: 2/3


def table(*rows: tuple) -> BoxTable:
    """Rows of (image, label, box, score)."""
    columns = list(zip(*rows, strict=True)) if rows else [[]] * 4
    return BoxTable.of(*columns)


def test_found_confused_missed_and_nothing() -> None:
    truth = table((0, 1, SQUARE, 1), (0, 2, FAR, 1), (1, 4, SQUARE, 1))
    predictions = table((0, 1, SHIFTED, 0.9), (0, 4, FAR, 0.8), (1, 2, FAR, 0.7), (1, 4, SQUARE, 0.2))
    found = confusion(truth, predictions, NAMES, 0.3)
    assert found.names == ("effusion", "nodule", "opacity")
    # The opacity's own box is under the threshold: it is missed, and the nodule there meets nothing.
    assert found.counts.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0]]
    assert confusion(truth, predictions, NAMES, 0.2).counts[2].tolist() == [0, 0, 1, 0]
    assert found.metrics["names"][-1] == "background"


def test_a_box_on_its_own_finding_is_no_confusion_with_the_neighbour() -> None:
    # The nodule's box overlaps the effusion's truth more than its own; both have their own all the same.
    truth = table((0, 1, SQUARE, 1), (0, 2, SHIFTED, 1))
    predictions = table((0, 2, SQUARE, 0.9), (0, 1, SHIFTED, 0.8))
    assert confusion(truth, predictions, NAMES, 0.0).counts.tolist() == [
        [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0],
    ]  # fmt: skip


def test_the_threshold_of_the_overlap_is_included() -> None:
    # 40 of 100 wide: IoU exactly 0.4.
    truth, inside = table((0, 1, SQUARE, 1)), table((0, 2, (0, 0, 40, 100), 0.9))
    assert confusion(truth, inside, NAMES, 0.0).counts[0, 1] == 1
    less = table((0, 2, (0, 0, 39.9, 100), 0.9))
    assert confusion(truth, less, NAMES, 0.0).counts[0, 1] == 0


def test_a_box_is_in_one_pair_only() -> None:
    truth = table((0, 1, SQUARE, 1))
    predictions = table((0, 1, SHIFTED, 0.9), (0, 1, SQUARE, 0.5), (0, 15, (0, 0, 1, 1), 0.9))
    # The closer one is the pair, the other meets nothing; "No finding" is no category here.
    assert confusion(truth, predictions, NAMES, 0.0).counts.tolist() == [
        [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0],
    ]  # fmt: skip


boxes = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([1, 2, 4]), st.integers(0, 4), st.integers(0, 4), st.floats(0, 1)),
    max_size=25,
)


def drawn(rows: list) -> BoxTable:
    return table(*((image, label, (x, y, x + 3, y + 3), score) for image, label, x, y, score in rows))


@given(boxes, boxes, st.floats(0, 1))
def test_rows_and_columns_are_all_boxes(true: list, found: list, threshold: float) -> None:
    truth, predictions = drawn(true), drawn(found)
    counts = confusion(truth, predictions, NAMES, threshold).counts
    kept = predictions.labels[predictions.scores >= threshold]
    assert (counts >= 0).all()
    assert counts[-1, -1] == 0
    for place, label in enumerate(NAMES):
        assert counts[place].sum() == (truth.labels == label).sum()
        assert counts[:, place].sum() == (kept == label).sum()


@given(boxes, boxes, st.randoms())
def test_the_order_of_rows_does_not_matter(true: list, found: list, random: object) -> None:
    # Scores apart, so that nothing but the order of the rows could decide.
    found = [(*row[:4], (number + 1) / 30) for number, row in enumerate(found)]
    before = confusion(drawn(true), drawn(found), NAMES, 0.0).counts
    random.shuffle(found)
    after = confusion(drawn(true), drawn(found), NAMES, 0.0).counts
    np.testing.assert_array_equal(np.diag(before), np.diag(after))
    assert before.sum() == after.sum()
