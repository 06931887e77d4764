"""The searches over cached probabilities against the rule applied pixel by pixel."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.errors import InputError
from xray.evaluation.mask_metrics import segmentation_metrics
from xray.evaluation.threshold_search import ProbabilityCache, level_counts
from xray.structures.triplet import LEVELS, Triplet, apply_triplet, first_level_over, quantise


def make_radiographs(n, seed, side=12):
    """Probabilities that are right more often than not, some radiographs without a finding, of varied size."""
    random = np.random.default_rng(seed)
    pairs = []
    for number in range(n):
        shape = (side, side + number % 3)
        mask = np.zeros(shape, dtype=bool)
        if number % 3:
            mask[2:7, 3:9] = True
        noise = random.normal(0, 1.5, shape) + random.normal(0, 1)
        pairs.append((1 / (1 + np.exp(-(3 * mask - 2 + noise))), mask))
    return pairs


def measured(masks, pairs):
    sums = [((m & t).sum(), m.sum(), t.sum()) for m, (_, t) in zip(masks, pairs, strict=True)]
    return segmentation_metrics(*np.array(sums).T)


def by_hand(probability, top, min_area, bottom):
    """The rule as it is written, on 255ths."""
    levels = np.rint(probability * 255) / 255
    if (levels > top).sum() < min_area * levels.size:
        return np.zeros(levels.shape, dtype=bool)
    return levels > bottom


def cached(pairs):
    return ProbabilityCache([level_counts(probability, mask) for probability, mask in pairs])


def assert_rows_are(table, names, make_masks, pairs):
    for row in table.to_dict("records"):
        expected = measured(make_masks(*(row[name] for name in names)), pairs)
        for name in ("dice", "dice_positive", "sensitivity", "false_positive_rate"):
            assert row.get(name) == pytest.approx(expected.get(name), abs=1e-12), (row, name)


def test_the_rule_by_hand():
    # 10 pixels: two over 0.75 are 0.2 of the image, five over 0.3.
    probability = np.array([[0.9, 0.8, 0.6, 0.5, 0.4], [0.25, 0.2, 0.1, 0.0, 0.0]])
    mask = np.array([[1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=bool)
    assert (apply_triplet(probability, Triplet(0.75, 0.2, 0.3)) == mask).all()
    assert not apply_triplet(probability, Triplet(0.75, 0.21, 0.3)).any()
    assert not apply_triplet(probability, Triplet(0.85, 0.2, 0.3)).any()
    assert apply_triplet(probability, Triplet(0.75, 0.2, 0.0)).sum() == 8


@pytest.mark.parametrize("seed", [0, 1])
def test_search_is_the_rule_applied_to_every_pixel(seed):
    pairs = make_radiographs(7, seed)
    grid = ([0.5, 0.75, 0.9], [0.0, 0.02, 0.1, 0.3], [0.2, 0.5, 0.75])
    found = cached(pairs).search(*grid)
    wanted = [setting for setting in itertools.product(*grid) if setting[2] <= setting[0]]
    names = ["top", "min_area", "bottom"]
    assert list(found.table[names].itertuples(index=False, name=None)) == wanted
    assert_rows_are(found.table, names, lambda *s: [by_hand(p, *s) for p, _ in pairs], pairs)
    assert_rows_are(found.table, names, lambda *s: [apply_triplet(p, Triplet(*s)) for p, _ in pairs], pairs)
    assert found.best["dice"] == found.table["dice"].max()
    assert found.best == found.table.iloc[found.table["dice"].argmax()].to_dict()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_any_setting_and_any_number_type(seed, top, min_area, bottom, as_bytes):
    pairs = make_radiographs(3, seed, side=5)
    if as_bytes:
        pairs = [(quantise(probability), mask) for probability, mask in pairs]
    top, bottom = max(top, bottom), min(top, bottom)
    found = cached(pairs).search([top], [min_area], [bottom])
    masks = [by_hand(p / 255 if as_bytes else p, top, min_area, bottom) for p, _ in pairs]
    assert found.best["dice"] == pytest.approx(measured(masks, pairs)["dice"], abs=1e-12)


@given(st.floats(0, 1))
def test_levels_over_a_threshold(threshold):
    level = first_level_over(threshold)
    assert all((k / 255 > threshold) == (k >= level) for k in range(256))


def test_a_thousand_settings_take_seconds():
    random = np.random.default_rng(0)
    coarse = [random.random((64, 64)) ** 3 for _ in range(8)]
    masks = [probability > 0.6 if number % 4 else probability > 1 for number, probability in enumerate(coarse)]
    cache = cached(list(zip(coarse, masks, strict=True)) * 250)
    start = time.process_time()
    found = cache.search()
    assert time.process_time() - start < 5
    # 10 × 10 × 10, all bottoms at or under all tops.
    assert len(found.table) == 1000


def test_equal_settings_give_the_first():
    # Certain and right everywhere: every setting scores 1.
    mask = np.eye(4, dtype=bool)
    found = cached([(mask.astype(float), mask)]).search([0.5, 0.6], [0.0, 0.1], [0.3, 0.4])
    assert found.best == {
        "top": 0.5, "min_area": 0.0, "bottom": 0.3, "dice": 1.0, "dice_positive": 1.0, "sensitivity": 1.0
    }  # fmt: skip


def test_search_gate_is_the_cascade_applied_to_every_pixel():
    pairs = make_radiographs(9, 5)
    probabilities = np.array([0.1, 0.9, 0.5, 0.2, 0.5, 0.7, 0.8, 0.3, 0.0])
    triplet, gates = Triplet(0.7, 0.05, 0.4), [0.0, 0.3, 0.5, 0.75, 1.0]
    found = cached(pairs).search_gate(probabilities, gates, triplet)
    assert found.table["gate"].tolist() == gates

    def masks(gate):
        return [
            by_hand(p, 0.7, 0.05, 0.4) & (probability >= gate)
            for (p, _), probability in zip(pairs, probabilities, strict=True)
        ]

    assert_rows_are(found.table, ["gate"], masks, pairs)
    assert found.best["dice"] == found.table["dice"].max()
    assert set(found.best) >= {"gate", "dice"}
    assert len(cached(pairs).search_gate(probabilities).table) == 101
    with pytest.raises(InputError, match=r"\(8,\) probabilities for 9 radiographs"):
        cached(pairs).search_gate(probabilities[:8])


def test_certainty_by_hand():
    # 10 pixels: one at 0.8, two at 0.6, the others at 0.2, 0.1 and 0.
    probability = np.array([[204, 153, 153, 51, 51], [26, 26, 0, 0, 0]], dtype=np.uint8)
    cache = cached([(probability, np.zeros((2, 5), dtype=bool))])
    for min_area, level in ((0, 204), (0.1, 204), (0.11, 153), (0.3, 153), (0.31, 51), (0.7, 26), (0.71, 0), (1, 0)):
        assert cache.certainty(min_area).tolist() == [level / 255], min_area


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0.001, 1), st.floats(0, 1))
def test_certainty_over_top_is_what_the_rule_calls_positive(seed, top, min_area, bottom):
    pairs = make_radiographs(6, seed, side=5)
    triplet = Triplet(top, min_area, min(top, bottom))
    level = first_level_over(top)
    called = cached(pairs).certainty(min_area) >= (LEVELS[level] if level < 256 else np.inf)
    assert called.tolist() == [bool(apply_triplet(p, triplet).any()) for p, _ in pairs]


def test_bad_values():
    with pytest.raises(ValueError, match=r"top is 1\.5"):
        Triplet(top=1.5)
    with pytest.raises(InputError, match="no probabilities are cached"):
        ProbabilityCache([])
    for wrong in (np.full((2, 2), 1.2), np.full((2, 2), -0.1), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
            level_counts(wrong, np.zeros((2, 2), dtype=bool))
    with pytest.raises(ValueError, match="must have one shape"):
        level_counts(np.zeros((2, 2)), np.zeros((2, 3), dtype=bool))
    cache = cached([(np.zeros((2, 2)), np.zeros((2, 2), dtype=bool))])
    with pytest.raises(InputError, match="no settings to search"):
        cache.search([0.3], [0.0], [0.5])
    with pytest.raises(InputError, match="no settings to search"):
        cache.search([], [0.0], [0.5])
