"""SIIM-ACR Pneumothorax: its three kinds of table, and every fault that a table, a file or a mask can have."""

import json

import cv2
import numpy as np
import pytest
from source_cases import write_dicom, write_picture

from xray.datasets import sources
from xray.datasets.sources.siim import read_siim
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.structures.masks import decode_mask
from xray.structures.rle import encode

WIDTH, HEIGHT = 60, 40


def blob(left=10, top=5, right=20, bottom=25):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def write_runs(folder, rows, name="train-rle.csv", header="ImageId, EncodedPixels", separator=", "):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join([header, *(f"{image}{separator}{text}" for image, text in rows)]) + "\n")
    return folder


def write_dicoms(folder, *ids):
    for number in ids:
        write_dicom(folder / f"study{number}" / f"series{number}" / f"{number}.dcm", WIDTH, HEIGHT)


@pytest.fixture
def raw(tmp_path):
    """Radiographs 1.1 to 1.6 as SIIM has them; 1.1 with a mask, 1.2 with one in two rows, the others without."""
    raw = tmp_path / "raw"
    write_dicoms(raw / "dicom-images-train", *(f"1.{number}" for number in range(1, 7)))
    rows = [("1.1", encode(blob(), "relative")), ("1.2", encode(blob(), "relative"))]
    rows += [("1.2", encode(blob(15, 20, 30, 35), "relative")), *((f"1.{number}", "-1") for number in range(3, 7))]
    return write_runs(raw, rows)


def convert(raw, path, **flags):
    return sources.convert("siim", raw, path, **{"image_size": 32, "n_folds": 2, "n_workers": 0} | flags)


def account(source):
    return [(drop.where, drop.reason) for drop in source.dropped]


def ids(source):
    return [image.source_id for image in source.images]


def masks_of(store):
    """Source id → the joined mask of each radiograph at original size."""
    found = {record["source_id"]: np.zeros((record["height"], record["width"]), dtype=bool) for record in store.records}
    for row, rle in store.masks.items():
        found[store.records[store.boxes.images[row]]["source_id"]] |= decode_mask(rle).astype(bool)
    return found


