"""What every reader of tables shares: files found by name, boxes judged, radiographs named that cannot be used."""

import json
import math

import cv2
import numpy as np
import pytest

from xray.datasets import source as reasons
from xray.datasets.conversion import write_store
from xray.datasets.source import NOT_IN_TABLE, TEST, VAL
from xray.datasets.sources.collector import Collector
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.training.loading import training_rows


@pytest.fixture
def root(tmp_path):
    """Six radiographs of 40 x 30 pixels in a tree of folders."""
    for number, folder in enumerate(["a", "a", "a", "b", "b", "b"]):
        (tmp_path / "in" / folder).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / folder / f"{number}.png"), np.full((30, 40), 30 * number, dtype=np.uint8))
    return tmp_path / "in"


def test_each_radiograph_keeps_what_was_said_of_it(root, tmp_path):
    collector = Collector("made", root, ["Mass", "Nodule", "Effusion"])
    names = [collector.file_of(f"{number}.png", f"table line {number + 2}") for number in range(6)]
    assert names == ["a/0.png", "a/1.png", "a/2.png", "b/3.png", "b/4.png", "b/5.png"]
    collector.describe(names[0], patient="p", labels=[1, 3], unlocated=[1, 3], reader="R1", view="PA")
    collector.box(names[0], 1, (2, 3, 12.5, 9), "boxes line 2", "R1")
    collector.describe(names[1], unknown=[1, 2, 3], split=VAL)
    collector.describe(names[2], split=TEST)
    result = write_store(collector.source(), tmp_path / "out", image_size=32, n_folds=2)
    assert (result["counts"]["train_images"], result["counts"]["val_images"], result["counts"]["test_images"]) == (
        4,
        1,
        1,
    )
    records = json.loads((tmp_path / "out" / "annotations.json").read_text())["images"]
    first, second, third, *_ = records
    assert first["labels"] == [1, 3]
    assert first["unlocated"] == [3]  # where the mass is, is known
    assert (first["patient"], first["readers"], first["view"]) == ("p", ["R1"], "PA")
    assert second["unknown"] == [1, 2, 3]
    assert [second["fold"], third["fold"]] == [-1, -1]
    store = open_store(tmp_path / "out")
    assert store.unknown.sum(axis=1).tolist() == [0, 3, 0, 0, 0, 0]
    assert store.unlocated.tolist()[:2] == [[False, False, True], [True, True, True]]
    assert [rows.tolist() for rows in training_rows(store, "val")] == [[0, 3, 4, 5], [1]]
    assert [rows.tolist() for rows in training_rows(store, "all")] == [[0, 1, 3, 4, 5], []]
    # A validation split of one radiograph tells nothing: a fold does.
    assert [rows.tolist() for rows in training_rows(store, "auto")] == [r.tolist() for r in training_rows(store, 0)]


@pytest.mark.parametrize(
    ("corners", "reason"),
    [
        ((1, 1, math.nan, 5), reasons.NOT_A_NUMBER),
        ((9, 1, 2, 5), reasons.INVERTED),
        ((1, 1, 1, 5), reasons.EMPTY),
    ],
)
def test_a_box_that_is_none_costs_its_radiograph(root, corners, reason):
    collector = Collector("made", root, ["Mass"])
    for number in range(6):
        collector.file_of(f"{number}.png", "")
    collector.box("a/0.png", 1, corners, "boxes line 2")
    collector.box("a/0.png", 1, (1, 1, 4, 5), "boxes line 3")
    source = collector.source()
    assert [image.file_name for image in source.images] == ["a/1.png", "a/2.png", "b/3.png", "b/4.png", "b/5.png"]
    assert len(source.boxes) == 0
    assert [(drop.where, drop.reason) for drop in source.dropped] == [
        ("boxes line 2", reason),
        ("a/0.png", reasons.LOST_ANNOTATION),
    ]


def test_a_repeated_box_counts_once_but_two_readers_twice(root):
    collector = Collector("made", root, ["Mass"])
    for line, reader in enumerate(["R1", "R1", "R2"]):
        collector.box("a/0.png", 1, (1, 1, 4, 5), f"boxes line {line}", reader)
    source = collector.source()
    assert source.readers == [("R1",), ("R2",)]
    assert source.images[0].readers == ("R1", "R2")
    assert [drop.where for drop in source.dropped if drop.reason == reasons.DUPLICATE] == ["boxes line 1"]


def test_names_without_a_file_and_files_without_a_name(root):
    collector = Collector("made", root, ["Mass"])
    assert collector.file_of("7.png", "table line 2") is None
    assert collector.file_of("../out.png", "table line 3") is None
    assert collector.file_of("0.png", "table line 4") == "a/0.png"
    dropped = {(drop.where, drop.reason) for drop in collector.source().dropped}
    assert ("table line 2", reasons.MISSING_FILE) in dropped
    assert ("b/5.png", NOT_IN_TABLE) in dropped
    assert any(where == "table line 3" for where, _ in dropped)


def test_a_name_that_may_mean_two_files_is_used_for_neither(root):
    (root / "b" / "0.png").write_bytes((root / "b" / "4.png").read_bytes())
    collector = Collector("made", root, ["Mass"])
    assert collector.file_of("0.png", "table line 2") is None
    assert collector.file_of("1.png", "table line 3") == "a/1.png"
    assert [image.file_name for image in collector.source().images] == ["a/1.png"]


def test_nothing_left(root):
    collector = Collector("made", root, ["Mass"])
    collector.file_of("7.png", "table line 2")
    with pytest.raises(
        InputError, match=r"no radiograph of .* can be used: 6 x file without a row .*, 1 x missing file"
    ):
        collector.source()
