"""VinBigData's files (the Kaggle challenge of 2020) → a source to convert.

Two layouts: the original, `train.csv`, `train/<image_id>.dicom`; and the 1024-pixel pictures made from it,
`train/<image_id>.png` with a table of the original sizes, in whose pixels the boxes stay. Where a `test_truth.csv`
stands beside `test/` (as with phantoms), the test images come along as the split "test".
"""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from xray.datasets import source as reasons
from xray.datasets.sizes import find_sizes, original_sizes, size_table
from xray.datasets.source import Dropped, Source, SourceImage, data_root, has_area, listed, natural, snap
from xray.datasets.sources.named_files import NamedFiles, resolve_ids, without_copies
from xray.datasets.sources.tables import each_text, factorize, read_table
from xray.errors import InputError, spelled
from xray.findings import CATEGORIES, FINDINGS, NO_FINDING, NO_FINDING_BOX, NO_FINDING_NAME
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.names import UNSAFE_NAME, WHAT_TO_DO, UnsafeNameError, check_inside, fault_of, is_inside
from xray.radiographs.radiograph import DICOM_SUFFIXES, PICTURE_SUFFIXES
from xray.structures.boxes import BoxTable
from xray.structures.values import is_missing, one_spelling

COORDINATES = ["x_min", "y_min", "x_max", "y_max"]
NEEDED = ["image_id", "class_id", *COORDINATES]

NAME_DISAGREES = "class name and id disagree"
NOT_LOOKED_AT = "pictures beside DICOM files, not looked at"

_NAMES = np.array([*FINDINGS, NO_FINDING_NAME])
_AS_WRITTEN = {name.casefold(): name for name in _NAMES.tolist()}


def is_raw_vinbig(path: Path | str) -> bool:
    """Whether `path` looks like VinBigData's own directory: train.csv beside train/."""
    path = Path(path)
    return (path / "train.csv").is_file() and (path / "train").is_dir()


def read_vinbig(data_path: Path | str, table_only: bool = False) -> Source:
    """Reads and cleans the tables of a VinBigData directory; looks at no pixel.

    table_only: the files of train/ are not looked for, and need not exist.

    Raises InputError for a missing directory or train.csv, a table that lacks a column, and pictures without a table
    of their original sizes.
    """
    root = data_root(
        data_path,
        "put VinBigData's train.csv and train/ there (kaggle competitions download -c "
        f"vinbigdata-chest-xray-abnormalities-detection), or make a stand-in with {spelled('phantoms')}",
    )
    if not (root / "train.csv").is_file():
        raise InputError(f"{root} has no train.csv: give the directory that holds VinBigData's train.csv and train/")
    if not table_only and not (root / "train").is_dir():
        raise InputError(f"{root} has no folder train/: put the radiographs of train.csv there")
    parts = [_read_split(root, "train", "train.csv", table_only)]
    if (root / "test_truth.csv").is_file() and (table_only or (root / "test").is_dir()):
        parts.append(_read_split(root, "test", "test_truth.csv", table_only))
    return _join(parts)


def _join(parts: list[Source]) -> Source:
    first, *others = parts
    for other in others:
        boxes = dataclasses.replace(other.boxes, images=other.boxes.images + len(first.images))
        first = dataclasses.replace(
            first,
            images=first.images + other.images,
            boxes=BoxTable.concatenate([first.boxes, boxes]),
            readers=first.readers + other.readers,
            places=first.places + other.places,
            dropped=first.dropped + other.dropped,
            warnings=first.warnings + other.warnings,
            fingerprint=hashlib.sha256((first.fingerprint + other.fingerprint).encode()).hexdigest(),
        )
    return first


