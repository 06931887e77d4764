"""Masks held against the truth at original size, radiograph by radiograph, and the search of their thresholds."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from xray.datasets.store import Store
from xray.errors import InputError, spelled
from xray.evaluation.alignment import Alignment, Rle
from xray.evaluation.mask_metrics import dice_scores, iou_scores, segmentation_metrics
from xray.evaluation.resampling import draw_patients, mean_interval
from xray.evaluation.threshold_search import ProbabilityCache, Search, level_counts
from xray.structures.boxes import BoxTable
from xray.structures.masks import decode_mask
from xray.structures.probability_maps import ProbabilityMaps
from xray.structures.triplet import Triplet


@dataclasses.dataclass(frozen=True)
class MaskSearch:
    """The settings that would have suited the scored radiographs best, and all others.

    triplet: rows of top, min_area and bottom. gate: rows of a classifier's gate before `setting`, None without one.
    setting: the triplet that was asked for, otherwise the best; scores: its row.
    """

    triplet: Search
    gate: Search | None
    setting: Triplet
    scores: dict[str, float]


@dataclasses.dataclass(frozen=True)
class MaskEvaluation:
    """The masks of n radiographs and K categories, and their numbers.

    categories: id → name of the K. intersections, predicted, true: (n, K) int64, pixels at original size of what both
    masks share, of the predicted one, of the true one. joined: (n, 3) int64, the same three of all categories' masks
    together.
    metrics: the part of metrics.json about masks. counted: (n, K) bool, the masks whose truth is known; of the others
    all pixels are 0, and those of `joined` where one is not known. search: None where there are no probability maps.
    """

    alignment: Alignment
    categories: dict[int, str]
    intersections: np.ndarray
    predicted: np.ndarray
    true: np.ndarray
    joined: np.ndarray
    metrics: dict[str, Any]
    counted: np.ndarray
    search: MaskSearch | None = None

    @property
    def dice(self) -> np.ndarray:
        """(n, K) float64 in [0, 1], by the rule of SIIM-ACR 1 where both masks are empty."""
        return dice_scores(self.intersections, self.predicted, self.true)

    def shares(self, pixels: np.ndarray) -> np.ndarray:
        """(n, K) numbers of pixels as shares of their radiographs."""
        shares: np.ndarray = pixels / self.alignment.sizes.prod(axis=1)[:, None]
        return shares


def mask_categories(store: Store) -> dict[int, str]:
    """The categories of which the store has masks, id → name; a category without masks cannot be scored by masks."""
    with_masks = {int(store.boxes.labels[box]) for box in store.masks}
    return {label: name for label, name in store.categories.items() if label in with_masks}


def evaluate_masks(
    alignment: Alignment, categories: dict[int, str], n_resamples: int = 0, counted: np.ndarray | None = None
) -> MaskEvaluation:
    """Scores masks at original size: of each radiograph and category the union of its rows' masks, at any score.

    A radiograph without a prediction counts as one with empty masks.

    metrics: those of `segmentation_metrics`, means over radiographs × categories; where there are several categories
    also `dice_by_category` {name: dice} and `dice_union`, of all categories joined. n_resamples: of the patients, for
    the …_ci95 intervals; 0 leaves them out.
    counted: (n, K) bool, whether it is known where each radiograph shows each category; a mask of which it is not is
    left out of all numbers, and its radiograph of those of the joined masks. None for all. There must be one. Then also
    `n_unknown_masks` {name: radiographs left out}.

    Raises InputError for a true mask that does not fit its radiograph, and names it.
    """
    predicted = _unions(alignment.predictions, alignment.masks, categories)
    true = _unions(alignment.truth, alignment.true_masks, categories)
    sums = np.zeros((3, len(alignment), len(categories)), dtype=np.int64)
    joined = np.zeros((len(alignment), 3), dtype=np.int64)
    counted = np.ones(sums.shape[1:], dtype=bool) if counted is None else counted
    whole = counted.all(axis=1)
    for image in range(len(alignment)):
        pairs = [(predicted.get((image, label)), true.get((image, label))) for label in categories]
        for k, pair in enumerate(pairs):
            sums[:, image, k] = _pixels(*pair)
        joined[image] = _pixels(*(_merged([rle for rle in rles if rle]) for rles in zip(*pairs, strict=True)))
    sums[:, ~counted], joined[~whole] = 0, 0
    metrics: dict[str, Any] = segmentation_metrics(*sums, counted=counted)
    if len(categories) > 1:
        columns = zip(categories.values(), dice_scores(*sums).T, counted.T, strict=True)
        metrics["dice_by_category"] = {name: float(dice[known].mean()) for name, dice, known in columns if known.any()}
        if whole.any():
            metrics["dice_union"] = float(dice_scores(*joined[whole].T).mean())
    if not counted.all():
        numbers = zip(categories.values(), (~counted).sum(axis=0).tolist(), strict=True)
        metrics["n_unknown_masks"] = {name: number for name, number in numbers if number}
    if n_resamples:
        metrics |= _intervals(sums, joined, counted, list(categories.values()), alignment.patients, n_resamples)
    return MaskEvaluation(alignment, categories, sums[0], sums[1], sums[2], joined, metrics, counted)


def _unions(table: BoxTable, masks: dict[int, Rle], categories: dict[int, str]) -> dict[tuple[int, int], Rle]:
    """(radiograph, category) → the RLE of its masks' union; without those that have none."""
    parts: dict[tuple[int, int], list[Rle]] = {}
    for row, mask in masks.items():
        if table.labels[row] in categories:
            parts.setdefault((int(table.images[row]), int(table.labels[row])), []).append(mask)
    return {key: coco_mask.merge(group) for key, group in parts.items()}


