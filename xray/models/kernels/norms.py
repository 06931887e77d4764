"""Batch norms folded into the convolutions before them: the same numbers from one kernel less a layer, for inference.

A norm in inference is y = (x − mean) · γ / √(var + ε) + β, which the convolution before it does by itself once its
weights are scaled by γ / √(var + ε) (Jacob et al. 2018, arXiv:1712.05877, section 3.2).
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.ops import FrozenBatchNorm2d

from xray.models.compiler import without_compiler

ELSEWHERE = None
"""Stands for any reader of a convolution's output that is no norm."""


def fold_batch_norms(model: nn.Module, images: Tensor) -> int:
    """Folds, in place, each norm into the convolution whose output it alone reads; returns how many.

    images: any batch that the model takes. One pass over it shows which module reads which output, so nothing is
    assumed about how a network is written. Norms that follow something else than a convolution stay as they are.
    Raises ValueError for a norm in training mode.
    """
    if any(_is_norm(module) and module.training for module in model.modules()):
        raise ValueError("norms are folded for inference: call eval() first")
    watch = _Watch(model)
    try:
        with torch.no_grad(), without_compiler(), watch:
            result = model(images)
        watch.read(tree_leaves(result), ELSEWHERE)
    finally:
        watch.close()
    folded = {}
    for conv, readers in watch.readers.items():
        (norm, *others) = readers
        if not others and norm is not ELSEWHERE and watch.sources[norm] == {conv}:
            _fold(conv, norm)
            folded[norm] = _what_remains(norm)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if child in folded:
                setattr(module, name, folded[child])
    return len(folded)


def _is_norm(module: nn.Module) -> bool:
    # Exactly these classes: a subclass may compute something else.
    return type(module) in (nn.BatchNorm2d, FrozenBatchNorm2d) or _holds_activation(module)


def _holds_activation(module: nn.Module) -> bool:
    # Where timm is not imported there is no network of timm's, and its import takes seconds.
    layers = sys.modules.get("timm.layers")
    return layers is not None and type(module) in (layers.BatchNormAct2d, layers.FrozenBatchNormAct2d)


class _Watch(TorchDispatchMode):
    """Sees every operation of a forward pass, and so which norms read which convolutions' outputs.

    readers: convolution → the norms that read its output, and ELSEWHERE. sources: norm → the convolutions whose whole
    output it reads, and ELSEWHERE.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.readers: dict[nn.Conv2d, set[nn.Module | None]] = {}
        self.sources: dict[nn.Module, set[nn.Module | None]] = {}
        self._inside: list[nn.Module] = []
        # By the address of its memory; kept, so that no other tensor gets that address.
        self._outputs: dict[int, tuple[Tensor, nn.Conv2d]] = {}
        self._hooks = []
        for module in model.modules():
            if type(module) is nn.Conv2d or (_is_norm(module) and module.running_mean is not None):
                self._hooks.append(module.register_forward_pre_hook(self._enter))
                self._hooks.append(module.register_forward_hook(self._leave))

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def read(self, values: list[Any], reader: nn.Module | None) -> None:
        """Notes that `reader` reads those of `values` that convolutions gave."""
        for value in values:
            if isinstance(value, Tensor) and (result := self._outputs.get(_address(value))):
                self.readers[result[1]].add(reader)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inside = self._inside[-1] if self._inside else None
        self.read(tree_leaves((args, kwargs)), inside if inside in self.sources else ELSEWHERE)
        return function(*args, **kwargs or {})

    def _enter(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._inside.append(module)
        if type(module) is not nn.Conv2d:
            output, conv = self._outputs.get(_address(inputs[0]), (None, ELSEWHERE))
            whole = output is not None and output.shape == inputs[0].shape and output.stride() == inputs[0].stride()
            self.sources.setdefault(module, set()).add(conv if whole else ELSEWHERE)

    def _leave(self, module: nn.Module, _: Any, output: Tensor) -> None:
        self._inside.pop()
        if type(module) is nn.Conv2d:
            self.readers.setdefault(module, set())
            self._outputs[_address(output)] = output, module


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _fold(conv: nn.Conv2d, norm: Any) -> None:
    # norm: any for which `_is_norm`. In float64, so that rounding happens once.
    mean, var = norm.running_mean.double(), norm.running_var.double()
    scale, shift = (var + norm.eps).rsqrt(), torch.zeros_like(mean)
    if norm.weight is not None:
        scale, shift = scale * norm.weight.double(), norm.bias.double()
    bias = 0 if conv.bias is None else conv.bias.double()
    dtype = conv.weight.dtype
    weight = (conv.weight.double() * scale.view(-1, 1, 1, 1)).to(dtype)
    conv.weight = nn.Parameter(weight.detach(), requires_grad=False)
    conv.bias = nn.Parameter(((bias - mean) * scale + shift).to(dtype).detach(), requires_grad=False)


def _what_remains(norm: Any) -> nn.Module:
    return nn.Sequential(norm.drop, norm.act) if _holds_activation(norm) else nn.Identity()
