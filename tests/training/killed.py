"""Trainings in processes that can be killed: forked from one that has imported everything, so that each starts at once.

python killed.py reads a JSON line per training, {"flags": [...], "log": path, "hook": name or null}, answers with the
process id, and with [process id, exit status] when it has ended.
"""

import contextlib
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

SLOWED = 0.04
"""Seconds that each sync of a file takes longer, so that a random moment falls into one often."""


class Nursery:
    """A process that forks trainings; use as a context manager."""

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert json.loads(self._process.stdout.readline()) == "ready"
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(timeout=600)
        self._process.stdout.close()

    def start(self, flags, log, hook=None):
        """Starts a training and returns its process id."""
        request = {"flags": [str(flag) for flag in flags], "log": str(log), "hook": hook}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def wait(self):
        """Waits for the training started last; its exit status, negative where a signal ended it."""
        return json.loads(self._process.stdout.readline())

    def run(self, flags, log, hook=None):
        """Trains to the end; the exit status."""
        self.start(flags, log, hook)
        return self.wait()

    def kill(self, flags, log, is_time, hook=None, number=signal.SIGKILL):
        """Trains until `is_time()`, then sends a signal; exit status, which is 0 if the training was faster."""
        process = self.start(flags, log, hook)
        events = selectors.DefaultSelector()
        events.register(self._process.stdout, selectors.EVENT_READ)
        while not events.select(timeout=0):
            if is_time():
                os.kill(process, number)
                break
            time.sleep(0.001)
        events.close()
        return self.wait()


def slow_saves():
    """Lets every sync take longer."""
    sync = os.fsync

    def slowed(descriptor):
        time.sleep(SLOWED)
        sync(descriptor)
        time.sleep(SLOWED)

    os.fsync = slowed


def loader_group():
    """A group of processes, to which a signal can be sent as a job's manager does."""
    os.setpgid(0, 0)


IMPORTED = (
    "segmentation_models_pytorch", "timm", "torch.utils.tensorboard",
    "xray.training.tasks.classification", "xray.training.tasks.detection",
    "xray.outputs.pictures.findings", "xray.training.tasks.segmentation", "xray.commands.train",
    "xray.training.failures", "xray.training.trainer",
)  # fmt: skip

HOOKS = {"slow_saves": slow_saves, "loader_group": loader_group}


def _train(request):
    from xray.commands.runner import run_command
    from xray.commands.train import main
    from xray.training.recipes import read_training_flags

    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["hook"]:
        HOOKS[request["hook"]]()
    status = run_command(lambda: main(*read_training_flags(request["flags"])))
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _serve():
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    os.environ["OMP_NUM_THREADS"] = "1"
    # Everything that a training imports: none of it starts a thread.
    for name in IMPORTED:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            sys.stdin.close()
            _train(json.loads(line))
        print(process, file=answers, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
