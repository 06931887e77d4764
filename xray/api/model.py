"""Trained models as one object of Python: radiographs in, results out."""

import dataclasses
import os
import re
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, TypedDict, Unpack, get_args, overload

import numpy as np
import torch
from pydicom.dataset import Dataset

from xray.api.finder import Finder
from xray.api.radiographs import Given, given, local_path
from xray.api.result import Result
from xray.api.results import Results
from xray.datasets.store import Store
from xray.errors import FlagError, InputError
from xray.inference.ensemble_file import files_of
from xray.inference.openvino_files import INT8
from xray.inference.options import check_options
from xray.inference.pipeline import Pipeline
from xray.inference.precision import default_batch_size, is_quantised, ready, runtime_of
from xray.inference.streaming import Batch, consecutive, run
from xray.inference.thresholds import thresholds_of
from xray.inference.ways import NAMES, Models
from xray.outputs.made_by import settings_of
from xray.radiographs.decoding import NO_GATE, Undecodable
from xray.radiographs.image_check import Gate, Mode
from xray.structures.thresholds import SHOWN_FROM, Thresholds
from xray.structures.triplet import Triplet


def load(
    *runs: str | os.PathLike[str],
    device: str = "auto",
    tta: bool = True,
    gate: Literal["soft", "hard"] = "soft",
    gate_threshold: float | None = None,
    triplet: tuple[float, float, float] | None = None,
    prune: int = 0,
    precision: Literal["auto", "32", "bf16", "16", "int8"] = "auto",
    batch_size: int = 0,
    runtime: Literal["auto", "torch", "onnx", "openvino"] = "auto",
    scales: Sequence[float] = (1.0,),
    threshold: float | None = None,
    gate_image: Literal["off", "warn", "refuse"] = "warn",
    upright: bool = False,
) -> "Model":
    """Loads trained models of any tasks; several detectors are fused, several segmenters or classifiers averaged.

    The arguments mean what the flags of the same name mean to the command `xray infer`, and so do error messages that
    name a flag.

    runs: run directories that a training wrote, or the ensemble.yaml that `xray tune` wrote; with runtime="onnx" also
        .onnx files.
    device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".
    tta: looks at the mirrored radiograph, too, and fuses both (test-time augmentation).
    gate: what a classifier does to the others' findings, "soft" or "hard". gate_threshold: the probability, in [0, 1],
        below which "hard" leaves findings out; None for what was fitted, or 0.5.
    triplet: (top, least area, bottom), each in [0, 1], that decide which pixels are a mask; None for what was fitted.
    prune: level, 1 to 4, to which a U-Net++ trained with deep supervision is cut; 0 leaves it whole.
    precision: what convolutions are computed in. "auto": bf16 on GPUs that have it, and on a CPU what a trial of the
        command found to be right for these weights and this processor, "bf16" or "int8"; else "32". "int8": OpenVINO in
        8-bit integers on the CPU; made once, with the dataset that the run was trained on, if the metric holds.
    batch_size: radiographs a pass; 0 chooses 2 on a CPU, and on a GPU as many as its memory allows.
    runtime: "auto" for PyTorch, or what `precision` chooses; "torch"; "onnx" for what `xray export --format onnx`
        wrote; or "openvino", for which a model is made where `xray export --format openvino` wrote none.
    scales: sizes of the canvas, 0.25 to 4 times the one trained on, at which detectors and segmenters look.
    threshold: lowest confidence, in [0, 1], of the findings that count as found, calibrated where that was fitted; None
        for what `xray evaluate --fit` kept for each finding beside the models, else 0.3.
    gate_image: whether each radiograph is looked at, header and pixels, for being a frontal chest radiograph that is
        upright and no negative. "warn": `Result.image_check` and `Result.warnings` say what is not; "refuse": it is no
        result but a failure. Rows of a dataset directory are not looked at.
    upright: turns radiographs that lie on a side or upside down before the models look; boxes and masks are in the
        file's own pixels all the same.

    Raises InputError for what is no run, models that do not fit together, and values out of range.
    """
    options = SimpleNamespace(
        device=device, gate=gate, gate_threshold=gate_threshold, triplet=triplet, prune=prune, precision=precision,
        batch_size=batch_size, runtime=runtime, scales=tuple(scales),
    )  # fmt: skip
    paths = _checked_runs(runs)
    try:
        check_options(options)
    except FlagError as error:
        # Arguments are flags without dashes.
        raise InputError(re.sub(r"--([a-z-]+)", lambda flag: flag[1].replace("-", "_"), str(error))) from None
    from xray.export.ready import make_ready

    if gate_image not in get_args(Mode):
        raise InputError(f"gate_image is {gate_image!r}: give off, warn or refuse")
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"threshold is {threshold}: it must lie between 0 and 1")
    fitted = thresholds_of(paths, threshold, lambda line: warnings.warn(line.removeprefix("warning: "), stacklevel=4))
    loading = {
        "flips": tta, "gate": gate, "gate_threshold": gate_threshold, "triplet": Triplet(*triplet) if triplet else None,
        "prune": prune, "scales": tuple(scales),
    }  # fmt: skip
    models = Models(tuple(paths), device, precision, runtime, loading)
    make_ready(models)
    with warnings.catch_warnings():
        # Of tqdm, which a library imports: in a notebook without ipywidgets. No bar is to be shown.
        warnings.filterwarnings("ignore", message="IProgress not found")
        pipeline = ready(models, models.start())
    shown_from = SHOWN_FROM if threshold is None else threshold
    return Model(pipeline, files_of(paths), batch_size, fitted, shown_from, prune, Gate(gate_image, upright))


