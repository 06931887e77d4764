"""Benchmark `ceiling`: what the machine could do at most with a detector's arithmetic, what it does, and the rest."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from benchmarks import reports


@dataclasses.dataclass(frozen=True)
class Ceiling:
    """The arithmetic and the memory traffic of our detector, against the rates of this machine's matrix products.

    The arithmetic is that of the network as it is written: three by three convolutions count in full, though ours take
    fewer multiplications on a CPU. So a share above 100 % is possible.
    """

    work: Literal["infer", "train"] = "infer"
    """Inference from canvases, or a training step: forward, losses and backward, without the optimizer."""
    image_size: int = 1024
    """Side of the canvas, in pixels."""
    batch_size: int = 2
    """Radiographs per pass."""
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    """Trunk of the detector."""
    precision: Literal["32", "bf16"] = "32"
    """Arithmetic of convolutions and matrix products."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu or cuda."""
    repeats: int = 3
    """Measured passes; the median counts."""
    save_path: Path | None = None
    """JSON file for the numbers."""
    debug: bool = False
    """Show the traceback of an error."""


def benchmark_ceiling(config: Ceiling) -> None:
    """Measures, prints tables and writes the JSON file."""
    reports.check_at_least(config, image_size=64, batch_size=1, repeats=1)
    reports.check_save_path(config.save_path)
    report = measure_ceiling(config)
    show_ceiling(report)
    reports.save_report(config.save_path, report)


def measure_ceiling(config: Ceiling) -> dict[str, Any]:
    """Runs the benchmark and returns all its numbers."""
    from rich.console import Console

    from benchmarks import arithmetic
    from xray.models.device import keep_freed_memory, resolve_device

    device = resolve_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    with Console(stderr=True).status("counting") as status:
        subject = arithmetic.Subject(config, device)
        parts = subject.count()
        status.update("measuring the machine's rates")
        rates = arithmetic.machine_rates(device, subject.dtype)
        status.update("measuring the detector")
        seconds = subject.seconds(config.repeats)
        status.update("profiling")
        profile = subject.profile()
    flops, moved = (sum(part[name] for part in parts.values()) for name in ("flops", "bytes"))
    arithmetic_seconds, traffic_seconds = flops / rates["flops"], moved / rates["bytes"]
    return {
        "benchmark": "ceiling",
        "parameters": {**dataclasses.asdict(config), "save_path": None, "device": device.type},
        "parts": parts,
        "rates": rates,
        "per_image": {
            "flops": flops,
            "bytes": moved,
            "arithmetic_seconds": arithmetic_seconds,
            "traffic_seconds": traffic_seconds,
            "seconds": seconds,
        },
        "share": max(arithmetic_seconds, traffic_seconds) / seconds,
        "profile": profile,
        **reports.surroundings(["torch", "torchvision"], device),
    }


def show_ceiling(report: dict[str, Any]) -> None:
    """Prints the numbers of `measure_ceiling` as two tables."""
    from rich.table import Table

    parameters, each = report["parameters"], report["per_image"]
    title = f"{parameters['backbone']}, {parameters['image_size']} pixels, {parameters['work']}: one radiograph"
    table = Table(title=title)
    for name in ("part", "GFLOP", "MB moved"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for name, part in report["parts"].items():
        table.add_row(name, f"{part['flops'] / 1e9:.1f}", f"{part['bytes'] / 1e6:.0f}")
    table.add_row("all", f"{each['flops'] / 1e9:.1f}", f"{each['bytes'] / 1e6:.0f}")
    table.add_row("at the machine's rate, s", f"{each['arithmetic_seconds']:.4f}", f"{each['traffic_seconds']:.4f}")
    where = Table(title="where the time goes")
    for name in ("operation", "share", "calls"):
        where.add_column(name, justify="left" if name == "operation" else "right")
    for row in report["profile"]:
        where.add_row(row["name"], f"{row['share']:.1%}", str(row["calls"]))
    console = reports.printer()
    console.print(table)
    console.print(where)
    rates = report["rates"]
    for line in (
        f"this machine, --precision {parameters['precision']}: {rates['flops'] / 1e9:.0f} GFLOP/s in a product of "
        f"large matrices, {rates['bytes'] / 1e9:.1f} GB/s in a copy",
        f"measured: {each['seconds']:.4f} s a radiograph, {report['share']:.0%} of the ceiling",
        reports.surroundings_text(report),
    ):
        console.print(line, soft_wrap=True)
