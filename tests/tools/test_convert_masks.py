"""The siim and lungs subcommands of tools/convert.py, and tools/phantoms.py before them, from outside."""

import subprocess
import sys
from pathlib import Path

import pytest

from xray.data.store import open_store

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run(tool, *args, **options):
    command = [sys.executable, str(TOOLS / tool), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    flags = ("--n-train", 8, "--n-test", 2, "--size", 96, "--n-workers", 0)
    done = run("phantoms.py", "--save-path", folder, "--trees", "siim", "lungs", *flags)
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
    done = run("convert.py", "siim", "--data-path", raw / "siim", *flags, cwd=tmp_path)
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
    done = run("convert.py", "lungs", "--data-path", raw / "lungs", *flags, "--patients", "patients.csv", cwd=tmp_path)
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
    done = run("convert.py", "siim", "--data-path", raw / "siim", "--table", "labels.csv", *flags)
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
        (["lungs", "--data-path", "lungs", "--images", "CXR_png"], 1, "give both, or neither"),
        (["lungs", "--data-path", "lungs", "--patients", "none.csv"], 1, "none.csv cannot be read"),
        (["lungs", "--data-path", "lungs", "--lungs", "both"], 2, "--lungs"),
    ],
)
def test_bad_input_gives_one_line_and_writes_nothing(raw, tmp_path, flags, status, message):
    (tmp_path / "empty").mkdir()
    for tree in ("siim", "lungs"):
        (tmp_path / tree).symlink_to(raw / tree)
    before = sorted(tmp_path.rglob("*"))
    done = run("convert.py", *flags, "--save-path", "data", "--n-folds", 2, cwd=tmp_path)
    assert done.returncode == status
    assert message in " ".join((done.stderr + done.stdout).split())
    assert "Traceback" not in done.stderr
    if status == 1:
        assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
