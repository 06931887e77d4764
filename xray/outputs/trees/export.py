"""Writes a dataset directory, and predictions if there are any, as a tree for other tools."""

import csv
import hashlib
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from xray.datasets.conversion_account import write_json
from xray.datasets.sources.trees.parts import ORIGINALS
from xray.datasets.store import Store
from xray.errors import FlagError, InputError
from xray.file_names import ANNOTATIONS
from xray.files import check_output, complete, make_folder
from xray.outputs.trees.coco import coco_results, write_coco
from xray.outputs.trees.pictures import find_originals, write_pictures
from xray.outputs.trees.plan import Item, Masks, Plan, TreeFormat, plan
from xray.outputs.trees.voc import voc_predictions, write_voc
from xray.outputs.trees.yolo import write_yolo, yolo_predictions
from xray.structures.predictions import Predictions

RECORD, UNFINISHED = "export.json", "export.part"
"""What was written and left out; and, until all is there, with which flags."""
OWN = (
    "annotations", "train", "val", "test", "images", "labels", "Annotations", "JPEGImages", "ImageSets", "predictions",
    "data.yaml", "labelmap.txt", ORIGINALS,
)  # fmt: skip
"""What an export may write at its root."""
_NOT_IN_XML = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""Beside what XML 1.0 has no characters for, breaks of lines, which end a label of labelmap.txt."""
_WRITERS = {"coco": write_coco, "yolo": write_yolo, "voc": write_voc}


def export_tree(
    store: Store,
    out: Path,
    format: TreeFormat,
    *,
    fold: int | None = None,
    bits: int = 8,
    originals: Path | None = None,
    full_size: bool = False,
    masks: Masks | None = None,
    include_unsure: bool = False,
    predictions: Predictions | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes the tree; returns the content of its export.json.

    originals: folder of the files that the dataset was converted from, which pictures of 16 bits need where its
        canvases have 8. full_size: pictures as large as these; else as the dataset's canvases.
    masks: None for polygons, in YOLO only where every box has a mask. predictions: of the same dataset, as
        `xray.datasets.prediction_ids.resolve` gives them; "No finding" is no category of a tree, and is left out.
    fold, include_unsure: as for `plan`. An export that was interrupted goes on.

    Raises FlagError for flags that contradict each other, InputError where files are in the way or missing.
    """
    if bits == 16 > store.bits and originals is None:
        raise InputError(
            f"--bits 16 needs the original files, as {store.path} has 8 bits: give --originals, the --data-path that "
            "it was converted from"
        )
    if full_size and originals is None:
        raise FlagError("--full-size needs the original files: give --originals")
    chosen = _masks(store, format, masks)
    _check_names(store, format)
    made = plan(store, format, fold, include_unsure, full_size)
    files = find_originals(store, made.items, originals) if originals is not None else None
    flags: dict[str, Any] = {
        "format": format,
        "fold": fold,
        "bits": bits,
        "masks": chosen,
        "include_unsure": include_unsure,
    }
    dataset = hashlib.sha256((store.path / ANNOTATIONS).read_bytes()).hexdigest()
    flags |= {"dataset": dataset, "from_originals": files is not None, "full_size": full_size}
    _prepare(out, flags, overwrite)
    folders = {"coco": "{}", "yolo": "images/{}", "voc": "JPEGImages"}[format]

    def place(item: Item) -> Path:
        return out / folders.format(item.split) / f"{item.name}.png"

    for split in made.splits:
        (out / folders.format(split)).mkdir(parents=True, exist_ok=True)
    write_pictures(store, made.items, place, files, bits)
    said = _WRITERS[format](store, made, out, chosen)
    _write_sizes(store, made, out, place)
    if predictions is not None:
        said += _write_predictions(store, made, out, format, predictions)
    content = {
        "format": format,
        "flags": flags,
        "counts": {split: len(items) for split, items in made.splits.items()},
        "categories": list(store.categories.values()),
        "said": said,
        "left_out": [{"where": name, "reason": reason} for name, reason in made.left_out.items()],
    }
    write_json(out / RECORD, content)
    (out / UNFINISHED).unlink(missing_ok=True)
    return content


def summary_of(content: dict[str, Any]) -> list[str]:
    """What a command says of an export: lines."""
    counts = ", ".join(f"{n} {split}" for split, n in content["counts"].items())
    lines = [f"{sum(content['counts'].values())} radiographs ({counts})", *content["said"]]
    for reason, n in Counter(row["reason"] for row in content["left_out"]).items():
        first = next(row["where"] for row in content["left_out"] if row["reason"] == reason)
        lines.append(f"{n} left out, such as {first}: {reason}")
    return lines


