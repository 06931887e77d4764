"""The models in a thread of their own, the bounded queue before it, and why a request gets no findings."""

import collections
import dataclasses
import logging
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Literal, Protocol

import numpy as np

from xray.inference.findings import Findings

log = logging.getLogger("xray.serving")

PATIENCE = 0.3
"""Seconds that the thread may take to stop; a pass of the models cannot be cut short."""
SMOOTHING = 0.2
"""Share of the newest pass in the mean time of a radiograph."""

State = Literal["receiving", "waiting", "running", "done"]


class Finds(Protocol):
    """What is needed of a `Pipeline`."""

    @property
    def canvas_size(self) -> int: ...

    def find(self, canvases: np.ndarray, sizes: Sequence[tuple[int, int]]) -> Findings: ...


class RefusedError(Exception):
    """A request that cannot be answered. status, headers: of HTTP. line: why, in one line that names no file."""

    def __init__(self, status: int, line: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(line)
        self.status, self.line, self.headers = status, line, headers or {}


class BusyError(RefusedError):
    """All places are taken. retry_after: whole seconds after which one may be free."""

    def __init__(self, retry_after: int) -> None:
        line = f"all places are taken: try again in {retry_after} s"
        super().__init__(429, line, {"Retry-After": str(retry_after)})
        self.retry_after = retry_after


class ModelError(RefusedError):
    """The models failed on a radiograph."""

    def __init__(self, line: str) -> None:
        super().__init__(500, line)


class UnreadableError(RefusedError):
    """A file is no radiograph, or a damaged one."""

    def __init__(self, line: str) -> None:
        super().__init__(415 if "neither DICOM nor PNG nor JPEG" in line else 422, line)


class Place:
    """A request's place, from when it is let in until it has its answer; a context manager that gives it back.

    Leaving it while the radiograph still waits takes that out of the queue.
    """

    canvas: np.ndarray
    size: tuple[int, int]

    def __init__(self, model: "ModelThread") -> None:
        self._model, self.future, self._is_submitted = model, Future[Findings](), False

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *exception: object) -> None:
        with self._model.changed:
            self._model.places.discard(self)
            if self in self._model.waiting:
                self._model.waiting.remove(self)
                self.future.cancel()

    def submit(self, canvas: np.ndarray, size: tuple[int, int]) -> "Future[Findings]":
        """Queues one radiograph.

        canvas: (S, S) uint8. size: (width, height) in original pixels. The result has rows of image 0 alone; instead
        of one, the future raises ModelError.
        """
        with self._model.changed:
            if self._model.is_stopped:
                raise ModelError("the server is being stopped")
            self.canvas, self.size, self._is_submitted = canvas, size, True
            self._model.waiting.append(self)
            self._model.changed.notify()
        return self.future

    @property
    def state(self) -> tuple[State, int]:
        """Where the radiograph is, and how many are before it in the queue."""
        with self._model.changed:
            if not self._is_submitted:
                return "receiving", len(self._model.waiting)
            if self in self._model.waiting:
                return "waiting", self._model.waiting.index(self)
            return ("done" if self.future.done() else "running"), 0


