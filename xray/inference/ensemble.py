"""Several models' predictions made one: weighted boxes fusion, or a variant of non-maximum suppression.

Weighted boxes fusion and soft suppression are our own (xray.structures.fusion), non-maximum suppression and non-maximum
weighted those of the ensemble-boxes package. All of them work within one radiograph and one category, so that each
category can have settings of its own.
"""

import dataclasses
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from xray.errors import FlagError
from xray.findings import NO_FINDING_BOX
from xray.inference.suppression import suppress
from xray.structures.boxes import BoxTable, concatenate_with_masks
from xray.structures.fusion import FUSED_SCORES, soft_nms, weighted_boxes_fusion, without_scale
from xray.structures.predictions import NO_FINDING_CATEGORY, Predictions, is_no_finding

FUSION_IOU, FUSION_SCORE = 0.4, "sum"
"""How the views of one model are fused, and models without tuned settings. Winning VinBigData solutions fused at IoU
0.33 to 0.5. The score matters more, where faint boxes stay: three detectors with mirrored views on 200 phantoms have
mAP@0.4 0.838 and COCO AP 0.426 by "sum" at 0.4, 0.818 and 0.428 at 0.55; 0.752 and 0.333 by "avg" at 0.4, 0.808 and
0.418 at 0.55 (the default of ensemble-boxes). The COCO AP of both lungs on chest-open, 128 pixels, mean of five folds,
is 0.752 and 0.753 by "sum" at 0.4 and at 0.55, 0.728 and 0.753 by "avg", 0.740 without the mirrored view."""
METHODS = ("wbf", "nms", "soft_nms", "nmw", "none")
Covered = Sequence[Collection[str | int] | None]
"""Of each model the ids of the radiographs that it was run on; None for all."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the boxes of one category are fused.

    weights: one number a model; equal where empty; a model with 0 counts as if it were not there.
    method: "wbf" averages overlapping boxes by score; "nms" keeps the strongest; "soft_nms" keeps all and lowers the
        scores of the weaker ones by exp(-IoU² / sigma); "nmw" averages by score × overlap and keeps the strongest one's
        score; "none" keeps all as they are. With methods other than "wbf", a box's score is first multiplied by its
        model's weight / the largest weight.
    score: of a box fused by "wbf", as in `weighted_boxes_fusion`. With "avg" and unequal weights it can exceed 1 and
        is cut to 1; "sum" and "box_and_model_avg" cannot.
    iou: in (0, 1); boxes that overlap by more are taken for one finding; without effect in "soft_nms" and "none".
    skip: in [0, 1]; boxes with a lower score, and boxes without area, are left out.
    sigma: above 0; of "soft_nms".
    scale: in [0.5, 1]; the sides of a fused box are multiplied by it about its middle, as winners of RSNA's pneumonia
        challenge did by 0.875; a box with a mask keeps its place.
    exponents: a and b of a classifier beside the models: a score s becomes s^a · p^b where the classifier gives the
        radiograph the probability p of the category. Within a category only b / a decides the order, and with it the
        average precision. By default b / a is 1/2: a detector's score holds much of what a classifier sees, which then
        should not count in full again; b = 0 leaves the classifier out. No box is ever left out by the classifier.
    """

    weights: tuple[float, ...] = ()
    method: str = "wbf"
    score: str = FUSION_SCORE
    iou: float = FUSION_IOU
    skip: float = 0.0
    sigma: float = 0.5
    scale: float = 1.0
    exponents: tuple[float, float] = (1.0, 0.5)

    def of_models(self, chosen: np.ndarray) -> "Settings":
        """The same for some of the models, by number, where the others have no vote.

        Where all that counts is among the others, the chosen ones count alike: they are all that is known.
        """
        weights = tuple(self.weights[model] for model in chosen.tolist()) if self.weights else ()
        if not weights or any(weights):
            return dataclasses.replace(self, weights=weights)
        is_of_one = self.method == "none" and len(weights) > 1
        return dataclasses.replace(self, weights=(), method="wbf" if is_of_one else self.method)

    def check(self, n_models: int) -> None:
        """Raises FlagError for a value out of range, or weights that are not one a model."""
        weights = self.weights or (1.0,) * n_models
        a, b = self.exponents
        for holds, message in (
            (n_models > 0, "nothing to fuse: give at least one predictions file"),
            (len(weights) == n_models, f"{len(weights)} weights for {n_models} predictions files: give one a file"),
            (
                all(0 <= weight < math.inf for weight in weights) and any(weights),
                f"weights must be positive numbers, or 0 for a model to leave out, not {list(weights)}",
            ),
            (0 < self.iou < 1, f"the IoU threshold is {self.iou}: it must lie between 0 and 1"),
            (0 <= self.skip <= 1, f"the skip threshold is {self.skip}: it must lie between 0 and 1"),
            (self.method in METHODS, f"unknown fusion method {self.method!r}: use one of {', '.join(METHODS)}"),
            (self.score in FUSED_SCORES, f"unknown fused score {self.score!r}: use one of {', '.join(FUSED_SCORES)}"),
            (0 < self.sigma < math.inf, f"sigma is {self.sigma}: it must be above 0"),
            (0.5 <= self.scale <= 1, f"the scale of boxes is {self.scale}: it must lie between 0.5 and 1"),
            (
                0 < a < math.inf and 0 <= b < math.inf,
                f"exponents are {a} and {b}: give one above 0, and one of 0 or more",
            ),
        ):
            if not holds:
                raise FlagError(message)


