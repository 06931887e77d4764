"""Phantoms: what they show is where they say, and the files are VinBigData's."""

import hashlib
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from xray.commands.phantoms import run
from xray.errors import InputError
from xray.findings import FINDINGS, NO_FINDING, PNEUMOTHORAX
from xray.phantoms.dicom import TRANSFER_SYNTAXES, Storage, dicom_of, save_dicom
from xray.phantoms.drawing import FINDING_RATES
from xray.phantoms.patient import LEFT, RIGHT
from xray.phantoms.readers import read_by_three
from xray.phantoms.vinbig import draw_phantom, plan_findings, write_vinbig
from xray.radiographs.canvas import Canvas

WIDTH, HEIGHT = 224, 256
CARDIOMEGALY = FINDINGS.index("Cardiomegaly")


def test_same_seed_gives_the_same_phantom_and_another_seed_another():
    first, again, other = (draw_phantom(seed, WIDTH, HEIGHT, (8, 10)) for seed in ([3, 1], [3, 1], [3, 2]))
    assert first.pixels.shape == (HEIGHT, WIDTH)
    assert first.pixels.dtype == np.float32
    assert first.pixels.min() >= 0
    assert first.pixels.max() <= 1
    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert np.abs(first.pixels - other.pixels).mean() > 0.02


@pytest.mark.parametrize("class_id", range(14), ids=FINDINGS)
def test_a_finding_changes_the_pixels_in_its_boxes_and_nearly_only_there(class_id):
    # Aortic enlargement and cardiomegaly move the vessels' and windpipe's surroundings, so a little may change outside.
    for seed in (1, 2, 3):
        healthy = draw_phantom(seed, WIDTH, HEIGHT)
        ill = draw_phantom(seed, WIDTH, HEIGHT, (class_id,))
        assert len(ill.boxes) >= 1
        assert set(ill.class_ids) == {class_id}
        x1, y1, x2, y2 = ill.boxes.T
        assert (x1 >= 0).all()
        assert (y1 >= 0).all()
        assert (x2 <= WIDTH).all()
        assert (y2 <= HEIGHT).all()
        assert (x2 - x1 >= 1).all()
        assert (y2 - y1 >= 1).all()
        change = np.abs(ill.pixels - healthy.pixels)
        within = np.zeros((HEIGHT, WIDTH), bool)
        for index, box in enumerate(ill.boxes):
            left, top, right, bottom = np.concatenate([np.floor(box[:2]), np.ceil(box[2:])]).astype(int)
            within[max(0, top - 4) : bottom + 4, max(0, left - 4) : right + 4] = True
            mask = ill.enlarged(ill.marks[index].mask)
            assert mask[top:bottom, left:right].sum() == mask.sum()
            # Compared with the surroundings, since display processing may shift the whole picture a little.
            assert change[mask].mean() > 0.02, (seed, box)
        assert change[within].mean() > 3 * change[~within].mean()


def test_every_finding_is_drawn_for_many_patients():
    for seed in range(12):
        class_ids = tuple(range(seed % 2, 14, 2))
        phantom = draw_phantom([9, seed], 160, 180, class_ids)
        assert set(phantom.class_ids) == set(class_ids)


def cardiothoracic_ratio(chest):
    """Heart's width over the inner width of the chest."""
    heart = np.flatnonzero(chest.heart.any(axis=0))
    rows = np.flatnonzero((chest.lungs[LEFT] | chest.lungs[RIGHT]).any(axis=1))
    inner = max(np.ptp(np.flatnonzero((chest.cavities[LEFT] | chest.cavities[RIGHT])[row])) + 1 for row in rows)
    return (heart[-1] - heart[0] + 1) / inner


def test_the_heart_is_wider_than_half_the_chest_only_in_cardiomegaly():
    for seed in range(6):
        assert 0.36 < cardiothoracic_ratio(draw_phantom(seed, WIDTH, HEIGHT).chest) < 0.5
        enlarged = draw_phantom(seed, WIDTH, HEIGHT, (CARDIOMEGALY,))
        assert 0.5 < cardiothoracic_ratio(enlarged.chest) < 0.72
        box_width = enlarged.boxes[0, 2] - enlarged.boxes[0, 0]
        left, right = enlarged.lung_masks
        columns = np.flatnonzero((left | right).any(axis=0))
        assert box_width > 0.5 * (columns[-1] - columns[0])


