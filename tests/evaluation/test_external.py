"""Predictions of a model with other categories: what both have in common, by name, is scored, and that is said."""

import json

import numpy as np
import pytest

from xray.commands.evaluate import Config, main
from xray.datasets.category_map import parse_map
from xray.datasets.store import Store
from xray.errors import InputError
from xray.evaluation.evaluate import evaluate
from xray.evaluation.external import common_categories, read_common, restricted
from xray.structures.boxes import BoxTable
from xray.structures.predictions import NO_FINDING_CATEGORY, read_predictions

TRUTH = {1: "Cardiomegaly", 2: "Nodule/Mass", 3: "Pleural effusion"}
ROWS = [(0, 1, 10, 10, 50, 50), (0, 2, 60, 60, 80, 80), (1, 2, 20, 20, 40, 40), (2, 3, 5, 5, 50, 90)]


@pytest.fixture
def store(tmp_path):
    """Four radiographs r0 … r3, of 100 pixels; the last shows nothing."""
    records = [
        {"id": n, "file_name": f"r{n}.png", "source_id": f"r{n}", "width": 100, "height": 100, "split": "test",
         "fold": -1, "labels": sorted({label for image, label, *_ in ROWS if image == n})}
        for n in range(4)
    ]  # fmt: skip
    boxes = BoxTable.of([row[0] for row in ROWS], [row[1] for row in ROWS], [row[2:] for row in ROWS])
    conversion = {"parameters": {"image_size": 32}}
    return Store(tmp_path, None, records, boxes, [[]] * len(ROWS), {}, TRUTH, conversion)


def predicted(path, rows):
    """rows: (image, category name, score, x1, y1, x2, y2); categories get numbers of their own."""
    number: dict[str, int] = {}
    results = [
        {"image_id": f"r{image}", "category_id": 40 + number.setdefault(name, len(number)), "category_name": name,
         "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for image, name, score, x1, y1, x2, y2 in rows
    ]  # fmt: skip
    path.write_text(json.dumps(results))
    return path


def common(store, path, text=None, only=()):
    mapping = parse_map(text.encode(), "map.yaml") if text else None
    return common_categories(store, read_predictions(path), path, mapping, only)


def test_common_categories_by_name(store, tmp_path):
    path = predicted(
        tmp_path / "p.json",
        [
            (0, "cardiomegaly", 0.9, 10, 10, 50, 50),
            (1, "Fracture", 0.8, 1, 1, 9, 9),
            (3, "No finding", 0.7, 0, 0, 1, 1),
        ],
    )
    reduced, predictions, found = common(store, path)
    assert found.scored == ("Cardiomegaly",)
    assert found.lines == [
        "scored are the categories that model and dataset have in common: Cardiomegaly",
        "not scored, as the dataset has no truth of them: Fracture (1 predicted row)",
        "not scored, as the predictions have none of them: Nodule/Mass, Pleural effusion",
    ]
    assert found.metrics["categories"]["not_in_dataset"] == ["Fracture"]
    result = evaluate(reduced, predictions, with_coco=False)
    assert result.metrics["ap40"] == {"Cardiomegaly": 1.0}
    assert len(result.alignment) == 4
    assert result.alignment.predictions.labels.tolist() == [1, NO_FINDING_CATEGORY]
    # What is not scored does not make a radiograph normal.
    assert reduced.abnormal[0].tolist() == [True, True, True, False]
    assert [record.get("dropped") for record in reduced.records] == [
        ["Nodule/Mass"], ["Nodule/Mass"], ["Pleural effusion"], None,
    ]  # fmt: skip


def test_a_map_of_the_predictions_names(store, tmp_path):
    path = predicted(
        tmp_path / "p.json",
        [
            (0, "Mass", 0.9, 60, 60, 80, 80),
            (0, "Nodule", 0.8, 60, 60, 80, 81),  # the same, found twice
            (1, "Nodule", 0.7, 20, 20, 40, 40),
            (2, "Effusion", 0.6, 5, 5, 50, 90),
            (3, "Hernia", 0.5, 5, 5, 50, 90),
        ],
    )
    with pytest.raises(InputError, match=r"p.json has Mass, Nodule, .*: no category is in both by name, so say"):
        common(store, path)
    text = "Mass: Nodule/Mass\nNodule: Nodule/Mass\nEffusion: Pleural effusion\nHernia: drop\nNever: Cardiomegaly\n"
    reduced, predictions, found = common(store, path, text)
    assert found.scored == ("Nodule/Mass", "Pleural effusion")
    assert (found.not_in_dataset, found.not_scored, found.n_left_out, found.n_joined) == (
        ("Hernia",),
        ("Cardiomegaly",),
        1,
        1,
    )
    assert evaluate(reduced, predictions, with_coco=False).metrics["ap40"] == {"Nodule/Mass": 1, "Pleural effusion": 1}
    with pytest.raises(InputError, match=r"--map map.yaml names none of the categories in p.json"):
        common(store, path, "Else: Cardiomegaly")


def test_a_model_of_the_datasets_own_categories_stays_as_it_was(store, tmp_path):
    path = predicted(tmp_path / "p.json", [(0, "Cardiomegaly", 0.9, 10, 10, 50, 50)])
    same, _, found = common(store, path)
    assert (same is store, found) == (True, None)
    # What it never found counts as not found, unless it is said what it knows.
    _, predictions, _ = common(store, path)
    assert evaluate(store, predictions, with_coco=False).metrics["map40"] == pytest.approx(1 / 3)
    reduced, predictions, found = common(store, path, only=("cardiomegaly", "Nodule/Mass"))
    assert found.scored == ("Cardiomegaly", "Nodule/Mass")
    assert found.lines == ["scored are the categories that --categories names: Cardiomegaly, Nodule/Mass"]
    assert evaluate(reduced, predictions, with_coco=False).metrics["ap40"] == {"Cardiomegaly": 1, "Nodule/Mass": 0}
    with pytest.raises(InputError, match=r"--categories Mass: .* has no such category \(it has Cardiomegaly, "):
        common(store, path, only=("Mass",))


def test_numbers_without_names_are_left_to_the_flags(store, tmp_path):
    path = predicted(tmp_path / "p.json", [(0, "Cardiomegaly", 0.9, 10, 10, 50, 50)])
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{k: v for k, v in row.items() if k != "category_name"} for row in rows]))
    assert common(store, path)[2] is None
    # The other model's numbers are not the dataset's.
    (tmp_path / "m.yaml").write_text("Heart: Cardiomegaly")
    for name in ("vinbig/nih", str(tmp_path / "m.yaml")):
        with pytest.raises(InputError, match=r"no row of p\.json has a category_name: write it there"):
            read_common(store, path, name)


