"""The command `xray`: `xray NAME …` is what `python tools/NAME.py …` is in a checkout."""

import atexit
import contextlib
import importlib
import os
import signal
import sys
from typing import NoReturn

from xray import interrupts

COMMANDS = {
    "phantoms": "draw phantom radiographs in the layouts of VinBigData, SIIM-ACR and Montgomery",
    "convert": "annotations and radiographs → a dataset directory",
    "view": "pictures of what a dataset holds, beside predictions if given",
    "audit": "a dataset on one page: counts, readers, copies, odd radiographs, labels likely wrong",
    "lr_find": "sweep the learning rate of a training",
    "train": "train a detector, a segmenter or a classifier → a run directory",
    "cv": "cross-validate: train every fold → run directories, out-of-fold predictions, mean and spread",
    "infer": "run trained models over radiographs → predictions, submission, pictures, DICOM SR and SEG",
    "evaluate": "score predictions against the truth → report; compare two models; search thresholds",
    "card": "a trained model and its report → a model card, HTML and Markdown",
    "pseudo": "label unlabelled radiographs with trained detectors, for `train --pseudo`",
    "refine": "tighten a detector's pneumothorax boxes with a segmenter's masks",
    "fuse": "fuse predictions of several detectors by weighted boxes fusion",
    "tune": "search how to fuse models and weigh a classifier on out-of-fold predictions → ensemble.yaml",
    "export": "a trained model → ONNX, OpenVINO or torchvision; a dataset → COCO, YOLO or Pascal VOC",
    "serve": "the page, its HTTP API and the DICOM node",
    "account": "a name with a hashed secret, for `serve --auth`",
}
"""Name → what it does. Each is the module of xray/commands/ with that name."""

PIPE_CLOSED = 141
"""Exit status where the reader of what is printed has gone, as a shell gives it to commands that SIGPIPE ends."""


def start(name: str = "") -> NoReturn:
    """What this process is for: runs the command, or with no name `main`, and ends with its exit status.

    It ends without the interpreter taking every module apart: with torch 2.14, that takes 0.5 s of processor time and
    125 MiB more than were ever in use. Threads have ended by then, and what others registered with `atexit` has run.
    """
    statuses: list[int] = []
    # The first to be registered is the last to be called.
    atexit.register(_end, statuses)
    try:
        statuses.append(run(name) if name else main())
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read along has seen enough, as of `xray train --help | head`: what is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        statuses[:] = [PIPE_CLOSED]
    sys.exit(statuses[0])


def _end(statuses: list[int]) -> None:
    # No status: the command ended by an exception, which Python is to print.
    if statuses and "lightning" not in sys.modules:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(statuses[0])


def run(name: str) -> int:
    """Runs a command with the flags in `sys.argv`; returns its exit status."""
    # Of SIGTERM a training makes something itself: it saves what it has reached.
    interrupts.watch(*([signal.SIGINT] if name in ("train", "cv") else []))
    interrupts.follow_parent()
    return int(importlib.import_module(f"xray.commands.{name}").run())


def main() -> int:
    """`xray NAME …`, or the list of names; returns the exit status."""
    from xray import __version__

    name = sys.argv[1].replace("-", "_") if len(sys.argv) > 1 else ""
    if name in COMMANDS:
        sys.argv[:2] = [f"xray {sys.argv[1]}"]
        return run(name)
    if name.startswith("__tyro"):
        return _print_completion()
    if name == "__version":
        print(f"xray {__version__}")
        return 0
    if name and name not in ("__help", "_h", "help"):
        import difflib

        close = difflib.get_close_matches(name, COMMANDS, 1)
        meant = f"did you mean {close[0]}?" if close else f"use one of {', '.join(COMMANDS)}"
        print(f"error: xray has no command {sys.argv[1]}: {meant}", file=sys.stderr)
        return 2
    width = max(map(len, COMMANDS))
    print("usage: xray NAME [flags]\n\nFinds abnormalities in chest radiographs. Not for clinical use.\n")
    for each, what in COMMANDS.items():
        print(f"  {each:{width}}  {what}")
    print(
        "\n`xray NAME --help` lists the flags of a command."
        "\n`xray --tyro-write-completion bash|zsh FILE` writes completion for a shell."
    )
    return 0


def _print_completion() -> int:
    """Completion of all commands and their flags, by tyro; those of `train` are the detector's."""
    from typing import Annotated, Any, Union

    import tyro

    kinds: list[Any] = []
    for name, what in COMMANDS.items():
        config = importlib.import_module(f"xray.commands.{name}").Config
        kinds.append(Annotated[config, tyro.conf.subcommand(name, description=what)])
    union: Any = Union[tuple(kinds)]  # noqa: UP007 (known at run time only)
    tyro.cli(union, prog="xray", args=sys.argv[1:], config=(tyro.conf.OmitArgPrefixes,))
    return 0


if __name__ == "__main__":
    start()
