"""Cells of anybody's table that are no plain label: boxes behind labels, words for what nobody has said."""

import cv2
import numpy as np
import pytest
from set_cases import boxes_of, summary
from source_cases import said, write_picture

from xray.datasets.category_map import read_map
from xray.datasets.sources import NUMBERS, convert
from xray.datasets.sources.table import NO_UTF8, SILENT, read_table
from xray.datasets.sources.table_labels import is_unsaid
from xray.datasets.sources.table_rows import BLANK_UNKNOWN, UNSAID
from xray.errors import InputError

HEADER = "image,label"


@pytest.fixture
def read(tmp_path):
    for number in range(5):
        (tmp_path / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"images/{number}.png"), np.full((60, 80), number, dtype=np.uint8))

    def reader(*lines, header=HEADER, encoding="utf-8", **flags):
        (tmp_path / "t.csv").write_text("\n".join([header, *lines]) + "\n", encoding=encoding)
        return read_table(tmp_path, **flags)

    return reader


def test_a_label_behind_which_boxes_stand_may_be_of_several_words(read):
    source = read("0,Lung Opacity 1 1 2 30 40 mass 1.0 5 5 20 20", "1,Aortic enlargement 1 10 20 30 40", "2,")
    assert [category["name"] for category in source.categories] == ["Aortic enlargement", "Lung Opacity", "mass"]
    assert source.boxes.boxes.tolist() == [[1, 2, 30, 40], [5, 5, 20, 20], [10, 20, 30, 40]]
    assert [source.categories[label - 1]["name"][0] for label in source.boxes.labels] == ["L", "m", "A"]


@pytest.mark.parametrize(
    "cells",
    [
        ("opacity 10 20 30 40", "opacity 1 2 30 40"),
        ("10 20 30 40", "1 2 30 40", "none"),
        ("Type 2 nodule 1 1 2 30 40", "Type 2 nodule 1 1 2 30 41"),
        ("opacity 1 1 2 30 40 7", "opacity 1 1 2 30"),
    ],
)
def test_boxes_that_are_written_in_another_way_are_no_labels(read, cells):
    with pytest.raises(InputError, match="label holds numbers and not labels alone, such as"):
        read(*(f"{number},{cell}" for number, cell in enumerate(cells)))


def test_boxes_behind_their_labels_in_one_cell(read):
    source = read(
        "0,opacity 1 1.5 2 30 4e1 opacity 1 40 5 50 6.25",
        "1,none 1 0 0 1 1",
        "2,",
        "3,Nodule 1.0 1 1 5 5 opacity 1 2 2 9 9",
    )
    assert boxes_of(source) == [
        ("images/0.png", "opacity", [1.5, 2, 30, 40], ()),
        ("images/0.png", "opacity", [40, 5, 50, 6.25], ()),
        ("images/3.png", "Nodule", [1, 1, 5, 5], ()),
        ("images/3.png", "opacity", [2, 2, 9, 9], ()),
    ]
    assert [image.normal for image in source.images] == [False, True, False, False]
    assert summary(source)["images/2.png"][3] == ["Nodule", "opacity"]
    assert source.places[1] == "t.csv line 2"
    # VinBigData calls its classes by numbers, of which 14 has the box of nothing.
    source = read("0,3 1 5 5 20 20", "1,14 1 0 0 1 1", header="image,PredictionString")
    assert (len(source.boxes), [image.normal for image in source.images]) == (1, [False, True])
    # Beside a column of other boxes these count, as the label of each is known.
    lists = "\"[{'x': 1, 'y': 1, 'width': 4, 'height': 4}]\""
    assert boxes_of(read(f"0,{lists},Nodule 1 1 1 5 5", "1,,none 1 0 0 1 1", header="image,boxes,label")) == [
        ("images/0.png", "Nodule", [1, 1, 5, 5], ())
    ]


@pytest.mark.parametrize(
    ("header", "lines", "message"),
    [
        (
            "image,PredictionString",
            ["0,opacity 0.8 1 2 3 4", "1,none 1 0 0 1 1"],
            "boxes with scores, such as 0.8: these",
        ),
        (
            "image,PredictionString",
            ["0,0.5 0 0 100 100", "1,0.9 1 2 3 4 0.1 5 6 7 8"],
            "boxes with scores, and no labels",
        ),
        (HEADER, ["0,opacity 1 1 2 3 4", "1,opacity 1 1 2 3", "2,none 1 0 0 1 1"], "and 'opacity 1 1 2 3': correct it"),
    ],
)
def test_predictions_and_damaged_cells_are_no_labels(read, header, lines, message):
    with pytest.raises(InputError, match=message):
        read(*lines, header=header)