def test_unknown_and_masks_of_what_is_left(store):
    records = [dict(record, unknown=[1, 3], unlocated=[2]) for record in store.records]
    masks = {0: {"size": [1, 1], "counts": "a"}, 2: {"size": [1, 1], "counts": "b"}}
    reduced = restricted(Store(**(vars(store) | {"records": records, "masks": masks})), [2])
    assert (reduced.categories, reduced.boxes.labels.tolist(), reduced.masks) == (
        {2: "Nodule/Mass"}, [2, 2], {1: {"size": [1, 1], "counts": "b"}},
    )  # fmt: skip
    assert [record["unknown"] for record in reduced.records] == [[]] * 4
    assert [record["dropped_unknown"] for record in reduced.records] == [["Cardiomegaly", "Pleural effusion"]] * 4
    assert reduced.abnormal[1].tolist() == [True, True, True, False]
    assert np.array_equal(reduced.labels[:, 0], [True, True, False, False])


def test_through_the_command(vinbig_store, sketched, tmp_path, capsys):
    """Of a dataset of VinBigData's 14 findings, scored with a model that calls them otherwise."""
    from xray.datasets.store import open_store

    store = open_store(vinbig_store, pixels=False)
    label = int(store.boxes.labels[0])
    name = store.categories[label]
    boxes = zip(store.boxes.images.tolist(), store.boxes.labels, store.boxes.boxes.tolist(), strict=True)
    results = [
        {"image_id": store.records[image]["source_id"], "category_id": 1, "category_name": "Theirs", "score": 0.9,
         "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
        for image, own, box in boxes
        if own == label
    ]  # fmt: skip
    results.append(results[0] | {"category_id": 2, "category_name": "Else"})
    (tmp_path / "p.json").write_text(json.dumps(results))
    (tmp_path / "map.yaml").write_text(f"Theirs: {name}\n")
    main(
        Config(
            predictions=tmp_path / "p.json", data_path=vinbig_store, save_path=tmp_path / "out", resamples=0,
            map=str(tmp_path / "map.yaml"),
        )
    )  # fmt: skip
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["categories"]["scored"] == [name]
    assert metrics["categories"]["not_in_dataset"] == ["Else"]
    assert metrics["ap40"] == {name: 1.0}
    assert f"in common: {name}" in capsys.readouterr().err
    assert "not scored, as the dataset has no truth of them: Else" in (tmp_path / "out" / "report.html").read_text()
