"""What the columns of anybody's table are: named by flags, or found by the usual spellings of their names."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from xray.datasets.sizes import IDS, size_columns
from xray.datasets.sources.box_names import FORMS, Form, boxes_among, keyed_form
from xray.datasets.sources.named_files import NamedFiles, PathEnds
from xray.datasets.sources.patients import PATIENT_COLUMNS
from xray.datasets.sources.review_words import is_of_passing, is_of_taking, is_review
from xray.datasets.sources.splits import split_meant
from xray.datasets.sources.table_answers import is_answers, is_named_as_split, is_uncertain_alone, no_answer
from xray.datasets.sources.table_beside import OF_ANSWERS, SAID, doubts_of, said_column
from xray.datasets.sources.table_names import AGES, LABELS, NO_LABELS, NOTHING_ELSE, READERS, SEXES, SPLITS, VIEWS
from xray.datasets.sources.table_review import OF_REVIEW, Review, doubtful_reviews, reviews_in
from xray.datasets.sources.tables import factorize, plain_name, spellings
from xray.errors import InputError
from xray.structures.values import is_missing

if TYPE_CHECKING:
    import pandas as pd

_LISTS = ("bbox", "box", "bboxes", "boxes", "boundingbox", "boundingboxes", "coordinates", "bboxcoordinates", "roi")
_PIXELS = ("inpixels", "pixels", "pixel", "px")
_OF_BOXES = ("boundingbox", "bbox", "box", "roi", "lesion")
_MOST_TRIED = 300
"""Distinct ids by which it is decided which column names the files."""


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns that are used, as the table spells them; None or () for what it does not have.

    labels: one of names, or one or more that hold 0 and 1 (is_wide). box: four, or one that holds lists, whose numbers
    are of `form`. size: width and height of the radiograph. silent: columns beside labels of 0, 1 and -1 that hold -1
    alone, and are not used. said: a column that says whether each row's label is there. reviews: columns that say which
    rows count, see `table_review`. unused: all others that are not used. doubts: what is said of columns beside the
    labels → these columns, see `table_beside`.
    """

    id: str
    labels: tuple[str, ...] = ()
    is_wide: bool = False
    box: tuple[str, ...] = ()
    form: Form | None = None
    size: tuple[str, str] | None = None
    patient: str | None = None
    split: str | None = None
    reader: str | None = None
    view: str | None = None
    sex: str | None = None
    age: str | None = None
    silent: tuple[str, ...] = ()
    said: str | None = None
    reviews: tuple[Review, ...] = ()
    unused: tuple[str, ...] = ()
    doubts: Mapping[str, list[str]] = dataclasses.field(default_factory=dict)

    def in_words(self) -> str:
        """One line that says what was taken for what."""
        boxes = f"boxes by {', '.join(self.box)} ({self.form})" if self.box else "no boxes"
        labels = ", ".join(self.labels[:6]) + (f" and {len(self.labels) - 6} more" if len(self.labels) > 6 else "")
        parts = [f"radiographs by {self.id}", f"labels by {labels or 'no column'}", boxes]
        parts += [f"whether a row's label is there by {self.said}"] if self.said else []
        parts += [f"which rows count by {', '.join(each.column for each in self.reviews)}"] if self.reviews else []
        further = {"sizes": self.size and ", ".join(self.size), "patients": self.patient, "splits": self.split}
        further |= {"readers": self.reader, "view": self.view, "sex": self.sex, "age": self.age}
        unused = ", ".join(self.unused[:6]) + (f" and {len(self.unused) - 6} more" if len(self.unused) > 6 else "")
        used = ", ".join(parts + [f"{what} by {column}" for what, column in further.items() if column])
        return used + (f"; not used: {unused}" if unused else "")


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What the flags of `convert table` say of columns; "" or () for nothing, "none" for that there is none."""

    id: str = ""
    label: str = ""
    box: Form | None = None
    columns: str = ""
    patient: str = ""
    split: str = ""
    reader: str = ""
    width: str = ""
    height: str = ""
    view: str = ""
    sex: str = ""
    age: str = ""


def find_columns(table: "pd.DataFrame", name: str, files: NamedFiles, chosen: Chosen) -> Columns:
    """The columns of a table. name: of its file, for messages.

    Raises InputError where a flag names a column that is not there, and where none names the radiographs or which
    numbers are a box's is not clear.
    """
    find = _Finder(table, name)
    own_id = find.named("id", chosen.id) or _id_column(find, files)
    if not chosen.id and files.meant_by(own_id) and plain_name(own_id) not in IDS:
        raise InputError(
            f"{name} has no header: {own_id} in its first line is a radiograph. Write the names of the columns above it"
        )
    find.used.add(own_id)
    box, form = _box_columns(find, chosen)
    find.used.update(box)
    size = _size_columns(find, chosen)
    find.used.update(size or ())
    one_of = {"patient": PATIENT_COLUMNS, "reader": READERS, "view": VIEWS, "sex": SEXES, "age": AGES}
    single = {what: find.one(what, getattr(chosen, what), names) for what, names in one_of.items()}
    split = _split_column(find, chosen.split)
    find.used.update(column for column in (*single.values(), split) if column)
    labels, is_wide = _label_columns(find, chosen.label, is_split_said=bool(split or chosen.split))
    free = [column for column in find.all if is_wide and column not in find.used and column not in labels]
    silent = tuple(column for column in free if is_uncertain_alone(find.texts(column)))
    beside = [column for column in find.all if column not in (*find.used, *labels, *silent)]
    counts = {column: find.counts(column) for column in beside}
    said = said_column(counts, name) if labels and not is_wide else None
    counts.pop(said or "", None)
    reviews = reviews_in(counts, name)
    for review in reviews:
        counts.pop(review.column)
    unsigned = {column: texts for column, texts in counts.items() if not is_of_passing(column)}
    doubts = doubts_of(unsigned, NO_LABELS, bool(box)) if labels and not is_wide else {}
    if is_wide and (
        answers := [column for column in counts if plain_name(column) in SAID and is_answers(counts[column])]
    ):
        doubts[OF_ANSWERS] = answers
    if of_review := doubtful_reviews(counts, len(table)):
        doubts[OF_REVIEW] = of_review
    columns = Columns(
        own_id, labels, is_wide, box, form, size, split=split, silent=silent, said=said, reviews=(), unused=(),
        doubts={}, **single,
    )  # fmt: skip
    return dataclasses.replace(columns, reviews=reviews, unused=tuple(counts), doubts=doubts)


class _Finder:
    """The columns of a table by name, and those that have a use already."""

    def __init__(self, table: "pd.DataFrame", name: str) -> None:
        self.table, self.name = table, name
        self.all = [column for column in table.columns if column != "line"]
        self.plain = spellings(self.all)
        self.used: set[str] = set()

    def named(self, flag: str, text: str) -> str | None:
        """The column that a flag names; None where it says nothing or "none"."""
        if not text or (text == "none" and text not in self.all):
            return None
        if text in self.all:
            return text
        alike = [column for column in self.all if plain_name(column) == plain_name(text) and plain_name(text)]
        if len(alike) != 1:
            raise InputError(f"--{flag} {text}: {self.name} has no such column (found {', '.join(self.all[:40])})")
        return alike[0]

    def one(self, flag: str, text: str, names: Iterable[str]) -> str | None:
        """The column that a flag names, or the first of the usual names that is not used yet."""
        if text:
            return self.named(flag, text)
        return next(
            (self.plain[name] for name in names if name in self.plain and self.plain[name] not in self.used), None
        )

    def texts(self, column: str) -> list[str]:
        """The distinct cells of a column that are not empty."""
        return [text for text in factorize(self.table[column])[0] if not is_missing(text)]

    def counts(self, column: str) -> dict[str, int]:
        """Each of them, and in how many rows it stands."""
        texts, code_of = factorize(self.table[column])
        n_rows = np.bincount(code_of[code_of >= 0], minlength=len(texts)).tolist()
        return {text: count for text, count in zip(texts, n_rows, strict=True) if not is_missing(text)}


def _id_column(find: _Finder, files: NamedFiles) -> str:
    """The column whose cells name most files; of equal ones that with the more usual name."""

    def hits(column: str) -> float:
        texts = find.texts(column)[:_MOST_TRIED]
        ends = PathEnds(files, texts)
        return sum(bool(ends.meant_by(text)) for text in texts) / len(texts) if texts else 0.0

    usual = [find.plain[name] for name in IDS if name in find.plain]
    others = [column for column in find.all if column not in usual]
    scored = [(hits(column), column) for column in usual]
    if not any(share > 0.5 for share, _ in scored):
        scored += [(share, column) for column in others if (share := hits(column)) > 0.5]
    if not scored:
        columns = ", ".join(find.all[:40])
        raise InputError(f"no column of {find.name} names the radiographs (found {columns}): name it with --id")
    return max(scored, key=lambda pair: pair[0])[1]


def _box_columns(find: _Finder, chosen: Chosen) -> tuple[tuple[str, ...], Form | None]:
    if chosen.columns == "none":
        return (), None
    if chosen.columns:
        names = [chosen.columns] if chosen.columns in find.all else chosen.columns.split(",")
        columns = tuple(filter(None, (find.named("columns", name.strip()) for name in names)))
        if len(columns) not in (1, 4):
            raise InputError(f"--columns {chosen.columns}: give four columns, or one that holds lists of four numbers")
        if len(columns) == 1:
            return columns, _form_of_list(find, columns[0], chosen.box)
        return columns, chosen.box or _form_by_names(find, columns)
    named = _by_names(find)
    lists = [column for column in find.all if column not in find.used and _is_list(column)]
    fitting = [one for one in named if chosen.box in (None, one[1])] or named
    if fitting:
        return fitting[0][0], chosen.box or fitting[0][1]
    if lists:
        return (lists[0],), _form_of_list(find, lists[0], chosen.box)
    if chosen.box:
        have = ", ".join(find.all[:40])
        raise InputError(f"no columns of {find.name} are boxes (found {have}): name them with --columns x,y,w,h")
    return (), None


def _core(name: str) -> str:
    """A column's plain name without the word for a box before or behind it, and without pixels as its unit."""
    for unit in _PIXELS:
        if name.endswith(unit) and name != unit:
            name = name.removesuffix(unit)
            break
    for word in _OF_BOXES:
        if name.startswith(word) and len(name) > len(word):
            return name.removeprefix(word)
        if name.endswith(word) and len(name) > len(word):
            return name.removesuffix(word)
    return name


