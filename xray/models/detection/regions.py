"""The second stage: which finding is in each proposed region, and where exactly."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xray.models.batch_shares import normaliser
from xray.models.detection.anchors import Layout
from xray.models.detection.matching import Truth, decode, encode, large_enough, match, overlaps, sample
from xray.models.detection.pooling import pool_regions
from xray.models.detection.proposals import BETA, Proposals
from xray.models.detection.suppression import suppress

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Of the box offsets."""
BELONGS = 0.5
"""Overlap from which a proposal belongs to a finding; the others are background."""
POSITIVES = 0.25
"""Largest share of the sampled proposals that belongs to a finding."""
SUPPRESSION = 0.5
SMALLEST = 1e-2
"""Sides of a detection in pixels."""


class Samples(NamedTuple):
    """Proposals for the loss, R a radiograph: boxes (B, R, 4), whether they are `real` (B, R), their label (B, R), the
    box of their finding, wanted (B, R, 4), the share of the readers who drew that (B, R), None where all count alike,
    and the radiographs' `unlocated` categories (B, C + 1), None where all are located."""

    boxes: Tensor
    real: Tensor
    labels: Tensor
    wanted: Tensor
    shares: Tensor | None = None
    unlocated: Tensor | None = None


class RegionHeads(nn.Module):
    """torchvision's RoIHeads for canvases of one size: same weights, same detections, same losses."""

    def __init__(
        self,
        box_head: nn.Module,
        box_predictor: nn.Module,
        samples: int,
        score_threshold: float,
        max_detections: int,
        soft_targets: bool = False,
    ) -> None:
        super().__init__()
        self.soft_targets = soft_targets
        self.box_head, self.box_predictor = box_head, box_predictor
        self.samples, self.score_threshold, self.max_detections = samples, score_threshold, max_detections

    def losses(self, rows: Tensor, layout: Layout, proposals: Proposals, truth: Truth) -> dict[str, Tensor]:
        """Losses of the box head: loss_classifier and loss_box_reg, scalars.

        rows: `xray.models.detection.pooling.pyramid_rows`. Draws the proposals from torch's default generator.
        """
        return self.losses_of(rows, layout, self.select(proposals, truth))

    @torch.no_grad()
    def select(self, proposals: Proposals, truth: Truth) -> Samples:
        """Proposals for the loss, with what they belong to; the findings' own boxes count as proposals too."""
        boxes = torch.cat([proposals.boxes, truth.boxes], 1)
        finding, labels = match(overlaps(truth, boxes), truth, BELONGS, BELONGS, every_finding=False)
        labels = torch.where(torch.cat([proposals.real, truth.real], 1), labels, -1)
        chosen, real = sample(labels, self.samples, POSITIVES)
        corners = chosen[..., None].expand(-1, -1, 4)
        of_chosen = finding.gather(1, chosen)
        wanted = truth.boxes.gather(1, of_chosen[..., None].expand(-1, -1, 4))
        shares = None if truth.shares is None else truth.shares.gather(1, of_chosen)
        return Samples(boxes.gather(1, corners), real, labels.gather(1, chosen), wanted, shares, truth.unlocated)

    def losses_of(self, rows: Tensor, layout: Layout, samples: Samples) -> dict[str, Tensor]:
        """The losses of these samples.

        A finding that only a share of the readers drew counts by that share, or, with `soft_targets`, is wanted with
        that probability, and background with the rest of it.

        A background region of a radiograph on which the categories U are not located may show one of them. With the
        logits z, background being 0, it learns by −log(e^z₀ / Σ_{k ∉ U} e^z_k): the softmax under the condition that it
        shows none of U. This teaches only what is known, that none of the other categories is there: the logits of U
        have no gradient, and once the other logits are below z₀, z₀ has none either, so that it does not outgrow those
        of U. A region that belongs to a box has the category of the box, whatever is not located.
        """
        present = _present(samples.real)
        boxes, real, labels, wanted = (part.flatten(0, 1)[present] for part in samples[:4])
        logits, offsets = self._predict(rows, layout, boxes, present, samples.real.shape)
        n = normaliser(real.sum())
        targets = torch.where(real, labels, -1)
        learns = (real & (labels > 0))[:, None]
        of_background = logits
        if samples.unlocated is not None:
            hidden = samples.unlocated[present // samples.real.shape[1]]
            of_background = logits.masked_fill(_findings(hidden), -torch.inf)
            logits = torch.where((labels == 0)[:, None], of_background, logits)
        if samples.shares is None:
            classifier = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum") / n
            shares: Tensor | float = 1.0
        else:
            share = torch.where(learns[:, 0], samples.shares.flatten(0, 1)[present], 1.0)
            shares = share[:, None]
            losses = F.cross_entropy(logits, targets, ignore_index=-1, reduction="none") * share
            if self.soft_targets:
                background = F.cross_entropy(of_background, torch.zeros_like(labels), reduction="none")
                losses = losses + (1 - share) * background
            classifier = losses.sum() / n
        predicted = offsets.gather(1, labels.clamp(min=0)[:, None, None].expand(-1, -1, 4)).squeeze(1)
        wanted = torch.where(learns, encode(wanted, boxes, WEIGHTS), 0)
        box_losses = F.smooth_l1_loss(torch.where(learns, predicted, 0), wanted, beta=BETA, reduction="none")
        box_loss = (box_losses * shares).sum() / n
        return {"loss_classifier": classifier, "loss_box_reg": box_loss}

    def forward(self, rows: Tensor, layout: Layout, proposals: Proposals) -> list[dict[str, Tensor]]:
        """Per radiograph `boxes` (M, 4) xyxy in canvas pixels, `labels` (M,) and `scores` (M,), highest first."""
        batch, count = proposals.real.shape
        present = _present(proposals.real)
        boxes = proposals.boxes.flatten(0, 1)[present]
        logits, offsets = self._predict(rows, layout, boxes, present, proposals.real.shape)
        scores = logits.softmax(-1)[:, 1:]  # without the background: (R, C)
        decoded = decode(offsets[:, 1:], boxes[:, None], WEIGHTS, layout.size)
        n_labels = scores.shape[1]
        # Back to fixed places, (B, P, C).
        everywhere = scores.new_zeros((batch * count, n_labels, 5))
        everywhere[present] = torch.cat([decoded, scores[..., None]], -1)
        decoded, scores = everywhere.view(batch, count, n_labels, 5).split([4, 1], -1)
        remains = self._suppressed(decoded, scores.squeeze(-1)).flatten(1)
        # Equal scores stay in the order of the proposals, as they do in torchvision.
        best, order = torch.where(remains, scores.flatten(1), -1).sort(dim=1, descending=True, stable=True)
        best, order = best[:, : self.max_detections], order[:, : self.max_detections]
        boxes = decoded.flatten(1, 2).gather(1, order[..., None].expand(-1, -1, 4))
        labels = order % n_labels + 1
        numbers = (best >= 0).sum(1).tolist()
        return [
            {"boxes": boxes[image, :n], "labels": labels[image, :n], "scores": best[image, :n]}
            for image, n in enumerate(numbers)
        ]

    def _suppressed(self, decoded: Tensor, scores: Tensor) -> Tensor:
        """(B, P, C, 4), (B, P, C) → (B, P, C) bool: what remains when the labels are suppressed one by one."""
        score, order = scores.transpose(1, 2).sort(dim=2, descending=True, stable=True)  # (B, C, P)
        boxes = decoded.transpose(1, 2).gather(2, order[..., None].expand(-1, -1, -1, 4))
        real = (score > self.score_threshold) & large_enough(boxes, SMALLEST)
        remains = suppress(boxes.flatten(0, 1), real.flatten(0, 1), SUPPRESSION).view_as(real)
        return torch.zeros_like(remains).scatter(2, order, remains).transpose(1, 2)

    def _predict(
        self, rows: Tensor, layout: Layout, boxes: Tensor, present: Tensor, shape: torch.Size
    ) -> tuple[Tensor, Tensor]:
        """Logits (R, C + 1) and offsets (R, C + 1, 4) of `boxes` (R, 4), which lie at `present` of `shape` (B, P)."""
        batch, count = shape
        features = pool_regions(rows, boxes, present // count, batch, layout)
        logits, offsets = self.box_predictor(self.box_head(features))
        return logits.float(), offsets.float().view(len(boxes), -1, 4)


def _findings(unlocated: Tensor) -> Tensor:
    """(R, C + 1) bool without the entry of the background, which means something else."""
    return torch.cat([torch.zeros_like(unlocated[:, :1]), unlocated[:, 1:]], 1)


def _present(real: Tensor) -> Tensor:
    """The places of a batch (B, P) to compute, (R,) int64: on a CPU those that are real.

    On a GPU all of them: counting the real ones takes longer than computing unused ones.
    """
    if real.device.type == "cpu":
        return real.flatten().nonzero().squeeze(1)
    return torch.arange(real.numel(), device=real.device)
