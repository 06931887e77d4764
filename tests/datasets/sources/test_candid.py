"""CANDID-PTX: -1 and empty cells, masks in several rows, chest tubes and rib fractures, files without a suffix."""

import numpy as np
import pytest
from set_cases import boxes_of, reasons_of, summary, table

from xray.datasets import source as reasons
from xray.datasets.sources.candid import SEVERAL_PATIENTS, STUDY_FOR_PATIENT, read_candid
from xray.datasets.sources.siim_tables import CONTRADICTORY
from xray.errors import InputError
from xray.phantoms.dicom import dicom_of, sample_storage
from xray.structures import rle

SIDE = 40
UIDS = [f"1.2.{number}.435.6" for number in range(7)]


def mask(x1, y1, x2, y2):
    pixels = np.zeros((SIDE, SIDE), dtype=bool)
    pixels[y1:y2, x1:x2] = True
    return pixels


LEFT, RIGHT, TUBE = mask(2, 3, 6, 10), mask(20, 5, 30, 9), mask(30, 0, 32, 40)


def text(pixels, dialect="relative"):
    return rle.encode(pixels, dialect)


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    """DICOM files without a suffix, of 40 pixels."""
    folder = tmp_path_factory.mktemp("candid")
    rng = np.random.default_rng(1)
    for number, uid in enumerate(UIDS):
        pixels = rng.random((SIDE, SIDE), dtype=np.float32)
        dicom_of(pixels, sample_storage(rng), f"i{number}", 0.2, "F", 50, "PA", rng).save_as(folder / uid)
    return folder


@pytest.fixture
def root(radiographs, tmp_path):
    (tmp_path / "dataset").mkdir()
    for path in radiographs.iterdir():
        (tmp_path / "dataset" / path.name).write_bytes(path.read_bytes())
    rows = [
        (UIDS[0], text(LEFT), "P0001_1.dcm", '"Pneumothorax, left"'),
        (UIDS[0], text(RIGHT), "P0001_1.dcm", ""),
        (UIDS[0], text(RIGHT), "P0001_1.dcm", ""),
        (UIDS[1], "-1", "P0001_2.dcm", ""),
        (UIDS[2], "", "P0002_1.dcm", ""),
        (UIDS[3], "-1.0", "P0003_1.dcm", ""),
        (UIDS[4], text(LEFT), "P0004_1.dcm", ""),
        (UIDS[4], "-1", "P0004_1.dcm", ""),
        (UIDS[5], "-1", "P0005_1.dcm", ""),
        (UIDS[5], "-1", "P0006_1.dcm", ""),
        ("1.2.99", "-1", "P0009_1.dcm", ""),
    ]
    reports = table(tmp_path / "Pneumothorax_reports.csv", "SOPInstanceUID,EncodedPixels,filename,Report", rows)
    reports.write_bytes(b"\xef\xbb\xbf" + reports.read_bytes())
    header = "anon_SOPUID,annotation_ref,mask_rle"
    table(tmp_path / "chest_tube.csv", header, [(UIDS[1], "a", text(TUBE)), (UIDS[3], "b", "-1")])
    table(tmp_path / "acute_rib_fracture.csv", header, [(UIDS[6], "a", text(RIGHT))])
    return tmp_path


def test_masks_of_three_categories_and_what_is_unknown(root):
    source = read_candid(root, n_workers=0)
    assert [category["name"] for category in source.categories] == ["Pneumothorax", "Chest tube", "Acute rib fracture"]
    names = [f"dataset/{uid}" for uid in UIDS]
    assert boxes_of(source) == [
        (names[0], "Pneumothorax", [2, 3, 6, 10], ()),
        (names[0], "Pneumothorax", [20, 5, 30, 9], ()),
        (names[1], "Chest tube", [30, 0, 32, 40], ()),
        (names[6], "Acute rib fracture", [20, 5, 30, 9], ()),
    ]
    assert len(source.masks) == 4
    assert summary(source) == {
        names[0]: ("train", "P0001", [], []),
        names[1]: ("train", "P0001", [], []),
        names[2]: ("train", "P0002", [], ["Pneumothorax"]),
        names[3]: ("train", "P0003", [], []),
        names[6]: ("train", None, [], ["Pneumothorax"]),  # nobody reported on it
    }
    assert [image.source_id for image in source.images] == [UIDS[number] for number in (0, 1, 2, 3, 6)]
    drops = reasons_of(source)
    assert drops[reasons.DUPLICATE] == ["Pneumothorax_reports.csv line 4", "Pneumothorax_reports.csv line 11"]
    assert drops[CONTRADICTORY] == ["Pneumothorax_reports.csv line 8"]
    assert drops[SEVERAL_PATIENTS] == ["Pneumothorax_reports.csv line 11"]
    assert drops[reasons.MISSING_FILE] == ["Pneumothorax_reports.csv line 12"]


def test_a_table_that_is_missing_is_no_category(root):
    (root / "chest_tube.csv").unlink()
    (root / "acute_rib_fracture.csv").rename(root / "Rib_fracture_mask_rle.csv")
    source = read_candid(root, n_workers=0)
    assert [category["name"] for category in source.categories] == ["Pneumothorax", "Acute rib fracture"]


