"""The journal of predictions: what was added is there again, whole or not at all, after any end of the process."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xray.errors import InputError
from xray.files import from_line
from xray.inference.prediction_journal import Portion, PredictionJournal
from xray.structures.boxes import BoxTable

IDS = ("a", "b", "c", "d", "e")
CLAIMS = {"weights": ("run", 3), "tta": True}


def portions():
    third = 1 / 3
    table = BoxTable.of([1, 0, 1], [2, 15, 4], [[third, 0, 5, 6], [0, 0, 1, 1], [7, 8, 9.1, 1e9]], [0.1, third, 1.0])
    mask = {"size": [4, 6], "counts": "abc"}
    return [
        Portion(2, table, {2: mask}, {0: (6, 4), 1: (9, 9)}, {0: {"x": third}, 1: {"x": 0.5}}),
        Portion(4, failures=[(2, "c.png", "empty"), (3, "d.png", 'says "no"')]),
        Portion(5, BoxTable.of([4], [1], [[1, 2, 3, 4]], [0.25]), sizes={4: (10, 20)}),
    ]


@pytest.fixture
def filled(tmp_path):
    path = tmp_path / "predictions.part"
    with PredictionJournal(path, CLAIMS, IDS) as journal:
        assert journal.done == 0
        assert journal.choose_once({"precision": "bf16"}) == {"precision": "bf16"}
        for portion in portions():
            journal.add(portion)
    return path


def same(found, expected):
    for name in ("images", "labels", "boxes", "scores"):
        np.testing.assert_array_equal(getattr(found.table, name), getattr(expected.table, name))
    for name in ("stop", "masks", "sizes", "labels", "failures"):
        assert getattr(found, name) == getattr(expected, name)


def test_what_was_added_is_there_again_to_the_last_digit(filled):
    with PredictionJournal(filled, CLAIMS, IDS) as journal:
        assert journal.done == 5
        assert journal.choose_once({"precision": "32"}) == {"precision": "bf16"}
        for found, expected in zip(journal.portions(), portions(), strict=True):
            same(found, expected)


def test_every_cut_leaves_whole_portions(filled):
    whole = filled.read_bytes()
    ends = [number + 1 for number, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(0, len(whole), 7):
        filled.write_bytes(whole[:cut])
        with PredictionJournal(filled, CLAIMS, IDS) as journal:
            n_lines = sum(end <= cut for end in ends)
            assert journal.done == [0, 0, 2, 4, 5][n_lines]
            # And it goes on after them.
            journal.choose_once({"precision": "bf16"})
            for portion in portions()[max(n_lines - 1, 0) :]:
                journal.add(portion)
        assert filled.read_bytes() == whole


def test_the_rows_of_some_radiographs(filled):
    with PredictionJournal(filled, CLAIMS, IDS) as journal:
        found, labels = journal.predictions([4, 1, 3])
        assert found.table.images.tolist() == [1, 1, 4]
        assert found.table.labels.tolist() == [2, 4, 1]
        assert found.masks == {1: {"size": [4, 6], "counts": "abc"}}
        assert labels == {1: {"x": 0.5}}
        assert len(journal.predictions([])[0].table) == 0


def test_another_command_does_not_go_on_with_it(filled):
    with pytest.raises(InputError, match=r"unfinished predictions of another command \(tta changed\): repeat"):
        PredictionJournal(filled, {**CLAIMS, "tta": False}, IDS)
    with PredictionJournal(filled, {**CLAIMS, "tta": False}, IDS, discard=True) as journal:
        assert journal.done == 0
        assert journal.choices is None
        journal.choose_once({})
    assert from_line(filled.read_bytes(), 0)["claims"]["tta"] is False


def test_of_two_commands_at_once_the_second_is_refused(filled):
    with (
        PredictionJournal(filled, CLAIMS, IDS),
        pytest.raises(InputError, match="another command is writing into"),
    ):
        PredictionJournal(filled, CLAIMS, IDS)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_becomes_of_the_file_what_is_read_is_what_was_added(filled, tmp_path, data):
    """Bytes changed, taken out, put in and doubled: the portions are the first few of those added, or it is refused."""
    whole = bytearray(filled.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(whole)))
        stop = data.draw(st.integers(start, min(len(whole), start + 300)))
        piece = bytes(whole[start:stop])
        whole[start:stop] = data.draw(st.sampled_from([b"", piece * 2, piece.swapcase()]) | st.binary(max_size=40))
    damaged = tmp_path / "damaged.part"
    damaged.write_bytes(whole)
    with PredictionJournal(damaged, CLAIMS, IDS) as journal:
        found = list(journal.portions())
        assert journal.done == (found[-1].stop if found else 0)
    for one, expected in zip(found, portions(), strict=False):
        same(one, expected)


def test_a_line_that_is_missing_or_doubled_ends_it(filled):
    first, second, third, fourth = filled.read_bytes().splitlines(keepends=True)
    for lines, done in (([first, third, fourth], 0), ([first, second, second, third], 2), ([second, third], 0)):
        filled.write_bytes(b"".join(lines))
        with PredictionJournal(filled, CLAIMS, IDS) as journal:
            assert journal.done == done
