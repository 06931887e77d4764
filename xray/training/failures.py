"""The error message of a training that fails: one line with what happened and which flag helps."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from xray.errors import is_disk_full
from xray.training.config import ClassificationConfig, DetectionConfig, TrainingConfig

LOST_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (exited|is killed by signal: (\w+))")

LOST_PROCESS = re.compile(r"gloo.*(Connection|[Tt]imed out|Broken pipe)|NCCL (error|operation)|Socket Timeout")


def explain(error: BaseException, config: TrainingConfig, validating: bool) -> str | None:
    """The line for an exception of a training; None for an unknown one.

    validating: whether it came from a validation.
    """
    for one in _chain(error):
        text = " ".join(str(one).split())
        if is_disk_full(one):
            return (
                f"the disk of {config.save_path} is full: free some of it and continue with --resume; the last "
                "checkpoint is whole"
            )
        if isinstance(one, torch.OutOfMemoryError) or re.search(
            r"CUDA out of memory|(CUDNN|CUBLAS)_STATUS_ALLOC", text
        ):
            where = "the validation" if validating else "a training step"
            return f"the GPU ran out of memory in {where}: {_less_memory(config, validating)}"
        if isinstance(one, MemoryError) or re.search(r"DefaultCPUAllocator: .*memory", text):
            return f"this machine ran out of memory: {_less_memory(config, validating)}, or lower --n-workers"
        if text_match := LOST_WORKER.search(text):
            return _lost_worker(text_match[1], text_match[3] or "", config)
        if text_match := re.search(r"DataLoader timed out after ([\d.]+) seconds", text):
            return (
                f"no batch came from the {config.n_workers} loader processes for {float(text_match[1]):.0f} s: see "
                "whether the drive with --data-path still answers, or try --n-workers 0; continue with --resume"
            )
        if text_match := re.search(r"(\S+) does not have a deterministic implementation", text):
            return f"{text_match[1]} has no deterministic form on this device: train without --deterministic"
        if LOST_PROCESS.search(text) or type(one).__name__.startswith("Dist"):
            return (
                "another process of this training has ended, or cannot be reached any more: its own message, or the "
                "log of its machine, says why; continue with --resume"
            )
        if "DataLoader worker process" in text and "Original Traceback" in text:
            return f"a loader process failed with {str(one).strip().splitlines()[-1].strip()}"
    return None


def is_lost_worker(error: BaseException) -> bool:
    """Whether a loader process ended before its time."""
    return any(LOST_WORKER.search(" ".join(str(one).split())) for one in _chain(error))


@contextmanager
def quiet_threads() -> Iterator[None]:
    """Suppresses the traceback of TensorBoard's thread where the disk is full, which would come before our line."""
    before = threading.excepthook
    threading.excepthook = lambda args: None if args.exc_value and is_disk_full(args.exc_value) else before(args)
    try:
        yield
    finally:
        threading.excepthook = before


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    passed: set[int] = set()
    while error is not None and id(error) not in passed:
        passed.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _less_memory(config: TrainingConfig, validating: bool) -> str:
    half = max(1, config.batch_size // 2)
    advice: list[str] = []
    if config.batch_size > 1:
        again = "" if validating else f" (with --accumulate {2 * config.accumulate} it learns the same)"
        advice.append(f"lower --batch-size from {config.batch_size} to {half}{again}")
    if config.precision == "32":
        advice.append("use --precision bf16")
    if isinstance(config, DetectionConfig):
        if validating:
            advice.append(f"lower --proposals from {config.proposals}")
        else:
            advice.append(f"lower --roi-samples from {config.roi_samples} or --proposals from {config.proposals}")
    if getattr(config, "store_device", "cpu") != "cpu":
        advice.append("use --store-device cpu")
    if isinstance(config, ClassificationConfig) and config.batch_size == 1:
        advice.append("use a smaller --network")
    advice.append("convert with a smaller --image-size")
    return ", or ".join(advice)


def _lost_worker(pids: str, signal: str, config: TrainingConfig) -> str:
    many = "," in pids
    who = f"loader processes {pids} have" if many else f"loader process {pids} has"
    if signal == "Bus":
        return (
            f"{who} found no more shared memory: enlarge /dev/shm (docker: --shm-size), or lower --n-workers from "
            f"{config.n_workers}; continue with --resume"
        )
    how = f"been ended by the signal {signal}" if signal else "ended"
    return (
        f"{who} {how}, most often by the system when memory runs out: lower --n-workers from {config.n_workers}, or "
        "free memory; continue with --resume"
    )