def test_dicom_files_and_run_lengths(raw, tmp_path):
    result = convert(raw, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert (result["source"], result["layout"], result["dropped"]["counts"]) == ("siim", "runs", {})
    assert store.categories == {1: "Pneumothorax"}
    assert [record["source_id"] for record in store.records] == [f"1.{number}" for number in range(1, 7)]
    assert store.records[0]["file_name"] == "dicom-images-train/…/…/1.1.dcm"
    assert [record["labels"] for record in store.records] == [[1], [1], [], [], [], []]
    masks = masks_of(store)
    np.testing.assert_array_equal(masks["1.1"], blob())
    # The rows of an image are joined: here they overlap and make one component.
    np.testing.assert_array_equal(masks["1.2"], blob() | blob(15, 20, 30, 35))
    assert store.boxes.boxes.tolist() == [[10, 5, 20, 25], [10, 5, 30, 35]]
    assert result["counts"]["images_per_label"] == {"Pneumothorax": 2}
    # One of the two positives in each fold.
    assert store.folds[0] != store.folds[1]


def test_components_are_annotations_of_their_own(raw, tmp_path):
    mask = blob(0, 0, 5, 5) | blob(50, 30, 60, 40)
    write_runs(raw, [("1.1", encode(mask, "relative")), *((f"1.{number}", "-1") for number in range(2, 7))])
    convert(raw, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert store.boxes.boxes.tolist() == [[0, 0, 5, 5], [50, 30, 60, 40]]
    assert [int(decode_mask(store.masks[row]).sum()) for row in (0, 1)] == [25, 100]


@pytest.mark.parametrize(
    ("name", "header", "separator"),
    [
        ("train-rle.csv", "ImageId, EncodedPixels", ", "),
        ("stage_2_train.csv", "ImageId,EncodedPixels", ","),
        ("mine.csv", "\ufeffEncodedPixels_old,ImageId,EncodedPixels", None),
    ],
)
def test_both_stages_spellings(raw, name, header, separator):
    text = encode(blob(), "relative")
    (raw / "train-rle.csv").unlink()
    rows = [("1.1", text), *((f"1.{number}", "-1") for number in range(2, 7))]
    if separator is None:
        rows, separator = [("x,1.1", text), *((f"x,1.{number}", "-1") for number in range(2, 7))], ","
    write_runs(raw, rows, name, header, separator)
    source = read_siim(raw)
    assert (len(source.images), len(source.boxes), source.dropped) == (6, 1, [])


def test_stage_2_takes_radiographs_from_both_folders_of_stage_1(raw):
    (raw / "train-rle.csv").unlink()
    write_dicoms(raw / "dicom-images-test", "2.1", "2.2")
    write_runs(raw, [(f"1.{number}", "-1") for number in range(1, 7)] + [("2.1", "1 2")], "stage_2_train.csv")
    source = read_siim(raw)
    assert ids(source)[-1] == "2.1"
    # Of 2.2 nothing is known, but nobody said that it belongs to the training set.
    assert source.dropped == []


def test_hidden_truth_becomes_the_test_split(raw, tmp_path):
    write_dicoms(raw / "dicom-images-test", "2.1", "2.2")
    write_runs(raw, [("2.1", encode(blob(), "relative")), ("2.2", "-1"), ("1.1", "-1")], "test-rle-truth.csv")
    result = convert(raw, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert [(record["source_id"], record["labels"]) for record in store.records if record["split"] == "test"] == [
        ("2.1", [1]),
        ("2.2", []),
    ]
    assert result["dropped"]["rows"] == [
        {"where": "test-rle-truth.csv line 4", "reason": "duplicate row", "action": "left out with its image",
         "detail": "1.1"}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2390 20", "runs beyond the image"),
        ("10 5 2380 10 4 2", "runs beyond the image"),
        ("100 10 -5 10", "overlapping or unsorted runs"),
        ("100 10 5", "malformed run lengths"),
        ("100 ten", "malformed run lengths"),
        ("100 0", "malformed run lengths"),
        (encode(blob(), "absolute"), "run lengths in the other dialect"),
    ],
)
@pytest.mark.parametrize("row", [0, 2])
def test_run_lengths_that_are_no_mask_cost_their_image_only(raw, tmp_path, text, reason, row):
    good = encode(blob(), "relative")
    rows = [("1.1", good), ("1.2", good), ("1.2", good + " 900 3"), *((f"1.{number}", "-1") for number in range(3, 7))]
    rows[row] = (rows[row][0], text)
    write_runs(raw, rows)
    lost = rows[row][0]
    result = convert(raw, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert sorted(store.index_of) == sorted({f"1.{number}" for number in range(1, 7)} - {lost})
    assert result["dropped"]["counts"] == {reason: 1}
    (entry,) = result["dropped"]["rows"]
    assert entry["detail"].startswith(f"{lost}: ")
    # The image's first row.
    assert entry["where"] == f"train-rle.csv line {min(row, 1) + 2}"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("1.1", "5 5"), ("9.9", "5 5")], ("train-rle.csv line 3", "mask without an image")),
        ([("1.1", "5 5"), ("9.9", "-1")], ("train-rle.csv line 3", "missing file")),
        ([("1.1", "5 5"), ("1.1", "5 5")], ("train-rle.csv line 3", "duplicate row")),
        ([("1.2", "5 5"), ("1.1", "5 5"), ("1.1", "-1")], ("train-rle.csv line 3", "contradictory rows")),
        ([("1.1", "5 5"), ("", "-1")], ("train-rle.csv line 3", "row without an image id")),
        ([("1.1", "5.0 5"), ("1.2", "-1.0"), ("1.2", "nan")], ("train-rle.csv line 4", "duplicate row")),
        ([("1.1", "5 5"), ("", "")], None),
    ],
)
def test_faulty_rows_are_told(raw, rows, expected):
    known = {image for image, _ in rows}
    write_runs(raw, [*rows, *((f"1.{number}", "-1") for number in range(1, 7) if f"1.{number}" not in known)])
    source = read_siim(raw)
    assert account(source) == ([expected] if expected else [])
    gone = {"1.1"} if expected and expected[1] == "contradictory rows" else set()
    assert set(ids(source)) == {f"1.{number}" for number in range(1, 7)} - gone


