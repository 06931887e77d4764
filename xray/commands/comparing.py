"""Reading the two sides of a comparison, whatever they are kept in, and the comparison as a table on the screen."""

from pathlib import Path

import numpy as np

from xray.datasets.fingerprint import fingerprint
from xray.datasets.inputs import Inputs, open_inputs
from xray.datasets.prediction_ids import CategoryIds, ImageIds, read_any_predictions
from xray.datasets.store import IMAGES, Store, open_store
from xray.errors import InputError
from xray.evaluation.comparison import TOTAL, Comparison
from xray.evaluation.evaluate import evaluate
from xray.evaluation.scored import SCORED, Scored, read_scored, scored_of
from xray.outputs.report.comparison import title_of
from xray.outputs.report.galleries import Pixels
from xray.radiographs.radiograph import RadiographError
from xray.structures.probability_maps import read_maps


def read_side(
    path: Path,
    store: Store,
    split: str | None,
    fold: int | None,
    threshold: float,
    ids: ImageIds = "auto",
    category_ids: CategoryIds = "auto",
) -> Scored:
    """A predictions file, a folder with one, or one that tools/evaluate.py wrote.

    split, fold: the radiographs to score of a file. ids, category_ids: what its ids mean.
    Raises InputError if nothing of the kind is there.
    """
    if path.is_dir() and (path / SCORED).is_file():
        if split is not None or fold is not None:
            raise InputError(f"{path} was scored already: --split and --fold choose among the predictions of a file")
        return read_scored(path / SCORED)
    file = path / "predictions.json" if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise InputError(f"{path} holds neither {SCORED} nor predictions.json: give what tools/evaluate.py wrote")
    predictions = read_any_predictions(file, store, ids, category_ids)
    maps = read_maps(file.parent)
    result = evaluate(store, predictions, maps, split, fold, threshold=threshold, with_coco=False)
    return scored_of(result, fingerprint(store, result.alignment.rows)["annotations_sha256"])


def pixels_of(store: Store, folder: Path | None) -> Pixels | None:
    """Where the radiographs of a dataset can be had for pictures: in a folder of files, or as its own canvases.

    None where there is no folder and the dataset has no pixels. Raises InputError for a folder without any of them.
    """
    if folder is not None:
        inputs = open_inputs(folder)
        number = {name: index for index, name in enumerate(inputs.ids)}
        if number.keys().isdisjoint(store.index_of):
            raise InputError(
                f"{folder} has none of the radiographs of {store.path} (it has {inputs.ids[0]!r}): give the folder "
                "that they were converted from as --radiographs"
            )
        return lambda row: _read(inputs, number.get(store.records[row]["source_id"]))
    if not (store.path / IMAGES).is_file():
        return None
    opened = open_store(store.path)
    every = Inputs(tuple(record["source_id"] for record in opened.records), store=opened, rows=np.arange(len(opened)))
    return every.pixels


def _read(inputs: Inputs, index: int | None) -> np.ndarray | None:
    if index is None:
        return None
    try:
        return inputs.pixels(index)
    except RadiographError:
        return None


def show_comparison(comparison: Comparison) -> None:
    """Prints a row for each number of both."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("A", "B", "B − A", *(("95 % interval", "p") if comparison.n_resamples else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for one in comparison.differences:
        name = title_of(one) if one.name == TOTAL else f"  {one.name}"
        row = [f"{one.first:.4f}", f"{one.second:.4f}", f"{one.difference:+.4f}"]
        if comparison.n_resamples:
            ends = one.ends if one.ends is not None and not np.isnan(one.ends[0]) else None
            row += [f"[{ends[0]:+.3f}, {ends[1]:+.3f}]" if ends else "", f"{one.p_value:.3g}"]
        table.add_row(name, *(cell if cell != "nan" else "–" for cell in row))
    Console(highlight=False).print(table)
    who = f"{comparison.n_patients:,} patients" if comparison.n_patients else "patients not known"
    print(f"{comparison.n_images:,} radiographs, {who}; p is a paired bootstrap's, not adjusted for the number of rows")