def _check_names(store: Store, format: TreeFormat) -> None:
    """Raises InputError for a category whose name the format's files cannot hold, or would cut in two."""
    for name in store.categories.values():
        if format == "voc" and _NOT_IN_XML.search(name):
            raise InputError(
                f"the category {name!r:.80} of {store.path} has characters that VOC's XML cannot hold: rename it, or "
                "give --format coco"
            )


def _masks(store: Store, format: TreeFormat, masks: Masks | None) -> Masks:
    if format == "voc" and masks not in (None, "none"):
        raise FlagError("--masks: VOC's boxes have no place for masks, leave the flag out")
    if format == "yolo" and masks == "rle":
        raise FlagError("--masks rle is for --format coco: YOLO has polygons")
    if masks is not None:
        return masks
    if format == "yolo":
        return "polygons" if store.masks and len(store.masks) == len(store.boxes) else "none"
    return "polygons" if format == "coco" else "none"


def _prepare(out: Path, flags: dict[str, Any], overwrite: bool) -> None:
    """Makes the folder, with the mark of what is unfinished. Raises InputError where other things are in it."""
    check_output(out)
    mark = out / UNFINISHED
    entries = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    if strange := entries - {*OWN, RECORD, UNFINISHED, f"{RECORD}.part"}:
        raise InputError(f"{out} holds other things than an export ({min(strange)}): give another --save-path")
    if entries and not {RECORD, UNFINISHED} & entries:
        raise InputError(f"{out} holds files that no export left ({min(entries)}): give another --save-path")
    is_same = mark.is_file() and mark.read_text() == json.dumps(flags)
    if entries and not is_same and not overwrite:
        what = "an export" if RECORD in entries else "an export begun with other flags"
        raise InputError(f"{out} holds {what}: give --overwrite to replace it, or another --save-path")
    if entries and not is_same:
        for name in sorted(entries - {UNFINISHED}):
            path = out / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    make_folder(out)
    with complete(mark) as temporary:
        temporary.write_text(json.dumps(flags))


def _write_sizes(store: Store, made: Plan, out: Path, place: Any) -> None:
    """sizes.csv: the size of each original, so that xray answers in its pixels, and the patient where it is known."""
    has_patients = any("patient" in store.records[item.row] for item in made.items)
    # Inference looks in the folder of the pictures and in the one above.
    for folder in dict.fromkeys((out, place(made.items[0]).parent.parent)):
        with complete(folder / ORIGINALS) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["file_name", "width", "height", *(["patient"] if has_patients else [])])
            for item in made.items:
                patient = [store.records[item.row].get("patient")] if has_patients else []
                writer.writerow([place(item).relative_to(folder).as_posix(), *item.original, *patient])


def _write_predictions(store: Store, made: Plan, out: Path, format: TreeFormat, predictions: Predictions) -> list[str]:
    table = predictions.table
    dataset_rows = store.resolve(predictions.image_ids)
    row_of = dataset_rows[table.images] if len(table) else np.zeros(0, dtype=np.int64)
    is_finding = np.isin(table.labels, list(store.categories))
    written = {item.row for item in made.items}
    rows: dict[int, list[int]] = {}
    for row in np.flatnonzero(is_finding).tolist():
        if int(row_of[row]) in written:
            rows.setdefault(int(row_of[row]), []).append(row)
    for split, items in made.splits.items():
        folder = out / "predictions"
        folder.mkdir(exist_ok=True)
        if format == "coco":
            results = coco_results(items, rows, table, predictions.masks)
            with complete(folder / f"{split}.json") as temporary:
                temporary.write_text(json.dumps(results))
        elif format == "yolo":
            yolo_predictions(store, items, rows, table, folder / split)
        else:
            voc_predictions(store, split, items, rows, table, folder / split)
    n_written = sum(map(len, rows.values()))
    said = [f"{n_written} predictions in {out / 'predictions'}"]
    if n_other := int(is_finding.sum()) - n_written:
        said.append(f"{n_other} predictions are of radiographs that are not written")
    if n_normal := int((~is_finding).sum()):
        said.append(f"{n_normal} predictions of no category of the dataset, such as No finding, are not written")
    if predictions.masks and format != "coco":
        said.append(f"{len(predictions.masks)} predicted masks are not written: --format coco has them")
    return said