def _read_split(root: Path, split: str, table_name: str, table_only: bool) -> Source:
    table, content = read_table(check_inside(root / table_name, root), NEEDED, ("rad_id", "class_name"))
    for column in ("rad_id", "class_name"):
        table[column] = table.get(column, "")
    table["class_name"] = each_text(table["class_name"], lambda name: _AS_WRITTEN.get(name.casefold(), name))
    dropped: list[Dropped] = []
    warnings: list[FileWarning] = []
    layout, names = ("table", []) if table_only else _list_files(root, split, dropped, warnings)
    files = None if table_only else NamedFiles(names)
    table, strays = _without_nameless(table, table_name, files, dropped)
    spelt, _ = factorize(table["image_id"])
    resolved = resolve_ids(spelt, files)
    table["image_id"] = each_text(table["image_id"], resolved.ids.__getitem__)
    readers, _ = factorize(table["rad_id"])
    reader_of = dict(zip(readers, one_spelling(readers), strict=True))
    table["rad_id"] = each_text(table["rad_id"], lambda name: reader_of[name] or "")
    rows = _clean(table, table_name, dropped)

    ids, image_of = factorize(table["image_id"])
    sizes, size_content = _read_sizes(root, split, table, ids)
    if layout == "pictures" and sizes is None:
        raise InputError(
            f"{root / split} holds pictures, and the boxes are in pixels of the original radiographs, whose size is "
            f"not known: put {split}_meta.csv (columns image_id,dim0,dim1) beside that folder, or width and height "
            f"into {table_name}"
        )
    has_box, has_lost = (np.bincount(image_of[rows[name]], minlength=len(ids)) > 0 for name in ("is_box", "is_lost"))
    images: list[SourceImage] = []
    number_of = np.full(len(ids), -1, dtype=np.int64)
    read_by = _readers_of_images(table, image_of, len(ids))
    for number, image_id in enumerate(ids):
        name = image_id if table_only else resolved.names.get(image_id)
        place = f"{split}/{image_id}"
        size = (sizes or {}).get(image_id) if layout != "dicom" else None
        if fault := fault_of(image_id):
            dropped.append(Dropped(f"{table_name}, {image_id[:80]!r}", UNSAFE_NAME, detail=fault))
        elif image_id in resolved.unclear:
            dropped.append(Dropped(place, reasons.REPEATED_NAME, detail=resolved.unclear[image_id]))
        elif name is None:
            dropped.append(Dropped(place, reasons.MISSING_FILE))
        elif layout == "pictures" and size is None:
            dropped.append(Dropped(place, reasons.SIZE_UNKNOWN))
        elif has_lost[number]:
            # What is known of it is not whole: what was left out would be learned as background.
            dropped.append(Dropped(place, reasons.LOST_ANNOTATION if has_box[number] else reasons.NO_BOX_LEFT))
        else:
            number_of[number] = len(images)
            width, height = size or (None, None)
            path = root / split / name
            by = read_by[number]
            images.append(SourceImage(path, f"{split}/{name}", image_id, None, split, width, height, readers=by))
    _check_strays(root / table_name, strays, len(images) - int(has_box[number_of >= 0].sum()))
    unlisted = set(files.names).difference(*map(files.meant_by, spelt)) if files else set()
    dropped += [Dropped(f"{split}/{name}", reasons.NOT_IN_TABLE) for name in sorted(unlisted)]
    box_rows = np.flatnonzero(rows["is_box"] & (number_of[image_of] >= 0))
    return Source(
        kind="vinbig",
        layout=layout,
        images=images,
        boxes=BoxTable.of(number_of[image_of[box_rows]], rows["class"][box_rows] + 1, rows["boxes"][box_rows]),
        readers=[(name,) if name else () for name in table["rad_id"].iloc[box_rows].tolist()],
        places=[f"{table_name} line {line}" for line in table["line"].iloc[box_rows].tolist()],
        categories=[dict(category) for category in CATEGORIES],
        fingerprint=hashlib.sha256(content + size_content).hexdigest(),
        dropped=dropped,
        warnings=warnings,
        squashed=layout == "pictures",
    )


