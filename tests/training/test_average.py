"""--average-best: which checkpoints are kept, what their average is, when it is deployed, and how it is resumed."""

import contextlib
import csv
import io
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import SEGMENTATION_FLAGS
from safetensors.torch import load_file

from xray.commands.train import main
from xray.models.tensors import load_tensors
from xray.training import average
from xray.training.recipes import read_training_flags

FLAGS = (*SEGMENTATION_FLAGS, "--lr", "0.003", "--schedule", "step", "--average-best", "2", "--n-pictures", "0")


def train(data, run, *flags):
    """Trains in this process → what it printed."""
    first = ["--task", "segmentation"] if "--resume" in flags else FLAGS
    places = ["--data-path", str(data), "--save-path", str(run)]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(*read_training_flags([*first, *places, *map(str, flags)])) == 0
    return said.getvalue()


def dice_of(run):
    """Epoch, from 1 → validation Dice, as the table of epochs has it."""
    with (run / "metrics.csv").open(newline="") as file:
        return {int(row["epoch"]) + 1: float(row["dice"]) for row in csv.DictReader(file) if row["dice"]}


@pytest.fixture(scope="module")
def averaged(mask_store, tmp_path_factory):
    """A run of five epochs of which the two best are averaged, and what it printed. Not to be changed."""
    run = tmp_path_factory.mktemp("average") / "run"
    return run, train(mask_store, run, "--n-epochs", 5)


@pytest.fixture
def again(averaged, mask_store, tmp_path):
    """() → (a copy of the run, what the finished training printed when it was resumed)."""

    def resume(*flags):
        run = tmp_path / "run"
        if not run.exists():
            shutil.copytree(averaged[0], run)
        return run, train(mask_store, run, "--resume", *flags)

    return resume


def test_the_best_are_kept_and_no_others(averaged):
    run, said = averaged
    dice = dice_of(run)
    best = sorted(sorted(dice, key=lambda epoch: (-dice[epoch], epoch))[:2])
    assert {path.name for path in (run / "average").iterdir()} == {f"epoch-{epoch}.ckpt" for epoch in best}
    for epoch in best:
        checkpoint = load_tensors(run / "average" / f"epoch-{epoch}.ckpt")
        assert set(checkpoint) == {"state_dict", "epoch"}
        assert checkpoint["epoch"] == epoch - 1
    assert f"average of epochs {best[0]}, {best[1]}: dice " in said


def test_an_average_as_good_as_the_best_is_deployed(averaged, again, monkeypatch):
    """Of the best checkpoint with itself: the same weights and the same score, to the last bit."""
    dice = dice_of(averaged[0])
    best = f"epoch-{min(epoch for epoch in dice if dice[epoch] == max(dice.values()))}.ckpt"
    monkeypatch.setattr(average, "reestimate_norms", lambda trainer, task: 0)
    mean = average.mean_of
    monkeypatch.setattr(average, "mean_of", lambda paths: mean([paths[0].with_name(best)] * 2))
    run, said = again()
    assert "the average is deployed" in said
    assert len(json.loads((run / "model.json").read_text())["averaged_epochs"]) == 2
    state = load_tensors(run / "best.ckpt")["state_dict"]
    deployed = load_file(run / "model.safetensors")
    assert all(torch.equal(deployed[name], state[f"model.{name}"]) for name in deployed)
    # Another resumption finds a worse one: the best checkpoint takes its place again.
    monkeypatch.setattr(average, "mean_of", lambda paths: {n: torch.ones_like(v) for n, v in mean(paths).items()})
    before = (run / "validation" / "predictions.json").read_bytes()
    run, said = again()
    assert "the best one stays deployed" in said
    description = json.loads((run / "model.json").read_text())
    assert "averaged_epochs" not in description
    # The table of epochs has it as Lightning keeps it, in 32 bits.
    assert description["metrics"]["dice"] == pytest.approx(max(dice_of(run).values()), rel=1e-6)
    assert (run / "validation" / "predictions.json").read_bytes() == before


