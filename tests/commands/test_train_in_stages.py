"""Trainings in stages: each starts from the one before, may be interrupted, and the last one is deployed."""

import shutil

import in_process
import pytest
import torch
from conftest import CANVAS, SEGMENTATION_FLAGS, TINY_FLAGS, write_bright_store

from xray.commands import cv
from xray.datasets.sources import convert
from xray.findings import CATEGORIES
from xray.models.weights import load_deployed
from xray.training import stage_runs
from xray.training.checkpoints import LastCheckpoint
from xray.training.recipes import read_yaml

RECIPE = """\
task: segmentation
encoder: resnet18
depth: 3
device: cpu
n-workers: 0
batch-size: 4
n-pictures: 1
log-step: 1
warmup-steps: 2
weights: none
n-epochs: 2
flip: 0
attention: scse
distortion: 0.5
average-best: 2
stages:
- data-path: {small}
  lr: 0.01
  positives: 0.8
- data-path: {large}
  lr: 0.003
  freeze-encoder: true
- data-path: {large}
  lr: 0.001
  ema: true
"""
TRAINED = {"model.safetensors", "model.json", "config.yaml", "metrics.csv", "trained_on.json", "validation"}


@pytest.fixture(scope="module", autouse=True)
def here():
    """Trains and infers in this process; `begun` lists what was: (work, command, its flags)."""
    begun = []
    patch = pytest.MonkeyPatch()
    for module in (stage_runs, cv):
        patch.setattr(module, "run_all", in_process.run_all(begun))
    yield begun
    patch.undo()


@pytest.fixture(scope="module")
def recipe(mask_source, mask_store, tmp_path_factory):
    """The flags that name a recipe of three stages, on canvases of 64 and then 96 pixels."""
    folder = tmp_path_factory.mktemp("recipe")
    convert("siim", mask_source, folder / "large", image_size=96, n_folds=2, n_workers=0)
    (folder / "recipe.yaml").write_text(RECIPE.format(small=mask_store, large=folder / "large"))
    return ("--config", folder / "recipe.yaml")


@pytest.fixture(scope="module")
def trained(here, recipe, tmp_path_factory):
    """A training in three stages, what it printed, and what was begun. Not to be changed."""
    run = tmp_path_factory.mktemp("stages") / "run"
    here.clear()
    done = in_process.run("train", *recipe, "--save-path", run)
    assert done.returncode == 0, done.stderr
    return run, done.stdout, list(here)


def test_every_stage_is_a_run_and_the_last_is_deployed(trained, recipe, tmp_path):
    run, said, begun = trained
    assert [command for _, command, _ in begun] == ["train"] * 3
    assert {path.name for path in run.iterdir()} == {"stages.yaml", "stage-1", "stage-2", "stage-3", *TRAINED}
    assert (run / "model.safetensors").read_bytes() == (run / "stage-3" / "model.safetensors").read_bytes()
    assert load_deployed(run)[0]["canvas_size"] == 96
    assert load_deployed(run)[0]["architecture"]["attention"] == "scse"
    assert read_yaml(run / "stages.yaml")["done"] == 3
    for number in (2, 3):
        assert f"stage {number} of 3, in {run / f'stage-{number}'}: from stage {number - 1}, with " in said
        assert f"the whole network starts from {run / f'stage-{number - 1}'} (a segmentation run)" in said
    assert "lr 0.003" in said
    assert "freeze-encoder True" in said
    assert f"all 3 stages are done, and {run} has the model of the last one" in said
    out = tmp_path / "out"
    flags = ("--data-path", read_yaml(run / "config.yaml")["data_path"], "--device", "cpu", "--n-workers", 0)
    assert in_process.run("infer", "--weights", run, *flags, "--split", "train", "--save-path", out).returncode == 0
    assert (out / "predictions.json").is_file()


