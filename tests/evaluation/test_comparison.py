"""Two sets of predictions side by side: values by hand, and the bootstrap's coverage where it is known."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xray.datasets.fingerprint import fingerprint
from xray.datasets.store import Store, open_store
from xray.errors import InputError
from xray.evaluation.box_metrics import detection_metrics
from xray.evaluation.coco_metrics import coco_metrics
from xray.evaluation.comparison import Comparison, Difference, compare, difference_of, p_value
from xray.evaluation.evaluate import evaluate, plain_numbers
from xray.evaluation.resampling import draw_patients
from xray.evaluation.scored import Scored, read_scored, scored_of, write_scored
from xray.structures.boxes import BoxTable
from xray.structures.predictions import Predictions, read_predictions

SQUARE, FAR, NEAR = (100, 100, 500, 500), (500, 1000, 900, 1800), (120, 100, 520, 500)


def scored(store: Store, rows: list, **options: object) -> Scored:
    """Rows of (image_id, label, box, score)."""
    names = list(dict.fromkeys(row[0] for row in rows))
    columns = list(zip(*rows, strict=True))
    table = BoxTable.of([names.index(row[0]) for row in rows], *columns[1:])
    result = evaluate(store, Predictions(tuple(names), table), **options)
    return scored_of(result, fingerprint(store, result.alignment.rows)["annotations_sha256"])


def by_name(comparison: Comparison) -> dict[tuple[str, str], Difference]:
    return {(one.metric, one.name): one for one in comparison.differences}


@pytest.fixture
def store(tmp_path: Path, write_table_store: Callable[..., Path]) -> Store:
    images = [(f"i{number}", "test", -1, f"p{number // 2}") for number in range(12)]
    boxes = [(number, 4, SQUARE) for number in range(8)] + [(number, 1, FAR) for number in range(4, 10)]
    return open_store(write_table_store(tmp_path / "data", images, boxes), pixels=False)


A_ROWS = [(f"i{number}", 4, SQUARE, 0.9) for number in range(4)] + [("i9", 4, SQUARE, 0.95), ("i5", 1, FAR, 0.5)]
B_ROWS = [(f"i{number}", 4, NEAR, 0.9) for number in range(8)] + [("i10", 1, FAR, 0.6), ("i5", 1, FAR, 0.5)]


def test_values_are_those_of_each_by_itself(store: Store) -> None:
    first, second = scored(store, A_ROWS), scored(store, B_ROWS)
    found = by_name(compare(store, first, second, 50))
    for rows, side in ((A_ROWS, "first"), (B_ROWS, "second")):
        names = {f"i{number}": number for number in range(12)}
        table = BoxTable.of([names[row[0]] for row in rows], *list(zip(*rows, strict=True))[1:])
        truth = store.boxes
        expected = detection_metrics(truth, table, 12, store.categories)
        assert getattr(found["map40", ""], side) == expected["map40"]
        assert getattr(found["map40", "Cardiomegaly"], side) == expected["ap40"]["Cardiomegaly"]
        assert getattr(found["map40_kaggle", ""], side) == pytest.approx(expected["map40_kaggle"])
        assert getattr(found["coco_ap", ""], side) == pytest.approx(expected["coco_ap"])
        alone = truth.select(truth.labels == 1)
        assert getattr(found["coco_ap", "Aortic enlargement"], side) == pytest.approx(
            coco_metrics(alone, table, {1: ""})["coco_ap"]
        )
    # Cardiomegaly: A finds 4 of 8 after one false, B all of them.
    assert found["map40", "Cardiomegaly"].first == pytest.approx(4 / 5 * 4 / 8)
    assert found["map40", "Cardiomegaly"].difference == pytest.approx(1 - 0.4)
    low, high = found["map40", "Cardiomegaly"].ends
    assert 0 < low < 0.6 < high <= 1
    # All resamples are for B, but perhaps one that drew the patients both do well on.
    assert found["map40", "Cardiomegaly"].p_value <= 4 / 51


def test_a_set_against_itself(store: Store) -> None:
    one = scored(store, A_ROWS)
    comparison = compare(store, one, one, 40)
    assert {(d.difference, tuple(d.ends), d.p_value) for d in comparison.differences} == {(0.0, (0.0, 0.0), 1.0)}
    assert {d.metric for d in comparison.differences} == {"map40", "map40_kaggle", "coco_ap", "auroc"}
    assert (comparison.n_images, comparison.n_patients) == (12, 6)


def test_swapping_turns_the_sign_and_a_seed_repeats(store: Store) -> None:
    first, second = scored(store, A_ROWS), scored(store, B_ROWS)
    there, back = (by_name(compare(store, *pair, 60)) for pair in ((first, second), (second, first)))
    for key, one in there.items():
        assert back[key].difference == -one.difference
        np.testing.assert_allclose(back[key].ends, [-one.ends[1], -one.ends[0]], atol=1e-12)
        assert back[key].p_value == one.p_value
    assert compare(store, first, second, 60).differences == tuple(there.values())
    other = compare(store, first, second, 60, seed=1)
    assert any(a.ends != b.ends for a, b in zip(other.differences, there.values(), strict=True))
    without = compare(store, first, second, 0)
    assert {(one.ends, one.p_value) for one in without.differences} == {(None, None)}


def test_the_p_value_by_hand() -> None:
    assert p_value(np.array([0.1, 0.2, -0.1, 0.3])) == pytest.approx(2 * 2 / 5)
    assert p_value(np.full(99, 0.5)) == pytest.approx(2 / 100)
    assert p_value(np.zeros(10)) == 1.0
    assert p_value(np.array([np.nan, 1.0])) == 1.0
    assert math.isnan(p_value(np.array([np.nan])))


def test_the_interval_covers_a_known_difference() -> None:
    # Two scores of 60 radiographs whose means differ by 0.3, correlated as scores of the same radiographs are. Of 300
    # intervals about 95 % hold 0.3; a binomial of 300 is outside [0.90, 0.985] in less than one of 1,000 cases.
    rng = np.random.default_rng(0)
    patients = np.arange(60)
    n_covered, widths, unpaired = 0, [], []
    for seed in range(300):
        hardness = rng.normal(0, 1, 60)
        first, second = (hardness + shift + rng.normal(0, 0.3, 60) for shift in (0.0, 0.3))
        times = draw_patients(patients, 200, seed) / 60
        found = difference_of("dice", "", (first.mean(), times @ first), (second.mean(), times @ second))
        n_covered += found.ends[0] <= 0.3 <= found.ends[1]
        widths.append(found.ends[1] - found.ends[0])
        others = draw_patients(patients, 200, seed + 1000) / 60
        unpaired.append(np.ptp(np.quantile(others @ second - times @ first, [0.025, 0.975])))
    assert 0.90 <= n_covered / 300 <= 0.985
    # 2 · 1.96 · sqrt(2 · 0.09 / 60): what both find hard cancels out.
    assert np.mean(widths) == pytest.approx(0.215, rel=0.08)
    assert np.mean(unpaired) > 2.5 * np.mean(widths)


def test_p_is_small_as_rarely_as_it_says() -> None:
    # Without a difference p falls under 0.05 in about one of twenty cases.
    rng = np.random.default_rng(1)
    patients = np.arange(80)
    small = 0
    for seed in range(300):
        both = rng.normal(0, 1, (2, 80))
        times = draw_patients(patients, 199, seed) / 80
        small += p_value(times @ both[1] - times @ both[0]) < 0.05
    assert 0.02 <= small / 300 <= 0.10


def test_masks_and_labels(tmp_path: Path, write_mask_store: Callable[..., Path], mask_row: Callable) -> None:
    full = np.zeros((30, 40), dtype=np.uint8)
    full[5:15, 4:24] = 1
    half = np.zeros_like(full)
    half[5:15, 4:14] = 1
    images = [(name, 40, 30, 0, None) for name in "abcd"]
    store = open_store(write_mask_store(tmp_path / "d", images, [(0, 1, full), (1, 1, full)]), pixels=False)
    sides = []
    for name, rows in (("A", [mask_row("a", 1, half, 0.9), mask_row("c", 1, half, 0.6)]),
                       ("B", [mask_row("a", 1, full, 0.7), mask_row("b", 1, half, 0.8)])):  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
        result = evaluate(store, read_predictions(tmp_path / f"{name}.json"))
        sides.append(scored_of(result, fingerprint(store, result.alignment.rows)["annotations_sha256"]))
    found = by_name(compare(store, *sides, 30))
    # A: 2/3, 0, 0, 1; B: 1, 2/3, 1, 1.
    assert found["dice", ""].first == pytest.approx(5 / 12)
    assert found["dice", ""].second == pytest.approx(11 / 12)
    assert found["dice_positive", ""].difference == pytest.approx(5 / 6 - 1 / 3)
    # A ranks a, c, then b and d; B ranks both positives first.
    assert found["auroc", "Pneumothorax"].first == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert found["auroc", "Pneumothorax"].second == 1.0
    assert compare(store, *sides, 30).n_patients is None
    json.dumps(plain_numbers(compare(store, *sides, 30).metrics), allow_nan=False)


def test_what_cannot_be_compared(store: Store, tmp_path: Path, write_table_store: Callable[..., Path]) -> None:
    one = scored(store, A_ROWS)
    fewer = dataclasses.replace(one, image_ids=one.image_ids[:5])
    with pytest.raises(InputError, match=r"of 12 radiographs, the second of 5, and they share 5"):
        compare(store, one, fewer)
    with pytest.raises(InputError, match="another truth"):
        compare(store, one, dataclasses.replace(one, annotations="0" * 64))
    nothing = dataclasses.replace(one, boxes=None, labels={}, masks={})
    with pytest.raises(InputError, match="nothing in common"):
        compare(store, one, nothing)
    other = open_store(write_table_store(tmp_path / "other", [("x", "test", -1, None)], []), pixels=False)
    with pytest.raises(InputError, match="12 of 12 radiographs"):
        compare(other, one, one)
    half = dataclasses.replace(one, boxes=None)
    assert compare(store, one, half, 10).left_out == ("boxes",)


def test_what_was_scored_comes_back(store: Store, tmp_path: Path) -> None:
    before = scored(store, A_ROWS)
    odd = dataclasses.replace(
        before,
        boxes=dataclasses.replace(before.boxes, boxes=before.boxes.boxes + 1 / 3),
        masks={"Lung": np.arange(36).reshape(12, 3)},
    )
    for one in (before, odd):
        write_scored(tmp_path / "scored.npz", one)
        after = read_scored(tmp_path / "scored.npz")
        assert (after.image_ids, after.annotations) == (one.image_ids, one.annotations)
        for column in ("images", "labels", "boxes", "scores"):
            np.testing.assert_array_equal(getattr(after.boxes, column), getattr(one.boxes, column))
        for part in ("masks", "labels"):
            assert list(getattr(after, part)) == list(getattr(one, part))
            for name, values in getattr(one, part).items():
                np.testing.assert_array_equal(getattr(after, part)[name], values)
    # In another order the comparison is the same.
    turned = dataclasses.replace(
        before,
        image_ids=before.image_ids[::-1],
        boxes=dataclasses.replace(before.boxes, images=11 - before.boxes.images),
        labels={name: scores[::-1] for name, scores in before.labels.items()},
    )
    second = scored(store, B_ROWS)
    assert compare(store, turned, second, 20).differences == compare(store, before, second, 20).differences


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no scored\.npz"):
        read_scored(tmp_path / "scored.npz")
    for content in (b"", b"PK\x03\x04nothing", b"\x93NUMPY"):
        (tmp_path / "scored.npz").write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            read_scored(tmp_path / "scored.npz")
    np.savez(tmp_path / "scored.npz", version=np.array(99))
    with pytest.raises(InputError, match="damaged"):
        read_scored(tmp_path / "scored.npz")
