"""The search for settings of an ensemble on out-of-fold predictions, and its gain on radiographs that it has not seen.

Categories are fused and scored apart, so that each can be searched by itself. First all share one setting, then each
may leave it. A step is taken only where it gains more than noise: the mean difference of average precision over
resamples of the patients must exceed some of their standard deviations. Even so, the best of many candidates seems to
gain too much. Therefore the search is repeated with each fold held out, and its settings are scored on that fold.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np

from xray.evaluation.box_intervals import ALL_POINTS, mean_of_present, resample_ap
from xray.evaluation.box_matching import match_boxes
from xray.evaluation.coco_metrics import COCO_RECALLS, match_coco
from xray.evaluation.comparison import TOTAL, Difference, difference_of
from xray.evaluation.resampling import draw_patients
from xray.inference.ensemble import ByCategory, Settings, fuse_boxes, weigh_boxes
from xray.inference.out_of_fold import OutOfFold
from xray.structures.boxes import BoxTable

Metric = Literal["map40", "coco_ap"]

SCORES = ("sum", "avg", "max", "box_and_model_avg")
SIGMAS, IOUS, SCALES = (0.1, 0.5), (0.3, 0.4, 0.5, 0.6), (1.0, 0.9375, 0.875)
WEIGHTS, EXPONENTS = (0.0, 0.5, 1.0, 2.0), (0.0, 0.25, 0.5, 1.0, 2.0)

CLEAR_OF_ALL, CLEAR_OF_ONE = 1.0, 2.0
"""Standard deviations that a step must gain: for the mean over the categories, and for a single category, of which many
are tried. With 8 findings in 8 % of 300 synthetic radiographs, 1 and 1 gained less on new ones than 1 and 2 (0.084 and
0.094)."""
LEAST_GAIN = 5e-4
LEAST_PATIENTS = 10
"""A category whose finding is in fewer patients keeps the setting of all."""
SEARCH_RESAMPLES = 50
WORTH_THREADS = 100_000
"""From this many boxes on, categories are fused in parallel."""
N_PARTS = 5
"""Parts that the patients are dealt into where all predictions are of one fold."""


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The result of `tune`.

    settings: fitted on all folds. held_out: fold → the settings fitted on the other folds. best: number of the best
    single model.
    scores: "single" (the best), "plain" (weighted boxes fusion with default settings; not with one model), "tuned"
    (each fold by the settings fitted on the other folds) and "in_sample" (by the settings fitted on all folds) → the
    metric, and by category.
    gains: of "tuned" over "single" and, where there is one, "plain", with intervals by patient.
    dealt: whether the folds are parts of the patients, since the predictions were of one fold.
    """

    settings: ByCategory
    held_out: dict[int, ByCategory]
    best: int
    scores: dict[str, tuple[float, dict[int, float]]]
    gains: dict[str, Difference]
    dealt: bool


