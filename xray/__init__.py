"""xray finds abnormalities in chest radiographs. Not for clinical use.

    import xray

    model = xray.load("runs/detection")
    result = model("radiograph.dicom")
    result.table

`docs/api.md` shows what there is. Each name below is imported when it is first used: `import xray` alone costs next to
nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xray.api.model import Model, load
    from xray.api.predictions import evaluate, fuse
    from xray.api.result import Result
    from xray.api.results import Results
    from xray.datasets.store import Store
    from xray.datasets.store import open_store as open_dataset
    from xray.errors import InputError
    from xray.radiographs.radiograph import Radiograph, read_radiograph

__version__ = "0.1.0"

__all__ = [
    "InputError", "Model", "Radiograph", "Result", "Results", "Store", "__version__", "evaluate", "fuse", "load",
    "open_dataset", "read_radiograph",
]  # fmt: skip

_PLACES = {
    "InputError": "xray.errors:InputError",
    "Model": "xray.api.model:Model",
    "Radiograph": "xray.radiographs.radiograph:Radiograph",
    "Result": "xray.api.result:Result",
    "Results": "xray.api.results:Results",
    "Store": "xray.datasets.store:Store",
    "evaluate": "xray.api.predictions:evaluate",
    "fuse": "xray.api.predictions:fuse",
    "load": "xray.api.model:load",
    "open_dataset": "xray.datasets.store:open_store",
    "read_radiograph": "xray.radiographs.radiograph:read_radiograph",
}
"""Name → the module that it is in, and what it is called there."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'xray' has no attribute {name!r}")
    import importlib

    module, _, there = _PLACES[name].partition(":")
    value = globals()[name] = getattr(importlib.import_module(module), there)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
