"""COCO trees: COCO's own layout, Roboflow's and RF-DETR's, several files of one set."""

import json

import numpy as np
import pytest
from source_cases import write_picture

from xray.datasets.sources import convert
from xray.datasets.sources.coco import read_coco
from xray.datasets.sources.tree import read_tree
from xray.datasets.sources.trees.coco import NOT_ASKED, PLACEHOLDER, UNION
from xray.datasets.sources.trees.parts import NOT_IN_TREE
from xray.datasets.store import open_store
from xray.errors import InputError

CATEGORIES = [{"id": 1, "name": "Nodule"}, {"id": 2, "name": "Effusion"}]


def write(path, names, rows=(), categories=CATEGORIES, first=1):
    """A COCO file of pictures of 60 x 40; rows: (number of the image, category, x, y, w, h)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": number, "file_name": name, "width": 60, "height": 40} for number, name in enumerate(names, first)]
    annotations = [
        {"id": number, "image_id": image, "category_id": category, "bbox": box}
        for number, (image, category, *box) in enumerate(rows, 1)
    ]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def pictures(folder, *names):
    for number, name in enumerate(names):
        write_picture(folder / name, offset=number)


@pytest.fixture
def root(tmp_path):
    """COCO's layout: the same names in train2017 and val2017, and the same ids."""
    root = tmp_path / "set"
    pictures(root / "images" / "train2017", "1.png", "2.png", "3.png", "4.png")
    pictures(root / "val2017", "1.png", "5.png")
    write(
        root / "annotations" / "instances_train2017.json", ["1.png", "2.png", "3.png", "4.png"], [(1, 1, 2, 3, 10, 9)]
    )
    write(root / "annotations" / "instances_val2017.json", ["1.png", "5.png"], [(1, 2, 20, 10, 30, 20)])
    return root


def splits(source):
    return {image.file_name: image.split for image in source.images}


def named_boxes(source):
    names = {category["id"]: category["name"] for category in source.categories}
    table = source.boxes
    return [
        (source.images[image].file_name, names[label], box)
        for image, label, box in zip(table.images.tolist(), table.labels.tolist(), table.boxes.tolist(), strict=True)
    ]


def test_each_split_has_its_own_files_and_ids(root):
    # Other pixels: else they would be one radiograph in two splits.
    write_picture(root / "val2017" / "1.png", offset=11)
    source = read_tree(root)
    assert splits(source) == dict.fromkeys([f"images/train2017/{n}.png" for n in range(1, 5)], "train") | dict.fromkeys(
        ["val2017/1.png", "val2017/5.png"], "val"
    )
    assert named_boxes(source) == [
        ("images/train2017/1.png", "Nodule", [2, 3, 12, 12]),
        ("val2017/1.png", "Effusion", [20, 10, 50, 30]),
    ]
    assert len({image.source_id for image in source.images}) == 6
    # Both files number their categories in one way, so that results may use these numbers.
    assert [category["source_category_id"] for category in source.categories] == [1, 2]


def test_roboflow(tmp_path):
    root = tmp_path / "set"
    group = {"id": 0, "name": "chest", "supercategory": "none"}
    classes = [
        group,
        {"id": 1, "name": "Nodule", "supercategory": "chest"},
        {"id": 2, "name": "chest", "supercategory": "chest"},
    ]
    for folder in ("train", "valid", "test"):
        pictures(root / folder, f"{folder}1.jpg.png", f"{folder}2.png")
        names = [f"{folder}1.jpg.png", f"{folder}2.png"]
        write(root / folder / "_annotations.coco.json", names, [(0, 2, 1, 1, 5, 5)], classes, first=0)
    source = read_tree(root)
    assert [category["name"] for category in source.categories] == ["Nodule", "chest"]
    assert set(splits(source).values()) == {"train", "val", "test"}
    assert named_boxes(source)[1] == ("train/train1.jpg.png", "chest", [1, 1, 6, 6])
    assert [warning.kind for warning in source.warnings] == [PLACEHOLDER] * 3


def test_a_group_that_has_boxes_is_a_category(tmp_path):
    pictures(tmp_path / "train", "1.png", "2.png")
    classes = [
        {"id": 0, "name": "chest", "supercategory": "none"},
        {"id": 1, "name": "Nodule", "supercategory": "chest"},
    ]
    write(tmp_path / "train" / "_annotations.coco.json", ["1.png", "2.png"], [(1, 0, 1, 1, 5, 5)], classes)
    assert [category["name"] for category in read_tree(tmp_path).categories] == ["chest", "Nodule"]


def test_categories_are_one_by_name_and_unknown_where_a_file_has_none(root):
    classes = [{"id": 7, "name": "effusion"}, {"id": 9, "name": "Mass"}]
    write(root / "annotations" / "instances_val2017.json", ["1.png", "5.png"], [(1, 7, 20, 10, 30, 20)], classes)
    write_picture(root / "val2017" / "1.png", offset=11)
    source = read_tree(root)
    assert [category["name"] for category in source.categories] == ["Nodule", "Effusion", "Mass"]
    assert "source_category_id" not in source.categories[0]
    assert named_boxes(source)[1] == ("val2017/1.png", "Effusion", [20, 10, 50, 30])
    assert {image.split: image.unknown for image in source.images} == {"train": (3,), "val": (1,)}
    assert [(w.where, w.detail) for w in source.warnings if w.kind == NOT_ASKED] == [
        ("instances_train2017.json", "Mass"),
        ("instances_val2017.json", "Nodule"),
    ]


