"""Planted faults are among what an audit names, clean radiographs are not: phantoms, and real ones where they are."""

# ruff: noqa: F811 (fixtures that are imported are arguments of tests)

import dataclasses
import json

import numpy as np
import pytest
from planted import drawn  # noqa: F401
from planting import Planted, draw_pictures, plant, predict, write_dataset

from xray.audit.appearance import drawn_chest, is_lateral_view, look
from xray.audit.audit import audit
from xray.audit.copy_threshold import Limit, fit_few, fit_threshold
from xray.audit.named import CATEGORY, DUPLICATE, EMPTY, INVERTED, LATERAL, SIDE_SWAPPED, TURNED, UNLIKE
from xray.audit.pictures import read_pictures, without_borders
from xray.datasets.prediction_ids import read_any_predictions
from xray.datasets.store import Store, open_store


def pairs(result) -> set[tuple[int, int]]:
    return {(one.row, one.other) for one in result.of(DUPLICATE)}


def rows(result, *reasons: str) -> set[int]:
    return {one.row for one in result.of(*reasons)}


def changed(store: Store, change) -> Store:
    return dataclasses.replace(store, images=np.stack([change(image) for image in np.asarray(store.images)]))


def test_planted_faults_are_named(tmp_path, drawn):
    pictures, boxes = drawn
    # Of 14 categories, each would have too few boxes to be judged.
    boxes = [[(1 + label % 2, box) for label, box in of_picture] for of_picture in boxes]
    planted = plant(tmp_path / "data", pictures, boxes, 10, 3, 3, 2, n_categories=2)
    store = open_store(planted.path)
    predictions = read_any_predictions(predict(planted, boxes, tmp_path / "p.json"), store)
    said = []
    result = audit(store, predictions, progress=lambda what, share: said.append((what, share)))
    assert pairs(result) == set(planted.copies)
    assert rows(result, INVERTED) == set(planted.inverted)
    assert rows(result, TURNED) == set(planted.turned)
    assert rows(result, CATEGORY) == set(planted.swapped)
    assert result.n_named == len(planted.rows)
    # Plain and zoomed, mirrored or not, each is laid upon three others: pairs do not grow with the square.
    assert result.search.n_compared <= 12 * len(store)
    assert {what for what, _ in said} >= {"reading", "looking for copies", "labels"}
    assert all(0 <= share <= 1 for _, share in said)
    metrics = result.metrics
    assert metrics["n_named"] == len(planted.rows)
    assert sum(one["found"] for one in metrics["duplicates"]["disguised_copies"].values()) >= 0.95 * 144
    mirrored = next(one for one in metrics["named"] if one.get("other") == "r57")
    assert "mirrored" in mirrored["detail"]


def test_a_dataset_that_is_inverted_or_turned_as_a_whole(tmp_path, drawn):
    store = open_store(write_dataset(tmp_path / "data", *drawn))
    seen = look(store, read_pictures(store))
    assert (seen.named, seen.warnings) == ([], [])
    assert not seen.inverted.any()
    for change, word in ((lambda image: 255 - image, "inverted"), (np.rot90, "turned by 270° clockwise")):
        other = changed(store, change)
        seen = look(other, read_pictures(other))
        assert seen.named == []
        assert seen.warnings == [f"the typical radiograph of this dataset looks {word}"]


def test_empty_lateral_and_other_pictures(tmp_path, drawn):
    random = np.random.default_rng(0)
    pictures = list(drawn[0])
    pictures[5] = np.full((100, 90), 130, dtype=np.uint8)
    pictures[9] = random.integers(0, 255, (100, 100), dtype=np.uint8)
    pictures[11] = np.tile((np.sin(np.arange(128) / 6) * 100 + 120).astype(np.uint8), (100, 1))
    store = open_store(write_dataset(tmp_path / "data", pictures, drawn[1]))
    store.records[20]["view"] = "LL"
    result = audit(store)
    assert rows(result, EMPTY) == {5}
    assert rows(result, LATERAL) == {20}
    assert rows(result, UNLIKE) >= {9, 11}
    assert result.n_named == 4
    # Where many are lateral they belong to the dataset.
    for row in range(0, 48, 4):
        store.records[row]["view"] = "LATERAL"
    seen = look(store, read_pictures(store))
    assert not [one for one in seen.named if one.why == LATERAL]
    assert "12 of 48 radiographs are lateral by their headers" in " ".join(seen.warnings)


@pytest.mark.parametrize(
    ("view", "lateral"), [("LL", True), ("lateral", True), ("PA", False), ("AP", False), ("LLD", False), (None, False)]
)
def test_views(view, lateral):
    # LLD is the left lateral decubitus: the patient lies on the side, the picture is frontal.
    assert is_lateral_view({"view": view}) == lateral