def test_a_frozen_stage_leaves_the_encoder_as_it_was(trained):
    run, *_ = trained
    first, second, third = (load_deployed(run / f"stage-{number}")[1] for number in (1, 2, 3))
    of_encoder = [name for name in first if name.startswith("encoder.")]
    assert len(of_encoder) > 40
    # Weights, and the statistics of norms.
    assert all(torch.equal(second[name], first[name]) for name in of_encoder)
    assert not torch.equal(second["decoder.blocks.0.conv1.0.weight"], first["decoder.blocks.0.conv1.0.weight"])
    assert not torch.equal(third["encoder.conv1.weight"], second["encoder.conv1.weight"])


@pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_it_goes_on_where_it_was_stopped(trained, recipe, here, tmp_path, monkeypatch, stage):
    run = tmp_path / "run"
    asked = {"left": stage}

    def is_stopped(self, trainer, n_batches):
        # Stops after the first epoch of that stage.
        is_epoch = n_batches == 0 and trainer.current_epoch == 0
        asked["left"] -= is_epoch
        return is_epoch and asked["left"] == 0

    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "_is_stopped", is_stopped)
        done = in_process.run("train", *recipe, "--save-path", run)
    assert done.returncode == 143
    go_on = f"continue with python xray/train.py --save-path {run} --resume"
    assert f"stage {stage} of 3 was stopped by SIGTERM: {go_on}" in done.stderr
    assert not (run / "model.json").exists()
    refused = in_process.run("train", *recipe, "--save-path", run)
    assert refused.returncode == 1
    assert f"{run} exists already: continue it with --resume" in refused.stderr
    here.clear()
    done = in_process.run("train", "--save-path", run, "--resume", "--task", "segmentation")
    assert done.returncode == 0, done.stderr
    assert ("stage 1 of 3 is done" in done.stdout) == (stage > 1)
    assert [("--resume" in flags) for _, _, flags in here] == [True] + [False] * (3 - stage)
    # The same model as without the interruption.
    assert (run / "model.safetensors").read_bytes() == (trained[0] / "model.safetensors").read_bytes()


def test_a_finished_one_trains_nothing_again(trained, here, tmp_path):
    run = shutil.copytree(trained[0], tmp_path / "run")
    here.clear()
    done = in_process.run("train", "--save-path", run, "--resume")
    assert done.returncode == 0
    assert here == []
    assert "stage 3 of 3 is done" in done.stdout


@pytest.mark.parametrize(
    ("last", "line"),
    [
        ("data-path: nowhere", "stage 3: no data at nowhere"),
        ("fold: 4", "stage 3: fold is of all stages"),
        ("lr: -1", "stage 3: --lr is -1.0"),
        ("positives: 2", "stage 3: --positives is 2.0: give 0 to 1"),
        ("encoder: resnet34", "stage 3: --encoder is resnet34, and resnet18 in the first stage"),
    ],
)
def test_a_mistake_in_a_later_stage_is_found_before_the_first_trains(recipe, here, tmp_path, last, line):
    text = (recipe[1]).read_text()
    (tmp_path / "recipe.yaml").write_text(text[: text.rindex("- data-path")] + f"- {last}\n")
    here.clear()
    done = in_process.run("train", "--config", tmp_path / "recipe.yaml", "--save-path", tmp_path / "run")
    assert done.returncode == (1 if "nowhere" in last else 2)
    assert done.stderr.startswith(f"error: {line}")
    assert here == []
    assert not (tmp_path / "run").exists()


def test_cross_validation_finds_a_missing_dataset_before_it_writes(recipe, here, tmp_path):
    text = (recipe[1]).read_text()
    text = text.replace("- data-path", "- data-path: nowhere\n- data-path", 2).replace("- data-path: nowhere\n", "", 1)
    (tmp_path / "recipe.yaml").write_text(text)
    here.clear()
    done = in_process.run("cv", "--config", tmp_path / "recipe.yaml", "--save-path", tmp_path / "cv")
    assert done.returncode == 1
    assert done.stderr.startswith("error: stage 2: no data at nowhere")
    assert here == []
    assert not (tmp_path / "cv").exists()


