"""The siim, lungs and folders subcommands of tools/convert.py, and tools/phantoms.py before them, from outside."""

import json
import shutil

import cv2
import numpy as np
import pytest
from in_process import run

from xray.datasets.store import open_store
from xray.structures.rle import encode

WIDTH, HEIGHT = 60, 40


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    flags = ("--n-train", 8, "--n-test", 2, "--size", 96, "--n-workers", 0)
    done = run("phantoms", "--save-path", folder, "--trees", "siim", "lungs", *flags)
    assert done.returncode == 0, done.stderr
    assert not (folder / "vinbig").exists()
    for tree in ("siim", "lungs"):
        assert f"8 training and 2 test phantoms in {folder / tree}" in done.stdout
        assert f"python tools/convert.py {tree} --data-path {folder / tree} --save-path DATA" in done.stdout
    return folder


def lines(done):
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


def test_siim(raw, tmp_path):
    flags = ("--save-path", "data", "--image-size", 32, "--n-folds", 2, "--n-workers", 1)
    done = run("convert", "siim", "--data-path", raw / "siim", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    n = int(open_store(tmp_path / "data").labels.sum())
    boxes = len(open_store(tmp_path / "data").boxes)
    assert lines(done) == [
        "radiographs 10", "for training, by fold 4, 4", "for testing 2", f"without a box {10 - n}",
        f"with Pneumothorax {n}", f"boxes {boxes}", f"with a mask {boxes}", f"Pneumothorax {boxes}",
        "left out or changed 0", "next: python xray/train.py --task segmentation --data-path data",
    ]  # fmt: skip


def test_lungs(raw, tmp_path):
    (tmp_path / "patients.csv").write_text("file_name,patient\nMCUCXR_0001_0.png,1\nMCUCXR_0001_1.png,1\n")
    flags = ("--save-path", "data", "--image-size", 32, "--n-folds", 2, "--lungs", "apart", "--n-workers", 1)
    done = run("convert", "lungs", "--data-path", raw / "lungs", *flags, "--patients", "patients.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert lines(done)[4:] == [
        "with Right lung 10", "with Left lung 10", "boxes 20", "with a mask 20", "Right lung 10", "Left lung 10",
        "left out or changed 9", "patient unknown 9", "each with its reason in data/conversion.json",
        "next: python xray/train.py --task segmentation --data-path data",
    ]  # fmt: skip


def test_labels_alone_lead_to_classification(raw, tmp_path):
    ids = [path.stem for path in (raw / "siim").glob("dicom-images-train/*/*/*.dcm")]
    (raw / "siim" / "labels.csv").write_text(
        "ImageId,Class\n" + "".join(f"{image},{number % 2}\n" for number, image in enumerate(ids))
    )
    flags = ("--save-path", tmp_path / "data", "--image-size", 32, "--n-folds", 2, "--n-workers", 1)
    done = run("convert", "siim", "--data-path", raw / "siim", "--table", "labels.csv", *flags)
    assert done.returncode == 0, done.stderr
    assert "with Pneumothorax 4" in lines(done)
    assert lines(done)[-1].startswith("next: python xray/train.py --task classification")


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["siim", "--data-path", "none"], 1, "no data at none: put SIIM-ACR Pneumothorax there"),
        (["siim", "--data-path", "empty"], 1, "empty holds no table of SIIM-ACR Pneumothorax"),
        (["siim", "--data-path", "siim", "--table", "x.csv"], 1, "there is no x.csv"),
        (["siim", "--data-path", "siim", "--dialect", "absolute"], 1, "add --dialect relative"),
        (["siim", "--data-path", "siim", "--mask-size", "0"], 2, "--mask-size is 0: give 1 to 10000"),
        (["siim", "--data-path", "siim", "--readers", "all"], 2, "--readers"),
        (["lungs", "--data-path", "none"], 1, "no data at none"),
        (["lungs", "--data-path", "empty"], 1, "there is no folder empty/CXR_png"),
        (["lungs", "--data-path", "lungs", "--images", "CXR_png"], 2, "give both, or neither"),
        (["lungs", "--data-path", "lungs", "--patients", "none.csv"], 1, "none.csv cannot be read"),
        (["lungs", "--data-path", "lungs", "--lungs", "both"], 2, "--lungs"),
        (["lungs", "--data-path", "lungs", "--values", "1"], 2, "--values 1 is no VALUE=NAME"),
        (["lungs", "--data-path", "lungs", "--values", "1=A", "--category", "B"], 2, "give one of the two"),
        (["lungs", "--data-path", "lungs", "--values", "1=A"], 1, "--lungs apart in place of --values"),
        (["folders", "--data-path", "none"], 1, "no data at none: give the directory that holds a folder"),
        (["folders", "--data-path", "empty"], 1, "no radiograph in the folders of empty: it needs a folder for each"),
        (["folders", "--data-path", "lungs"], 1, "lungs holds test/ but no train/: give --data-path lungs/test"),
        (
            ["folders", "--data-path", "siim", "--normal", "x"],
            1,
            "siim has no class folder x for --normal: its classes",
        ),
    ],
)
def test_bad_input_gives_one_line_and_writes_nothing(raw, tmp_path, flags, status, message):
    (tmp_path / "empty").mkdir()
    for tree in ("siim", "lungs"):
        (tmp_path / tree).symlink_to(raw / tree)
    before = sorted(tmp_path.rglob("*"))
    done = run("convert", *flags, "--save-path", "data", "--n-folds", 2, cwd=tmp_path)
    assert done.returncode == status
    assert message in " ".join((done.stderr + done.stdout).split())
    assert "Traceback" not in done.stderr
    if status == 1:
        assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


