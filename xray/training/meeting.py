"""Processes that meet before the training, wait for each other, and notice that one of them has ended."""

import datetime
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from xray.errors import InputError
from xray.training.launch import Launch
from xray.training.loading import LOADER_TIMEOUT

PROCESSES_TIMEOUT = datetime.timedelta(seconds=LOADER_TIMEOUT + 300)
"""How long processes wait for each other: longer than one waits for its data, or its disk at the end of an epoch."""

POLL = 0.5
"""Seconds between two looks."""
GRACE = 3.0
"""Seconds that the first process has to tell by itself why another one's end stops it."""


class Meeting:
    """The processes that torchrun or srun started together, connected; Lightning goes on with the same connection.

    Raises InputError where they do not find each other.
    """

    def __init__(self, launch: Launch, on_gpu: bool) -> None:
        import torch
        from lightning.fabric.plugins.environments import SLURMEnvironment

        self.launch = launch
        if launch.by == "srun":
            cluster = SLURMEnvironment(auto_requeue=False)
            os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = cluster.main_address, str(cluster.main_port)
        try:
            self._store, rank, world = next(
                torch.distributed.rendezvous("env://", launch.rank, launch.world, timeout=PROCESSES_TIMEOUT)
            )
            backend = "nccl" if on_gpu else "gloo"
            store = torch.distributed.PrefixStore("training", self._store)
            torch.distributed.init_process_group(
                backend, store=store, rank=rank, world_size=world, timeout=PROCESSES_TIMEOUT
            )
        except (RuntimeError, ValueError) as error:
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise InputError(
                f"process {launch.rank} of {launch.world} did not find the others at {where} ({type(error).__name__}): "
                "see whether that address and port can be reached from every node"
            ) from None
        self._store = torch.distributed.PrefixStore("meeting", self._store)

    def say(self, word: str) -> None:
        """Lets those that wait for `word` go on."""
        self._store.set(word, b"1")

    def wait(self, word: str) -> None:
        """Returns when it was said, however long that takes. Raises InputError if the others are gone."""
        try:
            while not self._store.check([word]):
                time.sleep(POLL)
        except RuntimeError:
            raise InputError("the first process of this training has ended: its own message says why") from None


def convert_once(meeting: Meeting, is_there: Callable[[], bool], convert: Callable[[], None]) -> None:
    """Has one process convert while the others wait; one of each node, where they share no folders."""
    launch = meeting.launch
    if launch.rank == 0:
        if not is_there():
            convert()
        meeting.say("data")
    meeting.wait("data")
    node = launch.rank // launch.local_world
    if launch.local_rank == 0:
        if not is_there():
            convert()
        meeting.say(f"data of node {node}")
    meeting.wait(f"data of node {node}")


def watch_children(processes: list[Any]) -> None:
    """In place of Lightning's observer, which kills this process without a word when one that it started has ended."""

    def watch() -> None:
        while True:
            time.sleep(POLL)
            for number, process in enumerate(processes, start=1):
                if process.poll():
                    time.sleep(GRACE)
                    _give_up(number, process.returncode, processes)
            if all(process.returncode == 0 for process in processes):
                return

    threading.Thread(target=watch, name="children", daemon=True).start()


def _give_up(number: int, status: int, processes: list[Any]) -> None:
    for process in processes:
        process.kill()
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    message = f"error: process {number} of this training ended {how}: go on from the last checkpoint with --resume\n"
    sys.stdout.flush()
    os.write(2, message.encode())
    os._exit(1)
