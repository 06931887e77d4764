"""Anybody's table: columns found, boxes in every form and unit, labels, blanks, and what is caught."""

import gzip
import json
import re
import zipfile

import cv2
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from xray.datasets import source as reasons
from xray.datasets import sources
from xray.datasets.source import NOT_IN_TABLE
from xray.datasets.sources import table_facts, table_rows
from xray.datasets.sources.edges import MAY_BE_SMALLER
from xray.datasets.sources.table import read_table
from xray.datasets.sources.table_boxes import Reading, _list, may_be_corners, to_corners, to_pixels
from xray.datasets.sources.table_labels import label_list, label_names
from xray.datasets.store import open_store
from xray.errors import FlagError, InputError

WIDTH, HEIGHT, N = 200, 300, 8


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    (root / "images").mkdir()
    for number in range(N):
        grey = np.tile(np.arange(WIDTH, dtype=np.uint8), (HEIGHT, 1)) + number
        cv2.imwrite(str(root / "images" / f"{number:03}.png"), grey)
    return root


@pytest.fixture
def read(pictures, tmp_path):
    """Reads a table with this text, or of these bytes, beside the pictures."""

    def reader(content, name="t.csv", **flags):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_table(pictures, table=str(path), **flags)

    return reader


def boxes(result):
    names = {category["id"]: category["name"] for category in result.categories}
    return [
        (result.images[image].source_id, names[label], *box)
        for image, label, box in zip(
            result.boxes.images.tolist(), result.boxes.labels.tolist(), result.boxes.boxes.tolist(), strict=True
        )
    ]


def shown(result, key="labels"):
    names = {category["id"]: category["name"] for category in result.categories}
    return {image.source_id: [names[number] for number in getattr(image, key) or ()] for image in result.images}


def account(result):
    return [(drop.where, drop.reason) for drop in result.dropped if drop.reason != NOT_IN_TABLE]


def kinds(result):
    return [warning.kind for warning in result.warnings]


BOX = (20.0, 30.0, 60.0, 130.0)


@pytest.mark.parametrize(
    ("header", "cells", "flags"),
    [
        ("image_id,class_name,x_min,y_min,x_max,y_max", "20,30,60,130", {}),
        ("file,label,x,y,w,h", "20,30,40,100", {}),
        ("Image Index,Finding Label,Bbox [x,y,w,h],,,", "20,30,40,100", {}),
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "20,30,60,130", {"between": f"{WIDTH},{HEIGHT},"}),
        ("image,label,x_center,y_center,width,height", "40,80,40,100", {}),
        ("image,label,x_center,y_center,width,height", "0.2,0.266666666666,0.2,0.33333333333", {"units": "share"}),
        ("image,label,bbox_x,bbox_y,bbox_width,bbox_height,image_width,image_height", "20,30,40,100,200,300", {}),
        ("image,label,a,b,c,d", "20,30,60,130", {"box": "xyxy", "columns": "a,b,c,d"}),
        ("image,label,x1,y1,x2,y2", "102.4,102.4,307.2,443.7333333", {"units": "1024"}),
        ("image,label,box", '"[20, 30, 40, 100]"', {"box": "xywh"}),
        ("image,label,bbox_xyxy", '"20 30 60 130"', {}),
        ("image,label,what", '"(20;30;40;100)"', {"columns": "what", "box": "xywh"}),
    ],
)
def test_boxes_in_every_form(read, header, cells, flags):
    between = flags.pop("between", "")
    rows = "".join(f"{n:03}.png,{between}Mass,{cells}\n" if between else f"{n:03}.png,Mass,{cells}\n" for n in range(4))
    result = read(f"{header}\n{rows}", **flags)
    assert [box[:2] for box in boxes(result)] == [(f"{n:03}", "Mass") for n in range(4)]
    assert np.allclose([box[2:] for box in boxes(result)], BOX, atol=1e-4)
    assert shown(result) == {f"{n:03}": ["Mass"] for n in range(4)}
    assert len([drop for drop in result.dropped if drop.reason == NOT_IN_TABLE]) == N - 4


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_separators_and_decimal_commas(read, mark):
    comma = "20,5" if mark != "," else '"20,5"'
    result = read(
        mark.join(("image", "label", "x", "y", "w", "h"))
        + "\n"
        + mark.join(("0", "Mass", comma, "1", "2", "3,25" if mark != "," else "3.25"))
    )
    assert boxes(result) == [("000", "Mass", 20.5, 1, 22.5, 4.25)]


def test_a_comma_that_may_part_thousands(read):
    with pytest.raises(InputError, match=r"is 1,024 more than a thousand, or a decimal fraction"):
        read("image;label;x;y;w;h\n0;Mass;1,024;1;2;3\n")