def tune(
    material: OutOfFold,
    categories: Mapping[int, str],
    metric: Metric = "map40",
    n_resamples: int = 1000,
    seed: int = 0,
    advance: Callable[[int, int, int], None] = lambda done, total, tried: None,
) -> Tuned:
    """Searches the settings and scores them by cross-fitting.

    metric: "map40", the mean over the categories of VOC's AP at IoU 0.4, or "coco_ap". n_resamples: of the patients,
    for the intervals; 0 leaves them out. advance: called with the steps done, all of them, and the number of settings
    of a category that were tried.
    The same material and seed give the same result.
    """
    folds, dealt = _folds(material, seed)
    present = [label for label in sorted(categories) if (material.truth.labels == label).any()]
    n_folds = int(folds.max()) + 1
    draws = [_draws(material.patients, folds != fold, SEARCH_RESAMPLES, seed) for fold in [*range(n_folds), -1]]
    by_label = {label: _Category(material, label, metric, folds, draws) for label in present}
    start = default_settings(len(material.tables))
    steps, done = (n_folds + 1) * (1 + len(present)), 0
    fitted: list[ByCategory] = []

    def tell() -> None:
        advance(done, steps, sum(one.n_tried for one in by_label.values()))

    def shared(settings: Settings, part: int) -> np.ndarray:
        tell()
        if sum(map(len, material.tables)) < WORTH_THREADS:
            return mean_of_present([one.samples(settings, part) for one in by_label.values()])
        # Its long computations leave the interpreter to other threads.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return mean_of_present(list(pool.map(lambda one: one.samples(settings, part), by_label.values())))

    for part in range(n_folds + 1):
        common = _search(
            start,
            functools.partial(shared, part=part),
            len(material.tables),
            bool(material.probabilities),
            CLEAR_OF_ALL,
        )
        done += 1
        tell()
        by_category: dict[int, Settings] = {}
        for label, one in by_label.items():
            if one.n_patients(part) >= LEAST_PATIENTS:
                of_one = functools.partial(one.samples, part=part)
                settings = _search(common, of_one, len(material.tables), label in material.probabilities, CLEAR_OF_ONE)
                if settings != common:
                    by_category[label] = settings
            done += 1
            tell()
        fitted.append(ByCategory(common, by_category))

    return _scored(by_label, fitted, _draws(material.patients, folds >= 0, n_resamples, seed), metric, dealt)


def _scored(
    by_label: dict[int, "_Category"], fitted: list[ByCategory], times: np.ndarray, metric: Metric, dealt: bool
) -> Tuned:
    """fitted: the settings without each fold, and those of all. times: of `_draws`."""
    *held_out, final = fitted
    n_models = next(iter(by_label.values())).n_models
    start = default_settings(n_models)
    singles = [{label: one.ap(one.alone(model), times) for label, one in by_label.items()} for model in range(n_models)]
    best = max(range(n_models), key=lambda model: _mean(singles[model])[0])
    parts = {"single": singles[best]}
    if n_models > 1:
        parts["plain"] = {label: one.ap(one.table(start), times) for label, one in by_label.items()}
    parts["tuned"] = {
        label: one.ap(one.crossed([each[label] for each in held_out]), times) for label, one in by_label.items()
    }
    parts["in_sample"] = {label: one.ap(one.table(final[label]), times) for label, one in by_label.items()}
    means = {name: _mean(part) for name, part in parts.items()}
    scores = {
        name: (float(means[name][0]), {label: float(samples[0]) for label, samples in part.items()})
        for name, part in parts.items()
    }
    # The value, and that in each resample, where there are any.
    numbers = {name: (float(mean[0]), mean[1:] if len(mean) > 1 else None) for name, mean in means.items()}
    compared = [name for name in numbers if name in ("single", "plain")]
    gains = {name: difference_of(metric, TOTAL, numbers[name], numbers["tuned"]) for name in compared}
    return Tuned(final, dict(enumerate(held_out)), best, scores, gains, dealt)


def default_settings(n_models: int) -> Settings:
    """The start of the search: plain weighted boxes fusion, or a single model as it is; without a classifier."""
    return Settings(method="wbf" if n_models > 1 else "none", exponents=(1.0, 0.0))


def _mean(samples: Mapping[int, np.ndarray]) -> np.ndarray:
    return mean_of_present(list(samples.values()))


def _folds(material: OutOfFold, seed: int) -> tuple[np.ndarray, bool]:
    """(n,) the fold of each radiograph from 0, and whether patients were dealt into parts for want of folds."""
    values, folds = np.unique(material.folds, return_inverse=True)
    if len(values) > 1:
        return folds, False
    dealt = np.random.default_rng(seed).permutation(int(material.patients.max()) + 1) % N_PARTS
    return np.unique(dealt[material.patients], return_inverse=True)[1], True


