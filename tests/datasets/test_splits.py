"""The user's own splits: files of names, tables, folders, patients; and patients in two splits."""

import json
from pathlib import Path

import cv2
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from xray.datasets import sources
from xray.datasets.source import TEST, TRAIN, VAL, Source, SourceImage
from xray.datasets.sources.splits import split_meant
from xray.datasets.split_files import HALF_ROW
from xray.datasets.splits import (
    LEAK,
    LEAK_KEPT,
    NO_RADIOGRAPH,
    NOT_NAMED,
    TWICE,
    apply_splits,
    without_leaks,
)
from xray.datasets.store import open_store
from xray.errors import FlagError, InputError
from xray.structures.boxes import BoxTable
from xray.training.loading import training_rows


def source(names, patients=None, splits=None):
    """One radiograph a name, each with a box of category 1 at its number."""
    patients, splits = patients or [None] * len(names), splits or [TRAIN] * len(names)
    return Source(
        kind="made",
        layout="made",
        images=[
            SourceImage(Path(name), name, Path(name).stem, patient=patient, split=split)
            for name, patient, split in zip(names, patients, splits, strict=True)
        ],
        boxes=BoxTable.of(range(len(names)), [1] * len(names), [(n, 0, n + 1, 5) for n in range(len(names))]),
        readers=[()] * len(names),
        places=[f"line {n}" for n in range(len(names))],
        categories=[{"id": 1, "name": "Mass"}],
        fingerprint="f",
        masks={n: {"n": n} for n in range(len(names))},
    )


NAMES = ["a/1.png", "a/2.png", "b/3.png", "b/4.png"]


def write(folder, **files):
    for name, lines in files.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return tuple(f"{name}={folder / name}.txt" for name in files)


def splits(result):
    return {image.file_name: image.split for image in result.images}


def test_files_of_names(tmp_path):
    given = write(tmp_path, train=["a/1.png", ""], val=["2"], test=["3.png"])
    result = apply_splits(source(NAMES), given)
    assert splits(result) == {"a/1.png": TRAIN, "a/2.png": VAL, "b/3.png": TEST}
    # Who says what trains has said all.
    assert [(drop.where, drop.reason) for drop in result.dropped] == [("b/4.png", NOT_NAMED)]
    assert result.boxes.images.tolist() == [0, 1, 2]
    assert [mask["n"] for mask in result.masks.values()] == [0, 1, 2]
    note = result.notes["splits"]
    assert (note["images"], note["names_unknown"]) == ({TRAIN: 1, VAL: 1, TEST: 1}, 0)
    assert result.fingerprint != apply_splits(source(NAMES), given[:1]).fingerprint


def test_without_train_the_others_keep_their_split(tmp_path):
    made = source(NAMES, splits=[TRAIN, VAL, TRAIN, TRAIN])
    result = apply_splits(made, write(tmp_path, test=["4", "9.png", "a/7"]))
    assert splits(result) == {"a/1.png": TRAIN, "a/2.png": VAL, "b/3.png": TRAIN, "b/4.png": TEST}
    assert [(w.kind, w.where, w.detail) for w in result.warnings] == [
        (NO_RADIOGRAPH, "test.txt line 2", "9.png"),
        (NO_RADIOGRAPH, "test.txt line 3", "a/7"),
    ]
    assert not result.dropped


@pytest.mark.parametrize(
    "text",
    [
        "a/1.png",
        "./a/1.png",
        "a\\1.png",
        "a/1",
        "1",
        "1.png",
        "1.0",
        "001",
        "/data/set/a/1.png",
        "../raw/a/1.jpg",
        "x/1.png",
    ],
)
def test_how_a_radiograph_may_be_called(tmp_path, text):
    assert splits(apply_splits(source(NAMES), write(tmp_path, test=[text])))["a/1.png"] == TEST


def test_names_that_only_their_folders_tell_apart(tmp_path):
    frontal = ["p1/s1/frontal.jpg", "p2/s1/frontal.jpg"]
    given = write(tmp_path, test=["CheXpert-small/valid/p2/s1/frontal.jpg", "CheXpert-small/valid/p3/s1/frontal.jpg"])
    assert splits(apply_splits(source(frontal), given)) == {frontal[0]: TRAIN, frontal[1]: TEST}
    # Of a patient who is not there, the last part of the name is not taken for another's.
    result = apply_splits(source(frontal[1:]), given)
    assert [w.detail for w in result.warnings] == ["CheXpert-small/valid/p3/s1/frontal.jpg"]
    with pytest.raises(InputError, match=r"test\.txt line 1: frontal may be p1/s1/frontal.jpg or p2"):
        apply_splits(source(frontal), write(tmp_path, test=["frontal"]))