HEADER = "image,label,x,y,w,h\n"


def test_shares_given_as_pixels_and_the_reverse(read):
    shares = HEADER + "0,Mass,0.1,0.1,0.5,0.5\n"
    with pytest.raises(InputError, match=r"all boxes lie between 0 and 1, .*: give --units share"):
        read(shares)
    pixels = HEADER + "".join(f"{n},Mass,20,30,40,100\n" for n in range(5))
    with pytest.raises(InputError, match=r"5 of 5 boxes .* --units share, and none with --box xywh --units pixels"):
        read(pixels, units="share")
    with pytest.raises(FlagError, match=r"--units px"):
        read(pixels, units="px")


def test_corners_given_as_sides_and_the_reverse(read):
    corners = "".join(f"{n},Mass,{100 + n},150,{160 + n},290\n" for n in range(5))
    with pytest.raises(InputError, match=r"5 of 5 boxes .* with --box xywh .*, and none with --box xyxy"):
        read(HEADER + corners)
    sides = "".join(f"{n},Mass,{100 + n},150,50,90\n" for n in range(5))
    with pytest.raises(InputError, match=r"5 of 5 .* with --box xyxy .*, and none with --box xywh"):
        read(HEADER + sides, box="xyxy")
    centres = "".join(f"{n},Mass,{150 + n},200,80,180\n" for n in range(5))
    with pytest.raises(InputError, match=r"5 of 5 .* with --box xywh .*, and none with --box cxcywh"):
        read(HEADER + centres)
    # One of many beyond an edge is not the form's fault: it is cut there.
    inside = "".join(f"{n % N},Mass,{20 + n},150,50,90\n" for n in range(40)) + "1,Mass,150,100,90,50\n"
    assert len(read(HEADER + inside).boxes) == 41


def test_boxes_of_larger_pictures(read):
    rows = "".join(f"{n},Mass,{2000 + n},1500,600,900\n" for n in range(5))
    with pytest.raises(InputError, match=r"5 of 5 boxes .*: check --box and --units, .*give --width and --height"):
        read(HEADER + rows)
    with_sizes = "".join(f"{n},Mass,{1000 + n},1500,600,900,2000,3000\n" for n in range(5))
    result = read("image,label,x,y,w,h,width,height\n" + with_sizes)
    assert [(image.width, image.height) for image in result.images] == [(2000, 3000)] * 5


def test_boxes_that_seem_to_be_of_smaller_pictures(pictures, tmp_path):
    rows = "".join(f"{n % 4},Mass,{n},10,{30 + n},{190 + n % 24},2000,3000\n" for n in range(30))
    (tmp_path / "t.csv").write_text("image,label,x,y,w,h,width,height\n" + rows)
    result = read_table(pictures, table=str(tmp_path / "t.csv"))
    assert [w.detail for w in result.warnings if w.kind == MAY_BE_SMALLER] == [
        "none passes 224 pixels, and the radiographs are larger: --units 224 if they were drawn there"
    ]


def test_labels_joined_in_a_cell_and_normal_ones(read):
    result = read(
        "image,finding,patient,sex,age,view\n"
        "0,Mass|Nodule,7,F,58,PA\n1,No finding,7.0,M,91,x\n2,mass;Effusion,8,,,\n"
        "3,\"['Mass', 'Nodule']\",,,,\n4,,9,,,\n"
    )
    assert [category["name"] for category in result.categories] == ["Effusion", "Mass", "Nodule"]
    assert shown(result) == {
        "000": ["Mass", "Nodule"], "001": [], "002": ["Effusion", "Mass"], "003": ["Mass", "Nodule"], "004": [],
    }  # fmt: skip
    # Where they are is not known; of the blank one nothing is.
    assert shown(result, "unlocated")["000"] == ["Mass", "Nodule"]
    assert shown(result, "unknown") == {f"{n:03}": [] for n in range(4)} | {"004": ["Effusion", "Mass", "Nodule"]}
    assert [image.patient for image in result.images] == ["7", "7", "8", None, "9"]
    assert [image.normal for image in result.images] == [False, True, False, False, False]
    assert result.images[0].extra == {"view": "PA", "sex": "F", "age": "50-59"}
    assert result.images[1].extra == {"sex": "M", "age": "90+"}
    assert table_rows.BLANK_UNKNOWN in kinds(result)


