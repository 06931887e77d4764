"""Resuming continues as if nothing had happened, and what is deployed is the best epoch."""

import csv
import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from equality import assert_same

from xray.datasets.store import open_store
from xray.evaluation.box_metrics import detection_metrics
from xray.inference.unfinished import unfinished
from xray.structures.predictions import read_predictions

# What depends on the clock and the machine.
MEASURED = ("seconds", "speed/")


def checkpoint(run, name="last.ckpt"):
    return torch.load(run / name, map_location="cpu", weights_only=True)


def rows_of(run):
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if not name.startswith(MEASURED)} for row in rows]


@pytest.mark.parametrize(
    ("epochs", "flags"),
    [
        (1, ["--ema", "--n-workers", "2"]),
        (1, ["--augment-on", "device", "--augment", "strong", "--n-workers", "2"]),
        pytest.param(
            1,
            ["--accumulate", "2", "--clip-grad", "1", "--head", "v2", "--backbone", "resnet18"],
            marks=pytest.mark.slow,
        ),
        (2, ["--step-size", "1", "--gamma", "0.5", "--warmup-steps", "100", "--val-every", "2"]),
        pytest.param(
            3,
            ["--schedule", "plateau", "--step-size", "1", "--gamma", "0.5", "--optimizer", "adamw", "--lr", "0.0005"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_resuming_gives_bit_for_bit_what_an_undisturbed_training_does(side_store, train_tiny, tmp_path, epochs, flags):
    flags = ["--repeat-threshold", "0.6", "--normals", "0.6", *flags]
    whole = train_tiny(side_store, tmp_path / "whole", *flags, "--n-epochs", 2 * epochs, "--n-workers", 0)
    parts = train_tiny(side_store, tmp_path / "parts", *flags, "--n-epochs", epochs)
    first_rows = rows_of(parts)
    first = checkpoint(parts)
    # Another process would have another random state.
    torch.manual_seed(12345)
    np.random.seed(999)  # noqa: NPY002
    train_tiny(side_store, parts, "--resume", *flags, "--n-epochs", 2 * epochs)
    expected, found = checkpoint(whole), checkpoint(parts)
    for name in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"):
        assert (name in expected) == (name in found)
        assert_same(expected.get(name), found.get(name), name)
    assert expected["global_step"] == found["global_step"] == 2 * first["global_step"]
    assert expected["epoch"] == found["epoch"] == 2 * epochs - 1
    # The second half did train.
    state = found.get("current_model_state", found["state_dict"])
    before = first.get("current_model_state", first["state_dict"])
    assert any(not torch.equal(state[name], before[name]) for name in state)
    assert rows_of(parts)[:epochs] == first_rows
    assert rows_of(parts) == rows_of(whole)
    assert [int(row["epoch"]) for row in rows_of(parts)] == list(range(2 * epochs))
    for name in ("model.safetensors", "validation/predictions.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    assert_same(json.loads((whole / "model.json").read_text()), json.loads((parts / "model.json").read_text()))


def test_resuming_a_finished_training_changes_nothing(vinbig_store, vinbig_run, train_tiny, tmp_path):
    run = shutil.copytree(vinbig_run, tmp_path / "run")
    train_tiny(vinbig_store, run, "--resume", "--n-epochs", 3, "--ema")
    assert_same(checkpoint(run)["state_dict"], checkpoint(vinbig_run)["state_dict"])
    assert rows_of(run) == rows_of(vinbig_run)
    for name in ("model.safetensors", "model.json", "best.ckpt"):
        assert (run / name).read_bytes() == (vinbig_run / name).read_bytes()


@pytest.mark.parametrize("val_every", [1, 2])
def test_an_epoch_that_was_cut_short_is_repeated(side_store, train_tiny, tmp_path, monkeypatch, val_every):
    """With a validation every second epoch, nothing has been validated when the training goes on."""
    from xray.training.tasks.detection import DetectionTask

    flags = ("--n-epochs", 2, "--val-every", val_every)
    whole = train_tiny(side_store, tmp_path / "whole", *flags)
    step = DetectionTask.training_step

    def failing(task, batch, index):
        if task.current_epoch == 1 and index == 1:
            raise RuntimeError("the machine went away")
        return step(task, batch, index)

    monkeypatch.setattr(DetectionTask, "training_step", failing)
    with pytest.raises(RuntimeError, match="went away"):
        train_tiny(side_store, tmp_path / "cut", *flags)
    assert checkpoint(tmp_path / "cut")["epoch"] == 0
    assert len(rows_of(tmp_path / "cut")) == 1
    monkeypatch.undo()
    train_tiny(side_store, tmp_path / "cut", "--resume", "--n-epochs", 2)
    for name in ("state_dict", "optimizer_states"):
        assert_same(checkpoint(whole)[name], checkpoint(tmp_path / "cut")[name])
    assert rows_of(tmp_path / "cut") == rows_of(whole)


@pytest.fixture
def scored_by_epoch(monkeypatch):
    """Makes the validation score of each epoch what the test says."""

    def use(scores):
        import xray.training.tasks.detection as module

        def metrics(truth, found, n_images, categories, **options):
            value = scores.pop(0)
            return {**detection_metrics(truth, found, n_images, categories, **options), "map40": value}

        monkeypatch.setattr(module, "detection_metrics", metrics)

    return use


def test_what_is_deployed_is_the_best_epoch_with_its_predictions(side_store, train_tiny, tmp_path, scored_by_epoch):
    scored_by_epoch([0.2, 0.7, 0.5])
    run = train_tiny(side_store, tmp_path / "run", "--n-epochs", 3)
    description = json.loads((run / "model.json").read_text())
    assert description["epoch"] == 1
    assert description["metrics"]["map40"] == 0.7
    assert checkpoint(run, "best.ckpt")["epoch"] == 1
    assert checkpoint(run)["epoch"] == 2
    best, last = checkpoint(run, "best.ckpt")["state_dict"], checkpoint(run)["state_dict"]
    deployed = safetensors.torch.load_file(run / "model.safetensors")
    assert_same(deployed, {name.removeprefix("model."): value for name, value in best.items()})
    assert any(not torch.equal(best[name], last[name]) for name in best)


def test_a_resumed_run_deploys_only_what_is_better_also_when_it_was_moved(
    side_store, train_tiny, tmp_path, scored_by_epoch
):
    scored_by_epoch([0.6, 0.4, 0.9])
    run = train_tiny(side_store, tmp_path / "run")
    run = run.rename(tmp_path / "moved")
    for n_epochs, best in ((2, 0), (3, 2)):
        train_tiny(side_store, run, "--resume", "--n-epochs", n_epochs)
        assert json.loads((run / "model.json").read_text())["epoch"] == best
        assert checkpoint(run, "best.ckpt")["epoch"] == best


def test_training_stops_early(side_store, train_tiny, tmp_path, scored_by_epoch, capsys):
    scored_by_epoch([0.25, 0.5, 0.25, 0.75])
    run = train_tiny(side_store, tmp_path / "run", "--n-epochs", 4, "--early-stop", 1)
    assert [row["map40"] for row in rows_of(run)] == ["0.25", "0.5", "0.25"]
    # It is not taken for one that was killed, nor trained on, by resuming, without more patience.
    assert unfinished(run) == ""
    stopped = "stopped after 3 epochs by --early-stop 1: the last validation brought no better map40"
    assert stopped in capsys.readouterr().out
    train_tiny(side_store, run, "--resume", "--n-epochs", 4)
    assert len(rows_of(run)) == 3
    assert stopped in capsys.readouterr().out
    train_tiny(side_store, run, "--resume", "--n-epochs", 4, "--early-stop", 2)
    assert [row["map40"] for row in rows_of(run)] == ["0.25", "0.5", "0.25", "0.75"]
    assert checkpoint(run, "best.ckpt")["epoch"] == 3
    assert "stopped after" not in capsys.readouterr().out


def test_the_table_has_the_rate_of_each_epochs_last_step(side_store, train_tiny, tmp_path, monkeypatch):
    from xray.training.tasks.detection import DetectionTask

    rates = []

    def follow(task, optimizer):
        rates.append(optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(DetectionTask, "on_before_optimizer_step", follow, raising=False)
    run = train_tiny(side_store, tmp_path / "run", "--n-epochs", 2, "--schedule", "cosine", "--warmup-steps", 1)
    steps = [int(row["step"]) for row in rows_of(run)]
    assert [float(row["lr"]) for row in rows_of(run)] == [rates[step - 1] for step in steps]
    assert float(rows_of(run)[-1]["lr"]) > 0


def test_an_average_of_the_weights_is_what_is_deployed(vinbig_run):
    best = checkpoint(vinbig_run, "best.ckpt")
    deployed = safetensors.torch.load_file(vinbig_run / "model.safetensors")
    average, current = best["state_dict"], best["current_model_state"]
    assert_same(deployed, {name.removeprefix("model."): value for name, value in average.items()})
    assert any(not torch.equal(average[name], current[name]) for name in average)


def test_the_average_is_that_of_its_decay(side_store, train_tiny, tmp_path, monkeypatch):
    """One weight followed by hand: the first step's value, then decay × average + (1 − decay) × new."""
    from xray.training.tasks.detection import DetectionTask

    seen = []

    def follow(task, *_):
        seen.append(task.model.rpn.head.cls_logits.bias.detach().clone())

    monkeypatch.setattr(DetectionTask, "on_train_batch_end", follow, raising=False)
    run = train_tiny(side_store, tmp_path / "run", "--ema", "--ema-decay", "0.9", "--batch-size", 2)
    average = seen[0]
    for value in seen[1:]:
        average = 0.9 * average + 0.1 * value
    assert len(seen) == 4
    torch.testing.assert_close(checkpoint(run)["state_dict"]["model.rpn.head.cls_logits.bias"], average)


def test_validation_predictions_are_those_of_the_deployed_weights(side_run, side_store):
    from pathlib import Path

    from xray.inference.pipeline_loading import load_pipeline

    store = open_store(side_store)
    pipeline = load_pipeline([Path(side_run)], torch.device("cpu"), flips=False)
    rows = store.rows(fold=0)
    found = pipeline.find(
        store.images[rows], [(store.records[row]["width"], store.records[row]["height"]) for row in rows]
    ).table
    saved = read_predictions(side_run / "validation" / "predictions.json")
    ids = [store.records[row]["source_id"] for row in rows]
    assert set(saved.image_ids) <= set(ids)
    for number, name in enumerate(ids):
        mine = saved.table.select(saved.table.images == saved.image_ids.index(name))
        mine = mine.select(np.argsort(-mine.scores, kind="stable"))
        again = found.select(found.images == number)
        np.testing.assert_allclose(mine.scores, again.scores, atol=2e-6)
        np.testing.assert_allclose(np.sort(mine.boxes, axis=0), np.sort(again.boxes, axis=0), atol=0.02)
