"""Boxes that lie beyond their pictures, and files of another size than their annotations say."""

import json

import pytest
from source_cases import write_picture
from test_normal_names import WRITERS, write_coco, write_cvat, write_voc

from xray.datasets.conversion import OTHER_SIZE
from xray.datasets.sources import NUMBERS, convert
from xray.datasets.sources.coco import read_coco
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
