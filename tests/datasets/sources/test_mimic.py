"""MIMIC-CXR: labels of studies for each of their radiographs, official splits, views of the metadata."""

import gzip

import pytest
from set_cases import picture, reasons_of, summary, table

from xray.datasets import source as reasons
from xray.datasets.sources.chexpert_labels import FINDINGS, LATERAL_VIEW, UNUSABLE_LABEL
from xray.datasets.sources.mimic import UNLABELLED, read_mimic
from xray.datasets.sources.siim_tables import CONTRADICTORY
from xray.errors import InputError

ORDER = sorted(FINDINGS)
HEADER = "subject_id,study_id," + ",".join([*ORDER, "No Finding"])
IMAGES = {
    # dicom_id: (subject, study, split, ViewPosition)
    "02aa804e-bde0afdd": (10000032, 50414267, "train", "PA"),
    "174413ec-4ec4c1f7": (10000032, 50414267, "train", "LATERAL"),
    "2a2277a9-b0ded155": (10000032, 53189527, "train", "AP"),
    "e084de3b-be89b11e": (10000764, 57375967, "validate", "AP"),
    "68b5c4b1-227d0485": (10000898, 50771383, "test", "PA"),
    "fffabebf-74fd3a1f": (10000935, 50578979, "test", ""),
    "ea030e7a-2e3b1346": (10000935, 51178377, "test", "PA"),
}


def labels(subject, study, no_finding=None, **marks):
    return [subject, study, *(marks.get(name.split()[0]) for name in ORDER), no_finding]


@pytest.fixture
def root(tmp_path):
    for dicom_id, (subject, study, *_) in IMAGES.items():
        picture(tmp_path / f"files/p{str(subject)[:2]}/p{subject}/s{study}/{dicom_id}.jpg")
    rows = [
        labels(10000032, "50414267.0", None, Edema="-1.0", Pneumonia="1.0", Fracture="0.0"),
        labels(10000032, 53189527, 1.0),
        labels(10000764, 57375967, None, Consolidation=1.0),
        labels(10000898, 50771383, None, Cardiomegaly=1.0),
        labels(10000935, 50578979, 1.0),
    ]
    table(tmp_path / "mimic-cxr-2.0.0-chexpert.csv", HEADER, rows)
    split = [(dicom_id, study, subject, split) for dicom_id, (subject, study, split, _) in IMAGES.items()]
    table(tmp_path / "mimic-cxr-2.0.0-split.csv", "dicom_id,study_id,subject_id,split", split)
    views = [(dicom_id, subject, study, view) for dicom_id, (subject, study, _, view) in IMAGES.items()]
    table(tmp_path / "mimic-cxr-2.0.0-metadata.csv", "dicom_id,subject_id,study_id,ViewPosition", views)
    for name in ("chexpert", "split", "metadata"):
        path = tmp_path / f"mimic-cxr-2.0.0-{name}.csv"
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        if name != "split":
            path.unlink()  # one that is there packed and unpacked is one table
    return tmp_path


def test_a_studys_labels_are_those_of_its_frontal_radiographs(root):
    source = read_mimic(root)
    found = {name.rpartition("/")[2][:8]: value for name, value in summary(source).items()}
    assert {name: value[:3] for name, value in found.items()} == {
        "02aa804e": ("train", "10000032", ["Pneumonia"]),
        "2a2277a9": ("train", "10000032", []),
        "e084de3b": ("val", "10000764", ["Consolidation"]),
        "68b5c4b1": ("test", "10000898", ["Cardiomegaly"]),
    }
    assert set(found["02aa804e"][3]) == set(FINDINGS) - {"Pneumonia", "Fracture"}
    assert found["2a2277a9"][3] == ["Support Devices"]
    assert [image.extra for image in source.images] == [{"view": "PA"}, {"view": "AP"}, {"view": "AP"}, {"view": "PA"}]
    drops = reasons_of(source)
    assert [name.rpartition("/")[2] for name in drops[LATERAL_VIEW]] == [
        "174413ec-4ec4c1f7.jpg",
        "fffabebf-74fd3a1f.jpg",
    ]
    assert [name.rpartition("/")[2] for name in drops[UNLABELLED]] == ["ea030e7a-2e3b1346.jpg"]
    assert set(drops) == {LATERAL_VIEW, UNLABELLED}


