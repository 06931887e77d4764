"""Parquet and spreadsheets: types of cells, and what a sheet has beside its cells."""

import cv2
import numpy as np
import pytest
from source_cases import stated

from xray.datasets.sources.table import HIDDEN_ROWS, LINES_ABOVE, read_table
from xray.errors import InputError

IDS = ["000.png", "001.png", "002.png", "003.png"]


@pytest.fixture
def pictures(tmp_path):
    for number, name in enumerate(IDS):
        cv2.imwrite(str(tmp_path / name), np.full((60, 80), number, dtype=np.uint8))
    return tmp_path


@pytest.fixture
def parquet(pictures):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra tables is not installed")
    files = pytest.importorskip("pyarrow.parquet")

    def reader(**columns):
        files.write_table(pyarrow.table(columns), pictures / "t.parquet")
        return read_table(pictures)

    return reader


@pytest.fixture
def sheet(pictures):
    pytest.importorskip("python_calamine", reason="the extra tables is not installed")
    openpyxl = pytest.importorskip("openpyxl", reason="it writes what is read here")

    def reader(*rows, hidden=(), merged=()):
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        for number in hidden:
            book.active.row_dimensions[number].hidden = True
        for cells in merged:
            book.active.merge_cells(cells)
        book.save(pictures / "t.xlsx")
        return read_table(pictures)

    return reader


def test_texts_in_bytes(parquet):
    source = parquet(image=[name.encode() for name in IDS], label=[b"Mass", b"Normal", b"Nodule", None])
    assert stated(source)["000"] == (["Mass"], [])
    assert [image.normal for image in source.images] == [False, True, False, False]


def test_lists_with_null_and_commas(parquet):
    source = parquet(image=IDS, label=[["Mass, left", None], [None], ["Normal"], ["Nodule"]])
    assert stated(source)["000"] == (["Mass, left"], [])
    assert stated(source)["001"] == ([], ["Mass, left", "Nodule"])


@pytest.mark.parametrize("cell", [[["a", "b"]], [{"name": "Mass"}]])
def test_lists_of_other_things_are_no_labels(parquet, cell):
    with pytest.raises(InputError, match="is no list of labels"):
        parquet(image=IDS, label=[cell] * 4)


def test_records_in_cells_are_told(parquet):
    with pytest.raises(InputError, match="objects holds records in its cells, which are not read: write a row a box"):
        parquet(image=IDS, objects=[{"bbox": [[1.0, 2.0, 3.0, 4.0]], "category": [0]}] * 4)


def test_formulas_that_nothing_has_computed_are_no_blank_cells(sheet):
    rows = (["image", "Mass", "Nodule"], ["000.png", "=1+0", 0], ["001.png", 0, "=B2"], ["002.png", 0, 1])
    with pytest.raises(InputError, match=r"2 cells of Sheet hold formulas without a value.*: open it in a program"):
        sheet(*rows)


def test_names_of_columns_in_two_lines(sheet):
    rows = (["image", "Box", None, None, None, "label"], [None, "x", "y", "w", "h", None], ["000.png", 1, 2, 3, 4, "M"])
    with pytest.raises(InputError, match=r"in two lines, 1 and 2 \(x, y, w, h\)\): write them into one"):
        sheet(*rows, merged=["B1:E1"])


def test_lines_above_the_header(sheet):
    rows = ([], ["", "image", "label"], ["", "000.png", "Mass"], ["", "001.png", "Normal"])
    source = sheet(*rows)
    assert stated(source) == {"000": (["Mass"], []), "001": ([], [])}
    assert {warning.kind: warning.detail for warning in source.warnings} == {LINES_ABOVE: "1"}
    with pytest.raises(InputError, match="'Annotations' stands alone above the names of the columns"):
        sheet(["Annotations"], ["image", "label"], ["000.png", "Mass"])


def test_hidden_rows_are_read_and_counted(sheet):
    source = sheet(["image", "label"], ["000.png", "Mass"], ["001.png", "Nodule"], hidden=[3])
    assert stated(source) == {"000": (["Mass"], []), "001": (["Nodule"], [])}
    assert {warning.kind: warning.detail for warning in source.warnings} == {HIDDEN_ROWS: "1"}
