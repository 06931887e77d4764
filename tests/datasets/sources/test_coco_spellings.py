"""One COCO file, written as any tool might: the dataset and the score are those of the original."""

import contextlib
import copy
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from source_cases import write_picture

from xray.datasets.prediction_ids import resolve
from xray.datasets.sources import convert
from xray.datasets.sources.coco_extras import CocoFile
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.evaluation.evaluate import evaluate
from xray.structures.predictions import read_predictions

N, WIDTH, HEIGHT = 7, 60, 40
NAMES = ("Nodule", "Mass", "Effusion")
SPELLINGS = (int, float, str, lambda number: f"{number}.0", lambda number: f" {number} ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The radiographs, some of whose names are numbers."""
    raw = tmp_path_factory.mktemp("spellings")
    for number in range(N):
        write_picture(raw / "raw" / f"{number if number % 2 else f'r{number}'}.png", WIDTH, HEIGHT, offset=number)
    return raw


box = st.tuples(st.integers(0, 40), st.integers(0, 25), st.integers(4, 20), st.integers(4, 15))
drawn = st.lists(st.tuples(st.integers(0, N - 1), st.integers(0, 2), box), min_size=1, max_size=10)


def files(folder):
    return sorted(path.name for path in (folder / "raw").glob("*.png"))


def original(folder, annotations):
    images = [
        {"id": number + 1, "file_name": name, "width": WIDTH, "height": HEIGHT, "patient": number // 2}
        for number, name in enumerate(files(folder))
    ]
    # An annotation twice would count twice to pycocotools, and once to us.
    rows = [
        {"id": number + 1, "image_id": image + 1, "category_id": category + 1, "bbox": list(bbox), "iscrowd": 0,
         "area": bbox[2] * bbox[3]}
        for number, (image, category, bbox) in enumerate(dict.fromkeys(annotations))
    ]  # fmt: skip
    return {
        "images": images,
        "annotations": rows,
        "categories": [{"id": number + 1, "name": name} for number, name in enumerate(NAMES)],
    }


def results_of(truth):
    """Detections near the truth, of the surest half of it, with one where there is nothing."""
    found = []
    for number, row in enumerate(truth["annotations"]):
        x, y, width, height = row["bbox"]
        score = round(0.95 - 0.06 * number, 2)
        bbox = [x + number % 3, y, width, height]
        found.append({"image_id": row["image_id"], "category_id": row["category_id"], "bbox": bbox, "score": score})
    return [*found, {"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}]


def pycocotools_score(truth, results):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        scored = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return scored.stats[:3].tolist()


def respelt(truth, results, draw):
    """The same, with ids offset and spelt anew, entries shuffled, and categories that nobody uses."""
    by_image, by_category = draw(st.integers(0, 10**6)), draw(st.integers(0, 90))
    spell = st.sampled_from(SPELLINGS)

    def image_id(number):
        return draw(spell)(number + by_image)

    def category_id(number):
        # Every second number stays free for one that is not used.
        return draw(spell)(2 * number + by_category)

    images = [
        {**entry, "id": image_id(entry["id"])}
        | {key: draw(spell)(entry[key]) for key in ("width", "height", "patient")}
        for entry in truth["images"]
    ]
    rows = [
        {**row, "image_id": image_id(row["image_id"]), "category_id": category_id(row["category_id"]),
         "iscrowd": draw(st.sampled_from([0, 0.0, "0", False, None, "false"]))}
        for row in truth["annotations"]
    ]  # fmt: skip
    categories = [{**entry, "id": category_id(entry["id"])} for entry in truth["categories"]]
    unused = [{"id": 2 * number + by_category + 1, "name": f"unused {number}"} for number in (0, 2, 9)]
    parts = [draw(st.permutations(part)) for part in (images, rows, categories + unused)]
    # Integers or whole floats are what other detectors write; a text would be a name.
    numeric = st.sampled_from((int, float))
    found = [
        {**row, "image_id": draw(numeric)(row["image_id"] + by_image),
         "category_id": category_id(row["category_id"])}
        for row in draw(st.permutations(results))
    ]  # fmt: skip
    return dict(zip(("images", "annotations", "categories"), parts, strict=True)), found


def converted(folder, truth):
    (folder / "raw" / "annotations.json").write_text(json.dumps(truth))
    convert("coco", folder / "raw", folder / "data", image_size=32, n_folds=2, n_workers=0, overwrite=True)
    return open_store(folder / "data")


def content(store):
    """All of a dataset but the numbers of its source."""
    records = [
        {key: value for key, value in record.items() if key not in ("coco_id", "labels")} for record in store.records
    ]
    boxes = [
        (image, store.categories[label], *box)
        for image, label, box in zip(
            store.boxes.images.tolist(), store.boxes.labels.tolist(), store.boxes.boxes.tolist(), strict=True
        )
    ]
    return records, boxes, np.asarray(store.images).tobytes()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(annotations=drawn, data=st.data())
def test_any_spelling_is_the_same_dataset_and_scores_the_same(folder, annotations, data):
    truth = original(folder, annotations)
    results = results_of(truth)
    expected_score = pycocotools_score(truth, results)
    expected = content(converted(folder, truth))
    other, found = respelt(truth, results, data.draw)
    store = converted(folder, other)
    assert content(store) == expected
    (folder / "p.json").write_text(json.dumps(found))
    metrics = evaluate(store, resolve(store, read_predictions(folder / "p.json"))).metrics
    score = [metrics[name] for name in ("coco_ap", "coco_ap50", "coco_ap75")]
    np.testing.assert_allclose(score, expected_score, atol=1e-9)


def test_a_panoptic_file_is_told():
    rows = {"images": [], "categories": [], "annotations": [{"segments_info": []}]}
    with pytest.raises(InputError, match="is a panoptic file"):
        CocoFile.of(json.dumps(rows).encode(), Path("p.json"))
