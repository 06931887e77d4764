"""Ratios against what people use today, measured side by side: the same work, the same data, one run."""

import sys
from typing import Annotated

from tyro.conf import subcommand

from benchmarks.ceiling import Ceiling, benchmark_ceiling
from benchmarks.convert import Convert, benchmark_conversion
from benchmarks.evaluate import Evaluate, benchmark_evaluation
from benchmarks.fuse import Fuse, benchmark_fusion
from benchmarks.infer import Infer, benchmark_inference
from benchmarks.load import Load, benchmark_loading
from benchmarks.memory import Memory, benchmark_growth
from benchmarks.serve import Serve, benchmark_serving
from benchmarks.train import Train, benchmark_training
from xray import interrupts
from xray.commands.runner import command

# Each benchmark: its import above, its line here, its line in main.
Config = (
    Annotated[Convert, subcommand("convert")]
    | Annotated[Load, subcommand("load")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Infer, subcommand("infer")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Fuse, subcommand("fuse")]
    | Annotated[Memory, subcommand("memory")]
    | Annotated[Serve, subcommand("serve")]
    | Annotated[Ceiling, subcommand("ceiling")]
)  # fmt: skip


def main(config: Config) -> None:
    """Runs the chosen benchmark: it measures, prints a table and writes the JSON file."""
    match config:
        case Convert():
            benchmark_conversion(config)
        case Load():
            benchmark_loading(config)
        case Train():
            benchmark_training(config)
        case Infer():
            benchmark_inference(config)
        case Evaluate():
            benchmark_evaluation(config)
        case Fuse():
            benchmark_fusion(config)
        case Memory():
            benchmark_growth(config)
        case Serve():
            benchmark_serving(config)
        case Ceiling():
            benchmark_ceiling(config)


def run() -> int:
    """The command; returns its exit status."""
    interrupts.watch()
    return command(Config, main, description=__doc__)


if __name__ == "__main__":
    sys.exit(run())
