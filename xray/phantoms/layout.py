"""Phantoms in the layout of any public set: `write_layout` draws radiographs and writes them as a `Layout` says.

What is drawn is the same for all of them; a layout gives its files their names and form, and writes the set's tables
from what is true of each radiograph (`Record`).
"""

import dataclasses
import functools
import importlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xray.files import complete
from xray.findings import FINDINGS, NO_FINDING_NAME
from xray.phantoms.dicom import Storage, sample_storage, write_phantom
from xray.phantoms.drawing import Phantom, draw_phantom
from xray.phantoms.layouts import LAYOUTS
from xray.phantoms.patient import sample_patient
from xray.phantoms.tree import Job, Order, PhantomSet, draw_tree, image_id, write_text
from xray.phantoms.vinbig import plan_findings

Record = dict[str, Any]
"""What is true of a drawn radiograph, as it stands in phantoms.jsonl.

`image_id` (32 hexadecimal characters), `file_name` (relative to the tree), `split` (train, val, test), `patient` (a
number from 1), `visit` (number of the patient's radiograph, from 0), `width`, `height`, `sex` (F, M), `age` (years),
`view` (PA, AP), `findings`: a list of `name` (one of FINDINGS), `box` (x1, y1, x2, y2 in pixels) and `outlines` (the
polygons, [[x, y], …] each, of what is seen of it); and whatever the layout's `save` adds.
"""

VAL_SHARE = 5
"""One of so many training radiographs is for validation where a set has such a split."""
VISITS = 3
"""Of so many radiographs in a row the last one is the second of the patient before."""


@dataclasses.dataclass(frozen=True)
class Entry(Job):
    """One radiograph of a tree, before it is drawn; findings: class ids.

    index: its number in the whole tree, from 0. patient, visit: as in `Record`.
    """

    kind: str = ""
    index: int = 0
    patient: int = 1
    visit: int = 0


@dataclasses.dataclass(frozen=True)
class Drawn:
    """One radiograph, drawn; `pixels` (height, width) float32 in 0–1 as displayed: air black, bone bright."""

    entry: Entry
    phantom: Phantom
    pixels: np.ndarray
    record: Record

    def rng(self, stream: int = 0) -> np.random.Generator:
        """Chance for what a layout adds; the same for the same radiograph."""
        return np.random.default_rng([*self.entry.seeds, 100 + stream])


