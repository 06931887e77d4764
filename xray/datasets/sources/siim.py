"""SIIM-ACR Pneumothorax (the Kaggle challenge of 2019) → a source to convert; one category, "Pneumothorax".

Three kinds of table, told apart by their columns:

- `ImageId,EncodedPixels` with run lengths (train-rle.csv, stage_2_train.csv), the radiographs anywhere below the
  directory, named `<ImageId>.dcm`; test-rle-truth.csv, where it is (as with phantoms), makes the split "test";
- `new_filename,ImageId,has_pneumo` (stage_1_train_images.csv, stage_1_test_images.csv) with png_images/ and
  png_masks/ of equal names;
- `ImageId,Class` with 0 or 1, for classification alone.

Names of columns may be spelt in other letters' case and punctuation, ids and labels as any number is.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from xray.datasets import source as reasons
from xray.datasets.source import Dropped, Source, SourceImage, data_root
from xray.datasets.sources.mask_account import (
    WITH_IMAGE,
    MaskedImages,
    account_of,
    fault_of_mask,
    read_masks,
    unclear_tones,
)
from xray.datasets.sources.mask_folders import LEFT_OUT, without_masks
from xray.datasets.sources.mask_reading import (
    PictureRegions,
    Pictures,
    Runs,
    read_pictures,
    read_runs,
)
from xray.datasets.sources.mask_values import BLACK
from xray.datasets.sources.named_files import NamedFiles, resolve_ids, without_copies
from xray.datasets.sources.run_account import RunOutcome, check_dialect, judge_runs
from xray.datasets.sources.siim_tables import COLUMNS, Table, fault_of_rows, find_tables, grouped
from xray.errors import InputError, spelled
from xray.findings import FINDINGS, PNEUMOTHORAX
from xray.radiographs.file_kinds import Content, content_of
from xray.radiographs.file_warnings import FileWarning
from xray.radiographs.names import LINK_OUT, WHAT_TO_DO, UnsafeNameError, is_inside, leads_out
from xray.radiographs.radiograph import SUFFIXES, find_radiographs, source_id
from xray.radiographs.workers import Failed
from xray.structures import rle

CATEGORY = FINDINGS[PNEUMOTHORAX]

LABEL_DISAGREES = "label and mask disagree"


@dataclasses.dataclass(frozen=True)
class _Item:
    """A radiograph and what its table says of it.

    place: the first of its rows. values: the texts of all of them.
    mask: the picture of its mask, in the layout that has them.
    """

    image: SourceImage
    place: str
    values: tuple[str, ...]
    mask: Path | None = None


@dataclasses.dataclass(frozen=True)
class _Outcome(RunOutcome):
    """What was read of one radiograph's mask; picture: itself, where that is a picture."""

    picture: PictureRegions | None = None


def read_siim(
    data_path: Path | str,
    *,
    table: str | None = None,
    dialect: rle.Dialect = "relative",
    mask_size: int | None = None,
    n_workers: int = 1,
) -> Source:
    """Reads the table and the masks; of the radiographs, the headers of those with run lengths.

    table: the table, relative to `data_path`; found by itself where there is one, or one with a usual name.
    dialect: of the run lengths; SIIM's own are "relative".
    mask_size: side in pixels of the squares in which run lengths count, where the radiographs have been resized since.
    n_workers: processes that read masks; 0 reads them in this one.

    The rows of an image are joined, and each 8-connected component of its mask becomes one annotation. What is wrong
    with an image's rows or mask costs that image only.

    Raises InputError for a missing directory or table, and for a table most of whose masks fit the radiographs only in
    the other dialect, or not at all.
    """
    root = data_root(
        data_path,
        "put SIIM-ACR Pneumothorax there (train-rle.csv and dicom-images-train/), or make a stand-in with "
        f"{spelled('phantoms')}",
    )
    kind, tables = find_tables(root, table)
    gathered = MaskedImages()
    items = _items(root, kind, tables, gathered.dropped, gathered.warnings)
    if mask_size is not None and kind == "runs":
        images = [dataclasses.replace(item.image, width=mask_size, height=mask_size) for item in items]
        items = [dataclasses.replace(item, image=image) for item, image in zip(items, images, strict=True)]
    outcomes = _outcomes(root, kind, items, dialect, mask_size, n_workers)
    if kind == "runs":
        check_dialect(root / tables[0].name, outcomes, dialect, mask_size)
    used: list[tuple[str, PictureRegions]] = []
    for item, outcome in zip(items, outcomes, strict=True):
        if outcome.left_out is not None:
            gathered.dropped.append(outcome.left_out)
            continue
        gathered.add(item.image, outcome.regions, item.place)
        used += [(_mask_name(root, item), outcome.picture)] if outcome.picture else []
    gathered.warnings += account_of(used, (), offers=False)
    fingerprint = hashlib.sha256(b"".join(table.content for table in tables)).hexdigest()
    return gathered.source("siim", kind, [CATEGORY], fingerprint)


