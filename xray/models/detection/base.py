"""What the detectors of all families have in common: canvases in, losses or boxes out, a trunk with a pyramid."""

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from xray.models.pretrained import Normalise


class Detector(Normalise):
    """A detector that takes uint8 canvases as they are, and does not resize them.

    backbone: a trunk, `body`, and its pyramid, `fpn`. score_threshold: only detections with a higher score are
    returned. max_detections: the most detections on a radiograph.
    """

    last_layer: str
    """Start of the names of the tensors that depend on the number of categories alone."""

    def __init__(self, backbone: nn.Module, score_threshold: float, max_detections: int) -> None:
        super().__init__(in_channels=3)
        self.backbone: Any = backbone
        self.score_threshold, self.max_detections = score_threshold, max_detections

    def forward(self, images: Tensor, targets: list[dict[str, Tensor]] | None = None) -> Any:
        """The losses of a batch while training, its detections otherwise.

        images: (B, 1, S, S) uint8 canvases.
        targets: per image `boxes` (N, 4) float32 xyxy in canvas pixels and `labels` (N,) int64 category ids, from 1.
        Returns, training: the family's losses by name, scalars; else: per image `boxes` (M, 4), `labels` (M,), `scores`
        (M,) in [0, 1], highest first, in canvas pixels.
        """
        if self.training and targets is None:
            raise ValueError("training needs targets")
        return self._find(list(self.backbone(super().forward(images)).values()), images, targets)

    def detect(
        self, features: OrderedDict[str, Tensor], images: Tensor, targets: list[dict[str, Tensor]] | None = None
    ) -> Any:
        """The second half of `forward`, for a pipeline in which a segmenter reads the same backbone.

        features: the maps that the pyramid is made of, as the trunk gives them. images: the canvases; only their number
        and size are read.
        """
        return self._find(list(self.backbone.fpn(features).values()), images, targets)

    def _find(self, pyramid: list[Tensor], images: Tensor, targets: list[dict[str, Tensor]] | None) -> Any:
        """What `forward` returns, from the maps of the pyramid."""
        raise NotImplementedError
