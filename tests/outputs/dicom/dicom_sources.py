"""Radiographs as DICOM files that SR and SEG refer to, findings in them, and the programs that judge the objects."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pydicom.uid import ExplicitVRLittleEndian

from xray.findings import CATEGORIES
from xray.outputs.dicom.objects import Algorithm
from xray.phantoms.dicom import Storage, dicom_of, save_dicom
from xray.structures.boxes import BoxTable
from xray.structures.predictions import NO_FINDING_CATEGORY
from xray.structures.radiograph_findings import RadiographFindings

NAMES = {category["id"]: category["name"] for category in CATEGORIES}
ALGORITHM = Algorithm("xray", "0.1.0", {"model 1": "detection sha256:" + 64 * "a", "threshold": "0.3"})

REAL = (
    "cr_chest_monochrome1_jpeg2000.dcm",
    "dx_thorax_monochrome1_8bit.dcm",
    "dx_nih_implicit_vr.dcm",
    "vlut_04.dcm",
    "mlut_18.dcm",
)
PHANTOMS = {
    "monochrome1 CR": {"monochrome1": True, "computed": True},
    "DX without spacing": {"spacing": False},
    "odd sizes": {"width": 91, "height": 77, "bits": 8},
    "multi-frame SC": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.3", "NumberOfFrames": 1},
}


def write_phantom(
    path: Path,
    width: int = 120,
    height: int = 96,
    monochrome1: bool = False,
    computed: bool = False,
    spacing: bool = True,
    bits: int = 12,
    **elements: object,
) -> Path:
    """A small radiograph; `elements` override or add header elements by keyword, None takes one away."""
    rng = np.random.default_rng(3)
    pixels = rng.random((height, width), dtype=np.float32)
    storage = Storage(bits, monochrome1, True, ExplicitVRLittleEndian, computed)
    dataset = dicom_of(pixels, storage, path.stem, 0.143, "F", 61, "PA", rng)
    if not spacing:
        del dataset.PixelSpacing, dataset.ImagerPixelSpacing
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    if "SOPInstanceUID" in dataset:
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    save_dicom(dataset, path)
    return path


def some_findings(width: int, height: int, n: int = 14) -> BoxTable:
    """A box of each of the first n categories at odd places, one along the whole border, and "No finding"."""
    rng = np.random.default_rng(9)
    corners = np.sort(rng.random((n, 2, 2)) * [width, height], axis=1).reshape(n, 4)
    corners[0] = [0, 0, width, height]
    labels = [*range(1, n + 1), NO_FINDING_CATEGORY]
    scores = [*np.linspace(0.95, 0.31, n), 0.125]
    return BoxTable.of([0] * (n + 1), labels, [*corners, [0, 0, 1, 1]], scores)


def found(table: BoxTable, masks: dict | None = None, names: dict = NAMES, **more: object) -> RadiographFindings:
    """Findings of VinBigData's names. masks: row → (height, width) of 0 and 1."""
    return RadiographFindings(table, {row: rle_of(mask) for row, mask in (masks or {}).items()}, names, **more)


def blob(width: int, height: int, x: float, y: float, radius: float) -> np.ndarray:
    """An ellipse, (height, width) uint8 of 0 and 1; x, y, radius as shares of the sides."""
    rows, columns = np.mgrid[:height, :width]
    return (np.hypot((columns + 0.5) / width - x, (rows + 0.5) / height - y) < radius).astype(np.uint8)


def rle_of(mask: np.ndarray) -> dict:
    """COCO's compressed run lengths."""
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def program(name: str, package: str) -> str:
    """The path of a program; skips the test where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here (Debian's package {package})")
    return found


def assert_valid(path: Path) -> None:
    """dciodvfy of dicom3tools, which knows the standard's tables, finds no error in a file."""
    done = subprocess.run([program("dciodvfy", "dicom3tools"), path], capture_output=True, text=True, timeout=600)
    said = done.stdout + done.stderr
    errors = [line for line in said.splitlines() if re.match(r"\s*error\b", line, re.IGNORECASE)]
    assert not errors, f"dciodvfy: {errors}; everything it says:\n{said}"


@pytest.fixture(name="source", params=[*REAL, *PHANTOMS])
def dicom_source(request, tmp_path):
    """A DICOM file of each kind; a module that imports it has it. A conftest.py here would hide that of all tests."""
    if request.param in PHANTOMS:
        return write_phantom(tmp_path / "phantom.dcm", **PHANTOMS[request.param])
    return request.getfixturevalue("shared_data") / "dicom" / request.param