@dataclasses.dataclass(frozen=True)
class ByCategory:
    """Settings of all categories: those in `of`, by category id, and `default` for the others."""

    default: Settings = dataclasses.field(default_factory=Settings)
    of: Mapping[int, Settings] = dataclasses.field(default_factory=dict)

    def __getitem__(self, label: int) -> Settings:
        return self.of.get(label, self.default)

    def of_models(self, chosen: np.ndarray) -> "ByCategory":
        """As of `Settings`."""
        own = {label: settings.of_models(chosen) for label, settings in self.of.items()}
        return ByCategory(self.default.of_models(chosen), own)

    def alike(self, labels: Iterable[int]) -> Iterator[tuple[Settings, list[int]]]:
        """The labels in groups that have the same settings."""
        groups: dict[Settings, list[int]] = {}
        for label in labels:
            groups.setdefault(self[label], []).append(label)
        return iter(groups.items())


def fuse(
    predictions: Sequence[Predictions],
    weights: Sequence[float] | None = None,
    iou_threshold: float = FUSION_IOU,
    skip_threshold: float = 0.0,
    method: str = "wbf",
    score: str = FUSION_SCORE,
    sigma: float = 0.5,
    scale: float = 1.0,
    covered: Covered = (),
) -> Predictions:
    """`fuse_by_category` with the same settings for all; see `Settings` for the arguments.

    weights: one positive number a model; equal when None. covered: as there.
    """
    given = tuple(float(weight) for weight in weights or ())
    if weights is not None and (len(given) != len(predictions) or not all(0 < weight < math.inf for weight in given)):
        raise FlagError(
            f"{len(given)} weights for {len(predictions)} predictions files: give one a file"
            if len(given) != len(predictions)
            else f"weights must be positive numbers, not {list(given)}: leave out a model that should not count"
        )
    settings = Settings(given, method, score, iou_threshold, skip_threshold, sigma, scale)
    return fuse_by_category(predictions, ByCategory(settings), covered)


