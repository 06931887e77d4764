"""The old names of modules, for scripts written for 0.1: `xray.data.store` is now `xray.datasets.store`, and so on.

Each import of one warns with the new name. They go with 0.3.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Sequence
from typing import Any

MOVED = {
    "alignment": ("xray.evaluation.alignment",),
    "attributes": ("xray.radiographs.attributes",),
    "augment": ("xray.training.augment",),
    "boxes": ("xray.structures.boxes",),
    "canvas": ("xray.radiographs.canvas",),
    "changes": ("xray.training.changes",),
    "checked_lines": ("xray.storage.checked_lines",),
    "coco": ("xray.datasets.sources.coco",),
    "codestream": ("xray.radiographs.codestream",),
    "conversion": ("xray.datasets.conversion",),
    "dataset": ("xray.training.loading",),
    "decoding": ("xray.radiographs.decoding", "xray.radiographs.workers"),
    "dicom": ("xray.radiographs.dicom",),
    "equalization": ("xray.training.equalization",),
    "fingerprint": ("xray.datasets.fingerprint",),
    "folders": ("xray.datasets.sources.folders",),
    "folds": ("xray.datasets.folds",),
    "grayscale": ("xray.radiographs.grayscale",),
    "inputs": ("xray.datasets.inputs",),
    "journal": ("xray.datasets.journal",),
    "lungs": ("xray.datasets.sources.lungs",),
    "mask_files": ("xray.datasets.sources.mask_files",),
    "mask_reading": ("xray.datasets.sources.mask_reading",),
    "masks": (
        "xray.structures.masks",
        "xray.datasets.mask_canvas",
    ),
    "names": ("xray.radiographs.names",),
    "patients": ("xray.datasets.sources.patients",),
    "phantom_trees": ("xray.phantoms.siim_lungs",),
    "phantoms": ("xray.phantoms.vinbig",),
    "prediction_journal": ("xray.inference.prediction_journal",),
    "predictions": ("xray.structures.predictions",),
    "probabilities": ("xray.structures.probability_maps",),
    "radiograph": ("xray.radiographs.radiograph",),
    "resampling": ("xray.evaluation.resampling",),
    "rle": ("xray.structures.rle",),
    "siim": ("xray.datasets.sources.siim",),
    "source": ("xray.datasets.source",),
    "store": ("xray.datasets.store",),
    "tables": ("xray.datasets.sources.tables",),
    "vinbig": ("xray.datasets.sources.vinbig",),
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
        found = [importlib.import_module(place) for place in places]

        def lookup(name: str) -> Any:
            for new in found:
                if hasattr(new, name):
                    return getattr(new, name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = lookup  # type: ignore[method-assign]


sys.meta_path.append(_Old())
