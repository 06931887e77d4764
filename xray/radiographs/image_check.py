"""Is a file a frontal chest radiograph, and does it lie as one? From what its header says and from its pixels.

    header                          pixels                          kind
    another modality                whatever                        OTHER_MODALITY; of fluoroscopy see below
    a lateral or oblique view       whatever                        LATERAL, OBLIQUE
    another part of the body        no chest, or not sure           OTHER_PART
    another part, or fluoroscopy    a frontal chest                 UNKNOWN, both are said
    a frontal chest                 whatever                        FRONTAL; where they look like none, both are said
    anything else, or no header     a frontal chest                 FRONTAL
    anything else, or no header     no frontal chest                NO_CHEST
    anything else, or no header     not sure                        UNKNOWN

A header that says nothing never refuses a file. How a radiograph is turned, and whether it is a negative, its pixels
tell: headers are seldom right about that. Whether it is mirrored, its side marker tells where it can be read: an R at
the picture's right, or an L at its left. Whether the letter itself is mirrored says nothing: many a marker of a PA
radiograph is laid to be read from behind.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np

from xray.radiographs import frontal
from xray.radiographs.body_parts import CHEST
from xray.radiographs.body_parts import FRONTAL as FRONTAL_VIEW
from xray.radiographs.codestream import RadiographError
from xray.radiographs.dicom import read_header_view
from xray.radiographs.frontal import PixelView
from xray.radiographs.grayscale import is_one_grey
from xray.radiographs.header_view import FLUOROSCOPY, HeaderView
from xray.radiographs.side_marker import read_marker

FRONTAL = "chest frontal"
LATERAL = "lateral view"
OBLIQUE = "oblique view"
OTHER_PART = "other body part"
OTHER_MODALITY = "other modality"
NO_CHEST = "no frontal chest"
UNKNOWN = "unknown"
KINDS = (FRONTAL, LATERAL, OBLIQUE, OTHER_PART, OTHER_MODALITY, NO_CHEST, UNKNOWN)

Mode = Literal["off", "warn", "refuse"]

NOT_ONE = "no frontal chest radiograph: "
"""How the reason begins why a file is none."""
RAW = "its header says that it is raw data for processing, not meant to be looked at"
MIRRORED = "its header says that it is mirrored: the patient's right is on its right"
MARKED = {
    ("R", False): "its side marker R is at the picture's right: it is mirrored, or marked wrongly",
    ("R", True): "its side marker, a mirrored R, is at the picture's right: it is mirrored, or marked wrongly",
    ("L", False): "its side marker L is at the picture's left: it is mirrored, or marked wrongly",
    ("L", True): "its side marker, a mirrored L, is at the picture's left: it is mirrored, or marked wrongly",
}
"""Letter that stands on the wrong side, and whether it is mirrored → what is said of it."""


@dataclasses.dataclass(frozen=True)
class ImageCheck:
    """What was found about one file.

    kind: one of KINDS. reason: why, in one sentence of fixed words; nothing of a header's text stands in it.
    frontal: probability, in [0, 1], of the pixels to be a frontal chest, however it lies. turn: quarter turns,
    anticlockwise as np.rot90 counts them, that make it upright; 0 where it is upright, or that is not sure.
    is_negative: whether black and white are exchanged. notes: what else is to be said, each of a few fixed sentences.
    is_turned_back: whether the models saw it upright all the same.
    """

    kind: str
    reason: str
    frontal: float
    turn: int = 0
    is_negative: bool = False
    notes: tuple[str, ...] = ()
    is_turned_back: bool = False

    @property
    def is_right(self) -> bool:
        """Whether models for upright frontal chest radiographs may look at it: nothing is known against it."""
        return not self.fault

    @property
    def fault(self) -> str:
        """Why it is refused, "" where it is not."""
        if self.kind not in (FRONTAL, UNKNOWN):
            return self.reason
        if self.turn and not self.is_turned_back:
            return TURNED[self.turn]
        return NEGATIVE if self.is_negative else ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """All that its user should know, each of a few fixed sentences, to count by."""
        said = () if self.kind == FRONTAL and self.reason == FRONTAL else (self.reason,)
        lies = ((BACK if self.is_turned_back else TURNED)[self.turn],) if self.turn else ()
        return (*said, *lies, *((NEGATIVE,) if self.is_negative else ()), *self.notes)


TURNED = {
    1: "its pixels show a chest turned clockwise by 90 degrees: --upright turns it back",
    2: "its pixels show a chest upside down: --upright turns it back",
    3: "its pixels show a chest turned anticlockwise by 90 degrees: --upright turns it back",
}
"""Quarter turns that make it upright → what is said of it."""
BACK = {turn: f"{text.partition(':')[0]}: it was turned back for the models" for turn, text in TURNED.items()}
NEGATIVE = "its pixels show a chest with black and white exchanged"


def check_image(pixels: np.ndarray, header: HeaderView | None = None) -> ImageCheck:
    """pixels: (H, W) uint8 or uint16 display grey. header: of the file, None where it has none."""
    # An empty exposure has ranks of noise, which need not be looked at.
    view = PixelView(0.0) if is_one_grey(pixels) else frontal.look(pixels)
    check = judged(view, header or HeaderView())
    return dataclasses.replace(check, notes=(*check.notes, *_notes_of_markers(pixels, view, check)))


def judged(view: PixelView, header: HeaderView) -> ImageCheck:
    """The kind by the table above, and how the radiograph lies."""
    none, one, turned, negative = frontal.weights()["thresholds"].tolist()
    is_chest, is_none = view.frontal >= one, view.frontal < none
    kind, reason = _kind(header, is_chest, is_none)
    notes = ((RAW,) if header.for_processing else ()) + ((MIRRORED,) if header.is_mirrored else ())
    if kind not in (FRONTAL, UNKNOWN) or not is_chest:
        return ImageCheck(kind, reason, view.frontal, notes=notes)
    turn = view.turn if view.turned >= turned else 0
    return ImageCheck(kind, reason, view.frontal, turn, view.inverted >= negative, notes)


def _notes_of_markers(pixels: np.ndarray, view: PixelView, check: ImageCheck) -> tuple[str, ...]:
    """What its side marker says, where its pixels show a frontal chest and it is known how that lies."""
    is_chest = view.frontal >= frontal.weights()["thresholds"][1]
    if check.kind != FRONTAL or not is_chest or view.turn != check.turn:
        return ()
    if check.is_negative:
        pixels = np.iinfo(pixels.dtype).max - pixels
    marker = read_marker(np.rot90(pixels, check.turn), view.middle)
    if marker is None or marker.is_on_its_side:
        return ()
    return (MARKED[marker.letter, marker.is_mirrored],)


def fault_of_header(path: Path) -> str:
    """Why a DICOM file is refused by its header alone, whatever its pixels are; "" where they count, too.

    Raises RadiographError where the file cannot be read.
    """
    header = read_header_view(path)
    kind, reason = _header_fault(header)
    return "" if _is_doubtful(kind, header) else reason


def is_fault(text: str) -> bool:
    """Whether a text is why a file was refused, for what it shows or how it lies."""
    return text.startswith(NOT_ONE) or text in (*TURNED.values(), NEGATIVE)


def _header_fault(header: HeaderView) -> tuple[str, str]:
    """The kind that a header alone decides, and why; "" where it decides none."""
    said = f"its header says {header.said}"
    if header.modality:
        return OTHER_MODALITY, NOT_ONE + said
    if header.part and header.part != CHEST:
        return OTHER_PART, NOT_ONE + said
    if header.view and header.view != FRONTAL_VIEW:
        return {"lateral": LATERAL, "oblique": OBLIQUE}[header.view], NOT_ONE + said
    return "", ""


def _is_doubtful(kind: str, header: HeaderView) -> bool:
    """Whether pixels that show a frontal chest count more than what the header says: many a device fills it in."""
    return kind == OTHER_PART or (kind == OTHER_MODALITY and header.modality == FLUOROSCOPY)


def _kind(header: HeaderView, is_chest: bool, is_none: bool) -> tuple[str, str]:
    kind, reason = _header_fault(header)
    if is_chest and _is_doubtful(kind, header):
        return UNKNOWN, f"its header says {header.said}, its pixels show a frontal chest"
    if kind:
        return kind, reason
    is_said = header.part == CHEST and header.view == FRONTAL_VIEW
    if is_said:
        doubt = f"its header says {header.said}, which its pixels do not look like"
        return FRONTAL, doubt if is_none else FRONTAL
    if is_chest:
        return FRONTAL, FRONTAL
    said = f", of which its header says {header.said}" if header.said else ""
    if is_none:
        return NO_CHEST, f"{NOT_ONE}its pixels look like something else{said}"
    return UNKNOWN, f"not sure that it is a frontal chest radiograph: its pixels do not tell{said}"


@dataclasses.dataclass(frozen=True)
class Gate:
    """What becomes of files that are no upright frontal chest radiographs.

    mode: "off" looks at none; "warn" names them; "refuse" raises for them. upright: turned ones are turned back.
    """

    mode: Mode = "off"
    upright: bool = False

    def look(self, pixels: np.ndarray, header: HeaderView | None, name: str) -> ImageCheck | None:
        """The check of a radiograph, None where nothing is to be looked at.

        pixels, header: as of `check_image`. name: of the file, for the message. Raises RadiographError where the mode
        refuses it.
        """
        if self.mode == "off" and not self.upright:
            return None
        check = check_image(pixels, header)
        check = dataclasses.replace(check, is_turned_back=self.upright and check.turn > 0)
        if self.mode == "refuse" and check.fault:
            raise RadiographError(f"{name}: {check.fault}")
        return check

    def turn_of(self, check: ImageCheck | None) -> int:
        """Quarter turns, anticlockwise, by which it is turned before the models look."""
        return check.turn if check is not None and check.is_turned_back else 0

    def warnings_of(self, check: ImageCheck | None) -> tuple[str, ...]:
        """What is said of a file that is used."""
        return () if check is None or self.mode == "off" else check.warnings
