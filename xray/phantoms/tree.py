"""A folder of phantoms: drawn by several processes, continued after an interruption, never over real data."""

import concurrent.futures
import csv
import dataclasses
import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval

from xray import interrupts
from xray.errors import FlagError, InputError
from xray.files import check_writable, complete, make_folder
from xray.flags import Processes, Seed, Share, check_ranges

Number = Annotated[int, Interval(ge=0, le=1_000_000)]

PARAMETERS, TRUTH, JOURNAL = "phantoms.json", "phantoms.jsonl", "phantoms.unfinished.jsonl"
SPLITS = ("train", "test")
EDITION = 3
"""Counts up when the same parameters begin to give other pictures, so that old and new ones are not mixed."""


@dataclasses.dataclass(frozen=True)
class Order:
    """What is to be drawn.

    seed: the same seed and numbers give the same files, for any number of workers.
    size: longer side in pixels, about; None for the sizes of the source.
    normal_fraction: share (0–1) of radiographs without findings.
    pneumothorax_fraction: share (0–1) of radiographs with a pneumothorax; None for as many as in the source.
    n_workers: processes that draw; 0 or 1 draws in this one.
    overwrite: delete phantoms made with other parameters. Without it, files already there are kept if the parameters
        are the same, so that an interrupted run is continued.
    progress: show a progress bar on stderr.
    """

    n_train: Number
    n_test: Number
    seed: Seed = 0
    size: Annotated[int, Interval(ge=96, le=6000)] | None = None
    normal_fraction: Share = 0.7
    pneumothorax_fraction: Share | None = None
    n_workers: Processes = 1
    overwrite: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        check_order(self)


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
class Job:
    """One radiograph to draw.

    path: the file whose presence shows that it was drawn. seeds: decide what it looks like. size: as in `Order`.
    """

    image_id: str
    split: str
    path: Path
    findings: tuple[int, ...]
    seeds: tuple[int, ...]
    size: int | None


def check_order(order: Any) -> None:
    """Raises FlagError for the first field of `Order`, or flag of that name, whose value makes no sense."""
    check_ranges(order, Order)
    if order.n_train + order.n_test == 0:
        raise FlagError("--n-train and --n-test are both 0: ask for one phantom at least")


def image_id(seed: int, split: str, index: int) -> str:
    """32 hexadecimal characters, as VinBigData names its radiographs."""
    return hashlib.sha256(f"xray phantom {seed} {split} {index}".encode()).hexdigest()[:32]


def draw_tree(
    folder: Path,
    order: Order,
    jobs: Sequence[Job],
    draw: Callable[[Job], dict[str, Any]],
    made: Sequence[str],
    **parameters: Any,
) -> tuple[list[dict[str, Any]], int]:
    """Draws all jobs of a folder that are not drawn yet.

    draw: draws one and returns what is true of it, "image_id" among it; kept in phantoms.jsonl. It is called in other
        processes.
    made: names of the files and folders that the caller makes in `folder`, which --overwrite may delete.
    parameters: what decides the files' content beside the order; kept with it in phantoms.json.

    Returns the truth of all jobs in their order, and how many were drawn now. Raises InputError where the folder
    holds something else, or phantoms of other parameters and not `overwrite`.
    """
    names = ("n_train", "n_test", "seed", "size", "normal_fraction")
    parameters = {"edition": EDITION} | {name: getattr(order, name) for name in names} | parameters
    _prepare(folder, parameters, order.overwrite, made)
    unfinished = folder / JOURNAL
    records = _read_records(folder / TRUTH) | _read_records(unfinished)
    todo = [job for job in jobs if job.image_id not in records or not job.path.is_file()]
    with unfinished.open("a", encoding="utf-8") as journal:
        drawn = _run(todo, draw, order.n_workers)
        for record in _with_progress(drawn, len(jobs), len(jobs) - len(todo)) if order.progress else drawn:
            records[record["image_id"]] = record
            journal.write(json.dumps(record) + "\n")
            journal.flush()
    # The journal is in the order in which the workers finished: write it again in the order of the files.
    ordered = [records[job.image_id] for job in jobs]
    write_text(folder / TRUTH, _lines(ordered))
    unfinished.unlink()
    return ordered, len(todo)


def check_tree(folder: Path) -> None:
    """Raises InputError where the folder of a tree cannot be written to, or holds something else than phantoms."""
    if _is_taken(folder) and not (folder / PARAMETERS).is_file():
        # Never delete what may be the real data, whatever the flags say.
        raise InputError(f"{folder} exists and holds no phantoms: give another --save-path")
    check_writable(folder)


def _is_taken(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _prepare(folder: Path, parameters: dict[str, Any], overwrite: bool, made: Sequence[str]) -> None:
    """Makes the folder ready for phantoms of these parameters, or raises InputError and touches nothing."""
    check_tree(folder)
    stamp = folder / PARAMETERS
    if _is_taken(folder) and json.loads(stamp.read_text(encoding="utf-8")) != parameters:
        if not overwrite:
            raise InputError(
                f"{folder} holds phantoms made with other parameters (see {stamp.name} there): give another "
                "--save-path, or --overwrite to replace them"
            )
        for name in (*made, TRUTH, JOURNAL, PARAMETERS):
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    make_folder(folder)
    # What a killed run was writing; its processes are gone.
    for path in folder.rglob("*.part"):
        path.unlink()
    write_text(stamp, json.dumps(parameters, indent=2) + "\n")


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)  # the work is shared out by processes already


def _run(jobs: list[Job], draw: Callable[[Job], dict[str, Any]], n_workers: int) -> Iterator[dict[str, Any]]:
    """The truth of each job in the order in which they finish."""
    if n_workers <= 1 or len(jobs) <= 1:
        yield from map(draw, jobs)
        return
    # A fresh interpreter for each worker: forking a process in which other libraries run threads can hang.
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        min(n_workers, len(jobs)), mp_context=context, initializer=_one_thread
    )
    try:
        with interrupts.shielded():
            futures = [pool.submit(draw, job) for job in jobs]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _with_progress(records: Iterator[dict[str, Any]], total: int, done: int) -> Iterator[dict[str, Any]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("drawing phantoms"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("phantoms", total=total, completed=done)
        for record in records:
            yield record
            bar.advance(task)


def _read_records(path: Path) -> dict[str, dict[str, Any]]:
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
        write_text(path, _lines(records.values()))
    return records


def _lines(records: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    """Writes a CSV file, complete or not at all."""
    with complete(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, complete or not at all."""
    with complete(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
