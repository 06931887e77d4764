"""Faster R-CNN on letterboxed canvases, state-dict compatible with torchvision's, and its initial weights."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from xray.errors import InputError
from xray.models.detection.matching import pad_truth
from xray.models.detection.pooling import BINS, pyramid_rows
from xray.models.detection.proposals import ProposalNetwork
from xray.models.detection.regions import RegionHeads
from xray.models.weights import read_weights

ANCHOR_SIDES = (32, 64, 128, 256, 512)
ANCHOR_RATIOS = (0.5, 1.0, 2.0)
ANCHOR_CANVAS = 1024
"""The canvas on which ANCHOR_SIDES are meant; on others the anchors shrink or grow with it."""

# ImageNet's statistics of the grey value: what the pretrained trunks were fed with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

RESNETS = {
    "resnet18": torchvision.models.resnet18,
    "resnet34": torchvision.models.resnet34,
    "resnet50": torchvision.models.resnet50,
    "resnet101": torchvision.models.resnet101,
}
COCO_WEIGHTS = {
    "v1": torchvision.models.detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    "v2": torchvision.models.detection.FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
}
IMAGENET_WEIGHTS = {
    "resnet18": torchvision.models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet34": torchvision.models.ResNet34_Weights.IMAGENET1K_V1,
    "resnet50": torchvision.models.ResNet50_Weights.IMAGENET1K_V1,
    "resnet101": torchvision.models.ResNet101_Weights.IMAGENET1K_V1,
    "mobilenet_v2": torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1,
}


class Detector(nn.Module):
    """Faster R-CNN that takes canvases as they are: no second resize, one byte per pixel until it runs.

    Its state dict has the names of torchvision's `FasterRCNN` (backbone., rpn., roi_heads.), so each loads the other's,
    and with the same weights and samples it computes the same numbers.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: BackboneWithFPN, rpn: ProposalNetwork, roi_heads: RegionHeads) -> None:
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = backbone, rpn, roi_heads
        # Not in the state dict, so that it stays torchvision's.
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor, targets: list[dict[str, Tensor]] | None = None) -> Any:
        """The losses of a batch while training, its detections otherwise.

        images: (B, 1, S, S) uint8 canvases.
        targets: per image `boxes` (N, 4) float32 xyxy in canvas pixels and `labels` (N,) int64 category ids, from 1.
        Returns, training: {loss_objectness, loss_rpn_box_reg, loss_classifier, loss_box_reg}, scalars; else: per image
        `boxes` (M, 4), `labels` (M,), `scores` (M,) in [0, 1], highest first, in canvas pixels.
        """
        if self.training and targets is None:
            raise ValueError("training needs targets")
        pixels = (images - self.mean) / self.std  # (B, 3, S, S): the grey canvas in each of the trunk's three channels
        return self._find(self.backbone(pixels), images, targets)

    def detect(
        self, features: OrderedDict[str, Tensor], images: Tensor, targets: list[dict[str, Tensor]] | None = None
    ) -> Any:
        """The second half of `forward`, for a pipeline in which a segmenter reads the same trunk.

        features: of strides 4, 8, 16 and 32, as the trunk gives them. images: the canvases; only their number and size
        are read.
        """
        return self._find(self.backbone.fpn(features), images, targets)

    def _find(self, maps: OrderedDict[str, Tensor], images: Tensor, targets: list[dict[str, Tensor]] | None) -> Any:
        pyramid = list(maps.values())
        layout = self.rpn.layout(pyramid, images.shape[-1])
        proposals = self.rpn(pyramid, layout)
        rows = pyramid_rows(pyramid)
        if not self.training:
            return self.roi_heads(rows, layout, proposals)
        assert targets is not None
        truth = pad_truth(targets)
        return {
            **self.rpn.losses(rows, layout, truth),
            **self.roi_heads.losses(rows, layout, proposals, truth),
        }

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles what always has the same shapes, trunk with pyramid and the proposals' head, as nn.Module does.

        A `mode` is that of trunk with pyramid alone. Where it asks for CUDA graphs, a second graph in the same step
        would take back the memory of the pyramid, which the box head reads after it.
        """
        self.backbone.compile(*args, **kwargs)
        self.rpn.head.compile(*args, **{name: value for name, value in kwargs.items() if name != "mode"})


def build_detector(
    n_categories: int,
    canvas_size: int,
    backbone: str = "resnet50",
    head: str = "v1",
    norm: str = "frozen",
    trainable_layers: int = 5,
    fpn_channels: int = 256,
    anchor_scale: float = 1.0,
    rpn_samples: int = 256,
    roi_samples: int = 512,
    proposals: int = 2000,
    score_threshold: float = 0.001,
    max_detections: int = 100,
) -> Detector:
    """An untrained detector of `n_categories` (background not counted) on canvases of `canvas_size` pixels a side.

    norm: "frozen" (FrozenBatchNorm2d) or "batch". trainable_layers: stages of the trunk that train, from the last.
    The others as in `xray.training.config.DetectionConfig`. The result depends on torch's random state.
    """
    # torchvision's v2 has batch norms in its pyramid and box head too.
    pyramid_norm = nn.BatchNorm2d if head == "v2" else None
    trunk = _trunk(backbone, norm, trainable_layers, fpn_channels, pyramid_norm)
    shrink = anchor_scale * canvas_size / ANCHOR_CANVAS
    sides = tuple((side * shrink,) for side in ANCHOR_SIDES)
    # Made in torchvision's order, so that a seed gives the weights that it gives there.
    if head == "v2":
        rpn_head = RPNHead(fpn_channels, len(ANCHOR_RATIOS), conv_depth=2)
        box_head: nn.Module = FastRCNNConvFCHead(
            (fpn_channels, BINS, BINS), [fpn_channels] * 4, [1024], norm_layer=nn.BatchNorm2d
        )
    else:
        rpn_head = RPNHead(fpn_channels, len(ANCHOR_RATIOS))
        box_head = TwoMLPHead(fpn_channels * BINS**2, 1024)
    anchor_generator = AnchorGenerator(sides, (ANCHOR_RATIOS,) * len(sides))
    return Detector(
        trunk,
        ProposalNetwork(rpn_head, anchor_generator, rpn_samples, proposals, proposals // 2),
        RegionHeads(box_head, FastRCNNPredictor(1024, n_categories + 1), roi_samples, score_threshold, max_detections),
    )


def _trunk(
    backbone: str, norm: str, trainable_layers: int, fpn_channels: int, pyramid_norm: Callable[..., nn.Module] | None
) -> BackboneWithFPN:
    norm_layer = FrozenBatchNorm2d if norm == "frozen" else nn.BatchNorm2d
    if backbone == "mobilenet_v2":
        body = mobilenet_v2(weights=None, norm_layer=norm_layer).features
        # The last block of each stride 4, 8, 16 and 32.
        layers = {"3": "0", "6": "1", "13": "2", "18": "3"}
        channels = [24, 32, 96, 1280]
        stages = [
            ["0", "1"],
            ["2", "3"],
            ["4", "5", "6"],
            [str(i) for i in range(7, 14)],
            [str(i) for i in range(14, 19)],
        ]
    else:
        body = RESNETS[backbone](weights=None, norm_layer=norm_layer)
        layers = {f"layer{stage}": str(stage - 1) for stage in (1, 2, 3, 4)}
        width = body.inplanes // 8
        channels = [width * 2**stage for stage in range(4)]
        stages = [["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["layer4"]]
    trainable = {name for stage in stages[len(stages) - trainable_layers :] for name in stage}
    for name, parameter in body.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in trainable)
    return BackboneWithFPN(
        body, layers, channels, fpn_channels, extra_blocks=LastLevelMaxPool(), norm_layer=pyramid_norm
    )


def load_initial_weights(detector: Detector, weights: str, backbone: str, head: str) -> str:
    """Puts initial weights into `detector`: "imagenet", "coco", "none", or a file or run directory.

    A file may hold a trunk (torchvision's ResNet or MobileNetV2) or a whole detector; a detector's box predictor for
    other categories is left as it is. Returns a sentence saying what was loaded. Raises InputError if weights cannot
    be downloaded or read, or do not fit this architecture.
    """
    if weights == "none":
        return "weights start at random"
    if weights == "imagenet":
        state = _download(IMAGENET_WEIGHTS[backbone], backbone)
    elif weights == "coco":
        state = _download(COCO_WEIGHTS[head], "the COCO detector")
    else:
        state = read_weights(Path(weights))
    is_detector = any(name.startswith("backbone.") for name in state)
    target: nn.Module = detector if is_detector else detector.backbone.body
    if not is_detector:
        state = {name.removeprefix("features."): value for name, value in state.items()}
    return _load_matching(target, state, weights, "detector" if is_detector else "trunk", backbone)


def _download(weights: Any, what: str) -> dict[str, Tensor]:
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"the weights of {what} could not be downloaded ({error}): on a machine without internet, fetch "
            f"{weights.url} elsewhere and give it as --weights FILE, or train from --weights none"
        ) from None


def _load_matching(target: nn.Module, state: dict[str, Tensor], source: str, kind: str, backbone: str) -> str:
    own = target.state_dict()
    # A predictor of other categories has other shapes; everything else must fit, or the file is of another model.
    optional = [name for name in own if "box_predictor" in name or name.endswith("num_batches_tracked")]
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    missing = [name for name in own if name not in fitting and name not in optional]
    # ResNet-34 holds all of ResNet-18's tensors, and more. A classifier's head (fc, classifier) is not of the trunk.
    parts = {name.split(".")[0] for name in own}
    missing += [
        name
        for name in state
        if name.split(".")[0] in parts and name not in own and not name.endswith("num_batches_tracked")
    ]
    if missing:
        raise InputError(
            f"{source} does not hold the weights of this {kind} ({backbone}): {len(missing)} tensors are "
            f"missing, of another shape or too many, {missing[0]} first; check --backbone, --head and --fpn-channels"
        )
    target.load_state_dict({**own, **fitting})
    new = [name for name in own if "box_predictor" in name and name not in fitting]
    return f"{kind} starts from {Path(source).name}" + (", its box predictor from random" if new else "")
