"""CheXpert Plus: labels in lines of JSON, PNG files that the table calls JPEG, reports of several lines."""

import json

import pytest
from set_cases import picture, reasons_of, summary

from xray.datasets.sources.chexpert import read_chexpert
from xray.datasets.sources.chexpert_labels import FINDINGS, LATERAL_VIEW, UNUSABLE_LABEL
from xray.datasets.sources.chexpert_plus import UNKNOWN_SPLIT, UNLABELLED
from xray.errors import InputError

# The columns of the table as it is published; the reports hold commas, quotes and several lines.
HEADER = (
    "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,patient_report_date_order,report,"
    "section_findings,section_impression,age,sex,race,ethnicity,interpreter_needed,insurance_type,recent_bmi,"
    "deceased,split"
)
REPORT = '"NARRATIVE:\nChest, 1 view. ""Comparison"": none.\n\nIMPRESSION:\n1. Edema."'
IMAGES = {
    # path: (side, ap_pa, age, sex, split)
    "train/patient00001/study1/view1_frontal.jpg": ("Frontal", "AP", "68.0", "Female", "train"),
    "train/patient00001/study1/view2_lateral.jpg": ("Lateral", "", "68.0", "Female", "train"),
    "train/patient00002/study5/view1_frontal.jpg": ("Frontal", "PA", "45.0", "Male", "train"),
    "train/patient00003/study1/view1_frontal.jpg": ("Frontal", "AP", "30.0", "Unknown", "train"),
    "valid/patient64541/study1/view1_frontal.jpg": ("Frontal", "AP", "73.0", "Male", "valid"),
    "train/patient00004/study1/view1_frontal.jpg": ("Frontal", "AP", "73.0", "Male", "fold 1"),
}
LABELLED = [path for path in IMAGES if "patient00003" not in path]


def labels(path, no_finding=None, **marks):
    first = {finding.split()[0]: finding for finding in FINDINGS}
    named = {first[key]: value for key, value in marks.items()}
    return {"path_to_image": path, **{name: named.get(name) for name in FINDINGS}, "No Finding": no_finding}


@pytest.fixture
def root(tmp_path):
    rows = []
    for path, (side, ap_pa, age, sex, split) in IMAGES.items():
        picture(tmp_path / "PNG" / path.replace(".jpg", ".png"))
        dcm = path.replace(".jpg", ".dcm")
        row = (
            path,
            dcm,
            side,
            ap_pa,
            "patient1",
            1,
            REPORT,
            "",
            "1. Edema.",
            age,
            sex,
            "",
            "",
            "",
            "",
            "",
            "No",
            split,
        )
        rows.append(",".join(map(str, row)))
    (tmp_path / "df_chexpert_plus_240401.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    lines = {path: labels(path) for path in LABELLED}
    lines[LABELLED[0]] = labels(LABELLED[0], Edema=1.0, Pneumonia=-1.0, Fracture=0.0)
    lines["valid/patient64541/study1/view1_frontal.jpg"] = labels("valid/patient64541/study1/view1_frontal.jpg", 1.0)
    folder = tmp_path / "chexbert_labels"
    folder.mkdir()
    for part, drop in (("impression", ()), ("report", ("Edema",))):
        texts = [json.dumps({**line, **dict.fromkeys(drop)}) for line in lines.values()]
        (folder / f"{part}_fixed.json").write_text("\n".join(texts) + "\n")
    return tmp_path


def test_labels_of_the_impressions_splits_and_what_is_kept(root):
    source = read_chexpert(root)
    found = {name.removeprefix("PNG/"): value for name, value in summary(source).items()}
    assert {name: value[:3] for name, value in found.items()} == {
        "train/patient00001/study1/view1_frontal.png": ("train", "patient00001", ["Edema"]),
        "train/patient00002/study5/view1_frontal.png": ("train", "patient00002", []),
        "valid/patient64541/study1/view1_frontal.png": ("val", "patient64541", []),
    }
    # Neither null nor -1 says whether it is there; No Finding leaves the devices open.
    assert set(found["train/patient00001/study1/view1_frontal.png"][3]) == set(FINDINGS) - {"Edema", "Fracture"}
    assert found["train/patient00002/study5/view1_frontal.png"][3] == list(FINDINGS)
    assert found["valid/patient64541/study1/view1_frontal.png"][3] == ["Support Devices"]
    about = {image.patient: image.extra for image in source.images}
    assert about["patient00001"] == {"view": "AP", "sex": "F", "age": "60-69"}
    assert about["patient00002"] == {"view": "PA", "sex": "M", "age": "40-49"}
    drops = {reason: [name.removeprefix("PNG/") for name in names] for reason, names in reasons_of(source).items()}
    assert drops[LATERAL_VIEW] == ["train/patient00001/study1/view2_lateral.png"]
    assert drops[UNLABELLED] == ["train/patient00003/study1/view1_frontal.png"]
    assert drops[UNKNOWN_SPLIT] == ["df_chexpert_plus_240401.csv row 6"]


def test_labels_of_another_part_of_the_reports_and_lateral_views(root):
    source = read_chexpert(root, table="chexbert_labels/report_fixed.json", views="all", unmentioned="negative")
    found = {name.removeprefix("PNG/"): value for name, value in summary(source).items()}
    assert len(found) == 4
    assert found["train/patient00001/study1/view1_frontal.png"][2:] == ([], ["Pneumonia"])


def test_a_radiograph_with_two_lines_that_differ(root):
    path = root / "chexbert_labels" / "impression_fixed.json"
    again = json.dumps(labels(LABELLED[0], Edema=0.0))
    path.write_text(path.read_text() + again + "\n")
    source = read_chexpert(root)
    assert LABELLED[0].replace(".jpg", ".png") not in {image.file_name[4:] for image in source.images}
    assert UNUSABLE_LABEL in reasons_of(source)


def test_lines_without_their_nulls_say_the_same(root):
    path = root / "chexbert_labels" / "impression_fixed.json"
    before = summary(read_chexpert(root))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines.append({"path_to_image": "train/patient00009/study1/view1_frontal.jpg"} | dict.fromkeys(FINDINGS, 0.0))
    whole = "\n".join(json.dumps({name: value for name, value in line.items() if value is not None}) for line in lines)
    path.write_text(whole + "\n")
    assert summary(read_chexpert(root)) == before


@pytest.mark.parametrize("line", ["[1]", '{"Edema": 1}', "{", '{"path_to_image": 3}'])
def test_lines_that_are_no_labels(root, line):
    path = root / "chexbert_labels" / "impression_fixed.json"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=r"impression_fixed\.json line 6 is no JSON object with path_to_image"):
        read_chexpert(root)


def test_files_that_are_missing(root):
    (root / "chexbert_labels" / "impression_fixed.json").unlink()
    with pytest.raises(InputError, match=r"has no chexbert_labels/impression_fixed\.json, .*: put it there, or name"):
        read_chexpert(root)
    (root / "df_chexpert_plus_240401.csv").unlink()
    with pytest.raises(InputError, match=r"has no train\.csv and no valid\.csv"):
        read_chexpert(root)
