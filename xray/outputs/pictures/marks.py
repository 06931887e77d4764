"""What is drawn on a radiograph."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from xray.findings import colour_of
from xray.structures.boxes import BoxTable
from xray.structures.predictions import NO_FINDING_CATEGORY


@dataclasses.dataclass(frozen=True)
class Mark:
    """One box to draw.

    box: x1, y1, x2, y2 in the pixels of the radiograph it is drawn on.
    name: of the finding.
    colour: "#RRGGBB".
    score: confidence in [0, 1]; None for the truth, which is always drawn.
    note: more text of the tag, e.g. "2/3" for two readers of three.
    dashed: draws the box with a dashed line.
    """

    box: tuple[float, float, float, float]
    name: str
    colour: str
    score: float | None = None
    note: str = ""
    dashed: bool = False

    @property
    def text(self) -> str:
        """The text of the tag: name, confidence, note."""
        score = "" if self.score is None else f"{self.score:.2f}"
        return " ".join(f"{self.name} {score} {self.note}".split())


@dataclasses.dataclass(frozen=True)
class Region:
    """A mask to draw: (height, width) bool of the radiograph's own size, and its "#RRGGBB" colour. is_filled: False for
    its outline alone."""

    mask: np.ndarray
    colour: str
    is_filled: bool = True


def marks_of(table: BoxTable, categories: Mapping[int, str], scored: bool = True) -> tuple[list[Mark], float | None]:
    """The boxes of one radiograph as marks, and its "No finding" probability (None where there is no such row).

    categories: category id → name. scored: False for the truth, whose scores say nothing.
    """
    normal = None
    marks = []
    for label, box, score in zip(table.labels.tolist(), table.boxes.tolist(), table.scores.tolist(), strict=True):
        if label == NO_FINDING_CATEGORY and label not in categories:
            normal = score
        else:
            name = categories.get(label, f"category {label}")
            marks.append(Mark(tuple(box), name, colour_of(label), score if scored else None))
    return marks, normal