def test_a_table(tmp_path):
    table = tmp_path / "split.csv"
    table.write_text("Image Index;Split\n1.png;Training\n2.png;valid\n3;TEST\n4;\n")
    assert splits(apply_splits(source(NAMES), (str(table),))) == {"a/1.png": TRAIN, "a/2.png": VAL, "b/3.png": TEST}
    table.write_text("image,split\n1.png,fold2\n")
    with pytest.raises(InputError, match=r"split.csv line 2: 'fold2' is no split"):
        apply_splits(source(NAMES), (str(table),))
    table.write_text("image,fold\n1.png,2\n")
    with pytest.raises(InputError, match=r"needs the columns file_name and split \(found image, fold\)"):
        apply_splits(source(NAMES), (str(table),))


def test_patients(tmp_path):
    made = source(NAMES, ["07", "07", "8", None])
    result = apply_splits(made, write(tmp_path, test=["7"]), "patient")
    assert list(splits(result).values()) == [TEST, TEST, TRAIN, TRAIN]
    (tmp_path / "t.csv").write_text("subject_id,split\n7,test\n8.0,train\n")
    assert list(splits(apply_splits(made, (str(tmp_path / "t.csv"),), "patient")).values()) == [TEST, TEST, TRAIN]
    with pytest.raises(InputError, match="the source names no patients"):
        apply_splits(source(NAMES), write(tmp_path, test=["7"]), "patient")
    with pytest.raises(InputError, match="none of 1 names, such as '1', is one of the 4 patients, such as '07'"):
        apply_splits(made, write(tmp_path, test=["1"]), "patient")


@pytest.mark.parametrize(
    ("given", "message", "error"),
    [
        (
            {"train": ["1"], "test": ["a/1.png"]},
            r"a/1.png is in two splits, train \(train.txt line 1\) and test",
            InputError,
        ),
        (
            {"test": ["x", "y"]},
            "none of 2 names, such as 'x', is one of the 4 radiographs, such as 'a/1.png'",
            InputError,
        ),
        ({"test": [""]}, "test.txt names nothing", InputError),
        ({"other": ["1"]}, "other is no split: write train=, val= or test=, or one table", FlagError),
    ],
)
def test_what_is_refused(tmp_path, given, message, error):
    with pytest.raises(error, match=message):
        apply_splits(source(NAMES), write(tmp_path, **given))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        apply_splits(source(NAMES), ("test=none.txt",))
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no text in UTF-8"):
        apply_splits(source(NAMES), (f"test={tmp_path / 'a.txt'}",))
    with pytest.raises(FlagError, match="one table with a column of splits, or train=FILE"):
        apply_splits(source(NAMES), ("a.csv", "test=b.txt"))


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("Train", TRAIN),
        ("VALIDATE", VAL),
        ("valid", VAL),
        ("dev", VAL),
        ("Testing", TEST),
        ("fold 1", None),
        ("", None),
    ],
)
def test_words(word, split):
    assert split_meant(word) == split


def test_of_a_patient_in_two_splits_only_the_clean_side_stays():
    made = source(["1", "2", "3", "4", "5"], ["p", "p", "p", "q", None], [TRAIN, VAL, TEST, TRAIN, TRAIN])
    result = without_leaks(made)
    assert list(splits(result)) == ["3", "4", "5"]
    assert [(drop.where, drop.reason, drop.detail) for drop in result.dropped] == [
        ("1", LEAK, "train and test"),
        ("2", LEAK, "val and test"),
    ]
    assert [warning.kind for warning in result.warnings] == [LEAK_KEPT]
    kept = without_leaks(made, keep=True)
    assert len(kept.images) == 5
    assert [(warning.kind, warning.where) for warning in kept.warnings] == [(LEAK_KEPT, "1"), (LEAK_KEPT, "2")]
    made = source(NAMES)
    assert without_leaks(made) is made


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([TRAIN, VAL, TEST]), st.sampled_from(["p", "q", "r", None])), min_size=1, max_size=9
    )
)
def test_no_patient_is_left_in_two_splits(rows):
    made = source([str(n) for n in range(len(rows))], [row[1] for row in rows], [row[0] for row in rows])
    result = without_leaks(made)
    known = {(image.patient, image.split) for image in result.images if image.patient}
    assert len(known) == len({patient for patient, _ in known})
    # Nobody is lost altogether, and test radiographs never.
    assert {row[1] for row in rows} == {image.patient for image in result.images}
    assert sum(row[0] == TEST for row in rows) == sum(image.split == TEST for image in result.images)
    assert len(result.boxes) == len(result.images)