def _numbers(column: pd.Series) -> np.ndarray:
    """Text → float64; NaN for what is empty or not a finite number."""
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def _clean(table: pd.DataFrame, table_name: str, dropped: list[Dropped]) -> dict[str, np.ndarray]:
    """Judges every row by itself and against the rows of the same image; each is left out for its first fault.

    Returns columns of the table's length: "class" (int64), "boxes" (N, 4) float64, "is_box" and "is_lost"
    (a finding's row that had to be left out).
    """
    boxes = snap(np.stack([_numbers(table[name]) for name in COORDINATES], axis=1))
    class_id = _numbers(table["class_id"])
    is_known = (class_id == np.floor(class_id)) & (class_id >= 0) & (class_id <= NO_FINDING)
    class_id = np.where(is_known, class_id, -1).astype(np.int64)
    name = table["class_name"].to_numpy(dtype=object)
    is_finding = is_known & (class_id != NO_FINDING)
    good = np.ones(len(table), dtype=bool)
    lines = table["line"].to_numpy()

    def leave_out(where: np.ndarray, reason: str) -> None:
        faulty = np.flatnonzero(good & where)
        dropped.extend(Dropped(f"{table_name} line {line}", reason) for line in lines[faulty].tolist())
        good[faulty] = False

    leave_out(~is_known, reasons.UNKNOWN_CLASS)
    leave_out((name != "") & (name != _NAMES[class_id]), NAME_DISAGREES)
    leave_out(is_finding & ~np.isfinite(boxes).all(axis=1), reasons.NOT_A_NUMBER)
    sides = boxes[:, 2:] - boxes[:, :2]
    leave_out(is_finding & (sides < 0).any(axis=1), reasons.INVERTED)
    leave_out(is_finding & ~has_area(boxes), reasons.EMPTY)
    is_lost = ~good & ~((class_id == NO_FINDING) & np.isin(name, ["", NO_FINDING_NAME]))

    # A row equals another by what it says, not by how its numbers are spelt.
    image_of, reader_of = (factorize(table[column])[1] for column in ("image_id", "rad_id"))
    coordinates = np.where(is_finding[:, None], boxes, 0.0)
    keys = pd.DataFrame(np.column_stack([image_of, reader_of, class_id, coordinates]))
    repeated = np.zeros(len(table), dtype=bool)
    repeated[good] = keys[good].duplicated().to_numpy()
    leave_out(repeated, reasons.DUPLICATE)

    # Readers may disagree with each other, but nobody sees nothing and something in the same radiograph.
    by = image_of * (int(reader_of.max(initial=0)) + 1) + reader_of
    leave_out((class_id == NO_FINDING) & np.isin(by, by[good & is_finding]), reasons.CONTRADICTORY)

    boxed = good & (class_id == NO_FINDING) & np.isfinite(boxes).any(axis=1) & (boxes != NO_FINDING_BOX).any(axis=1)
    dropped.extend(
        Dropped(f"{table_name} line {line}", reasons.BOX_WITHOUT_FINDING, "box ignored")
        for line in lines[boxed].tolist()
    )
    return {
        "class": class_id,
        "boxes": boxes,
        "is_box": good & is_finding,
        "is_lost": is_lost,
    }


def _without_nameless(
    table: pd.DataFrame, table_name: str, files: NamedFiles | None, dropped: list[Dropped]
) -> tuple[pd.DataFrame, list[str]]:
    """The rows that name a radiograph, and the places of those that name none although they have a finding."""
    texts, row_of = factorize(table["image_id"])
    is_empty = [is_missing(text) and not (files and files.meant_by(text)) for text in texts]
    is_nameless = np.array([*is_empty, False], dtype=bool)[row_of]
    cells = table[["class_id", "class_name", "rad_id", *COORDINATES]].to_numpy(dtype=object)
    is_blank = np.array([all(is_missing(cell) for cell in row) for row in cells[is_nameless].tolist()], dtype=bool)
    nameless = table[is_nameless][~is_blank]
    places = [f"{table_name} line {line}" for line in nameless["line"].tolist()]
    dropped += [Dropped(place, reasons.NO_ID) for place in places]
    is_normal = (_numbers(nameless["class_id"]) == NO_FINDING) & nameless["class_name"].isin(["", NO_FINDING_NAME])
    strays = [place for place, normal in zip(places, is_normal.tolist(), strict=True) if not normal]
    return table[~is_nameless].reset_index(drop=True), strays