def test_of_a_normal_picture_nothing_is_unknown(root):
    # Nothing found is said of the categories of other files, too.
    normal = {"id": 9, "name": "No finding"}
    write(root / "annotations" / "instances_val2017.json", ["1.png", "5.png"], [(1, 9, 0, 0, 60, 40)], [normal])
    source = read_tree(root)
    known = {image.file_name: (image.normal, image.unknown) for image in source.images if image.split == "val"}
    assert known == {"val2017/1.png": (True, ()), "val2017/5.png": (False, (1, 2))}


def test_a_file_for_both_splits_is_not_read_beside_them(root):
    write(root / "annotations" / "instances_trainval2017.json", ["1.png"])
    write_picture(root / "val2017" / "1.png", offset=11)
    source = read_tree(root)
    assert len(source.images) == 6
    assert [warning.where for warning in source.warnings] == ["annotations/instances_trainval2017.json"]
    assert source.warnings[0].kind == UNION


def test_a_radiograph_of_two_splits_is_refused(tmp_path):
    pictures(tmp_path / "images", "1.png", "2.png")
    write(tmp_path / "train.json", ["1.png", "2.png"])
    write(tmp_path / "test.json", ["2.png"])
    with pytest.raises(InputError, match=r"images/2.png is listed by test.json and by train.json"):
        read_tree(tmp_path)


def test_pictures_that_no_file_lists_are_no_part_of_the_set(root):
    pictures(root / "images" / "train2017", "9.png")
    write_picture(root / "val2017" / "1.png", offset=11)
    source = read_tree(root)
    assert [drop.where for drop in source.dropped if drop.reason == NOT_IN_TREE] == ["images/train2017/9.png"]


def test_the_coco_subcommand_says_who_takes_splits(root):
    with pytest.raises(InputError, match=r"choose one with --annotations; they seem to be splits.*`convert tree`"):
        read_coco(root)


def test_a_dataset_of_it(root, tmp_path):
    write_picture(root / "val2017" / "1.png", offset=11)
    convert("tree", root, tmp_path / "data", image_size=64, n_folds=2)
    store = open_store(tmp_path / "data")
    assert np.unique(store.splits, return_counts=True)[1].tolist() == [4, 2]
    assert store.folds.tolist()[4:] == [-1, -1]
    assert store.conversion["layout"] == "coco"


def test_labels_and_what_is_unknown_come_back(tmp_path):
    pictures(tmp_path, "1.png", "2.png")
    write(tmp_path / "a.json", ["1.png", "2.png"], [(1, 1, 1, 1, 5, 5)])
    content = json.loads((tmp_path / "a.json").read_text())
    content["images"][0] |= {"labels": [1, 2], "unlocated": [2]}
    content["images"][1] |= {"labels": [], "unknown": [1], "unlocated": []}
    (tmp_path / "a.json").write_text(json.dumps(content))
    for source in (read_tree(tmp_path), read_coco(tmp_path)):
        first, second = source.images
        assert (first.labels, first.unlocated) == ((1, 2), (2,))
        assert (second.labels, second.unknown, second.unlocated) == ((), (1,), ())
        assert not source.dropped


def test_boxes_of_a_picture_made_smaller_are_in_original_pixels(tmp_path):
    pictures(tmp_path, "1.png")
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [3, 4, 30, 20], "segmentation": [[3, 4, 33, 4, 33, 24]]}
    image = {"id": 1, "file_name": "1.png", "width": 60, "height": 40, "original_width": 600, "original_height": 400}
    content = {"images": [image], "annotations": [row], "categories": CATEGORIES}
    (tmp_path / "a.json").write_text(json.dumps(content))
    source = read_tree(tmp_path)
    assert source.boxes.boxes.tolist() == [[30, 40, 330, 240]]
    assert source.masks == {0: [[30, 40, 330, 40, 330, 240]]}
    assert (source.images[0].width, source.images[0].height) == (600, 400)
    assert source.images[0].extra["file_width"] == 60


def test_the_split_of_an_image_counts_where_no_file_name_says_one(tmp_path):
    pictures(tmp_path / "images", "1.png", "2.png", "3.png")
    path = tmp_path / "annotations" / "instances_default.json"
    write(path, ["1.png", "2.png", "3.png"], [(1, 1, 2, 3, 10, 9)])
    content = json.loads(path.read_text())
    for entry, split in zip(content["images"], ["training", "Test", None], strict=True):
        entry["split"] = split
    path.write_text(json.dumps(content))
    assert splits(read_tree(tmp_path)) == {"images/1.png": "train", "images/2.png": "test", "images/3.png": "train"}
    assert splits(read_coco(tmp_path)) == splits(read_tree(tmp_path))
    path.rename(path.with_name("instances_val.json"))
    assert set(splits(read_tree(tmp_path)).values()) == {"val"}
