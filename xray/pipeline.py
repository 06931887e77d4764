"""Trained models → the findings of radiographs."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from xray.command import InputError
from xray.data.boxes import BoxTable, weighted_boxes_fusion
from xray.data.canvas import Canvas
from xray.data.predictions import NO_FINDING_CATEGORY
from xray.detection.model import Detector, build_detector
from xray.findings import CATEGORIES, NO_FINDING_BOX, mirrored
from xray.training.deploy import load_deployed

FUSION_IOU = 0.4
"""Winning VinBigData solutions fused models at IoU 0.33 to 0.5."""

VINBIG_CATEGORIES = {category["id"]: category["name"] for category in CATEGORIES}


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
class Pipeline:
    """All models of an ensemble, and what becomes of their outputs.

    flips: adds the mirrored radiograph (test-time augmentation) and fuses both.
    """

    detectors: tuple[LoadedDetector, ...]
    categories: dict[int, str]
    flips: bool = True
    max_detections: int = 100

    @property
    def canvas_size(self) -> int:
        """Side of the canvases to hand to `find`: that of the largest model."""
        return max(detector.canvas_size for detector in self.detectors)

    @property
    def is_vinbig(self) -> bool:
        """Whether the categories are the 14 findings, so that "No finding" (category 15) has a meaning."""
        return self.categories == VINBIG_CATEGORIES

    def find(self, canvases: np.ndarray, sizes: Sequence[tuple[int, int]]) -> BoxTable:
        """The findings of a batch of radiographs.

        canvases: (B, S, S) uint8 with S = `canvas_size`. sizes: (width, height) of each in original pixels.
        Returns boxes in original pixels, `images` 0 … B-1, at most `max_detections` a radiograph, highest score
        first, and for the 14 findings one "No finding" row a radiograph.
        """
        tables, sources, weights = [], [], []
        for detector in self.detectors:
            scaled = [_rescaled(canvas, detector.canvas_size) for canvas in canvases]
            for flip in (False, True) if self.flips and detector.flips else (False,):
                for image, (boxes, labels, scores) in enumerate(detector.detect(np.stack(scaled), flip)):
                    boxes = Canvas(*sizes[image], detector.canvas_size).to_original(boxes)
                    tables.append(BoxTable.of(np.full(len(boxes), image), labels, boxes, scores))
                    sources.append(np.full(len(boxes), len(weights)))
                weights.append(1.0)
        table, source = BoxTable.concatenate(tables), np.concatenate(sources)
        if len(weights) > 1:
            table = weighted_boxes_fusion(table, source, weights, FUSION_IOU).table
        table = table.best_per_image(self.max_detections)
        return BoxTable.concatenate([table, no_finding_rows(table, len(canvases))]) if self.is_vinbig else table


def no_finding_rows(table: BoxTable, n_images: int) -> BoxTable:
    """One row a radiograph with the probability that it is normal: 1 − the score of its surest finding.

    It is soft on purpose: deciding normal or abnormal and deleting the rest costs mean average precision.
    """
    surest = np.zeros(n_images)
    np.maximum.at(surest, table.images, table.scores)
    return BoxTable.of(
        np.arange(n_images), np.full(n_images, NO_FINDING_CATEGORY), [NO_FINDING_BOX] * n_images, 1 - surest
    )


def load_pipeline(runs: Sequence[Path], device: torch.device, flips: bool = True) -> Pipeline:
    """Loads run directories onto a device. Raises InputError if one is no run, of a foreign task, or they disagree."""
    if not runs:
        raise InputError("no run directory given: name at least one after --weights")
    detectors = []
    for run in runs:
        description, state = load_deployed(run)
        detectors.append(_load_detector(run, description, state, device))
        if detectors[-1].categories != detectors[0].categories:
            raise InputError(f"{run} finds other categories than {runs[0]}: models of one ensemble must agree on them")
    return Pipeline(tuple(detectors), detectors[0].categories, flips)


def _load_detector(
    run: Path, description: dict[str, Any], state: dict[str, Any], device: torch.device
) -> LoadedDetector:
    if description["task"] != "detection":
        raise InputError(f"{run} is a run of task {description['task']}: detection needs one of task detection")
    try:
        categories = {int(category_id): str(name) for category_id, name in description["categories"].items()}
        size = int(description["canvas_size"])
        model = build_detector(max(categories), size, **description["architecture"])
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        # PyTorch lists every tensor that differs.
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{run} does not hold the model that its model.json describes: {reason}") from None
    flips = bool(description.get("flips", True))
    return LoadedDetector(model.eval().to(device), size, categories, mirrored(categories), flips)


def _rescaled(canvas: np.ndarray, size: int) -> np.ndarray:
    if len(canvas) == size:
        return canvas
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA if size < len(canvas) else cv2.INTER_LINEAR)