# Bad input: each fault costs its item only, and is named and counted


def draw(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def grey(seed=0):
    return np.random.default_rng(seed).integers(20, 200, (HEIGHT, WIDTH), dtype=np.uint8)


def square(left=10):
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[5:25, left : left + 10] = 255
    return mask


def convert_faulty(source, folder, good, reasons, *flags):
    """Converts `folder`/raw, whose radiographs `good` alone can be used; returns reason → entries of the account.

    The table on the screen must count what conversion.json does.
    """
    places = ("--data-path", "raw", "--save-path", "data", "--image-size", 32, "--n-folds", 2, "--n-workers", 1)
    done = run("convert", source, *places, *flags, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr
    store = open_store(folder / "data")
    assert sorted(store.index_of) == sorted(good)
    dropped = store.conversion["dropped"]
    assert dropped["counts"] == reasons
    shown = lines(done)
    start = shown.index(f"left out or changed {sum(reasons.values())}")
    assert shown[start + 1 : start + 1 + len(reasons)] == [f"{name} {n}" for name, n in sorted(reasons.items())]
    assert shown[start + 1 + len(reasons)] == "each with its reason in data/conversion.json"
    return {name: [row for row in dropped["rows"] if row["reason"] == name] for name in reasons}


def write_runs(folder, texts, extra=""):
    """Radiographs r0, r1, … with these run lengths; one without a row, and a row without a radiograph."""
    for number in range(len(texts) + 1):
        draw(folder / "raw" / "images" / f"r{number}.png", grey(number))
    rows = [f"r{number}, {text}" for number, text in enumerate(texts)]
    (folder / "raw" / "train-rle.csv").write_text("\n".join(["ImageId, EncodedPixels", *rows]) + "\n" + extra)


def test_bad_run_lengths_of_siim(tmp_path):
    good = encode(square(), "relative")
    faulty = [f"{HEIGHT * WIDTH - 10} 20", "100 10 -5 10", "100 10 5", "100 10 ten 10", encode(square(), "absolute")]
    write_runs(tmp_path, [good] * 3 + ["-1"] + faulty, f"x1, {good}\n")
    reasons = {
        "runs beyond the image": 1, "overlapping or unsorted runs": 1, "malformed run lengths": 2,
        "run lengths in the other dialect": 1, "image without a mask": 1, "mask without an image": 1,
    }  # fmt: skip
    account = convert_faulty("siim", tmp_path, ["r0", "r1", "r2", "r3"], reasons)
    assert {name: [row["where"] for row in rows] for name, rows in account.items()} == {
        "runs beyond the image": ["train-rle.csv line 6"],
        "overlapping or unsorted runs": ["train-rle.csv line 7"],
        "malformed run lengths": ["train-rle.csv line 8", "train-rle.csv line 9"],
        "run lengths in the other dialect": ["train-rle.csv line 10"],
        "image without a mask": ["images/r9.png"],
        "mask without an image": ["train-rle.csv line 11"],
    }
    (beyond,), (unsorted,) = account["runs beyond the image"], account["overlapping or unsorted runs"]
    assert beyond["detail"] == "r4: run 1 of the mask (2390 20) reaches beyond the 60 x 40 pixels"
    assert unsorted["detail"] == "r5: run 2 of the mask (-5 10) begins before the run in front of it ends"
    assert beyond["action"] == unsorted["action"] == "left out with its image"


def test_bad_run_lengths_of_an_absolute_table(tmp_path):
    faulty = ["100 10 50 10", "100 10 105 10", "2395 20", encode(square(), "relative")]
    write_runs(tmp_path, [encode(square(), "absolute")] * 4 + [""] + faulty)
    reasons = {
        "runs beyond the image": 1, "overlapping or unsorted runs": 2, "run lengths in the other dialect": 1,
        "image without a mask": 1,
    }  # fmt: skip
    account = convert_faulty("siim", tmp_path, [f"r{n}" for n in range(5)], reasons, "--dialect", "absolute")
    # A short text is a mask in either dialect, so that is no more than a hint.
    hint = "; it would be a mask in the relative dialect"
    assert [row["detail"] for row in account["overlapping or unsorted runs"]] == [
        f"r5: run 2 of the mask (50 10) begins before the run in front of it{hint}",
        f"r6: run 2 of the mask (105 10) overlaps the run in front of it{hint}",
    ]


@pytest.mark.parametrize(("wrong", "right"), [("relative", "absolute"), ("absolute", "relative")])
def test_a_whole_table_in_the_other_dialect(tmp_path, wrong, right):
    write_runs(tmp_path, [encode(square(25 + number), right) for number in range(5)] + ["-1"])
    flags = ("--save-path", "data", "--n-folds", 2, "--dialect", wrong)
    done = run("convert", "siim", "--data-path", "raw", *flags, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: raw/train-rle.csv: 5 masks are run lengths of the {right} dialect, 0 of the {wrong} one: "
        f"add --dialect {right}\n"
    )
    assert not (tmp_path / "data").exists()


def test_bad_masks_of_lungs(tmp_path):
    raw = tmp_path / "raw"
    for number in range(8):
        draw(raw / "CXR_png" / f"r{number}.png", grey(number))
        draw(raw / "mask" / f"r{number}_mask.png", square())
    (raw / "CXR_png" / "r0.png").unlink()
    (raw / "mask" / "r1_mask.png").unlink()
    draw(raw / "mask" / "r2_mask.png", square()[:-1])
    (raw / "mask" / "r3_mask.png").write_bytes(b"no picture")
    reasons = {
        "mask without an image": 1, "image without a mask": 1, "mask and image differ in size": 1, "unreadable mask": 1,
    }  # fmt: skip
    account = convert_faulty("lungs", tmp_path, ["r4", "r5", "r6", "r7"], reasons)
    assert [rows[0]["where"] for rows in account.values()] == [
        "mask/r0_mask.png", "CXR_png/r1.png", "mask/r2_mask.png", "mask/r3_mask.png",
    ]  # fmt: skip
    (size,) = account["mask and image differ in size"]
    assert (size["detail"], size["action"]) == ("the mask is 60 x 39, the image 60 x 40", "left out with its image")


def test_bad_masks_of_a_coco_file(tmp_path):
    n_pixels = WIDTH * HEIGHT

    def runs(*counts, size=(HEIGHT, WIDTH)):
        return {"size": list(size), "counts": list(counts)}

    masks = [
        runs(405, 20, n_pixels - 425),
        runs(405, 20, n_pixels),
        runs(405, 20, n_pixels - 365, size=(HEIGHT, WIDTH + 1)),
        runs(405, -20, n_pixels - 385),
        runs(405, "twenty", n_pixels - 425),
        [[1, 2, 3]],
        runs(405, 20, n_pixels - 425),
    ]
    images = [{"id": number, "file_name": f"r{number}.png", "width": WIDTH, "height": HEIGHT} for number in range(6)]
    for image in images:
        draw(tmp_path / "raw" / "images" / image["file_name"], grey(image["id"]))
    # The last one's image is not there.
    annotations = [
        {"id": number, "image_id": number, "category_id": 1, "bbox": [10, 5, 1, 20], "segmentation": mask}
        for number, mask in enumerate(masks)
    ]
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "Pneumothorax"}]}
    (tmp_path / "raw" / "annotations.json").write_text(json.dumps(coco))
    reasons = {
        "runs beyond the image": 1, "mask and image differ in size": 1, "overlapping or unsorted runs": 1,
        "unusable mask": 2, "annotation of an unknown image": 1,
    }  # fmt: skip
    # A box needs no mask: it stays.
    account = convert_faulty("coco", tmp_path, [f"r{number}" for number in range(6)], reasons)
    store = open_store(tmp_path / "data")
    assert (len(store.boxes), list(store.masks)) == (6, [0])
    (beyond,), (size,) = account["runs beyond the image"], account["mask and image differ in size"]
    assert (beyond["where"], beyond["action"]) == ("images/r1.png annotation 2", "mask left out, box kept")
    assert beyond["detail"] == "run lengths cover 2825 of 2400 pixels"
    assert size["detail"] == "run lengths for [height, width] [40, 61], the radiograph is [40, 60]"


