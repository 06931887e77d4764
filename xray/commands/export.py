"""Trained models in other formats (--weights RUN --format onnx|openvino|torchvision|run), and datasets for other tools
(--data-path DATA --format coco|yolo|voc).
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Interval

from xray.commands.id_flags import CategoryIds, ImageIds
from xray.commands.runner import command
from xray.errors import FlagError, InputError, need, spelled
from xray.file_names import MODEL_FILE, WEIGHTS_FILE
from xray.files import check_output, check_writable, complete
from xray.flags import Prune, check_ranges

OF_TREES = (
    "data_path", "bits", "originals", "full_size", "masks", "include_unsure", "predictions", "ids", "category_ids",
)  # fmt: skip
"""Flags of coco, yolo and voc alone."""
WEIGHTS_FILES = (".pth", ".pt", ".ckpt", ".safetensors")
LEFT_BESIDE = (
    "model.onnx", "precision.json", "openvino.xml", "openvino.bin", "openvino-int8.xml", "openvino-int8.bin",
    "openvino-int8.failed.json",
)  # fmt: skip
"""What other commands leave in a run directory; none of it counts for other weights."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Writes a trained model, or a dataset, in another format; the runs and the dataset stay as they are.

    onnx: a file for onnxruntime in any language, which holds everything from the canvas to boxes, masks or
    probabilities. It is written only if it agrees with PyTorch. openvino: the same as a .xml and a .bin file, for infer
    --runtime openvino; with --int8, in 8-bit integers, a few times faster, written only if the metric is kept on a fold
    that is held back. torchvision: a detector's weights become a .pth file that torchvision's own Faster R-CNN or
    RetinaNet loads. run: such a file of a Faster R-CNN becomes a run directory; or a detector and the segmenter trained
    on its trunk (--encoder-from DETECTOR --freeze-encoder) become one, in which the trunk is stored once and serves
    both in one pass.

    coco, yolo, voc: a dataset directory (--data-path) as a tree that other tools open, with PNG pictures without the
    canvas's border, boxes in their pixels, masks and splits; and predictions, if given.
    """

    weights: tuple[Path, ...] = ()
    """Run directories: for onnx and openvino one of any task, for torchvision a detection, for run a detection and a
    segmentation, or a .pth or .safetensors file of torchvision's Faster R-CNN."""
    format: Literal["onnx", "openvino", "torchvision", "run", "coco", "yolo", "voc"]
    """What to write: of --weights one of the first four, of --data-path one of the others."""
    data_path: Path | None = None
    """Of coco, yolo and voc: the dataset directory written by tools/convert.py."""
    save_path: Path | None = None
    """The .onnx file (default: model.onnx in the run directory), the .xml file (openvino.xml or openvino-int8.xml), the
    .pth file, the run directory, or the folder of the tree to write."""
    check_data: Path | None = None
    """Of onnx and openvino: a folder of radiographs, one file or a dataset directory, on whose first radiographs
    PyTorch and the file must agree; default: phantoms, drawn on the spot. With --int8 a dataset directory: one fold
    measures the metric, up to 200 radiographs of the others give the ranges of 8 bits."""
    int8: bool = False
    """Of openvino: 8-bit integers, for the layers in which the metric bears it. Needs --check-data."""
    fold: Annotated[int, Interval(ge=-1, le=99)] = -1
    """With --int8: the fold of --check-data that measures; -1 is what the run's training held back, a fold or the
    validation split, else fold 0. Of coco, yolo and voc: this fold becomes the val split; -1 keeps the dataset's."""
    prune: Prune = 0
    """Of onnx and openvino: cut a U-Net++ trained with --deep-supervision to this level, 1 to 4; 0 leaves it whole."""
    categories: tuple[str, ...] = ()
    """Of run, for torchvision's weights: names of what they find, in the order of their labels, from 1."""
    canvas_size: Annotated[int, Interval(ge=64, le=4096)] = 1024
    """Of run, for torchvision's weights: side of the canvases to look at, in pixels (64 to 4096)."""
    bits: Literal[8, 16] = 8
    """Of coco, yolo and voc: bits of the pictures; 16 needs --originals, unless the dataset has 16."""
    originals: Path | None = None
    """Of coco, yolo and voc: the folder that the dataset was converted from, to make the pictures of its files."""
    full_size: bool = False
    """Of coco, yolo and voc: pictures as large as the originals, in place of the dataset's canvases."""
    masks: Literal["polygons", "rle", "none"] | None = None
    """Of coco and yolo: how masks are written. If not given, as polygons; in yolo only where every box has a mask, as
    its files cannot mix boxes and outlines."""
    include_unsure: bool = False
    """Of yolo and voc: also write radiographs with findings that are unknown, or somewhere in them without a box, as if
    they did not show these. coco has them in further keys."""
    predictions: Path | None = None
    """Of coco, yolo and voc: predictions.json or submission.csv, to be written beside the dataset, as COCO results,
    YOLO's text files with confidences, or VOC's results files."""
    ids: ImageIds = "auto"
    category_ids: CategoryIds = "auto"
    overwrite: bool = False
    """Replace an earlier export at SAVE_PATH."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: Config) -> None:
    """Writes the export and says on stdout what it is and how it is used."""
    check_ranges(config)
    if config.format in ("coco", "yolo", "voc"):
        export_dataset(config, config.format)
        return
    check_of_trees(config)
    is_import = config.format == "run" and any(path.suffix in WEIGHTS_FILES for path in config.weights)
    if config.format not in ("onnx", "openvino") and (config.check_data is not None or config.prune):
        raise FlagError(f"--{'prune' if config.prune else 'check-data'} is for --format onnx: leave it out")
    if config.int8 and config.format != "openvino":
        raise FlagError("--int8 is for --format openvino: leave it out, or change the format")
    if config.int8 and config.check_data is None:
        raise FlagError(
            "--int8 needs --check-data DATASET: radiographs with their truth, to see whether the metric holds"
        )
    if config.fold >= 0 and not config.int8:
        raise FlagError("--fold is for --int8: leave it out")
    if config.categories and not is_import:
        raise FlagError("--categories is for --format run with a .pth or .safetensors file: leave it out")
    if config.format == "run" and not is_import:
        export_run(config)
        return
    if len(config.weights) != 1:
        takes = "one of torchvision's" if is_import else "one"
        raise FlagError(f"--weights names {len(config.weights)} runs: --format {config.format} takes {takes}")
    (weights,) = config.weights
    if is_import:
        import_torchvision(config, weights)
    elif config.format == "onnx":
        export_onnx(config, weights, file_to_write(config, config.save_path or weights / "model.onnx", ".onnx"))
    elif config.format == "openvino":
        name = "openvino-int8.xml" if config.int8 else "openvino.xml"
        export_openvino(config, weights, file_to_write(config, config.save_path or weights / name, ".xml"))
    else:
        export_torchvision(weights, file_to_write(config, config.save_path, ".pth"))


def check_of_trees(config: Config) -> None:
    """Raises FlagError for flags of coco, yolo and voc beside another format, and where there are no weights."""
    for name in OF_TREES:
        if getattr(config, name) != Config.__dataclass_fields__[name].default:
            raise FlagError(f"--{name.replace('_', '-')} is for --format coco, yolo or voc: leave it out")
    if not config.weights:
        raise FlagError(f"--weights is missing: --format {config.format} is made of a run directory")


def export_dataset(config: Config, format: Literal["coco", "yolo", "voc"]) -> None:
    """A tree of a dataset directory for other tools."""
    for name in ("weights", "check_data", "int8", "prune", "categories"):
        if getattr(config, name):
            flag = name.replace("_", "-")
            raise FlagError(f"--{flag} is for models, and --format {format} writes datasets: leave it out")
    if config.data_path is None or config.save_path is None:
        missing = "--data-path" if config.data_path is None else "--save-path"
        raise FlagError(f"{missing} is missing: --format {format} writes the dataset --data-path to --save-path")
    check_output(config.save_path)

    from xray.datasets.prediction_ids import read_any_predictions
    from xray.datasets.store import open_store
    from xray.outputs.trees.export import export_tree, summary_of

    store = open_store(config.data_path)
    predictions = None
    if config.predictions is not None:
        predictions = read_any_predictions(config.predictions, store, config.ids, config.category_ids)
    content = export_tree(
        store, config.save_path, format,
        fold=config.fold if config.fold >= 0 else None, bits=config.bits, originals=config.originals,
        full_size=config.full_size, masks=config.masks, include_unsure=config.include_unsure, predictions=predictions,
        overwrite=config.overwrite,
    )  # fmt: skip
    first, *others = summary_of(content)
    print(f"{config.save_path}: {first}")
    for line in others:
        print(f"  {line}")


def file_to_write(config: Config, out: Path | None, suffix: str) -> Path:
    """The file that --save-path names. Raises FlagError or InputError where it cannot be, or may not be replaced."""
    if out is None or out.suffix != suffix:
        where = "missing" if out is None else out
        raise FlagError(f"--save-path is {where}: --format {config.format} writes a file that ends in {suffix}")
    if out.is_dir() or (out.exists() and not config.overwrite):
        raise InputError(f"{out} exists: give --overwrite to replace a file, or another --save-path")
    check_writable(out.parent)
    return out


def export_onnx(config: Config, run: Path, out: Path) -> None:
    """An ONNX file of a run, compared with PyTorch before it is kept."""
    need("--format onnx", "export", "onnx", "onnxscript", "onnxruntime")

    from rich.console import Console

    from xray.datasets.inputs import open_inputs
    from xray.inference.exported import check_bits
    from xray.models.weights import load_deployed

    inputs = open_inputs(config.check_data) if config.check_data else None
    description, _ = load_deployed(run)  # what is no run is told at once: the exporter takes seconds to import
    check_bits(run, description)
    size = int(description.get("detection", description)["canvas_size"])
    with Console(stderr=True).status("exporting"):
        from xray.export.onnx import OPSET, to_onnx
        from xray.export.onnx_check import RADIOGRAPHS, compare, given_canvases, phantom_canvases

        canvases = given_canvases(inputs, size) if inputs is not None else phantom_canvases(size, RADIOGRAPHS)
        content = to_onnx(run, config.prune)
        out.parent.mkdir(parents=True, exist_ok=True)
        with complete(out) as temporary:
            temporary.write_bytes(content)
            difference = compare(run, temporary, canvases, config.prune)
            if not difference.is_small:
                raise InputError(f"the ONNX model of {run} and PyTorch differ by {difference}: nothing was written")
    what = f"{len(canvases)} {'radiographs' if config.check_data else 'phantoms'}"
    print(f"{out}: opset {OPSET}, {len(content) / 2**20:.1f} MiB; on {what} up to {difference} from PyTorch")
    print(f"  {spelled('infer')} --runtime onnx --weights {out} --data-path RADIOGRAPHS --save-path OUT")


def export_openvino(config: Config, run: Path, out: Path) -> None:
    """OpenVINO's two files of a run: compared with PyTorch, or in 8 bits by their metric, before they are kept."""
    need("--format openvino", "openvino", "openvino")
    need("--format openvino", "export", "onnx", "onnxscript")
    if config.int8:
        need("--int8", "openvino", "nncf")

    from rich.console import Console

    from xray.datasets.inputs import open_inputs
    from xray.datasets.store import open_store
    from xray.inference.exported import check_bits
    from xray.models.weights import load_deployed

    store = open_store(config.check_data) if config.int8 and config.check_data else None
    inputs = open_inputs(config.check_data) if config.check_data and store is None else None
    description, _ = load_deployed(run)
    check_bits(run, description)
    size = int(description.get("detection", description)["canvas_size"])
    if store is not None:
        from xray.export.int8 import write_quantised

        words = write_quantised(run, out, store, config.prune, config.fold)
    else:
        with Console(stderr=True).status("exporting"):
            from xray.export.onnx_check import given_canvases, phantom_canvases
            from xray.export.openvino import write_checked

            canvases = given_canvases(inputs, size) if inputs is not None else phantom_canvases(size)
            what = f"{len(canvases)} {'radiographs' if inputs is not None else 'phantoms'}"
            words = f"on {what} up to {write_checked(run, out, canvases, config.prune)} from PyTorch"
    print(f"{out}: {out.with_suffix('.bin').stat().st_size / 2**20:.1f} MiB; {words}")
    weights = run if out.parent == run else out
    how = "--precision int8" if config.int8 and out.parent == run else "--runtime openvino"
    print(f"  {spelled('infer')} {how} --weights {weights} --data-path RADIOGRAPHS --save-path OUT")


