"""Work spread over the nodes of a Ray cluster; what comes back stands in order, as if one machine had done it.

The work is cut into parts. An actor on each GPU, or on each few cores, does one part after another. An actor never dies
of the work itself: what goes wrong in it comes back as a sentence. Where Ray loses an actor all the same, its process
was killed or its node is gone: then the first part that has not come back and those after it are handed out anew, to
the nodes that are left.
"""

import collections
import contextlib
import dataclasses
import logging
import os
import pickle
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from xray import __version__
from xray.errors import FlagError, InputError

Work = Callable[[Any], Any]
"""Part → what is done with it."""

PORT = 6379
"""Where the head node of a cluster answers, if nothing else was chosen."""
ANSWER = 5.0
"""Seconds within which an address must take a connection."""
START = 30.0
"""Seconds within which a cluster must have let this machine in."""
MAX_LOST = 4
"""Times in a row that actors may be lost at the same part."""
PATIENCE = 30.0
"""Seconds for nodes to appear where none has room for an actor."""
WATCH = 1.0
"""Seconds between two looks whether there are nodes left, while nothing comes back."""
IN_HAND, AHEAD = 2, 4
"""Parts that an actor has at a time, and parts for each actor that may be under way or wait for those before them."""
SHARED = "weights and data must lie at a path that all nodes see"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A connection to Ray. Made by `connected`.

    address: as the user gave it, for messages. cores: of an actor; 0 chooses 1, beside a GPU its share of the node's.
    """

    address: str
    cores: int = 0

    @property
    def n_gpus(self) -> int:
        """GPUs on all nodes."""
        return sum(int(node.get("GPU", 0)) for node in _nodes())

    def cores_of(self, gpu: bool) -> int:
        """Cores of an actor, with a GPU or without."""
        if self.cores or not gpu:
            return self.cores or 1
        return max(1, min((int(node.get("CPU", 0) // node["GPU"]) for node in _nodes() if node.get("GPU")), default=1))

    def n_actors(self, gpu: bool = False) -> int:
        """Actors that all nodes together have room for, other people's work left aside."""
        cores = self.cores_of(gpu)
        rooms = [(int(node.get("CPU", 0) // cores), int(node.get("GPU", 0))) for node in _nodes()]
        return sum(min(room) if gpu else room[0] for room in rooms)

    def in_order(self, make: Callable[[], Work], parts: Sequence[Any], gpu: bool = False) -> Iterator[Any]:
        """`make()(part)` of all parts, in their order.

        make: called once by each actor; picklable, of a module that the nodes have. parts: picklable. gpu: each actor
        gets one.

        Raises InputError with what `make` or the work raised, where no node has room for an actor, and where actors
        are lost again and again.
        """
        done, n_lost = 0, 0
        while done < len(parts):
            n_actors = self._room(gpu, done > 0 or n_lost > 0)
            before = done
            # Where the work itself may kill its process, the first part is given out alone.
            handed = parts[done:] if n_lost < 2 else parts[done : done + 1]
            try:
                with contextlib.closing(self._stream(make, handed, n_actors, gpu)) as outcomes:
                    for outcome in outcomes:
                        if isinstance(outcome, _Failure):
                            raise InputError(outcome.words)
                        done += 1
                        yield outcome
                n_lost = 0
            except InputError:
                raise
            except Exception as error:
                n_lost = 1 if done > before else n_lost + 1
                if lacking := re.search("No module named [^\n]+", str(error)):
                    raise InputError(
                        f"a node of the cluster lacks a module: install xray on all nodes ({lacking[0]})"
                    ) from None
                if n_lost == MAX_LOST:
                    raise InputError(
                        f"the cluster lost the processes at work {n_lost} times in a row, last by "
                        f"{_one_line(error)}: check memory and nodes, then give the same command again, which goes on "
                        "from here"
                    ) from None
                why = type(error).__name__
                print(
                    f"the cluster lost a process or a node ({why}): what it had in hand is done again", file=sys.stderr
                )
                _await_news()

    def _room(self, gpu: bool, began: bool) -> int:
        end = time.monotonic() + (PATIENCE if began else 0)
        while not (n_actors := self.n_actors(gpu)):
            if time.monotonic() > end:
                what = f"{self.cores_of(gpu)} cores" + (" and a GPU" if gpu else "")
                left = "is left with" if began else "has"
                raise InputError(
                    f"no node of the cluster {left} {what}: add nodes or give a smaller --cores-per-actor, then give "
                    "the same command again"
                )
            time.sleep(1)
        return n_actors

    def _stream(
        self, make: Callable[[], Work], parts: Sequence[Any], n_actors: int, gpu: bool
    ) -> Generator[Any, None, None]:
        """The outcomes of parts, in their order, by new actors. Raises what Ray raises where one is lost."""
        import ray

        # Restarted by Ray, an actor would wait for room that there may never be again, and all after it with it.
        options = {"num_cpus": self.cores_of(gpu), "num_gpus": int(gpu), "max_restarts": 0, "max_task_retries": 0}
        kind: Any = ray.remote(_Actor)
        actors: list[Any] = [
            kind.options(**options).remote(make, __version__) for _ in range(min(n_actors, len(parts)))
        ]
        # An actor gets parts once it has answered: some may wait for room that other people's work takes.
        under_way: dict[Any, tuple[Any, int]] = {actor.is_ready.remote(): (actor, -1) for actor in actors}
        outcomes: dict[int, Any] = {}
        free: collections.deque[Any] = collections.deque()
        n_given = n_done = 0
        try:
            while n_done < len(parts):
                # In pieces, between which Ctrl-C reaches this thread.
                references, _ = ray.wait(list(under_way), timeout=WATCH)
                if not references and not self.n_actors(gpu):
                    raise RuntimeError("no node left")
                for reference in references:
                    actor, number = under_way.pop(reference)
                    outcomes[number] = pickle.loads(ray.get(reference))
                    # While one part comes back the actor is at the next.
                    free += [actor] * (IN_HAND if number < 0 else 1)
                while n_done in outcomes:
                    yield outcomes.pop(n_done)
                    n_done += 1
                while free and n_given < min(len(parts), n_done + AHEAD * len(actors)):
                    actor = free.popleft()
                    under_way[actor.work.remote(pickle.dumps(parts[n_given]))] = actor, n_given
                    n_given += 1
        finally:
            for actor in actors:
                ray.kill(actor)


@dataclasses.dataclass(frozen=True)
class _Failure:
    words: str


class _Actor:
    """What works on a node. It raises nothing: Ray would put a traceback of its own around it."""

    def __init__(self, make: Callable[[], Work], version: str) -> None:
        self._failure: _Failure | None = None
        if version != __version__:
            self._failure = _Failure(f"a node of the cluster has xray {__version__}, this machine {version}")
            return
        try:
            self._work = make()
        except Exception as error:
            self._failure = _Failure(f"on a node of the cluster, {_in_words(error)} ({SHARED})")

    def is_ready(self) -> bytes:
        """Comes back once the actor runs."""
        return pickle.dumps(True)

    def work(self, part: bytes) -> bytes:
        """The outcome of a part; both pickled, as arrays that Ray itself hands over cannot be written to."""
        return pickle.dumps(self._failure or self._attempt(pickle.loads(part)))

    def _attempt(self, part: Any) -> Any:
        try:
            return self._work(part)
        except Exception as error:
            return _Failure(f"on a node of the cluster, {_in_words(error)}")


def _in_words(error: Exception) -> str:
    if isinstance(error, InputError):
        return _one_line(error)
    # The folders of a file may name a patient.
    reason = error.strerror if isinstance(error, OSError) and error.strerror else _one_line(error)
    return f"unexpected {type(error).__name__}: {reason}"


def _one_line(error: BaseException) -> str:
    """The first sentence or so of what Ray says, which can be pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:500] if isinstance(error, InputError) else (lines or [type(error).__name__])[0][:300]


# ---- connecting


def check_flags(engine: str, address: str, cores: int) -> None:
    """Raises FlagError if --address cannot be one, or is given without --engine ray, as --cores-per-actor may be."""
    if engine != "ray" and (address or cores):
        flag = "--address" if address else "--cores-per-actor"
        raise FlagError(f"{flag} is for --engine ray: add that, or leave it out")
    if address not in ("", "auto", "local") and not re.fullmatch(r"[^\s/]+:\d{1,5}", address):
        raise FlagError(
            f"--address is {address!r}: give HOST:PORT of the head node (its port is {PORT}), auto or local"
        )


@contextlib.contextmanager
def connected(address: str, cores: int = 0) -> Iterator[Cluster]:
    """A connection to the Ray cluster at an address; on leaving it is closed.

    address: HOST:PORT of the head node, "auto" for the cluster that this machine belongs to, or "" or "local" to start
    Ray on this machine for the time being. cores: as for `Cluster`.

    Raises InputError if nothing answers there, or it is not a Ray cluster that this Python can talk to.
    """
    where = address or "local"
    if where not in ("auto", "local"):
        _check_answer(where)
    _quieten()
    import ray

    handlers = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)}
    # Ray may wait for minutes, in C++, where no exception reaches it.
    timer = threading.Timer(START, _give_up, (where,))
    timer.daemon = True
    if where != "local":
        timer.start()
    try:
        # Only a cluster that is started here may be told whether it has a dashboard.
        options: dict[str, Any] = {"include_dashboard": False} if where == "local" else {}
        ray.init(address=where, log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except Exception as error:
        raise InputError(f"--address {where}: {' '.join(str(error).split())[:500] or type(error).__name__}") from None
    finally:
        timer.cancel()
        # Ray's own handler would end the command without a message.
        if threading.current_thread() is threading.main_thread():
            for which, handler in handlers.items():
                if handler is not None:
                    signal.signal(which, handler)
    is_cut_off = False
    try:
        yield Cluster(where, cores)
    except KeyboardInterrupt:
        # Closing takes seconds that Ctrl-C does not leave; the cluster sees by itself that this process ends.
        is_cut_off = True
        raise
    finally:
        if not is_cut_off:
            ray.shutdown()


def _check_answer(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error) or "no answer"
        raise InputError(
            f"--address {address} does not answer ({why}): give HOST:PORT of the head node, {PORT} if nothing else was "
            "chosen, and check that ray is running there"
        ) from None


def _give_up(where: str) -> None:
    print(
        f"error: --address {where}: no Ray cluster has answered within {START:g} s: check that it runs the same "
        "version of Ray as this machine, which must be one of its nodes",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def _quieten() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray._private.worker

    # Ray prints on stdout what happens to the processes of nodes, with the end of their logs.
    ray._private.worker.print_to_stdstream = lambda *arguments, **options: None


def _await_news() -> None:
    """Waits until the cluster knows which nodes are gone: parts given to one of those would be lost again."""
    import ray

    end = time.monotonic() + PATIENCE
    time.sleep(1)
    while time.monotonic() < end:
        places = [(node["NodeManagerAddress"], node["NodeManagerPort"]) for node in ray.nodes() if node["Alive"]]
        if all(map(_answers, places)):
            return
        time.sleep(1)


def _answers(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, timeout=ANSWER).close()
    except OSError:
        return False
    return True


def _nodes() -> list[dict[str, float]]:
    """The resources of each node that is alive."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