def fuse_by_category(predictions: Sequence[Predictions], settings: ByCategory, covered: Covered = ()) -> Predictions:
    """Fuses the predictions of several models, radiograph by radiograph.

    predictions: one entry a model.
    covered: of each model the radiographs that it was run on, beside those that it has rows of; None, or nothing at
        all, for every one. A model has no vote on another radiograph: the weights of the others count alone there. On
        one that it was run on, it counts as having found nothing where it has no box.

    "No finding" rows (category 15, unit box) are probabilities, not boxes: each radiograph gets their mean, by the
    default weights, over the models that gave one. A fused box keeps the mask of its highest-scored member that has
    one.

    Returns radiographs in order of first appearance; boxes by radiograph, scores descending. Raises FlagError for
    settings out of range, InputError for boxes or scores out of range.
    """
    for each in (settings.default, *settings.of.values()):
        each.check(len(predictions))
    index: dict[str | int, int] = {}
    parts = []
    for model in predictions:
        rows = np.array([index.setdefault(image_id, len(index)) for image_id in model.image_ids], dtype=np.int64)
        parts.append((dataclasses.replace(model.table, images=rows[model.table.images]), model.masks))
    table, masks = concatenate_with_masks(parts)
    models = np.repeat(np.arange(len(parts)), [len(part) for part, _ in parts])

    is_normal = is_no_finding(table)
    rows = np.flatnonzero(~is_normal)
    votes, pattern_of = _votes([part.images for part, _ in parts], tuple(index), covered)
    by_votes = []
    for number, chosen in enumerate(votes):
        here = rows[pattern_of[table.images[rows]] == number]
        place = np.cumsum(chosen) - 1
        voting = np.flatnonzero(chosen)
        by_votes.append(
            fuse_boxes(*table.select_masked(here, masks), place[models[here]], len(voting), settings.of_models(voting))
        )
    fused, masks_of_fused = concatenate_with_masks(by_votes)
    weights = without_scale(np.array(settings.default.weights or (1.0,) * len(parts)))
    # A model that is left out still says what nobody else does.
    normal = _average_no_finding(table.select(is_normal), np.maximum(weights, 1e-9)[models[is_normal]])
    return _sorted(tuple(index), BoxTable.concatenate([fused, normal]), masks_of_fused)


def _votes(
    images: Sequence[np.ndarray], image_ids: tuple[str | int, ...], covered: Covered
) -> tuple[np.ndarray, np.ndarray]:
    """(P, models) bool, the sets of models that vote together on some radiograph, and (n_images,) which of these votes.

    images: of each model the radiographs that it has rows of, indices into `image_ids`.
    """
    has_vote = np.zeros((len(image_ids), len(images)), dtype=bool)
    for model, its_own in enumerate(images):
        names = covered[model] if covered else None
        has_vote[:, model] = True if names is None else [name in names for name in image_ids]
        has_vote[its_own, model] = True
    votes, pattern_of = np.unique(has_vote, axis=0, return_inverse=True)
    return votes, pattern_of.reshape(-1)


def weigh(
    predictions: Predictions, probabilities: Mapping[int, Mapping[str | int, float]], by: ByCategory
) -> Predictions:
    """Multiplies the scores of boxes by a classifier's probabilities, see `Settings.exponents`.

    probabilities: category → image id → probability. A box of another category or image keeps its score.
    """
    table = predictions.table
    columns = {
        label: np.array([of_image.get(image_id, math.nan) for image_id in predictions.image_ids])
        for label, of_image in probabilities.items()
    }
    return _sorted(predictions.image_ids, weigh_boxes(table, columns, by), predictions.masks)


def weigh_boxes(table: BoxTable, probabilities: Mapping[int, np.ndarray], settings: ByCategory) -> BoxTable:
    """`weigh` of a table. probabilities: category → (n_images,) in [0, 1], NaN where it is not known."""
    scores = table.scores.copy()
    normal = is_no_finding(table)
    for label, of_image in probabilities.items():
        a, b = settings[label].exponents
        rows = np.flatnonzero((table.labels == label) & ~normal)
        probability = of_image[table.images[rows]]
        rows, probability = rows[~np.isnan(probability)], probability[~np.isnan(probability)]
        scores[rows] = scores[rows] ** a * probability**b
    return dataclasses.replace(table, scores=scores)


