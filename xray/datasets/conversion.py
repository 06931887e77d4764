"""From a cleaned source to a dataset directory: decode, annotate, write.

Pixels go through a resumable journal; annotations.json and conversion.json are written last, each complete or not at
all. Memory does not grow with the number of radiographs beyond their table.
"""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from xray import __version__
from xray.datasets import source as reasons
from xray.datasets.annotation import annotate, left_out, missing, patients_of, reasons_in_words
from xray.datasets.conversion_account import OTHER_SIZE, account, describe, hide_folders, write_json
from xray.datasets.folds import check_folds
from xray.datasets.journal import Journal
from xray.datasets.source import FINE_GRID, Dropped, Source, SourceImage, clip_boxes, digest_of, has_area, snap
from xray.datasets.store import JOURNAL
from xray.errors import InputError
from xray.file_names import ANNOTATIONS, CONVERSION, IMAGES
from xray.files import check_writable, make_folder, size_in_words
from xray.radiographs.canvas import Canvas, is_resized, reshaped
from xray.radiographs.file_warnings import FileWarning

if TYPE_CHECKING:
    from xray.radiographs.decoding import Decode, Decoded


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
        listed = reasons_in_words(source.dropped) or "it lists none"
        raise InputError(f"no radiograph of the source can be used ({listed}): check --data-path")
    train = [image for image in source.images if image.split == reasons.TRAIN]
    if train:
        # Checked again after decoding, when there may be fewer; but the user should not wait hours for this error.
        check_folds(len(set(patients_of(train))), n_folds, len(train), missing(source.dropped))
    _check_target(save_path, overwrite)
    make_folder(save_path)
    # How annotations are made of what was read.
    how = (n_folds, readers, seed)
    if pixels:
        outcomes, annotations, dropped, part = _with_pixels(
            source, save_path, image_size, bits, n_workers, overwrite, decode, how
        )
    else:
        outcomes, part = _table_outcomes(source), None
        annotations, dropped = annotate(source, outcomes, *how)
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
    hide_folders(source, annotations, dropped, warnings)
    conversion = describe(source, annotations, dropped, parameters)
    conversion["warnings"] = account([warning.kind for warning in warnings], warnings)
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


def _with_pixels(
    source: Source,
    save_path: Path,
    image_size: int,
    bits: int,
    n_workers: int,
    overwrite: bool,
    decode: "Decode | None",
    how: tuple[int, str, int],
) -> tuple[list[dict[str, Any]], dict[str, Any], list[Dropped], Path]:
    """Decodes the rest of the images → what became of each, the two results of `annotate` (whose last arguments are
    `how`), and the file of canvases, which is not called images.npy yet."""
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
    unfinished = (save_path / JOURNAL, save_path / f"{IMAGES}.part")
    with Journal(save_path, image_size, fingerprint, discard=overwrite, bits=bits) as journal:
        _check_space(save_path, len(source.images) - len(journal.outcomes), image_size, bits)
        _decode(source, journal, image_size, bits, n_workers, decode)
        outcomes = journal.outcomes
        try:
            if journal.n_rows:
                annotations, dropped = annotate(source, outcomes, *how)
                return outcomes, annotations, dropped, journal.complete()
        except InputError:
            # Files that the user repairs meanwhile must be read again.
            if journal.n_rows < len(outcomes):
                _remove(*unfinished)
            raise
    _remove(*unfinished)
    first = left_out(source, outcomes)[0]
    raise InputError(
        f"none of the {len(outcomes)} radiographs can be used; the first, {first.where}: {first.reason} {first.detail}"
    )


def _check_target(save_path: Path, overwrite: bool) -> None:
    if save_path.exists() and not save_path.is_dir():
        raise InputError(f"{save_path} is a file: give --save-path a directory")
    check_writable(save_path)
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
            f"{n_images} canvases of {image_size} pixels need {size_in_words(needed)}, "
            f"{save_path} has {size_in_words(free)}: "
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


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
