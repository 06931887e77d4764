"""What the image and category ids of a predictions file mean beside a dataset: decided once for a file, never guessed.

Whole numbers as image ids are those of the source's own COCO file, and so then are the category ids: Detectron2,
MMDetection, RF-DETR, torchvision's reference and pycocotools write what they read. Texts are source ids, as infer
writes them, or file names. A row that names its file or its category is believed. What could be read in two ways that
differ, or in none, is refused; --ids and --category-ids say what is meant, of files that do not say so themselves.
"""

import dataclasses
import posixpath
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from xray.datasets.normal_rows import with_named_normal, with_one_row
from xray.datasets.store import Store
from xray.errors import FlagError, InputError
from xray.findings import NO_FINDING_BOX, NO_FINDING_NAME
from xray.structures.masks import MaskError, encode_mask, resized_mask
from xray.structures.predictions import NO_FINDING_CATEGORY, Predictions, is_no_finding, read_predictions
from xray.structures.submission import read_submission
from xray.structures.values import Names, caseless, identity

ImageIds = Literal["auto", "source", "coco", "rows"]
CategoryIds = Literal["auto", "source", "dataset"]

IDS_HELP = (
    "What image_id means. source: the radiograph's own id, as infer writes it; coco: the id in the source's own COCO "
    "file; rows: the id in annotations.json of --data-path; auto: numbers are coco, texts source."
)
CATEGORY_IDS_HELP = (
    "What category_id means. source: the id in the source's own COCO file; dataset: the id in annotations.json of "
    "--data-path, as infer writes it; auto: what image_id, or the category's name in the file, says."
)

_Reading = Callable[[str | int], int | None]
_T = TypeVar("_T")


def read_any_predictions(
    path: Path, store: Store, ids: ImageIds = "auto", category_ids: CategoryIds = "auto"
) -> Predictions:
    """A submission.csv, or COCO results of any detector, with the ids of a dataset.

    ids, category_ids: what the file's ids mean, see `resolve`; a submission has Kaggle's class ids, category ids - 1,
    or with "source" the source's own.
    Raises InputError as `read_submission`, `read_predictions` and `resolve` do.
    """
    if path.suffix.lower() != ".csv":
        return resolve(store, read_predictions(path), path.name, ids, category_ids)
    submission = dataclasses.replace(read_submission(path), is_foreign=True)
    if ids == "auto" and all(name in store.index_of for name in submission.image_ids):
        ids = "source"
    if category_ids == "source":
        table = submission.table
        is_normal = is_no_finding(table)
        table = dataclasses.replace(table, labels=np.where(is_normal, table.labels, table.labels - 1))
        return resolve(store, dataclasses.replace(submission, table=table), path.name, ids, "source")
    return resolve(store, submission, path.name, ids, "dataset")


def read_all_predictions(
    paths: Sequence[Path], store: Store, ids: Sequence[ImageIds], category_ids: Sequence[CategoryIds]
) -> list[Predictions]:
    """`read_any_predictions` of several files. ids, category_ids: one for all, or one for each. Raises FlagError."""
    flags = zip(one_each(ids, len(paths), "ids"), one_each(category_ids, len(paths), "category-ids"), strict=True)
    return [read_any_predictions(path, store, *flag) for path, flag in zip(paths, flags, strict=True)]


def one_each(values: Sequence[_T], n: int, flag: str) -> list[_T]:
    """The value of a flag for each of n files. Raises FlagError unless it has one, or as many."""
    if len(values) not in (1, n):
        raise FlagError(f"--{flag} has {len(values)} values for {n} files: give one for all, or one for each")
    return list(values) * (n if len(values) == 1 else 1)


