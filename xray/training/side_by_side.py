"""Commands of this package as processes of their own, one after another or several at a time, which end together."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TextIO

import xray
from xray import interrupts
from xray.errors import spelling

EXIT_TERMINATED = 143
POLL = 0.1
"""Seconds between two looks at the processes."""
LAST_LINES = 5.0
"""Seconds that are waited for the last lines of an ended process; a process that it started may keep its pipe open."""
COLUMNS = "160"
"""Width of the lines of processes that do not write to the terminal themselves."""

PART_OF = "XRAY_PART_OF"
"""Environment variable: the work that a process is a part of, whose own command says what comes next."""


def is_part() -> bool:
    """Whether this process is a fold of a cross-validation, or a stage: `run_all` has started it."""
    return PART_OF in os.environ


@dataclasses.dataclass(frozen=True)
class Work:
    """Commands that follow one another, ["train", "--data-path", …], and what to call them together."""

    name: str
    commands: tuple[tuple[str, ...], ...]


def run_all(
    works: Sequence[Work], slots: Sequence[Mapping[str, str]], done: Callable[[Work, str], None]
) -> tuple[int, str]:
    """Runs works in their order, as many at a time as there are slots.

    slots: what the environment of a slot's processes has beside this one's. With a single slot they write to the
    terminal themselves; with several, the work's name stands before each line.
    done: called with the work and the command's name when that command has ended with status 0.

    Returns 0 and "" when all commands have; else the status of the first command that failed, and its work's name,
    after the others were asked to stop and have ended. SIGTERM to this process is handed on, and the status is then
    143. Any exception raised here meanwhile, as by Ctrl-C, ends all processes at once.
    """
    waiting = [(work, list(work.commands)) for work in works if work.commands]
    running: dict[subprocess.Popen[str], tuple[Work, list[tuple[str, ...]], Mapping[str, str]]] = {}
    free, status, failed, is_asked = list(slots), 0, "", threading.Event()

    def hand_on(number: int, frame: Any) -> None:
        is_asked.set()
        for process in running:
            process.terminate()

    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, hand_on) if is_main else None
    try:
        while running or (waiting and not status and not is_asked.is_set()):
            while waiting and free and not status and not is_asked.is_set():
                work, commands = waiting.pop(0)
                slot = free.pop(0)
                running[start(work.name, commands[0], slot, alone=len(slots) == 1)] = work, commands, slot
            if is_asked.is_set():
                # One may have been started while the signal came.
                hand_on(signal.SIGTERM, None)
                is_asked.clear()
                status = status or EXIT_TERMINATED
            for process in [process for process in running if process.poll() is not None]:
                work, (command, *rest), slot = running.pop(process)
                free.append(slot)
                for thread in threading.enumerate():
                    if thread.name == work.name:
                        thread.join(LAST_LINES)
                if process.returncode == 0:
                    done(work, command[0])
                    if rest:
                        waiting.insert(0, (work, rest))
                elif not status:
                    status, failed = process.returncode, work.name
                    for other in running:
                        other.terminate()
            time.sleep(POLL if running else 0)
    finally:
        for process in running:
            process.kill()
            process.wait()
        if is_main:
            signal.signal(signal.SIGTERM, before)
    return status, failed


def start(name: str, command: Sequence[str], slot: Mapping[str, str], alone: bool) -> subprocess.Popen[str]:
    """Starts `xray COMMAND …` of this very package. It ends with this process, and Ctrl-C does not reach it."""
    root = str(Path(xray.__file__).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **spelling(), **slot}
    # Where this process is killed, the other must not go on writing into a run that may be resumed.
    environment[interrupts.PARENT] = str(os.getpid())
    environment[PART_OF] = name
    options: dict[str, Any] = {"env": environment}
    if alone:
        print(f"\n{name}: {command[0]}")
    else:
        environment.setdefault("COLUMNS", COLUMNS)
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    sys.stdout.flush()
    with interrupts.shielded():
        # -P: a folder `xray` in the current one is another.
        process = subprocess.Popen([sys.executable, "-P", "-m", "xray", *command], **options)
    for source, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
        if source is not None:
            threading.Thread(target=_copy, args=(source, target, name), name=name, daemon=True).start()
    return process


def _copy(source: IO[str], target: TextIO, name: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in source:
            if line.strip():
                target.write(f"{name}: {line.rstrip()}\n")
                target.flush()
