"""MS-CXR: boxes beside MIMIC-CXR's files; findings without a box are unknown, the column split is not believed."""

import numpy as np
import pytest
from set_cases import boxes_of, picture, reasons_of, summary, table

from xray.datasets import source as reasons
from xray.datasets.conversion import write_store
from xray.datasets.sources.mscxr import CATEGORIES, NO_SIZE, read_mscxr
from xray.datasets.store import open_store
from xray.errors import InputError

HEADER = "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height,split"
FIRST = "files/p10/p10000032/s50414267/02aa804e-bde0afdd.jpg"
SECOND = "files/p11/p11000001/s50000001/174413ec-4ec4c1f7.jpg"
ROWS = [
    ["02aa804e-bde0afdd", "Pneumothorax", "large left pneumothorax", FIRST, 20, 30.5, 10, 40, 400, 300, "train"],
    ["02aa804e-bde0afdd", "Pneumothorax", "large left pneumothorax", FIRST, 60, 30, 10, 40, 400, 300, "train"],
    ["02aa804e-bde0afdd", "Edema", "mild edema", FIRST, 0, 0, 400, 300, 400, 300, "test"],
    ["174413ec-4ec4c1f7", "Cardiomegaly", "", SECOND, 1, 2, 3, 4, 40, 30, "test"],
]


@pytest.fixture
def root(tmp_path):
    picture(tmp_path / "in" / FIRST)  # a tenth of the size that the table gives
    picture(tmp_path / "in" / SECOND)
    picture(tmp_path / "in/files/p12/p12000001/s50000002/other.jpg")  # one of MIMIC-CXR's 377,000 others
    table(tmp_path / "in/MS_CXR_Local_Alignment_v1.1.0.csv", HEADER, ROWS)
    return tmp_path / "in"


def test_boxes_are_x_y_w_h_in_pixels_of_the_jpg(root, tmp_path):
    source = read_mscxr(root)
    assert boxes_of(source) == [
        (FIRST, "Pneumothorax", [20, 30.5, 30, 70.5], ()),
        (FIRST, "Pneumothorax", [60, 30, 70, 70], ()),
        (FIRST, "Edema", [0, 0, 400, 300], ()),
        (SECOND, "Cardiomegaly", [1, 2, 4, 6], ()),
    ]
    unknown = [name for name in CATEGORIES if name not in ("Pneumothorax", "Edema")]
    assert summary(source)[FIRST] == ("train", "p10000032", [], unknown)
    assert summary(source)[SECOND][:2] == ("train", "p11000001")
    assert source.images[0].extra == {"phrases": ["large left pneumothorax", "mild edema"]}
    assert reasons_of(source) == {}
    write_store(source, tmp_path / "out", image_size=32, n_folds=2, n_workers=0)
    store = open_store(tmp_path / "out")
    assert store.records[0]["labels"] == [4, 8]
    assert store.unknown.sum(axis=1).tolist() == [6, 7]
    assert np.flatnonzero(~store.unknown[0]).tolist() == [3, 7]


def test_files_may_lie_otherwise_and_be_dicom(root):
    for path in (FIRST, SECOND):
        (root / path).rename(root / path.rpartition("/")[2])
    source = read_mscxr(root)
    assert [image.file_name for image in source.images] == ["02aa804e-bde0afdd.jpg", "174413ec-4ec4c1f7.jpg"]
    (root / SECOND.rpartition("/")[2]).rename(root / SECOND.removeprefix("files/").replace("/", "_"))
    assert len(read_mscxr(root).images) == 1


def test_faulty_rows_cost_their_radiograph(root):
    rows = [*ROWS, [*ROWS[3][:4], 5, 5, -1, 4, 40, 30, ""], ["none", *ROWS[3][1:]]]
    table(root / "MS_CXR_Local_Alignment_v1.1.0.csv", HEADER, rows)
    source = read_mscxr(root)
    assert [image.file_name for image in source.images] == [FIRST]
    assert reasons_of(source)[reasons.INVERTED] == ["MS_CXR_Local_Alignment_v1.1.0.csv line 6"]
    for column, value in ((1, "Mass"), (8, "")):
        row = list(ROWS[0])
        row[column] = value
        table(root / "MS_CXR_Local_Alignment_v1.1.0.csv", HEADER, [row, ROWS[3]])
        assert [image.file_name for image in read_mscxr(root).images] == [SECOND]


def test_a_path_that_leads_out_is_not_followed(root):
    row = [*ROWS[0][:3], "../02aa804e-bde0afdd.jpg", *ROWS[0][4:]]
    picture(root.parent / "02aa804e-bde0afdd.jpg")
    table(root / "MS_CXR_Local_Alignment_v1.1.0.csv", HEADER, [row, ROWS[3]])
    assert [image.file_name for image in read_mscxr(root).images] == [SECOND]


def test_without_the_table(tmp_path):
    with pytest.raises(InputError, match=r"has no MS_CXR_Local_Alignment_v1\.1\.0\.csv"):
        read_mscxr(tmp_path)


def test_a_box_of_nobody(root):
    table(root / "MS_CXR_Local_Alignment_v1.1.0.csv", HEADER, [*ROWS, ["", *ROWS[0][1:]]])
    with pytest.raises(InputError, match="line 6 has a finding but no dicom_id"):
        read_mscxr(root)


@pytest.mark.parametrize("side", ["1e300", "100000", "0", ""])
def test_a_size_that_no_radiograph_has(root, side):
    table(root / "MS_CXR_Local_Alignment_v1.1.0.csv", HEADER, [[*ROWS[0][:8], side, side, "train"], ROWS[3]])
    source = read_mscxr(root)
    assert reasons_of(source)[NO_SIZE] == ["MS_CXR_Local_Alignment_v1.1.0.csv line 2"]
    assert list(summary(source)) == [SECOND]
