"""PadChest-GR: boxes in shares of the sides by two readers, findings without boxes, the official split."""

import json
import zipfile

import pytest
from set_cases import boxes_of, picture, reasons_of, summary

from xray.datasets import source as reasons
from xray.datasets.sources.padchestgr import (
    NO_BOX,
    NO_FINDING_READ,
    NOT_IN_MASTER_TABLE,
    SECOND_READER,
    read_padchestgr,
)
from xray.errors import InputError

NORMAL = {"sentence_en": "No effusion.", "abnormal": False}


def finding(labels, boxes=(), extra=(), **more):
    return {"abnormal": True, "labels": labels, "boxes": list(boxes), "extra_boxes": list(extra), **more}


STUDIES = [
    (
        "s1",
        "a.png",
        [NORMAL, finding(["nodule", " pleural  effusion"], [[0.1, 0.2, 0.5, 1.0]], [[0.1, 0.2, 0.5, 0.9]])],
    ),
    ("s2", "b.png", [NORMAL]),
    ("s3", "c.png", [finding(["cardiomegaly"]), finding(["nodule"], [[0, 0, 0.25, 0.5]])]),
    ("s4", "d.png", [finding(["nodule"], [[0, 0, 0.5, 0.5]], [[0, 0, 0.5, 0.6]])]),
    ("s5", "e.png", [finding(["nodule"]), finding(["unchanged"])]),
]


def write(root, studies):
    content = [{"StudyID": study, "ImageID": image, "findings": findings} for study, image, findings in studies]
    (root / "grounded_reports_20240819.json").write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path):
    write(tmp_path, STUDIES)
    for _, image, _ in STUDIES:
        picture(tmp_path / "PadChest_GR" / image, 40, 20)
    rows = ["StudyID,PatientID,ImageID,split,label,label_group,PatientSex_DICOM,PatientAge"]
    rows += [
        f"s{n},p{n % 4},x,{split},nodule,g,F,64.0"
        for n, split in enumerate(("train", "train", "validation", "test", "train"), 1)
    ]
    rows += ["s1,p1,x,train,pleural effusion,g,F,64.0"]
    with zipfile.ZipFile(tmp_path / "master_table.csv.zip", "w") as archive:
        archive.writestr("master_table.csv", "\n".join(rows))
        archive.writestr("__MACOSX/._master_table.csv", "x")
    return tmp_path


def test_boxes_are_shares_of_the_sides_by_two_readers(root):
    source = read_padchestgr(root)
    assert [category["name"] for category in source.categories] == ["cardiomegaly", "nodule", "pleural effusion"]
    a, c, d = (f"PadChest_GR/{name}.png" for name in "acd")
    assert boxes_of(source) == [
        (a, "nodule", [4, 4, 20, 20], ("1",)),
        (a, "pleural effusion", [4, 4, 20, 20], ("1",)),
        (a, "nodule", [4, 4, 20, 18], ("2",)),
        (a, "pleural effusion", [4, 4, 20, 18], ("2",)),
        (c, "nodule", [0, 0, 10, 10], ("1",)),
        (d, "nodule", [0, 0, 20, 10], ("1",)),
    ]
    assert {name[-5]: value for name, value in summary(source).items()} == {
        "a": ("train", "p1", ["nodule", "pleural effusion"], []),
        "b": ("train", "p2", [], []),
        "c": ("val", "p3", ["cardiomegaly", "nodule"], []),
        "d": ("test", "p0", ["nodule"], []),
        "e": ("train", "p1", ["nodule"], ["cardiomegaly", "pleural effusion"]),
    }
    assert [image.unlocated for image in source.images] == [(), (), (1,), (), (2,)]
    assert reasons_of(source) == {SECOND_READER: ["grounded_reports_20240819.json study 4 finding 1"]}
    assert source.images[0].extra == {"sex": "F", "age": "60-69"}


