"""PadChest: lists of labels as Python text, spelt with blanks, and labels that are no findings."""

import pytest
from set_cases import picture, reasons_of, summary, table

from xray.datasets.sources.chexpert_labels import LATERAL_VIEW
from xray.datasets.sources.padchest import (
    EXCLUDED,
    MAY_BE_NEGATIVE,
    NOTHING_KNOWN,
    UNLABELLED,
    age_of,
    labels_of,
    read_padchest,
)
from xray.errors import InputError

HEADER = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,MethodLabel,Labels"
)
ROWS = [
    # image, patient, birth, sex, projection, labels
    ("a.png", 1, "1930.0", "F", "PA", "['normal']"),
    ("b.png", 1, "1930.0", "F", "L", "['normal']"),
    ("c.png", 2, "1960.0", "M", "AP_horizontal", "['cardiomegaly', ' pleural effusion', '']"),
    ("d.png", 3, "", "O", "AP", "['pleural effusion', 'unchanged', 'cardiomegaly ']"),
    ("e.png", 4, "2017.0", "M", "PA", "['unchanged']"),
    ("f.png", 5, "1950.0", "M", "PA", "['exclude']"),
    ("g.png", 6, "1950.0", "M", "PA", "nan"),
    ("h.png", 7, "1950.0", "M", "PA", "['nodule', 'normal', 'suboptimal study']"),
    ("i.png", 8, "1950.0", "M", "COSTAL", "['rib fracture']"),
    ("j.png", 9, "1950.0", "M", "PA", "['']"),
    ("k.png", 10, "1950.0", "M", "PA", ""),
]


@pytest.fixture
def root(tmp_path):
    rows = [
        (number, image, number % 3, "20140915", f"s{number}", patient, birth, sex, view, "Physician", f'"{labels}"')
        for number, (image, patient, birth, sex, view, labels) in enumerate(ROWS)
    ]
    table(tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", HEADER, rows)
    for number, (image, *_) in enumerate(ROWS):
        picture(tmp_path / str(number % 3) / image)
    return tmp_path


def test_labels_are_one_however_they_are_spelt_and_absent_where_they_are_not_listed(root):
    source = read_padchest(root)
    assert [category["name"] for category in source.categories] == [
        "cardiomegaly",
        "nodule",
        "pleural effusion",
        "rib fracture",
    ]
    assert {name[2:]: value for name, value in summary(source).items()} == {
        "a.png": ("train", "1", [], []),
        "c.png": ("train", "2", ["cardiomegaly", "pleural effusion"], []),
        # What an unchanged study does not name may be there as before.
        "d.png": ("train", "3", ["cardiomegaly", "pleural effusion"], ["nodule", "rib fracture"]),
        "h.png": ("train", "7", ["nodule"], []),
    }
    about = {image.patient: image.extra for image in source.images}
    assert about["1"] == {"view": "PA", "sex": "F", "age": "80-89"}
    assert about["2"] == {"view": "AP", "sex": "M", "age": "50-59"}
    assert about["3"] == {"view": "AP", "sex": "O"}
    assert all(set(image.unlocated) == set(image.labels) for image in source.images)
    assert {reason: [name[2:] for name in names] for reason, names in reasons_of(source).items()} == {
        LATERAL_VIEW: ["b.png", "i.png"],
        NOTHING_KNOWN: ["e.png", "j.png"],
        EXCLUDED: ["f.png"],
        UNLABELLED: ["g.png", "k.png"],
    }


def test_all_views_are_kept_on_demand(root):
    views = {image.file_name[2:]: image.extra.get("view") for image in read_padchest(root, views="all").images}
    assert (views["b.png"], views["i.png"], len(views)) == ("LATERAL", None, 6)


def test_lists_and_ages():
    assert labels_of("['a', ' a', 'b  c']") == ("a", "b c")
    assert labels_of("[]") == ()
    for text in ("nan", "", "'a'", "[1]", "['a'", "__import__('os')"):
        assert labels_of(text) is None
    assert age_of("20070503", "1909.0") == "98"
    assert age_of("20070503", "2017") is None
    assert age_of("", "1909") is None


def test_a_set_without_a_table(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"has no PADCHEST_chest_x_ray_images_labels\*\.csv"):
        read_padchest(tmp_path)


def test_labels_that_differ_in_case_alone_are_one(root):
    path = root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    path.write_text(path.read_text().replace("['nodule', 'normal'", "['Cardiomegaly', 'Normal', 'cardiomegaly'"))
    source = read_padchest(root)
    names = [category["name"] for category in source.categories]
    assert names == ["cardiomegaly", "pleural effusion", "rib fracture"]
    assert summary(source)["1/h.png"][2] == ["cardiomegaly"]


def test_an_endless_year_of_birth():
    assert age_of("20140915", "9" * 5000) is None


def test_radiographs_that_may_be_negatives_are_named(root):
    path = root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    header, *rows = path.read_text().splitlines()
    # c.png is used, b.png is a lateral view.
    marks = ["MONOCHROME1" if row.split(",")[1] in ("b.png", "c.png") else "MONOCHROME2" for row in rows]
    lines = [f"{row},{mark}" for row, mark in zip(rows, marks, strict=True)]
    path.write_text("\n".join([f"{header},PhotometricInterpretation_DICOM", *lines]) + "\n")
    said = [(warning.kind, warning.where) for warning in read_padchest(root).warnings]
    assert said == [(MAY_BE_NEGATIVE, "2/c.png")]
