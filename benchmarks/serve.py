"""Benchmark `serve`: the server under load, with every tenth file broken."""

import concurrent.futures
import contextlib
import dataclasses
import http.client
import itertools
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import numpy as np
import torch
from annotated_types import Interval
from rich.table import Table

from benchmarks import harness
from benchmarks.harness import timed
from benchmarks.material import write_radiographs
from benchmarks.processes import memory_of_session, started
from xray.errors import InputError
from xray.findings import FINDINGS
from xray.flags import Count, CountOrZero
from xray.models.detection.detector import build_detector
from xray.models.weights import save_deployed

PICTURES = 8
"""Different radiographs among all that are sent."""
START = 120.0
"""Seconds that the server may take to start."""
PATIENCE = 300.0
"""Seconds that one answer may take."""


@dataclasses.dataclass(frozen=True)
class Config(harness.Flags):
    """Requests of many clients to tools/serve.py: answers, refusals and errors, waiting times, and the server's memory.

    It fails if a good file is not answered, or a broken one is.
    """

    weights: tuple[str, ...] = ()
    """Run directories; without any, a small detector with random weights is made and thrown away."""
    n_requests: Count = 200
    """Requests that are counted; a fifth as many go before them and are not."""
    n_clients: Count = 16
    """Clients that ask at the same time, each one request after the other."""
    broken_every: CountOrZero = 10
    """One of so many files is broken; 0 breaks none."""
    places: Count = 12
    """Requests that the server takes at a time; fewer than clients, some are told to come back."""
    radiograph_size: harness.CanvasSize = 512
    """Longer side of the radiographs that are sent, in pixels."""
    n_workers: Annotated[int, Interval(ge=1, le=512)] = 2
    """Processes of the server that decode."""
    device: str = "auto"
    """Where the server runs its models: auto (CUDA where there is one), cpu or cuda."""


