"""Tables of original sizes, whatever they are called and however they are spelt."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.datasets.sizes import find_sizes, original_sizes, read_sizes, size_columns, size_table
from xray.errors import InputError


def table(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("image_id,dim0,dim1", ("dim1", "dim0")),
        ("image_id,width,height", ("width", "height")),
        ("ImageId, Height , WIDTH", (" WIDTH", " Height ")),
        ("file,Rows,Columns", ("Columns", "Rows")),
        ("id,original_width,original_height,width,height", ("original_width", "original_height")),
        ("Image Index,OriginalImage[Width,Height]", ("OriginalImage[Width", "Height]")),
        ("image_id,x_min,y_min,x_max,y_max,width,height", ("width", "height")),
        # Boxes: RSNA's table, and one in YOLO's form, in which width and height are the image's.
        ("patientId,x,y,width,height,Target", None),
        ("image_id,x_center,y_center,w,h", None),
        ("image_id,x_mid,y_mid,w,h,width,height", ("width", "height")),
        ("image_id,width", None),
        ("image_id,width,height,raw_width,raw_height", ("raw_width", "raw_height")),
        ("image_id,height_original,width_original,width,height", ("width_original", "height_original")),
        ("image_id,new_width,new_height,width,height", ("width", "height")),
        ("image_id,image_rows,image_columns", ("image_columns", "image_rows")),
        ("id,ncols,nrows", ("ncols", "nrows")),
        ("id,x_size,y_size", ("x_size", "y_size")),
        ("image_id,heart_width,heart_height,resized_width,resized_height", None),
    ],
)
def test_which_columns_are_sizes(columns, expected):
    assert size_columns(columns.split(",")) == expected


@pytest.mark.parametrize(
    "text",
    [
        "image_id,dim0,dim1\na,30,20\nb,50,40\n",
        "image_id,width,height\na,20.0,30.0\nb, 4e1 ,50\n",
        "ImageId,rows,columns\na.dicom,30,20\nb.dicom,50,40\n",
        "file name,width,height\ntest/a.png,20,30\ntest/b.png,40,50\n",
        "path,width,height\n.\\png\\test\\a.png,20,30\nother\\b.jpg,40,50\n",
        # The column that names the pictures counts, not the first that could.
        "id,image_id,width,height\n1,a,20,30\n2,b,40,50\n",
        # One row for each box; a row without a size beside those with one.
        "image_id,x_min,width,height\na,1,20,30\na,2,20,30\nb,,40,50\nb,,,\n",
        "\ufeffimage_id,dim0,dim1\r\na,30,20\r\nb,50,40\r\n",
        "image_id;dim0;dim1\na;30;20\nb;50;40\n",
        "image_id\tdim0\tdim1\na\t30\t20\nb\t50\t40\n",
    ],
)
def test_spellings(text, tmp_path):
    path = tmp_path / "any name.csv"
    path.write_bytes(text.encode())
    pictures = [("test/a.png", "a.png", "a"), ("test/b.png", "b.png", "b"), ("test/c.png", "c.png", "c")]
    assert read_sizes(path).of(pictures) == [(20, 30), (40, 50), None]


def test_names_that_are_numbers(tmp_path):
    sizes = read_sizes(table(tmp_path / "t.csv", "id,width,height\n7.0,20,30\n12,40,50\n"))
    assert sizes.of([("007", "007.png"), ("12.png", "12"), ("70", "70.png")]) == [(20, 30), (40, 50), None]


@pytest.mark.parametrize(
    "row", ["a,0,5", "a,-3,5", "a,2.5,5", "a,x,5", "a,inf,5", "a,,5", "a,20000,20000", "a,1e400,1"]
)
def test_a_size_that_is_none(tmp_path, row):
    (size,) = read_sizes(table(tmp_path / "t.csv", f"image_id,width,height\n{row}\nb,1,1\n")).of([("a",)])
    assert isinstance(size, str)
    assert size.startswith("its size is ")


def test_one_picture_with_two_sizes(tmp_path):
    (size,) = read_sizes(table(tmp_path / "t.csv", "id,width,height\na,1,2\na,3,4\na,1,2\n")).of([("a",)])
    assert size == "it gives two sizes"


@pytest.mark.parametrize(
    "text", ["image_id,class\na,1\n", "width,height\n1,2\n", "patientId,x,y,width,height\na,1,1,5,5\n"]
)
def test_tables_without_sizes(tmp_path, text):
    with pytest.raises(InputError, match=r"t\.csv tells no original sizes \(its columns are .*it needs image_id"):
        read_sizes(table(tmp_path / "t.csv", text))


def test_tables_that_are_looked_for(tmp_path):
    for name in ("test_meta.csv", "test/sample_submission.csv", "Sizes of all.csv", "scan_meta.csv"):
        table(tmp_path / name, "image_id,width,height\na,1,2\n")
    table(tmp_path / "train.csv", "image_id,class\na,1\n")
    found, others = find_sizes([tmp_path / "test", tmp_path, tmp_path / "none"], ["test"])
    assert [sizes.path.relative_to(tmp_path).as_posix() for sizes in found] == [
        "test/sample_submission.csv",
        "test_meta.csv",
    ]
    assert [path.name for path in others] == ["Sizes of all.csv", "scan_meta.csv"]
    # A folder of another name has a table of its own name.
    assert [sizes.path.name for sizes in find_sizes([tmp_path], ["scan"])[0]] == ["scan_meta.csv", "test_meta.csv"]


def test_a_table_that_leads_out_is_refused(tmp_path):
    table(tmp_path / "elsewhere" / "t.csv", "image_id,width,height\na,1,2\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test_meta.csv").symlink_to(tmp_path / "elsewhere" / "t.csv")
    with pytest.raises(InputError, match="is a link that leads out of"):
        find_sizes([tmp_path / "data"], ["test"])


def test_two_tables_together(tmp_path):
    train = read_sizes(table(tmp_path / "train_meta.csv", "id,width,height\na,1,2\n1,5,6\n2,5,6\nc,9,9\n"))
    test = read_sizes(table(tmp_path / "test_meta.csv", "id,width,height\nb,3,4\n1,7,8\nc,9,9\n"))
    pictures = [("scans/a.png", "a"), ("scans/b.png", "b"), ("scans/c.png", "c"), ("scans/1.png", "1")]
    assert original_sizes([train, test], pictures) == [
        (1, 2),
        (3, 4),
        (9, 9),
        "train_meta.csv says 5 x 6, test_meta.csv 7 x 8",
    ]
    # The first of test/ is not the first of train/; one that the table of test/ lacks is not that of train/.
    numbered = [("test/1.png", "1"), ("train/1.png", "1"), ("test/2.png", "2"), ("test/a.png", "a")]
    assert original_sizes([train, test], numbered) == [(7, 8), (5, 6), None, (1, 2)]


SIDES = st.integers(1, 9000)


@given(
    st.dictionaries(st.text("abc01._- ", min_size=1, max_size=5).map(str.strip).filter(bool), st.tuples(SIDES, SIDES))
)
def test_every_picture_gets_the_size_that_its_own_name_has(sizes):
    rows = pd.DataFrame({"image_id": list(sizes), "dim0": [f"{h}.0" for _, h in sizes.values()]})
    rows["dim1"] = [str(w) for w, _ in sizes.values()]
    found = size_table("t.csv", rows, b"")
    if sizes:
        assert found.of([(name,) for name in sizes]) == list(sizes.values())
