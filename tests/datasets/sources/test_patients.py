"""Tables that name patients: files and patients in any spelling; who is not named is a patient of their own."""

import json
from pathlib import Path

import pytest

from xray.datasets.source import SourceImage
from xray.datasets.sources.patients import name_patients
from xray.errors import InputError

FILES = ("A/007.png", "A/x.png", "A/x.jpg", "B/y.png", "C/y.png")


def named(path, files=FILES):
    """File → its patient, and the files that stay patients of their own, with the reason."""
    dropped = []
    images, _ = name_patients([SourceImage(Path(name), name, name) for name in files], path, dropped)
    return {image.file_name: image.patient for image in images}, [(drop.where, drop.detail) for drop in dropped]


def write(path, rows, header="file_name,patient"):
    path.write_text("\n".join([header, *(f"{name},{patient}" for name, patient in rows)]) + "\n")
    return path


@pytest.mark.parametrize(
    "header",
    ["file_name,patient", "Image Index,Patient ID", " imageId , patientId ", "path,subject_id", "FileName,PATIENT"],
)
def test_columns_in_every_spelling(tmp_path, header):
    found, _ = named(write(tmp_path / "p.csv", [("A/007.png", "p")], header))
    assert found["A/007.png"] == "p"


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_one_patient_in_every_spelling(tmp_path, kind):
    said = ["17", "17.0", "017", " 17 "] if kind == "csv" else [17, 17.0, "017", "17.0"]
    rows = list(zip(["7.0", "A/x.png", "x.jpg", "B/y"], said, strict=True))
    if kind == "csv":
        path = write(tmp_path / "p.csv", rows)
    else:
        path = tmp_path / "p.json"
        path.write_text(json.dumps({"images": [{"file_name": name, "patient": patient} for name, patient in rows]}))
    found, alone = named(path)
    assert found == dict.fromkeys(FILES[:4], "17") | {"C/y.png": None}
    assert alone == [("C/y.png", "")]


@pytest.mark.parametrize("missing", ["", "nan", " NaN ", "NA", "null", "None"])
def test_a_missing_patient_is_nobody(tmp_path, missing):
    rows = [("A/007.png", missing), ("A/x.png", missing), ("A/x.jpg", "p"), ("B/y.png", "p")]
    found, alone = named(write(tmp_path / "p.csv", rows))
    assert found == {"A/007.png": None, "A/x.png": None, "A/x.jpg": "p", "B/y.png": "p", "C/y.png": None}
    assert [name for name, _ in alone] == ["A/007.png", "A/x.png", "C/y.png"]


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_a_missing_patient_in_a_coco_file(tmp_path, missing):
    rows = [{"file_name": name, "patient": missing} for name in FILES[:3]] + [{"file_name": FILES[3], "patient": 1}]
    (tmp_path / "p.json").write_text(json.dumps({"images": rows}))
    found, _ = named(tmp_path / "p.json")
    assert [found[name] for name in FILES] == [None, None, None, "1", None]


@pytest.mark.parametrize("patient", [True, [1], {"id": 1}])
def test_a_patient_that_is_neither_number_nor_text(tmp_path, patient):
    (tmp_path / "p.json").write_text(json.dumps({"images": [{"file_name": "x.png", "patient": patient}]}))
    with pytest.raises(InputError, match=r"the patient of .x.png., .* is neither number nor text: correct it"):
        named(tmp_path / "p.json")


def test_the_most_exact_name_counts(tmp_path):
    rows = [("A/x.png", "p"), ("A/x.jpg", "q"), ("A/x", "r"), ("x", "s"), ("y.png", "t"), ("./C\\y.jpg", "u")]
    found, alone = named(write(tmp_path / "p.csv", rows))
    assert found == {"A/007.png": None, "A/x.png": "p", "A/x.jpg": "q", "B/y.png": "t", "C/y.png": "u"}
    assert alone == [("A/007.png", "")]


def test_two_patients_of_one_file(tmp_path):
    # Whichever it were, the other's radiographs could be on both sides.
    rows = [("A/007.png", "p"), ("A/007.png", "q"), ("A/x.png", "p"), ("A/x.png", "p")]
    found, alone = named(write(tmp_path / "p.csv", rows))
    assert (found["A/007.png"], found["A/x.png"]) == (None, "p")
    assert alone[0] == ("A/007.png", "the table has 2 for that name")
