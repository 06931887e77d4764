"""Phantoms, drawn chest radiographs: `draw_phantom` draws one, `write_vinbig` a whole set in VinBigData's own layout.

A set has DICOM files, the rows of three readers for each training radiograph, and a hidden truth of the test set.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from xray.errors import InputError
from xray.findings import FINDINGS, NO_FINDING, NO_FINDING_NAME, PNEUMOTHORAX
from xray.phantoms.drawing import FINDING_RATES, Phantom, draw_phantom
from xray.phantoms.readers import read_by_three
from xray.phantoms.tree import draw_tree, write_csv

__all__ = ["Phantom", "PhantomSet", "draw_phantom", "image_id", "plan_findings", "write_vinbig"]

TRAIN_COLUMNS = ("image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max")
TRUTH_COLUMNS = ("image_id", "class_name", "class_id", "x_min", "y_min", "x_max", "y_max")

_SPLITS = ("train", "test")
# Counts up when the same parameters begin to give other pictures, so that old and new ones are not mixed.
_EDITION = 1


@dataclasses.dataclass(frozen=True)
class PhantomSet:
    """What was written."""

    folder: Path
    n_train: int
    n_test: int
    n_drawn: int
    """Files written in this run; the others were there already."""
    images_with: dict[str, int]
    """Number of radiographs, train and test, that truly show what the set is about, and "No finding" beside it."""


@dataclasses.dataclass(frozen=True)
class _Job:
    """One file to draw."""

    split: str
    index: int
    image_id: str
    findings: tuple[int, ...]
    seed: int
    size: int | None
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / self.split / f"{self.image_id}.dicom"


def plan_findings(
    n: int, normal_fraction: float, rng: np.random.Generator, pneumothorax: float | None = None
) -> list[tuple[int, ...]]:
    """Which findings each of n radiographs shows: class ids, () for none.

    The share of normal radiographs is met exactly, and among the others each finding occurs as often as its rate says
    (`FINDING_RATES`), but at least once, so that a small set has them all.

    pneumothorax: share (0–1) of the n radiographs with one, as far as there are abnormal ones; None for its rate.
    """
    n_abnormal = n - round(n * normal_fraction)
    shown: list[list[int]] = [[] for _ in range(n_abnormal)]
    quotas = np.maximum(1, np.round(FINDING_RATES * n_abnormal)).astype(int)
    if pneumothorax is not None:
        quotas[PNEUMOTHORAX] = round(pneumothorax * n)
    for class_id in np.argsort(quotas, kind="stable"):
        # Radiographs with few findings so far come first: nobody has everything and none of them has nothing.
        order = np.argsort([len(ids) + 1.5 * rng.random() for ids in shown], kind="stable")
        for image in order[: quotas[class_id]]:
            shown[image].append(int(class_id))
    plan = [tuple(sorted(ids)) for ids in shown] + [()] * (n - n_abnormal)
    return [plan[k] for k in rng.permutation(n)]


def write_vinbig(
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
    """Writes `<save_path>/vinbig` with train.csv, sample_submission.csv, train/*.dicom and test/*.dicom.

    Beside them stand the hidden truth of the test set (test_truth.csv), the true boxes of all radiographs
    (phantoms.jsonl) and what they were made with (phantoms.json).

    seed: the same seed and numbers give the same files, for any number of workers.
    size: longer side in pixels, about; None for 1900 to 3000 as in VinBigData.
    normal_fraction: share (0–1) of radiographs without findings.
    n_workers: processes that draw; 0 or 1 draws in this one.
    overwrite: delete phantoms made with other parameters. Without it, files already there are kept if the parameters
        are the same, so that an interrupted run goes on.
    progress: show a progress bar on stderr.
    pneumothorax: share (0–1) of radiographs with one; None for as few as in VinBigData.

    Raises InputError where a number makes no sense, or the folder holds something else.
    """
    check_numbers(n_train, n_test, seed, size, normal_fraction, pneumothorax)
    folder = Path(save_path) / "vinbig"
    parameters = {
        "edition": _EDITION, "n_train": n_train, "n_test": n_test, "seed": seed, "size": size,
        "normal_fraction": normal_fraction,
    }  # fmt: skip
    # Only where it is given, so that trees which were begun before there was a choice are still continued.
    if pneumothorax is not None:
        parameters["pneumothorax"] = pneumothorax
    jobs = []
    for split, n in zip(_SPLITS, (n_train, n_test), strict=True):
        plan = plan_findings(n, normal_fraction, np.random.default_rng([seed, _SPLITS.index(split)]), pneumothorax)
        jobs += [_Job(split, k, image_id(seed, split, k), ids, seed, size, folder) for k, ids in enumerate(plan)]
    made = ("train.csv", "sample_submission.csv", "test_truth.csv", *_SPLITS)
    ordered, n_drawn = draw_tree(
        folder, parameters, jobs, _draw, made=made, n_workers=n_workers, overwrite=overwrite, progress=progress
    )
    for split in _SPLITS:
        (folder / split).mkdir(exist_ok=True)
    _write_tables(folder, seed, ordered[:n_train], ordered[n_train:])
    images_with = {name: sum(k in record["class_ids"] for record in ordered) for k, name in enumerate(FINDINGS)}
    images_with[NO_FINDING_NAME] = sum(not record["class_ids"] for record in ordered)
    return PhantomSet(folder, n_train, n_test, n_drawn, images_with)


def image_id(seed: int, split: str, index: int) -> str:
    """32 hexadecimal characters, as VinBigData names its radiographs."""
    return hashlib.sha256(f"xray phantom {seed} {split} {index}".encode()).hexdigest()[:32]


def check_numbers(
    n_train: int, n_test: int, seed: int, size: int | None, normal_fraction: float, pneumothorax: float | None = None
) -> None:
    """Raises InputError where a number makes no sense."""
    if n_train < 0 or n_test < 0 or n_train + n_test == 0:
        raise InputError(f"{n_train} training and {n_test} test phantoms were asked for: ask for at least one")
    if seed < 0:
        raise InputError(f"the seed is {seed}: choose 0 or a larger whole number")
    if size is not None and not 96 <= size <= 6000:
        raise InputError(f"the size is {size} pixels: choose one from 96 to 6000, or none for 1900 to 3000")
    if not 0 <= normal_fraction <= 1:
        raise InputError(f"the share of normal phantoms is {normal_fraction}: choose one from 0 to 1")
    if pneumothorax is not None and not 0 <= pneumothorax <= 1:
        raise InputError(f"the share of phantoms with a pneumothorax is {pneumothorax}: choose one from 0 to 1")


def _draw(job: _Job) -> dict[str, Any]:
    """Draws and writes one file; returns its truth as it goes to phantoms.jsonl."""
    from xray.phantoms.dicom import dicom_of, sample_storage, save_dicom

    rng = np.random.default_rng([job.seed, 2 + _SPLITS.index(job.split), job.index])
    height = rng.uniform(1900, 3000) if job.size is None else job.size * rng.uniform(0.94, 1.0)
    # Detectors have even sides; a few pictures are wider than high.
    sides = [2 * round(height / 2), 2 * round(height * rng.uniform(0.8, 1.0) / 2)]
    height, width = sides if rng.random() < 0.95 else sides[::-1]
    phantom = draw_phantom([job.seed, 4 + _SPLITS.index(job.split), job.index], width, height, job.findings)
    patient = phantom.patient
    dataset = dicom_of(
        phantom.pixels, sample_storage(rng), job.image_id, phantom.pixel_spacing, "F" if patient.female else "M",
        patient.age, "AP" if patient.supine else "PA", rng,
    )  # fmt: skip
    job.path.parent.mkdir(parents=True, exist_ok=True)
    save_dicom(dataset, job.path)
    return {
        "image_id": job.image_id,
        "split": job.split,
        "width": width,
        "height": height,
        "class_ids": phantom.class_ids.tolist(),
        "boxes": phantom.boxes.round(2).tolist(),
    }


def _write_tables(folder: Path, seed: int, train: list[dict[str, Any]], test: list[dict[str, Any]]) -> None:
    rows = []
    for index, record in enumerate(train):
        boxes = np.array(record["boxes"], dtype=np.float64).reshape(-1, 4)
        rng = np.random.default_rng([seed, 6, index])
        read = read_by_three(
            rng, boxes, np.array(record["class_ids"], dtype=np.int64), record["width"], record["height"]
        )
        rows += [(record["image_id"], *row) for row in read]
    # VinBigData's rows stand in no order.
    rows = [rows[k] for k in np.random.default_rng([seed, 7]).permutation(len(rows))]
    write_csv(folder / "train.csv", TRAIN_COLUMNS, rows)

    truth = []
    for record in test:
        for class_id, box in zip(record["class_ids"], record["boxes"], strict=True):
            truth.append((record["image_id"], FINDINGS[class_id], class_id, *box))
        if not record["class_ids"]:
            truth.append((record["image_id"], NO_FINDING_NAME, NO_FINDING, None, None, None, None))
    write_csv(folder / "test_truth.csv", TRUTH_COLUMNS, truth)
    predictions = [(record["image_id"], f"{NO_FINDING} 1 0 0 1 1") for record in test]
    write_csv(folder / "sample_submission.csv", ("image_id", "PredictionString"), predictions)
