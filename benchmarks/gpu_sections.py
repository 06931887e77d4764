"""The sections of the benchmark `gpu`; python -m benchmarks.gpu_sections NAME SETTINGS runs one, which adds rows."""

import dataclasses
import json
import sys
from collections.abc import Callable

from benchmarks import gpu_checks, gpu_speed
from benchmarks.gpu_rows import Rows, Settings


@dataclasses.dataclass(frozen=True)
class Section:
    """A section. limit: seconds that it may take at most."""

    run: Callable[[Settings, Rows], None]
    title: str
    limit: float


SECTIONS = {
    "machine": Section(gpu_checks.machine, "the machine's rates", 40),
    "boxes": Section(gpu_checks.boxes, "boxes against the CPU's", 60),
    "train": Section(gpu_speed.train, "training against torchvision", 110),
    "infer": Section(gpu_speed.infer, "inference against torchvision", 90),
    "determinism": Section(gpu_checks.determinism, "strict determinism", 60),
    "resume": Section(gpu_checks.resume, "a training that goes on", 45),
    "ddp": Section(gpu_checks.ddp, "DDP of one process", 45),
    "train_loaded": Section(gpu_speed.train_loaded, "training with its loader", 70),
    "load": Section(gpu_speed.load, "loading and augmentation", 60),
    "runtimes": Section(gpu_speed.runtimes, "other runtimes", 60),
    "compiled": Section(gpu_speed.compiled, "the network compiled", 120),
}
"""In the order in which they run: what is wanted first. Most take a fraction of their limit."""


def run(name: str, settings: Settings) -> None:
    """Runs a section in this process; its rows go to the file that the settings mean. What fails becomes a row."""
    rows = Rows(name, settings.rows_of(name), judged=not settings.miniature)
    with rows.attempt(SECTIONS[name].title):
        SECTIONS[name].run(settings, rows)


if __name__ == "__main__":
    run(sys.argv[1], Settings.of(json.loads(sys.argv[2])))
