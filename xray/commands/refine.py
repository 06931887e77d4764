"""Lets a segmenter's masks refine a detector's pneumothorax boxes, and fits how far the boxes should follow them."""

import dataclasses
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xray.commands.id_flags import CategoryIdsOfEach, ImageIdsOfEach
from xray.commands.runner import command
from xray.errors import FlagError, InputError
from xray.file_names import PREDICTIONS
from xray.files import check_output, finishing, is_unfinished
from xray.findings import FINDINGS, PNEUMOTHORAX
from xray.flags import FoldNumber, check_part, check_ranges

if TYPE_CHECKING:
    import numpy as np

    from xray.datasets.store import Store
    from xray.inference.refine import Refinement
    from xray.structures.boxes import BoxTable
    from xray.structures.predictions import Predictions

NAME = FINDINGS[PNEUMOTHORAX]
SURE = 0.5
"""Score from which a radiograph is said to show it."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Refines pneumothorax boxes by masks: boxes move to their component and scores follow it; nothing is deleted.

    A "No finding" row that was 1 − the score of the surest box is so afterwards, too; any other stays.

    With --fit, the setting is the one with the highest average precision (IoU > 0.4) on the truth of --data-path, and
    what the mask alone finds scores as likely as it is there to be right.
    """

    predictions: Path
    """predictions.json with Pneumothorax boxes, of tools/infer.py or any other detector (COCO results)."""
    masks: Path
    """predictions.json that a segmenter of pneumothorax alone wrote for the same radiographs."""
    data_path: Path = Path("data/vinbig")
    """Dataset directory written by tools/convert.py that the predictions are of."""
    save_path: Path = Path("runs/refined")
    """Folder for predictions.json with the refined boxes and their masks."""
    ids: ImageIdsOfEach = ("auto",)
    category_ids: CategoryIdsOfEach = ("auto",)
    fit: bool = False
    """Fit the setting on the truth; without it, --weights has one."""
    weights: Path | None = None
    """Run directory of the segmenter: with --fit its model.json keeps the setting, otherwise it gives it."""
    split: Literal["train", "val", "test"] | None = None
    """Fit and score on this split; by default on every split and fold that both predictions touch."""
    fold: FoldNumber | None = None
    """Fit and score on this fold of the train split, from 0, which neither model should have been trained on."""
    overwrite: bool = False
    """Replace the predictions at --save-path and, with --fit, the setting that --weights has."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: Config) -> None:
    """Fits or reads the setting, refines all predictions and prints AP before and after where there is truth."""
    check(config)

    import numpy as np
    from rich.console import Console

    from xray.datasets.prediction_ids import one_each, read_any_predictions, resolve_images
    from xray.datasets.store import open_store
    from xray.evaluation.alignment import check_categories
    from xray.evaluation.thresholds import LEAST
    from xray.inference.refine import Refinement, refine
    from xray.models.weights import rewrite_description
    from xray.structures.predictions import (
        Predictions,
        read_predictions,
        with_no_finding_after,
        write_predictions,
    )

    store = open_store(config.data_path, pixels=False)
    category = next((number for number, name in store.categories.items() if is_named(name)), None)
    if category is None:
        raise InputError(f"{store.path} has no category {NAME}: give the dataset that the detector was trained for")
    description = read_run(config.weights) if config.weights else None
    may_replace = config.overwrite or is_unfinished(config.save_path, "refinement")
    if config.fit and description and "refinement" in description and not may_replace:
        raise InputError(f"{config.weights} has a fitted refinement already: give --overwrite to replace it")
    of_boxes, of_masks = one_each(config.ids, 2, "ids")
    (of_categories,) = one_each(config.category_ids, 1, "category-ids")
    boxes = read_any_predictions(config.predictions, store, of_boxes, of_categories)
    masks = resolve_images(store, read_predictions(config.masks), config.masks.name, of_masks)
    check_categories(store, boxes, config.predictions.name)
    ids, table, components, segmentations = together(store, boxes, masks, config, description)
    scored = located_rows(store, rows_to_score(store, table, components, config), category)
    n_findings = int((store.boxes.labels[np.isin(store.boxes.images, scored)] == category).sum())
    if config.fit and not n_findings:
        raise InputError(f"no {NAME} in the truth of the {len(scored)} radiographs to fit on: choose others")
    setting = Refinement()
    if not config.fit:
        assert config.weights is not None  # `check` asks for one of the two
        assert description is not None
        setting = read_setting(config.weights, description)
    if n_findings:
        with Console(stderr=True).status("fitting" if config.fit else "scoring"):
            setting, lines = assess(store, table, components, segmentations, scored, setting, category, config.fit)
        print(f"{NAME} in {len(scored)} radiographs with {n_findings} findings, AP@0.4:")
        if config.fit and n_findings < LEAST:  # with which `evaluate --fit` would fit nothing
            print(f"  fewer than {LEAST} findings: these numbers, and the setting, may be chance")
        print(*lines, sep="\n")
    refined, attached = refine(table, components, segmentations, setting, category)
    refined = with_no_finding_after(table, refined)
    if n_findings:
        print(alarms(store, (table, refined), scored, category))
    print(f"setting: {in_words(setting)}")
    with finishing(config.save_path, "refinement"):
        predictions = Predictions(ids, refined, {**boxes.masks, **attached})
        write_predictions(config.save_path / PREDICTIONS, predictions, store.categories)
        if config.fit and config.weights and description is not None:
            rewrite_description(config.weights, {**description, "refinement": dataclasses.asdict(setting)})
            print(f"kept in {config.weights / 'model.json'}")
        elif config.fit:
            print("the setting is not kept: give the segmenter's run as --weights, and other commands use it")
    print(f"{len(refined) - len(table)} boxes added, {len(attached)} with a mask: {config.save_path / PREDICTIONS}")


def check(config: Config) -> None:
    """Raises FlagError or InputError for what can be said without reading anything."""
    if not config.fit and config.weights is None:
        raise FlagError("neither --fit nor --weights: the setting must be fitted, or come from a segmenter's run")
    check_ranges(config)
    check_part(config.split, config.fold)
    check_output(config.save_path, (PREDICTIONS,), "refinement", config.overwrite)


def read_run(run: Path) -> dict[str, Any]:
    """model.json of a segmenter that knows pneumothorax alone. Raises InputError for any other run."""
    from xray.models.weights import load_deployed

    description, _ = load_deployed(run)
    if description["task"] != "segmentation" or list(description.get("categories", {}).values()) != [NAME]:
        raise InputError(f"{run} is no segmenter of {NAME} alone (its task is {description['task']}): give one")
    return description


def read_setting(run: Path, description: dict[str, Any]) -> "Refinement":
    """The refinement that was fitted for a run. Raises InputError where there is none."""
    from xray.inference.refine import Refinement

    if "refinement" not in description:
        raise InputError(f"{run} has no fitted refinement: fit one with --fit on radiographs it was not trained on")
    try:
        return Refinement.of(description["refinement"])
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{run / 'model.json'} has a damaged refinement ({error}): fit it again") from None


def is_named(name: str) -> bool:
    """Whether a category is pneumothorax, in whatever case it is spelt."""
    return " ".join(name.casefold().split()) == NAME.casefold()


def together(
    store: "Store", boxes: "Predictions", masks: "Predictions", config: Config, description: dict[str, Any] | None
) -> tuple[tuple[str, ...], "BoxTable", "BoxTable", dict[int, Any]]:
    """Both predictions with the same images: (ids, boxes, components, row of the components → COCO RLE).

    The first len(store) images are the dataset's; those that it does not know follow. Raises InputError if the masks
    are of several categories, are no masks of their radiographs, or share no radiograph with the boxes.
    """
    import numpy as np

    from xray.structures.masks import encode_mask

    names: dict[str | int, int] = {}
    tables = []
    for predictions in (boxes, masks):
        rows = store.resolve(predictions.image_ids).tolist()
        unknown = [name for name, row in zip(predictions.image_ids, rows, strict=True) if row < 0]
        if unknown:
            print(f"warning: {len(unknown)} images (such as {unknown[0]!r}) are not in {store.path}", file=sys.stderr)
        places = [
            row if row >= 0 else len(store) + names.setdefault(name, len(names))
            for name, row in zip(predictions.image_ids, rows, strict=True)
        ]
        images = np.array(places, dtype=np.int64)[predictions.table.images]
        tables.append(dataclasses.replace(predictions.table, images=images))
    table, components = tables
    of_segmenter = {int(number) for number in description["categories"]} if description else set()
    with_mask = [row for row in sorted(masks.masks) if not of_segmenter or int(components.labels[row]) in of_segmenter]
    labels = sorted({int(components.labels[row]) for row in with_mask})
    others = sorted({masks.names[label] for label in labels if not is_named(masks.names.get(label, NAME))})
    if others or len(labels) > 1:
        what = ", ".join(others) or f"categories {labels}"
        raise InputError(f"{config.masks} holds masks of {what}: give those of a segmenter of {NAME} alone")
    if not with_mask:
        print(f"warning: {config.masks} holds no mask of {NAME}", file=sys.stderr)
    segmentations: dict[int, Any] = {}
    used: list[int] = []
    for row in with_mask:
        image, mask = int(components.images[row]), masks.masks[row]
        try:
            if image < len(store):
                width, height = store.records[image]["width"], store.records[image]["height"]
            else:
                height, width = mask["size"]
            rle, n_pixels = encode_mask(mask, width, height, may_be_empty=True)
        except (ValueError, TypeError, KeyError) as error:
            name = masks.image_ids[masks.table.images[row]]
            raise InputError(f"{config.masks}, row {row}: no mask of {name} ({error}): predict it again") from None
        if n_pixels:
            segmentations[len(used)] = rle
            used.append(row)
    ids = (*(record["source_id"] for record in store.records), *names)
    return ids, table, components.select(np.array(used, dtype=np.int64)), segmentations


def rows_to_score(store: "Store", table: "BoxTable", components: "BoxTable", config: Config) -> "np.ndarray":
    """Rows of the store to fit and score on: those asked for, or all of the groups that both predictions touch."""
    import numpy as np

    from xray.evaluation.alignment import whole_groups

    # A segmenter has no row for a radiograph without a mask, so the radiographs that both name would not do.
    touched = [whole_groups(store, np.unique(t.images[t.images < len(store)])) for t in (table, components)]
    if config.split is None and config.fold is None:
        return np.intersect1d(touched[0], touched[1]) if len(components) else touched[0]
    rows = store.rows(split=config.split, fold=config.fold)
    if not np.isin(rows, touched[0]).any():
        raise InputError(f"{config.predictions} has no box in the radiographs of --split or --fold: predict them first")
    return rows


def located_rows(store: "Store", rows: "np.ndarray", category: int) -> "np.ndarray":
    """Those of the rows on which a box of the category is right or wrong; says how many are left out."""
    from xray.evaluation.located import located_in

    located = located_in(store, rows).everywhere[:, list(store.categories).index(category)]
    if not located.all():
        print(f"{(~located).sum()} of {len(rows)} radiographs are not scored: {NAME} may be there without a box")
    return rows[located]


def assess(
    store: "Store",
    table: "BoxTable",
    components: "BoxTable",
    segmentations: dict[int, Any],
    scored: "np.ndarray",
    setting: "Refinement",
    category: int,
    fit: bool,
) -> tuple["Refinement", list[str]]:
    """Fits where asked to → (the setting, lines with AP before and after on the rows `scored`)."""
    import numpy as np

    from xray.evaluation.alignment import patient_numbers
    from xray.inference.refine_fit import GRID, cross_validate, fit_refinement

    truth, boxes = (part.select(np.isin(part.images, scored)) for part in (store.boxes, table))
    parts = (truth, boxes, *components.select_masked(np.isin(components.images, scored), segmentations))
    settings = GRID if fit else [setting]
    setting, before, after = fit_refinement(*parts, settings=settings, category=category, confidence=fit)
    scores = f"  before {before:.4f}, after {after:.4f}"
    if not fit:
        return setting, [scores]
    before, after = cross_validate(*parts, patient_numbers(store.records), category=category)
    held_out = f"  before {before:.4f}, after {after:.4f}, on the half of the patients not fitted on"
    if math.isnan(after):
        held_out = "  too few findings to fit on one half of the patients and score on the other"
    elif after < before:
        print("warning: on patients it was not fitted on, refinement does not help", file=sys.stderr)
    return setting, [f"{scores}, on the radiographs fitted on", held_out]


def alarms(store: "Store", tables: tuple["BoxTable", "BoxTable"], scored: "np.ndarray", category: int) -> str:
    """In how many of the radiographs `scored` that are without a finding a box says there is one, before and after."""
    import numpy as np

    without = np.setdiff1d(scored, store.boxes.images[store.boxes.labels == category])
    sure = [
        len(np.intersect1d(table.images[(table.labels == category) & (table.scores >= SURE)], without))
        for table in tables
    ]
    return f"  of {len(without)} without it, a box scores {SURE} or more in {sure[0]} before, in {sure[1]} after"


def in_words(setting: "Refinement") -> str:
    """What a setting does to boxes, in a line."""
    from xray.inference.mask_confidence import Weights

    parts = [f"the mask's evidence is what lies inside a box grown by {setting.dilation:.0%} on each side"]
    if setting.shift:
        parts.append(f"times it, boxes move {setting.shift:.0%} of the way to their component")
    if setting.penalty:
        parts.append(f"without it, boxes lose {setting.penalty:.0%} of their score")
    if setting.unmatched:
        whose = "own score" if setting.weights == Weights() else "fitted confidence"
        parts.append(f"a component without a box as sure becomes one with {setting.unmatched:.0%} of its {whose}")
    return "; ".join(parts if len(parts) > 1 else ["boxes and scores stay as they are, masks are attached"])


def run() -> int:
    """The command; returns its exit status."""
    return command(Config, main)
