"""A folder for each class: splits, the normal class, patients, copies, and every tree that is none."""

import json
import shutil

import cv2
import numpy as np
import pytest
from source_cases import write_dicom, write_picture

from xray.datasets import sources
from xray.datasets.sources.folders import read_folders
from xray.datasets.store import open_store
from xray.errors import InputError


def write(root, *names):
    """Pictures that all differ."""
    for name in names:
        number = len(list(root.rglob("*.*"))) if root.exists() else 0
        write_picture(root / name, 40 + number, 30)


def write_classes(root, n, *folders):
    """`n` pictures in each folder, named after it."""
    write(root, *(f"{folder}/{folder.replace('/', '-')}-{number}.png" for folder in folders for number in range(n)))
    return root


@pytest.fixture
def kaggle(tmp_path):
    """As the chest X-ray pneumonia set is laid out: 4 + 1 + 2 radiographs of each class."""
    raw = tmp_path / "raw"
    for split, n in (("train", 4), ("val", 1), ("test", 2)):
        for number in range(n):
            write(raw, f"{split}/NORMAL/IM-{split}-{number}.jpeg")
            write(raw, f"{split}/PNEUMONIA/person{number}_bacteria_{split}{number}.jpeg")
    return raw


def convert(raw, path, **flags):
    return sources.convert("folders", raw, path, **{"image_size": 32, "n_folds": 2, "n_workers": 0} | flags)


def account(source):
    return sorted((drop.where, drop.reason) for drop in source.dropped)


def labels(source):
    return {image.file_name: image.labels for image in source.images}


def names(source):
    return [category["name"] for category in source.categories]