def test_lungs_are_dark_and_lie_on_their_sides():
    for seed in range(4):
        phantom = draw_phantom([5, seed], WIDTH, HEIGHT)
        left, right = phantom.lung_masks
        assert not (left & right).any()
        # The patient's right lung is on the viewer's left.
        assert np.nonzero(right)[1].mean() < np.nonzero(left)[1].mean()
        assert 0.03 < left.mean() < right.mean() < 0.3
        # Heart and spine stand between them, twenty rows of it through the lungs' middle.
        row = int(np.nonzero(left)[0].mean())
        start, stop = np.flatnonzero(right[row]).max() + 6, np.flatnonzero(left[row]).min() - 6
        between = phantom.pixels[row - 10 : row + 10, start:stop]
        assert phantom.pixels[left | right].mean() < 0.75 * between.mean()


def test_pneumothorax_is_darker_than_the_same_lung_and_inside_its_outline():
    for seed in range(5):
        healthy = draw_phantom(seed, 448, 512)
        collapsed = draw_phantom(seed, 448, 512, (PNEUMOTHORAX,))
        mask = collapsed.pneumothorax_mask
        assert mask.sum() > 200
        assert not healthy.pneumothorax_mask.any()
        left, right = healthy.lung_masks
        assert (mask & (left | right)).sum() > 0.97 * mask.sum()
        # One side only, and its pixels lose density: no lung tissue and no vessels.
        assert min((mask & left).sum(), (mask & right).sum()) == 0
        assert np.median(collapsed.pixels[mask]) < np.median(healthy.pixels[mask])
        box = collapsed.boxes[0]
        rows, columns = np.nonzero(mask)
        np.testing.assert_allclose(box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], atol=2)


def test_a_normal_phantom_has_no_boxes_and_random_ones_are_mostly_normal():
    normal = draw_phantom(0, WIDTH, HEIGHT)
    assert normal.boxes.shape == (0, 4)
    assert normal.class_ids.shape == (0,)
    drawn = [len(draw_phantom([1, seed], 96, 96, None).boxes) == 0 for seed in range(12)]
    assert 4 <= sum(drawn) <= 11


@pytest.mark.parametrize(("arguments", "words"), [((0, 32, 64), "cannot be drawn"), ((0, 64, 64, (14,)), "class ids")])
def test_impossible_phantoms_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        draw_phantom(*arguments)


@pytest.mark.parametrize("n", [60, 200, 1000])
def test_the_plan_has_every_finding_and_the_asked_share_of_normals(n):
    plan = plan_findings(n, 0.7, np.random.default_rng(n))
    assert sum(ids == () for ids in plan) == round(0.7 * n)
    counts = np.bincount(np.concatenate([np.array(ids, int) for ids in plan]), minlength=14)
    assert (counts >= 1).all()
    n_abnormal = n - round(0.7 * n)
    np.testing.assert_allclose(counts, np.maximum(1, FINDING_RATES * n_abnormal), atol=0.51)


def test_readers_disagree_but_not_much():
    boxes, class_ids = np.array([[400.0, 500, 900, 1100], [1200.0, 300, 1500, 500]]), np.array([CARDIOMEGALY, 11])
    kept, overlaps = 0, []
    for seed in range(200):
        rows = read_by_three(np.random.default_rng(seed), boxes, class_ids, 2000, 2400)
        assert len({row[2] for row in rows}) == 3
        for name, class_id, _, x1, y1, x2, y2 in rows:
            assert name == "No finding" if class_id == NO_FINDING else name == FINDINGS[class_id]
            assert (x1 is None) == (class_id == NO_FINDING)
            if class_id == CARDIOMEGALY:
                kept += 1
                overlap = max(0, min(x2, 900) - max(x1, 400)) * max(0, min(y2, 1100) - max(y1, 500))
                overlaps.append(overlap / ((x2 - x1) * (y2 - y1) + 500 * 600 - overlap))
    assert 0.85 * 600 < kept < 600
    assert 0.75 < np.mean(overlaps) < 0.95
    assert np.std(overlaps) > 0.02


