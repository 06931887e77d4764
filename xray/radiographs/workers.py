"""Worker processes that read files for others, so that a broken file costs that file only."""

import collections
import dataclasses
import math
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import pebble

from xray import interrupts
from xray.errors import InputError
from xray.radiographs.codestream import RadiographError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

TIMEOUT = 60.0
"""Seconds that one file may take."""
MEMORY_LIMIT = 768 * 2**20
"""Bytes that a worker may allocate; with its libraries, which take 150 to 200 MiB, it stays below 1 GiB."""
GRACE = 30.0
"""Seconds that a pool may take, in addition to the time of a file, to start workers and to report the outcome."""
MAX_ATTEMPTS = 3
"""How often a file is tried when its pool breaks down for no known reason."""
MAX_BROKEN = 5 * MAX_ATTEMPTS
"""After so many broken pools in a row, the machine is at fault and not the files."""


@dataclasses.dataclass
class Failed:
    """An item without a result. reason: with the name of the item."""

    reason: str


def in_workers(
    work: Callable[[_Item], _Result],
    items: Sequence[_Item],
    n_workers: int,
    name: Callable[[_Item], str],
    timeout: float = TIMEOUT,
    memory_limit: int = MEMORY_LIMIT,
) -> Generator[_Result | Failed, None, None]:
    """`work(item)` of all items, in their order, in worker processes.

    work: importable by the workers; it raises RadiographError, whose message holds the item's name, for what it cannot
        read.
    n_workers: number of processes; 0 works in this one, without limits of time and memory, as does a process that is
        itself a worker: it may not start others.
    name: of an item, for messages.
    timeout: seconds that one item may take.
    memory_limit: bytes that a worker may allocate.

    An item that cannot be read, or whose worker hangs, crashes or is killed, gives a Failed. Only a few items per
    worker are under way, so memory does not grow with their number. Closing the iterator stops the workers.
    Raises InputError if the workers as such cannot live, whatever the item.
    """
    if n_workers == 0 or multiprocessing.current_process().daemon:
        for item in items:
            yield _attempt(work, item, name(item))
        return

    waiting = collections.deque(enumerate(items))
    under_way: collections.deque[_Job[_Item, _Result]] = collections.deque()
    attempts: collections.Counter[int] = collections.Counter()
    module = getattr(work, "func", work).__module__
    # Items that were under way when the pool broke: one of them broke it, and tried one at a time it shows which.
    suspects: set[int] = set()
    pool, broken = _start_pool(n_workers, memory_limit, module), 0
    try:
        while waiting or under_way:
            try:
                while waiting and len(under_way) <= 2 * n_workers:
                    index, item = waiting[0]
                    if under_way and (index in suspects or under_way[-1].index in suspects):
                        break
                    under_way.append(_schedule(pool, work, index, item, name(item), timeout))
                    waiting.popleft()
                outcome = _outcome(under_way[0], pool, timeout)
            except _PoolBrokenError:
                # All are tried again, but what broke the pool by itself not for ever.
                _stop_pool(pool)
                pool = _start_pool(n_workers, memory_limit, module)
                waiting.extendleft((job.index, job.item) for job in reversed(under_way))
                suspects.update(job.index for job in under_way)
                was_alone = len(under_way) <= 1
                under_way.clear()
                index, item = waiting[0]
                attempts[index] += was_alone
                broken += 1
                if broken == MAX_BROKEN:
                    raise InputError(
                        f"the processes that read files ended {broken} times in a row without a word, last at "
                        f"{name(item)}: check that memory is left, then start the command again"
                    ) from None
                if attempts[index] == MAX_ATTEMPTS:
                    waiting.popleft()
                    yield Failed(f"{name(item)}: its decoder disappeared without a word")
            else:
                under_way.popleft()
                broken = 0
                yield outcome
    finally:
        _stop_pool(pool)


