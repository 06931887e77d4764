"""Suppression and pooling as operators that PyTorch exports as those of ONNX."""

from collections.abc import Callable, Sequence
from typing import Any

import onnx
import torch
from onnxscript import opset18
from torch import Tensor
from torchvision.ops import roi_align

from xray.models.detection.pooling import BINS, POINTS
from xray.models.detection.suppression import suppress

op: Any = opset18
"""Its own types do not fit together: what a Constant gives is none of what the others take."""


@torch.library.custom_op("xray::suppressed", mutates_args=())
def suppressed(boxes: Tensor, scores: Tensor, least: float, threshold: float) -> Tensor:
    """Which boxes remain where none overlaps a better one that remains by more than `threshold` IoU.

    boxes: (N, K, 4) xyxy, N groups. scores: (N, K); a box is there if its score is above `least`, which is 0 or more,
    and of equal scores the first is the better. Returns (N, K) bool.
    """
    score, order = scores.sort(dim=1, descending=True, stable=True)
    remains = suppress(boxes.gather(1, order[..., None].expand(-1, -1, 4)), score > least, threshold)
    return torch.zeros_like(remains).scatter(1, order, remains)


@suppressed.register_fake
def _(boxes: Tensor, scores: Tensor, least: float, threshold: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def _suppressed_in_onnx(boxes: Any, scores: Any, least: float, threshold: float) -> Any:
    # A group is a radiograph to ONNX, with one class. Its (y1, x1, y2, x2) are our canvas transposed: equal overlaps.
    chosen = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, op.Constant(value_ints=[1])),
        op.Shape(scores, start=1, end=2),
        op.Constant(value_floats=[threshold]),
        op.Constant(value_floats=[least]),
    )  # (M, 3): group, class, box
    places = op.Gather(chosen, op.Constant(value_ints=[0, 2]), axis=1)
    nothing = op.Expand(op.Constant(value_float=0.0), op.Shape(scores))
    ones = op.Expand(op.Constant(value_float=1.0), op.Shape(places, start=0, end=1))
    return op.Cast(op.ScatterND(nothing, places, ones), to=onnx.TensorProto.BOOL)


@torch.library.custom_op("xray::pooled", mutates_args=())
def pooled(
    pyramid: Sequence[Tensor], boxes: Tensor, images: Tensor, levels: Tensor, strides: Sequence[float]
) -> Tensor:
    """RoIAlign of each box on its level, as torchvision's without `aligned`: (R, C, 7, 7).

    pyramid: maps (B, C, H, W). boxes: (R, 4) xyxy in canvas pixels. images, levels: (R,) int64, whose and where.
    strides: canvas pixels from one cell of a level to the next.
    """
    features_of_boxes = pyramid[0].new_zeros((len(boxes), pyramid[0].shape[1], BINS, BINS))
    rois = torch.cat([images[:, None].to(boxes), boxes], 1)
    for level, (features, stride) in enumerate(zip(pyramid, strides, strict=True)):
        here = levels == level
        features_of_boxes[here] = roi_align(features, rois[here], BINS, 1 / stride, POINTS)
    return features_of_boxes


@pooled.register_fake
def _(pyramid: Sequence[Tensor], boxes: Tensor, images: Tensor, levels: Tensor, strides: Sequence[float]) -> Tensor:
    return pyramid[0].new_empty((boxes.shape[0], pyramid[0].shape[1], BINS, BINS))


def _pooled_in_onnx(pyramid: Sequence[Any], boxes: Any, images: Any, levels: Any, strides: Sequence[float]) -> Any:
    parts, places = [], []
    for level, (features, stride) in enumerate(zip(pyramid, strides, strict=True)):
        here = op.Squeeze(op.NonZero(op.Equal(levels, op.Constant(value_int=level))), op.Constant(value_ints=[0]))
        part = op.RoiAlign(
            features,
            op.Gather(boxes, here),
            op.Gather(images, here),
            # The default, half_pixel, is torchvision's with `aligned`.
            coordinate_transformation_mode="output_half_pixel",
            mode="avg",
            output_height=BINS,
            output_width=BINS,
            sampling_ratio=POINTS,
            spatial_scale=1 / stride,
        )
        parts.append(part)
        places.append(here)
    order = op.Concat(*places, axis=0)
    count = op.Squeeze(op.Shape(order), op.Constant(value_ints=[0]))
    numbers = op.Range(op.Constant(value_int=0), count, op.Constant(value_int=1))
    back = op.ScatterElements(numbers, order, numbers, axis=0)
    return op.Gather(op.Concat(*parts, axis=0), back, axis=0)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.xray.suppressed.default: _suppressed_in_onnx,
    torch.ops.xray.pooled.default: _pooled_in_onnx,
}
