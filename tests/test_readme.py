"""README's commands and lines of Python, run as they stand among phantoms; only sizes and devices are smaller."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from page_blocks import blocks, replaced

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()

SMALLER = {
    "--image-size 1024": "--image-size 64",
    "--image-size 512": "--image-size 64",
    "--device cuda --n-epochs 100": "",
    "--weights imagenet": "",
}
"""What needs a GPU, a download or hours → what stands for it; each stands in README."""


def commands() -> list[list[str]]:
    text = replaced("\n".join(blocks(README, "sh")), SMALLER)
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


def write_own_data(folder: Path) -> None:
    """Eight radiographs with a COCO file, a box and a patient each."""
    import json

    random = np.random.default_rng(3)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(8):
        assert cv2.imwrite(str(folder / "images" / f"{number}.png"), random.integers(0, 255, (80, 70), dtype=np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "width": 70, "height": 80, "patient": f"P{number}"})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": [5, 6, 20 + number, 30]})
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "Nodule"}]}
    (folder / "annotations.json").write_text(json.dumps(coco))


def test_the_targets_of_make_exist():
    makes = [words for words in commands() if words[0] == "make"]
    assert [words[1] for words in makes] == ["demo", "pneumothorax", "test"]
    for words in makes:
        done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_commands_and_the_lines_of_python_run(tmp_path, monkeypatch, capsys):
    from conftest import TINY_FLAGS

    from xray.__main__ import run
    from xray.training.recipes import read_training_flags

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("xray.__main__.interrupts.watch", lambda *signals: None)

    def call(script: str, *flags: str) -> None:
        name = Path(script).stem
        assert (ROOT / script).is_file()
        monkeypatch.setattr(sys, "argv", [script, *flags])
        assert run(name) == 0, capsys.readouterr().err

    call(*shlex.split("tools/phantoms.py --save-path raw --trees vinbig --n-train 12 --n-test 3 --size 96"))
    Path("raw/vinbig").rename("vinbigdata")
    write_own_data(Path("mine"))
    ran = []
    for program, *words in commands():
        if program == "make":
            continue
        if program == "tensorboard":
            assert words == ["--logdir", "runs"]
            assert list(Path("runs").rglob("events.out.tfevents.*"))
            continue
        assert program == "python"
        script, *flags = words
        if script == "xray/train.py":
            # As it stands the command is complete; a network of that size would take hours here.
            read_training_flags(flags)
            flags += TINY_FLAGS
        if script == "tools/fuse.py":
            shutil.copy("out/predictions.json", "other.json")
        call(script, *flags)
        ran.append(script)
    assert {"tools/convert.py", "tools/view.py", "xray/train.py", "tools/infer.py"} < set(ran)
    for path in ("out/submission.csv", "out/predictions.json", "report/report.html", "fused/predictions.json"):
        assert Path(path).is_file(), path
    assert list(Path("out/overlays").iterdir())
    shutil.copy(next(Path("vinbigdata/test").iterdir()), "radiograph.dcm")
    shutil.rmtree("out")
    for block in blocks(README, "python"):
        exec(compile(block, "README.md", "exec"), {})
    assert Path("out/overlays/radiograph.png").is_file()
