"""Confidence in words, and truth beside prediction."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from xray.outputs.pictures.findings import certainty, draw_findings, draw_with_truth, in_words, rows_of
from xray.structures.boxes import BoxTable
from xray.structures.radiograph_findings import RadiographFindings

NAMES = {1: "Nodule", 2: "Pneumothorax", 3: "Effusion", 4: "Cardiomegaly"}


@pytest.mark.parametrize(
    ("probability", "term"),
    [(1.0, "consistent with"), (0.9, "consistent with"), (0.75, "probable"), (0.5, "possible"),
     (0.25, "less likely"), (0.0999, "unlikely"), (0.0, "unlikely")],
)  # fmt: skip
def test_the_terms_of_the_lexicon(probability, term):
    assert certainty(probability) == term


def table(*rows):
    labels, scores = zip(*rows, strict=True)
    return BoxTable.of([0] * len(rows), labels, [[0, 0, 4, 4]] * len(rows), scores)


def test_the_surest_row_of_each_finding_counts_and_three_are_named():
    found = table((1, 0.2), (2, 0.93), (2, 0.4), (3, 0.41), (4, 0.15), (15, 0.99))
    assert in_words(found, NAMES) == (
        "consistent with Pneumothorax (0.93), possible Effusion (0.41), less likely: Nodule (0.20)"
    )
    assert in_words(table((1, 0.04), (2, 0.01)), NAMES) == "unlikely: any finding (0.04)"
    assert in_words(BoxTable.empty(), {1: "Pneumothorax"}) == "unlikely: Pneumothorax (0.00)"


def test_what_is_not_sure_enough_is_not_drawn_and_masks_fit_themselves_to_the_pixels():
    mask = np.zeros((80, 80), dtype=np.uint8, order="F")
    mask[40:, 40:] = 1
    rle = coco_mask.encode(mask)
    rle = {"size": [80, 80], "counts": rle["counts"].decode()}
    pixels = np.full((40, 40), 100, dtype=np.uint8)
    plain = draw_findings(pixels, RadiographFindings(BoxTable.empty(), {}, NAMES), threshold=0.5)
    faint = draw_findings(pixels, RadiographFindings(table((2, 0.4)), {0: rle}, NAMES), threshold=0.5)
    sure = draw_findings(pixels, RadiographFindings(table((2, 0.6)), {0: rle}, NAMES), threshold=0.5)
    side = plain.shape[1]
    quarter = (slice(side // 2 + 20, side - 20), slice(side // 2 + 20, side - 20))
    np.testing.assert_array_equal(faint[quarter], plain[quarter])
    assert (sure[quarter] != plain[quarter]).any(axis=-1).all()
    truth = draw_findings(pixels, RadiographFindings(table((2, 0.0)), {0: rle}, NAMES), scored=False)
    assert (truth[quarter] != plain[quarter]).any(axis=-1).all()
    both = draw_with_truth(truth, sure, table((2, 0.0)), "possible Pneumothorax (0.60)", NAMES)
    assert both.shape[1] > 2 * side


def test_rows_of_one_image_keep_their_masks():
    everything = BoxTable.of([0, 1, 1, 2], [1, 2, 3, 4], [[0, 0, 1, 1]] * 4, [0.1, 0.2, 0.3, 0.4])
    mine, masks = rows_of(everything, {0: "a", 2: "b"}, 1)
    assert mine.labels.tolist() == [2, 3]
    assert masks == {1: "b"}
