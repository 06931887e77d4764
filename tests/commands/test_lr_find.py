"""The learning-rate sweep: its suggestion on curves worked by hand, and a sweep of a tiny detector."""

import cv2
import numpy as np
import pytest
import torch

from xray.commands.lr_find import Sweep, main, steepest, sweep
from xray.errors import FlagError, InputError
from xray.training.recipes import read_training_flags


def test_the_suggestion_is_where_the_loss_falls_fastest():
    rates = np.logspace(-6, 0, 61)
    # A logistic fall around 1e-3 and an explosion above 0.1: steepest exactly at 1e-3.
    losses = 1 - 1 / (1 + np.exp(-3 * np.log(rates / 1e-3))) + np.where(rates > 0.1, rates * 50, 0)
    assert steepest(rates.tolist(), losses.tolist()) == pytest.approx(1e-3, rel=0.3)


def test_a_sweep_leaves_weights_and_folder_alone(side_store, tmp_path, monkeypatch):
    from xray.commands.training_inputs import build_task
    from xray.datasets.store import open_store

    flags = ["--backbone", "mobilenet_v2", "--weights", "none", "--fpn-channels", "16", "--roi-samples", "8"]
    flags += ["--device", "cpu", "--n-workers", "0", "--batch-size", "2", "--data-path", str(side_store)]
    name, config = read_training_flags([*flags, "--save-path", str(tmp_path / "run")])
    task = build_task(name, config, open_store(side_store))
    before = {key: value.clone() for key, value in task.model.state_dict().items()}
    rates, losses = sweep(task, "cpu", "32-true", Sweep(1e-6, 1e-1, 24))
    assert len(rates) == len(losses) >= 10
    assert rates == sorted(rates)
    assert all(torch.equal(value, before[key]) for key, value in task.model.state_dict().items())

    monkeypatch.setattr("xray.commands.lr_find.sweep", lambda *_: (rates, losses))
    main(name, config, Sweep(1e-6, 1e-1, 24))
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["lr_find.png"]
    assert cv2.imread(str(tmp_path / "run" / "lr_find.png")).std() > 5


def test_it_names_the_optimizer_that_a_rate_would_change(side_store, tmp_path, monkeypatch, capsys):
    """RetinaNet trains by AdamW where no rate is given, and a rate that is given is one for SGD."""
    monkeypatch.setattr("xray.commands.lr_find.sweep", lambda *_: ([1e-4, 1e-3, 1e-2], [1.0, 0.5, 0.4]))
    flags = ["--backbone", "mobilenet_v2", "--weights", "none", "--fpn-channels", "32", "--device", "cpu"]
    flags += ["--data-path", str(side_store), "--save-path", str(tmp_path / "run"), "--family"]
    for family, words in (("retinanet", "train with --optimizer adamw --lr "), ("faster_rcnn", "train with --lr ")):
        main(*read_training_flags([*flags, family]), Sweep(1e-6, 1e-1, 24))
        assert words in capsys.readouterr().out


def test_wrong_sweeps_are_refused(tmp_path):
    name, config = read_training_flags(["--data-path", str(tmp_path / "none"), "--device", "cpu"])
    with pytest.raises(FlagError, match="--min-lr"):
        main(name, config, Sweep(1.0, 0.1, 100))
    with pytest.raises(FlagError, match="--n-steps"):
        main(name, config, Sweep(1e-6, 0.1, 3))
    with pytest.raises(InputError, match="no data at"):
        main(name, config, Sweep(1e-6, 0.1, 100))