def _by_names(find: _Finder) -> list[tuple[tuple[str, ...], Form]]:
    """Four columns whose names are those of a box, and its form: those with a word for boxes first."""
    free = {name: column for name, column in find.plain.items() if column not in find.used}
    cores: dict[str, str] = {}
    for name, column in free.items():
        if _core(name) != name:
            cores.setdefault(_core(name), column)
    # bbox_x, y, w, h: only the first may have the word.
    return list(dict.fromkeys([*boxes_among(free | cores), *boxes_among(free)]))


def _is_list(column: str) -> bool:
    name = plain_name(column)
    for form in FORMS:
        name = name.removesuffix(form)
    return name in _LISTS


def _form_of_list(find: _Finder, column: str, chosen: Form | None) -> Form:
    """The form of a column's lists: that of the names in them, {'x': …}, or that of its own name."""
    named = keyed_form(find.texts(column))
    if named and chosen not in (None, named):
        raise InputError(f"--box {chosen}: the numbers in {column} of {find.name} have the names of {named}")
    return named or chosen or _form_by_names(find, (column,))


def _form_by_names(find: _Finder, columns: Sequence[str]) -> Form:
    if len(columns) == 1:
        for form in sorted(FORMS, key=len, reverse=True):
            if plain_name(columns[0]).endswith(form):
                return form
    for names, form in _by_names(find):
        if names == tuple(columns):
            return form
    raise InputError(
        f"{find.name}: are {', '.join(columns)} x, y, width, height, or two corners, or a centre, width and height? "
        "Say with --box xywh, xyxy or cxcywh"
    )


