"""RSNA 2018: what is not normal without an opacity, patients that the ids do not tell, boxes in pixels of 1024."""

import json
import zipfile

import pytest
from source_cases import told, why, write_dicom, write_picture

from xray.datasets import source as reasons
from xray.datasets.source import CONTRADICTORY, NOT_IN_TABLE
from xray.datasets.sources.rsna import NOT_NORMAL, UNKNOWN_TARGET, read_rsna
from xray.datasets.sources.set_tables import FAR_BEYOND, UNKNOWN_FINDING
from xray.errors import InputError

LABELS = ("a,264.0,152.0,213.0,379.0,1", "a,562.0,152.0,256.0,453.0,1", "b,,,,,0", "c,,,,,0")
CLASSES = ("a,Lung Opacity", "a,Lung Opacity", "b,No Lung Opacity / Not Normal", "c,Normal")


@pytest.fixture
def write(tmp_path):
    """(labels, classes) → the set's folder with the DICOM files a, b and c of 64 x 64, and one of the test set."""

    def make(labels=LABELS, classes=CLASSES):
        for name in "abc":
            write_dicom(tmp_path / "stage_2_train_images" / f"{name}.dcm", 64, 64, patient=name)
        write_dicom(tmp_path / "stage_2_test_images" / "d.dcm", 64, 64)
        text = "\n".join(["patientId,x,y,width,height,Target", *labels])
        (tmp_path / "stage_2_train_labels.csv").write_text(text + "\n")
        if classes is not None:
            (tmp_path / "stage_2_detailed_class_info.csv").write_text("\n".join(["patientId,class", *classes]) + "\n")
        return tmp_path

    return make


def test_boxes_classes_and_files_without_truth(write):
    source = read_rsna(write())
    of = told(source)
    assert sorted(of) == ["a", "b", "c"]
    # x + width, y + height: 264 + 213, 152 + 379, 562 + 256, 152 + 453.
    assert of["a"]["boxes"] == [("Lung Opacity", 264, 152, 477, 531), ("Lung Opacity", 562, 152, 818, 605)]
    assert of["a"]["labels"] == of["a"]["unknown"] == of["a"]["unlocated"] == []  # its boxes say what it shows
    # It shows no opacity, and is not normal.
    assert (of["b"]["labels"], of["b"]["unlocated"], of["b"]["unknown"]) == ([NOT_NORMAL], [NOT_NORMAL], [])
    assert (of["c"]["labels"], of["c"]["unlocated"], of["c"]["unknown"]) == ([], [], [])
    assert {image["size"] for image in of.values()} == {(1024, 1024)}
    assert {image["patient"] for image in of.values()} == {None}
    assert why(source) == [("stage_2_test_images/d.dcm", NOT_IN_TABLE)]


def test_without_the_table_of_classes_nobody_says_what_else_there_is(write):
    of = told(read_rsna(write(classes=None)))
    assert (of["a"]["unknown"], of["b"]["unknown"], of["c"]["unknown"]) == ([], [NOT_NORMAL], [NOT_NORMAL])


def test_nih_tells_the_patients(write):
    root = write()
    entries = [
        {"subset_img_id": "a", "img_id": "00000013_005.png", "SOPInstanceUID": "1.2"},
        {"subset_img_id": "b", "img_id": "00000013_026.png"},
        {"subset_img_id": "c", "img_id": "00020113_000.png"},
        {"img_id": "00000001_000.png"},
    ]
    path = root / "pneumonia-challenge-dataset-mappings_2018.json"
    path.write_text(json.dumps(entries))
    assert [image["patient"] for image in told(read_rsna(root)).values()] == ["13", "13", "20113"]
    path.write_text(json.dumps([{"id": 1}]))
    with pytest.raises(InputError, match="names no radiograph: its entries need subset_img_id and img_id"):
        read_rsna(root)


