"""What a dataset is, in a few numbers and hashes that are the same on every machine.

The hashes are over what is annotated, not over files: neither the order of the radiographs, nor where they lie, nor the
size of their canvases changes them.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from xray.datasets.source import snap
from xray.datasets.store import Store


def fingerprint(store: Store, rows: np.ndarray | None = None) -> dict[str, Any]:
    """Numbers and hashes of a dataset, or of some of its radiographs.

    Returns n_images, n_boxes, n_masks, n_patients (None where no patient is known), n_without_patient, width and
    height ([least, median, most] in pixels), boxes {category: number}, and SHA-256 in hex: annotations_sha256 of the
    radiographs' ids, sizes, labels, boxes and masks, and of what is not known of them; split_sha256 of which radiograph
    is in which split and fold.
    """
    rows = np.arange(len(store)) if rows is None else np.asarray(rows)
    records = [store.records[row] for row in rows.tolist()]
    patients = [record["patient"] for record in records if record.get("patient") is not None]
    chosen = np.isin(store.boxes.images, rows)
    counts = {name: int((store.boxes.labels[chosen] == label).sum()) for label, name in store.categories.items()}
    sizes = np.array([(record.get("width", 0), record.get("height", 0)) for record in records]).reshape(-1, 2)
    return {
        "n_images": len(records),
        "n_boxes": int(chosen.sum()),
        "n_masks": sum(bool(chosen[row]) for row in store.masks),
        "n_patients": len(set(map(str, patients))) or None,
        "n_without_patient": len(records) - len(patients),
        "width": _spread(sizes[:, 0]),
        "height": _spread(sizes[:, 1]),
        "boxes": counts,
        "annotations_sha256": _digest(_annotations(store, rows)),
        "split_sha256": split_sha256(records),
    }


def split_sha256(records: Iterable[dict[str, Any]]) -> str:
    """SHA-256, in hex, of which radiograph is in which split and fold."""
    return _digest(sorted([record["source_id"], record["split"], record["fold"]] for record in records))


def radiographs_sha256(records: Iterable[dict[str, Any]]) -> str:
    """SHA-256, in hex, of the radiographs themselves: their ids and sizes, whatever is annotated."""
    return _digest(sorted([record["source_id"], record.get("width"), record.get("height")] for record in records))


def ids_sha256(ids: Iterable[str]) -> str:
    """SHA-256, in hex, of the ids of radiographs, in any order."""
    return _digest(sorted(ids))


def _annotations(store: Store, rows: np.ndarray) -> list[Any]:
    """All that is annotated, ordered by the radiographs' ids and within one by category and place."""
    boxes = snap(store.boxes.boxes).tolist()
    of_image: dict[int, list[Any]] = {}
    for number, (image, label) in enumerate(zip(store.boxes.images.tolist(), store.boxes.labels.tolist(), strict=True)):
        mask = store.masks.get(number)
        # As text: counts may be a string or a list.
        drawn = json.dumps(mask, sort_keys=True) if mask else ""
        of_image.setdefault(image, []).append([store.categories[label], boxes[number], drawn])
    names = np.array(list(store.categories.values()), dtype=object)
    entries = []
    for row in rows.tolist():
        record = store.records[row]
        shown = sorted(names[store.labels[row]].tolist())
        size = [record.get("width"), record.get("height")]
        # Only where there is any, so that the hashes of fully annotated radiographs are those of all versions.
        missing = [sorted(store.categories[label] for label in record.get(key, ())) for key in ("unknown", "unlocated")]
        missing = missing if any(missing) else []
        entries.append([record["source_id"], *size, shown, sorted(of_image.get(row, [])), *missing])
    return sorted(entries, key=lambda entry: entry[0])


def _digest(entries: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(json.dumps(entry, ensure_ascii=True, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()


def _spread(values: np.ndarray) -> list[float] | None:
    return [float(number) for number in (values.min(), np.median(values), values.max())] if len(values) else None