def test_few_radiographs_are_not_compared(tmp_path, drawn):
    store = open_store(write_dataset(tmp_path / "data", drawn[0][:3], drawn[1][:3]))
    result = audit(store)
    assert result.named == []
    assert any("too few" in warning for warning in result.warnings)
    one = open_store(write_dataset(tmp_path / "one", drawn[0][:1], drawn[1][:1]))
    assert audit(one).search.n_compared == 0
    # Copies are looked for among three just as well.
    twice = open_store(write_dataset(tmp_path / "twice", [*drawn[0][:3], drawn[0][1]], [*drawn[1][:3], []]))
    assert pairs(audit(twice)) == {(1, 3)}


def test_borders():
    chest = drawn_chest()
    framed = np.pad(chest, ((10, 20), (5, 30)))
    assert without_borders(framed).shape == (64, 64)
    assert without_borders(chest).shape == (64, 64)
    plain = np.full((50, 60), 7, dtype=np.uint8)
    assert without_borders(plain).shape == (50, 60)


def test_the_threshold_lies_between_strangers_and_copies():
    random = np.random.default_rng(0)
    strangers = np.tanh(random.normal(0.25, 0.08, 400)).clip(0)
    copies = np.tanh(random.normal(2, 0.2, 144))
    limit = fit_threshold(strangers, copies, 10_000)
    assert strangers.max() < limit.threshold < copies.min()
    assert limit.expected_false < 0.01
    # One in ten that is a copy moves it little.
    mixed = fit_threshold(np.concatenate([strangers, np.full(40, 0.97)]), copies, 10_000)
    assert abs(mixed.threshold - limit.threshold) < 0.05
    # Strangers that look alike ask for more.
    assert fit_threshold(np.tanh(random.normal(0.7, 0.1, 400)), copies, 10_000).threshold > limit.threshold


def test_the_threshold_of_a_few_radiographs():
    copies = np.tanh([1.5, 1.6, 1.8, 2.0, 2.5, 3.0])
    # Worked by hand: the lowest copy has about 1.51, so what lies below (0.2 + 1.51) / 2 is a stranger's: 0.3 and 0.4.
    # Centre 0.35; variance (2 x 0.05² + 20 x 0.13²) / 22 x 1.5 = 0.0234; the highest of 100 strangers 0.35 + 2.326 x
    # 0.153 = 0.706, so that the threshold is tanh(0.33 x 0.706 + 0.67 x 1.51) = 0.847.
    limit = fit_few(np.tanh([0.4, 2.4, 0.3]), np.tanh([0.2, 0.2, 0.1]), copies, 6)
    assert limit.threshold == pytest.approx(0.847, abs=0.003)
    assert limit.expected_false < 1e-4
    # Where all are copies of one, their mirrored agreement says what strangers have.
    alone = fit_few(np.tanh([2.4]), np.tanh([0.2]), copies, 2).threshold
    assert np.tanh(0.7) < alone < np.tanh(1.4)
    assert fit_few(np.tanh([0.2]), np.tanh([2.4]), copies, 2).threshold == alone
    # Strangers that look alike ask for more; without a copy that can be aligned nothing but a limit is known.
    assert fit_few(np.tanh([0.8, 0.7]), np.tanh([0.5, 0.4]), copies, 4).threshold > limit.threshold
    assert 0.5 < fit_few([0.2], [0.1], [], 2).threshold <= 0.9


def test_a_copy_stands_out_from_others_of_its_kind():
    # Worked by hand: strangers have 0.2 and spread by 0.1, copies have 1.6; of 1,000 pairs one has 0.2 + 3.09 x 0.1 =
    # 0.509, and the middle of that and 1.6 is 1.0545, tanh 0.784.
    limit = Limit(float(np.tanh(1.0545)), 0.0, 0.1, 1.6, 1000)
    assert limit.beside(np.tanh([0.1, 0.2, 0.2, 0.3])) == limit.threshold
    # Beside four of 0.8: no variance of their own, (0 + 20 x 0.1²) / 24 = 0.0913², the highest 0.8 + 3.09 x 0.0913 =
    # 1.082, and the middle of that and 1.6 is 1.341, tanh 0.872.
    alike = np.tanh([0.8, 0.8, 0.8, 0.8])
    assert limit.beside(alike) == pytest.approx(0.872, abs=0.001)
    # Of too few nothing is known; pairs that were given up, and further copies, are no strangers.
    assert limit.beside(alike[:3]) == limit.threshold
    assert limit.beside([*alike, 0, 0, 0, 0, 0]) == pytest.approx(0.872, abs=0.001)
    assert limit.beside(np.tanh([1.7, 2, 2, 3, 3])) == limit.threshold
    assert limit.beside([*alike, *np.tanh([1.7, 2, 2, 3, 3])]) == pytest.approx(0.872, abs=0.001)
    # However alike they are, what agrees as closely as 0.9 is a copy.
    assert limit.beside(np.tanh([1.5, 1.5, 1.5, 1.5])) == 0.9


