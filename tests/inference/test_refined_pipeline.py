"""A segmenter beside a detector refines as xray refine does with what each of them predicts alone."""

import dataclasses

import numpy as np
import pytest
from torch import nn

from xray.findings import CATEGORIES, PNEUMOTHORAX
from xray.inference.loaded import LoadedDetector, LoadedSegmenter
from xray.inference.pipeline import Outputs, Pipeline
from xray.inference.refine import Refinement, refine
from xray.structures.predictions import Predictions, read_predictions, write_predictions

PTX = PNEUMOTHORAX + 1
NAMES = {category["id"]: category["name"] for category in CATEGORIES}
SIZES = [(130, 100), (90, 128), (128, 128), (70, 70)]
CANVAS = 128
NO_FINDING = 15


@pytest.mark.parametrize("weights", [{}, {"intercept": -1.5, "of_mask": 0.8, "of_boxes": 0.6}])
def test_together_and_one_after_the_other(weights, tmp_path):
    random = np.random.default_rng(3)
    setting = Refinement(dilation=0.1, shift=0.5, penalty=0.3, unmatched=1.0, **weights)
    swap = {number: number for number in NAMES}
    detector = LoadedDetector(nn.Identity(), CANVAS, NAMES, swap)
    segmenter = LoadedSegmenter(nn.Identity(), CANVAS, {1: NAMES[PTX]}, {1: 1}, refinement=setting)
    detections, maps = [], np.zeros((len(SIZES), 1, CANVAS, CANVAS), dtype=np.float32)
    for image in range(len(SIZES)):
        corners = np.sort(random.uniform(10, 118, (30, 2, 2)), axis=1).reshape(30, 4)
        detections.append((corners, random.choice([PTX, 4], 30), random.uniform(0.01, 0.6, 30)))
        for x1, y1, x2, y2 in corners[:3].astype(int) if image else ():
            maps[image, 0, y1:y2, x1:x2] = random.uniform(0.6, 1)
    outputs = Outputs([(detector, detections)], [maps])
    both = Pipeline((detector,), NAMES, False, segmenters=(segmenter,)).postprocess(outputs, SIZES)
    boxes = Pipeline((detector,), NAMES, False).postprocess(Outputs(outputs.boxes), SIZES)
    masks = Pipeline((), {1: NAMES[PTX]}, False, segmenters=(segmenter,)).postprocess(Outputs([], [maps]), SIZES)
    ids = tuple(map(str, range(len(SIZES))))
    read = []
    for name, found, names in (("boxes", boxes, NAMES), ("masks", masks, {1: NAMES[PTX]})):
        write_predictions(tmp_path / f"{name}.json", Predictions(ids, found.table, found.masks), names)
        one = read_predictions(tmp_path / f"{name}.json")
        images = np.array([int(key) for key in one.image_ids])[one.table.images]
        read.append((dataclasses.replace(one.table, images=images), one.masks))
    refined, attached = refine(read[0][0], *read[1], setting)
    assert len(masks.table) > 3
    assert len(both.masks) == len(attached) > 0
    mine, theirs = (table.select(table.labels != NO_FINDING) for table in (both.table, refined))
    assert len(mine) == len(theirs)
    for name in ("images", "labels"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    np.testing.assert_allclose(mine.boxes, theirs.boxes, atol=0.05)  # files have hundredths of a pixel
    np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-3)
