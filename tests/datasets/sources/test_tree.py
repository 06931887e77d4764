"""Which format a tree is in, and what is asked where two fit."""

import json

import pytest
from source_cases import write_picture

from xray.datasets.sources.splits import split_of, split_of_folder
from xray.datasets.sources.tree import read_tree
from xray.datasets.sources.trees.parts import located
from xray.errors import InputError


@pytest.fixture
def root(tmp_path):
    """Two pictures with YOLO's labels and a COCO file."""
    for number in range(2):
        write_picture(tmp_path / "images" / f"{number}.png", offset=number)
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [Nodule]\n")
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(2)]
    coco = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "Mass"}]}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    return tmp_path


def test_where_two_formats_fit_one_is_asked_for(root):
    with pytest.raises(InputError, match=r"may be coco \(coco.json\) or yolo \(data.yaml\): say with --format"):
        read_tree(root)
    assert [category["name"] for category in read_tree(root, "coco").categories] == ["Mass"]
    assert [category["name"] for category in read_tree(root, "yolo").categories] == ["Nodule"]


def test_a_format_that_does_not_fit_says_what_it_needs(root):
    with pytest.raises(InputError, match="is no voc tree: it needs XML files"):
        read_tree(root, "voc")
    (root / "data.yaml").unlink()
    (root / "coco.json").write_text("[]")
    with pytest.raises(InputError, match="is no tree that can be read: it needs JSON files"):
        read_tree(root)


def test_patients_of_a_table(root):
    (root / "p.csv").write_text("file_name,patient\nimages/0.png,a\nimages/1.png,a\n")
    source = read_tree(root, "yolo", patients=root / "p.csv")
    assert [image.patient for image in source.images] == ["a", "a"]


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("annotations/instances_train2017.json", "train"),
        ("annotations/instances_valid.json", "val"),
        ("test/_annotations.coco.json", "test"),
        ("a/trainval.json", "train"),
        ("val/instances_train.json", "train"),
        ("latest/contest.json", None),
        ("a/b.json", None),
    ],
)
def test_names_of_splits(path, split):
    assert split_of(path) == split


def test_a_pictures_own_name_is_no_split():
    assert split_of_folder("images/train_7.png") is None
    assert split_of_folder("valid/images/test.png") == "val"


def test_paths_of_other_machines(root):
    (root / "train").mkdir()
    assert located("../train", [root], root) == root / "train"
    assert located("/home/x/set/images", [root], root) == root / "images"
    assert located("D:\\set\\images", [root], root) == root / "images"
    assert located("../../etc", [root], root) is None
    assert located("images/../../..", [root], root) is None


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("images/1.json", {"shapes": [], "imagePath": "1.png"}, "LabelMe"),
        ("via.json", {"1.png123": {"filename": "1.png", "regions": []}}, "VGG Image Annotator"),
        ("set/ann/1.png.json", {"size": {}, "objects": []}, "Supervisely"),
        ("annotations/default.json", {"info": {}, "categories": {}, "items": []}, "Datumaro"),
        ("samples.json", {"samples": []}, "FiftyOne"),
        ("train/a.json", [{"image": "1.png", "annotations": []}], "CreateML"),
        ("dataset.json", {"labels": {}, "training": []}, "Decathlon"),
        ("train/_annotations.csv", "filename,class\n", "convert table --table"),
    ],
)
def test_what_is_not_read_is_named(tmp_path, name, content, said):
    write_picture(tmp_path / "images" / "1.png")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=said) as error:
        read_tree(tmp_path)
    assert name in str(error.value)
    assert "\n" not in str(error.value)