def _check_strays(file: Path, strays: list[str], n_normal: int) -> None:
    """Raises InputError where a finding without an image id may be that of a radiograph that would pass for normal."""
    if strays and n_normal:
        raise InputError(
            f"{file} has {len(strays)} findings without an image_id (the first: {strays[0]}), so its {n_normal} "
            "radiographs without a box may not be normal: write the image_id there, or delete these rows"
        )


def _readers_of_images(table: pd.DataFrame, image_of: np.ndarray, n_images: int) -> list[tuple[str, ...]]:
    """Everybody with a row on the image, be the row good or not; R9 before R10."""
    names, reader_of = factorize(table["rad_id"])
    ordered = sorted(names, key=natural)
    rank = np.array([ordered.index(name) for name in names], dtype=np.int64)
    pairs = np.unique(np.stack([image_of, rank[reader_of]], axis=1), axis=0)
    readers: list[list[str]] = [[] for _ in range(n_images)]
    for image, reader in pairs.tolist():
        if ordered[reader]:
            readers[image].append(ordered[reader])
    return [tuple(of_image) for of_image in readers]


def _read_sizes(
    root: Path, split: str, table: pd.DataFrame, ids: list[str]
) -> tuple[dict[str, tuple[int, int]] | None, bytes]:
    """image_id → original (width, height), and the bytes of the tables it was read from; None without such a table."""
    in_table = size_table(root / f"{split}.csv", table, b"")
    tables = [in_table] if in_table is not None else find_sizes([root, root / split], [split])[0]
    originals = original_sizes(tables, [(f"{split}/{image_id}", image_id) for image_id in ids])
    sizes = {name: size for name, size in zip(ids, originals, strict=True) if isinstance(size, tuple)}
    return sizes if tables else None, b"".join(table.content for table in tables)


def _list_files(root: Path, split: str, dropped: list[Dropped], warnings: list[FileWarning]) -> tuple[str, list[str]]:
    """The layout of a folder of radiographs, "dicom" or "pictures", and the names of its files, read once.

    Where there are DICOM files, pictures beside them are not used, with a warning: the boxes are in the pixels of the
    DICOM files.
    """
    folder = root / split
    if not is_inside(folder, root):
        raise UnsafeNameError(f"{folder} is a link that leads out of {root}: {WHAT_TO_DO}")

    def files_with(suffixes: tuple[str, ...], left_out: list[Dropped]) -> list[Path]:
        return listed(folder, root, left_out, lambda path: path.name.lower().endswith(suffixes))

    before = len(dropped)
    for layout, suffixes in (("dicom", DICOM_SUFFIXES), ("pictures", PICTURE_SUFFIXES)):
        files = files_with(suffixes, dropped)
        if files and layout == "dicom" and (pictures := files_with(PICTURE_SUFFIXES, [])):
            examples = f"{len(pictures)} files, such as {pictures[0].name}"
            warnings.append(FileWarning(NOT_LOOKED_AT, f"{split}/", examples))
        if files:
            distinct = without_copies({f"{split}/{path.name}": path for path in files}, dropped)
            return layout, [name.removeprefix(f"{split}/") for name in distinct]
    if n_links := len(dropped) - before:
        raise InputError(
            f"{folder} holds {n_links} links that lead out of {root}, and no other radiograph: {WHAT_TO_DO}"
        )
    raise InputError(f"{folder} holds no .dicom, .dcm, .png or .jpg file: put the radiographs of the table there")
