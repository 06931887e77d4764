"""The search for an ensemble's settings: found where there is something to find, and no gain made of noise."""

import dataclasses

import numpy as np
import pytest

from xray.evaluation.box_metrics import detection_metrics
from xray.evaluation.coco_metrics import coco_metrics
from xray.inference.ensemble import ByCategory, Settings, fuse_boxes
from xray.inference.out_of_fold import OutOfFold
from xray.inference.tuning import default_settings, tune
from xray.structures.boxes import BoxTable

CATEGORIES = {1: "one", 2: "two"}


def drawn(
    n: int, skills: tuple[tuple[float, float], ...], seed: int = 0, sharpness: float | None = None, n_folds: int = 5
) -> OutOfFold:
    """n radiographs of as many patients, 30 % with each of two findings, and what models of these skills find.

    skills: of each model, the share of the boxes of each category that it finds; three boxes a category and radiograph
    are chance. sharpness: of a classifier, 0 for one that guesses; None for none.
    """
    random = np.random.default_rng(seed)

    def somewhere() -> np.ndarray:
        corner, sides = random.uniform(0, 600, 2), random.uniform(80, 300, 2)
        return np.concatenate([corner, corner + sides])

    truth = [(image, label, somewhere()) for image in range(n) for label in CATEGORIES if random.random() < 0.3]
    tables = []
    for skill in skills:
        rows = [
            (image, label, box + random.normal(0, 10, 4), random.beta(4, 2))
            for image, label, box in truth
            if random.random() < skill[label - 1]
        ]
        rows += [
            (image, label, somewhere(), random.beta(1.5, 3))
            for image in range(n)
            for label in CATEGORIES
            for _ in range(3)
        ]
        tables.append(BoxTable.of(*zip(*rows, strict=True)))
    table = BoxTable.of(*zip(*truth, strict=True))
    probabilities = {}
    if sharpness is not None:
        for label in CATEGORIES:
            shown = np.isin(np.arange(n), table.images[table.labels == label])
            logits = sharpness * (2 * shown - 1) + random.normal(0, 1, n)
            probabilities[label] = 1 / (1 + np.exp(-logits))
    return OutOfFold(np.arange(n), table, tuple(tables), probabilities, np.arange(n) % n_folds, np.arange(n))


def test_it_finds_which_model_is_good_at_what() -> None:
    tuned = tune(drawn(300, ((0.9, 0.1), (0.1, 0.9)), seed=1), CATEGORIES, n_resamples=200)
    first, second = (tuned.settings[label].weights or (1.0, 1.0) for label in CATEGORIES)
    assert first[0] > first[1]
    assert second[0] < second[1]
    # What the settings gain on folds that they have not seen is beyond chance, and less than where they were fitted.
    for gain in tuned.gains.values():
        assert gain.difference > 0.03
        assert gain.ends[0] > 0
    assert tuned.scores["plain"][0] < tuned.scores["tuned"][0] <= tuned.scores["in_sample"][0]


@pytest.mark.parametrize("seed", range(4))
def test_noise_gains_nothing(seed: int) -> None:
    # Both models and the classifier guess: what the best of some 30 settings seems to gain is luck.
    tuned = tune(drawn(150, ((0, 0), (0, 0)), seed, sharpness=0), CATEGORIES, n_resamples=200)
    for gain in tuned.gains.values():
        assert abs(gain.difference) < 0.002
        assert gain.ends[0] <= 0 <= gain.ends[1]
    assert tuned.scores["in_sample"][0] >= tuned.scores["plain"][0]


