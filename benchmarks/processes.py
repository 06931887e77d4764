"""Processes beside the benchmark's own: a contender in one, and commands of the repository whose memory is watched."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from xray.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


class Contender:
    """An object made and kept by another process; `call` runs its methods there. Use it as a context manager.

    So what one contender does to its process is not done to the others'.

    make: picklable, called there with `args`. Its exceptions and those of the methods are raised here.
    """

    def __init__(self, make: Callable[..., Any], *args: Any) -> None:
        # Spawned, not forked: a fork would inherit this process's threads and settings, and could not use a GPU.
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        try:
            self._run(_make, make, args)
        except BaseException:
            self._pool.shutdown()
            raise

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *error: Any) -> None:
        self._pool.shutdown()

    def call(self, method: str, *args: Any) -> Any:
        """Calls a method of the object with these arguments."""
        return self._run(_call, method, args)

    def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return self._pool.submit(function, *args).result()
        except BrokenProcessPool:
            raise InputError("a process of the benchmark was ended from outside: is there enough memory?") from None


_made: Any = None


def _make(make: Callable[..., Any], args: tuple[Any, ...]) -> None:
    global _made
    _made = make(*args)


def _call(method: str, args: tuple[Any, ...]) -> Any:
    return getattr(_made, method)(*args)


@contextlib.contextmanager
def started(
    command: Sequence[str], stdout: int | None = None
) -> Iterator[tuple[subprocess.Popen[str], Callable[[], str]]]:
    """Starts a Python command of the repository, its path first → the process, and a function for its last line.

    It has a session of its own, by which the processes that it starts are known; on leaving all of them are ended.
    stdout: as in Popen; None puts it with stderr. Raises InputError on a system without Linux's /proc.
    """
    if not Path("/proc/self/smaps_rollup").is_file():
        raise InputError("this system does not tell how much memory processes hold: run this benchmark on Linux")
    with tempfile.TemporaryFile() as output:

        def last_line() -> str:
            output.seek(0)
            return (output.read().decode(errors="replace").strip().splitlines() or ["it says nothing"])[-1]

        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            stdout=output if stdout is None else stdout,
            stderr=output,
            text=True,
            start_new_session=True,
        )
        try:
            yield process, last_line
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def memory_of_session(session: int) -> tuple[int, int]:
    """(held, resident) in bytes of all processes of a session; pages that processes share are counted once.

    resident: with the pages of mapped files, which the system takes back when it needs them.
    """
    held = resident = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # The name, in parentheses, may hold spaces; the session is the fourth field after it.
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) != session:
                continue
            lines = (folder / "smaps_rollup").read_text().splitlines()[1:]
        except (OSError, IndexError, ValueError):
            continue  # it has ended meanwhile
        pages = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        held += pages.get("Pss_Anon", 0) + pages.get("Pss_Shmem", 0) + pages.get("SwapPss", 0)
        resident += pages.get("Pss", 0) + pages.get("SwapPss", 0)
    return held, resident
