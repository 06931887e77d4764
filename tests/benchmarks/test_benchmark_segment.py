"""The benchmark of segmenters: both give the same probabilities, and are refused where one does not."""

import json

import numpy as np
import pytest
import torch
from contending import Here

from benchmarks import segment
from xray.errors import InputError
from xray.models.segmentation.segmenter import build_segmenter
from xray.models.weights import load_deployed, save_deployed


def small(store, **flags):
    values = {"n_images": 4, "repeats": 1, "encoder": "resnet18", "device": "cpu", "batch_size": 3}
    return segment.Config(**{**values, "data_path": store, **flags})


def test_random_weights_settle():
    torch.manual_seed(0)
    model = build_segmenter("unet", "resnet18", depth=3)
    canvases = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    segment.settle(model, canvases)
    with torch.no_grad():
        logits = model(canvases)
    assert not model.training
    assert logits.std().item() == pytest.approx(segment.SPREAD, rel=1e-3)
    assert abs(logits.mean().item()) < 1e-3


def test_both_find_the_same_until_one_is_changed(vinbig_store, tmp_path):
    config = small(vinbig_store)
    assert segment.prepare(config, tmp_path) == 64
    ours, theirs = segment.Ours(config, "cpu", tmp_path), segment.Theirs("smp", config, "cpu", tmp_path)
    maps = theirs.probabilities()
    assert maps.shape == (4, 1, 64, 64)
    assert maps.min() < 0.2
    assert maps.max() > 0.8
    assert segment.check("ours", ours.probabilities(), maps, "32")["largest"] < 1e-3
    last = segment.Theirs("smp-channels-last", config, "cpu", tmp_path)
    assert segment.check("smp-channels-last", last.probabilities(), maps, "32")["mean"] < 1e-5
    half = segment.Theirs("smp-bf16", config, "cpu", tmp_path)
    assert half.kind() == "bf16"
    assert 0 < segment.check("smp-bf16", half.probabilities(), maps, "bf16")["mean"] < 0.1
    description, state = load_deployed(tmp_path / "run")
    state["segmentation_head.0.bias"] += 0.1
    save_deployed(tmp_path / "run", state, description)
    changed = segment.Ours(config, "cpu", tmp_path)
    with pytest.raises(InputError, match="the probabilities of ours differ from SMP's by"):
        segment.check("ours", changed.probabilities(), maps, "32")


def test_eight_bits_are_told_and_not_judged():
    zeros, ones = np.zeros((1, 1, 4, 4)), np.ones((1, 1, 4, 4))
    assert segment.check("openvino-int8", ones, zeros, "int8") == {"largest": 1.0, "mean": 1.0}
    with pytest.raises(InputError, match="differ from SMP's by 1 on average"):
        segment.check("ours", ones, zeros, "bf16")


@pytest.mark.slow
def test_writes_its_numbers(vinbig_store, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(segment, "Contender", Here)
    segment.main(small(vinbig_store, save_path=tmp_path / "segment.json"))
    report = json.loads((tmp_path / "segment.json").read_text())
    [measured] = report["results"]
    assert set(measured["contenders"]) == {"ours", "smp", "smp-channels-last"}
    assert [pair["peer"] for pair in measured["ratios"]] == ["smp", "smp-channels-last"]
    assert report["parameters"]["image_size"] == 64
    assert "difference of a pixel's probability" in capsys.readouterr().out
