"""Ratios against what people use today, measured side by side: the same work, the same data, one run."""

import importlib
import sys

from xray import interrupts
from xray.commands.runner import command

STAGES = {
    "convert": "images per second from DICOM file to training data",
    "load": "radiographs per second from disk to batches",
    "train": "a training step against torchvision's own",
    "infer": "inference against torchvision's own",
    "segment": "U-Nets against segmentation-models-pytorch's own",
    "shares": "where the processor time of inference goes, stage by stage",
    "evaluate": "the metric against pycocotools",
    "fuse": "weighted boxes fusion against ensemble-boxes",
    "memory": "how time and memory grow with the number of radiographs",
    "serve": "the server under load, some of the files broken",
    "recipe": "what each ingredient of a training gains on a dataset, cross-validated",
    "curves": "loss curves of training in bfloat16 against float32",
    "gpu": "correctness and speed on one GPU in eight minutes; benchmarks/gpu.sh starts it",
    "ceiling": "a detector's arithmetic against the rates of this machine",
}
"""Name → what it measures. Each is the module of benchmarks/ with that name."""


def run() -> int:
    """The command; returns its exit status."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(f"usage: benchmark.py STAGE [flags]\n\n{__doc__}\n")
        print("\n".join(f"  {stage:8}  {what}" for stage, what in STAGES.items()))
        return 0
    if name not in STAGES:
        print(f"error: there is no benchmark {name}: give one of {', '.join(STAGES)}", file=sys.stderr)
        return 2
    interrupts.watch()
    sys.argv[:2] = [f"{sys.argv[0]} {name}"]
    stage = importlib.import_module(f"benchmarks.{name}")
    return command(stage.Config, stage.main)


if __name__ == "__main__":
    sys.exit(run())
