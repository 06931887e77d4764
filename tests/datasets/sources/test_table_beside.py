"""Columns beside the labels of anybody's table, and labels about others: what they say is read, or named."""

import cv2
import numpy as np
import pytest
from source_cases import said

from xray.datasets.sources.table import read_table
from xray.datasets.sources.table_beside import OF_ANSWERS, OF_NUMBERS, OF_PLACES, OF_SCORES
from xray.datasets.sources.table_labels import ABSENT, SEVERAL
from xray.errors import InputError


@pytest.fixture
def read(tmp_path):
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((60, 80), number, dtype=np.uint8))

    def reader(header, *lines, **flags):
        (tmp_path / "t.csv").write_text("\n".join([header, *lines]) + "\n")
        return read_table(tmp_path, **flags)

    return reader


def stated(source):
    """File → names that it shows, and names that are unknown of it."""
    names = {category["id"]: category["name"] for category in source.categories}
    return {
        image.file_name[0]: tuple("".join(sorted(names[one] for one in ids)) for ids in (image.labels, image.unknown))
        for image in source.images
    }


def boxes_of(source):
    """(file, corners) of each box."""
    table = zip(source.boxes.images.tolist(), source.boxes.boxes.tolist(), strict=True)
    return [(source.images[image].file_name[0], tuple(box)) for image, box in table]


@pytest.mark.parametrize(("label", "answer"), [("finding", "present"), ("variable", "value"), ("Label", "Is positive")])
@pytest.mark.parametrize(("yes", "no", "unsure"), [("1", "0", "-1"), ("yes", "no", "-1"), ("TRUE", "FALSE", "-1.0")])
def test_a_row_says_whether_its_label_is_there(read, label, answer, yes, no, unsure):
    rows = [f"0,M,{yes}", f"0,N,{no}", f"1,M,{no}", f"1,N,{unsure}", f"2,M,{no}", "2,N,", f"3,M,{yes}", f"4,N,{no}"]
    source = read(f"image,{label},{answer}", *rows)
    # What no row says of a radiograph is unknown, not absent.
    assert stated(source) == {"0": ("M", ""), "1": ("", "N"), "2": ("", "N"), "3": ("M", "N"), "4": ("", "M")}
    assert not any(image.normal for image in source.images)


def test_no_finding_with_an_answer(read):
    rows = ["0,No finding,1", "0,M,0", "1,No finding,0", "1,M,1", "2,No finding,0", "3,N,2"]
    source = read("image,finding,present", *rows[:5])
    assert stated(source) == {"0": ("", ""), "1": ("M", ""), "2": ("", "M")}
    assert [image.normal for image in source.images] == [True, False, False]
    # A cell that is no answer would take the column's no from all others.
    with pytest.raises(InputError, match="present has '2' beside 1, 0 and -1, and may say whether the label"):
        read("image,finding,present", *rows)


def test_boxes_of_labels_that_are_there(read):
    source = read("image,finding,x,y,w,h,present", "0,M,1,2,3,4,1", "1,M,,,,,0", "2,M,9,9,8,7,0")
    assert boxes_of(source) == [("0", (1, 2, 4, 6))]
    # A box of what is absent is a contradiction, which costs the radiograph.
    assert [image.file_name for image in source.images] == ["0.png", "1.png"]


def test_columns_that_are_not_used_are_named(read):
    source = read("image,label,x,y,w,h,urgent,score", "0,M,1,2,3,4,0,0.5", "1,M,1,2,3,4,1,0.25")
    assert said(source) == {OF_ANSWERS: "urgent", OF_SCORES: "score"}
    source = read("image,label,x (mm),y (mm),w (mm),h (mm),age,iscrowd", "0,M,1,2,3,4,50,0", "1,M,1,2,3.5,4,60,1")
    assert said(source) == {OF_PLACES: "x (mm), y (mm), w (mm), h (mm)"}
    assert not said(read("image,label,x,y,w,h,iscrowd,note", "0,M,1,2,3,4,0,x", "1,M,1,2,3,4,1,y"))


