"""The evaluation of boxes: their numbers, their baseline, and whether they are boxes at all."""

import dataclasses
from typing import Any

import numpy as np

from xray.datasets.store import Store
from xray.errors import InputError
from xray.evaluation.alignment import Alignment, positions, renumbered
from xray.evaluation.baseline import mean_box_baseline
from xray.evaluation.box_intervals import bootstrap_intervals
from xray.evaluation.box_metrics import detection_metrics, has_vinbig_categories
from xray.evaluation.located import Located, located_in


@dataclasses.dataclass(frozen=True)
class BoxEvaluation:
    """The boxes of an alignment and their numbers.

    alignment: without the boxes that cannot be scored, true and predicted, since their category is not located in their
    radiograph. located: where it is. metrics: the part of metrics.json about boxes; NaN where a number is not defined.
    """

    alignment: Alignment
    located: Located
    metrics: dict[str, Any]


def has_boxes(alignment: Alignment) -> bool:
    """Whether boxes can be scored: the truth has boxes, and the predictions are not only labels of whole radiographs.

    A classifier has no boxes; it writes the radiograph's own, and the unit box for "No finding". Where the categories
    are VinBig's, a truth without boxes still has the class "No finding".
    """
    if not len(alignment.truth) and not has_vinbig_categories(alignment.categories):
        return False
    if alignment.masks:
        return True
    table = alignment.predictions.select(np.isin(alignment.predictions.labels, list(alignment.categories)))
    sizes = alignment.sizes[table.images]
    whole = np.concatenate([np.zeros_like(sizes), sizes], axis=1)
    # Files hold coordinates to a hundredth of a pixel.
    return not (np.abs(table.boxes - whole) < 0.5).all()


def evaluate_boxes(
    store: Store, alignment: Alignment, baseline: bool = False, n_resamples: int = 0, with_coco: bool = True
) -> BoxEvaluation:
    """Scores boxes by `detection_metrics`.

    baseline: also baseline_map40 and baseline_ap40 of `mean_box_baseline` (with VinBig's categories
        baseline_map40_kaggle), from the radiographs of the train split that are not scored.
    n_resamples: of the patients, for the …_ci95 intervals; 0 leaves them out.

    Raises InputError if no radiograph is left for the baseline.
    """
    truth, table, categories = alignment.truth, alignment.predictions, alignment.categories
    located = located_in(store, alignment.rows)
    metrics = detection_metrics(truth, table, len(alignment), categories, with_coco, located)
    if baseline:
        metrics |= _baseline(store, alignment, located)
    scored = _only_located(alignment, located)
    if n_resamples:
        tables = (scored.truth, scored.predictions, alignment.patients)
        metrics |= bootstrap_intervals(*tables, categories, n_resamples, with_coco=with_coco, located=located)
    return BoxEvaluation(scored, located, metrics)


def _only_located(alignment: Alignment, located: Located) -> Alignment:
    """The alignment without the boxes that cannot be scored."""
    if located.is_whole:
        return alignment
    truth, truth_masks = alignment.truth.select_masked(located.counts(alignment.truth), alignment.truth_masks)
    table, masks = alignment.predictions.select_masked(located.counts(alignment.predictions), alignment.masks)
    return dataclasses.replace(alignment, truth=truth, truth_masks=truth_masks, predictions=table, masks=masks)


def _baseline(store: Store, alignment: Alignment, located: Located) -> dict[str, Any]:
    others = np.setdiff1d(np.flatnonzero(store.splits == "train"), alignment.rows)
    if len(others) == 0:
        raise InputError(
            f"no training image of {store.path} is left for the baseline, since all are scored: "
            "narrow them with --fold, or leave out --baseline"
        )
    sizes = np.array([(record["width"], record["height"]) for record in store.records], dtype=np.float64)
    is_vinbig = has_vinbig_categories(store.categories)
    training, _ = renumbered(store.boxes, positions(others, len(store)), {})
    known = located_in(store, others)
    boxes = mean_box_baseline(training, sizes[others], sizes[alignment.rows], is_vinbig, known)
    metrics = detection_metrics(alignment.truth, boxes, len(alignment), store.categories, False, located)
    return {f"baseline_{name}": metrics[name] for name in ("map40", "ap40", "map40_kaggle") if name in metrics}