def _outcomes(
    root: Path, kind: str, items: Sequence[_Item], dialect: rle.Dialect, mask_size: int | None, n_workers: int
) -> list[_Outcome]:
    """What was read of the mask of each item, in worker processes; nothing is read where there is no mask."""
    with_mask = [item for item in items if (item.mask if kind == "pictures" else not _is_negative(kind, item))]
    if kind == "pictures":
        pictures = [Pictures(item.image.path, ((1, item.mask),)) for item in with_mask if item.mask]
        outcomes = list(read_masks(read_pictures, pictures, n_workers))
        unclear = unclear_tones(mask for one in outcomes if not isinstance(one, Failed) for mask in one[1])
        judged = [_judge_picture(root, item, one, unclear) for item, one in zip(with_mask, outcomes, strict=True)]
    else:
        size = (mask_size, mask_size) if mask_size else None
        runs = [Runs(item.image.path, item.values, dialect, size) for item in with_mask]
        read = read_masks(read_runs, runs, n_workers)
        judged = [
            _Outcome(**vars(judge_runs(item.image.file_name, item.image.source_id, item.place, dialect, outcome)))
            for item, outcome in zip(with_mask, read, strict=True)
        ]
    of_item = {id(item): outcome for item, outcome in zip(with_mask, judged, strict=True)}
    return [of_item.get(id(item), _Outcome()) for item in items]


def _is_negative(kind: str, item: _Item) -> bool:
    return kind == "labels" or all(map(rle.is_empty, item.values))


def _items(
    root: Path, kind: str, tables: Sequence[Table], dropped: list[Dropped], warnings: list[FileWarning]
) -> list[_Item]:
    """The radiographs that the tables list, without those whose rows contradict each other."""
    masks: Mapping[str, Path] = {}
    if kind == "pictures":
        paths, masks = (_list_names(root, folder, dropped) for folder in ("png_images", "png_masks"))
        expected = set(paths)
    else:
        paths, expected = _list_radiographs(root, dropped, warnings)
    folder = "png_images/" if kind == "pictures" else ""
    files, mask_files = NamedFiles(paths), NamedFiles(masks)
    texts = dict.fromkeys(text for table in tables for text in table.rows[COLUMNS[kind][0]].tolist() if text)
    resolved, meant = resolve_ids(texts, files), {name for text in texts for name in files.meant_by(text)}
    items: dict[str, _Item] = {}
    used: set[str] = set()
    for table in tables:
        names = table.rows[COLUMNS[kind][0]]
        columns = zip(names.tolist(), table.rows.get("ImageId", names).tolist(), strict=True)
        siim_ids = {resolved.ids[name]: siim_id for name, siim_id in columns if name}
        for image_id, (place, values) in grouped(table, kind, root, resolved, dropped).items():
            name = resolved.names.get(image_id)
            mask = _mask_of(name or image_id, image_id, masks, mask_files)
            used |= {mask} if mask else set()
            fault = reasons.DUPLICATE if image_id in items else fault_of_rows(kind, values)
            if image_id in resolved.unclear:
                dropped.append(Dropped(place, reasons.REPEATED_NAME, WITH_IMAGE, resolved.unclear[image_id]))
            elif name is None:
                has_mask = mask or (kind == "runs" and not all(map(rle.is_empty, values)))
                reason = reasons.MASK_WITHOUT_IMAGE if has_mask else reasons.MISSING_FILE
                dropped.append(Dropped(place, reason, detail=image_id))
            elif fault is not None:
                dropped.append(Dropped(place, fault, WITH_IMAGE, name if kind == "pictures" else image_id))
            elif kind == "pictures" and mask is None and values == ["1"]:
                dropped.append(Dropped(f"{folder}{name}", reasons.IMAGE_WITHOUT_MASK))
            else:
                image = SourceImage(
                    paths[name],
                    f"{folder}{name}",
                    image_id,
                    split=table.split,
                    labels=(1,) * int(values[0]) if kind == "labels" else None,
                    extra={"siim_id": siim_ids[image_id]} if kind == "pictures" else {},
                )
                items[image_id] = _Item(image, place, tuple(values), masks[mask] if mask else None)
    reason = reasons.IMAGE_WITHOUT_MASK if kind == "runs" else reasons.NOT_IN_TABLE
    unlisted = (expected & paths.keys()) - meant
    order = sorted(unlisted) if kind == "pictures" else sorted(unlisted, key=lambda name: (source_id(name), name))
    dropped += [Dropped(f"{folder}{name}", reason) for name in order]
    dropped += [Dropped(f"png_masks/{name}", reasons.NOT_IN_TABLE) for name in sorted(masks.keys() - used)]
    return list(items.values())


