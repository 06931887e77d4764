"""Out-of-fold predictions: of radiographs that a model was not trained on, gathered from files of one fold or all."""

import csv
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from xray.datasets.prediction_ids import read_any_predictions
from xray.datasets.source import TEST, TRAIN, VAL
from xray.datasets.store import Store
from xray.errors import InputError
from xray.evaluation.alignment import check_categories, patient_numbers, positions, renumbered
from xray.evaluation.located import located_in, nothing_located
from xray.file_names import LABELS, MODEL_FILE, PREDICTIONS, VALIDATED
from xray.inference.coverage import rows_covered
from xray.inference.ensemble_file import Member
from xray.structures.boxes import BoxTable
from xray.structures.predictions import Predictions, is_no_finding
from xray.structures.values import finite_number

Labels = dict[int, dict[str | int, float]]
"""Category id → source id → a classifier's probability that the radiograph shows it."""


@dataclasses.dataclass(frozen=True)
class OutOfFold:
    """n radiographs of the folds, or of the validation split, with their truth and the predictions of models and
    classifiers.

    rows: (n,) in the store. truth, tables: `images` in [0, n); tables: one a model, without "No finding" rows. Boxes of
    a category where that is not located are in none of them: they are neither right nor wrong.
    probabilities: category → (n,) float64, NaN where no classifier says. folds, patients: (n,) int64, fold -1 for the
    validation split.
    left_out: sentences about radiographs that are left out and boxes that are not scored. named: of each file the rows
    of the store that it names.
    """

    rows: np.ndarray
    truth: BoxTable
    tables: tuple[BoxTable, ...]
    probabilities: dict[int, np.ndarray]
    folds: np.ndarray
    patients: np.ndarray
    left_out: tuple[str, ...] = ()
    named: Mapping[Path, frozenset[int]] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)


def member_of(given: Path, run: Path | None = None, of_labels: bool = False) -> Member:
    """The files and run directories of one model.

    given: a file; a folder with predictions.json (of labels also with labels.csv); a run directory, whose
        validation/predictions.json it is; or a folder of run directories, one a fold.
    run: its run directory, or a folder of run directories; None looks for them beside the files, and they may stay
    unknown.
    Raises InputError if nothing of the kind is there.
    """
    if given.is_dir():
        names = [LABELS, PREDICTIONS] if of_labels else [PREDICTIONS]
        here = [given / name for name in (*names, VALIDATED) if (given / name).is_file()]
        files = here[:1] or sorted(given.glob(f"*/{VALIDATED}"))
        if not files:
            raise InputError(
                f"{given} holds no {' or '.join(names)}, nor runs that do: give a file, a run directory, or a folder "
                "of run directories, one a fold"
            )
    else:
        files = [given]
    if run is not None:
        runs = _runs_in(run)
        if not runs:
            raise InputError(f"{run} is no run directory, nor a folder of some: give --runs one for each model")
    else:
        beside = dict.fromkeys(map(_beside, files))
        runs = [found for folder in beside for found in _runs_in(folder)]
    # As they were given, for what is said of them.
    return Member(tuple(runs), tuple(files))


def _beside(file: Path) -> Path:
    """The folder that would be the run directory of a file, named as the file is."""
    folder = file.parent
    if file.absolute().parent.name != "validation":
        return folder
    # The name alone is given by who stands in that folder.
    return folder.parent if folder.name else folder / ".."


def _runs_in(folder: Path) -> list[Path]:
    if (folder / MODEL_FILE).is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{MODEL_FILE}"))


def gather(store: Store, models: Sequence[Member], classifiers: Sequence[Member] = ()) -> OutOfFold:
    """Reads the files of all models and classifiers.

    A file of a model covers the radiographs that `xray.inference.coverage.rows_covered` says, one of labels those with
    a label. Radiographs that a model does not cover are left out, since models are compared on the same ones; so are
    those in which nothing is located. Raises
    InputError if no radiograph is left, two files of a model cover the same one, or a file cannot be read.
    """
    is_held = ((store.splits == TRAIN) & (store.folds >= 0)) | (store.splits == VAL)
    is_held &= ~nothing_located(store)
    everywhere, touched, tables = is_held.copy(), np.zeros(len(store), dtype=bool), []
    lacking: list[tuple[Member, np.ndarray]] = []
    named: dict[Path, frozenset[int]] = {}
    for member in models:
        parts, covered = [], np.zeros(len(store), dtype=bool)
        for path in member.predictions:
            predictions = read_any_predictions(path, store)
            check_categories(store, predictions, path.name)
            named[path] = frozenset(store.resolve(predictions.image_ids).tolist())
            _join(store, covered, rows_covered(store, predictions), path)
            parts.append(_of_rows(store, predictions))
        tables.append(BoxTable.concatenate(parts))
        lacking.append((member, is_held & ~covered))
        everywhere, touched = everywhere & covered, touched | covered
    labels: list[Labels] = []
    for member in classifiers:
        covered = np.zeros(len(store), dtype=bool)
        for path in member.predictions:
            labels.append(read_labels(path, store))
            ids = {name for of_image in labels[-1].values() for name in of_image}
            named[path] = frozenset(store.resolve(list(ids)).tolist())
            _join(store, covered, np.isin(np.arange(len(store)), list(named[path])), path)
        lacking.append((member, is_held & ~covered))
        everywhere, touched = everywhere & covered, touched | covered
    # Nothing is missing of a split that no file covers: either folds are held back, or the validation split.
    expected = np.isin(store.splits, store.splits[touched & is_held]) if (touched & is_held).any() else is_held
    left_out = [words for member, missing in lacking for words in _lacks(store, missing & expected, member)]
    rows = np.flatnonzero(everywhere)
    if not len(rows):
        raise InputError(
            "no radiograph of the folds or of the validation split is in the files of all models: "
            + "; ".join(left_out)
        )
    place = positions(rows, len(store))
    records = [store.records[row] for row in rows.tolist()]
    of_image = mean_labels(labels)
    probabilities = {
        label: np.array([of_image[label].get(record["source_id"], math.nan) for record in records])
        for label in of_image
    }
    located = located_in(store, rows)
    given = [renumbered(table, place, {})[0] for table in (store.boxes, *tables)]
    truth, *tables = [located.of(table) for table in given]
    if not located.is_whole:
        names = ", ".join(f"{name} in {number}" for name, number in located.n_left_out.items())
        n_dropped = sum(map(len, given[1:])) - sum(map(len, tables))
        left_out.append(f"{n_dropped} boxes are not scored, where a finding may be without one ({names} radiographs)")
    patients = patient_numbers(records)
    return OutOfFold(rows, truth, tuple(tables), probabilities, store.folds[rows], patients, tuple(left_out), named)


