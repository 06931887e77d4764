"""Which radiographs train, validate and test, as the user says it: files of names, a table, or folders.

A test set never enters a fold, and of a patient who is in two splits only the radiographs of the one that is to be kept
clean stay: those of the test set before those that validate, and these before those that train.
"""

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from xray.datasets.source import SPLITS, TRAIN, Dropped, Source, SourceImage
from xray.datasets.sources.named_files import NamedFiles, PathEnds
from xray.datasets.split_files import Named, read_splits
from xray.errors import InputError
from xray.radiographs.file_warnings import FileWarning
from xray.structures.boxes import renumbered
from xray.structures.values import identity, shown

NOT_NAMED = "radiograph that no split names"
NO_RADIOGRAPH = "name in a split that no radiograph has"
TWICE = "name that stands twice in its split, and counts once"
LEAK = "radiograph of a patient who is in another split"
LEAK_KEPT = "patient in two splits"


def apply_splits(source: Source, splits: Sequence[str], by: str = "name", data_path: Path | str = ".") -> Source:
    """The source with the splits that its user gives.

    splits: `train=FILE`, `val=FILE`, `test=FILE` of names, a name a line, or `test=FOLDER` with radiographs; several of
        one split add up. Or one table with a column of names and one of splits. Files are relative to the working
        directory or to `data_path`, the source's directory; folders to `data_path` first.
    by: "name", names are those of files, with or without folders and suffix, or ids; "patient", they are patients'.

    Radiographs that nothing names keep the split of their source; where it is said what trains, they are left out.
    Names that no radiograph has are counted in the source's warnings.

    Raises FlagError for values of another form, and InputError for files that cannot be read, for a name in two splits,
    one that may be several radiographs, and where no name of a file fits.
    """
    warnings: list[FileWarning] = []
    named, content = read_splits(splits, by, Path(data_path), warnings)
    rows_of = _by_patient(source.images) if by == "patient" else _by_name(source.images, named)
    split_by_row: dict[int, Named] = {}
    unknown: list[tuple[Named, str]] = []
    fitting: dict[str, int] = {}
    for one, text, rows in ((line, name, of_name) for line in named for name, of_name in line.meant(rows_of)):
        if not rows:
            # Lines may be comments, and the first one the name of a column.
            if one.is_name(by):
                unknown.append((one, text))
            fitting.setdefault(one.file, 0)
            continue
        fitting[one.file] = fitting.get(one.file, 0) + 1
        if len(rows) > 1 and by == "name":
            files = " or ".join(source.images[row].file_name for row in rows[:3])
            raise InputError(f"{one.place}: {text} may be {files}: write the name with its folder")
        for row in rows:
            is_first = row not in split_by_row
            other = split_by_row.setdefault(row, one)
            if other.split != one.split:
                raise InputError(
                    f"{source.images[row].file_name} is in two splits, {other.split} ({other.place}) and {one.split} "
                    f"({one.place}): take it out of one of them"
                )
            if not is_first and by == "name":
                warnings.append(FileWarning(TWICE, one.place, f"{shown(text)}, {other.place}"))
    if nowhere := next((file for file, count in fitting.items() if not count), None):
        # Of a test set that is not found all would train.
        lost = [one for one in named if one.file == nowhere]
        first = next((text for one, text in unknown if one.file == nowhere), lost[0].shown)
        example = source.images[0].patient if by == "patient" else source.images[0].file_name
        raise InputError(
            f"--splits {nowhere}: none of {len(lost)} names, such as {shown(first)}, is one of the "
            f"{len(source.images)} {'patients' if by == 'patient' else 'radiographs'}, such as {example!r}: check "
            "--splits and --splits-by"
        )
    says_what_trains = any(one.split == TRAIN for one in named)
    images, kept, dropped = [], [], list(source.dropped)
    for row, image in enumerate(source.images):
        if row in split_by_row:
            images.append(dataclasses.replace(image, split=split_by_row[row].split))
            kept.append(row)
        elif says_what_trains:
            dropped.append(Dropped(image.file_name, NOT_NAMED))
        else:
            images.append(image)
            kept.append(row)
    warnings = [*source.warnings, *warnings, *(FileWarning(NO_RADIOGRAPH, one.place, text) for one, text in unknown)]
    counts = {split: sum(image.split == split for image in images) for split in SPLITS}
    note = {"by": by, "given": [Path(text).name for text in splits], "images": counts, "names_unknown": len(unknown)}
    fingerprint = hashlib.sha256((source.fingerprint + hashlib.sha256(content).hexdigest() + by).encode()).hexdigest()
    source = dataclasses.replace(
        source, dropped=dropped, warnings=warnings, fingerprint=fingerprint, notes=source.notes | {"splits": note}
    )
    return with_images(source, images, kept)