def test_through_convert(tmp_path):
    raw = tmp_path / "raw"
    for number in range(12):
        folder = raw / ("held out" if number > 9 else "all") / ("NORMAL" if number % 2 else "SICK")
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{number}.png"), np.full((20, 20), 20 * number, dtype=np.uint8))
    # Folders of classes in a folder that is no split: give one by one.
    for name in ("NORMAL", "SICK"):
        (raw / name).mkdir()
        for file in raw.glob(f"*/{name}/*.png"):
            file.rename(raw / name / file.name)
    patients = raw / "patients.csv"
    patients.write_text("file_name,patient\n" + "".join(f"{n}.png,{n // 2}\n" for n in range(12)))
    given = write(tmp_path, test=["11", "8.png"], val=["SICK/6.png"])
    made = sources.convert(
        "folders", raw, tmp_path / "out", image_size=32, n_folds=2, n_workers=0, splits=given, patients=patients
    )
    counts = made["counts"]
    assert (counts["train_images"], counts["val_images"], counts["test_images"]) == (6, 1, 2)
    assert made["dropped"]["counts"][LEAK] == 3  # 7, 9 and 10
    assert made["splits"]["given"] == ["test.txt", "val.txt"]
    store = open_store(tmp_path / "out", pixels=False)
    assert {record["source_id"] for record in store.records if record["fold"] >= 0} == {"0", "1", "2", "3", "4", "5"}
    assert training_rows(store, "val")[1].tolist() == [store.index_of["6"]]
    folder = tmp_path / "raw" / "SICK"
    made = sources.convert(
        "folders", raw, tmp_path / "two", image_size=32, n_folds=2, n_workers=0, splits=("test=SICK",)
    )
    assert made["counts"]["test_images"] == len(list(folder.iterdir()))
    json.dumps(made)


@pytest.mark.parametrize("text", ["train=", "test= "])
def test_a_split_without_a_file_is_not_everything(tmp_path, text):
    with pytest.raises(FlagError, match=f"--splits {text} names no file"):
        apply_splits(source(NAMES), [text], data_path=tmp_path)


def warned(result):
    """(kind, where) of each warning."""
    return [(warning.kind, warning.where) for warning in result.warnings]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfimage\r\n1.png\r\n4.png\r\n",
        b"# the test, train set\n\n1\n  4  \n",
        b"\"1.png\"\n'4.png'\n",
        b"1.png,\n4.png,\n",
        b"a\\1.png\r\nb\\4.png",
        b"./data/a/1.png\n./data/b/4.png\n",
        b"a/1.jpg\nb/4.dcm\n",
        b"1  1\n4 -1\n",
        b"1.png\r4.png\r",
        "file_name\n1.png\n4.png\n".encode("utf-16"),
        b"Image Index,Finding\n1.png,Mass\n4.png,\n",
        b"1.png;x\n4.png;y\n",
        b"filename\tlabel\n1.png\tM\n4.png\tN\n",
        b"# 2.png\n1.png\n#3.png\n4.png\n",
        b"1.0\n4.0\n",
    ],
)
def test_lists_as_people_write_them(tmp_path, content):
    (tmp_path / "t.txt").write_bytes(content)
    result = apply_splits(source(NAMES), (f"test={tmp_path / 't.txt'}",))
    assert list(splits(result).values()) == [TEST, TRAIN, TRAIN, TEST]
    assert not result.warnings
    assert result.notes["splits"]["names_unknown"] == 0


@pytest.mark.parametrize(
    "content",
    [
        ",image\n1,1.png\n2,4.png\n",
        "no,image\n3,1.png\n2,4.png\n",
        "id;file_name\n2;1.png\n3;4.png\n",
        'label,filename\n"Mass, cavity",1.png\n,4.png\n',
        "PatientID\tImage Index\tView\n2\t1.png\tPA\n3\t4.png\tAP\n",
        "# ours\nno|image\n# 2\n2|1.png\n3|4.png\n",
        "\timage\n2\t1.png\n3\t4.png\n",
    ],
)
def test_a_list_whose_names_are_not_in_its_first_column(tmp_path, content):
    (tmp_path / "t.csv").write_text(content)
    result = apply_splits(source(NAMES), (f"test={tmp_path / 't.csv'}",))
    assert list(splits(result).values()) == [TEST, TRAIN, TRAIN, TEST]
    assert not result.warnings


