"""What a dataset holds, in numbers: radiographs by split, fold and header, categories, boxes by size and place."""

import dataclasses
from collections import Counter
from typing import Any

import numpy as np

from xray.audit.named import PATIENT, Named, where
from xray.datasets.store import Store

HEADERS = ("view", "sex", "age", "manufacturer")
"""What entries of annotations.json may say of a radiograph beside its labels."""
NOT_KNOWN = "not known"
PLACES = 24
"""Side of the grid that boxes are counted on."""
SMALL = 8
"""Pixels of the canvas under which the shorter side of a box is hard to learn."""
MOST_SIZES = 8


@dataclasses.dataclass(frozen=True)
class Counts:
    """groups: place such as "train, fold 0" → its numbers. categories: name → its numbers. headers: header → value →
    radiographs. sizes: (width, height) → radiographs, the most frequent. n_sizes: how many different ones there are.
    places: category → (PLACES, PLACES) float64, the share of its boxes that cover each place of the radiograph."""

    groups: dict[str, dict[str, Any]]
    categories: dict[str, dict[str, Any]]
    headers: dict[str, dict[str, int]]
    sizes: dict[str, int]
    n_sizes: int
    places: dict[str, np.ndarray]

    @property
    def metrics(self) -> dict[str, Any]:
        """The part of audit.json about it."""
        return {
            "groups": self.groups,
            "categories": self.categories,
            "headers": self.headers,
            "sizes": self.sizes,
            "n_sizes": self.n_sizes,
        }


def count(store: Store) -> Counts:
    """Counts everything that annotations.json says; no pixel is read."""
    of = np.array([where(store, row) for row in range(len(store))], dtype=object)
    boxes = store.boxes
    is_abnormal, is_known = store.abnormal
    groups = {}
    for group in sorted(set(of.tolist())):
        rows = np.flatnonzero(of == group)
        patients = [store.records[row].get("patient") for row in rows.tolist()]
        groups[group] = {
            "images": len(rows),
            "patients": len({str(patient) for patient in patients if patient is not None}),
            "without_patient": sum(patient is None for patient in patients),
            "without_findings": int((is_known & ~is_abnormal)[rows].sum()),
            "boxes": int(np.isin(boxes.images, rows).sum()),
        }
    sizes = Counter((record.get("width"), record.get("height")) for record in store.records)
    headers = {
        name: dict(sorted(Counter(values).items(), key=_often))
        for name in HEADERS
        # A newborn's age is 0, which is known.
        for values in [[_value(record.get(name)) for record in store.records]]
        if any(value != NOT_KNOWN for value in values)
    }
    common = {
        NOT_KNOWN if width is None else f"{width} x {height}": n for (width, height), n in sizes.most_common(MOST_SIZES)
    }
    categories, places = _categories(store)
    return Counts(groups, categories, headers, common, len(sizes), places)


def _value(value: object) -> str:
    return NOT_KNOWN if value is None or value == "" else str(value)


def _often(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _categories(store: Store) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    splits = [split for split in ("train", "val", "test") if (store.splits == split).any()]
    boxes = store.boxes
    # Where no file was decoded, and no table says it, the size is not known.
    sizes = np.array([(r.get("width") or np.nan, r.get("height") or np.nan) for r in store.records]).reshape(-1, 2)
    of_boxes = sizes[boxes.images]
    shares = boxes.boxes / np.tile(of_boxes, 2)
    sides = (boxes.boxes[:, 2:] - boxes.boxes[:, :2]).min(axis=1, initial=np.inf)
    on_canvas = sides * store.canvas_size / of_boxes.max(axis=1, initial=0)
    numbers: dict[str, dict[str, Any]] = {}
    places: dict[str, np.ndarray] = {}
    for column, (label, name) in enumerate(store.categories.items()):
        shown = store.labels[:, column]
        rows = boxes.labels == label
        inside = rows & np.isfinite(shares).all(axis=1)
        numbers[name] = {
            "images": int(shown.sum()),
            **{f"images_{split}": int((shown & (store.splits == split)).sum()) for split in splits},
            "unknown": int(store.unknown[:, column].sum()),
            "without_box": int((shown & ~np.isin(np.arange(len(store)), boxes.images[rows])).sum()),
            "boxes": int(rows.sum()),
        }
        if inside.any():
            areas = (shares[inside, 2:] - shares[inside, :2]).prod(axis=1)
            middles = (shares[inside, :2] + shares[inside, 2:]) / 2
            numbers[name] |= {
                "area": [float(value) for value in np.quantile(areas, [0.05, 0.5, 0.95])],
                "middle": [float(value) for value in np.median(middles, axis=0)],
                "under_8_pixels": int((on_canvas[inside] < SMALL).sum()),
            }
            places[name] = _covered(shares[inside])
    return numbers, places


def _covered(shares: np.ndarray) -> np.ndarray:
    """(M, 4) boxes as shares of the sides → (PLACES, PLACES), of each place the share of the boxes that cover it."""
    middles = (np.arange(PLACES) + 0.5) / PLACES
    across, down = ((shares[:, [axis]] <= middles) & (middles < shares[:, [axis + 2]]) for axis in (0, 1))
    return np.asarray((down.T.astype(np.float64) @ across.astype(np.float64)) / len(shares))


def shared_patients(store: Store) -> list[Named]:
    """A reason for each patient in two splits or folds: one for each further place, by the first radiographs there."""
    rows_of: dict[str, dict[str, list[int]]] = {}
    for row, record in enumerate(store.records):
        if record.get("patient") is not None:
            rows_of.setdefault(str(record["patient"]), {}).setdefault(where(store, row), []).append(row)
    named = []
    for places in rows_of.values():
        if len(places) < 2:
            continue
        first, *others = places.items()
        for place, rows in others:
            n = len(first[1]) + len(rows)
            detail = f"{n} radiographs of one patient in {first[0]} and in {place}"
            named.append(Named(first[1][0], PATIENT, float(n), detail, other=rows[0]))
    return sorted(named, key=lambda one: (-one.score, one.row, one.other))
