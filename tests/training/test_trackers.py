"""Curves and pictures in a table, in MLflow and in Weights & Biases; what happens where these do not answer."""

import csv
import dataclasses
import importlib.util
import json
import types

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from xray.errors import FlagError, InputError
from xray.training import trackers
from xray.training.config import DetectionConfig
from xray.training.recipes import read_training_flags
from xray.training.step_table import StepTable

INSTALLED = [name for name in ("mlflow", "wandb") if importlib.util.find_spec(name) is not None]


def needs(name):
    return pytest.mark.skipif(name not in INSTALLED, reason=f'{name} is not here: pip install -e ".[{name}]"')


@pytest.fixture(scope="module")
def trackers_run(side_store, train_tiny, tmp_path_factory):
    """One epoch on all trackers that are installed, resumed for a second one → (run, MLflow's folder)."""
    folder = tmp_path_factory.mktemp("trackers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        # mlflow-skinny has no server and no database; its makers keep the folder for those who ask for it.
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        where = ["--logger", "tensorboard", "csv", *INSTALLED, "--tracking-uri", f"file:{folder / 'mlflow'}"]
        run = train_tiny(side_store, folder / "run", *where, "--experiment", "lungs")
        train_tiny(side_store, run, "--resume", "--n-epochs", 2)
        yield run, folder / "mlflow"


@pytest.fixture(scope="module")
def scalars(trackers_run):
    """{name: [(step, value), …]} of TensorBoard."""
    accumulator = EventAccumulator(str(trackers_run[0]), size_guidance={"scalars": 0})
    accumulator.Reload()
    names = accumulator.Tags()["scalars"]
    return {name: [(event.step, event.value) for event in accumulator.Scalars(name)] for name in names}


def test_the_table_holds_what_tensorboard_shows(trackers_run, scalars):
    run, _ = trackers_run
    with (run / "csv" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 1, 2, 3]
    found = {
        name: [(int(row["step"]), pytest.approx(float(row[name]), rel=1e-6)) for row in rows if row[name]]
        for name in rows[0]
        if name != "step"
    }
    assert found == scalars


@needs("mlflow")
def test_mlflow_holds_what_tensorboard_shows(trackers_run, scalars, side_store):
    from mlflow import MlflowClient

    run, store = trackers_run
    client = MlflowClient(f"file:{store}")
    (experiment,) = client.search_experiments(filter_string="name = 'lungs'")
    # Resumed, it is still one run.
    (found,) = client.search_runs([experiment.experiment_id])
    known = json.loads((run / "trackers.json").read_text())["mlflow"]
    assert known == {"run_id": found.info.run_id, "tracking_uri": f"file:{store}"}
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run"
    for name, points in scalars.items():
        history = client.get_metric_history(found.info.run_id, name)
        assert sorted((each.step, pytest.approx(each.value, rel=1e-6)) for each in history) == points, name
    pictures = client.list_artifacts(found.info.run_id, "images")
    assert sum(each.path.endswith(".png") for each in pictures) == 2
    assert {name: found.data.params[name] for name in ("task", "n_epochs", "lr", "backbone")} == {
        "task": "detection", "n_epochs": "1", "lr": "0.01", "backbone": "mobilenet_v2"
    }  # fmt: skip
    assert found.data.tags["resumed.n_epochs"] == "2"
    # Folders may have the names of people.
    assert found.data.params["data_path"] == side_store.name
    assert "tracking_uri" not in found.data.params
    assert not any(str(side_store.parent) in value for value in found.data.params.values())


@needs("wandb")
def test_wandb_offline_holds_curves_and_pictures(trackers_run, scalars):
    run, _ = trackers_run
    run_id = json.loads((run / "trackers.json").read_text())["wandb"]["run_id"]
    parts = sorted((run / "wandb").glob(f"offline-run-*-{run_id}"))
    # Each start is a part of the same run, for `wandb sync`.
    assert len(parts) == len(list((run / "wandb").glob("offline-run-*"))) == 2
    for part in parts:
        assert len(list((part / "files/media/images/validation").glob("*.png"))) == 1
        content = (part / f"run-{run_id}.wandb").read_bytes()
        for name in scalars:
            assert name.encode() in content
        assert b"mobilenet_v2" in content


def test_a_resumed_table_is_cut_where_the_training_goes_on(tmp_path):
    table = StepTable(tmp_path)
    table.log_metrics({"a": 1.0}, 0)
    table.log_metrics({"a": 2.0}, 5)
    table.log_metrics({"b": 3.0}, 5)
    table.save()
    again = StepTable(tmp_path, steps_done=5)
    again.log_metrics({"c": 4.0}, 5)
    again.finalize("success")
    assert (tmp_path / "csv/metrics.csv").read_text().split() == ["step,a,c", "0,1.0,", "5,,4.0"]
    (tmp_path / "csv/metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"metrics\.csv is damaged \(KeyError\)"):
        StepTable(tmp_path, steps_done=5)


def failing(fails):
    """An MLFlowLogger that logs into a list, or raises while `fails` is not empty."""
    logged = []
    inner = MLFlowLogger.__new__(MLFlowLogger)

    def log(metrics, step):
        if fails:
            raise ConnectionError("http://ann:secret@host refused\nthe connection")
        logged.append((metrics, step))

    inner.log_metrics, inner.finalize = log, lambda status: logged.append(status)
    return inner, logged


def test_a_tracker_that_fails_later_does_not_end_the_training(monkeypatch, capsys):
    fails = [True]
    inner, logged = failing(fails)
    tracker = trackers.Tracker(inner, "MLflow")
    clock = [0.0]
    monkeypatch.setattr(trackers.time, "monotonic", lambda: clock[0])
    tracker.log_metrics({"a": 1.0}, 0)
    assert capsys.readouterr().err == ("MLflow failed, the training goes on: http://host refused the connection\n")
    clock[0] = trackers.PAUSE - 1
    fails.clear()
    # Not asked: each question may take as long as the last one.
    tracker.log_metrics({"a": 2.0}, 1)
    clock[0] = trackers.PAUSE
    tracker.log_metrics({"a": 3.0, "ap40/肺 (left)": 0.5}, 2)
    fails.append(True)
    tracker.log_metrics({"a": 4.0}, 3)
    assert capsys.readouterr().err == ""
    tracker.finalize("success")
    assert logged == [({"a": 3.0, "ap40/u80ba _left_": 0.5}, 2), "success"]
    assert "MLflow: 3 entries could not be logged there" in capsys.readouterr().err


@needs("mlflow")
def test_a_server_that_does_not_answer_is_told_before_training(side_store, train_tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@127.0.0.1:9")
    with pytest.raises(InputError, match=r"--logger mlflow: http://127\.0\.0\.1:9 cannot be used: ") as raised:
        train_tiny(side_store, tmp_path / "run", "--logger", "mlflow")
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


@needs("mlflow")
def test_a_run_that_mlflow_has_no_more(trackers_run, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (tmp_path / "trackers.json").write_text(json.dumps({"mlflow": {"run_id": "0" * 32}}))
    config = DetectionConfig(resume=True, logger=("mlflow",), tracking_uri=f"file:{trackers_run[1]}")
    with pytest.raises(InputError, match=r"has no run 0{32}, which .*trackers\.json names"):
        trackers.build_loggers(config, "detection", tmp_path, is_first=True)
    for content in ("[1]", '{"mlflow": "x"}', "{"):
        (tmp_path / "trackers.json").write_text(content)
        with pytest.raises(InputError, match=r"trackers\.json is damaged"):
            trackers.build_loggers(config, "detection", tmp_path, is_first=True)


@needs("wandb")
def test_wandb_that_refuses_leaves_nothing(tmp_path, monkeypatch):
    import wandb

    def refuse(**_):
        raise wandb.errors.UsageError("No API key configured")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(InputError, match=r"No API key configured; log in with wandb login, or .*WANDB_MODE=offline"):
        trackers.build_loggers(DetectionConfig(logger=("wandb",)), "detection", tmp_path / "run", is_first=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_named(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(InputError, match=rf"--logger {name} needs {name}: pip install .*\[{name}\]"):
        trackers.check_trackers(DetectionConfig(logger=("tensorboard", name)))


def test_only_the_first_process_logs(tmp_path):
    config = DetectionConfig(logger=("tensorboard", "csv", "mlflow", "wandb", "csv"))
    loggers = trackers.build_loggers(config, "detection", tmp_path, is_first=False)
    assert [type(each) for each in loggers] == [TensorBoardLogger, DummyLogger, DummyLogger, DummyLogger]
    assert list(tmp_path.iterdir()) == []


def test_a_table_alone_has_no_pictures(tmp_path, capsys):
    (table,) = trackers.build_loggers(DetectionConfig(logger=("csv",)), "detection", tmp_path, is_first=True)
    assert "pictures of the validation are not drawn" in capsys.readouterr().out
    assert not trackers.holds_pictures(table)
    trackers.log_picture(table, "validation/0", np.zeros((2, 2, 3), np.uint8), 0)


def test_flags(tmp_path):
    for address in ("http://ann:secret@host:5000", "postgresql://ann:secret@host/db", "https://token@host/x"):
        with pytest.raises(FlagError, match="MLFLOW_TRACKING_URI") as raised:
            DetectionConfig(tracking_uri=address).check()
        assert "secret" not in str(raised.value)
        assert "token" not in str(raised.value)
    DetectionConfig(tracking_uri="https://host/a@b").check()
    with pytest.raises(FlagError, match="--logger"):
        DetectionConfig(logger=()).check()
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"logger": ["csv", "mlflow"]}))
    _, config = read_training_flags(["--config", str(tmp_path / "recipe.yaml")])
    assert config.logger == ("csv", "mlflow")
    _, config = read_training_flags(["--config", str(tmp_path / "recipe.yaml"), "--logger", "tensorboard"])
    assert config.logger == ("tensorboard",)


def test_hyperparameters_name_no_folder():
    config = dataclasses.replace(
        DetectionConfig(), data_path="/home/zoe/data/vinbig", weights="/home/zoe/w.pth", tracking_uri="http://host"
    )
    values = trackers.hyperparameters("detection", config)
    assert values["data_path"] == "vinbig"
    assert values["weights"] == "w.pth"
    assert values["lr"] == config.lr
    assert "zoe" not in str(values)
    assert "tracking_uri" not in values


@settings(max_examples=50)
@given(st.text(max_size=20))
def test_names_of_mlflow(one):
    name = trackers.mlflow_name(one)
    assert all(sign.isascii() and (sign.isalnum() or sign in "_/. -") for sign in name)
    assert trackers.mlflow_name(name) == name
    if one.isalnum() and one.isascii():
        assert name == one


def test_what_is_drawn_reaches_every_logger_that_holds_pictures():
    shown = []
    tensorboard = TensorBoardLogger.__new__(TensorBoardLogger)
    tensorboard._experiment = types.SimpleNamespace(
        add_image=lambda name, picture, step, dataformats: shown.append((name, picture.shape, step, dataformats))
    )
    trackers.log_picture(tensorboard, "validation/0", np.zeros((2, 3, 3), np.uint8), 7)
    assert shown == [("validation/0", (2, 3, 3), 7, "HWC")]
