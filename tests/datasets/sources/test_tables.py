"""Tables as text: what stays of the file's own lines, blanks and marks, and what is no table."""

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import given, settings

from xray.datasets.sources.table_files import NOT_UTF8
from xray.datasets.sources.tables import read_table, separator
from xray.errors import InputError


def write(folder, text, encoding="utf-8"):
    path = folder / "table.csv"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_cells_are_text_without_blanks_and_lines_are_the_files_own(tmp_path, encoding):
    path = write(tmp_path, "id, size ,note\n 007,1.50 , NA\n\nb,,x\nc\n", encoding)
    table, content = read_table(path)
    assert content == path.read_bytes()
    assert table.to_dict("list") == {
        "id": ["007", "b", "c"],
        "size": ["1.50", "", ""],
        "note": ["NA", "x", ""],
        "line": [2, 4, 5],
    }


CELL = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=8)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8))
def test_every_cell_comes_back_stripped(tmp_path_factory, rows):
    quoted = "\n".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows)
    table, _ = read_table(write(tmp_path_factory.mktemp("tables"), f"a,b\n{quoted}\n"))
    stripped = [(a.strip(), b.strip()) for a, b in rows]
    assert list(zip(table["a"], table["b"], strict=True)) == [row for row in stripped if any(row)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is not a CSV table \(No columns to parse from file\): download it again"),
        ('a,b\n"1,2\n', "is not a CSV table"),
        ("a,b\n1,2\n", r"lacks the columns c, d: it needs a, c, d \(found a, b\)"),
        ("a,b,c\n1,2,3\n", r"lacks the column d: it needs a, c, d \(found a, b, c\)"),
        ("a,c, a,d\n1,2,3,4\n", r"has two columns of one name \(found a, c, a, d\): rename one of them"),
    ],
)
def test_what_is_no_table(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as error:
        read_table(write(tmp_path, text), ["a", "c", "d"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [' + b'{"id": 1, "id": 1},' * 200_000 + b"]}", "it is JSON): a COCO file is read by python"),
        (b"\xef\xbb\xbf \n[\n {", "it is JSON): a COCO file is read by python"),
        ('{"a": 1}'.encode("utf-16"), "it is JSON): a COCO file is read by python"),
        (b'<?xml version="1.0"?><annotation/>', "it is XML): files of Pascal VOC and CVAT are read by python"),
        (b"<annotations>", "it is XML): files of Pascal VOC and CVAT are read by python"),
        (b"\n<!DOCTYPE html><html>", "it is HTML, a web page): download it again"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "it is no text): download it again"),
        (b"a,b\n1,\0\0\n", "it is no text): download it again"),
        (b"%PDF-1.4\n", "it is no text): download it again"),
        (b"a,b," * 5_001 + b"\n1\n", "its first line has 10003 columns, and no table has more than 10000)"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_what_is_another_kind_of_file_is_refused_before_it_is_taken_apart(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(pd, "read_csv", lambda *_, **__: pytest.fail("it was read"))
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_table(tmp_path / "a.csv", ["a"])
    assert f"a.csv is not a CSV table ({message}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("header", ["[x],b", "{id},b", "x <b>,b", "a" * 70_000 + ",b"])
def test_odd_names_of_columns_are_no_other_kind_of_file(tmp_path, header):
    (tmp_path / "a.csv").write_text(f"{header},a\n1,2,3\n")
    table, _ = read_table(tmp_path / "a.csv", ["a"])
    assert table["a"].tolist() == ["3"]


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv cannot be read \(No such file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(
        InputError, match=r"bytes\.csv is not a CSV table \(it is not UTF-8, see its line 2\): save it as"
    ):
        read_table(tmp_path / "bytes.csv")


def test_names_of_columns_in_every_spelling(tmp_path):
    (tmp_path / "a.csv").write_text("Image ID,EncodedPixels,encoded pixels,Class\n1,2,3,4\n")
    table, _ = read_table(tmp_path / "a.csv", ["ImageId", "EncodedPixels"], ["class", "none"])
    assert table.drop(columns="line").to_dict("records") == [
        {"ImageId": "1", "EncodedPixels": "2", "encoded pixels": "3", "class": "4"}
    ]
    # Which of two columns is meant cannot be told.
    (tmp_path / "a.csv").write_text("image_id,Image ID\n1,2\n")
    with pytest.raises(InputError, match="lacks the column ImageId"):
        read_table(tmp_path / "a.csv", ["ImageId"])


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_what_stands_between_columns(tmp_path, mark):
    # A comma within a cell is nothing of the table's, and so is a ; where there are commas.
    (tmp_path / "a.csv").write_text(f"a{mark}b\n1{mark}x\n")
    assert read_table(tmp_path / "a.csv", ["a", "b"])[0].drop(columns="line").to_dict("list") == {
        "a": ["1"],
        "b": ["x"],
    }
    assert separator("a,b;c\td") == ","
    assert separator("a") == ","


@pytest.mark.parametrize("only", [False, True])
def test_cells_and_columns_too_many_are_seen_whichever_columns_are_read(tmp_path, only):
    def read(text):
        return read_table(write(tmp_path, text), ["a", "b"], only=only)[0].drop(columns="line")

    # Quoted cells may hold anything, and separators at a row's end are nothing.
    good = 'a,report,b\n1,"x, ""y""\n\nz",2\n3,,4,,\n'
    assert read(good)[["a", "b"]].to_dict("list") == {"a": ["1", "3"], "b": ["2", "4"]}
    with pytest.raises(InputError, match="a row has more cells than the header has columns"):
        read(f"{good}5,one, two,6\n")
    for header in ("a,report,b,a", "a,report,b,report"):
        with pytest.raises(InputError, match="has two columns of one name"):
            read(f"{header}\n1,x,2,3\n")


@pytest.mark.parametrize("only", [False, True])
def test_the_encoding_of_windows_is_read_where_it_is_allowed(tmp_path, only):
    text = "id,temperature\n1,37\nSørensen,38.5 °C\n"
    path = write(tmp_path, text, "cp1252")
    with pytest.raises(InputError, match="it is not UTF-8, see its line 3"):
        read_table(path, ["id"], only=only)
    table, content = read_table(path, ["id"], only=only, old=True)
    assert content == path.read_bytes()
    assert (table["id"].tolist(), table.attrs) == (["1", "Sørensen"], {NOT_UTF8: 3})
    assert read_table(write(tmp_path, text), ["id"], old=True)[0].attrs == {}
    # A byte that this encoding has not.
    path.write_bytes(b"id\n\x81\n")
    with pytest.raises(InputError, match="it is not UTF-8, see its line 2"):
        read_table(path, ["id"], old=True)


def test_rows_of_empty_cells_are_none_and_lines_keep_their_numbers(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("image,label,note\n,,\n1.png,M,\n, ,\n,,x\n2.png,N,\n,,\n,,\n")
    table, _ = read_table(path)
    assert table["image"].tolist() == ["1.png", "", "2.png"]
    assert table["line"].tolist() == [3, 5, 6]
    assert table.index.tolist() == [0, 1, 2]
    path.write_text("image,label\n,\n")
    assert len(read_table(path)[0]) == 0
