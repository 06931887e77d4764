"""Models of run directories, ready to run: canvases in, boxes, mask probabilities or label probabilities out."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from xray.command import InputError
from xray.detection.model import Detector, build_detector
from xray.findings import mirrored
from xray.refine import Refinement
from xray.segmentation.triplet import Triplet
from xray.training.deploy import load_deployed

UNCHANGED = Refinement()
HALF = Triplet(0.5, 0.0, 0.5)
"""Every pixel above 0.5, without a condition on the whole radiograph."""

ABNORMAL = "abnormal"
"""The label of a classifier that tells abnormal from normal radiographs."""


@dataclasses.dataclass(frozen=True)
class LoadedDetector:
    """A detector of a run directory, ready to run.

    canvas_size: pixels a side. mirror: {category: category on a flipped radiograph}. flips: whether it was trained on
    mirrored radiographs; one that was not knows the heart on one side only and is not shown them.
    """

    model: Detector
    canvas_size: int
    categories: dict[int, str]
    mirror: dict[int, int]
    flips: bool = True

    @torch.inference_mode()
    def detect(self, canvases: np.ndarray, flip: bool) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(B, S, S) uint8 → per radiograph boxes (M, 4) on the canvas, category ids (M,), scores (M,).

        flip: looks at the mirrored radiographs and mirrors boxes and sides back.
        """
        device = next(self.model.parameters()).device
        images = torch.from_numpy(canvases)[:, None].to(device)
        found = self.model(images.flip(-1) if flip else images)
        results = []
        for detections in found:
            boxes = detections["boxes"].float().cpu().numpy().astype(np.float64)
            labels = detections["labels"].cpu().numpy()
            if flip:
                boxes = self.canvas_size * np.array([1, 0, 1, 0]) + boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1]
                labels = np.array([self.mirror[label] for label in labels.tolist()], dtype=np.int64)
            results.append((boxes, labels, detections["scores"].float().cpu().numpy().astype(np.float64)))
        return results


@dataclasses.dataclass(frozen=True)
class LoadedSegmenter:
    """A segmenter of a run directory, ready to run.

    triplet: which pixels belong to a mask. refinement: how the boxes of a detector beside it follow the mask.
    gate: probability of a classifier beside it below which there is no mask; None where none was fitted.
    The others as for LoadedDetector.
    """

    model: nn.Module
    canvas_size: int
    categories: dict[int, str]
    mirror: dict[int, int]
    flips: bool = True
    triplet: Triplet = HALF
    refinement: Refinement = UNCHANGED
    gate: float | None = None

    @torch.inference_mode()
    def probability(self, canvases: np.ndarray, flip: bool) -> np.ndarray:
        """(B, S, S) uint8 → (B, K, S, S) float32 in [0, 1], a channel for each category; flips as `detect` does."""
        images = torch.from_numpy(canvases)[:, None].to(next(self.model.parameters()).device)
        found = self.model(images.flip(-1) if flip else images).float().sigmoid()
        if flip:
            order = list(self.categories)
            found = found.flip(-1)[:, [order.index(self.mirror[category]) for category in order]]
        return found.cpu().numpy()


@dataclasses.dataclass(frozen=True)
class LoadedClassifier:
    """A classifier of a run directory, ready to run.

    labels: names of its outputs, ["abnormal"] for one that tells abnormal from normal radiographs.
    categories: id → name of those that are categories: none for abnormal.
    """

    model: nn.Module
    canvas_size: int
    labels: tuple[str, ...]
    categories: dict[int, str]
    flips: bool = True

    @torch.inference_mode()
    def probability(self, canvases: np.ndarray, flip: bool) -> np.ndarray:
        """(B, S, S) uint8 → (B, K) float32 in [0, 1]; labels that name a side are not looked at mirrored."""
        images = torch.from_numpy(canvases)[:, None].to(next(self.model.parameters()).device)
        return self.model(images.flip(-1) if flip else images).float().sigmoid().cpu().numpy()


Loaded = LoadedDetector | LoadedSegmenter | LoadedClassifier


def load_run(run: Path, device: torch.device, prune: int = 0) -> tuple[str, Loaded]:
    """Loads one run directory onto a device → (its task, the model).

    prune: level to which a U-Net++ trained with deep supervision is cut; 0 leaves segmenters whole.
    Raises InputError if it is no run, of an unknown task, damaged, or cannot be pruned so.
    """
    description, state = load_deployed(run)
    task = description["task"]
    if task not in ("detection", "segmentation", "classification"):
        raise InputError(
            f"{run} is a run of the unknown task {task}: it must be detection, segmentation or classification"
        )
    try:
        loaded = _load(description, state)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        # PyTorch lists every tensor that differs.
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{run} does not hold the model that its model.json describes: {reason}") from None
    if prune and task == "segmentation":
        try:
            loaded.model.prune(prune)
        except ValueError as error:
            raise InputError(f"--prune {prune} cannot be applied to {run}: {error}") from None
    loaded.model.eval().to(device)
    return task, loaded


def _load(description: dict[str, Any], state: dict[str, Any]) -> Loaded:
    categories = {int(category_id): str(name) for category_id, name in description["categories"].items()}
    size, architecture = int(description["canvas_size"]), description["architecture"]
    flips = bool(description.get("flips", True))
    sides = mirrored(categories)
    # Each task brings libraries of its own: only those that are needed are imported.
    if description["task"] == "detection":
        detector = build_detector(max(categories), size, **architecture)
        detector.load_state_dict(state)
        return LoadedDetector(detector, size, categories, sides, flips)
    if description["task"] == "segmentation":
        from xray.segmentation.model import build_segmenter

        segmenter = build_segmenter(n_classes=len(categories), **architecture)
        segmenter.load_state_dict(state)
        thresholds = description["thresholds"]
        mask = float(thresholds["mask"])
        triplet = Triplet(
            float(thresholds.get("top", mask)),
            float(thresholds.get("min_area", 0.0)),
            float(thresholds.get("bottom", mask)),
        )
        refinement = Refinement(**description.get("refinement", {}))
        gate = float(thresholds["gate"]) if "gate" in thresholds else None
        return LoadedSegmenter(segmenter, size, categories, sides, flips, triplet, refinement, gate)
    from xray.classification.model import build_classifier

    classifier = build_classifier(canvas=size, **architecture)
    classifier.load_state_dict(state)
    labels = tuple(str(label) for label in description["labels"])
    one_sided = any(sides[category] != category for category in categories)
    own = {} if labels == (ABNORMAL,) else categories
    return LoadedClassifier(classifier, size, labels, own, flips and not one_sided)
