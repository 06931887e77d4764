"""From canvases to findings in original pixels: flips, ensembles, "No finding", and runs that do not fit together."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from xray.datasets.store import open_store
from xray.errors import InputError
from xray.findings import CATEGORIES
from xray.inference.ensemble import ByCategory, Settings
from xray.inference.loaded import LoadedClassifier, LoadedDetector
from xray.inference.pipeline import Pipeline, no_finding_rows
from xray.inference.pipeline_loading import load_pipeline
from xray.radiographs.canvas import Canvas
from xray.structures.boxes import BoxTable
from xray.structures.predictions import NO_FINDING_CATEGORY
from xray.structures.sides import mirrored

SIDES = {1: "Left lung", 2: "Right lung", 3: "Nodule"}
CPU = torch.device("cpu")


class BrightRectangle(nn.Module):
    """A detector that finds the bright pixels; on the canvas's left half they are category 1, on its right 2.

    label: a category to give in place of these.
    """

    def __init__(self, score=0.8, label=None):
        super().__init__()
        self.label = label
        self.score = nn.Parameter(torch.tensor(score))
        self.seen = []

    def forward(self, images):
        assert images.dtype == torch.uint8
        assert images.ndim == 4
        assert images.shape[1] == 1
        self.seen.append(images.clone())
        results = []
        for image in images[:, 0]:
            rows, columns = torch.nonzero((image > 128).any(1))[:, 0], torch.nonzero((image > 128).any(0))[:, 0]
            if len(rows) == 0:
                results.append(
                    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=int), "scores": torch.zeros(0)}
                )
                continue
            box = torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], dtype=torch.float32)
            side = 1 if columns.float().mean() < image.shape[1] / 2 else 2
            results.append(
                {"boxes": box, "labels": torch.tensor([self.label or side]), "scores": self.score.detach()[None]}
            )
        return results


def detector(size=64, score=0.8, categories=None, **options):
    categories = categories or SIDES
    return LoadedDetector(BrightRectangle(score), size, categories, mirrored(categories), **options)


def radiograph(width, height, box, size):
    pixels = np.full((height, width), 30, dtype=np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = 230
    return Canvas(width, height, size).letterbox(pixels)


@pytest.mark.parametrize("box", [(10, 20, 60, 80), (120, 0, 200, 30), (0, 60, 100, 100)])
def test_a_flipped_radiograph_gives_the_same_boxes_and_sides(box):
    canvases = radiograph(200, 100, box, 64)[None]
    model = detector()
    (straight,), (flipped,) = model.detect(canvases, flip=False), model.detect(canvases, flip=True)
    for one, other in zip(straight, flipped, strict=True):
        np.testing.assert_array_equal(one, other)
    assert torch.equal(model.model.seen[1], model.model.seen[0].flip(-1))


def test_boxes_come_back_in_original_pixels():
    boxes = [(10, 20, 60, 80), (120, 40, 200, 100)]
    sizes = [(200, 100), (200, 160)]
    canvases = np.stack([radiograph(*size, box, 64) for size, box in zip(sizes, boxes, strict=True)])
    for flips in (False, True):
        found = Pipeline((detector(),), SIDES, flips).find(canvases, sizes).table
        assert found.images.tolist() == [0, 1]
        assert found.labels.tolist() == [1, 2]
        # A pixel of the canvas is 200 / 64 of the original's.
        np.testing.assert_allclose(found.boxes, boxes, atol=200 / 64)
        np.testing.assert_allclose(found.scores, 0.8)


def test_a_box_in_the_border_around_the_radiograph_is_none():
    """Twice as wide as high: the upper and the lower quarter of the canvas are filling."""
    canvases = np.stack([radiograph(200, 100, (10, 20, 60, 80), 64)] * 2)
    canvases[1] = 0
    canvases[1, :10, 5:30] = 230
    for flips in (False, True):
        found = Pipeline((detector(),), SIDES, flips).find(canvases, [(200, 100)] * 2).table
        assert found.images.tolist() == [0]


def test_a_model_that_was_trained_without_flips_is_shown_none():
    model = detector(flips=False)
    Pipeline((model,), SIDES, flips=True).find(radiograph(100, 100, (5, 5, 50, 50), 64)[None], [(100, 100)])
    assert len(model.model.seen) == 1


def test_two_models_are_fused_on_canvases_of_their_own_size():
    models = detector(64, 0.9), detector(32, 0.5)
    pipeline = Pipeline(models, SIDES, flips=False)
    assert pipeline.canvas_size == 64
    found = pipeline.find(radiograph(128, 128, (20, 20, 60, 100), 64)[None], [(128, 128)]).table
    assert [tuple(model.model.seen[0].shape) for model in models] == [(1, 1, 64, 64), (1, 1, 32, 32)]
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes, [[20, 20, 60, 100]], atol=4)
    np.testing.assert_allclose(found.scores, [0.7])


def test_a_box_that_one_of_two_models_finds_counts_half():
    class Blind(BrightRectangle):
        def forward(self, images):
            return super().forward(images * 0)

    models = detector(64, 0.9), LoadedDetector(Blind(), 64, SIDES, mirrored(SIDES))
    found = Pipeline(models, SIDES, flips=False).find(radiograph(64, 64, (5, 5, 30, 30), 64)[None], [(64, 64)]).table
    np.testing.assert_allclose(found.scores, [0.45])


def test_vinbig_radiographs_get_the_probability_of_no_finding():
    categories = {category["id"]: category["name"] for category in CATEGORIES}
    model = LoadedDetector(BrightRectangle(0.75, label=4), 64, categories, mirrored(categories))
    pipeline = Pipeline((model,), categories)
    canvases = np.stack([radiograph(64, 64, (5, 5, 30, 30), 64), np.full((64, 64), 30, dtype=np.uint8)])
    found = pipeline.find(canvases, [(64, 64)] * 2).table
    normal = found.select(found.labels == NO_FINDING_CATEGORY)
    assert normal.images.tolist() == [0, 1]
    np.testing.assert_allclose(normal.scores, [0.25, 1.0])
    np.testing.assert_array_equal(normal.boxes, [[0, 0, 1, 1]] * 2)
    # Other categories have no such row.
    assert NO_FINDING_CATEGORY not in Pipeline((detector(),), SIDES).find(canvases, [(64, 64)] * 2).table.labels


def test_no_finding_is_one_minus_the_surest_finding():
    table = BoxTable.of([2, 0, 2], [1, 2, 3], [[0, 0, 9, 9]] * 3, [0.3, 0.6, 0.9])
    found = no_finding_rows(table, 3)
    assert found.images.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.scores, [0.4, 1.0, 0.1])


def test_at_most_so_many_boxes_and_the_highest_first():
    class Many(BrightRectangle):
        def forward(self, images):
            n = 30
            start = torch.arange(n)[:, None] * 2.0
            return [
                {"boxes": start + torch.tensor([0, 0, 1, 1.0]), "labels": torch.full((n,), 3),
                 "scores": torch.linspace(0.1, 0.9, n)}
                for _ in images
            ]  # fmt: skip

    model = LoadedDetector(Many(), 64, SIDES, mirrored(SIDES))
    found = (
        Pipeline((model,), SIDES, False, max_detections=10).find(np.zeros((2, 64, 64), np.uint8), [(64, 64)] * 2).table
    )
    assert np.bincount(found.images).tolist() == [10, 10]
    assert (np.diff(found.scores[:10]) <= 0).all()
    assert found.scores[0] == pytest.approx(0.9)


class Says(nn.Module):
    """A classifier that gives every radiograph these probabilities."""

    def __init__(self, *probabilities):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(probabilities).logit())

    def forward(self, images):
        return self.logits.detach().expand(len(images), -1)


class Finds(BrightRectangle):
    """A detector of always the same boxes: rows of (box, category, score)."""

    def __init__(self, *rows):
        super().__init__()
        self.rows = rows

    def forward(self, images):
        boxes, labels, scores = zip(*self.rows, strict=True)
        one = {"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(labels), "scores": torch.tensor(scores)}
        return [one for _ in images]


def of_categories(found):
    return {label: (found.boxes[found.labels == label], found.scores[found.labels == label]) for label in found.labels}


def test_a_classifier_of_findings_weighs_boxes_class_by_class():
    canvases, sizes = np.zeros((2, 64, 64), np.uint8), [(64, 64)] * 2
    rows = [((0, 0, 9, 9), 1, 0.8), ((20, 20, 40, 40), 2, 0.5), ((50, 50, 60, 60), 3, 0.4)]
    model = LoadedDetector(Finds(*rows), 64, SIDES, mirrored(SIDES), flips=False)
    first = LoadedClassifier(Says(0.2, 0.9), 64, ("Left lung", "Nodule"), {1: "Left lung", 3: "Nodule"}, flips=False)
    second = LoadedClassifier(Says(0.3), 64, ("Left lung",), {1: "Left lung"}, flips=False)
    pipeline = Pipeline((model,), SIDES, flips=False, classifiers=(first, second))
    # By default score · √p, p the mean of the classifiers that know the category; none is left out.
    scores = {label: scores for label, (_, scores) in of_categories(pipeline.find(canvases, sizes).table).items()}
    np.testing.assert_allclose(scores[1], 0.8 * np.sqrt([0.25, 0.25]), rtol=1e-6)
    np.testing.assert_allclose(scores[2], [0.5, 0.5])
    np.testing.assert_allclose(scores[3], 0.4 * np.sqrt([0.9, 0.9]), rtol=1e-6)
    # As fitted: s² · p for the first category; the third does without.
    fitted = ByCategory(Settings(exponents=(1, 0)), {1: Settings(exponents=(2, 1))})
    found = of_categories(dataclasses.replace(pipeline, settings=fitted).find(canvases, sizes).table)
    np.testing.assert_allclose(found[1][1], [0.8**2 * 0.25] * 2, rtol=1e-6)
    np.testing.assert_allclose(found[3][1], [0.4] * 2)
    # The hard gate is for masks and normal radiographs, as it was.
    found = of_categories(dataclasses.replace(pipeline, gate="hard").find(canvases, sizes).table)
    np.testing.assert_allclose(found[1][1], [0.8] * 2)


def test_an_ensemble_fuses_views_and_runs_of_a_model_first():
    """Models 0 (two runs) and 1; settings by category, and the fused boxes by hand."""
    canvases, sizes = np.zeros((1, 64, 64), np.uint8), [(64, 64)]
    runs = [
        [((0, 0, 10, 10), 1, 0.6), ((20, 20, 40, 40), 2, 0.5)],
        [((0, 0, 10, 10), 1, 0.2)],
        [((0, 0, 10, 10), 1, 0.5), ((20, 20, 40, 40), 2, 0.3), ((50, 50, 60, 60), 3, 0.9)],
    ]
    models = tuple(LoadedDetector(Finds(*rows), 64, SIDES, mirrored(SIDES), flips=False) for rows in runs)
    settings = ByCategory(
        Settings(), {1: Settings(score="sum"), 2: Settings(weights=(0, 1), method="none", scale=0.5), 3: Settings()}
    )
    pipeline = Pipeline(models, SIDES, flips=False, settings=settings, members=(0, 0, 1))
    found = of_categories(pipeline.find(canvases, sizes).table)
    # (0.6 + 0.2) / 2 of the first model's runs, and 0.5 of the second: the mean of 0.4 and 0.5.
    np.testing.assert_allclose(found[1][1], [0.45])
    np.testing.assert_allclose(found[2][0], [[25, 25, 35, 35]])
    np.testing.assert_allclose(found[2][1], [0.3])
    np.testing.assert_allclose(found[3][1], [0.45])  # one of two models
    # Without an ensemble these are three models.
    plain = of_categories(Pipeline(models, SIDES, flips=False).find(canvases, sizes).table)
    np.testing.assert_allclose(plain[1][1], [(0.6 + 0.2 + 0.5) / 3])


# Run directories


def test_a_trained_run_is_loaded_and_its_batches_do_not_matter(vinbig_run, vinbig_store):
    pipeline = load_pipeline([vinbig_run], CPU)
    assert pipeline.is_vinbig
    assert pipeline.canvas_size == 64
    assert not pipeline.detectors[0].model.training
    store = open_store(vinbig_store)
    sizes = [(record["width"], record["height"]) for record in store.records[:4]]
    together = pipeline.find(store.images[:4], sizes).table
    for image in range(4):
        alone = pipeline.find(store.images[image : image + 1], sizes[image : image + 1]).table
        mine = together.select(together.images == image)
        np.testing.assert_allclose(mine.scores, alone.scores, atol=1e-5)
    for image, (width, height) in enumerate(sizes):
        boxes = together.boxes[together.images == image]
        assert (boxes >= 0).all()
        assert (boxes <= [width, height, width, height]).all()


def test_the_same_run_twice_is_that_run(side_run, side_store):
    store = open_store(side_store)
    sizes = [(record["width"], record["height"]) for record in store.records[:2]]
    one = load_pipeline([side_run], CPU).find(store.images[:2], sizes).table
    two = load_pipeline([side_run, side_run], CPU).find(store.images[:2], sizes).table
    assert not load_pipeline([side_run], CPU).is_vinbig
    assert two.scores.max() == pytest.approx(one.scores.max(), abs=1e-6)


def test_runs_that_disagree_on_categories_are_refused(vinbig_run, side_run):
    with pytest.raises(InputError, match=r"sides finds other categories than .*vinbig"):
        load_pipeline([vinbig_run, side_run], CPU)
    with pytest.raises(InputError, match="no run directory given"):
        load_pipeline([], CPU)


def changed(run, folder, **changes):
    copy = folder / "changed"
    copy.mkdir()
    shutil.copy(run / "model.safetensors", copy)
    description = json.loads((run / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**description, **changes}))
    return copy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "segmentation"}, "does not hold the model that its model.json describes"),
        ({"task": "juggling"}, "is a run of the unknown task juggling"),
        ({"architecture": {"backbone": "resnet18"}}, "does not hold the model that its model.json describes"),
        ({"architecture": {"stages": 3}}, "does not hold the model that its model.json describes"),
        ({"categories": {}}, "does not hold the model that its model.json describes"),
        ({"categories": {"1": "a\nwarning: b"}}, r"'a\\nwarning: b', holds a control character"),
        ({"canvas_size": "large"}, "does not hold the model that its model.json describes"),
    ],
)
def test_a_run_that_is_not_what_it_says_is_refused_in_one_line(side_run, tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as raised:
        load_pipeline([changed(side_run, tmp_path, **changes)], CPU)
    assert len(str(raised.value)) < 500


class SaysAbnormal(nn.Module):
    """A classifier for which bright radiographs are abnormal."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return torch.where(images.float().amax((1, 2, 3)) > 128, 2.0, -2.0)[:, None]


