"""Processes of a training: who started them (torchrun, srun or Lightning), how they meet, and how they end together.

Read before anything heavy is imported. torchrun and srun know how many processes there are, so `--devices` and
`--num-nodes` need not be given, and must not differ.
"""

import dataclasses
import datetime
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xray.errors import FlagError, InputError
from xray.flags import flag_value

FIRST_ERROR = 15.0
"""Seconds that a process other than the first waits before it prints its error: most errors happen in the first
process, too, which prints them once and whose end ends the others."""
PROCESSES_TIMEOUT = datetime.timedelta(seconds=900)
"""How long processes wait for each other: longer than one waits for its data (LOADER_TIMEOUT), or for its disk at the
end of an epoch."""
POLL = 0.5
"""Seconds between two checks of another process."""
GRACE = 3.0
"""Seconds in which the first process may itself print why another one's end stops it."""


@dataclasses.dataclass(frozen=True)
class Launch:
    """by: "torchrun", "srun", "lightning" (a process that another one started) or "" (the first one, or alone).

    rank of world: this process among all; 0 of 0 where that is not known yet. local_rank of local_world: on its node.
    """

    by: str = ""
    rank: int = 0
    world: int = 0
    local_rank: int = 0
    local_world: int = 0

    @property
    def n_nodes(self) -> int:
        """Nodes: machines, or groups of processes that were started as one."""
        return self.world // self.local_world if self.local_world else 0

    @property
    def can_meet(self) -> bool:
        """Whether all processes were started together, and can wait for each other from the first line on."""
        return self.by in ("torchrun", "srun") and self.world > 1


def find_launch(environ: Mapping[str, str] = os.environ) -> Launch:
    """Reads the environment. Raises InputError where it contradicts itself, or nodes have different numbers of
    processes."""
    if "TORCHELASTIC_RUN_ID" in environ:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        launch = Launch("torchrun", *(_number(environ, name) for name in names))
    elif "SLURM_NTASKS" in environ and environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        launch = _of_slurm(environ)
    elif "LOCAL_RANK" in environ and "WORLD_SIZE" in environ:
        local_rank, world = _number(environ, "LOCAL_RANK"), _number(environ, "WORLD_SIZE")
        # Its flags come from the first process and say how many processes a node has.
        launch = Launch("lightning", max(local_rank, _node(environ)), world, local_rank)
    else:
        launch = Launch(rank=_node(environ))
    if launch.local_world and launch.world % launch.local_world:
        raise InputError(
            f"{launch.by} started {launch.world} processes, {launch.local_world} of them on this node: start as many "
            "on every node"
        )
    return launch


def _node(environ: Mapping[str, str]) -> int:
    return _number(environ, "NODE_RANK") if "NODE_RANK" in environ else 0


def _of_slurm(environ: Mapping[str, str]) -> Launch:
    tasks = _number(environ, "SLURM_NTASKS")
    if tasks == 1:
        return Launch("srun", 0, 1, 0, 1)
    if "SLURM_STEP_ID" not in environ:
        raise InputError(f"this SLURM job has {tasks} tasks and this process is none: start the command with srun")
    if "SLURM_NTASKS_PER_NODE" not in environ:
        raise InputError(
            f"this SLURM job does not say how many of its {tasks} tasks each node has: replace --ntasks by "
            "#SBATCH --ntasks-per-node=N, with N the GPUs of a node"
        )
    per_node = _number(environ, "SLURM_NTASKS_PER_NODE")
    return Launch("srun", _number(environ, "SLURM_PROCID"), tasks, _number(environ, "SLURM_LOCALID"), per_node)


def _number(environ: Mapping[str, str], name: str) -> int:
    value = environ.get(name, "")
    if not value.isdecimal():
        raise InputError(f"{name} in the environment is {value!r}: it must be a whole number of at least 0")
    return int(value)


def with_launch(args: Sequence[str], launch: Launch) -> list[str]:
    """Flags with --devices and --num-nodes as the processes were started.

    Raises FlagError where they were given and differ.
    """
    args = list(args)
    if launch.by not in ("torchrun", "srun"):
        return args
    how = {
        "torchrun": "torchrun --nproc-per-node {} --nnodes {}",
        "srun": "#SBATCH --ntasks-per-node={} and #SBATCH --nodes={}",
    }[launch.by]
    counts = {"devices": launch.local_world, "num-nodes": launch.n_nodes}
    for name, started in counts.items():
        given = flag_value(args, name)
        if given is None:
            args += [f"--{name}", str(started)]
        elif given != str(started):
            what = "processes on each node" if name == "devices" else "nodes"
            wanted = {**counts, name: given}
            raise FlagError(
                f"--{name} is {given}, but {launch.by} started {started} {what}: leave --{name} out, or start with "
                + how.format(wanted["devices"], wanted["num-nodes"])
            )
    return args


class Rendezvous:
    """A connection of the processes that torchrun or srun started together, which Lightning uses too.

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
                "check that every node can reach this address and port"
            ) from None
        self._store = torch.distributed.PrefixStore("rendezvous", self._store)

    def say(self, word: str) -> None:
        """Ends the `wait` of other processes for `word`."""
        self._store.set(word, b"1")

    def wait(self, word: str) -> None:
        """Returns when another process has called `say`, however late. Raises InputError if the first one has ended."""
        try:
            while not self._store.check([word]):
                time.sleep(POLL)
        except RuntimeError:
            raise InputError("the first process of this training has ended: its own message says why") from None


def convert_once(rendezvous: Rendezvous, is_there: Callable[[], bool], convert: Callable[[], None]) -> None:
    """Lets one process convert while the others wait; one of each node, where nodes share no folders."""
    launch = rendezvous.launch
    if launch.rank == 0:
        if not is_there():
            convert()
        rendezvous.say("data")
    rendezvous.wait("data")
    node = launch.rank // launch.local_world
    if launch.local_rank == 0:
        if not is_there():
            convert()
        rendezvous.say(f"data of node {node}")
    rendezvous.wait(f"data of node {node}")


# How processes end together

_is_failing = threading.Event()


def wait_for_first_error() -> None:
    """Waits, in a process that is not the first, before it prints its error."""
    _is_failing.set()
    time.sleep(FIRST_ERROR)


def follow_the_first(launch: Launch) -> None:
    """For a process that is not the first: it prints nothing but errors, and ends when the one that started it does."""
    if launch.rank == 0 and launch.local_rank == 0:
        return
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  until the process ends
    if launch.by == "lightning":
        threading.Thread(target=_end_with, args=(os.getppid(),), name="parent", daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL)
    _end("" if _is_failing.is_set() else "the first process of this training has ended")


def watch_children(processes: list[Any]) -> None:
    """Replaces Lightning's observer, which kills this process without a message when one that it started has ended."""

    def watch() -> None:
        while any(process.poll() != 0 for process in processes):
            time.sleep(POLL)
            for number, process in enumerate(processes, start=1):
                if status := process.poll():
                    time.sleep(GRACE)
                    for each in processes:
                        each.kill()
                    how = f"by signal {-status}" if status < 0 else f"with status {status}"
                    _end(f"process {number} of this training ended {how}")

    threading.Thread(target=watch, name="children", daemon=True).start()


def _end(problem: str) -> None:
    sys.stdout.flush()
    if problem:
        os.write(2, f"error: {problem}: continue from the last checkpoint with --resume\n".encode())
    os._exit(1)
