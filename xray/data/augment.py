"""Random changes of training canvases. The only file that knows albumentations."""

import os
from typing import Any

import cv2
import numpy as np

# Its import would otherwise ask the package index for news.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations

AUGMENTATIONS = ("none", "light", "strong")


class Augmentation:
    """Flips, shifts, contrast, noise and blur of one canvas with its boxes and mask.

    strength: "none", "light" or "strong".
    mirror: {label: label on a flipped radiograph}, from `xray.findings.mirrored`.
    flip: share of the canvases that are mirrored; none is at strength "none".
    """

    def __init__(self, strength: str, mirror: dict[int, int], flip: float = 0.5) -> None:
        if strength not in AUGMENTATIONS:
            raise ValueError(f"unknown augmentation {strength!r}: use one of {', '.join(AUGMENTATIONS)}")
        self.flip = flip if strength != "none" else 0.0
        self._mirror = mirror
        order = sorted(mirror)
        self._mirrored_channels = [order.index(mirror[label]) for label in order]
        self._pipeline = _pipeline(strength)

    def __call__(
        self, seed: int, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """The same `seed` always gives the same result.

        image: (S, S) uint8. boxes: (N, 4) xyxy in canvas pixels. labels: (N,) int. mask: None, or (K, S, S) uint8 with
        a channel for each label of `mirror`, ascending.
        Returns the four of them changed; boxes pushed out of view are gone.
        """
        size = image.shape[0]
        if np.random.default_rng(seed).random() < self.flip:
            image = image[:, ::-1]
            mask = None if mask is None else mask[self._mirrored_channels, :, ::-1]
            boxes = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [size, 0, size, 0]
            labels = np.array([self._mirror.get(label, label) for label in labels.tolist()], dtype=np.int64)
        boxes = boxes.clip(0, size)
        # albumentations refuses boxes without area; one at the edge may have lost its own to rounding.
        has_area = ((boxes[:, 2:] - boxes[:, :2]) > 1e-3).all(axis=1)
        boxes, labels = boxes[has_area], labels[has_area]
        if self._pipeline is None:
            return image, boxes, labels, mask
        self._pipeline.set_random_seed(seed)
        data: dict[str, Any] = {"image": np.ascontiguousarray(image)[..., None]}
        if mask is not None:
            data["mask"] = np.ascontiguousarray(mask.transpose(1, 2, 0))
        changed = self._pipeline(bboxes=boxes, labels=labels, **data)
        boxes = np.asarray(changed["bboxes"], dtype=np.float64).reshape(-1, 4)
        labels = np.asarray(changed["labels"], dtype=np.int64).reshape(-1)
        mask = np.ascontiguousarray(changed["mask"].transpose(2, 0, 1)) if mask is not None else None
        return changed["image"][..., 0], boxes, labels, mask


def _pipeline(strength: str) -> Any:
    if strength == "none":
        return None  # an empty Compose would warn that it has nothing to do
    return albumentations.Compose(
        _transforms(strong=strength == "strong"),
        bbox_params=albumentations.BboxParams(
            format="pascal_voc",
            label_fields=["labels"],
            # A finding of which less than a third is still in view cannot be recognised any more.
            min_visibility=0.33,
            min_width=1,
            min_height=1,
            clip=True,
        ),
    )


def _transforms(strong: bool) -> list[Any]:
    a = albumentations
    # No rotation beyond a few degrees: a box around a turned box is loose, and patients do not stand that crooked.
    place = a.Affine(
        scale=(0.8, 1.2) if strong else (0.9, 1.1),
        translate_percent=(-0.08, 0.08) if strong else (-0.05, 0.05),
        rotate=(-8, 8) if strong else (-4, 4),
        interpolation=cv2.INTER_LINEAR,
        fill=0,
        p=0.8,
    )
    light = a.OneOf([a.RandomBrightnessContrast(0.2, 0.2), a.RandomGamma((70, 140))], p=0.7)
    grain = a.OneOf([a.GaussNoise(std_range=(0.01, 0.04)), a.GaussianBlur(blur_limit=(3, 5))], p=0.2)
    if not strong:
        return [place, light, grain]
    return [
        place,
        light,
        a.CLAHE(p=0.15),
        grain,
        a.CoarseDropout(num_holes_range=(1, 4), hole_height_range=(0.03, 0.08), hole_width_range=(0.03, 0.08), p=0.2),
    ]
