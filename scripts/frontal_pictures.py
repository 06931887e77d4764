"""Pictures to train and to test the network of xray/radiographs/frontal.py with: chests, and what is none.

Frontal chests are the real radiographs of a folder in the layout of COCO whose images have a `patient`, and drawn
phantoms. Real radiographs of other parts of the body are rare among what may be used, so these are drawn by
frontal_drawings.py; slices, mammograms, ultrasound and photographs by frontal_slices.py. The others are slices and
scintigrams of pydicom's test files, photographs that scikit-learn and matplotlib bring along, pages of text, test
patterns, and parts of chests. All are (H, W) uint8 with sides of at most SIDE pixels.
"""

import dataclasses
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import frontal_drawings as drawings
import frontal_slices as slices
import numpy as np

from xray.phantoms.drawing import draw_phantom

SIDE = drawings.SIDE
CHEST, OTHER = "chest", "other"
Rng = np.random.Generator


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture. kind: CHEST or OTHER. group: all of one patient, or one origin, have one. source: for the tables."""

    pixels: np.ndarray
    kind: str
    group: str
    source: str


def real_chests(folder: Path) -> Iterator[Picture]:
    """The frontal radiographs of a COCO folder, whose images name their patients."""
    for image in json.loads((folder / "annotations.json").read_text())["images"]:
        pixels = cv2.imread(str(folder / "images" / image["file_name"]), cv2.IMREAD_GRAYSCALE)
        yield Picture(reduced(pixels), CHEST, f"patient {image['patient']}", "real")


def phantom_chests(n: int, seed: int) -> Iterator[Picture]:
    """Phantoms, each of the 14 findings in many of them."""
    rng = np.random.default_rng([seed, 14])
    for number in range(n):
        findings = sorted(set(rng.integers(0, 14, rng.integers(0, 5)).tolist()))
        height = 320
        width = round(height * rng.uniform(0.75, 1.25))
        pixels = draw_phantom((seed, number), width, height, findings).pixels
        yield Picture(reduced((pixels * 255).astype(np.uint8)), CHEST, f"phantom {number}", "phantom")


def test_files() -> Iterator[Picture]:
    """Slices, ultrasound and scintigrams of pydicom's test files; photographs of scikit-learn and matplotlib."""
    import matplotlib
    import pydicom.data
    import sklearn.datasets

    from xray.radiographs.radiograph import RadiographError, read_radiograph

    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                pixels = read_radiograph(path).pixels
            except RadiographError:
                continue
        if min(pixels.shape) >= 60:
            yield Picture(reduced(pixels), OTHER, f"file {Path(path).stem[:8]}", "slices, ultrasound")
    photographs = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in sklearn.datasets.load_sample_images().images]
    folder = Path(matplotlib.get_data_path()) / "sample_data"
    for suffix in ("png", "jpg"):
        for path in sorted(folder.glob(f"*.{suffix}")):
            photographs.append(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    for number, pixels in enumerate(photographs):
        yield Picture(reduced(pixels), OTHER, f"photograph {number}", "photographs")


def drawn_others(n: int, seed: int) -> Iterator[Picture]:
    """Other parts of the body, lateral chests, pages and patterns, drawn."""
    kinds: list[tuple[str, Callable[[Rng], np.ndarray]]] = [
        ("drawn hand", drawings.hand), ("drawn limb", drawings.limb), ("drawn skull", drawings.skull),
        ("drawn pelvis", drawings.pelvis), ("drawn spine", drawings.spine), ("drawn abdomen", drawings.abdomen),
        ("drawn lateral chest", drawings.lateral), ("drawn lateral chest", drawings.lateral), ("page", drawings.page),
        ("pattern", drawings.pattern), ("drawn hand", drawings.hand),
        ("drawn chest slice", slices.chest_slice), ("drawn chest slice", slices.chest_slice),
        ("drawn chest slice", slices.coronal_slice), ("drawn other slice", slices.abdomen_slice),
        ("drawn other slice", slices.head_slice), ("drawn other slice", slices.breast_slice),
        ("drawn mammogram", slices.mammogram), ("drawn ultrasound", slices.ultrasound),
        ("drawn photograph", slices.photograph), ("drawn photograph", slices.photograph),
    ]  # fmt: skip
    for number in range(n):
        name, draw = kinds[number % len(kinds)]
        rng = np.random.default_rng([seed, 5, number])
        yield Picture(draw(rng), OTHER, f"{name} {number}", name)


def reduced(pixels: np.ndarray) -> np.ndarray:
    """(H, W) → sides of at most SIDE."""
    scale = SIDE / max(pixels.shape)
    if scale >= 1:
        return pixels
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