@pytest.mark.parametrize("gate", ["soft", "hard"])
def test_an_abnormal_classifier_gives_the_class_14_confidence(gate):
    categories = {category["id"]: category["name"] for category in CATEGORIES}

    class Sees(BrightRectangle):
        def forward(self, images):
            label = torch.tensor([4])
            faint = {"boxes": torch.tensor([[1.0, 1, 9, 9]]), "labels": label, "scores": torch.tensor([0.4])}
            return [found if len(found["boxes"]) else faint for found in super().forward(images)]

    model = LoadedDetector(Sees(0.75, label=4), 64, categories, mirrored(categories))
    classifier = LoadedClassifier(SaysAbnormal(), 64, ("abnormal",), {})
    pipeline = Pipeline((model,), categories, flips=False, classifiers=(classifier,), gate=gate)
    canvases = np.stack([radiograph(64, 64, (5, 5, 30, 30), 64), np.full((64, 64), 30, dtype=np.uint8)])
    found = pipeline.find(canvases, [(64, 64)] * 2).table
    normal = found.select(found.labels == NO_FINDING_CATEGORY)
    boxes = found.select(found.labels != NO_FINDING_CATEGORY)
    sure = 1 / (1 + np.exp(-2.0))
    # Softly, nothing is deleted; hard, the radiograph that is called normal is that and nothing else.
    np.testing.assert_allclose(normal.scores, [1 - sure, sure if gate == "soft" else 1.0], atol=1e-6)
    assert boxes.images.tolist() == ([0, 1] if gate == "soft" else [0])