def read_labels(path: Path, store: Store) -> Labels:
    """A classifier's probabilities: labels.csv of infer, or predictions.json with a row for each category.

    Raises InputError if the file is neither, or has no category of the dataset.
    """
    labels = _from_csv(path, store) if path.name.endswith(".csv") else _from_rows(path, store)
    if not labels:
        raise InputError(
            f"{path} has no category of {store.path}: give a classifier that was trained with --target findings"
        )
    return labels


def mean_labels(labels: Sequence[Labels]) -> Labels:
    """The mean over the classifiers that know a category of a radiograph."""
    known: dict[int, dict[str | int, list[float]]] = {}
    for one in labels:
        for label, of_image in one.items():
            for name, probability in of_image.items():
                known.setdefault(label, {}).setdefault(name, []).append(probability)
    return {
        label: {name: float(np.mean(values)) for name, values in of_image.items()} for label, of_image in known.items()
    }


def _from_rows(path: Path, store: Store) -> Labels:
    predictions = read_any_predictions(path, store)
    check_categories(store, predictions, path.name)
    table, labels = predictions.table, Labels()
    table = table.select(~is_no_finding(table))
    for image, label, score in zip(table.images.tolist(), table.labels.tolist(), table.scores.tolist(), strict=True):
        of_image, name = labels.setdefault(label, {}), str(predictions.image_ids[image])
        if name in of_image:
            raise InputError(
                f"{path} has several rows of category {store.categories[label]} in {name!r}: give what a classifier "
                "wrote, with one probability for each radiograph and category"
            )
        of_image[name] = score
    return labels


def _from_csv(path: Path, store: Store) -> Labels:
    number = {name: label for label, name in store.categories.items()}
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            rows = csv.DictReader(file, strict=True)
            names = [name for name in rows.fieldnames or () if name in number]
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"it has several columns {min(twice)}")
            if "image_id" not in (rows.fieldnames or ()):
                raise ValueError("it has no column image_id")
            labels: Labels = {number[name]: {} for name in names}
            seen: set[str] = set()
            for row in rows:
                if row["image_id"] in seen:
                    raise ValueError(f"line {rows.line_num} has {row['image_id']!r}, which an earlier line has")
                seen.add(row["image_id"])
                for name in names:
                    value = finite_number(row[name])
                    if value is None or not 0 <= value <= 1:
                        raise ValueError(f"line {rows.line_num} has {row[name]!r} for {name}, no probability")
                    labels[number[name]][row["image_id"]] = value
            if not seen:
                raise ValueError("it has no rows")
    except OSError as error:
        raise InputError(f"no labels at {path} ({error.strerror}): give what infer wrote with a classifier") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} is no labels.csv as infer writes it: {error}") from None
    return labels


def _of_rows(store: Store, predictions: Predictions) -> BoxTable:
    """The boxes, with the store's rows as images."""
    table, rows = predictions.table, store.resolve(predictions.image_ids)
    table = dataclasses.replace(table, images=rows[table.images])
    return table.select((table.images >= 0) & ~is_no_finding(predictions.table))


def _join(store: Store, covered: np.ndarray, more: np.ndarray, path: Path) -> None:
    twice = np.flatnonzero(covered & more & (store.splits != TEST))
    if len(twice):
        raise InputError(
            f"{path} has {len(twice)} radiographs (such as {store.records[twice[0]]['source_id']!r}) that another file "
            "of the same model has: each must be in one file only, that of the fold in which it was held back"
        )
    covered |= more


def _lacks(store: Store, missing: np.ndarray, member: Member) -> Iterable[str]:
    rows = np.flatnonzero(missing)
    if len(rows):
        folds = np.unique(store.folds[rows]).tolist()
        places = [f"fold {', '.join(str(fold) for fold in folds if fold >= 0)}"] if folds[-1] >= 0 else []
        places += ["the validation split"] if folds[0] < 0 else []
        first = store.records[rows[0]]["source_id"]
        yield (
            f"{member.predictions[0]} lacks {len(rows)} radiographs of {' and of '.join(places)} (such as {first!r})"
        )
