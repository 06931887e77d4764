"""Batch norms over the shares of all processes, as if one process had the whole batch.

PyTorch's SyncBatchNorm works on GPUs alone, and would replace norms that hold more than the norm (timm's
BatchNormAct2d). Here, these keep their parts and their names in the state dict.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from xray.models.batch_shares import current_share, sum_over_processes


class _Synced:
    """The forward pass of a batch norm that is computed over all processes."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, …) → (B, C, …)."""
        norm: Any = self
        share = current_share()
        if not norm.training or share is None:
            return super().forward(features)  # type: ignore[misc]
        features = _normed(norm, features, share.counts)
        for name in ("drop", "act"):  # timm's
            if hasattr(norm, name):
                features = getattr(norm, name)(features)
        return features


def synchronise_norms(model: nn.Module) -> int:
    """Lets the batch norms of `model` compute over all processes while they train, in place; returns how many do."""
    batch_norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in batch_norms if norm.running_mean is not None and not isinstance(norm, _Synced)]
    for norm in norms:
        kind = type(norm)
        norm.__class__ = type(f"Synced{kind.__name__}", (_Synced, kind), {})
    return len(norms)


# Collectives cannot be in a compiled graph.
@torch.compiler.disable
def _normed(norm: Any, features: Tensor, counts: bool) -> Tensor:
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    if counts:
        return _synced(norm, features)
    # A radiograph that does not count adds nothing to the statistics.
    alone = F.batch_norm(features, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
    return torch.cat([_synced(norm, features[:0]), alone])


def _synced(norm: Any, features: Tensor) -> Tensor:
    if features.is_cuda:
        from torch.nn.modules._functions import SyncBatchNorm

        # Its kernels read channels_last as it is.
        dense = features.is_contiguous() or features.is_contiguous(memory_format=torch.channels_last)
        group = dist.group.WORLD
        return SyncBatchNorm.apply(
            features if dense else features.contiguous(), norm.weight, norm.bias, norm.running_mean, norm.running_var,
            norm.eps, norm.momentum, group, dist.get_world_size(),
        )  # fmt: skip
    axes = [0, *range(2, features.ndim)]
    shape = [1, -1] + [1] * (features.ndim - 2)
    values = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    count = torch.tensor(float(features.numel() // features.shape[1]), dtype=values.dtype)
    dist.all_reduce(count)
    mean = sum_over_processes(values.sum(axes)) / count
    centred = values - mean.view(shape)
    variance = sum_over_processes(centred.square().sum(axes)) / count
    with torch.no_grad():
        norm.running_mean.lerp_(mean.to(norm.running_mean), norm.momentum)
        unbiased = variance * (count / (count - 1).clamp(min=1))
        norm.running_var.lerp_(unbiased.to(norm.running_var), norm.momentum)
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    result = centred * scale.view(shape)
    if norm.bias is not None:
        result = result + norm.bias.view(shape)
    return result.to(features.dtype)
