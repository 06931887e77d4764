"""A step that is not finite is never taken, and says which it was; the others are as if it had not been tried."""

import csv
import json

import pytest
import torch
from conftest import CLASSIFICATION_FLAGS
from torch import nn

from xray.commands.train import main
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.training.guard import Guard, _begin_momentum, running_statistics
from xray.training.optimizers import build_optimizer
from xray.training.recipes import read_training_flags

SMALL = (
    *CLASSIFICATION_FLAGS, "--network", "test_resnet", "--batch-size", "2", "--n-epochs", "2", "--n-pictures", "0",
)  # fmt: skip


@pytest.fixture
def train(side_store, tmp_path):
    """(name, *flags) → run."""

    def run(name, *flags):
        folder = tmp_path / name
        main(
            *read_training_flags([*SMALL, "--data-path", str(side_store), "--save-path", str(folder), *map(str, flags)])
        )
        return folder

    return run


@pytest.fixture
def spoil(monkeypatch):
    """(step numbers from 0, how) → list of the rows of these steps: spoils the losses of a training's steps.

    how: "nan" and "inf" replace the loss, "gradients" lets them be infinite where the loss is finite.
    """
    from xray.training.tasks.classification import ClassificationTask

    step = ClassificationTask.training_step

    def use(steps, how="nan"):
        counter, rows = [], []

        def spoiled(task, batch, index):
            counter.append(index)
            loss = step(task, batch, index)
            if len(counter) - 1 not in steps:
                return loss
            rows.append(batch["rows"].tolist())
            if how == "gradients":
                # The root's slope at 0 is infinite.
                weight = next(task.model.parameters())
                return loss + (weight - weight.detach()).abs().sum().sqrt()
            return task.total({f"loss_{task.config.loss}": loss * float(how)})

        monkeypatch.setattr(ClassificationTask, "training_step", spoiled)
        return rows

    return use


