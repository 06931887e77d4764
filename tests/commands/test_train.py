"""The train command from outside: where it runs, what it leaves behind, and one clear line for every mistake."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import pytest
import torch
from conftest import TINY_FLAGS

from xray.commands.runner import run_command
from xray.commands.train import main
from xray.datasets.sources import convert
from xray.datasets.store import open_store
from xray.models.detection.detector import build_detector
from xray.training.recipes import read_training_flags
from xray.training.side_by_side import PART_OF
from xray.training.tasks.detection import DetectionTask

SCRIPT = Path(__file__).resolve().parents[2] / "xray" / "train.py"


@pytest.fixture
def fails(capsys):
    """(flags) → (exit status, the line on stderr): runs the command in this process."""

    def run(*flags):
        # Later flags win over the tiny training's.
        args = [*TINY_FLAGS, *map(str, flags)]
        status = run_command(lambda: main(*read_training_flags(args)))
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1, captured.err
        assert "Traceback" not in captured.err
        assert "unexpected" not in lines[0]
        return status, lines[0]

    return run


def script(*args, **options):
    command = [sys.executable, *options.pop("python", ()), str(SCRIPT), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, **options)


def contents(folder):
    return {
        str(path.relative_to(folder)): (path.read_bytes() if path.is_file() else None) for path in folder.rglob("*")
    }


# Where it runs


def test_it_works_from_another_folder_with_relative_paths(side_store, tmp_path):
    (tmp_path / "data").symlink_to(side_store)
    done = script(*TINY_FLAGS, "--data-path", "data", "--save-path", "runs/one", "--n-pictures", 0, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "7 radiographs train, 7 validate (fold 0)" in done.stdout
    assert "\nmirrored radiographs swap Left shadow ↔ Right shadow\n" in done.stdout
    assert "python tools/infer.py --weights runs/one" in done.stdout
    expected = {"config.yaml", "metrics.csv", "last.ckpt", "best.ckpt", "model.safetensors", "model.json"}
    assert expected | {"validation/predictions.json"} <= contents(tmp_path / "runs" / "one").keys()
    assert not list((tmp_path / "runs" / "one").rglob("*.part"))
    # Nothing else is left in the folder that it ran in.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "runs"]


def test_no_room_shadows_a_package(tmp_path):
    """xray/data must not be importable as `data`, nor tools/ or the folder it runs in be searched."""
    look = "import sys, importlib.util as u; print('PATH', sys.path); print('FOUND', u.find_spec('interrupts'))\n"
    done = script("--help", python=["-i"], input=look, cwd=tmp_path)
    shown = done.stdout[done.stdout.index("PATH") :]
    assert repr(str(SCRIPT.parents[1])) in shown
    assert repr(str(SCRIPT.parent)) not in shown
    assert "FOUND None" in shown


def test_help_and_mistakes_answer_before_torch_is_imported(tmp_path):
    for flags, status in (
        (["--help"], 0), (["--no-such-flag"], 2), (["--lr", "-1"], 2), (["--data-path", "none"], 1)
    ):  # fmt: skip
        done = script(*flags, python=["-X", "importtime"], cwd=tmp_path)
        assert done.returncode == status
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}
        assert "xray.training.config" in imported
        assert not {"torch", "lightning", "albumentations", "matplotlib"} & imported


# Wrong flags


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--learning-rate", "1"], "--learning-rate"),
        (["--n-epochs", "many"], "--n-epochs"),
        (["--n-epochs", "0"], "error: --n-epochs is 0: it must be at least 1"),
        (["--family", "ssd"], "--family"),
        (["--task", "diagnosis"], "error: --task diagnosis is unknown"),
        (["--config"], "error: --config needs a value"),
    ],
)
def test_wrong_flags_end_with_status_2(tmp_path, flags, named):
    done = script(*flags, cwd=tmp_path)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_key_of_a_recipe_ends_with_status_2(tmp_path):
    (tmp_path / "recipe.yaml").write_text("lr: 1e-3\nbatchsize: 3\n")
    done = script("--config=recipe.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "--batchsize" in done.stderr


# Bad input: one line, status 1, nothing lost


def test_missing_data_says_where_to_get_some(fails, tmp_path):
    status, line = fails("--data-path", tmp_path / "none", "--save-path", tmp_path / "run")
    assert status == 1
    assert line.startswith(f"error: no data at {tmp_path / 'none'}: ")
    assert "Kaggle" in line
    assert "python tools/phantoms.py --save-path" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda data: None, "is neither a dataset directory"),
        (lambda data: (data / "conversion.part").mkdir(), "is neither a dataset directory"),
        (lambda data: (data / "conversion.part").write_text("{}"), "has not finished: run the same python"),
        (lambda data: (data / "conversion.json").write_text("{}"), "is damaged"),
        (lambda data: (data / "annotations.json").write_text("{}"), "is neither a dataset directory"),
    ],
)
def test_a_folder_that_is_no_dataset(fails, tmp_path, make, message):
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    status, line = fails("--data-path", tmp_path / "data", "--save-path", tmp_path / "run")
    assert status == 1
    assert message in line
    assert not (tmp_path / "run").exists()


def test_a_fold_that_does_not_exist(fails, side_store, tmp_path):
    status, line = fails("--data-path", side_store, "--save-path", tmp_path / "run", "--fold", 5)
    assert (status, line) == (1, f"error: {side_store} has no fold 5: its folds are 0, 1")
    assert not (tmp_path / "run").exists()


def test_a_run_that_exists_is_left_as_it_is(fails, side_store, side_run):
    before = contents(side_run)
    status, line = fails("--data-path", side_store, "--save-path", side_run)
    assert status == 1
    assert line.endswith("exists already: continue it with --resume, or give another --save-path")
    assert contents(side_run) == before


def test_a_file_in_place_of_the_run(fails, side_store, tmp_path):
    (tmp_path / "run").write_text("kept")
    status, line = fails("--data-path", side_store, "--save-path", tmp_path / "run")
    assert status == 1
    assert "run is a file: give a directory as --save-path" in line
    assert (tmp_path / "run").read_text() == "kept"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("flags", [["--device", "cuda"], ["--device", "cpu", "--precision", "16"]])
def test_a_gpu_is_asked_for_where_there_is_none(fails, side_store, tmp_path, flags):
    status, line = fails("--data-path", side_store, "--save-path", tmp_path / "run", *flags)
    assert status == 1
    assert "--device cpu" in line or "use bf16 or 32 on the CPU" in line
    assert not (tmp_path / "run").exists()


def test_nothing_to_resume(fails, side_store, side_run, tmp_path):
    status, line = fails("--data-path", side_store, "--save-path", tmp_path / "run", "--resume")
    assert status == 1
    assert "nothing to resume in" in line
    assert not (tmp_path / "run").exists()
    # A run that has lost its checkpoint.
    cut = shutil.copytree(side_run, tmp_path / "cut")
    (cut / "last.ckpt").unlink()
    (cut / "metrics.csv").write_text("epoch,step\n0,2\n1,4\n")
    before = contents(cut)
    status, line = fails("--data-path", side_store, "--save-path", cut, "--resume")
    assert status == 1
    assert "has no last.ckpt, though 2 epochs were finished: restore it, or start another run" in line
    assert contents(cut) == before


def test_what_was_ended_before_its_first_checkpoint_starts(side_store, train_tiny, tmp_path, capsys):
    """Within the writing of its config, or after it."""
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "config.yaml.part").write_text("task: detec")
    assert (train_tiny(side_store, tmp_path / "early", "--n-pictures", 0) / "last.ckpt").is_file()
    (tmp_path / "late").mkdir()
    shutil.copy(tmp_path / "early" / "config.yaml", tmp_path / "late")
    capsys.readouterr()
    late = train_tiny(side_store, tmp_path / "late", "--resume", "--n-pictures", 0)
    said = capsys.readouterr().out
    assert "was ended before its first checkpoint: it starts from the beginning" in said
    assert "weights start at random" in said
    assert (late / "model.safetensors").read_bytes() == (tmp_path / "early" / "model.safetensors").read_bytes()


def test_a_run_of_another_task_is_not_resumed(fails, side_store, side_run, tmp_path):
    run = shutil.copytree(side_run, tmp_path / "run")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("task: detection", "task: diagnosis"))
    before = contents(run)
    status, line = fails("--data-path", side_store, "--save-path", run, "--resume")
    assert status == 1
    assert "is a run of task diagnosis" in line
    assert contents(run) == before


def test_a_resumed_run_does_not_change_its_model(fails, side_store, side_run):
    before = contents(side_run)
    status, line = fails("--data-path", side_store, "--save-path", side_run, "--resume", "--backbone", "resnet34")
    assert status == 2
    assert line.startswith("error: --backbone is resnet34: it must be mobilenet_v2, the run was started with it")
    assert contents(side_run) == before


def test_a_run_that_has_more_epochs_than_are_asked_for_stays_as_it_is(side_store, train_tiny, tmp_path, capsys):
    run = train_tiny(side_store, tmp_path / "run", "--n-epochs", 2, "--n-pictures", 0)
    before = contents(run)
    capsys.readouterr()
    train_tiny(side_store, run, "--resume", "--n-epochs", 1)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"nothing to do: {run} has trained 2 epochs, and --n-epochs is 1: give more, or leave it out"
    assert contents(run) == before


def test_what_comes_next_is_said_by_the_training_itself_or_by_the_command_whose_part_it_is(
    side_store, train_tiny, tmp_path, capsys, monkeypatch
):
    train_tiny(side_store, tmp_path / "alone", "--n-pictures", 0)
    assert "next:\n  python tools/infer.py --weights" in capsys.readouterr().out
    monkeypatch.setenv(PART_OF, "fold0")
    train_tiny(side_store, tmp_path / "fold0", "--n-pictures", 0)
    said = capsys.readouterr().out
    assert said.endswith(f". The run is in {tmp_path / 'fold0'}\n")
    assert "infer" not in said
    assert "tensorboard" not in said


@pytest.mark.parametrize("n_steps", [0, 1])
def test_ctrl_c_says_where_the_run_goes_on(side_store, train_tiny, tmp_path, capsys, monkeypatch, n_steps):
    """n_steps: after which last.ckpt is written within the second epoch; 0 for at its end alone."""
    step = DetectionTask.training_step

    def interrupted(task, batch, index):
        if task.current_epoch == 1 and index == 1:
            raise KeyboardInterrupt
        return step(task, batch, index)

    monkeypatch.setattr(DetectionTask, "training_step", interrupted)
    flags = ["--n-epochs", 3, "--n-pictures", 0, *(["--save-every-n-steps", n_steps] if n_steps else [])]
    with pytest.raises(KeyboardInterrupt):
        train_tiny(side_store, tmp_path / "run", *flags)
    after = "1 epochs and 1 steps" if n_steps else "1 epochs"
    command = f"python xray/train.py --task detection --save-path {tmp_path / 'run'} --resume"
    assert f"goes on after {after}, with {command}\n" in capsys.readouterr().err


def test_a_damaged_checkpoint(fails, side_store, side_run, tmp_path):
    run = shutil.copytree(side_run, tmp_path / "run")
    (run / "last.ckpt").write_bytes((run / "last.ckpt").read_bytes()[:5000])
    before = contents(run)
    status, line = fails("--data-path", side_store, "--save-path", run, "--resume", "--n-epochs", 2)
    assert status == 1
    assert "last.ckpt is damaged or foreign" in line
    assert f"start another run with --weights {run}, from the weights that this one had reached" in line
    assert contents(run) == before


@pytest.mark.parametrize("kind", ["truncated", "foreign", "missing", "another backbone", "a text"])
def test_initial_weights_that_do_not_fit(fails, side_store, side_run, tmp_path, kind):
    path = tmp_path / "weights.safetensors"
    if kind == "truncated":
        path.write_bytes((side_run / "model.safetensors").read_bytes()[:100_000])
    elif kind == "foreign":
        path = tmp_path / "weights.pth"
        torch.save({"encoder.weight": torch.ones(3)}, path)
    elif kind == "another backbone":
        path = tmp_path / "weights.pth"
        torch.save(build_detector(3, 64, "resnet18", fpn_channels=16).state_dict(), path)
    elif kind == "a text":
        path.write_text("no weights")
    status, line = fails("--data-path", side_store, "--save-path", tmp_path / "run", "--weights", path)
    assert status == 1
    assert path.name in line
    expected = {
        "truncated": "not a readable weights file", "a text": "not a readable weights file",
        "missing": "no weights at", "foreign": "check --backbone", "another backbone": "check --backbone",
    }  # fmt: skip
    assert expected[kind] in line
    assert not (tmp_path / "run").exists()


def test_a_download_without_internet_says_what_to_do(fails, side_store, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    status, line = fails("--data-path", side_store, "--save-path", tmp_path / "run", "--weights", "imagenet")
    assert status == 1
    assert "fetch https://download.pytorch.org/models/mobilenet_v2" in line
    assert "--weights FILE" in line
    assert not (tmp_path / "run").exists()


# What it does


def test_training_starts_from_a_run_on_other_categories(side_run, vinbig_store, train_tiny, tmp_path, capsys):
    run = train_tiny(vinbig_store, tmp_path / "run", "--weights", side_run, "--norm", "batch")
    assert f"detector starts from {side_run.name}, its last layer from random" in capsys.readouterr().out
    assert len(json.loads((run / "model.json").read_text())["categories"]) == 14


def test_advice_on_converting_a_raw_vinbig_directory_works(fails, raw_vinbig, tmp_path):
    raw = raw_vinbig(lambda number: number % 2 == 1)
    table = (raw / "train.csv").read_text().splitlines(keepends=True)
    ids = sorted({line.partition(",")[0] for line in table[1:]})[:3]
    (raw / "train.csv").write_text("".join(line for line in table if line.partition(",")[0] in ("image_id", *ids)))
    status, line = fails("--data-path", raw, "--save-path", tmp_path / "run", "--weights", "none")
    assert status == 1
    # It has no --n-folds itself.
    assert re.search(r"3 patients cannot fill 5 folds \(.* left out\): use --n-folds 3 or fewer", line)
    assert f"such flags belong to python tools/convert.py vinbig --data-path {raw}" in line
    convert("vinbig", raw, tmp_path / "data", n_folds=3, image_size=32, n_workers=0)
    assert set(open_store(tmp_path / "data").folds.tolist()) == {0, 1, 2}


def test_a_raw_vinbig_directory_is_converted_once_into_the_run(tmp_path, train_tiny, raw_vinbig, capsys):
    raw = raw_vinbig(lambda number: number % 2 == 1)
    flags = ["--batch-size", 8, "--rpn-samples", 8, "--n-pictures", 0]
    # The canvas is 1024 pixels a side here: the smallest of trainings, cut off after the conversion.
    from xray.training.tasks.detection import DetectionTask

    class EnoughError(Exception):
        pass

    def enough(*_):
        raise EnoughError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DetectionTask, "training_step", enough)
        for times in (1, 2):
            with pytest.raises(EnoughError):
                train_tiny(raw, tmp_path / f"run{times}", *flags)
    assert "is a raw VinBig directory: converting it once into" in capsys.readouterr().out
    dataset = tmp_path / "run1" / "dataset"
    assert (dataset / "images.npy").is_file()
    # A run directory that holds the conversion alone can be started, and does not convert again.
    (tmp_path / "again").mkdir()
    dataset.rename(tmp_path / "again" / "dataset")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DetectionTask, "training_step", enough)
        with pytest.raises(EnoughError):
            train_tiny(raw, tmp_path / "again", *flags)
    assert "converting" not in capsys.readouterr().out


@pytest.mark.slow
def test_ctrl_c_ends_with_130(side_store, tmp_path):
    flags = [*TINY_FLAGS, "--data-path", str(side_store), "--save-path", "run", "--n-pictures", "0"]
    command = [sys.executable, str(SCRIPT), *flags, "--n-epochs", "1000"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    while not (tmp_path / "run" / "last.ckpt").is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
