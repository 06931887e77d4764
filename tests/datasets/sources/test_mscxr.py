"""MS-CXR: boxes beside MIMIC-CXR's files; findings without a box are unknown, the column split is not believed."""

import json

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


def coco(rows=ROWS):
    """The COCO file of PhysioNet from which the table was made: path and label_text are keys of its own."""
    paths = list(dict.fromkeys(row[3] for row in rows))
    sizes = {row[3]: row[8:10] for row in rows}
    images = [
        {"id": number, "file_name": path.rpartition("/")[2], "path": path, "width": sizes[path][0],
         "height": sizes[path][1], "num_annotations": 1}
        for number, path in enumerate(paths)
    ]  # fmt: skip
    annotations = [
        {"id": number, "image_id": paths.index(row[3]), "category_id": CATEGORIES.index(row[1]) + 1,
         "bbox": list(row[4:8]), "label_text": row[2], "split": row[10]}
        for number, row in enumerate(rows)
    ]  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, 1)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def write_coco(root, content):
    (root / "MS_CXR_Local_Alignment_v1.1.0.csv").unlink(missing_ok=True)
    (root / "MS_CXR_Local_Alignment_v1.1.0.json").write_text(json.dumps(content))


def test_the_coco_file_says_what_the_table_says(root):
    by_table = read_mscxr(root)
    write_coco(root, coco())
    by_coco = read_mscxr(root)
    assert boxes_of(by_coco) == boxes_of(by_table)
    assert summary(by_coco) == summary(by_table)
    assert [image.extra for image in by_coco.images] == [image.extra for image in by_table.images]
    assert [(image.width, image.height) for image in by_coco.images] == [(400, 300), (40, 30)]
    assert by_coco.places[0] == "MS_CXR_Local_Alignment_v1.1.0.json annotation 0"


def test_an_image_of_the_coco_file_may_have_its_path_in_file_name_alone(root):
    content = coco()
    for image in content["images"]:
        image["file_name"] = image.pop("path")
    write_coco(root, content)
    assert summary(read_mscxr(root))[FIRST][1] == "p10000032"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [1, 2, 3]}, reasons.NOT_A_NUMBER),
        ({"bbox": None}, reasons.NOT_A_NUMBER),
        ({"category_id": 99}, reasons.UNKNOWN_CLASS),
        ({"category_id": None}, reasons.UNKNOWN_CLASS),
    ],
)
def test_a_faulty_annotation_costs_its_radiograph(root, change, reason):
    content = coco()
    content["annotations"][0] |= change
    write_coco(root, content)
    source = read_mscxr(root)
    assert [image.file_name for image in source.images] == [SECOND]
    assert reasons_of(source)[reason] == ["MS_CXR_Local_Alignment_v1.1.0.json annotation 0"]


def test_a_coco_file_whose_boxes_may_be_anybodys_is_refused(root):
    content = coco()
    content["annotations"][1]["image_id"] = 7
    write_coco(root, content)
    with pytest.raises(InputError, match=r"annotation 1: its image_id is 7, which no image of the file has"):
        read_mscxr(root)
    content = coco()
    content["images"][1]["id"] = 0
    write_coco(root, content)
    with pytest.raises(InputError, match="gives the id 0 to two images"):
        read_mscxr(root)
    write_coco(root, {"images": [], "annotations": {}})
    with pytest.raises(InputError, match="has no list of annotations: it is no COCO file of MS-CXR"):
        read_mscxr(root)