def import_torchvision(config: Config, path: Path) -> None:
    """A run directory of torchvision's weights."""
    if not config.categories:
        raise FlagError("--categories is missing: name what these weights find, in the order of their labels")
    if not all(config.categories) or len(set(config.categories)) < len(config.categories):
        raise FlagError("--categories has an empty name, or one twice: give every category another name")
    out = run_folder(config)

    from xray.export.torchvision import read_torchvision

    description, state = read_torchvision(path, config.categories, config.canvas_size)
    options = description["architecture"]
    what = f"a {options['backbone']} detector, head {options['head']}, of {len(config.categories)} categories"
    write_run(out, description, state, what)


def export_run(config: Config) -> None:
    """One run directory of a detector and a segmenter on one trunk."""
    if len(config.weights) != 2:
        raise FlagError(
            f"--weights names {len(config.weights)} runs: --format run joins a detection and a segmentation"
        )
    out = run_folder(config)

    from xray.inference.shared_trunk import join_runs

    description, state = join_runs(*config.weights)
    write_run(out, description, state, "detector and segmenter on one trunk")


def run_folder(config: Config) -> Path:
    """The run directory to write. Raises InputError if another one, or anything else, is there."""
    out = config.save_path
    if out is None:
        raise FlagError("--save-path is missing: --format run writes a run directory")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a folder as --save-path")
    if out.resolve() in [run.resolve() for run in config.weights]:
        raise InputError(f"{out} is one of the runs to join: give another --save-path")
    check_writable(out)

    from xray.files import is_unfinished

    names = {entry.name.removesuffix(".part") for entry in out.iterdir()} - {"export"} if out.is_dir() else set()
    if others := names - {MODEL_FILE, WEIGHTS_FILE, *LEFT_BESIDE}:
        raise InputError(f"{out} holds other things than an export ({min(others)}): give another --save-path")
    if names and not config.overwrite and not is_unfinished(out, "export"):
        raise InputError(f"{out} holds an export already: give --overwrite, or another --save-path")
    return out


def write_run(out: Path, description: dict[str, Any], state: dict[str, Any], what: str) -> None:
    """Writes both files of a run, with a mark beside them until they are there, and says `what` they are."""
    from xray.files import finishing
    from xray.models.weights import save_deployed

    with finishing(out, "export"):
        save_deployed(out, state, description)
    print(f"{what}: {out}")
    print(f"  {spelled('infer')} --weights {out} --data-path RADIOGRAPHS --save-path OUT")


def export_torchvision(run: Path, out: Path) -> None:
    """A .pth file of a detector's state dict."""
    import torch

    from xray.export.torchvision import torchvision_code
    from xray.models.pretrained import reads_as
    from xray.models.weights import load_deployed

    description, state = load_deployed(run)
    if description["task"] != "detection":
        raise InputError(f"{run} is a run of the task {description['task']}: --format torchvision is for detectors")
    state, reading, _ = reads_as(state)
    code = torchvision_code(run, description, out, reading)
    out.parent.mkdir(parents=True, exist_ok=True)
    with complete(out) as temporary:
        torch.save(state, temporary)
    print(f"# {out} is the state dict of\n{code}")


def run() -> int:
    """The command; returns its exit status."""
    return command(Config, main)
