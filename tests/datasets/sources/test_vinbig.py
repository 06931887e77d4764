"""VinBigData's tables: both layouts, every fault that a row can have, and what the readers drew."""

import contextlib
import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from source_cases import HEADER, write_dicom, write_picture, write_table

from xray.datasets import sources
from xray.datasets.conversion_account import print_account
from xray.datasets.sources.vinbig import is_raw_vinbig, read_vinbig
from xray.datasets.store import open_store
from xray.errors import InputError

NORMAL = ("No finding", 14)
HEART = ("Cardiomegaly", 3)
AORTA = ("Aortic enlargement", 0)


def normal(image_id, reader):
    return (image_id, *NORMAL, reader, "", "", "", "")


@pytest.fixture
def raw(tmp_path):
    """Three images of 60 x 40: a and b with findings, c normal."""
    for image_id in "abc":
        write_dicom(tmp_path / "raw" / "train" / f"{image_id}.dicom")
    rows = [
        ("a", *HEART, "R8", 10, 10, 30, 30),
        ("a", *HEART, "R10", 12, 10, 32, 30),
        ("a", *AORTA, "R9", 40, 5, 50, 15),
        ("b", *HEART, "R9", 0, 0, 60, 40),
        normal("b", "R8"),
        normal("c", "R9"),
    ]
    write_table(tmp_path / "raw" / "train.csv", rows)
    return tmp_path / "raw"


def add_rows(raw, *rows):
    with open(raw / "train.csv", "a") as file:
        file.writelines(",".join(map(str, row)) + "\n" for row in rows)


def account(source):
    return [(drop.where, drop.reason, drop.action) for drop in source.dropped]


def convert(raw, path, **flags):
    return sources.convert("vinbig", raw, path, **{"image_size": 64, "n_folds": 2, "n_workers": 0} | flags)


def test_the_original_layout(raw, tmp_path):
    assert is_raw_vinbig(raw)
    result = convert(raw, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert [record["source_id"] for record in store.records] == ["a", "b", "c"]
    assert store.records[0]["file_name"] == "train/a.dicom"
    assert [record["readers"] for record in store.records] == [["R8", "R9", "R10"], ["R8", "R9"], ["R9"]]
    # Two readers of image a agree on the heart; category ids are class ids + 1.
    assert store.boxes.images.tolist() == [0, 0, 1]
    found = {
        (label, tuple(readers)): box.tolist()
        for label, readers, box in zip(store.boxes.labels[:2], store.readers[:2], store.boxes.boxes[:2], strict=True)
    }
    assert found == {(4, ("R8", "R10")): [11, 10, 31, 30], (1, ("R9",)): [40, 5, 50, 15]}
    assert store.categories[4] == "Cardiomegaly"
    assert len(store.categories) == 14
    assert sorted(store.agreement.round(3).tolist()) == [0.333, 0.5, 0.667]
    assert result["layout"] == "dicom"
    assert result["counts"]["images_without_boxes"] == 1
    assert result["dropped"] == {"counts": {}, "rows": []}


def test_all_readers_boxes(raw, tmp_path):
    convert(raw, tmp_path / "data", readers="all")
    store = open_store(tmp_path / "data")
    assert store.boxes.boxes.tolist() == [[10, 10, 30, 30], [12, 10, 32, 30], [40, 5, 50, 15], [0, 0, 60, 40]]
    assert store.readers == [["R8"], ["R10"], ["R9"], ["R9"]]


def test_no_patient_and_no_path_in_what_is_written(raw, tmp_path):
    convert(raw, tmp_path / "data")
    for name in ("annotations.json", "conversion.json"):
        text = (tmp_path / "data" / name).read_text()
        assert "Doe" not in text
        assert str(tmp_path) not in text


# ---- faults


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("a", *HEART, "R9", "", 10, 20, 20), "coordinates not numbers"),
        (("a", *HEART, "R9", "ten", 10, 20, 20), "coordinates not numbers"),
        (("a", *HEART, "R9", "inf", 10, 20, 20), "coordinates not numbers"),
        (("a", *HEART, "R9", 20, 10, 10, 20), "inverted box"),
        (("a", *HEART, "R9", 10, 20, 20, 10), "inverted box"),
        (("a", *HEART, "R9", 10, 10, 10, 20), "empty box"),
        (("a", *HEART, "R9", 10, 10, 10.001, 20), "empty box"),
        (("a", "Cardiomegaly", 15, "R9", 10, 10, 20, 20), "unknown class"),
        (("a", "Cardiomegaly", -1, "R9", 10, 10, 20, 20), "unknown class"),
        (("a", "Cardiomegaly", 3.5, "R9", 10, 10, 20, 20), "unknown class"),
        (("a", "Cardiomegaly", "", "R9", 10, 10, 20, 20), "unknown class"),
        (("a", "Cardiomegaly", 4, "R9", 10, 10, 20, 20), "class name and id disagree"),
    ],
)
def test_a_radiograph_with_a_finding_that_cannot_be_used_is_left_out(raw, tmp_path, capsys, row, reason):
    # What was left out would be learned as background.
    add_rows(raw, row)
    lost = "radiograph with an annotation that could not be used"
    source = read_vinbig(raw)
    assert account(source) == [("train.csv line 8", reason, "left out"), ("train/a", lost, "left out")]
    assert [image.source_id for image in source.images] == ["b", "c"]
    result = convert(raw, tmp_path / "data")
    assert result["dropped"]["counts"] == {reason: 1, lost: 1}
    print_account(result, tmp_path / "data")
    assert "1 radiograph left out: its annotations could not be used" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("a", *HEART, "R8", "10.0", 10, 30, 30), "duplicate row"),
        (("c", *NORMAL, "R9", "", "", "", ""), "duplicate row"),
        (("a", *NORMAL, "R9", "", "", "", ""), "contradictory row"),
        ((" ", *NORMAL, "R9", "", "", "", ""), "row without an image id"),
    ],
)
def test_a_row_that_says_nothing_new_is_left_out_and_told(raw, tmp_path, row, reason):
    expected = read_vinbig(raw)
    add_rows(raw, row)
    source = read_vinbig(raw)
    assert account(source) == [("train.csv line 8", reason, "left out")]
    np.testing.assert_array_equal(source.boxes.boxes, expected.boxes.boxes)
    assert len(source.images) == 3
    counts = convert(raw, tmp_path / "data")["dropped"]["counts"]
    assert counts == {reason: 1}


