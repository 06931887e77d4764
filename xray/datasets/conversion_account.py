"""conversion.json: what a dataset was made of, and what was left out or changed, by reason."""

import dataclasses
import importlib.metadata
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xray import __version__
from xray.datasets import source as reasons
from xray.datasets.box_sizes import about_small_boxes
from xray.datasets.source import Dropped, Source
from xray.file_names import CONVERSION
from xray.files import replacing
from xray.radiographs.file_warnings import FileWarning, print_warnings
from xray.radiographs.names import visible

OTHER_SIZE = "files of another size than their annotations say: boxes are taken to be in pixels of that size"
_KNOWN_FOLDER = re.compile(r"^(?i:.*(dicom|image|mask|train|test|stage).*)$|^(2\.25\.\d{20,}|\d+(\.\d+){3,})$")
"""Folders of SIIM-ACR Pneumothorax in all its editions, and UIDs."""


def print_account(conversion: dict[str, Any], save_path: Path) -> None:
    """Prints what conversion left out on stdout, and its warnings on stderr."""
    dropped = conversion["dropped"]["counts"]
    lost = (reasons.LOST_ANNOTATION, reasons.NO_BOX_LEFT, reasons.NORMAL_WITH_FINDINGS)
    n_lost = sum(dropped.get(reason, 0) for reason in lost)
    if n_missing := dropped.get(reasons.MISSING_FILE, 0):
        first = next(row for row in conversion["dropped"]["rows"] if row["reason"] == reasons.MISSING_FILE)
        where = f"{first['where']}: {detail}" if (detail := first.get("detail")) else first["where"]
        print(visible(f"missing, the first of {n_missing}: {where}" if n_missing > 1 else f"missing: {where}"))
    if dropped:
        print(f"each with its reason in {save_path / CONVERSION}")
    if n_lost:
        which = "1 radiograph left out: its" if n_lost == 1 else f"{n_lost} radiographs left out: their"
        print(f"{which} annotations could not be used", flush=True)
    for sentence in conversion["advice"]:
        print(sentence)
    print_warnings([FileWarning(**row) for row in conversion["warnings"]["rows"]], str(save_path / CONVERSION))


def hide_folders(
    source: Source, annotations: dict[str, Any], dropped: list[Dropped], warnings: list[FileWarning]
) -> None:
    """Puts "…" in place of folders that are in no known layout: they may be named after patients.

    UIDs stay, as SIIM's folders are named so. The names in a COCO file stay too, as such a file is made to be shared.
    """
    if source.kind not in ("siim", "folders", "unlabelled"):
        return
    names = [image.file_name for image in source.images]
    names += [drop.where for drop in dropped] + [one.where for one in warnings]
    n_known = {"siim": 0, "folders": 2 if source.layout == "splits" else 1, "unlabelled": 0}[source.kind]
    unknown = {part for name in names for part in name.split("/")[:-1][n_known:] if not _KNOWN_FOLDER.search(part)}

    def hide(text: str) -> str:
        *folders, name = text.split("/")
        return "/".join([*("…" if part in unknown else part for part in folders), name])

    for record in annotations["images"]:
        record["file_name"] = hide(record["file_name"])
    dropped[:] = [dataclasses.replace(drop, where=hide(drop.where), detail=hide(drop.detail)) for drop in dropped]
    warnings[:] = [dataclasses.replace(one, where=hide(one.where), detail=hide(one.detail)) for one in warnings]


def describe(
    source: Source, annotations: dict[str, Any], dropped: list[Dropped], parameters: dict[str, Any]
) -> dict[str, Any]:
    """The content of conversion.json but for its warnings. annotations: of annotations.json."""
    names = {category["id"]: category["name"] for category in source.categories}
    images, rows = annotations["images"], annotations["annotations"]
    per_category = Counter(row["category_id"] for row in rows)
    per_fold = Counter(image["fold"] for image in images if image["fold"] >= 0)
    with_boxes = {row["image_id"] for row in rows}
    with_label = Counter(label for image in images for label in image["labels"])
    unknown = Counter(label for image in images for label in image.get("unknown", ()))
    return {
        "source": source.kind,
        "layout": source.layout,
        "tables_sha256": source.fingerprint,
        "versions": {
            "xray": __version__,
            **{name: _version(name) for name in ("numpy", "pydicom", "opencv-python-headless")},
        },
        "parameters": parameters,
        **source.notes,
        "counts": {
            "images": len(images),
            "train_images": sum(image["split"] == reasons.TRAIN for image in images),
            "val_images": sum(image["split"] == reasons.VAL for image in images),
            "test_images": sum(image["split"] == reasons.TEST for image in images),
            "images_without_boxes": len(images) - len(with_boxes),
            "images_without_labels": sum(not image["labels"] for image in images),
            "images_per_label": {name: with_label[number] for number, name in names.items()},
            **({"unknown_per_label": {names[k]: unknown[k] for k in names if unknown[k]}} if unknown else {}),
            "annotations": len(rows),
            "train_annotations": sum(images[row["image_id"]]["split"] == reasons.TRAIN for row in rows),
            "masks": sum("segmentation" in row for row in rows),
            "annotations_per_category": {name: per_category[number] for number, name in names.items()},
            "images_per_fold": {str(fold): per_fold[fold] for fold in sorted(per_fold)},
        },
        "dropped": account([drop.reason for drop in dropped], dropped),
        "advice": _advice(images, rows, parameters["image_size"]) if parameters["pixels"] else [],
    }


def _advice(images: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], image_size: int) -> list[str]:
    """What to know of small boxes before anything is trained on them."""
    sides = [max(image["width"], image["height"]) for image in images]
    shorter = [min(row["bbox"][2:]) * image_size / sides[row["image_id"]] for row in rows]
    return about_small_boxes(np.array(shorter), max(sides), image_size)


def account(kinds: Sequence[str], entries: Sequence[Dropped | FileWarning]) -> dict[str, Any]:
    """How many entries there are of each kind, and all of them. kinds: of each entry."""
    return {
        "counts": dict(sorted(Counter(kinds).items())),
        "rows": [{key: value for key, value in dataclasses.asdict(entry).items() if value} for entry in entries],
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def write_json(path: Path, content: dict[str, Any], rows: bool = False) -> None:
    """Complete or not at all; with `rows`, a line for each entry of each list, so that people can read and diff it."""
    if rows:
        encode = json.JSONEncoder(ensure_ascii=False).encode
        lists = [
            f'"{key}": [\n' + ",\n".join(encode(entry) for entry in entries) + "\n]" for key, entries in content.items()
        ]
        text = "{\n" + ",\n".join(lists) + "\n}\n"
    else:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    # A file name need not be valid Unicode, and JSON can hold what is not.
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogatepass")
