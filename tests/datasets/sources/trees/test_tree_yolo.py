"""YOLO trees as Ultralytics reads them, and lines that are no labels."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_cases import write_picture

from xray.datasets import source as reasons
from xray.datasets.source import snap
from xray.datasets.sources import convert
from xray.datasets.sources.coco_images import FaultError
from xray.datasets.sources.tree import read_tree
from xray.datasets.sources.trees.parts import NOT_IN_TREE
from xray.datasets.sources.trees.yolo import (
    BACKGROUND,
    IN_TWO_SPLITS,
    LABELS_ALONE,
    LABELS_ELSEWHERE,
    MISSING_SPLIT,
    NOT_LABELLED,
    SAME_SPLIT,
)
from xray.datasets.sources.trees.yolo_description import OTHER_DESCRIPTION
from xray.datasets.sources.trees.yolo_lines import BEYOND, read_line
from xray.datasets.store import open_store
from xray.errors import FlagError, InputError

WIDTH, HEIGHT = 60, 40


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.fixture
def root(tmp_path):
    """images/train/0–3.png, images/val/4.png, images/test/5.png; a box on 0, an outline on 4, no label file for 3."""
    root = tmp_path / "set"
    for number, split in enumerate(["train"] * 4 + ["val", "test"]):
        write_picture(root / "images" / split / f"{number}.png", WIDTH, HEIGHT, offset=number)
    text(root / "labels" / "train" / "0.txt", "1 0.5 0.5 0.5 0.25\n")
    text(root / "labels" / "train" / "1.txt", "")
    text(root / "labels" / "train" / "2.txt", "\n")
    text(root / "labels" / "val" / "4.txt", "0 0.1 0.1 0.5 0.1 0.5 0.6\n0 0.2 0.2 0.2 0.2\n")
    text(root / "labels" / "test" / "5.txt", "0 0.25 0.5 0.5 1\n")
    text(
        root / "data.yaml",
        "path: /content/set\ntrain: images/train\nval: images/val\ntest: images/test\nnames: {0: Nodule, 1: Mass}\n",
    )
    return root


def kinds(source):
    return [warning.kind for warning in source.warnings]


def splits(source):
    return {image.file_name.rpartition("/")[2]: image.split for image in source.images}


def test_boxes_outlines_and_backgrounds(root):
    source = read_tree(root)
    assert splits(source) == {f"{n}.png": s for n, s in enumerate(["train"] * 4 + ["val", "test"])}
    by_name = {image.file_name: number for number, image in enumerate(source.images)}
    assert [category["name"] for category in source.categories] == ["Nodule", "Mass"]
    rows = list(zip(source.boxes.images.tolist(), source.boxes.labels.tolist(), strict=True))
    assert rows == [
        (by_name["images/test/5.png"], 1),
        (by_name["images/train/0.png"], 2),
        (by_name["images/val/4.png"], 1),
        (by_name["images/val/4.png"], 1),
    ]
    # cx cy w h of 0.5 0.5 0.5 0.25 is 15 to 45 of 60 and 15 to 25 of 40.
    assert snap(source.boxes.boxes).tolist() == [[0, 0, 30, 40], [15, 15, 45, 25], [6, 4, 30, 24], [6, 4, 18, 12]]
    # A line of four numbers is a box in a file of outlines, too: Ultralytics takes it for two points, or leaves the
    # picture out.
    assert list(source.masks) == [2]
    assert snap(source.masks[2][0]).tolist() == [6, 4, 30, 4, 30, 24]
    assert kinds(source) == [BACKGROUND]
    assert source.warnings[0].where == "images/train/3.png"


@pytest.mark.parametrize(
    "lines",
    [
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [Nodule, Mass]\nnc: 2\n",
        "path: ../datasets/x\ntrain: train/images\nvalidation: valid\ntest: [test/images]\nnames: {0: Nodule, 1: Mass}",
        "path: .\ntrain: train.txt\nval: C:\\data\\valid\\images\ntest: /x/y/test/images\nnames: [Nodule, Mass]\n",
    ],
)
def test_what_descriptions_call_the_splits(tmp_path, lines):
    for number, split in enumerate(["train", "train", "valid", "test"]):
        write_picture(tmp_path / split / "images" / f"{number}.png", WIDTH, HEIGHT, offset=number)
        text(tmp_path / split / "labels" / f"{number}.txt", "0 0.5 0.5 0.1 0.1")
    text(tmp_path / "train.txt", "./train/images/0.png\n/elsewhere/train/images/1.png\n")
    text(tmp_path / "data.yaml", lines)
    source = read_tree(tmp_path)
    assert splits(source) == {"0.png": "train", "1.png": "train", "2.png": "val", "3.png": "test"}
    assert len(source.boxes) == 4
    assert kinds(source) == []


def test_splits_that_are_missing_or_the_same(root):
    text(root / "data.yaml", "train: images/train\nval: images/train\ntest: images/none\nnames: [Nodule, Mass]\n")
    source = read_tree(root)
    assert set(splits(source).values()) == {"train"}
    assert {MISSING_SPLIT, SAME_SPLIT} <= set(kinds(source))
    assert sorted(drop.where for drop in source.dropped if drop.reason == NOT_IN_TREE) == [
        "images/test/5.png",
        "images/val/4.png",
    ]


def test_a_picture_of_two_splits_is_trained_on_by_none(root):
    text(root / "test.txt", "images/train/0.png\nimages/test/5.png\n")
    text(root / "data.yaml", "train: images/train\ntest: test.txt\nnames: [Nodule, Mass]\n")
    source = read_tree(root)
    assert splits(source)["0.png"] == "test"
    assert [(drop.where, drop.action) for drop in source.dropped if drop.reason == IN_TWO_SPLITS] == [
        ("images/train/0.png", "taken for test")
    ]


def test_cvats_and_label_studios_own_layouts(tmp_path):
    darknet, studio = tmp_path / "darknet", tmp_path / "studio"
    write_picture(darknet / "obj_train_data" / "1.png", WIDTH, HEIGHT)
    text(darknet / "obj_train_data" / "1.txt", "0 0.5 0.5 0.5 0.5\n")
    text(darknet / "train.txt", "data/obj_train_data/1.png\n")
    text(darknet / "obj.names", "Nodule\n")
    text(darknet / "obj.data", "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    write_picture(studio / "images" / "ab-1.png", WIDTH, HEIGHT)
    text(studio / "labels" / "ab-1.txt", "0 0.5 0.5 0.5 0.5\n")
    text(studio / "classes.txt", "Nodule\n")
    for root in (darknet, studio):
        source = read_tree(root)
        assert source.boxes.boxes.tolist() == [[15, 10, 45, 30]]
        assert [category["name"] for category in source.categories] == ["Nodule"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 x 0.5", reasons.NOT_A_NUMBER),
        ("Nodule 0.5 0.5 0.5 0.5", reasons.NOT_A_NUMBER),
        ("2 0.5 0.5 0.5 0.5", reasons.UNKNOWN_CLASS),
        ("-1 0.5 0.5 0.5 0.5", reasons.UNKNOWN_CLASS),
        ("0 0.5 0.5 1.2 0.5", BEYOND),
        ("0 0.5 0.5 0 0.5", reasons.EMPTY),
        ("0 0.5 0.5 -0.005 0.5", reasons.INVERTED),
        ("0 0.5 0.5", "malformed entry"),
    ],
)
def test_a_line_that_is_none_costs_its_radiograph(root, line, reason):
    text(root / "labels" / "train" / "1.txt", f"0 0.5 0.5 0.5 0.5\n{line}\n")
    source = read_tree(root)
    assert "1.png" not in splits(source)
    assert ("labels/train/1.txt line 2", reason) in [(drop.where, drop.reason) for drop in source.dropped]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.5 0.5 0.87", "line 1 has 6 columns.*predictions"),
        ("0 0.5 0.5 0.5 0.5 0.87 12", "line 1 has 7 columns.*predictions"),
        ("0 0.5 0.5 0.5 0.5 0.1 0.2 2", "line 1 has 8 columns.*pose"),
    ],
)
def test_other_kinds_of_files_are_refused(root, line, message):
    text(root / "labels" / "train" / "1.txt", line)
    with pytest.raises(InputError, match=message):
        read_tree(root)


def test_poses_pixels_and_trees_without_labels(root):
    description = (root / "data.yaml").read_text()
    text(root / "data.yaml", description + "kpt_shape: [17, 3]\n")
    with pytest.raises(InputError, match="describes poses"):
        read_tree(root)
    text(root / "data.yaml", "names: [")
    with pytest.raises(InputError, match=r"data.yaml is not YAML"):
        read_tree(root)
    text(root / "data.yaml", "nc: 2\ntrain: images/train\n")
    with pytest.raises(InputError, match=r"data.yaml has no names of classes"):
        read_tree(root)
    text(root / "data.yaml", description)
    for path in root.glob("labels/*/*.txt"):
        text(path, "0 30 20 10 10\n")
    with pytest.raises(InputError, match="as if they were pixels"):
        read_tree(root)
    for path in root.glob("labels/*/*.txt"):
        path.unlink()
    with pytest.raises(InputError, match=r"none of the 6 pictures .* has a label file, such as labels/"):
        read_tree(root)


def test_labels_whose_picture_is_missing_are_named(root):
    text(root / "labels" / "train" / "9.txt", "0 0.5 0.5 0.5 0.5\n")
    source = read_tree(root)
    assert [drop.where for drop in source.dropped if drop.reason == LABELS_ALONE] == ["labels/train/9.txt"]


def test_four_corners_are_a_turned_box(root):
    # A square about the centre of 60 x 40, turned by 45°: half a diagonal of 12 pixels is 0.2 of 60 and 0.3 of 40.
    text(root / "labels" / "train" / "1.txt", "0 0.5 0.2 0.7 0.5 0.5 0.8 0.3 0.5\n")
    source = read_tree(root, "yolo")
    row = source.places.index("labels/train/1.txt line 1")
    assert snap(source.boxes.boxes[row]).tolist() == [18, 8, 42, 32]
    assert snap(source.masks[row][0]).tolist() == [30, 8, 42, 20, 30, 32, 18, 20]


def test_noise_at_the_edge_is_the_edge_but_a_real_overhang_is_said(root, tmp_path):
    text(root / "labels" / "train" / "1.txt", "0 0.75 0.5 0.500001 1.000001\n")
    text(root / "labels" / "train" / "2.txt", "0 0.76 0.5 0.5 0.5\n")
    convert("tree", root, tmp_path / "data", image_size=32, n_folds=2)
    store = open_store(tmp_path / "data")
    assert store.conversion["dropped"]["counts"] == {reasons.CLIPPED: 1}
    boxes = {
        store.records[image]["source_id"]: box for image, box in zip(store.boxes.images, store.boxes.boxes, strict=True)
    }
    assert boxes["1"].round(3).tolist() == [30, 0, 60, 40]
    assert boxes["2"].round(3).tolist() == [30.6, 10, 60, 30]


side = st.integers(16, 6000)
share = st.integers(0, 2**20)


@given(side, side, share, share, share, share)
def test_what_is_written_as_shares_is_read_to_the_bit(width, height, x1, y1, x2, y2):
    """Boxes on the grid of 1/64 pixel, written with all digits."""
    corners = []
    for low, high, limit in ((x1, x2, width), (y1, y2, height)):
        low, high = sorted(round(value / 2**20 * limit * 64) / 64 for value in (low, high))
        corners.append((low, high if high > low else low + 1 / 64))
    (left, right), (top, bottom) = corners
    if right > width or bottom > height:
        return
    values = ((left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height)
    line = read_line("0 " + " ".join(map(repr, values)), 1, "x line 1")
    sides = (width, height, width, height)
    read = [value * limit for value, limit in zip(line.corners, sides, strict=True)]
    # Values within a hundred-thousandth of the edge are the edge.
    for value, true, limit in zip(snap(read, 2.0**20).tolist(), (left, top, right, bottom), sides, strict=True):
        assert value == true or (min(true, limit - true) <= 1e-5 * limit and abs(value - true) <= 1e-5 * limit)


@given(st.text(max_size=40))
def test_any_line_is_read_or_refused_in_one_line(line):
    if not line.split():
        return
    try:
        read = read_line(line, 3, "x line 1")
    except (FaultError, InputError):
        return
    assert all(math.isfinite(value) for value in read.corners)


@pytest.mark.parametrize("key", ["train", "path"])
@pytest.mark.parametrize("value", ["x" * 5000, "/".join("x" * 3000), "images/train.txt"])
def test_a_path_that_no_file_system_has(root, key, value):
    text(root / "images" / "train.txt", f"train/0.png\n{'x' * 5000}\n{'x/' * 3000}\n")
    text(root / "data.yaml", f"val: images/val\nnames: [Nodule, Mass]\n{key}: {value}\n")
    assert {image.split for image in read_tree(root).images} <= {"train", "val"}


def test_a_class_without_a_name(root):
    text(root / "data.yaml", "train: images/train\nnames: [null, Mass]\n")
    with pytest.raises(InputError, match="has no names of classes"):
        read_tree(root)


def test_classes_that_differ_in_case_alone(root):
    text(root / "data.yaml", "train: images/train\nnames: [mass, Mass]\n")
    with pytest.raises(
        InputError, match="the categories 'mass' and 'Mass', which upper and lower case alone tell apart"
    ):
        read_tree(root)


@pytest.mark.parametrize("place", ["labels/valid/4.txt", "labels/val/4.TXT"])
def test_a_picture_whose_labels_lie_elsewhere_is_not_normal(root, place):
    text(root / place, "0 0.5 0.5 0.5 0.5\n")
    (root / "labels" / "val" / "4.txt").unlink()
    source = read_tree(root)
    assert "images/val/4.png" not in {image.file_name for image in source.images}
    reasons_of = [drop.reason for drop in source.dropped if drop.where in (place, "images/val/4.png")]
    assert reasons_of[:2] == [LABELS_ALONE, LABELS_ELSEWHERE]


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_split_without_any_label_file_is_not_one_without_findings(root, split):
    number = {"test": 5, "val": 4}[split]
    (root / "labels" / split / f"{number}.txt").unlink()
    source = read_tree(root)
    assert sorted(splits(source)) == [f"{other}.png" for other in range(6) if other != number]
    assert (f"images/{split}/{number}.png", NOT_LABELLED) in [(drop.where, drop.reason) for drop in source.dropped]
    # An empty file says that somebody has looked.
    text(root / "labels" / split / f"{number}.txt", "")
    assert splits(read_tree(root))[f"{number}.png"] == split


def test_two_corners_are_refused(root):
    text(root / "labels" / "train" / "0.txt", "0 0.6 0.7 0.95 0.95\n0 0.7 0.7 0.9 0.8\n")
    text(root / "labels" / "val" / "4.txt", "0 0.1 0.2 0.15 0.25\n")
    with pytest.raises(InputError, match=r"2 of 4 boxes in the label files .* and none if they were two corners"):
        read_tree(root)


def test_data_yaml_is_taken_before_others_which_are_named(root):
    text(root / "coco.yaml", "train: images/train\nnames: [person, car]\n")
    text(root / "backup" / "data.yaml", "names: [A]\n")
    source = read_tree(root)
    assert [category["name"] for category in source.categories] == ["Nodule", "Mass"]
    assert [(one.where, one.detail) for one in source.warnings if one.kind == OTHER_DESCRIPTION] == [
        ("coco.yaml", "data.yaml is taken; --yaml chooses another"),
        ("backup/data.yaml", "data.yaml is taken; --yaml chooses another"),
    ]
    chosen = read_tree(root, yaml="coco.yaml")
    assert [category["name"] for category in chosen.categories] == ["person", "car"]
    assert OTHER_DESCRIPTION not in kinds(chosen)
    with pytest.raises(InputError, match=r"there is no other\.yaml, neither in"):
        read_tree(root, yaml="other.yaml")
    with pytest.raises(FlagError, match="--yaml is of YOLO trees, and --format says coco"):
        read_tree(root, "coco", yaml="coco.yaml")


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ("train: images/train\nval: images/val\ntest: images/test\nnames: [Mass, Nodule]\n", "names"),
        ("train: images/val\nval: images/train\nnames: [Nodule, Mass]\n", "pictures"),
    ],
)
def test_descriptions_that_differ_are_asked_about(root, other, what):
    (root / "data.yaml").rename(root / "a.yaml")
    text(root / "b.yml", other)
    with pytest.raises(InputError, match=rf"a\.yaml and b\.yml in .* of other {what}: say with --yaml which is meant"):
        read_tree(root)
    assert len(read_tree(root, yaml=str(root / "b.yml")).categories) == 2


def test_descriptions_that_say_the_same(root):
    text(root / "more" / "b.yaml", (root / "data.yaml").read_text())
    text(root / "broken.yaml", "names: 7\n")
    (root / "data.yaml").rename(root / "a.yaml")
    source = read_tree(root)
    assert [one.where for one in source.warnings if one.kind == OTHER_DESCRIPTION] == ["broken.yaml", "more/b.yaml"]
    assert len(source.images) == 6 - kinds(source).count(NOT_LABELLED)


@pytest.mark.parametrize("name", ["no", "Yes", "off", "[Nodule]"])
def test_a_name_that_yaml_does_not_take_for_one(root, name):
    # YAML reads no as false, and the class would be called False.
    text(root / "data.yaml", f"train: images/train\nnames: [{name}, Mass]\n")
    with pytest.raises(InputError, match=r"data\.yaml: the name of a class is (False|True|\['Nodule'\]): write it in"):
        read_tree(root)
    text(root / "data.yaml", f"train: images/train\nnames: ['{name}', Mass]\n")
    assert read_tree(root).categories[0]["name"] == name


def test_a_folder_of_all_splits_is_not_one_of_them(root):
    # The end of train/images that is there is images, whose pictures validate, too.
    text(root / "data.yaml", "train: train/images\nval: images/val\nnames: [Nodule, Mass]\n")
    source = read_tree(root)
    assert {image.split for image in source.images} == {"val"}
    assert (MISSING_SPLIT, "train: train/images") in [(warning.kind, warning.detail) for warning in source.warnings]
    text(root / "data.yaml", "train: train/images\nval: ../val/images\nnames: [Nodule, Mass]\n")
    with pytest.raises(InputError, match=r"names train/images, \.\./val/images, and no picture is there"):
        read_tree(root)
    text(root / "data.yaml", "train: images\nnames: [Nodule, Mass]\n")
    assert {image.split for image in read_tree(root).images} == {"train"}


def test_paths_from_the_folder_of_the_description(root):
    expected = [(image.file_name, image.split) for image in read_tree(root).images]
    (root / "data.yaml").unlink()
    text(root / "cfg" / "lists" / "train.txt", "../../images/train/0.png\n")
    text(
        root / "cfg" / "data.yaml",
        "train: ../images/train\nval: ../images/val\ntest: ../images/test\nnames: [Nodule, Mass]\n",
    )
    assert [(image.file_name, image.split) for image in read_tree(root).images] == expected
    text(root / "cfg" / "data.yaml", "train: lists/train.txt\nnames: [Nodule, Mass]\n")
    assert [image.file_name for image in read_tree(root).images] == ["images/train/0.png"]
