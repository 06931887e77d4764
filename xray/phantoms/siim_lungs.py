"""Phantoms with masks, in the layouts of SIIM-ACR Pneumothorax (`write_siim`) and of Montgomery (`write_lungs`)."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydicom.uid import JPEGBaseline8Bit

from xray.findings import FINDINGS, NO_FINDING_NAME, PNEUMOTHORAX
from xray.phantoms.dicom import Storage, dicom_of, save_dicom, uid_of
from xray.phantoms.drawing import draw_phantom, random_findings
from xray.phantoms.tree import draw_tree, write_csv, write_text
from xray.phantoms.vinbig import PhantomSet, check_numbers, image_id, plan_findings
from xray.structures.rle import encode

SIIM_SIZE = 1024
"""Side of SIIM's radiographs in pixels."""
PNEUMOTHORAX_SHARE = 0.25
"""Share of them that show a pneumothorax, about as in SIIM's training set."""

_SPLITS = ("train", "test")
# Counts up when the same parameters begin to give other pictures, so that old and new ones are not mixed.
_EDITION = 1


@dataclasses.dataclass(frozen=True)
class _Job:
    """One radiograph to draw; path is its file, seeds decide what it looks like."""

    image_id: str
    split: str
    path: Path
    findings: tuple[int, ...]
    seeds: tuple[int, ...]
    size: int | None


def write_siim(
    save_path: str | Path,
    n_train: int,
    n_test: int,
    seed: int = 0,
    size: int | None = None,
    normal_fraction: float = 0.7,
    n_workers: int = 1,
    overwrite: bool = False,
    progress: bool = True,
    pneumothorax: float | None = None,
) -> PhantomSet:
    """Writes `<save_path>/siim`: dicom-images-train/ and -test/ (JPEG files, two folders deep) and train-rle.csv.

    Beside them stand sample_submission.csv and the hidden truth of the test set (test-rle-truth.csv). Every component
    of a mask has a row of its own.

    size: side in pixels; None for 1024.
    normal_fraction: share (0–1) of the radiographs that show nothing but, in some, a pneumothorax.
    pneumothorax: share (0–1) of the radiographs, in each split, that show one; None for a quarter.
    The other arguments are those of `xray.phantoms.vinbig.write_vinbig`. Raises InputError as it does.
    """
    check_numbers(n_train, n_test, seed, size, normal_fraction, pneumothorax)
    positives = PNEUMOTHORAX_SHARE if pneumothorax is None else pneumothorax
    folder = Path(save_path) / "siim"
    parameters = {
        "edition": _EDITION, "n_train": n_train, "n_test": n_test, "seed": seed, "size": size,
        "normal_fraction": normal_fraction,
    }  # fmt: skip
    # Only where it differs, so that trees which were begun before there was a choice are still continued.
    if positives != PNEUMOTHORAX_SHARE:
        parameters["positives"] = positives
    jobs = []
    for number, (split, n) in enumerate(zip(_SPLITS, (n_train, n_test), strict=True)):
        rng = np.random.default_rng([seed, 10 + number])
        is_positive = rng.permutation(n) < round(positives * n)
        for index in range(n):
            others = set(random_findings(rng, normal_fraction)) - {PNEUMOTHORAX}
            findings = tuple(sorted(others | ({PNEUMOTHORAX} if is_positive[index] else set())))
            name = image_id(seed, f"siim {split}", index)
            uids = [uid_of(name, level) for level in ("study", "series", "instance")]
            path = folder / f"dicom-images-{split}" / uids[0] / uids[1] / f"{uids[2]}.dcm"
            jobs.append(_Job(name, split, path, findings, (seed, 12 + number, index), size))
    tables = ("train-rle.csv", "test-rle-truth.csv", "sample_submission.csv")
    ordered, n_drawn = draw_tree(
        folder, parameters, jobs, _draw_siim, made=(*tables, *(f"dicom-images-{split}" for split in _SPLITS)),
        n_workers=n_workers, overwrite=overwrite, progress=progress,
    )  # fmt: skip
    for split, name in zip(_SPLITS, tables, strict=False):
        rows = [(record["uid"], text) for record in ordered if record["split"] == split for text in record["masks"]]
        # The challenge's own tables have a space behind every comma, that of the header too.
        write_text(
            folder / name, "".join(f"{image}, {text}\n" for image, text in [("ImageId", "EncodedPixels"), *rows])
        )
    write_csv(
        folder / tables[2],
        ("ImageId", "EncodedPixels"),
        [(record["uid"], "-1") for record in ordered if record["split"] == "test"],
    )
    n_positive = sum(record["masks"] != ["-1"] for record in ordered)
    return PhantomSet(folder, n_train, n_test, n_drawn, {FINDINGS[PNEUMOTHORAX]: n_positive})


