"""Phantoms, drawn chest radiographs: `draw_phantom` draws one, `write_vinbig` a whole set in VinBigData's own layout.

A set has DICOM files, the rows of three readers for each training radiograph, and a hidden truth of the test set.
"""

import concurrent.futures
import csv
import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from xray.command import InputError
from xray.data.phantom.drawing import FINDING_RATES, Phantom, draw_phantom
from xray.data.phantom.readers import read_by_three
from xray.findings import FINDINGS, NO_FINDING, NO_FINDING_NAME

__all__ = ["Phantom", "PhantomSet", "draw_phantom", "image_id", "plan_findings", "write_vinbig"]

TRAIN_COLUMNS = ("image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max")
TRUTH_COLUMNS = ("image_id", "class_name", "class_id", "x_min", "y_min", "x_max", "y_max")

_SPLITS = ("train", "test")
_PARAMETERS, _TRUTH = "phantoms.json", "phantoms.jsonl"
# Counts up when the same parameters begin to give other pictures, so that old and new ones are not mixed.
_EDITION = 1


@dataclasses.dataclass(frozen=True)
class PhantomSet:
    """What `write_vinbig` wrote."""

    folder: Path
    n_train: int
    n_test: int
    n_drawn: int
    """Files written in this run; the others were there already."""
    images_with: dict[str, int]
    """Number of radiographs, train and test, that truly show each finding, and "No finding"."""


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


def plan_findings(n: int, normal_fraction: float, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Which findings each of n radiographs shows: class ids, () for none.

    The share of normal radiographs is met exactly, and among the others each finding occurs as often as its rate says
    (`FINDING_RATES`), but at least once, so that a small set has them all.
    """
    n_abnormal = n - round(n * normal_fraction)
    shown: list[list[int]] = [[] for _ in range(n_abnormal)]
    quotas = np.maximum(1, np.round(FINDING_RATES * n_abnormal)).astype(int)
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

    Raises InputError where a number makes no sense, or the folder holds something else.
    """
    _check(n_train, n_test, seed, size, normal_fraction)
    folder = Path(save_path) / "vinbig"
    parameters = {
        "edition": _EDITION, "n_train": n_train, "n_test": n_test, "seed": seed, "size": size,
        "normal_fraction": normal_fraction,
    }  # fmt: skip
    _prepare(folder, parameters, overwrite)

    jobs = []
    for split, n in zip(_SPLITS, (n_train, n_test), strict=True):
        plan = plan_findings(n, normal_fraction, np.random.default_rng([seed, _SPLITS.index(split)]))
        jobs += [_Job(split, k, image_id(seed, split, k), ids, seed, size, folder) for k, ids in enumerate(plan)]
    records = _read_records(folder / _TRUTH)
    todo = [job for job in jobs if job.image_id not in records or not _path_of(job).is_file()]
    with (folder / _TRUTH).open("a", encoding="utf-8") as journal:
        for record in _with_progress(_run(todo, n_workers), len(jobs), len(jobs) - len(todo), progress):
            records[record["image_id"]] = record
            journal.write(json.dumps(record) + "\n")
            journal.flush()

    # The journal is in the order in which the workers finished: write it again in the order of the files.
    ordered = [records[job.image_id] for job in jobs]
    _write_text(folder / _TRUTH, "".join(json.dumps(record) + "\n" for record in ordered))
    _write_tables(folder, seed, ordered[:n_train], ordered[n_train:])
    images_with = {name: sum(k in record["class_ids"] for record in ordered) for k, name in enumerate(FINDINGS)}
    images_with[NO_FINDING_NAME] = sum(not record["class_ids"] for record in ordered)
    return PhantomSet(folder, n_train, n_test, len(todo), images_with)


def image_id(seed: int, split: str, index: int) -> str:
    """32 hexadecimal characters, as VinBigData names its radiographs."""
    return hashlib.sha256(f"xray phantom {seed} {split} {index}".encode()).hexdigest()[:32]


def _check(n_train: int, n_test: int, seed: int, size: int | None, normal_fraction: float) -> None:
    if n_train < 0 or n_test < 0 or n_train + n_test == 0:
        raise InputError(f"{n_train} training and {n_test} test phantoms were asked for: ask for at least one")
    if seed < 0:
        raise InputError(f"the seed is {seed}: choose 0 or a larger whole number")
    if size is not None and not 96 <= size <= 6000:
        raise InputError(f"the size is {size} pixels: choose one from 96 to 6000, or none for 1900 to 3000")
    if not 0 <= normal_fraction <= 1:
        raise InputError(f"the share of normal phantoms is {normal_fraction}: choose one from 0 to 1")


def _prepare(folder: Path, parameters: dict, overwrite: bool) -> None:
    """Makes the folder ready for phantoms of these parameters, or raises InputError and touches nothing."""
    stamp = folder / _PARAMETERS
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not stamp.is_file():
            # Never delete what may be the real data, whatever the flags say.
            raise InputError(f"{folder} exists and holds no phantoms: give another --save-path")
        if json.loads(stamp.read_text(encoding="utf-8")) != parameters:
            if not overwrite:
                raise InputError(
                    f"{folder} holds phantoms made with other parameters (see {stamp.name} there): give another "
                    "--save-path, or --overwrite to replace them"
                )
            for name in ("train.csv", "sample_submission.csv", "test_truth.csv", _TRUTH, _PARAMETERS):
                (folder / name).unlink(missing_ok=True)
            for split in _SPLITS:
                shutil.rmtree(folder / split, ignore_errors=True)
    for split in _SPLITS:
        (folder / split).mkdir(parents=True, exist_ok=True)
    _write_text(stamp, json.dumps(parameters, indent=2) + "\n")


def _path_of(job: _Job) -> Path:
    return job.folder / job.split / f"{job.image_id}.dicom"


def _draw(job: _Job) -> dict:
    """Draws and writes one file; returns its truth as it goes to phantoms.jsonl."""
    from xray.data.phantom.dicom import dicom_of, sample_storage, save_dicom

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
    save_dicom(dataset, _path_of(job))
    return {
        "image_id": job.image_id,
        "split": job.split,
        "width": width,
        "height": height,
        "class_ids": phantom.class_ids.tolist(),
        "boxes": phantom.boxes.round(2).tolist(),
    }


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)  # the work is shared out by processes already


