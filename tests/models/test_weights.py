"""model.safetensors and model.json: written completely, read back, and what is not theirs refused."""

import json
import pickle

import pytest
import safetensors.torch
import torch

from xray.errors import InputError
from xray.models.detection.detector import build_detector
from xray.models.weights import load_deployed, read_weights, save_deployed, tensor_names

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.steps": torch.tensor(7)}
DESCRIPTION = {"task": "detection", "categories": {"1": "ILD"}, "canvas_size": 64}


def test_what_is_saved_is_loaded(tmp_path):
    state = {**STATE, "b": torch.arange(12.0).reshape(3, 4).T.requires_grad_()}
    save_deployed(tmp_path, state, DESCRIPTION)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    description, found = load_deployed(tmp_path)
    assert description == DESCRIPTION
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    # A run directory is a weights file too.
    assert read_weights(tmp_path).keys() == state.keys()


def test_a_failed_save_leaves_the_old_model(tmp_path, monkeypatch):
    save_deployed(tmp_path, STATE, DESCRIPTION)
    before = (tmp_path / "model.safetensors").read_bytes()

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_deployed(tmp_path, {"a": torch.ones(1)}, {"task": "other"})
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert load_deployed(tmp_path)[0] == DESCRIPTION


def test_a_trained_run_holds_everything_to_rebuild_its_model(vinbig_run, vinbig_store):
    description, state = load_deployed(vinbig_run)
    assert {"task", "architecture", "categories", "canvas_size", "thresholds", "metrics", "epoch"} <= description.keys()
    assert description["task"] == "detection"
    assert description["canvas_size"] == 64
    assert len(description["categories"]) == 14
    assert description["categories"]["4"] == "Cardiomegaly"
    # Nothing of this machine travels with the model.
    text = (vinbig_run / "model.json").read_text()
    assert str(vinbig_store) not in text
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    detector = build_detector(14, 64, **description["architecture"])
    detector.load_state_dict(state, strict=True)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "no run directory at .*run: give the --save-path of a training"),
        ({}, r"holds no trained model \(no model.json\): it appears after the first validated epoch"),
        ({"model.json": "{}"}, r"holds no trained model \(no model.safetensors\)"),
        (
            {"fold0/model.json": "{}", "fold1/model.json": "{}"},
            r"is a folder of 2 runs \(fold0, fold1\): give one of these",
        ),
        ({"model.json": "{", "model.safetensors": ""}, "model.json is damaged"),
        ({"model.json": "[]", "model.safetensors": ""}, "model.json is damaged"),
        ({"model.json": "{}", "model.safetensors": ""}, "model.json is damaged"),
        ({"model.json": '{"task": 3}', "model.safetensors": ""}, "model.json names no task"),
        ({"model.json": '{"task": "detection"}', "model.safetensors": "x"}, "not a readable weights file"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, files, message):
    run = tmp_path / "run"
    if files is not None:
        run.mkdir()
        for name, content in files.items():
            (run / name).parent.mkdir(exist_ok=True)
            (run / name).write_text(content)
    with pytest.raises(InputError, match=message):
        load_deployed(run)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},
        lambda state: {"state_dict": {f"module.model.{name}": value for name, value in state.items()}, "lr": 0.1},
    ],
)
def test_the_usual_wrappers_are_looked_through(tmp_path, wrap):
    torch.save(wrap(STATE), tmp_path / "weights.pth")
    found = read_weights(tmp_path / "weights.pth")
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


class Foreign:
    """What a pickle may hold, and must not be loaded."""

    def __reduce__(self):
        return (open, ("/tmp/xray-must-not-exist", "w"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, -1])
def test_a_file_cut_short_is_refused(tmp_path, suffix, kept):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(STATE, path)
    else:
        safetensors.torch.save_file(STATE, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(InputError, match=path.name):
        read_weights(path)


@pytest.mark.parametrize("content", ["text", "pickle", "no tensors", "list", "png"])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "weights.pth"
    if content == "text":
        path.write_text("not weights\n" * 50)
    elif content == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": Foreign()}))
    elif content == "png":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))
    else:
        torch.save({"epoch": 3} if content == "no tensors" else [1, 2], path)
    with pytest.raises(InputError, match=r"weights\.pth"):
        read_weights(path)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no weights at .*none.pth: give imagenet, coco, none"):
        read_weights(tmp_path / "none.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "old.pth", "run"])
def test_names_are_those_of_the_tensors(tmp_path, name, monkeypatch):
    path = tmp_path / name
    if name == "run":
        path.mkdir()
        save_deployed(path, STATE, DESCRIPTION)
    elif name == "w.safetensors":
        safetensors.torch.save_file(STATE, path)
    else:
        content = {"state_dict": {f"model.{key}": value for key, value in STATE.items()}, "epoch": 3}
        torch.save(content, path, _use_new_zipfile_serialization=name == "w.pth")
    expected = list(read_weights(path))
    monkeypatch.setattr(safetensors.torch, "load_file", lambda *_: pytest.fail("tensors were read"))
    assert sorted(tensor_names(path)) == sorted(expected) == sorted(STATE)


def test_names_of_a_damaged_file(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"w.pth"):
        tensor_names(tmp_path / "w.pth")