def test_an_image_without_a_row_is_told_and_not_taken_for_normal(raw):
    write_runs(raw, [("1.1", "5 5"), ("1.2", "-1")])
    source = read_siim(raw)
    assert ids(source) == ["1.1", "1.2"]
    names = [f"dicom-images-train/study1.{number}/series1.{number}/1.{number}.dcm" for number in range(3, 7)]
    assert account(source) == [(name, "image without a mask") for name in names]


def test_an_unreadable_file_costs_itself(raw, tmp_path):
    for number in (1, 3):
        path = raw / "dicom-images-train" / f"study1.{number}" / f"series1.{number}" / f"1.{number}.dcm"
        path.write_bytes(path.read_bytes()[:100])
    result = convert(raw, tmp_path / "data")
    assert result["dropped"]["counts"] == {"unreadable file": 2}
    assert len(open_store(tmp_path / "data")) == 4


@pytest.mark.parametrize(("wrong", "right"), [("relative", "absolute"), ("absolute", "relative")])
def test_a_table_in_the_other_dialect_is_refused_as_a_whole(raw, tmp_path, wrong, right):
    rows = [(f"1.{number}", encode(blob(10 + number), right)) for number in range(1, 5)]
    write_runs(raw, [*rows, ("1.5", "-1"), ("1.6", "-1")])
    with pytest.raises(
        InputError, match=rf"train-rle\.csv: 4 masks are run lengths of the {right} .*--dialect {right}"
    ):
        convert(raw, tmp_path / "data", dialect=wrong)
    assert not (tmp_path / "data").exists()
    convert(raw, tmp_path / "data", dialect=right)
    masks = masks_of(open_store(tmp_path / "data"))
    for number in range(1, 5):
        np.testing.assert_array_equal(masks[f"1.{number}"], blob(10 + number))


def test_short_masks_tell_the_dialect_together(raw, tmp_path):
    # Two runs each, of which a single one might as well be out of order.
    rows = [(f"1.{number}", encode(blob(10 + number, right=12 + number), "relative")) for number in range(1, 5)]
    write_runs(raw, [*rows, ("1.5", "-1"), ("1.6", "-1")])
    with pytest.raises(InputError, match="4 masks are run lengths of the relative dialect, 0 of the absolute one"):
        convert(raw, tmp_path / "data", dialect="absolute")
    write_runs(raw, [("1.1", "100 10 50 10"), *((f"1.{number}", "5 5") for number in (2, 3)), ("1.4", "")])
    source = read_siim(raw, dialect="absolute")
    assert [(drop.where, drop.reason) for drop in source.dropped][-1:] == [
        ("train-rle.csv line 2", "overlapping or unsorted runs")
    ]


def test_resized_radiographs_need_the_size_their_masks_were_drawn_at(tmp_path):
    raw = tmp_path / "raw"
    mask = np.zeros((200, 200), dtype=bool)
    mask[100:180, 120:160] = True
    for number in range(4):
        write_picture(raw / "images" / f"{number}.png", 50, 50)
    write_runs(raw, [("0", encode(mask, "relative")), ("1", encode(mask, "relative")), ("2", "-1"), ("3", "-1")])
    with pytest.raises(InputError, match=r"2 masks run beyond their radiographs.*Give --mask-size 1024"):
        convert(raw, tmp_path / "data")
    convert(raw, tmp_path / "data", mask_size=200)
    store = open_store(tmp_path / "data")
    np.testing.assert_array_equal(masks_of(store)["0"], mask)
    assert {(record["width"], record["height"]) for record in store.records} == {(200, 200)}
    with pytest.raises(InputError, match="--mask-size is 100"):
        convert(raw, tmp_path / "other", mask_size=100)


def write_edition(raw, rows, name="stage_1_train_images.csv"):
    raw.mkdir(parents=True, exist_ok=True)
    lines = ["new_filename,ImageId,has_pneumo", *(f"{file},{image},{label}" for file, image, label in rows)]
    (raw / name).write_text("\n".join(lines) + "\n")