def fuse_boxes(
    table: BoxTable, masks: Mapping[int, Any], models: np.ndarray, n_models: int, settings: ByCategory
) -> tuple[BoxTable, dict[int, Any]]:
    """Boxes of several models, fused category by category → boxes in no particular order, and row → mask.

    table: without "No finding" rows. masks: row → mask. models: (N,), which of the n_models a box is of.
    """
    parts = []
    for chosen, labels in settings.alike(np.unique(table.labels).tolist()):
        weights = np.array(chosen.weights or (1.0,) * n_models)
        rows = np.flatnonzero(np.isin(table.labels, labels) & (weights[models] > 0))
        if chosen.method == "wbf":
            # Models with weight 0 are left out: a score falls where a model has no box.
            number = np.cumsum(weights > 0) - 1
            result = weighted_boxes_fusion(
                table.select(rows), number[models[rows]], weights[weights > 0].tolist(), chosen.iou, chosen.skip,
                chosen.score,
            )  # fmt: skip
            fused, source = result.table, _strongest_with_mask(rows, result.cluster, table.scores, masks)
        else:
            has_area = ((table.boxes[:, 2:] - table.boxes[:, :2]) > 0).all(axis=1)
            rows = rows[(table.scores >= chosen.skip)[rows] & has_area[rows]]
            weighted = dataclasses.replace(table, scores=table.scores * (weights / weights.max())[models])
            if chosen.method in ("nms", "nmw"):
                fused, source = suppress(weighted, rows, masks, chosen.iou, chosen.method)
            else:
                fused, source = (
                    weighted.select(rows),
                    {new: old for new, old in enumerate(rows.tolist()) if old in masks},
                )
                if chosen.method == "soft_nms":
                    fused = dataclasses.replace(fused, scores=soft_nms(fused, chosen.sigma))
        with_mask = np.isin(np.arange(len(fused)), list(source))
        fused = dataclasses.replace(
            fused,
            boxes=np.where(with_mask[:, None], fused.boxes, scaled(fused.boxes, chosen.scale)),
            scores=fused.scores.clip(0, 1),
        )
        parts.append((fused, {row: masks[from_row] for row, from_row in source.items()}))
    return concatenate_with_masks(parts)


def fuse_alike(table: BoxTable, sources: np.ndarray, n_sources: int) -> BoxTable:
    """Weighted boxes fusion with the default settings. sources: (N,), which of the n_sources a box is of."""
    return weighted_boxes_fusion(table, sources, [1.0] * n_sources, FUSION_IOU, score=FUSION_SCORE).table


def fuse_members(
    table: BoxTable, sources: np.ndarray, members: np.ndarray, settings: ByCategory, limit: int
) -> BoxTable:
    """The views and runs of each model fused alike, and then the models by their settings.

    sources: (N,), which view of a run a box is of. members: of each source its model. limit: of a model's boxes in an
    image.
    """
    parts = []
    for model in range(int(members.max()) + 1):
        views = np.flatnonzero(members == model)
        rows = np.flatnonzero(np.isin(sources, views))
        part = table.select(rows)
        if len(views) > 1:
            part = fuse_alike(part, np.searchsorted(views, sources[rows]), len(views))
        parts.append(part.best_per_image(limit))
    models = np.repeat(np.arange(len(parts)), list(map(len, parts)))
    return fuse_boxes(BoxTable.concatenate(parts), {}, models, len(parts), settings)[0]


def scaled(boxes: np.ndarray, scale: float) -> np.ndarray:
    """(N, 4) boxes with their sides multiplied, each about its middle."""
    if scale == 1:
        return boxes
    inset = (boxes[:, 2:] - boxes[:, :2]) * (1 - scale) / 2
    return boxes + np.concatenate([inset, -inset], axis=1)


def _sorted(image_ids: tuple[str | int, ...], table: BoxTable, masks: Mapping[int, Any]) -> Predictions:
    """By radiograph, scores descending."""
    return Predictions(image_ids, *table.select_masked(np.lexsort((-table.scores, table.images)), masks))


def _average_no_finding(table: BoxTable, weights: np.ndarray) -> BoxTable:
    """One row a radiograph that has any: the weighted mean of the models' probabilities."""
    images, inverse = np.unique(table.images, return_inverse=True)
    total = np.bincount(inverse, weights=table.scores * weights, minlength=len(images))
    scores = total / np.bincount(inverse, weights=weights, minlength=len(images))
    labels = np.full(len(images), NO_FINDING_CATEGORY)
    return BoxTable.of(images, labels, np.tile(NO_FINDING_BOX, (len(images), 1)), scores)


def _strongest_with_mask(
    rows: np.ndarray, cluster: np.ndarray, scores: np.ndarray, masks: Mapping[int, object]
) -> dict[int, int]:
    """Fused row → the row of its highest-scored member with a mask, where it has one."""
    went_into = np.full(len(scores), -1, dtype=np.int64)
    went_into[rows] = cluster
    source: dict[int, int] = {}
    for row in sorted(masks):
        fused = int(went_into[row])
        if fused >= 0 and (fused not in source or scores[row] > scores[source[fused]]):
            source[fused] = row
    return source