def test_a_column_for_each_split(tmp_path):
    (tmp_path / "t.csv").write_text("train,Testing\n2.png,1.png\n3.png,4.png\n1,\n")
    result = apply_splits(source(NAMES), (f"test={tmp_path / 't.csv'}",))
    assert list(splits(result).values()) == [TEST, TRAIN, TRAIN, TEST]
    assert not result.warnings
    with pytest.raises(InputError, match="line 1 says train: give"):
        apply_splits(source(NAMES), (f"test={write_lines(tmp_path / 'v.csv', 'train,val', '2.png,1.png')}",))
    # A list that is called otherwise than it is given.
    with pytest.raises(InputError, match="line 1 says train"):
        apply_splits(source(NAMES), (f"test={write_lines(tmp_path / 'l.csv', 'train', '2.png')}",))


def write_lines(path, *lines):
    path.write_text("\n".join(lines))
    return path


def test_a_row_that_ends_before_its_name_is_said(tmp_path):
    (tmp_path / "t.csv").write_text("no,image\n3,1.png\n2\n3,\n")
    result = apply_splits(source(NAMES), (f"test={tmp_path / 't.csv'}",))
    assert list(splits(result).values()) == [TEST, TRAIN, TRAIN, TRAIN]
    assert warned(result) == [(HALF_ROW, "t.csv line 3"), (HALF_ROW, "t.csv line 4")]


def test_patients_behind_the_names_of_their_radiographs(tmp_path):
    (tmp_path / "t.csv").write_text("image,patient_id\n8,7\n")
    result = apply_splits(source(NAMES, ["7", "7", "8", "8"]), (f"test={tmp_path / 't.csv'}",), "patient")
    assert list(splits(result).values()) == [TEST, TEST, TRAIN, TRAIN]


def test_a_name_that_stands_twice_counts_once_and_is_said(tmp_path):
    result = apply_splits(source(NAMES), write(tmp_path, test=["1.png", "4", "a/1.png", "9"]))
    assert list(splits(result).values()) == [TEST, TRAIN, TRAIN, TEST]
    assert warned(result) == [(TWICE, "test.txt line 3"), (NO_RADIOGRAPH, "test.txt line 4")]
    # A patient has several radiographs.
    made = source(NAMES, ["7", "7", "8", "8"])
    assert not apply_splits(made, write(tmp_path, test=["7"]), "patient").warnings


def test_a_list_of_another_dataset_beside_one_that_fits_is_refused(tmp_path):
    # Its radiographs would train, or be left out, without a test set.
    with pytest.raises(InputError, match=r"--splits test=.*test.txt: none of 2 names, such as 'x', is one of the 4"):
        apply_splits(source(NAMES), write(tmp_path, train=["1", "2"], test=["x", "y"]))
    with pytest.raises(InputError, match=r"none of 2 names, such as 'x'"):
        apply_splits(source(NAMES), write(tmp_path, val=["1"], test=["image", "x"]))


@pytest.mark.parametrize("lines", [["# nothing", "#"], [], ["", "  "]])
def test_a_list_without_names_is_refused(tmp_path, lines):
    with pytest.raises(InputError, match="names nothing: leave it out"):
        apply_splits(source(NAMES), write(tmp_path, train=["1"], test=lines))


@pytest.mark.parametrize("lines", [["image,split", "1.png,train", "2.png,test"], ["1.png;x;Test", "2.png;x;Training"]])
def test_a_table_of_splits_is_no_list_of_one(tmp_path, lines):
    with pytest.raises(InputError, match=r"line \d says [Tt]rain.*: give .*test.txt without test= if it is a table"):
        apply_splits(source(NAMES), write(tmp_path, test=lines))


def test_rows_of_a_table_without_a_split_or_a_name_are_said(tmp_path):
    table = tmp_path / "t.csv"
    table.write_bytes("\ufeffImage,Split\r\n1.png,Test\r\n2.png,\r\n,val\r\n,\r\n4.png,test\r\n1,test\r\n".encode())
    result = apply_splits(source(NAMES), (str(table),))
    assert list(splits(result).values()) == [TEST, TRAIN, TRAIN, TEST]
    assert warned(result) == [(HALF_ROW, "t.csv line 3"), (HALF_ROW, "t.csv line 4"), (TWICE, "t.csv line 7")]


def test_a_radiograph_that_is_called_like_a_column(tmp_path):
    result = apply_splits(source(["image.png", "#2.png"]), write(tmp_path, test=["image", "#2.png"]))
    assert list(splits(result).values()) == [TEST, TEST]


