"""Random changes of training canvases. The only file that knows albumentations.

One seed draws one change. It is either made here, to one canvas, or drawn here and made later to a whole batch on the
device that trains, by `xray.training.changes`.
"""

import os
import random
from typing import Any

import cv2
import numpy as np

# Its import would otherwise ask the package index for news.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations

from xray.training.changes import Change
from xray.training.distortion import distort, draw_lattice
from xray.training.placement import Outlines, distort_boxes, place_boxes, visible

AUGMENTATIONS = ("none", "light", "strong")

LEVELS = np.arange(256, dtype=np.uint8).reshape(1, -1, 1)
"""A canvas that holds each grey level once: a change of tone turns it into the table of that change."""


class Augmentation:
    """Flips, shifts, distortions, contrast, noise and blur of one canvas with its boxes and mask.

    strength: "none", "light" or "strong".
    mirror: {label: label on a flipped radiograph}, its own inverse, from `xray.structures.sides`.
    flip: share of the canvases that are mirrored. distortion: share of the canvases that are distorted
    (`xray.training.distortion`). Both count as 0 at strength "none".
    mirrored_channels: of a mask with a channel for each label of `mirror`, ascending, their order when flipped.
    """

    def __init__(self, strength: str, mirror: dict[int, int], flip: float = 0.5, distortion: float = 0.0) -> None:
        if strength not in AUGMENTATIONS:
            raise ValueError(f"unknown augmentation {strength!r}: use one of {', '.join(AUGMENTATIONS)}")
        self.flip = flip if strength != "none" else 0.0
        self._mirror = mirror
        order = sorted(mirror)
        self.mirrored_channels = [order.index(mirror[label]) for label in order]
        self._pipeline = _pipeline(strength, distortion, _Changing)
        self._drawing = _pipeline(strength, distortion, _Drawn)
        self._blank = np.zeros((0, 0, 1), dtype=np.uint8)

    def __call__(
        self,
        seed: int,
        image: np.ndarray,
        boxes: np.ndarray,
        labels: np.ndarray,
        mask: np.ndarray | None = None,
        outlines: Outlines = (),
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """The same `seed` always gives the same result.

        image: (S, S) uint8. boxes: (N, 4) xyxy in canvas pixels. labels: (N,) int, or (N, 1 + k) with k other values of
        each box, which stay with it. mask: None, or (K, S, S) uint8 with a channel for each label of `mirror`,
        ascending. outlines: of the boxes, see `xray.training.placement`.
        Returns the four of them changed; boxes pushed out of view are gone.
        """
        generator = np.random.default_rng(seed)
        size = image.shape[0]
        flipped, boxes, labels, outlines = self._flipped(generator, size, boxes, labels, outlines)
        if flipped:
            image = image[:, ::-1]
            mask = None if mask is None else mask[self.mirrored_channels, :, ::-1]
        if self._pipeline is None:
            return image, boxes, labels, mask
        data = {"image": np.ascontiguousarray(image)[..., None]}
        if mask is not None:
            data["mask"] = np.ascontiguousarray(mask.transpose(1, 2, 0))
        changed = _run(self._pipeline, seed, generator, **data)
        mask = np.ascontiguousarray(changed["mask"].transpose(2, 0, 1)) if mask is not None else None
        return changed["image"][..., 0], *_moved(changed, size, boxes, labels, outlines), mask

    def draw(
        self, seed: int, size: int, boxes: np.ndarray, labels: np.ndarray, outlines: Outlines = ()
    ) -> tuple[np.ndarray, np.ndarray, Change | None]:
        """The change that a call with this seed makes, without making it to the pixels.

        size: side of the canvas. boxes, labels, outlines: as for a call.
        Returns the boxes and labels that a call would return, and the change to be made to the pixels: None at strength
        "none".
        """
        generator = np.random.default_rng(seed)
        flipped, boxes, labels, outlines = self._flipped(generator, size, boxes, labels, outlines)
        if self._drawing is None:
            return boxes, labels, None
        if len(self._blank) != size:
            self._blank = np.zeros((size, size, 1), dtype=np.uint8)
        changed = _run(self._drawing, seed, generator, image=self._blank)
        return *_moved(changed, size, boxes, labels, outlines), _change(
            seed, size, flipped, changed["applied_transforms"]
        )

    def mirrors(self, seed: int) -> bool:
        """Whether a call with this seed mirrors the canvas."""
        return bool(np.random.default_rng(seed).random() < self.flip)

    def _flipped(
        self, generator: np.random.Generator, size: int, boxes: np.ndarray, labels: np.ndarray, outlines: Outlines
    ) -> tuple[bool, np.ndarray, np.ndarray, Outlines]:
        """Whether this canvas is mirrored, and its boxes, labels and outlines after that."""
        flipped = bool(generator.random() < self.flip)
        if flipped:
            boxes = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [size, 0, size, 0]
            labels = np.array(labels)
            names = labels if labels.ndim == 1 else labels[:, 0]
            names[:] = [self._mirror.get(int(label), label) for label in names.tolist()]
            outlines = [outline if outline is None else outline * [-1, 1] + [size, 0] for outline in outlines]
        return flipped, boxes.clip(0, size), labels, outlines


def _run(pipeline: Any, seed: int, generator: np.random.Generator, **data: Any) -> dict[str, Any]:
    # `set_random_seed` would let every transform begin with the same random numbers, so that transforms of equal chance
    # would always be applied together.
    pipeline.set_random_state(generator, random.Random(seed))
    changed: dict[str, Any] = pipeline(**data)
    return changed


def _moved(
    changed: dict[str, Any], size: int, boxes: np.ndarray, labels: np.ndarray, outlines: Outlines
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and labels after the transforms that were applied, without those that are out of view.

    By our own arithmetic: albumentations 2.0.8 draws the box around a turned box's corners (`rotate_method`
    "largest_box"), which at ±4° widens a box of 80 × 176 pixels by 6 %; a detector would learn boxes that are too wide.
    """
    applied = dict(changed["applied_transforms"])
    matrix = applied["Affine"]["bbox_matrix"] if "Affine" in applied else None
    if "Distortion" in applied:
        matrix = np.eye(3) if matrix is None else matrix
        boxes = distort_boxes(boxes, matrix, applied["Distortion"]["lattice"], size, outlines)
    elif matrix is not None:
        boxes = place_boxes(boxes, matrix, outlines)
    boxes, is_visible = visible(boxes, size)
    return boxes[is_visible], labels[is_visible]


def _change(seed: int, size: int, flipped: bool, applied: list[tuple[str, dict[str, Any]]]) -> Change:
    """The change of pixels by transforms, given as (name, parameters) in their order."""
    source = np.eye(3)
    parameters: dict[str, Any] = {}
    for name, drawn in applied:
        match name:
            case "Affine":
                source = np.linalg.inv(drawn["matrix"])
            case "Distortion":
                parameters["lattice"] = drawn["lattice"]
            case "RandomBrightnessContrast" | "RandomGamma":
                parameters["table"] = TONES[name].apply(LEVELS, **drawn).ravel()
            case "CLAHE":
                parameters["clip_limit"] = drawn["clip_limit"]
            case "GaussianBlur":
                parameters["kernel"] = drawn["kernel"]
            case "GaussNoise":
                parameters["noise"] = drawn["noise"]
            case "CoarseDropout":
                parameters["holes"] = drawn["holes"]
    if flipped:
        source = np.array([[-1, 0, size - 1], [0, 1, 0], [0, 0, 1]]) @ source
    return Change(seed=seed, flipped=flipped, source=source[:2], **parameters)


def _pipeline(strength: str, distortion: float, kinds: Any) -> Any:
    if strength == "none":
        return None  # an empty Compose would warn that it has nothing to do
    return albumentations.Compose(
        _transforms(kinds, strength == "strong", distortion),
        save_applied_params=True,
    )


def _transforms(a: Any, strong: bool, distortion: float) -> list[Any]:
    """a: `_Changing`, or `_Drawn`, whose transforms leave the pixels alone."""
    # No rotation beyond a few degrees: a box around a turned box is loose, and patients do not stand that crooked.
    place = a.Affine(
        scale=(0.8, 1.2) if strong else (0.9, 1.1),
        translate_percent=(-0.08, 0.08) if strong else (-0.05, 0.05),
        rotate=(-8, 8) if strong else (-4, 4),
        interpolation=cv2.INTER_LINEAR,
        fill=0,
        p=0.8,
    )
    one_of = albumentations.OneOf
    light = one_of([a.RandomBrightnessContrast(0.2, 0.2), a.RandomGamma((70, 140))], p=0.7)
    grain = one_of([a.GaussNoise(std_range=(0.01, 0.04)), a.GaussianBlur(blur_limit=(3, 5))], p=0.2)
    # A transform of chance 0 would still draw a random number, and those after it would get other ones.
    placed = [place, a.Distortion(p=distortion)] if distortion else [place]
    if not strong:
        return [*placed, light, grain]
    return [
        *placed,
        light,
        a.CLAHE(p=0.15),
        grain,
        a.CoarseDropout(num_holes_range=(1, 4), hole_height_range=(0.03, 0.08), hole_width_range=(0.03, 0.08), p=0.2),
    ]


class _Distortion(albumentations.DualTransform):
    """The distortions of `xray.training.distortion` as a transform of albumentations."""

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        return {"lattice": draw_lattice(self.random_generator, params["shape"][0])}

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        return distort(img, params["lattice"], cv2.INTER_LINEAR)

    def apply_to_mask(self, mask: np.ndarray, **params: Any) -> np.ndarray:
        return distort(mask, params["lattice"], cv2.INTER_NEAREST)


class _Changing:
    """albumentations' transforms by their names, and ours."""

    Affine = albumentations.Affine
    RandomBrightnessContrast = albumentations.RandomBrightnessContrast
    RandomGamma = albumentations.RandomGamma
    CLAHE = albumentations.CLAHE
    GaussianBlur = albumentations.GaussianBlur
    CoarseDropout = albumentations.CoarseDropout
    GaussNoise = albumentations.GaussNoise

    class Distortion(_Distortion):
        pass


class _PixelsAlone:
    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        return img


class _Drawn:
    """albumentations' transforms by their names: they draw their parameters and move boxes, and leave pixels alone."""

    class Affine(_PixelsAlone, albumentations.Affine):
        pass

    class Distortion(_PixelsAlone, _Distortion):
        pass

    class RandomBrightnessContrast(_PixelsAlone, albumentations.RandomBrightnessContrast):
        pass

    class RandomGamma(_PixelsAlone, albumentations.RandomGamma):
        pass

    class CLAHE(_PixelsAlone, albumentations.CLAHE):
        pass

    class GaussianBlur(_PixelsAlone, albumentations.GaussianBlur):
        pass

    class CoarseDropout(_PixelsAlone, albumentations.CoarseDropout):
        pass

    class GaussNoise(_PixelsAlone, albumentations.GaussNoise):
        """Draws as many random numbers as albumentations does, without the noise: later draws must stay the same."""

        def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
            deviation = self.py_random.uniform(*self.std_range)
            self.py_random.uniform(*self.mean_range)
            self.random_generator.integers(0, 2**16)
            return {"noise": 255 * deviation}


TONES = {
    "RandomBrightnessContrast": albumentations.RandomBrightnessContrast(),
    "RandomGamma": albumentations.RandomGamma(),
}