def test_rows_beyond_the_edge_are_clipped(raw, tmp_path):
    add_rows(raw, ("a", *AORTA, "R8", 50, 30, 90, 90), ("a", *HEART, "R9", -9, 0, 5, 5))
    result = convert(raw, tmp_path / "data", readers="all")
    assert result["dropped"]["rows"] == [
        {"where": "train.csv line 8", "reason": "box beyond the edge", "action": "clipped"},
        {"where": "train.csv line 9", "reason": "box beyond the edge", "action": "clipped"},
    ]
    boxes = open_store(tmp_path / "data").boxes.boxes.tolist()
    assert [50, 30, 60, 40] in boxes
    assert [0, 0, 5, 5] in boxes
    assert len(boxes) == 6


def test_a_radiograph_with_a_box_wholly_beyond_its_edge_is_left_out(raw, tmp_path):
    add_rows(raw, ("a", *AORTA, "R8", 61, 0, 90, 9))
    (dropped,) = convert(raw, tmp_path / "data", readers="all")["dropped"]["rows"]
    assert dropped == {
        "where": "train/a.dicom",
        "reason": "radiograph with an annotation that could not be used",
        "action": "left out",
        "detail": "1 of 4 boxes beyond 60 x 40",
    }
    assert open_store(tmp_path / "data").boxes.boxes.tolist() == [[0, 0, 60, 40]]


# ---- ids


@pytest.mark.parametrize("blank", ["", " ", "nan"])
def test_a_finding_without_an_image_id_is_refused(raw, blank):
    # It may be that of c, which would pass for normal.
    add_rows(raw, (blank, *HEART, "R9", 10, 10, 20, 20), ("", "", "", "", "", "", "", ""))
    with pytest.raises(
        InputError, match=r"1 findings without an image_id \(the first: train.csv line 8\), so its 1 rad"
    ):
        read_vinbig(raw)


