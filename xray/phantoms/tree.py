"""A folder of phantoms: drawn by several processes, gone on with after an interruption, never over real data."""

import concurrent.futures
import csv
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from xray import interrupts
from xray.errors import InputError

PARAMETERS, TRUTH = "phantoms.json", "phantoms.jsonl"


class Job(Protocol):
    """A radiograph to draw: its id, and the file whose presence shows that it was drawn."""

    image_id: str

    @property
    def path(self) -> Path: ...


def draw_tree(
    folder: Path,
    parameters: dict[str, Any],
    jobs: Sequence[Any],
    draw: Callable[[Any], dict[str, Any]],
    *,
    made: Sequence[str],
    n_workers: int,
    overwrite: bool,
    progress: bool,
) -> tuple[list[dict[str, Any]], int]:
    """Draws all jobs of a folder that are not drawn yet.

    parameters: what decides the files' content; kept in phantoms.json.
    jobs: each a `Job`. draw: draws one and returns what is true of it, "image_id" among it; kept in phantoms.jsonl.
        Both travel to other processes.
    made: names of the files and folders that the caller makes in `folder`, which --overwrite may delete.

    Returns the truth of all jobs in their order, and how many were drawn now. Raises InputError where the folder
    holds something else, or phantoms of other parameters and not `overwrite`.
    """
    _prepare(folder, parameters, overwrite, made)
    unfinished = folder / f"{TRUTH}.part"
    records = _read_records(folder / TRUTH) | _read_records(unfinished)
    todo = [job for job in jobs if job.image_id not in records or not job.path.is_file()]
    with unfinished.open("a", encoding="utf-8") as journal:
        for record in _with_progress(_run(todo, draw, n_workers), len(jobs), len(jobs) - len(todo), progress):
            records[record["image_id"]] = record
            journal.write(json.dumps(record) + "\n")
            journal.flush()
    # The journal is in the order in which the workers finished: write it again in the order of the files.
    ordered = [records[job.image_id] for job in jobs]
    write_text(folder / TRUTH, "".join(json.dumps(record) + "\n" for record in ordered))
    unfinished.unlink()
    return ordered, len(todo)


def _prepare(folder: Path, parameters: dict[str, Any], overwrite: bool, made: Sequence[str]) -> None:
    """Makes the folder ready for phantoms of these parameters, or raises InputError and touches nothing."""
    stamp = folder / PARAMETERS
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
            for name in (*made, TRUTH, f"{TRUTH}.part", PARAMETERS):
                path = folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    # What a killed run was writing; its processes are gone.
    for path in folder.rglob(".*.part"):
        path.unlink()
    write_text(stamp, json.dumps(parameters, indent=2) + "\n")


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)  # the work is shared out by processes already


def _run(jobs: list[Any], draw: Callable[[Any], dict[str, Any]], n_workers: int) -> Iterator[dict[str, Any]]:
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


def _with_progress(records: Iterator[dict[str, Any]], total: int, done: int, show: bool) -> Iterator[dict[str, Any]]:
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
        write_text(path, "".join(json.dumps(record) + "\n" for record in records.values()))
    return records


def write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    """Writes a CSV file, complete or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, complete or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
