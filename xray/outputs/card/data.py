"""A dataset as its card's reader needs it: how many of what, in which part, and what it has too few of, or none."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from xray.datasets.fingerprint import fingerprint
from xray.datasets.source import VAL
from xray.datasets.store import ALL_FOLDS, Store, fold_in_words
from xray.outputs.card.facts import dict_in
from xray.radiographs.attributes import ATTRIBUTES, FRONTAL, OLDEST, SEXES, VIEWS, sex, view

NOT_KNOWN = "not known"
FEW = 30
"""Radiographs below which a number says little: of 30, one is more than 3 %."""
BANDS = (*(f"{age}-{age + 9}" for age in range(0, OLDEST, 10)), f"{OLDEST}+")


@dataclasses.dataclass(frozen=True)
class Parts:
    """The radiographs of a dataset by what a model did with them, as rows.

    trained: that it learned from, or may have. held: that it held back from them; empty where that is not known.
    is_known: whether it is known which is which.
    """

    trained: np.ndarray
    held: np.ndarray
    is_known: bool


def parts_of(store: Store, held: int | str | None, config: Mapping[str, Any]) -> Parts:
    """held: fold, or "val", that the model held back; None where that is not known. config: config.yaml of its run."""
    train = np.flatnonzero(store.splits == "train")
    if held == VAL:
        return Parts(train, np.flatnonzero(store.splits == VAL), True)
    if held is not None:
        return Parts(train[store.folds[train] != held], train[store.folds[train] == held], True)
    return Parts(train, train[:0], config.get("fold") == ALL_FOLDS)


def part_scored(store: Store, scored: Mapping[str, Any]) -> tuple[np.ndarray, str] | None:
    """Which radiographs of a dataset an evaluation scored, and that in words; None where it is none of its parts.

    scored: `fingerprint` of what was scored; the part that has the same is the same.
    """
    for rows, words in _candidates(store):
        if len(rows) == scored.get("n_images"):
            found = fingerprint(store, rows)
            if all(found[name] == scored.get(name) for name in ("annotations_sha256", "split_sha256")):
                return rows, words
    return None


def _candidates(store: Store) -> Iterator[tuple[np.ndarray, str]]:
    for split in ("test", "val"):
        yield np.flatnonzero(store.splits == split), f"the {'validation' if split == VAL else split} split"
    for fold in sorted({fold for fold in store.folds.tolist() if fold >= 0}):
        yield np.flatnonzero(store.folds == fold), fold_in_words(fold)
    yield np.flatnonzero(store.splits == "train"), "the train split"
    yield np.arange(len(store)), "the whole dataset"


def counts_of(store: Store, rows: np.ndarray) -> dict[str, Counter[str]]:
    """Of some radiographs, attribute → value → number, the unknown ones as NOT_KNOWN."""
    records = [store.records[row] for row in rows.tolist()]
    return {name: Counter(str(one.get(name) or NOT_KNOWN) for one in records) for name in ATTRIBUTES}


def in_words(counts: Mapping[str, int]) -> str:
    """Values with their numbers: ages rising, others from the largest down, the unknown ones last."""

    def key(value: str) -> tuple[bool, int, str]:
        return value == NOT_KNOWN, BANDS.index(value) if value in BANDS else -counts[value], value

    if set(counts) <= {NOT_KNOWN}:
        return NOT_KNOWN
    return ", ".join(f"{value}: {counts[value]:,}" for value in sorted(counts, key=key))


def lacks(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What radiographs a dataset lacks, or has few of, by what is known of them; a sentence each.

    counts: as `counts_of`.
    """
    sentences = []
    unknown = [name for name in ATTRIBUTES if set(counts[name]) <= {NOT_KNOWN}]
    if unknown:
        sentences.append(f"Of no radiograph it is known of which {_joined(unknown, 'or')} it is.")
    for name in ATTRIBUTES:
        n_unknown, n = counts[name].get(NOT_KNOWN, 0), sum(counts[name].values())
        if name not in unknown and n_unknown:
            sentences.append(f"The {name} is not known of {n_unknown:,} of {n:,} radiographs.")
    if "sex" not in unknown:
        sentences += _few("sex", ("F", "M"), _understood(counts["sex"], sex), SEXES)
    if "age" not in unknown:
        sentences += _few("age", BANDS, counts["age"], BANDS)
    if "view" not in unknown:
        views = _understood(counts["view"], view)
        sentences += _few("view", FRONTAL, views, VIEWS)
        if set(views) <= {*FRONTAL, NOT_KNOWN}:
            sentences.append("There is no lateral radiograph.")
    known = [name for name in counts["manufacturer"] if name != NOT_KNOWN]
    if len(known) == 1:
        sentences.append(f"All radiographs whose manufacturer is known are of one: {known[0]}.")
    return sentences


