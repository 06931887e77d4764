"""Trained runs in other shapes: python tools/export.py --weights RUN [RUN] --format run|torchvision --save-path OUT."""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":
    # The repository's root in place of tools/, whose file names would shadow packages.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from xray import interrupts

    interrupts.watch()

from xray.command import FlagError, InputError, command
from xray.files import complete


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Writes a trained model in another shape; the runs stay as they are.

    run: a detector and the segmenter trained on its trunk (--encoder-from DETECTOR --freeze-encoder) become one run
    directory, in which the trunk is stored once and serves both in one pass. torchvision: a detector's weights become
    a .pth file that torchvision's own Faster R-CNN loads.
    """

    weights: tuple[Path, ...]
    """Run directories: for run a detection and a segmentation, for torchvision a detection."""
    format: Literal["run", "torchvision"]
    """What to write."""
    save_path: Path
    """Run directory to write, or the .pth file."""
    overwrite: bool = False
    """Replace an earlier export at SAVE_PATH."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: Config) -> None:
    """Writes the export and says on stdout what it is and how it is used."""
    match config.format:
        case "run":
            export_run(config)
        case "torchvision":
            export_torchvision(config)


def export_run(config: Config) -> None:
    """One run directory of a detector and a segmenter on one trunk."""
    out = config.save_path
    if len(config.weights) != 2:
        raise FlagError(
            f"--weights names {len(config.weights)} runs: --format run joins a detection and a segmentation"
        )
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a folder as --save-path")
    if out.resolve() in [run.resolve() for run in config.weights]:
        raise InputError(f"{out} is one of the runs to join: give another --save-path")

    from xray.heads import join_runs
    from xray.outputs.unfinished import finishing, is_unfinished
    from xray.training.deploy import MODEL_FILE, WEIGHTS_FILE, save_deployed

    may_write = config.overwrite or is_unfinished(out, "export")
    held = {entry.name.removesuffix(".part") for entry in out.iterdir()} - {"export"} if out.is_dir() else set()
    if others := held - {MODEL_FILE, WEIGHTS_FILE}:
        raise InputError(f"{out} holds other things than an export ({min(others)}): give another --save-path")
    if held and not may_write:
        raise InputError(f"{out} holds an export already: give --overwrite, or another --save-path")
    description, state = join_runs(*config.weights)
    with finishing(out, "export"):
        save_deployed(out, state, description)
    print(f"detector and segmenter on one trunk: {out}; go on with")
    print(f"  python tools/infer.py --weights {out} --data-path RADIOGRAPHS --save-path OUT")


def export_torchvision(config: Config) -> None:
    """A .pth file of a detector's state dict."""
    out = config.save_path
    if len(config.weights) != 1:
        raise FlagError(f"--weights names {len(config.weights)} runs: --format torchvision takes one")
    if out.suffix != ".pth":
        raise FlagError(f"--save-path is {out}: --format torchvision writes a file that ends in .pth")
    if out.is_dir() or (out.exists() and not config.overwrite):
        raise InputError(f"{out} exists: give --overwrite to replace a file, or another --save-path")

    import torch

    from xray.training.deploy import load_deployed

    (run,) = config.weights
    description, state = load_deployed(run)
    if description["task"] != "detection":
        raise InputError(f"{run} is a run of the task {description['task']}: torchvision has a place for detectors")
    code = torchvision_code(run, description, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with complete(out) as temporary:
        torch.save(state, temporary)
    print(f"# {out} is the state dict of\n{code}")


def torchvision_code(run: Path, description: dict[str, Any], weights: Path) -> str:
    """Python that makes torchvision's `model` with the run's anchors, thresholds and weights.

    Raises InputError if torchvision has no function for this architecture.
    """
    from xray.detection.model import ANCHOR_CANVAS, ANCHOR_RATIOS, ANCHOR_SIDES, RESNETS

    options, size = description["architecture"], description["canvas_size"]
    backbone, head = options["backbone"], options["head"]
    if backbone not in RESNETS or options["fpn_channels"] != 256 or (head == "v2" and backbone != "resnet50"):
        raise InputError(
            f"{run} is a {backbone} detector with head {head} and a pyramid of {options['fpn_channels']} channels: "
            "torchvision builds ResNets with 256, and head v2 for resnet50 alone"
        )
    values = {
        "num_classes": max(int(category) for category in description["categories"]) + 1,
        "min_size": size,
        "max_size": size,
        "rpn_pre_nms_top_n_test": options["proposals"] // 2,
        "rpn_post_nms_top_n_test": options["proposals"] // 2,
        "box_score_thresh": options["score_threshold"],
        "box_detections_per_img": options["max_detections"],
    }
    common = "".join(f"    {name}={value},\n" for name, value in values.items())
    if backbone == "resnet50":
        name = "fasterrcnn_resnet50_fpn" + ("_v2" if head == "v2" else "")
        model = f"detection.{name}(\n    weights=None,\n    weights_backbone=None,\n{common})"
    else:
        trunk = f'detection.backbone_utils.resnet_fpn_backbone(backbone_name="{backbone}", weights=None)'
        model = f"detection.FasterRCNN(\n    {trunk},\n{common})"
    sides = tuple((side * options["anchor_scale"] * size / ANCHOR_CANVAS,) for side in ANCHOR_SIDES)
    return f"""import torch
from torchvision.models import detection

model = {model}
model.rpn.anchor_generator = detection.anchor_utils.AnchorGenerator({sides}, ({ANCHOR_RATIOS},) * 5)
model.load_state_dict(torch.load({str(weights)!r}, weights_only=True))
# It takes canvases of {size} pixels a side as (3, {size}, {size}) float32: the grey value / 255, three times."""


if __name__ == "__main__":
    sys.exit(command(Config, main))
