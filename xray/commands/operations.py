"""What `xray serve` does around the models: accounts, request log, metrics, HTTPS, and several worker processes."""

import contextlib
import dataclasses
import functools
import logging
import math
import os
import shutil
import signal
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xray.errors import FlagError, InputError, need, spelled
from xray.serving.accepting import Door, Places
from xray.serving.accounts import AccountsFile
from xray.serving.request_guard import LOOPBACK
from xray.serving.supervising import Role, Worker, start, supervise
from xray.serving.tls import tls_context
from xray.serving.together import Together
from xray.serving.together import forget as forget_state

if TYPE_CHECKING:
    from xray.commands.serve_flags import Config
    from xray.outputs.dicom.objects import Algorithm
    from xray.serving.operations import Operations
    from xray.serving.service import Service

TICKETS = "tickets"
COUNTS = "counts"
STATES = "states"
"""Folders in the one that several workers share."""


def say(line: str) -> None:
    """Prints a warning to stderr."""
    print(line, file=sys.stderr)


class Checked(NamedTuple):
    """What flags name, read and found usable."""

    accounts: AccountsFile | None
    tls: ssl.SSLContext | None


def check(config: "Config", warn: Callable[[str], object] = say) -> Checked:
    """Reads what flags name. Raises InputError or FlagError where it cannot be used. warn: is told what is unsafe."""
    if config.auth_open and config.auth is None:
        raise FlagError("--auth-open names paths that need no account, and without --auth none does: leave it out")
    if config.metrics:
        need("--metrics", "serve", "prometheus_client")
    if "metrics" in config.auth_open and not config.metrics:
        raise FlagError("--auth-open metrics and --no-metrics: leave one of the two out")
    if config.workers > 1 and os.name != "posix":
        raise FlagError("--workers: several processes share a socket on Linux and macOS alone: leave it out")
    if config.workers > 1 and config.places < config.workers:
        raise FlagError(f"--places is {config.places} for {config.workers} workers: give at least one for each")
    tls = tls_context(config.tls_cert, config.tls_key, warn)
    accounts = None if config.auth is None else AccountsFile(config.auth, warn)
    if accounts is not None and tls is None and config.host not in (*LOOPBACK, "::1"):
        warn(
            f"warning: --auth without --tls-cert at {config.host}: secrets can be read on their way, unless a proxy in "
            "front of this server has HTTPS"
        )
    return Checked(accounts, tls)


def behind_tls(door: Door) -> None:
    """Bounds the connections that a door lets in: those in the handshake are not known to HTTP's limits yet."""
    from xray.serving.connections import Limits

    limits = Limits()
    door.places = Places(2 * limits.total, 2 * limits.each)


@contextlib.contextmanager
def operations_of(
    config: "Config", checked: Checked, service: "Service", algorithm: "Algorithm", node: Any, role: Role | None
) -> Iterator["Operations"]:
    """What is asked for by flags, for as long as the server runs. node: the DICOM node, None without one."""
    from xray.serving.metrics import FOLDER

    if role is None:
        # Somebody else's, such as another server's; prometheus_client looks for it when it is imported.
        os.environ.pop(FOLDER, None)
    from xray.serving.authentication import Checker
    from xray.serving.metrics import Metrics
    from xray.serving.observing import RequestLog
    from xray.serving.operations import Operations, card_of, models_of

    runs = [Path(run) for run in config.weights]
    metrics, requests = None, None
    if config.metrics:
        models = models_of(algorithm.parameters, service.models)
        metrics = Metrics(lambda: service.model.load, models, getattr(node, "status", None))
        metrics.keep_fresh()
    if config.request_log:
        requests = RequestLog(config.request_log)
    found: list[Together] = []

    def together(role: Role, state: Callable[[], Mapping[str, Any]]) -> Together:
        found.append(Together(role.folder / STATES, role.number, role.of, state))
        found[0].keep_telling()
        return found[0]

    try:
        yield Operations(
            checker=None if checked.accounts is None else Checker(checked.accounts),
            open_paths=frozenset(f"/{name}" for name in config.auth_open),
            requests=requests,
            metrics=metrics,
            card=card_of(runs),
            tickets=role.folder / TICKETS if role else None,
            together=functools.partial(together, role) if role else None,
        )
    finally:
        for one in found:
            one.close()
        if metrics is not None:
            metrics.close()
        if requests is not None:
            requests.close()


def share_of(config: "Config", role: Role) -> "Config":
    """What one of several workers gets: its part of places and decoding processes; the first one has the DICOM node."""
    others: dict[str, Any] = {}
    if role.number:
        # What is for the node alone would be refused without it.
        others = {one.name: one.default for one in dataclasses.fields(config) if one.name.startswith("dicom_")}
    elif role.is_again:
        # What had failed was tried again when the server started.
        others = {"dicom_resend": False}
    return dataclasses.replace(
        config,
        places=math.ceil(config.places / role.of),
        n_workers=math.ceil(config.n_workers / role.of),
        **others,
    )


def run_workers(config: "Config", door: Door) -> int:
    """Runs `--workers` processes on one socket until this one is interrupted; returns its exit status."""
    from xray.serving.metrics import FOLDER, forget_process

    door.listen(1024)
    # Cores are shared: as many threads as cores in each worker would hinder each other.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS", "") or str(max(1, cores // config.workers))
    # Short names: sockets of multiprocessing lie below, whose paths may have 107 letters.
    folder = Path(tempfile.mkdtemp(prefix="xray-"))
    try:
        for name in (TICKETS, COUNTS, STATES):
            (folder / name).mkdir()

        def start_one(number: int, is_again: bool) -> Worker:
            role = Role(number, config.workers, is_again, door.fileno(), -1, folder)
            own = folder / str(number)
            own.mkdir()
            environment = {FOLDER: str(folder / COUNTS), "OMP_NUM_THREADS": threads, "TMPDIR": str(own)}
            return start("from xray.commands.serve import run_worker; run_worker()", config, role, environment)

        def forget(number: int, process: int) -> None:
            # Files of patients that a worker which was killed could not remove.
            shutil.rmtree(folder / str(number), ignore_errors=True)
            forget_state(folder / STATES, number)
            if config.metrics:
                forget_process(folder / COUNTS, process)

        return supervise(config.workers, start_one, forget)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ends_quietly(work: Callable[[], int | None], debug: bool) -> int:
    """Runs a worker's work → its exit status; its supervisor says that it was interrupted."""
    from xray.commands.runner import run_command

    def run() -> int:
        try:
            return work() or 0
        except KeyboardInterrupt:
            logging.shutdown()
            os._exit(128 + signal.SIGTERM)

    return run_command(run, debug=debug)


def door_of(role: Role) -> Door:
    """The socket that a worker shares with others. Raises InputError if it is not there."""
    try:
        door = Door(fileno=role.door)
    except OSError as error:
        raise InputError(
            f"this worker has no socket ({error.strerror}): it is for {spelled('serve')} --workers alone"
        ) from None
    door.is_shared = True
    return door
