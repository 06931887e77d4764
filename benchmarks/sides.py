"""A side of a comparison in a process of its own, so that what it does to its process is not done to the other's."""

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from xray.errors import InputError


class Side:
    """An object made and kept by another process; `call` runs its methods there. Use it as a context manager.

    make: picklable, called there with `args`. Raises InputError where it does.
    """

    def __init__(self, make: Callable[..., Any], *args: Any) -> None:
        # Spawned, not forked: a fork would inherit this process's threads and settings, and could not use a GPU.
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        # Not a daemon, which might not have worker processes.
        self._process = context.Process(target=_serve, args=(other, make, args))
        self._process.start()
        other.close()
        try:
            self._receive()
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stop()

    def call(self, method: str, *args: Any) -> Any:
        """Calls a method of the object with these arguments; raises InputError where it does."""
        self._connection.send((method, args))
        return self._receive()

    def _receive(self) -> Any:
        try:
            kind, value = self._connection.recv()
        except EOFError:
            raise InputError("a process of the benchmark was ended from outside: is there enough memory?") from None
        if kind == "input":
            raise InputError(value)
        if kind == "error":
            raise RuntimeError(value)
        return value

    def _stop(self) -> None:
        self._connection.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


def _serve(connection: Connection, make: Callable[..., Any], args: tuple[Any, ...]) -> None:
    made = None
    while True:
        try:
            if made is None:
                made, result = make(*args), None
            else:
                method, arguments = connection.recv()
                result = getattr(made, method)(*arguments)
            connection.send(("result", result))
        except (EOFError, KeyboardInterrupt, BrokenPipeError):
            return
        except InputError as error:
            connection.send(("input", str(error)))
        except Exception:
            connection.send(("error", traceback.format_exc()))
