"""A dataset as COCO: train/, val/ and test/ with pictures, annotations/instances_SPLIT.json.

Sizes, boxes and masks are in pixels of the pictures. What COCO has no words for stands in further keys, which
`xray.datasets.sources.coco_extras` reads and other tools ignore.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xray import __version__
from xray.datasets.conversion_account import write_json
from xray.datasets.sources.coco_extras import made_smaller
from xray.datasets.store import Store
from xray.outputs.trees.plan import Item, Masks, Plan
from xray.radiographs.attributes import ATTRIBUTES
from xray.structures.boxes import BoxTable, xyxy_to_xywh
from xray.structures.masks import decode_mask, encode_pixels
from xray.structures.outlines import part_outlines

KEPT = ("source_id", "patient", "readers", "labels", "unknown", "unlocated", *ATTRIBUTES)
"""Keys of a record that an image's entry gets as they are."""


def image_id(item: Item) -> int:
    """The id of a picture in all files of the tree: its row in the dataset, from 1."""
    return item.row + 1


def write_coco(store: Store, plan: Plan, out: Path, masks: Masks) -> list[str]:
    """Writes the JSON files; returns what is to be said of them. masks: as polygons, one for each part, or rle."""
    (out / "annotations").mkdir(exist_ok=True)
    rows_of = _rows_by_image(store)
    categories = [{"id": number, "name": name, "supercategory": ""} for number, name in store.categories.items()]
    for split, items in plan.splits.items():
        content = {
            "info": {"description": f"{store.path.name}, {split}", "version": __version__},
            "licenses": [],
            "images": [_image(store, item) for item in items],
            "annotations": [_annotation(store, item, row, masks) for item in items for row in rows_of[item.row]],
            "categories": categories,
        }
        write_json(out / "annotations" / f"instances_{split}.json", content)
    return []


def _rows_by_image(store: Store) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(len(store))]
    for row, image in enumerate(store.boxes.images.tolist()):
        rows[image].append(row)
    return rows


def _image(store: Store, item: Item) -> dict[str, Any]:
    record = store.records[item.row]
    width, height = item.picture
    entry: dict[str, Any] = {
        "id": image_id(item), "file_name": f"{item.name}.png", "width": width, "height": height,
    }  # fmt: skip
    if item.picture != item.original:
        entry |= dict(zip(("original_width", "original_height"), item.original, strict=True))
    return entry | {key: record[key] for key in KEPT if key in record}


def _annotation(store: Store, item: Item, row: int, masks: Masks) -> dict[str, Any]:
    box = xyxy_to_xywh(store.boxes.boxes[row] * item.scale)[0].tolist()
    entry: dict[str, Any] = {
        "id": row + 1, "image_id": image_id(item), "category_id": int(store.boxes.labels[row]), "bbox": box,
        "area": box[2] * box[3], "iscrowd": 0, "segmentation": [],
    }  # fmt: skip
    if store.readers[row]:
        entry["readers"] = store.readers[row]
    if row in store.masks and masks != "none":
        small = smaller(store.masks[row], item)
        entry |= {"area": int(small.sum()), "segmentation": segmentation(small, masks)}
        if item.picture != item.original:
            entry["original_segmentation"] = store.masks[row]
    return entry


def smaller(mask: dict[str, Any], item: Item) -> np.ndarray:
    """A mask of the dataset → (h, w) uint8 of 0 and 1, in the pixels of the picture."""
    return made_smaller(decode_mask(mask), *item.picture)


def segmentation(mask: np.ndarray, masks: Masks) -> Any:
    """COCO polygons that are drawn as the very same pixels, or RLE."""
    return encode_pixels(mask) if masks == "rle" else part_outlines(mask)


def coco_results(
    items: Sequence[Item], rows: dict[int, list[int]], table: BoxTable, found: dict[int, Any]
) -> list[dict[str, Any]]:
    """Predictions as COCO results of a split: the ids of its file, pixels of its pictures.

    rows: row of the dataset → rows of `table`, predictions in original pixels; found: their masks.
    """
    results: list[dict[str, Any]] = []
    for item in items:
        for row in rows.get(item.row, ()):
            box = xyxy_to_xywh(table.boxes[row] * item.scale)[0].tolist()
            result: dict[str, Any] = {
                "image_id": image_id(item), "category_id": int(table.labels[row]), "bbox": box,
                "score": float(table.scores[row]),
            }  # fmt: skip
            if row in found:
                result["segmentation"] = encode_pixels(smaller(found[row], item))
            results.append(result)
    return results
