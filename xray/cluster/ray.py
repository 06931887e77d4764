"""Work spread over the nodes of a Ray cluster; what comes back stands in order, as if one machine had done it.

The work is cut into parts. An actor on each GPU, or on each few cores, does one part after another (Ray Data hands them
out and keeps the order). An actor never dies of the work itself: what goes wrong in it comes back as a sentence. Where
Ray loses an actor all the same, its process was killed or its node is gone: then the first part that has not come back
and those after it are handed out anew, to the nodes that are left.
"""

import collections
import contextlib
import dataclasses
import functools
import logging
import os
import pickle
import queue
import re
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from xray import __version__
from xray.errors import FlagError, InputError
from xray.radiographs.decoding import Decoded, Undecodable, decode_canvas
from xray.radiographs.workers import TIMEOUT, Failed, Workers

T = TypeVar("T")
Item = Decoded | Undecodable
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
WATCH = 3.0
"""Seconds between two looks whether there are nodes left, while nothing comes back."""
PART_BYTES = 2**24
"""Of canvases, in one part."""
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
            # Where it may be the work that kills, the first part goes alone, so that another's end does not cost it.
            handed = parts[done:] if n_lost < 2 else parts[done : done + 1]
            try:
                with contextlib.closing(self._stream(make, handed, done, n_actors, gpu)) as outcomes:
                    for number, outcome in outcomes:
                        if isinstance(outcome, _Failure):
                            raise InputError(outcome.words)
                        if number != done:
                            raise RuntimeError(f"part {number} came back in the place of {done}")
                        done += 1
                        yield outcome
                n_lost = 0
            except InputError:
                raise
            except Exception as error:
                n_lost = 1 if done > before else n_lost + 1
                words = _one_line(error)
                if "No module named" in words:
                    raise InputError(
                        f"a node of the cluster lacks a module: install xray on all nodes ({words})"
                    ) from None
                if n_lost == MAX_LOST:
                    raise InputError(
                        f"the cluster lost the processes at work {n_lost} times in a row, last by {words}: check "
                        "memory and nodes, then give the same command again, which goes on from here"
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
        self, make: Callable[[], Work], parts: Sequence[Any], begin: int, n_actors: int, gpu: bool
    ) -> Generator[tuple[int, Any], None, None]:
        """(number, outcome) of parts, numbered from `begin` on, by one run of Ray Data. Raises what Ray raises."""
        import ray.data

        rows = [{"number": number, "part": pickle.dumps(part)} for number, part in enumerate(parts, begin)]
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=n_actors, initial_size=min(n_actors, len(rows)))
        with warnings.catch_warnings():
            # Ray means to take this argument away, without another way to say it so far.
            warnings.simplefilter("ignore", DeprecationWarning)
            found = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                _Actor,
                batch_size=1,
                compute=pool,
                fn_constructor_args=(make, __version__),
                num_cpus=self.cores_of(gpu),
                num_gpus=1 if gpu else None,
                ray_remote_args_fn=_never_again,
            )
        ready: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue(1)
        stopped = threading.Event()
        is_cut_off = False
        reader = threading.Thread(target=_read, args=(found, ready, stopped), daemon=True)
        reader.start()
        try:
            while True:
                try:
                    row = ready.get(timeout=WATCH)
                except queue.Empty:
                    # Ray Data would wait for an actor that no node can hold.
                    if not self.n_actors(gpu):
                        raise RuntimeError("no node left") from None
                    continue
                if row is None:
                    return
                if isinstance(row, BaseException):
                    raise row
                yield int(row["number"]), pickle.loads(row["outcome"])
        except KeyboardInterrupt:
            is_cut_off = True
            raise
        finally:
            stopped.set()
            # Left to itself, Ray Data's own thread ends with a traceback when the connection does.
            executor = getattr(found, "_current_executor", None)
            if executor is not None and reader.is_alive() and not is_cut_off:
                executor.shutdown(force=True)


def _read(found: Any, ready: queue.Queue[Any], stopped: threading.Event) -> None:
    # A thread of its own: in Ray's waiting, Ctrl-C would not reach the calling one.
    def offer(what: Any) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                return ready.put(what, timeout=0.1)

    try:
        for row in found.iter_rows():
            offer(row)
            if stopped.is_set():
                return
        offer(None)
    except BaseException as error:
        offer(error)


def _never_again() -> dict[str, Any]:
    # Restarted by Ray, an actor would wait for room that there may never be again, and all after it with it.
    return {"max_restarts": 0, "max_task_retries": 0}


@dataclasses.dataclass(frozen=True)
class _Failure:
    words: str


class _Actor:
    """What Ray Data keeps on a node. It raises nothing: Ray would put a traceback of its own around it."""

    def __init__(self, make: Callable[[], Work], version: str) -> None:
        self._failure: _Failure | None = None
        if version != __version__:
            self._failure = _Failure(f"a node of the cluster has xray {__version__}, this machine {version}")
            return
        try:
            self._work = make()
        except Exception as error:
            self._failure = _Failure(f"on a node of the cluster, {_told(error)} ({SHARED})")

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outcomes = np.empty(len(rows["part"]), dtype=object)
        for place, part in enumerate(rows["part"]):
            outcomes[place] = pickle.dumps(self._failure or self._attempt(pickle.loads(part)))
        return {"number": rows["number"], "outcome": outcomes}

    def _attempt(self, part: Any) -> Any:
        try:
            return self._work(part)
        except Exception as error:
            return _Failure(f"on a node of the cluster, {_told(error)}")


