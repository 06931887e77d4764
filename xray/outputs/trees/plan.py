"""Which radiographs of a dataset go into a tree, under which names, in which splits, and in which pixels."""

import dataclasses
from typing import Literal

import numpy as np

from xray.datasets.source import TEST, TRAIN, VAL
from xray.datasets.store import Store
from xray.errors import InputError
from xray.radiographs.names import unique_names

TreeFormat = Literal["coco", "yolo", "voc"]
Masks = Literal["polygons", "rle", "none"]

OTHER_VAL = "of the dataset's own validation split, in place of which a fold validates"
UNSURE = "findings that are unknown or not located, which the format cannot say"


@dataclasses.dataclass(frozen=True)
class Item:
    """One radiograph of a tree.

    row: of the dataset. name: of its picture, without suffix, different from all others in any case. split: train, val
    or test. original, picture: (width, height) of the radiograph and of the picture that is written.
    """

    row: int
    name: str
    split: str
    original: tuple[int, int]
    picture: tuple[int, int]

    @property
    def scale(self) -> np.ndarray:
        """(4,) float64, picture pixels per original pixel, for x1, y1, x2, y2."""
        return np.tile(np.array(self.picture) / np.array(self.original), 2)


@dataclasses.dataclass(frozen=True)
class Plan:
    """items: in the order of the dataset. left_out: source id → why a radiograph is not written."""

    items: list[Item]
    left_out: dict[str, str]

    @property
    def splits(self) -> dict[str, list[Item]]:
        """Split → its radiographs, of the splits that have any."""
        by_split: dict[str, list[Item]] = {split: [] for split in (TRAIN, VAL, TEST)}
        for item in self.items:
            by_split[item.split].append(item)
        return {split: items for split, items in by_split.items() if items}


def plan(
    store: Store, format: TreeFormat, fold: int | None = None, include_unsure: bool = False, full_size: bool = False
) -> Plan:
    """Decides for each radiograph. Its picture is as large as its part of the canvas, or with full_size as itself.

    fold: this one becomes the val split, and the dataset's own val split is left out.
    include_unsure: YOLO and VOC cannot say that a finding is unknown, or somewhere in the radiograph; there such
        radiographs are left out unless they are asked for.
    Raises InputError for a fold that is not there, and where nothing is left.
    """
    validating = set() if fold is None else set(store.rows(split=TRAIN, fold=fold).tolist())
    unsure = _unsure(store) if format != "coco" and not include_unsure else np.zeros(len(store), dtype=bool)
    items: list[Item] = []
    left_out: dict[str, str] = {}
    names = unique_names([record["source_id"] for record in store.records])
    for row, record in enumerate(store.records):
        split = VAL if row in validating else record["split"]
        if fold is not None and record["split"] == VAL:
            left_out[record["source_id"]] = OTHER_VAL
        elif unsure[row]:
            left_out[record["source_id"]] = UNSURE
        else:
            left, top, right, bottom = store.canvas(row).content
            original = (int(record["width"]), int(record["height"]))
            picture = original if full_size else (right - left, bottom - top)
            items.append(Item(row, names[row], split, original, picture))
    if not items:
        raise InputError(
            f"none of the {len(store)} radiographs of {store.path} can be written as {format}: each has {UNSURE}; "
            "--format coco can, and --include-unsure writes them as if they did not show these findings"
        )
    return Plan(items, left_out)


def _unsure(store: Store) -> np.ndarray:
    """(N,) bool, whether a radiograph has a finding that is unknown, or shown without a box."""
    located = np.zeros_like(store.labels)
    column = {category: number for number, category in enumerate(store.categories)}
    located[store.boxes.images, [column[label] for label in store.boxes.labels.tolist()]] = True
    unsure: np.ndarray = (store.unlocated | (store.labels & ~located)).any(axis=1)
    return unsure
