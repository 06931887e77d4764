"""What the HTTP server and the DICOM node share: decoding workers, the models' thread, a folder for uploads."""

import contextlib
import dataclasses
import functools
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from xray.inference.pipeline import Findings, Pipeline
from xray.radiographs.decoding import Decoded
from xray.radiographs.workers import TIMEOUT, Failed, Workers
from xray.serving import pixels
from xray.serving.worker import ModelThread

T = TypeVar("T")


class UnreadableError(Exception):
    """A file is no radiograph, or a damaged one; the message says why in one line, without the file's name."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What strangers may ask of a server.

    places: requests at a time, from when they have come in whole to their answer; more are told to come back.
    max_bytes: of a request. n_workers: processes that decode files. decode_seconds: for one file. upload_seconds: for
    one request to arrive; stall_seconds: between two parts of it; bytes_per_second: at which it has to come.
    batch_size: most radiographs that a pass of the models takes.
    """

    places: int = 32
    max_bytes: int = 100 * 2**20
    n_workers: int = 2
    decode_seconds: float = TIMEOUT
    upload_seconds: float = 600.0
    stall_seconds: float = 20.0
    batch_size: int = 1
    bytes_per_second: int = 16 * 2**10

    @property
    def uploads(self) -> tuple[int, int]:
        """Requests that may be coming in at a time, in all and from one address."""
        return 2 * self.places, self.places


class Service:
    """The models, ready to answer; a context manager.

    models: names of the runs, for answers. folder: where uploads lie, private and empty but for those being read.
    """

    def __init__(self, pipeline: Pipeline, models: Sequence[str], limits: Limits | None = None) -> None:
        self.pipeline, self.models, self.limits = pipeline, list(models), limits or Limits()
        self.model = ModelThread(pipeline, self.limits.places, self.limits.batch_size)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Service":
        with contextlib.ExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="xray-uploads-"))
            self.workers = stack.enter_context(Workers(self.limits.n_workers, pixels.__name__))
            for _ in range(self.limits.n_workers):
                # Workers start with their first task, which shall not be somebody's radiograph.
                self.workers.submit(str, "", "start")
            stack.enter_context(self.model)
            # Left first: should the rest be cut short, no upload stays behind.
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def upload(self) -> Iterator[Path]:
        """A path for one upload, whose name comes from chance alone; what is there is deleted afterwards."""
        path = self.folder / secrets.token_hex(16)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def drop(self, future: "Future[Any]") -> None:
        """Gives up what nobody waits for any more: what has not begun never does, and a worker at it is ended."""
        if not future.cancel():
            self.workers.abandon(future)

    def in_worker(self, work: Callable[[Path], T], path: Path) -> "Future[T | Failed]":
        """`work(path)` in a decoding worker; see `readable` for what comes of it."""
        return self.workers.submit(work, path, path.name, self.limits.decode_seconds)

    def canvas(self, path: Path) -> "Future[Decoded | Failed]":
        """The radiograph of a file, for the models."""
        return self.in_worker(functools.partial(pixels.canvas_of, self.pipeline.canvas_size), path)

    def find(self, path: Path, is_node: bool = False) -> tuple[Findings, tuple[int, int], float]:
        """The findings of one file, its (width, height), and the seconds it took; waits for them.

        is_node: as for `ModelThread.enter`. Any thread may call it. Raises worker.BusyError if all places are taken,
        UnreadableError, or worker.ModelError.
        """
        start = time.perf_counter()
        with self.model.enter(is_node) as place:
            decoded = readable(self.canvas(path).result(), path)
            size = (decoded.width, decoded.height)
            found = place.submit(decoded.canvas, size).result()
        return found, size, time.perf_counter() - start


def readable(outcome: Any, path: Path) -> Any:
    """What a worker made of a file. Raises UnreadableError if that is a Failed."""
    if not isinstance(outcome, Failed):
        return outcome
    line = " ".join(outcome.reason.removeprefix(f"{path.name}: ").replace(path.name, "the file").split())
    raise UnreadableError(line[:300])
