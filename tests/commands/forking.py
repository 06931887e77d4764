"""Commands started by forking a process that has imported everything, so that they can be killed by the dozen.

`Forks` starts such a process; its children run a tool's file as a script, in a session of their own.
"""

import contextlib
import importlib.util
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Forks:
    """A process that forks commands; a context manager."""

    def __enter__(self):
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
        self._server = subprocess.Popen([sys.executable, str(Path(__file__).resolve())], **options)
        return self

    def __exit__(self, *exception):
        self._server.stdin.close()
        self._server.wait(120)
        self._server.stdout.close()

    def start(self, tool, *flags, **orders):
        """Starts `tool` ("tools/convert.py") with these flags.

        orders: die_at: number of the file operation before which it kills itself. under: folder whose file operations
        count. patch: {"module:NAME": value} set beforehand. alone: no worker processes, which take a second to start.
        cwd: where it runs. environ: its environment, where that is not this process's.
        """
        return Command(self, self._ask({"tool": tool, "flags": [str(flag) for flag in flags], **orders}))

    def run(self, tool, *flags, timeout=600, **orders):
        """Runs a command to its end → the ended Command."""
        command = self.start(tool, *flags, **orders)
        command.wait(timeout)
        return command

    def kill_after(self, seconds, out, tool, *flags, **orders):
        """Kills a command that writes the folder `out` after so many seconds → the ended Command.

        Where it was done by then and had begun anew, it does so again, and is killed in half the time.
        """
        is_new = not out.exists()
        while True:
            command = self.start(tool, *flags, **orders)
            time.sleep(seconds)
            command.kill()
            if command.wait() == -signal.SIGKILL or not is_new:
                return command
            shutil.rmtree(out)
            seconds /= 2

    def _ask(self, order):
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


class Command:
    """A command that was started. status: as a shell has it; negative for the signal that killed it; None: it runs.

    Once it has ended: out, err, n_operations (None if it was killed).
    """

    def __init__(self, forks, started):
        self._forks, self.pid, self._said = forks, started["pid"], started["said"]
        self.status, self.n_operations = None, None

    def poll(self):
        """The status, None while it runs."""
        if self.status is None:
            self.status = self._forks._ask({"wait": self.pid})["status"]
            if self.status is not None:
                self.out, self.err = (Path(f"{self._said}.{name}").read_text() for name in ("out", "err"))
                with contextlib.suppress(OSError):
                    self.n_operations = int(Path(f"{self._said}.count").read_text())
        return self.status

    def wait(self, timeout=600):
        """Waits for its end; raises AssertionError, after killing it, if that takes longer."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                self.kill()
                raise AssertionError(f"still running after {timeout} s")
            time.sleep(0.005)
        return self.status

    def said(self):
        """What it has written to stdout so far."""
        path = Path(f"{self._said}.out")
        return path.read_text() if path.exists() else ""

    def kill(self):
        """SIGKILL to it and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def session_of(pid, patience=300):
    """Command lines of the processes that are left of a session after so many seconds at most."""
    end = time.monotonic() + patience
    while True:
        left = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == pid and fields[0] != "Z":
                    left.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.02)


def contents(folder):
    """Path below the folder → bytes, of all files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def under_final_names(folder):
    """`contents` without what is marked as unfinished."""
    return {name: content for name, content in contents(folder).items() if not name.endswith(".part")}


# ---- the process that forks

NEEDED = {
    "train": (
        "lightning.pytorch", "segmentation_models_pytorch", "timm", "torch.utils.tensorboard",
        "xray.outputs.pictures.findings", "xray.training.tasks.classification", "xray.training.tasks.detection",
        "xray.training.tasks.segmentation", "xray.training.trainer",
    ),
    "convert": ("pandas", "xray.datasets.conversion_account", "xray.datasets.sources.vinbig"),
    "infer": (
        "pandas", "segmentation_models_pytorch", "timm", "xray.commands.infer_results", "xray.datasets.inputs",
        "xray.outputs.pictures.findings",
    ),
    "export": ("segmentation_models_pytorch", "timm", "xray.inference.shared_trunk"),
    "evaluate": ("matplotlib.pyplot", "xray.evaluation.assess", "xray.outputs.report.report"),
}  # fmt: skip
OF_ALL = ("rich.progress", "rich.table", "typeguard", "tyro", "xray.commands.runner", "xray.storage.places")
"""What commands import while they work, for seconds: each, and all of them."""


def _import_for(tool):
    """Imports what a tool's commands import, once for all that are forked from now on."""
    name = Path(tool).stem
    own = f"xray.commands.{name}"
    for module in (*OF_ALL, *([own] if importlib.util.find_spec(own) else []), *NEEDED.get(name, ())):
        importlib.import_module(module)


def serve():
    """Imports all that commands do, then reads orders, a line of JSON each."""
    import tempfile

    import torch
    import torchvision  # noqa: F401

    sys.path[0] = str(ROOT)
    import xray.evaluation.evaluate
    import xray.inference.pipeline
    import xray.inference.streaming  # noqa: F401

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        for number, line in enumerate(sys.stdin):
            order = json.loads(line)
            if "wait" in order:
                pid, status = os.waitpid(order["wait"], os.WNOHANG)
                answer = {"status": os.waitstatus_to_exitcode(status) if pid else None}
            else:
                said = f"{folder}/{number}"
                _import_for(order["tool"])
                begun, begins = os.pipe()
                pid = os.fork()
                if pid == 0:
                    os.setsid()
                    os.close(begins)
                    _run(order, said)
                os.close(begins)
                # Its session exists from here on, so that it can be killed before it has done anything.
                os.read(begun, 1)
                os.close(begun)
                answer = {"pid": pid, "said": said}
            print(json.dumps(answer), flush=True)
        shutil.rmtree(folder)
        # Taking down all that was imported takes seconds where the machine is busy.
        os._exit(0)


def _run(order, said):
    status = 1
    try:
        for descriptor, name in ((1, "out"), (2, "err")):
            file = os.open(f"{said}.{name}", os.O_WRONLY | os.O_CREAT, 0o600)
            os.dup2(file, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if (environ := order.get("environ")) is not None:
            os.environ.clear()
            os.environ.update(environ)
        for name, value in order.get("patch", {}).items():
            module, _, attribute = name.partition(":")
            setattr(sys.modules.get(module) or __import__(module, fromlist=["_"]), attribute, value)
        os.chdir(order.get("cwd", "."))
        if order.get("alone"):
            _decode_alone()
        count = _watch_files(order.get("under"), order.get("die_at"))
        sys.argv = [str(ROOT / order["tool"]), *order["flags"]]
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        Path(f"{said}.count").write_text(str(count[0]))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _decode_alone():
    from xray.datasets.sources import mask_account
    from xray.radiographs import decoding

    in_workers = decoding.in_workers
    decoding.in_workers = mask_account.in_workers = lambda work, items, _, *rest: in_workers(work, items, 0, *rest)


def _watch_files(under, die_at):
    """Counts the operations on names of files below a folder, and dies before one of them."""
    count = [0]

    def hook(event, values):
        if event == "open" and not (isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate") or not under:
            return
        if any(isinstance(value, str | os.PathLike) and os.fspath(value).startswith(under) for value in values[:2]):
            count[0] += 1
            if count[0] == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    if under:
        sys.addaudithook(hook)
    return count


if __name__ == "__main__":
    serve()