@pytest.mark.parametrize(
    "header", ["x (px),y (px),w (px),h (px)", "x_px,y_px,width_px,height_px", "bbox_x [pixel],y,w,h"]
)
def test_pixels_in_the_header(read, header):
    assert boxes_of(read(f"image,label,{header}", "0,M,1,2,30,40")) == [("0", (1, 2, 31, 42))]


def test_percent_in_the_header(read):
    table = ("image,label,x (%),y (%),w (%),h (%)", "0,M,25,50,50,25")
    with pytest.raises(InputError, match=r"x \(%\) is in percent of the sides and no pixels: give --units 100"):
        read(*table)
    assert boxes_of(read(*table, units="100")) == [("0", (20, 30, 60, 45))]


def test_labels_about_others_are_named(read):
    source = read("image,label", "0,Mass", "1,No mass", "2,Mass/Nodule", "3,Nodule", "4,mass absent")
    assert said(source) == {ABSENT: "mass absent, No mass", SEVERAL: "Mass/Nodule"}
    # Of one part alone nobody knows that it is a label.
    assert not said(read("image,label", "0,Nodule/Mass", "1,Mass", "2,No pneumonia"))


@pytest.mark.parametrize("column", ["value", "Result", "status"])
@pytest.mark.parametrize("cells", [(12.5, 0, 0, 0), (12.5, 0, 1, 1), (0, 0, 0, "2,5"), (0, 0, 17, 250), (3, 4, 0, 0)])
def test_numbers_that_measure_are_no_answers(read, column, cells):
    rows = [f'{number},{"MN"[number % 2]},"{cell}"' for number, cell in enumerate(cells)]
    source = read(f"image,label,{column}", *rows)
    assert stated(source) == {"0": ("M", ""), "1": ("N", ""), "2": ("M", ""), "3": ("N", "")}
    assert said(source) == {OF_NUMBERS: column}
    # One whole number among answers is none, and may be a mistake.
    with pytest.raises(InputError, match="has '2' beside 1, 0 and -1"):
        read(f"image,label,{column}", "0,M,1", "1,M,0", "2,M,1", "3,N,2")


@pytest.mark.parametrize(
    ("column", "yes", "no"),
    [
        ("present", "present", "not present"), ("assertion", "affirmed", "negated"), ("detected", "yes", "not seen"),
        ("found", "Found", "Not found"), ("negated", "0", "1"), ("is_absent", "no", "yes"),
        ("absent", "present", "absent"), ("negation", "affirmed", "negated"),
        ("Presence", "identified", "not_identified"),
    ],
)  # fmt: skip
def test_words_of_yes_and_no_and_columns_that_deny(read, column, yes, no):
    source = read(f"image,finding,{column}", f"0,M,{yes}", f"0,N,{no}", f"1,M,{no}", f"1,N,{yes}")
    assert stated(source) == {"0": ("M", ""), "1": ("N", "")}


def test_certainty_in_words_and_in_numbers(read):
    source = read("image,finding,certainty", "0,M,definite", "1,M,possible", "2,N,unlikely", "3,N,certain")
    assert stated(source) == {"0": ("M", "N"), "1": ("", "MN"), "2": ("", "MN"), "3": ("N", "M")}
    source = read("image,finding,certainty", "0,M,1", "1,M,0")
    assert (stated(source), said(source)) == ({"0": ("M", ""), "1": ("M", "")}, {OF_ANSWERS: "certainty"})


def test_a_column_of_yes_and_no_that_is_called_like_no_finding(read):
    source = read("image,M,N,status", "0,1,0,1", "1,0,1,0")
    assert (stated(source), said(source)) == ({"0": ("M", ""), "1": ("N", "")}, {OF_ANSWERS: "status"})
    # Alone it is the only thing that is said.
    assert stated(read("image,positive", "0,1", "1,0")) == {"0": ("positive", ""), "1": ("", "")}
