"""Detectors on letterboxed canvases, state-dict compatible with torchvision's classes, and their initial weights."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from xray.errors import InputError
from xray.models.detection.anchor_fit import FASTER_RCNN, RETINANET, AnchorSides, by_level, standard_anchors
from xray.models.detection.backbones import (
    IMAGENET_WEIGHTS,
    build_backbone,
    imagenet_weights,
    names_of_timm,
    reading_of_timm,
)
from xray.models.detection.base import Detector
from xray.models.detection.matching import pad_truth
from xray.models.detection.pooling import BINS, pyramid_rows
from xray.models.detection.proposals import ProposalNetwork
from xray.models.detection.regions import RegionHeads
from xray.models.detection.retinanet import GROUPS, RetinaNet, dense_head
from xray.models.pretrained import IMAGENET, download, load_trunk, reads_as
from xray.models.weights import read_weights, tensor_names

NAMED_WEIGHTS = ("imagenet", "coco", "none")
COCO_WEIGHTS = {
    (FASTER_RCNN, "v1"): torchvision.models.detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    (FASTER_RCNN, "v2"): torchvision.models.detection.FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
    (RETINANET, "v1"): torchvision.models.detection.RetinaNet_ResNet50_FPN_Weights.COCO_V1,
    (RETINANET, "v2"): torchvision.models.detection.RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1,
}


class FasterRCNN(Detector):
    """Faster R-CNN (Ren et al. 2015, arXiv:1506.01497): a network proposes regions, and heads look into each.

    Its state dict has the names of torchvision's `FasterRCNN` (backbone., rpn., roi_heads.), so each loads the other's,
    and with the same weights and samples it computes the same numbers.
    Its losses: loss_objectness, loss_rpn_box_reg, loss_classifier, loss_box_reg.
    """

    last_layer = "roi_heads.box_predictor"

    def __init__(self, backbone: nn.Module, rpn: ProposalNetwork, roi_heads: RegionHeads) -> None:
        super().__init__(backbone, roi_heads.score_threshold, roi_heads.max_detections)
        self.rpn, self.roi_heads = rpn, roi_heads

    def _find(self, pyramid: list[Tensor], images: Tensor, targets: list[dict[str, Tensor]] | None) -> Any:
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
    family: str = FASTER_RCNN,
) -> Detector:
    """An untrained detector of `n_categories` (background not counted) on canvases of `canvas_size` pixels a side.

    backbone, norm, trainable_layers: as `build_backbone` takes them. anchor_sides, anchor_ratios: as AnchorSides has
    them; if not given, the family's standard ones times `anchor_scale`. family: "faster_rcnn", or "retinanet", whose
    levels have strides of 8 to 128 and keep half of `proposals` boxes before suppression.
    soft_targets: see the losses of `RegionHeads` and `RetinaNet`. The others as in
    `xray.training.config.DetectionConfig`. The result depends on torch's random state.
    Raises InputError for a backbone that is unknown or does not fit.
    """
    layout = {"anchor_scale": anchor_scale, "anchor_sides": anchor_sides, "anchor_ratios": anchor_ratios}
    anchors = anchors_of({**layout, "family": family}, canvas_size)
    anchor_generator = AnchorGenerator(anchors.sides, (anchors.ratios,) * len(anchors.sides))
    (per_cell,) = set(anchor_generator.num_anchors_per_location())
    if family == RETINANET:
        if head == "v2" and fpn_channels % GROUPS:
            raise InputError(f"--fpn-channels {fpn_channels} is no multiple of {GROUPS}, which --head v2 needs")
        with_pyramid = build_backbone(
            backbone,
            norm,
            trainable_layers,
            fpn_channels,
            lambda deepest: LastLevelP6P7(fpn_channels if head == "v1" else deepest, fpn_channels),
            first=1,
        )
        dense = dense_head(head, fpn_channels, per_cell, n_categories)
        return RetinaNet(
            with_pyramid, dense, anchor_generator, score_threshold, max_detections, proposals // 2, soft_targets
        )
    # torchvision's v2 has batch norms in its pyramid and box head too.
    pyramid_norm = nn.BatchNorm2d if head == "v2" else None
    with_pyramid = build_backbone(
        backbone, norm, trainable_layers, fpn_channels, lambda _: LastLevelMaxPool(), pyramid_norm
    )
    # Made in torchvision's order, so that a seed gives the weights that it gives there.
    if head == "v2":
        rpn_head = RPNHead(fpn_channels, per_cell, conv_depth=2)
        box_head: nn.Module = FastRCNNConvFCHead(
            (fpn_channels, BINS, BINS), [fpn_channels] * 4, [1024], norm_layer=nn.BatchNorm2d
        )
    else:
        rpn_head = RPNHead(fpn_channels, per_cell)
        box_head = TwoMLPHead(fpn_channels * BINS**2, 1024)
    return FasterRCNN(
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
    scale, family = architecture.get("anchor_scale", 1.0), architecture.get("family", FASTER_RCNN)
    standard = standard_anchors(canvas_size, scale, family)
    sides = architecture.get("anchor_sides") or standard.sides
    ratios = architecture.get("anchor_ratios") or standard.ratios
    return AnchorSides(tuple(tuple(map(float, of_level)) for of_level in sides), tuple(map(float, ratios)))


def describe_anchors(
    sides: Sequence[float], ratios: Sequence[float], canvas_size: int, family: str = FASTER_RCNN
) -> dict[str, Any]:
    """Anchors as a description in model.json has them; `sides` of all levels in one row, see `by_level`."""
    if AnchorSides(by_level(sides), tuple(ratios)) == standard_anchors(canvas_size, family=family):
        return {"anchor_scale": 1.0}
    return {"anchor_sides": [list(of_level) for of_level in by_level(sides)], "anchor_ratios": list(ratios)}


def head_in(weights: str) -> str | None:
    """The head, "v1" or "v2", of the RetinaNet that a file or run directory holds; None where it holds none.

    weights: as `load_initial_weights` takes them; what is no file, or cannot be read, is left to that one.
    """
    if weights in NAMED_WEIGHTS or not Path(weights).exists():
        return None
    with contextlib.suppress(InputError):
        names = tensor_names(Path(weights))
        # Of v2 each convolution stands in a block with its norm.
        if any(name.startswith("head.classification_head.conv.0.1.") for name in names):
            return "v2"
        if any(name.startswith("head.classification_head.conv.0.") for name in names):
            return "v1"
    return None


def load_initial_weights(detector: Detector, weights: str, backbone: str, head: str) -> str:
    """Puts initial weights into `detector`: "imagenet", "coco", "none", or a file or run directory.

    A file may hold a backbone (of torchvision's or timm's names, or of TorchXRayVision's) or a whole detector of its
    family; a last layer for other categories is left as it is. Returns a sentence saying what was loaded. Raises
    InputError if weights cannot be downloaded or read, or do not fit this architecture.
    """
    if weights == "none":
        return "weights start at random"
    is_timm = backbone not in IMAGENET_WEIGHTS
    note = ""
    if weights == "imagenet":
        state, reading = imagenet_weights(backbone)
    elif weights == "coco":
        source = COCO_WEIGHTS[RETINANET if isinstance(detector, RetinaNet) else FASTER_RCNN, head]
        fetched = download(
            lambda: source.get_state_dict(progress=True, check_hash=True),
            "the weights of the COCO detector",
            source.url,
        )
        state, reading = fetched, IMAGENET
    else:
        of_others = reading_of_timm(backbone) if is_timm else IMAGENET
        state, reading, note = reads_as(read_weights(Path(weights)), of_others)
    is_detector = any(name.startswith("backbone.") for name in state)
    kind = "detector" if is_detector else "backbone"
    mismatch = (
        f"{weights} does not hold the weights of this {kind} ({backbone}); check --backbone, --family, --head and "
        "--fpn-channels"
    )
    target: nn.Module = detector if is_detector else detector.backbone.body
    last_layer = detector.last_layer if is_detector else ""
    left_out = names_of_timm(backbone) if is_timm and not is_detector else ()
    whole = load_trunk(target, state, mismatch, last_layer, left_out, reading)
    detector.read_as(reading)
    return f"{kind} starts from {Path(weights).name}{note}" + ("" if whole else ", its last layer from random")
