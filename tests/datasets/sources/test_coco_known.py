"""What a COCO file says of whole radiographs, in lists or by key points: what is no category makes nothing negative."""

import json

import pytest
from source_cases import said, told, write_picture

from xray.datasets.annotation import annotate
from xray.datasets.sources.coco import read_coco
from xray.datasets.sources.coco_images import NO_SPLIT
from xray.datasets.sources.coco_known import FOREIGN, NOT_ANNOTATED
from xray.datasets.sources.coco_shapes import KEY_POINTS, NO_AREA
from xray.datasets.sources.tree import read_tree

CATEGORIES = [{"id": 3, "name": "Mass"}, {"id": 5, "name": "Nodule"}, {"id": 15, "name": "No finding"}]
POINTS = [10, 10, 2, 20, 12, 1]


@pytest.fixture
def read(tmp_path):
    """Reads a file of images with these entries, and of these annotations."""

    def reader(entries, rows=(), as_tree=False, categories=CATEGORIES, **flags):
        images = []
        for number, entry in enumerate(entries):
            write_picture(tmp_path / f"{number}.png", offset=number)
            images.append({"id": number, "file_name": f"{number}.png", "width": 60, "height": 40, **entry})
        content = {"images": images, "annotations": list(rows), "categories": categories}
        (tmp_path / "a.json").write_text(json.dumps(content))
        return (read_tree if as_tree else read_coco)(tmp_path, **flags)

    return reader


def row(number, image, category=3, **changes):
    return {"id": number, "image_id": image, "category_id": category, "bbox": [1, 2, 10, 10], **changes}


def known(source):
    """Id → what it shows by labels, boxes, and what is unknown, by the first letters of the names."""
    return {
        own_id: tuple("".join(sorted(name[0] for name in names)) for names in (
            facts["labels"], [box[0] for box in facts["boxes"]], facts["unknown"]))
        for own_id, facts in told(source).items()
    }  # fmt: skip


@pytest.mark.parametrize("as_tree", [False, True])
@pytest.mark.parametrize(
    "value",
    [["Fog"], "Fog", [99], 99, [True], True, 3.5, [3.5], {"Mass": 1}, [{"id": 3}], [[3]], [None], ["?"], "Mass|Nodule"],
)
@pytest.mark.parametrize("key", ["labels", "unknown", "unlocated"])
def test_a_list_that_holds_no_category_makes_nothing_negative(read, as_tree, key, value):
    source = read([{key: value}, {}, {key: value}], [row(1, 0)], as_tree)
    # By a box a finding is known whatever the list says, and a radiograph without such a list is what it was.
    assert known(source) == {"0": ("", "M", "N"), "1": ("", "", ""), "2": ("", "", "MN")}
    drops = [(drop.where, drop.reason) for drop in source.dropped]
    assert drops == [("a.json image 0", FOREIGN), ("a.json image 2", FOREIGN)]
    # What may lie anywhere may do so beside the box, too.
    assert source.images[0].elsewhere == ((1, 2) if key == "unlocated" else ())
    content, _ = annotate(source, [{"width": 60, "height": 40}] * 3, 2, "all", 0)
    assert [(record["labels"], record.get("unknown", [])) for record in content["images"]] == [
        ([1], [2]), ([], []), ([], [1, 2])
    ]  # fmt: skip


def test_what_is_a_category_is_taken_beside_what_is_none(read):
    source = read(
        [{"labels": ["mass", "Fog"]}, {"labels": [3, 99], "unknown": [5]}, {"labels": [], "unknown": ["x", 5]}]
    )
    assert known(source) == {"0": ("M", "", "N"), "1": ("M", "", "N"), "2": ("", "", "MN")}


def test_names_and_ids_side_by_side(read):
    source = read([{"unknown": ["Mass", 5]}, {"labels": ["nodule", "3"]}])
    assert known(source) == {"0": ("", "", "MN"), "1": ("MN", "", "")}
    assert not source.dropped


@pytest.mark.parametrize("value", [3, "Mass", "mass", "3", 3.0, [3.0], ["3"]])
def test_one_category_needs_no_list(read, value):
    source = read([{"labels": value}, {"labels": []}])
    assert known(source) == {"0": ("M", "", ""), "1": ("", "", "")}
    assert not source.dropped


@pytest.mark.parametrize("value", [None, {}, "", "null", []])
def test_what_is_empty_says_nothing_more_than_the_boxes(read, value):
    source = read([{"labels": value}, {"unknown": value}], [row(1, 0)])
    assert known(source) == {"0": ("", "M", ""), "1": ("", "", "")}
    assert not source.dropped


def test_labels_that_mean_that_nothing_was_found(read):
    entries = [{"labels": [15]}, {"labels": ["Normal"]}, {"labels": [15, 3]}, {"labels": "No finding"}, {}]
    entries += [{"labels": [15, "Fog"]}, {"labels": ["Mass"]}]
    source = read(entries, [row(1, 3), row(2, 6, 15, bbox=[0, 0, 1, 1])])
    # 2, 3 and 6 say both; 5 says that, and something else.
    assert known(source) == {"0": ("", "", ""), "1": ("", "", ""), "4": ("", "", ""), "5": ("", "", "MN")}
    assert [image.normal for image in source.images] == [True, True, False, False]
    left_out = [drop.where for drop in source.dropped if drop.reason == "picture said to be normal, with findings"]
    assert sorted(left_out) == ["2.png", "3.png", "6.png"]


