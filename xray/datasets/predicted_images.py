"""Which radiographs of a dataset the image ids of a predictions file mean, by three readings of them."""

import posixpath
from collections import Counter
from collections.abc import Callable
from typing import Literal

from xray.datasets.store import Store
from xray.errors import InputError
from xray.structures.predictions import Predictions
from xray.structures.values import Names, identity

ImageIds = Literal["auto", "source", "coco", "rows"]
_Reading = Callable[[str | int], int | None]


def find_images(store: Store, predictions: Predictions, name: str, ids: ImageIds) -> tuple[list[int], list[bool], str]:
    """Which radiograph each image id of a predictions file means.

    name: of the file, for messages.
    Returns the row of each image id (-1 where the dataset does not have it); whether the id is that of a COCO file, or
    the row named a picture file; and how the ids were read: "source", "coco" or "rows".
    Raises InputError where ids could be read in two ways that differ, or in none.
    """
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