def test_numbers_in_every_spelling(tmp_path):
    for name in ("7.dicom", "008.DCM", "9.dicom"):
        write_dicom(tmp_path / "train" / name)
    rows = [
        ("7.0", "cardiomegaly", "3.0", "1", " 10.0", "1e1", "+30", "30."),
        # The same reader once more, and another one.
        (" 7", *HEART, "1.0", 10, 10, 30, 30),
        ("7.00", *AORTA, 2, 40, 5, 50, 15),
        ("8", *HEART, "1", 0, 0, 60, 40),
        ("9.0", *NORMAL[:1], "14.0", "2.0", "nan", "NaN", "", ""),
    ]
    write_table(tmp_path / "train.csv", rows)
    source = read_vinbig(tmp_path)
    assert [(image.source_id, image.file_name, image.readers) for image in source.images] == [
        ("7", "train/7.dicom", ("1", "2")),
        ("008", "train/008.DCM", ("1",)),
        ("9", "train/9.dicom", ("2",)),
    ]
    assert account(source) == [("train.csv line 3", "duplicate row", "left out")]
    assert source.boxes.images.tolist() == [0, 0, 1]
    assert source.boxes.boxes.tolist() == [[10, 10, 30, 30], [40, 5, 50, 15], [0, 0, 60, 40]]
    assert source.boxes.labels.tolist() == [4, 1, 4]
    alone = read_vinbig(tmp_path, table_only=True)
    assert [image.source_id for image in alone.images] == ["7", "8", "9"]


def test_one_id_for_two_files(raw):
    write_dicom(raw / "train" / "a.dcm", 30, 20)
    (raw / "train" / "b.DCM").write_bytes((raw / "train" / "b.dicom").read_bytes())
    write_dicom(raw / "train" / "1.dcm")
    write_dicom(raw / "train" / "01.dcm", 30, 20)
    add_rows(raw, normal("01", "R9"), ("1.0", *HEART, "R9", 0, 0, 9, 9))
    source = read_vinbig(raw)
    # The files of b are copies. Of a and 1 it cannot be told whose the boxes are, and 01 may have that of 1.0.
    assert [(image.source_id, len(image.readers)) for image in source.images] == [("b", 2), ("c", 1)]
    assert [(drop.where, drop.reason, drop.detail) for drop in source.dropped] == [
        ("train/b.dicom", "second copy of a file", "the same as train/b.DCM"),
        ("train/a", "several files of one id", "a may be a.dcm or a.dicom"),
        ("train/01", "several files of one id", "1.0 may be 01.dcm or 1.dcm"),
        ("train/1", "several files of one id", "1.0 may be 01.dcm or 1.dcm"),
    ]


def test_a_table_may_tell_files_by_their_suffix(raw):
    write_dicom(raw / "train" / "a.dcm", 30, 20)
    text = (raw / "train.csv").read_text()
    (raw / "train.csv").write_text(text.replace("a,", "a.dicom,") + ",".join(map(str, normal("a.dcm", "R9"))) + "\n")
    source = read_vinbig(raw)
    assert [(image.source_id, image.file_name) for image in source.images] == [
        ("a.dicom", "train/a.dicom"), ("b", "train/b.dicom"), ("c", "train/c.dicom"), ("a.dcm", "train/a.dcm"),
    ]  # fmt: skip
    assert source.boxes.images.tolist() == [0, 0, 0, 1]
    assert source.dropped == []


# ---- rows without a finding


def test_a_box_on_a_no_finding_row_is_ignored_but_kaggles_unit_box_is_not_worth_a_word(raw):
    (raw / "train.csv").write_text(
        (raw / "train.csv").read_text().replace("c,No finding,14,R9,,,,", "c,No finding,14,R9,0,0,1,1")
    )
    assert account(read_vinbig(raw)) == []
    (raw / "train.csv").write_text((raw / "train.csv").read_text().replace("R9,0,0,1,1", "R9,5,5,9,9"))
    source = read_vinbig(raw)
    assert account(source) == [("train.csv line 7", "box on a No finding row", "box ignored")]
    assert len(source.images) == 3
    assert 2 not in source.boxes.images


def test_readers_may_disagree_with_each_other(raw):
    # R8 saw nothing in b, R9 a large heart: both rows stand.
    assert account(read_vinbig(raw)) == []


def test_an_image_whose_findings_are_all_unusable_does_not_pass_for_normal(raw):
    (raw / "train.csv").write_text((raw / "train.csv").read_text().replace("R9,0,0,60,40", "R9,60,0,0,40"))
    source = read_vinbig(raw)
    assert [image.source_id for image in source.images] == ["a", "c"]
    assert account(source) == [
        ("train.csv line 5", "inverted box", "left out"),
        ("train/b", "image without a usable box", "left out"),
    ]


