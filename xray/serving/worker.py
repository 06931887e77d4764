"""The models in a thread of their own, and the bounded queue before it."""

import collections
import dataclasses
import logging
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Literal, Protocol

import numpy as np

from xray.inference.pipeline import Findings

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


class BusyError(Exception):
    """All places are taken. retry_after: whole seconds after which one may be free."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("all places are taken")
        self.retry_after = retry_after


class ModelError(Exception):
    """The models failed on a radiograph."""


class Place:
    """A request's place, from when it is let in until it has its answer; a context manager that gives it back.

    Leaving it while the radiograph still waits takes that out of the queue.
    """

    def __init__(self, model: "ModelThread") -> None:
        self._model = model
        self.future: Future[Findings] | None = None

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *exception: object) -> None:
        self._model.leave(self)

    def submit(self, canvas: np.ndarray, size: tuple[int, int]) -> "Future[Findings]":
        """Queues one radiograph.

        canvas: (S, S) uint8. size: (width, height) in original pixels. The result has rows of image 0 alone; instead
        of one, the future raises ModelError.
        """
        return self._model.submit(self, canvas, size)

    @property
    def state(self) -> tuple[State, int]:
        """Where the radiograph is, and how many are before it in the queue."""
        return self._model.state_of(self)


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    canvas: np.ndarray
    size: tuple[int, int]
    future: "Future[Findings]"


class ModelThread:
    """One thread that runs the models over whatever waits, up to `batch_size` radiographs at a time.

    capacity: places, for requests that are still being received and those that wait or run. A context manager: leaving
    it stops the thread and fails what still waits.
    """

    def __init__(self, pipeline: Finds, capacity: int = 32, batch_size: int = 1) -> None:
        self.capacity, self.batch_size = capacity, batch_size
        self._pipeline = pipeline
        self._places: set[Place] = set()
        self._waiting: collections.deque[_Job] = collections.deque()
        self._changed = threading.Condition()
        self._is_stopped = False
        self._n_running = 0
        self._seconds = 1.0
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def __enter__(self) -> "ModelThread":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
            left = list(self._waiting)
            self._waiting.clear()
        for job in left:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(ModelError("the server is being stopped"))
        self._thread.join(PATIENCE)

    @property
    def is_alive(self) -> bool:
        """Whether radiographs are being worked on, or would be."""
        return self._thread.is_alive() and not self._is_stopped

    @property
    def load(self) -> dict[str, int]:
        """Numbers of places, of those taken, and of radiographs waiting and running."""
        with self._changed:
            return {
                "places": self.capacity,
                "taken": len(self._places),
                "waiting": len(self._waiting),
                "running": self._n_running,
            }

    def enter(self, is_node: bool = False) -> Place:
        """A place. Raises BusyError if all are taken.

        is_node: for the DICOM node, whose place nobody else can take: it asks for one at a time.
        """
        with self._changed:
            if not is_node:
                self._check_room()
            place = Place(self)
            self._places.add(place)
            return place

    def check_room(self) -> None:
        """Raises BusyError if all places are taken."""
        with self._changed:
            self._check_room()

    def _check_room(self) -> None:
        if len(self._places) >= self.capacity:
            # Those who are turned away come back one by one, as places become free.
            raise BusyError(min(30, max(1, math.ceil(self._seconds * self.batch_size))))

    def submit(self, place: Place, canvas: np.ndarray, size: tuple[int, int]) -> "Future[Findings]":
        """As `Place.submit`."""
        job = _Job(canvas, size, Future())
        with self._changed:
            if self._is_stopped:
                raise ModelError("the server is being stopped")
            place.future = job.future
            self._waiting.append(job)
            self._changed.notify()
        return job.future

    def leave(self, place: Place) -> None:
        """Gives a place back."""
        with self._changed:
            self._places.discard(place)
            if place.future is not None and place.future.cancel():
                self._waiting = collections.deque(job for job in self._waiting if job.future is not place.future)

    def state_of(self, place: Place) -> tuple[State, int]:
        """As `Place.state`."""
        with self._changed:
            if place.future is None:
                return "receiving", len(self._waiting)
            for number, job in enumerate(self._waiting):
                if job.future is place.future:
                    return "waiting", number
            return ("done" if place.future.done() else "running"), 0

    def _run(self) -> None:
        while jobs := self._next():
            start = time.perf_counter()
            self._work(jobs)
            seconds = (time.perf_counter() - start) / len(jobs)
            with self._changed:
                self._n_running = 0
                self._seconds += SMOOTHING * (seconds - self._seconds)

    def _next(self) -> list[_Job]:
        """What waits, at most a batch; nothing once the thread is stopped."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._is_stopped)
                if self._is_stopped:
                    return []
                jobs = [self._waiting.popleft() for _ in range(min(self.batch_size, len(self._waiting)))]
                jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
                if jobs:
                    self._n_running = len(jobs)
                    return jobs

    def _work(self, jobs: list[_Job]) -> None:
        try:
            found = self._pipeline.find(np.stack([job.canvas for job in jobs]), [job.size for job in jobs])
            results = [of_one(found, number) for number in range(len(jobs))]
        except Exception as error:
            if len(jobs) > 1:
                # One of them, or all together for want of memory: each by itself then.
                for job in jobs:
                    self._work([job])
                return
            is_debug = log.isEnabledFor(logging.DEBUG)
            log.error("the models failed on a radiograph: %s", type(error).__name__, exc_info=is_debug)
            jobs[0].future.set_exception(ModelError(f"the models failed on this radiograph ({type(error).__name__})"))
            return
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(result)


def of_one(found: Findings, number: int) -> Findings:
    """The findings of one radiograph of a batch, as those of a batch of one; without maps."""
    rows = np.flatnonzero(found.table.images == number)
    table = found.table.select(rows)
    masks: dict[int, Any] = {new: found.masks[row] for new, row in enumerate(rows.tolist()) if row in found.masks}
    labels = {label: column[number : number + 1] for label, column in found.labels.items()}
    return Findings(dataclasses.replace(table, images=np.zeros_like(table.images)), masks, None, labels)
