"""--fold all: every radiograph of the training split trains, none validates, and the last weights are deployed."""

import json
import shutil

import pytest
import torch
from conftest import CLASSIFICATION_FLAGS, TINY_FLAGS
from safetensors.torch import load_file

from xray.commands.train import main
from xray.datasets.store import open_store
from xray.errors import FlagError
from xray.inference.loaded import load_run
from xray.models.tensors import load_tensors
from xray.training.loading import training_rows
from xray.training.recipes import read_training_flags


@pytest.fixture(scope="module")
def run(side_store, train_tiny, tmp_path_factory):
    """Two epochs on all folds, with an average of the weights. Not to be changed."""
    return train_tiny(side_store, tmp_path_factory.mktemp("all") / "run", "--fold", "all", "--ema", "--n-epochs", 2)


def test_it_deploys_the_last_weights_and_validates_nothing(run):
    left = {path.name for path in run.iterdir() if not path.name.startswith("events")}
    deployed = {"model.safetensors", "model.json"}
    assert left == {"config.yaml", "trained_on.json", "metrics.csv", "last.ckpt", "hparams.yaml", *deployed}
    checkpoint, deployed = load_tensors(run / "last.ckpt"), load_file(run / "model.safetensors")
    # The moving average.
    assert all(torch.equal(value, checkpoint["state_dict"][f"model.{name}"]) for name, value in deployed.items())
    description = json.loads((run / "model.json").read_text())
    assert (description["epoch"], description["metrics"]) == (1, {})
    assert "map40" not in (run / "metrics.csv").read_text()
    load_run(run, torch.device("cpu"))


def test_all_training_radiographs_train_and_no_test_radiograph_does(side_store):
    store = open_store(side_store)
    training, validating = training_rows(store, "all")
    assert training.tolist() == store.rows(split="train").tolist()
    assert len(training) == 14
    assert len(validating) == 0


def test_it_says_so(side_store, tmp_path, capsys):
    flags = [*TINY_FLAGS, "--data-path", str(side_store), "--save-path", str(tmp_path / "run"), "--fold=all"]
    assert main(*read_training_flags(flags)) == 0
    out = capsys.readouterr().out
    assert "all 14 radiographs train, none validates: the last weights are deployed\n" in out
    assert "the weights of epoch 1 are deployed. The run is in" in out


def test_it_is_resumed_as_it_was_started(run, side_store, train_tiny, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    train_tiny(side_store, copy, "--resume", "--ema", "--n-epochs", 2)
    assert (copy / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    with pytest.raises(FlagError, match="--fold is 0: it must be all, the run was started with it"):
        read_training_flags(["--save-path", str(run), "--resume", "--fold", "0"])


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_other_tasks(task, mask_store, train_masks, tmp_path):
    if task == "segmentation":
        run = train_masks(mask_store, tmp_path / "run", "--fold", "all")
    else:
        run = tmp_path / "run"
        places = ["--data-path", str(mask_store), "--save-path", str(run)]
        main(*read_training_flags([*CLASSIFICATION_FLAGS, *places, "--fold", "all"]))
    assert json.loads((run / "model.json").read_text())["task"] == task
    assert not (run / "validation").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--early-stop", "3"], "--early-stop is 3: it must be 0 with --fold all"),
        (["--average-best", "3"], "--average-best is 3: it must be 0 with --fold all"),
        (["--schedule", "plateau"], "--schedule is plateau: it must be step, cosine or onecycle with --fold all"),
        (["--fold", "100"], "--fold is 100: give 0 to 99"),
    ],
)
def test_what_needs_a_validation_is_refused(flags, message):
    with pytest.raises(FlagError, match=message):
        read_training_flags(["--fold", "all", *flags])


def test_another_word_is_no_fold():
    with pytest.raises(FlagError, match="or auto, val or all; it was given 'every'"):
        read_training_flags(["--fold", "every"])
