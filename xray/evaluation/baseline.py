"""The baseline of boxes: what a detector reaches that never looks at a radiograph."""

import numpy as np

from xray.evaluation.located import Located
from xray.findings import NO_FINDING_BOX
from xray.structures.boxes import BoxTable
from xray.structures.predictions import NO_FINDING_CATEGORY


def mean_box_baseline(
    truth: BoxTable,
    train_sizes: np.ndarray,
    test_sizes: np.ndarray,
    no_finding: bool = False,
    located: Located | None = None,
) -> BoxTable:
    """What a detector that never looks at the radiograph predicts: each category's mean box, on every image.

    truth: boxes of the training images, `images` in [0, N).
    train_sizes, test_sizes: (N, 2) and (M, 2), width and height in original pixels.
    no_finding: also predict category 15 with the share of training images without boxes.
    located: of the training images, where categories have all their boxes; shares are of these images. None for all.

    The mean is over boxes relative to their image's width and height, and the score is the share of training images
    that have the category. `images` of the result are in [0, M).
    """
    train_sizes = np.asarray(train_sizes, dtype=np.float64).reshape(-1, 2)
    test_sizes = np.asarray(test_sizes, dtype=np.float64).reshape(-1, 2)
    truth = truth if located is None else located.of(truth)
    relative = truth.boxes / np.tile(train_sizes[truth.images], 2)
    rows = np.arange(len(test_sizes))
    tables = []
    for label in np.unique(truth.labels):
        of_label = truth.labels == label
        n_images = len(train_sizes) if located is None else located.n_images(label)
        score = len(np.unique(truth.images[of_label])) / n_images
        boxes = relative[of_label].mean(axis=0) * np.tile(test_sizes, 2)
        tables.append(BoxTable.of(rows, np.full(len(rows), label), boxes, np.full(len(rows), score)))
    n_known = len(train_sizes) if located is None else located.n_images(NO_FINDING_CATEGORY)
    if no_finding and n_known:
        score = 1 - len(np.unique(truth.images)) / n_known
        if located is not None:
            score = float(located.normal.sum() / n_known)
        boxes = np.tile(NO_FINDING_BOX, (len(rows), 1))
        tables.append(BoxTable.of(rows, np.full(len(rows), NO_FINDING_CATEGORY), boxes, np.full(len(rows), score)))
    return BoxTable.concatenate(tables)