def test_the_kaggle_layout(kaggle, tmp_path):
    result = convert(kaggle, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert (result["source"], result["layout"], result["dropped"]["counts"]) == ("folders", "splits", {})
    assert store.categories == {1: "PNEUMONIA"}
    for record in store.records:
        split, folder, name = record["file_name"].split("/")
        assert record["split"] == split
        assert (record["fold"] >= 0) == (split == "train")
        assert record["labels"] == ([1] if folder == "PNEUMONIA" else [])
        assert record["source_id"] == name.removesuffix(".jpeg")
        # Nothing is guessed from names.
        assert "patient" not in record
    assert result["counts"]["images_per_label"] == {"PNEUMONIA": 7}
    # Both classes in both folds: 4 of each are dealt.
    for fold in (0, 1):
        assert np.bincount(store.labels[store.folds == fold, 0]).tolist() == [2, 2]
    # The canvases hold the pictures.
    assert store.images.shape == (14, 32, 32)
    assert (store.images.reshape(14, -1).max(axis=1) > 100).all()


def test_classes_without_splits_and_folders_within_them(tmp_path):
    raw = write_classes(tmp_path / "raw", 2, "Tuberculosis/site A", "Tuberculosis/site B", "Nodule", "healthy")
    write_dicom(raw / "healthy" / "deep" / "1.2.3.dcm")
    source = read_folders(raw)
    assert (source.layout, names(source)) == ("classes", ["Nodule", "Tuberculosis"])
    assert {image.split for image in source.images} == {"train"}
    assert labels(source)["Tuberculosis/site B/Tuberculosis-site B-1.png"] == (2,)
    assert labels(source)["healthy/deep/1.2.3.dcm"] == ()
    assert "1.2.3" in [image.source_id for image in source.images]
    convert(raw, tmp_path / "data")
    assert open_store(tmp_path / "data").labels.sum(axis=0).tolist() == [2, 4]


@pytest.mark.parametrize(
    "name", ["NORMAL", "normal", "Healthy", "negative", "No finding", "NO_FINDING", "no-findings", "no_pneumonia"]
)
def test_classes_that_sound_normal_make_no_label(tmp_path, name):
    source = read_folders(write_classes(tmp_path, 1, name, "covid"))
    assert names(source) == ["covid"]
    assert labels(source)[f"{name}/{name}-0.png"] == ()


@pytest.mark.parametrize("name", ["abnormal", "nodule", "Normal variant", "0", "notch", "non covid", "nothing"])
def test_classes_that_do_not(tmp_path, name):
    source = read_folders(write_classes(tmp_path, 1, name, "covid"))
    assert names(source) == sorted([name, "covid"])


def test_the_normal_class_can_be_named(tmp_path):
    write_classes(tmp_path, 1, "0", "1", "NORMAL")
    assert names(read_folders(tmp_path, normal="0")) == ["1", "NORMAL"]
    assert names(read_folders(tmp_path, normal="normal")) == ["0", "1"]
    every = read_folders(tmp_path, normal="")
    assert names(every) == ["0", "1", "NORMAL"]
    assert labels(every)["NORMAL/NORMAL-0.png"] == (3,)
    with pytest.raises(InputError, match=r"has no class folder 2 for --normal: its classes are 0, 1, NORMAL"):
        read_folders(tmp_path, normal="2")
    write_classes(tmp_path, 1, "no_finding")
    with pytest.raises(InputError, match="holds NORMAL and no_finding: say with --normal which"):
        read_folders(tmp_path)
    assert names(read_folders(tmp_path, normal="NORMAL")) == ["0", "1", "no_finding"]


def test_spelling_of_splits_and_classes(tmp_path):
    write_classes(tmp_path, 1, "Training/Normal", "Training/Covid", "VALIDATION/NORMAL", "valid/covid", "Test/COVID")
    source = read_folders(tmp_path)
    assert names(source) == ["Covid"]
    assert {image.file_name.split("/")[0]: image.split for image in source.images} == {
        "Training": "train", "VALIDATION": "val", "valid": "val", "Test": "test",
    }  # fmt: skip
    assert [image.labels for image in source.images if "ovid" in image.file_name.lower()] == [(1,)] * 3


def test_equal_names_in_two_classes_are_two_radiographs(tmp_path):
    write(tmp_path, "A/1.png", "B/1.png", "B/2.png")
    source = read_folders(tmp_path)
    assert [image.source_id for image in source.images] == ["A/1", "B/1", "2"]
    assert (labels(source), source.dropped) == ({"A/1.png": (1,), "B/1.png": (2,), "B/2.png": (2,)}, [])
    # In one folder they are told apart by their suffixes.
    write(tmp_path, "A/1.jpg", "A/2.PNG", "A/2.png")
    source = read_folders(tmp_path)
    assert {image.source_id for image in source.images} == {"A/1.jpg", "A/1.png", "B/1", "A/2.PNG", "A/2.png", "B/2"}
    assert source.dropped == []


def write_mask(path, left=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = np.zeros((30, 40), dtype=np.uint8)
    drawn[5:25, left:20] = 255
    assert cv2.imwrite(str(path), drawn)


def test_masks_beside_the_radiographs_are_left_out(tmp_path):
    # As the COVID-19 Radiography Database is laid out; and masks in folders of their own, and beside each radiograph.
    for label in ("COVID", "Normal"):
        write(tmp_path, *(f"{label}/images/{label}-{number}.png" for number in range(3)))
        for number in range(3):
            write_mask(tmp_path / label / "masks" / f"{label}-{number}.png", number)
            write_mask(tmp_path / "lung masks" / label / f"{label}-{number}.png", number)
            write_mask(tmp_path / label / "images" / f"{label}-{number}_mask.png", number)
    write(tmp_path, "Mask wearers/1.png")
    source = read_folders(tmp_path)
    assert names(source) == ["COVID", "Mask wearers"]
    assert len(source.images) == 7
    assert not any("mask" in image.file_name for image in source.images)
    assert source.dropped == []
    assert sorted((warning.where, warning.kind) for warning in source.warnings) == [
        ("COVID/images/", "masks beside radiographs, left out"),
        ("COVID/masks/", "masks beside radiographs, left out"),
        ("Mask wearers/", "named like masks, kept as radiographs"),
        ("Normal/images/", "masks beside radiographs, left out"),
        ("Normal/masks/", "masks beside radiographs, left out"),
        ("lung masks/COVID/", "masks beside radiographs, left out"),
        ("lung masks/Normal/", "masks beside radiographs, left out"),
    ]


def test_a_file_in_two_classes_is_left_out_of_both(kaggle, tmp_path):
    shutil.copy(kaggle / "train/NORMAL/IM-train-0.jpeg", kaggle / "train/PNEUMONIA/other.jpeg")
    shutil.copy(kaggle / "train/NORMAL/IM-train-0.jpeg", kaggle / "test/NORMAL/third.jpeg")
    result = convert(kaggle, tmp_path / "data")
    assert result["dropped"]["counts"] == {"file in two classes": 3}
    details = {row["where"]: row["detail"] for row in result["dropped"]["rows"]}
    assert details == {
        "test/NORMAL/third.jpeg": "the same as train/PNEUMONIA/other.jpeg",
        "train/NORMAL/IM-train-0.jpeg": "the same as test/NORMAL/third.jpeg",
        "train/PNEUMONIA/other.jpeg": "the same as test/NORMAL/third.jpeg",
    }
    assert len(open_store(tmp_path / "data")) == 13


def test_copies_are_counted_once_and_never_on_both_sides(kaggle):
    shutil.copy(kaggle / "test/NORMAL/IM-test-0.jpeg", kaggle / "train/NORMAL/leak.jpeg")
    shutil.copy(kaggle / "train/PNEUMONIA/person0_bacteria_train0.jpeg", kaggle / "val/PNEUMONIA/again.jpeg")
    source = read_folders(kaggle)
    assert account(source) == [
        ("train/NORMAL/leak.jpeg", "second copy of a file"),
        ("train/PNEUMONIA/person0_bacteria_train0.jpeg", "second copy of a file"),
    ]  # fmt: skip
    assert "test/NORMAL/IM-test-0.jpeg" in labels(source)


def test_files_that_agree_in_size_or_in_their_beginning_are_no_copies(tmp_path):
    write_classes(tmp_path, 1, "A", "B")
    for folder, end in (("A", b"a"), ("B", b"b")):
        (tmp_path / folder / "long.png").write_bytes(bytes(100_000) + end)
        (tmp_path / folder / "short.png").write_bytes(end)
        (tmp_path / folder / "empty.png").write_bytes(b"")
    source = read_folders(tmp_path)
    assert (len(source.images), source.dropped) == (8, [])


def test_faults_cost_themselves_only(kaggle, tmp_path):
    (kaggle / "train/PNEUMONIA/broken.jpeg").write_bytes(b"no picture")
    for name in ("train/NORMAL/.hidden.png", "train/NORMAL/Thumbs.db", "train/notes.txt", "__MACOSX/train/._x.jpeg"):
        (kaggle / name).parent.mkdir(parents=True, exist_ok=True)
        (kaggle / name).write_bytes(b"x")
    write(kaggle, "train/stray.png", "stray.png", "unsorted/NORMAL/a.png", "unsorted/NORMAL/b.png", ".cache/c.png")
    (kaggle / "val" / "COVID").mkdir()
    result = convert(kaggle, tmp_path / "data")
    assert {(row["where"], row["reason"]) for row in result["dropped"]["rows"]} == {
        ("train/PNEUMONIA/broken.jpeg", "unreadable file"),
        ("train/stray.png", "file outside the class folders"),
        ("stray.png", "file outside the class folders"),
        ("unsorted", "folder beside the splits"),
        ("val/COVID", "folder without radiographs"),
    }
    assert "2 radiographs" in [row.get("detail") for row in result["dropped"]["rows"]]
    store = open_store(tmp_path / "data")
    assert (len(store), store.categories) == (14, {1: "PNEUMONIA"})
    assert str(tmp_path) not in json.dumps(result)


def test_patients_share_a_fold(tmp_path):
    raw = write_classes(tmp_path / "raw", 8, "A", "NORMAL")
    # By their paths where the table has them, by their names alone where it has not.
    rows = [f"A/A-{number}.png,p{number % 4}" for number in range(8)]
    rows += [f"NORMAL-{number}.jpeg,p{number % 4}" for number in range(7)]
    (tmp_path / "patients.csv").write_text("\n".join(["file_name,patient", *rows]))
    result = convert(raw, tmp_path / "data", patients=tmp_path / "patients.csv")
    store = open_store(tmp_path / "data")
    pairs = {(record["patient"], record["fold"]) for record in store.records if "patient" in record}
    assert len(pairs) == 4
    assert result["dropped"]["rows"] == [
        {"where": "NORMAL/NORMAL-7.png", "reason": "patient unknown", "action": "kept as a patient of its own"}
    ]


def test_patients_of_equal_names(tmp_path):
    raw = tmp_path / "raw"
    write(raw, "A/1.png", "B/1.png", "B/2.png", "C/2.png", "C/3.png")
    table = tmp_path / "patients.csv"
    table.write_text("file_name,patient\nA/1.png,p\nB/1.png,q\n./C/2.png,r\nx/3.png,s\ny/3.png,t\n")
    source = read_folders(raw, patients=table)
    # B/2 is not C/2, whose path the table gives; and of the two named 3 it may be either.
    assert {image.file_name: image.patient for image in source.images} == {
        "A/1.png": "p", "B/1.png": "q", "B/2.png": None, "C/2.png": "r", "C/3.png": None,
    }  # fmt: skip
    assert [(drop.where, drop.detail) for drop in source.dropped] == [
        ("B/2.png", ""), ("C/3.png", "the table has 2 for that name"),
    ]  # fmt: skip
    table.write_text("file_name,patient\nz.png,p\n")
    with pytest.raises(InputError, match="names no patient of the 5 images"):
        read_folders(raw, patients=table)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ((), "no radiograph in the folders of .*: it needs a folder for each class"),
        (("PNEUMONIA",), r"holds a single class to train on, PNEUMONIA \(2 radiographs\): a classifier needs"),
        (("train/A", "test/A", "test/NORMAL"), r"single class to train on, A \(2 radiographs\)"),
        (("test/A", "test/B"), r"holds test/ but no train/: give --data-path .*test to convert"),
        (("chest_xray/train/A", "chest_xray/test/A"), r"chest_xray holds test/ and train/: give --data-path .*y$"),
        (("A/train", "A/test", "B/train"), r"A holds test/ and train/: the splits must be the outer folders"),
    ],
)  # fmt: skip
def test_trees_that_cannot_be_used(tmp_path, folders, message):
    write_classes(tmp_path / "raw", 2, *folders)
    (tmp_path / "raw").mkdir(exist_ok=True)
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "raw", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_no_directory_and_pictures_without_folders(tmp_path):
    with pytest.raises(InputError, match=r"no data at .*: give the directory that holds a folder"):
        read_folders(tmp_path / "none")
    write(tmp_path, "a.png", "b.png")
    with pytest.raises(InputError, match="no radiograph in the folders of"):
        read_folders(tmp_path)


