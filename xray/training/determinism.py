"""Strict determinism: the same result every time, or an error."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def deterministic(strict: bool) -> Iterator[None]:
    """Strict mode of PyTorch while it lasts: an operation that may give another result the next time raises.

    cuBLAS and cuDNN choose reproducible algorithms and try none out.
    """
    if not strict:
        yield
        return
    # Read by cuBLAS at its first product: a workspace of its own for each stream.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn: Any = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    # Filling memory that is written to anyway finds mistakes of kernels; it makes none of them deterministic.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
        memory.fill_uninitialized_memory = filled