def test_a_map_or_a_flag_decides_what_means_so(read):
    assert known(read([{"labels": ["Clear"]}, {}], kept=["clear"]))["0"] == ("", "", "MN")
    source = read([{"labels": ["Clear"]}, {"labels": ["healthy"]}], normal=["No finding"])
    assert known(source) == {"0": ("", "", "MN"), "1": ("", "", "MN")}
    names = {category["id"]: category["name"] for category in read([{"labels": [15]}], normal=[""]).categories}
    assert names == {1: "Mass", 2: "Nodule", 3: "No finding"}


@pytest.mark.parametrize("as_tree", [False, True])
@pytest.mark.parametrize("bbox", [None, [], [0, 0, 0, 0]])
@pytest.mark.parametrize("segmentation", [None, [], [[]]])
def test_key_points_alone_are_known_to_be_there(read, as_tree, bbox, segmentation):
    points = row(1, 0, keypoints=POINTS, num_keypoints=2, bbox=bbox, segmentation=segmentation)
    poses = [CATEGORIES[0] | {"keypoints": ["top", "end"], "skeleton": [[1, 2]]}, *CATEGORIES[1:]]
    source = read([{}, {}, {"labels": [5]}], [points, points | {"id": 2, "image_id": 2}], as_tree, poses)
    assert known(source) == {"0": ("M", "", ""), "1": ("", "", ""), "2": ("MN", "", "")}
    assert [image.unlocated for image in source.images] == [(1,), (), (1,)]
    assert [warning.kind for warning in source.warnings].count(NO_AREA) == 2


def test_key_points_beside_a_box(read):
    source = read([{}, {}], [row(1, 0, keypoints=POINTS), row(2, 1), row(3, 1, keypoints=POINTS, bbox=None)])
    assert known(source) == {"0": ("", "M", ""), "1": ("M", "M", "")}
    assert said(source).keys() == {KEY_POINTS, NO_AREA}
    # Beside the box there is another one.
    assert source.images[1].elsewhere == (1,)


@pytest.mark.parametrize("points", ["abc", [1, "x", 2], {"a": 1}, [[1, 2, 2]], [None, 1, 2], 7])
def test_key_points_that_are_none_cost_their_radiograph(read, points):
    source = read([{}, {}, {}], [row(1, 0, keypoints=points, bbox=None), row(2, 1, keypoints=points)])
    assert known(source) == {"1": ("", "M", ""), "2": ("", "", "")}
    assert [drop.reason for drop in source.dropped] == ["malformed entry", "image without a usable box"]


def test_points_of_no_category_or_of_a_crowd(read):
    rows = [row(1, 0, 99, keypoints=POINTS, bbox=None), row(2, 1, keypoints=POINTS, bbox=None, iscrowd=1)]
    rows += [row(3, 2, 15, keypoints=POINTS, bbox=None), row(4, 3, 15, bbox=[]), row(5, 3, keypoints=POINTS, bbox=[])]
    source = read([{}, {}, {}, {}], rows, crowds="ignore")
    assert known(source) == {"2": ("", "", "")}
    assert source.images[0].normal
    reasons = {drop.where: drop.reason for drop in source.dropped}
    assert reasons["a.json annotation 0"] == "unknown category"
    assert reasons["a.json annotation 1"] == "crowd region"
    assert reasons["3.png"] == "picture said to be normal, with findings"


@pytest.mark.parametrize("split", ["lunch", 2, ["val"], True])
def test_a_split_that_is_none_is_said(read, split):
    assert NO_SPLIT in said(read([{"split": split}, {"split": "val"}]))


@pytest.mark.parametrize("as_tree", [False, True])
@pytest.mark.parametrize(
    "entry",
    [
        {"annotated": False},
        {"labelled": 0},
        {"is_labeled": "no"},
        {"status": "pending"},
        {"deleted": True},
        {"done": False},
    ],
)
def test_a_picture_that_nobody_has_annotated_is_no_normal_one(read, as_tree, entry):
    entries = [entry, entry, {"annotated": True, "status": "done", "deleted": 0}, entry | {"labels": [5]}]
    source = read(entries, [row(1, 0)], as_tree)
    assert known(source) == {"0": ("", "M", ""), "2": ("", "", ""), "3": ("N", "", "")}
    assert [(drop.where, drop.reason) for drop in source.dropped] == [("1.png", NOT_ANNOTATED)]


def test_attributes_as_a_list(read):
    source = read([{}, {}], [row(1, 0, attributes=[{"name": "status", "value": "rejected"}, 3, {}]), row(2, 1)])
    assert known(source) == {"0": ("", "", "M"), "1": ("", "M", "")}