def resolve(
    store: Store,
    predictions: Predictions,
    name: str = "the predictions",
    ids: ImageIds = "auto",
    category_ids: CategoryIds = "auto",
) -> Predictions:
    """Predictions of a file with the ids of a dataset: image ids are source ids, labels its category ids.

    name: of the file, for messages. ids, category_ids: what its ids mean, see IDS_HELP and CATEGORY_IDS_HELP.
    Images that the dataset does not have keep their id, as text. Predictions that are not foreign stay as they are.
    Rows of "No finding" are left out where the dataset has a category of that id, for which they would be taken. A
    class that is called Normal or the like, and is none of the dataset's, is "No finding", whatever its boxes.

    Raises InputError where ids could be read in two ways that differ, or in none, and where no row is left.
    """
    if not predictions.is_foreign or not predictions.image_ids:
        return predictions
    predictions = with_named_normal(predictions, store.categories.values())
    if _is_own(store, predictions):
        ids = category_ids = "auto"
    renamed, meaning = _renamed(store, predictions, name, ids)
    labels = _labels(store, renamed, name, category_ids, meaning)
    resolved = dataclasses.replace(renamed, table=dataclasses.replace(renamed.table, labels=labels), names={})
    if NO_FINDING_CATEGORY not in store.categories:
        return with_one_row(resolved, labels == NO_FINDING_CATEGORY)
    is_other = caseless(store.categories.get(NO_FINDING_CATEGORY, NO_FINDING_NAME)) != caseless(NO_FINDING_NAME)
    return _without_normal(resolved, name, store) if is_other else resolved


def _without_normal(predictions: Predictions, name: str, store: Store) -> Predictions:
    """Without the rows of "No finding", whose id is another category's. Raises InputError where there are no others."""
    table = predictions.table
    is_normal = is_no_finding(table)
    if not is_normal.any():
        return predictions
    if is_normal.all():
        raise InputError(
            f"{name} has rows of {NO_FINDING_NAME} alone, which cannot be used beside {store.path}: category "
            f"{NO_FINDING_CATEGORY} is {store.categories[NO_FINDING_CATEGORY]} there"
        )
    kept, masks = table.select_masked(np.flatnonzero(~is_normal), predictions.masks)
    return dataclasses.replace(predictions, table=kept, masks=masks)


def resolve_images(store: Store, predictions: Predictions, name: str, ids: ImageIds = "auto") -> Predictions:
    """`resolve` of the image ids alone, for a model whose categories are not the dataset's."""
    if not predictions.is_foreign:
        return predictions
    return _renamed(store, predictions, name, "auto" if _is_own(store, predictions) else ids)[0]


def _is_own(store: Store, predictions: Predictions) -> bool:
    """Whether a file says itself what it means, as infer writes: texts that are source ids, categories by name."""
    used = set(np.unique(predictions.table.labels).tolist())
    return used <= predictions.names.keys() and all(name in store.index_of for name in predictions.image_ids)


def _renamed(store: Store, predictions: Predictions, name: str, ids: ImageIds) -> tuple[Predictions, str]:
    """Predictions with source ids in place of the file's own, and what those were: "source", "coco" or "rows"."""
    rows, of_files, meaning = _rows(store, predictions, name, ids)
    predictions = _in_original_pixels(store, predictions, rows, of_files)
    number: dict[str, int] = {}
    places = [
        number.setdefault(store.records[row]["source_id"] if row >= 0 else str(image_id), len(number))
        for image_id, row in zip(predictions.image_ids, rows, strict=True)
    ]
    images = np.array(places, dtype=np.int64)[predictions.table.images]
    table = dataclasses.replace(predictions.table, images=images)
    masks = _checked_masks(store, predictions, rows, name)
    renamed = dataclasses.replace(
        predictions, image_ids=tuple(number), table=table, masks=masks, is_foreign=False, files={}
    )
    return (renamed if len(number) == len(rows) else _without_repeats(renamed)), meaning


def _checked_masks(store: Store, predictions: Predictions, rows: list[int], name: str) -> dict[int, dict[str, Any]]:
    """The masks as compressed run lengths of their radiographs' sizes; they may be empty. Raises InputError."""
    masks: dict[int, dict[str, Any]] = {}
    for number, mask in predictions.masks.items():
        row = rows[predictions.table.images[number]]
        if row < 0:
            masks |= {number: mask} if isinstance(mask, dict) else {}
            continue
        record = store.records[row]
        try:
            masks[number], _ = encode_mask(mask, record["width"], record["height"], may_be_empty=True)
        except MaskError as error:
            raise InputError(f"{name}, row {number}: no mask of {record['source_id']} ({error})") from None
    return masks


