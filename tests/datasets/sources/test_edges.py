"""Boxes that lie beyond their pictures, and files of another size than their annotations say."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_cases import write_picture
from test_normal_names import WRITERS, write_coco, write_cvat, write_voc

from xray.datasets.conversion_account import OTHER_SIZE
from xray.datasets.sources import NUMBERS, convert
from xray.datasets.sources.coco import read_coco
from xray.datasets.sources.edges import MAY_BE_SMALLER, SIZES_OF_PICTURES, is_much, passing
from xray.datasets.sources.set_tables import is_far_beyond
from xray.datasets.sources.table import read_table
from xray.datasets.sources.table_boxes import Reading
from xray.datasets.sources.tree import read_tree
from xray.datasets.store import open_store
from xray.errors import InputError

INSIDE, BEYOND, CUT = (10, 5, 20, 15), (300, 200, 400, 300), (50, 30, 70, 50)


def pictures(root, n, width=60, height=40):
    for number in range(n):
        write_picture(root / "images" / f"{number}.png", width, height, offset=number)


def nodules(*boxes):
    return [[("Nodule", box)] for box in boxes]


@pytest.mark.parametrize("format", ["voc", "cvat", "labelstudio", "coco"])
def test_boxes_of_other_units_are_refused(tmp_path, format):
    pictures(tmp_path, 4)
    WRITERS[format](tmp_path, nodules(INSIDE, BEYOND, BEYOND, (310, 210, 420, 320)))
    with pytest.raises(InputError, match=r"3 of 4 boxes of .* pass the edges .* in a picture of 60 x 40\)"):
        read_tree(tmp_path)
    if format == "coco":
        with pytest.raises(InputError, match=r"3 of 4 boxes of .*annotations\.json pass the edges"):
            read_coco(tmp_path)


def test_boxes_with_a_margin_are_cut(tmp_path):
    # All pass an edge, by less than a twentieth of the side.
    pictures(tmp_path, 4)
    write_coco(tmp_path, nodules(*[(-2, -1, 30, 20), (20, 10, 62, 41)] * 2))
    assert len(read_tree(tmp_path).boxes) == 4
    assert convert("coco", tmp_path, tmp_path / "data", image_size=32, n_folds=2)["counts"]["images"] == 4


def test_boxes_that_are_turned_reach_beyond_with_their_corners(tmp_path):
    pictures(tmp_path, 4)
    write_cvat(tmp_path, nodules(*[(5, 15, 55, 38)] * 4))
    file = tmp_path / "annotations.xml"
    file.write_text(file.read_text().replace("<box ", '<box rotation="30" '))
    assert len(read_tree(tmp_path).boxes) == 4
    file.write_text(
        file.read_text().replace('xtl="5" ytl="15" xbr="55" ybr="38"', 'xtl="500" ytl="9" xbr="550" ybr="20"')
    )
    with pytest.raises(InputError, match="4 of 4 boxes"):
        read_tree(tmp_path)


def test_sizes_that_no_file_says_are_those_of_the_pictures(tmp_path):
    pictures(tmp_path, 4)
    write_voc(tmp_path, nodules(*[BEYOND] * 4))
    for path in tmp_path.glob("images/*.xml"):
        path.write_text(path.read_text().replace("<size><width>60</width><height>40</height></size>", ""))
    with pytest.raises(InputError, match="4 of 4 boxes"):
        read_tree(tmp_path)


@pytest.mark.parametrize("write", [write_voc, write_cvat, write_coco])
def test_a_single_box_beyond_costs_its_radiograph(tmp_path, write):
    root = tmp_path / "set"
    pictures(root, 5)
    write(root, [*nodules(INSIDE, INSIDE, INSIDE, CUT), [("Nodule", INSIDE), ("Nodule", BEYOND)]])
    conversion = convert("tree", root, tmp_path / "data", image_size=32, n_folds=2)
    assert conversion["counts"]["images"] == 4
    rows = conversion["dropped"]["rows"]
    lost = [row for row in rows if row["where"] == "images/4.png"]
    assert [(row["reason"], row["detail"]) for row in lost] == [
        ("radiograph with an annotation that could not be used", "1 of 2 boxes beyond 60 x 40")
    ]
    assert [row["action"] for row in rows if row["reason"] == "box beyond the edge"] == ["clipped"]


@pytest.mark.parametrize("write", [write_voc, write_cvat, write_coco])
def test_pictures_of_another_size(tmp_path, write):
    root = tmp_path / "set"
    pictures(root, 3)
    write_picture(root / "images" / "1.png", 120, 80)
    write_picture(root / "images" / "2.png", 60, 60)
    write_picture(root / "images" / "3.png", 60, 40, offset=3)
    write(root, nodules(*[INSIDE] * 4))
    conversion = convert("tree", root, tmp_path / "data", image_size=32, n_folds=2)
    # Twice as large, it is taken to have been enlarged; of another shape it is another picture.
    said = [row for row in conversion["warnings"]["rows"] if row["kind"] == OTHER_SIZE]
    assert [row["where"] for row in said] == ["images/1.png"]
    assert [(row["where"], row["detail"]) for row in conversion["dropped"]["rows"]] == [
        ("images/2.png", "the file is 60 x 60, the table says 60 x 40")
    ]
    assert open_store(tmp_path / "data").records[1]["width"] == 60


def test_numbers_as_names_are_named(tmp_path):
    root = tmp_path / "set"
    pictures(root, 4)
    (root / "t.csv").write_text("image,label\n0,0\n1,1\n2,2\n3,0\n")
    conversion = convert("table", root, tmp_path / "data", image_size=32, n_folds=2)
    assert list(conversion["counts"]["images_per_label"]) == ["0", "1", "2"]
    assert [(row["kind"], row["detail"]) for row in conversion["warnings"]["rows"] if row["kind"] == NUMBERS] == [
        (NUMBERS, "0, 1, 2")
    ]
    (tmp_path / "map.yaml").write_text(json.dumps({"0": "normal", "1": "Nodule", "2": "Mass"}))
    conversion = convert("table", root, tmp_path / "named", image_size=32, n_folds=2, map=tmp_path / "map.yaml")
    assert sorted(conversion["counts"]["images_per_label"]) == ["Mass", "Nodule"]
    assert NUMBERS not in [row["kind"] for row in conversion["warnings"]["rows"]]


def without_sizes(root, value=None):
    """A COCO file that does not say how large its pictures were, or says 0."""
    file = root / "annotations.json"
    content = json.loads(file.read_text())
    for entry in content["images"]:
        for side in ("width", "height"):
            entry.pop(side) if value is None else entry.update({side: value})
    file.write_text(json.dumps(content))


def in_table(root, boxes):
    rows = "".join(f"{number}.png,Nodule,{','.join(map(str, box))}\n" for number, box in enumerate(boxes))
    (root / "t.csv").write_text(f"image,label,x1,y1,x2,y2\n{rows}")


FAR_APART = [(2 + n % 20, 2 + n % 10, 20 + n * 39 / 23, 12 + n * 27 / 23) for n in range(24)]
"""Boxes of 60 x 40, one of which ends at 59, 39, one of six at 50 or more."""


@pytest.mark.parametrize("value", [None, 0])
def test_pictures_made_smaller_since_where_no_file_says_their_size(tmp_path, value):
    # To 9 tenths: of 24 boxes the largest two pass an edge by more than a twentieth.
    pictures(tmp_path, 24, 54, 36)
    write_coco(tmp_path, nodules(*FAR_APART))
    assert len(read_coco(tmp_path).boxes) == 24  # the file says 60 x 40, so they are scaled
    without_sizes(tmp_path, value)
    message = r"2 of 24 boxes of .* pass the edges .* in a picture of 54 x 36\): .* or write their width and height in"
    with pytest.raises(InputError, match=message):
        read_coco(tmp_path)
    with pytest.raises(InputError, match=message):
        read_tree(tmp_path)
    in_table(tmp_path, FAR_APART)
    first = r"the first: 4, 4, 57\.3043, 37\.8261 in 54 x 36"
    with pytest.raises(InputError, match=rf"2 of 24 boxes are none or pass the edges .* \({first}\): .* give --width"):
        read_table(tmp_path)


def test_pictures_made_larger_since_where_no_file_says_their_size(tmp_path):
    pictures(tmp_path, 24, 120, 80)
    write_coco(tmp_path, nodules(*FAR_APART))
    without_sizes(tmp_path)
    message = r"the boxes seem to be of smaller pictures, none of 24 ends beyond 49% of the width and 49% of the height"
    for read in (read_coco, read_tree):
        with pytest.raises(InputError, match=message):
            read(tmp_path)
    in_table(tmp_path, FAR_APART)
    with pytest.raises(InputError, match=f"{message} .*: give --units N"):
        read_table(tmp_path)
    with_sizes = "".join(f"{n}.png,Nodule,{','.join(map(str, box))},60,40\n" for n, box in enumerate(FAR_APART))
    (tmp_path / "t.csv").write_text(f"image,label,x1,y1,x2,y2,width,height\n{with_sizes}")
    assert not [one for one in read_table(tmp_path).warnings if one.kind == MAY_BE_SMALLER]


def test_boxes_of_one_corner_are_read_where_they_are_right(tmp_path):
    pictures(tmp_path, 24, 120, 80)
    write_coco(tmp_path, nodules(*FAR_APART))
    without_sizes(tmp_path)
    in_table(tmp_path, FAR_APART)
    (tmp_path / "t.csv").rename(tmp_path / "boxes.csv")
    for read in (read_coco, read_tree, lambda path, **flags: read_table(path, table="boxes.csv", **flags)):
        with pytest.raises(InputError, match=r"(say|or) --same-size if they"):
            read(tmp_path)
        source = read(tmp_path, same_size=True)
        assert (len(source.boxes), source.warnings) == (24, [])
    # It says nothing of boxes that pass an edge.
    pictures(tmp_path, 24, 40, 26)
    with pytest.raises(InputError, match="pass the edges"):
        read_coco(tmp_path, same_size=True)


@pytest.mark.parametrize("down", [0.3, 0.5])
def test_boxes_of_a_corner_that_no_smaller_picture_has_are_read(tmp_path, down):
    # Pictures that were made larger shrink what lies in them across and down by the same factor, or nearly.
    pictures(tmp_path, 24, 120, 80)
    boxes = [(1, 1, 20 + n * 39 / 23, 8 + n * (80 * down - 8.5) / 23) for n in range(24)]
    write_coco(tmp_path, nodules(*boxes))
    without_sizes(tmp_path)
    if down == 0.3:
        assert MAY_BE_SMALLER in {warning.kind for warning in read_coco(tmp_path).warnings}
    else:
        with pytest.raises(InputError, match="the boxes seem to be of smaller pictures"):
            read_coco(tmp_path)


def test_a_doubt_about_sizes_is_said(tmp_path):
    pictures(tmp_path, 24, 84, 56)
    write_coco(tmp_path, nodules(*FAR_APART))
    assert read_coco(tmp_path).warnings == []
    without_sizes(tmp_path)
    warnings = read_coco(tmp_path).warnings
    # Not by where the folder lies, which conversion.json does not tell.
    assert {one.where for one in warnings} == {"annotations.json"}
    said = {one.kind: one.detail for one in warnings}
    assert said[SIZES_OF_PICTURES] == "24 pictures with boxes"
    assert said[MAY_BE_SMALLER].startswith("none of 24 ends beyond 70% of the width and 70% of the height of its pic")
    in_table(tmp_path, FAR_APART)
    assert [one.kind for one in read_table(tmp_path).warnings] == [MAY_BE_SMALLER]
    # Of the size that they had, nothing is in doubt but that nobody says so; nor of few boxes.
    pictures(tmp_path, 24)
    assert [one.kind for one in read_coco(tmp_path).warnings] == [SIZES_OF_PICTURES]
    assert read_table(tmp_path).warnings == []


def test_boxes_of_a_large_table_are_judged_by_those_that_are_looked_at(tmp_path):
    # 128 of 400 radiographs are opened: that all of these pass an edge is so of all.
    pictures(tmp_path, 40)
    boxes = [(70 + n % 7, 50, 90 + n % 7, 60) for n in range(400)]
    rows = "".join(f"{n % 40}.png,Nodule,{','.join(map(str, box))}\n" for n, box in enumerate(boxes))
    (tmp_path / "t.csv").write_text(f"image,label,x1,y1,x2,y2\n{rows}")
    with pytest.raises(InputError, match=r"boxes from everywhere are none or pass the edges"):
        read_table(tmp_path)


@given(
    st.integers(20, 3000),
    st.integers(20, 3000),
    st.tuples(*[st.floats(-1.2, 1.2, allow_nan=False)] * 2),
    st.tuples(*[st.floats(0.01, 1.2)] * 2),
)
def test_one_rule_for_tables_trees_and_public_sets(width, height, start, sides):
    x, y = start[0] * width, start[1] * height
    box = np.array([[x, y, x + sides[0] * width, y + sides[1] * height]])
    size = np.array([[width, height]], dtype=float)
    slack = np.maximum(0.05 * size, 1)[0]
    by_hand = bool((box[0, :2] < -slack).any() or (box[0, 2:] > size[0] + slack).any())
    assert passing(box, size).tolist() == [by_hand]
    assert is_far_beyond(box, (width, height)).tolist() == [by_hand]
    assert Reading("xyxy", "pixels").misfits(box, size).tolist() == [by_hand]


@pytest.mark.parametrize(
    ("n_passing", "n", "plain", "known"),
    [(1, 1, False, False), (3, 3, False, True), (2, 4, True, True), (1, 4, False, False), (2, 40, False, False),
     (3, 40, False, True), (20, 40, True, True), (0, 0, False, False)],
)  # fmt: skip
def test_how_many_boxes_tell(n_passing, n, plain, known):
    assert (is_much(n_passing, n), is_much(n_passing, n, is_known=True)) == (plain, known)