def test_a_view_that_only_its_code_says(root):
    # As in the metadata's own columns; where a position is given, it counts.
    words = {"fffabebf-74fd3a1f": "antero-posterior", "68b5c4b1-227d0485": "lateral", "2a2277a9-b0ded155": ""}
    rows = [
        (dicom_id, subject, study, "CHEST (PA AND LAT)", view if dicom_id not in ("2a2277a9-b0ded155",) else "",
         2544, 3056, words.get(dicom_id, "postero-anterior"), "Erect")
        for dicom_id, (subject, study, _, view) in IMAGES.items()
    ]  # fmt: skip
    (root / "mimic-cxr-2.0.0-metadata.csv.gz").unlink()
    header = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
    header += "ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
    table(root / "mimic-cxr-2.0.0-metadata.csv", header, rows)
    source = read_mimic(root)
    views = {image.file_name.rpartition("/")[2][:8]: image.extra["view"] for image in source.images}
    assert views == {"02aa804e": "PA", "e084de3b": "AP", "68b5c4b1": "PA", "fffabebf": "AP"}
    assert [name.rpartition("/")[2][:8] for name in reasons_of(source)[LATERAL_VIEW]] == ["174413ec", "2a2277a9"]


def test_all_views_need_no_metadata(root):
    assert len(read_mimic(root, views="all").images) == 6
    (root / "mimic-cxr-2.0.0-metadata.csv.gz").unlink()
    assert len(read_mimic(root, views="all").images) == 6
    with pytest.raises(InputError, match=r"metadata\.csv\.gz, which says what is a frontal view.*--views all"):
        read_mimic(root)


def test_the_other_program_and_radiologists(root):
    table(root / "mimic-cxr-2.0.0-negbio.csv", HEADER, [labels(10000032, 50414267, None, Edema=1.0)])
    assert [image.labels for image in read_mimic(root, labeler="negbio").images] == [(5,)]
    # Radiologists' labels go before a program's, and call Lung Opacity by another name.
    header = "study_id," + ",".join(name.replace("Lung Opacity", "Airspace Opacity") for name in FINDINGS)
    row = [50771383, *(1.0 if name == "Lung Opacity" else 0.0 for name in FINDINGS)]
    table(root / "mimic-cxr-2.1.0-test-set-labeled.csv", header, [row])
    test = [image for image in read_mimic(root).images if image.split == "test"]
    assert [(image.labels, image.unknown) for image in test] == [((3,), ())]


def test_dicom_files_and_files_that_are_missing(root):
    (jpg,) = root.rglob("02aa804e-bde0afdd.jpg")
    jpg.unlink()
    source = read_mimic(root)
    assert reasons_of(source)[reasons.MISSING_FILE] == ["mimic-cxr-2.0.0-split.csv line 2"]
    assert len(source.images) == 3


def test_tables_that_are_missing_are_named(root):
    (root / "mimic-cxr-2.0.0-split.csv").unlink()
    (root / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    with pytest.raises(InputError, match=r"has no mimic-cxr-\*-split\.csv"):
        read_mimic(root)


@pytest.mark.parametrize("order", [1, -1])
def test_a_study_with_two_rows_and_a_radiograph_of_two_splits(root, order):
    path = root / "mimic-cxr-2.0.0-chexpert.csv"
    lines = gzip.decompress((root / f"{path.name}.gz").read_bytes()).decode().splitlines()
    rows = [*lines[1:], lines[1].replace("1.0", "0.0"), lines[2]]
    (root / f"{path.name}.gz").unlink()
    path.write_text("\n".join([lines[0], *rows[::order]]) + "\n")
    splits = (root / "mimic-cxr-2.0.0-split.csv").read_text().splitlines()
    (root / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    again = [line.replace("validate", "train") for line in splits if "validate" in line]
    (root / "mimic-cxr-2.0.0-split.csv").write_text("\n".join([splits[0], *[*splits[1:], *again][::order]]) + "\n")
    source = read_mimic(root)
    assert sorted(name.rpartition("/")[2][:8] for name in summary(source)) == ["2a2277a9", "68b5c4b1"]
    assert len(reasons_of(source)[CONTRADICTORY]) == len(reasons_of(source)[UNUSABLE_LABEL]) == 1
