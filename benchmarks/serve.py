"""Benchmark `serve`: the server under load, with every tenth file broken."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import reports
from xray.errors import InputError


@dataclasses.dataclass(frozen=True)
class Serve:
    """Requests of many clients to tools/serve.py: answers, refusals and errors, waiting times, and the server's memory.

    It fails if a good file is not answered, or a broken one is.
    """

    weights: tuple[str, ...] = ()
    """Run directories; without any, a small detector with random weights is made and thrown away."""
    n_requests: int = 200
    """Requests that are counted; a fifth as many go before them and are not."""
    n_clients: int = 16
    """Clients that ask at the same time, each one request after the other."""
    broken_every: int = 10
    """One of so many files is broken; 0 breaks none."""
    places: int = 12
    """Requests that the server takes at a time; fewer than clients, some are told to come back."""
    radiograph_size: int = 512
    """Longer side of the radiographs that are sent, in pixels."""
    n_workers: int = 2
    """Processes of the server that decode."""
    device: str = "auto"
    """Where the server runs its models: auto (CUDA where there is one), cpu or cuda."""
    save_path: Path | None = None
    """JSON file for the numbers."""
    debug: bool = False
    """Show the traceback of an error."""


def benchmark_serving(config: Serve) -> None:
    """Measures, prints a table and writes the JSON file. Raises InputError if a file was answered wrongly."""
    reports.check_at_least(config, n_requests=1, n_clients=1, broken_every=0, places=1, radiograph_size=64, n_workers=1)
    reports.check_save_path(config.save_path)
    with tempfile.TemporaryDirectory(prefix="xray-benchmark-") as folder:
        report = measure_serving(config, Path(folder))
    show_serving(report)
    reports.save_report(config.save_path, report)
    if wrong := report["errors"]:
        raise InputError(f"{len(wrong)} requests were answered wrongly, the first: {wrong[0]}")


def measure_serving(config: Serve, folder: Path) -> dict[str, Any]:
    """Runs the server and its clients and returns all numbers.

    Raises InputError if the server does not start, or the system does not tell how much memory processes hold.
    """
    from rich.console import Console
    from rich.progress import Progress

    from benchmarks import clients

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        n_first = max(config.n_clients, config.n_requests // 5)
        task = progress.add_task("starting the server", total=n_first + config.n_requests)
        runs = config.weights or (clients.random_run(folder / "run"),)
        files = clients.write_files(folder / "files", config.radiograph_size, config.broken_every)
        flags = [f"--places={config.places}", f"--n-workers={config.n_workers}", f"--device={config.device}"]
        with clients.server(runs, flags) as server:
            progress.update(task, description="warming up")
            clients.ask(server.address, files, n_first, config.n_clients, lambda: progress.advance(task))
            held = [server.held]
            progress.update(task, description="asking")
            found, seconds = [], 0.0
            # In two halves, so that memory that keeps growing is told from memory that has settled.
            for n in (config.n_requests // 2, config.n_requests - config.n_requests // 2):
                half = clients.ask(server.address, files, n, config.n_clients, lambda: progress.advance(task))
                found += half.requests
                seconds += half.seconds
                held.append(server.held)
    return {
        "benchmark": "serve",
        "models": "random" if not config.weights else list(config.weights),
        "parameters": {
            name: getattr(config, name)
            for name in ("n_requests", "n_clients", "broken_every", "places", "radiograph_size", "n_workers", "device")
        },
        **clients.summary(found, seconds),
        "held": dict(zip(("warm", "half", "end"), held, strict=True)),
        **reports.surroundings(["torch", "torchvision", "fastapi", "uvicorn", "pydicom"]),
    }


def show_serving(report: dict[str, Any]) -> None:
    """Prints the numbers of `measure_serving` as a table."""
    from rich.table import Table

    parameters = report["parameters"]
    console = reports.printer()
    title = f"{parameters['n_requests']} requests of {parameters['n_clients']} clients"
    table = Table(title=title, show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in (
        ("answered", report["answered"]),
        ("refused, as broken files are", report["refused"]),
        ("errors", len(report["errors"])),
        ("told to come back, and did", report["busy"]),
        ("seconds, median", f"{report['seconds']['p50']:.2f}"),
        ("seconds, 95 of 100", f"{report['seconds']['p95']:.2f}"),
        ("answers a second", f"{report['answers_per_second']:.1f}"),
        *((f"memory held, {when}, MiB", f"{value / 2**20:.0f}") for when, value in report["held"].items()),
    ):
        table.add_row(name, str(value))
    console.print(table)
    console.print(
        "seconds of good files, from the first attempt to the answer, with the times between attempts; memory of all "
        "processes of the server",
        soft_wrap=True,
    )
    console.print(reports.surroundings_text(report), soft_wrap=True)
