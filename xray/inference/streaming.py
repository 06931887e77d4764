"""Radiographs on their way through a pipeline: decoding, models, post-processing and writing at the same time.

Worker processes decode; the calling thread runs the models, so that Ctrl-C reaches it; a thread each combines and
writes. Between them wait a few batches at most, so memory does not grow with the number of radiographs.
"""

import contextlib
import dataclasses
import itertools
import queue
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from xray.datasets.inputs import Inputs
from xray.datasets.originals import in_original_pixels
from xray.errors import InputError
from xray.inference.pipeline import Findings, Pipeline, Seen
from xray.inference.prediction_journal import Portion
from xray.radiographs.decoding import Decoded, Undecodable, decode_canvases, decode_whole
from xray.structures.boxes import BoxTable

T = TypeVar("T")
Item = Decoded | Undecodable

PATIENCE = 0.4
"""Seconds that a thread may take to stop once something went wrong."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """What became of consecutive radiographs: those in `found`, numbered 0 … B-1, were decoded; `items` are all."""

    items: list[Item]
    found: Findings

    @property
    def decoded(self) -> list[Decoded]:
        """The B radiographs of `found`."""
        return [item for item in self.items if isinstance(item, Decoded)]


def portion_of(batch: Batch, begin: int) -> Portion:
    """A batch as a journal keeps it; begin: position of the radiograph whose index is 0."""
    decoded, found = batch.decoded, batch.found
    positions = [begin + item.index for item in decoded]
    images = np.array(positions, dtype=np.int64)[found.table.images]
    return Portion(
        begin + batch.items[-1].index + 1,
        dataclasses.replace(found.table, images=images),
        found.masks,
        {position: (item.width, item.height) for position, item in zip(positions, decoded, strict=True)},
        {
            position: {label: float(column[number]) for label, column in found.labels.items()}
            for number, position in enumerate(positions)
        },
        [(begin + i.index, i.path.name, i.reason) for i in batch.items if isinstance(i, Undecodable)],
        [(begin + item.index, kind) for item in decoded for kind in item.warnings],
    )


def radiographs(
    inputs: Inputs, size: int, n_workers: int, timeout: float, pixels: bool = False
) -> Generator[Item, None, None]:
    """As `Inputs.canvases`; with `pixels`, files are decoded once for both and give a DecodedWhole."""
    if inputs.store is not None:
        # A row is read when it is first looked at: here, in the thread that reads ahead.
        items = inputs.canvases(size, 0, timeout)
        rows = (dataclasses.replace(item, canvas=item.canvas.copy()) for item in items if isinstance(item, Decoded))
        yield from ahead(rows, 64)
    elif pixels:
        items = decode_canvases(inputs.paths, size, n_workers, timeout, decode=decode_whole)
        yield from in_original_pixels(items, inputs.originals)
    else:
        yield from inputs.canvases(size, n_workers, timeout)


def consecutive(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` radiographs in a row, decoded or not, the last one fewer.

    What stands together, on which the last bits of a result may depend, so depends on the places of radiographs alone:
    not on which files can be read, nor on where a command went on, nor on which node of a cluster looks at them.
    """
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists with `size` decoded radiographs each, the last one fewer, and the undecodable ones where they stood."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if sum(isinstance(each, Decoded) for each in batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def run(pipeline: Pipeline, stream: Iterable[list[Item]], write: Callable[[Batch], None]) -> None:
    """Finds all of a stream of batches and hands them, in order, to `write`, which a thread of its own calls.

    A batch for which the GPU has too little memory is halved, and so are those after it. What any step raises is raised
    here, and no further batch is written then.
    """

    def combine(work: tuple[list[Item], Seen | None]) -> Batch:
        return _combine(pipeline, *work)

    limit = sys.maxsize
    with Step(write) as writing, Step(combine, writing.put) as combining:
        for batch in stream:
            waiting = list(batches(batch, limit))
            while waiting:
                try:
                    combining.put((waiting[0], _look(pipeline, waiting[0])))
                    waiting.pop(0)
                except torch.OutOfMemoryError:
                    limit = _halved(waiting[0])
                    waiting = list(batches((item for part in waiting for item in part), limit))


def _look(pipeline: Pipeline, items: list[Item]) -> Seen | None:
    canvases = [item.canvas for item in items if isinstance(item, Decoded)]
    return pipeline.look(np.stack(canvases)) if canvases else None


def _combine(pipeline: Pipeline, items: list[Item], seen: Seen | None) -> Batch:
    sizes = [(item.width, item.height) for item in items if isinstance(item, Decoded)]
    return Batch(items, pipeline.combine(seen, sizes) if seen is not None else Findings(BoxTable.empty()))


def _halved(items: list[Item]) -> int:
    n_decoded = sum(isinstance(item, Decoded) for item in items)
    if n_decoded < 2:
        raise InputError("the GPU has too little memory for one radiograph: use --device cpu, or another GPU") from None
    torch.cuda.empty_cache()
    print(f"{n_decoded} radiographs do not fit into the GPU's memory: going on with {n_decoded // 2}", file=sys.stderr)
    return n_decoded // 2


class Step(Generic[T]):
    """One step of the work in a thread of its own: does `work` for what is `put`, in order, and hands on what it gives.

    A context manager: leaving it waits for the rest and raises what `work` raised; left by an exception, it drops the
    rest. At most `depth` things wait.
    """

    def __init__(
        self, work: Callable[[T], Any], then: Callable[[Any], None] = lambda result: None, depth: int = 2
    ) -> None:
        self._work, self._then = work, then
        self._queue: queue.Queue[tuple[T] | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        # A thread that does not stop in time must not keep the process.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Step[T]":
        return self

    def put(self, item: T) -> None:
        """Hands in the next thing; waits while too many wait. Raises what `work` or `then` raised before."""
        self._offer((item,))

    def __exit__(self, kind: Any, *exception: object) -> None:
        if kind is None:
            try:
                self._offer(None)
                self._thread.join()
            finally:
                self._stop()
            self._raise()
        else:
            self._stop()

    def _offer(self, item: tuple[T] | None) -> None:
        while True:
            self._raise()
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                # The one that empties it may have failed meanwhile.
                continue

    def _stop(self) -> None:
        self._stopped.set()
        self._thread.join(PATIENCE)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                item = self._queue.get(timeout=0.1)
            except queue.Empty:
                continue
            if item is None:
                return
            try:
                self._then(self._work(*item))
            except BaseException as error:
                self._error = error
                return


def ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """The same items, of which a thread gets up to `depth` ahead. Raises what they raise."""
    ready: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def offer(what: tuple[T] | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                return ready.put(what, timeout=0.1)

    def read() -> None:
        try:
            for item in items:
                offer((item,))
                if stopped.is_set():
                    return
            offer(None)
        except BaseException as error:
            offer(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        while (what := ready.get()) is not None:
            if isinstance(what, BaseException):
                raise what
            yield what[0]
    finally:
        stopped.set()
        thread.join(PATIENCE)
