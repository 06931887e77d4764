"""Category maps: what the categories of one set are called in another, what is joined, and what has no equal.

A map is a YAML file, a line for each category of the source:

    Effusion: Pleural effusion          # another name; several names may become one
    Foo: drop                           # its boxes and labels go
    Healthy: normal                     # means that nothing was found, and is no category
    Fracture: {kind of: Other lesion}   # is one; but who has none may still have another kind of it
    Hernia: {maybe: [Other lesion]}     # goes; who has it may show these, so they are unknown there
    "*": drop                           # all that are not named; without this line they stay as they are
    categories: vinbig                  # these and no others, in this order: a list, or VinBigData's 14 findings;
                                        # what is not named stays if it is one of them, and goes if not

What a map cannot know becomes unknown, never negative: a category of `categories` that nothing becomes is unknown on
every radiograph, but for those that the source calls normal as a whole. A radiograph that showed a dropped category is
not normal: its entry in annotations.json names it under `dropped`.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from xray.datasets.source import DUPLICATE, Dropped, Source, SourceImage
from xray.errors import InputError
from xray.findings import FINDINGS, NO_FINDING_NAME
from xray.structures.boxes import BoxTable, box_iou, renumbered
from xray.structures.values import is_missing, shown

SAME_PLACE = 0.8
"""IoU from which two boxes of categories that become one are taken for one box, drawn once for each."""
TARGETS = {"vinbig": FINDINGS}
"""Names of shipped maps, and the categories that they map onto."""
NORMAL_LABELS = "mean_no_finding"
"""Key of `Source.notes`: labels that a reader took so, as a map that calls them normal would."""
DROPPED, MAY_BE_DROPPED = "dropped", "dropped_unknown"
"""Keys of an image's entry: names of categories that it shows, or may show, and that the dataset does not have."""

_REST = "*"
_CATEGORIES = "categories"


@dataclasses.dataclass(frozen=True)
class Rule:
    """What becomes of a category.

    name: its new name; None where it goes. kind: those without it may still show another kind of the new one.
    maybe: new names that may be shown where it is. normal: it means that nothing was found.
    """

    name: str | None = None
    kind: bool = False
    maybe: tuple[str, ...] = ()
    normal: bool = False


@dataclasses.dataclass(frozen=True)
class CategoryMap:
    """A map that was read.

    title: how records and messages call it. rules: plain name → rule. names: plain name → as the file spells it.
    rest: the rule of all others; None leaves them as they are. targets: all new names, in order; None for those that
    come out. is_shipped: it may name categories that this copy of the set does not have.
    """

    title: str
    rules: dict[str, Rule]
    names: dict[str, str]
    rest: Rule | None = None
    targets: tuple[str, ...] | None = None
    is_shipped: bool = False
    content: bytes = b""

    def rule(self, name: str) -> Rule:
        """What becomes of a category of this name."""
        rule = self.rules.get(plain(name), self.rest)
        is_target = self.targets is None or plain(name) in map(plain, self.targets)
        if rule is None or rule.name == "":
            return Rule(name) if is_target else Rule()
        return rule

    @property
    def findings(self) -> tuple[str, ...]:
        """The names of which it says that they are, or may be, findings, however they sound."""
        is_finding = {key: rule.name is not None or bool(rule.maybe) for key, rule in self.rules.items()}
        return tuple(name for key, name in self.names.items() if is_finding[key])

    def check(self, known: Sequence[str], what: str) -> None:
        """Raises InputError if the map names a category that is not among the known ones, unless it is shipped."""
        have = {plain(name) for name in known}
        unknown = [name for key, name in self.names.items() if key not in have]
        if unknown and not self.is_shipped:
            raise InputError(
                f"--map {self.title} names {', '.join(unknown[:5])}, and {what} has {', '.join(known[:30])}: correct "
                "the names, or take the lines out"
            )


def plain(name: str) -> str:
    """A category's name without case, and with single blanks, by which names are compared; _ is a blank."""
    return " ".join(name.replace("_", " ").casefold().split())