def test_a_classifier_weighs_as_much_as_it_knows() -> None:
    for models in (((0.6, 0.6),), ((0.6, 0.6), (0.6, 0.6))):
        good = tune(drawn(300, models, sharpness=1.5), CATEGORIES, n_resamples=200)
        assert all(good.settings[label].exponents[1] > 0 for label in CATEGORIES)
        assert good.gains["single"].ends[0] > 0.03
        guessing = tune(drawn(300, models, sharpness=0), CATEGORIES, n_resamples=0)
        assert all(guessing.settings[label].exponents == (1, 0) for label in CATEGORIES)
        assert guessing.gains["single"].ends is None
    # One model that nothing improves stays about what it is.
    alone = tune(drawn(300, ((0.6, 0.6),)), CATEGORIES, n_resamples=0)
    assert "plain" not in alone.scores
    assert alone.scores["tuned"][0] == pytest.approx(alone.scores["single"][0], abs=0.01)


def test_scores_are_those_of_the_metrics() -> None:
    material = drawn(80, ((0.8, 0.4), (0.3, 0.7)))
    models = np.repeat([0, 1], [len(table) for table in material.tables])
    plain, _ = fuse_boxes(BoxTable.concatenate(material.tables), {}, models, 2, ByCategory(Settings()))
    for metric in ("map40", "coco_ap"):
        tuned = tune(material, CATEGORIES, metric, n_resamples=0)
        values = []
        for table in (*material.tables, plain):
            metrics = detection_metrics(material.truth, table, 80, CATEGORIES) | coco_metrics(
                material.truth, table, CATEGORIES
            )
            values.append(metrics[metric])
        assert tuned.scores["single"][0] == pytest.approx(max(values[:2]), abs=1e-12)
        assert tuned.best == int(np.argmax(values[:2]))
        assert tuned.scores["plain"][0] == pytest.approx(values[2], abs=1e-12)


def test_each_fold_is_scored_by_settings_that_have_not_seen_it() -> None:
    material = drawn(200, ((0.9, 0.1), (0.1, 0.9)), seed=3)
    before = tune(material, CATEGORIES, n_resamples=0)
    # What is true in fold 2 changes altogether: the settings that are fitted without it stay.
    moved = material.truth.boxes + np.where(material.folds[material.truth.images] == 2, 1000, 0)[:, None]
    changed = dataclasses.replace(material, truth=dataclasses.replace(material.truth, boxes=moved))
    after = tune(changed, CATEGORIES, n_resamples=0)
    assert after.held_out[2] == before.held_out[2]
    assert after.scores["tuned"][0] < before.scores["tuned"][0]
    assert not before.dealt


def test_the_same_seed_gives_the_same_and_one_fold_is_dealt_into_parts() -> None:
    material = drawn(120, ((0.8, 0.3), (0.3, 0.8)), n_folds=1)
    steps: list[tuple[int, int, int]] = []
    first = tune(material, CATEGORIES, n_resamples=50, advance=lambda *step: steps.append(step))
    assert first == tune(material, CATEGORIES, n_resamples=50)
    assert first.dealt
    assert sorted(first.held_out) == [0, 1, 2, 3, 4]
    assert {(done, total) for done, total, _ in steps} == {(done, 18) for done in range(19)}  # (5 + 1) · (1 + 2)
    assert steps == sorted(steps)
    assert 50 < steps[-1][2] < 400


def test_a_rare_category_keeps_the_setting_of_all() -> None:
    material = drawn(200, ((0.9, 0.1), (0.1, 0.9)), seed=1)
    kept = np.flatnonzero(material.truth.labels == 2)[:9]
    truth = material.truth.select(np.union1d(np.flatnonzero(material.truth.labels == 1), kept))
    tuned = tune(dataclasses.replace(material, truth=truth), CATEGORIES, n_resamples=0)
    assert 2 not in tuned.settings.of
    # A category that the truth lacks has no score.
    none = truth.select(truth.labels == 1)
    assert set(tune(dataclasses.replace(material, truth=none), CATEGORIES, n_resamples=0).scores["tuned"][1]) == {1}


def test_the_search_begins_with_plain_fusion() -> None:
    assert default_settings(2) == Settings(exponents=(1, 0))
    assert default_settings(1).method == "none"
