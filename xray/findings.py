"""The 14 findings of VinBigData: their ids, names and colours.

A *class id* (0–13, 14 for "No finding") is what Kaggle's files use; a *category id* is the class id + 1, as in
COCO files and in torchvision, where 0 means background.
"""

import importlib
from typing import Any

FINDINGS = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Nodule/Mass",
    "Other lesion",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
)

NO_FINDING = 14
"""Class id of an image without findings; its box is always NO_FINDING_BOX."""

NO_FINDING_NAME = "No finding"
NO_FINDING_BOX = (0.0, 0.0, 1.0, 1.0)

CATEGORIES = [{"id": class_id + 1, "name": name} for class_id, name in enumerate(FINDINGS)]
"""COCO `categories` of a VinBig dataset. "No finding" is not one of them: such an image simply has no boxes."""

PNEUMOTHORAX = FINDINGS.index("Pneumothorax")

# Okabe and Ito's palette, whose seven colours people with any colour vision tell apart on black, and seven more
# chosen to stay apart from these and each other (CIEDE2000 of at least 10 with normal, deutan and tritan vision).
# Fourteen are too many to be told by colour alone: pictures also name each box.
COLOURS = (
    "#E69F00",
    "#56B4E9",
    "#F0E442",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#0072B2",
    "#64DB8D",
    "#7C40FF",
    "#B6FDE9",
    "#DC0A45",
    "#FDFC8E",
    "#7D85FD",
    "#99E3FD",
)
"""One `#RRGGBB` colour a finding, in the order of FINDINGS; categories of other datasets take them in turn."""


def colour_of(category_id: int) -> str:
    """The `#RRGGBB` colour of a category (ids from 1, as in COCO files); it repeats after 14 categories."""
    return COLOURS[(category_id - 1) % len(COLOURS)]


def __getattr__(name: str) -> Any:
    """`mirrored` as it was called in 0.1; it is in xray/structures/sides.py now, and goes from here with 0.3."""
    if name == "mirrored":
        return importlib.import_module("xray.structures.sides").mirrored
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
