"""Benchmark `infer`: radiographs per second through a detector, against torchvision's own, one at a time."""

import contextlib
import dataclasses
import functools
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Interval
from PIL import Image
from rich.table import Table
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from benchmarks import harness
from benchmarks.harness import Timing, n_cores, refuse, timed
from benchmarks.material import open_material, write_pngs
from benchmarks.peers import Agreement, as_float_images, compare, table_of
from benchmarks.processes import Contender
from benchmarks.runs import deployed, exported_pipeline, made, torchvision_of, write_run
from xray.commands import infer
from xray.errors import InputError
from xray.file_names import PREDICTIONS
from xray.findings import NO_FINDING
from xray.flags import Count, Processes, ShareBelowOne
from xray.inference.pipeline_loading import load_pipeline
from xray.inference.precision import is_quantised
from xray.inference.streaming import consecutive, portion_of, run
from xray.inference.trial import CPU_BATCH, TRIAL, fastest_way, lowered
from xray.inference.ways import NAMES
from xray.models.device import inference_precision, keep_freed_memory, largest_batch, resolve_device
from xray.models.weights import load_deployed
from xray.radiographs.decoding import Decoded
from xray.structures.boxes import BoxTable
from xray.structures.predictions import read_predictions

SOURCES = {"canvases": "canvases in memory", "files": "PNG files"}
FLOOR = 0.05
"""Score from which detections are held against each other."""
IOU, PIXELS, SCORE = 0.99, 0.02, 1e-3
"""How far those of both sides must agree in float32: predictions.json has two decimals, which costs tiny boxes IoU."""
MATCHED_ROUGHLY = 0.9
"""Share that both must find where ours does not compute in float32: rounding moves scores across the floor."""


@dataclasses.dataclass(frozen=True)
class Config(harness.DatasetFlags):
    """Inference with our pipeline against torchvision's detector: eager, float32, one radiograph at a time.

    Both have the same weights; that both find the same boxes is checked first. From canvases in memory, and from PNG
    files of the same pixels.
    """

    weights: Path | None = None
    """Run directory of a trained ResNet detector; without it, one is made that finds about as much as a trained one."""
    image_size: harness.CanvasSize = 1024
    """Side of the canvas of phantoms, in pixels; that of a run or dataset given stays as it is."""
    batch_size: Annotated[int, Interval(ge=0, le=4096)] = 0
    """Radiographs per pass of ours; 0 chooses as tools/infer.py does. torchvision's are 1."""
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    """Trunk of both detectors; with --weights, that of the run."""
    score_threshold: ShareBelowOne = 0.001
    """Lowest score of a detection for both, in [0, 1); torchvision's own default is 0.05, that of a run 0.001."""
    proposals: Count = 1000
    """Proposals per radiograph that the box head looks at; torchvision's own default."""
    precision: Literal["auto", "32", "bf16"] = "auto"
    """Arithmetic of ours, as in tools/infer.py; torchvision's is 32."""
    runtimes: tuple[Literal["onnx", "openvino", "openvino-int8"], ...] = ()
    """What else runs the same weights, on canvases alone: onnxruntime, OpenVINO in float32 (with --precision bf16 in
    that), and in INT8, with ranges from the same canvases. --backbone resnet50 takes half a minute to export."""
    sources: tuple[Literal["canvases", "files"], ...] = ("canvases", "files")
    """From where: canvases in memory, PNG files, or both."""
    n_workers: Processes = 2
    """Processes that decode files for ours; torchvision's are read in the main process, as its documentation does."""


def main(config: Config) -> None:
    """Measures, prints a table and writes the JSON file."""
    harness.benchmark("infer", config, measure, show, ["torch", "torchvision", "pillow"])


def measure(config: Config, folder: Path, tell: harness.Tell) -> dict[str, Any]:
    """Runs the benchmark in `folder` and returns all its numbers.

    Raises InputError if there is no dataset or run, the run is not of a detector that torchvision has, or the two do
    not find the same.
    """
    device = resolve_device(config.device)
    size = prepare(config, folder)
    agreements: dict[str, Any] = {}
    # Each in a process of its own: ours changes how memory is handed out, which must not help the other.
    with (
        Contender(Ours, config, device.type, folder) as ours,
        Contender(Theirs, config, device.type, folder) as theirs,
        contextlib.ExitStack() as stack,
    ):
        tell("checking that both find the same")
        chosen = ours.call("describe")
        theirs.call("exact", True)
        tables: dict[str, BoxTable] = {source: ours.call("find", source) for source in config.sources}
        exact = chosen["precision"] == "32"
        reference = theirs.call("find", "canvases")
        trained = config.weights is not None
        agreement = check(tables, reference, exact, trained)
        theirs.call("exact", False)
        others: dict[str, Callable[[], Timing]] = {}
        for runtime in config.runtimes:
            side = stack.enter_context(Contender(functools.partial(Exported, runtime), config, device.type, folder))
            table, kind = {"canvases": side.call("find", "canvases")}, side.call("precision")
            others[runtime] = functools.partial(side.call, "time", "canvases")
            if kind == "int8":
                # Of weights at random, 8 bits change the order of many nearly equal boxes: what is found is told.
                agreements[runtime] = dataclasses.asdict(compare(table["canvases"], reference, FLOOR, SCORE))
            else:
                agreements[runtime] = dataclasses.asdict(check(table, reference, kind == "32", trained))
        entries = []
        for source in dict.fromkeys(config.sources):
            contenders: dict[str, Callable[[], Timing]] = {
                name: functools.partial(side.call, "time", source)
                for name, side in (("ours", ours), ("torchvision", theirs))
            }
            pairs = [("ours", "torchvision")]
            if source == "canvases":
                contenders |= others
                pairs += [("ours", name) for name in others]
            timings = harness.alternate(contenders, config.repeats, tell)
            entries.append(harness.entry(SOURCES[source], timings, pairs))
    return {
        "parameters": {**chosen, "image_size": size, "device": device.type},
        "agreement": dataclasses.asdict(agreement),
        "agreement_of_runtimes": agreements,
        "results": entries,
    }