@pytest.mark.parametrize(
    "content",
    [
        "1.png, 4.png", "1.png;4.png;", "1\t4", "1.png 4.png", "['1.png', '4.png']", '"1.png","4.png"',
        "# test, 2.png 3.png\n1.png, 4.png\n", "1.png, b/4.png\na/1.png\n", '["1.png", "4.png"]', "[1, 4]",
        '[{"image": "1.png", "label": "M"}, {"Image": "4.png"}]',
        "image\n1.png, 4.png\n", "image,label\n1.png;4.png,M\n", '["1.png, 4.png"]',
    ],
)  # fmt: skip
def test_several_names_on_a_line(tmp_path, content):
    path = tmp_path / ("t.json" if content.startswith(('["', "[1", "[{")) else "t.txt")
    path.write_text(content)
    result = apply_splits(source(NAMES), (f"test={path}",))
    assert list(splits(result).values()) == [TEST, TRAIN, TRAIN, TEST]
    assert {kind for kind, _ in warned(result)} <= {TWICE}


def test_several_names_in_a_cell_of_a_table_of_splits(tmp_path):
    (tmp_path / "t.csv").write_text("image,split\n1.png;4.png,test\n2.png,train\n3.png,train\n")
    result = apply_splits(source(NAMES), (str(tmp_path / "t.csv"),))
    assert list(splits(result).values()) == [TEST, TRAIN, TRAIN, TEST]
    assert not result.warnings


def test_a_name_among_several_that_no_radiograph_has(tmp_path):
    (tmp_path / "t.txt").write_text("1.png, 9.png, 4.png")
    result = apply_splits(source(NAMES), (f"test={tmp_path / 't.txt'}",))
    assert list(splits(result).values()) == [TEST, TRAIN, TRAIN, TEST]
    assert [(warning.kind, warning.detail) for warning in result.warnings] == [(NO_RADIOGRAPH, "9.png")]


@pytest.mark.parametrize("content", ["1.png,2.png\n3.png,4.png\n", "1;4;2\n4;1;2", "1.png 3\n4.png 2\n"])
def test_lines_that_may_be_lists_or_a_table_are_refused(tmp_path, content):
    (tmp_path / "t.txt").write_text(content)
    with pytest.raises(InputError, match=r"t.txt line 1: .* may both be meant: write a name a line"):
        apply_splits(source(NAMES), (f"test={tmp_path / 't.txt'}",))


def test_below_a_header_other_cells_are_no_names(tmp_path):
    (tmp_path / "t.txt").write_text("image,prior\n1.png,2.png\n4.png,3.png\n")
    result = apply_splits(source(NAMES), (f"test={tmp_path / 't.txt'}",))
    assert list(splits(result).values()) == [TEST, TRAIN, TRAIN, TEST]
    (tmp_path / "p.txt").write_text("7, 8")
    made = source(NAMES, ["7", "9", "8", "7"])
    assert list(splits(apply_splits(made, (f"test={tmp_path / 'p.txt'}",), "patient")).values()) == [
        TEST, TRAIN, TEST, TEST
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        {"train": ["2", "3.png"], "test": ["1", 4]}, {"name": "mine", "training": [2, 3], "testing": ["a/1.png", "4"]},
        {"training": [{"image": "2.png"}, {"image": "3.png"}], "test": [{"image": "./data/1.png"}, {"image": "4.png"}]},
    ],
)  # fmt: skip
def test_an_object_of_a_list_for_each_split(tmp_path, content):
    (tmp_path / "s.json").write_text(json.dumps(content))
    result = apply_splits(source(NAMES), (str(tmp_path / "s.json"),))
    assert list(splits(result).values()) == [TEST, TRAIN, TRAIN, TEST]


@pytest.mark.parametrize(
    ("given", "content", "message"),
    [
        ("", ["1"], "does not say who trains or tests: write train="),
        ("test=", {"test": ["1"]}, "holds more than a list of names: give .* without test="),
        ("", {"fold 1": ["1"]}, "'fold 1' is no split: write train, val and test"),
        ("test=", [{"label": 3}], "test entry 1 is no name"),
        ("test=", ["1", None], "test entry 2 is no name"),
        ("test=", [], "names nothing"),
        ("", {"test": "1.png"}, "names nothing"),
    ],
)
def test_json_that_is_refused(tmp_path, given, content, message):
    (tmp_path / "s.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        apply_splits(source(NAMES), (f"{given}{tmp_path / 's.json'}",))
    (tmp_path / "s.json").write_text('["1", ')
    with pytest.raises(InputError, match="is no JSON"):
        apply_splits(source(NAMES), (f"test={tmp_path / 's.json'}",))
