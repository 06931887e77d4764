"""Models of run directories, ready to run: canvases in, boxes, mask probabilities or label probabilities out."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xray.errors import InputError
from xray.inference.refine import Refinement
from xray.models.detection.detector import Detector, build_detector
from xray.models.kernels.convolutions import speed_up_inference
from xray.models.kernels.norms import fold_batch_norms
from xray.models.weights import load_deployed
from xray.radiographs.canvas import in_8_bits, in_levels
from xray.radiographs.names import has_control
from xray.structures.sides import from_pairs, mirrored
from xray.structures.triplet import Triplet

UNCHANGED = Refinement()
HALF = Triplet(0.5, 0.0, 0.5)
"""Every pixel above 0.5, without a condition on the whole radiograph."""

RUN_TASK = "detection+segmentation"
"""What model.json calls the task of a run that holds both, on one trunk."""

ABNORMAL = "abnormal"
"""The label of a classifier that tells abnormal from normal radiographs."""

RUN_TASK = "detection+segmentation"
"""What model.json calls the task of a run that holds a detector and a segmenter on its trunk."""


@dataclasses.dataclass(frozen=True)
class LoadedDetector:
    """A detector of a run directory, ready to run.

    canvas_size: pixels a side. mirror: {category: category on a flipped radiograph}. flips: whether it was trained on
    mirrored radiographs. A model that was not knows the heart on one side only, and is shown no mirrored radiographs.
    bits: of the canvases that it was trained on, 8 or 16.
    """

    model: nn.Module
    canvas_size: int
    categories: dict[int, str]
    mirror: dict[int, int]
    flips: bool = True
    bits: int = dataclasses.field(default=8, kw_only=True)

    @torch.inference_mode()
    def detect(self, canvases: np.ndarray, flip: bool) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(B, S, S) uint8 or uint16 → per radiograph boxes (M, 4), category ids (M,), scores (M,).

        Canvases may have another size than `canvas_size`; the boxes are in pixels of `canvas_size` in any case. flip:
        the model sees mirrored radiographs, and boxes and sides are mirrored back.
        """
        return self.results(self.model(_as_input(canvases, flip, self)), flip, canvases.shape[-1])

    def results(
        self, outputs: list[dict[str, Tensor]], flip: bool, size: int = 0
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """What `detect` returns, from the model's own output on canvases of `size` pixels; 0 is `canvas_size`."""
        size, results = size or self.canvas_size, []
        for detections in outputs:
            boxes = detections["boxes"].float().cpu().numpy().astype(np.float64)
            labels = detections["labels"].cpu().numpy()
            if flip:
                boxes = size * np.array([1, 0, 1, 0]) + boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1]
                labels = np.array([self.mirror[label] for label in labels.tolist()], dtype=np.int64)
            if size != self.canvas_size:
                boxes = boxes * (self.canvas_size / size)
            results.append((boxes, labels, detections["scores"].float().cpu().numpy().astype(np.float64)))
        return results


@dataclasses.dataclass(frozen=True)
class LoadedSegmenter:
    """A segmenter of a run directory, ready to run.

    triplet: which pixels belong to a mask. refinement: how the boxes of a detector beside it follow the mask.
    gate: probability of a classifier beside it below which there is no mask; None where none was fitted.
    The other attributes are those of LoadedDetector.
    """

    model: nn.Module
    canvas_size: int
    categories: dict[int, str]
    mirror: dict[int, int]
    flips: bool = True
    triplet: Triplet = HALF
    refinement: Refinement = UNCHANGED
    gate: float | None = None
    bits: int = dataclasses.field(default=8, kw_only=True)

    @torch.inference_mode()
    def probability(self, canvases: np.ndarray, flip: bool) -> np.ndarray:
        """(B, S, S) uint8 or uint16 → (B, K, S, S) float32 in [0, 1], a channel for each category.

        flip: as `detect` has it.
        """
        return self.results(self.model(_as_input(canvases, flip, self)), flip)

    def results(self, logits: Tensor, flip: bool) -> np.ndarray:
        """What `probability` returns, from the model's own output."""
        probability = logits.float().sigmoid()
        if flip:
            order = list(self.categories)
            probability = probability.flip(-1)[:, [order.index(self.mirror[category]) for category in order]]
        return probability.cpu().numpy()


