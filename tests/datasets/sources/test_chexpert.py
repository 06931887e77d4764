"""CheXpert: the meaning of 1, 0, -1 and empty, files in any edition's folders, lateral views."""

import gzip

import pytest
from set_cases import picture, reasons_of, summary, table

from xray.datasets import source as reasons
from xray.datasets.source import NOT_IN_TABLE
from xray.datasets.sources.chexpert import attributes_of, patient_of, read_chexpert, view_id
from xray.datasets.sources.chexpert_labels import FINDINGS, LATERAL_VIEW, UNUSABLE_LABEL
from xray.datasets.sources.siim_tables import CONTRADICTORY
from xray.errors import InputError

SMALL = "CheXpert-v1.0-small"
HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding," + ",".join(FINDINGS)


def labels(no_finding=None, **marks):
    """No Finding, then the 13 findings, named by their first letters."""
    short = {"".join(word[0] for word in name.split()) if " " in name else name[:4]: name for name in FINDINGS}
    named = {short[key]: value for key, value in marks.items()}
    return [no_finding, *(named.get(name) for name in FINDINGS)]


@pytest.fixture
def root(tmp_path):
    for path in (
        "train/patient00001/study1/view1_frontal.jpg",
        "train/patient00002/study1/view1_frontal.jpg",
        "train/patient00002/study1/view2_lateral.jpg",
        "train/patient00003/study1/view1_frontal.jpg",
        "valid/patient64541/study1/view1_frontal.jpg",
        "test/patient64741/study1/view1_frontal.jpg",
    ):
        picture(tmp_path / path)
    rows = [
        [
            SMALL + "/train/patient00001/study1/view1_frontal.jpg",
            "Female",
            68,
            "Frontal",
            "AP",
            *labels("1.0", Pneu=None, SD="1.0", Card="-1.0"),
        ],
        [
            SMALL + "/train/patient00002/study1/view1_frontal.jpg",
            "Male",
            0,
            "Frontal",
            "LL",
            *labels(None, Card="-1.0", LO="1.0", Edem="0.0", PE="1.0"),
        ],
        [SMALL + "/train/patient00002/study1/view2_lateral.jpg", "Male", 87, "Lateral", "", *labels(None, LO="1.0")],
        [
            SMALL + "/train/patient00003/study1/view1_frontal.jpg",
            "Unknown",
            90,
            "Frontal",
            "PA",
            *labels(None, Frac="1"),
        ],
    ]
    table(tmp_path / "train.csv", HEADER, rows)
    normal = labels(1.0, **dict.fromkeys(("EC", "Card", "LO"), 0.0))
    table(
        tmp_path / "valid.csv",
        HEADER,
        [["CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg", "Male", 73, "Frontal", "AP", *normal]],
    )
    # The test set's table has other columns in another order.
    table(
        tmp_path / "test_labels.csv",
        "Path," + ",".join(reversed(FINDINGS)) + ",No Finding",
        [["test/patient64741/study1/view1_frontal.jpg", *[0.0] * 12, 1.0, 0.0]],
    )
    return tmp_path


def test_labels_mean_what_the_set_means_by_them(root):
    source = read_chexpert(root)
    found = summary(source)
    assert list(found) == [
        "test/patient64741/study1/view1_frontal.jpg",
        "train/patient00001/study1/view1_frontal.jpg",
        "train/patient00002/study1/view1_frontal.jpg",
        "train/patient00003/study1/view1_frontal.jpg",
        "valid/patient64541/study1/view1_frontal.jpg",
    ]
    assert found["test/patient64741/study1/view1_frontal.jpg"] == ("test", "patient64741", [FINDINGS[0]], [])
    # "No Finding": what is not mentioned is absent, but for devices; what is uncertain stays so.
    assert found["train/patient00001/study1/view1_frontal.jpg"] == (
        "train",
        "patient00001",
        ["Support Devices"],
        ["Cardiomegaly"],
    )
    _, _, present, unknown = found["train/patient00002/study1/view1_frontal.jpg"]
    assert present == ["Lung Opacity", "Pleural Effusion"]
    assert set(unknown) == set(FINDINGS) - {"Lung Opacity", "Pleural Effusion", "Edema"}
    assert found["valid/patient64541/study1/view1_frontal.jpg"][::2] == ("val", [])
    assert all(image.unlocated == image.labels for image in source.images)
    assert len(source.boxes) == 0
    assert reasons_of(source) == {LATERAL_VIEW: ["train/patient00002/study1/view2_lateral.jpg"]}
    about = {image.patient: image.extra for image in source.images}
    assert about["patient00001"] == {"view": "AP", "sex": "F", "age": "60-69"}
    assert about["patient00002"] == {"sex": "M"}  # an age of 0 is missing; LL contradicts Frontal
    assert about["patient00003"] == {"view": "PA", "age": "90+"}
    assert about["patient64741"] == {}


