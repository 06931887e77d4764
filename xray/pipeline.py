"""Trained models → the findings of radiographs.

One pass serves every kind of run: detectors find boxes, segmenters masks, classifiers probabilities of whole
radiographs; what is there together is combined (see `Pipeline.find`).
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import nn

from xray.command import InputError
from xray.data.boxes import BoxTable, weighted_boxes_fusion
from xray.data.canvas import Canvas
from xray.data.predictions import NO_FINDING_CATEGORY
from xray.detection.model import Detector, build_detector
from xray.findings import CATEGORIES, FINDINGS, NO_FINDING_BOX, PNEUMOTHORAX, mirrored
from xray.refine import PNEUMOTHORAX_CATEGORY, Refinement, refine
from xray.segmentation.components import mask_findings
from xray.training.deploy import load_deployed

FUSION_IOU = 0.4
"""Winning VinBigData solutions fused models at IoU 0.33 to 0.5."""

VINBIG_CATEGORIES = {category["id"]: category["name"] for category in CATEGORIES}


UNCHANGED = Refinement()

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

    threshold: probability above which a pixel belongs to a mask. The others as for LoadedDetector.
    """

    model: nn.Module
    canvas_size: int
    categories: dict[int, str]
    mirror: dict[int, int]
    flips: bool = True
    threshold: float = 0.5
    refinement: Refinement = UNCHANGED

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
    """

    model: nn.Module
    canvas_size: int
    labels: tuple[str, ...]
    flips: bool = True

    @torch.inference_mode()
    def probability(self, canvases: np.ndarray, flip: bool) -> np.ndarray:
        """(B, S, S) uint8 → (B, K) float32 in [0, 1]; labels that name a side are not looked at mirrored."""
        images = torch.from_numpy(canvases)[:, None].to(next(self.model.parameters()).device)
        return self.model(images.flip(-1) if flip else images).float().sigmoid().cpu().numpy()


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a batch of radiographs shows.

    table: boxes in original pixels; `images` 0 … B-1.
    masks: row of the table → COCO RLE at original size.
    """

    table: BoxTable
    masks: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """All models of an ensemble, and what becomes of their outputs.

    categories: of the rows that `find` returns. flips: adds the mirrored radiograph (test-time augmentation).
    gate: what a classifier's pneumothorax probability does to the masks: "soft" multiplies their scores, "hard" leaves
    those out where it is below `gate_threshold`.
    """

    detectors: tuple[LoadedDetector, ...]
    categories: dict[int, str]
    flips: bool = True
    max_detections: int = 100
    segmenters: tuple[LoadedSegmenter, ...] = ()
    classifiers: tuple[LoadedClassifier, ...] = ()
    gate: Literal["soft", "hard"] = "soft"
    gate_threshold: float = 0.5

    @property
    def canvas_size(self) -> int:
        """Side of the canvases to hand to `find`: that of the largest model."""
        return max(model.canvas_size for model in (*self.detectors, *self.segmenters, *self.classifiers))

    @property
    def is_vinbig(self) -> bool:
        """Whether the rows are the 14 findings, so that "No finding" (category 15) has a meaning."""
        return bool(self.detectors) and self.categories == VINBIG_CATEGORIES

    def find(self, canvases: np.ndarray, sizes: Sequence[tuple[int, int]]) -> Findings:
        """The findings of a batch of radiographs.

        canvases: (B, S, S) uint8 with S = `canvas_size`. sizes: (width, height) of each in original pixels.

        Detectors give boxes, at most `max_detections` a radiograph, highest score first; for the 14 findings there is
        one "No finding" row a radiograph, whose probability is that of an abnormal/normal classifier where there is
        one. A segmenter refines the detectors' pneumothorax boxes (`xray.refine`); without detectors, each component
        of its masks is a row. Classifiers alone give a row with the radiograph's own box for each label.
        """
        labels = self._label_probabilities(canvases)
        components, masks = self._components(canvases, sizes, labels)
        if self.detectors:
            table, masks = self._boxes(canvases, sizes), masks if self.segmenters else {}
            if self.segmenters:
                table, masks = refine(table, components, masks, self.segmenters[0].refinement)
            if self.is_vinbig:
                table = BoxTable.concatenate([table, no_finding_rows(table, len(canvases), labels.get(ABNORMAL))])
            return Findings(table, masks)
        if self.segmenters:
            return Findings(components, masks)
        return Findings(self._label_rows(labels, sizes))

    def _boxes(self, canvases: np.ndarray, sizes: Sequence[tuple[int, int]]) -> BoxTable:
        tables, sources, weights = [], [], []
        for detector in self.detectors:
            scaled = np.stack([_rescaled(canvas, detector.canvas_size) for canvas in canvases])
            for flip in self._views(detector.flips):
                for image, (boxes, labels, scores) in enumerate(detector.detect(scaled, flip)):
                    boxes = Canvas(*sizes[image], detector.canvas_size).to_original(boxes)
                    tables.append(BoxTable.of(np.full(len(boxes), image), labels, boxes, scores))
                    sources.append(np.full(len(boxes), len(weights)))
                weights.append(1.0)
        table, source = BoxTable.concatenate(tables), np.concatenate(sources)
        if len(weights) > 1:
            table = weighted_boxes_fusion(table, source, weights, FUSION_IOU).table
        return table.best_per_image(self.max_detections)

    def _components(
        self, canvases: np.ndarray, sizes: Sequence[tuple[int, int]], labels: dict[str, np.ndarray]
    ) -> tuple[BoxTable, dict[int, dict[str, Any]]]:
        """Connected components of the models' mean probability, as rows with masks."""
        if not self.segmenters:
            return BoxTable.empty(), {}
        size = max(segmenter.canvas_size for segmenter in self.segmenters)
        views = []
        for segmenter in self.segmenters:
            scaled = np.stack([_rescaled(canvas, segmenter.canvas_size) for canvas in canvases])
            for flip in self._views(segmenter.flips):
                found = segmenter.probability(scaled, flip)
                views.append(np.stack([[_rescaled(channel, size) for channel in channels] for channels in found]))
        probability = np.mean(views, axis=0)
        first = self.segmenters[0]
        gate = labels.get(FINDINGS[PNEUMOTHORAX])
        tables, masks, n = [], {}, 0
        for image, channels in enumerate(probability):
            if gate is not None and self.gate == "hard" and gate[image] < self.gate_threshold:
                continue
            canvas = Canvas(*sizes[image], size)
            table, own = mask_findings(channels, canvas, list(first.categories), first.threshold, image)
            if gate is not None and self.gate == "soft":
                table = dataclasses.replace(table, scores=table.scores * gate[image])
            tables.append(table)
            masks |= {n + row: mask for row, mask in own.items()}
            n += len(table)
        return BoxTable.concatenate(tables), masks

    def _label_probabilities(self, canvases: np.ndarray) -> dict[str, np.ndarray]:
        """Name of each label → (B,) mean probability over the models and views that know it."""
        found: dict[str, list[np.ndarray]] = {}
        for classifier in self.classifiers:
            scaled = np.stack([_rescaled(canvas, classifier.canvas_size) for canvas in canvases])
            for flip in self._views(classifier.flips):
                for label, column in zip(classifier.labels, classifier.probability(scaled, flip).T, strict=True):
                    found.setdefault(label, []).append(column)
        return {label: np.mean(columns, axis=0) for label, columns in found.items()}

    def _label_rows(self, labels: dict[str, np.ndarray], sizes: Sequence[tuple[int, int]]) -> BoxTable:
        tables = []
        for category, name in self.categories.items():
            boxes = [(0, 0, width, height) for width, height in sizes]
            tables.append(BoxTable.of(np.arange(len(sizes)), np.full(len(sizes), category), boxes, labels[name]))
        table = BoxTable.concatenate(tables)
        return table.select(np.lexsort((-table.scores, table.images)))

    def _views(self, flips: bool) -> tuple[bool, ...]:
        return (False, True) if self.flips and flips else (False,)


