"""What the images of a COCO file say of whole radiographs: `labels`, `unknown` and `unlocated`, which xray writes.

They are lists of category ids, as in `xray.datasets.source.SourceImage`, or of names. What such a list holds that is no
category of the file may be the name of any: the radiograph is then not known to be without the others.
"""

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

from xray.datasets.category_map import plain
from xray.datasets.source import Dropped, SourceImage
from xray.datasets.sources.normal_names import NormalNames
from xray.datasets.sources.object_review import withheld_by
from xray.datasets.sources.review_words import is_state
from xray.datasets.sources.table_answers import is_unsaid
from xray.datasets.sources.tables import plain_name
from xray.structures.values import flag_of, identity, is_missing, shown, whole_number

NOT_ANNOTATED = "picture without annotations that its entry says is not annotated, or was not confirmed"
_ANNOTATED = re.compile(r"(is|was|has(been)?)?(fully)?(annotat|label?l)ed|(is|was)?(done|completed?|finished)")
KNOWN = ("labels", "unknown", "unlocated")
FOREIGN = "labels of a whole radiograph that are no categories of the file"
UNKNOWN_THEN = "what it does not show otherwise is unknown"


@dataclasses.dataclass
class Said:
    """Category ids that the entries of a radiograph name, by their key.

    foreign: the keys of lists that hold something else as well. normal: where it says that nothing was found; empty
    where it does not. not_annotated: why the picture is no radiograph without findings although it has no annotation.
    """

    ids: dict[str, set[int]] = dataclasses.field(default_factory=dict)
    foreign: set[str] = dataclasses.field(default_factory=set)
    normal: str = ""
    not_annotated: str = ""


@dataclasses.dataclass(frozen=True)
class Categories:
    """How a file's lists name its categories.

    numbering: the file's own id of one → the dataset's. names: the same by its plain name. normal: own ids of those
    that mean that nothing was found. normal_names: which other labels do.
    """

    numbering: Mapping[int, int]
    names: Mapping[str, int]
    normal: Mapping[int, str]
    normal_names: NormalNames

    def id_of(self, label: Any) -> int | None:
        """The dataset's id; 0 for what means that nothing was found, None for anything else."""
        if isinstance(label, str) and (number := self.names.get(plain(label))) is not None:
            return number
        try:
            own_id = whole_number(label)
        except ValueError:
            is_normal = isinstance(label, str) and self.normal_names.is_normal(label)
            return 0 if is_normal else None
        if own_id is None:
            return None
        return 0 if own_id in self.normal else self.numbering.get(own_id)


def known_by_entry(entries: list[Any], categories: Categories, table: str, dropped: list[Dropped]) -> dict[Any, Said]:
    """Id of an image → what its entries say of it as a whole.

    A value that holds anything but categories is entered in `dropped`. A single one may stand there without its list.
    """
    said: dict[Any, Said] = {}
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            continue
        place = f"{table} image {position}"
        if why := _not_annotated(entry):
            said.setdefault(key_of(entry.get("id")), Said()).not_annotated = why
        for key in KNOWN:
            value = entry.get(key)
            if is_missing(value) or value is False or value == {}:
                continue
            one = said.setdefault(key_of(entry.get("id")), Said())
            ids = [categories.id_of(label) for label in (value if isinstance(value, list) else [value])]
            is_normal = key == "labels" and 0 in ids
            if is_normal:
                one.normal = place
            one.ids.setdefault(key, set()).update(number for number in ids if number)
            if None in ids or (0 in ids and not is_normal):
                one.foreign.add(key)
                dropped.append(Dropped(place, FOREIGN, UNKNOWN_THEN, f"{key} {shown(value)}"))
    return said


def said_of(image: SourceImage, said: Mapping[Any, Said]) -> Said:
    """What all entries of an image say of it."""
    result = Said()
    for coco_id in image.extra.get("coco_ids", [image.extra.get("coco_id")]):
        one = said.get(coco_id, Said())
        for key, ids in one.ids.items():
            result.ids.setdefault(key, set()).update(ids)
        result.foreign |= one.foreign
        result.normal = result.normal or one.normal
        result.not_annotated = result.not_annotated or one.not_annotated
    return result


def with_known(image: SourceImage, said: Said, boxed: Collection[int], every: Collection[int]) -> SourceImage:
    """The same image with what is said of its categories. boxed: those of its boxes. every: all of the file."""
    values: dict[str, tuple[int, ...]] = {key: tuple(sorted(ids)) for key, ids in said.ids.items()}
    if said.foreign:
        shown_ids = {*values.get("labels", ()), *boxed}
        values["unknown"] = tuple(sorted({*values.get("unknown", ()), *every} - shown_ids))
    if "unlocated" in said.foreign:
        values["unlocated"] = tuple(sorted(every))
    if "unlocated" in values:
        # Beside the boxes that they have, too: `xray export` names no others.
        values["elsewhere"] = values["unlocated"]
    return dataclasses.replace(image, **values) if values else image  # type: ignore[arg-type]


def _not_annotated(entry: dict[str, Any]) -> str:
    """The key by which an image's entry says that nobody has annotated it, or that a review has not let it pass."""
    for name, value in entry.items():
        try:
            if _ANNOTATED.fullmatch(plain_name(name)) and flag_of(value) is False:
                return f"{name}: {shown(value)}"
        except ValueError:
            continue
    if why := withheld_by(entry):
        return why
    # Here a word for what nobody has said is no remark of a tool beside a drawn box.
    words = ((name, value) for name, value in entry.items() if isinstance(value, str) and is_unsaid(value))
    return next((f"{name}: {shown(value)}" for name, value in words if is_state(name)), "")


def key_of(value: Any) -> Any:
    """An image's id as it is compared; None for what is none."""
    try:
        return identity(value)
    except ValueError:
        return None
