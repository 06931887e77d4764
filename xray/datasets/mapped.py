"""A source with its categories as a map calls them."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xray.datasets.category_map import DROPPED, MAY_BE_DROPPED, NORMAL_LABELS, CategoryMap, Rule, plain
from xray.datasets.source import DUPLICATE, Dropped, Source, SourceImage
from xray.errors import InputError
from xray.structures.boxes import BoxTable, box_iou, renumbered

SAME_PLACE = 0.8
"""IoU from which two boxes of categories that become one are taken for one box, drawn once for each."""


def apply_map(source: Source, mapping: CategoryMap) -> Source:
    """The source with the categories of a map, ids 1 … K in its order, or in that of the source.

    Boxes of categories that become one and lie in the same place (IoU of SAME_PLACE, of the same readers) are one.
    Raises InputError where the map names a category that the source lacks, unless it is a shipped one, and where no
    category is left.
    """
    names = {category["id"]: category["name"] for category in source.categories}
    # What means that nothing was found is no category any more.
    mapping.check([*names.values(), *source.notes.get(NORMAL_LABELS, ())], f"convert {source.kind}")
    rules = {number: mapping.rule(name) for number, name in names.items()}
    becoming = [rule.name for rule in rules.values() if rule.name]
    becoming += [name for rule in rules.values() for name in rule.maybe]
    spelt: dict[str, str] = {}
    for name in mapping.targets or becoming:
        spelt.setdefault(plain(name), name)
    new = list(spelt.values())
    if not new:
        raise InputError(f"--map {mapping.title} leaves no category of {', '.join(names.values())}: keep one at least")
    number_of = {plain(name): number for number, name in enumerate(new, 1)}
    applied = _Applied(rules, names, number_of)
    table, rows, joined = _boxes(source, applied)
    boxed: dict[int, set[int]] = {}
    for image, label in zip(source.boxes.images.tolist(), source.boxes.labels.tolist(), strict=True):
        boxed.setdefault(image, set()).add(label)
    images = [applied.image(image, boxed.get(row, set())) for row, image in enumerate(source.images)]
    note = {
        "map": {"file": mapping.title, "names": {names[number]: _words(rule) for number, rule in rules.items()}},
    }
    return dataclasses.replace(
        source,
        images=images,
        boxes=table,
        readers=[source.readers[row] for row in rows.tolist()],
        places=[source.places[row] for row in rows.tolist()],
        masks=renumbered(source.masks, rows),
        categories=_categories(source, applied, new),
        dropped=source.dropped + joined,
        fingerprint=hashlib.sha256(source.fingerprint.encode() + mapping.content).hexdigest(),
        notes=source.notes | note,
    )


def _words(rule: Rule) -> str:
    if rule.name:
        return f"kind of {rule.name}" if rule.kind else rule.name
    return "normal" if rule.normal else f"maybe {', '.join(rule.maybe)}" if rule.maybe else "drop"


class _Applied:
    """A map's rules by the source's ids, and the ids that they lead to."""

    def __init__(self, rules: Mapping[int, Rule], names: Mapping[int, str], number_of: Mapping[str, int]) -> None:
        self.names = names
        self.to = {number: number_of[plain(rule.name)] for number, rule in rules.items() if rule.name}
        self.maybe = {number: {number_of[plain(name)] for name in rule.maybe} for number, rule in rules.items()}
        self.kinds = {self.to[number] for number, rule in rules.items() if rule.kind}
        self.gone = {number for number, rule in rules.items() if not rule.name and not rule.normal}
        # Of these nobody says that a radiograph does not show them.
        self.open = (set(number_of.values()) - set(self.to.values())) | self.kinds

    def image(self, image: SourceImage, boxed: set[int]) -> SourceImage:
        """What is known of an image, in the new categories. boxed: the old ids that have boxes in it."""
        shown_ids = set(image.labels or ()) | boxed
        labels = {self.to[number] for number in shown_ids if number in self.to}
        unknown = {self.to[number] for number in image.unknown if number in self.to}
        unlocated = {self.to[number] for number in image.unlocated if number in self.to and number not in boxed}
        elsewhere = {self.to[number] for number in image.elsewhere if number in self.to}
        for number in shown_ids | set(image.unknown):
            unknown |= self.maybe[number]
        if not image.normal:
            unknown |= self.open
        known_boxes = {self.to[number] for number in boxed if number in self.to}
        # A box of one says nothing of the place of another that became the same category, nor of another kind.
        elsewhere |= (unlocated | (unknown & labels)) & known_boxes
        extra = dict(image.extra)
        for key, ids in ((DROPPED, shown_ids), (MAY_BE_DROPPED, set(image.unknown) - shown_ids)):
            if names := [self.names[number] for number in sorted(ids & self.gone)]:
                extra[key] = [*extra.get(key, ()), *names]
        return dataclasses.replace(
            image,
            labels=None if image.labels is None and not (labels - known_boxes) else tuple(sorted(labels)),
            unknown=tuple(sorted(unknown - labels)),
            unlocated=tuple(sorted((unlocated | (unknown & labels)) - known_boxes)),
            elsewhere=tuple(sorted(elsewhere)),
            extra=extra,
        )


def _boxes(source: Source, applied: _Applied) -> tuple[BoxTable, np.ndarray, list[Dropped]]:
    """The boxes in the new categories, the rows that they had, and those that were joined with another."""
    old = source.boxes.labels.tolist()
    rows = np.array([row for row, label in enumerate(old) if label in applied.to], dtype=np.int64)
    table = source.boxes.select(rows)
    labels = np.array([applied.to[old[row]] for row in rows.tolist()], dtype=np.int64)
    merged = {new for new in applied.to.values() if sum(other == new for other in applied.to.values()) > 1}
    groups: dict[tuple[int, int, tuple[str, ...]], list[int]] = {}
    for place, (image, label) in enumerate(zip(table.images.tolist(), labels.tolist(), strict=True)):
        if label in merged:
            groups.setdefault((image, label, source.readers[rows[place]]), []).append(place)
    gone: dict[int, int] = {}
    is_masked = [row in source.masks for row in range(len(old))]
    for places in groups.values():
        before, masked = ([table_of[rows[place]] for place in places] for table_of in (old, is_masked))
        if len(set(before)) > 1:
            gone |= _same(places, table.boxes, before, masked)
    joined = [
        Dropped(source.places[rows[place]], DUPLICATE, detail=f"{source.places[rows[other]]} is the same place")
        for place, other in sorted(gone.items())
    ]
    kept = np.array([place for place in range(len(rows)) if place not in gone], dtype=np.int64)
    table = dataclasses.replace(table, labels=labels).select(kept)
    return table, rows[kept], joined


def _same(places: list[int], boxes: np.ndarray, old: list[int], masked: list[bool]) -> dict[int, int]:
    """Of boxes that became one category: that which goes → that which stays; one with a mask stays."""
    iou = box_iou(boxes[places], boxes[places])
    gone: dict[int, int] = {}
    order = sorted(range(len(places)), key=lambda one: not masked[one])
    for position, second in enumerate(order):
        for first in order[:position]:
            is_same = old[first] != old[second] and iou[first, second] >= SAME_PLACE
            if is_same and places[first] not in gone:
                gone[places[second]] = places[first]
                break
    return gone


def _categories(source: Source, applied: _Applied, new: Sequence[str]) -> list[dict[str, Any]]:
    """The new categories; one that a single category became keeps that one's id in the source's own file."""
    entries = []
    for number, name in enumerate(new, 1):
        before = [category for category in source.categories if applied.to.get(category["id"]) == number]
        own = before[0].get("source_category_id") if len(before) == 1 else None
        entries.append({"id": number, "name": name} | ({} if own is None else {"source_category_id": own}))
    return entries