class Workers:
    """Worker processes that stay, for files that come one at a time; a context manager that ends them.

    n_workers, memory_limit: as for `in_workers`. module: what the workers import beforehand.
    """

    def __init__(self, n_workers: int, module: str, memory_limit: int = MEMORY_LIMIT) -> None:
        self._arguments = (n_workers, memory_limit, module)
        self._lock, self._is_ended = threading.Lock(), False
        self._pool = _start_pool(*self._arguments)
        self._under_way: weakref.WeakKeyDictionary[Future[Any], _UnderWay] = weakref.WeakKeyDictionary()
        # As many as there are workers, so that what a thread waits for is running.
        self._threads = ThreadPoolExecutor(n_workers, thread_name_prefix="decoding")

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._is_ended = True
            _stop_pool(self._pool)
        # A pool that is stopped forgets its jobs: whoever waits for one would do so until its time is over.
        for under_way in list(self._under_way.values()):
            if under_way.job is not None:
                under_way.job.future.cancel()

    def submit(
        self, work: Callable[[_Item], _Result], item: _Item, name: str, timeout: float = TIMEOUT
    ) -> "Future[_Result | Failed]":
        """Does `work(item)` as `in_workers` does; any thread may ask.

        Cancelled while it waits, it never starts; `abandon` ends it while it runs.
        """
        under_way = _UnderWay()
        future = self._threads.submit(self._do, work, item, name, timeout, under_way)
        self._under_way[future] = under_way
        return future

    def abandon(self, future: "Future[Any]") -> None:
        """Ends the worker of a submitted item whose result is no longer wanted: the item becomes Failed."""
        under_way = self._under_way.get(future)
        if under_way is None or future.done():
            return
        under_way.is_abandoned = True
        if under_way.job is not None:
            # The pool ends the process of a job that is cancelled while it runs.
            under_way.job.future.cancel()

    def _do(
        self, work: Callable[[_Item], _Result], item: _Item, name: str, timeout: float, under_way: "_UnderWay"
    ) -> _Result | Failed:
        for _ in range(MAX_ATTEMPTS):
            if under_way.is_abandoned:
                break
            pool = self._pool
            try:
                under_way.job = job = _schedule(pool, work, 0, item, name, timeout)
                if under_way.is_abandoned or self._is_ended:
                    job.future.cancel()
                return _outcome(job, pool, timeout)
            except _PoolBrokenError:
                with self._lock:
                    if self._is_ended:
                        break
                    if self._pool is pool:
                        _stop_pool(pool)
                        self._pool = _start_pool(*self._arguments)
        return Failed(f"{name}: its decoder disappeared without a word")


@dataclasses.dataclass
class _UnderWay:
    """The state of a submitted item while a thread waits for it."""

    job: "_Job[Any, Any] | None" = None
    is_abandoned: bool = False


@dataclasses.dataclass
class _Job(Generic[_Item, _Result]):
    index: int
    item: _Item
    name: str
    future: "Future[_Result | Failed]"


class _PoolBrokenError(Exception):
    """The pool as a whole no longer works; pools break where a worker is killed while it talks to its parent."""


def _schedule(
    pool: pebble.ProcessPool, work: Callable[[_Item], _Result], index: int, item: _Item, name: str, timeout: float
) -> _Job[_Item, _Result]:
    try:
        return _Job(index, item, name, pool.schedule(_work, (work, item, name, timeout), timeout=timeout))
    except RuntimeError as error:
        raise _PoolBrokenError from error


def _attempt(work: Callable[[_Item], _Result], item: _Item, name: str) -> _Result | Failed:
    # Run by the worker: not every exception can be pickled, and one that cannot would break the pool.
    try:
        return work(item)
    except RadiographError as error:
        return Failed(str(error))
    except MemoryError:
        return Failed(f"{name}: decoding it needs more memory than allowed")
    except Exception as error:
        if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
            return Failed(f"{name}: decoding it needs more memory than allowed")
        return Failed(f"{name}: {type(error).__name__}: {error}")


def _work(work: Callable[[_Item], _Result], item: _Item, name: str, timeout: float) -> _Result | Failed:
    # The pool ends a worker that takes too long; where the whole command was killed, the kernel does.
    signal.alarm(math.ceil(timeout) + 2)
    try:
        return _attempt(work, item, name)
    finally:
        signal.alarm(0)


def _outcome(job: _Job[_Item, _Result], pool: pebble.ProcessPool, timeout: float) -> _Result | Failed:
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
        return Failed(f"{job.name}: {reason}")


def _start_pool(n_workers: int, memory_limit: int, module: str) -> pebble.ProcessPool:
    # Workers are forked from a small server process: it carries no threads, no open CUDA device and no torch, and
    # having imported what they need beforehand it replaces a dead worker in milliseconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__, module, "xray.radiographs.worker_startup"])
    with interrupts.shielded():
        forkserver.ensure_running()
    return pebble.ProcessPool(n_workers, initializer=_prepare_worker, initargs=(memory_limit,), context=context)


def _stop_pool(pool: pebble.ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]  # of the parent class, whose methods have no types
    pool.join()


def _prepare_worker(memory_limit: int) -> None:
    import resource  # here, as reading radiographs without workers needs no POSIX system

    cv2.setNumThreads(1)
    # The pool stops workers by SIGTERM. Python's handlers would wait for a decoder that hangs in C code.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # Decoders write about damaged data to stderr, which would break a progress bar; outcomes say what matters.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # The limit is on top of what libraries and their threads hold already, which differs between machines.
    try:
        used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    except OSError:
        used = 2**29
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = used + memory_limit
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
