"""Faster R-CNN on letterboxed canvases, state-dict compatible with torchvision's, and its initial weights."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from xray.models.detection.anchor_fit import AnchorSides, by_level, standard_anchors
from xray.models.detection.matching import pad_truth
from xray.models.detection.pooling import BINS, pyramid_rows
from xray.models.detection.proposals import ProposalNetwork
from xray.models.detection.regions import RegionHeads
from xray.models.pretrained import Normalise, download, load_trunk
from xray.models.weights import read_weights

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


class Detector(Normalise):
    """Faster R-CNN that takes canvases as they are: no second resize, one byte per pixel until it runs.

    Its state dict has the names of torchvision's `FasterRCNN` (backbone., rpn., roi_heads.), so each loads the other's,
    and with the same weights and samples it computes the same numbers.
    """

    def __init__(self, backbone: BackboneWithFPN, rpn: ProposalNetwork, roi_heads: RegionHeads) -> None:
        super().__init__(in_channels=3)
        self.backbone, self.rpn, self.roi_heads = backbone, rpn, roi_heads

    def forward(self, images: Tensor, targets: list[dict[str, Tensor]] | None = None) -> Any:
        """The losses of a batch while training, its detections otherwise.

        images: (B, 1, S, S) uint8 canvases.
        targets: per image `boxes` (N, 4) float32 xyxy in canvas pixels and `labels` (N,) int64 category ids, from 1.
        Returns, training: {loss_objectness, loss_rpn_box_reg, loss_classifier, loss_box_reg}, scalars; else: per image
        `boxes` (M, 4), `labels` (M,), `scores` (M,) in [0, 1], highest first, in canvas pixels.
        """
        if self.training and targets is None:
            raise ValueError("training needs targets")
        return self._find(self.backbone(super().forward(images)), images, targets)

    def detect(
        self, features: OrderedDict[str, Tensor], images: Tensor, targets: list[dict[str, Tensor]] | None = None
    ) -> Any:
        """The second half of `forward`, for a pipeline in which a segmenter reads the same backbone.

        features: of strides 4, 8, 16 and 32, as the backbone gives them. images: the canvases; only their number
        and size are read.
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
        """As nn.Module does, for what always has the same shapes: backbone with pyramid, and the proposals' head."""
        self.backbone.compile(*args, **kwargs)
        self.rpn.head.compile(*args, **kwargs)


def build_detector(
    n_categories: int,
    canvas_size: int,
    backbone: str = "resnet50",
    head: str = "v1",
    norm: str = "frozen",
    trainable_layers: int = 5,
    fpn_channels: int = 256,
    anchor_scale: float = 1.0,
    anchor_sides: Sequence[Sequence[float]] | None = None,
    anchor_ratios: Sequence[float] | None = None,
    rpn_samples: int = 256,
    roi_samples: int = 512,
    proposals: int = 2000,
    score_threshold: float = 0.001,
    max_detections: int = 100,
    soft_targets: bool = False,
) -> Detector:
    """An untrained detector of `n_categories` (background not counted) on canvases of `canvas_size` pixels a side.

    norm: "frozen" (FrozenBatchNorm2d) or "batch". trainable_layers: stages of the backbone that train, from the last.
    anchor_sides, anchor_ratios: as AnchorSides has them; if not given, the standard ones times `anchor_scale`.
    soft_targets: see `RegionHeads.losses_of`. The others as in `xray.training.config.DetectionConfig`.
    The result depends on torch's random state.
    """
    # torchvision's v2 has batch norms in its pyramid and box head too.
    pyramid_norm = nn.BatchNorm2d if head == "v2" else None
    with_pyramid = _build_backbone(backbone, norm, trainable_layers, fpn_channels, pyramid_norm)
    layout = {"anchor_scale": anchor_scale, "anchor_sides": anchor_sides, "anchor_ratios": anchor_ratios}
    anchors = anchors_of(layout, canvas_size)
    anchor_generator = AnchorGenerator(anchors.sides, (anchors.ratios,) * len(anchors.sides))
    (per_cell,) = set(anchor_generator.num_anchors_per_location())
    # Made in torchvision's order, so that a seed gives the weights that it gives there.
    if head == "v2":
        rpn_head = RPNHead(fpn_channels, per_cell, conv_depth=2)
        box_head: nn.Module = FastRCNNConvFCHead(
            (fpn_channels, BINS, BINS), [fpn_channels] * 4, [1024], norm_layer=nn.BatchNorm2d
        )
    else:
        rpn_head = RPNHead(fpn_channels, per_cell)
        box_head = TwoMLPHead(fpn_channels * BINS**2, 1024)
    return Detector(
        with_pyramid,
        ProposalNetwork(rpn_head, anchor_generator, rpn_samples, proposals, proposals // 2),
        RegionHeads(
            box_head,
            FastRCNNPredictor(1024, n_categories + 1),
            roi_samples,
            score_threshold,
            max_detections,
            soft_targets,
        ),
    )


def anchors_of(architecture: Mapping[str, Any], canvas_size: int) -> AnchorSides:
    """The anchors that a detector's description in model.json means, on its canvas of `canvas_size` pixels a side."""
    standard = standard_anchors(canvas_size, architecture.get("anchor_scale", 1.0))
    sides = architecture.get("anchor_sides") or standard.sides
    ratios = architecture.get("anchor_ratios") or standard.ratios
    return AnchorSides(tuple(tuple(map(float, of_level)) for of_level in sides), tuple(map(float, ratios)))


def describe_anchors(sides: Sequence[float], ratios: Sequence[float], canvas_size: int) -> dict[str, Any]:
    """Anchors as a description in model.json has them; `sides` of all levels in one row, see `by_level`."""
    if AnchorSides(by_level(sides), tuple(ratios)) == standard_anchors(canvas_size):
        return {"anchor_scale": 1.0}
    return {"anchor_sides": [list(of_level) for of_level in by_level(sides)], "anchor_ratios": list(ratios)}


def _build_backbone(
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

    A file may hold a backbone (torchvision's ResNet or MobileNetV2) or a whole detector; a detector's box predictor for
    other categories is left as it is. Returns a sentence saying what was loaded. Raises InputError if weights cannot
    be downloaded or read, or do not fit this architecture.
    """
    if weights == "none":
        return "weights start at random"
    if weights in ("imagenet", "coco"):
        source, what = COCO_WEIGHTS[head], "the weights of the COCO detector"
        if weights == "imagenet":
            source, what = IMAGENET_WEIGHTS[backbone], f"the ImageNet weights of {backbone}"
        state = download(lambda: source.get_state_dict(progress=True, check_hash=True), what, source.url)
    else:
        state = read_weights(Path(weights))
    is_detector = any(name.startswith("backbone.") for name in state)
    kind = "detector" if is_detector else "backbone"
    mismatch = (
        f"{weights} does not hold the weights of this {kind} ({backbone}); check --backbone, --head and --fpn-channels"
    )
    target: nn.Module = detector if is_detector else detector.backbone.body
    whole = load_trunk(target, state, mismatch, "roi_heads.box_predictor" if is_detector else "")
    return f"{kind} starts from {Path(weights).name}" + ("" if whole else ", its box predictor from random")