@pytest.fixture
def pictures(tmp_path):
    """The PNG edition: two positives, two negatives, and a test image."""
    raw = tmp_path / "raw"
    names = ["0_train_1_.png", "1_train_0_.png", "2_train_1_.png", "3_train_0_.png", "0_test_1_.png"]
    (raw / "png_masks").mkdir(parents=True)
    for number, name in enumerate(names):
        write_picture(raw / "png_images" / name, WIDTH, HEIGHT)
        mask = blob(10 + number) if "_1_" in name else blob(0, 0, 0, 0)
        cv2.imwrite(str(raw / "png_masks" / name), mask.astype(np.uint8) * 255)
    write_edition(raw, [(name, f"1.{number}", int("_1_" in name)) for number, name in enumerate(names[:4])])
    write_edition(raw, [(names[4], "1.9", 1)], "stage_1_test_images.csv")
    return raw


def test_the_png_edition(pictures, tmp_path):
    result = convert(pictures, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert (result["layout"], result["dropped"]["counts"]) == ("pictures", {})
    assert [record["source_id"] for record in store.records][:2] == ["0_train_1_", "1_train_0_"]
    assert [record["siim_id"] for record in store.records] == ["1.0", "1.1", "1.2", "1.3", "1.9"]
    assert [record["split"] for record in store.records] == ["train"] * 4 + ["test"]
    assert store.labels[:, 0].tolist() == [True, False, True, False, True]
    np.testing.assert_array_equal(masks_of(store)["2_train_1_"], blob(12))


def test_faults_of_the_png_edition_cost_one_image_each(pictures, tmp_path):
    for number in range(4, 12):
        write_picture(pictures / "png_images" / f"{number}.png", WIDTH, HEIGHT)
        cv2.imwrite(str(pictures / "png_masks" / f"{number}.png"), blob(number).astype(np.uint8) * 255)
    table = (pictures / "stage_1_train_images.csv").read_text()
    extra = "".join(f"{number}.png,2.{number},1\n" for number in range(4, 10))
    (pictures / "stage_1_train_images.csv").write_text(table + extra + "10.png,2.10,maybe\n12.png,2.12,1\n")
    (pictures / "png_images" / "4.png").unlink()
    (pictures / "png_masks" / "5.png").unlink()
    cv2.imwrite(str(pictures / "png_masks" / "6.png"), np.full((HEIGHT, WIDTH + 1), 255, dtype=np.uint8))
    cv2.imwrite(str(pictures / "png_masks" / "7.png"), np.zeros((HEIGHT, WIDTH), dtype=np.uint8))
    (pictures / "png_masks" / "8.png").write_bytes(b"no picture")
    # A negative needs no mask.
    (pictures / "png_masks" / "1_train_0_.png").unlink()
    result = convert(pictures, tmp_path / "data")
    assert {(row["where"], row["reason"]) for row in result["dropped"]["rows"]} == {
        ("stage_1_train_images.csv line 6", "mask without an image"),
        ("png_images/5.png", "image without a mask"),
        ("png_masks/6.png", "mask and image differ in size"),
        ("png_masks/7.png", "label and mask disagree"),
        ("png_masks/8.png", "unreadable mask"),
        ("stage_1_train_images.csv line 12", "label neither 0 nor 1"),
        ("stage_1_train_images.csv line 13", "missing file"),
        ("png_images/11.png", "file without a row in the table"),
        ("png_masks/11.png", "file without a row in the table"),
    }
    assert sorted(open_store(tmp_path / "data").index_of) == [
        "0_test_1_", "0_train_1_", "1_train_0_", "2_train_1_", "3_train_0_", "9",
    ]  # fmt: skip


def test_values_of_pictures_are_joined_and_told(pictures):
    mask = blob(10).astype(np.uint8) * 85
    mask[:10] *= 2
    cv2.imwrite(str(pictures / "png_masks" / "0_train_1_.png"), mask)
    source = read_siim(pictures)
    assert source.boxes.boxes[0].tolist() == [10, 5, 20, 25]
    assert [(warning.kind, warning.where, warning.detail) for warning in source.warnings] == [
        ("masks with several values, all taken as mask", "png_masks/0_train_1_.png", "1 of 5 masks, values 85, 170")
    ]


def test_labels_alone(tmp_path):
    raw = tmp_path / "raw"
    for number in range(8):
        write_picture(raw / "images" / f"{number}.png")
    rows = [(0, 1), (1, 0), (2, 1), (3, 0), (4, "maybe"), (5, 0), (5, 1), (6, 0), (6, 0), (9, 1)]
    (raw / "labels.csv").write_text("ImageId,Class\n" + "".join(f"{image},{label}\n" for image, label in rows))
    result = convert(raw, tmp_path / "data")
    store = open_store(tmp_path / "data")
    assert result["layout"] == "labels"
    assert {record["source_id"]: record["labels"] for record in store.records} == {
        "0": [1], "1": [], "2": [1], "3": [], "6": [],
    }  # fmt: skip
    assert (len(store.boxes), store.labels[:, 0].sum()) == (0, 2)
    assert store.folds[0] != store.folds[2]
    assert {(row["where"], row["reason"]) for row in result["dropped"]["rows"]} == {
        ("labels.csv line 6", "label neither 0 nor 1"),
        ("labels.csv line 7", "contradictory rows"),
        ("labels.csv line 10", "duplicate row"),
        ("labels.csv line 11", "missing file"),
        ("images/7.png", "file without a row in the table"),
    }


def test_masks_beside_the_radiographs_are_left_out(tmp_path):
    for number in range(4):
        write_picture(tmp_path / "train" / "images" / f"{number}.png", WIDTH, HEIGHT, number)
        for folder in (tmp_path / "train" / "masks", tmp_path / "all_masks"):
            folder.mkdir(exist_ok=True)
            cv2.imwrite(str(folder / f"{number}.png"), blob(10 + number).astype(np.uint8) * 255)
    write_runs(tmp_path, [(number, encode(blob(10 + number), "relative")) for number in range(4)])
    source = read_siim(tmp_path)
    assert [image.file_name for image in source.images] == [f"train/images/{number}.png" for number in range(4)]
    assert source.boxes.boxes[:, 0].tolist() == [10, 11, 12, 13]
    assert source.dropped == []
    assert [(warning.kind, warning.where) for warning in source.warnings] == [
        ("masks beside radiographs, left out", "all_masks/"), ("masks beside radiographs, left out", "train/masks/"),
    ]  # fmt: skip


def test_a_mask_without_an_id_is_refused(raw):
    # It may be a part of any radiograph's.
    write_runs(raw, [("1.1", "5 5"), ("nan", "5 5"), *((f"1.{number}", "-1") for number in range(2, 7))])
    with pytest.raises(InputError, match=r"train-rle.csv line 3 has a mask but no ImageId: write the"):
        read_siim(raw)


def test_two_files_of_one_id(raw):
    folder = raw / "dicom-images-train"
    # Of 1.1 there is another file, of 1.2 a copy.
    write_dicom(folder / "other" / "1.1.dcm", WIDTH + 1, HEIGHT)
    (folder / "copy").mkdir()
    (folder / "copy" / "1.2.dcm").write_bytes((folder / "study1.2" / "series1.2" / "1.2.dcm").read_bytes())
    write_picture(raw / "png" / "1.3.png", WIDTH, HEIGHT)
    source = read_siim(raw)
    assert ids(source) == ["1.2", "1.4", "1.5", "1.6"]
    assert [(drop.where, drop.reason, drop.detail) for drop in source.dropped] == [
        ("dicom-images-train/study1.2/series1.2/1.2.dcm", "second copy of a file",
         "the same as dicom-images-train/copy/1.2.dcm"),
        ("train-rle.csv line 2", "several files of one id",
         "1.1 may be dicom-images-train/other/1.1.dcm or dicom-images-train/study1.1/series1.1/1.1.dcm"),
        ("train-rle.csv line 5", "several files of one id",
         "1.3 may be dicom-images-train/study1.3/series1.3/1.3.dcm or png/1.3.png"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "header", ["image_id,encoded_pixels", "Image Id, EncodedPixels ", '"ImageID","Encoded Pixels"']
)
def test_numbers_and_columns_in_every_spelling(tmp_path, header):
    write_dicoms(tmp_path / "images", "007", "8", "9")
    text = encode(blob(), "relative")
    rows = [("7.0", text), (" 7", encode(blob(30, 5, 40, 15), "relative")), ("8.dcm", "-1"), (" 009 ", "-1.0")]
    write_runs(tmp_path, rows, header=header, separator=",")
    source = read_siim(tmp_path)
    assert ids(source) == ["007", "8", "9"]
    assert source.boxes.boxes.tolist() == [[10, 5, 20, 25], [30, 5, 40, 15]]
    assert source.dropped == []


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(["1.0", "0.0", "True", "false"], [(1,), (), (1,), ()]), (["1", "", "2", "nan"], [(1,), None, None, None])],
)
def test_labels_in_every_spelling(tmp_path, labels, expected):
    for number in range(4):
        write_picture(tmp_path / "images" / f"{number}.png")
    rows = [f"{number}.0,{label}\n" for number, label in enumerate(labels)]
    (tmp_path / "labels.csv").write_text("image_id,class\n" + "".join(rows))
    source = read_siim(tmp_path)
    known = {image.source_id: image.labels for image in source.images}
    assert [known.get(str(number)) for number in range(4)] == expected
    assert [drop.reason for drop in source.dropped] == ["label neither 0 nor 1"] * expected.count(None)


