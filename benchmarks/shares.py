"""Benchmark `shares`: where the processor time of tools/infer.py goes, from DICOM files to the submission."""

import contextlib
import dataclasses
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import torch
from annotated_types import Len
from rich.table import Table

from benchmarks import harness
from benchmarks.harness import n_cores, number_text
from benchmarks.material import open_material
from benchmarks.processes import Contender
from benchmarks.runs import made, write_run
from benchmarks.stopwatch import AtOnce, Stopwatch, replaced, watching
from xray.commands import infer
from xray.errors import InputError
from xray.flags import Count
from xray.phantoms.vinbig import write_vinbig
from xray.radiographs.decoding import decode_canvas
from xray.radiographs.radiograph import find_radiographs

STAGES = (
    ("finding files", "xray.datasets.inputs:open_inputs"),
    ("decode", "xray.radiographs.decoding:read_radiograph"),
    ("resize", "xray.radiographs.canvas:Canvas.letterbox"),
    ("network", "xray.inference.pipeline:Pipeline.forward"),
    ("suppression", "xray.models.detection.proposals:suppress"),
    ("suppression", "xray.models.detection.regions:RegionHeads._suppressed"),
    ("suppression", "xray.models.detection.retinanet:batched_nms"),
    ("fusion", "xray.inference.pipeline:Pipeline.postprocess"),
    ("masks", "xray.inference.pipeline:mask_findings"),
    ("masks", "xray.inference.pipeline:refine"),
    ("overlays", "xray.outputs.results:save_overlay"),
    ("writing", "xray.inference.streaming:portion_of"),
    ("writing", "xray.inference.prediction_journal:PredictionJournal.add"),
    ("writing", "xray.outputs.results:write_results"),
)
"""What of the product belongs to which stage; where one lies within another, the inner one counts."""
NAMES = tuple(dict.fromkeys(stage for stage, _ in STAGES))
ONCE = ("weights", "xray.inference.pipeline_loading:load_pipeline")
"""What a command does once, however many radiographs there are."""
THREADS = "xray.inference.streaming:_one_thread"
"""Post-processing and writing have a thread each, beside the one that computes; here they take turns."""
START, OTHER = "start", "everything else"
WAYS = {"one": "one model", "mirrored": "one, mirrored views", "two": "two models, mirrored views"}


@dataclasses.dataclass(frozen=True)
class Config(harness.Flags):
    """Processor time of tools/infer.py by stage, from DICOM files to predictions.json and the submission.

    The command runs in a process of its own, decodes in it, and does one thing at a time, so that each stage's time is
    its own. Shares are of what grows with the radiographs; what a command for one of them takes is told beside them.
    """

    data_path: Path | None = None
    """Folder of radiographs; without it, DICOM phantoms of 1900 to 3000 pixels are drawn and thrown away afterwards."""
    weights: Annotated[tuple[Path, ...], Len(max_length=2)] = ()
    """One or two runs; without them, two detectors are made that find about as much as trained ones."""
    n_images: harness.FourOrMore = 8
    """Radiographs drawn."""
    image_size: harness.CanvasSize = 1024
    """Side of the canvas of the detectors made, in pixels."""
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    """Trunk of the detectors made."""
    ways: tuple[Literal["one", "mirrored", "two"], ...] = ("one", "mirrored", "two")
    """Models and views: one model; with its mirrored views; two models with theirs. Of one run in --weights, two are
    that run twice."""
    overlays: bool = False
    """With pictures of the findings, tools/infer.py --overlays."""
    precision: Literal["32", "bf16"] = "32"
    """Arithmetic, as in tools/infer.py."""
    repeats: Count = 2
    """Runs of each, in alternation, whose times are added up."""


def main(config: Config) -> None:
    """Measures, prints a table and writes the JSON file."""
    harness.benchmark("shares", config, measure, show, ["torch", "numpy", "pydicom", "opencv-python-headless"])


def measure(config: Config, folder: Path, tell: harness.Tell) -> dict[str, Any]:
    """Runs the benchmark in `folder` and returns all its numbers. Raises InputError without radiographs or runs."""
    tell("preparing radiographs and models")
    data = config.data_path or _drawn(folder, config.n_images)
    n = len(find_radiographs(data))
    runs = [*config.weights, *config.weights][:2] or _made(config, folder)
    ways = list(dict.fromkeys(config.ways))
    spent: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(config.repeats):
        for way in ways if number % 2 else reversed(ways):
            tell(f"measuring {WAYS[way]}, {number + 1} of {config.repeats}")
            weights = runs if way == "two" else runs[:1]
            out = folder / f"{way}{number}"
            # A new process each time: what the first run of a process takes longer is a part of the command.
            with Contender(Command, config.precision, config.overlays) as command:
                spent[way].append(command.call("run", weights, data, out, way != "one"))
    return {
        "parameters": {"n_images": n},
        "results": {way: {name: sum(run[name] for run in each) for name in each[0]} for way, each in spent.items()},
    }


