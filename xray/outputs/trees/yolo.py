"""A dataset as YOLO: images/SPLIT, labels/SPLIT, data.yaml, as Ultralytics reads it.

A line is a box, or an outline; a file never has both: Ultralytics leaves such a picture out, and older ones took all
its lines for outlines. So a tree has masks for all, where boxes without one become four corners, or boxes alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xray.datasets.store import Store
from xray.files import complete
from xray.outputs.trees.plan import Item, Masks, Plan
from xray.structures.boxes import BoxTable
from xray.structures.masks import decode_mask
from xray.structures.outlines import whole_outline


def write_yolo(store: Store, plan: Plan, out: Path, masks: Masks) -> list[str]:
    """Writes labels and data.yaml; returns what is to be said of them."""
    import yaml

    number_of = {category: number for number, category in enumerate(store.categories)}
    rows_of = store.boxes.rows_by_image()
    n_corners = n_other = 0
    for split, items in plan.splits.items():
        (out / "labels" / split).mkdir(parents=True, exist_ok=True)
        for item in items:
            lines = []
            for row in rows_of.get(item.row, ()):
                number, box = number_of[int(store.boxes.labels[row])], store.boxes.boxes[row]
                if masks == "none":
                    lines.append(f"{number} {box_in_shares(box, item)}")
                    continue
                if row in store.masks:
                    corners = np.array(whole_outline(decode_mask(store.masks[row])), dtype=np.float64).reshape(-1, 2)
                    around = [*corners.min(axis=0), *corners.max(axis=0)]
                    n_other += around != box.tolist()
                else:
                    corners = box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
                    n_corners += 1
                lines.append(f"{number} {_points(corners, item)}")
            _write(out / "labels" / split / f"{item.name}.txt", lines)
    # Without a path: Ultralytics looks for a relative one in a folder of its own.
    content: dict[str, Any] = {split: f"images/{split}" for split in plan.splits}
    content["names"] = dict(enumerate(store.categories.values()))
    with complete(out / "data.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    said = []
    if n_corners:
        said.append(f"{n_corners} boxes without a mask are written as outlines of four corners")
    if n_other:
        said.append(f"{n_other} boxes are not those around their masks: what YOLO reads are those around the masks")
    if masks == "none" and store.masks:
        said.append(f"{len(store.masks)} masks are not written: --masks polygons makes outlines of all boxes")
    if "val" not in content:
        said.append("there is no val split, which Ultralytics needs to train: --fold K makes one of fold K")
    return said


def box_in_shares(box: np.ndarray, item: Item) -> str:
    """x1, y1, x2, y2 in original pixels → "cx cy w h" in shares of the sides, with all digits."""
    x1, y1, x2, y2 = box.tolist()
    width, height = item.original
    shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return " ".join(map(repr, shares))


def _points(corners: np.ndarray, item: Item) -> str:
    """Ten digits: in the widest radiograph, a coordinate comes back to less than half a millionth of a pixel."""
    shares = (corners / item.original).ravel().tolist()
    return " ".join(f"{share:.10f}".rstrip("0").rstrip(".") or "0" for share in shares)


def yolo_predictions(
    store: Store, items: Sequence[Item], rows: dict[int, list[int]], table: BoxTable, out: Path
) -> None:
    """A text file for each radiograph, as Ultralytics' save_txt and save_conf write it: class cx cy w h confidence."""
    number_of = {category: number for number, category in enumerate(store.categories)}
    out.mkdir(parents=True, exist_ok=True)
    for item in items:
        lines = [
            f"{number_of[int(table.labels[row])]} {box_in_shares(table.boxes[row], item)} {table.scores[row]:.6f}"
            for row in rows.get(item.row, ())
        ]
        _write(out / f"{item.name}.txt", lines)


def _write(path: Path, lines: list[str]) -> None:
    with complete(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines))
