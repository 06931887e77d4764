"""The infer command: what it reads and writes, in which order, and what one broken file costs."""

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from xray.commands.infer import Config, main
from xray.datasets.fingerprint import fingerprint, ids_sha256, radiographs_sha256
from xray.datasets.store import open_store
from xray.errors import FlagError, InputError
from xray.structures.made_by import read_made_by
from xray.structures.predictions import NO_FINDING_CATEGORY, read_predictions
from xray.structures.submission import read_submission

TOOL = Path(__file__).resolve().parents[2] / "tools" / "infer.py"


def pixels_of(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(20, 60, (height, width)).astype(np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = 200
    return pixels


def write_png(path, width=90, height=70, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels_of(width, height, seed))
    return path


def write_dicom(path, width=90, height=70, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    ds = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = height, width, 1
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PixelData = pixels_of(width, height, seed).tobytes()
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def write_sample(path, ids):
    path.write_text("image_id,PredictionString\n" + "".join(f"{name},14 1 0 0 1 1\n" for name in ids))
    return path


@pytest.fixture
def folder(tmp_path):
    """Three good radiographs: b.dicom, a.png, deep/c.dcm."""
    raw = tmp_path / "raw" / "test"
    write_dicom(raw / "b.dicom", 90, 70, 1)
    write_png(raw / "a.png", 70, 90, 2)
    write_dicom(raw / "deep" / "c.dcm", 80, 80, 3)
    return raw


@pytest.fixture
def infer(vinbig_run, tmp_path):
    """(data, **changes) → (exit status, output folder), in this process."""

    def run(data, *, out="out", weights=(str(vinbig_run),), **changes):
        options = {"device": "cpu", "n_workers": 0, "gate_image": "off", **changes}
        config = Config(weights=weights, data_path=str(data), save_path=str(tmp_path / out), **options)
        return main(config), tmp_path / out

    return run


def submitted(out):
    with (out / "submission.csv").open(newline="") as file:
        return [(row["image_id"], row["PredictionString"]) for row in csv.DictReader(file)]


def test_a_folder_of_dicom_and_png(folder, infer):
    status, out = infer(folder)
    assert status == 0
    assert sorted(path.name for path in out.iterdir()) == ["made_by.json", "predictions.json", "submission.csv"]
    assert [name for name, _ in submitted(out)] == ["a", "b", "c"]
    found, sent = read_predictions(out / "predictions.json"), read_submission(out / "submission.csv")
    assert set(found.image_ids) == set(sent.image_ids) == {"a", "b", "c"}
    sizes = {"a": (70, 90), "b": (90, 70), "c": (80, 80)}
    for predictions in (found, sent):
        table = predictions.table
        normal = table.labels == NO_FINDING_CATEGORY
        assert sorted(table.images[normal].tolist()) == [0, 1, 2]
        for image, name in enumerate(predictions.image_ids):
            boxes = table.boxes[(table.images == image) & ~normal]
            assert (boxes >= 0).all()
            assert (boxes <= [*sizes[name], *sizes[name]]).all()
            scores = table.scores[(table.images == image) & ~normal]
            probability = table.scores[(table.images == image) & normal]
            np.testing.assert_allclose(probability, 1 - scores.max(initial=0), atol=2e-6)
    assert len(found.table) == len(sent.table) > 3


def test_results_may_lie_in_the_folder_of_the_radiographs(folder, vinbig_run, monkeypatch, capsys):
    """The command of somebody who stands in that folder; twice, and into a second folder."""
    monkeypatch.chdir(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def run(out, **changes):
        options = {"device": "cpu", "n_workers": 0, "gate_image": "off", "overlays": True, **changes}
        status = main(Config(weights=(str(vinbig_run),), data_path=".", save_path=out, **options))
        return status, [name for name, _ in submitted(Path(out))], capsys.readouterr().err

    status, ids, said = run("out")
    assert (status, ids) == (0, ["a", "b", "c"])
    assert "warning" not in said
    found = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="out holds predictions already"):
        run("out")
    status, ids, said = run("out", overwrite=True)
    assert (status, ids) == (0, ["a", "b", "c"])
    assert "3 files in out, where results are written, are not read\n" in said
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == found
    # Of other commands, the results are passed over with a warning.
    status, ids, said = run("deep/out")
    assert (status, ids) == (0, ["a", "b", "c"])
    assert "1 × results of xray among the radiographs, left out (out/overlays/: 3 files)" in said
    assert (folder / "deep/out/warnings.csv").is_file()
    assert {path: path.read_bytes() for path in before} == before
    # What is no folder for results stays as it is.
    for out, words in ((".", "itself"), ("deep", r"lies in \. and holds")):
        with pytest.raises(InputError, match=words):
            run(out, overwrite=True)
    # Drawn pictures alone are no radiographs either.
    (folder / "out/overlays").rename(folder / "drawn")
    status, ids, said = run("third")
    assert status == 1
    assert "a picture made by xray, and no radiograph" in said
    assert {path: path.read_bytes() for path in before} == before


def test_what_made_the_predictions_lies_beside_them(folder, infer, vinbig_run, tmp_path):
    _, out = infer(folder, tta=False, scales=(1.0, 0.75))
    made = read_made_by(out / "predictions.json")
    assert made == read_made_by(out / "submission.csv")
    assert made["models"] == [
        {
            "name": vinbig_run.name,
            "task": "detection",
            "thresholds": {"detection": 0.001},
            "files": {"model.safetensors": hashlib.sha256((vinbig_run / "model.safetensors").read_bytes()).hexdigest()},
            "fold": 0,
            **{name: json.loads((vinbig_run / "trained_on.json").read_text())[name]
               for name in ("split_sha256", "annotations_sha256")},
        }
    ]  # fmt: skip
    assert made["settings"] == {
        "tta": False, "scales": [1.0, 0.75], "gate": "soft", "gate_threshold": None, "triplet": None, "prune": 0,
        "upright": False, "gate_image": "off", "runtime": "torch", "precision": "32",
    }  # fmt: skip
    assert made["radiographs"] == {"n": 3, "ids_sha256": ids_sha256("abc"), "dataset": None}
    # Neither where it ran nor when: copies elsewhere give the same bytes.
    copies = [
        shutil.copytree(vinbig_run, tmp_path / "moved" / vinbig_run.name),
        shutil.copytree(folder, tmp_path / "x"),
    ]
    _, again = infer(copies[1], weights=(str(copies[0]),), out="again", tta=False, scales=(1.0, 0.75))
    text = (again / "made_by.json").read_text()
    assert text == (out / "made_by.json").read_text()
    assert str(tmp_path) not in text
    assert "test" not in text


def test_a_dataset_is_named_by_its_fingerprint(vinbig_store, infer):
    _, out = infer(vinbig_store, fold=0)
    store = open_store(vinbig_store, pixels=False)
    n = len(store.rows(fold=0))
    radiographs = read_made_by(out / "predictions.json")["radiographs"]
    assert radiographs["n"] == n
    facts = fingerprint(store)
    assert radiographs["dataset"] == {
        "n_images": len(store), "radiographs_sha256": radiographs_sha256(store.records), "split": None, "fold": 0,
        **{name: facts[name] for name in ("split_sha256", "annotations_sha256")},
    }  # fmt: skip


def test_one_file_gives_one_row(folder, infer):
    write_sample(folder.parent / "sample_submission.csv", ["c", "b", "a", "d"])
    status, out = infer(folder / "b.dicom")
    assert status == 0
    assert [name for name, _ in submitted(out)] == ["b"]
    assert read_predictions(out / "predictions.json").image_ids == ("b",)


@pytest.mark.parametrize("place", ["in it", "one above", "named"])
def test_rows_come_in_the_order_of_the_sample_submission(folder, infer, tmp_path, place):
    path = {"in it": folder, "one above": folder.parent, "named": tmp_path}[place] / "sample_submission.csv"
    write_sample(path, ["c", "a", "b"])
    status, out = infer(folder, sample_submission=str(path) if place == "named" else "")
    assert status == 0
    assert [name for name, _ in submitted(out)] == ["c", "a", "b"]


def test_a_sample_that_speaks_of_other_radiographs_is_none(folder, infer):
    write_sample(folder.parent / "sample_submission.csv", ["x", "y"])
    status, out = infer(folder)
    assert status == 0
    assert [name for name, _ in submitted(out)] == ["a", "b", "c"]


def test_radiographs_that_are_not_in_the_sample_are_left_alone(folder, infer, capsys):
    write_sample(folder / "sample_submission.csv", ["b"])
    status, out = infer(folder)
    assert status == 0
    assert [name for name, _ in submitted(out)] == ["b"]
    assert "2 radiographs are not in the sample submission" in capsys.readouterr().err


def test_a_missing_file_of_the_sample_costs_that_row_only(folder, infer, capsys):
    write_sample(folder / "sample_submission.csv", ["c", "gone", "a", "b"])
    status, out = infer(folder)
    assert status == 1
    rows = submitted(out)
    assert [name for name, _ in rows] == ["c", "gone", "a", "b"]
    assert rows[1][1] == "14 1 0 0 1 1"
    assert (out / "failures.csv").read_text().splitlines() == ["image_id,file,reason", "gone,,no such file"]
    assert "error: 1 of 4 radiographs could not be read (the first, gone: no such file)" in capsys.readouterr().err


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_broken_file_costs_that_file_only(folder, infer, capsys, n_workers):
    whole = (folder / "b.dicom").read_bytes()
    (folder / "broken.dicom").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    status, out = infer(folder, overlays=True, n_workers=n_workers)
    assert status == 1
    rows = dict(submitted(out))
    assert list(rows) == ["a", "b", "broken", "c", "empty"]
    assert rows["broken"] == rows["empty"] == "14 1 0 0 1 1"
    assert all(len(rows[name].split()) > 6 for name in "abc")
    with (out / "failures.csv").open(newline="") as file:
        failures = list(csv.DictReader(file))
    assert [(row["image_id"], row["file"]) for row in failures] == [("broken", "broken.dicom"), ("empty", "empty.png")]
    # The file has a column of its own.
    assert failures[1]["reason"] == "the file is empty"
    assert set(read_predictions(out / "predictions.json").image_ids) == {"a", "b", "c"}
    assert sorted(path.name for path in (out / "overlays").iterdir()) == ["a.png", "b.png", "c.png"]
    assert "2 of 5 radiographs could not be read (the first, broken.dicom: truncated: " in capsys.readouterr().err
    # What the good ones get does not depend on the broken ones beside them.
    (folder / "broken.dicom").unlink()
    (folder / "empty.png").unlink()
    status, clean = infer(folder, out="clean")
    assert status == 0
    again = dict(submitted(clean))
    assert {name: again[name] for name in "abc"} == {name: rows[name] for name in "abc"}


def test_batches_do_not_change_what_is_found(folder, infer):
    _, one = infer(folder, out="one", batch_size=1)
    _, three = infer(folder, out="three", batch_size=3)
    first, second = (read_predictions(out / "predictions.json").table for out in (one, three))
    np.testing.assert_allclose(np.sort(first.scores), np.sort(second.scores), atol=1e-5)


def test_overlays_are_pictures_of_the_radiographs(folder, infer):
    _, out = infer(folder, overlays=True, overlay_threshold=0.0)
    picture = cv2.imread(str(out / "overlays" / "b.png"))
    # At least 512 pixels on the longer side, and a legend below: 90 x 70 becomes 512 x 398 and more.
    assert picture.shape[1] == 512
    assert picture.shape[0] > 398
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_the_last_lines_say_what_is_shown_and_what_was_written(folder, infer, capsys):
    _, out = infer(folder, overlays=True, threshold=0.06)
    table = read_predictions(out / "predictions.json").table
    scores = table.scores[table.labels != NO_FINDING_CATEGORY]
    n_shown = int((scores >= 0.06).sum())
    assert 0 < n_shown < len(scores)
    assert capsys.readouterr().out.splitlines() == [
        f"3 radiographs, {len(scores)} boxes, {n_shown} of them with a score of 0.06 or more: "
        f"{out / 'predictions.json'}",
        f"submission: {out / 'submission.csv'}",
        f"overlays: {out / 'overlays'}",
    ]
    _, out = infer(folder, overlays=True, overlay_threshold=1.0, threshold=0.06, out="other")
    assert f", {len(scores)} boxes, 0 of them with a score of 1 or more: " in capsys.readouterr().out
    _, out = infer(folder, overlay_threshold=1.0, out="without")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert f", {(scores >= 0.3).sum()} of them with a score of 0.3 or more: " in lines[0]


def test_equal_names_in_two_folders(tmp_path, infer):
    for name in ("one/a.png", "two/a.png"):
        write_png(tmp_path / "raw" / name)
    status, out = infer(tmp_path / "raw", overlays=True)
    assert status == 0
    assert [name for name, _ in submitted(out)] == ["one/a", "two/a"]
    assert (out / "overlays" / "one" / "a.png").is_file()


@pytest.mark.parametrize(("part", "n"), [({"fold": 1}, 7), ({"split": "test"}, 2), ({}, 16)])
def test_a_dataset_directory(vinbig_store, infer, part, n):
    status, out = infer(vinbig_store, tta=False, **part)
    assert status == 0
    store = open_store(vinbig_store)
    expected = [store.records[row]["source_id"] for row in store.rows(**part)]
    assert [name for name, _ in submitted(out)] == expected
    assert len(expected) == n


def test_two_runs_are_fused(folder, infer, vinbig_run, tmp_path):
    other = shutil.copytree(vinbig_run, tmp_path / "other")
    status, out = infer(folder, weights=(str(vinbig_run), str(other)), out="two")
    assert status == 0
    _, alone = infer(folder, out="one")
    # A model fused with itself finds what it found.
    first, second = (read_predictions(path / "predictions.json").table for path in (out, alone))
    assert first.scores.max() == pytest.approx(second.scores.max(), abs=1e-5)


def test_predictions_are_not_overwritten_unless_asked(folder, infer):
    write_sample(folder / "sample_submission.csv", ["a", "b", "c", "gone"])
    status, out = infer(folder)
    assert status == 1
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(InputError, match="out holds predictions already: give another --save-path, or --overwrite"):
        infer(folder)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (folder / "sample_submission.csv").unlink()
    status, out = infer(folder, overwrite=True)
    assert status == 0
    # The failures of the run before are gone with it.
    assert not (out / "failures.csv").exists()


def test_categories_of_other_datasets_get_a_submission_too(folder, infer, side_run):
    status, out = infer(folder, weights=(str(side_run),))
    assert status == 0
    labels = read_predictions(out / "predictions.json").table.labels
    assert NO_FINDING_CATEGORY not in labels
    assert set(labels.tolist()) <= {1, 2, 3}
    assert [name for name, _ in submitted(out)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": -1}, "--batch-size is -1"),
        ({"n_workers": -1}, "--n-workers is -1"),
        ({"timeout": 0}, "--timeout is 0"),
        ({"overlay_threshold": 1.5}, "--overlay-threshold is 1.5"),
        ({"split": "left"}, "--split is left: it must be train, val or test"),
    ],
)
def test_values_out_of_range(folder, infer, changes, message):
    with pytest.raises(FlagError, match=message):
        infer(folder, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": ("nowhere",)}, "no run directory at nowhere"),
        ({"fold": 0}, "choose a part of a dataset directory"),
        ({"sample_submission": "none.csv"}, "cannot read a submission at none.csv"),
        ({"device": "tpu"}, "--device is 'tpu'"),
    ],
)
def test_bad_input_leaves_nothing_behind(folder, infer, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        infer(folder, **changes)
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_output_folder(folder, infer, tmp_path):
    (tmp_path / "out").write_text("kept")
    with pytest.raises(InputError, match="out is a file: give a folder"):
        infer(folder)
    assert (tmp_path / "out").read_text() == "kept"


def command(*args, cwd):
    run = [sys.executable, str(TOOL), *map(str, args)]
    return subprocess.run(run, cwd=cwd, capture_output=True, text=True, timeout=600)


def test_the_command_from_another_folder(folder, vinbig_run, tmp_path):
    (folder / "broken.dicom").write_bytes(b"\0" * 128 + b"DICM broken")
    flags = ["--weights", vinbig_run, "--data-path", "raw/test", "--save-path", "out", "--device", "cpu", "--no-tta"]
    done = command(*flags, "--n-workers", 1, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "see out/failures.csv" in " ".join(errors)
    assert done.stdout.startswith("3 radiographs, ")
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {row["image_id"] for row in rows} == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--data-path", "raw", "--save-path", "out"], 2, "--weights"),
        (["--weights", "w", "--data-path", "none", "--save-path", "out"], 1, "error: there is no folder none"),
        (["--weights", "w", "--data-path", "d", "--save-path", "o", "--tta-scales", "2"], 2, "--tta-scales"),
    ],
)
def test_wrong_use_of_the_command(tmp_path, flags, status, message):
    done = command(*flags, cwd=tmp_path)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