def _told(error: Exception) -> str:
    if isinstance(error, InputError):
        return _one_line(error)
    # The folders of a file may name a patient.
    said = error.strerror if isinstance(error, OSError) and error.strerror else _one_line(error)
    return f"unexpected {type(error).__name__}: {said}"


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
    options: dict[str, Any] = {"include_dashboard": False} if where == "local" else {}
    try:
        with contextlib.nullcontext() if where == "local" else _bounded(where):
            ray.init(address=where, log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"--address {where}: {' '.join(str(error).split())[:500] or type(error).__name__}") from None
    finally:
        # Ray's own handler would end the command without a word.
        if threading.current_thread() is threading.main_thread():
            for which, handler in handlers.items():
                if handler is not None:
                    signal.signal(which, handler)
    is_cut_off = False
    try:
        _settle_data()
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


@contextlib.contextmanager
def _bounded(where: str) -> Iterator[None]:
    """Ends the command where connecting takes longer than START: Ray may wait for minutes, in C++."""

    def end() -> None:
        print(
            f"error: --address {where}: no Ray cluster has answered within {START:g} s: check that it runs the same "
            "version of Ray as this machine, which must be one of its nodes",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    timer = threading.Timer(START, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _quieten() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray._private.worker

    # Whatever becomes of a node's processes Ray prints on stdout, with the end of their logs.
    ray._private.worker.print_to_stdstream = lambda *arguments, **options: None


def _settle_data() -> None:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    # Its file in Ray's session folder keeps all of it.
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL + 1)


def _await_news() -> None:
    """Waits until the cluster knows which nodes are gone: what it hands to one of those is lost again."""
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


# ---- decoding


def decoder(cluster: Cluster) -> Callable[..., Iterator[Item]]:
    """`xray.radiographs.decoding.decode_canvases` by the cluster: same arguments, same items in the same order."""
    return functools.partial(_decode, cluster)


def _decode(
    cluster: Cluster, paths: Sequence[Path], size: int, n_workers: int, timeout: float = TIMEOUT
) -> Iterator[Item]:
    """n_workers: for nothing; an actor decodes with as many processes as it has cores."""
    cores, n = cluster.cores_of(False), len(paths)
    most = min(16 * cores, max(1, PART_BYTES // size**2))
    length = max(1, min(most, n // (4 * max(1, cluster.n_actors()))))
    parts = [tuple(path.absolute() for path in paths[start : start + length]) for start in range(0, n, length)]
    make = functools.partial(_decoding, size, cores, timeout)
    found = cluster.in_order(make, parts)
    start = 0
    for items, unseen in found:
        check_seen(unseen)
        for item in items:
            yield here(item, start, paths[start + item.index])
        start += len(items)


def _decoding(size: int, n_workers: int, timeout: float) -> Work:
    decode = Decoders(n_workers)

    def work(paths: tuple[Path, ...]) -> tuple[list[Item], list[Path]]:
        items = list(decode(paths, size, timeout))
        return items, unseen_files(items)

    return work


class Decoders:
    """The processes of an actor that decode: they stay from part to part, as starting them takes a second."""

    def __init__(self, n_workers: int) -> None:
        self._workers = Workers(n_workers, __name__)

    def __call__(self, paths: Sequence[Path], size: int, timeout: float) -> Iterator[Item]:
        """As `decode_canvases`; all canvases may wait at once."""
        items = [(index, path, size) for index, path in enumerate(paths)]
        futures = collections.deque(self._workers.submit(_decode_one, item, item[1].name, timeout) for item in items)
        for index, path, _ in items:
            outcome = futures.popleft().result()
            yield Undecodable(index, path, outcome.reason) if isinstance(outcome, Failed) else outcome


def _decode_one(item: tuple[int, Path, int]) -> Decoded:
    return decode_canvas(*item)


def unseen_files(items: Sequence[Item]) -> list[Path]:
    """Of the files that could not be decoded, those that are not there, for `check_seen` on the other side."""
    return [item.path for item in items if isinstance(item, Undecodable) and not item.path.exists()]


def check_seen(unseen: Sequence[Path]) -> None:
    """Raises InputError if this machine sees a file that a node did not see: it would be taken for a broken one."""
    for path in unseen:
        if path.exists():
            raise InputError(
                f"a node of the cluster does not see {path.name}, which is there on this machine: {SHARED}"
            )


def here(item: Item, start: int, path: Path) -> Item:
    """An item as this machine would have made it. start: place of its part's first. path: as it was given."""
    changes: dict[str, Any] = {"index": start + item.index, "path": path}
    if isinstance(item, Undecodable):
        changes["reason"] = item.reason.replace(str(item.path), str(path))
    return dataclasses.replace(item, **changes)
