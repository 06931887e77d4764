"""Radiographs on their way through a pipeline: decoding, models, post-processing and writing at the same time.

Worker processes decode; the calling thread runs the models, so that Ctrl-C reaches it; a thread each does the
post-processing and the writing. Between them wait a few batches at most, so memory does not grow with the number of
radiographs.
"""

import contextlib
import dataclasses
import itertools
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, cast

import numpy as np
import torch

from xray.datasets.inputs import Inputs
from xray.datasets.originals import in_original_pixels
from xray.errors import InputError
from xray.inference.findings import Findings
from xray.inference.pipeline import Outputs, Pipeline
from xray.inference.prediction_journal import Portion
from xray.inference.turning import turned_back
from xray.radiographs.decoding import Decoded, Undecodable, decode_canvases, decode_whole
from xray.structures.boxes import BoxTable

T = TypeVar("T")
Item = Decoded | Undecodable

DEPTH = 4
"""Batches that may wait for post-processing and writing."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Consecutive radiographs, `items`, and the findings in those that were decoded, numbered 0 … B-1."""

    items: list[Item]
    findings: Findings

    @property
    def decoded(self) -> list[Decoded]:
        """The B radiographs of `findings`."""
        return [item for item in self.items if isinstance(item, Decoded)]


def portion_of(batch: Batch, begin: int) -> Portion:
    """A batch as a journal keeps it; begin: position of the radiograph whose index is 0."""
    decoded, findings = batch.decoded, batch.findings
    positions = [begin + item.index for item in decoded]
    images = np.array(positions, dtype=np.int64)[findings.table.images]
    return Portion(
        begin + batch.items[-1].index + 1,
        dataclasses.replace(findings.table, images=images),
        findings.masks,
        {position: (item.width, item.height) for position, item in zip(positions, decoded, strict=True)},
        {
            position: {label: float(column[number]) for label, column in findings.labels.items()}
            for number, position in enumerate(positions)
        },
        [(begin + i.index, i.path.name, i.reason) for i in batch.items if isinstance(i, Undecodable)],
        [(begin + item.index, kind) for item in decoded for kind in item.warnings],
    )


def radiographs(
    inputs: Inputs, size: int, n_workers: int, timeout: float, pixels: bool = False, bits: int = 8
) -> Generator[Item, None, None]:
    """As `Inputs.canvases`; with `pixels`, files are decoded once for both and give a DecodedWhole."""
    if inputs.store is not None:
        # The copy reads a row's pixels in the thread that reads ahead.
        items = inputs.canvases(size, 0, timeout, bits)
        rows = (dataclasses.replace(item, canvas=item.canvas.copy()) for item in items if isinstance(item, Decoded))
        yield from ahead(rows, 64)
    elif pixels:
        decoding = (inputs.paths, size, n_workers, timeout)
        items = decode_canvases(*decoding, decode=decode_whole, bits=bits, gate=inputs.gate)
        yield from in_original_pixels(items, inputs.originals)
    else:
        yield from inputs.canvases(size, n_workers, timeout, bits)


def consecutive(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` radiographs in a row, decoded or not, the last one fewer.

    The last bits of a result may depend on which radiographs share a batch. Here batches depend on positions alone: not
    on which files can be read, on where a command resumed, or on the node of a cluster that takes them.
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

    A batch for which the GPU has too little memory is halved, and so are those after it. An exception in any step is
    raised here, and no further batch is written.
    """

    def postprocess(items: list[Item], outputs: Outputs | None) -> Batch:
        decoded = [item for item in items if isinstance(item, Decoded)]
        if outputs is None:
            return Batch(items, Findings(BoxTable.empty()))
        findings = pipeline.postprocess(outputs, [item.size_on_canvas for item in decoded])
        sizes = [(item.width, item.height) for item in decoded]
        return Batch(items, turned_back(findings, [item.turn for item in decoded], sizes))

    def write_after(previous: Future[None] | None, batch: Future[Batch]) -> None:
        if previous is not None:
            previous.result()  # after an error nothing more is written
        write(batch.result())

    limit = sys.maxsize
    unfinished: deque[Future[None]] = deque()
    with _one_thread() as postprocessing, _one_thread() as writing:
        for items in stream:
            waiting = list(batches(items, limit))
            while waiting:
                try:
                    outputs = _forward(pipeline, waiting[0])
                except torch.OutOfMemoryError:
                    limit = _halved(waiting[0])
                    waiting = list(batches((item for part in waiting for item in part), limit))
                    continue
                batch = postprocessing.submit(postprocess, waiting.pop(0), outputs)
                unfinished.append(writing.submit(write_after, unfinished[-1] if unfinished else None, batch))
                while len(unfinished) > DEPTH or (unfinished and unfinished[0].done()):
                    unfinished.popleft().result()
        for written in unfinished:
            written.result()


def _forward(pipeline: Pipeline, items: list[Item]) -> Outputs | None:
    canvases = [item.canvas for item in items if isinstance(item, Decoded)]
    return pipeline.forward(np.stack(canvases)) if canvases else None


def _halved(items: list[Item]) -> int:
    n_decoded = sum(isinstance(item, Decoded) for item in items)
    if n_decoded < 2:
        raise InputError("the GPU has too little memory for one radiograph: use --device cpu, or another GPU") from None
    torch.cuda.empty_cache()
    print(f"{n_decoded} radiographs do not fit into the GPU's memory: trying {n_decoded // 2}", file=sys.stderr)
    return n_decoded // 2


@contextlib.contextmanager
def _one_thread() -> Iterator[ThreadPoolExecutor]:
    """A thread that runs submitted work in order. If the block is left by an exception, work that has not begun is
    dropped."""
    executor = ThreadPoolExecutor(1)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """The same items; a thread gets up to `depth` of them in advance. Raises the exceptions of the iterator."""
    iterator, end = iter(items), object()
    with _one_thread() as reader:
        waiting = deque(reader.submit(next, iterator, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(reader.submit(next, iterator, end))
            yield cast("T", item)
