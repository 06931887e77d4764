"""What a training writes beside its weights: TensorBoard events, metrics.csv, pictures."""

import csv
import re
import types

import numpy as np
import pytest
from lightning.pytorch.callbacks import RichProgressBar
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from xray.training.callbacks import ProgressBar, Throughput


@pytest.fixture(scope="module")
def events(vinbig_run):
    accumulator = EventAccumulator(str(vinbig_run), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def values(events, tag):
    return [event.value for event in events.Scalars(tag)]


def test_tensorboard_shows_losses_metrics_and_speed(events):
    tags = set(events.Tags()["scalars"])
    losses = {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}
    assert {f"train/{name}" for name in losses} | {"train/loss_step", "train/loss_epoch"} <= tags
    assert {"map40", "coco_ap", "coco_ap50", "coco_ap75", "map40_kaggle"} <= tags
    assert {"ap40/Cardiomegaly", "ap40/Nodule/Mass"} <= tags
    assert {"speed/images_per_second", "speed/data_wait_share", "speed/peak_memory_gib"} <= tags
    assert any(tag.startswith("lr-") for tag in tags)
    assert len(values(events, "map40")) == len(values(events, "train/loss_epoch")) == 3
    assert all(value > 0 for value in values(events, "speed/images_per_second"))
    assert all(0 <= value <= 1 for value in values(events, "speed/data_wait_share"))
    assert all(0.05 < value < 64 for value in values(events, "speed/peak_memory_gib"))


def test_the_learning_rate_warms_up(events):
    tag = next(tag for tag in events.Tags()["scalars"] if tag.startswith("lr-"))
    # Warm-up over two steps to 0.01: a third, two thirds, all.
    np.testing.assert_allclose(values(events, tag)[:4], [0.01 / 3, 0.02 / 3, 0.01, 0.01], rtol=1e-5)


def test_tensorboard_shows_validation_pictures(events):
    assert events.Tags()["images"] == ["validation/0"]
    pictures = events.Images("validation/0")
    assert len(pictures) == 3
    for picture in pictures:
        assert picture.encoded_image_string.startswith(b"\x89PNG")
        # Truth and prediction side by side.
        assert picture.width > 1.5 * picture.height > 700


def test_metrics_csv_has_a_row_an_epoch(vinbig_run):
    with (vinbig_run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    # Of each epoch's last step; the first one's is in the warm-up.
    assert [float(row["lr"]) for row in rows] == pytest.approx([0.02 / 3, 0.01, 0.01])
    for row in rows:
        assert 0 < float(row["train/loss_epoch"]) < 100
        assert 0 <= float(row["map40"]) <= 1
        assert 0 <= float(row["ap40/Cardiomegaly"]) <= 1
        assert float(row["seconds"]) > 0
        assert float(row["speed/images_per_second"]) > 0


def test_an_epoch_without_validation_repeats_no_old_metric(side_store, train_tiny, tmp_path):
    run = train_tiny(side_store, tmp_path / "run", "--n-epochs", 3, "--val-every", 2)
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["map40"]) for row in rows] == [False, True, False]
    assert all(row["train/loss_epoch"] for row in rows)


def test_speed_is_logged_whatever_the_interval(side_store, train_tiny, tmp_path, capsys):
    """Fewer steps than --log-step: the epoch's last step speaks for all."""
    flags = ("--log-step", 10, "--batch-size", 2, "--n-pictures", 0, "--schedule", "cosine")
    run = train_tiny(side_store, tmp_path / "run", *flags)
    # The cosine ends at 0 after the last step, which used more.
    (shown,) = re.findall(r"^epoch 1/1  .* lr (\S+) ", capsys.readouterr().out, re.MULTILINE)
    assert 0 < float(shown) < 0.01
    accumulator = EventAccumulator(str(run))
    accumulator.Reload()
    assert accumulator.Tags()["images"] == []
    assert "speed/images_per_second" in accumulator.Tags()["scalars"]
    assert "train/loss_epoch" in accumulator.Tags()["scalars"]


def test_throughput_worked_by_hand(monkeypatch):
    """A clock set by hand: 4 images a batch; batches are waited for 1 s and worked on 3 s."""
    clock = [0.0]
    monkeypatch.setattr("xray.training.callbacks.time.perf_counter", lambda: clock[0])
    logged = {}
    logger = types.SimpleNamespace(log_metrics=lambda metrics, step: logged.update(metrics))
    task = types.SimpleNamespace(log=lambda name, value, **_: logged.__setitem__(name, value))
    trainer = types.SimpleNamespace(
        num_training_batches=5, world_size=2, global_step=0, logger=logger, loggers=[logger]
    )
    callback = Throughput(every=5)
    callback.on_train_epoch_start(trainer, task)
    for index in range(5):
        # Starting the workers takes a minute, and counts for nothing.
        clock[0] += 60 if index == 0 else 1
        callback.on_train_batch_start(trainer, task, None, index)
        clock[0] += 3
        callback.on_train_batch_end(trainer, task, None, {"images": [0] * 4}, index)
        assert bool(logged) == (index == 4)
    # Four batches of 4 images on each of two devices in 16 s, of which 4 s were spent waiting.
    assert logged["speed/images_per_second"] == pytest.approx(2.0)
    assert logged["speed/data_wait_share"] == pytest.approx(0.25)


def test_the_progress_bar_reads_losses_every_few_steps(monkeypatch):
    """Each reading waits for the GPU."""
    read = []
    monkeypatch.setattr(
        RichProgressBar, "get_metrics", lambda bar, trainer, task: read.append(trainer.global_step) or {"loss": 1.0}
    )
    bar = ProgressBar(5)
    for step in range(3, 13):
        assert bar.get_metrics(types.SimpleNamespace(global_step=step), None) == {"loss": 1.0}
    assert read == [3, 5, 10]