def read_map(text: str, kind: str) -> CategoryMap:
    """A map by its file, or the shipped one of a source by what it maps onto: "vinbig", or "vinbig/nih" for NIH's.

    kind: of the source, such as "nih", where the text does not say it. Raises InputError for a file that cannot be
    read or is no map.
    """
    target, _, own = text.partition("/")
    if target in TARGETS and not Path(text).is_file():
        folder = resources.files("xray.datasets") / "maps" / target
        have = sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))
        if (own or kind) not in have:
            raise InputError(
                f"--map {text}: none is shipped for {own or kind} (there are {', '.join(have)}): write one, see "
                "docs/data.md, and give its file"
            )
        content = (folder / f"{own or kind}.yaml").read_bytes()
        return dataclasses.replace(parse_map(content, f"{target}/{own or kind}"), is_shipped=True)
    try:
        content = Path(text).read_bytes()
    except OSError as error:
        known = ", ".join(TARGETS)
        raise InputError(f"--map {text} cannot be read ({error.strerror}): give a YAML file, or {known}") from None
    return parse_map(content, Path(text).name)


def parse_map(content: bytes, title: str) -> CategoryMap:
    """The map of a YAML file. title: of it, for messages. Raises InputError for anything that is no map."""
    try:
        # A loader without types, which is safe: No, Yes and 1 are names here.
        lines = _Strict(content).get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError(f"--map {title} is no YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(lines, dict) or not lines:
        raise InputError(f"--map {title} needs lines such as 'Effusion: Pleural effusion' or 'Foo: drop'")
    targets = _targets(lines.pop(_CATEGORIES, None), title)
    rules: dict[str, Rule] = {}
    names: dict[str, str] = {}
    for name, value in lines.items():
        key = plain(name)
        if key in rules:
            raise InputError(f"--map {title} has two lines for {name}: take one of them out")
        rules[key], names[key] = _rule(name, value, title), name
    names.pop(_REST, None)
    rest = rules.pop(_REST, None)
    if targets is not None:
        every = {plain(name): name for name in targets}
        for key, rule in rules.items():
            for name in (rule.name if rule.name != "" else names[key], *rule.maybe):
                if name is not None and plain(name) not in every:
                    raise InputError(f"--map {title}: {name} is not among its categories, {', '.join(targets)}")
    return CategoryMap(title, rules, names, rest, targets, content=content)


class _Strict(yaml.BaseLoader):
    """YAML whose values are texts, lists and mappings; a key that stands twice is an error."""


def _mapping(loader: _Strict, node: yaml.MappingNode) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise ValueError(f"{shown(key)} is no name")
        if key in content:
            raise ValueError(f"{key} stands there twice")
        content[key] = loader.construct_object(value_node, deep=True)
    return content


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _targets(value: Any, title: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) and value in TARGETS:
        return TARGETS[value]
    are_names = isinstance(value, list) and value and all(isinstance(name, str) and name.strip() for name in value)
    if are_names and len({plain(name) for name in value}) == len(value):
        return tuple(name.strip() for name in value)
    raise InputError(f"--map {title}: categories is a list of different names, or {', '.join(TARGETS)}")


def _rule(name: str, value: Any, title: str) -> Rule:
    if isinstance(value, dict) and len(value) == 1:
        ((key, what),) = value.items()
        if key == "kind of" and isinstance(what, str) and what.strip():
            return Rule(what.strip(), kind=True)
        several = [what] if isinstance(what, str) else what
        if key == "maybe" and isinstance(several, list) and all(isinstance(one, str) and one for one in several):
            return Rule(maybe=tuple(several))
    # null and None are no names, and may be meant as drop or as normal.
    if isinstance(value, str) and not is_missing(value) and value.strip() != "~":
        word = value.strip()
        if word == "drop":
            return Rule()
        if word == "keep":
            return Rule("")
        if plain(word) in ("normal", plain(NO_FINDING_NAME)):
            return Rule(normal=True)
        return Rule(word)
    raise InputError(
        f"--map {title}: {name} becomes {shown(value)}: write a name, drop, keep, normal, {{kind of: NAME}} or "
        "{maybe: [NAME, …]}"
    )


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
