"""What readers of public sets share: tables are found, and those in other units are refused."""

import json
import os

import numpy as np
import pytest

from xray.datasets.sources.set_tables import (
    MOST_FOLDERS,
    check_units,
    find_tables,
    is_far_beyond,
    one_table,
    read_json,
)
from xray.errors import InputError
from xray.radiographs.names import UnsafeNameError


def test_tables_are_found_some_folders_deep_the_nearest_of_the_first_pattern_first(tmp_path):
    for name in (
        "b/List_A.csv",
        "z_list.CSV",
        "a/b/list_c.csv",
        "a/b/c/d/e/list_d.csv",
        ".hidden/list.csv",
        ".list.csv",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    names = [path.relative_to(tmp_path).as_posix() for path in find_tables(tmp_path, "list_*.csv", "*list*.csv")]
    assert names == ["b/List_A.csv", "a/b/list_c.csv", "z_list.CSV"]
    with pytest.raises(InputError, match=r"holds b/List_A.csv and a/b/list_c.csv, which differ: leave one"):
        one_table(tmp_path, "list_*.csv")
    (tmp_path / "a/b/list_c.csv").write_text("b/List_A.csv")  # a copy
    assert one_table(tmp_path, "no*.csv", "list_*.csv") == tmp_path / "b/List_A.csv"
    assert one_table(tmp_path, "no*.csv") is None


def test_a_link_out_of_the_data_path_is_no_table(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "list.csv").write_text("secret")
    os.symlink(tmp_path / "list.csv", tmp_path / "in" / "list.csv")
    with pytest.raises(UnsafeNameError, match="leads out"):
        one_table(tmp_path / "in", "list.csv")


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0.1, 0.2, 0.5, 1.0]], "all its boxes lie between 0 and 1, so they are no pixels: it needs pixels"),
        ([[10, 10, 1500, 90], [10, 10, 50, 1200]], "2 of 2 boxes reach beyond 1000 x 800, up to 1500: it needs pixels"),
        ([[10, 10, 100, 120]] * 19 + [[0, 0, 224, 224]], "none of 20 boxes reaches beyond 224, 224 of 1000 x 800"),
    ],
)
def test_tables_in_other_units_are_refused(tmp_path, boxes, message):
    with pytest.raises(InputError, match=message):
        check_units(tmp_path / "t.csv", np.array(boxes, dtype=float), (1000, 800), "pixels")


@pytest.mark.parametrize(
    "boxes",
    [
        [],
        [[float("nan")] * 4],
        [[-5, 10, 1015, 812]],  # drawn over the edge
        [[10, 10, 1500, 90]],  # one damaged row is not the whole table
        [[10, 10, 100, 120]] * 19,  # so few may all lie in one corner
        [[10, 10, 900, 120]] * 40,  # all of one finding may lie in the upper half
    ],
)
def test_tables_in_the_right_units_pass(tmp_path, boxes):
    check_units(tmp_path / "t.csv", np.array(boxes, dtype=float).reshape(-1, 4), (1000, 800), "pixels")


def test_a_box_far_beyond_the_edge_is_told_from_one_drawn_over_it():
    boxes = np.array([[0, 0, 1050, 840], [0, 0, 1051, 800], [0, 0, 1000, 841], [-51, 0, 9, 9], [0, -40, 9, 9]], float)
    assert is_far_beyond(boxes, (1000, 800)).tolist() == [False, True, True, True, False]


def test_json_of_another_form_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([1]))
    assert read_json(path, list, "the set")[0] == [1]
    for text, message in (
        ("[1", "is not JSON"),
        ("{}", "holds a dict, not the list of the set"),
        ("[" * 9000, "not J"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_json(path, list, "the set")


def test_packed_tables_are_tables_and_one_beside_its_own_content_is_not_taken(tmp_path):
    for name in ("labels.csv.zip", "a/labels.csv.GZ", "a/b/labels.csv", "a/b/labels.csv.zip", "labels.txt.zip"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    names = [path.relative_to(tmp_path).as_posix() for path in find_tables(tmp_path, "labels*.csv", "labels*.txt")]
    assert names == ["labels.csv.zip", "a/labels.csv.GZ", "a/b/labels.csv"]


def test_the_folders_of_patients_are_not_looked_into(tmp_path):
    for number in range(MOST_FOLDERS + 1):
        (tmp_path / "set" / f"p{number}").mkdir(parents=True)
    (tmp_path / "set" / "p7" / "list.csv").write_text("a")
    assert find_tables(tmp_path, "list.csv") == []
    (tmp_path / "set" / "p8").rmdir()
    assert find_tables(tmp_path, "list.csv") == [tmp_path / "set" / "p7" / "list.csv"]
