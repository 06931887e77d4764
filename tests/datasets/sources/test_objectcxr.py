"""Object-CXR: rectangles, ellipses and polygons in one cell, empty cells, two spellings of the header."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_cases import told, why, write_picture

from xray.datasets import source as reasons
from xray.datasets.conversion import write_store
from xray.datasets.sources.objectcxr import MALFORMED, REPEATED, read_objectcxr, shapes_of
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.structures.masks import decode_mask

TRAIN = ("00001.jpg,0 10 5 30 15;1 40 10 60 30;2 5 20 25 20 25 38;", "00002.jpg,")
DEV = ("00001.jpg,1 1.5 2 20.5 30",)


@pytest.fixture
def write(tmp_path):
    """(train, dev, column) → the set's folder with pictures of 64 x 40; both splits have a 00001.jpg."""

    def make(train=TRAIN, dev=DEV, column="image_name"):
        for number, name in enumerate(("train/00001", "train/00002", "dev/00001")):
            write_picture(tmp_path / f"{name}.jpg", 64, 40, offset=number)
        for name, rows in (("train", train), ("dev", dev)):
            if rows is not None:
                (tmp_path / f"{name}.csv").write_text("\n".join([f"{column},annotation", *rows]) + "\n")
        return tmp_path

    return make


@pytest.mark.parametrize("column", ["image_name", "image_path"])
def test_shapes_and_splits_are_what_the_tables_say(write, column, tmp_path):
    source = read_objectcxr(write(column=column))
    of = told(source)
    assert of["train/00001"]["boxes"] == [
        ("Foreign object", 10, 5, 30, 15), ("Foreign object", 40, 10, 60, 30), ("Foreign object", 5, 20, 25, 38)
    ]  # fmt: skip
    assert of["dev/00001"]["boxes"] == [("Foreign object", 1.5, 2, 20.5, 30)]
    assert [of[name]["split"] for name in ("train/00001", "00002", "dev/00001")] == ["train", "train", "val"]
    assert (of["00002"]["labels"], of["00002"]["unknown"], of["00002"]["boxes"]) == ([], [], [])
    assert why(source) == []
    write_store(source, tmp_path / "out", image_size=64, n_folds=2)
    store = open_store(tmp_path / "out")
    row = store.index_of["train/00001"]
    areas = [int(decode_mask(store.masks[k]).sum()) for k in np.flatnonzero(store.boxes.images == row).tolist()]
    # 20 x 10; pi times 10 x 10; half of 20 x 18.
    assert areas == [pytest.approx(200, abs=8), pytest.approx(314, abs=25), pytest.approx(180, abs=25)]


def test_a_path_in_the_table_decides_between_files_of_one_name(write):
    source = read_objectcxr(write(train=["train/00001.jpg,0 1 2 3 4"], dev=["dev/00001.jpg,"], column="image_path"))
    of = told(source)
    assert (len(of["train/00001"]["boxes"]), len(of["dev/00001"]["boxes"])) == (1, 0)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("3 1 2 3 4", MALFORMED),
        ("0 1 2 3", MALFORMED),
        ("0 1 2 3 4 5 6", MALFORMED),
        ("2 1 2 3 4", MALFORMED),
        ("2 1 2 3 4 5 6 7", MALFORMED),
        ("0 1 2 three 4", MALFORMED),
        ("0 5 2 3 4", MALFORMED),
        ("0 10 5 30 15;hello", MALFORMED),
        ("0 3 2 3 4", reasons.EMPTY),
    ],
)
def test_a_cell_that_cannot_be_used_costs_its_radiograph(write, cell, reason):
    source = read_objectcxr(write(train=[f"00001.jpg,{cell}", TRAIN[1]]))
    assert sorted(told(source)) == ["00002", "dev/00001"]
    assert ("train.csv line 2", reason) in why(source)


def test_two_rows_of_one_radiograph_cost_it(write):
    source = read_objectcxr(write(train=[*TRAIN, "00002.jpg,0 1 2 3 4"]))
    assert sorted(told(source)) == ["dev/00001", "train/00001"]
    assert ("train.csv line 4", REPEATED) in why(source)
    # But where they say the same, one is enough.
    twice = read_objectcxr(write(train=[*TRAIN, TRAIN[0]]))
    assert told(twice) == told(read_objectcxr(write(train=TRAIN)))
    assert why(twice) == [("train.csv line 4", reasons.DUPLICATE)]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"train": None, "dev": None}, "has no train.csv with image_name,annotation"),
        ({"column": "file"}, r"has no column image_name \(found file, annotation\)"),
        ({"train": [",0 1 2 3 4"]}, "line 2 has a finding but no image_name"),
        ({"train": ["00001.jpg,0 .1 .2 .3 .4"]}, "all its boxes lie between 0 and 1"),
    ],
)
def test_tables_that_cannot_be_used_stop_the_conversion(write, kwargs, message):
    root = write(**kwargs)
    with pytest.raises(InputError, match=message):
        read_objectcxr(root)


def test_pictures_that_were_made_smaller_need_the_sizes_of_the_originals(write):
    rows = ["00001.jpg,0 100 50 300 150", "00002.jpg,0 70 10 80 20"]
    root = write(train=rows, dev=None)
    with pytest.raises(
        InputError, match=r"boxes of 2 of 2 radiographs reach beyond their pictures \(the first is train"
    ):
        read_objectcxr(root)
    (root / "train_meta.csv").write_text("image_id,width,height\n00001.jpg,640,400\n00002.jpg,640,400\n")
    of = told(read_objectcxr(root))
    assert (of["train/00001"]["size"], of["train/00001"]["boxes"]) == (
        (640, 400),
        [("Foreign object", 100, 50, 300, 150)],
    )
    # One box beyond the edge is that radiograph's own fault.
    (root / "train_meta.csv").unlink()
    assert len(told(read_objectcxr(write(train=[rows[0], "00002.jpg,0 7 1 8 2"], dev=None)))) == 2


NUMBERS = st.integers(0, 3000)


@given(st.lists(st.tuples(st.sampled_from([0, 1]), NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=5))
def test_any_rectangle_and_ellipse_keeps_its_box(shapes):
    shapes = [(kind, min(a, c), min(b, d), max(a, c), max(b, d)) for kind, a, b, c, d in shapes]
    found = shapes_of(";".join(" ".join(map(str, shape)) for shape in shapes))
    assert [[*points.min(axis=0), *points.max(axis=0)] for points in found] == [list(shape[1:]) for shape in shapes]


@given(st.text(alphabet="012 ;.x-e", max_size=40))
def test_any_other_text_is_read_or_refused(text):
    found = shapes_of(text)
    assert found is None or all(len(points) >= 3 for points in found)


def test_a_table_that_is_cut_off(tmp_path):
    for number in range(2):
        write_picture(tmp_path / "train" / f"{number}.jpg", offset=number)
    text = "image_name,annotation\n0.jpg,0 1 2 3 4\n1.jpg"
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(InputError, match="it is cut off: its last row has 1 of 2 cells and no end of line"):
        read_objectcxr(tmp_path)
    for end in (",", "\n", ",\n"):
        (tmp_path / "train.csv").write_text(text + end)
        assert len(read_objectcxr(tmp_path).images) == 2