def _draw_siim(job: _Job) -> dict[str, Any]:
    """Draws and writes one file; returns its run lengths as they go to phantoms.jsonl."""
    side = 2 * round((job.size or SIIM_SIZE) / 2)
    phantom = draw_phantom(job.seeds, side, side, job.findings)
    storage = Storage(8, False, False, JPEGBaseline8Bit, computed=True)
    patient = phantom.patient
    dataset = dicom_of(
        phantom.pixels, storage, job.image_id, phantom.pixel_spacing, "F" if patient.female else "M", patient.age,
        "AP" if patient.supine else "PA", np.random.default_rng(job.seeds),
    )  # fmt: skip
    job.path.parent.mkdir(parents=True, exist_ok=True)
    save_dicom(dataset, job.path)
    n, labels = cv2.connectedComponents(phantom.pneumothorax_mask.astype(np.uint8), connectivity=8)
    masks = [encode(labels == label, "relative") for label in range(1, n)] or ["-1"]
    return {
        "image_id": job.image_id,
        "uid": job.path.stem,
        "split": job.split,
        "class_ids": phantom.class_ids.tolist(),
        "masks": masks,
    }


def write_lungs(
    save_path: str | Path,
    n_train: int,
    n_test: int,
    seed: int = 0,
    size: int | None = None,
    normal_fraction: float = 0.7,
    n_workers: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> PhantomSet:
    """Writes `<save_path>/lungs`: CXR_png/, ManualMask/leftMask/ and ManualMask/rightMask/ with PNG of equal names.

    The test set stands in the same layout under test/. Names are Montgomery's: MCUCXR_0001_0.png, the last digit 1
    where there is a finding.

    size: longer side in pixels, about; None for 1400 to 2000.
    The other arguments are those of `xray.phantoms.vinbig.write_vinbig`. Raises InputError as it does.
    """
    check_numbers(n_train, n_test, seed, size, normal_fraction)
    folder = Path(save_path) / "lungs"
    parameters = {
        "edition": _EDITION, "n_train": n_train, "n_test": n_test, "seed": seed, "size": size,
        "normal_fraction": normal_fraction,
    }  # fmt: skip
    plan = plan_findings(n_train + n_test, normal_fraction, np.random.default_rng([seed, 20]))
    jobs = []
    for index, findings in enumerate(plan):
        split = _SPLITS[index >= n_train]
        name = f"MCUCXR_{index + 1:04d}_{int(bool(findings))}"
        path = (folder if split == "train" else folder / "test") / "CXR_png" / f"{name}.png"
        jobs.append(_Job(name, split, path, findings, (seed, 22, index), size))
    ordered, n_drawn = draw_tree(
        folder, parameters, jobs, _draw_lungs, made=("CXR_png", "ManualMask", "test"), n_workers=n_workers,
        overwrite=overwrite, progress=progress,
    )  # fmt: skip
    n_normal = sum(not record["class_ids"] for record in ordered)
    return PhantomSet(folder, n_train, n_test, n_drawn, {NO_FINDING_NAME: n_normal})


def _draw_lungs(job: _Job) -> dict[str, Any]:
    """Draws and writes one radiograph with its two masks."""
    rng = np.random.default_rng(job.seeds)
    height = rng.uniform(1400, 2000) if job.size is None else job.size * rng.uniform(0.94, 1.0)
    width = height * rng.uniform(0.82, 1.0)
    phantom = draw_phantom(job.seeds, round(width), round(height), job.findings)
    left, right = phantom.lung_masks
    folder = job.path.parents[1] / "ManualMask"
    # The radiograph comes last: where it is, its masks are too.
    _write_pictures(
        (folder / "leftMask" / job.path.name, left * 255),
        (folder / "rightMask" / job.path.name, right * 255),
        (job.path, np.round(phantom.pixels * np.float32(255))),
    )
    return {"image_id": job.image_id, "split": job.split, "class_ids": phantom.class_ids.tolist()}


def _write_pictures(*pictures: tuple[Path, np.ndarray]) -> None:
    for path, pixels in pictures:
        encoded, stream = cv2.imencode(".png", pixels.astype(np.uint8))
        if not encoded:
            raise RuntimeError(f"{pixels.shape} pixels could not be written as PNG")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        temporary.write_bytes(stream.tobytes())
        os.replace(temporary, path)
