"""tools/convert.py killed at any moment goes on where it was: the same bytes, nothing half-written under its name."""

import json
import os
import random
import signal
import time

import cv2
import numpy as np
import pydicom
import pytest
from forking import contents, session_of, under_final_names
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

KINDS = ("vinbig", "siim", "lungs", "coco", "folders")
EAGER = {"xray.datasets.journal:CHECKPOINT_SECONDS": 0.0}


def dicom(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.Rows, ds.Columns, ds.SamplesPerPixel = *pixels.shape, 1
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PhotometricInterpretation, ds.PixelData = "MONOCHROME2", pixels.tobytes()
    pydicom.dcmwrite(path, ds, enforce_file_format=True)


def png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A folder with a small source of each kind, each with a file that cannot be read."""
    root = tmp_path_factory.mktemp("raw")
    grey = np.random.default_rng(0)
    boxes, runs = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"], ["ImageId,EncodedPixels"]
    images, annotations = [], []
    for number in range(8):
        pixels = grey.integers(20, 60, (50 + 2 * number, 64), dtype=np.uint8)
        pixels[10:30, 5 + number : 40] = 200
        dicom(root / "vinbig" / "train" / f"v{number}.dicom", pixels)
        boxes.append(f"v{number},Nodule/Mass,8,R{number % 3},{5 + number},10,40,30")
        dicom(root / "siim" / "dicom-images-train" / f"1.2.3.4.{number}" / f"s{number}.dcm", pixels)
        runs.append(f"s{number},{'-1' if number % 2 else '520 20 30 20 30 20'}")
        png(root / "lungs" / "CXR_png" / f"l{number}.png", pixels)
        png(root / "lungs" / "mask" / f"l{number}_mask.png", np.where(pixels > 100, 255, 0).astype(np.uint8))
        png(root / "coco" / "images" / f"{number}.png", pixels)
        png(root / "folders" / ("ill" if number % 2 else "normal") / f"{number}.png", pixels)
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 50 + 2 * number})
        box = [5 + number, 10, 35 - number, 20]
        annotations.append({"id": number, "image_id": number, "category_id": 3, "bbox": box})
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "bright"}]}
    (root / "coco" / "annotations.json").write_text(json.dumps(coco))
    (root / "vinbig" / "train.csv").write_text("\n".join(boxes) + "\n")
    (root / "siim" / "train-rle.csv").write_text("\n".join(runs) + "\n")
    for name in ("vinbig/train/v2.dicom", "siim/dicom-images-train/1.2.3.4.3/s3.dcm", "coco/images/2.png"):
        (root / name).write_bytes(b"not a radiograph")
    (root / "lungs" / "CXR_png" / "l2.png").write_bytes(b"not a radiograph")
    return root


def flags(kind, raw, out, n_workers=1):
    places = ["--data-path", raw / kind, "--save-path", out]
    return ["tools/convert.py", kind, *places, "--image-size", 48, "--n-folds", 2, "--n-workers", n_workers]


def kill_and_go_on(forks, kind, raw, folder, n_kills, seed):
    """Kills so many conversions, at file operations and at any time, and completes each; returns how many were hit."""
    folder.mkdir(exist_ok=True)
    whole = folder / "whole"
    began = time.monotonic()
    done = forks.run(*flags(kind, raw, whole), alone=True, under=str(whole))
    seconds = time.monotonic() - began
    assert done.status == 0, done.err
    expected = contents(whole)
    chance, n_hit = random.Random(f"{kind} {seed}"), 0
    for number in range(n_kills):
        out = folder / str(number)
        orders = {"alone": True, "patch": EAGER if number % 3 else {}}
        # Some are killed again while they go on.
        for _ in range(1 + number % 2):
            if number % 4 == 0:
                command = forks.kill_after(chance.random() * seconds, out, *flags(kind, raw, out), **orders)
            else:
                die_at = chance.randint(1, done.n_operations)
                command = forks.run(*flags(kind, raw, out), **orders, under=str(out), die_at=die_at)
            n_hit += command.status == -signal.SIGKILL
            left = under_final_names(out) if out.exists() else {}
            assert left.items() <= expected.items(), (number, command.err)
        command = forks.run(*flags(kind, raw, out), **orders)
        assert command.status == 0 or "holds a finished dataset" in command.err, command.err
        assert contents(out) == expected, number
    return n_hit


def test_killed_it_goes_on(forks, raw, tmp_path):
    assert kill_and_go_on(forks, "vinbig", raw, tmp_path / "vinbig", 2, seed=0) >= 1


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_many_moments_it_goes_on(forks, raw, tmp_path, kind):
    n_hit = kill_and_go_on(forks, kind, raw, tmp_path / kind, 8, seed=1)
    print(f"{kind}: {n_hit} conversions killed")
    assert n_hit >= 7


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_with_its_workers_or_without_them(forks, raw, tmp_path):
    """Workers whose command is gone end by themselves."""
    assert forks.run(*flags("vinbig", raw, tmp_path / "whole", 2)).status == 0
    expected = contents(tmp_path / "whole")
    chance = random.Random(3)
    for number in range(4):
        out = tmp_path / str(number)
        command = forks.start(*flags("vinbig", raw, out, 2), patch=EAGER)
        time.sleep(0.2 + chance.random() * 1.5)
        if number % 2:
            command.kill()
        else:
            os.kill(command.pid, signal.SIGKILL)
        command.wait()
        assert session_of(command.pid) == []
        assert not out.exists() or under_final_names(out).items() <= expected.items()
        command = forks.run(*flags("vinbig", raw, out, 2))
        assert command.status == 0 or "holds a finished dataset" in command.err, command.err
        assert contents(out) == expected


@pytest.mark.slow
def test_the_finished_dataset_stays_until_its_successor_is_complete(forks, raw, tmp_path):
    """Replaced with --overwrite and killed, each file is the old one or the new one, and the same command goes on."""
    other = [*flags("coco", raw, tmp_path / "other"), "--seed", 5, "--readers", "all", "--overwrite"]
    done = forks.run(*other, alone=True, under=str(tmp_path / "other"))
    new = contents(tmp_path / "other")
    for die_at in range(1, done.n_operations + 3):
        out = tmp_path / f"out{die_at}"
        assert forks.run(*flags("coco", raw, out), alone=True).status == 0
        old = contents(out)
        again = [*flags("coco", raw, out), "--seed", 5, "--readers", "all", "--overwrite"]
        command = forks.run(*again, alone=True, under=str(out), die_at=die_at)
        assert command.status in (-signal.SIGKILL, 0)
        for name, content in under_final_names(out).items():
            assert content in (old[name], new[name])
        assert forks.run(*again, alone=True).status == 0
        assert contents(out) == new


def test_ctrl_c_between_writing_and_noting_shifts_no_row(raw, tmp_path, monkeypatch):
    """An outcome written twice into the journal would give all radiographs after it another's pixels."""
    from xray.datasets import journal
    from xray.datasets.sources import convert

    options = {"image_size": 32, "n_folds": 2, "n_workers": 0}
    convert("vinbig", raw / "vinbig", tmp_path / "whole", **options)
    monkeypatch.setattr(journal, "CHECKPOINT_SECONDS", 0.0)
    fsync, calls = os.fsync, []

    def interrupted(descriptor):
        fsync(descriptor)
        calls.append(descriptor)
        if len(calls) == at:
            raise KeyboardInterrupt

    for at in range(1, 12):
        calls.clear()
        out = tmp_path / str(at)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", interrupted)
            with pytest.raises(KeyboardInterrupt):
                convert("vinbig", raw / "vinbig", out, **options)
        convert("vinbig", raw / "vinbig", out, **options)
        assert contents(out) == contents(tmp_path / "whole")
