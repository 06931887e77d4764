"""From a cleaned source to a dataset directory: decode, annotate, write.

Pixels go through a resumable journal; annotations.json and conversion.json are written last, each complete or not at
all. Memory does not grow with the number of radiographs beyond their table.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from xray import __version__
from xray.datasets import source as reasons
from xray.datasets.annotation import annotate, left_out, missing, patients_of, summary
from xray.datasets.box_sizes import about_small_boxes
from xray.datasets.folds import check_folds
from xray.datasets.journal import Journal
from xray.datasets.source import FINE_GRID, Dropped, Source, SourceImage, clip_boxes, digest_of, has_area, snap
from xray.datasets.store import ANNOTATIONS, CONVERSION, IMAGES, JOURNAL
from xray.errors import InputError
from xray.files import replacing
from xray.radiographs.canvas import Canvas, is_resized, reshaped
from xray.radiographs.file_warnings import FileWarning, print_warnings

if TYPE_CHECKING:
    from xray.radiographs.decoding import Decode, Decoded

OTHER_SIZE = "files of another size than their annotations say: boxes are taken to be in pixels of that size"

_KNOWN_FOLDER = re.compile(r"^(?i:.*(dicom|image|mask|train|test|stage).*)$|^(2\.25\.\d{20,}|\d+(\.\d+){3,})$")
"""Folders of SIIM-ACR Pneumothorax in all its editions, and UIDs."""


def write_store(
    source: Source,
    save_path: Path | str,
    *,
    image_size: int = 1024,
    bits: int = 8,
    n_folds: int = 5,
    readers: str = "fuse",
    seed: int = 0,
    n_workers: int = 1,
    overwrite: bool = False,
    pixels: bool = True,
    decode: "Decode | None" = None,
) -> dict[str, Any]:
    """Writes a dataset directory, or continues an unfinished one; returns the content of conversion.json.

    image_size: side of the canvas, in pixels. bits: of its pixels, 8 or 16.
    readers: "fuse" makes one box of those that an image's readers drew around the same finding; "all" keeps each.
    n_workers: processes that decode.
    overwrite: replace a finished dataset (it stays until the new one is complete) or a differing unfinished one.
    pixels: without them only the two JSON files are written, and no file of the source is opened.
    decode: decodes in place of `xray.radiographs.decoding.decode_canvases`, such as on other machines.

    Raises InputError where `save_path` holds a finished dataset, an unfinished one made otherwise, or files that are
    not a dataset's; where there is too little space on the disk; and where no radiograph can be read.
    """
    save_path = Path(save_path)
    if not source.images:
        listed = summary([drop.reason for drop in source.dropped]) or "it lists none"
        raise InputError(f"no radiograph of the source can be used ({listed}): check --data-path")
    train = [image for image in source.images if image.split == reasons.TRAIN]
    if train:
        # Checked again after decoding, when there may be fewer; but the user should not wait hours for this error.
        check_folds(len(set(patients_of(train))), n_folds, len(train), missing(source.dropped))
    _check_target(save_path, overwrite)
    try:
        save_path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{save_path} cannot be made ({error.strerror}): choose another --save-path") from None
    if not pixels:
        outcomes = _table_outcomes(source)
        annotations, dropped = annotate(source, outcomes, n_folds, readers, seed)
        part = None
    else:
        listing = json.dumps([(image.file_name, image.width, image.height) for image in source.images])
        fingerprint = {
            "source": source.kind,
            "image_size": image_size,
            "tables": source.fingerprint,
            "files": hashlib.sha256(listing.encode()).hexdigest(),
            "xray": __version__,
            # Conversions of 8 bits that began before there were others go on.
            **({"bits": bits} if bits > 8 else {}),
        }
        with Journal(save_path, image_size, fingerprint, discard=overwrite, bits=bits) as journal:
            _check_space(save_path, len(source.images) - len(journal.outcomes), image_size, bits)
            _decode(source, journal, image_size, bits, n_workers, decode)
            outcomes = journal.outcomes
            try:
                if journal.n_rows:
                    annotations, dropped = annotate(source, outcomes, n_folds, readers, seed)
                    part = journal.complete()
            except InputError:
                # Files that the user repairs meanwhile must be read again.
                if journal.n_rows < len(outcomes):
                    _remove(save_path / JOURNAL, save_path / f"{IMAGES}.part")
                raise
        if not any("width" in outcome for outcome in outcomes):
            _remove(save_path / JOURNAL, save_path / f"{IMAGES}.part")
            first = left_out(source, outcomes)[0]
            raise InputError(
                f"none of the {len(outcomes)} radiographs can be used; the first, {first.where}: "
                f"{first.reason} {first.detail}"
            )
    parameters = {
        "image_size": image_size,
        "bits": bits,
        "n_folds": n_folds,
        "readers": readers,
        "seed": seed,
        "pixels": pixels,
    }
    warnings = source.warnings + [
        FileWarning(kind, image.file_name)
        for image, outcome in zip(source.images, outcomes, strict=True)
        for kind in outcome.get("warnings", ())
    ]
    _hide_folders(source, annotations, dropped, warnings)
    conversion = _describe(source, annotations, dropped, parameters)
    conversion["warnings"] = _account([warning.kind for warning in warnings], warnings)
    # Until conversion.json is there again the directory counts as unfinished: a crash in between is found and repaired.
    _remove(save_path / CONVERSION)
    if part is not None:
        os.replace(part, save_path / IMAGES)
    else:
        _remove(save_path / IMAGES, save_path / f"{IMAGES}.part")
    write_json(save_path / ANNOTATIONS, annotations, rows=True)
    write_json(save_path / CONVERSION, conversion)
    _remove(save_path / JOURNAL)
    return conversion


def print_account(conversion: dict[str, Any], save_path: Path) -> None:
    """Prints what conversion left out on stdout, and its warnings on stderr."""
    dropped = conversion["dropped"]["counts"]
    lost = (reasons.LOST_ANNOTATION, reasons.NO_BOX_LEFT, reasons.NORMAL_WITH_FINDINGS)
    n_lost = sum(dropped.get(reason, 0) for reason in lost)
    if dropped:
        print(f"each with its reason in {save_path / CONVERSION}")
    if n_lost:
        which = "1 radiograph left out: its" if n_lost == 1 else f"{n_lost} radiographs left out: their"
        print(f"{which} annotations could not be used", flush=True)
    for sentence in conversion["advice"]:
        print(sentence)
    print_warnings([FileWarning(**row) for row in conversion["warnings"]["rows"]], str(save_path / CONVERSION))


def _check_target(save_path: Path, overwrite: bool) -> None:
    if save_path.exists() and not save_path.is_dir():
        raise InputError(f"{save_path} is a file: give --save-path a directory")
    if (save_path / CONVERSION).is_file():
        if not overwrite:
            if not (save_path / f"{IMAGES}.part").exists():
                # This was all that the last run had left to do.
                _remove(save_path / JOURNAL)
            raise InputError(
                f"{save_path} holds a finished dataset: add --overwrite to replace it, or choose another --save-path"
            )
    elif not (save_path / JOURNAL).is_file():
        for name in (ANNOTATIONS, IMAGES):
            if (save_path / name).exists():
                raise InputError(f"{save_path} holds an {name} that is not a dataset's: choose another --save-path")


def _check_space(save_path: Path, n_images: int, image_size: int, bits: int = 8) -> None:
    needed, free = n_images * image_size**2 * bits // 8, shutil.disk_usage(save_path).free
    if needed > free:
        raise InputError(
            f"{n_images} canvases of {image_size} pixels need {needed / 1e9:.1f} GB, "
            f"{save_path} has {free / 1e9:.1f} GB: "
            f"choose another --save-path or a smaller --image-size{' or --bits 8' if bits > 8 else ''}"
        )


def _decode(
    source: Source, journal: Journal, image_size: int, bits: int, n_workers: int, decode: "Decode | None" = None
) -> None:
    """Brings the journal up to the last image of the source."""
    # Tables alone need none of the DICOM libraries, whose import takes as long as reading them.
    from xray.radiographs import decoding

    done, total = len(journal.outcomes), len(source.images)
    if done == total:
        return
    order = np.argsort(source.boxes.images, kind="stable")
    starts = np.searchsorted(source.boxes.images[order], np.arange(total + 1))
    boxes = source.boxes.boxes[order]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("decoding", total=total, completed=done, speed="")
            paths = [image.path for image in source.images[done:]]
            options: dict[str, Any] = {"bits": bits} if bits > 8 else {}
            items = (decode or decoding.decode_canvases)(paths, image_size, n_workers, **options)
            for item in items:
                image = source.images[len(journal.outcomes)]
                of_image = boxes[starts[len(journal.outcomes)] : starts[len(journal.outcomes) + 1]]
                if isinstance(item, decoding.Decoded):
                    _record(journal, image, item, of_image, image_size, source)
                else:
                    # conversion.json must not say in which folder of whose machine the file was.
                    detail = item.reason.replace(str(image.path), image.file_name)
                    journal.leave_out(reasons.UNREADABLE, detail.replace(str(image.path.parent), "…"))
                progress.advance(bar)
                speed = progress.tasks[0].speed
                progress.update(bar, speed=f"{speed:.1f} images/s" if speed else "")
    except KeyboardInterrupt:
        n_done = len(journal.outcomes)
        print(f"{n_done} of {total} radiographs are done: run the same command again to go on", file=sys.stderr)
        raise


def _record(
    journal: Journal, image: SourceImage, item: "Decoded", boxes: np.ndarray, size: int, source: Source
) -> None:
    width, height = image.width or item.width, image.height or item.height
    if not is_resized((item.width, item.height), (width, height), source.squashed):
        detail = f"the file is {item.width} x {item.height}, the table says {width} x {height}"
        journal.leave_out(reasons.SIZE_MISMATCH, detail)
        return
    n_lost = len(boxes) - int(has_area(snap(clip_boxes(boxes, width, height), FINE_GRID)).sum())
    if n_lost:
        # Without them the radiograph would be learned as one that does not show them.
        journal.leave_out(*_lost(n_lost, len(boxes), width, height))
        return
    canvas = reshaped(item.canvas, Canvas(item.width, item.height, size), Canvas(width, height, size))
    if source.refused and (reason := source.refused.get(digest_of(canvas))):
        journal.leave_out(reason, "by its pixels")
        return
    warnings = item.warnings
    annotated = image.extra.get("file_width", width), image.extra.get("file_height", height)
    if source.sizes_of_files and annotated != (item.width, item.height):
        warnings = (*warnings, OTHER_SIZE)
    journal.add(canvas, item.width, item.height, item.attributes, warnings)


def _lost(n_lost: int, n_boxes: int, width: int | None, height: int | None) -> tuple[str, str]:
    """Reason and detail for a radiograph some of whose boxes lie wholly beyond its edges."""
    reason = reasons.NO_BOX_LEFT if n_lost == n_boxes else reasons.LOST_ANNOTATION
    return reason, f"{n_lost} of {n_boxes} boxes beyond {width} x {height}"


def _table_outcomes(source: Source) -> list[dict[str, Any]]:
    """The outcome of each image where no file is decoded: what the tables alone say of its size and its boxes."""
    sizes = np.array([(image.width or np.inf, image.height or np.inf) for image in source.images])
    widths, heights = sizes[source.boxes.images].T
    remains = has_area(snap(clip_boxes(source.boxes.boxes, widths, heights), FINE_GRID))
    n_boxes, n_left = (
        np.bincount(source.boxes.images[chosen], minlength=len(source.images)).tolist()
        for chosen in (np.ones(len(remains), dtype=bool), remains)
    )
    return [
        dict(zip(("reason", "detail"), _lost(before - left, before, image.width, image.height), strict=True))
        if left < before
        else {"width": image.width, "height": image.height}
        for image, before, left in zip(source.images, n_boxes, n_left, strict=True)
    ]


def _hide_folders(
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


def _describe(
    source: Source, annotations: dict[str, Any], dropped: list[Dropped], parameters: dict[str, Any]
) -> dict[str, Any]:
    names = {category["id"]: category["name"] for category in source.categories}
    images, rows = annotations["images"], annotations["annotations"]
    per_category = Counter(row["category_id"] for row in rows)
    per_fold = Counter(image["fold"] for image in images if image["fold"] >= 0)
    with_boxes = {row["image_id"] for row in rows}
    with_label = Counter(label for image in images for label in image["labels"])
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
            "annotations": len(rows),
            "train_annotations": sum(images[row["image_id"]]["split"] == reasons.TRAIN for row in rows),
            "masks": sum("segmentation" in row for row in rows),
            "annotations_per_category": {name: per_category[number] for number, name in names.items()},
            "images_per_fold": {str(fold): per_fold[fold] for fold in sorted(per_fold)},
        },
        "dropped": _account([drop.reason for drop in dropped], dropped),
        "advice": _advice(images, rows, parameters["image_size"]) if parameters["pixels"] else [],
    }


def _advice(images: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], image_size: int) -> list[str]:
    """What to know of small boxes before anything is trained on them."""
    sides = [max(image["width"], image["height"]) for image in images]
    shorter = [min(row["bbox"][2:]) * image_size / sides[row["image_id"]] for row in rows]
    return about_small_boxes(np.array(shorter), max(sides), image_size)


def _account(kinds: Sequence[str], entries: Sequence[Dropped | FileWarning]) -> dict[str, Any]:
    """How many entries there are of each kind, and all of them."""
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


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
