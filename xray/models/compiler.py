"""torch without its compiler, which inference does not need but which parts of torch and torchvision import.

`torch._dynamo` takes 1.9 s of processor time and 150 MiB (torch 2.14). torchvision 0.29 imports it for one question
about compiled operators (torchvision/ops/roi_align.py) and one decorator (torchvision/tv_tensors); torch imports it at
the first operation under a TorchDispatchMode (torch/_compile.py). torchvision itself takes 0.2 s and 20 MiB.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
UTILS = "torch._dynamo.utils"


class _StandIn(ModuleType):
    """Stands in for a module of the compiler; attributes that it lacks come from the real module."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _remove_stand_ins()
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """Inside, torch and torchvision can import `torch._dynamo` without loading it; nothing may be compiled.

    Where they need a part that is not known here, or where it was loaded before, they get the real module.
    """
    if COMPILER not in sys.modules:
        import torch

        compiler, utils = _StandIn(COMPILER), _StandIn(UTILS)
        compiler.__path__ = [f"{torch.__path__[0]}/_dynamo"]
        # Marks a function as not to be compiled, which none is.
        compiler.disable = lambda function, *_args, **_options: function  # type: ignore[attr-defined]
        compiler.utils = utils  # type: ignore[attr-defined]
        utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
        sys.modules.update({COMPILER: compiler, UTILS: utils})
    try:
        yield
    finally:
        _remove_stand_ins()


def _remove_stand_ins() -> None:
    import torch

    for name in (COMPILER, UTILS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]
    if isinstance(vars(torch).get("_dynamo"), _StandIn):
        del torch._dynamo


def _is_compile_supported(device_type: str) -> Any:
    """The function of that name in `torch._dynamo.utils`, which is imported when torchvision asks."""
    return importlib.import_module(UTILS).is_compile_supported(device_type)
