"""A dataset's fingerprint: the same for the same annotations, however they are stored, and another for others."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xray.datasets.fingerprint import fingerprint
from xray.datasets.store import open_store

SQUARE, FAR = (100, 100, 500, 500), (500, 1000, 900, 1800)
IMAGES = [("a", "train", 0, "p"), ("b", "train", 1, "p"), ("c", "train", 1, None), ("d", "test", -1, "q")]
BOXES = [(0, 4, SQUARE), (0, 1, FAR), (1, 4, FAR), (3, 2, SQUARE)]


@pytest.fixture
def data(tmp_path: Path, write_table_store: Callable[..., Path]) -> Path:
    return write_table_store(tmp_path / "data", IMAGES, BOXES)


def changed(data: Path, change: Callable[[dict], None]) -> dict:
    """The fingerprint of a copy whose annotations.json was changed."""
    copy = data.with_name(f"copy{random.random()}")
    shutil.copytree(data, copy)
    content = json.loads((copy / "annotations.json").read_text())
    change(content)
    (copy / "annotations.json").write_text(json.dumps(content))
    return fingerprint(open_store(copy, pixels=False))


def test_numbers_by_hand(data: Path) -> None:
    found = fingerprint(open_store(data, pixels=False))
    assert (found["n_images"], found["n_boxes"], found["n_masks"]) == (4, 4, 0)
    assert (found["n_patients"], found["n_without_patient"]) == (2, 1)
    assert (found["width"], found["height"]) == ([1000, 1000, 1000], [2000, 2000, 2000])
    assert {name: n for name, n in found["boxes"].items() if n} == {
        "Aortic enlargement": 1, "Atelectasis": 1, "Cardiomegaly": 2,
    }  # fmt: skip
    some = fingerprint(open_store(data, pixels=False), np.array([3, 1]))
    assert (some["n_images"], some["n_boxes"], some["n_patients"], some["n_without_patient"]) == (2, 2, 2, 0)


def test_the_order_of_rows_does_not_matter(data: Path) -> None:
    def shuffle(content: dict) -> None:
        order = [2, 0, 3, 1]
        content["images"] = [content["images"][old] | {"id": new} for new, old in enumerate(order)]
        for row in content["annotations"]:
            row["image_id"] = order.index(row["image_id"])
        content["annotations"].reverse()
        for record in content["images"]:
            record["file_name"] = f"elsewhere/{record['file_name']}"

    assert changed(data, shuffle) == fingerprint(open_store(data, pixels=False))


@pytest.mark.parametrize(
    ("where", "part"),
    [
        (lambda content: content["annotations"][0]["bbox"].__setitem__(0, 100.5), "annotations_sha256"),
        (lambda content: content["annotations"][0].__setitem__("category_id", 5), "annotations_sha256"),
        (lambda content: content["annotations"].pop(), "annotations_sha256"),
        (lambda content: content["images"][2].__setitem__("labels", [3]), "annotations_sha256"),
        (lambda content: content["images"][2].__setitem__("height", 1999), "annotations_sha256"),
        (lambda content: content["images"][0].__setitem__("fold", 1), "split_sha256"),
        (lambda content: content["images"][3].update(split="train", fold=0), "split_sha256"),
    ],
)
def test_each_change_shows_in_its_own_hash(data: Path, where: Callable[[dict], object], part: str) -> None:
    before, after = (
        fingerprint(open_store(data, pixels=False)),
        changed(data, lambda content: (where(content), None)[1]),
    )
    other = {"annotations_sha256", "split_sha256"} - {part}
    assert before[part] != after[part]
    assert all(before[name] == after[name] for name in other)


def test_it_is_the_same_on_another_machine(data: Path) -> None:
    # What is hashed, written out: a line for each radiograph; nothing of the machine, its versions or the folder.
    found = fingerprint(open_store(data, pixels=False))
    split = ['["a","train",0]', '["b","train",1]', '["c","train",1]', '["d","test",-1]']
    assert found["split_sha256"] == hashlib.sha256(("\n".join(split) + "\n").encode()).hexdigest()
    square, far = "[100.0,100.0,500.0,500.0]", "[500.0,1000.0,900.0,1800.0]"
    annotations = [
        '["a",1000,2000,["Aortic enlargement","Cardiomegaly"],'
        f'[["Aortic enlargement",{far},""],["Cardiomegaly",{square},""]]]',
        f'["b",1000,2000,["Cardiomegaly"],[["Cardiomegaly",{far},""]]]',
        '["c",1000,2000,[],[]]',
        f'["d",1000,2000,["Atelectasis"],[["Atelectasis",{square},""]]]',
    ]
    assert found["annotations_sha256"] == hashlib.sha256(("\n".join(annotations) + "\n").encode()).hexdigest()