def test_blank_labels_may_be_negative(read):
    text = "image,label\n0,Mass\n1,\n"
    assert shown(read(text), "unknown")["001"] == ["Mass"]
    result = read(text, blank="negative")
    assert shown(result, "unknown")["001"] == []
    assert table_rows.BLANK_UNKNOWN not in kinds(result)
    # What tools write for a missing cell is none, unless it is said to be a label.
    assert shown(read("image,label\n0,Mass\n1,None\n"), "unknown")["001"] == ["Mass"]
    assert shown(read("image,label\n0,Mass\n1,None\n", normal=["none"]), "unknown")["001"] == []


def test_columns_of_0_and_1(read):
    text = "path,Sex,Mass,Nodule,No Finding\n0,M,1.0,0,\n1,F,-1,,\n2,M,,,1\n3,F,0,True,0\n4,M,0,1,1\n"
    result = read(text)
    assert [category["name"] for category in result.categories] == ["Mass", "Nodule"]
    assert shown(result) == {"000": ["Mass"], "001": [], "002": [], "003": ["Nodule"], "004": ["Nodule"]}
    assert shown(result, "unknown") == {"000": [], "001": ["Mass", "Nodule"], "002": [], "003": [], "004": []}
    assert ("t.csv line 6", table_rows.CONTRADICTORY) in account(result)
    assert [w.detail for w in result.warnings if w.kind == table_rows.UNCERTAIN_LABELS] == [
        "1 labels of -1, or of a word for it, are unknown"
    ]
    assert shown(read(text, uncertain="positive"))["001"] == ["Mass"]
    assert shown(read(text, uncertain="negative", blank="negative"), "unknown")["001"] == []
    assert [c["name"] for c in read(text, label="Nodule,Mass").categories] == ["Nodule", "Mass"]
    # A cell that is none of them costs its radiograph.
    result = read("path,Mass,Nodule\n0,1,0\n1,2,0\n", label="Mass,Nodule")
    assert account(result) == [("t.csv line 3", table_rows.UNKNOWN_LABEL), ("images/001.png", reasons.NO_BOX_LEFT)]


def test_rsnas_table(read):
    result = read("patientId,x,y,width,height,Target\n0,,,,,0\n1,20,30,40,100,1\n1,100,30,40,100,1\n2,,,,,0\n")
    assert boxes(result) == [("001", "Target", *BOX), ("001", "Target", 100, 30, 140, 130)]
    assert shown(result, "unknown") == {"000": [], "001": [], "002": []}
    # A box of what is not there, or of nothing that is named.
    result = read("patientId,x,y,width,height,Target\n0,1,2,30,40,0\n1,20,30,40,100,1\n2,5,5,9,9,\n")
    assert account(result)[:2] == [
        ("t.csv line 2", table_rows.BOX_OF_NEGATIVE),
        ("t.csv line 4", table_rows.BOX_WITHOUT_LABEL),
    ]
    assert list(shown(result)) == ["001"]


def test_tables_of_boxes_alone(read):
    result = read("image,x1,y1,x2,y2\n0,20,30,60,130\n1,,,,\n")
    assert boxes(result) == [("000", "Finding", *BOX)]
    assert shown(result, "unknown") == {"000": [], "001": ["Finding"]}
    assert table_rows.WITHOUT_LABELS in kinds(result)
    assert shown(read("image,x1,y1,x2,y2\n0,20,30,60,130\n1,,,,\n", blank="negative"), "unknown")["001"] == []


def test_vinbigdatas_rows_of_readers(read):
    rows = (
        "0,No finding,R1,,,,\n0,No finding,R2,0,0,1,1\n1,Mass,R1,20,30,60,130\n1,No finding,R2,,,,\n"
        "1,No finding,R1,5,5,9,9\n"
    )
    result = read("image_id,class_name,rad_id,x_min,y_min,x_max,y_max\n" + rows)
    assert boxes(result) == [("001", "Mass", *BOX)]
    assert result.readers == [("R1",)]
    assert [image.readers for image in result.images] == [("R1", "R2"), ("R1", "R2")]
    assert sorted(account(result)) == [
        ("t.csv line 6", table_rows.BOX_OF_NORMAL),
        ("t.csv line 6", table_rows.CONTRADICTORY),
    ]


def test_a_row_a_radiograph_with_lists_of_boxes_and_labels(read):
    two = '"[[20, 30, 60, 130], [1, 2, 3, 4]]"'
    three = two.replace("]]", "], [5, 6, 7, 8]]")
    rows = f"0,\"['Mass', 'Nodule']\",{two}\n1,Mass,{two}\n2,Mass|Nodule,{three}\n3,[],[]\n"
    result = read(f"image,labels,boxes\n{rows}", box="xyxy")
    assert boxes(result) == [
        ("000", "Mass", *BOX), ("000", "Nodule", 1, 2, 3, 4), ("001", "Mass", *BOX), ("001", "Mass", 1, 2, 3, 4),
    ]  # fmt: skip
    assert account(result)[0] == ("t.csv line 4", table_rows.LISTS_DIFFER)


