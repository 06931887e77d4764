"""The old names of modules, for scripts written for 0.1: `xray.data.store` is now `xray.datasets.store`, and so on.

Each import of one warns with the new name. They will be removed in 0.3.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Sequence
from typing import Any

_KEPT_THEIR_NAME = {
    "datasets": "conversion fingerprint folds inputs journal store",
    "datasets.sources": "coco folders lungs mask_reading patients siim tables vinbig",
    "evaluation": "alignment resampling",
    "inference": "prediction_journal",
    "radiographs": "attributes canvas codestream dicom grayscale names radiograph",
    "structures": "predictions rle",
    "training": "augment changes",
}
MOVED = {name: (f"xray.{room}.{name}",) for room, names in _KEPT_THEIR_NAME.items() for name in names.split()} | {
    "boxes": ("xray.structures.boxes", "xray.structures.fusion"),
    "equalization": ("xray.training.changes",),
    "checked_lines": ("xray.files",),
    "dataset": ("xray.training.loading", "xray.training.loaders", "xray.training.sampling"),
    "decoding": ("xray.radiographs.decoding", "xray.radiographs.workers"),
    "mask_files": ("xray.datasets.sources.mask_account",),
    "masks": ("xray.structures.masks", "xray.datasets.mask_canvas"),
    "phantom_trees": ("xray.phantoms.siim_lungs",),
    "phantoms": ("xray.phantoms.vinbig",),
    "source": ("xray.datasets.source", "xray.datasets.annotation"),
    "probabilities": ("xray.structures.probability_maps",),
}
"""Old module → where its contents are now."""


class _Old(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes a module of an old name whose contents are looked up in the new ones."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, last = name.rpartition(".")
        if package != __name__ or last not in MOVED:
            return None
        return importlib.machinery.ModuleSpec(name, self)

    def exec_module(self, module: types.ModuleType) -> None:
        places = MOVED[module.__name__.rpartition(".")[2]]
        warnings.warn(f"{module.__name__} is now {' and '.join(places)}", DeprecationWarning, stacklevel=2)
        new_modules = [importlib.import_module(place) for place in places]

        def lookup(name: str) -> Any:
            for new in new_modules:
                if hasattr(new, name):
                    return getattr(new, name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = lookup  # type: ignore[method-assign]


sys.meta_path.append(_Old())