@pytest.mark.parametrize(("first", "n"), [(0, 2), (7, 5), (20, 8)])
def test_few_radiographs_have_copies_and_no_others(tmp_path, drawn, first, n):
    pictures, boxes = drawn[0][first : first + n], drawn[1][first : first + n]
    clean = open_store(write_dataset(tmp_path / "clean", pictures, boxes))
    assert pairs(audit(clean)) == set()
    twice = [*pictures, np.ascontiguousarray(pictures[1][:, ::-1])]
    assert pairs(audit(open_store(write_dataset(tmp_path / "twice", twice, [*boxes, []])))) == {(1, n)}


def test_nothing_but_copies_of_one(tmp_path, drawn):
    pictures = [drawn[0][3], drawn[0][3][2:-1, 1:], np.ascontiguousarray(drawn[0][3][:, ::-1])]
    assert pairs(audit(open_store(write_dataset(tmp_path / "three", pictures, [[], [], []])))) == {
        (0, 1),
        (0, 2),
        (1, 2),
    }


@pytest.mark.slow
def test_detection_rates_on_phantoms(tmp_path):
    pictures, boxes = draw_pictures(200, 128)
    clean = open_store(plant(tmp_path / "clean", pictures, boxes).path)
    assert audit(clean).n_named <= 0.02 * 200
    planted = plant(tmp_path / "data", pictures, boxes, 22, 10, 10, 10)
    store = open_store(planted.path)
    predictions = read_any_predictions(predict(planted, boxes, tmp_path / "p.json"), store)
    result = audit(store, predictions)
    check(result, planted, 222)
    assert len(rows(result, CATEGORY) & set(planted.swapped)) >= 0.95 * 10
    # Nothing depends on chance or on threads.
    again = audit(store, predictions)
    assert json.dumps(result.metrics) == json.dumps(again.metrics)


def check(result, planted: Planted, n: int, besides: frozenset[int] = frozenset()) -> None:
    """At least 95 % of what was planted is named for what it is, and at most 2 % of the others for anything."""
    assert len(pairs(result) & set(planted.copies)) >= 0.95 * len(planted.copies)
    assert len(rows(result, INVERTED) & set(planted.inverted)) >= 0.95 * len(planted.inverted)
    assert len(rows(result, TURNED) & set(planted.turned)) >= 0.9 * len(planted.turned)
    named = {row for one in result.named for row in one.rows}
    assert len(named - planted.rows - besides) <= 0.02 * (n - len(planted.rows))


@pytest.mark.slow
def test_detection_rates_on_real_radiographs(tmp_path, shared_data):
    from xray.datasets.sources import convert

    data = tmp_path / "chests"
    convert("coco", shared_data / "chest-open", data, image_size=128, n_folds=5, n_workers=0)
    store = open_store(data)
    assert audit(store).n_named <= 0.02 * len(store)

    crops, boxes = [], []
    for row in range(len(store)):
        left, top, right, bottom = store.canvas(row).content
        crops.append(np.ascontiguousarray(store.images[row, top:bottom, left:right]))
        inside = store.boxes.images == row
        on_canvas = store.canvas(row).to_canvas(store.boxes.boxes[inside]) - (left, top, left, top)
        boxes.append(list(zip(store.boxes.labels[inside].tolist(), on_canvas.tolist(), strict=True)))
    planted = plant(tmp_path / "planted", crops, boxes, 22, 10, 10, 6, n_categories=2)
    faulty = open_store(planted.path)
    faulty = dataclasses.replace(faulty, categories=store.categories)
    for row, record in enumerate(store.records):
        faulty.records[row] |= {"patient": record["patient"], "fold": record["fold"]}
    result = audit(faulty)
    # Follow-ups of an original are alike its copy, too, whose patient is not known.
    patients = {store.records[original]["patient"] for original, _ in planted.copies}
    follow_ups = frozenset(row for row, record in enumerate(store.records) if record["patient"] in patients)
    check(result, planted, len(faulty), follow_ups)
    assert rows(result, SIDE_SWAPPED) >= set(planted.swapped)
