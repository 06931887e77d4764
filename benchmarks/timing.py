"""Measuring two ways of doing the same work, fairly: in alternation, in one run, with a first round thrown away."""

import dataclasses
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Timing:
    """One measured run of `n` items of work.

    seconds: of wall-clock time.
    cpu_seconds: of processor time of this process, threads included, its child processes left out.
    """

    n: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Items per second of wall-clock time."""
        return self.n / self.seconds


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of a handful of numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one number."""
        return cls(statistics.median(values), min(values), max(values))


def timed(work: Callable[[], int]) -> Timing:
    """Times `work`, which returns how many items it did."""
    wall, cpu = time.perf_counter(), time.process_time()
    n = work()
    return Timing(n, time.perf_counter() - wall, time.process_time() - cpu)


def timed_stream(results: Iterable[Any], n_skipped: int) -> Timing:
    """Times a stream of results from its `n_skipped`-th on, so that starting worker processes does not count.

    Raises ValueError for a stream that is not longer than what is skipped.
    """
    wall, cpu, n = time.perf_counter(), time.process_time(), -n_skipped
    for _ in results:
        n += 1
        if n == 0:
            wall, cpu = time.perf_counter(), time.process_time()
    if n <= 0:
        raise ValueError(f"the stream ended after {n + n_skipped} results, {n_skipped} of them to be skipped")
    return Timing(n, time.perf_counter() - wall, time.process_time() - cpu)


def alternate(
    functions: Mapping[str, Callable[[], Timing]], repeats: int, advance: Callable[[], None] = lambda: None
) -> dict[str, list[Timing]]:
    """Runs every function `repeats` times in alternation → its timings, after one round that is not counted.

    Each round turns the order round, so that a machine that slows down or speeds up favours nobody.
    advance: called after every run, `len(functions) * (repeats + 1)` times in all.
    """
    timings: dict[str, list[Timing]] = {name: [] for name in functions}
    names = list(functions)
    for number in range(repeats + 1):
        for name in names if number % 2 else reversed(names):
            timing = functions[name]()
            if number > 0:
                timings[name].append(timing)
            advance()
    return timings


def ratio(timings: Mapping[str, Sequence[Timing]], faster: str, slower: str) -> Spread:
    """How many times the rate of `slower` that of `faster` is, round by round: neighbours in time are compared."""
    return Spread.of([a.rate / b.rate for a, b in zip(timings[faster], timings[slower], strict=True)])


def machine() -> dict[str, Any]:
    """What the numbers were measured on: processor, cores this process may use, memory in GiB, system, Python."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        model = next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    try:
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        memory = None
    return {
        "processor": model,
        "cores": n_cores(),
        "memory_gib": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def n_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The installed version of each distribution; those not installed are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