def test_boxes_that_are_none_cost_their_radiograph(read):
    rows = "0,Mass,20,30,40,100\n1,Mass,20,x,40,100\n2,Mass,20,,40,100\n3,Mass,20,30,0,100\n4,Mass,20,30,40,100\n"
    result = read(HEADER + rows)
    assert list(shown(result)) == ["000", "004"]
    assert account(result)[:3] == [
        ("t.csv line 3", reasons.NOT_A_NUMBER), ("t.csv line 4", reasons.NOT_A_NUMBER), ("t.csv line 5", reasons.EMPTY),
    ]  # fmt: skip


def test_radiographs_by_any_name_and_those_without(read):
    result = read(
        "id,where,label\n9,/home/a/raw/images/000.png,Mass\n8,C:\\raw\\images\\001.png,Mass\n7,images/77.png,Mass\n"
    )
    assert shown(result) == {"000": ["Mass"], "001": ["Mass"]}
    assert account(result) == [("t.csv line 4", reasons.MISSING_FILE)]
    with pytest.raises(InputError, match=r"no radiograph of .* can be used"):
        read("image,label\nx,Mass\n")
    with pytest.raises(InputError, match=r"no column of t.csv names the radiographs \(found a, b\): name it with --id"):
        read("a,b\nx,Mass\n")
    with pytest.raises(InputError, match=r"line 3 has a finding and no image, so that"):
        read("image,label\n0,No finding\n,Mass\n")
    assert account(read("image,label\n0,Mass\n,No finding\n,\n")) == [("t.csv line 3", table_rows.NO_ID)]


def test_two_files_that_a_row_may_mean(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            picture = np.full((20, 20), 100 * number + ord(folder), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / folder / f"{number}.png"), picture)
    (tmp_path / "t.csv").write_text("image,label\n0,Mass\na/1.png,Mass\nx/b/1.png,Mass\n")
    result = read_table(tmp_path)
    assert [image.file_name for image in result.images] == ["a/1.png", "b/1.png"]
    assert result.dropped[0].reason == reasons.REPEATED_NAME


def test_splits_of_a_column(read):
    result = read("image,label,set\n0,Mass,train\n1,Mass,VALID\n2,Mass,Test\n3,Mass,\n")
    assert [image.split for image in result.images] == ["train", "val", "test", "train"]
    # A set of another meaning is none, unless it is named.
    text = "image,label,set\n0,Mass,NIH\n"
    assert read(text).images[0].split == "train"
    with pytest.raises(InputError, match=r"'NIH' in set is no split"):
        read(text, split="set")
    with pytest.raises(InputError, match=r"line 3: images/000.png has two values of split, train and test"):
        read("image,label,split\n0,Mass,train\n0,Nodule,test\n")
    assert read("image,label,split\n0,Mass,test\n", split="none").images[0].split == "train"


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("image,label\n0,Mass\n", {"id": "name"}, r"--id name: t.csv has no such column \(found image, label\)"),
        ("image,label\n0,Mass\n", {"columns": "x,y,w,h"}, "--columns x: t.csv has no such column"),
        ("image,label,a,b\n0,Mass,1,2\n", {"columns": "a,b"}, "give four columns, or one that holds lists"),
        ("image,label\n0,Mass\n", {"box": "xywh"}, "no columns of t.csv are boxes"),
        ("image,label,box\n0,Mass,\n", {}, "are box x, y, width, height, or two corners"),
        ("image,label,w\n0,Mass,2\n", {"width": "w"}, "give both columns, or neither"),
        ("image,note\n0,x\n", {}, "has neither labels nor boxes"),
        ("image,label\n0,Mass\n", {"normal": ["Healthy"]}, "--normal Healthy: t.csv has no such label"),
        ("image,label\n0,Normal\n", {}, "has no label besides Normal"),
        ("image,label,box\n0,Mass,[1,2,3,4]\n", {"box": "xywh"}, "more cells than the header has columns"),
        ("", {}, "is not a CSV table"),
    ],
)
def test_what_is_refused(read, text, flags, message):
    with pytest.raises(InputError, match=message) as error:
        read(text, **flags)
    assert "\n" not in str(error.value)