@pytest.mark.parametrize(
    ("of_c", "reason"),
    [
        ([finding(["nodule"], [[0.5, 0.1, 0.2, 0.3]])], NO_BOX),
        ([finding(["nodule"], [[0.1, 0.1, 0.2]])], NO_BOX),
        ([finding(["nodule"], [0.1, 0.1, 0.2, 1.2])], NO_BOX),
        ([finding(["nodule"], ["box"])], NO_BOX),
        ([finding([])], NO_FINDING_READ),
        (["nodule"], NO_FINDING_READ),
        ([{"abnormal": "perhaps"}], NO_FINDING_READ),
        (None, NO_FINDING_READ),
    ],
)
def test_what_cannot_be_read_costs_its_radiograph(root, of_c, reason):
    many = [(f"s{n}", f"{n}.png", [finding(["nodule"], [[0, 0, 0.5, 0.5]] * 12)]) for n in (1, 2)]
    for _, image, _ in many:
        picture(root / image)
    write(root, [*many, ("s3", "c.png", of_c)])
    source = read_padchestgr(root)
    assert [image.source_id for image in source.images] == ["1", "2"]
    assert reason in reasons_of(source)


def test_a_box_by_itself_is_one(root):
    write(root, [("s1", "a.png", [finding(["nodule"], [0.25, 0.25, 0.5, 1.004])])])
    assert boxes_of(read_padchestgr(root))[0][2] == [10, 5, 20, 20.08]


@pytest.mark.parametrize("box", [[0.6, 0.5, 0.2, 0.3], [100, 200, 300, 400]])
def test_boxes_in_another_order_or_unit_are_refused_as_a_whole(root, box):
    write(root, [("s1", "a.png", [finding(["nodule"], [box, [0.1, 0.1, 0.3, 0.3]])])])
    with pytest.raises(InputError, match=r"1 of 2 boxes, such as \[.*, are no x1, y1, x2, y2 in shares"):
        read_padchestgr(root)


def test_studies_without_a_picture_or_a_split(root):
    write(root, [*STUDIES[:2], ("s9", "c.png", []), ("s3", "z.png", []), ("s2", "b.png", [NORMAL])])
    drops = reasons_of(read_padchestgr(root))
    assert drops[NOT_IN_MASTER_TABLE] == ["grounded_reports_20240819.json study 3"]
    assert drops[reasons.MISSING_FILE] == ["grounded_reports_20240819.json study 4"]
    assert drops["contradictory rows"] == ["grounded_reports_20240819.json study 5"]


def test_files_that_are_none(root):
    (root / "grounded_reports_20240819.json").write_text("{}")
    with pytest.raises(InputError, match="is not a list of studies"):
        read_padchestgr(root)
    (root / "grounded_reports_20240819.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_padchestgr(root)
    write(root, STUDIES)
    (root / "master_table.csv.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="cannot be unpacked"):
        read_padchestgr(root)
    (root / "master_table.csv.zip").unlink()
    with pytest.raises(InputError, match=r"has no master_table\.csv"):
        read_padchestgr(root)


@pytest.mark.parametrize(
    "said",
    [{"labels": ["nodule"], "boxes": [[0, 0, 0.5, 0.5]]}, finding(["nodule"], [[0, 0, 0.5, 0.5]], abnormal=False)],
)
def test_a_box_of_a_finding_that_is_not_said_to_be_abnormal(root, said):
    write(root, [("s1", "a.png", [said]), *STUDIES[1:]])
    source = read_padchestgr(root)
    assert "PadChest_GR/a.png" not in summary(source)
    assert reasons_of(source)[NO_FINDING_READ] == ["grounded_reports_20240819.json study 1 finding 1"]


def test_labels_that_differ_in_case_alone_are_one(root):
    write(root, [("s1", "a.png", [finding(["Nodule"]), finding(["NORMAL"])]), *STUDIES[1:]])
    source = read_padchestgr(root)
    assert [category["name"] for category in source.categories] == ["cardiomegaly", "nodule"]
    assert summary(source)["PadChest_GR/a.png"][2] == ["nodule"]


@pytest.mark.parametrize("row", ["s1,p1,x,test,nodule,g,F", "s1,p2,x,train,nodule,g,F"])
def test_a_study_of_two_splits_or_patients(root, row):
    with zipfile.ZipFile(root / "master_table.csv.zip") as archive:
        text = archive.read("master_table.csv").decode()
    (root / "master_table.csv.zip").unlink()
    (root / "master_table.csv").write_text(f"{text}\n{row}\n")
    with pytest.raises(InputError, match="has two patients or two splits for the study s1"):
        read_padchestgr(root)
