"""torchvision's own detectors: code that makes them of a run, and a run's model made of a Faster R-CNN's state."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xray.errors import InputError
from xray.models.detection.anchor_fit import FASTER_RCNN, RETINANET, STANDARD_CANVAS
from xray.models.detection.backbones import RESNETS
from xray.models.detection.detector import anchors_of, build_detector
from xray.models.pretrained import IMAGENET, Reading
from xray.models.weights import read_weights

BLOCKS = {(2, False): "resnet18", (6, False): "resnet34", (6, True): "resnet50", (23, True): "resnet101"}
"""(blocks of the third stage, whether they have three convolutions) → the ResNet that has them."""


def torchvision_code(run: Path, description: dict[str, Any], weights: Path, reading: Reading = IMAGENET) -> str:
    """Python that makes torchvision's `model` with the run's anchors, thresholds and weights.

    reading: how the model reads grey levels.
    Raises InputError if torchvision has no function for this architecture.
    """
    options, size = description["architecture"], description["canvas_size"]
    backbone, head = options["backbone"], options["head"]
    if backbone not in RESNETS or options["fpn_channels"] != 256 or (head == "v2" and backbone != "resnet50"):
        raise InputError(
            f"{run} is a {backbone} detector with head {head} and a pyramid of {options['fpn_channels']} channels: "
            "torchvision builds ResNets with 256, and head v2 for resnet50 alone"
        )
    candidates, score, most = options["proposals"] // 2, options["score_threshold"], options["max_detections"]
    of_family = {
        FASTER_RCNN: {
            "rpn_pre_nms_top_n_test": candidates,
            "rpn_post_nms_top_n_test": candidates,
            "box_score_thresh": score,
            "box_detections_per_img": most,
        },
        RETINANET: {"topk_candidates": candidates, "score_thresh": score, "detections_per_img": most},
    }
    family = options.get("family", FASTER_RCNN)
    values: dict[str, Any] = {
        "num_classes": max(int(category) for category in description["categories"]) + 1,
        "min_size": size,
        "max_size": size,
        **of_family[family],
    }
    if reading != IMAGENET:
        values["image_mean"], values["image_std"] = ([value / 255 for value in part] for part in reading)
    common = "".join(f"    {name}={value},\n" for name, value in values.items())
    retina = family == RETINANET
    if backbone == "resnet50":
        name = ("retinanet" if retina else "fasterrcnn") + "_resnet50_fpn" + ("_v2" if head == "v2" else "")
        model = f"detection.{name}(\n    weights=None,\n    weights_backbone=None,\n{common}"
    else:
        # RetinaNet leaves out stride 4.
        levels = ", returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)" if retina else ""
        utils = "detection.backbone_utils"
        trunk = f'{utils}.resnet_fpn_backbone(backbone_name="{backbone}", weights=None{levels})'
        model = f"detection.{'RetinaNet' if retina else 'FasterRCNN'}(\n    {trunk},\n{common}"
    anchors = anchors_of(options, size)
    per_cell = len(anchors.sides[0]) * len(anchors.ratios)
    generator = f"detection.anchor_utils.AnchorGenerator({anchors.sides}, ({anchors.ratios},) * 5)"
    imports = rest = ""
    if not retina:
        rest = f"model.rpn.anchor_generator = {generator}\n"
        if per_cell != 3:
            # Not the default number in a cell needs a head of its own.
            depth = 2 if head == "v2" else 1
            rest += f"model.rpn.head = detection.rpn.RPNHead(256, {per_cell}, conv_depth={depth})\n"
    elif head == "v2":
        if per_cell != 9:
            raise InputError(f"{run} has {per_cell} anchors in a cell: torchvision builds RetinaNet's head v2 for 9")
        rest = f"model.anchor_generator = {generator}\n"
    else:
        imports = "from torchvision.ops.feature_pyramid_network import LastLevelP6P7\n"
        model += f"    anchor_generator={generator},\n"
    return f"""import torch
from torchvision.models import detection
{imports}
model = {model})
{rest}model.load_state_dict(torch.load({str(weights)!r}, weights_only=True))
# It takes canvases of {size} pixels a side as (3, {size}, {size}) float32: the grey value / 255, three times."""


