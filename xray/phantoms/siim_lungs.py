"""Phantoms with masks, in the layouts of SIIM-ACR Pneumothorax (`write_siim`) and of Montgomery (`write_lungs`)."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydicom.uid import JPEGBaseline8Bit

from xray.files import complete
from xray.findings import FINDINGS, NO_FINDING_NAME, PNEUMOTHORAX
from xray.phantoms.dicom import Storage, uid_of, write_phantom
from xray.phantoms.drawing import draw_phantom, random_findings
from xray.phantoms.tree import SPLITS, Job, Order, PhantomSet, draw_tree, image_id, write_csv, write_text
from xray.phantoms.vinbig import plan_findings
from xray.structures.rle import encode

SIIM_SIZE = 1024
"""Side of SIIM's radiographs in pixels."""
PNEUMOTHORAX_SHARE = 0.25
"""Share of them that show a pneumothorax, about as in SIIM's training set."""


def write_siim(save_path: str | Path, n_train: int, n_test: int, **options: Any) -> PhantomSet:
    """Writes `<save_path>/siim`: dicom-images-train/ and -test/ (JPEG files, two folders deep) and train-rle.csv.

    Beside them stand sample_submission.csv and the hidden truth of the test set (test-rle-truth.csv). Every component
    of a mask has a row of its own.

    options: those of `xray.phantoms.tree.Order`. Without a size, the side is 1024 pixels. The normal fraction is that
        of the radiographs which show nothing but, in some, a pneumothorax; that of a pneumothorax holds in each split.
    Raises InputError where a number makes no sense, or the folder holds something else.
    """
    order = Order(n_train, n_test, **options)
    folder, share = Path(save_path) / "siim", order.pneumothorax_fraction
    share = PNEUMOTHORAX_SHARE if share is None else share
    jobs = []
    for number, (split, n) in enumerate(zip(SPLITS, (n_train, n_test), strict=True)):
        rng = np.random.default_rng([order.seed, 10 + number])
        is_positive = rng.permutation(n) < round(share * n)
        for index in range(n):
            others = set(random_findings(rng, order.normal_fraction)) - {PNEUMOTHORAX}
            findings = tuple(sorted(others | ({PNEUMOTHORAX} if is_positive[index] else set())))
            name = image_id(order.seed, f"siim {split}", index)
            study, series, instance = (uid_of(name, level) for level in ("study", "series", "instance"))
            path = folder / f"dicom-images-{split}" / study / series / f"{instance}.dcm"
            jobs.append(Job(name, split, path, findings, (order.seed, 12 + number, index), order.size))
    tables = ("train-rle.csv", "test-rle-truth.csv", "sample_submission.csv")
    made = (*tables, *(f"dicom-images-{split}" for split in SPLITS))
    # Only where it differs, so that trees which were begun before there was a choice are still continued.
    more = {} if share == PNEUMOTHORAX_SHARE else {"positives": share}
    records, n_drawn = draw_tree(folder, order, jobs, _draw_siim, made, **more)
    for split, name in zip(SPLITS, tables, strict=False):
        rows = [(record["uid"], text) for record in records if record["split"] == split for text in record["masks"]]
        # The challenge's own tables have a space behind every comma, that of the header too.
        text = "".join(f"{image}, {text}\n" for image, text in [("ImageId", "EncodedPixels"), *rows])
        write_text(folder / name, text)
    predictions = [(record["uid"], "-1") for record in records if record["split"] == "test"]
    write_csv(folder / tables[2], ("ImageId", "EncodedPixels"), predictions)
    n_positive = sum(record["masks"] != ["-1"] for record in records)
    return PhantomSet(folder, n_train, n_test, n_drawn, {FINDINGS[PNEUMOTHORAX]: n_positive})


def _draw_siim(job: Job) -> dict[str, Any]:
    """Draws and writes one file; returns its run lengths as they go to phantoms.jsonl."""
    side = 2 * round((job.size or SIIM_SIZE) / 2)
    phantom = draw_phantom(job.seeds, side, side, job.findings)
    storage = Storage(8, False, False, JPEGBaseline8Bit, computed=True)
    write_phantom(job.path, phantom, storage, job.image_id, np.random.default_rng(job.seeds))
    n, labels = cv2.connectedComponents(phantom.pneumothorax_mask.astype(np.uint8), connectivity=8)
    return {
        "image_id": job.image_id,
        "uid": job.path.stem,
        "split": job.split,
        "class_ids": phantom.class_ids.tolist(),
        "masks": [encode(labels == label, "relative") for label in range(1, n)] or ["-1"],
    }


def write_lungs(save_path: str | Path, n_train: int, n_test: int, **options: Any) -> PhantomSet:
    """Writes `<save_path>/lungs`: CXR_png/, ManualMask/leftMask/ and ManualMask/rightMask/ with PNG of equal names.

    The test set stands in the same layout under test/. Names are Montgomery's: MCUCXR_0001_0.png, the last digit 1
    where there is a finding.

    options: those of `xray.phantoms.tree.Order`, but no share of pneumothorax. Without a size, the longer side is 1400
        to 2000 pixels.
    Raises InputError where a number makes no sense, or the folder holds something else.
    """
    order = Order(n_train, n_test, **options)
    folder = Path(save_path) / "lungs"
    plan = plan_findings(n_train + n_test, order.normal_fraction, np.random.default_rng([order.seed, 20]))
    jobs = []
    for index, findings in enumerate(plan):
        split = SPLITS[index >= n_train]
        name = f"MCUCXR_{index + 1:04d}_{int(bool(findings))}"
        path = (folder if split == "train" else folder / "test") / "CXR_png" / f"{name}.png"
        jobs.append(Job(name, split, path, findings, (order.seed, 22, index), order.size))
    records, n_drawn = draw_tree(folder, order, jobs, _draw_lungs, ("CXR_png", "ManualMask", "test"))
    n_normal = sum(not record["class_ids"] for record in records)
    return PhantomSet(folder, n_train, n_test, n_drawn, {NO_FINDING_NAME: n_normal})


def _draw_lungs(job: Job) -> dict[str, Any]:
    """Draws and writes one radiograph with its two masks."""
    rng = np.random.default_rng(job.seeds)
    height = rng.uniform(1400, 2000) if job.size is None else job.size * rng.uniform(0.94, 1.0)
    width = height * rng.uniform(0.82, 1.0)
    phantom = draw_phantom(job.seeds, round(width), round(height), job.findings)
    left, right = phantom.lung_masks
    folder = job.path.parents[1] / "ManualMask"
    # The radiograph comes last: where it is, its masks are too.
    for path, pixels in (
        (folder / "leftMask" / job.path.name, left * 255),
        (folder / "rightMask" / job.path.name, right * 255),
        (job.path, np.round(phantom.pixels * np.float32(255))),
    ):
        encoded, stream = cv2.imencode(".png", pixels.astype(np.uint8))
        if not encoded:
            raise RuntimeError(f"{pixels.shape} pixels could not be written as PNG")
        path.parent.mkdir(parents=True, exist_ok=True)
        with complete(path) as temporary:
            temporary.write_bytes(stream.tobytes())
    return {"image_id": job.image_id, "split": job.split, "class_ids": phantom.class_ids.tolist()}