def without_leaks(source: Source, keep: bool = False) -> Source:
    """The source without radiographs whose patient is also in a split that must not know them, counted and named.

    Those that train go where the patient also validates or tests, those that validate where he tests. keep: all stay,
    and the patients are named in the warnings.
    """
    # Ascending by who must not know them.
    rank = {split: number for number, split in enumerate(SPLITS)}
    highest: dict[str, int] = {}
    for image in source.images:
        if image.patient is not None:
            highest[image.patient] = max(highest.get(image.patient, 0), rank[image.split])
    leaks = {
        row: f"{image.split} and {SPLITS[highest[image.patient]]}"
        for row, image in enumerate(source.images)
        if image.patient is not None and rank[image.split] < highest[image.patient]
    }
    if not leaks:
        return source
    places = [(source.images[row].file_name, where) for row, where in leaks.items()]
    if keep:
        warnings = [FileWarning(LEAK_KEPT, name, f"{where}, --leaks keep") for name, where in places]
        return dataclasses.replace(source, warnings=source.warnings + warnings)
    kept = [row for row in range(len(source.images)) if row not in leaks]
    dropped = source.dropped + [Dropped(name, LEAK, detail=where) for name, where in places]
    patients = len({source.images[row].patient for row in leaks})
    said = f"{patients} patients are in two splits: their radiographs stay in the one that is kept clean (--leaks)"
    warning = FileWarning(LEAK_KEPT, places[0][0], said if patients > 1 else said.replace("patients are", "patient is"))
    source = dataclasses.replace(source, dropped=dropped, warnings=[*source.warnings, warning])
    return with_images(source, [source.images[row] for row in kept], kept)


def with_images(source: Source, images: Sequence[SourceImage], kept: Sequence[int]) -> Source:
    """The source with these images alone; kept: the rows that they had, ascending."""
    import numpy as np

    if len(kept) == len(source.images):
        return dataclasses.replace(source, images=list(images))
    position = np.full(len(source.images), -1, dtype=np.int64)
    position[list(kept)] = np.arange(len(kept))
    rows = np.flatnonzero(position[source.boxes.images] >= 0)
    boxes = source.boxes.select(rows)
    return dataclasses.replace(
        source,
        images=list(images),
        boxes=dataclasses.replace(boxes, images=position[boxes.images]),
        readers=[source.readers[row] for row in rows.tolist()],
        places=[source.places[row] for row in rows.tolist()],
        masks=renumbered(source.masks, rows),
    )


def _by_patient(images: Sequence[SourceImage]) -> Callable[[str], list[int]]:
    rows: dict[int | str | None, list[int]] = defaultdict(list)
    for row, image in enumerate(images):
        if image.patient is not None:
            rows[identity(image.patient)].append(row)
    if not rows:
        raise InputError("--splits-by patient: the source names no patients: give names of files")
    return lambda text: rows.get(identity(text), [])


def _by_name(images: Sequence[SourceImage], named: Sequence[Named]) -> Callable[[str], list[int]]:
    """What finds the images that a name may mean: by id or file name, or by the end of a path that begins elsewhere."""
    texts = (text for one in named for text in one.spellings())
    files = PathEnds(NamedFiles(image.file_name for image in images), texts)
    by_id: dict[str, list[int]] = defaultdict(list)
    by_file: dict[str, list[int]] = defaultdict(list)
    for row, image in enumerate(images):
        by_file[image.file_name].append(row)
        by_id[image.source_id].append(row)
    return lambda text: by_id.get(text) or [row for file in files.meant_by(text) for row in by_file[file]]
