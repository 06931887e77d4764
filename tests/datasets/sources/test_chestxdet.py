"""ChestX-Det: xyxy boxes that go with outlines, radiographs without any, equal names in two folders."""

import json

import pytest
from source_cases import told, why, write_picture

from xray.datasets import source as reasons
from xray.datasets.conversion import write_store
from xray.datasets.sources.chestxdet import MALFORMED, MISMATCHED_MASK, REPEATED, TEN_FINDINGS, read_chestxdet
from xray.datasets.sources.set_tables import FAR_BEYOND, UNKNOWN_FINDING
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.structures.masks import decode_mask

SQUARE = [[100, 200], [300, 200], [300, 400], [100, 400]]
TRAIN = [
    {
        "file_name": "36201.png",
        "syms": ["Diffuse Nodule", "Effusion"],
        "boxes": [[100, 200, 300, 400], [512, 0, 1022, 512]],
        "polygons": [SQUARE, [[512, 0], [1022, 0], [1022, 512]]],
    },
    {"file_name": "36202.png", "syms": [], "boxes": [], "polygons": []},
]
TEST = [
    {
        "file_name": "36201.png",
        "syms": ["Mass"],
        "boxes": [[10, 20, 30, 50]],
        "polygons": [[[10, 20], [30, 20], [20, 50]]],
    }
]


@pytest.fixture
def write(tmp_path):
    """(train, test) → the set's folder with pictures of 64 x 64."""

    def make(train=TRAIN, test=TEST, names=("ChestX_Det_train.json", "ChestX_Det_test.json")):
        for number, name in enumerate(("train_data/36201.png", "train_data/36202.png", "test_data/36201.png")):
            write_picture(tmp_path / name, 64, 64, offset=number)
        for name, entries in zip(names, (train, test), strict=True):
            if entries is not None:
                (tmp_path / name).write_text(entries if isinstance(entries, str) else json.dumps(entries))
        return tmp_path

    return make


def test_boxes_outlines_and_splits_are_what_the_files_say(write, tmp_path):
    root = write()
    source = read_chestxdet(root)
    of = told(source)
    assert of["train_data/36201"]["boxes"] == [("Diffuse Nodule", 100, 200, 300, 400), ("Effusion", 512, 0, 1022, 512)]
    assert of["test_data/36201"]["boxes"] == [("Mass", 10, 20, 30, 50)]
    # All 13 findings were looked for.
    assert of["36202"] == {
        "split": "train", "patient": None, "size": (1024, 1024), "labels": [], "unknown": [], "unlocated": [],
        "boxes": [],
    }  # fmt: skip
    assert [image["split"] for image in of.values()] == ["test", "train", "train"]
    assert why(source) == []
    write_store(source, tmp_path / "out", image_size=64, n_folds=2)
    store = open_store(tmp_path / "out")
    areas = sorted(int(decode_mask(rle).sum()) for rle in store.masks.values())
    # Of the triangles half of their boxes, 20 x 30 and 510 x 512; of the square all of it.
    assert areas == [pytest.approx(300, abs=30), pytest.approx(200 * 200, rel=0.02), pytest.approx(130_560, rel=0.02)]


def test_the_edition_of_ten_findings_was_not_read_for_three(write):
    train = [{key: value for key, value in entry.items() if key != "polygons"} for entry in TRAIN]
    train[0] = train[0] | {"syms": ["Mass", "Effusion"]}
    source = read_chestxdet(write(train, None, names=("train.json", "test.json")))
    assert len(source.boxes) == 2
    assert source.masks == {}
    three = ["Cardiomegaly", "Diffuse Nodule", "Pleural Thickening"]
    # A radiograph without a box may have any of these, so it is not normal.
    assert [image["unknown"] for image in told(source).values()] == [three, three]
    assert [(warning.kind, warning.detail) for warning in source.warnings] == [(TEN_FINDINGS, ", ".join(three))]