def test_class_folders(tmp_path):
    raw = tmp_path / "raw"
    for number in range(20):
        split = "train" if number < 12 else "val" if number < 14 else "test"
        draw(raw / split / ("PNEUMONIA" if number % 2 else "NORMAL") / f"r{number}.jpeg", grey(number))
    (raw / "train" / "PNEUMONIA" / "r99.jpeg").write_bytes(b"no picture")
    shutil.copy(raw / "train/NORMAL/r0.jpeg", raw / "train/PNEUMONIA/other.jpeg")
    (raw / "train" / "NORMAL" / ".DS_Store").write_bytes(b"x")
    flags = ("--save-path", "data", "--image-size", 32, "--n-folds", 2, "--n-workers", 1)
    done = run("convert", "folders", "--data-path", "raw", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert lines(done) == [
        "radiographs 19", "for training, by fold 6, 5", "for validating 2", "for testing 6", "with PNEUMONIA 10",
        "without a label 9", "left out or changed 3", "file in two classes 2", "unreadable file 1",
        "each with its reason in data/conversion.json",
        "next: python xray/train.py --task classification --data-path data",
    ]  # fmt: skip
    again = run("convert", "folders", "--data-path", "raw", *flags, "--normal", "", cwd=tmp_path)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "data holds a finished dataset: add --overwrite" in again.stderr
