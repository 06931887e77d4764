"""Paths that a COCO file has of another machine: found by their longest end, never guessed."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_cases import write_picture

from xray.datasets import source as reasons
from xray.datasets.conversion_account import print_account
from xray.datasets.sources import coco_paths, convert
from xray.datasets.sources.coco import read_coco
from xray.datasets.sources.coco_images import FOUND_BY_END, OUTSIDE_FOLDER
from xray.datasets.sources.coco_paths import PathsElsewhere
from xray.datasets.sources.tree import read_tree
from xray.errors import InputError


def write(root, file, names):
    images = [{"id": number, "file_name": name, "width": 60, "height": 40} for number, name in enumerate(names)]
    rows = [
        {"id": number + 1, "image_id": number, "category_id": 1, "bbox": [1, 1, 9, 9]} for number in range(len(names))
    ]
    content = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "Nodule"}]}
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(["images/1.png", "images/2.png", "images/old/3.png", "masks/1.png"]):
        write_picture(tmp_path / name, offset=number)
    return tmp_path


@pytest.mark.parametrize(
    "start", ["/data/foo/", "C:\\data\\foo\\", "d:/foo/", "foo/", "\\\\server\\share\\", "file:///home/x/"]
)
def test_paths_of_another_machine(root, start):
    names = ["images/1.png", "images/2.png", "images/old/3.png"]
    write(root, "annotations.json", [start + name.replace("/", "\\" if "\\" in start else "/") for name in names])
    source = read_coco(root)
    assert [image.file_name for image in source.images] == names
    assert [warning.kind for warning in source.warnings] == [FOUND_BY_END] * 3
    assert source.dropped == []
    assert [image.file_name for image in read_tree(root, "coco").images] == names


def test_the_end_is_as_long_as_it_can_be(root):
    write(root, "annotations.json", ["/a/b/2.png", "/a/3.png"])
    assert [image.file_name for image in read_coco(root).images] == ["images/2.png", "images/old/3.png"]
    write(root, "annotations.json", ["/a/b/1.png"])
    with pytest.raises(InputError, match=r"the file /a/b/1\.png may be images/1\.png or masks/1\.png: write"):
        read_coco(root)


def test_a_file_is_not_taken_for_another(root):
    # What several names end with says nothing, and a name without a folder is where it is.
    write_picture(root / "p2" / "frontal.png", offset=7)
    write(root, "annotations.json", ["/x/p1/frontal.png", "/x/p2/frontal.png", "/y/images/2.png", "3.png"])
    source = read_coco(root)
    assert [image.file_name for image in source.images] == ["images/2.png", "p2/frontal.png"][::-1]
    assert [(drop.where, drop.reason, drop.detail) for drop in source.dropped] == [
        (
            "/x/p1/frontal.png",
            reasons.MISSING_FILE,
            "looked for x/p1/frontal.png, p1/frontal.png, frontal.png below the data path; p2/frontal.png is not taken "
            "for it, as other names end so, too",
        ),
        (
            "3.png",
            reasons.MISSING_FILE,
            "looked for 3.png, images/3.png, images/annotations/3.png below the data path; images/old/3.png is not "
            "taken for it, as a name without a folder means no other place: give the folder of the pictures as "
            "--data-path",
        ),
    ]


def test_the_coco_file_may_lie_outside_the_pictures_folder(root, monkeypatch):
    # With the folder of the pictures as the data path, a name without a folder, or with one above it, is found.
    monkeypatch.chdir(root)
    write(root, "boxes.json", ["1.png", "images/2.png"])
    for chosen in (str(root / "boxes.json"), "boxes.json"):
        source = read_coco(root / "images", chosen)
        assert [image.file_name for image in source.images] == ["1.png", "2.png"]
        assert source.dropped == []
    # Of two files of one name that of the data path is meant.
    write(root, "images/boxes.json", ["2.png"])
    assert [image.file_name for image in read_coco(root / "images", "boxes.json").images] == ["2.png"]
    with pytest.raises(InputError, match=r"there is no other\.json, neither in .*images nor here: check --annotations"):
        read_coco(root / "images", "other.json")


@pytest.mark.parametrize("start", ["", "/data/set/", "D:\\set\\"])
def test_the_file_of_another_folder_is_not_meant_where_others_show_the_start(root, start):
    # One of the names is found with its folder, so the others are below the same one; what is not there is missing.
    for number, name in enumerate(["p5/study1/lateral.png", "p1/study1/frontal.png"]):
        write_picture(root / name, offset=7 + number)
    seen = [("p1", "frontal"), ("p3", "lateral")]
    write(root, "annotations.json", [f"{start}{patient}/study1/{view}.png" for patient, view in seen])
    source = read_coco(root)
    assert [image.file_name for image in source.images] == ["p1/study1/frontal.png"]
    assert [drop.reason for drop in source.dropped] == [reasons.MISSING_FILE]
    assert "p5/study1/lateral.png is not taken for it" in source.dropped[0].detail
    # Nor does a name that could be one of several then stop all.
    write_picture(root / "p6" / "study1" / "lateral.png", offset=9)
    assert [image.file_name for image in read_coco(root).images] == ["p1/study1/frontal.png"]


def test_names_with_other_starts_are_found_beside_each_other(root):
    write(root, "annotations.json", ["images/1.png", "/mnt/a/images/2.png", "file:///b/images/old/3.png"])
    assert [image.file_name for image in read_coco(root).images] == ["images/1.png", "images/2.png", "images/old/3.png"]


def test_the_folder_of_another_split_is_not_meant(tmp_path):
    write_picture(tmp_path / "val" / "1.png")
    write_picture(tmp_path / "train" / "2.png", offset=1)
    write(tmp_path, "annotations/instances_train.json", ["/data/train/1.png", "/data/train/2.png"])
    write(tmp_path, "annotations/instances_val.json", ["/data/val/1.png"])
    source = read_tree(tmp_path)
    assert sorted((image.file_name, image.split) for image in source.images) == [
        ("train/2.png", "train"),
        ("val/1.png", "val"),
    ]


def test_a_file_elsewhere_is_not_meant_where_its_folder_is_there_without_it(tmp_path):
    write_picture(tmp_path / "setB" / "1.png")
    write(tmp_path, "annotations.json", ["setA/1.png"])
    source = read_coco(tmp_path)
    # The only file of that name: it goes on, and is said.
    assert [(warning.kind, warning.where, warning.detail) for warning in source.warnings] == [
        (FOUND_BY_END, "setA/1.png", "setB/1.png")
    ]
    # Two that it might be are refused, whatever the name starts with.
    write_picture(tmp_path / "setC" / "1.png", offset=1)
    for start in ("", "/data/", "D:\\"):
        write(tmp_path, "annotations.json", [f"{start}setA/1.png"])
        with pytest.raises(InputError, match=r"setA/1\.png may be setB/1\.png or setC/1\.png: write the path"):
            read_coco(tmp_path)
    # Where setA is, and does not have it, it is missing.
    write_picture(tmp_path / "pictures" / "setA" / "7.png", offset=2)
    (tmp_path / "setC" / "1.png").unlink()
    write(tmp_path, "annotations.json", ["setA/1.png", "/data/setB/1.png"])
    source = read_coco(tmp_path)
    assert [image.file_name for image in source.images] == ["setB/1.png"]
    assert [(drop.where, drop.reason) for drop in source.dropped] == [("setA/1.png", reasons.MISSING_FILE)]
    # Below it, it is meant.
    write_picture(tmp_path / "pictures" / "setA" / "old" / "1.png", offset=3)
    write(tmp_path, "annotations.json", ["setA/1.png"])
    assert [image.file_name for image in read_coco(tmp_path).images] == ["pictures/setA/old/1.png"]


@pytest.mark.parametrize("start", ["/data/", "D:\\", "file:///x/"])
def test_a_missing_file_of_another_machine_is_told_as_missing(tmp_path, start, capsys):
    for number in range(4):
        write_picture(tmp_path / f"images/{number}.png", offset=number)
    write_picture(tmp_path / "other/9.png", offset=5)
    write(tmp_path, "annotations.json", [f"{start}images/{number}.png" for number in (0, 1, 2, 3, 9)])
    source = read_coco(tmp_path)
    (drop,) = source.dropped
    assert drop.reason == reasons.MISSING_FILE
    assert drop.where.endswith("images/9.png")
    assert "images/9.png, 9.png below the data path; other/9.png is not taken for it" in drop.detail
    assert drop.detail.endswith("as there is a folder images, which lacks it")
    convert("coco", tmp_path, tmp_path / "out", image_size=32, n_folds=2, n_workers=0)
    print_account(json.loads((tmp_path / "out/conversion.json").read_text()), tmp_path / "out")
    assert f"missing: {drop.where}: looked for" in capsys.readouterr().out
    # Where all are missing, the error names one of them.
    write(tmp_path, "annotations.json", [f"{start}pictures/7.png"])
    with pytest.raises(InputError, match=r"1 x missing file, such as .*pictures/7\.png looked for .* 7\.png below"):
        convert("coco", tmp_path, tmp_path / "none", image_size=32, n_workers=0)


def test_paths_from_the_folder_of_the_file(root):
    write(root, "annotations/all.json", ["../images/1.png", "../../secret/2.png"])
    source = read_coco(root, "annotations/all.json")
    assert [image.file_name for image in source.images] == ["images/1.png"]
    assert [drop.reason for drop in source.dropped] == [OUTSIDE_FOLDER]


_PARTS = st.lists(st.sampled_from(["a", "b", "images", "1.png", "2.png", "", ".", "..", "C:"]), min_size=1, max_size=5)


@given(st.lists(_PARTS.map("/".join), max_size=6, unique=True), st.lists(_PARTS.map("/".join), min_size=1, max_size=4))
def test_what_is_found_is_an_end_of_the_name(files, names):
    files = [file for file in files if not {"", ".", "..", "C:"} & set(file.split("/"))]
    paths = PathsElsewhere(files, names, "x.json")
    taken = {}
    for name in dict.fromkeys(names):
        found = None
        with contextlib.suppress(InputError):
            found = paths.path_of(name)
        if found is not None:
            assert found in files
            plain = "/".join(part for part in name.split("/") if part not in ("", "."))
            assert found.rpartition("/")[2] == plain.rpartition("/")[2]
            # No two names, unless they are one path, have one file.
            assert taken.setdefault(found, plain.removeprefix("C:/")) == plain.removeprefix("C:/")


def test_names_without_files_take_work_in_proportion(monkeypatch):
    # Every patient has a folder, and every file there is called alike.
    n = 1500
    files = [f"set/p{k:05d}/other.png" for k in range(n)] + [f"old/q{k:05d}/frontal.png" for k in range(n)]
    looked_at = []
    monkeypatch.setattr(coco_paths, "split_of_folder", lambda folders: looked_at.append(folders))
    names = [f"/data/p{k:05d}/frontal.png" for k in range(n)]
    paths = PathsElsewhere(files, names, "boxes.csv")
    assert [paths.files_of(name) for name in names] == [[]] * n
    # Each folder once, of names and of files; not each file again for each name.
    assert len(looked_at) <= 3 * n
