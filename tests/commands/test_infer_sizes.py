"""The infer command on pictures that were made smaller, and what it has to say about files."""

import csv
import shutil

import cv2
import numpy as np
import pytest

from xray.commands.infer import Config, main
from xray.datasets import originals
from xray.errors import InputError
from xray.file_names import UNFINISHED
from xray.radiographs.radiograph import Radiograph
from xray.structures.predictions import NO_FINDING_CATEGORY, read_predictions
from xray.structures.rle import decode
from xray.structures.submission import read_submission

SIZES = {"one": (240, 330), "two": (400, 260), "three": (300, 300)}
SIDE = 128


def draw(name):
    width, height = SIZES[name]
    pixels = np.random.default_rng(len(name)).integers(20, 60, (height, width)).astype(np.uint8)
    pixels[height // 4 : height // 2, width // 5 : width // 2] = 210
    return cv2.GaussianBlur(pixels, (5, 5), 0)


@pytest.fixture
def trees(tmp_path):
    """The originals in full/test; squares of 128 pixels, which keep no aspect, in small/test, with their table."""
    for folder in ("full", "small"):
        (tmp_path / folder / "test").mkdir(parents=True)
    for name in SIZES:
        cv2.imwrite(str(tmp_path / "full" / "test" / f"{name}.png"), draw(name))
        square = cv2.resize(draw(name), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(tmp_path / "small" / "test" / f"{name}.png"), square)
    write_table(tmp_path / "small" / "test_meta.csv", SIZES)
    return tmp_path


def write_table(path, sizes):
    path.write_text("image_id,dim0,dim1\n" + "".join(f"{name},{h}.0,{w}.0\n" for name, (w, h) in sizes.items()))


@pytest.fixture
def infer(vinbig_run, tmp_path):
    """(data, out, **changes) → (exit status, output folder), in this process."""

    def run(data, out="out", **changes):
        options = {"weights": (str(vinbig_run),), "device": "cpu", "n_workers": 0, "gate_image": "off", **changes}
        config = Config(data_path=str(data), save_path=str(tmp_path / out), **options)
        return main(config), tmp_path / out

    return run


def interrupted(*arguments):
    raise KeyboardInterrupt


def boxes_of(out, name, read=read_predictions, file="predictions.json", n=5):
    """The surest boxes of one radiograph, (n, 4) xyxy."""
    found = read(out / file)
    table = found.table.select(
        np.flatnonzero(
            (found.table.images == found.image_ids.index(name)) & (found.table.labels != NO_FINDING_CATEGORY)
        )
    )
    return table.boxes[np.argsort(-table.scores, kind="stable")[:n]]


def overlap(one, other):
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = sides.clip(0).prod()
    return common / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - common)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("overlays", [False, True])
def test_boxes_are_in_the_pixels_of_the_originals(trees, infer, overlays):
    status, full = infer(trees / "full" / "test", "full-out")
    assert status == 0
    status, small = infer(trees / "small" / "test", "small-out", overlays=overlays)
    assert status == 0
    for name in SIZES:
        for read, file in ((read_predictions, "predictions.json"), (read_submission, "submission.csv")):
            expected, found = boxes_of(full, name, read, file, n=1), boxes_of(small, name, read, file)
            assert max(overlap(expected[0], box) for box in found) > 0.9
        if overlays:
            picture = cv2.imread(str(small / "overlays" / f"{name}.png"))
            # The aspect is the original's: at most 1600 or at least 512 pixels on the longer side, and a legend below.
            width, height = SIZES[name]
            assert picture.shape[0] >= picture.shape[1] * height / width - 2
    assert not (small / "warnings.csv").exists()


def test_run_lengths_are_of_the_size_of_the_originals(trees, infer, segmentation_run):
    weights = (str(segmentation_run),)
    _, full = infer(trees / "full" / "test", "full-out", weights=weights)
    _, small = infer(trees / "small" / "test", "small-out", weights=weights, overlays=True)
    n_masks = 0
    for one, other in zip(rows_of(full / "submission.csv"), rows_of(small / "submission.csv"), strict=True):
        assert one["ImageId"] == other["ImageId"]
        width, height = SIZES[one["ImageId"]]
        expected, found = (decode(row["EncodedPixels"], width, height, "relative") for row in (one, other))
        n_masks += expected.any()
        assert (expected != found).mean() < 0.01
    assert n_masks