def save_picture(path: Path, drawn: Drawn, bits: int = 8) -> Record:
    """Writes a PNG (of 8 or 16 bits) or JPEG file, as its suffix says."""
    write_picture(path, np.round(drawn.pixels * np.float32(2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16))
    return {}


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a set stores radiographs.

    place: the radiograph's file relative to the tree.
    save: writes a radiograph to a path, and returns what else is true of it, for its record. `save_picture` and
        `save_dicom` do for most. Folders are made before it is called.
    tables: writes the set's tables into a folder from the records, in the order of their index. seed: of the order.
    made: names of the files and folders in the tree, which --overwrite may delete.
    splits: those the set has. With train and val, one of VAL_SHARE of the training radiographs is for validation;
        without train, all of them; without test, those for testing are among the others.
    sides: shortest and longest height in pixels, about, where no size is asked for. square: width = height.
    source: the subcommand of convert that reads it, where that is not the layout's own name.
    """

    place: Callable[[Entry], str]
    tables: Callable[[Path, Sequence[Record], int], None]
    made: tuple[str, ...]
    save: Callable[[Path, Drawn], Record] = save_picture
    splits: tuple[str, ...] = ("train", "test")
    sides: tuple[int, int] = (1024, 1024)
    square: bool = False
    source: str = ""


def layout_of(kind: str) -> Layout:
    """The layout of a key of LAYOUTS, an object of that name in upper case in the module that it gives."""
    layout = getattr(importlib.import_module(f"xray.phantoms.layouts.{LAYOUTS[kind]}"), kind.upper())
    assert isinstance(layout, Layout)
    return layout


def write_layout(kind: str, save_path: str | Path, n_train: int, n_test: int, **options: Any) -> PhantomSet:
    """Writes `<save_path>/<kind>` in the layout of a key of LAYOUTS, and phantoms.jsonl and phantoms.json beside it.

    options: those of `xray.phantoms.tree.Order`. Raises InputError where a number makes no sense, or the folder holds
    something else.
    """
    order, layout, folder = Order(n_train, n_test, **options), layout_of(kind), Path(save_path) / kind
    entries = plan(kind, layout, folder, order)
    more = {} if order.pneumothorax_fraction is None else {"pneumothorax": order.pneumothorax_fraction}
    records, n_drawn = draw_tree(folder, order, entries, functools.partial(_draw, kind), layout.made, **more)
    layout.tables(folder, records, order.seed)
    images_with = dict.fromkeys(FINDINGS, 0) | {NO_FINDING_NAME: 0}
    for record in records:
        for name in {finding["name"] for finding in record["findings"]} or {NO_FINDING_NAME}:
            images_with[name] += 1
    counts = Counter(record["split"] for record in records)
    return PhantomSet(folder, len(records) - counts["test"], counts["test"], n_drawn, images_with)


def plan(kind: str, layout: Layout, folder: Path, order: Order) -> list[Entry]:
    """All radiographs of a tree, split by split: which findings each shows, of whom it is, and where it goes."""
    entries: list[Entry] = []
    patient = 0
    for number, (split, n) in enumerate(_numbers(layout, order).items()):
        rng = np.random.default_rng([order.seed, 30 + number])
        shown = plan_findings(n, order.normal_fraction, rng, order.pneumothorax_fraction)
        for position, findings in enumerate(shown):
            is_second = position % VISITS == VISITS - 1
            patient += not is_second
            name = image_id(order.seed, f"{kind} {split}", position)
            seeds = (order.seed, 33 + number, position)
            entry = Entry(name, split, folder, findings, seeds, order.size, kind, len(entries), patient, int(is_second))
            entries.append(dataclasses.replace(entry, path=folder / layout.place(entry)))
    return entries


def _numbers(layout: Layout, order: Order) -> dict[str, int]:
    """Split → radiographs."""
    n = {"train": order.n_train, "val": 0, "test": order.n_test}
    if "train" not in layout.splits:
        n |= {"train": 0, "val": order.n_train}
    elif "val" in layout.splits and order.n_train > 1:
        n["val"] = max(1, order.n_train // VAL_SHARE)
        n["train"] -= n["val"]
    if "test" not in layout.splits:
        n["train" if "train" in layout.splits else "val"] += n.pop("test")
    return n


def draw(entry: Entry, layout: Layout, folder: Path) -> Drawn:
    """Draws a radiograph; nothing is written. The same patient has the same chest in each of their radiographs."""
    rng = np.random.default_rng([*entry.seeds, 1])
    longest = rng.uniform(*layout.sides) if entry.size is None else entry.size
    # Detectors have even sides.
    height = 2 * round(longest / 2)
    width = height if layout.square else 2 * round(height * rng.uniform(0.8, 1.0) / 2)
    patient = sample_patient(np.random.default_rng([entry.seeds[0], 36, entry.patient]))
    phantom = draw_phantom(entry.seeds, width, height, entry.findings, patient)
    findings = [
        {
            "name": FINDINGS[class_id],
            "box": box,
            "outlines": outlines(phantom.enlarged(mark.mask), box),
        }
        for class_id, box, mark in zip(
            phantom.class_ids.tolist(), phantom.boxes.round(2).tolist(), phantom.marks, strict=True
        )
    ]
    record: Record = {
        "image_id": entry.image_id,
        "file_name": entry.path.relative_to(folder).as_posix(),
        "split": entry.split,
        "patient": entry.patient,
        "visit": entry.visit,
        "width": width,
        "height": height,
        "sex": "F" if phantom.patient.female else "M",
        "age": phantom.patient.age,
        "view": "AP" if phantom.patient.supine else "PA",
        "findings": findings,
    }
    return Drawn(entry, phantom, phantom.pixels, record)


def _draw(kind: str, job: Job) -> Record:
    """Draws and writes one radiograph; its record, as it goes to phantoms.jsonl."""
    assert isinstance(job, Entry)
    layout = layout_of(kind)
    folder = job.path
    for _ in Path(layout.place(job)).parts:
        folder = folder.parent
    drawn = draw(job, layout, folder)
    job.path.parent.mkdir(parents=True, exist_ok=True)
    return drawn.record | layout.save(job.path, drawn)


def outlines(mask: np.ndarray, box: Sequence[float]) -> list[list[list[int]]]:
    """The polygons around a bool (height, width) mask, in whole pixels; the box's where nothing is large enough."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = [cv2.approxPolyDP(contour, 0.8, closed=True)[:, 0].tolist() for contour in found]
    x1, y1, x2, y2 = int(box[0]), int(box[1]), int(np.ceil(box[2])), int(np.ceil(box[3]))
    return [polygon for polygon in polygons if len(polygon) >= 3] or [[[x1, y1], [x2, y1], [x2, y2], [x1, y2]]]


def save_dicom(path: Path, drawn: Drawn, storage: Storage | None = None) -> Record:
    """Writes a DICOM file; storage: how its pixels are kept, None for one of those met in practice."""
    rng = drawn.rng()
    phantom = dataclasses.replace(drawn.phantom, pixels=drawn.pixels)
    write_phantom(path, phantom, storage or sample_storage(rng), drawn.entry.image_id, rng)
    return {}


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Writes (height, width) uint8 or uint16, or (height, width, 3) uint8 BGR, complete or not at all."""
    encoded, stream = cv2.imencode(path.suffix, pixels)
    if not encoded:
        raise RuntimeError(f"{pixels.shape} pixels could not be written as {path.suffix}")
    with complete(path) as temporary:
        temporary.write_bytes(stream.tobytes())


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, complete or not at all."""
    write_text(path, json.dumps(content) + "\n")