def _draws(patients: np.ndarray, inside: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """How often each patient counts → (1 + n_resamples, n_patients): first once, then as drawn among those `inside`."""
    chosen = np.unique(patients[inside])
    drawn = draw_patients(np.arange(len(chosen)), n_resamples, seed)
    times = np.zeros((1 + (0 if drawn is None else len(drawn)), int(patients.max()) + 1), dtype=np.uint32)
    times[0, chosen] = 1
    if drawn is not None:
        times[1:, chosen] = drawn
    return times


def _search(
    start: Settings, samples: Callable[[Settings], np.ndarray], n_models: int, has_classifier: bool, clear: float
) -> Settings:
    """One factor after the other, each to its best level if that is clearly better, twice at most.

    samples: settings → the metric, first of all patients, then of each resample.
    """
    current = start
    for _ in range(2):
        before = current
        for levels in (_exponents if has_classifier else _nothing, _kinds, _weights, _scales):
            best, most = current, 0.0
            reference = samples(current)
            for candidate in levels(current, n_models):
                difference = samples(candidate) - reference
                noise = float(np.nanstd(difference[1:])) if len(difference) > 1 else math.inf
                if difference[0] > max(most, clear * noise, LEAST_GAIN):
                    best, most = candidate, float(difference[0])
            current = best
        if current == before:
            break
    return current


def _nothing(_: Settings, n_models: int) -> Iterator[Settings]:
    return iter(())


def _exponents(current: Settings, n_models: int) -> Iterator[Settings]:
    """Only b / a matters within a category, so that a stays."""
    return (dataclasses.replace(current, exponents=(current.exponents[0], b)) for b in EXPONENTS)


def _kinds(current: Settings, n_models: int) -> Iterator[Settings]:
    """Method, score and IoU together: at an IoU that suits one score, another can seem worse than it is."""
    for score in SCORES:
        for iou in IOUS:
            yield dataclasses.replace(current, method="wbf", score=score, iou=iou)
    for sigma in SIGMAS:
        yield dataclasses.replace(current, method="soft_nms", sigma=sigma)
    if np.count_nonzero(current.weights or (1.0,) * n_models) == 1:
        yield dataclasses.replace(current, method="none")


def _weights(current: Settings, n_models: int) -> Iterator[Settings]:
    """Each model's weight beside the others', and each model alone, as it is."""
    if n_models == 1:
        return
    weights = current.weights or (1.0,) * n_models
    method = current.method if np.count_nonzero(weights) > 1 else "wbf"
    for model in range(n_models):
        for weight in WEIGHTS:
            changed = tuple(weight if number == model else other for number, other in enumerate(weights))
            if np.count_nonzero(changed) > 1:
                largest = max(changed)
                share = tuple(one / largest for one in changed)
                yield dataclasses.replace(current, weights=share if set(share) != {1.0} else (), method=method)
    for model in range(n_models):
        alone = tuple(float(number == model) for number in range(n_models))
        yield dataclasses.replace(current, weights=alone, method="none")


def _scales(current: Settings, n_models: int) -> Iterator[Settings]:
    return (dataclasses.replace(current, scale=scale) for scale in SCALES)


class _Category:
    """The boxes of one category, and their scores under the settings that were tried."""

    def __init__(
        self, material: OutOfFold, label: int, metric: Metric, folds: np.ndarray, draws: list[np.ndarray]
    ) -> None:
        self._truth = material.truth.select(material.truth.labels == label)
        tables = [table.select(table.labels == label) for table in material.tables]
        self._table, self.n_models = BoxTable.concatenate(tables), len(tables)
        self._models = np.repeat(np.arange(len(tables)), list(map(len, tables)))
        self._probabilities = {label: material.probabilities[label]} if label in material.probabilities else {}
        self._patients, self._folds, self._draws, self._metric = material.patients, folds, draws, metric
        self._samples: dict[Settings, np.ndarray] = {}
        self._fused: dict[Settings, tuple[BoxTable, np.ndarray]] = {}

    @property
    def n_tried(self) -> int:
        """How many settings were tried."""
        return len(self._samples)

    def n_patients(self, part: int) -> int:
        """Patients with the finding, among those that a part of the search sees."""
        return len(np.unique(self._patients[self._truth.images[self._inside(part)[self._truth.images]]]))

    def table(self, settings: Settings) -> BoxTable:
        """The fused boxes, weighed by the classifier."""
        return self._weighed(settings)[0]

    def samples(self, settings: Settings, part: int) -> np.ndarray:
        """AP of all, then in each resample, on what a part of the search sees."""
        if settings not in self._samples:
            table, is_true = self._weighed(settings)
            self._samples[settings] = np.stack(
                [self._ap(table, is_true, self._inside(number), times) for number, times in enumerate(self._draws)]
            )
        samples: np.ndarray = self._samples[settings][part]
        return samples

    def alone(self, model: int) -> BoxTable:
        """The boxes of one model as they are."""
        return self._table.select(self._models == model)

    def ap(self, table: BoxTable, times: np.ndarray) -> np.ndarray:
        """AP of all radiographs, then in each resample."""
        return self._ap(table, self._matched(table), np.ones(len(self._folds), dtype=bool), times)

    def crossed(self, settings: list[Settings]) -> BoxTable:
        """Each fold by its own settings.

        Where settings differ between folds, the scale of scores may differ, too, and boxes of different folds cannot be
        compared. A score is then replaced by 1 / (1 + t), where t boxes a radiograph have as high a score in the other
        folds, on which the settings were fitted. This uses nothing of the fold itself, and keeps the order within a
        fold.
        """
        if len(set(settings)) == 1:
            return self.table(settings[0])
        parts = []
        for fold, setting in enumerate(settings):
            table = self.table(setting)
            inside = self._inside(fold)
            others = np.sort(table.scores[inside[table.images]])
            part = table.select(~inside[table.images])
            n_seen = max(1, int(np.count_nonzero(inside)))
            above = len(others) - np.searchsorted(others, part.scores, side="left")
            parts.append(dataclasses.replace(part, scores=1 / (1 + above / n_seen)))
        return BoxTable.concatenate(parts)

    def _inside(self, part: int) -> np.ndarray:
        """(n,) bool, the radiographs of all folds but one; for the part after the last fold, all of them."""
        inside: np.ndarray = self._folds != part
        return inside

    def _weighed(self, settings: Settings) -> tuple[BoxTable, np.ndarray]:
        """Exponents do not change the order within a radiograph, and so do not change which box is right."""
        key = dataclasses.replace(settings, exponents=(1.0, 0.0))
        if key not in self._fused:
            while len(self._fused) >= 2:  # those before are hardly used again
                self._fused.pop(next(iter(self._fused)))
            fused, _ = fuse_boxes(self._table, {}, self._models, self.n_models, ByCategory(key))
            fused = fused.select(np.lexsort((-fused.scores, fused.images)))
            self._fused[key] = fused, self._matched(fused)
        fused, is_true = self._fused[key]
        return weigh_boxes(fused, self._probabilities, ByCategory(settings)), is_true

    def _matched(self, table: BoxTable) -> np.ndarray:
        """(N,) bool, or (N, 10) at COCO's thresholds, whether a box is right; in the order of the table."""
        if self._metric == "coco_ap":
            return match_coco(self._truth, table)[1]
        return match_boxes(self._truth, table).is_true

    def _ap(self, table: BoxTable, is_true: np.ndarray, inside: np.ndarray, times: np.ndarray) -> np.ndarray:
        # Each metric has its own order of equal scores.
        is_coco = self._metric == "coco_ap"
        order = np.lexsort((table.images, -table.scores)) if is_coco else np.argsort(-table.scores, kind="stable")
        order = order[inside[table.images[order]]]
        truth_images = self._truth.images[inside[self._truth.images]]
        recalls = COCO_RECALLS if is_coco else ALL_POINTS
        of_rows, of_truth = self._patients[table.images[order]], self._patients[truth_images]
        return resample_ap(is_true[order], of_rows, of_truth, times, recalls)
