"""Labels that predictions contradict: confident learning by hand, and each kind of contradiction of boxes."""

import json

import numpy as np
import pytest

from xray.audit.labels import confident_errors, contradictions
from xray.audit.named import CATEGORY, LABEL, MISSING, SPURIOUS
from xray.datasets.prediction_ids import read_any_predictions
from xray.datasets.store import open_store
from xray.evaluation.alignment import align


def test_confident_errors_by_hand():
    # Positive: mean 0.72; negative: mean 0.2, so that its complement is 0.8.
    positive = np.array([True] * 5 + [False] * 5)
    probabilities = np.array([0.9, 0.9, 0.9, 0.8, 0.1, 0.1, 0.1, 0.05, 0.0, 0.75])
    wrong, strength = confident_errors(probabilities, positive)
    assert wrong.tolist() == [False] * 4 + [True] + [False] * 4 + [True]
    assert strength[[4, 9]] == pytest.approx([0.8, 0.5])


def test_confident_errors_need_enough_labels_and_a_model_that_knows():
    few = np.array([True] * 4 + [False] * 9)
    assert confident_errors(np.linspace(0, 1, 13), few) is None
    assert confident_errors(np.linspace(0, 1, 13), ~few) is None
    guess = np.tile([0.4, 0.6], 6)
    assert confident_errors(guess, np.repeat([True, False], 6)) is None


NAMES = [{"id": 1, "name": "A"}, {"id": 2, "name": "B"}, {"id": 3, "name": "C"}]
LEFT, RIGHT = (100, 100, 300, 300), (600, 100, 800, 300)
N = 60


@pytest.fixture
def judge(tmp_path, write_table_store):
    """(boxes, predictions, changes of records) → contradictions of N radiographs."""

    def run(boxes: list[tuple], predicted: list[tuple], records: dict | None = None):
        images = [(f"i{row}", "train", row % 2, None) for row in range(N)]
        folder = write_table_store(tmp_path / f"data{len(list(tmp_path.iterdir()))}", images, boxes, NAMES)
        content = json.loads((folder / "annotations.json").read_text())
        for row, change in (records or {}).items():
            content["images"][row] |= change
        (folder / "annotations.json").write_text(json.dumps(content))
        rows = [
            {"image_id": f"i{row}", "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            for row, label, (x1, y1, x2, y2), score in predicted
        ]
        (tmp_path / "p.json").write_text(json.dumps(rows))
        store = open_store(folder, pixels=False)
        return contradictions(store, align(store, read_any_predictions(tmp_path / "p.json", store)))

    return run


TRUTH = [(row, 1, LEFT) for row in range(30)] + [(row, 2, RIGHT) for row in range(30, 60)]
SEEN = [(row, label, box, 0.9) for row, label, box in TRUTH]


def described(result) -> list[tuple]:
    return [(one.why, one.row, one.category, one.seen_as) for one in result.named]


def test_nothing_is_named_where_predictions_agree(judge):
    assert judge(TRUTH, SEEN).named == []


def test_a_box_of_another_category(judge):
    swapped = [(0, 2, LEFT), *TRUTH[1:]]
    result = judge(swapped, SEEN)
    assert described(result) == [(CATEGORY, 0, "B", "A")]
    assert result.named[0].score == 0.9
    assert result.counts[CATEGORY] == {"B": (1, 31, True)}


def test_a_prediction_of_another_finding_in_the_same_place_is_no_contradiction(judge):
    both = [*TRUTH, (0, 3, LEFT)] + [(row, 3, RIGHT) for row in range(1, 8)]
    seen = [*SEEN, (0, 3, LEFT, 0.8)] + [(row, 3, RIGHT, 0.8) for row in range(1, 8)]
    # The model sees C in radiograph 0, where it is, and passes over A, which is there, too.
    assert CATEGORY not in {one.why for one in judge(both, seen[1:]).named}


def test_a_box_that_is_not_seen_and_a_finding_without_a_box(judge):
    result = judge([*TRUTH, (0, 2, RIGHT)], [*SEEN, (40, 1, LEFT, 0.95)])
    assert described(result) == [(SPURIOUS, 0, "B", ""), (MISSING, 40, "A", "A")]


def test_what_may_be_there_without_a_box_is_not_missing(judge):
    assert judge(TRUTH, [*SEEN, (40, 1, LEFT, 0.95)], {40: {"unlocated": [1]}}).named == []
    assert judge(TRUTH[1:], SEEN, {0: {"unknown": [1]}}).named == []


def test_a_category_that_the_model_does_not_know_is_not_named(judge):
    # It sees half of A only: what it does not see may well be there.
    result = judge(TRUTH, [row for row in SEEN if row[1] == 2 or row[0] % 2])
    assert described(result) == []
    assert result.counts[SPURIOUS] == {"A": (15, 30, False)}
    assert any("see 75 % of the boxes" in note for note in result.notes)


def test_labels_of_whole_radiographs(judge):
    whole = (0, 0, 1000, 2000)
    labels = {row: {"labels": [1] if row < 20 else []} for row in range(N)}
    labels[3] = {"labels": []}
    labels[50] = {"labels": [1]}
    labels[51] = {"labels": [], "unknown": [1]}
    predicted = [(row, 1, whole, 0.95 if row < 20 or row == 51 else 0.05) for row in range(N)]
    result = judge([], predicted, labels)
    assert sorted(described(result)) == [(LABEL, 3, "A", ""), (LABEL, 50, "A", "")]
    assert "B, C" in result.notes[0]
