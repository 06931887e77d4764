"""Predictions of a model with other categories than the dataset: categories that both have, by name, are scored.

Categories of the two are common where their names are equal, case and blanks aside, after a category map of the
predictions' names if one is given. The report names the categories that are scored and those that are not.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from xray.datasets.category_map import DROPPED, MAY_BE_DROPPED, CategoryMap, plain, read_map
from xray.datasets.mapped import SAME_PLACE
from xray.datasets.normal_rows import with_named_normal
from xray.datasets.predicted_categories import CategoryIds
from xray.datasets.predicted_images import ImageIds
from xray.datasets.prediction_ids import read_any_predictions, resolve
from xray.datasets.store import Store
from xray.errors import FlagError, InputError
from xray.findings import NO_FINDING_BOX, NO_FINDING_NAME
from xray.structures.boxes import box_iou
from xray.structures.boxes import renumbered as rows_of_masks
from xray.structures.predictions import NO_FINDING_CATEGORY, Predictions, read_predictions


@dataclasses.dataclass(frozen=True)
class Common:
    """The categories that predictions and dataset have in common.

    scored: names of the dataset's categories. not_in_dataset: names in the predictions of which the dataset has no
    truth. not_scored: other categories of the dataset, which the predictions do not have or, with is_asked, which were
    not asked for.
    n_left_out: predicted rows of not_in_dataset. n_joined: rows that are left out since the map joins them with another
    row in the same place.
    """

    scored: tuple[str, ...]
    not_in_dataset: tuple[str, ...] = ()
    not_scored: tuple[str, ...] = ()
    is_asked: bool = False
    n_left_out: int = 0
    n_joined: int = 0

    @property
    def lines(self) -> list[str]:
        """Sentences that the reader should know before the numbers."""
        which = "that --categories names" if self.is_asked else "that model and dataset have in common"
        lines = [f"scored are the categories {which}: {', '.join(self.scored)}"]
        if self.not_in_dataset:
            rows = f"{self.n_left_out} predicted row{'s' * (self.n_left_out != 1)}"
            lines.append(f"not scored, as the dataset has no truth of them: {', '.join(self.not_in_dataset)} ({rows})")
        if self.not_scored and not self.is_asked:
            lines.append(f"not scored, as the predictions have none of them: {', '.join(self.not_scored)}")
        if self.n_joined:
            lines.append(
                f"{self.n_joined} predicted boxes are left out: the map joins each with another box in the same place"
            )
        return lines

    @property
    def metrics(self) -> dict[str, Any]:
        """The part of metrics.json about these categories."""
        names = ("scored", "not_in_dataset", "not_scored")
        return {"categories": {name: list(getattr(self, name)) for name in names}}


def read_common(
    store: Store,
    path: Path,
    map_name: str | None = None,
    only: tuple[str, ...] = (),
    ids: ImageIds = "auto",
    category_ids: CategoryIds = "auto",
) -> tuple[Store, Predictions, Common | None]:
    """`common_categories` of a file of predictions, its ids resolved. map_name: as for `category_map.read_map`.

    ids, category_ids: what its ids mean, see `xray.datasets.prediction_ids`; numbers whose meaning is given are the
    dataset's or its source's, and are not compared by name. Raises InputError and FlagError as these do, and InputError
    for a map where the file has numbers alone: of a model with other categories they mean others.
    """
    mapping = read_map(map_name, "predictions") if map_name else None
    if path.suffix.lower() == ".csv" or category_ids != "auto":
        if mapping:
            raise FlagError("--map is for results in JSON that name their categories: leave out --category-ids")
        predictions = read_any_predictions(path, store, ids, category_ids)
        if not only:
            return store, predictions, None
        return common_categories(store, dataclasses.replace(predictions, names=dict(store.categories)), path, only=only)
    # A line of the map for "Clear" or the like goes before what its name sounds like.
    kept = mapping.findings if mapping else ()
    raw = with_named_normal(read_predictions(path), (*store.categories.values(), *kept))
    if mapping and not raw.names and len(raw.table):
        raise InputError(
            f"--map {mapping.title} is for results that name their categories, and no row of {path.name} has a "
            "category_name: write it there, or leave out --map if the numbers are those of the dataset"
        )
    if not raw.names and only:
        raw = dataclasses.replace(resolve(store, raw, path.name, ids), names=dict(store.categories))
    reduced, predictions, common = common_categories(store, raw, path, mapping, only)
    return reduced, resolve(reduced, predictions, path.name, ids), common


def common_categories(
    store: Store, predictions: Predictions, path: Path, mapping: CategoryMap | None = None, only: tuple[str, ...] = ()
) -> tuple[Store, Predictions, Common | None]:
    """The dataset and the predictions with the categories alone that both have, and which these are.

    predictions: as `structures.predictions.read_predictions` gives them, with names. path: of their file, for messages.
    mapping: what the predictions' categories are called in the dataset. only: names of the dataset's categories that
    are to be scored, whether they are predicted or not; by default those that are predicted, where the predictions have
    others too or a map is given. Where all of the predictions' are the dataset's, everything stays as it is, and None
    is returned.

    Raises InputError where no category is common, and where the map or `only` names one that is not there.
    """
    number_of = {plain(name): number for number, name in store.categories.items()}
    if unknown := [name for name in only if plain(name) not in number_of]:
        known = ", ".join(store.categories.values())
        raise InputError(f"--categories {unknown[0]}: {store.path} has no such category (it has {known})")
    names = {label: name for label, name in predictions.names.items() if not _is_normal(name)}
    if mapping and names and mapping.rest is None and not any(plain(name) in mapping.names for name in names.values()):
        have = ", ".join(names.values())
        raise InputError(f"--map {mapping.title} names none of the categories in {path.name}, which are {have}")
    becomes = {label: mapping.rule(name).name if mapping else name for label, name in names.items()}
    wanted = {number_of[plain(name)] for name in only} or set(number_of.values())
    to = {
        label: number_of[plain(name)]
        for label, name in becomes.items()
        if name and plain(name) in number_of and number_of[plain(name)] in wanted
    }
    strange = [label for label in names if label not in to]
    if not (strange or mapping or only) or not (names or only):
        return store, predictions, None
    foreign = [label for label in strange if plain(becomes[label] or "") not in number_of]
    if names and not to:
        known = ", ".join(store.categories[number] for number in sorted(wanted))
        raise InputError(
            f"{path.name} has {', '.join(names.values())}, and {store.path} {known}: no category is in both by name, "
            "so say with --map which are the same"
        )
    chosen = sorted(wanted if only else set(to.values()))
    renamed, joined = _renamed(predictions, to, strange, store)
    common = Common(
        tuple(store.categories[number] for number in chosen),
        tuple(names[label] for label in foreign),
        tuple(name for number, name in store.categories.items() if number not in chosen),
        bool(only),
        int(np.isin(predictions.table.labels, foreign).sum()),
        joined,
    )
    return restricted(store, chosen), renamed, common


def _is_normal(name: str) -> bool:
    return plain(name) == plain(NO_FINDING_NAME)


def _renamed(predictions: Predictions, to: dict[int, int], strange: list[int], store: Store) -> tuple[Predictions, int]:
    """The rows that are scored, by the dataset's ids, and how many of those that became one category were joined."""
    table = predictions.table
    # Rows of no name are "No finding", whatever their number, or they have to be explained by flags.
    free = max([*store.categories, *np.unique(table.labels).tolist(), NO_FINDING_CATEGORY]) + 1
    new = {label: to.get(label, free + place) for place, label in enumerate(np.unique(table.labels).tolist())}
    is_blank = (table.boxes == NO_FINDING_BOX).all(axis=1)
    for label in new:
        is_named = label in to or label in predictions.names
        if not is_named and not (predictions.is_foreign and is_blank[table.labels == label].all()):
            new[label] = label
    rows = np.flatnonzero(~np.isin(table.labels, strange))
    labels = np.array([new[label] for label in table.labels.tolist()], dtype=np.int64)
    gone = _joined(predictions, labels, to)
    rows = np.setdiff1d(rows, gone)
    names = {number: store.categories[number] for number in to.values()}
    names |= {new[label]: NO_FINDING_NAME for label in new if _is_normal(predictions.names.get(label, ""))}
    renamed = dataclasses.replace(
        predictions,
        table=dataclasses.replace(table, labels=labels).select(rows),
        masks=rows_of_masks(predictions.masks, rows),
        names=names,
    )
    return renamed, len(gone)


def _joined(predictions: Predictions, labels: np.ndarray, to: dict[int, int]) -> np.ndarray:
    """Rows whose box lies where one of a higher score does that was another category and became the same."""
    table = predictions.table
    merged = [number for number in set(to.values()) if sum(other == number for other in to.values()) > 1]
    candidates = np.flatnonzero(np.isin(table.labels, list(to)) & np.isin(labels, merged))
    groups: dict[tuple[int, int], list[int]] = {}
    for row in candidates[np.argsort(-table.scores[candidates], kind="stable")].tolist():
        groups.setdefault((int(table.images[row]), int(labels[row])), []).append(row)
    gone: set[int] = set()
    for rows in groups.values():
        iou = box_iou(table.boxes[rows], table.boxes[rows])
        for place, row in enumerate(rows):
            others = [first for first in range(place) if rows[first] not in gone and iou[first, place] >= SAME_PLACE]
            if any(table.labels[rows[first]] != table.labels[row] for first in others):
                gone.add(row)
    return np.array(sorted(gone), dtype=np.int64)


def restricted(store: Store, numbers: list[int]) -> Store:
    """The dataset with these categories alone; radiographs that show others are still not normal."""
    if set(numbers) == set(store.categories):
        return store
    chosen = set(numbers)
    rows = np.flatnonzero(np.isin(store.boxes.labels, numbers))
    records = []
    boxed: dict[int, set[int]] = {}
    for image, label in zip(store.boxes.images.tolist(), store.boxes.labels.tolist(), strict=True):
        boxed.setdefault(image, set()).add(label)
    for row, record in enumerate(store.records):
        new = dict(record)
        shown = set(record.get("labels", ())) | boxed.get(row, set())
        unknown = set(record.get("unknown", ()))
        for key in ("labels", "unknown", "unlocated"):
            if key in record:
                new[key] = [label for label in record[key] if label in chosen]
        for key, labels in ((DROPPED, shown), (MAY_BE_DROPPED, unknown)):
            if left_out := sorted(labels - chosen):
                new[key] = [*record.get(key, ()), *(store.categories[label] for label in left_out)]
        records.append(new)
    return dataclasses.replace(
        store,
        records=records,
        boxes=store.boxes.select(rows),
        readers=[store.readers[row] for row in rows.tolist()],
        masks=rows_of_masks(store.masks, rows),
        categories={number: name for number, name in store.categories.items() if number in chosen},
        source_category_ids={n: source_id for n, source_id in store.source_category_ids.items() if n in chosen},
    )