@dataclasses.dataclass(frozen=True)
class File:
    """What one request sends. is_broken: no radiograph, or a damaged one."""

    content: bytes
    is_broken: bool


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came of one request. status: 0 where there was no answer. seconds: with all attempts. busy: how often it was
    told to come back."""

    is_broken: bool
    status: int
    line: str
    seconds: float
    busy: int


def main(config: Config) -> None:
    """Measures, prints a table and writes the JSON file. Raises InputError if a file was answered wrongly."""
    packages = ["torch", "torchvision", "fastapi", "uvicorn", "pydicom"]
    errors = harness.benchmark("serve", config, measure, show, packages)["errors"]
    if errors:
        raise InputError(f"{len(errors)} requests were answered wrongly, the first: {errors[0]}")


def measure(config: Config, folder: Path, tell: harness.Tell) -> dict[str, Any]:
    """Runs the server and its clients and returns all numbers.

    Raises InputError if the server does not start, or the system does not tell how much memory processes hold.
    """
    runs = config.weights or (random_run(folder / "run"),)
    files = write_files(folder / "files", config.radiograph_size, config.broken_every)
    flags = [f"--places={config.places}", f"--n-workers={config.n_workers}", f"--device={config.device}"]
    tell("starting the server")
    with server(runs, flags) as (address, held):
        tell("warming up")
        ask(address, files, max(config.n_clients, config.n_requests // 5), config.n_clients)
        memory = {"warm": held()}
        tell("asking")
        answers: list[Answer] = []
        seconds = 0.0
        # In two halves: memory that still grows differs from memory that no longer does.
        for when, n in (("half", config.n_requests // 2), ("end", config.n_requests - config.n_requests // 2)):
            half = timed(n, ask, address, files, n, config.n_clients)
            answers += half.result
            seconds += half.seconds
            memory[when] = held()
    return {**summary(answers, seconds), "held": memory}


def show(report: dict[str, Any]) -> list[Table | str]:
    """The numbers of `measure` as a table."""
    parameters = report["parameters"]
    rows = [
        ["answered", str(report["answered"])],
        ["refused, as broken files are", str(report["refused"])],
        ["errors", str(len(report["errors"]))],
        ["told to come back, and did", str(report["busy"])],
        ["seconds, median", f"{report['seconds']['p50']:.2f}"],
        ["seconds, 95 of 100", f"{report['seconds']['p95']:.2f}"],
        ["answers a second", f"{report['answers_per_second']:.1f}"],
        *([f"memory held, {when}, MiB", f"{value / 2**20:.0f}"] for when, value in report["held"].items()),
    ]
    return [
        harness.table(f"{parameters['n_requests']} requests of {parameters['n_clients']} clients", ["", ""], rows),
        "seconds of good files, from the first attempt to the answer, with the times between attempts; memory of all "
        "processes of the server",
    ]


def random_run(folder: Path) -> str:
    """A run directory of a small detector that has learned nothing."""
    torch.manual_seed(0)
    architecture: dict[str, Any] = {"backbone": "mobilenet_v2", "fpn_channels": 64, "proposals": 100}
    model = build_detector(len(FINDINGS), 256, **architecture)
    description = {
        "task": "detection",
        "architecture": architecture,
        "categories": {str(number): name for number, name in enumerate(FINDINGS, 1)},
        "canvas_size": 256,
        "thresholds": {},
    }
    folder.mkdir()
    save_deployed(folder, model.state_dict(), description)
    return str(folder)


def write_files(folder: Path, size: int, broken_every: int) -> list[File]:
    """DICOM files, of which every `broken_every`-th is broken in one of four ways; to be sent in turn."""
    write_radiographs(folder, PICTURES, round(size / 1.2))
    good = [path.read_bytes() for path in sorted((folder / "train").iterdir())]
    broken = [
        good[0][: len(good[0]) // 2],
        b"no radiograph at all",
        good[0][:200] + bytes(5000),
        b"\x89PNG\r\n\x1a\n\0",
    ]
    if not broken_every:
        return [File(content, False) for content in good]
    files = []
    for number in range(broken_every * len(broken)):
        is_broken = number % broken_every == broken_every - 1
        files.append(File(broken[number // broken_every] if is_broken else good[number % len(good)], is_broken))
    return files


@contextlib.contextmanager
def server(runs: Sequence[str], flags: Sequence[str]) -> Iterator[tuple[str, Callable[[], int]]]:
    """tools/serve.py, ended by Ctrl-C → its address, and a function for the bytes of memory that its processes hold.

    Raises InputError if it does not start.
    """
    command = ["tools/serve.py", "--port=0", *flags, "--weights", *map(os.path.abspath, runs)]
    with started(command, subprocess.PIPE) as (process, last_line):
        lines: queue.Queue[str] = queue.Queue()
        assert process.stdout is not None
        readline = process.stdout.readline
        threading.Thread(target=lambda: lines.put(readline()), daemon=True).start()
        try:
            line = ""
            with contextlib.suppress(queue.Empty):
                line = lines.get(timeout=START)
            if "http://" not in line:
                raise InputError(f"the server did not start: {last_line()}")
            address = next(word for word in line.split() if word.startswith("http://"))
            yield address, lambda: memory_of_session(process.pid)[0]
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


def ask(address: str, files: Sequence[File], n: int, n_clients: int) -> list[Answer]:
    """Sends n requests from so many clients; the files are sent in turn, again and again."""
    with concurrent.futures.ThreadPoolExecutor(n_clients) as clients:
        return list(clients.map(send, itertools.repeat(address, n), itertools.cycle(files)))


def send(address: str, file: File) -> Answer:
    """One request; where the server is busy (429), again after as many seconds as it asks for."""
    start, busy, status, line = time.perf_counter(), 0, 0, ""
    while time.perf_counter() - start < PATIENCE:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=PATIENCE)
        try:
            connection.request("POST", "/predict", file.content, {"Content-Type": "application/octet-stream"})
            response = connection.getresponse()
            status, content = response.status, json.loads(response.read())
            line = str(content.get("detail", ""))
            wait = float(response.headers.get("Retry-After", 1))
        except (OSError, http.client.HTTPException, ValueError) as error:
            status, line = 0, f"{type(error).__name__}: {error}"
        finally:
            connection.close()
        if status != 429:
            break
        busy += 1
        time.sleep(wait)
    return Answer(file.is_broken, status, line, time.perf_counter() - start, busy)


def summary(answers: Sequence[Answer], seconds: float) -> dict[str, Any]:
    """Counts, waiting times and rate. errors: what became of requests that were not answered as they should be."""
    good = [answer for answer in answers if not answer.is_broken]
    refused = [answer for answer in answers if answer.is_broken and answer.status in (415, 422)]
    answered = [answer for answer in good if answer.status == 200]
    wrong = [
        f"a {'broken' if answer.is_broken else 'good'} file got {answer.status or 'no answer'} {answer.line}".strip()
        for answer in answers
        if answer.status not in ((415, 422) if answer.is_broken else (200,))
    ]
    times = [answer.seconds for answer in answered] or [float("nan")]
    return {
        "answered": len(answered),
        "refused": len(refused),
        "errors": wrong,
        "busy": sum(answer.busy for answer in answers),
        "seconds": {name: float(np.percentile(times, share)) for name, share in (("p50", 50), ("p95", 95))},
        "answers_per_second": len(answered) / seconds,
    }