def test_the_mean_of_weights_and_of_numbers_that_are_none(tmp_path):
    for number, (value, count) in enumerate([(1.0, 3), (2.0, 5), (6.0, 9)]):
        state = {"weight": torch.full((2,), value), "half": torch.tensor(value).half(), "batches": torch.tensor(count)}
        torch.save({"state_dict": state}, tmp_path / f"{number}.ckpt")
    mean = average.mean_of(sorted(tmp_path.iterdir()))
    assert mean["weight"].tolist() == [3.0, 3.0]
    assert (float(mean["half"]), mean["half"].dtype) == (3.0, torch.float16)
    assert int(mean["batches"]) == 3


@pytest.mark.parametrize("frozen", [False, True])
def test_norms_get_the_statistics_of_training_canvases(again, monkeypatch, frozen):
    """Held against the mean over the batches of what each norm was given."""
    seen, found = {}, []
    reestimate = average.reestimate_norms

    def watched(trainer, task):
        encoder = set(task.model.encoder.modules())
        norms = [one for one in task.model.modules() if isinstance(one, torch.nn.BatchNorm2d)]
        if frozen:
            from xray.models.segmentation.segmenter import freeze_encoder

            freeze_encoder(task.model)
        before = {norm: norm.running_mean.clone() for norm in norms}

        def see(norm, given):
            seen.setdefault(norm, []).append(given[0].mean((0, 2, 3)))

        hooks = [norm.register_forward_pre_hook(see) for norm in norms]
        momenta = [norm.momentum for norm in norms]
        n = reestimate(trainer, task)
        for hook in hooks:
            hook.remove()
        assert [norm.momentum for norm in norms] == momenta
        assert not task.model.training
        for norm in norms:
            if frozen and norm in encoder:
                assert torch.equal(norm.running_mean, before[norm])
            else:
                found.append(norm)
                torch.testing.assert_close(norm.running_mean, torch.stack(seen[norm]).mean(0), rtol=1e-4, atol=1e-5)
        assert n == len(found) < len(norms) + (not frozen)
        # Eight training radiographs in batches of four.
        assert {len(batches) for batches in seen.values()} == {2}
        return n

    monkeypatch.setattr(average, "reestimate_norms", watched)
    again()
    assert found


def test_resuming_gives_what_an_undisturbed_training_does(averaged, mask_store, tmp_path):
    whole, run = averaged[0], tmp_path / "run"
    train(mask_store, run, "--n-epochs", 2)
    # An average may have been deployed by now.
    torch.manual_seed(12345)
    train(mask_store, run, "--resume", "--n-epochs", 5)
    for name in ("model.safetensors", "validation/predictions.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    for path in (whole / "average").iterdir():
        ours, theirs = load_tensors(run / "average" / path.name), load_tensors(path)
        assert all(torch.equal(ours["state_dict"][name], value) for name, value in theirs["state_dict"].items())
    ours, theirs = (json.loads((folder / "model.json").read_text()) for folder in (run, whole))
    np.testing.assert_equal(ours, theirs)


def test_resuming_a_finished_training_changes_nothing(averaged, again):
    run, _ = again()
    for name in ("model.safetensors", "model.json", "validation/predictions.json", "best.ckpt"):
        assert (run / name).read_bytes() == (averaged[0] / name).read_bytes()


def test_a_detector(side_store, train_tiny, tmp_path, capsys):
    """Its norms stand in a backbone that also gives losses while they are estimated."""
    train_tiny(side_store, tmp_path / "run", "--n-epochs", 3, "--average-best", 3, "--ema")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("average of epochs 1, 2, 3: "))
    is_deployed = "averaged_epochs" in json.loads((tmp_path / "run" / "model.json").read_text())
    assert line.split(": ")[-1].startswith("the average is deployed" if is_deployed else "the best one stays deployed")


def test_a_single_checkpoint_is_no_average(mask_store, tmp_path):
    said = train(mask_store, tmp_path / "run", "--val-every", 1, "--n-epochs", 1)
    assert "fewer than two checkpoints were validated: there is nothing to average" in said