def _without_repeats(predictions: Predictions) -> Predictions:
    """Without the rows that stand there twice, once for each of two ids of one radiograph."""
    table = predictions.table
    seen: dict[tuple[Any, ...], int] = {}
    for row, key in enumerate(
        zip(table.images.tolist(), table.labels.tolist(), *table.boxes.T.tolist(), table.scores.tolist(), strict=True)
    ):
        seen.setdefault((*key, str(predictions.masks.get(row))), row)
    distinct, masks = table.select_masked(np.array(list(seen.values()), dtype=np.int64), predictions.masks)
    return dataclasses.replace(predictions, table=distinct, masks=masks)


def _in_original_pixels(
    store: Store, predictions: Predictions, rows: list[int], of_files: Sequence[bool]
) -> Predictions:
    """Predictions in the pixels of the dataset's radiographs.

    of_files: whether an image is named as the source's own COCO file, or by its file: such predictions come from a tool
    that has read these, and count in their pixels. Only a source that says itself how large its originals were, as
    `xray export` does, has others: `file_width` and `file_height` in its records.
    """
    scales = np.ones((len(rows), 4))
    for image, (row, is_of_file) in enumerate(zip(rows, of_files, strict=True)):
        record = store.records[row] if row >= 0 and is_of_file else {}
        if "file_width" in record and "file_height" in record:
            scales[image] = np.tile([record[side] / record[f"file_{side}"] for side in ("width", "height")], 2)
    if (scales == 1).all():
        return predictions
    table = predictions.table
    masks = dict(predictions.masks)
    for number, mask in predictions.masks.items():
        x, y = scales[table.images[number]][:2].tolist()
        if (x, y) != (1, 1):
            record = store.records[rows[table.images[number]]]
            masks[number] = resized_mask(
                mask, record["file_width"], record["file_height"], record["width"], record["height"]
            )
    table = dataclasses.replace(table, boxes=table.boxes * scales[table.images])
    return dataclasses.replace(predictions, table=table, masks=masks)


def _rows(store: Store, predictions: Predictions, name: str, ids: ImageIds) -> tuple[list[int], list[bool], str]:
    """(row of each id, -1 for none; whether it is one of a COCO file or a file; what the ids are, "source", …)."""
    image_ids, readings = predictions.image_ids, _readings(store)
    if ids == "coco" and "coco" not in readings:
        raise InputError(f"--ids coco: {store.path} does not come from a COCO file: give --ids source or rows")
    # A row that names a file of the dataset says more than a number.
    files = predictions.files.items() if ids == "auto" else ()
    by_file = {image_id: row for image_id, file in files if (row := readings["source"](file)) is not None}
    others = [image_id for image_id in image_ids if image_id not in by_file]
    texts = [image_id for image_id in others if isinstance(image_id, str)]
    numbers = [image_id for image_id in others if not isinstance(image_id, str)]
    of_number: str = ids
    of_text: str = ids
    if ids == "auto":
        of_number = _reading_of_numbers(store, numbers, name, readings) if numbers else "source"
        of_text = _reading_of_texts(texts, name, readings, bool(predictions.names)) if texts else "source"
    rows = [
        by_file[image_id]
        if image_id in by_file
        else readings[of_text if isinstance(image_id, str) else of_number](image_id)
        for image_id in image_ids
    ]
    if image_ids and all(row is None for row in rows):
        raise InputError(
            f"none of the {len(image_ids)} images in {name} (such as {image_ids[0]!r}) is in {store.path}, whose "
            f"images are named like {store.records[0]['source_id']!r}: give the dataset they are of, or say with --ids "
            "what image_id means"
        )
    of_files = [
        image_id in by_file or (of_text if isinstance(image_id, str) else of_number) == "coco" for image_id in image_ids
    ]
    # Who names files may number categories in his own way.
    meaning = "source" if by_file else of_number if numbers else of_text
    return [-1 if row is None else row for row in rows], of_files, meaning