def test_pictures_whose_names_differ_in_their_suffix_alone(tmp_path):
    for name in ("1.png", "1.jpg", "002.jpg"):
        write_picture(tmp_path / "png_images" / name, WIDTH, HEIGHT)
    (tmp_path / "png_masks").mkdir()
    for name in ("1.png", "002.png"):
        cv2.imwrite(str(tmp_path / "png_masks" / name), blob().astype(np.uint8) * 255)
    # 1.jpg has no mask of its own; 002 has one.
    write_edition(tmp_path, [("1.png", "a", "1.0"), ("1.jpg", "b", 1), ("2.0", "c", "true")])
    source = read_siim(tmp_path)
    assert [(image.source_id, image.extra["siim_id"]) for image in source.images] == [("1.png", "a"), ("002", "c")]
    assert source.boxes.boxes.tolist() == [[10, 5, 20, 25]] * 2
    assert account(source) == [("png_images/1.jpg", "image without a mask")]


def test_which_table_is_taken(raw):
    for name in ("a.csv", "b.csv", "sample_submission.csv"):
        write_runs(raw, [("1.1", "-1")], name)
    assert len(read_siim(raw).images) == 6
    assert len(read_siim(raw, table="a.csv").images) == 1
    (raw / "train-rle.csv").unlink()
    with pytest.raises(InputError, match=r"several tables \(a\.csv, b\.csv\): choose one with --table"):
        read_siim(raw)
    (raw / "a.csv").unlink()
    assert len(read_siim(raw).images) == 1


