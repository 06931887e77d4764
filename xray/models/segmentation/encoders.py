"""Encoders of segmentation-models-pytorch: building one, and leaving out its idle stages."""

import warnings
from typing import Any

import timm
import torch
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from segmentation_models_pytorch.encoders import get_encoder
from segmentation_models_pytorch.encoders._base import EncoderMixin
from torch import Tensor, nn

from xray.errors import InputError
from xray.models.pretrained import download, unknown_network


def build_encoder(name: str, in_channels: int, depth: int, weights: str | None = None) -> nn.Module:
    """An encoder of the library. depth: how often it halves the picture, 3 to 5. weights: "imagenet", or None."""
    with warnings.catch_warnings():
        # The library warns that "timm-" names are deprecated, and that "tu-" encoders take any text for weights.
        warnings.simplefilter("ignore")
        return get_encoder(name, in_channels=in_channels, depth=depth, weights=weights)


def _is_encoder(name: str) -> bool:
    if name in smp_encoders or name.startswith("timm-"):
        return True
    return name.startswith("tu-") and timm.is_model(name.removeprefix("tu-").partition(".")[0])


def encoders_of(backbone: str) -> list[str]:
    """The encoders that a backbone of torchvision's, timm's or an encoder's name fits."""
    other = {"mobilenet_v2": "mobilenetv2_100", "mobilenetv2_100": "mobilenet_v2"}.get(backbone, backbone)
    return [name for name in dict.fromkeys((backbone, other, f"tu-{backbone}", f"tu-{other}")) if _is_encoder(name)]


def check_encoder(name: str) -> None:
    """Raises InputError where no encoder is called so."""
    if _is_encoder(name):
        return
    known = [*smp_encoders, *(f"tu-{model}" for model in timm.list_models())]
    raise unknown_network("--encoder", name, known, "resnet34")


class _Idle(nn.Module):
    """Replaces a stage that no output depends on."""

    def forward(self, features: Tensor, *_: Any) -> Tensor:
        return features


def drop_idle_stages(encoder: nn.Module, in_channels: int) -> None:
    """Replaces the modules of an encoder that its features do not depend on.

    At a depth under 5 the library keeps the deeper stages, and computes one of them in some encoders. Such parameters
    never get a gradient, which stops a training on several devices. timm's own feature extractors leave most out.
    """
    if not isinstance(encoder, EncoderMixin):
        return
    training = encoder.training
    encoder.eval()
    names, parameters = zip(*encoder.named_parameters(), strict=True)
    with torch.inference_mode(False), torch.enable_grad():
        features = encoder(torch.zeros(1, in_channels, 64, 64))
        total = torch.stack([feature.sum() for feature in features[1:]]).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    used = {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
    _replace_idle(encoder, "", used)
    encoder.train(training)


def _replace_idle(module: nn.Module, prefix: str, used: set[str]) -> None:
    for name, child in list(module.named_children()):
        parameter_names = [f"{prefix}{name}.{parameter}" for parameter, _ in child.named_parameters()]
        if parameter_names and used.isdisjoint(parameter_names):
            setattr(module, name, _Idle())
        elif parameter_names:
            _replace_idle(child, f"{prefix}{name}.", used)


def imagenet_state(name: str, depth: int) -> dict[str, Tensor]:
    """The state dict of an encoder of three channels trained on ImageNet, downloaded where it is not at hand.

    Raises InputError where no such weights are known, or they cannot be had.
    """
    if name in smp_encoders and "imagenet" not in smp_encoders[name]["pretrained_settings"]:
        raise InputError(f"no ImageNet weights are known for the encoder {name}: use another one or --weights none")
    return download(
        lambda: build_encoder(name, 3, depth, "imagenet").state_dict(), f"the ImageNet weights of the encoder {name}"
    )
