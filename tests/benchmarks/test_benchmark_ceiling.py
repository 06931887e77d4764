"""The arithmetic of a detector against published numbers, and the command."""

import json

import pytest
import torch

from benchmarks.ceiling import Config, Subject, machine_rates, main
from xray.errors import FlagError


def test_the_trunks_arithmetic_is_the_published_one():
    # torchvision's table of ResNet-50: 4.09 billion multiply-adds at 224 pixels, of which its classifier has 2 million.
    config = Config(image_size=224, batch_size=2, device="cpu")
    parts = Subject(config, torch.device("cpu")).count()
    assert parts["trunk"]["flops"] == pytest.approx(2 * 4.087e9, rel=2e-3)
    # 1,000 proposals of 256 x 7 x 7 features through layers of 1,024, as far as that many survive.
    most = 2 * 1000 * (256 * 49 * 1024 + 1024 * 1024)
    assert most / 4 < parts["box head"]["flops"] <= most
    # Four bytes for each of the trunk's 23.5 million weights, shared by two radiographs, and its activations.
    assert parts["trunk"]["bytes"] > 4 * 23.4e6 / 2


def test_backward_costs_twice_what_trains():
    config = Config(work="train", image_size=64, batch_size=1, backbone="resnet18", device="cpu")
    parts = Subject(config, torch.device("cpu")).count()
    forward = sum(part["flops"] for name, part in parts.items() if name != "backward")
    # The gradient of each input and of each weight costs a forward; two of the trunk's stages have neither.
    heads = forward - parts["trunk"]["flops"]
    assert 2 * heads < parts["backward"]["flops"] < 2 * forward


def test_the_command(tmp_path, capsys):
    path = tmp_path / "ceiling.json"
    main(Config(image_size=64, batch_size=1, backbone="resnet18", device="cpu", repeats=1, save_path=path))
    report = json.loads(path.read_text())
    assert report["per_image"]["flops"] == pytest.approx(sum(part["flops"] for part in report["parts"].values()))
    assert sum(row["share"] for row in report["profile"]) == pytest.approx(1)
    assert report["share"] > 0
    assert "% of the ceiling" in capsys.readouterr().out
    with pytest.raises(FlagError, match="--image-size is 8"):
        main(Config(image_size=8))


def test_rates_are_plausible():
    rates = machine_rates(torch.device("cpu"), torch.float32, repeats=1)
    assert 1e8 < rates["flops"] < 1e14
    assert 1e7 < rates["bytes"] < 1e13