def test_missing_and_unlisted_and_broken_files(raw, tmp_path):
    (raw / "train" / "a.dicom").rename(raw / "train" / "z.dicom")
    (raw / "train" / "notes.txt").write_text("")
    write_dicom(raw / "train" / "d.dicom")
    (raw / "train" / "d.dicom").write_bytes((raw / "train" / "d.dicom").read_bytes()[:300])
    add_rows(raw, normal("d", "R9"))
    result = convert(raw, tmp_path / "data")
    assert [record["source_id"] for record in open_store(tmp_path / "data").records] == ["b", "c"]
    rows = [(row["where"], row["reason"]) for row in result["dropped"]["rows"]]
    assert rows == [
        ("train/a", "missing file"),
        ("train/z.dicom", "file without a row in the table"),
        ("train/d.dicom", "unreadable file"),
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", "x", "", "../a", "a/b"]),
            st.sampled_from(["Cardiomegaly", "No finding", "", "Nonsense", '"quo,ted"']),
            st.one_of(st.integers(-2, 17).map(str), st.sampled_from(["", "NaN", "1e400", "3.0", "0x3"])),
            st.sampled_from(["R1", "R2", "", " R1 "]),
            *[st.one_of(st.integers(-20, 80).map(str), st.sampled_from(["", "nan", "-inf", "1e9", "ten"]))] * 4,
        ),
        max_size=20,
    )
)
@example(rows=[("b", "Cardiomegaly", "0", "R1", *"0000"), ("a/b", "", "0", "R1", "-1", "-1", "0", "0")])
def test_every_row_is_taken_or_told(raw, tmp_path, rows):
    text = ",".join(HEADER) + "\n" + "".join(",".join(row) + "\n" for row in rows)
    (raw / "train.csv").write_text(text)
    source = None
    with contextlib.suppress(InputError):
        source = read_vinbig(raw)
    if source is None:
        # A finding, but of nobody's radiograph.
        assert not all(row[0] for row in rows)
        return
    lines = {drop.where for drop in source.dropped if drop.action == "left out"} | set(source.places)
    gone = {drop.where.removeprefix("train/") for drop in source.dropped}
    # An id that is no path inside the data path is named once, with its table.
    gone |= {name for name in ("../a", "a/b") if f"train.csv, {name!r}" in lines}
    # One that ends in a file's name means that file.
    gone |= {name for name in ("../a", "a/b") if name[-1] in gone}
    for number, row in enumerate(rows, start=2):
        is_normal = row[2] == "14" and row[1] in ("No finding", "")
        if not is_normal and row[0] and row[0] not in gone:
            assert f"train.csv line {number}" in lines
    assert ((source.boxes.boxes[:, 2:] - source.boxes.boxes[:, :2]) > 0).all()
    assert {image.source_id for image in source.images} <= {"a", "b", "c"}
    assert len({image.source_id for image in source.images}) == len(source.images)
    if len(source.images) >= 2:
        convert(raw, tmp_path / "data", overwrite=True)
        store = open_store(tmp_path / "data")
        assert ((store.boxes.boxes >= 0) & (store.boxes.boxes <= [60, 40, 60, 40])).all()


# ---- the layout of 1024-pixel pictures


@pytest.fixture
def pictures(tmp_path):
    """Two pictures of radiographs of 600 x 400: a keeps the aspect, b was squashed into a square."""
    write_picture(tmp_path / "raw" / "train" / "a.png", 96, 64)
    write_picture(tmp_path / "raw" / "train" / "b.png", 96, 96)
    write_table(tmp_path / "raw" / "train_meta.csv", [("a", 400, 600), ("b", 400, 600)], ["image_id", "dim0", "dim1"])
    write_table(tmp_path / "raw" / "train.csv", [("a", *HEART, "R9", 300, 200, 600, 400), normal("b", "R9")])
    return tmp_path / "raw"


def test_boxes_of_pictures_are_in_the_pixels_of_the_originals(pictures, tmp_path):
    result = convert(pictures, tmp_path / "data")
    assert result["layout"] == "pictures"
    store = open_store(tmp_path / "data")
    assert [(record["width"], record["height"]) for record in store.records] == [(600, 400)] * 2
    np.testing.assert_array_equal(store.boxes.boxes, [[300, 200, 600, 400]])
    # The lower right quarter of the content of a 64-pixel canvas.
    np.testing.assert_allclose(store.canvas(0).to_canvas(store.boxes.boxes), [[32, 32, 64, 53.5]], atol=0.51)
    # The squashed picture fills the same place as the one that kept its aspect.
    np.testing.assert_array_equal(store.images[1] > 0, store.images[0] > 0)


