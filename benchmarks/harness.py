"""The harness of all benchmarks: contenders timed in alternation, their ratios, one table and one JSON file."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval
from rich.console import Console
from rich.table import Table

from xray.errors import InputError
from xray.files import complete
from xray.flags import Count, check_ranges

ImageSize = Annotated[int, Interval(ge=32, le=8192)]
CanvasSize = Annotated[int, Interval(ge=64, le=8192)]
BatchSize = Annotated[int, Interval(ge=1, le=4096)]
FourOrMore = Annotated[int, Interval(ge=4, le=10_000_000)]

Tell = Callable[[str], None]
"""Shows what a benchmark is doing."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """What every benchmark takes."""

    save_path: Path | None = None
    """JSON file for the numbers."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclasses.dataclass(frozen=True)
class DatasetFlags(Flags):
    """What every benchmark on a dataset's canvases takes."""

    data_path: Path | None = None
    """Dataset directory of tools/convert.py; without it, phantoms are drawn and thrown away afterwards."""
    n_images: FourOrMore = 8
    """Radiographs: of the dataset the first ones."""
    repeats: Count = 3
    """Number of measured rounds; one more goes before them and is not counted."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu or cuda."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """One measured run of `n` items of work.

    seconds: of wall-clock time.
    cpu_seconds: of processor time of this process, threads and ended child processes included.
    result: what the work returned.
    """

    n: int
    seconds: float
    cpu_seconds: float
    result: Any = None

    @property
    def rate(self) -> float:
        """Items per second of wall-clock time."""
        return self.n / self.seconds


class Clock:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time() + seconds_of_children()

    def read(self, n: int, result: Any = None) -> Timing:
        """The time since then, for `n` items."""
        wall, cpu = time.perf_counter(), time.process_time() + seconds_of_children()
        return Timing(n, wall - self._wall, cpu - self._cpu, result)


def seconds_of_children() -> float:
    """Processor time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed(n: int, work: Callable[..., Any], *args: Any) -> Timing:
    """Times `work(*args)`, which does `n` items."""
    clock = Clock()
    result = work(*args)
    return clock.read(n, result)


def timed_stream(
    results: Iterable[Any],
    n_skipped: int,
    size: Callable[[Any], int] = lambda _: 1,
    finish: Callable[[], None] = lambda: None,
) -> Timing:
    """Times a stream of results from its `n_skipped`-th item on, so that starting worker processes does not count.

    size: number of items in a result. finish: called at the end, within the time.
    Raises ValueError for a stream that is not longer than what is skipped.
    """
    clock, n, starting = Clock(), -n_skipped, n_skipped > 0
    for result in results:
        n += size(result)
        if starting and n >= 0:
            clock, n, starting = Clock(), 0, False
    finish()
    if n <= 0:
        raise ValueError(f"the stream ended after {n + n_skipped} results, {n_skipped} of them to be skipped")
    return clock.read(n)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest of at least one number."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def alternate(
    contenders: Mapping[str, Callable[[], Timing]], repeats: int, tell: Tell = lambda _: None
) -> dict[str, list[Timing]]:
    """Runs every contender `repeats` times in alternation → its timings, after one round that is not counted.

    Each round turns the order round, so that a machine that slows down or speeds up favours nobody.
    """
    timings: dict[str, list[Timing]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(repeats + 1):
        for name in names if number % 2 else reversed(names):
            tell(f"measuring {name}, round {number} of {repeats}")
            timing = contenders[name]()
            if number > 0:
                timings[name].append(timing)
    return timings


def entry(label: str, timings: Mapping[str, Sequence[Timing]], pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """What a report holds of contenders measured together.

    pairs: of ours and the peer that it is held against. `ratio` is how many times the peer's rate ours is, round by
    round, so that neighbours in time are compared; `cpu_ratio` the same of processor time, of all rounds together.
    """
    contenders: dict[str, dict[str, Any]] = {
        name: {
            "n": runs[0].n,
            "per_second": spread([run.rate for run in runs]),
            "seconds": [run.seconds for run in runs],
            "cpu_seconds": [run.cpu_seconds for run in runs],
        }
        for name, runs in timings.items()
    }
    ratios = [
        {
            "ours": ours,
            "peer": peer,
            "ratio": spread([a.rate / b.rate for a, b in zip(timings[ours], timings[peer], strict=True)]),
            "cpu_ratio": sum(contenders[peer]["cpu_seconds"]) / (sum(contenders[ours]["cpu_seconds"]) or float("nan")),
        }
        for ours, peer in pairs
    ]
    return {"label": label, "contenders": contenders, "ratios": ratios}


def table_of(
    entries: Iterable[Mapping[str, Any]],
    title: str,
    titles: Mapping[str, str],
    items: str = "images",
    in_seconds: bool = False,
) -> Table:
    """A row for each pair of ours and a peer. in_seconds: how long a round takes in place of items a second."""
    what = "s" if in_seconds else f"{items}/s"
    columns = ["", "ours", "peer", f"ours, {what}", f"peer, {what}", "ratio", "processor ms each", "ratio "]
    rows = []
    for each in entries:
        for pair in each["ratios"]:
            sides = [each["contenders"][pair[side]] for side in ("ours", "peer")]
            measured = [spread(side["seconds"]) if in_seconds else side["per_second"] for side in sides]
            cpu = [1000 * sum(side["cpu_seconds"]) / (side["n"] * len(side["seconds"])) for side in sides]
            rows.append(
                [
                    each["label"],
                    titles.get(pair["ours"], pair["ours"]),
                    titles.get(pair["peer"], pair["peer"]),
                    *map(spread_text, measured),
                    spread_text(pair["ratio"]),
                    " / ".join(map(number_text, cpu)),
                    number_text(pair["cpu_ratio"]),
                ]
            )
    return table(f"{title}: median (lowest-highest)", columns, rows, n_left=3)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], n_left: int = 1) -> Table:
    """A table whose first `n_left` columns hold words, the others numbers."""
    made = Table(title=title)
    for number, name in enumerate(columns):
        made.add_column(name, justify="left" if number < n_left else "right")
    for row in rows:
        made.add_row(*row)
    return made