def test_an_interrupted_conversion_goes_on_only_with_the_same_labels(kaggle, tmp_path, monkeypatch):
    from xray.radiographs import decoding

    whole = decoding.decode_canvases

    def cut(*args):
        for number, item in enumerate(whole(*args)):
            if number == 5:
                raise KeyboardInterrupt
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "decode_canvases", cut)
        with pytest.raises(KeyboardInterrupt):
            convert(kaggle, tmp_path / "data")
    with pytest.raises(InputError, match="unfinished"):
        convert(kaggle, tmp_path / "data", normal="")
    result = convert(kaggle, tmp_path / "data")
    convert(kaggle, tmp_path / "other")
    assert result["counts"]["images"] == 14
    for name in ("images.npy", "annotations.json"):
        assert (tmp_path / "data" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_what_is_no_radiograph_that_can_be_read_is_told(tmp_path):
    raw = write_classes(tmp_path / "raw", 2, "A", "B")
    write_dicom(raw / "A" / "series" / "1.IMA", 60, 40)
    write_dicom(raw / "stray", 60, 40)
    (raw / "A" / "scan.tiff").write_bytes(b"II*\0" + bytes(200))
    (raw / "B" / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(200))
    (raw / "B" / "notes.txt").write_text("words")
    result = convert(raw, tmp_path / "data")
    assert result["counts"]["images"] == 5
    assert [row["where"] for row in result["warnings"]["rows"]] == ["A/scan.tiff", "B/DICOMDIR"]
    assert [(row["where"], row["reason"]) for row in result["dropped"]["rows"]] == [
        ("stray", "file outside the class folders")
    ]