def _list_radiographs(
    root: Path, dropped: list[Dropped], warnings: list[FileWarning]
) -> tuple[dict[str, Path], set[str]]:
    """Name → file of all radiographs below a directory, and the names that a training table should know."""
    files: dict[str, Path] = {}
    expected = set()
    for entry in sorted(root.iterdir()):
        if entry.name.startswith("."):
            continue
        if "mask" in entry.name.lower():
            if entry.is_dir():
                warnings.append(FileWarning(LEFT_OUT, f"{entry.name}/"))
            continue
        if leads_out(entry, root):
            dropped.append(Dropped(entry.name, LINK_OUT))
            continue
        if entry.is_dir():
            try:
                radiographs = find_radiographs(entry, root, warnings)
            except InputError:
                continue
        else:
            radiographs = [entry] if content_of(entry, SUFFIXES) == Content.RADIOGRAPH else []
        # Stage 2 made a training set of both folders of stage 1, and kept its own radiographs to itself.
        is_test = "test" in entry.name.lower() or entry.name == "stage_2_images"
        names = [path.relative_to(root).as_posix() for path in radiographs]
        files |= zip(names, radiographs, strict=True)
        expected |= set() if is_test else set(names)
    remaining, masks = without_masks(list(files.values()), root)
    warnings += masks
    is_radiograph = set(remaining)
    return without_copies({name: path for name, path in files.items() if path in is_radiograph}, dropped), expected


def _mask_of(name: str, image_id: str, masks: Mapping[str, Path], files: NamedFiles) -> str | None:
    """The mask of an image's name; of its stem alone only where no other image has that."""
    if name in masks:
        return name
    candidates = files.meant_by(name) if image_id == source_id(name) else []
    return candidates[0] if len(candidates) == 1 else None


def _list_names(root: Path, name: str, dropped: list[Dropped]) -> Mapping[str, Path]:
    folder = root / name
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: stage_1_train_images.csv needs png_images/, png_masks/")
    if not is_inside(folder, root):
        raise UnsafeNameError(f"{folder} is a link that leads out of {root}: {WHAT_TO_DO}")
    paths = {path.name: path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES}
    linked_out = sorted(file_name for file_name, path in paths.items() if leads_out(path, root))
    dropped += [Dropped(f"{name}/{file_name}", LINK_OUT) for file_name in linked_out]
    return {file_name: path for file_name, path in paths.items() if file_name not in set(linked_out)}


def _judge_picture(
    root: Path,
    item: _Item,
    outcome: tuple[tuple[int, int], list[PictureRegions]] | Failed,
    unclear: frozenset[str],
) -> _Outcome:
    name = _mask_name(root, item)
    if isinstance(outcome, Failed):
        return _Outcome(left_out=Dropped(item.image.file_name, reasons.UNREADABLE, detail=outcome.reason))
    size, (mask,) = outcome
    # A black mask of a radiograph without findings is empty, however the others are drawn.
    fault = fault_of_mask(mask, size, unclear - {BLACK} if item.values == ("0",) else unclear)
    if fault is None and bool(mask.regions) != (item.values == ("1",)):
        fault = LABEL_DISAGREES, f"has_pneumo is {item.values[0]}"
    if fault is not None:
        return _Outcome(left_out=Dropped(name, fault[0], WITH_IMAGE, fault[1]))
    return _Outcome(mask.regions, picture=mask)


def _mask_name(root: Path, item: _Item) -> str:
    return item.mask.relative_to(root).as_posix() if item.mask else ""
