"""Trained models as ONNX files: whole ones, canvases in, boxes and probabilities out, for onnxruntime in any language.

ONNX has operators for suppression and RoIAlign (NonMaxSuppression, RoiAlign). Here they are two operators of PyTorch,
each with its translation; the exporter itself translates everything else. All shapes but that of the batch are fixed:
a detector's outputs are padded to the largest number of boxes.
"""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from xray import __version__
from xray.errors import InputError
from xray.export.onnx_operators import TRANSLATIONS, pooled, suppressed
from xray.file_names import WEIGHTS_FILE
from xray.inference.exported import DESCRIPTION, INPUT, OUTPUTS, check_bits
from xray.inference.loaded import LoadedDetector, LoadedSegmenter, fold, load_run, pairs_on_one_trunk
from xray.inference.openvino_files import WEIGHTS, sha256_of
from xray.inference.shared_trunk import trunk_and_logits
from xray.models.detection import proposals, regions, retinanet
from xray.models.detection.anchors import Layout
from xray.models.detection.detector import Detector, FasterRCNN, RetinaNet
from xray.models.detection.matching import decode, large_enough
from xray.models.detection.pooling import POOLED_LEVELS, level_of
from xray.models.segmentation.segmenter import Segmenter
from xray.models.weights import load_deployed

OPSET = 18
"""What the exporter writes without converting; onnxruntime reads it since 1.14."""
MEANINGS = {
    INPUT: "(batch, 1, S, S) uint8: grey levels as displayed, 0 black, the radiograph scaled until its longer side is "
    "S pixels, centred, the rest black",
    "boxes": "(batch, M, 4) float32: x1, y1, x2, y2 in canvas pixels, highest score first",
    "labels": "(batch, M) int64: category ids of the description; 0 after the last box",
    "scores": "(batch, M) float32 in [0, 1]; 0 after the last box",
    "masks": "(batch, K, S, S) float32 in [0, 1]: probability of each pixel, a channel for each category",
    "probabilities": "(batch, K) float32 in [0, 1]: of each label of the description",
}
"""What inputs and outputs are; in the file, too."""


class DetectorGraph(nn.Module):
    """A detector of fixed shapes, alone or with a segmenter on its trunk."""

    def __init__(self, detector: Detector, layout: Layout, segmenter: Segmenter | None = None) -> None:
        super().__init__()
        self.detector, self.layout, self.segmenter = detector, layout, segmenter

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 1, S, S) → boxes (B, M, 4), labels (B, M), scores (B, M), of a segmenter also masks (B, K, S, S).

        Highest scores come first; after the last box scores and labels are 0.
        """
        if self.segmenter is None:
            pixels = (images - self.detector.mean) / self.detector.std
            return self._find(list(self.detector.backbone(pixels).values()))
        features, logits = trunk_and_logits(self.detector, self.segmenter, images)
        return *self._find(list(self.detector.backbone.fpn(features).values())), logits.sigmoid()

    def _find(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, labels and scores from the pyramid's five maps."""
        raise NotImplementedError