def no_finding_rows(table: BoxTable, n_images: int, abnormal: np.ndarray | None = None) -> BoxTable:
    """One row a radiograph with the probability that it is normal.

    abnormal: (n_images,) a classifier's probability that it is not; without one, the score of its surest finding.

    It is soft on purpose: deciding normal or abnormal and deleting the rest costs mean average precision.
    """
    if abnormal is None:
        abnormal = np.zeros(n_images)
        np.maximum.at(abnormal, table.images, table.scores)
    return BoxTable.of(
        np.arange(n_images), np.full(n_images, NO_FINDING_CATEGORY), [NO_FINDING_BOX] * n_images, 1 - abnormal
    )


def load_pipeline(
    runs: Sequence[Path],
    device: torch.device,
    flips: bool = True,
    gate: Literal["soft", "hard"] = "soft",
    gate_threshold: float = 0.5,
) -> Pipeline:
    """Loads run directories of any tasks onto a device.

    Raises InputError if one is no run, or models of one task disagree on what they find.
    """
    if not runs:
        raise InputError("no run directory given: name at least one after --weights")
    loaded: dict[str, list[Any]] = {"detection": [], "segmentation": [], "classification": []}
    for run in runs:
        description, state = load_deployed(run)
        task = description["task"]
        if task not in loaded:
            raise InputError(f"{run} is a run of the unknown task {task}: it must be one of {', '.join(loaded)}")
        same = loaded[task]
        same.append(_load(run, description, state, device))
        if task != "classification" and same[-1].categories != same[0].categories:
            raise InputError(f"{run} finds other categories than {runs[0]}: models of one ensemble must agree on them")
    detectors, segmenters, classifiers = (tuple(models) for models in loaded.values())
    if detectors and segmenters and not _finds_pneumothorax(detectors[0], segmenters[0]):
        raise InputError(
            "a segmenter beside a detector refines its pneumothorax boxes: both must know Pneumothorax alone"
        )
    if detectors or segmenters:
        categories = (detectors or segmenters)[0].categories
    else:
        names = dict.fromkeys(label for classifier in classifiers for label in classifier.labels)
        known = {name: number for number, name in VINBIG_CATEGORIES.items()}
        in_vinbig = set(names) <= set(known)
        categories = {known[name]: name for name in names} if in_vinbig else dict(enumerate(names, 1))
    return Pipeline(
        detectors,
        categories,
        flips,
        segmenters=segmenters,
        classifiers=classifiers,
        gate=gate,
        gate_threshold=gate_threshold,
    )


