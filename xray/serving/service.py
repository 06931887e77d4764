"""What the HTTP server and the DICOM node share: decoding workers, the models' thread, a folder for uploads."""

import contextlib
import dataclasses
import functools
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from pydicom.dataset import Dataset

from xray.datasets.store_files import dtype_of
from xray.inference.findings import Findings
from xray.inference.pipeline import Pipeline
from xray.inference.precision import ready
from xray.inference.thresholds import say, thresholds_of
from xray.inference.trial import CPU_BATCH
from xray.inference.turning import turned_back
from xray.inference.ways import Models
from xray.models.device import keep_freed_memory
from xray.outputs.dicom.results import DicomResults
from xray.radiographs.decoding import NO_GATE, Decoded, decode_canvas
from xray.radiographs.image_check import Gate, ImageCheck
from xray.radiographs.radiograph import read_radiograph
from xray.radiographs.workers import TIMEOUT, Failed, Workers
from xray.serving import pixels
from xray.serving.worker import ModelThread, UnreadableError
from xray.structures.thresholds import SHOWN_FROM, Thresholds

T = TypeVar("T")

GPU_BATCH = 8
"""Radiographs of one pass of a GPU: with more, the first one would only wait longer."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds for the clients of a server.

    places: requests at a time, from when they have come in whole to their answer; more are told to come back.
    max_bytes: of a request. n_workers: processes that decode files. decode_seconds: for one file. upload_seconds: for
    one request to arrive; stall_seconds: between two parts of it; bytes_per_second: at which it has to come.
    batch_size: most radiographs that a pass of the models takes; `load_service` chooses where it is 0.
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


class Found(NamedTuple):
    """The findings of one file.

    size: its (width, height). check: whether it is a frontal chest radiograph, None where that was not looked at.
    """

    findings: Findings
    size: tuple[int, int]
    seconds: float
    check: ImageCheck | None = None


class Service:
    """The models, ready to answer; a context manager.

    models: names of the runs, for answers. folder: where uploads lie, private and empty but for those being read.
    thresholds: fitted for the findings, None where none are. shown_from: without them the confidence from which
    findings are shown at first. gate, node_gate: what becomes of files that are no upright frontal chest radiographs,
    those of requests and those of the DICOM node.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        models: Sequence[str],
        limits: Limits | None = None,
        thresholds: Thresholds | None = None,
        shown_from: float = SHOWN_FROM,
        gate: Gate = NO_GATE,
        node_gate: Gate | None = None,
    ) -> None:
        self.gate, self.node_gate = gate, gate if node_gate is None else node_gate
        self.pipeline, self.models, self.limits = pipeline, list(models), limits or Limits()
        self.thresholds, self.shown_from = thresholds, shown_from
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
            # Deleted first: should the rest be cut short, no upload stays behind.
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def upload(self) -> Iterator[Path]:
        """A path for one upload, with a random name; the file is deleted afterwards."""
        path = self.folder / secrets.token_hex(16)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def drop(self, future: "Future[Any]") -> None:
        """Gives up work whose result is not needed any more: it does not begin, or its worker is ended."""
        if not future.cancel():
            self.workers.abandon(future)

    def in_worker(self, work: Callable[[Path], T], path: Path) -> "Future[T | Failed]":
        """`work(path)` in a decoding worker; see `readable` for what comes of it."""
        return self.workers.submit(work, path, path.name, self.limits.decode_seconds)

    def canvas(self, path: Path, is_node: bool = False) -> "Future[Decoded | Failed]":
        """The radiograph of a file, for the models, unless the gate refuses it."""
        size, bits = self.pipeline.canvas_size, self.pipeline.bits
        gate = self.node_gate if is_node else self.gate
        return self.in_worker(functools.partial(decode_canvas, 0, size=size, bits=bits, gate=gate), path)

    def find(self, path: Path, is_node: bool = False) -> Found:
        """The findings of one file, its (width, height), and the seconds it took; waits for them.

        is_node: as for `ModelThread.enter`. Any thread may call it. Raises BusyError if all places are taken,
        UnreadableError, or ModelError.
        """
        start = time.perf_counter()
        with self.model.enter(is_node) as place:
            decoded = readable(self.canvas(path, is_node).result(), path)
            findings = place.submit(decoded.canvas, decoded.size_on_canvas).result()
        size = (decoded.width, decoded.height)
        return Found(of_file(findings, decoded), size, time.perf_counter() - start, decoded.check)


def load_service(
    runs: Sequence[Path],
    limits: Limits,
    device: str = "auto",
    precision: str = "auto",
    tta: bool = True,
    gate: Literal["soft", "hard"] = "soft",
    runtime: Literal["auto", "torch", "openvino"] = "auto",
    threshold: float | None = None,
    gate_image: Gate = NO_GATE,
    node_gate: Gate | None = None,
) -> Service:
    """A service of trained models that have made their first pass. Flags as in `xray serve`.

    gate_image, node_gate: as `Service` has them.
    limits: batch_size 0 is chosen for the device. Raises InputError for what is no run, or a damaged one.
    """
    from xray.export.ready import make_ready

    models = Models(tuple(runs), device, precision, runtime, {"flips": tta, "gate": gate})
    make_ready(models)
    start = models.start()
    pipeline = ready(models, start)
    if start.why:
        print(start.why, file=sys.stderr)
    place = pipeline.device
    if place.type == "cpu":
        keep_freed_memory()
    # The first pass prepares weights and compiles: no request shall wait for it.
    size = pipeline.canvas_size
    pipeline.find(np.zeros((1, size, size), dtype=dtype_of(pipeline.bits)), [(size, size)])
    if not limits.batch_size:
        limits = dataclasses.replace(limits, batch_size=CPU_BATCH if place.type == "cpu" else GPU_BATCH)
    fitted = thresholds_of(runs, threshold)
    if fitted is not None:
        say(f"findings are shown {fitted.description}")
    shown_from = SHOWN_FROM if threshold is None else threshold
    names = [run.resolve().name for run in runs]
    return Service(pipeline, names, limits, fitted, shown_from, gate_image, node_gate)


def of_file(findings: Findings, decoded: Decoded) -> Findings:
    """The findings of one radiograph in its file's own pixels, if it was turned for the models."""
    return turned_back(findings, [decoded.turn], [(decoded.width, decoded.height)])


def objects_of(service: Service, results: DicomResults, path: Path, is_node: bool = False) -> dict[str, Dataset]:
    """What is found in a DICOM file as DICOM objects, by their kinds; waits and raises as `Service.find` does."""
    found = service.find(path, is_node=is_node)
    radiograph = None
    if results.need_pixels:
        # In a worker, as the models' canvas was: the file may be hostile.
        radiograph = readable(service.in_worker(read_radiograph, path).result(), path)
    notes = () if found.check is None else found.check.warnings
    findings = dataclasses.replace(found.findings.of(0, service.pipeline.categories), notes=notes)
    return results.of(path, findings, radiograph)


def readable(outcome: Any, path: Path) -> Any:
    """The result of a worker. Raises UnreadableError, without the file's name, if that is a Failed."""
    if not isinstance(outcome, Failed):
        return outcome
    line = " ".join(outcome.reason.removeprefix(f"{path.name}: ").replace(path.name, "the file").split())
    raise UnreadableError(line[:300])
