"""torchvision's detector, its data and its training loop as its own references/detection sets them up.

And `compare`, which tells whether two detectors find the same, and the memory that a model's steps hold.
"""

import ctypes
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.transforms import v2

from xray.models.detection.anchor_fit import AnchorSides, standard_anchors
from xray.structures.boxes import BoxTable, box_iou
from xray.training.loading import BoxDataset

SPREAD, BACKGROUND = 2.0, 8.0
"""Of the logits of spread weights: their standard deviation, and by how much that of the background is higher."""


class PngDataset(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """PNG files with their boxes, through the transforms of torchvision's references/detection ("hflip").

    An item is a (3, S, S) float32 image in [0, 1] and its target: `boxes` (N, 4) xyxy and `labels` (N,).

    paths: a file for each radiograph of `truth`, in its order. flip: share of them that are mirrored.
    """

    def __init__(self, paths: Sequence[Path], truth: BoxDataset, flip: float) -> None:
        self.paths = list(paths)
        items = [truth[position] for position in range(len(truth))]
        self.targets = [{"boxes": item["boxes"], "labels": item["labels"]} for item in items]
        self.transforms = v2.Compose(
            [
                v2.ToImage(),
                v2.RandomHorizontalFlip(p=flip),
                v2.ToDtype(torch.float, scale=True),
                v2.SanitizeBoundingBoxes(),
                v2.ToPureTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = Image.open(self.paths[position]).convert("RGB")
        target = dict(self.targets[position])
        size = (image.height, image.width)
        target["boxes"] = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size)
        return self.transforms(image, target)


def collate_lists(batch: Sequence[tuple[Any, Any]]) -> tuple[Any, ...]:
    """Items → (images, targets), as in torchvision's references: its detectors take lists."""
    return tuple(zip(*batch, strict=True))


def as_float_images(canvases: Tensor) -> list[Tensor]:
    """(B, 1, S, S) uint8 → B of (3, S, S) float32 in [0, 1], what the PNG files of these canvases would load as."""
    return [canvas.expand(3, -1, -1).float() / 255 for canvas in canvases]


def torchvision_detector(
    n_categories: int,
    canvas_size: int,
    backbone: str = "resnet50",
    norm: str = "frozen",
    anchors: AnchorSides | None = None,
    **options: Any,
) -> FasterRCNN:
    """torchvision's own Faster R-CNN with a feature pyramid, as fasterrcnn_resnet50_fpn builds it for training.

    That is: FrozenBatchNorm2d, the last three stages of the trunk training. Only what must be ours for both to do the
    same work is: the canvas is not resized, and the anchors shrink with it.

    options: for FasterRCNN. The result depends on torch's random state.
    """
    norm_layer = FrozenBatchNorm2d if norm == "frozen" else nn.BatchNorm2d
    trunk = resnet_fpn_backbone(backbone_name=backbone, weights=None, norm_layer=norm_layer, trainable_layers=3)
    anchors = anchors or standard_anchors(canvas_size)
    return FasterRCNN(
        trunk,
        num_classes=n_categories + 1,
        min_size=canvas_size,
        max_size=canvas_size,
        rpn_anchor_generator=AnchorGenerator(anchors.sides, (anchors.ratios,) * len(anchors.sides)),
        **options,
    )


@torch.no_grad()
def spread_weights(detector: FasterRCNN, images: list[Tensor]) -> None:
    """Makes a detector of random weights behave like a trained one, as far as the amount of work is concerned.

    The frozen norms get the statistics of `images`, so that nothing overflows; objectness spreads, and the classes'
    scores do around a strong background, so that some hundred boxes and not all of them exceed a low threshold.
    """
    hooks = []

    def measure(norm: FrozenBatchNorm2d, inputs: tuple[Tensor]) -> None:
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        norm.running_var.copy_(inputs[0].var((0, 2, 3)))

    for module in detector.backbone.body.modules():
        if isinstance(module, FrozenBatchNorm2d):
            hooks.append(module.register_forward_pre_hook(measure))
    detector.eval()
    detector(images)
    for hook in hooks:
        hook.remove()
    # One after the other: what the second sees depends on the first.
    for layer in (detector.rpn.head.cls_logits, detector.roi_heads.box_predictor.cls_score):
        seen: list[Tensor] = []
        hook = layer.register_forward_hook(
            lambda _, __, output, seen=seen: seen.append(output.movedim(1, -1).reshape(-1, output.shape[1]))
        )
        detector(images)
        hook.remove()
        logits = torch.cat(seen)
        factor = SPREAD / (logits - logits.mean(0)).std()
        layer.weight.mul_(factor)
        layer.bias.copy_(factor * (layer.bias - logits.mean(0)))
    detector.roi_heads.box_predictor.cls_score.bias[0] += BACKGROUND


class TorchvisionLoop:
    """The training step of torchvision's references/detection: SGD, optionally its AMP, the loss read at every step.

    lr: so small that the weights, and with them the work, stay what they are.
    """

    def __init__(self, model: FasterRCNN, device: torch.device, amp: bool, lr: float) -> None:
        self.model, self.device, self.amp = model.train(), device, amp
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=1e-4)
        # On a CPU autocast computes in bfloat16, whose gradients need no scaling.
        self.scaler = torch.amp.GradScaler(device.type) if amp and device.type == "cuda" else None

    def step(self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]) -> float:
        """One step on a batch in the CPU's memory; returns its loss."""
        images = [image.to(self.device) for image in images]
        targets = [{name: value.to(self.device) for name, value in target.items()} for target in targets]
        with torch.amp.autocast(self.device.type, enabled=self.amp):
            losses = sum(self.model(images, targets).values())
        value = losses.item()
        if not math.isfinite(value):
            raise ArithmeticError(f"torchvision's loss is {value}")
        self.optimizer.zero_grad()
        if self.scaler is None:
            losses.backward()
            self.optimizer.step()
        else:
            self.scaler.scale(losses).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return value


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far two detectors found the same.

    boxes: detections held against each other. matched: share of them that have a partner.
    score, pixels: largest difference of the scores and of the coordinates of partners. iou: lowest of partners.
    """

    boxes: int
    matched: float
    score: float
    pixels: float
    iou: float


def compare(first: BoxTable, second: BoxTable, floor: float, slack: float) -> Agreement:
    """Looks for the partner of every box of each table in the other one: same image, same label, highest IoU.

    floor: scores from which a box counts. slack: scores this far below it may still be partners, since what lies at
    the floor may have fallen below it on the other side.
    """
    pairs = [_partners(*tables, floor, slack) for tables in ((first, second), (second, first))]
    score, pixels, iou = np.concatenate(pairs, axis=1)
    paired = iou > 0.5
    return Agreement(
        boxes=len(iou),
        matched=float(paired.mean()) if len(iou) else 1.0,
        score=float(score[paired].max(initial=0.0)),
        pixels=float(pixels[paired].max(initial=0.0)),
        iou=float(iou[paired].min(initial=1.0)),
    )


def _partners(table: BoxTable, other: BoxTable, floor: float, slack: float) -> np.ndarray:
    """(3, N): differences of score and coordinates and the IoU with the partner of each box above `floor`."""
    table, other = table.select(table.scores >= floor), other.select(other.scores >= floor - slack)
    partners = np.zeros((3, len(table)))
    for row in range(len(table)):
        candidates = np.flatnonzero((other.images == table.images[row]) & (other.labels == table.labels[row]))
        if not len(candidates):
            continue
        overlaps = box_iou(table.boxes[row : row + 1], other.boxes[candidates])[0]
        best = candidates[overlaps.argmax()]
        partners[0, row] = abs(table.scores[row] - other.scores[best])
        partners[1, row] = np.abs(table.boxes[row] - other.boxes[best]).max()
        partners[2, row] = overlaps.max()
    return partners


def table_of(detections: Sequence[dict[str, Tensor]]) -> BoxTable:
    """What a detector returns for a list of images → one table, in canvas pixels."""
    tables = [
        BoxTable.of(
            np.full(len(detection["boxes"]), image),
            *(detection[name].float().cpu().numpy() for name in ("labels", "boxes", "scores")),
        )
        for image, detection in enumerate(detections)
    ]
    return BoxTable.concatenate(tables)


def synchronize(device: torch.device) -> None:
    """Waits for the GPU, where one is used."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakMemory:
    """Most memory that a model's steps hold from here on, its weights, gradients and momenta included.

    The models of all sides lie in memory at the same time: what was there before is subtracted, and what belongs to the
    model itself is added.
    """

    def __init__(self, device: torch.device, model: torch.nn.Module) -> None:
        self.device = device
        everything = sum(p.nbytes for p in model.parameters())
        # A gradient and a momentum beside each that trains.
        self._model = everything + 2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
        self._start = self._reset()

    def _reset(self) -> int | None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return torch.cuda.memory_allocated(self.device)
        try:
            # What the other side freed would otherwise count as held by the process already.
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            return _status("VmRSS")
        except (OSError, AttributeError):
            return None

    def peak(self) -> int | None:
        """In bytes; None on a system that does not tell."""
        if self._start is None:
            return None
        held = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else _status("VmHWM")
        return held - self._start + self._model


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))