class ModelThread:
    """One thread that runs the models over whatever waits, up to `batch_size` radiographs at a time.

    capacity: places, for requests that are still being received and those that wait or run. A context manager: leaving
    it stops the thread and fails what still waits. changed: guards places, waiting and is_stopped. keeps_maps: whether
    findings have their probability maps, too, of which somebody makes something.
    """

    def __init__(self, pipeline: Finds, capacity: int = 32, batch_size: int = 1) -> None:
        self.capacity, self.batch_size = capacity, batch_size
        self.changed = threading.Condition()
        self.places: set[Place] = set()
        self.waiting: collections.deque[Place] = collections.deque()
        self.is_stopped = False
        self.keeps_maps = False
        self._pipeline = pipeline
        self._n_running = 0
        # Until the first is known: who is told too short a time comes again, who is told too long a time waits idly.
        self._seconds = 0.3
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def __enter__(self) -> "ModelThread":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self.changed:
            self.is_stopped = True
            self.changed.notify()
            left = list(self.waiting)
            self.waiting.clear()
        for place in left:
            if place.future.set_running_or_notify_cancel():
                place.future.set_exception(ModelError("the server is being stopped"))
        self._thread.join(PATIENCE)

    @property
    def is_alive(self) -> bool:
        """Whether radiographs are being worked on, or would be."""
        return self._thread.is_alive() and not self.is_stopped

    @property
    def load(self) -> dict[str, int]:
        """Numbers of places, of those taken, and of radiographs waiting and running."""
        with self.changed:
            taken, waiting = len(self.places), len(self.waiting)
            return {"places": self.capacity, "taken": taken, "waiting": waiting, "running": self._n_running}

    @property
    def free(self) -> int:
        """Places that are not taken."""
        with self.changed:
            return self.capacity - len(self.places)

    @property
    def seconds(self) -> float:
        """That a radiograph takes the models, on average."""
        return self._seconds

    def enter(self, is_node: bool = False) -> Place:
        """A place. Raises BusyError if all are taken.

        is_node: for the DICOM node, which has a place beside the others: it asks for one at a time.
        """
        with self.changed:
            if not is_node:
                self.check_room()
            place = Place(self)
            self.places.add(place)
            return place

    def check_room(self) -> None:
        """Raises BusyError if all places are taken."""
        with self.changed:
            if len(self.places) >= self.capacity:
                # Refused clients come back one by one, as places become free.
                raise BusyError(min(30, max(1, math.ceil(self._seconds * self.batch_size))))

    def _run(self) -> None:
        while places := self._next():
            start = time.perf_counter()
            self._work(places)
            seconds = (time.perf_counter() - start) / len(places)
            with self.changed:
                self._n_running = 0
                self._seconds += SMOOTHING * (seconds - self._seconds)

    def _next(self) -> list[Place]:
        """What waits, at most a batch; nothing once the thread is stopped."""
        with self.changed:
            while True:
                self.changed.wait_for(lambda: self.waiting or self.is_stopped)
                if self.is_stopped:
                    return []
                batch = [self.waiting.popleft() for _ in range(min(self.batch_size, len(self.waiting)))]
                if places := [place for place in batch if place.future.set_running_or_notify_cancel()]:
                    self._n_running = len(places)
                    return places

    def _work(self, places: list[Place]) -> None:
        try:
            findings = self._pipeline.find(np.stack([p.canvas for p in places]), [p.size for p in places])
            results = [of_one(findings, number, self.keeps_maps) for number in range(len(places))]
        except Exception as error:
            if len(places) > 1:
                # One of them fails, or all together need too much memory: try each by itself.
                for place in places:
                    self._work([place])
                return
            is_debug = log.isEnabledFor(logging.DEBUG)
            log.error("the models failed on a radiograph: %s", type(error).__name__, exc_info=is_debug)
            places[0].future.set_exception(ModelError(f"the models failed on this radiograph ({type(error).__name__})"))
            return
        for place, result in zip(places, results, strict=True):
            place.future.set_result(result)


def of_one(findings: Findings, number: int, with_maps: bool = False) -> Findings:
    """The findings of one radiograph of a batch, as those of a batch of one; with_maps: and its maps."""
    table, masks = findings.table.select_masked(findings.table.images == number, findings.masks)
    labels = {label: column[number : number + 1] for label, column in findings.labels.items()}
    # A copy, so that the batch's go.
    maps = findings.maps[number : number + 1].copy() if with_maps and findings.maps is not None else None
    table = dataclasses.replace(table, images=np.zeros_like(table.images))
    return dataclasses.replace(findings, table=table, masks=masks, maps=maps, labels=labels)
