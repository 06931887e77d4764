"""Pictures of a dataset's ground truth: radiographs with their boxes, named, and how many readers drew each.

With --predictions, each is drawn beside what a model predicted.
"""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Interval
from rich.console import Console
from rich.progress import track

from xray.commands.id_flags import CategoryIds, ImageIds
from xray.commands.runner import command
from xray.datasets.prediction_ids import read_any_predictions
from xray.datasets.store import ALL_FOLDS, Store, open_store
from xray.errors import FlagError, InputError
from xray.files import check_output, make_folder
from xray.findings import NO_FINDING_NAME, colour_of
from xray.flags import FoldNumber, Seed, Share, check_part, check_ranges
from xray.outputs.pictures.findings import draw_findings, draw_with_truth, in_words, not_said, rows_of
from xray.outputs.pictures.marks import Mark, Region
from xray.outputs.pictures.overlays import draw_contact_sheet, draw_overlay, save_picture
from xray.radiographs.names import unique_names
from xray.radiographs.pictures import is_own_picture
from xray.structures.masks import decode_mask
from xray.structures.predictions import Predictions
from xray.structures.radiograph_findings import RadiographFindings

CONTACT_SHEET = "contact_sheet.png"
MOST_ON_A_SHEET = 48
THUMBNAIL = 420


