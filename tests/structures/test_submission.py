"""Submissions: Kaggle's exact text, back and forth, and the refusal of what Kaggle would refuse."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.errors import InputError
from xray.structures.boxes import BoxTable
from xray.structures.predictions import Predictions
from xray.structures.submission import read_submission, submission_order, write_submission


def predictions(rows: list[tuple], image_ids: tuple[str, ...]) -> Predictions:
    images, labels, boxes, scores = ([row[i] for row in rows] for i in range(4))
    return Predictions(image_ids, BoxTable.of(images, labels, boxes, scores))


def test_writes_kaggles_text(tmp_path):
    given = predictions(
        [
            (0, 4, (691, 1375, 1653.04, 1831.96), 0.25),  # Cardiomegaly is class 3
            (0, 1, (100.0, 200.5, 300.25, 400.0), 0.875),
            (0, 15, (0, 0, 1, 1), 0.125),
            (2, 15, (5, 5, 9, 9), 0.0000123456789),  # whatever its box, "No finding" is the unit box
            (2, 14, (0, 0, 10, 10), 1),
        ],
        ("a", "b", "c"),
    )
    write_submission(tmp_path / "submission.csv", given, ["c", "b", "a"])
    assert (tmp_path / "submission.csv").read_bytes() == (
        b"image_id,PredictionString\n"
        b"c,13 1 0 0 10 10 14 0.0000123457 0 0 1 1\n"
        b"b,14 1 0 0 1 1\n"
        b"a,0 0.875 100 200.5 300.2 400 3 0.25 691 1375 1653 1832 14 0.125 0 0 1 1\n"
    )
    assert os.listdir(tmp_path) == ["submission.csv"]


image_names = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5, unique=True)
coordinates = st.floats(0, 20000)


@st.composite
def any_predictions(draw):
    image_ids = tuple(draw(image_names))
    rows = []
    for _ in range(draw(st.integers(0, 12))):
        x1, x2 = sorted((draw(coordinates), draw(coordinates)))
        y1, y2 = sorted((draw(coordinates), draw(coordinates)))
        label = draw(st.integers(1, 15))
        box = (0, 0, 1, 1) if label == 15 else (x1, y1, x2, y2)
        rows.append((draw(st.integers(0, len(image_ids) - 1)), label, box, draw(st.floats(0, 1))))
    return predictions(rows, image_ids)


@given(any_predictions(), st.randoms())
def test_round_trip(tmp_path_factory, before, random):
    path = tmp_path_factory.mktemp("round") / "submission.csv"
    order = list(before.image_ids)
    random.shuffle(order)
    write_submission(path, before, order)
    after = read_submission(path)
    assert list(after.image_ids) == order == submission_order(path)
    for image, image_id in enumerate(order):
        was = before.table.select(before.table.images == before.image_ids.index(image_id)).best_per_image(1000)
        now = after.table.select(after.table.images == image)
        if len(was) == 0:
            was = BoxTable.of([0], [15], [(0, 0, 1, 1)], [1])
        np.testing.assert_array_equal(now.labels, was.labels)
        np.testing.assert_allclose(now.scores, was.scores, rtol=1e-5, atol=0)
        np.testing.assert_allclose(now.boxes, was.boxes, atol=0.0500001)
        assert (np.diff(now.scores) <= 0).all()


def test_names_outside_unicode_survive(tmp_path):
    name = os.fsdecode(b'caf\xe9, "left"\n')
    write_submission(tmp_path / "s.csv", predictions([(0, 1, (0, 0, 9, 9), 0.5)], (name,)), [name])
    assert read_submission(tmp_path / "s.csv").image_ids == (name,)


def test_a_cell_may_be_longer_than_pythons_csv_limit(tmp_path):
    given = predictions([(0, 1, (i, 1000.5, 2000.5, 2001.5), 0.123456) for i in range(2000)] * 3, ("a",))
    write_submission(tmp_path / "s.csv", given, ["a"])
    assert (tmp_path / "s.csv").stat().st_size > 131_072
    assert len(read_submission(tmp_path / "s.csv").table) == 6000


@pytest.mark.parametrize(
    ("given", "image_ids", "categories", "message"),
    [
        ([(0, 1, (0, 0, 9, 9), 0.5)], ["b"], None, "not to be submitted.*'a'"),
        ([], ["a", "b", "a"], None, "a appears twice"),
        ([], ["a", ""], None, "image id is empty"),
        ([(0, 16, (0, 0, 9, 9), 0.5)], ["a"], None, r"categories \[16\]"),
        ([(0, 0, (0, 0, 9, 9), 0.5)], ["a"], None, r"categories \[0\]"),
        ([(0, 3, (0, 0, 9, 9), 0.5)], ["a"], {1: "left lung", 2: "right lung"}, r"categories \[3\]"),
        ([], ["a"], {15: "left lung"}, "room for categories 1 to 14"),
        ([(0, 1, (0, 0, 9, 9), 1.5)], ["a"], None, "a has confidence 1.5"),
        ([(0, 1, (0, 0, np.nan, 9), 0.5)], ["a"], None, "must be finite"),
        ([(0, 1, (10, 0, 9, 9), 0.5)], ["a"], None, "x_min <= x_max"),
    ],
)
def test_refuses_to_write(tmp_path, given, image_ids, categories, message):
    path = tmp_path / "submission.csv"
    path.write_text("what was there")
    with pytest.raises(InputError, match=message):
        write_submission(path, predictions(given, ("a",)), image_ids, categories)
    assert path.read_text() == "what was there"
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header must be image_id,PredictionString"),
        ("id,PredictionString\na,14 1 0 0 1 1\n", "begins with 'id,PredictionString'"),
        ("image_id\na\n", "header must be"),
        ("image_id,PredictionString\na\n", "line 2 has 1 cells"),
        ("image_id,PredictionString\na,\n", "a has no prediction"),
        ("image_id,PredictionString\na,14 1 0 0 1\n", "a has 5 values"),
        ("image_id,PredictionString\na,14 1 0 0 1 one\n", "no number.*'one'"),
        ("image_id,PredictionString\na,15 1 0 0 1 1\n", "a has class id 15"),
        ("image_id,PredictionString\na,-1 1 0 0 1 1\n", "a has class id -1"),
        ("image_id,PredictionString\na,0.5 1 0 0 1 1\n", "a has class id 0.5"),
        ("image_id,PredictionString\na,nan 1 0 0 1 1\n", "a has class id nan"),
        ("image_id,PredictionString\na,14 1 0 0 1 1\nb,0 1.2 0 0 1 1\n", "b has confidence 1.2"),
        ("image_id,PredictionString\na,0 nan 0 0 1 1\n", "a has confidence nan"),
        ("image_id,PredictionString\na,0 1 5 0 1 1\n", "a has the box"),
        ("image_id,PredictionString\na,0 1 0 0 inf 1\n", "must be finite"),
        ("image_id,PredictionString\na,14 1 0 0 1 1\na,14 1 0 0 1 1\n", "a appears twice"),
        ('image_id,PredictionString\na,"14 1 0 0 1 1\n', "is not CSV"),
    ],
)
def test_refuses_to_read(tmp_path, text, message):
    path = tmp_path / "submission.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_submission(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv"):
        read_submission(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match=r"nowhere\.csv"):
        submission_order(tmp_path / "nowhere.csv")


def test_order_of_a_sample_submission(tmp_path):
    path = tmp_path / "sample_submission.csv"
    path.write_bytes(b"\xef\xbb\xbfimage_id,PredictionString\r\n002,14 1 0 0 1 1\r\n001,14 1 0 0 1 1\r\n\r\n")
    assert submission_order(path) == ["002", "001"]
    path.write_text("image_id,PredictionString\n")
    with pytest.raises(InputError, match="lists no images"):
        submission_order(path)
