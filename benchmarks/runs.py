"""Run directories to measure: detectors and segmenters whose weights find about as much as trained ones."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from benchmarks.peers import as_float_images, spread_weights, torchvision_detector
from xray.datasets.store import Store
from xray.errors import InputError
from xray.inference.pipeline import Pipeline
from xray.inference.pipeline_loading import load_pipeline
from xray.inference.trial import lowered
from xray.models.detection.detector import anchors_of
from xray.models.weights import load_deployed, save_deployed
from xray.training.config import DetectionConfig
from xray.training.tasks.detection import DetectionTask

PYRAMID_CHANNELS = 256
"""Of torchvision's detectors."""


def deployed(run: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and weights of a run that torchvision can run too. Raises InputError for another one."""
    description, state = load_deployed(run)
    architecture = description.get("architecture", {})
    fits = (
        description["task"] == "detection"
        and str(architecture.get("backbone")).startswith("resnet")
        and architecture.get("head") == "v1"
        and architecture.get("fpn_channels") == PYRAMID_CHANNELS
    )
    if not fits:
        raise InputError(
            f"{run} is not the run of a detector that torchvision builds: give one with a resnet, --head v1 and "
            f"--fpn-channels {PYRAMID_CHANNELS}, or leave --weights out"
        )
    return description, state


def made(store: Store, backbone: str, canvases: Tensor, seed: int = 0) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a training would have deployed, of weights that find about as much as trained ones.

    canvases: (B, 1, S, S) uint8, of which the weights take their statistics.
    """
    config = DetectionConfig(backbone=backbone, norm="frozen", anchor_scale=1.0, proposals=2000)
    description = DetectionTask(config, store).describe()
    torch.manual_seed(seed)
    detector = torchvision_of(description)
    spread_weights(detector, as_float_images(canvases))
    return description, detector.state_dict()


def write_run(run: Path, description: dict[str, Any], state: dict[str, Tensor]) -> Path:
    """Makes the folder of a run with both; returns it."""
    run.mkdir(parents=True)
    save_deployed(run, state, description)
    return run


def torchvision_of(description: dict[str, Any]) -> FasterRCNN:
    """torchvision's own detector of a run's architecture, untrained."""
    architecture = description["architecture"]
    return torchvision_detector(
        max(int(category) for category in description["categories"]),
        description["canvas_size"],
        architecture["backbone"],
        architecture["norm"],
        anchors_of(architecture, description["canvas_size"]),
        rpn_pre_nms_top_n_test=architecture["proposals"] // 2,
        rpn_post_nms_top_n_test=architecture["proposals"] // 2,
        box_score_thresh=architecture["score_threshold"],
        box_detections_per_img=architecture["max_detections"],
    )


def exported_pipeline(run: Path, runtime: str, canvases: np.ndarray, precision: str) -> Pipeline:
    """A run's model by another runtime: "onnx", "openvino", or "openvino-int8" with ranges from these canvases.

    The file is written into the run. canvases: (B, S, S) uint8. precision: "bf16" computes OpenVINO's float32 in that.
    """
    cpu = torch.device("cpu")
    file = run / f"{runtime}{'.onnx' if runtime == 'onnx' else '.xml'}"
    if runtime == "onnx":
        from xray.export.onnx import to_onnx

        file.write_bytes(to_onnx(run))
        return load_pipeline([file], cpu, flips=False, runtime="onnx")
    from xray.export.openvino import save, to_openvino

    model = to_openvino(run)
    if runtime == "openvino-int8":
        from xray.export.int8 import attempts, parts_of, quantise

        # What tools/export.py --int8 tries first.
        has_boxes = load_deployed(run)[0]["task"] == "detection"
        model = quantise(model, list(canvases), attempts(parts_of(model), has_boxes)[0][1])
    save(model, file)
    pipeline = load_pipeline([file], cpu, flips=False, runtime="openvino")
    return lowered(pipeline, torch.bfloat16) if precision == "bf16" else pipeline
