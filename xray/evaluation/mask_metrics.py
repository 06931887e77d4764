"""How well masks agree, from three sums per mask: no image needs to stay in memory."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def mask_sums(predicted: "Tensor", truth: "Tensor") -> tuple["Tensor", "Tensor", "Tensor"]:
    """Masks (B, K, H, W) of 0 and 1 → intersections, predicted areas, true areas, each (B, K) int64 in pixels."""
    import torch  # here, since scoring files needs none of it and it takes seconds to load

    if predicted.shape != truth.shape:
        raise ValueError(f"predicted masks {tuple(predicted.shape)} and truth {tuple(truth.shape)} differ in shape")
    predicted, truth = predicted.bool(), truth.bool()
    areas = [torch.count_nonzero(mask, dim=(-2, -1)) for mask in (predicted & truth, predicted, truth)]
    return areas[0], areas[1], areas[2]


def dice_scores(intersections: np.ndarray, predicted_areas: np.ndarray, true_areas: np.ndarray) -> np.ndarray:
    """Dice of each mask, 2|P ∩ T| / (|P| + |T|), float64 in [0, 1]; by the rule of SIIM-ACR 1 where both are empty.

    The three have one shape and one unit. Where only one of the masks is empty the score is 0.
    """
    total = np.asarray(predicted_areas, dtype=np.float64) + true_areas
    return np.where(total == 0, 1.0, 2 * np.asarray(intersections) / np.where(total == 0, 1.0, total))


def iou_scores(intersections: np.ndarray, predicted_areas: np.ndarray, true_areas: np.ndarray) -> np.ndarray:
    """|P ∩ T| / |P ∪ T| of each mask, float64 in [0, 1]; 1 where both are empty."""
    union = np.asarray(predicted_areas, dtype=np.float64) + true_areas - intersections
    return np.where(union == 0, 1.0, np.asarray(intersections) / np.where(union == 0, 1.0, union))


def segmentation_metrics(
    intersections: np.ndarray,
    predicted_areas: np.ndarray,
    true_areas: np.ndarray,
    *,
    counted: np.ndarray | None = None,
) -> dict[str, float | int]:
    """The metrics of a set of radiographs.

    Each argument: (N,) for one class or (N, K) for several, of which each counts as a mask of its own; in pixels.
    counted: bool of that shape, the masks whose truth is known; the others are left out. None for all.

    Returns `dice` (mean over masks, empty ones by SIIM-ACR's rule), `dice_positive` (over masks with truth),
    `sensitivity` (share of them that have any predicted pixel), `false_positive_rate` (share of masks without truth
    that have any), `iou`, and `n_images`. What has no mask to be measured on is left out. A submission of empty masks
    scores 0.78 in `dice` on SIIM-ACR: never read it alone.
    Raises ValueError for arrays of different or other shape, none at all, and intersections larger than a mask.
    """
    hits, predicted, true = (np.asarray(values) for values in (intersections, predicted_areas, true_areas))
    if not hits.shape == predicted.shape == true.shape or hits.ndim not in (1, 2):
        raise ValueError(f"shapes {hits.shape}, {predicted.shape} and {true.shape} must be equal, (N,) or (N, K)")
    if hits.size == 0:
        raise ValueError("no radiographs to measure")
    n_images = len(hits)
    if counted is not None:
        hits, predicted, true = hits[counted], predicted[counted], true[counted]
        if hits.size == 0:
            raise ValueError("no mask of the radiographs is known")
    if (hits < 0).any() or (hits > np.minimum(predicted, true)).any():
        raise ValueError("an intersection is larger than one of its masks or negative")
    scores, positive = dice_scores(hits, predicted, true), true > 0
    metrics: dict[str, float | int] = {"dice": float(scores.mean())}
    if positive.any():
        metrics["dice_positive"] = float(scores[positive].mean())
        metrics["sensitivity"] = float((predicted[positive] > 0).mean())
    if not positive.all():
        metrics["false_positive_rate"] = float((predicted[~positive] > 0).mean())
    return {**metrics, "iou": float(iou_scores(hits, predicted, true).mean()), "n_images": n_images}