def test_a_file_of_thirteen_findings_without_outlines_is_known_by_them(write):
    train = [{key: value for key, value in entry.items() if key != "polygons"} for entry in TRAIN]
    source = read_chestxdet(write(train, None))
    assert [image["unknown"] for image in told(source).values()] == [[], []]
    assert source.warnings == []


def test_an_outline_that_is_none_or_lies_elsewhere_is_left_out_alone(write):
    outlines = [[[100, 200], [300, 400]], [[1, 2], [30, 2], [30, 40]]]
    source = read_chestxdet(write([TRAIN[0] | {"polygons": outlines}, TRAIN[1]]))
    assert len(told(source)["train_data/36201"]["boxes"]) == 2
    assert [reason for _, reason in why(source)] == [MISMATCHED_MASK] * 2
    assert len(source.masks) == 1  # that of the test set


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"syms": ["Diffuse Nodule", "Gallstone"]}, UNKNOWN_FINDING),
        ({"syms": ["Effusion"]}, MALFORMED),
        ({"syms": None}, MALFORMED),
        ({"polygons": [SQUARE]}, MALFORMED),
        ({"boxes": [[100, 200, 300, 400], [512, 0, 1022, "x"]]}, reasons.NOT_A_NUMBER),
        ({"boxes": [[100, 200, 300, 400], [512, 0, 1022]]}, reasons.NOT_A_NUMBER),
        ({"boxes": [[100, 200, 300, 400], [512, 0, 500, 512]]}, reasons.INVERTED),
        ({"boxes": [[100, 200, 300, 400], [512, 0, 2900, 512]]}, FAR_BEYOND),
    ],
)
def test_an_entry_that_cannot_be_used_costs_its_radiograph(write, change, reason):
    source = read_chestxdet(write([TRAIN[0] | change, TRAIN[1]]))
    assert sorted(told(source)) == ["36202", "test_data/36201"]
    assert reason in [each for _, each in why(source)]


def test_two_entries_of_one_radiograph_and_files_without_one(write):
    source = read_chestxdet(write([*TRAIN, TRAIN[0] | {"syms": ["Mass"]}], None))
    assert sorted(told(source)) == ["36202"]
    assert ("ChestX_Det_train.json entry 2", REPEATED) in why(source)
    assert ("test_data/36201.png", "file without a row in the table") in why(source)
    # But where they say the same, one is enough.
    twice = read_chestxdet(write([*TRAIN, TRAIN[0]]))
    assert told(twice) == told(read_chestxdet(write(TRAIN)))
    assert why(twice) == [("ChestX_Det_train.json entry 2", reasons.DUPLICATE)]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (None, "has no ChestX_Det_train.json"),
        ("{}", "holds a dict, not the list of ChestX-Det"),
        ("[", "is not JSON"),
        ([{"syms": []}], "entry 0 names no file"),
        ([TRAIN[0] | {"boxes": [[0.1, 0.2, 0.3, 0.4], [0.5, 0, 1, 0.5]]}], "all its boxes lie between 0 and 1"),
        # x, y, width and height of pictures twice as large.
        ([TRAIN[0] | {"boxes": [[1300, 200, 300, 400], [1512, 0, 510, 512]]}], "2 of 2 boxes reach beyond 1024 x 1024"),
    ],
)
def test_files_that_cannot_be_used_stop_the_conversion(write, train, message):
    root = write(train, None)
    with pytest.raises(InputError, match=message):
        read_chestxdet(root)


@pytest.mark.parametrize("changed", [{"syms": "Mass"}, {"syms": None, "boxes": None}, {"boxes": {}}])
def test_lists_that_are_none_are_not_empty_ones(write, changed):
    source = read_chestxdet(write(train=[TRAIN[0], TRAIN[1] | changed]))
    assert sorted(told(source)) == ["test_data/36201", "train_data/36201"]
    assert ("ChestX_Det_train.json entry 1", MALFORMED) in why(source)
