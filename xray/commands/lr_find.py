"""Looks for a good learning rate: python tools/lr_find.py with the flags of xray/train.py.

The learning rate rises exponentially from batch to batch until the smoothed loss diverges; the suggestion lies where
the loss falls steepest over log(lr). Nothing of the training itself is written and the weights come back as they were.
"""

import dataclasses
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from annotated_types import Interval

from xray.commands.runner import run_command
from xray.errors import FlagError, InputError, spelled
from xray.files import check_writable, complete, make_folder
from xray.flags import AUTO, Positive, check_ranges, require, take_flags
from xray.flags.helptexts import wide_enough
from xray.storage.places import run_training
from xray.training.config import TASKS, TrainingConfig
from xray.training.recipes import read_training_flags

if TYPE_CHECKING:
    from xray.models.device import LightningPrecision

Config = TASKS["detection"]
"""What shells complete; --task chooses another."""

PICTURE = "lr_find.png"
FEWEST = 10
"""Steps before the loss diverges that a suggestion needs at least."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The sweep's own flags; all others are those of xray/train.py, below."""

    min_lr: Positive = 1e-7
    """First learning rate, above 0."""
    max_lr: Annotated[float, Interval(gt=0, le=1000)] = 1.0
    """Last learning rate, above --min-lr and up to 1000."""
    n_steps: Annotated[int, Interval(ge=2 * FEWEST, le=100_000)] = 100
    """Optimizer steps between them (20 to 100000)."""


OWN_FLAGS = ("--min-lr", "--max-lr", "--n-steps")


def main(task_name: str, config: TrainingConfig, sweep_flags: Sweep) -> None:
    """Sweeps, writes SAVE_PATH/lr_find.png and prints the suggestion."""
    check_ranges(sweep_flags)
    require(sweep_flags.min_lr < sweep_flags.max_lr, "min_lr", sweep_flags.min_lr, "below --max-lr")
    check_writable(Path(config.save_path))
    from xray.commands.training_inputs import build_task, check_data

    check_data(Path(config.data_path))
    from xray.datasets.store import is_store, open_store
    from xray.models.device import lightning_precision, resolve_device

    device = resolve_device(config.device)
    if not is_store(config.data_path):
        raise InputError(f"{config.data_path} is not converted yet: run {spelled('convert')} first")
    task = build_task(task_name, config, open_store(config.data_path))
    print(task.load_initial_weights())
    rates, losses = sweep(task, device.type, lightning_precision(config.precision, device), sweep_flags)
    suggestion = steepest(rates, losses)
    folder = Path(config.save_path)
    make_folder(folder)
    draw(folder / PICTURE, rates, losses, suggestion)
    # It was chosen because no rate was given, and with one SGD would be.
    is_chosen = config.optimizer == AUTO and task.config.optimizer != "sgd"
    optimizer = f"--optimizer {task.config.optimizer} " if is_chosen else ""
    print(
        f"suggested learning rate {suggestion:.1e}, see {folder / PICTURE}; train with {optimizer}--lr {suggestion:.1e}"
    )


def sweep(
    task: Any, device: str, precision: "LightningPrecision", sweep_flags: Sweep
) -> tuple[list[float], list[float]]:
    """Learning rates of the steps made, ascending, and their smoothed losses; it stops where the loss diverges."""
    import lightning as L
    from lightning.pytorch.tuner.tuning import Tuner

    from xray.training.trainer import quiet

    quiet()
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            precision=precision,
            max_epochs=task.config.n_epochs,
            gradient_clip_val=task.config.clip_grad or None,
            accumulate_grad_batches=task.config.accumulate,
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
        finder = Tuner(trainer).lr_find(
            task,
            min_lr=sweep_flags.min_lr,
            max_lr=sweep_flags.max_lr,
            num_training=sweep_flags.n_steps,
            update_attr=False,
        )
    assert finder is not None
    steps = zip(finder.results["lr"], finder.results["loss"], strict=False)
    finite = [(rate, loss) for rate, loss in steps if math.isfinite(loss)]
    if len(finite) < FEWEST:
        raise InputError(f"the loss diverged after {len(finite)} steps: start with a smaller --min-lr")
    return [rate for rate, _ in finite], [loss for _, loss in finite]


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The learning rate at which the smoothed loss falls fastest over log(lr), before its minimum.

    The first tenth of the steps is left out: there, the running mean still holds hardly anything but the first loss.
    Lightning's own suggestion takes the slope over lr, which the noise of the smallest rates wins.
    """
    import numpy as np

    first = max(1, len(rates) // 10)
    last = max(first + 2, int(np.argmin(losses)) + 1)
    slope = np.gradient(np.asarray(losses[first:last]), np.log(rates[first:last]))
    return float(rates[first + int(np.argmin(slope))])


def draw(path: Path, rates: Sequence[float], losses: Sequence[float], suggestion: float) -> None:
    """Loss over learning rate as PNG, the suggestion marked."""

    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color="#0072B2")
    axes.axvline(suggestion, color="#D55E00", linestyle="--")
    axes.annotate(
        f" {suggestion:.1e}", (suggestion, 0.95), xycoords=("data", "axes fraction"), color="#D55E00", va="top"
    )
    # Where it diverges the loss is far larger than everywhere else.
    start = max(losses[: max(2, len(losses) // 4)])
    low = min(losses)
    axes.set_ylim(low - 0.1 * (start - low), start + 0.5 * (start - low) + 1e-9)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("smoothed training loss")
    axes.grid(alpha=0.25)
    from xray.radiographs.pictures import SOFTWARE

    with complete(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": SOFTWARE})


def read_sweep(args: Sequence[str]) -> tuple[Sweep, list[str]]:
    """The sweep's own flags, and all others, which are those of a training. Prints the former's help where asked."""
    if {"-h", "--help"} & set(args):
        with wide_enough():
            print(tyro.extras.get_parser(Sweep).format_help())
    values, others = take_flags(args, **dataclasses.asdict(Sweep()))
    if "--resume" in others:
        raise FlagError(
            f"--resume is for {spelled('train')}: leave it out, the sweep starts from the weights of --weights"
        )
    return Sweep(**values), others


def run() -> int:
    """The command; returns its exit status."""

    def read(args: Sequence[str]) -> tuple[Any, ...]:
        sweep_flags, others = read_sweep(args)
        return *read_training_flags(others, beside=OWN_FLAGS), sweep_flags

    def start() -> None:
        """Reads the flags and sweeps."""
        run_training(read, main)

    return run_command(start, debug="--debug" in sys.argv)