def _understood(counts: Mapping[str, int], read: Callable[[str], str | None]) -> Counter[str]:
    """The same in words of ours: a COCO file may say "AP Supine" of what is AP, or "female"."""
    found: Counter[str] = Counter()
    for value, count in counts.items():
        found[read(value) or value] += count
    return found


def _few(name: str, values: Sequence[str], counts: Mapping[str, int], understood: Sequence[str]) -> list[str]:
    # What is not understood could be any of them.
    is_all_understood = set(counts) <= {*understood, NOT_KNOWN}
    none = [value for value in values if not counts.get(value)] if is_all_understood else []
    few = [f"{value} ({counts[value]:,})" for value in values if 0 < counts.get(value, 0) < FEW]
    sentences = [f"There is no radiograph with {name} {_joined(none, 'or')}."] if none else []
    if few:
        sentences.append(f"There are fewer than {FEW} radiographs with {name} {_joined(few, 'and')}.")
    return sentences


def _joined(words: Sequence[str], last: str) -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else words[0]


def rare_findings(store: Store, rows: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """Of these findings, those that fewer than FEW of some radiographs show → how many do."""
    shown = dict(zip(store.categories.values(), store.labels[rows].sum(axis=0).tolist(), strict=True))
    return {name: shown[name] for name in names if shown.get(name, FEW) < FEW}


def finding_rows(store: Store, parts: Parts) -> list[list[str]]:
    """A row for each category: radiographs that show it among those trained on, those held back and the other splits,
    its boxes and its masks in the whole dataset."""
    chosen = columns(store, parts)
    boxes = np.array([int((store.boxes.labels == label).sum()) for label in store.categories])
    masks = np.zeros(len(store.categories), dtype=np.int64)
    order = {label: number for number, label in enumerate(store.categories)}
    for row in store.masks:
        masks[order[int(store.boxes.labels[row])]] += 1
    unknown = store.unknown.sum(axis=0)
    return [
        [
            name,
            *(f"{int(store.labels[rows, number].sum()):,}" for rows in chosen.values()),
            f"{int(boxes[number]):,}",
            f"{int(masks[number]):,}",
            f"{int(unknown[number]):,}",
        ]
        for number, name in enumerate(store.categories.values())
    ]


def columns(store: Store, parts: Parts) -> dict[str, np.ndarray]:
    """Title → rows of each part of a dataset that has radiographs."""
    found = {
        "Trained on" if parts.is_known else "Train split": parts.trained,
        "Held back": parts.held,
        "Validation split": np.flatnonzero(store.splits == VAL),
        "Test split": np.flatnonzero(store.splits == "test"),
    }
    if len(parts.held) and store.splits[parts.held[0]] == VAL:
        del found["Validation split"]
    return {title: rows for title, rows in found.items() if len(rows)}


def conversion_facts(store: Store) -> dict[str, str]:
    """How the dataset was made from its source, and what was left out."""
    conversion = store.conversion
    dropped = dict_in(dict_in(conversion, "dropped"), "counts")
    return {
        "Source": str(conversion.get("source") or NOT_KNOWN),
        "Conversion": ", ".join(f"{name} {value}" for name, value in dict_in(conversion, "parameters").items())
        or NOT_KNOWN,
        "Versions": ", ".join(f"{name} {value}" for name, value in dict_in(conversion, "versions").items())
        or NOT_KNOWN,
        "Left out": ", ".join(f"{count:,} × {reason}" for reason, count in dropped.items()) or "nothing",
    }