def test_a_long_cell_takes_no_longer_than_its_words(read):
    # Numbers that could be taken apart in many ways, in a cell that is none of the known kinds.
    with pytest.raises(InputError, match="holds numbers and not labels alone"):
        read("0," + "1234567 " * 4001, header="image,PredictionString")


def test_another_column_may_be_the_labels(read):
    lines = ["0,Mass,Nodule 0.5 1 1 5 5", "1,Edema,none 1 0 0 1 1"]
    source = read(*lines, header="image,finding,PredictionString")
    assert [category["name"] for category in source.categories] == ["Edema", "Mass"]
    with pytest.raises(InputError, match="these are predictions"):
        read(*lines, header="image,finding,PredictionString", label="PredictionString")


@pytest.mark.parametrize("word", ["unknown", "Unknown", "To do", "TBD", "not labelled", "un-labeled"])
def test_a_word_for_what_nobody_has_said_is_no_finding(read, word):
    source = read("0,Mass", f"1,{word}", "2,Normal", f"3,Nodule|{word}")
    assert [category["name"] for category in source.categories] == ["Mass", "Nodule"]
    of = summary(source)
    assert of["images/1.png"][2:] == ([], ["Mass", "Nodule"])
    assert of["images/3.png"][2:] == (["Nodule"], ["Mass"])
    assert said(source) == {UNSAID: f"{word}: 2 of 4"}
    # It is no blank cell, which the user may say is negative.
    source = read("0,Mass", f"1,{word}", "2,", blank="negative")
    assert summary(source)["images/1.png"][3] == ["Mass"]
    assert summary(source)["images/2.png"][3] == []
    assert BLANK_UNKNOWN not in said(source)
    # Nor where somebody else has said something.
    source = read("0,Mass,a", f"1,{word},a", "1,Normal,b", header="image,label,reader")
    assert summary(source)["images/1.png"][3] == []


def test_a_map_may_make_it_a_finding(read, tmp_path):
    (tmp_path / "m.yaml").write_text("Unknown: Something\n")
    source = read("0,Mass", "1,Unknown", kept=read_map(str(tmp_path / "m.yaml"), "table").findings)
    assert [category["name"] for category in source.categories] == ["Mass", "Unknown"]
    with pytest.raises(InputError, match=r"column label, has no label besides todo"):
        read("0,todo", "1,todo")


@pytest.mark.parametrize("label", ["indeterminate", "none", "other", "unknown mass", "not normal", ""])
def test_what_sounds_alike_is_a_label(label):
    assert not is_unsaid(label)


def test_text_is_no_label(tmp_path):
    rows = []
    for number in range(240):
        write_picture(tmp_path / f"images/{number}.png", offset=number)
        rows.append(f"{number}.png,a nodule of {number} mm is seen")
    (tmp_path / "t.csv").write_text("\n".join(["image,findings", *rows]) + "\n")
    with pytest.raises(InputError, match="has 240 different labels in 240 rows, such as 'a nodule of 100 mm"):
        read_table(tmp_path)


def test_columns_that_say_nothing_are_named(read):
    source = read("0,1,-1,-1", "1,0,-1,", "2,-1,-1,-1", header="image,Mass,Cardiomegaly,Edema")
    assert [category["name"] for category in source.categories] == ["Mass"]
    assert said(source)[SILENT] == "Cardiomegaly, Edema"
    assert SILENT not in said(read("0,1,-1", "1,0,0", header="image,Mass,Edema"))


def test_the_encoding_of_windows_is_said(read):
    source = read("0,Épanchement", "1,Normal", encoding="cp1252")
    assert ([category["name"] for category in source.categories], said(source)) == (
        ["Épanchement"],
        {NO_UTF8: "the first in line 2"},
    )


def test_classes_called_by_numbers_are_said_whatever_stands_before(read, tmp_path):
    for names, is_number in (
        ("class_0,class_14", True),
        ("0,Label 3", True),
        ("L1,L2", False),
        ("class_0,Mass", False),
    ):
        read("0,1,0", "1,0,1", "2,0,0", "3,1,1", header=f"image,{names}")
        done = convert("table", tmp_path, tmp_path / "out", image_size=32, n_folds=2, n_workers=0, overwrite=True)
        assert (NUMBERS in done["warnings"]["counts"]) == is_number