@pytest.mark.parametrize(
    ("files", "flags", "message"),
    [
        ({}, {}, "holds no table of SIIM-ACR"),
        ({"a.csv": "x,y\n1,2\n"}, {}, "holds no table"),
        ({"a.csv": "x,y\n1,2\n"}, {"table": "a.csv"}, "is no table of SIIM-ACR Pneumothorax: it needs the columns"),
        ({}, {"table": "b.csv"}, "there is no b.csv"),
        ({"a.csv": "ImageId,Class\n1,2,3,4\n\""}, {}, "is not a CSV table"),
        ({"stage_1_train_images.csv": "new_filename,has_pneumo\na.png,1\n"}, {}, "there is no folder .*png_images"),
    ],
)  # fmt: skip
def test_unusable_directories(tmp_path, files, flags, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_siim(tmp_path, **flags)


def test_no_directory(tmp_path):
    with pytest.raises(InputError, match="put SIIM-ACR Pneumothorax there"):
        read_siim(tmp_path / "none")


def test_a_conversion_tells_nothing_of_where_the_files_lay(raw, tmp_path):
    (raw / "dicom-images-train" / "study1.1" / "series1.1" / "1.1.dcm").write_bytes(b"no radiograph")
    convert(raw, tmp_path / "data")
    for name in ("annotations.json", "conversion.json"):
        assert str(tmp_path) not in json.dumps(json.loads((tmp_path / "data" / name).read_text()))


def test_files_that_could_be_radiographs_are_told(raw):
    write_dicom(raw / "dicom-images-train" / "1.7.IMA", WIDTH, HEIGHT)
    (raw / "dicom-images-train" / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(200))
    source = read_siim(raw)
    assert [warning.where for warning in source.warnings] == ["dicom-images-train/DICOMDIR"]
    assert [where for where, _ in account(source)] == ["dicom-images-train/1.7.IMA"]