def test_smaller_pictures_of_the_set_keep_its_boxes(tmp_path):
    write_picture(tmp_path / "png" / "a.png", 64, 64)
    (tmp_path / "stage_2_train_labels.csv").write_text("patientId,x,y,width,height,Target\na,512,256,256,128,1\n")
    assert told(read_rsna(tmp_path))["a"] | {"unknown": []} == {
        "split": "train", "patient": None, "size": (1024, 1024), "labels": [], "unlocated": [], "unknown": [],
        "boxes": [("Lung Opacity", 512, 256, 768, 384)],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "classes", "where", "reason"),
    [
        (["c,1,2,3,4,2"], [], "stage_2_train_labels.csv line 6", UNKNOWN_TARGET),
        (["c,,,,,1"], [], "stage_2_train_labels.csv line 6", CONTRADICTORY),
        (["c,1,2,3,4,0"], [], "stage_2_train_labels.csv line 6", CONTRADICTORY),
        (["c,10,20,30,40,1"], [], "stage_2_train_labels.csv line 6", CONTRADICTORY),  # beside its row with Target 0
        (["c,1,2,3,x,1"], [], "stage_2_train_labels.csv line 6", reasons.NOT_A_NUMBER),
        (["c,1,2,0,4,1"], [], "stage_2_train_labels.csv line 6", reasons.EMPTY),
        (["c,1,2,-3,4,1"], [], "stage_2_train_labels.csv line 6", reasons.INVERTED),
        (["c,1000,2,100,4,1"], [], "stage_2_train_labels.csv line 6", FAR_BEYOND),
        ([], ["c,Lung Opacity"], "stage_2_detailed_class_info.csv line 6", CONTRADICTORY),
        ([], ["c,Fine"], "stage_2_detailed_class_info.csv line 6", UNKNOWN_FINDING),
    ],
)
def test_what_contradicts_itself_or_is_damaged_costs_its_radiograph(write, labels, classes, where, reason):
    source = read_rsna(write([*LABELS, *labels], [*CLASSES, *classes]))
    assert sorted(told(source)) == ["a", "b"]
    assert (where, reason) in why(source)


def test_class_and_boxes_must_agree(write):
    source = read_rsna(write(classes=["a,Normal", "b,Lung Opacity", "c,Normal"]))
    assert sorted(told(source)) == ["c"]
    assert [reason for where, reason in why(source) if "/" in where and reason == CONTRADICTORY] == [CONTRADICTORY] * 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a,.1,.2,.3,.4,1"], "all its boxes lie between 0 and 1"),
        (["a,900,900,900,900,1", "b,1200,10,900,20,1"], "2 of 2 boxes reach beyond 1024 x 1024, up to 2100"),
        ([",1,2,3,4,1"], "line 2 has a finding but no patientId"),
        (["e,1,2,3,4,1"], "no radiograph of .* can be used: 4 x file without a row in the table, 1 x missing file"),
    ],
)
def test_tables_that_cannot_be_used_stop_the_conversion(write, labels, message):
    root = write(labels)
    with pytest.raises(InputError, match=message):
        read_rsna(root)
    (root / "stage_2_train_labels.csv").unlink()
    with pytest.raises(InputError, match=r"has no stage_2_train_labels.csv"):
        read_rsna(root)


def test_cells_may_be_empty_as_other_programs_write_it(write):
    source = read_rsna(write(labels=(LABELS[0], "b,NA,NA,NA,NA,0", "c,NaN,NaN,NaN,NaN,0")))
    assert (sorted(told(source)), [reason for _, reason in why(source)]) == (["a", "b", "c"], [NOT_IN_TABLE])


def test_a_mapping_whose_numbers_are_endless(write):
    root = write()
    mapping = [{"subset_img_id": "a", "img_id": "9" * 5000 + "_000.png"}, {"subset_img_id": "b", "img_id": "013_1.png"}]
    (root / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(mapping))
    assert {name: image["patient"] for name, image in told(read_rsna(root)).items()} == {
        "a": None,
        "b": "13",
        "c": None,
    }


def test_tables_as_kaggle_packs_them(write):
    root = write()
    before = told(read_rsna(root))
    for name in ("stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"):
        with zipfile.ZipFile(root / f"{name}.zip", "w") as archive:
            archive.write(root / name, name)
        (root / name).unlink()
    assert told(read_rsna(root)) == before
