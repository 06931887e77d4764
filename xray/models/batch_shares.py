"""Several processes that train one model, each with a share of every batch.

Together they compute what one process would with all their radiographs in one batch: losses are divided by the counts
of all processes, sums over a batch are sums over all shares, and random draws for a radiograph depend on its place in
the whole batch. DistributedDataParallel averages the processes' gradients, so a process's loss is such that
the average over the processes is the loss of the whole batch.
"""

import dataclasses
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Share:
    """A process's part of one batch.

    n_local: its radiographs; 0 where the batch has fewer radiographs than there are processes: this process then
    computes a radiograph that does not count. total: radiographs of all processes. rank, world: which process this is,
    of how many.
    """

    n_local: int
    total: int
    rank: int
    world: int

    @property
    def counts(self) -> bool:
        """Whether this process has radiographs of its own."""
        return self.n_local > 0


_share: Share | None = None
"""The share of the current training step; None in a process that trains alone, and outside of steps."""


def begin_step(share: Share | None) -> None:
    """Sets this process's share of the batch until `end_step`; None for a process that trains alone."""
    global _share
    _share = share


def end_step() -> None:
    """Ends the step: later computations, as in a validation, belong to this process alone."""
    begin_step(None)


def current_share() -> Share | None:
    """The share that `begin_step` has set."""
    return _share


def n_together(n_local: int) -> int:
    """Radiographs in the batch of all processes; `n_local`, the number of this process, where it trains alone."""
    return _share.total if _share else n_local


def averaged(mean: Tensor) -> Tensor:
    """A mean over this process's radiographs → its part of the mean over all, scaled by its share of the
    radiographs."""
    return mean * (_share.n_local * _share.world / _share.total) if _share else mean


def mean_of_known(values: Tensor, known: Tensor) -> Tensor:
    """The part of this process in the mean of all known values of all processes; 0 where no value is known.

    values, known: of one shape, the latter bool. Unknown values have no gradient.
    """
    return torch.where(known, values, 0).sum() / normaliser(known.sum())


def summed(values: Tensor) -> Tensor:
    """A sum over this process's radiographs → over all; gradients pass through it."""
    if _share is None:
        return values
    # A product with 0 keeps the graph whole: the collectives of the other processes wait for it.
    return _Sum.apply(values if _share.counts else values * 0)


def normaliser(count: Tensor) -> Tensor:
    """The divisor of a sum over this process's radiographs with which the mean of these quotients over the processes is
    the sum over all by the count over all; a count of 0 is taken for 1."""
    if _share is None:
        return count.clamp(min=1)
    everyone = count.float() if _share.counts else torch.zeros_like(count, dtype=torch.float32)
    dist.all_reduce(everyone)
    # Infinite in a process whose radiograph does not count.
    return everyone.clamp(min=1) / (_share.world * float(_share.counts))


def mean_of_processes(values: Tensor) -> Tensor:
    """The mean over the processes, without a gradient; the same on all."""
    if _share is None:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / _share.world


def draw_seeds(count: int, device: torch.device) -> Tensor:
    """(count,) int64 in [0, 2³¹): a number for each radiograph of this process, from torch's default generator.

    They depend on the places in the batch of all processes, whose generators must be in the same state.
    """
    total = n_together(count)
    seeds = torch.randint(2**31, (total,), device=device)
    if _share is None:
        return seeds
    return seeds[_share.rank :: _share.world] if _share.counts else seeds[:1].expand(count)


class _Sum(torch.autograd.Function):
    """The sum of all processes' tensors; the gradient of each is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """`values` of the same shape in every process."""
        values = values.contiguous().clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """See the class."""
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of all processes' tensors, whatever their radiographs count; gradients pass through it."""
    return _Sum.apply(values)