@dataclasses.dataclass(frozen=True)
class LoadedClassifier:
    """A classifier of a run directory, ready to run.

    labels: names of its outputs, ["abnormal"] for one that tells abnormal from normal radiographs.
    categories: id → name of the labels; empty for abnormal. order: the order of its outputs for a mirrored radiograph;
    empty where no label has a side.
    """

    model: nn.Module
    canvas_size: int
    labels: tuple[str, ...]
    categories: dict[int, str]
    flips: bool = True
    order: tuple[int, ...] = ()
    bits: int = dataclasses.field(default=8, kw_only=True)

    @torch.inference_mode()
    def probability(self, canvases: np.ndarray, flip: bool) -> np.ndarray:
        """(B, S, S) uint8 or uint16 → (B, K) float32 in [0, 1]; flip: of the mirrored ones, sides swapped back."""
        probability = self.model(_as_input(canvases, flip, self)).float().sigmoid().cpu().numpy()
        return probability[:, list(self.order)] if flip and self.order else probability


@dataclasses.dataclass(frozen=True)
class LoadedPair:
    """A detector and a segmenter on its trunk, and both as one model (`xray.inference.shared_trunk`)."""

    detector: LoadedDetector
    segmenter: LoadedSegmenter
    model: nn.Module

    @property
    def canvas_size(self) -> int:
        """Pixels a side of the canvases of both models."""
        return self.detector.canvas_size

    @property
    def bits(self) -> int:
        """Bits of the canvases of both models."""
        return self.detector.bits

    @property
    def flips(self) -> bool:
        """Whether both models are shown mirrored radiographs; where only one is, it runs alone on these."""
        return self.detector.flips and self.segmenter.flips

    @torch.inference_mode()
    def find(
        self, canvases: np.ndarray, flip: bool
    ) -> tuple[list[tuple[np.ndarray, np.ndarray, np.ndarray]], np.ndarray]:
        """What the detector's `detect` and the segmenter's `probability` return, from one pass of the trunk."""
        detections, logits = self.model(_as_input(canvases, flip, self))
        return self.detector.results(detections, flip, canvases.shape[-1]), self.segmenter.results(logits, flip)


def pairs_on_one_trunk(
    detectors: Sequence[LoadedDetector], segmenters: Sequence[LoadedSegmenter]
) -> tuple[LoadedPair, ...]:
    """The pairs that can run in one pass: each segmenter with a detector of the same canvas, bits and trunk; no
    detector twice."""
    if not (detectors and segmenters):
        return ()
    from xray.inference.shared_trunk import DetectorWithMask, shares_canvas
    from xray.models.segmentation.segmenter import Segmenter

    pairs: list[LoadedPair] = []
    for segmenter in segmenters:
        size, mask_model = segmenter.canvas_size, segmenter.model
        for detector in detectors:
            box_model = detector.model
            if not (isinstance(box_model, Detector) and isinstance(mask_model, Segmenter)):
                continue
            is_free = detector.canvas_size == size and all(detector is not pair.detector for pair in pairs)
            if is_free and detector.bits == segmenter.bits and shares_canvas(mask_model, size):
                with contextlib.suppress(ValueError):  # on another trunk
                    pairs.append(LoadedPair(detector, segmenter, DetectorWithMask(box_model, mask_model).eval()))
                    break
    return tuple(pairs)


def _as_input(
    canvases: np.ndarray, flip: bool, loaded: LoadedDetector | LoadedSegmenter | LoadedClassifier | LoadedPair
) -> Tensor:
    """(B, S, S) uint8 or uint16 → (B, 1, S, S) uint8 or float32 grey levels on the model's device, mirrored or not."""
    levels = in_levels(canvases) if loaded.bits > 8 else in_8_bits(canvases)
    device = next(loaded.model.parameters()).device
    images = torch.from_numpy(np.require(levels, requirements="W"))[:, None].to(device)
    return images.flip(-1) if flip else images


Loaded = LoadedDetector | LoadedSegmenter | LoadedClassifier


def load_run(run: Path, device: torch.device, prune: int = 0) -> list[tuple[str, Loaded]]:
    """Loads one run directory onto a device → (task, model) of each of its models: two for detection+segmentation.

    prune: level to which a U-Net++ trained with deep supervision is cut; 0 leaves segmenters whole.
    Raises InputError if it is no run, of an unknown task, damaged, or cannot be pruned so.
    """
    description, state = load_deployed(run)
    task = description["task"]
    with as_described(run):
        if task == RUN_TASK:
            from xray.inference.shared_trunk import load_detector_with_mask

            detector, detection, segmenter, segmentation = load_detector_with_mask(run)
            loaded = [
                ("detection", loaded_of(detection, detector)),
                ("segmentation", loaded_of(segmentation, segmenter)),
            ]
        elif task in ("detection", "segmentation", "classification"):
            network = build_network(description)
            network.load_state_dict(state)
            loaded = [(task, loaded_of(description, network))]
        else:
            raise InputError(
                f"{run} is a run of the unknown task {task}: it must be detection, segmentation or classification"
            )
    for task, model in loaded:
        if prune and task == "segmentation":
            try:
                model.model.prune(prune)  # type: ignore[operator]  # a Segmenter, whose import takes seconds
            except ValueError as error:
                raise InputError(f"--prune {prune} cannot be applied to {run}: {error}") from None
        # Convolutions are faster on it than on PyTorch's own order, on CPUs as on GPUs.
        model.model.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch has it
    return loaded


def prepare(loaded: Loaded, device: torch.device) -> None:
    """Makes a model fast in inference, in place: norms folded, and on a CPU faster convolutions.

    Call it after `pairs_on_one_trunk`, which compares tensors that are changed here. A pair runs the modules of its
    detector and its segmenter, and so becomes fast with these.
    """
    fold(loaded, device)
    if device.type == "cpu":
        speed_up_inference(loaded.model)


def fold(loaded: Loaded, device: torch.device) -> None:
    """Folds the norms of a model, in place."""
    # Only a classifier may be bound to one size of canvas; for the others a small one shows how they are built.
    size = loaded.canvas_size if isinstance(loaded, LoadedClassifier) else min(loaded.canvas_size, 64)
    fold_batch_norms(loaded.model, torch.zeros((1, 1, size, size), dtype=torch.uint8, device=device))


@contextlib.contextmanager
def as_described(run: Path) -> Iterator[None]:
    """Raises InputError in place of the errors inside, which arise where a run's model.json and its weights do not fit
    together."""
    try:
        yield
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RuntimeError) as error:
        # PyTorch lists every tensor that differs.
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{run} does not hold the model that its model.json describes: {reason}") from None


def build_network(description: dict[str, Any]) -> nn.Module:
    """The network that model.json describes, with random weights. A damaged description raises various errors, see
    `loaded_of`."""
    categories, size = _categories(description), int(description["canvas_size"])
    # Each task brings libraries of its own: only those that are needed are imported.
    if description["task"] == "detection":
        return build_detector(max(categories), size, **description["architecture"])
    if description["task"] == "segmentation":
        from xray.models.segmentation.segmenter import build_segmenter

        return build_segmenter(n_classes=len(categories), **description["architecture"])
    from xray.models.classification.classifier import build_classifier

    return build_classifier(canvas=size, **description["architecture"])


def loaded_of(description: dict[str, Any], network: nn.Module) -> Loaded:
    """A network of any of the three tasks with what its description in model.json says.

    Raises KeyError, TypeError, ValueError, OverflowError or AttributeError for a damaged description.
    """
    bits = description.get("bits", 8)
    if bits not in (8, 16):
        raise ValueError(f"bits is {bits!r}, neither 8 nor 16")
    return dataclasses.replace(_loaded_of(description, network), bits=int(bits))


def _loaded_of(description: dict[str, Any], network: nn.Module) -> Loaded:
    categories, size = _categories(description), int(description["canvas_size"])
    flips = bool(description.get("flips", True))
    # In runs of earlier versions names decide which categories swap, and classifiers learned labels that were not
    # swapped.
    is_early = "swap" not in description
    sides = mirrored(categories) if is_early else from_pairs(categories, description["swap"])
    if description["task"] == "detection":
        return LoadedDetector(network, size, categories, sides, flips)
    if description["task"] == "segmentation":
        thresholds = description["thresholds"]
        default = {"top": float(thresholds["mask"]), "min_area": 0.0, "bottom": float(thresholds["mask"])}
        triplet = Triplet(*(float(thresholds.get(name, value)) for name, value in default.items()))
        refinement = Refinement.of(description.get("refinement", {}))
        gate = float(thresholds["gate"]) if "gate" in thresholds else None
        return LoadedSegmenter(network, size, categories, sides, flips, triplet, refinement, gate)
    labels = tuple(str(label) for label in description["labels"])
    if labels == (ABNORMAL,):
        categories = {}
    if is_early:
        one_sided = any(other != category for category, other in sides.items())
        return LoadedClassifier(network, size, labels, categories, flips and not one_sided)
    order = tuple(list(categories).index(sides[category]) for category in categories)
    return LoadedClassifier(network, size, labels, categories, flips, order)


def _categories(description: dict[str, Any]) -> dict[int, str]:
    categories = {int(category_id): str(name) for category_id, name in description["categories"].items()}
    if strange := [name for name in (*categories.values(), *description.get("labels", ())) if has_control(str(name))]:
        raise ValueError(f"the name of a category, {strange[0]!r}, holds a control character or a line break")
    return categories