def test_the_other_dialect_is_caught(root):
    for name in ("chest_tube.csv", "acute_rib_fracture.csv"):
        (root / name).unlink()
    rows = [(UIDS[number], text(RIGHT, "absolute"), f"P{number}_1") for number in range(3)]
    table(root / "Pneumothorax_reports.csv", "SOPInstanceUID,EncodedPixels,filename", rows)
    with pytest.raises(InputError, match=r"3 masks are run lengths of the absolute dialect.*add --dialect absolute"):
        read_candid(root, n_workers=0)
    source = read_candid(root, dialect="absolute", n_workers=0)
    assert [box for _, name, box, _ in boxes_of(source) if name == "Pneumothorax"] == [[20, 5, 30, 9]] * 3


def test_masks_of_larger_radiographs_need_their_size(root):
    large = np.zeros((80, 80), dtype=bool)
    large[60:70, 60:78] = True
    rows = [(UIDS[number], text(large), f"P{number}_1") for number in range(3)]
    table(root / "Pneumothorax_reports.csv", "SOPInstanceUID,EncodedPixels,filename", rows)
    for name in ("chest_tube.csv", "acute_rib_fracture.csv"):
        (root / name).unlink()
    with pytest.raises(InputError, match="3 masks run beyond their radiographs"):
        read_candid(root, n_workers=0)
    source = read_candid(root, mask_size=80, n_workers=0)
    assert boxes_of(source)[0][2] == [60, 60, 78, 70]
    assert (source.images[0].width, source.images[0].height) == (80, 80)


def test_a_mask_that_is_none_costs_its_radiograph(root):
    rows = [(UIDS[0], "3 4 5", "P1_1"), (UIDS[1], text(LEFT), "P2_1")]
    table(root / "Pneumothorax_reports.csv", "SOPInstanceUID,EncodedPixels,filename", rows)
    source = read_candid(root, n_workers=0)
    assert UIDS[0] not in [image.source_id for image in source.images]
    assert reasons_of(source)[rle.MALFORMED] == ["Pneumothorax_reports.csv line 2"]


def test_a_mask_of_nobody(root):
    path = root / "chest_tube.csv"
    path.write_text(path.read_text() + f",c,{text(TUBE)}\n,d,-1\n")
    with pytest.raises(InputError, match="line 4 has a finding but no anon_SOPUID"):
        read_candid(root, n_workers=0)


def test_a_study_is_a_patient_where_no_file_name_tells_him(root):
    rows = [(UIDS[0], text(LEFT), "1.2.3.4"), (UIDS[1], "-1", "1.2.3.4"), (UIDS[2], "", "1.2.3.5")]
    table(root / "Pneumothorax_reports.csv", "SOPInstanceUID,EncodedPixels,StudyInstanceUID", rows)
    source = read_candid(root, n_workers=0)
    patients = {image.source_id: image.patient for image in source.images}
    assert [patients[uid] for uid in UIDS[:4]] == ["1.2.3.4", "1.2.3.4", "1.2.3.5", None]


def test_tables_of_two_editions_do_not_change_a_patient(root):
    rows = [(UIDS[number], "-1", f"P000{number}_1.dcm") for number in range(4)]
    table(root / "Pneumothorax_reports.csv", "SOPInstanceUID,EncodedPixels,filename", rows)
    # The other table has the study where this one has the file: of images 0 and 4 the same.
    rows = [(UIDS[0], text(TUBE), "1.9.1"), (UIDS[4], text(TUBE), "1.9.1"), (UIDS[5], text(TUBE), "1.9.5")]
    table(root / "chest_tube.csv", "anon_SOPUID,mask_rle,StudyInstanceUID", rows)
    (root / "acute_rib_fracture.csv").unlink()
    source = read_candid(root, n_workers=0)
    of = {image.source_id: image.patient for image in source.images}
    expected = {UIDS[number]: f"P000{number}" for number in range(4)} | {UIDS[4]: "P0000", UIDS[5]: "1.9.5"}
    assert of == expected
    said = [warning for warning in source.warnings if warning.kind == STUDY_FOR_PATIENT]
    assert [(warning.where, warning.detail) for warning in said] == [(f"dataset/{UIDS[5]}", "chest_tube.csv line 4")]


def test_two_tables_that_disagree_on_the_patient_cost_the_radiograph(root):
    rows = [(UIDS[number], "-1", f"P000{number}_1.dcm") for number in range(3)]
    table(root / "Pneumothorax_reports.csv", "SOPInstanceUID,EncodedPixels,filename", rows)
    table(root / "chest_tube.csv", "anon_SOPUID,mask_rle,filename", [(UIDS[1], text(TUBE), "P0009_1.dcm")])
    source = read_candid(root, n_workers=0)
    assert f"dataset/{UIDS[1]}" not in summary(source)
    (dropped,) = (drop for drop in source.dropped if drop.reason == SEVERAL_PATIENTS)
    assert (dropped.where, dropped.detail) == ("chest_tube.csv line 2", "P0001 and P0009")
