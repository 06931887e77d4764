"""Processor time by stage: functions of the product are measured from outside while one of its commands runs."""

import contextlib
import functools
import importlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any


class Stopwatch:
    """Adds up this process's processor time by stage. Of stages within each other the innermost counts.

    seconds: of each stage so far. The time of all threads counts, such as those that a decoder starts; so one stage
    must end before another begins beside it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stage: str | None = None
        self._since = 0.0

    def measured(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time is that of the stage."""

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            outer = self._switch(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self._switch(outer)

        return run

    def _switch(self, stage: str | None) -> str | None:
        """Begins another stage; returns the one before."""
        now, before = time.process_time(), self._stage
        if before is not None:
            self.seconds[before] += now - self._since
        self._stage, self._since = stage, now
        return before


@contextlib.contextmanager
def replaced(address: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Puts `make(what is there)` in the place of a function of the product while it is open.

    address: "module:name" or "module:Class.name". Raises AttributeError where there is no such one: it was renamed.
    """
    module, _, name = address.partition(":")
    *owners, name = name.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    before = getattr(owner, name)
    setattr(owner, name, make(before))
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def watching(stopwatch: Stopwatch, stages: Iterable[tuple[str, str]]) -> Iterator[None]:
    """Measures functions while it is open. stages: (stage, address as `replaced` takes it) of each."""
    with contextlib.ExitStack() as stack:
        for stage, address in stages:
            stack.enter_context(replaced(address, functools.partial(stopwatch.measured, stage)))
        yield


class AtOnce:
    """Stands in for a ThreadPoolExecutor of one thread: the calling thread does what is submitted, there and then."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Its outcome, which is there already."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future
