"""Whose boxes train, and how much each counts: the readers of a radiograph seldom all agree."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from xray.datasets.store import Store
from xray.errors import FlagError, InputError


@dataclasses.dataclass(frozen=True)
class Readings:
    """The boxes of chosen readers.

    rows: radiographs of the store that at least one of them read. boxes: rows of `store.boxes` that one of them drew.
    shares: (len(store.boxes),) float64 in [0, 1], of each box the share of the chosen readers of its radiograph who
    drew it, by their weights; 1 where it is not known who read the radiograph.
    """

    rows: np.ndarray
    boxes: np.ndarray
    shares: np.ndarray


def readings(
    store: Store,
    rows: np.ndarray,
    readers: Sequence[str] = (),
    without: Sequence[str] = (),
    weights: Sequence[str] = (),
) -> Readings:
    """What chosen readers saw on the radiographs `rows`.

    readers: names; all, if empty. without: names that are left out. weights: "NAME=NUMBER", 1 for the others.
    Raises FlagError for a name that no radiograph of the dataset has, or a weight that is no positive number, and
    InputError where nothing is left.
    """
    weight_of = _weights(weights)
    names = sorted({name for record in store.records for name in record.get("readers", ())})
    for flag, given in (("readers", readers), ("without-readers", without), ("reader-weights", tuple(weight_of))):
        if unknown := [name for name in given if name not in names]:
            known = ", ".join(names) if names else "it names none"
            raise FlagError(f"--{flag} names {unknown[0]!r}, and the dataset has no such reader ({known})")
    chosen = set(readers or names) - set(without)
    if not names or chosen == set(names):
        used, drawn = np.asarray(rows), np.arange(len(store.boxes))
    else:
        read = np.array([bool(chosen & set(record.get("readers", ()))) for record in store.records])
        used = np.asarray(rows)[read[rows]]
        drawn = np.array([number for number, by in enumerate(store.readers) if chosen & set(by)], dtype=np.int64)
    if len(used) == 0:
        raise InputError("none of the training radiographs was read by a chosen reader: see --readers")
    return Readings(used, drawn, _shares(store, chosen, weight_of))


def _weights(texts: Sequence[str]) -> dict[str, float]:
    weights = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            weights[name] = float("nan")
        if not name or not 0 < weights[name] < float("inf"):
            raise FlagError(f"--reader-weights is {text!r}: give NAME=NUMBER with a positive number")
    return weights


def _shares(store: Store, chosen: set[str], weight_of: Mapping[str, float]) -> np.ndarray:
    shares = np.ones(len(store.boxes))
    for box, (image, by) in enumerate(zip(store.boxes.images.tolist(), store.readers, strict=True)):
        whole = sum(weight_of.get(name, 1.0) for name in chosen.intersection(store.records[image].get("readers", ())))
        if by and whole:
            shares[box] = min(1.0, sum(weight_of.get(name, 1.0) for name in chosen.intersection(by)) / whole)
    return shares
