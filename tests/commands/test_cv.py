"""Cross-validation: runs of all folds, their out-of-fold predictions, the table, and how it is resumed."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import in_process
import numpy as np
import pytest
import torch
import yaml
from conftest import CLASSIFICATION_FLAGS, MASK_FLAGS, TINY_FLAGS
from forking import ROOT, session_of

from xray.commands import cv
from xray.commands.cv import SAVED, Config, Folds, check_same, commands_of, read, slots_for
from xray.datasets.prediction_ids import read_any_predictions
from xray.datasets.store import open_store
from xray.errors import FlagError
from xray.evaluation.evaluate import evaluate
from xray.flags import flag_value
from xray.structures.made_by import read_made_by
from xray.training.config import DetectionConfig
from xray.training.learned import learned_by, other_weights
from xray.training.recipes import save_config
from xray.training.side_by_side import EXIT_TERMINATED
from xray.training.stages import stage_values

MASKS = ("--task", "segmentation", "--encoder", "resnet18", "--depth", "3", *MASK_FLAGS)
LEARNS = (
    "--n-epochs", "10", "--lr", "0.003", "--flip", "0", "--augment", "none", "--val-every", "5", "--n-pictures", "0",
)  # fmt: skip
FILES = ["cv.yaml", "fold0", "fold1", "made_by.json", "metrics.json", "predictions.json", "trained_on.json"]


@pytest.fixture(scope="module", autouse=True)
def here():
    """Trains and infers in this process; `begun` lists what was: (work, command, its flags)."""
    begun = []
    patch = pytest.MonkeyPatch()
    patch.setattr(cv, "run_all", in_process.run_all(begun))
    yield begun
    patch.undo()


def cross_validate(*flags):
    """What the command printed; it must end well."""
    done = in_process.run("cv", *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fails(*flags):
    """Exit status and the line on stderr."""
    done = in_process.run("cv", *flags)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.stderr
    return done.returncode, lines[0]


@pytest.fixture(scope="module")
def masks(here, mask_store, tmp_path_factory):
    """Cross-validated segmenters, what was printed, and what was begun. Not to be changed."""
    run = tmp_path_factory.mktemp("cv") / "run"
    here.clear()
    said = cross_validate(*MASKS, *LEARNS, "--data-path", mask_store, "--save-path", run)
    return run, said, list(here)


def test_each_fold_is_an_ordinary_run(masks, mask_store, tmp_path):
    run, _, begun = masks
    assert sorted(path.name for path in run.iterdir()) == FILES
    assert [(name, command) for name, command, _ in begun] == [
        ("fold0", "train"), ("fold0", "infer"), ("fold1", "train"), ("fold1", "infer"),
    ]  # fmt: skip
    by_hand = in_process.run(
        "train", *MASKS, *LEARNS, "--data-path", mask_store, "--save-path", tmp_path / "hand", "--fold", 1
    )
    assert by_hand.returncode == 0
    for name in ("model.safetensors", "validation/predictions.json"):
        assert (run / "fold1" / name).read_bytes() == (tmp_path / "hand" / name).read_bytes()


def test_every_training_radiograph_is_predicted_by_the_deployed_model_that_did_not_see_it(masks, mask_store, tmp_path):
    run, _, _ = masks
    store = open_store(mask_store)
    rows = json.loads((run / "predictions.json").read_text())
    assert {"image_id", "category_id", "bbox", "score", "category_name", "segmentation"} == set(rows[0])
    expected = []
    for fold in (0, 1):
        out = tmp_path / f"out{fold}"
        flags = ["--weights", run / f"fold{fold}", "--data-path", mask_store, "--save-path", out, "--n-workers", 0]
        assert in_process.run("infer", *flags, "--split", "train", "--device", "cpu").returncode == 0
        of_fold = {store.records[row]["source_id"] for row in store.rows(fold=fold)}
        expected += [row for row in json.loads((out / "predictions.json").read_text()) if row["image_id"] in of_fold]
    assert len(rows) >= 8
    key = lambda row: (store.index_of[row["image_id"]], -row["score"])  # noqa: E731
    assert sorted(rows, key=key) == sorted(expected, key=key)
    assert [store.index_of[row["image_id"]] for row in rows] == sorted(store.index_of[row["image_id"]] for row in rows)


def test_which_models_made_them_is_known_wherever_they_lie(masks, mask_store, tmp_path):
    run, _, _ = masks
    store = open_store(mask_store, pixels=False)
    for name in ("predictions.json", "made_by.json"):
        shutil.copy(run / name, tmp_path)
    made = read_made_by(tmp_path / "predictions.json")
    assert [part["models"][0]["name"] for part in made["fused"]] == ["fold0", "fold1"]
    assert [part["radiographs"]["dataset"]["fold"] for part in made["fused"]] == [0, 1]
    assert learned_by(made, store, store.records) == (0, "")
    # Each fold's model is that of all: thresholds of its run may be fitted.
    digests = [part["models"][0]["files"]["model.safetensors"] for part in made["fused"]]
    assert other_weights(run / "fold0", digests[:1], False, made, tmp_path / "predictions.json") == ""
    assert "by other weights" in other_weights(run, ["else"], False, made, tmp_path / "predictions.json")


def test_the_numbers(masks, mask_store):
    run, said, _ = masks
    metrics = json.loads((run / "metrics.json").read_text())
    store = open_store(mask_store, pixels=False)
    predictions = read_any_predictions(run / "predictions.json", store)
    pooled = evaluate(store, predictions, split="train", n_resamples=1000).metrics
    assert metrics["dice"] == pytest.approx(pooled["dice"])
    assert metrics["dice_ci95"] == pytest.approx(pooled["dice_ci95"])
    dice = [fold["dice"] for fold in metrics["folds"]]
    assert [fold["fold"] for fold in metrics["folds"]] == [0, 1]
    assert metrics["mean"]["dice"] == pytest.approx(np.mean(dice))
    assert metrics["standard_deviation"]["dice"] == pytest.approx(np.std(dice, ddof=1))
    # Something was learned, so that the numbers are no accident.
    assert metrics["dice_positive"] > 0.3
    table = {line.split("  ")[0].strip(): line.split() for line in said.splitlines()}
    assert table["fold"] == ["fold", "radiographs", "dice", "dice_positive", "iou", "false_positive_rate"]
    assert table["0"] == ["0", "8", *(f"{metrics['folds'][0][name]:.4f}" for name in table["fold"][2:])]
    assert table["all together"][2:4] == ["16", f"{pooled['dice']:.4f}"]
    assert table["± standard deviation"][-4] == f"{np.std(dice, ddof=1):.4f}"


def test_a_finished_one_trains_nothing_again_and_prints_the_same(here, masks, mask_store, tmp_path):
    run = shutil.copytree(masks[0], tmp_path / "run")
    here.clear()
    said = cross_validate(*MASKS, *LEARNS, "--data-path", mask_store, "--save-path", run, "--resume")
    assert here == []
    assert said.startswith(f"fold0 is done: {run / 'fold0'}\nfold1 is done: {run / 'fold1'}\n")
    table = lambda text: text.partition("cross-validation")[2].partition("out-of-fold")[0]  # noqa: E731
    assert table(said) == table(masks[1])
    for name in ("metrics.json", "predictions.json"):
        assert (run / name).read_bytes() == (masks[0] / name).read_bytes()


def test_what_was_interrupted_goes_on(here, masks, mask_store, tmp_path):
    """One fold is done; of the other the training was cut off, before its first checkpoint, or it was not predicted."""
    run = shutil.copytree(masks[0], tmp_path / "run")
    places = ["--data-path", mask_store, "--save-path", run]
    shutil.rmtree(run / "fold1" / "out_of_fold")
    here.clear()
    # Flags that are not given keep their values.
    cross_validate("--task", "segmentation", *places[2:], "--resume", "--n-workers", 1, "--device", "cpu")
    assert [(name, command) for name, command, _ in here] == [("fold1", "train"), ("fold1", "infer")]
    assert here[0][2] == [
        "--task", "segmentation", "--resume", "--save-path", str(run / "fold1"), "--device", "cpu", "--n-workers", "1",
    ]  # fmt: skip
    assert (run / "predictions.json").read_bytes() == (masks[0] / "predictions.json").read_bytes()
    (run / "fold1" / "out_of_fold" / "predictions.json").unlink()
    here.clear()
    cross_validate(*MASKS, *LEARNS, *places, "--resume")
    assert [(name, command) for name, command, _ in here] == [("fold1", "infer")]
    assert (run / "predictions.json").read_bytes() == (masks[0] / "predictions.json").read_bytes()


def test_a_fold_that_was_not_begun_starts_with_all_flags(tmp_path):
    config = DetectionConfig(device="cpu", n_workers=0)
    args = ["--lr", "0.1", "--fold", "7", "--data-path", "elsewhere"]
    train, infer = commands_of(tmp_path / "fold3", 3, tmp_path / "data", "detection", config, args)
    assert train == (
        "train", *args, "--data-path", str(tmp_path / "data"), "--fold", "3", "--save-path", str(tmp_path / "fold3"),
        "--device", "cpu", "--n-workers", "0",
    )  # fmt: skip
    assert infer[:7] == (
        "infer", "--weights", str(tmp_path / "fold3"), "--data-path", str(tmp_path / "data"), "--split", "train",
    )  # fmt: skip


def test_other_flags_are_refused(masks, mask_store):
    run = masks[0]
    places = ["--data-path", mask_store, "--save-path", run]
    for flags, status, line in (
        (["--lr", "0.1", "--resume"], 2, f"--lr is 0.1: it must be 0.003, {run} was started with it; or give another"),
        (["--encoder", "resnet34", "--resume"], 2, "--encoder is resnet34: it must be resnet18, the run was started"),
        ([], 1, f"{run} exists already: continue it with --resume, or give another --save-path"),
    ):
        assert fails(*MASKS, *LEARNS, *places, *flags)[0] == status
        assert fails(*MASKS, *LEARNS, *places, *flags)[1].startswith(f"error: {line}")
    assert fails(*MASKS, "--save-path", run / "fold0", "--resume") == (
        1,
        f"error: nothing to resume in {run / 'fold0'}: it has no cv.yaml; start without --resume",
    )


def test_some_folds_and_detectors(here, side_store, tmp_path):
    run = tmp_path / "run"
    flags = [*TINY_FLAGS, "--data-path", side_store, "--save-path", run, "--n-pictures", 0]
    said = cross_validate(*flags, "--folds", 1)
    assert sorted(path.name for path in run.iterdir()) == ["cv.yaml", "fold1", *FILES[3:]]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["n_images"] == 7
    assert {"map40", "coco_ap", "coco_ap_ci95"} <= metrics.keys()
    # A single fold has no spread.
    assert metrics["standard_deviation"]["map40"] is None
    assert "± standard deviation                       nan" in said
    # The others may follow, with the flags of the first.
    here.clear()
    cross_validate("--save-path", run, "--resume")
    assert [(name, command) for name, command, _ in here] == [("fold0", "train"), ("fold0", "infer")]
    first, second = (yaml.safe_load((run / fold / "config.yaml").read_text()) for fold in ("fold1", "fold0"))
    places = {"fold", "save_path", "chosen"}
    assert {key for key in first if first[key] != second[key]} <= places | {"anchor_sides", "anchor_ratios"}
    assert json.loads((run / "metrics.json").read_text())["n_images"] == 14


def test_classifiers_from_a_recipe(mask_store, tmp_path):
    (tmp_path / "recipe.yaml").write_text("task: classification\nnetwork: resnet10t\nn_epochs: 2\nfold: all\n")
    flags = [*CLASSIFICATION_FLAGS[4:], "--config", tmp_path / "recipe.yaml", "--data-path", mask_store]
    said = cross_validate(*flags, "--save-path", tmp_path / "run", "--n-epochs", 2)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    low, high = metrics["mean_auroc_ci95"]
    assert low <= metrics["mean_auroc"] <= high
    assert "mean_auroc  mean_average_precision" in said


def test_raw_data_is_converted_once(raw_vinbig, tmp_path, monkeypatch):
    raw, run, begun = raw_vinbig(lambda number: number % 2 == 0), tmp_path / "run", []
    monkeypatch.setattr(cv, "run_all", lambda works, *_: begun.extend(works) or (EXIT_TERMINATED, ""))
    for flags in ([], ["--resume"]):
        done = in_process.run("cv", *TINY_FLAGS, "--data-path", raw, "--save-path", run, *flags)
        assert done.returncode == EXIT_TERMINATED
        assert done.stderr.splitlines()[-1] == "stopped by SIGTERM: continue with the same command and --resume"
        assert ("converting it once" in done.stdout) == (flags == [])
    assert len(begun) == 10
    for work in begun:
        assert all(flag_value(command, "data-path") == str(run / "dataset") for command in work.commands)


@pytest.mark.parametrize(
    ("flags", "status", "line"),
    [
        (["--fold", "1"], 2, "--fold is of a single training: choose the folds that are held back with --folds"),
        (["--folds", "5"], 2, "--folds is 5: it must be one of 0, 1, those of "),
        (["--folds", "1", "1"], 2, "--folds is 1 1: it must be each given once"),
        (["--folds", "100"], 2, "--folds is 100: give 0 to 99"),
        (["--parallel", "0"], 2, "--parallel is 0: give 1 to 64"),
        (["--num-nodes", "2"], 1, "cross-validation starts its trainings itself, on one machine"),
        (["--lr", "0"], 2, "--lr is 0.0: it must be above 0"),
    ],
)
def test_mistakes(side_store, tmp_path, flags, status, line):
    found = fails(*TINY_FLAGS, "--data-path", side_store, "--save-path", tmp_path / "run", *flags)
    assert found[0] == status
    assert found[1].startswith(f"error: {line}")
    assert not (tmp_path / "run").exists()


def test_a_fold_that_fails_ends_it(here, side_store, tmp_path):
    places = ["--data-path", side_store, "--save-path", tmp_path / "run"]
    flags = [*TINY_FLAGS, *places, "--weights", tmp_path / "none.pth"]
    here.clear()
    done = in_process.run("cv", *flags)
    assert done.returncode == 1
    *_, own = done.stderr.splitlines()
    assert own == (
        "error: fold0 ended with status 1, as its own message above says, and no other was begun: continue with the "
        "same command and --resume"
    )
    assert len(here) == 1


def test_gpus_and_threads_are_shared_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4,5,6,7")
    assert slots_for(1, DetectionConfig()) == [{}]
    assert slots_for(2, DetectionConfig()) == [{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "4"}]
    of_two = [slot["CUDA_VISIBLE_DEVICES"] for slot in slots_for(2, DetectionConfig(devices=2))]
    assert of_two == ["3,4", "5,6"]
    with pytest.raises(FlagError, match="--parallel is 3: it must be at most 2: of 5 GPUs each has 2"):
        slots_for(3, DetectionConfig(devices=2))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots_for(2, DetectionConfig())] == ["0", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert slots_for(3, DetectionConfig(device="cpu")) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert slots_for(9, DetectionConfig(device="cpu"))[0] == {"OMP_NUM_THREADS": "1"}
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert slots_for(4, DetectionConfig(device="cpu"))[0] == {"OMP_NUM_THREADS": "2"}


def test_flags_are_told_apart(tmp_path):
    flags = ["--folds", "0", "2", "--lr", "0.5", "--swap", "A=B", "C=D", "--parallel=2"]
    task, config, folds, args, stages = read(flags)
    assert stages == ()
    assert (task, config.lr, config.swap) == ("detection", 0.5, ("A=B", "C=D"))
    assert folds == Folds(folds=(0, 2), parallel=2)
    assert args == ["--lr", "0.5", "--swap", "A=B", "C=D"]
    assert Config().folds == ()


def test_stages_of_an_earlier_version_go_on_with_its_values(tmp_path):
    path, run = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text("family: retinanet\nstages:\n- lr: 0.01\n- n_epochs: 3\n")
    flags = ["--config", str(path), "--save-path", str(run)]
    task, config, _, _, stages = read(flags)
    early = [dataclasses.replace(stage, head="v1", optimizer="sgd") for stage in stages]
    run.mkdir()
    config = dataclasses.replace(config, head="v1", optimizer="sgd")
    save_config(run / SAVED, task, config, stages=stage_values(task, early))
    _, again, _, _, stages = read([*flags, "--resume"])
    assert list(stages) == early
    check_same(run, task, again, stages)


def test_help_shows_both(capsys):
    with pytest.raises(SystemExit) as ended:
        read(["--task", "segmentation", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "--parallel" in out
    assert "--encoder" in out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_real_processes_stopped_and_resumed(masks, mask_store, tmp_path):
    """SIGTERM within a training: it saves; the same command goes on, side by side, to what was undisturbed."""
    run = tmp_path / "run"
    flags = [*MASKS, *LEARNS, "--data-path", mask_store, "--save-path", run]
    command = list(map(str, [sys.executable, ROOT / "tools" / "cv.py", *flags]))
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen(command, **options)
    while not (run / "fold0" / "metrics.csv").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=600)
    assert process.returncode == EXIT_TERMINATED, err
    assert err.splitlines()[-1] == "stopped by SIGTERM: continue with the same command and --resume"
    assert session_of(process.pid) == []
    command += ["--resume", "--parallel", "2"]
    process = subprocess.Popen(command, **options)
    while not (run / "fold1" / "metrics.csv").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert (process.returncode, err.splitlines()[-1]) == (130, "interrupted")
    assert session_of(process.pid) == []
    done = subprocess.run(command, **options, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (run / "predictions.json").read_bytes() == (masks[0] / "predictions.json").read_bytes()
    assert (run / "metrics.json").read_bytes() == (masks[0] / "metrics.json").read_bytes()