def show(report: dict[str, Any]) -> list[Table | str]:
    """The numbers of `measure` as a table."""
    agreement = report["agreement"]
    return [
        harness.table_of(report["results"], "Inference", {"torchvision": "torchvision, eager, batch 1"}),
        *([f"what auto chose for ours: {report['parameters']['why']}"] if "why" in report["parameters"] else []),
        "no mirrored views; from files, ours is the whole of tools/infer.py: weights loaded, predictions written",
        f"same boxes: {agreement['boxes']} held against each other, {agreement['matched']:.2%} found by both, lowest "
        f"IoU {agreement['iou']:.4f}, largest difference in score {agreement['score']:.1g}",
        *(
            f"{name}: {other['matched']:.2%} found by both, lowest IoU {other['iou']:.4f}, largest difference in score "
            f"{other['score']:.1g}"
            for name, other in report["agreement_of_runtimes"].items()
        ),
    ]


def prepare(config: Config, folder: Path) -> int:
    """Writes what both sides read into `folder`: canvases.npy, the same as PNG files in files/, and run/.

    Returns the side of the canvas. Raises InputError if there is no dataset or run, torchvision has no detector like
    the run's, or the two have canvases of other sizes.
    """
    given = None if config.weights is None else deployed(config.weights)
    size = config.image_size if given is None else int(given[0]["canvas_size"])
    n_processes = min(n_cores(), max(1, config.n_workers))
    store, rows = open_material(config.data_path, folder, config.n_images, size, n_processes)
    if given is not None and store.canvas_size != size:
        raise InputError(
            f"{config.weights} was trained on canvases of {size} pixels, those of {config.data_path} have "
            f"{store.canvas_size}: convert the data with --image-size {size}"
        )
    assert store.images is not None
    canvases = np.asarray(store.images[rows])
    np.save(folder / "canvases.npy", canvases)
    write_pngs(store, rows, folder / "files")
    description, state = given or made(store, config.backbone, torch.from_numpy(canvases[:2, None]))
    description["architecture"] |= {"score_threshold": config.score_threshold, "proposals": 2 * config.proposals}
    write_run(folder / "run", description, state)
    return store.canvas_size


class Side:
    """One of the two contenders, with what both work on."""

    def __init__(self, config: Config, device: str, folder: Path) -> None:
        self.config, self.device, self.folder = config, torch.device(device), folder
        self.canvases = np.load(folder / "canvases.npy")

    def find(self, source: str) -> BoxTable:
        """The boxes on the canvases in memory, or in the files."""
        raise NotImplementedError

    def time(self, source: str) -> Timing:
        """Of all radiographs. The boxes stay here: they need not travel."""
        return dataclasses.replace(timed(len(self.canvases), self.find, source), result=None)