def test_columns_that_are_not_used_are_named(read, capsys):
    # "Befund" is no usual name of labels: unsaid, all boxes would be of one category for no visible reason.
    read("image,Befund,x1,y1,x2,y2,remark\n0,Mass,20,30,60,130,\n")
    said = capsys.readouterr().out
    assert "labels by no column, boxes by x1, y1, x2, y2 (xyxy); not used: Befund, remark\n" in said
    read("image,label,x1,y1,x2,y2\n0,Mass,20,30,60,130\n")
    assert "not used" not in capsys.readouterr().out
    read("image,Mass,Nodule,all,note,a,b,c,d,e,f,g\n0,1,0,-1,,,,,,,,\n")
    assert "; not used: note, a, b, c, d, e and 2 more\n" in capsys.readouterr().out


def test_which_table_there_is(pictures, tmp_path, capsys):
    root = tmp_path / "raw"
    root.mkdir()
    (root / "images").symlink_to(pictures / "images")
    cv2.imwrite(str(root / "0.png"), np.zeros((9, 9), dtype=np.uint8))
    with pytest.raises(InputError, match=r"holds no table"):
        read_table(root)
    (root / "labels.tsv").write_text("image\tlabel\n0\tMass\n")
    (root / "README.txt").write_text("hello\n")
    read_table(root)
    assert "labels.tsv: radiographs by image, labels by label, no boxes\n" in capsys.readouterr().out
    (root / "other.csv").write_text("image,label\n0,Mass\n")
    with pytest.raises(InputError, match=r"holds 2 tables \(labels.tsv, other.csv\): choose one with --table"):
        read_table(root)
    assert read_table(root, table="other.csv").images
    with pytest.raises(InputError, match=r"there is no table none.csv"):
        read_table(root, table="none.csv")


TEXT = "image,label,x1,y1,x2,y2\n" + "".join(f"{n:03},Mass,20,30,60,130\n" for n in range(3))


def test_packed_tables(read, tmp_path):
    packed = tmp_path / "p.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("t.csv", TEXT)
    for content in (gzip.compress(TEXT.encode()), packed.read_bytes(), TEXT.encode("utf-16"), TEXT.encode("utf-8-sig")):
        assert len(read(content, "t.bin").boxes) == 3
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("u.csv", TEXT)
    with pytest.raises(InputError, match=r"holds 2 files \(t.csv, u.csv\): unpack it"):
        read(packed.read_bytes())
    with pytest.raises(InputError, match=r"cannot be unpacked"):
        read(gzip.compress(TEXT.encode())[:30])
    with pytest.raises(InputError, match=r"cannot be unpacked"):
        read(packed.read_bytes()[:60])


def test_parquet(read, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra tables is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table(
        {"image": [0, 1, 2], "label": ["Mass", None, "Mass"], "box": [[20.0, 30.0, 40.0, 100.0], None, [1, 2, 3, 4.5]]}
    )
    parquet.write_table(table, tmp_path / "p.parquet")
    result = read((tmp_path / "p.parquet").read_bytes(), "t.parquet", box="xywh")
    assert boxes(result) == [("000", "Mass", *BOX), ("002", "Mass", 1, 2, 4, 6.5)]
    assert shown(result, "unknown")["001"] == ["Mass"]
    with pytest.raises(InputError, match=r"t.parquet is not a table"):
        read(b"PAR1" + bytes(40), "t.parquet")


def test_spreadsheets(read, tmp_path):
    pytest.importorskip("python_calamine", reason="the extra tables is not installed")
    pytest.importorskip("openpyxl", reason="it writes what is read here")
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    for row in (("image", "label", "x1", "y1", "x2", "y2"), (0, "Mass", 20, 30.0, 60, 130), ("001", None, None, None)):
        sheet.append(row)
    book.save(tmp_path / "t.xlsx")
    result = read((tmp_path / "t.xlsx").read_bytes(), "t.xlsx")
    assert boxes(result) == [("000", "Mass", *BOX)]
    assert shown(result, "unknown")["001"] == ["Mass"]
    book.create_sheet("other").append(("a",))
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(InputError, match=r"has 2 sheets \(Sheet, other\): choose one with --sheet"):
        read((tmp_path / "t.xlsx").read_bytes(), "t.xlsx")
    assert len(read((tmp_path / "t.xlsx").read_bytes(), "t.xlsx", sheet="Sheet").boxes) == 1
    with pytest.raises(InputError, match=r"has no sheet 'x'"):
        read((tmp_path / "t.xlsx").read_bytes(), "t.xlsx", sheet="x")


def test_without_the_extra(read, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r't.parquet, a Parquet file, needs pyarrow: pip install -e "\.\[tables\]"'):
        read(b"PAR1", "t.parquet")


def test_through_convert(pictures, tmp_path):
    rows = "".join(f"{n},Mass,20,30,60,130,{n // 2}\n" for n in range(6)) + "6,No finding,,,,,9\n7,,,,,,9\n"
    (tmp_path / "t.csv").write_text("image,label,x1,y1,x2,y2,patient\n" + rows)
    (tmp_path / "map.yaml").write_text("Mass: Nodule/Mass\n")
    made = sources.convert(
        "table", pictures, tmp_path / "out", table=str(tmp_path / "t.csv"), image_size=32, n_folds=2, n_workers=0,
        map=str(tmp_path / "map.yaml"),
    )  # fmt: skip
    assert made["counts"]["annotations_per_category"] == {"Nodule/Mass": 6}
    assert made["map"]["names"] == {"Mass": "Nodule/Mass"}
    store = open_store(tmp_path / "out")
    assert store.unknown[:, 0].tolist() == [False] * 7 + [True]
    assert store.boxes.boxes.tolist() == [list(BOX)] * 6
    json.dumps(made)
    only = sources.convert(
        "table", pictures, tmp_path / "only", table=str(tmp_path / "t.csv"), table_only=True, n_folds=2
    )
    assert only["counts"]["annotations"] == 6


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["xyxy", "xywh", "cxcywh"]),
    st.sampled_from(["pixels", "share", 512]),
    st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=5),
)
def test_forms_and_units_there_and_back(form, units, corners):
    sizes = np.tile([WIDTH, HEIGHT], (len(corners), 1))
    truth = np.array([(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners])
    scale = {"pixels": np.tile(sizes, 2), "share": 1.0, 512: 512.0}[units]
    given_as = truth * scale
    start, sides = given_as[:, :2], given_as[:, 2:] - given_as[:, :2]
    numbers = {
        "xyxy": given_as,
        "xywh": np.concatenate([start, sides], axis=1),
        "cxcywh": np.concatenate([start + sides / 2, sides], axis=1),
    }[form]
    assert np.allclose(to_pixels(to_corners(numbers, form), units, sizes), truth * np.tile(sizes, 2))
    assert not Reading(form, units).misfits(numbers, sizes.astype(float)).any()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6).map(lambda x: round(x, 3))] * 4), max_size=3))
