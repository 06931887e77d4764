"""Classifiers through one contract, and weights from every place they come from."""

import time

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from xray.errors import InputError
from xray.models.classification.classifier import build_classifier, load_initial_weights
from xray.models.classification.losses import classification_loss
from xray.models.weights import load_deployed, save_deployed

NETWORKS = ("densenet121", "resnet18", "mobilenetv2_100", "efficientnet_b0", "convnext_atto", "vit_tiny_patch16_224")
LOSSES = ("bce", "weighted", "focal")


def canvases(n=2, size=64):
    return torch.randint(0, 256, (n, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def loss_of(name, n_outputs):
    if name == "weighted":
        return classification_loss("bce", positive_weights=[3.0] * n_outputs)
    return classification_loss(name)


@pytest.mark.parametrize(("number", "name"), list(enumerate(NETWORKS)), ids=str)
def test_contract(number, name, tmp_path):
    """Forward, backward, other sizes, saving and loading, and a step that lowers the loss."""
    n_outputs, in_channels = ((1, 3), (14, 1))[number % 2]
    options = {"name": name, "n_outputs": n_outputs, "in_channels": in_channels, "canvas": 64}
    torch.manual_seed(0)
    classifier = build_classifier(**options)
    loss = loss_of(LOSSES[number % 3], n_outputs)
    truth = torch.tensor([[1], [0]]).expand(2, n_outputs)

    def of_batch():
        torch.manual_seed(1)  # the draws of dropout and stochastic depth
        return loss(classifier(canvases()), truth)

    logits = classifier(canvases())
    assert logits.shape == (2, n_outputs)
    assert logits.dtype == torch.float32
    before = of_batch()
    before.backward()
    assert all(parameter.grad is not None for parameter in classifier.parameters())
    norm = nn.utils.get_total_norm([parameter.grad for parameter in classifier.parameters()])
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter -= 0.001 * parameter.grad / norm
        assert of_batch() < before
        classifier.eval()
        odd = canvases(1, 64 if "vit" in name else 75)
        expected = classifier(odd)
        save_deployed(tmp_path, classifier.state_dict(), {"task": "classification", "architecture": options})
        description, state = load_deployed(tmp_path)
        restored = build_classifier(**description["architecture"]).eval()
        restored.load_state_dict(state)
        assert torch.equal(restored(odd), expected)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["densenet169", "densenet201"])
@pytest.mark.parametrize("loss", LOSSES)
def test_larger_networks(name, loss):
    classifier = build_classifier(name, 1, 1, 64)
    value = loss_of(loss, 1)(classifier(canvases()), torch.tensor([[1], [0]]))
    value.backward()
    assert torch.isfinite(value)


def state_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("resnet18", torchvision.models.resnet18),
        ("densenet121", torchvision.models.densenet121),
        ("mobilenetv2_100", torchvision.models.mobilenet_v2),
        ("efficientnet_b0", lambda: timm.create_model("efficientnet_b0")),
    ],
)
def test_files_of_1000_classes(name, build, tmp_path):
    torch.manual_seed(0)
    network = build().eval()
    save_file(state_of(network), tmp_path / "weights.safetensors")
    # As many classes: the whole network; timm's and torchvision's own forward must agree.
    whole = build_classifier(name, 1000).eval()
    assert load_initial_weights(whole, str(tmp_path / "weights.safetensors")).endswith("weights.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(whole(canvases()), network(whole.normalise(canvases())), rtol=1e-4, atol=1e-4)
    # Others: the last layer stays as it was, in one channel too.
    classifier = build_classifier(name, 14, 1)
    last = state_of(classifier.network.get_classifier())
    said = load_initial_weights(classifier, str(tmp_path / "weights.safetensors"))
    assert said.endswith("its last layer from random")
    kept = classifier.network.get_classifier().state_dict()
    assert all(torch.equal(value, last[key]) for key, value in kept.items())


def test_the_shared_mobilenet(shared_data):
    file = shared_data / "weights" / "mobilenet_v2_imagenet.safetensors"
    classifier = build_classifier("mobilenetv2_100", 1).eval()
    assert "its last layer from random" in load_initial_weights(classifier, str(file))
    reference = torchvision.models.mobilenet_v2().eval()
    from safetensors.torch import load_file

    reference.load_state_dict(load_file(file), strict=False)
    with torch.no_grad():
        pixels = classifier.normalise(canvases())
        torch.testing.assert_close(
            classifier.network.forward_features(pixels), reference.features(pixels), rtol=1e-4, atol=1e-4
        )


def test_a_run_of_the_same_network(tmp_path):
    first = build_classifier("resnet18", 2, 1)
    save_deployed(tmp_path, first.state_dict(), {"task": "classification", "architecture": {"name": "resnet18"}})
    again = build_classifier("resnet18", 2, 1)
    assert load_initial_weights(again, str(tmp_path)) == f"resnet18 starts from {tmp_path} (a classification run)"
    assert all(torch.equal(value, first.state_dict()[key]) for key, value in again.state_dict().items())
    assert load_initial_weights(again, "none") == "weights start at random"
    with pytest.raises(InputError, match="does not hold the weights of the network resnet34"):
        load_initial_weights(build_classifier("resnet34"), str(tmp_path))
    save_file(state_of(timm.create_model("resnet34")), tmp_path / "larger.safetensors")
    with pytest.raises(InputError, match=r"of the network resnet18: it has \d+ tensors more"):
        load_initial_weights(build_classifier("resnet18"), str(tmp_path / "larger.safetensors"))


def test_without_a_network_connection(tmp_path, monkeypatch):
    import huggingface_hub.constants

    def no_such_host(*_args, **_kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", no_such_host)
    monkeypatch.setattr("xray.models.pretrained.getproxies", dict)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    start = time.process_time()
    with pytest.raises(InputError, match=r"ImageNet weights of resnet18 could not be downloaded.*--weights FILE"):
        load_initial_weights(build_classifier("resnet18"), "imagenet")
    assert time.process_time() - start < 10


def test_bad_values():
    with pytest.raises(InputError, match=r"the network densnet121 is unknown: did you mean .*densenet121"):
        build_classifier("densnet121")
    with pytest.raises(ValueError, match="n_outputs is 0"):
        build_classifier("resnet18", 0)
    with pytest.raises(ValueError, match="in_channels is 2"):
        build_classifier("resnet18", 1, 2)
