"""Which radiographs train, validate and test, as the user says it: files of names, a table, or folders.

A test set never enters a fold, and of a patient who is in two splits only the radiographs of the one that is to be kept
clean stay: those of the test set before those that validate, and these before those that train.
"""

import dataclasses
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from xray.datasets.sizes import IDS
from xray.datasets.source import SPLITS, TRAIN, Dropped, Source, SourceImage
from xray.datasets.sources.named_files import NamedFiles, PathEnds
from xray.datasets.sources.patients import NAME_COLUMNS, PATIENT_COLUMNS
from xray.datasets.sources.splits import split_meant
from xray.datasets.sources.table_names import SPLITS as SPLIT_COLUMNS
from xray.datasets.sources.tables import plain_name, read_table, spellings
from xray.errors import FlagError, InputError
from xray.radiographs.file_warnings import FileWarning
from xray.structures.boxes import renumbered
from xray.structures.values import identity, is_missing, shown

NOT_NAMED = "radiograph that no split names"
NO_RADIOGRAPH = "name in a split that no radiograph has"
TWICE = "name that stands twice in its split, and counts once"
HALF_ROW = "row of a table of splits without a name or without a split, not used"
LEAK = "radiograph of a patient who is in another split"
LEAK_KEPT = "patient in two splits"

_QUOTES = " \t'\"\ufeff"
_CELLS = re.compile(r"[,;\t]")
_FLAG = re.compile(r"\s+(?:-?1|0)$")
_HEADERS = {
    "name": frozenset((*NAME_COLUMNS, *IDS, "name", "names", "dicomid", "uid", "train", "val", "test", "images")),
    "patient": frozenset((*PATIENT_COLUMNS, "patients")),
}
"""What a list's first line may be called, without case and punctuation."""