def test_lists_in_every_spelling(rows):
    flat = [number for row in rows for number in row]
    for text in (
        str(rows),
        str([list(row) for row in rows]),
        " ".join(map(str, flat)),
        ";".join(map(str, flat)),
        json.dumps(rows),
    ):
        assert _list(text).tolist() == [list(row) for row in rows]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20))
def test_any_cell_is_read_or_refused(text):
    assert _list(text).shape[1] == 4
    assert len(set(label_names(text, "t"))) == len(label_names(text, "t")) <= len(label_list(text, "t"))


def test_many_boxes_that_could_be_corners():
    numbers = np.array([[10, 20, 30, 40]] * 20)
    assert may_be_corners(numbers)
    assert not may_be_corners(numbers[:5])
    assert not may_be_corners(np.concatenate([numbers, [[50, 20, 30, 40]]]))


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_the_rows_does_not_decide_how_a_label_is_spelt(read, order):
    rows = ["000.png,mass", "001.png,Mass", "002.png,nodule"]
    assert [one["name"] for one in read("\n".join(["image,label", *rows[::order]])).categories] == ["Mass", "nodule"]


def test_a_radiograph_of_two_patients(read):
    with pytest.raises(InputError, match=r"two values of patient, 1 and 2: correct the table"):
        read("image,label,patient\n000.png,Mass,1\n000.png,Nodule,2\n")


@pytest.mark.parametrize("side", ["0", "inf", "-5", "x", "1000000"])
def test_a_size_that_no_radiograph_has_costs_its_boxes_and_a_blank_one_does_not(read, side):
    rows = [f"000.png,A,1,2,3,4,{side},{side}", "001.png,A,1,2,3,4,,", "002.png,A,1,2,3,4,400,600"]
    source = read("\n".join(["image,label,x,y,w,h,image_width,image_height", *rows]))
    sizes = [(image.source_id, image.width) for image in source.images]
    assert sizes == [("001", None), ("002", 400)]
    assert table_facts.NO_SIZE in [drop.reason for drop in source.dropped]


def test_labels_joined_by_commas_are_several_where_each_is_one_elsewhere(read):
    rows = ['000.png,"Mass, nodule"', "001.png,Mass", "002.png,Nodule", '003.png,"Mass, large"']
    source = read("\n".join(["image,label", *rows]))
    assert [category["name"] for category in source.categories] == ["Mass", "Mass, large", "Nodule"]
    assert [image.labels for image in source.images] == [(1, 3), (1,), (3,), (2,)]


