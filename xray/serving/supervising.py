"""Several worker processes of one server: the first starts alone, the others once it answers; who ends is replaced."""

import contextlib
import dataclasses
import json
import logging
import os
import subprocess
import sys
import time
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import xray
from xray import interrupts

T = TypeVar("T")

log = logging.getLogger("xray.serving")

LOOK = 0.2
"""Seconds between two looks at the workers."""
STEADY = 60.0
"""Seconds after which a worker that ends was no failure of starting."""
LONGEST_PAUSE = 30.0
PATIENCE = 1.0
"""Seconds that workers have to end before they are killed."""


@dataclasses.dataclass(frozen=True)
class Role:
    """Which of several workers a process is. number: from 0. of: how many there are. is_again: whether it replaces one.

    door: descriptor of the listening socket that all share. ready: descriptor to which it writes once it answers.
    folder: where the workers share what they count.
    """

    number: int
    of: int
    is_again: bool
    door: int
    ready: int
    folder: Path

    def is_ready(self) -> None:
        """Tells the supervisor that this worker answers."""
        with contextlib.suppress(OSError):
            os.write(self.ready, b"1")
            os.close(self.ready)


@dataclasses.dataclass
class Worker:
    """A process. ready: descriptor from which comes that it answers."""

    process: "subprocess.Popen[bytes]"
    ready: int
    started: float


def to_plain(value: Any) -> dict[str, Any]:
    """A dataclass of numbers, texts, paths and tuples of them, as JSON can hold it."""
    values = dataclasses.asdict(value)
    return {name: list(map(_text, one)) if isinstance(one, tuple) else _text(one) for name, one in values.items()}


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def from_plain(kind: type[T], content: Mapping[str, Any]) -> T:
    """The way back."""

    def value(one: Any, hint: Any) -> Any:
        made = Path if hint is Path or Path in typing.get_args(hint) else lambda part: part
        return tuple(map(made, one)) if isinstance(one, list) else one if one is None else made(one)

    hints = typing.get_type_hints(kind)
    return kind(**{name: value(one, hints[name]) for name, one in content.items()})


def start(code: str, config: Any, role: Role, environment: dict[str, str]) -> Worker:
    """Starts a worker that runs Python `code`, and finds [config, role] as JSON on its stdin, as by `to_plain`.

    role: `ready` is filled in. environment: more variables.
    """
    reads, writes = os.pipe()
    root = str(Path(xray.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.PIPE,
        pass_fds=(role.door, writes),
        # Ctrl-C of a terminal comes to the supervisor alone, which ends the workers.
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path, interrupts.PARENT: str(os.getpid()), **environment},
    )
    os.close(writes)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        given = [to_plain(config), to_plain(dataclasses.replace(role, ready=writes))]
        pipe.write(json.dumps(given).encode())
    return Worker(process, reads, time.monotonic())


def supervise(
    n: int, start_one: Callable[[int, bool], Worker], on_end: Callable[[int, int], object], clock: Any = time.monotonic
) -> int:
    """Keeps n workers running until this process is interrupted.

    start_one: (number, whether it replaces one) → a worker. on_end: is told number and process of each that ended.
    Returns the exit status of the first worker if it ends before it is ready: then it has said what is wrong.
    """
    workers: dict[int, Worker] = {}
    try:
        first = workers[0] = start_one(0, False)
        if not _is_ready(first):
            return _status(first.process.wait())
        for number in range(1, n):
            workers[number] = start_one(number, False)
        _keep(workers, start_one, on_end, clock)
    finally:
        _end(workers)
    return 0


def _keep(
    workers: dict[int, Worker],
    start_one: Callable[[int, bool], Worker],
    on_end: Callable[[int, int], object],
    clock: Any,
) -> None:
    failures = dict.fromkeys(workers, 0)
    due: dict[int, float] = {}
    while True:
        time.sleep(LOOK)
        for number, worker in list(workers.items()):
            status = worker.process.poll()
            if status is None:
                continue
            del workers[number]
            os.close(worker.ready)
            on_end(number, worker.process.pid)
            is_steady = clock() - worker.started >= STEADY
            failures[number] = 0 if is_steady else failures[number] + 1
            pause = min(LONGEST_PAUSE, 2.0 ** (failures[number] - 1)) if failures[number] else 0.0
            how = f"signal {-status}" if status < 0 else f"status {status}"
            log.error("worker %d ended (%s): another is started in %g s", number + 1, how, pause)
            due[number] = clock() + pause
        for number in [one for one, when in due.items() if clock() >= when]:
            del due[number]
            workers[number] = start_one(number, True)


def _is_ready(worker: Worker) -> bool:
    """Waits until a worker answers, or has ended."""
    return os.read(worker.ready, 1) == b"1"


def _status(code: int) -> int:
    return 128 - code if code < 0 else code


def _end(workers: dict[int, Worker]) -> None:
    for worker in workers.values():
        with contextlib.suppress(OSError):
            worker.process.terminate()
    deadline = time.monotonic() + PATIENCE
    for worker in workers.values():
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        with contextlib.suppress(OSError):
            os.close(worker.ready)
