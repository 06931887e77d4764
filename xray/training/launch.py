"""Who started this process of a training, and which of how many it is: torchrun, srun, or Lightning itself.

Read before anything heavy is imported. Whoever started the processes knows how many there are, so `--devices` and
`--num-nodes` need not be given, and may not say anything else.
"""

import dataclasses
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from xray.errors import FlagError, InputError
from xray.flags import flag_value

LINGER = 15.0
"""Seconds that a process other than the first waits before it tells why it fails: most failures are the first one's,
too, which tells them once, and whose end ends the others."""


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
        """Machines, or what was said to be one."""
        return self.world // self.local_world if self.local_world else 0

    @property
    def is_met(self) -> bool:
        """Whether all processes were started together, and can wait for each other from the first line on."""
        return self.by in ("torchrun", "srun") and self.world > 1


def find_launch(environ: Mapping[str, str] = os.environ) -> Launch:
    """What the environment says. Raises InputError where it contradicts itself, or is of an unusual layout."""
    if "TORCHELASTIC_RUN_ID" in environ:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        launch = Launch("torchrun", *(_number(environ, name) for name in names))
    elif "SLURM_NTASKS" in environ and environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        launch = _of_slurm(environ)
    elif "LOCAL_RANK" in environ and "WORLD_SIZE" in environ:
        local_rank, world = _number(environ, "LOCAL_RANK"), _number(environ, "WORLD_SIZE")
        # How many there are on a node its flags say, which the first process has handed on.
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
        raise InputError(f"this SLURM job has {tasks} tasks and this is none of them: begin the command with srun")
    if "SLURM_NTASKS_PER_NODE" not in environ:
        raise InputError(
            f"this SLURM job does not say how its {tasks} tasks lie on its nodes: write #SBATCH --ntasks-per-node=N "
            "with N the GPUs of a node, in place of --ntasks"
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

    Raises FlagError where they were given and say something else.
    """
    args = list(args)
    if launch.by not in ("torchrun", "srun"):
        return args
    how = {
        "torchrun": "torchrun --nproc-per-node {} --nnodes {}",
        "srun": "#SBATCH --ntasks-per-node={} and #SBATCH --nodes={}",
    }[launch.by]
    found = {"devices": launch.local_world, "num-nodes": launch.n_nodes}
    for name, started in found.items():
        given = flag_value(args, name)
        if given is None:
            args += [f"--{name}", str(started)]
        elif given != str(started):
            what = "processes on each node" if name == "devices" else "nodes"
            wanted = {**found, name: given}
            raise FlagError(
                f"--{name} is {given}, but {launch.by} started {started} {what}: leave --{name} out, or start with "
                + how.format(wanted["devices"], wanted["num-nodes"])
            )
    return args


_is_failing = threading.Event()


def linger() -> None:
    """Waits, in a process that is not the first, before it tells why it fails."""
    _is_failing.set()
    time.sleep(LINGER)


def follow_the_first(launch: Launch) -> None:
    """For a process that is not the first: it prints nothing but errors, and ends when the one that started it does."""
    if launch.rank == 0 and launch.local_rank == 0:
        return
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  until the process ends
    if launch.by == "lightning":
        threading.Thread(target=_end_with, args=(os.getppid(),), name="parent", daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    if not _is_failing.is_set():
        os.write(
            2, b"error: the first process of this training has ended: go on from its last checkpoint with --resume\n"
        )
    os._exit(1)