def test_a_row_without_a_split_is_said_to_train(read):
    source = read("image,label,split\n000.png,Mass,test\n001.png,Mass,\n")
    assert [image.split for image in source.images] == ["test", "train"]
    assert (table_facts.BLANK_SPLIT, "1 of 2 radiographs") in [
        (warning.kind, warning.detail) for warning in source.warnings
    ]


@pytest.mark.parametrize("more", ["", ","])
def test_two_columns_of_one_name_and_cells_of_any_length(read, more):
    with pytest.raises(InputError, match="two columns of one name"):
        read(f"image,label,label\n000.png,Mass,Nodule{more}\n")
    source = read(f"image,label,notes\n000.png,Mass,{'x' * 200_000}{more}\n")
    assert len(source.images) == 1


LABELLED = "image,{}\n000,{}\n001,{}\n002,{}\n003,{}\n"


@pytest.mark.parametrize(
    ("column", "cells", "refused"),
    [
        ("split", ["train", "test", "external", "train"], "'external' in split is no split"),
        ("split", ["0", "1", "2", "0"], "'0' in split is no split"),
        ("dataset", ["train", "test", "NIH", "train"], "'NIH' in dataset is no split"),
        ("dataset", ["NIH", "NIH", "RSNA", "NIH"], None),
        ("Set", ["Training", "Testing", "", "dev"], None),
        ("source", ["train", "val", "test", "train"], None),
    ],
)
def test_splits_that_are_not_understood_do_not_all_train(read, column, cells, refused):
    content = LABELLED.format(f"label,{column}", *(f"Mass,{cell}" for cell in cells))
    if refused is None:
        meant = {"val": "val", "dev": "val", "test": "test", "Testing": "test"}
        assert [image.split for image in read(content).images] == [meant.get(cell, "train") for cell in cells]
        return
    with pytest.raises(InputError, match=refused):
        read(content)
    assert {image.split for image in read(content, split="none").images} == {"train"}


@pytest.mark.parametrize("column", ["is_test", "test", "in_train", "Validation"])
def test_a_column_of_yes_and_no_about_splits_is_no_finding(read, column):
    content = LABELLED.format(f"Mass,{column}", "1,0", "0,1", "0,0", "1,0")
    with pytest.raises(InputError, match=rf"{column} may say which radiographs train"):
        read(content)
    for flags in ({"split": "none"}, {"label": "Mass"}):
        assert [category["name"] for category in read(content, **flags).categories] == ["Mass"]


@pytest.mark.parametrize(
    ("cells", "refused"),
    [
        (["0", "1", "0", "*"], "Nodule has '*' beside 1, 0 and -1"),
        (["0", "0.33", "1", "0.67"], "Nodule has '0.33' beside"),
        (["0", "2", "1", "0"], "Nodule has '2' beside"),
        (["0.0", "1.0", "", "-1"], None),
        (["No", "Yes", "no", ""], None),
        (["F", "T", "f", "t"], None),
        (["absent", "Present", "", "absent"], None),
        (["12", "7", "0", "44"], None),
    ],
)
def test_a_column_of_labels_is_not_lost_for_a_cell(read, cells, refused):
    content = LABELLED.format("Mass,Nodule", *(f"{number % 2},{cell}" for number, cell in enumerate(cells)))
    if refused is not None:
        with pytest.raises(InputError, match=re.escape(refused)):
            read(content)
        return
    result = read(content)
    if len(result.categories) == 2:
        assert shown(result)["001"] == (["Mass", "Nodule"] if cells[1] != "-1" else ["Mass"])
    else:
        assert cells[0] == "12"


@pytest.mark.parametrize("cells", ["FFFF", "FMFF", "NNNN", "NLRN"])
def test_a_letter_is_a_no_only_beside_its_yes(read, cells):
    """As of a column Sexe or Norm."""
    content = LABELLED.format("Mass,Other", *(f"{number % 2},{cell}" for number, cell in enumerate(cells)))
    assert [category["name"] for category in read(content).categories] == ["Mass"]


def test_a_label_called_positive_is_a_name(read):
    result = read(LABELLED.format("label", "positive", "negative", "positive", "negative"))
    assert shown(result) == {"000": ["positive"], "001": [], "002": ["positive"], "003": []}


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["Mass", "Effusion", "Effusion, Mass", "Mass"], {"Mass", "Effusion"}),
        (["Mass,Effusion", "Effusion,Mass", "No finding", "Mass,Effusion"], {"Mass", "Effusion"}),
        (["Pneumonia, viral", "Pneumonia, bacterial", "Pneumonia", "Normal"],
         {"Pneumonia, viral", "Pneumonia, bacterial", "Pneumonia"}),
        (["Mass", "Effusion, Mass", "No finding", "Mass"], None),
        (["Mass,Effusion", "Effusion,Mass", "Nodule,Mass", "Normal"], None),
    ],
)  # fmt: skip
def test_commas_between_labels(read, cells, found):
    content = LABELLED.format("labels", *(f'"{cell}"' for cell in cells))
    if found is None:
        with pytest.raises(InputError, match="one label, or 2"):
            read(content)
        return
    assert {category["name"] for category in read(content).categories} == found