def show(report: dict[str, Any]) -> list[Table | str]:
    """The numbers of `measure` as a table."""
    parameters, results = report["parameters"], report["results"]
    n = parameters["n_images"] * parameters["repeats"]
    shares = {way: shares_of(seconds) for way, seconds in results.items()}
    rows = [
        [name, *(f"{1000 * results[way][name] / n:,.1f} ({shares[way][name]:.1%})" for way in results)]
        for name in (*NAMES, OTHER)
        if name != "overlays" or parameters["overlays"]
        if name != "masks" or any(seconds["masks"] for seconds in results.values())
    ]
    rows.append(["all", *(f"{1000 * (sum(spent.values()) - spent[START]) / n:,.1f}" for spent in results.values())])
    largest = [max((share, name) for name, share in each.items() if name != "network") for each in shares.values()]
    start = ", ".join(number_text(seconds[START] / parameters["repeats"]) for seconds in results.values())
    return [
        harness.table("Processor ms a radiograph (share)", ["stage", *(WAYS[way] for way in results)], rows),
        f"a command for one radiograph, imports and weights included: {start} s",
        "largest outside the network: " + ", ".join(f"{name} {share:.1%}" for share, name in largest),
    ]


def shares_of(seconds: dict[str, float]) -> dict[str, float]:
    """Share of each stage in all but the start."""
    total = sum(seconds.values()) - seconds[START]
    return {name: spent / total for name, spent in seconds.items() if name != START}


class Command:
    """tools/infer.py in this process. Its arithmetic runs in one thread, as threads that wait for others cost time."""

    def __init__(self, precision: Literal["32", "bf16"], overlays: bool) -> None:
        self.precision, self.overlays = precision, overlays
        torch.set_num_threads(1)
        cv2.setNumThreads(1)

    def run(self, weights: list[Path], data: Path, out: Path, mirrored: bool) -> dict[str, float]:
        """Processor seconds of each stage, of everything else, and of a command for one radiograph before that.

        Raises InputError where a radiograph cannot be read: it would cost less than the others.
        """
        paths = find_radiographs(data)
        config = infer.Config(
            weights=tuple(map(str, weights)),
            data_path=str(paths[0]),
            save_path=str(out / "first"),
            device="cpu",
            precision=self.precision,
            tta=mirrored,
            overlays=self.overlays,
            n_workers=0,
        )
        self._infer(config)
        start = time.process_time()
        for path in paths:
            decode_canvas(0, path, 64)  # imports the decoder of each encoding
        stopwatch = Stopwatch()
        before = time.process_time()
        with watching(stopwatch, (*STAGES, ONCE)), replaced(THREADS, lambda _: _at_once):
            self._infer(dataclasses.replace(config, data_path=str(data), save_path=str(out)))
        total = time.process_time() - before - stopwatch.seconds.pop(ONCE[0], 0.0)
        seconds = {name: stopwatch.seconds.get(name, 0.0) for name in NAMES}
        return {START: start, **seconds, OTHER: total - sum(seconds.values())}

    def _infer(self, config: infer.Config) -> None:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = infer.main(config)
        if status:
            raise InputError(f"tools/infer.py failed: {output.getvalue().strip().splitlines()[-1]}")


@contextlib.contextmanager
def _at_once() -> Iterator[AtOnce]:
    yield AtOnce()


def _drawn(folder: Path, n_images: int) -> Path:
    """Phantoms of the sizes and in the encodings of VinBigData."""
    write_vinbig(folder / "raw", 0, n_images, n_workers=n_cores(), progress=False)
    return folder / "raw" / "vinbig" / "test"


def _made(config: Config, folder: Path) -> list[Path]:
    """Two runs of different weights."""
    store, rows = open_material(None, folder / "made", 4, config.image_size, n_cores())
    assert store.images is not None
    canvases = torch.from_numpy(store.images[rows[:2]])[:, None]
    return [write_run(folder / f"run{seed}", *made(store, config.backbone, canvases, seed)) for seed in range(2)]