@pytest.mark.parametrize(
    ("flags", "present", "n_unknown"),
    [
        ({}, [], 12),
        ({"uncertain": "positive"}, ["Cardiomegaly"], 11),
        ({"uncertain": "negative"}, [], 11),
        ({"unmentioned": "negative"}, [], 1),
        ({"uncertain": "negative", "unmentioned": "negative"}, [], 0),
    ],
)
def test_what_is_uncertain_and_not_mentioned_is_the_users_choice(root, flags, present, n_unknown):
    path = "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg"
    table(root / "train.csv", HEADER, [[path, "Male", 50, "Frontal", "AP", *labels(None, Card="-1", Edem="0")]])
    found = summary(read_chexpert(root, **flags))["train/patient00001/study1/view1_frontal.jpg"]
    assert (found[2], len(found[3])) == (present, n_unknown)


def test_lateral_radiographs_are_kept_on_demand(root):
    source = read_chexpert(root, views="all")
    lateral = next(image for image in source.images if "lateral" in image.file_name)
    assert lateral.extra["view"] == "LATERAL"
    assert len(source.images) == 6


def test_other_folders_other_labels_and_packed_tables(root, tmp_path):
    (root / "train").rename(root / "CheXpert-v1.0 batch 2 (train 1)")
    packed = gzip.compress((root / "train.csv").read_bytes())
    (root / "train.csv").unlink()
    (root / "train.csv.gz").write_bytes(packed)
    assert len(read_chexpert(root).images) == 5
    path = "CheXpert-v1.0/train/patient00003/study1/view1_frontal.jpg"
    table(root / "train_visualCheXbert.csv", HEADER, [[path, "", "", "Frontal", "AP", *labels(None, PO="1.0")]])
    source = read_chexpert(root, table="train_visualCheXbert.csv")
    assert [image.labels for image in source.images if image.split == "train"] == [(11,)]
    assert len(reasons_of(source)[NOT_IN_TABLE]) == 3


def test_faulty_rows_cost_their_radiograph(root):
    names = [f"CheXpert-v1.0/train/patient0000{number}/study1/view1_frontal.jpg" for number in (1, 2, 3, 4)]
    blank = ["", "", "Frontal", "AP"]
    rows = [
        [names[0], *blank, *labels(None, Card="2")],
        [names[1], *blank, *labels(None, Card="1")],
        [names[1], *blank, *labels(None, Card="0")],
        [names[2], *blank, *labels(None, Card="1")],
        [names[2], *blank, *labels(None, Card="1.0")],
        [names[3], *blank, *labels(None, Card="1")],
    ]
    table(root / "train.csv", HEADER, rows)
    source = read_chexpert(root)
    assert [image.patient for image in source.images if image.split == "train"] == ["patient00003"]
    found = reasons_of(source)
    assert found[UNUSABLE_LABEL] == ["train.csv line 2"]
    assert found[CONTRADICTORY] == ["train.csv line 4"]
    assert found[reasons.DUPLICATE] == ["train.csv line 6"]
    assert found[reasons.MISSING_FILE] == ["train.csv line 7"]


def test_two_editions_in_one_folder_are_not_mixed(root):
    picture(root / "small/train/patient00001/study1/view1_frontal.jpg")
    source = read_chexpert(root)
    assert "patient00001" not in {image.patient for image in source.images}
    assert reasons_of(source)[reasons.REPEATED_NAME] == ["train.csv line 2"] * 2


def test_what_is_not_there_is_said(root, tmp_path):
    with pytest.raises(InputError, match="no data at"):
        read_chexpert(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"there is no x\.csv"):
        read_chexpert(root, table="x.csv")
    table(root / "train.csv", "Path,No Finding", [["a/b/c.jpg", 1]])
    with pytest.raises(InputError, match="lacks the columns Enlarged Cardiomediastinum, Cardiomegaly"):
        read_chexpert(root)
    for name in ("train.csv", "valid.csv", "test_labels.csv"):
        (root / name).unlink()
    with pytest.raises(InputError, match=r"no train\.csv and no valid\.csv"):
        read_chexpert(root)


def test_ids_of_views():
    assert view_id("x/patient1/study2/view1_frontal.jpg") == "patient1_study2_view1_frontal"
    assert view_id("patient1_study2_view1_frontal") == "patient1_study2_view1_frontal"
    assert patient_of("x/patient1/study2/view1_frontal.jpg") == "patient1"
    assert attributes_of("Male", "64", "PA", False) == {"view": "PA", "sex": "M", "age": "60-69"}


@pytest.mark.parametrize("again", ["valid.csv", "test.csv"])
def test_a_radiograph_of_two_splits_is_in_none(root, again):
    row = (root / "train.csv").read_text().splitlines()[4]
    table(root / "more.csv", HEADER, [row.split(",")])
    lines = (root / "valid.csv").read_text().splitlines()
    (root / again).write_text("\n".join([*lines, row] if again == "valid.csv" else [HEADER, row]) + "\n")
    source = read_chexpert(root)
    assert "train/patient00003/study1/view1_frontal.jpg" not in summary(source)
    assert reasons_of(source)[CONTRADICTORY]
