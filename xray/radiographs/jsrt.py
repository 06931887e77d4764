"""The raw files of the JSRT database: 2048 x 2048 pixels of 16 bits, big-endian, of which 12 bits are used, no header.

Nothing in such a file says what it is, so its name (JPCLN001.IMG, JPCNN001.IMG) and its size in bytes must.

(Shiraishi et al., "Development of a digital image database for chest radiographs with and without a lung nodule", AJR
174, 2000.)
"""

import re
from pathlib import Path

import cv2
import numpy as np

from xray.radiographs.codestream import RadiographError

SIDE = 2048
N_BYTES = 2 * SIDE * SIDE
SPACING = (0.175, 0.175)
"""Millimetres between pixel centres."""
WHITE = 4095

CLEARLY_UPRIGHT = 0.1
"""Share of the range of grey by which the bright parts must be brighter than the lungs for the values to be display
grey. On 200 radiographs of 100 sources that were looked at it is 0.25 or more for all but one, a white lung."""

_NAME = re.compile(r"JPC[LN]N\d{3}\.IMG", re.IGNORECASE)


def is_jsrt_name(name: str) -> bool:
    """Whether a file, named without its folder, is called as the raw files of the database are."""
    return _NAME.fullmatch(name) is not None


def is_jsrt(path: Path) -> bool:
    """Whether a file is one of the database's raw files, by its name and size."""
    try:
        return is_jsrt_name(path.name) and path.stat().st_size == N_BYTES
    except OSError:
        return False


def read_jsrt(path: Path) -> np.ndarray:
    """(2048, 2048) uint16 display grey of 0 to 4095, 0 is black.

    The database stores the density of the film, which is the larger the darker it is: the values are turned round,
    unless the pixels show clearly that somebody has done so before (`is_upright`). Bytes are swapped where only that
    gives values of 12 bits. Raises RadiographError for values beyond 12 bits in either order.
    """
    stored = np.fromfile(path, dtype=">u2", count=SIDE * SIDE)
    if stored.size < SIDE * SIDE:
        raise RadiographError(f"{path.name}: truncated: it holds {stored.size} of {SIDE * SIDE} pixels")
    values = next((words for words in (stored, stored.byteswap()) if int(words.max()) <= WHITE), None)
    if values is None:
        raise RadiographError(
            f"{path.name}: no raw file of JSRT, although it is called so: its values, up to {int(stored.max())}, are "
            "beyond 12 bits"
        )
    pixels = values.astype(np.uint16).reshape(SIDE, SIDE)
    return pixels if is_upright(pixels) else WHITE - pixels


def is_upright(pixels: np.ndarray) -> bool:
    """Whether a frontal radiograph's (H, W) values are clearly display grey: lungs darker than spine and abdomen.

    Compared are medians in fixed places of the picture. Its border says less: it may be air, a collimator's shadow, or
    what a scanner shows beside the film.
    """
    small = cv2.resize(pixels.astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA)
    low, high = np.percentile(small, (2, 98))
    lungs = np.concatenate([small[16:38, 11:23], small[16:38, 41:53]], axis=None)
    spine, abdomen = small[22:56, 29:36], small[54:62, 14:50]
    brighter = float(np.median(spine) + np.median(abdomen) - 2 * np.median(lungs))
    return brighter > CLEARLY_UPRIGHT * float(high - low)