@pytest.mark.parametrize("transfer_syntax", TRANSFER_SYNTAXES, ids=lambda uid: uid.name)
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("monochrome1", [False, True])
def test_a_dicom_file_gives_the_drawn_pixels_back(tmp_path, transfer_syntax, bits, monochrome1):
    pixels = np.random.default_rng(bits).random((130, 98), dtype=np.float32)
    storage = Storage(bits, monochrome1, False, transfer_syntax, computed=monochrome1)
    path = tmp_path / "a.dicom"
    save_dicom(dicom_of(pixels, storage, "a" * 32, 0.15, "F", 50, "PA", np.random.default_rng(0)), path)
    dataset = pydicom.dcmread(path)
    top = 2**bits - 1
    expected = np.round(pixels * np.float32(top)).astype(np.int64)
    np.testing.assert_array_equal(dataset.pixel_array, top - expected if monochrome1 else expected)
    assert dataset.file_meta.TransferSyntaxUID == transfer_syntax
    assert dataset.BitsStored == bits
    assert dataset.PatientName == ""
    assert os.listdir(tmp_path) == ["a.dicom"]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    """RAW with 14 training and 8 test phantoms of about 128 pixels."""
    folder = tmp_path_factory.mktemp("raw")
    written = write_vinbig(folder, 14, 8, seed=4, size=128, n_workers=1, progress=False)
    assert written.n_drawn == 22
    return folder


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_any_number_of_workers_writes_the_same_files(phantoms, tmp_path):
    write_vinbig(tmp_path, 14, 8, seed=4, size=128, n_workers=2, progress=False)
    assert _digests(tmp_path) == _digests(phantoms)


def test_the_layout_is_vinbigs(phantoms):
    folder = phantoms / "vinbig"
    train = pd.read_csv(folder / "train.csv")
    assert list(train) == ["image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max"]
    assert set(train.image_id) == {path.stem for path in (folder / "train").glob("*.dicom")}
    assert train.image_id.str.fullmatch("[0-9a-f]{32}").all()
    assert (train.groupby("image_id").rad_id.nunique() == 3).all()
    assert set(train.rad_id) <= {f"R{k}" for k in range(1, 18)}
    assert train.rad_id.nunique() > 3
    normal = train.class_id == NO_FINDING
    assert train[normal][["x_min", "y_min", "x_max", "y_max"]].isna().all(axis=None)
    assert train[~normal].notna().all(axis=None)
    names = [*FINDINGS, "No finding"]
    assert (train.class_name == train.class_id.map(lambda class_id: names[class_id])).all()
    for image_id, rows in train[~normal].groupby("image_id"):
        dataset = pydicom.dcmread(folder / "train" / f"{image_id}.dicom", stop_before_pixels=True)
        assert (rows.x_min >= 0).all()
        assert (rows.y_min >= 0).all()
        assert (rows.x_max <= dataset.Columns).all()
        assert (rows.y_max <= dataset.Rows).all()
        assert (rows.x_max > rows.x_min).all()
        assert (rows.y_max > rows.y_min).all()

    submission = pd.read_csv(folder / "sample_submission.csv")
    assert list(submission) == ["image_id", "PredictionString"]
    assert set(submission.image_id) == {path.stem for path in (folder / "test").glob("*.dicom")}
    assert (submission.PredictionString == "14 1 0 0 1 1").all()
    truth = pd.read_csv(folder / "test_truth.csv")
    assert list(truth) == ["image_id", "class_name", "class_id", "x_min", "y_min", "x_max", "y_max"]
    assert list(truth.image_id.drop_duplicates()) == list(submission.image_id)
    assert truth.groupby("image_id").class_id.agg(lambda ids: (ids == NO_FINDING).any()).sum() == round(0.7 * 8)


