"""How far a metric would move if models ran in rougher arithmetic, estimated on radiographs without a known truth.

The scores of exact arithmetic say how probable each finding is. Truths are drawn from these probabilities: a box is
true with the probability that is its score, and then lies a little beside it, as readers' boxes do; a mask is where the
probability exceeds a level; a radiograph has a label with the label's probability. Both arithmetics are measured
against the same truths, and the difference of their metrics is the move. So a faint box that comes and goes hardly
counts, and two boxes of about equal score may change places: the metric does not move. A lost box counts as much as it
is probable. Here exact arithmetic is right by definition, so losses are overstated rather than understated.
"""

from collections.abc import Mapping

import numpy as np

from xray.evaluation.box_metrics import detection_metrics
from xray.evaluation.coco_metrics import coco_metrics
from xray.evaluation.mask_metrics import dice_scores
from xray.inference.findings import Findings
from xray.structures.boxes import BoxTable
from xray.structures.triplet import Triplet, apply_triplet

MOST_MOVE = 0.003
"""A metric that moves no further counts as kept."""
DRAWS = 64
"""How many truths of boxes are drawn."""
JITTER = 0.15
"""Standard deviation of a true box's sides around the box found, as a share of its width or height: detectors and
readers are about that far apart. With less, COCO AP would measure how far both arithmetics are from each other."""
EXPECTED = 1.0
"""Findings of a category, or radiographs with and without a label, that must be expected for it to count."""
LEVELS = tuple(level / 10 for level in range(1, 10))
"""Levels of masks' probabilities; each gives a truth."""


def expected_moves(
    exact: Findings, rough: Findings, n_images: int, categories: Mapping[int, str], triplet: Triplet
) -> dict[str, float]:
    """Name of each metric that has a meaning here → rough's value minus exact's, as expected.

    exact, rough: findings in the same `n_images` radiographs. categories: id → name of the boxes that count; empty for
    models that do not find boxes. triplet: decides which pixels are a mask. Empty where exact arithmetic found too
    little for an estimate.
    """
    moves = _of_boxes(exact.table, rough.table, n_images, categories)
    if exact.maps is not None and rough.maps is not None and (exact.maps >= LEVELS[0]).any():
        moves["Dice"] = _of_masks(exact.maps, rough.maps, triplet)
    areas = [
        (_expected_auroc(column, rough.labels[label]), _expected_auroc(column, column))
        for label, column in exact.labels.items()
        if min(column.sum(), (1 - column).sum()) >= EXPECTED
    ]
    if areas:
        moves["AUROC"] = float(np.mean([rough_area - exact_area for rough_area, exact_area in areas]))
    return moves


def are_small(moves: Mapping[str, float]) -> bool:
    """Whether every metric is kept."""
    return all(abs(move) < MOST_MOVE for move in moves.values())


def in_words(moves: Mapping[str, float]) -> str:
    """The moves in words, such as "mAP@0.4 +0.0004, COCO AP -0.0011"."""
    return ", ".join(f"{name} {move:+.4f}" for name, move in moves.items())


def _of_boxes(exact: BoxTable, rough: BoxTable, n_images: int, categories: Mapping[int, str]) -> dict[str, float]:
    counted = {
        label: name for label, name in categories.items() if exact.scores[exact.labels == label].sum() >= EXPECTED
    }
    if not counted:
        return {}
    exact, rough = (table.select(np.isin(table.labels, list(counted))) for table in (exact, rough))
    truth, n = _drawn_truths(exact, n_images), DRAWS * n_images
    values = []
    for table in (rough, exact):
        # Every draw is a set of radiographs of its own.
        images = (table.images + n_images * np.arange(DRAWS)[:, None]).ravel()
        columns = (np.tile(table.labels, DRAWS), np.tile(table.boxes, (DRAWS, 1)), np.tile(table.scores, DRAWS))
        predicted = BoxTable.of(images, *columns)
        map40 = detection_metrics(truth, predicted, n, counted, with_coco=False)["map40"]
        values.append((map40, coco_metrics(truth, predicted, counted)["coco_ap"]))
    (rough_map40, rough_coco), (exact_map40, exact_coco) = values
    return {"mAP@0.4": rough_map40 - exact_map40, "COCO AP": rough_coco - exact_coco}


def _drawn_truths(table: BoxTable, n_images: int) -> BoxTable:
    random = np.random.default_rng(0)  # the same radiographs give the same answer
    draws, rows = np.nonzero(random.random((DRAWS, len(table))) < table.scores)
    sides = table.boxes[rows, 2:] - table.boxes[rows, :2]
    boxes = table.boxes[rows] + np.tile(sides, (1, 2)) * JITTER * random.standard_normal((len(rows), 4))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 0.1 * sides)
    return BoxTable.of(table.images[rows] + n_images * draws, table.labels[rows], boxes)


def _of_masks(exact: np.ndarray, rough: np.ndarray, triplet: Triplet) -> float:
    """Move of the mean Dice; both (B, K, S, S) in [0, 1]."""
    moves = []
    for one, other in zip(exact.reshape(-1, *exact.shape[2:]), rough.reshape(-1, *rough.shape[2:]), strict=True):
        masks = [apply_triplet(probability, triplet) for probability in (other, one)]
        for level in LEVELS:
            truth = one >= level
            sums = [[np.count_nonzero(m & truth), np.count_nonzero(m), np.count_nonzero(truth)] for m in masks]
            of_rough, of_exact = dice_scores(*np.array(sums).T)
            moves.append(of_rough - of_exact)
    return float(np.mean(moves))


def _expected_auroc(probability: np.ndarray, scores: np.ndarray) -> float:
    """AUROC of scores (B,) where radiographs have a label with these probabilities (B,), independently of each other.

    The share of pairs, one with the label and one without, that the scores put in order; equal scores count half.
    """
    weights = probability[:, None] * (1 - probability)
    np.fill_diagonal(weights, 0)
    in_order = (scores[:, None] > scores) + 0.5 * (scores[:, None] == scores)
    return float((weights * in_order).sum() / weights.sum())