def _run(jobs: list[_Job], n_workers: int) -> Iterator[dict]:
    """The truth of each job in the order in which they finish."""
    if n_workers <= 1 or len(jobs) <= 1:
        yield from map(_draw, jobs)
        return
    # A fresh interpreter for each worker: forking a process in which other libraries run threads can hang.
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        min(n_workers, len(jobs)), mp_context=context, initializer=_one_thread
    )
    try:
        futures = [pool.submit(_draw, job) for job in jobs]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _with_progress(records: Iterator[dict], total: int, done: int, show: bool) -> Iterator[dict]:
    if not show:
        yield from records
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("drawing phantoms"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("phantoms", total=total, completed=done)
        for record in records:
            yield record
            bar.advance(task)


def _read_records(path: Path) -> dict[str, dict]:
    """The truth of the files drawn so far; a line cut off by an interruption is left out and drawn again."""
    records = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            records[record["image_id"]] = record
        # What is appended next must not continue a broken line.
        _write_text(path, "".join(json.dumps(record) + "\n" for record in records.values()))
    return records


def _write_tables(folder: Path, seed: int, train: list[dict], test: list[dict]) -> None:
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
    _write_csv(folder / "train.csv", TRAIN_COLUMNS, rows)

    truth = []
    for record in test:
        for class_id, box in zip(record["class_ids"], record["boxes"], strict=True):
            truth.append((record["image_id"], FINDINGS[class_id], class_id, *box))
        if not record["class_ids"]:
            truth.append((record["image_id"], NO_FINDING_NAME, NO_FINDING, None, None, None, None))
    _write_csv(folder / "test_truth.csv", TRUTH_COLUMNS, truth)
    predictions = [(record["image_id"], f"{NO_FINDING} 1 0 0 1 1") for record in test]
    _write_csv(folder / "sample_submission.csv", ("image_id", "PredictionString"), predictions)


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[tuple]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    os.replace(temporary, path)


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