def _merged(rles: list[Rle]) -> Rle | None:
    return coco_mask.merge(rles) if rles else None


def _pixels(predicted: Rle | None, true: Rle | None) -> tuple[int, int, int]:
    """Pixels that both masks share, of the predicted one, of the true one. None: an empty mask."""
    shared = coco_mask.area(coco_mask.merge([predicted, true], intersect=True)) if predicted and true else 0
    return shared, coco_mask.area(predicted) if predicted else 0, coco_mask.area(true) if true else 0


def _intervals(
    sums: np.ndarray,
    joined: np.ndarray,
    counted: np.ndarray,
    names: Sequence[str],
    patients: np.ndarray,
    n_resamples: int,
) -> dict[str, Any]:
    times = draw_patients(patients, n_resamples)
    if times is None:
        return {}
    scores, positive, drawn = dice_scores(*sums), sums[2] > 0, sums[1] > 0
    interval = functools.partial(mean_interval, patients=patients, times=times)
    intervals: dict[str, Any] = {
        "dice_ci95": interval(scores, counted),
        "iou_ci95": interval(iou_scores(*sums), counted),
    }
    if positive.any():
        intervals["dice_positive_ci95"] = interval(scores, positive)
        intervals["sensitivity_ci95"] = interval(drawn, positive)
    if not positive[counted].all():
        intervals["false_positive_rate_ci95"] = interval(drawn, ~positive & counted)
    if len(names) > 1:
        columns = [(k, name) for k, name in enumerate(names) if counted[:, k].any()]
        intervals["dice_by_category_ci95"] = {name: interval(scores[:, k], counted[:, k]) for k, name in columns}
        whole: np.ndarray = np.all(counted, axis=1)
        if whole.any():
            intervals["dice_union_ci95"] = interval(dice_scores(*joined.T), whole)
    return intervals


def cache_probabilities(
    alignment: Alignment,
    maps: ProbabilityMaps,
    place: np.ndarray,
    categories: dict[int, str],
    progress: Callable[[str], None] | None = None,
) -> ProbabilityCache:
    """Reads the maps at original size with the true masks → one entry for each radiograph and, fastest, category.

    place: (n,) int64, number of each radiograph's map; -1 where there is none, which counts as probability 0.
    categories: id → name of those with a channel in the maps, found by name.
    progress: called with a text for each radiograph.
    Raises InputError for a map of another size than its radiograph.
    """
    channel = {name: number for number, name in enumerate(maps.categories.values())}
    true = _unions(alignment.truth, alignment.true_masks, categories)
    for record, number, size in zip(alignment.records, place.tolist(), alignment.sizes.tolist(), strict=True):
        if number >= 0 and maps.sizes[number].tolist() != size:
            raise InputError(
                f"the probability map of {record['source_id']} is of {maps.sizes[number].tolist()} pixels, the "
                f"radiograph has {size}: run {spelled('infer')} with --probabilities on the radiographs of this dataset"
            )

    def counts(image: int) -> list[np.ndarray]:
        number, (width, height) = int(place[image]), alignment.sizes[image].tolist()
        result = []
        for label, name in categories.items():
            nothing = np.zeros((height, width), dtype=np.uint8)
            probability = nothing if number < 0 else maps.original(number, channel[name])
            mask = decode_mask(true[image, label]) if (image, label) in true else nothing
            result.append(level_counts(probability, mask))
        return result

    cached: list[np.ndarray] = []
    # NumPy and OpenCV release the interpreter most of the time.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            for done, of_image in enumerate(pool.map(counts, range(len(alignment))), 1):
                cached += of_image
                if progress:
                    progress(f"probability maps: {done} of {len(alignment)}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return ProbabilityCache(cached)


def search_masks(cache: ProbabilityCache, gate_probabilities: np.ndarray | None, chosen: Triplet | None) -> MaskSearch:
    """All triplets and, with a classifier's probability for each entry of the cache, all gates.

    chosen: the setting to mark and to put behind the gate; None for the best one.
    """
    search = cache.search()
    scores = search.best if chosen is None else cache.search([chosen.top], [chosen.min_area], [chosen.bottom]).best
    setting = Triplet(*(scores[name] for name in ("top", "min_area", "bottom")))
    gate = None if gate_probabilities is None else cache.search_gate(gate_probabilities, triplet=setting)
    return MaskSearch(search, gate, setting, scores)