@pytest.mark.parametrize(
    "content", ["000.png,0\n001.png,1\n002.png,1\n", "000.png,1,2,8,9,Mass\n001.png,1,2,8,9,Mass\n"]
)
def test_a_table_without_a_header_is_refused(read, content):
    with pytest.raises(InputError, match=r"t\.csv has no header: 000\.png in its first line is a radiograph"):
        read(content)


@pytest.mark.parametrize(
    "cell",
    ["https://x.org/a/000.png?token=a/b#c", "s3://bucket/set/000.png", "file:///home/x/000.png", "D:\\set\\000.PNG"],
)
def test_addresses_name_files(read, cell):
    assert [image.source_id for image in read(f"image,label\n{cell},Mass\n").images] == ["000"]


@pytest.mark.parametrize(
    "cell",
    ["[[10, 5], [20, 5], [30, 50], [10, 40]]", "[(10 5) (20 5) (30 50) (10 40)]", "10,5 20,5 30,5 40,5"],
)
def test_points_of_an_outline_are_no_boxes(read, cell):
    result = read(f'image,label,bbox\n000,Mass,"{cell}"\n001,Mass,"[[1, 2], [3, 4]]"\n', box="xyxy")
    assert boxes(result) == [("001", "Mass", 1, 2, 3, 4)]
    assert (result.dropped[0].where, result.dropped[0].reason) == ("t.csv line 2", reasons.NOT_A_NUMBER)


@pytest.mark.parametrize(
    ("cell", "corners"),
    [
        ("[{'x': 1, 'y': 2.5, 'width': 3, 'height': 4}, {'x': 5, 'y': 6, 'width': 7, 'height': 8}]",
         [(1, 2.5, 4, 6.5), (5, 6, 12, 14)]),
        ("{'xmin': 1, 'ymin': 2, 'width': 3, 'height': 4}", [(1, 2, 4, 6)]),
        ('{""ymax"": 9, ""xmin"": 1, ""xmax"": 3, ""ymin"": 2}', [(1, 2, 3, 9)]),
        ("({'x1': 1, 'y1': 2, 'x2': 3, 'y2': 4},)", [(1, 2, 3, 4)]),
        ("{'cx': 10, 'cy': 10, 'w': 4, 'h': 6}", [(8, 7, 12, 13)]),
    ],
)  # fmt: skip
def test_boxes_by_name_in_a_cell(read, cell, corners):
    result = read(f'image,label,bbox\n000,Mass,"{cell}"\n001,Normal,none\n002,Normal,[]\n')
    assert boxes(result) == [("000", "Mass", *box) for box in corners]
    assert shown(result) == {"000": ["Mass"], "001": [], "002": []}


def test_boxes_by_name_that_are_none_or_of_another_form(read):
    good = "{'x': 1, 'y': 2, 'width': 3, 'height': 4}"
    bad = ["{'x': 1, 'y': 2, 'width': 3}", "{'x1': 1, 'y1': 2, 'x2': 3, 'y2': 4}", "{'x': 'a', 'y': 2, 'w': 3, 'h': 4}"]
    rows = "".join(f'{number:03},Mass,"{cell}"\n' for number, cell in enumerate([good, *bad, "{1: 2"]))
    result = read(f"image,label,bbox\n{rows}")
    assert [image.source_id for image in result.images] == ["000"]
    with pytest.raises(InputError, match=r"--box xyxy: the numbers in bbox of t\.csv have the names of xywh"):
        read(f'image,label,bbox\n000,Mass,"{good}"\n', box="xyxy")


@pytest.mark.parametrize("column", ["PID", "MRN", "pat_id", "Patient No.", "Patient Number", "Subject No", "person_id"])
def test_usual_names_of_patients(read, column):
    result = read(f"image,label,{column}\n000,Mass,7\n001,Mass,7.0\n002,Mass,\n")
    assert [image.patient for image in result.images] == ["7", "7", None]


def test_a_table_given_as_the_folder_is_sent_to_its_flag(tmp_path):
    (tmp_path / "boxes.csv").write_text("image,label\n000,Mass\n")
    with pytest.raises(InputError, match=r"boxes\.csv is a file, and a folder is needed: .* with --table"):
        read_table(tmp_path / "boxes.csv")
