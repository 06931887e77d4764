"""Trained models → the findings of radiographs.

One pass serves every kind of run: detectors find boxes, segmenters masks, classifiers probabilities of whole
radiographs; the outputs of those that are loaded are combined (see `Pipeline.postprocess`).
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from xray.findings import CATEGORIES, FINDINGS, NO_FINDING_BOX, PNEUMOTHORAX
from xray.inference.ensemble import ByCategory, fuse_alike, fuse_members, weigh_boxes
from xray.inference.findings import Findings
from xray.inference.loaded import (
    ABNORMAL,
    HALF,
    LoadedClassifier,
    LoadedDetector,
    LoadedPair,
    LoadedSegmenter,
)
from xray.inference.refine import refine
from xray.radiographs.canvas import Canvas, rescaled
from xray.structures.boxes import BoxTable, concatenate_with_masks
from xray.structures.components import mask_findings
from xray.structures.predictions import NO_FINDING_CATEGORY
from xray.structures.triplet import Triplet

AnyModel = TypeVar("AnyModel", LoadedDetector, LoadedSegmenter, LoadedClassifier, LoadedPair)

VINBIG_CATEGORIES = {category["id"]: category["name"] for category in CATEGORIES}

GATE = 0.5
"""The threshold of a classifier before a segmenter in the projects that this one continues."""


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The outputs of each model for a batch, a view at a time, before anything is combined.

    boxes: detector → per radiograph boxes on its canvas, category ids, scores. masks: (B, K, S, S) float32 in [0, 1] of
    each segmenter. labels: classifier → (B, K) in [0, 1].
    """

    boxes: list[tuple[LoadedDetector, list[tuple[np.ndarray, np.ndarray, np.ndarray]]]] = dataclasses.field(
        default_factory=list
    )
    masks: list[np.ndarray] = dataclasses.field(default_factory=list)
    labels: list[tuple[LoadedClassifier, np.ndarray]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """All models of an ensemble, and how their outputs are combined.

    categories: of the rows that `find` returns. flips: adds the mirrored radiograph (test-time augmentation).
    scales: sizes at which detectors and segmenters look at each radiograph, in units of their canvas; classifiers look
    at size 1 only. The views of a model are combined as several models are.
    triplet: decides which pixels are a mask. gate: the effect of a classifier. "soft" multiplies the scores of masks by
    its pneumothorax probability, and those of boxes by the probabilities of their categories (`Settings.exponents`).
    "hard" leaves out masks where that probability is below `gate_threshold`, and all findings of the other models where
    the probability of an abnormal/normal classifier is below it, which costs mean average precision.
    settings: of fusion and classifier, by category. members: of each detector the number of the model in an
    ensemble.yaml that it is part of; empty without one.
    pairs: detectors and segmenters on one trunk, which then runs once for both. precision: of convolutions and matrix
    products; boxes, suppression and probabilities are float32 in any case.
    """

    detectors: tuple[LoadedDetector, ...]
    categories: dict[int, str]
    flips: bool = True
    max_detections: int = 100
    segmenters: tuple[LoadedSegmenter, ...] = ()
    classifiers: tuple[LoadedClassifier, ...] = ()
    triplet: Triplet = HALF
    gate: Literal["soft", "hard"] = "soft"
    gate_threshold: float = GATE
    pairs: tuple[LoadedPair, ...] = ()
    precision: torch.dtype = torch.float32
    scales: tuple[float, ...] = (1.0,)
    settings: ByCategory = dataclasses.field(default_factory=ByCategory)
    members: tuple[int, ...] = ()

    @property
    def models(self) -> tuple[LoadedDetector | LoadedSegmenter | LoadedClassifier, ...]:
        """All models."""
        return (*self.detectors, *self.segmenters, *self.classifiers)

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return next(self.models[0].model.parameters()).device

    @property
    def canvas_size(self) -> int:
        """Side of the canvases to hand to `find`, in pixels: that of the largest model."""
        return max(model.canvas_size for model in self.models)

    @property
    def bits(self) -> int:
        """Bits of the canvases to hand to `find`, 8 or 16: the most that a model was trained on. Other models round."""
        return max(model.bits for model in self.models)

    @property
    def is_vinbig(self) -> bool:
        """Whether the rows are the 14 findings, so that "No finding" (category 15) has a meaning."""
        return bool(self.detectors) and self.categories == VINBIG_CATEGORIES

    @property
    def has_places(self) -> bool:
        """Whether places of findings are looked for: boxes or masks, and not labels of whole radiographs alone."""
        return bool(self.detectors or self.segmenters)

    def find(self, canvases: np.ndarray, sizes: Sequence[tuple[int, int]]) -> Findings:
        """The findings of a batch of radiographs: `postprocess` of what `forward` returns.

        canvases: (B, S, S) uint8, or uint16 for `bits` 16, with S = `canvas_size`. sizes: (width, height) of each
            in original pixels.
        """
        return self.postprocess(self.forward(canvases), sizes)

    def forward(self, canvases: np.ndarray) -> Outputs:
        """The outputs of all models and views for a batch of canvases, as `find` takes them: its part for the GPU, if
        there is one."""
        outputs = Outputs()
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            for classifier, flip, scaled in self._views(self.classifiers, canvases):
                outputs.labels.append((classifier, classifier.probability(scaled, flip)))
            paired: dict[tuple[int, bool, int], Any] = {}  # (id of the detector or segmenter, *view) → its output
            for pair, flip, scaled in self._views(self.pairs, canvases):
                view = flip, scaled.shape[-1]
                paired[id(pair.detector), *view], paired[id(pair.segmenter), *view] = pair.find(scaled, flip)
            for segmenter, flip, scaled in self._views(self.segmenters, canvases):
                masks = paired.get((id(segmenter), flip, scaled.shape[-1]))
                outputs.masks.append(segmenter.probability(scaled, flip) if masks is None else masks)
            for detector, flip, scaled in self._views(self.detectors, canvases):
                shared = paired.get((id(detector), flip, scaled.shape[-1]))
                outputs.boxes.append((detector, shared or detector.detect(scaled, flip)))
        return outputs

    def postprocess(self, outputs: Outputs, sizes: Sequence[tuple[int, int]]) -> Findings:
        """The findings of the radiographs of which `forward` gave the outputs; needs no model.

        Detectors give boxes, at most `max_detections` a radiograph, highest score first; for the 14 findings there is
        one "No finding" row a radiograph, whose probability is that of an abnormal/normal classifier where there is
        one. A segmenter refines the detectors' pneumothorax boxes (`refine`); without detectors, each component
        of its masks is a row. Classifiers alone give a row with the radiograph's own box for each label.
        """
        labels = _label_probabilities(outputs)
        maps = self._maps(outputs)
        components = BoxTable.empty()
        masks: dict[int, dict[str, Any]] = {}
        if maps is not None:
            components, masks = self._components(maps, sizes, labels)
        if self.detectors:
            table = self._boxes(outputs, sizes, labels)
            if self.segmenters:
                table, masks = refine(table, components, masks, self.segmenters[0].refinement, self._pneumothorax)
        elif self.segmenters:
            table = components
        else:
            table = self._label_rows(labels, sizes)
        abnormal = labels.get(ABNORMAL)
        if abnormal is not None and self.gate == "hard":
            is_normal = abnormal < self.gate_threshold
            table, masks = table.select_masked(~is_normal[table.images], masks)
            abnormal = np.where(is_normal, 0.0, abnormal)
        if self.is_vinbig or (abnormal is not None and NO_FINDING_CATEGORY not in self.categories):
            table = BoxTable.concatenate([table, no_finding_rows(table, len(sizes), abnormal)])
        return Findings(table, masks, maps, labels, self.has_places)

    @property
    def hard_gate(self) -> float | None:
        """The probability below which findings are left out; None where all are kept."""
        return self.gate_threshold if self.gate == "hard" and self.classifiers else None

    @property
    def _pneumothorax(self) -> int:
        return next(number for number, name in self.categories.items() if name == FINDINGS[PNEUMOTHORAX])

    def _boxes(self, outputs: Outputs, sizes: Sequence[tuple[int, int]], labels: dict[str, np.ndarray]) -> BoxTable:
        tables, sources = [], []
        for source, (detector, detections) in enumerate(outputs.boxes):
            for image, (boxes, categories, scores) in enumerate(detections):
                boxes = Canvas(*sizes[image], detector.canvas_size).to_original(boxes)
                # A box in the border around the radiograph has no area left, and shows nothing.
                has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
                tables.append(
                    BoxTable.of(np.full(has_area.sum(), image), categories[has_area], boxes[has_area], scores[has_area])
                )
                sources.append(np.full(has_area.sum(), source))
        table, of_table = BoxTable.concatenate(tables), np.concatenate([np.zeros(0, dtype=np.int64), *sources])
        if self.members:
            member = {id(detector): number for detector, number in zip(self.detectors, self.members, strict=True)}
            members = np.array([member[id(detector)] for detector, _ in outputs.boxes])
            table = fuse_members(table, of_table, members, self.settings, self.max_detections)
        elif len(outputs.boxes) > 1:
            table = fuse_alike(table, of_table, len(outputs.boxes))
        if self.gate == "soft":
            known = {number: labels[name] for number, name in self.categories.items() if name in labels}
            table = weigh_boxes(table, known, self.settings)
        return table.best_per_image(self.max_detections)

    def _maps(self, outputs: Outputs) -> np.ndarray | None:
        """Mean probability of the segmenters and views, (B, K, S, S), on the largest of their canvases."""
        if not outputs.masks:
            return None
        size = max(segmenter.canvas_size for segmenter in self.segmenters)
        views = (np.stack([[rescaled(each, size) for each in channels] for channels in view]) for view in outputs.masks)
        total: np.ndarray = functools.reduce(np.add, views)
        # Rounded as they are stored, so that masks drawn now and thresholds searched later see the same values.
        return np.rint(total / len(outputs.masks) * 255).astype(np.float32) / 255

    def _components(
        self, maps: np.ndarray, sizes: Sequence[tuple[int, int]], labels: dict[str, np.ndarray]
    ) -> tuple[BoxTable, dict[int, dict[str, Any]]]:
        """Connected components of the masks, as rows."""
        gate = labels.get(FINDINGS[PNEUMOTHORAX])
        categories = list(self.segmenters[0].categories)
        parts = []
        for image, channels in enumerate(maps):
            if gate is not None and self.gate == "hard" and gate[image] < self.gate_threshold:
                continue
            canvas = Canvas(*sizes[image], channels.shape[-1])
            table, masks = mask_findings(channels, canvas, categories, self.triplet, image)
            if gate is not None and self.gate == "soft":
                table = dataclasses.replace(table, scores=table.scores * gate[image])
            parts.append((table, masks))
        return concatenate_with_masks(parts)

    def _label_rows(self, labels: dict[str, np.ndarray], sizes: Sequence[tuple[int, int]]) -> BoxTable:
        tables = []
        for category, name in self.categories.items():
            boxes = [(0, 0, width, height) for width, height in sizes]
            tables.append(BoxTable.of(np.arange(len(sizes)), np.full(len(sizes), category), boxes, labels[name]))
        table = BoxTable.concatenate(tables)
        return table.select(np.lexsort((-table.scores, table.images)))

    def _views(self, models: Sequence[AnyModel], canvases: np.ndarray) -> Iterator[tuple[AnyModel, bool, np.ndarray]]:
        """Each model with each of its views: at each scale as it is and, where the model flips, mirrored."""
        for model in models:
            scales = (1.0,) if isinstance(model, LoadedClassifier) else self.scales
            for size in dict.fromkeys(view_size(model.canvas_size, scale) for scale in scales):
                scaled = canvases
                if canvases.shape[-1] != size:
                    scaled = np.stack([rescaled(canvas, size) for canvas in canvases])
                for flip in (False, True) if self.flips and model.flips else (False,):
                    yield model, flip, scaled


def view_size(canvas_size: int, scale: float) -> int:
    """Pixels a side of a view: the nearest multiple of 32, of which networks need no padding, and at least 64."""
    return canvas_size if scale == 1 else max(64, round(canvas_size * scale / 32) * 32)


def no_finding_rows(table: BoxTable, n_images: int, abnormal: np.ndarray | None = None) -> BoxTable:
    """One row a radiograph with the probability that it is normal.

    abnormal: (n_images,) a classifier's probability that a radiograph is not normal; without a classifier, the score of
    its surest finding counts as that. The row is soft on purpose: deciding between normal and abnormal, and deleting
    the rest, costs mean average precision.
    """
    if abnormal is None:
        abnormal = np.zeros(n_images)
        np.maximum.at(abnormal, table.images, table.scores)
    return BoxTable.of(
        np.arange(n_images), np.full(n_images, NO_FINDING_CATEGORY), [NO_FINDING_BOX] * n_images, 1 - abnormal
    )


def _label_probabilities(outputs: Outputs) -> dict[str, np.ndarray]:
    """Name of each label → (B,) mean probability over the models and views that know it."""
    columns_of: dict[str, list[np.ndarray]] = {}
    for classifier, probabilities in outputs.labels:
        for label, column in zip(classifier.labels, probabilities.T, strict=True):
            columns_of.setdefault(label, []).append(column)
    return {label: np.mean(columns, axis=0) for label, columns in columns_of.items()}