def test_another_division_into_folds_is_refused(recipe, mask_source, mask_store, here, tmp_path):
    other = tmp_path / "other"
    convert("siim", mask_source, other, image_size=64, n_folds=2, n_workers=0, seed=5)
    (tmp_path / "recipe.yaml").write_text(f"stages:\n- data-path: {mask_store}\n- data-path: {other}\n")
    done = in_process.run(
        "train", "--config", tmp_path / "recipe.yaml", *SEGMENTATION_FLAGS, "--save-path", tmp_path / "run"
    )
    assert done.returncode == 1
    assert "radiographs of" in done.stderr
    assert "convert both datasets from the same source with the same --n-folds" in done.stderr


def test_a_detector_keeps_its_anchors_on_a_larger_canvas(vinbig_store, here, tmp_path):
    large = write_bright_store(tmp_path / "large", CATEGORIES, (1, 4, 9), size=2 * CANVAS)
    stages = f"stages:\n- data-path: {vinbig_store}\n- data-path: {large}\n  normals: 1\n"
    (tmp_path / "recipe.yaml").write_text(stages)
    run = tmp_path / "run"
    flags = ("--config", tmp_path / "recipe.yaml", *TINY_FLAGS, "--anchor-scale", "auto", "--save-path", run)
    done = in_process.run("train", *flags)
    assert done.returncode == 0, done.stderr
    first, second = (read_yaml(run / f"stage-{number}" / "config.yaml") for number in (1, 2))
    assert second["anchor_sides"] == pytest.approx([2 * side for side in first["anchor_sides"]])
    assert second["anchor_ratios"] == first["anchor_ratios"]
    assert "detector starts from stage-1" in done.stdout
    assert load_deployed(run)[0]["task"] == "detection"


def test_cross_validation_in_stages(recipe, here, tmp_path):
    run, text = tmp_path / "cv", recipe[1].read_text()
    # Two stages are enough.
    (tmp_path / "recipe.yaml").write_text(text[: text.rindex("- data-path")])
    recipe = ("--config", tmp_path / "recipe.yaml")
    here.clear()
    done = in_process.run("cv", *recipe, "--n-epochs", 1, "--average-best", 0, "--save-path", run)
    assert done.returncode == 0, done.stderr
    assert [command for _, command, _ in here] == (["train"] * 3 + ["infer"]) * 2
    assert (run / "fold1" / "stage-2" / "model.json").is_file()
    assert read_yaml(run / "fold1" / "config.yaml")["fold"] == 1
    assert (run / "metrics.json").is_file()
    # Once more: nothing trains.
    here.clear()
    flags = ("--n-epochs", 1, "--average-best", 0, "--save-path", run, "--resume")
    assert in_process.run("cv", *recipe, *flags).returncode == 0
    assert here == []
    done = in_process.run("cv", *recipe, *flags, "--lr", 3)
    assert done.returncode == 2
    assert "stage 1: --lr is 3.0" in done.stderr
    # Without the recipe, it is the one that was begun; another dataset in a stage is another training.
    assert in_process.run("cv", "--save-path", run, "--resume").returncode == 0
    assert here == []
    done = in_process.run("cv", *recipe, *flags, "--data-path", read_yaml(run / "cv.yaml")["data_path"])
    assert done.returncode == 2
    assert "stage 2: --data-path is" in done.stderr
    # Interrupted within the stages of a fold, it goes on there.
    (run / "fold1" / "out_of_fold" / "predictions.json").unlink()
    (run / "fold1" / "out_of_fold").rename(run / "gone")
    shutil.rmtree(run / "fold1" / "stage-2")
    values = (run / "fold1" / "stages.yaml").read_text()
    (run / "fold1" / "stages.yaml").write_text(values.replace("done: 2", "done: 1"))
    (run / "fold1" / "config.yaml").unlink()
    here.clear()
    assert in_process.run("cv", *recipe, *flags).returncode == 0
    assert [command for _, command, _ in here] == ["train", "train", "infer"]
