"""Lightning's Trainer as every task uses it."""

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import (
    Callback,
    LearningRateMonitor,
    WeightAveraging,
)
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import subprocess_script
from torch.optim.swa_utils import get_ema_multi_avg_fn

from xray.file_names import BEST, CURVES
from xray.models.device import LightningPrecision
from xray.training.average import KeepBest
from xray.training.callbacks import DeployBest, EarlyStopping, EpochTable, Pictures, Plateau, ProgressBar, Throughput
from xray.training.checkpoints import BestCheckpoint, LastCheckpoint, WholeCheckpoints
from xray.training.config import TrainingConfig
from xray.training.guard import Guard
from xray.training.launch import PROCESSES_TIMEOUT, watch_children


def build_trainer(
    config: TrainingConfig,
    run: Path,
    monitored: str,
    device: torch.device,
    precision: LightningPrecision,
    draw: Callable[[Any, int], np.ndarray],
    loggers: list[Logger],
) -> L.Trainer:
    """A Trainer that writes the run directory: last.ckpt, best.ckpt, events, metrics.csv and the deployable model.

    monitored: the validation metric that decides what is best; higher is better.
    draw: (task, row of the store) → (H, W, 3) uint8, for the loggers.
    loggers: of `xray.training.trackers.build_loggers`.
    """
    quiet()
    # In strict mode PyTorch fills new memory, which finds mistakes of kernels and takes time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # torch reads it
    # best.ckpt is written right after a validation; last.ckpt, from which a run is resumed, when the epoch is complete.
    name = BEST.removesuffix(".ckpt")
    best = BestCheckpoint(
        run, name, monitor=monitored, mode="max", save_on_train_epoch_end=False, enable_version_counter=False
    )
    callbacks: list[Callback] = [
        Guard(config.clip_grad, config.log_step, config.skip_bad_steps, precision == "16-mixed"),
        Throughput(config.log_step),
        LearningRateMonitor("step"),
        Plateau(),
        Pictures(draw, config.n_pictures),
        *([] if config.fold == "all" else [DeployBest(run, best), KeepBest(run, monitored, config.average_best), best]),
        EpochTable(run / CURVES, monitored, config.n_epochs),
        LastCheckpoint(run, config.save_every_n_steps),
    ]
    if config.ema:
        # Unlike Lightning's EMAWeightAveraging, whose sum of two products rounds, it leaves weights that do not change
        # (those of a frozen encoder) equal to the last bit.
        callbacks.insert(0, WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay)))
    if config.early_stop:
        callbacks.append(EarlyStopping(monitored, config.early_stop))
    if sys.stderr.isatty():
        callbacks.append(ProgressBar(config.log_step))
    strategy: Any = "auto"
    if config.devices * config.num_nodes > 1:
        # Buffers are the same in all processes: batch norms are computed over all of them.
        subprocess_script._launch_process_observer = watch_children  # type: ignore[assignment]  # other names
        strategy = DDPStrategy(forward_sync_buffers=False, gradient_as_bucket_view=True, timeout=PROCESSES_TIMEOUT)
    return L.Trainer(
        strategy=strategy,
        max_epochs=config.n_epochs,
        deterministic=config.deterministic,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=config.devices,
        num_nodes=config.num_nodes,
        precision=precision,
        accumulate_grad_batches=config.accumulate,
        check_val_every_n_epoch=config.val_every,
        limit_val_batches=0 if config.fold == "all" else None,
        log_every_n_steps=config.log_step,
        callbacks=callbacks,
        plugins=[WholeCheckpoints()],
        logger=loggers,
        default_root_dir=run,
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        # The task's own samplers share the work among processes, so that what is drawn depends on the seed alone.
        use_distributed_sampler=False,
    )


def quiet() -> None:
    """Silences messages of Lightning that we print ourselves or that are meant for people who write Trainers."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*smaller than the logging interval.*",
        "The dirpath has changed.*",
        ".*lr_scheduler.step.*before.*optimizer.step.*",
        ".*Trying to infer the `batch_size`.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*in eval mode at the start of training.*",
        # The sampler continues an interrupted epoch.
        ".*your dataloader is not resumable.*",
        # Of convolutions of one pixel, whose layouts are the same.
        ".*Grad strides do not match bucket view strides.*",
        # All processes compute a metric from the predictions of all of them.
        ".*It is recommended to use `self.log.*sync_dist=True.*",
    ):
        warnings.filterwarnings("ignore", text)
