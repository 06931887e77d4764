"""The infer command killed, interrupted, and over many files: nothing lost, nothing twice, memory flat."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import rarely

from xray.commands.infer import Config, main
from xray.errors import InputError
from xray.file_names import UNFINISHED

TOOL = Path(__file__).resolve().parents[2] / "tools" / "infer.py"


def write_pngs(folder, n):
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(n):
        pixels = random.integers(20, 60, (70 + number % 9, 90), dtype=np.uint8)
        pixels[20:50, 20 + number % 20 : 60] = 200
        assert cv2.imwrite(str(folder / f"{number:04d}.png"), pixels)
    return folder


@pytest.fixture(scope="module")
def pngs(tmp_path_factory):
    folder = write_pngs(tmp_path_factory.mktemp("many") / "raw", 150)
    for number in (3, 40, 41, 149):
        (folder / f"{number:04d}.png").write_bytes(b"broken")
    return folder


def start(weights, data, out, *flags):
    places = ["--data-path", data, "--save-path", out, "--n-workers", 1, "--device", "cpu", "--precision", 32]
    command = [sys.executable, TOOL, "--weights", *weights, *places, *flags]
    # A session of its own, so that its workers end with it.
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen([*map(str, command)], **options)


def wait_for(journal, n_lines, process):
    """Waits until the journal has so many lines."""
    for _ in range(6000):
        if journal.exists() and journal.read_bytes().count(b"\n") >= n_lines:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("the command is too slow")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def config(weights, data, out, **changes):
    values = {"n_workers": 1, "device": "cpu", "precision": "32", **changes}
    return Config(weights=tuple(map(str, weights)), data_path=str(data), save_path=str(out), **values)


@pytest.mark.parametrize("task", rarely(["boxes and pictures", "maps and labels"]))
def test_killed_twice_the_outputs_are_those_of_a_run_in_one_go(
    task, pngs, vinbig_run, segmentation_run, classification_run, tmp_path
):
    weights = [vinbig_run] if task == "boxes and pictures" else [segmentation_run, classification_run]
    changes = {"overlays": True} if task == "boxes and pictures" else {"probabilities": True}
    assert main(config(weights, pngs, tmp_path / "whole", **changes)) == 1
    out = tmp_path / "out"
    for n_lines in (4, 20):
        process = start(weights, pngs, out, f"--{next(iter(changes))}")
        wait_for(out / UNFINISHED, n_lines, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not (out / "predictions.json").exists()
        assert not (out / "submission.csv").exists()
    # What a write cut short leaves.
    with (out / UNFINISHED).open("ab") as journal:
        journal.write(b'{"stop": 149, "images": [')
    process = start(weights, pngs, out, f"--{next(iter(changes))}")
    said = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "continuing after " in said[1]
    assert contents(out) == contents(tmp_path / "whole")


def test_other_flags_do_not_go_on_with_it(pngs, vinbig_run, tmp_path, capsys, monkeypatch):
    out, few = tmp_path / "out", write_pngs(tmp_path / "few", 6)
    process = start([vinbig_run], pngs, out)
    wait_for(out / UNFINISHED, 3, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    left = contents(out)
    for changes, name in (({"tta": False}, "tta"), ({"batch_size": 3}, "batch_size"), ({"fold": -1}, "data_path")):
        data = few if name == "data_path" else pngs
        with pytest.raises(InputError, match=rf"unfinished predictions of another command \({name} changed\)"):
            main(config([vinbig_run], data, out, **changes))
    retrained = shutil.copytree(vinbig_run, tmp_path / "retrained")
    with pytest.raises(InputError, match=r"\(weights changed\)"):
        main(config([retrained], pngs, out))
    with monkeypatch.context() as older:
        older.setattr("xray.inference.ensemble.FUSION_SCORE", "avg")
        with pytest.raises(InputError, match=r"\(how xray fuses changed\)"):
            main(config([vinbig_run], pngs, out))
    assert contents(out) == left
    assert main(config([vinbig_run], few, out, overwrite=True, gate_image="off")) == 0
    assert sorted(contents(out)) == ["made_by.json", "predictions.json", "submission.csv"]
    assert "going on" not in capsys.readouterr().err


def test_ctrl_c_ends_it_soon_and_keeps_what_was_found(pngs, vinbig_run, tmp_path):
    out = tmp_path / "out"
    process = start([vinbig_run], pngs, out, "--overlays")
    wait_for(out / UNFINISHED, 5, process)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted"
    assert "Traceback" not in said
    assert not (out / "predictions.json").exists()
    assert (out / UNFINISHED).read_bytes().count(b"\n") >= 5


MEASURE = """
import resource, sys
from xray.commands.infer import Config, main
main(Config(weights=(sys.argv[1],), data_path=sys.argv[2], save_path=sys.argv[3], device="cpu", n_workers=1,
                 precision="32", tta=False))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_ten_times_the_files_take_no_more_memory(vinbig_run, tmp_path):
    peaks = []
    for n in (100, 1000):
        data = write_pngs(tmp_path / f"raw{n}", n)
        command = [sys.executable, "-c", MEASURE, str(vinbig_run), str(data), str(tmp_path / f"out{n}")]
        done = subprocess.run(command, cwd=TOOL.parents[1], capture_output=True, text=True, timeout=600, check=True)
        peaks.append(int(done.stdout.splitlines()[-1]) / 1024)
    print(f"peak memory: {peaks[0]:.0f} MiB for 100 radiographs, {peaks[1]:.0f} MiB for 1000")
    # Names and paths stay in memory, some hundred bytes each.
    assert peaks[1] < peaks[0] + 20
