"""Category maps: what the categories of one set are called in another, what is joined, and what has no equal.

A map is a YAML file, a line for each category of the source:

    Effusion: Pleural effusion          # another name; several names may become one
    Foo: drop                           # its boxes and labels go
    Healthy: normal                     # means that nothing was found, and is no category; so do "No finding", "Clear"
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
from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from xray.datasets.normal_words import sounds_normal
from xray.errors import InputError
from xray.findings import FINDINGS
from xray.structures.values import is_missing, shown

TARGETS = {"vinbig": FINDINGS}
"""Names of shipped maps, and the categories that they map onto."""
NORMAL_LABELS = "mean_no_finding"
"""Key of `Source.notes`: labels that a reader took so, as a map that calls them normal would."""
DROPPED, MAY_BE_DROPPED = "dropped", "dropped_unknown"
"""Keys of an image's entry: names of categories that it shows, or may show, and that the dataset does not have."""

_REST = "*"
_NO_NAMES = frozenset(
    ("yes", "no", "true", "false", "delete", "remove", "ignore", "skip", "exclude", "discard", "unknown", "uncertain")
)
"""What people write for drop, keep or normal, and is a name only beside others of this kind, in lower case."""
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
    # Names that sound as if nothing was found, and are categories all the same.
    kept = {plain(name) for name, value in lines.items() if isinstance(value, str) and plain(value) == "keep"}
    targets = _targets(lines.pop(_CATEGORIES, None), title, kept)
    rules: dict[str, Rule] = {}
    names: dict[str, str] = {}
    for name, value in lines.items():
        key = plain(name)
        if key in rules:
            raise InputError(f"--map {title} has two lines for {name}: take one of them out")
        rules[key], names[key] = _rule(name, value, title, kept), name
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


def _targets(value: Any, title: str, kept: Collection[str]) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) and value in TARGETS:
        return TARGETS[value]
    for name in value if isinstance(value, list) else ():
        if isinstance(name, str):
            _check_finding(name, "its categories", title, kept)
    are_names = isinstance(value, list) and value and all(isinstance(name, str) and name.strip() for name in value)
    if are_names and len({plain(name) for name in value}) == len(value):
        return tuple(name.strip() for name in value)
    raise InputError(f"--map {title}: categories is a list of different names, or {', '.join(TARGETS)}")


def _check_finding(word: str, where: str, title: str, kept: Collection[str]) -> None:
    """Raises InputError for a name that means that nothing was found, where a finding is needed."""
    if sounds_normal(word) and plain(word) not in kept:
        raise InputError(
            f"--map {title}: {where} name {word.strip()}, which means that nothing was found and is no finding: take "
            f"it out there, and write normal behind what means so, or '{word.strip()}: keep' if it is a category"
        )


def _rule(name: str, value: Any, title: str, kept: Collection[str] = ()) -> Rule:
    if isinstance(value, dict) and len(value) == 1:
        ((key, what),) = value.items()
        if key == "kind of" and isinstance(what, str) and what.strip():
            _check_finding(what, f"the findings that {name} is a kind of", title, kept)
            return Rule(what.strip(), kind=True)
        several = [what] if isinstance(what, str) else what
        if key == "maybe" and isinstance(several, list) and all(isinstance(one, str) and one for one in several):
            for one in several:
                _check_finding(one, f"the findings that {name} may be", title, kept)
            return Rule(maybe=tuple(several))
    # null and None are no names, and may be meant as drop or as normal.
    if isinstance(value, str) and not is_missing(value) and value.strip() != "~":
        word = value.strip()
        if plain(word) == "drop":
            return Rule()
        if plain(word) == "keep":
            return Rule("")
        if plain(word) in _NO_NAMES and plain(name) not in _NO_NAMES:
            raise InputError(
                f"--map {title}: {name} becomes {word}, which names no finding: write drop if it goes, normal if it "
                "means that nothing was found, {maybe: [NAME]} for what it leaves unknown, or keep"
            )
        if sounds_normal(word) and plain(word) not in kept:
            return Rule(normal=True)
        return Rule(word)
    raise InputError(
        f"--map {title}: {name} becomes {shown(value)}: write a name, drop, keep, normal, {{kind of: NAME}} or "
        "{maybe: [NAME, …]}"
    )