def _size_columns(find: _Finder, chosen: Chosen) -> tuple[str, str] | None:
    width, height = find.named("width", chosen.width), find.named("height", chosen.height)
    if (width is None) != (height is None):
        raise InputError("--width and --height are the sides of the radiographs: give both columns, or neither")
    if width and height:
        return width, height
    if "none" in (chosen.width, chosen.height):
        return None
    return size_columns([column for column in find.all if column not in find.used])


def _split_column(find: _Finder, text: str) -> str | None:
    """The column of splits; where no flag names it, one of the usual name all whose cells are splits, or another one
    whose cells can be nothing else.

    Raises InputError for one of which some are: what the others mean is not known, and nothing may train that is tested
    on.
    """
    if text:
        return find.named("split", text)
    for name in SPLITS:
        column = find.plain.get(name)
        if column is None or column in find.used or not (texts := find.texts(column)):
            continue
        others = [cell for cell in texts if split_meant(cell) is None]
        if not others:
            return column
        if len(others) < len(texts) or name in NOTHING_ELSE:
            raise InputError(
                f"{find.name}: {others[0]!r} in {column} is no split: write train, val or test there, or give "
                "--split none if all radiographs train"
            )
    free = [column for column in find.all if column not in find.used]
    meant = {column: [split_meant(cell) for cell in find.texts(column)] for column in free}
    return next((column for column, splits in meant.items() if None not in splits and len(set(splits)) > 1), None)