class Ours(Side):
    """Our pipeline as tools/infer.py sets it up; from files, the command itself, its weights and outputs included."""

    def __init__(self, config: Config, device: str, folder: Path) -> None:
        super().__init__(config, device, folder)
        self.size = (self.canvases.shape[2], self.canvases.shape[1])
        dtype = inference_precision(config.precision, self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        pipeline = load_pipeline([folder / "run"], self.device, flips=False)
        self.why = ""
        if dtype is None:
            first = self.canvases[:TRIAL]
            size = config.batch_size or CPU_BATCH
            found = fastest_way(pipeline, first, [self.size] * len(first), size)
            pipeline, self.why = found.pipeline, f"precision {found.way.name}: {found.why}"
        else:
            pipeline = lowered(pipeline, dtype)
        self.pipeline, self.batch_size = pipeline, config.batch_size
        if not self.batch_size and self.device.type == "cuda":
            self.batch_size = largest_batch(lambda n: pipeline.forward(np.zeros((n, *self.size), dtype=np.uint8)))
        self.batch_size = self.batch_size or CPU_BATCH

    def describe(self) -> dict[str, Any]:
        """What was chosen for the flags left to us."""
        chosen = {"precision": NAMES[self.pipeline.precision], "batch_size": self.batch_size}
        return chosen | ({"why": self.why} if self.why else {})

    def find(self, source: str) -> BoxTable:
        """The boxes on the canvases in memory, or in the files."""
        table = self._find_in_files() if source == "files" else self._find_on_canvases()
        return table.select(table.labels <= NO_FINDING)

    def _find_on_canvases(self) -> BoxTable:
        """As the command does, which post-processes a batch while the next one is computed."""
        items = [Decoded(number, Path(), canvas, *self.size, None) for number, canvas in enumerate(self.canvases)]
        tables: list[BoxTable] = []
        stream = consecutive(items, self.batch_size)
        run(self.pipeline, stream, lambda batch: tables.append(portion_of(batch, 0).table))
        return BoxTable.concatenate(tables)

    def _find_in_files(self) -> BoxTable:
        out = self.folder / "predictions"
        config = infer.Config(
            weights=(str(self.folder / "run"),),
            data_path=str(self.folder / "files"),
            save_path=str(out),
            device=self.device.type,
            precision=self.config.precision,
            tta=False,
            batch_size=self.config.batch_size,
            n_workers=self.config.n_workers,
            overwrite=True,
        )
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = infer.main(config)
        if status:
            raise refuse(f"tools/infer.py ended with status {status}: {output.getvalue().strip().splitlines()[-1]}")
        predictions = read_predictions(out / PREDICTIONS)
        number = np.array([int(name) for name in predictions.image_ids])
        return dataclasses.replace(predictions.table, images=number[predictions.table.images])


class Exported(Side):
    """Our pipeline with the models run by onnxruntime or OpenVINO, batch 1."""

    def __init__(self, runtime: str, config: Config, device: str, folder: Path) -> None:
        super().__init__(config, device, folder)
        self.pipeline = exported_pipeline(folder / "run", runtime, self.canvases, config.precision)

    def precision(self) -> str:
        """What it computes in."""
        return "int8" if is_quantised(self.pipeline) else NAMES[self.pipeline.precision]

    def find(self, source: str) -> BoxTable:
        """The boxes on the canvases in memory."""
        size = (self.canvases.shape[2], self.canvases.shape[1])
        tables = []
        for image, canvas in enumerate(self.canvases):
            table = self.pipeline.find(canvas[None], [size]).table
            tables.append(dataclasses.replace(table, images=table.images + image))
        table = BoxTable.concatenate(tables)
        return table.select(table.labels <= NO_FINDING)


class Theirs(Side):
    """torchvision's own detector with the same weights: eager, float32, one radiograph at a time."""

    def __init__(self, config: Config, device: str, folder: Path) -> None:
        super().__init__(config, device, folder)
        description, state = load_deployed(folder / "run")
        self.model = torchvision_of(description)
        self.model.load_state_dict(state, strict=False)
        self.model.eval().to(self.device)

    def exact(self, on: bool) -> None:
        """Whether a GPU computes convolutions in all of float32; by PyTorch's default it does not."""
        torch.backends.cudnn.allow_tf32 = not on

    @torch.no_grad()
    def find(self, source: str) -> BoxTable:
        """The boxes on the canvases in memory, or in the files."""
        return table_of([self.model([image.to(self.device)])[0] for image in self._images(source)])

    def _images(self, source: str) -> Iterator[Tensor]:
        if source == "files":
            for path in sorted((self.folder / "files").iterdir()):
                yield to_tensor(Image.open(path).convert("RGB"))
        else:
            for canvas in self.canvases:
                yield as_float_images(torch.from_numpy(canvas)[None, None])[0]


def check(
    tables: dict[str, BoxTable], theirs: BoxTable, exact: bool, trained: bool = True, limit: int = 100
) -> Agreement:
    """Raises InputError unless both found the same, from canvases and from files; returns how far they differ.

    tables: what ours found from each source. exact: whether ours computed in float32. trained: whether the weights
    were; in less than float32, drawn ones are told and not judged, as rounding changes the order of many nearly equal
    boxes. limit: detections a radiograph at most.
    """
    agreements = []
    for source, ours in tables.items():
        # At the limit of detections, another order of equals would be a difference.
        floor = max(FLOOR, lowest_at_limit(theirs, limit), lowest_at_limit(ours, limit)) + SCORE
        agreement = compare(ours, theirs, floor, SCORE)
        same = agreement.matched >= 1 and (agreement.iou > IOU or agreement.pixels < PIXELS) and agreement.score < SCORE
        if not (same if exact else agreement.matched >= MATCHED_ROUGHLY or not trained):
            raise refuse(
                f"from {source}, of {agreement.boxes} detections {agreement.matched:.1%} were found by both, with IoUs "
                f"down to {agreement.iou:.3f} and scores that differ by up to {agreement.score:.2g}"
            )
        agreements.append(agreement)
    return min(agreements, key=lambda agreement: agreement.matched)


def lowest_at_limit(table: BoxTable, limit: int) -> float:
    """The highest of the lowest scores of radiographs with `limit` boxes, which may have had more; 0 without one."""
    counts = np.bincount(table.images, minlength=1)
    return max(
        (float(table.scores[table.images == image].min()) for image in np.flatnonzero(counts >= limit)), default=0.0
    )