def _readings(store: Store) -> dict[str, _Reading]:
    """What an image id may mean → its row, None for none."""
    stems = Names(store.index_of)
    files = {record["file_name"]: row for row, record in enumerate(store.records)}
    counts = Counter(posixpath.basename(file) for file in files)
    files |= {posixpath.basename(file): row for file, row in files.items() if counts[posixpath.basename(file)] == 1}
    by_coco_id: dict[int | str, int] = {}
    shared: dict[int | str, tuple[str, str]] = {}
    for row, record in enumerate(store.records):
        for one in record.get("coco_ids", [record["coco_id"]] if "coco_id" in record else []):
            if one in by_coco_id:
                shared[one] = (store.records[by_coco_id[one]]["file_name"], record["file_name"])
            by_coco_id[one] = row

    def source(image_id: str | int) -> int | None:
        row = stems.get(image_id)
        # Some tools name a radiograph by its file: r1.png.
        return files.get(image_id.removeprefix("./")) if row is None and isinstance(image_id, str) else row

    def coco(image_id: str | int) -> int | None:
        own_id = identity(image_id)
        if own_id in shared:
            raise InputError(
                f"the image id {own_id!r} is that of {' and of '.join(shared[own_id])}, as each of the source's COCO "
                "files counts by itself: give rows with file_name, or convert that file alone with `convert coco`"
            )
        return None if own_id is None else by_coco_id.get(own_id)

    def row_number(image_id: str | int) -> int | None:
        number = identity(image_id)
        return number if isinstance(number, int) and 0 <= number < len(store) else None

    readings: dict[str, _Reading] = {"source": source, "rows": row_number}
    return readings | ({"coco": coco} if by_coco_id else {})


def _reading_of_numbers(store: Store, numbers: list[int], name: str, readings: dict[str, _Reading]) -> str:
    rows_by_meaning = {meaning: [read(number) for number in numbers] for meaning, read in readings.items()}
    hits = {meaning: sum(row is not None for row in rows) for meaning, rows in rows_by_meaning.items()}
    best = max(hits.values())
    if "coco" in rows_by_meaning:
        if hits["coco"] == best:
            return "coco"
        better = next(meaning for meaning, n in hits.items() if n == best)
        raise InputError(
            f"{name} numbers {len(numbers)} images, of which the source's own COCO file has {hits['coco']} and the "
            f"reading --ids {better} {best}: say with --ids coco or --ids {better} which is meant"
        )
    fitting = [meaning for meaning, n in hits.items() if n == best and n]
    if len({tuple(rows_by_meaning[meaning]) for meaning in fitting}) > 1:
        raise InputError(
            f"{name} numbers its images (such as {numbers[0]}), which may be names or rows of {store.path}: "
            "say with --ids source or --ids rows which is meant"
        )
    return fitting[0] if fitting else "source"


def _reading_of_texts(texts: list[str], name: str, readings: dict[str, _Reading], is_named: bool) -> str:
    """is_named: whether rows name their categories, as infer's do, whose ids are the radiographs' own."""
    by_name = [readings["source"](text) for text in texts]
    if "coco" not in readings or (is_named and any(row is not None for row in by_name)):
        return "source"
    by_coco_id = [readings["coco"](text) for text in texts]
    if all(row is None for row in by_coco_id) or (None in by_coco_id and None not in by_name) or by_coco_id == by_name:
        return "source"
    if any(row not in (None, other) for row, other in zip(by_name, by_coco_id, strict=True)):
        raise InputError(
            f"{name} names images like {texts[0]!r}, which may be ids of the source's COCO file or names of files: say "
            "with --ids coco or --ids source which is meant"
        )
    return "coco"


def _labels(store: Store, predictions: Predictions, name: str, category_ids: CategoryIds, meaning: str) -> np.ndarray:
    """(N,) the dataset's category id of each row."""
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
