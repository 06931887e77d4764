"""Detectors of another family, and on trunks of timm's, from training to findings in an ensemble."""

import json
import shutil

import numpy as np
import pytest
import torch

from xray.errors import FlagError, InputError
from xray.inference.loaded import load_run
from xray.inference.pipeline_loading import load_pipeline
from xray.models.detection.detector import RetinaNet
from xray.models.weights import load_deployed
from xray.training.recipes import read_training_flags

CPU = torch.device("cpu")
COMMON = ("--n-epochs", 1, "--score-threshold", 0)


@pytest.fixture(scope="module")
def retina_run(side_store, train_tiny, tmp_path_factory):
    return train_tiny(side_store, tmp_path_factory.mktemp("runs") / "retina", "--family", "retinanet", *COMMON)


@pytest.fixture(scope="module")
def convnext_run(side_store, train_tiny, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "convnext"
    return train_tiny(side_store, run, "--backbone", "convnext_atto", *COMMON)


def test_only_another_family_is_named_in_model_json(retina_run, side_run):
    described = [json.loads((run / "model.json").read_text())["architecture"] for run in (retina_run, side_run)]
    assert described[0]["family"] == "retinanet"
    assert "family" not in described[1]


def test_an_ensemble_of_families_and_trunks_finds_boxes(retina_run, convnext_run, side_run, side_store):
    runs = [retina_run, convnext_run, side_run]
    for run in runs:
        ((task, loaded),) = load_run(run, CPU)
        assert task == "detection"
        assert isinstance(loaded.model, RetinaNet) == (run == retina_run)
    pipeline = load_pipeline(runs, CPU)
    canvases = np.load(side_store / "images.npy")[:3]
    found = pipeline.find(canvases, [(90, 70)] * 3)
    assert len(found.table) > 0
    assert (found.table.boxes >= 0).all()
    assert (found.table.boxes[:, 2:] <= [90, 70]).all()
    assert set(found.table.labels.tolist()) <= {1, 2, 3}


@pytest.mark.parametrize("kind", ["retina_run", "convnext_run"])
def test_a_training_goes_on_and_keeps_its_kind(kind, request, side_store, train_tiny, tmp_path):
    run = shutil.copytree(request.getfixturevalue(kind), tmp_path / "run")
    _, before = load_deployed(run)
    places = ["--data-path", str(side_store), "--save-path", str(run)]
    with pytest.raises(FlagError, match="--backbone is resnet18: it must be"):
        read_training_flags([*places, "--resume", "--backbone", "resnet18"])
    if kind == "retina_run":
        with pytest.raises(FlagError, match="--family is faster_rcnn: it must be retinanet"):
            read_training_flags([*places, "--resume", "--family", "faster_rcnn"])
    train_again(side_store, run)
    _, after = load_deployed(run)
    assert after.keys() == before.keys()
    rows = (run / "metrics.csv").read_text().splitlines()
    assert len(rows) == 3


def train_again(data, run):
    from xray.commands.train import main

    main(*read_training_flags(["--data-path", str(data), "--save-path", str(run), "--resume", "--n-epochs", "2"]))


def test_an_unknown_trunk_leaves_nothing_behind(side_store, train_tiny, tmp_path):
    with pytest.raises(InputError, match=r"^--backbone convnext_ato is unknown: did you mean convnext_atto"):
        train_tiny(side_store, tmp_path / "run", "--backbone", "convnext_ato")
    assert not (tmp_path / "run").exists()
