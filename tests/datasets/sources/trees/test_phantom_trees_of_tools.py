"""Phantoms as trees of trainers and labelling tools: what was drawn is read, and a detector trains on it."""

import json

import numpy as np
import pytest
from conftest import rarely

from xray.datasets.sources import convert
from xray.datasets.sources.trees.yolo import BACKGROUND
from xray.datasets.store import open_store


@pytest.fixture(scope="module")
def converted(layout_tree, tmp_path_factory):
    """(kind) → the records of the phantoms, and the dataset."""
    folder = tmp_path_factory.mktemp("converted")

    def make(kind):
        tree = layout_tree(kind)
        if not (folder / kind).exists():
            convert("tree", tree, folder / kind, image_size=64, n_folds=2, n_workers=0)
        return [json.loads(line) for line in (tree / "phantoms.jsonl").read_text().splitlines()], folder / kind

    return make


def box_of(finding, kind):
    """The box that the tree says; CVAT's is that of a polygon, where there is one."""
    if kind != "cvat" or len(finding["outlines"]) > 1:
        return finding["box"]
    points = np.array(finding["outlines"][0])
    return (*points.min(axis=0), *points.max(axis=0))


@pytest.mark.parametrize(
    ("kind", "within"), [("coco", 1e-5), ("yolo", 1e-3), ("voc", 0.5001), ("labelstudio", 1e-5), ("cvat", 0.005)]
)
def test_what_was_drawn_is_read(converted, kind, within):
    records, path = converted(kind)
    store = open_store(path)
    row_of = {record["file_name"]: row for row, record in enumerate(store.records)}
    assert sorted(row_of) == sorted(record["file_name"] for record in records)
    for record in records:
        row = row_of[record["file_name"]]
        assert store.records[row]["split"] == record["split"]
        chosen = np.flatnonzero(store.boxes.images == row)
        read = sorted(
            (store.categories[int(label)], *box)
            for label, box in zip(store.boxes.labels[chosen], store.boxes.boxes[chosen].tolist(), strict=True)
        )
        drawn = sorted((finding["name"], *box_of(finding, kind)) for finding in record["findings"])
        assert [name for name, *_ in read] == [name for name, *_ in drawn]
        for (_, *box), (_, *true) in zip(read, drawn, strict=True):
            assert box == pytest.approx(true, abs=within)
    if kind == "coco":
        # An outline through pixel centres may be too thin for a single pixel: then the box alone is left.
        assert len(store.masks) > 0.9 * len(store.boxes) > 0
    if kind == "yolo":
        assert store.conversion["warnings"]["counts"][BACKGROUND] > 0


@pytest.mark.parametrize("kind", rarely(["coco", "yolo", "voc", "cvat", "labelstudio"]))
def test_from_a_tree_to_scores(converted, layout_tree, kind, train_tiny, tmp_path):
    from xray.commands import evaluate, infer

    _, path = converted(kind)
    run = train_tiny(path, tmp_path / "run", "--fold", 0)
    folder = {"coco": "test2017", "yolo": "images/test", "voc": "JPEGImages", "cvat": "images/Test"}.get(kind, "images")
    out, report = tmp_path / "out", tmp_path / "report"
    pictures = layout_tree(kind) / folder
    infer.main(infer.Config(weights=(run,), data_path=pictures, save_path=out, device="cpu", tta=False))
    predictions = out / "predictions.json"
    evaluate.main(evaluate.Config(predictions=predictions, data_path=path, save_path=report, split="test"))
    assert 0 <= json.loads((report / "metrics.json").read_text())["map40"] <= 1
