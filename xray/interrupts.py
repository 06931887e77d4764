"""Ctrl-C and SIGTERM: a command ends within two seconds, says so in one line, and leaves no process behind.

Python runs a signal's handler between two steps of the main thread: not while that computes in C. And code that is
running may swallow the exception that a handler raises, or print its traceback. Hence three parts:

- before `interruptible` nothing has been started yet, and the process ends at once;
- inside it KeyboardInterrupt unwinds the main thread, so that files and pools are closed;
- and a thread of its own, which the signal itself wakes, ends the process after DEADLINE seconds, whatever happens
  meanwhile. That is like being killed: everything under its final name is complete at any moment.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

DEADLINE = 1.2
"""Seconds from the signal until the process is ended, whatever it is doing."""

PARENT = "XRAY_ENDS_WITH"
"""Environment variable: the process with whose end this one's is to come, see `follow_parent`."""
LOOK = 1.0
"""Seconds between two looks whether it is still there."""

_came: int | None = None
"""The signal that is ending this command."""
_is_watching = False
_is_interruptible = False
_message = threading.Lock()
"""Held by the thread that prints that the command was interrupted, which is printed once."""
_is_printed = threading.Event()


class Terminated(KeyboardInterrupt):
    """SIGTERM: it ends a command as Ctrl-C does, but for the exit status."""


def watch(*signals: signal.Signals) -> None:
    """Lets these signals (by default SIGINT and SIGTERM) end this process in an orderly way; called first by a command.

    Signals that the process was started to ignore, as with `nohup`, stay ignored.
    """
    global _is_watching
    signals = tuple(
        which for which in signals or (signal.SIGINT, signal.SIGTERM) if signal.getsignal(which) is not signal.SIG_IGN
    )
    if os.name != "posix" or _is_watching or not signals:
        return
    _is_watching = True
    awakened, awakens = os.pipe()
    os.set_blocking(awakens, False)
    signal.set_wakeup_fd(awakens, warn_on_full_buffer=False)
    for which in signals:
        signal.signal(which, _handle)
    threading.Thread(target=_guard, args=(awakened, signals), name="interrupts", daemon=True).start()
    # At its end the interpreter restores the system's handlers, which would cut off a command that has done its work.
    atexit.register(_finish, os.getpid(), signals)
    os.register_at_fork(after_in_child=lambda: _forget(signals))
    unraisable, in_thread = sys.unraisablehook, threading.excepthook
    # While a command is ending, errors of threads and finalizers do not matter.
    sys.unraisablehook = lambda error: unraisable(error) if _came is None else None
    threading.excepthook = lambda error: in_thread(error) if _came is None else None
    # multiprocessing's tracker cleans up after a process that had to be ended, and need not warn of it.
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Work that KeyboardInterrupt, or Terminated, ends, rather than the end of the process."""
    global _is_interruptible
    _is_interruptible = True
    try:
        yield
    finally:
        _is_interruptible = False


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Processes that are started inside never see Ctrl-C, which the terminal sends to all: their parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    # If it were started inside, it would let the signal through to processes started after it.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def follow_parent() -> None:
    """Sends this process SIGTERM when the one that PARENT names, which started it, has ended in whatever way.

    One that is killed cannot end those that it started.
    """
    # Processes that this one starts are not meant.
    parent = os.environ.pop(PARENT, "")
    if parent.isdecimal() and os.name == "posix":
        threading.Thread(target=_follow, args=(int(parent),), name="parent", daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os.kill(os.getpid(), signal.SIGTERM)


def ending(error: BaseException) -> int | None:
    """The signal that caused an exception, also one of a library's own; None where there was none."""
    if _came is not None:
        return _came
    if isinstance(error, Terminated):
        return signal.SIGTERM
    return signal.SIGINT if isinstance(error, KeyboardInterrupt) else None


def end(which: int) -> int:
    """Says that the command was interrupted and ends it; without `watch`, returns the exit status instead."""
    if _message.acquire(blocking=False):
        with contextlib.suppress(OSError, ValueError):
            print(_word_for(which), file=sys.stderr)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        _is_printed.set()
    if _is_watching:
        # The interpreter's own end would wait for threads.
        _end_now(which)
    else:
        _is_printed.clear()
        _message.release()
    return 128 + which


def _handle(which: int, frame: FrameType | None) -> None:
    global _came
    # Raised inside an import, the exception may come to a library's C++ code, which aborts the process for it.
    if not _is_interruptible or (_came is None and _is_importing(frame)):
        _end_now(which)
    # A second signal must not disturb the cleaning up.
    if _came is None:
        _came = which
        raise Terminated if which == signal.SIGTERM else KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _guard(awakened: int, signals: tuple[signal.Signals, ...]) -> None:
    while True:
        which = os.read(awakened, 1)[0]
        if which in signals:
            if _is_interruptible:
                time.sleep(DEADLINE)
            _end_now(which)


def _end_now(which: int) -> None:
    # All are stopped before any is ended, so that none starts another meanwhile: Ray replaces what it loses.
    stopped: list[int] = []
    while started := [process for process in _descendants() if process not in stopped]:
        stopped += started
        for process in started:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGSTOP)
    # Children's children first: Ray ends a process, with a status of its own, whose child it no longer finds.
    for process in reversed(stopped):
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
    if _message.acquire(blocking=False):
        # A progress bar may stand on the last line, and hide the cursor.
        before = "\x1b[?25h\n" if os.isatty(2) else ""
        with contextlib.suppress(OSError):
            os.write(2, f"{before}{_word_for(which)}\n".encode())
        _is_printed.set()
    # The main thread and the guard may come here at once: the first to leave must not cut off the other's message.
    _is_printed.wait(0.2)
    os._exit(128 + which)


def _word_for(which: int) -> str:
    return "terminated" if which == signal.SIGTERM else "interrupted"


def _finish(process: int, signals: tuple[signal.Signals, ...]) -> None:
    if os.getpid() == process:
        for which in signals:
            signal.signal(which, signal.SIG_IGN)


def _forget(signals: tuple[signal.Signals, ...]) -> None:
    """In a forked worker, which its parent ends."""
    signal.set_wakeup_fd(-1)
    for which in signals:
        signal.signal(which, signal.SIG_IGN if which == signal.SIGINT else signal.SIG_DFL)


def _descendants() -> list[int]:
    """Processes that this one has started, and those that they have; not multiprocessing's tracker, which ends last."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name in parentheses may hold anything, parentheses too.
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    descendants, waiting = [], [os.getpid()]
    while waiting:
        for process in children.get(waiting.pop(), ()):
            waiting.append(process)
            with contextlib.suppress(OSError):
                if b"multiprocessing.resource_tracker import" not in Path(f"/proc/{process}/cmdline").read_bytes():
                    descendants.append(process)
    return descendants