def _label_columns(find: _Finder, text: str, is_split_said: bool) -> tuple[tuple[str, ...], bool]:
    """The columns of labels, and whether they hold 0 and 1. is_split_said: it is known who trains, or that all do."""
    if text == "none" and text not in find.all:
        return (), False
    if text:
        names = [text] if find.plain.get(plain_name(text)) or text in find.all else text.split(",")
        columns = tuple(filter(None, (find.named("label", name.strip()) for name in names)))
    else:
        one = find.one("label", "", LABELS)
        columns = (one,) if one else ()
    if columns:
        return columns, len(columns) > 1 or is_answers(find.texts(columns[0]), is_named_label=True)
    free = [column for column in find.all if column not in find.used and plain_name(column) not in NO_LABELS]
    free = [column for column in free if not (is_of_taking(column) or is_of_passing(column))]
    wide = [column for column in free if is_answers(find.texts(column)) and not is_review(column)]
    of_splits = [column for column in wide if is_named_as_split(column)]
    if of_splits and not is_split_said:
        raise InputError(
            f"{find.name}: {of_splits[0]} may say which radiographs train and which are for testing: make a column "
            "split of train, val and test, or give --split none, or name the labels with --label"
        )
    wide = [column for column in wide if column not in of_splits]
    # Beside findings these are none; alone one may be called so.
    wide = [column for column in wide if plain_name(column) not in SAID] or wide
    for column in free if wide else ():
        # Left aside, it would take the findings that it alone has.
        if (other := no_answer(find.counts(column))) is not None:
            raise InputError(
                f"{find.name}: {column} has {other!r} beside 1, 0 and -1: correct it, or name the columns of labels "
                f"with --label {','.join(wide[:3])}{',…' if len(wide) > 3 else ''}"
            )
    return tuple(wide), bool(wide)