def _finds_pneumothorax(detector: LoadedDetector, segmenter: LoadedSegmenter) -> bool:
    name = FINDINGS[PNEUMOTHORAX]
    return detector.categories.get(PNEUMOTHORAX_CATEGORY) == name and list(segmenter.categories.values()) == [name]


def _load(run: Path, description: dict[str, Any], state: dict[str, Any], device: torch.device) -> Any:
    try:
        categories = {int(category_id): str(name) for category_id, name in description["categories"].items()}
        size, architecture = int(description["canvas_size"]), description["architecture"]
        flips = bool(description.get("flips", True))
        # Each task brings libraries of its own: only those that are needed are imported.
        if description["task"] == "detection":
            model: nn.Module = build_detector(max(categories), size, **architecture)
        elif description["task"] == "segmentation":
            from xray.segmentation.model import build_segmenter

            model = build_segmenter(n_classes=len(categories), **architecture)
        else:
            from xray.classification.model import build_classifier

            model = build_classifier(canvas=size, **architecture)
        model.load_state_dict(state)
        model = model.eval().to(device)
        if description["task"] == "detection":
            return LoadedDetector(model, size, categories, mirrored(categories), flips)
        if description["task"] == "segmentation":
            threshold = float(description["thresholds"]["mask"])
            setting = Refinement(**description.get("refinement", {}))
            return LoadedSegmenter(model, size, categories, mirrored(categories), flips, threshold, setting)
        labels = tuple(str(label) for label in description["labels"])
        one_sided = any(mirrored(categories)[category] != category for category in categories)
        return LoadedClassifier(model, size, labels, flips and not one_sided)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        # PyTorch lists every tensor that differs.
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{run} does not hold the model that its model.json describes: {reason}") from None


def _rescaled(canvas: np.ndarray, size: int) -> np.ndarray:
    if len(canvas) == size:
        return canvas
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA if size < len(canvas) else cv2.INTER_LINEAR)
