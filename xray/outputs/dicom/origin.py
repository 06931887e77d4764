"""Which image of a study an object is about, in words: of several views and of priors each has results of its own.

Only numbers and codes are taken over, no description: that may name somebody.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from pydicom.dataset import Dataset

from xray.radiographs.dicom import read_elements

VIEWS = {
    "PA": "posteroanterior",
    "AP": "anteroposterior",
    "LL": "left lateral",
    "RL": "right lateral",
    "LLD": "left lateral decubitus",
    "RLD": "right lateral decubitus",
    "LLO": "left lateral oblique",
    "RLO": "right lateral oblique",
}
"""Defined terms of View Position (PS3.3 C.8.7.1.1.1, C.8.1.1)."""
_KEYWORDS = ("SeriesNumber", "InstanceNumber", "ViewPosition", "ImageLaterality", "Laterality", "StudyDate")


def origin_of(path: Path) -> str:
    """Such as "series 2, image 1, view LL (left lateral), study of 2024-03-01"; empty where a file tells nothing."""
    with contextlib.suppress(Exception):  # whatever pydicom raises on a value that is none of its type
        elements = read_elements(path, _KEYWORDS)
        parts = []
        for keyword, name in (("SeriesNumber", "series"), ("InstanceNumber", "image")):
            text = str(_value(elements, keyword))
            if text.isdecimal() and text.isascii() and len(text) <= 9:
                parts.append(f"{name} {int(text)}")
        view = str(_value(elements, "ViewPosition")).strip().upper()
        if view in VIEWS:
            parts.append(f"view {view} ({VIEWS[view]})")
        side = str(_value(elements, "ImageLaterality") or _value(elements, "Laterality")).strip().upper()
        if side in ("L", "R"):
            parts.append({"L": "left side", "R": "right side"}[side])
        date = str(_value(elements, "StudyDate")).strip()
        if len(date) == 8 and date.isdecimal() and date.isascii():
            parts.append(f"study of {date[:4]}-{date[4:6]}-{date[6:]}")
        return ", ".join(parts)
    return ""


def _value(elements: Dataset, keyword: str) -> object:
    with contextlib.suppress(Exception):
        value = elements.get(keyword)
        return "" if value is None else value
    return ""


def notes_of(given: Path | Dataset) -> tuple[str, ...]:
    """What a report about a file says of its origin; nothing where only a part of its data set is given."""
    origin = origin_of(given) if isinstance(given, Path) else ""
    return (f"Image: {origin}",) if origin else ()


def name_origin(objects: Mapping[str, Dataset], given: Path | Dataset) -> None:
    """Has each object but reports say of which image it is, where viewers show it."""
    if not isinstance(given, Path) or not (origin := origin_of(given)):
        return
    for dataset in objects.values():
        if "ContentDescription" in dataset:
            # 64 characters (LO).
            described = f"{dataset.ContentDescription or ''}; {origin}".removeprefix("; ")
            dataset.ContentDescription = described if len(described) <= 64 else origin[:64].strip()
        elif "Rows" in dataset and dataset.Modality == "OT":
            dataset.ImageComments = f"Findings in {origin}"
