"""Radiographs → canvases in worker processes, so that a broken file costs that file only."""

import collections
import dataclasses
import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pebble

from xray.data.canvas import Canvas
from xray.data.radiograph import RadiographError, read_radiograph

GRACE = 30.0
"""Seconds that a pool may take, beyond a file's own, to start workers and to say what became of the file."""
MAX_ATTEMPTS = 3
"""Times that a file is tried when its pool breaks down without saying why."""


@dataclasses.dataclass
class Decoded:
    """A radiograph on its canvas.

    index: of its path in the given sequence.
    canvas: (S, S) uint8, letterboxed.
    width, height: of the radiograph, in original pixels.
    spacing: (row, column) distance of pixel centres in mm, None where unknown.
    """

    index: int
    path: Path
    canvas: np.ndarray
    width: int
    height: int
    spacing: tuple[float, float] | None


@dataclasses.dataclass
class Undecodable:
    """A file that is not decoded, and the reason."""

    index: int
    path: Path
    reason: str


def decode_canvas(index: int, path: Path, size: int) -> Decoded:
    """Reads one radiograph and letterboxes it onto a (size, size) canvas. Raises RadiographError."""
    radiograph = read_radiograph(path)
    canvas = Canvas(radiograph.width, radiograph.height, size).letterbox(radiograph.pixels)
    return Decoded(index, path, canvas, radiograph.width, radiograph.height, radiograph.spacing)


def decode_canvases(
    paths: Sequence[Path],
    size: int,
    n_workers: int,
    timeout: float = 60.0,
    memory_limit: int = 2 * 2**30,
    decode: Callable[[int, Path, int], Decoded] = decode_canvas,
) -> Iterator[Decoded | Undecodable]:
    """Decodes radiographs in worker processes and yields them in the order of `paths`.

    size: side of the canvases, in pixels.
    n_workers: number of processes; 0 decodes in this one, without limits of time and memory.
    timeout: seconds that one file may take.
    memory_limit: bytes that a worker may allocate.
    decode: what a worker calls for (index, path, size); it must be importable there.

    A file that cannot be read, or whose worker hangs, crashes or is killed, gives an Undecodable. Only a few files per
    worker are under way, so memory does not grow with the number of paths. Closing the iterator stops the workers.
    """
    if n_workers == 0:
        for index, path in enumerate(paths):
            yield _attempt(decode, index, path, size)
        return

    waiting = collections.deque(enumerate(paths))
    under_way: collections.deque[_Job] = collections.deque()
    attempts: collections.Counter[int] = collections.Counter()
    pool = _start_pool(n_workers, memory_limit)
    try:
        while waiting or under_way:
            try:
                while waiting and len(under_way) <= 2 * n_workers:
                    under_way.append(_schedule(pool, decode, *waiting[0], size, timeout))
                    waiting.popleft()
                outcome = _outcome(under_way[0], pool, timeout)
            except _PoolBrokenError:
                # Which of its files broke the pool is unknown: all are tried again, but the oldest not for ever.
                _stop_pool(pool)
                pool = _start_pool(n_workers, memory_limit)
                waiting.extendleft((job.index, job.path) for job in reversed(under_way))
                under_way.clear()
                index, path = waiting[0]
                attempts[index] += 1
                if attempts[index] == MAX_ATTEMPTS:
                    waiting.popleft()
                    yield Undecodable(index, path, f"{path.name}: its decoder disappeared without a word")
            else:
                under_way.popleft()
                yield outcome
    finally:
        _stop_pool(pool)


@dataclasses.dataclass
class _Job:
    index: int
    path: Path
    future: pebble.ProcessFuture


class _PoolBrokenError(Exception):
    """The pool as a whole no longer works; pools break where a worker is killed while it talks to its parent."""


def _schedule(pool: pebble.ProcessPool, decode: Callable, index: int, path: Path, size: int, timeout: float) -> _Job:
    try:
        return _Job(index, path, pool.schedule(_work, (decode, index, path, size, timeout), timeout=timeout))
    except RuntimeError as error:
        raise _PoolBrokenError from error


def _attempt(decode: Callable[[int, Path, int], Decoded], index: int, path: Path, size: int) -> Decoded | Undecodable:
    # Run by the worker: not every exception can be pickled, and one that cannot would break the pool.
    try:
        return decode(index, path, size)
    except RadiographError as error:
        return Undecodable(index, path, str(error))
    except MemoryError:
        return Undecodable(index, path, f"{path.name}: decoding it needs more memory than allowed")
    except Exception as error:
        return Undecodable(index, path, f"{path.name}: {type(error).__name__}: {error}")


def _work(decode: Callable, index: int, path: Path, size: int, timeout: float) -> Decoded | Undecodable:
    # The pool ends a worker that takes too long. If the whole command was killed, only the kernel is left to do so.
    signal.alarm(math.ceil(timeout) + 2)
    try:
        return _attempt(decode, index, path, size)
    finally:
        signal.alarm(0)


def _outcome(job: _Job, pool: pebble.ProcessPool, timeout: float) -> Decoded | Undecodable:
    """Waits for the oldest job, which therefore is running or about to."""
    try:
        return job.future.result(timeout + GRACE)
    except Exception as error:
        # A pool that broke may have called its jobs late that were not.
        if not job.future.done() or not pool.active:
            raise _PoolBrokenError from error
        if isinstance(error, TimeoutError):
            reason = f"decoding it took longer than {timeout:g} s"
        elif isinstance(error, pebble.ProcessExpired):
            # A negative status is the signal that ended the process.
            code = error.exitcode
            how = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit status {code}"
            reason = f"its decoder crashed ({how})"
        else:
            reason = f"{type(error).__name__}: {error}"
        return Undecodable(job.index, job.path, f"{job.path.name}: {reason}")


def _start_pool(n_workers: int, memory_limit: int) -> pebble.ProcessPool:
    # Workers are forked from a small server process: it carries no threads, no open CUDA device and no torch, and
    # having imported this module beforehand it replaces a dead worker in milliseconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    return pebble.ProcessPool(n_workers, initializer=_prepare_worker, initargs=(memory_limit,), context=context)


def _stop_pool(pool: pebble.ProcessPool) -> None:
    pool.stop()
    pool.join()


def _prepare_worker(memory_limit: int) -> None:
    import resource  # here, as reading radiographs without workers needs no POSIX system

    cv2.setNumThreads(1)
    # The pool stops workers by SIGTERM. Python's handlers would wait for a decoder that hangs in C code.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # Decoders complain to stderr about damaged data; outcomes say what matters, and a progress bar stays whole.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # The limit is on top of what libraries and their threads hold already, which differs between machines.
    try:
        used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    except OSError:
        used = 2**29
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = used + memory_limit
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
