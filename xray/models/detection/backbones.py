"""Trunks with a feature pyramid: torchvision's ResNets and MobileNetV2, and those of timm's that have one."""

import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from xray.errors import InputError
from xray.models.pretrained import IMAGENET, Reading, download, unknown_network

RESNETS = {
    "resnet18": torchvision.models.resnet18,
    "resnet34": torchvision.models.resnet34,
    "resnet50": torchvision.models.resnet50,
    "resnet101": torchvision.models.resnet101,
}
IMAGENET_WEIGHTS = {
    "resnet18": torchvision.models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet34": torchvision.models.ResNet34_Weights.IMAGENET1K_V1,
    "resnet50": torchvision.models.ResNet50_Weights.IMAGENET1K_V1,
    "resnet101": torchvision.models.ResNet101_Weights.IMAGENET1K_V1,
    "mobilenet_v2": torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1,
}
STRIDES = (4, 8, 16, 32)
"""Canvas pixels from one cell of a trunk's maps to the next."""
STAGES = 5
"""Stages of every trunk: the part before stride 4, and one for each stride."""
TRIAL = 64
"""Pixels a side of the canvas that shows how a network of timm's is built."""


def build_backbone(
    name: str,
    norm: str,
    trainable_layers: int,
    fpn_channels: int,
    more_levels: Callable[[int], ExtraFPNBlock],
    pyramid_norm: Callable[..., nn.Module] | None = None,
    first: int = 0,
) -> nn.Module:
    """A trunk, `body`, with its pyramid, `fpn`: (B, 3, S, S) float32 → name → (B, fpn_channels, S/stride, S/stride).

    name: one of torchvision's (IMAGENET_WEIGHTS), otherwise timm's. norm: "frozen" or "batch", of the trunk's batch
    norms; other kinds of norm stay as they are. trainable_layers: stages that train, from the last, of STAGES.
    more_levels: makes the levels above the trunk's, from the number of channels of its last map. first: the first of
    STRIDES that the pyramid has. The result depends on torch's random state.
    Raises InputError for a name that is unknown, or a network that has no such maps.
    """
    if name not in IMAGENET_WEIGHTS:
        return TimmBackbone(name, norm, trainable_layers, fpn_channels, more_levels, pyramid_norm, first)
    norm_layer = FrozenBatchNorm2d if norm == "frozen" else nn.BatchNorm2d
    if name == "mobilenet_v2":
        body = mobilenet_v2(weights=None, norm_layer=norm_layer).features
        last_blocks = ["3", "6", "13", "18"]
        channels = [24, 32, 96, 1280]
        stages = [
            ["0", "1"],
            ["2", "3"],
            ["4", "5", "6"],
            [str(i) for i in range(7, 14)],
            [str(i) for i in range(14, 19)],
        ]
    else:
        body = RESNETS[name](weights=None, norm_layer=norm_layer)
        last_blocks = ["layer1", "layer2", "layer3", "layer4"]
        width = body.inplanes // 8
        channels = [width * 2**stage for stage in range(4)]
        stages = [["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["layer4"]]
    trainable = {name for stage in stages[STAGES - trainable_layers :] for name in stage}
    for parameter_name, parameter in body.named_parameters():
        parameter.requires_grad_(parameter_name.split(".")[0] in trainable)
    layers = {block: str(level) for level, block in enumerate(last_blocks[first:])}
    extra = more_levels(channels[-1])
    return BackboneWithFPN(body, layers, channels[first:], fpn_channels, extra_blocks=extra, norm_layer=pyramid_norm)


class TimmBackbone(nn.Module):
    """As torchvision's BackboneWithFPN, on a network of timm's; its tensors keep the names that timm gives them."""

    def __init__(
        self,
        name: str,
        norm: str,
        trainable_layers: int,
        fpn_channels: int,
        more_levels: Callable[[int], ExtraFPNBlock],
        pyramid_norm: Callable[..., nn.Module] | None,
        first: int,
    ) -> None:
        super().__init__()
        self.out_channels, self.first = fpn_channels, first
        self.body = _timm_body(name).eval()
        channels = self.body.feature_info.channels()
        self.ends_in_channels = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
        _check_maps(name, self._maps, channels)
        if norm == "frozen":
            from timm.utils.model import freeze_batch_norm_2d

            self.body = freeze_batch_norm_2d(self.body)
        if trainable_layers < STAGES:
            stage_of = self._stages()
            for parameter_name, parameter in self.body.named_parameters():
                parameter.requires_grad_(stage_of[parameter_name] >= STAGES - trainable_layers)
        self.body.train()
        extra = more_levels(channels[-1])
        self.fpn = FeaturePyramidNetwork(channels[first:], fpn_channels, extra, pyramid_norm)

    def forward(self, pixels: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 3, S, S) → name → (B, C, S/stride, S/stride)."""
        maps = self._maps(pixels)[self.first :]
        return self.fpn(OrderedDict((str(level), features) for level, features in enumerate(maps)))

    def _maps(self, pixels: Tensor) -> list[Tensor]:
        """The trunk's maps at STRIDES, (B, C, H, W)."""
        maps = self.body(pixels)
        return [features.permute(0, 3, 1, 2) for features in maps] if self.ends_in_channels else maps

    def _stages(self) -> dict[str, int]:
        """The stage of each parameter: that of the first map which depends on it; 0 for those before stride 4's own."""
        names, parameters = zip(*self.body.named_parameters(), strict=True)
        first = self.body.feature_info.module_name()[0]
        own_prefixes = (f"{first}.", f"{first.replace('.', '_')}.")
        stage_of = dict.fromkeys(names, STAGES - 1)
        with torch.inference_mode(False), torch.enable_grad():
            maps = self._maps(torch.zeros(1, 3, TRIAL, TRIAL))
            for stage in reversed(range(1, STAGES)):
                total = maps[stage - 1].sum()
                gradients = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
                stage_of |= {n: stage for n, slope in zip(names, gradients, strict=True) if slope is not None}
        of_first = [name for name in names if stage_of[name] == 1]
        # A map that is taken behind a layer without parameters, as in VGG, does not name its stage.
        if any(name.startswith(own_prefixes) for name in of_first):
            stage_of |= {name: 0 for name in of_first if not name.startswith(own_prefixes)}
        return stage_of


def _timm_body(name: str) -> Any:
    # Its import takes seconds.
    import timm

    if not timm.is_model(name.partition(".")[0]):
        raise unknown_network("--backbone", name, [*IMAGENET_WEIGHTS, *timm.list_models()], "resnet50")
    try:
        return _create_timm(name)
    except (ValueError, TypeError, RuntimeError, AssertionError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(f"--backbone {name} cannot be the trunk of a detector: {reason}; use another one") from None


def _create_timm(name: str, pretrained: bool = False) -> Any:
    """timm's network that gives the maps at STRIDES. Raises what timm raises, and ValueError where it has none."""
    import timm

    with torch.device("meta"):
        info: Any = timm.create_model(name, features_only=True).feature_info
    strides = [level["reduction"] for level in info.info]
    if missing := [stride for stride in STRIDES if stride not in strides]:
        raise ValueError(f"it has no features at stride {missing[0]}, a pyramid needs 4, 8, 16 and 32")
    # The deepest of those at one stride.
    places = [len(strides) - 1 - strides[::-1].index(stride) for stride in STRIDES]
    options: dict[str, Any] = {"features_only": True, "out_indices": places, "pretrained": pretrained}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # For transformers with windows: lets them take pictures of any size.
            return timm.create_model(name, strict_img_size=False, **options)
        except TypeError:
            return timm.create_model(name, **options)


def _check_maps(name: str, maps_of: Callable[[Tensor], list[Tensor]], channels: list[int]) -> None:
    """Raises InputError unless `maps_of` gives the maps that a pyramid needs, of pictures of more than one size."""
    for size in (TRIAL, 2 * TRIAL):
        expected = [(count, size // stride, size // stride) for count, stride in zip(channels, STRIDES, strict=True)]
        try:
            with torch.no_grad():
                shapes = [tuple(features.shape[1:]) for features in maps_of(torch.zeros(1, 3, size, size))]
            if shapes == expected:
                continue
            reason = f"of {size} pixels it makes maps of {[shape[-1] for shape in shapes]}"
        except (ValueError, TypeError, RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())[:150]
        raise InputError(f"--backbone {name} cannot be the trunk of a detector: {reason}; use another one")


def reading_of_timm(name: str) -> Reading:
    """How timm's weights of that name read a picture."""
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or len(config.mean) != 3:
        return IMAGENET
    reading = Reading.of_full_scale(config.mean, config.std)
    # Some networks have 0.4850000001.
    return IMAGENET if torch.allclose(torch.tensor(reading), torch.tensor(IMAGENET), rtol=1e-4) else reading


def imagenet_weights(name: str) -> tuple[dict[str, Tensor], Reading]:
    """The downloaded or cached weights of a trunk, and how it reads a picture. Raises InputError if there are none."""
    what = f"the ImageNet weights of {name}"
    if name in IMAGENET_WEIGHTS:
        source = IMAGENET_WEIGHTS[name]
        return download(lambda: source.get_state_dict(progress=True, check_hash=True), what, source.url), IMAGENET
    return download(lambda: _create_timm(name, pretrained=True).state_dict(), what), reading_of_timm(name)


def names_of_timm(name: str) -> list[str]:
    """The names of all tensors of timm's network, those of its last layers among them."""
    import timm

    with torch.device("meta"):
        return list(timm.create_model(name).state_dict())
