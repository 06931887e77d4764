"""Phantoms in the layouts of public sets, converted: every radiograph, split, patient and finding is there."""

import json

import numpy as np
import pytest

from xray.datasets.sources import convert
from xray.datasets.store import open_store
from xray.phantoms.layout import layout_of
from xray.phantoms.layouts.chest_labels import CHEXPERT_NAMES, PADCHEST_NAMES, names_in
from xray.phantoms.layouts.drawn_masks import NOT_DRAWN
from xray.phantoms.layouts.grounded import MSCXR_NAMES

CANDID = {"Pneumothorax": "Pneumothorax", "Other lesion": "Chest tube", "Calcification": "Acute rib fracture"}
NAMES = {
    "chexlocalize": CHEXPERT_NAMES,
    "candid": CANDID,
    "jsrt": {"Nodule/Mass": "Nodule"},
    "padchestgr": PADCHEST_NAMES,
    "mscxr": MSCXR_NAMES,
    "chexpert": CHEXPERT_NAMES,
    "chexpertplus": CHEXPERT_NAMES,
    "mimic": CHEXPERT_NAMES,
    "padchest": PADCHEST_NAMES,
}
"""Kind → a phantom's finding → the category that stands for it."""


@pytest.fixture(scope="module")
def converted(layout_tree, tmp_path_factory):
    """(kind) → the records of its phantoms, its dataset and its conversion.json."""
    folder, done = tmp_path_factory.mktemp("sets"), {}

    def of(kind):
        if kind not in done:
            tree = layout_tree(kind)
            conversion = convert(
                layout_of(kind).source or kind, tree, folder / kind, image_size=64, n_folds=2, n_workers=0
            )
            records = [json.loads(line) for line in (tree / "phantoms.jsonl").read_text().splitlines()]
            done[kind] = {record["file_name"]: record for record in records}, open_store(folder / kind), conversion
        return done[kind]

    return of


@pytest.mark.parametrize("kind", NAMES)
def test_every_radiograph_is_there_with_its_split_and_its_findings(converted, kind):
    records, store, conversion = converted(kind)
    names = store.categories
    missing = set(records) - {record["file_name"] for record in store.records}
    if kind == "mscxr":  # has radiographs with a finding alone
        assert all(not names_in(records[name], MSCXR_NAMES) for name in missing)
    elif kind == "padchest":  # of unchanged studies nothing may be known
        assert all(drop["reason"].startswith("radiograph of which") for drop in conversion["dropped"]["rows"])
    else:
        assert not missing
    for row, record in enumerate(store.records):
        truth = records[record["file_name"]]
        assert record["split"] == truth["split"]
        present = {names[category] for category in record["labels"]}
        unknown = {names[category] for category in record.get("unknown", ())}
        expected = set(names_in(truth, NAMES[kind]))
        # What is neither present nor unknown is absent, and is.
        assert present == expected - unknown
        boxed = {names[label] for label in store.boxes.labels[store.boxes.images == row].tolist()}
        assert boxed == present - {names[index + 1] for index in np.flatnonzero(store.unlocated[row]).tolist()}
    assert len({(record.get("patient")) for record in store.records}) > 1


@pytest.mark.parametrize("kind", ["chexlocalize", "candid", "jsrt", "padchestgr", "mscxr"])
def test_boxes_are_where_the_findings_are(converted, kind):
    records, store, _ = converted(kind)
    for row, record in enumerate(store.records):
        truth = records[record["file_name"]]
        scale = record["width"] / truth["width"]
        for label, box in zip(
            store.boxes.labels[store.boxes.images == row].tolist(),
            store.boxes.boxes[store.boxes.images == row],
            strict=True,
        ):
            of_name = [f["box"] for f in truth["findings"] if NAMES[kind].get(f["name"]) == store.categories[label]]
            # Masks have parts, two readers differ by a hundredth, a circle stands for a nodule.
            slack = 0.02 * truth["width"] + 2 if kind != "jsrt" else truth["width"]
            inside = [
                bool(
                    (box[:2] / scale >= np.array(b[:2]) - slack).all()
                    and (box[2:] / scale <= np.array(b[2:]) + slack).all()
                )
                for b in of_name
            ]
            assert any(inside)
            if kind == "jsrt":
                centres = [np.add(b[:2], b[2:]) / 2 for b in of_name]
                middle = (box[:2] + box[2:]) / 2 / scale
                clipped = box.min() == 0 or box.max() == record["width"]
                assert clipped or min(np.abs(middle - centre).max() for centre in centres) <= 1


def test_masks_and_labels_without_masks(converted):
    _, store, conversion = converted("chexlocalize")
    assert conversion["counts"]["masks"] == conversion["counts"]["annotations"] > 0
    assert not {store.categories[label] for label in store.boxes.labels.tolist()} & set(NOT_DRAWN)
    assert converted("candid")[2]["counts"]["masks"] > 0
    assert converted("candid")[1].unknown.sum() == 1
    assert conversion["counts"]["train_images"] == 0