def test_what_the_table_does_not_name_is_a_failure(trees, infer, capsys):
    write_table(trees / "small" / "test_meta.csv", {"one": SIZES["one"], "two": (10, 0)})
    status, out = infer(trees / "small" / "test")
    assert status == 1
    failures = {row["image_id"]: row["reason"] for row in rows_of(out / "failures.csv")}
    assert failures.keys() == {"two", "three"}
    assert "its size is unusable: '10.0' x '0.0'" in failures["two"]
    assert "original size is not known: test_meta.csv names other files" in failures["three"]
    assert [row["PredictionString"] for row in rows_of(out / "submission.csv")][1:] == ["14 1 0 0 1 1"] * 2
    assert "2 of 3 radiographs could not be read" in capsys.readouterr().err


def test_unknown_sizes_are_told_once_and_listed(trees, infer, capsys, monkeypatch):
    monkeypatch.setattr(originals, "USUAL_SIDES", (SIDE,))
    (trees / "small" / "test_meta.csv").unlink()
    ids = "".join(f"{name},14 1 0 0 1 1\n" for name in SIZES)
    (trees / "small" / "sample_submission.csv").write_text("image_id,PredictionString\n" + ids)
    status, out = infer(trees / "small" / "test")
    assert status == 0
    rows = rows_of(out / "warnings.csv")
    assert {(row["image_id"], row["file"]) for row in rows} == {(name, f"{name}.png") for name in SIZES}
    assert list(rows[0]) == ["image_id", "file", "warning", "detail"]
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.startswith("warning:")]
    assert line.startswith(
        "warning: 3 × original size not known, so the answer is in pixels of the picture (first: one"
    )
    assert "--sizes" in line
    assert lines[-1] == f"warnings: {out / 'warnings.csv'}"
    # Said by hand that they are the originals, nothing is left to tell.
    status, out = infer(trees / "small" / "test", overwrite=True, sizes="none")
    assert status == 0
    assert not (out / "warnings.csv").exists()


def test_other_sizes_do_not_go_on_with_what_was_found(trees, infer, monkeypatch):
    calls = []

    def fails(*arguments):
        calls.append(arguments)
        interrupted()

    with monkeypatch.context() as patched:
        patched.setattr("xray.commands.infer_results.write_results", fails)
        with pytest.raises(KeyboardInterrupt):
            infer(trees / "small" / "test", batch_size=1)
    assert calls
    out = trees / "out"
    before = (out / UNFINISHED).read_bytes()
    table = (trees / "small" / "test_meta.csv").read_text()
    write_table(trees / "small" / "test_meta.csv", SIZES | {"one": (480, 660)})
    with pytest.raises(InputError, match=r"unfinished predictions of another command \(sizes changed\)"):
        infer(trees / "small" / "test", batch_size=1)
    assert (out / UNFINISHED).read_bytes() == before
    (trees / "small" / "test_meta.csv").write_text(table)
    assert infer(trees / "small" / "test", batch_size=1)[0] == 0
    clean = infer(trees / "small" / "test", "clean", batch_size=1)[1]
    assert (clean / "predictions.json").read_bytes() == (out / "predictions.json").read_bytes()


def test_warnings_of_the_decoder_survive_an_interruption(trees, infer, monkeypatch, capsys):
    from xray.radiographs import decoding

    def read(path, bits=8):
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        kinds = ("window beside all values",) if path.stem != "three" else ()
        return Radiograph(pixels, None, path.name, {}, kinds)

    monkeypatch.setattr(decoding, "read_radiograph", read)
    (trees / "full" / "test" / "deep").mkdir()
    shutil.move(trees / "full" / "test" / "two.png", trees / "full" / "test" / "deep" / "two.png")
    with monkeypatch.context() as patched:
        patched.setattr("xray.commands.infer_results.write_results", interrupted)
        with pytest.raises(KeyboardInterrupt):
            infer(trees / "full" / "test", batch_size=1)
    assert "window" not in capsys.readouterr().err
    status, out = infer(trees / "full" / "test", batch_size=1)
    assert status == 0
    # Without folders, which may name a patient.
    assert rows_of(out / "warnings.csv") == [
        {"image_id": "one", "file": "one.png", "warning": "window beside all values", "detail": ""},
        {"image_id": "two", "file": "two.png", "warning": "window beside all values", "detail": ""},
    ]
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert told == ["warning: 2 × window beside all values (first: one.png)", f"warnings: {out / 'warnings.csv'}"]


def test_equal_stems_are_both_answered(trees, infer):
    folder = trees / "full" / "test"
    cv2.imwrite(str(folder / "one.jpg"), draw("two"))
    status, out = infer(folder, overlays=True)
    assert status == 0
    assert [row["image_id"] for row in rows_of(out / "submission.csv")] == ["one.jpg", "one.png", "three", "two"]
    names = ["one.jpg.png", "one.png.png", "three.png", "two.png"]
    assert sorted(path.name for path in (out / "overlays").iterdir()) == names
    assert not np.array_equal(boxes_of(out, "one.jpg"), boxes_of(out, "one.png"))
