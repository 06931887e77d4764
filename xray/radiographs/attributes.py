"""What is stored of a radiograph beside its pixels, so that groups can be compared; nothing in it identifies a person.

Every value is one of a few fixed words, whatever a file's header says: free text could hold a name.
"""

import re
from collections.abc import Mapping
from typing import Any

ATTRIBUTES = ("view", "sex", "age", "manufacturer")
"""Keys of an image's entry in annotations.json."""

LATERAL = "LATERAL"
VIEWS = ("PA", "AP", "LL", "RL", "LLD", "RLD", "LLO", "RLO", LATERAL)
"""Defined terms of View Position (DICOM PS3.3 C.8.7.1.1.1), and LATERAL for a lateral one whose side is not said."""
FRONTAL = ("PA", "AP")
_VIEWS_IN_WORDS = {
    "POSTEROANTERIOR": "PA", "POSTERO-ANTERIOR": "PA", "ANTEROPOSTERIOR": "AP", "ANTERO-POSTERIOR": "AP", "L": LATERAL,
    "LAT": LATERAL, "LATERAL": LATERAL, "LEFT LATERAL": LATERAL, "RIGHT LATERAL": LATERAL, "L LATERAL": LATERAL,
    "R LATERAL": LATERAL,
}  # fmt: skip
_POSITIONS = {
    "SUPINE", "ERECT", "SEMI", "SEMIERECT", "UPRIGHT", "SEMIUPRIGHT", "STANDING", "SITTING", "SEATED", "HORIZONTAL",
    "VERTICAL", "PORTABLE", "MOBILE", "BEDSIDE", "CHEST", "VIEW", "PROJECTION",
}  # fmt: skip
"""Words after a view, as in "AP supine", that leave it what it is."""
SEXES = ("F", "M", "O")
OLDEST = 90
"""Ages from here on are one band: so few reach them that an age could tell who it is."""
MOST_YEARS = 130
OTHER_MANUFACTURER = "other"

_MANUFACTURERS = {
    "agfa": "Agfa",
    "canon": "Canon",
    "carestream": "Carestream",
    "drgem": "DRGEM",
    "drtech": "DRTECH",
    "fuji": "Fujifilm",
    "hologic": "Hologic",
    "iray": "iRay",
    "kodak": "Kodak",
    "konica": "Konica Minolta",
    "mindray": "Mindray",
    "philips": "Philips",
    "rayence": "Rayence",
    "samsung": "Samsung",
    "shimadzu": "Shimadzu",
    "siemens": "Siemens",
    "swissray": "Swissray",
    "toshiba": "Toshiba",
    "united imaging": "United Imaging",
    "varian": "Varian",
    "vieworks": "Vieworks",
    "ge": "GE",
    "general electric": "GE",
}
"""Words in a header → the manufacturer's name."""

_YEARS = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}


def plain_attributes(values: Mapping[str, Any]) -> dict[str, str]:
    """Values of ATTRIBUTES as a header or table has them → those that can be understood, in words of ours."""
    read = {"view": view, "sex": sex, "age": age_band, "manufacturer": manufacturer}
    understood = {name: read[name](values[name]) for name in ATTRIBUTES if values.get(name) is not None}
    return {name: value for name, value in understood.items() if value is not None}


def view(value: object) -> str | None:
    """A View Position, e.g. "PA", also from words, such as "AP supine"; LATERAL for one of unknown side, None for
    anything else."""
    term = str(value).strip().upper()
    words = re.findall(r"[A-Z]+", term)
    if any(word in _POSITIONS for word in words) and not re.search(r"[^A-Z\s_,()/.-]", term):
        # None of these words where the view itself is not said.
        term = " ".join(word for word in words if word not in _POSITIONS)
    return term if term in VIEWS else _VIEWS_IN_WORDS.get(term)


def sex(value: object) -> str | None:
    """F, M or O (other), also of words such as "female"; None for anything else."""
    word = str(value).strip().upper()
    first = {"FEMALE": "F", "MALE": "M", "OTHER": "O"}.get(word, word)
    return first if first in SEXES else None


def age_band(value: object) -> str | None:
    """The decade of an age, e.g. "60-69", or "90+"; None for what is no age.

    value: years as a number or text, DICOM's age string ("064Y", "018M", "003W", "010D"), or a band already.
    """
    text = str(value).strip().upper()
    if text == f"{OLDEST}+":
        return text
    band = re.fullmatch(r"(\d0)-(\d9)", text) or re.fullmatch(r"(0)-(9)", text)
    if band:
        return text if int(band[2]) == int(band[1]) + 9 and int(band[1]) < OLDEST else None
    match = re.fullmatch(r"(\d{1,5}(?:\.\d+)?)\s*([YMWD]?)", text)
    if not match:
        return None
    years = float(match[1]) / _YEARS[match[2]]
    if years > MOST_YEARS:
        return None
    decade = 10 * int(years // 10)
    return f"{OLDEST}+" if decade >= OLDEST else f"{decade}-{decade + 9}"


def manufacturer(value: object) -> str | None:
    """A manufacturer that is known, however it is spelt, "other" for one that is not; None without one."""
    words = " ".join(re.findall(r"[a-z0-9]+", str(value).casefold()))
    if not words:
        return None
    for word, name in _MANUFACTURERS.items():
        # "ge" is a word by itself ("GE Healthcare"), the others may be run together ("FUJIFILM").
        if word in (words.split() if word == "ge" else words):
            return name
    return OTHER_MANUFACTURER