class PredictOptions(TypedDict, total=False):
    """The keywords of `Model.predict`."""

    ids: Sequence[str] | None
    sizes: str
    maps: bool


class Model:
    """Trained models; `load` makes one. Threads may share it: one is served at a time."""

    def __init__(
        self,
        pipeline: Pipeline,
        runs: Sequence[Path],
        batch_size: int = 0,
        thresholds: Thresholds | None = None,
        shown_from: float = SHOWN_FROM,
        prune: int = 0,
        gate_image: Gate = NO_GATE,
    ) -> None:
        """pipeline: the models, on their device. runs: what they were read from. batch_size: 0 chooses.

        thresholds, shown_from, prune: as `Finder` has them. gate_image: what becomes of radiographs that are no upright
            frontal chest radiographs.
        """
        self._pipeline, self._gate_image = pipeline, gate_image
        self._batch_size = batch_size
        self._lock = threading.Lock()
        self._finder = Finder(
            categories=dict(pipeline.categories),
            has_masks=bool(pipeline.segmenters),
            runs=tuple(run.absolute() for run in runs),
            mirrored=pipeline.flips,
            gate=pipeline.gate,
            triplet=dataclasses.astuple(pipeline.triplet) if pipeline.segmenters else (),
            scales=pipeline.scales,
            thresholds=thresholds,
            shown_from=shown_from,
            hard_gate=pipeline.hard_gate,
            map_labels=tuple(pipeline.segmenters[0].categories) if pipeline.segmenters else (),
            prune=prune,
            upright=gate_image.upright,
            has_places=pipeline.has_places,
            settings=settings_of(
                pipeline,
                prune=prune,
                upright=gate_image.upright,
                gate_image=gate_image.mode,
                runtime=runtime_of(pipeline),
                precision=INT8 if is_quantised(pipeline) else NAMES[pipeline.precision],
            ),
        )

    @property
    def categories(self) -> dict[int, str]:
        """Category id → name of the findings."""
        return dict(self._pipeline.categories)

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return self._pipeline.device

    @property
    def canvas_size(self) -> int:
        """Side, in pixels, of the square that radiographs are scaled to fit into."""
        return self._pipeline.canvas_size

    def __repr__(self) -> str:
        pipeline = self._pipeline
        counts = {
            "detector": len(pipeline.detectors),
            "segmenter": len(pipeline.segmenters),
            "classifier": len(pipeline.classifiers),
        }
        models = ", ".join(f"{n} {name}{'s' * (n > 1)}" for name, n in counts.items() if n)
        return f"<xray.Model: {models} on {self.device}, {len(pipeline.categories)} categories>"

    @overload
    def predict(self, x: np.ndarray | Dataset, **options: Unpack[PredictOptions]) -> Result: ...
    @overload
    def predict(self, x: str | os.PathLike[str], **options: Unpack[PredictOptions]) -> Any: ...
    @overload
    def predict(self, x: list[Any] | tuple[Any, ...] | Store, **options: Unpack[PredictOptions]) -> Results: ...
    def predict(
        self, x: Any, *, ids: Sequence[str] | None = None, sizes: str = "", maps: bool = False
    ) -> Result | Results:
        """What the models find in one radiograph, a `Result`, or in several, `Results`.

        x: one of

        - a path: of a DICOM, PNG or JPEG file (a Result), or of a folder, which is searched through, or a dataset
          directory (Results), which may also be one that `open_dataset` opened. Files of a folder that cannot be read
          are named in `Results.failures`.
        - an array (H, W), uint8 or uint16, display grey where 0 is black; white of uint16 is 65535, or 2^k - 1 where
          all values fit into k = 8, 10, 12 or 14 bits, as of 16-bit PNG files.
        - a `pydicom.Dataset` with pixel data, which is read as a file would be.
        - a list of paths of files, or of arrays and data sets.

        ids: names of the radiographs in the results; by default those of the files without suffix (as in
            predictions.json of `xray infer`), and image0, image1, … where there are none.
        sizes: of PNG and JPEG files that were made smaller the original sizes, as --sizes of `xray infer`.
        maps: keeps the segmenters' probability maps, (K, S, S) bytes a radiograph.

        Boxes and masks are in original pixels. Decoding goes on in a thread of this process, a few radiographs ahead of
        the models, without the limits of time and memory that the command `xray infer` sets its processes. What is
        kept of a radiograph is some KB, and of arrays and data sets their pixels, (H, W) bytes.

        Raises InputError if x is nothing of these, or one radiograph that cannot be read.
        """
        if maps and not self._pipeline.segmenters:
            raise InputError("maps are those of segmenters, and none was loaded")
        radiographs = given(x, ids, sizes, self._gate_image)
        results, failures = self._find(radiographs, maps)
        if not radiographs.is_single:
            return Results(results, failures, radiographs.passed_over)
        if failures:
            raise InputError(next(iter(failures.values())))
        return results[0]

    __call__ = predict

    def _find(self, radiographs: Given, maps: bool) -> tuple[list[Result], dict[str, str]]:
        results: list[Result] = []
        failures: dict[str, str] = {}

        def write(batch: Batch) -> None:
            findings = batch.findings
            steps = np.rint(findings.maps * 255).astype(np.uint8) if maps and findings.maps is not None else None
            for number, item in enumerate(batch.decoded):
                found = findings.of(number, self._finder.categories)
                results.append(
                    Result(
                        id=radiographs.ids[item.index],
                        size=(item.width, item.height),
                        rows=found.table,
                        segmentations=found.masks,
                        classified=found.labels,
                        finder=self._finder,
                        origin=radiographs.origin(item),
                        warnings=(*radiographs.warnings[item.index], *item.warnings),
                        image_check=item.check,
                        maps=None if steps is None else steps[number].copy(),
                    )
                )
            failures.update({radiographs.names[i.index]: i.reason for i in batch.items if isinstance(i, Undecodable)})

        with self._lock:
            if not (self._batch_size or radiographs.is_single):
                self._batch_size = default_batch_size(self._pipeline)
            size = 1 if radiographs.is_single else self._batch_size
            run(self._pipeline, consecutive(radiographs.decode(self.canvas_size, self._pipeline.bits), size), write)
        return results, failures


def _checked_runs(runs: Sequence[Any]) -> list[Path]:
    if not runs:
        raise InputError("no run directory given: name at least one")
    for run_given in runs:
        if not isinstance(run_given, (str, os.PathLike)) or not str(run_given):
            raise InputError(f"{run_given!r} is no path: give the run directories one by one, load(first, second)")
    return [local_path(run_given) for run_given in runs]
