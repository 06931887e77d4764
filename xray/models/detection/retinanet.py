"""RetinaNet: a detector of one stage, which learns from all anchors by a loss in which easy anchors hardly count.

Lin et al. 2017, Focal Loss for Dense Object Detection, arXiv:1708.02002. It is the second family because it errs in
other places than Faster R-CNN, whose first stage never proposes some boxes, and yet has its anchors, its assignment and
its offsets. (torchvision's FCOS would need neither anchors nor their assignment, but centre sampling by level and a
third output.)
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import batched_nms, generalized_box_iou_loss, sigmoid_focal_loss

from xray.models.batch_shares import averaged
from xray.models.detection.anchors import Layout, Layouts
from xray.models.detection.base import Detector
from xray.models.detection.matching import Truth, decode, encode, match, overlaps, pad_truth

WEIGHTS = (1.0, 1.0, 1.0, 1.0)
"""Of the box offsets."""
BELONGS, BACKGROUND = 0.5, 0.4
"""Overlap from which an anchor belongs to a finding, and below which it is background."""
SUPPRESSION = 0.5
GROUPS = 32
"""Of the group norms in the heads of v2, which the pyramid's channels must be a multiple of."""


class RetinaNet(Detector):
    """torchvision's RetinaNet for canvases: same weights, same detections, same losses.

    Its state dict has the names of torchvision's class (backbone., head.), whose first class, the background, has an
    output that no radiograph teaches.
    candidates: boxes of each level before suppression. soft_targets: see `losses`.
    """

    last_layer = "head.classification_head.cls_logits"

    def __init__(
        self,
        backbone: nn.Module,
        head: RetinaNetHead,
        anchor_generator: AnchorGenerator,
        score_threshold: float,
        max_detections: int,
        candidates: int,
        soft_targets: bool = False,
    ) -> None:
        super().__init__(backbone, score_threshold, max_detections)
        self.head, self.anchor_generator, self.candidates = head, anchor_generator, candidates
        self.layout, self.soft_targets = Layouts(anchor_generator), soft_targets

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As nn.Module does, for what always has the same shapes: backbone with pyramid, and the head."""
        self.backbone.compile(*args, **kwargs)
        for part in (self.head.classification_head.conv, self.head.regression_head.conv):
            part.compile(*args, **kwargs)

    def _find(self, pyramid: list[Tensor], images: Tensor, targets: list[dict[str, Tensor]] | None) -> Any:
        layout = self.layout(pyramid, images.shape[-1])
        outputs = [self.outputs(level) for level in pyramid]
        if not self.training:
            return self._detections([(logits.float(), offsets.float()) for logits, offsets in outputs], layout)
        assert targets is not None
        logits, offsets = (torch.cat(of_levels, 1).float() for of_levels in zip(*outputs, strict=True))
        return self.losses(logits, offsets, layout, pad_truth(targets))

    def outputs(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """A map (B, C, H, W) → logits (B, N, K) and offsets (B, N, 4) of its N anchors; K counts the background."""
        classes, boxes = self.head.classification_head, self.head.regression_head
        logits, offsets = classes.cls_logits(classes.conv(level)), boxes.bbox_reg(boxes.conv(level))
        return _by_anchor(logits, classes.num_classes), _by_anchor(offsets, 4)

    def losses(self, logits: Tensor, offsets: Tensor, layout: Layout, truth: Truth) -> dict[str, Tensor]:
        """The losses of all anchors: classification and bbox_regression, scalars.

        logits: (B, A, K). offsets: (B, A, 4). The loss of each radiograph is divided by its number of anchors that
        belong to a finding; then the radiographs are averaged. A finding that only a share of the readers drew counts
        by that share, or, with `soft_targets`, is wanted with that probability.

        Each category is a question of its own (a sigmoid), which an anchor answers for the category of its finding
        alone where others are not located in the radiograph: their entries do not enter.
        """
        with torch.no_grad():
            finding, labels = match(overlaps(truth, layout.anchors), truth, BACKGROUND, BELONGS, every_finding=True)
            belongs = labels > 0
            divisor = belongs.sum(1).clamp(min=1)  # (B,)
            wanted = F.one_hot(labels.clamp(min=0), logits.shape[2]).to(logits.dtype) * belongs[..., None]
            image, anchor = belongs.nonzero(as_tuple=True)
            boxes = truth.boxes[image, finding[image, anchor]]
            hidden = None
            if truth.unlocated is not None:
                hidden = truth.unlocated[:, None] & (wanted == 0)
                hidden[..., 0] = False
            shares = torch.ones_like(logits[..., 0])
            if truth.shares is not None:
                shares = torch.where(belongs, truth.shares.gather(1, finding), shares)
            if self.soft_targets:
                wanted = wanted * shares[..., None]
            counts = torch.where(labels >= 0, 1.0 if self.soft_targets else shares, 0.0)  # (B, A)
        focal = sigmoid_focal_loss(logits, wanted) * counts[..., None]
        focal = (focal if hidden is None else focal.masked_fill(hidden, 0)).sum((1, 2))
        anchors, chosen = layout.anchors[anchor], offsets[image, anchor]
        if self.head.regression_head._loss_type == "giou":
            box_loss = generalized_box_iou_loss(decode(chosen, anchors, WEIGHTS, None), boxes)
        else:
            box_loss = (chosen - encode(boxes, anchors, WEIGHTS)).abs().sum(1)
        box_losses = torch.zeros_like(focal).index_add(0, image, box_loss * shares[image, anchor])
        return {
            "classification": averaged((focal / divisor).mean()),
            "bbox_regression": averaged((box_losses / divisor).mean()),
        }

    def best(self, logits: Tensor, offsets: Tensor, anchors: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """The highest scores of a level: boxes (B, M, 4), labels (B, M) from 1, scores (B, M), highest first."""
        scores = logits[..., 1:].sigmoid().flatten(1)
        n_labels = logits.shape[2] - 1
        score, place = scores.topk(min(self.candidates, len(anchors) * n_labels))
        anchor = place // n_labels
        offset = offsets.gather(1, anchor[..., None].expand(-1, -1, 4))
        return decode(offset, anchors[anchor], WEIGHTS, size), place % n_labels + 1, score

    def _detections(self, outputs: list[tuple[Tensor, Tensor]], layout: Layout) -> list[dict[str, Tensor]]:
        anchors = layout.anchors.split(layout.anchors_of_level)
        levels = [self.best(*of_level, at, layout.size) for of_level, at in zip(outputs, anchors, strict=True)]
        detections = []
        for boxes, labels, scores in zip(*(torch.cat(parts, 1) for parts in zip(*levels, strict=True)), strict=True):
            real = scores > self.score_threshold
            boxes, labels, scores = boxes[real], labels[real], scores[real]
            rows = batched_nms(boxes, scores, labels, SUPPRESSION)[: self.max_detections]
            detections.append({"boxes": boxes[rows], "labels": labels[rows], "scores": scores[rows]})
        return detections


def _by_anchor(maps: Tensor, width: int) -> Tensor:
    """The head's output (B, anchors of a cell · width, H, W) → (B, anchors, width) in the order of the anchors."""
    # Without asking for the number of radiographs, which would fix it in an export.
    return maps.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, width))


class _GroupNorm(nn.GroupNorm):
    """A group norm that also takes one radiograph with a single value in each group, which its parent refuses: the norm
    of such a value is the bias."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


def dense_head(version: str, channels: int, per_cell: int, n_categories: int) -> RetinaNetHead:
    """torchvision's head, "v1", or that of its `retinanet_resnet50_fpn_v2`: group norms, and generalized IoU as loss.

    channels: of the pyramid. per_cell: anchors of each cell.
    """
    if version == "v1":
        return RetinaNetHead(channels, per_cell, n_categories + 1)
    head = RetinaNetHead(channels, per_cell, n_categories + 1, norm_layer=partial(_GroupNorm, GROUPS))
    head.regression_head._loss_type = "giou"
    return head