class FasterRCNNGraph(DetectorGraph):
    """A Faster R-CNN."""

    detector: FasterRCNN

    def __init__(self, detector: FasterRCNN, layout: Layout, segmenter: Segmenter | None = None) -> None:
        super().__init__(detector, layout, segmenter)
        self.strides = layout.stride[:POOLED_LEVELS].tolist()

    def _find(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        boxes, real = self._proposals(pyramid)
        heads, layout = self.detector.roi_heads, self.layout
        batch, count = real.shape
        rows = boxes.flatten(0, 1)
        images = torch.arange(batch)[:, None].expand(-1, count).flatten()
        features = pooled(pyramid[:POOLED_LEVELS], rows, images, level_of(rows, layout), self.strides)
        logits, offsets = heads.box_predictor(heads.box_head(features))
        scores = logits.softmax(-1)[:, 1:]  # without the background
        n_labels = scores.shape[1]
        decoded = decode(offsets.view(-1, n_labels + 1, 4)[:, 1:], rows[:, None], regions.WEIGHTS, layout.size)
        decoded = decoded.view(batch, count, n_labels, 4).transpose(1, 2)  # (B, C, P, 4)
        scores = scores.view(batch, count, n_labels).transpose(1, 2)
        scores = torch.where(large_enough(decoded, regions.SMALLEST) & real[:, None], scores, 0)
        remain = suppressed(decoded.flatten(0, 1), scores.flatten(0, 1), heads.score_threshold, regions.SUPPRESSION)
        # In the order of proposals, then labels, which decides between equal scores: ONNX's TopK takes the first.
        scores = torch.where(remain.view(batch, n_labels, count), scores, 0).transpose(1, 2).flatten(1)
        best, order = scores.topk(min(heads.max_detections, scores.shape[1]))
        boxes = decoded.transpose(1, 2).flatten(1, 2).gather(1, order[..., None].expand(-1, -1, 4))
        there = best > 0
        return boxes * there[..., None], torch.where(there, order % n_labels + 1, 0), best

    def _proposals(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes (B, P, 4), and which of them are real (B, P)."""
        rpn, layout = self.detector.rpn, self.layout
        boxes, scores = [], []
        anchors = layout.anchors.split(layout.anchors_of_level)
        for logits, offsets, of_level in zip(*rpn.head(pyramid), anchors, strict=True):
            keep = min(rpn.keep_inference, len(of_level))
            score, best = _by_cell(logits, 1).squeeze(-1).topk(keep)
            offset = _by_cell(offsets, 4).gather(1, best[..., None].expand(-1, -1, 4))
            box = decode(offset, of_level[best], proposals.WEIGHTS, layout.size)
            # They are in order already, and scores may be equal.
            rank = torch.arange(keep, 0, -1, dtype=torch.float32)
            remain = suppressed(box, large_enough(box, proposals.SMALLEST) * rank, 0.0, proposals.SUPPRESSION)
            boxes.append(box)
            scores.append(torch.where(remain, score.sigmoid(), -1))
        every = torch.cat(scores, 1)
        score, order = every.topk(min(rpn.keep_inference, every.shape[1]))
        return torch.cat(boxes, 1).gather(1, order[..., None].expand(-1, -1, 4)), score >= 0


class RetinaNetGraph(DetectorGraph):
    """A RetinaNet."""

    detector: RetinaNet

    def _find(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        detector, layout = self.detector, self.layout
        anchors = layout.anchors.split(layout.anchors_of_level)
        levels = [
            detector.best(*detector.outputs(features), at, layout.size)
            for features, at in zip(pyramid, anchors, strict=True)
        ]
        boxes, labels, scores = (torch.cat(parts, 1) for parts in zip(*levels, strict=True))
        # Each label by itself: to the others, its scores are 0.
        n_labels = detector.head.classification_head.num_classes - 1
        of_label = labels[:, None] == torch.arange(1, n_labels + 1)[:, None]  # (B, C, N)
        alone = (scores[:, None] * of_label).flatten(0, 1)
        copies = boxes[:, None].expand(-1, n_labels, -1, -1).flatten(0, 1)
        remain = suppressed(copies, alone, detector.score_threshold, retinanet.SUPPRESSION)
        scores = scores * remain.unflatten(0, (-1, n_labels)).any(1)
        best, order = scores.topk(min(detector.max_detections, scores.shape[1]))
        there = best > 0
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4)) * there[..., None]
        return boxes, torch.where(there, labels.gather(1, order), 0), best


class ProbabilityGraph(nn.Module):
    """A segmenter or classifier whose output is probabilities."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) → (B, K, S, S) or (B, K) in [0, 1]."""
        return self.model(images).sigmoid()


def _by_cell(maps: Tensor, width: int) -> Tensor:
    """As in `xray.models.detection.proposals`, without asking for the number of radiographs, which would fix it."""
    return maps.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, width))


def to_onnx(run: Path, prune: int = 0) -> bytes:
    """A run directory of any task → the content of an ONNX file.

    prune: level to which a U-Net++ trained with deep supervision is cut; 0 leaves it whole.
    Its input is `canvases`, its outputs are those of its tasks (`OUTPUTS`, `MEANINGS`), and its metadata hold
    model.json. The same run gives the same bytes.
    Raises InputError if it is no run, looks at 16 bits, or has a layer that the exporter cannot translate.
    """
    description, _ = load_deployed(run)
    check_bits(run, description)
    graph, size, names = _graph_of(run, prune)
    batch = torch.zeros((2, 1, size, size), dtype=torch.uint8)
    try:
        with torch.no_grad(), _quietly():
            program = torch.onnx.export(
                graph.eval(),
                (batch,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=names,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                custom_translation_table=TRANSLATIONS,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise InputError(f"{run} cannot be written as ONNX: {reason}") from None
    assert program is not None
    model = _plain(program.model_proto)
    model.producer_name, model.producer_version = "xray", __version__
    model.doc_string = f"An xray model: {description['task']}. Not a medical device."
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = MEANINGS[value.name]
    metadata = {DESCRIPTION: json.dumps(description), WEIGHTS: sha256_of(run / WEIGHTS_FILE)}
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _graph_of(run: Path, prune: int) -> tuple[nn.Module, int, list[str]]:
    """The graph of a run's model or two, the canvases' side, and the outputs' names."""
    loaded = load_run(run, torch.device("cpu"), prune)
    models = [model for _, model in loaded]
    names = [name for task, _ in loaded for name in OUTPUTS[task]]
    size = models[0].canvas_size
    detectors = [model for model in models if isinstance(model, LoadedDetector)]
    pairs = pairs_on_one_trunk(detectors, [model for model in models if isinstance(model, LoadedSegmenter)])
    if len(models) > 1 and not pairs:
        raise InputError(f"{run} holds two heads that cannot share a trunk: export the runs that it was made of")
    for model in models:
        fold(model, torch.device("cpu"))
    if not detectors:
        return ProbabilityGraph(models[0].model), size, names
    detector = detectors[0].model
    assert isinstance(detector, FasterRCNN | RetinaNet)
    with torch.no_grad():
        pyramid = list(detector.backbone(torch.zeros((1, 3, size, size))).values())
    segmenter = pairs[0].segmenter.model if pairs else None
    assert segmenter is None or isinstance(segmenter, Segmenter)
    if isinstance(detector, RetinaNet):
        return RetinaNetGraph(detector, detector.layout(pyramid, size), segmenter), size, names
    return FasterRCNNGraph(detector, detector.rpn.layout(pyramid, size), segmenter), size, names


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the libraries' log messages and warnings."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's notes, in which paths of this machine are."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model