def test_width_and_height_may_stand_in_train_csv(pictures, tmp_path):
    (pictures / "train_meta.csv").unlink()
    rows = [("a", *HEART, "R9", 300, 200, 600, 400, 600, 400), (*normal("b", "R9"), 600, 400)]
    write_table(pictures / "train.csv", rows, (*HEADER, "width", "height"))
    source = read_vinbig(pictures)
    assert [(image.width, image.height) for image in source.images] == [(600, 400)] * 2


def test_pictures_without_sizes(pictures):
    write_table(pictures / "train_meta.csv", [("a", 400, 600), ("b", 0, 600)], ["image_id", "dim0", "dim1"])
    assert account(read_vinbig(pictures)) == [("train/b", "original size unknown", "left out")]
    (pictures / "train_meta.csv").unlink()
    with pytest.raises(InputError, match=r"original radiographs, whose size is not known: put train_meta\.csv"):
        read_vinbig(pictures)


def test_pictures_beside_dicom_files_are_not_looked_at(raw):
    write_picture(raw / "train" / "a.png")
    source = read_vinbig(raw)
    assert [image.file_name for image in source.images] == ["train/a.dicom", "train/b.dicom", "train/c.dicom"]
    (warning,) = source.warnings
    assert dataclasses.astuple(warning) == (
        "pictures beside DICOM files, not looked at", "train/", "1 files, such as a.png"
    )  # fmt: skip


# ---- test images


@pytest.mark.parametrize("named", [False, True])
def test_hidden_truth_becomes_the_test_split_and_no_fold(raw, tmp_path, named):
    for image_id in "xy":
        write_dicom(raw / "test" / f"{image_id}.dicom")
    assert len(read_vinbig(raw).images) == 3
    header = [name for name in HEADER if name != "rad_id" or named]
    who = ["R1"] * named
    rows = [("x", *HEART, *who, 10, 10, 30, 30), ("x", *HEART, *who, 11, 10, 31, 30), ("y", *NORMAL, *who, *[""] * 4)]
    write_table(raw / "test_truth.csv", rows, header)
    result = convert(raw, tmp_path / "data")
    store = open_store(tmp_path / "data")
    test = store.rows(split="test")
    assert [store.records[row]["source_id"] for row in test] == ["x", "y"]
    assert (store.folds[test] == -1).all()
    assert not set(test) & set(store.rows(not_fold=0).tolist() + store.rows(fold=0).tolist())
    # Two true lesions may overlap: the truth is never fused.
    assert (store.boxes.images == test[0]).sum() == 2
    assert result["counts"]["test_images"] == 2


# ---- what is not there


def test_what_is_missing_is_said(raw, tmp_path):
    with pytest.raises(InputError, match=r"no data at .*kaggle.*tools/phantoms\.py"):
        read_vinbig(tmp_path / "none")
    with pytest.raises(InputError, match=r"has no train\.csv"):
        read_vinbig(tmp_path)
    (raw / "train").rename(raw / "elsewhere")
    with pytest.raises(InputError, match="has no folder train/"):
        read_vinbig(raw)
    (raw / "train").mkdir()
    with pytest.raises(InputError, match=r"holds no \.dicom"):
        read_vinbig(raw)


def test_no_file_of_the_table_is_there(raw, tmp_path):
    for file in (raw / "train").iterdir():
        file.rename(file.with_stem("x" + file.stem))
    with pytest.raises(InputError, match=r"no radiograph of the source can be used \(3 x missing file"):
        convert(raw, tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"train\.csv is not a CSV table"),
        ("image_id,class_name\na,b\n", r"lacks the columns class_id, x_min, y_min, x_max, y_max: it needs image_id"),
        ('image_id,class_id\n"a', "is not a CSV table"),
        (b"\xff\xfe\x00image_id", "is not a CSV table"),
    ],
)
def test_tables_that_are_none(raw, content, message):
    (raw / "train.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read_vinbig(raw)


def test_names_of_columns_may_have_blanks_and_a_byte_order_mark(raw):
    text = (raw / "train.csv").read_text().replace(",class_id", ", class_id ").replace("R8", " R8 ")
    (raw / "train.csv").write_text(text, encoding="utf-8-sig")
    source = read_vinbig(raw)
    assert account(source) == []
    assert source.images[0].readers == ("R8", "R9", "R10")