def rows_of(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def checkpoint(run):
    return torch.load(run / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("how", ["nan", "inf", "gradients"])
@pytest.mark.parametrize("clip", [0, 1])
def test_the_first_bad_step_stops_and_is_named(train, spoil, side_store, capsys, how, clip):
    rows = spoil({5}, how)
    with pytest.raises(InputError) as caught:
        train("run", "--clip-grad", clip)
    (bad,) = rows
    ids = [open_store(side_store).records[row]["source_id"] for row in bad]
    message = str(caught.value)
    assert f"in epoch 2, step 2 of 4, on the radiographs {', '.join(ids)}: " in message
    if how == "gradients":
        assert message.startswith("the gradients are not finite, though the loss is (0.")
    else:
        assert message.startswith(f"loss_bce is {how} in epoch 2")
    assert "the step was not applied, and the last checkpoint is from before it" in message
    assert "--skip-bad-steps" in message
    assert str(side_store) not in message


def test_the_last_good_checkpoint_is_kept_and_goes_on(train, spoil, monkeypatch):
    whole = train("whole")
    spoil({5})
    with pytest.raises(InputError):
        train("run")
    monkeypatch.undo()
    run = train("run", "--resume")
    one, other = checkpoint(whole), checkpoint(run)
    assert one["state_dict"].keys() == other["state_dict"].keys()
    assert all(torch.equal(value, other["state_dict"][name]) for name, value in one["state_dict"].items())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("steps", [{0}, {5}, {1, 2, 6}])
def test_steps_that_are_left_out_change_nothing_but_the_clock(train, spoil, capsys, optimizer, steps):
    """The weights after a step that was left out are those before it, to the last bit, and so are the statistics."""
    from xray.training.tasks.classification import ClassificationTask

    seen = []

    def note(task, *_):
        seen.append({name: value.detach().clone() for name, value in task.model.state_dict().items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassificationTask, "on_train_batch_end", note, raising=False)
        before = spoil(steps)
        run = train(
            "run", "--skip-bad-steps", len(steps), "--optimizer", optimizer, "--lr", "0.01", "--warmup-steps", 0
        )
    assert len(before) == len(steps)
    assert len(seen) == 8
    for step in range(1, 8):
        changed = [
            name
            for name, value in seen[step].items()
            if value.is_floating_point() and not torch.equal(value, seen[step - 1][name])
        ]
        assert bool(changed) == (step not in steps)
        assert all(value.isfinite().all() for value in seen[step].values())
    err = capsys.readouterr().err
    assert err.count("step left out") == len(steps)
    assert f"step left out, 1 of at most {len(steps)}: loss_bce is nan in epoch" in err
    assert checkpoint(run)["global_step"] == 8
    # The mean is that of the steps that were taken.
    assert [float(row["train/skipped_steps"]) for row in rows_of(run)] == [
        sum(step < 4 for step in steps),
        len(steps),
    ]
    assert all(0 < float(row["train/loss_epoch"]) < 10 for row in rows_of(run))
    json.loads((run / "model.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def test_one_more_than_allowed_stops_and_resuming_goes_on_counting(train, spoil, monkeypatch, tmp_path):
    spoil({1, 5, 6})
    with pytest.raises(
        InputError, match=r"loss_bce is nan in epoch 2, step 3 of 4, .* 2 steps were left out before it"
    ):
        train("run", "--skip-bad-steps", 2)
    assert [float(row["train/skipped_steps"]) for row in rows_of(tmp_path / "run")] == [1]
    monkeypatch.undo()
    spoil({0, 1})
    with pytest.raises(InputError, match="in epoch 2, step 2 of 4"):
        train("run", "--resume")


def test_accumulated_batches_are_named_together(train, spoil, side_store):
    rows = spoil({2})
    with pytest.raises(InputError) as caught:
        train("run", "--accumulate", 2)
    (bad,) = rows
    ids = [open_store(side_store).records[row]["source_id"] for row in bad]
    # The third batch is the first of the second update, which the fourth completes.
    assert "in epoch 1, step 4 of 4" in str(caught.value)
    assert all(name in str(caught.value) for name in ids)


def test_weights_that_are_lost_are_not_saved(train, monkeypatch, tmp_path):
    """Finite gradients, times a learning rate, may leave what float32 can hold."""
    from xray.training.tasks.classification import ClassificationTask

    def spoil(task, *_):
        if task.current_epoch == 1 and task.trainer.global_step == 8:
            with torch.no_grad():
                next(task.model.parameters()).fill_(float("inf"))

    monkeypatch.setattr(ClassificationTask, "on_train_batch_end", spoil, raising=False)
    monkeypatch.setattr(ClassificationTask, "on_validation_epoch_end", lambda task: task.log("mean_auroc", 0.5))
    with pytest.raises(InputError, match=r"tensors \(.*\) are not finite after step 8: nothing was saved"):
        train("run", "--val-every", 2)
    assert checkpoint(tmp_path / "run")["epoch"] == 0


# The optimizers' own flag


class Config:
    lr, momentum, weight_decay = 0.1, 0.9, 0.01

    def __init__(self, optimizer):
        self.optimizer = optimizer


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_fused_optimizers_leave_everything_as_it_is(optimizer):
    """PyTorch's, with found_inf set: at the very first step, too, whose momentum is memory that nobody has written."""
    torch.manual_seed(0)
    gradients = [torch.randn(4, 3) for _ in range(4)]
    ends = []
    for tried in ([0, 1, 2, 3], [None, 0, None, 1, 2, None, 3]):
        model = nn.Linear(3, 4, bias=False)
        nn.init.ones_(model.weight)
        made = build_optimizer(model, Config(optimizer))
        _begin_momentum(made)
        for number in tried:
            bad = number is None
            model.weight.grad = torch.full((4, 3), float("nan")) if bad else gradients[number].clone()
            before = model.weight.detach().clone()
            made.found_inf = torch.tensor(float(bad))
            made.step()
            assert torch.equal(before, model.weight) == bad
        ends.append((model.weight.detach(), made.state_dict()["state"][0]))
    assert torch.equal(ends[0][0], ends[1][0])
    for name, value in ends[0][1].items():
        assert torch.equal(value, ends[1][1][name]), name


def test_momentum_from_zero_is_momentum_from_nothing():
    torch.manual_seed(0)
    gradients = [torch.randn(4, 3) for _ in range(3)]
    ends = []
    for begin in (lambda optimizer: None, _begin_momentum):
        model = nn.Linear(3, 4, bias=False)
        nn.init.ones_(model.weight)
        made = build_optimizer(model, Config("sgd"))
        begin(made)
        for gradient in gradients:
            model.weight.grad = gradient.clone()
            made.step()
        ends.append(model.weight.detach())
    assert torch.equal(*ends)


def test_scaled_losses_leave_overflowing_gradients_to_the_scaler():
    """With float16 the gradients overflow until the scale fits: only the loss itself counts."""
    guard = Guard(clip=1.0, every=10, scales=True)
    trainer = type("Trainer", (), {"world_size": 1, "current_epoch": 0, "num_training_batches": 5})()
    trainer.fit_loop = type("Loop", (), {"epoch_loop": type("Loop", (), {"batch_idx": 2})()})()
    model = nn.Linear(3, 4)
    optimizer = build_optimizer(model, Config("sgd"))
    for loss, expected in ((1.0, 0.0), (float("inf"), 1.0), (float("nan"), 1.0)):
        model.weight.grad = torch.full((4, 3), float("inf"))
        guard._terms = [(("loss",), torch.tensor([loss]))]
        guard.on_before_optimizer_step(trainer, None, optimizer)
        assert optimizer.found_inf.item() == expected
    assert [bool(step.is_bad) for step in guard._unread] == [False, True, True]
    assert guard._unread[1].number == 3


def test_running_statistics_are_those_of_batch_norms():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False))
    assert [tuple(value.shape) for value in running_statistics(model)] == [(2,), (2,)]
