"""The region proposal network: where there might be a finding."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RPNHead

from xray.models.batch_shares import normaliser
from xray.models.detection.anchors import Layout, Layouts
from xray.models.detection.matching import Truth, decode, encode, large_enough, match, overlaps, sample
from xray.models.detection.suppression import suppress

WEIGHTS = (1.0, 1.0, 1.0, 1.0)
"""Of the box offsets."""
BELONGS, BACKGROUND = 0.7, 0.3
"""Overlap from which an anchor belongs to a finding, and below which it is background."""
POSITIVES = 0.5
"""Largest share of the sampled anchors that belongs to a finding."""
SUPPRESSION = 0.7
SMALLEST = 1e-3
"""Sides of a proposal in pixels."""
BETA = 1 / 9
"""Where the smooth L1 loss turns from squares to absolute values."""


class Proposals(NamedTuple):
    """boxes: (B, P, 4) float32 xyxy in canvas pixels, most likely first. real: (B, P) bool, the others are filling."""

    boxes: Tensor
    real: Tensor


class ProposalNetwork(nn.Module):
    """torchvision's RegionProposalNetwork for canvases of one size: same weights, same proposals, same losses.

    Its loss reads few anchors. The head therefore runs over the pyramid without a gradient, and once more, with one,
    on the cells of the sampled anchors alone: same losses and gradients, and no backward pass over the whole pyramid.
    """

    def __init__(
        self, head: RPNHead, anchor_generator: AnchorGenerator, samples: int, keep_training: int, keep_inference: int
    ) -> None:
        super().__init__()
        self.head, self.anchor_generator = head, anchor_generator
        self.samples, self.keep_training, self.keep_inference = samples, keep_training, keep_inference
        self.layout = Layouts(anchor_generator)

    @torch.no_grad()
    def forward(self, pyramid: list[Tensor], layout: Layout) -> Proposals:
        """pyramid: L maps (B, C, H, W). No gradient passes through the proposals."""
        keep = self.keep_training if self.training else self.keep_inference
        boxes, scores, remains = [], [], []
        anchors = layout.anchors.split(layout.anchors_of_level)
        maps = self.head(pyramid)
        # Autocast keeps the weights that it casts, here without a gradient: `losses` must cast them again.
        torch.clear_autocast_cache()
        for logits, offsets, level_anchors in zip(*maps, anchors, strict=True):
            score, best = _by_cell(logits, 1).squeeze(-1).float().topk(min(keep, len(level_anchors)))
            offset = _by_cell(offsets, 4).gather(1, best[..., None].expand(-1, -1, 4)).float()
            box = decode(offset, level_anchors[best], WEIGHTS, layout.size)
            boxes.append(box)
            scores.append(score.sigmoid())
            remains.append(suppress(box, large_enough(box, SMALLEST), SUPPRESSION))
        score = torch.where(torch.cat(remains, 1), torch.cat(scores, 1), -1)
        score, order = score.sort(dim=1, descending=True, stable=True)
        score, order = score[:, :keep], order[:, :keep]
        return Proposals(torch.cat(boxes, 1).gather(1, order[..., None].expand(-1, -1, 4)), score >= 0)

    def losses(self, rows: Tensor, layout: Layout, truth: Truth) -> dict[str, Tensor]:
        """Losses of the anchors: loss_objectness and loss_rpn_box_reg, scalars.

        rows: `xray.models.detection.pooling.pyramid_rows`. Draws the anchors from torch's default generator.

        An anchor stands for all categories together. Where one of them may lie outside the boxes, no anchor is known to
        be background: only anchors that belong to boxes of such a radiograph count, in the loss and in its mean.
        """
        with torch.no_grad():
            finding, labels = match(overlaps(truth, layout.anchors), truth, BACKGROUND, BELONGS, every_finding=True)
            if truth.unlocated is not None:
                labels = torch.where((labels == 0) & truth.unlocated[:, :1], -1, labels)
            chosen, real = sample(labels, self.samples, POSITIVES)
        return self.losses_of(rows, layout, truth, finding, labels, chosen, real)

    def losses_of(
        self, rows: Tensor, layout: Layout, truth: Truth, finding: Tensor, labels: Tensor, chosen: Tensor, real: Tensor
    ) -> dict[str, Tensor]:
        """The losses of the anchors `chosen` (B, K) where `real`; finding, labels: (B, A) as `match` gives them."""
        logits, offsets = self._at(rows, layout, chosen)
        positive = labels.gather(1, chosen) > 0
        boxes = truth.boxes.gather(1, finding.gather(1, chosen)[..., None].expand(-1, -1, 4))
        learns = (positive & real)[..., None]
        wanted = torch.where(learns, encode(boxes, layout.anchors[chosen], WEIGHTS), 0)
        box_loss = F.smooth_l1_loss(torch.where(learns, offsets, 0), wanted, beta=BETA, reduction="sum")
        n = normaliser(real.sum())
        objectness = F.binary_cross_entropy_with_logits(logits, positive.to(logits), real.to(logits), reduction="sum")
        return {"loss_objectness": objectness / n, "loss_rpn_box_reg": box_loss / n}

    def _at(self, rows: Tensor, layout: Layout, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The head's logits (B, K) and offsets (B, K, 4) at the anchors `chosen` (B, K)."""
        batch = len(chosen)
        level, y, x, place = layout.cells(chosen)
        reach = len(self.head.conv)  # each 3 × 3 convolution sees one cell farther
        around = torch.arange(-reach, reach + 1, device=rows.device)
        side = layout.side[level][..., None, None]
        y, x = torch.broadcast_tensors(y[..., None, None] + around[:, None], x[..., None, None] + around)
        inside = (y >= 0) & (y < side) & (x >= 0) & (x < side)  # (B, K, k, k)
        image = torch.arange(batch, device=rows.device)[:, None]
        base = batch * layout.first[level] + image * layout.side[level] ** 2
        index = base[..., None, None] + y * side + x
        inside = inside.flatten(0, 1)[..., None]  # (n, k, k, 1)
        # Outside the map is 0, as convolutions pad.
        patches = F.embedding(torch.where(inside[..., 0], index.flatten(0, 1), 0), rows) * inside  # (n, k, k, C)
        for layer in self.head.conv:
            convolution = layer[0]
            windows = patches.unfold(1, 3, 1).unfold(2, 3, 1)  # (n, k − 2, k − 2, C, 3, 3)
            inside = inside[:, 1:-1, 1:-1]
            # On so many small patches, a matrix product is several times faster than a convolution.
            summed = torch.einsum("nhwcij,ocij->nhwo", windows, convolution.weight)
            patches = F.relu(summed + convolution.bias) * inside
        cells = patches.flatten(1)  # (n, C): k is 1 by now
        at = place.flatten()[:, None]
        logits = F.linear(cells, self.head.cls_logits.weight.flatten(1), self.head.cls_logits.bias).float()
        offsets = F.linear(cells, self.head.bbox_pred.weight.flatten(1), self.head.bbox_pred.bias).float()
        offsets = offsets.view(len(at), -1, 4).gather(1, at[..., None].expand(-1, -1, 4))
        return logits.gather(1, at).view(batch, -1), offsets.view(batch, -1, 4)


def _by_cell(maps: Tensor, width: int) -> Tensor:
    """The head's output (B, anchors of a cell · width, H, W) → (B, anchors, width) in the order of the anchors."""
    return maps.permute(0, 2, 3, 1).reshape(len(maps), -1, width)