def number_text(value: float) -> str:
    """A number with three digits at least."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread_text(values: Mapping[str, float]) -> str:
    """The cell of a table: "median (lowest-highest)"."""
    return f"{number_text(values['median'])} ({number_text(values['low'])}-{number_text(values['high'])})"


def refuse(what: str) -> InputError:
    """The error for two sides that do not do the same work, to be raised."""
    return InputError(
        f"{what}: the two do not do the same work, so there is nothing to compare (a bug: please report it)"
    )


def benchmark(
    stage: str,
    config: Any,
    measure: Callable[[Any, Path, Tell], dict[str, Any]],
    show: Callable[[dict[str, Any]], Iterable[Table | str]],
    packages: Sequence[str],
) -> dict[str, Any]:
    """Checks the flags, measures, prints what was measured and writes the JSON file; returns the report.

    measure: (config, empty folder, tell) → the report. Its `parameters` are those that differ from the flags.
    show: report → tables and lines to print. packages: whose versions are kept.
    """
    check_ranges(config)
    if config.save_path is not None and not config.save_path.parent.is_dir():
        # An hour's numbers must not be lost for want of a folder.
        raise InputError(f"there is no folder {config.save_path.parent} for --save-path: make it first")
    with (
        tempfile.TemporaryDirectory(prefix="xray-benchmark-") as folder,
        Console(stderr=True).status("preparing") as status,
    ):
        measured = measure(config, Path(folder), status.update)
    parameters = {name: str(value) if isinstance(value, Path) else value for name, value in vars(config).items()}
    parameters |= measured.pop("parameters", {})
    for name in ("save_path", "debug"):
        del parameters[name]
    report = {
        "benchmark": stage,
        "parameters": parameters,
        **measured,
        "machine": machine(parameters.get("device") == "cuda"),
        "versions": versions(packages),
    }
    # Where nobody looks at it, wide enough for the tables.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    for part in show(report):
        console.print(part, soft_wrap=isinstance(part, str))
    flags = (f"{name.replace('_', ' ')} {value}" for name, value in parameters.items() if value not in (None, ()))
    console.print(", ".join(flags), soft_wrap=True)
    about = report["machine"]
    parts = [about.get("gpu"), about["processor"], f"{about['cores']} cores", f"{about['memory_gib']} GiB"]
    parts += [f"Python {about['python']}", *(f"{name} {version}" for name, version in report["versions"].items())]
    console.print(", ".join(filter(None, parts)), soft_wrap=True)
    if config.save_path is not None:
        with complete(config.save_path) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n")
    return report


def machine(with_gpu: bool = False) -> dict[str, Any]:
    """What the numbers were measured on: processor, cores this process may use, memory in GiB, system, Python."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        processor = next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name"))
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (OSError, StopIteration):
        processor, memory = platform.processor() or platform.machine(), None
    about = {
        "processor": processor,
        "cores": n_cores(),
        "memory_gib": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    if with_gpu:
        import torch

        about["gpu"] = torch.cuda.get_device_name()
    return about


def n_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The installed version of each distribution; those not installed are left out."""
    installed = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed
