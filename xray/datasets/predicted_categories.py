"""Which categories of a dataset the category ids of a predictions file mean: by name, or by one of two numberings."""

from typing import Literal

import numpy as np

from xray.datasets.store import Store
from xray.errors import InputError
from xray.findings import NO_FINDING_BOX, NO_FINDING_NAME
from xray.structures.predictions import NO_FINDING_CATEGORY, Predictions, is_no_finding
from xray.structures.values import caseless

CategoryIds = Literal["auto", "source", "dataset"]


def find_categories(
    store: Store, predictions: Predictions, name: str, category_ids: CategoryIds, meaning: str
) -> np.ndarray:
    """(N,) the dataset's category id of each row of a predictions file.

    name: of the file, for messages. meaning: how its image ids were read, see `predicted_images.find_images`.
    Raises InputError where a category id is none of the dataset's, or could be read in two ways that differ.
    """
    table = predictions.table
    used = np.unique(table.labels).tolist()
    if not used:
        return table.labels
    is_normal = is_no_finding(table)
    numberings = {"dataset": {number: number for number in store.categories}}
    if store.source_category_ids:
        numberings["source"] = {source_number: number for number, source_number in store.source_category_ids.items()}
    elif category_ids == "source":
        raise InputError(f"--category-ids source: {store.path} has no category ids of its source, leave the flag out")
    of_15 = table.labels == NO_FINDING_CATEGORY
    # With a box of its own, what comes after the 14 findings is "No finding" too; beside others it may be anything.
    if is_normal[of_15].all() or set(range(1, NO_FINDING_CATEGORY)) <= store.categories.keys():
        numberings["dataset"].setdefault(NO_FINDING_CATEGORY, NO_FINDING_CATEGORY)
    if "source" in numberings and is_normal[of_15].all():
        numberings["source"].setdefault(NO_FINDING_CATEGORY, NO_FINDING_CATEGORY)
    chosen = _named(store, predictions, used, name, category_ids)
    if chosen is None:
        chosen = (
            _numbered(store, numberings, used, name, meaning) if category_ids == "auto" else numberings[category_ids]
        )
    # VinBigData's "No finding", by whatever number the source calls it.
    is_blank = (table.boxes == NO_FINDING_BOX).all(axis=1)
    blank = [label for label in used if label not in chosen and is_blank[table.labels == label].all()]
    chosen = chosen | dict.fromkeys(blank, NO_FINDING_CATEGORY)
    unknown = [label for label in used if label not in chosen]
    if unknown:
        known = sorted(number for number, category in chosen.items() if category in store.categories)
        raise InputError(
            f"{name} has boxes of category {', '.join(map(str, unknown))}, {store.path} knows "
            f"{', '.join(map(str, known[:20]))}: give the dataset that the model was trained for, or say with "
            "--category-ids source or dataset whose numbers they are"
        )
    lookup = np.array([chosen[label] for label in used], dtype=np.int64)
    return lookup[np.searchsorted(used, table.labels)]


def _named(
    store: Store, predictions: Predictions, used: list[int], name: str, category_ids: CategoryIds
) -> dict[int, int] | None:
    """The categories by the names that the file itself has; None where it has none of the dataset's.

    Raises InputError where it has names for some only, unless --category-ids tells what the others' numbers mean.
    """
    by_name = {caseless(category): number for number, category in store.categories.items()}
    by_name.setdefault(caseless(NO_FINDING_NAME), NO_FINDING_CATEGORY)
    plain_names = {label: caseless(category) for label, category in predictions.names.items()}
    known = {label: by_name[category] for label, category in plain_names.items() if category in by_name}
    if not known:
        return None
    strange = [predictions.names.get(label, f"category {label}") for label in used if label not in known]
    if strange and category_ids != "auto":
        return None
    if strange:
        raise InputError(
            f"{name} has boxes of {', '.join(strange)}, which are no categories of {store.path}: give the dataset that "
            "the model was trained for"
        )
    return known


def _numbered(
    store: Store, numberings: dict[str, dict[int, int]], used: list[int], name: str, meaning: str
) -> dict[int, int]:
    if meaning == "coco":
        return numberings["source"]
    if meaning == "rows" or "source" not in numberings:
        return numberings["dataset"]
    fitting = [numbering for numbering in numberings.values() if set(used) <= numbering.keys()]
    if len({tuple(numbering[label] for label in used) for numbering in fitting}) > 1:
        label = next(label for label in used if fitting[0][label] != fitting[1][label])
        names = [store.categories.get(numbering[label], NO_FINDING_NAME) for numbering in fitting]
        raise InputError(
            f"{name} has boxes of category {label}, which is {names[0]!r} in {store.path} and {names[1]!r} in its "
            "source: say with --category-ids dataset or --category-ids source which is meant"
        )
    return fitting[0] if fitting else numberings["dataset"]