def test_files_can_be_read_and_vary(phantoms):
    datasets = [pydicom.dcmread(path) for path in sorted((phantoms / "vinbig").glob("*/*.dicom"))]
    for dataset in datasets:
        assert dataset.pixel_array.shape == (dataset.Rows, dataset.Columns)
        assert 110 <= max(dataset.Rows, dataset.Columns) <= 128
        assert 0.1 < dataset.PixelSpacing[0] * max(dataset.pixel_array.shape) / 400 < 10
        assert dataset.pixel_array.max() > dataset.pixel_array.min()
    assert len({dataset.file_meta.TransferSyntaxUID for dataset in datasets}) >= 3
    assert len({dataset.BitsStored for dataset in datasets}) >= 3
    assert {dataset.PhotometricInterpretation for dataset in datasets} == {"MONOCHROME1", "MONOCHROME2"}
    assert {"WindowCenter" in dataset for dataset in datasets} == {True, False}


def test_an_interrupted_run_goes_on_where_it_stopped(phantoms, tmp_path):
    folder = tmp_path / "vinbig"
    shutil.copytree(phantoms / "vinbig", folder)
    lost = sorted((folder / "train").glob("*.dicom"))[:3]
    for path in lost:
        path.unlink()
    # As an interruption leaves it: no tables yet, and a last line that was cut off.
    (folder / "train.csv").unlink()
    journal = (folder / "phantoms.jsonl").read_text()
    (folder / "phantoms.jsonl").write_text(journal[:-30])
    written = write_vinbig(tmp_path, 14, 8, seed=4, size=128, progress=False)
    assert written.n_drawn == 4
    assert _digests(tmp_path) == _digests(phantoms)


def test_what_is_there_is_not_overwritten_silently(tmp_path):
    write_vinbig(tmp_path, 2, 1, size=96, progress=False)
    before = _digests(tmp_path)
    with pytest.raises(InputError, match="--overwrite"):
        write_vinbig(tmp_path, 3, 1, size=96, progress=False)
    assert _digests(tmp_path) == before
    write_vinbig(tmp_path, 3, 1, size=96, progress=False, overwrite=True)
    assert len(list((tmp_path / "vinbig" / "train").iterdir())) == 3


def test_real_data_are_never_deleted(tmp_path):
    (tmp_path / "vinbig" / "train").mkdir(parents=True)
    (tmp_path / "vinbig" / "train" / "real.dicom").write_bytes(b"real")
    with pytest.raises(InputError, match="holds no phantoms"):
        write_vinbig(tmp_path, 2, 1, size=96, progress=False, overwrite=True)
    assert (tmp_path / "vinbig" / "train" / "real.dicom").read_bytes() == b"real"


@pytest.mark.parametrize(
    "numbers", [{"n_train": 0, "n_test": 0}, {"size": 20}, {"normal_fraction": 1.5}, {"seed": -1}], ids=str
)
def test_numbers_that_make_no_sense_are_refused_before_anything_is_written(tmp_path, numbers):
    with pytest.raises(InputError):
        write_vinbig(tmp_path / "new", **({"n_train": 1, "n_test": 1} | numbers))
    assert not (tmp_path / "new").exists()


def test_a_phantom_is_about_the_same_at_every_size():
    small, large = draw_phantom(7, 240, 300, (3, 10)), draw_phantom(7, 960, 1200, (3, 10))
    np.testing.assert_allclose(small.boxes * 4, large.boxes, atol=0.02 * 1200)
    thumbnails = [Canvas(p.pixels.shape[1], p.pixels.shape[0], 60).letterbox(p.pixels) for p in (small, large)]
    assert np.corrcoef(thumbnails[0].ravel(), thumbnails[1].ravel())[0, 1] > 0.97


def test_the_command_says_what_it_wrote_and_what_comes_next(tmp_path, monkeypatch, capsys):
    arguments = ["--save-path", str(tmp_path), "--n-train", "2", "--n-test", "1", "--size", "96", "--n-workers", "0"]
    monkeypatch.setattr(sys, "argv", ["tools/phantoms.py", *arguments])
    assert run() == 0
    out = capsys.readouterr().out
    assert "2 training and 1 test phantoms" in out
    assert f"tools/convert.py vinbig --data-path {tmp_path / 'vinbig'}" in out
    monkeypatch.setattr(sys, "argv", ["tools/phantoms.py", *arguments, "--seed", "1"])
    assert run() == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error
