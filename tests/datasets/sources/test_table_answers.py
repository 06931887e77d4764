"""Cells that doubt, lines above a table's header, and rows that sum up the others."""

import cv2
import numpy as np
import pytest
from source_cases import said, stated

from xray.datasets.sources.table import LINES_ABOVE, TOTALS, read_table
from xray.datasets.sources.table_labels import UNSURE
from xray.errors import InputError


@pytest.fixture
def read(tmp_path):
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number:03}.png"), np.full((60, 80), number, dtype=np.uint8))

    def reader(*lines, **flags):
        (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
        return read_table(tmp_path, **flags)

    return reader


DOUBTS = ["indeterminate", "Equivocal", "cannot exclude", "Can't be excluded", "cannot rule out", "inconclusive",
          "suspected", "Probable", "not excluded", "borderline"]  # fmt: skip
UNSAID = ["not evaluated", "N.A.", "Not assessable", "cannot be assessed", "unable to assess", "not applicable",
          "non-diagnostic", "Not tested", "missing", "skipped", "not mentioned"]  # fmt: skip
WIDE = ("image,Mass,Nodule", "000.png,1,{}", "001.png,0,1", "002.png,0,0")


@pytest.mark.parametrize("word", ["U", "u", "?", "??", "uncertain", "Unsure", "possible", "-1", *DOUBTS])
def test_words_of_doubt_in_columns_of_answers_are_unknown_unless_uncertain_says_otherwise(read, word):
    rows = [row.format(word) for row in WIDE]
    assert stated(read(*rows)) == {"000": (["Mass"], ["Nodule"]), "001": (["Nodule"], []), "002": ([], [])}
    assert stated(read(*rows, uncertain="positive"))["000"] == (["Mass", "Nodule"], [])
    assert stated(read(*rows, uncertain="negative"))["000"] == (["Mass"], [])


@pytest.mark.parametrize("word", ["unknown", "not read", "TODO", *UNSAID])
def test_what_nobody_has_said_in_a_column_of_answers_is_unknown_whatever_blanks_mean(read, word):
    rows = [row.format(word) for row in WIDE] + ["003.png,,1"]
    source = read(*rows, blank="negative", uncertain="positive")
    assert stated(source) == {
        "000": (["Mass"], ["Nodule"]), "001": (["Nodule"], []), "002": ([], []), "003": (["Nodule"], []),
    }  # fmt: skip
    # "No finding" beside it is no statement on what nobody knows.
    source = read("image,No finding,Mass", f"000.png,1,{word}", "001.png,0,1", "002.png,1,0")
    assert [image.normal for image in source.images] == [False, False, True]


def test_doubt_of_a_row_with_an_answer(read):
    rows = ("image,finding,present", "000.png,Mass,1", "001.png,Mass,U", "002.png,Mass,0", "003.png,Mass,unknown")
    wanted = {"000": (["Mass"], []), "001": ([], ["Mass"]), "002": ([], []), "003": ([], ["Mass"])}
    assert stated(read(*rows)) == wanted
    assert stated(read(*rows, blank="negative")) == wanted


@pytest.mark.parametrize("label", ["?", "uncertain", "Unsure", "--", "-", "U", *DOUBTS, *UNSAID])
def test_a_label_that_only_doubts_says_nothing(read, label):
    source = read("image,label", "000.png,Mass", f"001.png,{label}", "002.png,Normal")
    assert stated(source) == {"000": (["Mass"], []), "001": ([], ["Mass"]), "002": ([], [])}


def test_labels_that_doubt_another_are_named(read):
    source = read("image,label", "000.png,Mass", "001.png,Mass?", "002.png,possible mass", "003.png,Mass (uncertain)")
    assert said(source) == {UNSURE: "Mass (uncertain), Mass?, possible mass"}


@pytest.mark.parametrize("above", [["# by a tool"], ["# by a tool, version 2", "#", "# 2020, a, b, c"]])
def test_comments_above_the_header(read, above):
    source = read(*above, "image,label", "000.png,Mass", "gone.png,Mass")
    assert stated(source) == {"000": (["Mass"], [])}
    assert said(source) == {LINES_ABOVE: str(len(above))}
    # Lines are counted as the file has them.
    assert f"t.csv line {len(above) + 3}" in {drop.where for drop in source.dropped}


@pytest.mark.parametrize("header", ["# image,Mass,Nodule", "#image,Mass,Nodule"])
def test_a_header_that_numpy_wrote(read, header):
    source = read(header, "000.png,1,0", "001.png,0,1")
    assert stated(source) == {"000": (["Mass"], []), "001": (["Nodule"], [])}
    assert not said(source)


def test_a_title_above_the_header_is_told(read):
    with pytest.raises(InputError, match="its first line needs the names of the columns, so delete what stands above"):
        read("Annotations of 2020", "image,label", "000.png,Mass")


@pytest.mark.parametrize("word", ["Total", "total:", "Sum", "Grand total", "Average"])
def test_rows_that_sum_up_are_no_labels(read, word):
    source = read("image,label", "000.png,Mass", "001.png,Nodule", f"{word},2", "")
    assert stated(source) == {"000": (["Mass"], []), "001": (["Nodule"], [])}
    assert [(drop.where, drop.detail) for drop in source.dropped if drop.reason == TOTALS] == [("t.csv line 4", word)]
    # A column of answers is one, whatever stands below it.
    source = read("image,Mass,Nodule", "000.png,1,0", "001.png,1,1", f"{word},2,1")
    assert stated(source) == {"000": (["Mass"], []), "001": (["Mass", "Nodule"], [])}


def test_a_reader_called_mean_sums_up_nothing(read):
    source = read("reader,image,label", "A,000.png,Mass", "mean,001.png,Mass")
    assert stated(source) == {"000": (["Mass"], []), "001": (["Mass"], [])}


def test_what_stands_beside_doubt_stays_a_label(read):
    # Classes of published sets, and names with such a word in them.
    labels = ["Indeterminate Appearance", "Possible mass", "Missing rib", "Unknown device"]
    source = read("image,label", *(f"00{number}.png,{label}" for number, label in enumerate(labels)))
    assert sorted(category["name"] for category in source.categories) == sorted(labels)


@pytest.mark.parametrize(
    "cell", ['[["Mass"]]', '{"Mass": 1}', "{'Mass': True}", "[True, False]", '[{"a": 1}]', "(1, None, [2])"]
)
def test_a_cell_that_is_no_list_of_labels_is_said_with_its_place(read, cell):
    quoted = cell.replace('"', '""')
    with pytest.raises(InputError, match=r"^t\.csv line 3, column finding: .* is no list of labels: write .* --label$"):
        read("image,finding", "000.png,Mass", f'001.png,"{quoted}"')


@pytest.mark.parametrize("cell", ["('Mass', 'Nodule')", "['Mass', 'Nodule']", "{Mass,Nodule}", "{'Mass', 'Nodule'}"])
def test_lists_in_other_brackets(read, cell):
    source = read("image,finding", "000.png,Mass", f'001.png,"{cell}"', "002.png,(Hernia)")
    assert stated(source)["001"] == (["Mass", "Nodule"], [])
    assert stated(source)["002"] == (["(Hernia)"], [])
