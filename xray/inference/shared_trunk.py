"""Two heads on one trunk: a detector and the segmenter that was trained on its frozen trunk, as one model and one run.

`train.py --task segmentation --encoder-from DETECTOR --freeze-encoder` makes such a segmenter. One pass of the trunk
then serves boxes and masks.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torchvision.models import MobileNetV2, ResNet
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from xray.errors import InputError
from xray.inference.loaded import RUN_TASK, as_described, build_network
from xray.models.detection.detector import Detector
from xray.models.segmentation.segmenter import Segmenter
from xray.models.weights import load_deployed

Network = TypeVar("Network", Detector, Segmenter)

STRIDES_2_AND_4 = ("relu", "1", "layer1", "3")
"""The last stages at these strides, of a ResNet and of a MobileNetV2; some detectors do not use their features."""

TRUNK, ENCODER = "detector.backbone.body.", "segmenter.encoder."


class DetectorWithMask(nn.Module):
    """A detector and a segmenter whose encoder is the detector's trunk, for inference.

    Raises ValueError where there is a `trunk_difference`.
    """

    def __init__(self, detector: Detector, segmenter: Segmenter) -> None:
        super().__init__()
        if difference := trunk_difference(detector, segmenter):
            raise ValueError(f"the segmenter does not stand on the detector's trunk: {difference}")
        self.detector, self.segmenter = detector, segmenter

    def forward(self, images: Tensor) -> tuple[list[dict[str, Tensor]], Tensor]:
        """Boxes and masks from one pass of the trunk.

        images: (B, 1, S, S) uint8 canvases.
        Returns the detections as `Detector.forward` does, and the masks' logits (B, K, S, S) float32.
        Raises ValueError unless S is a multiple of 2**depth of the segmenter and at least twice that.
        """
        size = images.shape[-1]
        if not shares_canvas(self.segmenter, size):
            raise ValueError(f"canvases of {size} pixels: the segmenter pads them, and would see another border")
        features, logits = trunk_and_logits(self.detector, self.segmenter, images)
        return self.detector.detect(features, images), logits


def trunk_and_logits(
    detector: Detector, segmenter: Segmenter, images: Tensor
) -> tuple[OrderedDict[str, Tensor], Tensor]:
    """One pass of a detector's trunk: (name → the features of its pyramid; the segmenter's logits).

    images: (B, 1, S, S) uint8 canvases. Logits: (B, K, S, S) float32.
    """
    trunk, size = detector.backbone.body, images.shape[-1]
    pixels = segmenter.normalise(images)
    features = [pixels]  # at strides 1, 2, 4, 8, 16 and 32
    for name, stage in trunk.items():
        pixels = stage(pixels)
        if name in STRIDES_2_AND_4 or name in trunk.return_layers:
            features.append(pixels)
    logits = segmenter.decode(features[: segmenter.depth + 1], size, size)
    assert isinstance(logits, Tensor)
    names = list(trunk.return_layers.values())
    return OrderedDict(zip(names, features[-len(names) :], strict=True)), logits


def shares_canvas(segmenter: Segmenter, size: int) -> bool:
    """Whether the segmenter takes canvases of `size` pixels a side as they are, without padding them."""
    multiple = 2**segmenter.depth
    return size % multiple == 0 and size >= 2 * multiple


def trunk_difference(detector: Detector, segmenter: Segmenter) -> str:
    """Why the two cannot share a trunk, in words; empty where one pass of the trunk gives the features of both.

    Frozen and ordinary batch norms count as equal, since they are equal in inference. A shallow encoder, or one cut by
    pruning, is compared in the stages that it has.
    """
    reading = segmenter.normalise
    if not (torch.equal(reading.mean, detector.mean) and torch.equal(reading.std, detector.std)):
        return f"its encoder reads {segmenter.in_channels} channels, normalised in another way than the detector's 3"
    if not isinstance(detector.backbone, BackboneWithFPN):
        return "the detector's is a network of timm's, and only torchvision's are shared"
    # Others may have the same tensors and yet compute something else with them, as timm's ResNets with blurred pooling.
    if not isinstance(segmenter.encoder, ResNet | MobileNetV2):
        return f"its encoder {segmenter.encoder_name} is not one of torchvision's networks, the detector's is"
    encoder, trunk = _numbers(segmenter.encoder), _numbers(detector.backbone.body)
    stages = {name.split(".")[0] for name in encoder}
    trunk = {name: value for name, value in trunk.items() if name.split(".")[0] in stages}
    names = list({**trunk, **encoder})
    differing = [n for n in names if n not in trunk or n not in encoder or not torch.equal(trunk[n], encoder[n])]
    return f"{len(differing)} of {len(names)} tensors differ, {differing[0]} first" if differing else ""


def _numbers(trunk: nn.Module) -> dict[str, Tensor]:
    """All tensors that decide what a trunk computes, under the names of a detector."""
    numbers = {name: value for name, value in trunk.state_dict().items() if not name.endswith("num_batches_tracked")}
    numbers |= {f"{name}.eps": torch.tensor(m.eps) for name, m in trunk.named_modules() if hasattr(m, "eps")}
    return {name.removeprefix("features."): value for name, value in numbers.items()}


def join_runs(first: Path, second: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A detection run and a segmentation run on its trunk, in either order → one run for `save_deployed`.

    Returns the description, {task, detection, segmentation}, and the tensors `detector.…` and `segmenter.…`, in which
    the trunk is the detector's alone.
    Raises InputError if they are not runs of these two tasks, or do not share trunk and canvas.
    """
    runs = {}
    for run in (first, second):
        description, state = load_deployed(run)
        runs[description["task"]] = run, description, state
    if runs.keys() != {"detection", "segmentation"}:
        raise InputError(
            f"{first} and {second} are runs of the tasks {' and '.join(runs)}: give one of detection and one of "
            "segmentation"
        )
    detection_run, detection, detector_state = runs["detection"]
    segmentation_run, segmentation, segmenter_state = runs["segmentation"]
    with as_described(detection_run):
        detector = _build(detection, Detector, detector_state)
    with as_described(segmentation_run):
        segmenter = _build(segmentation, Segmenter, segmenter_state)
    bits = detection.get("bits", 8), segmentation.get("bits", 8)
    if bits[0] != bits[1]:
        raise InputError(
            f"{detection_run} looks at canvases of {bits[0]} bits, {segmentation_run} of {bits[1]}: on one trunk both "
            "must be equal; train on datasets converted with one --bits"
        )
    sizes = detection["canvas_size"], segmentation["canvas_size"]
    if sizes[0] != sizes[1] or not shares_canvas(segmenter, sizes[0]):
        raise InputError(
            f"{detection_run} looks at canvases of {sizes[0]} pixels, {segmentation_run} of {sizes[1]}: on one trunk "
            f"both must be equal and a multiple of {2**segmenter.depth}; train on datasets converted with one "
            "--image-size"
        )
    if difference := trunk_difference(detector, segmenter):
        raise InputError(
            f"{segmentation_run} does not stand on the trunk of {detection_run} ({difference}): train it with --task "
            f"segmentation --encoder {detection['architecture']['backbone']} --in-channels 3 --encoder-from "
            f"{detection_run} --freeze-encoder"
        )
    state = {f"detector.{name}": value for name, value in detector_state.items()}
    state |= {f"segmenter.{name}": value for name, value in segmenter_state.items()}
    state = {name: value for name, value in state.items() if not name.startswith(ENCODER)}
    return {"task": RUN_TASK, "detection": detection, "segmentation": segmentation}, state


def load_detector_with_mask(run: Path) -> tuple[Detector, dict[str, Any], Segmenter, dict[str, Any]]:
    """A run of `join_runs` → the detector and its description, the segmenter and its description.

    The segmenter is whole: its encoder has the numbers of the detector's trunk. Raises InputError if it is damaged.
    """
    description, state = load_deployed(run)
    with as_described(run):
        detection, segmentation = description["detection"], description["segmentation"]
        detector = _build(detection, Detector, _part(state, "detector."))
        segmenter, trunk = _build(segmentation, Segmenter), _part(state, TRUNK)
        for name, value in segmenter.encoder.state_dict().items():
            # Frozen norms do not count batches.
            counts = name.endswith("num_batches_tracked")
            state[ENCODER + name] = value if counts else trunk[name.removeprefix("features.")]
        segmenter.load_state_dict(_part(state, "segmenter."))
    return detector.eval(), detection, segmenter.eval(), segmentation


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _build(description: dict[str, Any], kind: type[Network], state: dict[str, Tensor] | None = None) -> Network:
    network = build_network(description)
    if not isinstance(network, kind):
        raise ValueError(f"its {kind.__name__.lower()} is a model of the task {description['task']}")
    if state is not None:
        network.load_state_dict(state)
    return network