def read_torchvision(
    path: Path, categories: Sequence[str], canvas_size: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A state dict of torchvision's Faster R-CNN with a pyramid → what `save_deployed` makes a run directory of.

    path: .pth, .pt, .ckpt or .safetensors. categories: names in the order of their labels, from 1.
    canvas_size: pixels a side of the canvases that the run looks at; torchvision's anchors keep their sides of 32 to
    512 pixels on it. Backbone, heads and norms are read from the tensors' names and shapes.
    Raises InputError if it cannot be read, is of another model, or has other categories.
    """
    state = {name: value.detach() for name, value in read_weights(path).items()}
    refusal = f"{path} is no state dict of torchvision's Faster R-CNN with a feature pyramid"
    parts = ("backbone.body.", "backbone.fpn.", "rpn.head.", "roi_heads.box_head.", "roi_heads.box_predictor.")
    if unknown := next((name for name in state if not name.startswith(parts)), None):
        raise InputError(f"{refusal}: it has no {unknown[:80]}; give the weights of one, or train from this file")
    predictor = state.get("roi_heads.box_predictor.cls_score.weight")
    if predictor is None or predictor.ndim != 2 or len(predictor) < 2:
        raise InputError(f"{refusal}: roi_heads.box_predictor.cls_score.weight is missing or of another shape")
    n_categories = len(predictor) - 1
    if len(categories) != n_categories:
        raise InputError(
            f"{path} finds {n_categories} categories, and --categories names {len(categories)}: give their names in "
            "the order of its labels, without the background"
        )
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise InputError(f"{path} holds {name} with values that are no numbers: it may be damaged")
    architecture = _architecture(state, refusal, canvas_size)
    detector = build_detector(n_categories, canvas_size, **architecture)
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    try:
        # Old files have other names for some tensors, which torchvision's modules know.
        unfitting = detector.load_state_dict(state, strict=False)
    except RuntimeError as error:
        # A heading, then a line for each tensor of another shape.
        reason = str(error).splitlines()[1:2] or [str(error)]
        raise InputError(f"{refusal} with a {architecture['backbone']}: {reason[0].strip()[:200]}") from None
    if wrong := next(iter((*unfitting.unexpected_keys, *unfitting.missing_keys)), None):
        what = "has no" if wrong in unfitting.unexpected_keys else "needs"
        raise InputError(f"{refusal} with a {architecture['backbone']}: that {what} {wrong[:80]}")
    description = {
        "task": "detection",
        "architecture": architecture,
        "categories": {str(number): name for number, name in enumerate(categories, 1)},
        "canvas_size": canvas_size,
        "thresholds": {"detection": architecture["score_threshold"]},
        # Nothing tells whether it was.
        "flips": False,
    }
    return description, detector.state_dict()


def _architecture(state: dict[str, Tensor], refusal: str, canvas_size: int) -> dict[str, Any]:
    """The arguments of `build_detector`, as far as a state dict tells them; the others are torchvision's."""
    body = [name.removeprefix("backbone.body.") for name in state if name.startswith("backbone.body.")]
    blocks = {name.split(".")[1] for name in body if name.startswith("layer3.")}
    backbone = BLOCKS.get((len(blocks), "layer1.0.conv3.weight" in body))
    if "0.0.weight" in body:
        backbone = "mobilenet_v2"
    if backbone is None:
        raise InputError(f"{refusal} on a ResNet-18, 34, 50 or 101 or a MobileNetV2: it has another trunk")
    outer = next((v for name, v in state.items() if name.startswith("backbone.fpn.layer_blocks.0.")), None)
    if outer is None or not outer.ndim:
        raise InputError(f"{refusal}: it has no backbone.fpn.layer_blocks.0")
    return {
        "backbone": backbone,
        "head": "v2" if "roi_heads.box_head.0.0.weight" in state else "v1",
        "norm": "batch" if any(name.endswith("num_batches_tracked") for name in body) else "frozen",
        "fpn_channels": len(outer),
        "anchor_scale": STANDARD_CANVAS / canvas_size,
        "proposals": 2000,
        "score_threshold": 0.001,
        "max_detections": 100,
    }
