"""What an audit names: radiographs that somebody should look at, each with the reason."""

import dataclasses
from typing import Any

from xray.datasets.store import Store

INVERTED = "inverted"
TURNED = "turned"
EMPTY = "empty"
LATERAL = "lateral"
UNLIKE = "unlike the others"
DUPLICATE = "near-duplicate"
PATIENT = "patient in two places"
SIDE_SWAPPED = "box on the other side"
LABEL = "label"
CATEGORY = "category of a box"
SPURIOUS = "box that the model does not see"
MISSING = "finding without a box"
REASONS = {
    INVERTED: "bones are dark",
    TURNED: "it is turned by quarters",
    EMPTY: "next to no contrast",
    LATERAL: "its header calls it lateral, few others are",
    UNLIKE: "another view, another part of the body, or no radiograph",
    DUPLICATE: "two radiographs are copies of one",
    PATIENT: "radiographs of one patient in two splits or folds",
    SIDE_SWAPPED: "a box lies where those of the opposite side do: its label is swapped, or the radiograph mirrored",
    LABEL: "the predictions contradict a label of the whole radiograph",
    CATEGORY: "the predictions see another category in its place",
    SPURIOUS: "the predictions see nothing in the place of a box",
    MISSING: "the predictions see a finding where no box is",
}
"""Why a radiograph is named → what that means, in the order of a report."""


@dataclasses.dataclass(frozen=True)
class Named:
    """One reason to look at a radiograph.

    row: in the dataset. why: one of REASONS. score: how sure that is, comparable within one reason only.
    detail: in words. other: the row of the second radiograph of a pair, otherwise -1.
    box: x1, y1, x2, y2 in original pixels of what it is about. category: name of the category it is about.
    seen: a second box, of the predictions. seen_as: its category, and its score is `score`.
    """

    row: int
    why: str
    score: float
    detail: str = ""
    other: int = -1
    box: tuple[float, ...] | None = None
    category: str = ""
    seen: tuple[float, ...] | None = None
    seen_as: str = ""

    @property
    def rows(self) -> tuple[int, ...]:
        """The radiographs that it names."""
        return (self.row,) if self.other < 0 else (self.row, self.other)

    def record(self, store: Store) -> dict[str, Any]:
        """The entry in audit.json."""
        place = store.records[self.row]
        entry: dict[str, Any] = {
            "radiograph": place["source_id"],
            "file_name": place.get("file_name", ""),
            "split": place["split"],
            "fold": place["fold"],
            "why": self.why,
            "score": round(self.score, 4),
            "detail": self.detail,
        }
        if self.other >= 0:
            entry["other"] = store.records[self.other]["source_id"]
        if self.category:
            entry["category"] = self.category
        for key, box in (("box", self.box), ("seen_box", self.seen)):
            if box is not None:
                entry[key] = [round(value, 1) for value in box]
        if self.seen_as:
            entry["seen_as"] = self.seen_as
        return entry


def where(store: Store, row: int) -> str:
    """The place of a radiograph in the dataset: "test", or "train, fold 2"."""
    record = store.records[row]
    return str(record["split"]) if record["fold"] < 0 else f"{record['split']}, fold {record['fold']}"