@dataclasses.dataclass(frozen=True)
class Named:
    """A name that was put into a split.

    place: where, "test.txt line 3". file: what was given for the split. heads: it stands in a first line, which may be
    the name of a column.
    """

    text: str
    split: str
    place: str
    file: str = ""
    heads: bool = False


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
    named, content = _read(splits, by, Path(data_path), warnings)
    rows_of = _by_patient(source.images) if by == "patient" else _by_name(source.images, named)
    split_by_row: dict[int, Named] = {}
    unknown: list[Named] = []
    fitting: dict[str, int] = {}
    for one in named:
        text, rows = _meant(one, rows_of)
        if not rows:
            # Lines may be comments, and the first one the name of a column.
            if not (one.text.startswith("#") or (one.heads and plain_name(text) in _HEADERS[by])):
                unknown.append(one)
            fitting.setdefault(one.file, 0)
            continue
        fitting[one.file] = fitting.get(one.file, 0) + 1
        if len(rows) > 1 and by == "name":
            files = " or ".join(source.images[row].file_name for row in rows[:3])
            raise InputError(f"{one.place}: {text} may be {files}: write the name with its folder")
        for row in rows:
            other = split_by_row.setdefault(row, one)
            if other.split != one.split:
                raise InputError(
                    f"{source.images[row].file_name} is in two splits, {other.split} ({other.place}) and {one.split} "
                    f"({one.place}): take it out of one of them"
                )
            if other is not one and by == "name":
                warnings.append(FileWarning(TWICE, one.place, f"{shown(text)}, {other.place}"))
    if nowhere := next((file for file, count in fitting.items() if not count), None):
        # Of a test set that is not found all would train.
        lost = [one for one in named if one.file == nowhere]
        first = next((one for one in lost if one in unknown), lost[0])
        example = source.images[0].patient if by == "patient" else source.images[0].file_name
        raise InputError(
            f"--splits {nowhere}: none of {len(lost)} names, such as {shown(first.text)}, is one of the "
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
    warnings = [*source.warnings, *warnings, *(FileWarning(NO_RADIOGRAPH, one.place, one.text) for one in unknown)]
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


def _read(splits: Sequence[str], by: str, data_path: Path, warnings: list[FileWarning]) -> tuple[list[Named], bytes]:
    """All names with their splits, and the bytes that they were read from."""
    given = []
    for text in splits:
        word, is_pair, rest = text.partition("=")
        given.append((split_meant(word), rest) if is_pair and split_meant(word) else (None, text))
        if is_pair and not split_meant(word) and not _found(text, data_path).exists():
            raise FlagError(f"--splits {text}: {word} is no split: write train=, val= or test=, or one table")
        if is_pair and not rest.strip():
            raise FlagError(f"--splits {text} names no file: write {text}FILE or {text}FOLDER")
    if len(given) > 1 and any(split is None for split, _ in given):
        raise FlagError("--splits is one table with a column of splits, or train=FILE, val=FILE and test=FILE")
    named: list[Named] = []
    contents = []
    for split, name in given:
        path = _found(name, data_path)
        if split is None:
            names, content = _read_table(path, by, warnings)
        elif path.is_dir():
            if by == "patient":
                raise FlagError(
                    f"--splits {split}={name}: a folder holds radiographs, so leave out --splits-by patient"
                )
            names, content = _read_folder(path, split, data_path)
        else:
            names, content = _read_names(path, split)
        if not names:
            raise InputError(f"--splits: {path} names nothing: leave it out, or write the names into it")
        given_as = name if split is None else f"{split}={name}"
        named += [dataclasses.replace(one, file=given_as) for one in names]
        contents.append(content)
    return named, b"\0".join(contents)


def _found(text: str, data_path: Path) -> Path:
    inside = data_path / text
    return inside if inside.is_dir() or (inside.exists() and not Path(text).exists()) else Path(text)


def _read_names(path: Path, split: str) -> tuple[list[Named], bytes]:
    try:
        content = path.read_bytes()
        # As some editors write "Unicode".
        is_wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = content.decode("utf-16" if is_wide else "utf-8-sig")
    except OSError as error:
        raise InputError(f"--splits: {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"--splits: {path} is no text in UTF-8: write a name a line") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    filled = [(number, line) for number, line in lines if line]
    head = next((number for number, line in filled if not line.startswith("#")), 0)
    for number, line in filled:
        cells = [cell.strip(_QUOTES) for cell in _CELLS.split(line)]
        other = next((cell for cell in cells[1:] if split_meant(cell) not in (None, split)), None)
        if not line.startswith("#") and other is not None:
            raise InputError(
                f"--splits {split}={path}: line {number} says {other}: give {path} without {split}= if it is a table "
                "of splits, or a file of the names alone"
            )
    place = f"{path.name} line"
    names = [Named(line, split, f"{place} {number}", heads=number == head) for number, line in filled]
    # Comments alone are no names.
    return names if head else [], content


def _meant(one: Named, rows_of: Callable[[str], list[int]]) -> tuple[str, list[int]]:
    """A name, and the rows that it means: a line as it stands, without its quotes, or the first cell of a line of
    several. Lists of VOC have 1, 0 or -1 behind the name."""
    text = one.text
    for tried in _spellings(text):
        if rows := rows_of(tried):
            return tried, rows
    return _CELLS.split(text)[0].strip(_QUOTES), []


def _spellings(text: str) -> list[str]:
    """The names that a line may hold, the likeliest first."""
    several = (text, text.strip(_QUOTES), _CELLS.split(text)[0].strip(_QUOTES), _FLAG.sub("", text))
    return [name for name in dict.fromkeys(several) if name]


def _read_folder(path: Path, split: str, data_path: Path) -> tuple[list[Named], bytes]:
    from xray.radiographs.radiograph import find_radiographs

    folder, root = Path(os.path.abspath(path)), Path(os.path.abspath(data_path))
    if not folder.is_relative_to(root):
        raise InputError(f"--splits {split}={path}: the folder is not in {data_path}: give one that is")
    names = [file.relative_to(root).as_posix() for file in find_radiographs(folder)]
    return [Named(name, split, f"{path.name}/") for name in names], "\n".join(names).encode("utf-8", "surrogateescape")


def _read_table(path: Path, by: str, warnings: list[FileWarning]) -> tuple[list[Named], bytes]:
    table, content = read_table(path)
    found = spellings(table.columns)
    wanted = PATIENT_COLUMNS if by == "patient" else (*NAME_COLUMNS, "name", "dicomid", "uid")
    column = next((found[name] for name in wanted if name in found), None)
    split = next((found[name] for name in SPLIT_COLUMNS if name in found), None)
    if column is None or split is None:
        what = "patient" if by == "patient" else "file_name"
        columns = ", ".join(name for name in table.columns if name != "line")
        raise InputError(f"--splits: {path} needs the columns {what} and split (found {columns}), or give train={path}")
    named = []
    for text, word, line in zip(table[column], table[split], table["line"], strict=True):
        if is_missing(text) or is_missing(word):
            if not (is_missing(text) and is_missing(word)):
                warnings.append(FileWarning(HALF_ROW, f"{path.name} line {line}", text or word))
            continue
        meant = split_meant(word)
        if meant is None:
            raise InputError(f"{path} line {line}: {shown(word)} is no split: write train, val or test")
        named.append(Named(text, meant, f"{path.name} line {line}"))
    return named, content


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
    texts = (text for one in named for text in _spellings(one.text))
    files = PathEnds(NamedFiles(image.file_name for image in images), texts)
    by_id: dict[str, list[int]] = defaultdict(list)
    by_file: dict[str, list[int]] = defaultdict(list)
    for row, image in enumerate(images):
        by_file[image.file_name].append(row)
        by_id[image.source_id].append(row)
    return lambda text: by_id.get(text) or [row for file in files.meant_by(text) for row in by_file[file]]