@dataclasses.dataclass(frozen=True)
class Config:
    """Draws the ground truth of a dataset."""

    data_path: Path = Path("data/vinbig")
    """Dataset directory written by tools/convert.py."""
    save_path: Path = Path("runs/view")
    """Folder for the pictures, one PNG an image, named after it; its own of the same name are replaced."""
    n: Annotated[int, Interval(ge=1, le=1_000_000)] = 24
    """Number of radiographs, drawn by chance (1 to 1000000)."""
    all: bool = False
    """Draw every radiograph instead of --n of them."""
    split: Literal["train", "val", "test"] | None = None
    """Only radiographs of this split."""
    fold: FoldNumber | None = None
    """Only radiographs of this fold of the train split, from 0."""
    finding: str | None = None
    """Only radiographs with this finding, boxed or not, e.g. "Nodule/Mass"; "No finding" means those known to show
    none."""
    seed: Seed = 0
    """Of the drawing by chance (0 to 4294967295)."""
    predictions: Path | None = None
    """predictions.json or submission.csv of any detector, to be drawn beside the truth. Without --all, only radiographs
    that it names are drawn."""
    ids: ImageIds = "auto"
    category_ids: CategoryIds = "auto"
    threshold: Share = 0.3
    """Lowest confidence of predictions that are drawn, in [0, 1]."""
    contact_sheet: bool = True
    """Also put up to 48 of the radiographs together into contact_sheet.png."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: Config) -> None:
    """Draws the pictures and says on stdout where they are."""
    check(config)
    store = open_store(config.data_path, pseudo_for=ALL_FOLDS)
    if store.pseudo is not None:
        print(f"{config.data_path} holds pseudo-labels: what is drawn is what models have found, not the truth")
    predictions = None
    if config.predictions is not None:
        predictions = read_any_predictions(config.predictions, store, config.ids, config.category_ids)
    rows = choose_rows(store, config, predictions)
    names = file_names([store.records[row]["source_id"] for row in rows])
    check_output(config.save_path)
    if config.save_path.resolve() == config.data_path.resolve():
        raise InputError(f"{config.save_path} is the dataset directory itself: give --save-path another folder")
    for name in (*names, *([CONTACT_SHEET] if config.contact_sheet else [])):
        # It may be the radiograph itself, whose name the picture has.
        if (config.save_path / name).exists() and not is_own_picture(config.save_path / name):
            raise InputError(
                f"{config.save_path / name} is there, and no picture that this command has drawn: give another "
                "--save-path"
            )
    make_folder(config.save_path)
    # On the sheet, radiographs stand evenly spread over those drawn.
    on_sheet = set(np.linspace(0, len(rows) - 1, min(len(rows), MOST_ON_A_SHEET)).round().astype(int).tolist())

    def draw(number: int) -> np.ndarray | None:
        def picture(*sides: int) -> np.ndarray:
            if predictions is None:
                return draw_truth(store, rows[number], *sides)
            return draw_both(store, rows[number], predictions, config.threshold, *sides)

        save_picture(config.save_path / names[number], picture())
        return picture(THUMBNAIL, THUMBNAIL) if config.contact_sheet and number in on_sheet else None

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # resizing and PNG coding run outside Python's lock
        drawn = pool.map(draw, range(len(rows)))
        try:
            pictures = track(drawn, "drawing", len(rows), console=Console(stderr=True))
            thumbnails = [picture for picture in pictures if picture is not None]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    print(f"{len(rows)} pictures in {config.save_path}")
    if config.contact_sheet:
        columns = max(1, round((len(thumbnails) * 1.5) ** 0.5))
        save_picture(config.save_path / CONTACT_SHEET, draw_contact_sheet(thumbnails, columns))
        print(f"{len(thumbnails)} of them together in {config.save_path / CONTACT_SHEET}")


def check(config: Config) -> None:
    """Raises FlagError if a value is out of range or two flags contradict each other."""
    check_ranges(config)
    check_part(config.split, config.fold)
    if config.finding == "":
        raise FlagError("--finding is empty: give a name, or leave the flag out")


def choose_rows(store: Store, config: Config, predictions: Predictions | None = None) -> list[int]:
    """The rows to draw, ascending. Raises InputError where none is left, or a split, fold or finding is not there."""
    rows = store.rows(config.split, config.fold)
    if predictions is not None and not predictions.image_ids:
        raise InputError(f"{config.predictions} holds no row, so there is nothing to draw beside the truth")
    if predictions is not None and not config.all:
        rows = np.intersect1d(rows, store.resolve(predictions.image_ids))
    if config.finding is not None:
        if config.finding.casefold() == NO_FINDING_NAME.casefold():
            abnormal, is_known = store.abnormal
            rows = rows[is_known[rows] & ~abnormal[rows]]
        else:
            wanted = [label for label, name in store.categories.items() if name.casefold() == config.finding.casefold()]
            if not wanted:
                known = ", ".join([*store.categories.values(), NO_FINDING_NAME])
                raise InputError(f"{store.path} has no finding named {config.finding!r}: it has {known}")
            rows = rows[store.labels[rows][:, np.isin(list(store.categories), wanted)].any(axis=1)]
    if len(rows) == 0:
        raise InputError(f"{store.path} has no radiograph that fits the flags: drop --split, --fold or --finding")
    if not config.all and len(rows) > config.n:
        rows = np.random.default_rng(config.seed).choice(rows, config.n, replace=False)
    return sorted(rows.tolist())


def draw_truth(store: Store, row: int, min_side: int = 768, max_side: int = 1600) -> np.ndarray:
    """One radiograph in its original aspect with its true boxes and masks → (h, w, 3) uint8 RGB.

    min_side, max_side: the longer side of the radiograph in the picture, in pixels.
    """
    record, canvas = store.records[row], store.canvas(row)
    left, top, right, bottom = canvas.content
    marks, regions = [], []
    for box in np.flatnonzero(store.boxes.images == row).tolist():
        label = int(store.boxes.labels[box])
        corners = canvas.to_canvas(store.boxes.boxes[box])[0] - (left, top, left, top)
        readers = f"{len(store.readers[box])}/{len(record['readers'])}" if record.get("readers") else ""
        if store.pseudo is not None:
            readers = f"{store.boxes.scores[box]:.2f}"
        marks.append(Mark(tuple(corners.tolist()), store.categories[label], colour_of(label), note=readers))
        if box in store.masks:
            mask = canvas.letterbox(decode_mask(store.masks[box]), is_mask=True)
            regions.append(Region(mask[top:bottom, left:right] > 0, colour_of(label)))
    place = record["split"] if record["fold"] < 0 else f"{record['split']}, fold {record['fold']}"
    title = f"{record['source_id']} · {place} · {canvas.width} x {canvas.height}"
    assert store.images is not None
    pixels = np.ascontiguousarray(store.shown(row)[top:bottom, left:right])
    notes = not_said(record, store.categories)
    return draw_overlay(pixels, marks, regions, title, min_side=min_side, max_side=max_side, notes=notes)


def draw_both(
    store: Store, row: int, predictions: Predictions, threshold: float, min_side: int = 768, max_side: int = 1024
) -> np.ndarray:
    """The truth of a radiograph beside its predictions from `threshold` on → (h, w, 3) uint8 RGB.

    min_side, max_side: the longer side of each radiograph, in pixels.
    """
    canvas, name = store.canvas(row), store.records[row]["source_id"]
    left, top, right, bottom = canvas.content
    place = predictions.image_ids.index(name) if name in predictions.image_ids else -1
    table, masks = rows_of(predictions.table, predictions.masks, place)
    words = in_words(table, store.categories)
    table = dataclasses.replace(table, boxes=canvas.to_canvas(table.boxes) - (left, top, left, top))
    assert store.images is not None
    pixels = np.ascontiguousarray(store.shown(row)[top:bottom, left:right])
    findings = RadiographFindings(table, masks, store.categories)
    predicted = draw_findings(pixels, findings, name, threshold=threshold, max_side=max_side, min_side=min_side)
    truth, _ = rows_of(store.boxes, {}, row)
    drawn = draw_truth(store, row, min_side, max_side)
    return draw_with_truth(drawn, predicted, truth, words, store.categories, store.records[row])


def file_names(source_ids: list[str]) -> list[str]:
    """PNG names after the images' ids, safe on any file system, each different from the others."""
    return [f"{name}.png" for name in unique_names(source_ids, {Path(CONTACT_SHEET).stem}, longest=120)]


def run() -> int:
    """The command; returns its exit status."""
    return command(Config, main)
