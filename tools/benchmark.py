"""Ratios against what people use today, measured side by side: the same work, the same data, one run."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # The repository's root in place of tools/, so that no tool here shadows a package.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from xray import interrupts

    interrupts.watch()

from typing import Annotated

from tyro.conf import subcommand

from tools.benchmarks.ceiling import Ceiling, benchmark_ceiling
from tools.benchmarks.convert import Convert, benchmark_conversion
from tools.benchmarks.evaluate import Evaluate, benchmark_evaluation
from tools.benchmarks.fuse import Fuse, benchmark_fusion
from tools.benchmarks.infer import Infer, benchmark_inference
from tools.benchmarks.load import Load, benchmark_loading
from tools.benchmarks.memory import Memory, benchmark_growth
from tools.benchmarks.serve import Serve, benchmark_serving
from tools.benchmarks.train import Train, benchmark_training
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


if __name__ == "__main__":
    sys.exit(command(Config, main, description=__doc__))
