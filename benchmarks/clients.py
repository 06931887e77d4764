"""The serving benchmark's server process, its files, and the clients that send them."""

import contextlib
import dataclasses
import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks import growth
from xray.errors import InputError

PICTURES = 8
"""Different radiographs among all that are sent."""
START = 120.0
"""Seconds that the server may take to start."""
PATIENCE = 300.0
"""Seconds that one answer may take."""


@dataclasses.dataclass(frozen=True)
class File:
    """What one request sends. is_broken: no radiograph, or a damaged one."""

    content: bytes
    is_broken: bool


@dataclasses.dataclass(frozen=True)
class Asked:
    """What came of one request. status: 0 where there was no answer. seconds: with all attempts. busy: how often it was
    told to come back."""

    is_broken: bool
    status: int
    line: str
    seconds: float
    busy: int


@dataclasses.dataclass(frozen=True)
class Round:
    """Requests in the order of their end, and how long all took together."""

    requests: list[Asked]
    seconds: float


def random_run(folder: Path) -> str:
    """A run directory of a small detector that has learned nothing."""
    import torch

    from xray.findings import FINDINGS
    from xray.models.detection.detector import build_detector
    from xray.models.weights import save_deployed

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
    growth.write_radiographs(folder, PICTURES, round(size / 1.2))
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


@dataclasses.dataclass(frozen=True)
class Server:
    """A running server. address: where it is. process: its number, and its session's."""

    address: str
    process: int

    @property
    def held(self) -> int:
        """Bytes of memory that its processes hold now."""
        return growth.memory_of_session(self.process)[0]


@contextlib.contextmanager
def server(runs: Sequence[str], flags: Sequence[str]) -> Iterator[Server]:
    """tools/serve.py in a session of its own, ended by Ctrl-C. Raises InputError if it does not start."""
    if not Path("/proc/self/smaps_rollup").is_file():
        raise InputError("this system does not tell how much memory processes hold: run this benchmark on Linux")
    command = [sys.executable, "tools/serve.py", "--port=0", *flags, "--weights", *map(os.path.abspath, runs)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, cwd=growth.ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        output = process.stdout
        assert output is not None
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=lambda: lines.put(output.readline()), daemon=True).start()
        try:
            with contextlib.suppress(queue.Empty):
                if "http://" in (line := lines.get(timeout=START)):
                    yield Server(next(word for word in line.split() if word.startswith("http://")), process.pid)
                    return
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines() or ["it says nothing"]
            raise InputError(f"the server did not start: {said[-1]}")
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            output.close()


def ask(address: str, files: Sequence[File], n: int, n_clients: int, advance: Callable[[], None]) -> Round:
    """Sends n requests from so many clients; the files go round. advance: called after each."""
    numbers = iter(range(n))
    lock, found = threading.Lock(), []

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            asked = send(address, files[number % len(files)])
            with lock:
                found.append(asked)
                advance()

    start = time.perf_counter()
    threads = [threading.Thread(target=work, daemon=True) for _ in range(n_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Round(found, time.perf_counter() - start)


def send(address: str, file: File) -> Asked:
    """One request; told to come back, it does when it was told to."""
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
    return Asked(file.is_broken, status, line, time.perf_counter() - start, busy)


def summary(requests: Sequence[Asked], seconds: float) -> dict[str, Any]:
    """Counts, waiting times and rate. errors: what became of requests that were not answered as they should be."""
    good = [asked for asked in requests if not asked.is_broken]
    refused = [asked for asked in requests if asked.is_broken and asked.status in (415, 422)]
    answered = [asked for asked in good if asked.status == 200]
    wrong = [
        f"a {'broken' if asked.is_broken else 'good'} file got {asked.status or 'no answer'} {asked.line}".strip()
        for asked in requests
        if asked.status not in ((415, 422) if asked.is_broken else (200,))
    ]
    times = [asked.seconds for asked in answered] or [float("nan")]
    return {
        "answered": len(answered),
        "refused": len(refused),
        "errors": wrong,
        "busy": sum(asked.busy for asked in requests),
        "seconds": {name: float(np.percentile(times, share)) for name, share in (("p50", 50), ("p95", 95))},
        "answers_per_second": len(answered) / seconds,
    }
