"""Classifiers of whole radiographs: timm's networks on letterboxed canvases."""

import warnings
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from xray.errors import InputError
from xray.models.pretrained import Normalise, download, load_trunk, reads_as, unknown_network
from xray.models.weights import load_deployed, read_weights


class Classifier(nn.Module):
    """A network of timm's that takes uint8 canvases and converts them itself."""

    def __init__(self, network: nn.Module, name: str, in_channels: int) -> None:
        super().__init__()
        self.name, self.in_channels = name, in_channels
        self.normalise = Normalise(in_channels)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) uint8 canvases → logits (B, K) float32, one for each label by itself (sigmoid)."""
        return self.network(self.normalise(images)).float()


def build_classifier(
    name: str = "densenet121", n_outputs: int = 1, in_channels: int = 3, canvas: int = 512
) -> Classifier:
    """An untrained classifier; the result depends on torch's random state.

    name: any of timm's (densenet121, densenet169, densenet201, resnet34, …). n_outputs: labels. in_channels: 1 grey, or
    3 that repeat it. canvas: pixels a side, which transformers fix when they are built.
    Raises InputError for a name that timm does not have or a network that cannot be built for this canvas, ValueError
    for other values out of range.
    """
    if n_outputs < 1:
        raise ValueError(f"n_outputs is {n_outputs}: it must be at least 1")
    if not timm.is_model(name.partition(".")[0]):
        raise unknown_network("the network", name, timm.list_models(), "densenet121")
    pretrained = timm.get_pretrained_cfg(name)
    fixed: dict[str, Any] = {"img_size": canvas} if pretrained is not None and pretrained.fixed_input_size else {}
    try:
        network = timm.create_model(name, pretrained=False, num_classes=n_outputs, in_chans=in_channels, **fixed)
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise InputError(f"the network {name} cannot be built for canvases of {canvas} pixels: {error}") from None
    return Classifier(network, name, in_channels)


def load_initial_weights(classifier: Classifier, weights: str) -> str:
    """Puts initial weights into a classifier: "imagenet", "none", a file, or a run directory.

    A file may be torchvision's, timm's, TorchXRayVision's or a run's; a last layer for other labels is left as it is.
    Returns a sentence saying what was loaded. Raises InputError if weights cannot be downloaded or read, or are of
    another network.
    """
    name = classifier.name
    if weights == "none":
        return "weights start at random"
    if weights == "imagenet":
        state, source = _imagenet(name), "ImageNet"
    elif Path(weights).is_dir():
        description, state = load_deployed(weights)
        source = f"{weights} (a {description['task']} run)"
    else:
        state, source = read_weights(Path(weights)), weights
    mismatch = f"{source} does not hold the weights of the network {name}"
    state, reading, note = reads_as(state)
    whole = load_trunk(classifier.network, state, mismatch, _last_layer(classifier.network), reading=reading)
    classifier.normalise.read_as(reading)
    return f"{name} starts from {source}{note}" + ("" if whole else ", its last layer from random")


def _last_layer(network: nn.Module) -> str:
    """The name of timm's classifying layer within the network, e.g. "classifier"."""
    last = network.get_classifier()  # type: ignore[operator]  # timm returns them as plain modules
    return next(name for name, module in network.named_modules() if module is last)


def _imagenet(name: str) -> dict[str, Tensor]:
    def fetch() -> dict[str, Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return timm.create_model(name, pretrained=True).state_dict()

    return download(fetch, f"the ImageNet weights of {name}")
