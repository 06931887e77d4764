"""Benchmark `gpu`: correctness and speed on one GPU, in sections with time limits; benchmarks/gpu.sh starts it."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval
from rich.console import Console

from benchmarks import harness
from benchmarks.gpu_rows import Settings
from benchmarks.gpu_sections import SECTIONS
from benchmarks.harness import number_text
from benchmarks.needs import unmet
from benchmarks.processes import ROOT
from xray.errors import FlagError, InputError
from xray.files import complete

PACKAGES = ("torch", "torchvision", "lightning", "triton", "tensorrt", "onnxruntime", "onnxruntime-gpu", "numpy")
ENDING = 5.0
"""Seconds kept for writing."""
SHORTEST = 5.0
"""Seconds without which a section is not begun."""


@dataclasses.dataclass(frozen=True)
class Config(harness.Flags):
    """Correctness and speed on one GPU: boxes against the CPU's, training, inference, loading, compiling.

    Each section is a process with a time limit of its own. One that fails or takes too long becomes a row that says
    so, and the others go on. After each the JSON file is written, and a Markdown table beside it.
    """

    device: str = "cuda"
    """cuda or cpu."""
    miniature: bool = False
    """Tiny networks and pictures, a round of each, no limit for a single section: to test this benchmark."""
    seconds: Annotated[float, Interval(gt=0, le=86_400)] = 460.0
    """Most seconds of all sections together."""
    sections: tuple[str, ...] = ()
    """Only these, in their order; default: all."""


def main(config: Config) -> int:
    """Runs the sections; exit status 1 if a row failed or misses its target on a GPU."""
    harness.check_ranges(config)
    unknown = set(config.sections) - set(SECTIONS)
    if unknown:
        raise FlagError(f"--sections {' '.join(sorted(unknown))}: give some of {', '.join(SECTIONS)}")
    if config.save_path is None:
        raise FlagError("--save-path is not given: name a JSON file")
    if not config.save_path.parent.is_dir():
        raise InputError(f"there is no folder {config.save_path.parent} for --save-path: make it first")
    end = time.monotonic() + config.seconds - ENDING
    report: dict[str, Any] = {
        "benchmark": "gpu",
        "parameters": {"device": config.device, "miniature": config.miniature, "seconds": config.seconds},
        "unmet": unmet(),
        "machine": harness.machine(),
        "versions": harness.versions(PACKAGES),
        "seconds": {},
        "rows": [],
    }
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="xray-benchmark-", ignore_cleanup_errors=True) as folder:
        settings = Settings(config.device, config.miniature, Path(folder))
        for name, section in SECTIONS.items():
            if config.sections and name not in config.sections:
                continue
            limit = end - time.monotonic()
            if not config.miniature:
                limit = min(section.limit, limit)
            started = time.monotonic()
            with console.status(f"{name}: {section.title}, {max(limit, 0):.0f} s at most"):
                rows = run_section(name, settings, limit)
            report["seconds"][name] = round(time.monotonic() - started, 1)
            report["rows"] += rows
            write(report, config.save_path)
            console.print(*lines_of(rows), sep="\n", highlight=False, soft_wrap=True)
    print(f"{config.save_path} and {table_path(config.save_path)}")
    return int(any(row.get("failed") or row.get("met") is False for row in report["rows"]))


def run_section(name: str, settings: Settings, limit: float) -> list[dict[str, Any]]:
    """The rows of a section, which runs in a process of its own for `limit` seconds at most.

    What it measured before it failed or was ended is kept; a last row then says why.
    """
    if limit < SHORTEST:
        return [_failed(name, "no time was left")]
    path = settings.rows_of(name)
    command = [sys.executable, "-m", "benchmarks.gpu_sections", name, json.dumps(settings.plain())]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    reason = ""
    with tempfile.TemporaryFile() as output:
        # A session of its own, by which the processes that it starts end with it.
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            reason = f"it took more than {limit:.0f} s"
        else:
            if status:
                output.seek(0)
                said = output.read().decode(errors="replace").strip().splitlines()
                reason = said[-1] if said else f"it ended with status {status}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if reason or not rows:
        rows.append(_failed(name, reason or "it measured nothing"))
    return rows


def _failed(section: str, reason: str) -> dict[str, Any]:
    return {"section": section, "what": "", "failed": reason}


def write(report: dict[str, Any], path: Path) -> None:
    """The JSON file and, beside it, the table; each complete or not at all."""
    with complete(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
    with complete(table_path(path)) as temporary:
        temporary.write_text(markdown(report))


def table_path(path: Path) -> Path:
    """Where the table of a JSON file lies."""
    return path.with_suffix(".md")


def markdown(report: dict[str, Any]) -> str:
    """The report as a table, with machine and versions under it."""
    lines = ["| section | what | measured | target | |", "|---|---|---|---|---|", *lines_of(report["rows"])]
    machine = ", ".join(f"{name} {value}" for name, value in report["machine"].items())
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    parameters = ", ".join(f"{name} {value}" for name, value in report["parameters"].items())
    seconds = ", ".join(f"{name} {value:.0f}" for name, value in report["seconds"].items())
    lines += ["", machine, "", versions, "", parameters, "", f"seconds of the sections: {seconds}"]
    if report["unmet"]:
        lines += ["", f"not met here: {', '.join(report['unmet'])}"]
    return "\n".join(lines) + "\n"


def lines_of(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The lines of the table."""
    return [f"| {' | '.join(_cells(row))} |" for row in rows]


def _cells(row: dict[str, Any]) -> Sequence[str]:
    if "failed" in row:
        return row["section"], row["what"], f"failed: {row['failed']}".replace("|", "/"), "", ""
    value, unit, target = row["value"], row["unit"], row["target"]
    measured = value if isinstance(value, str) else f"{number_text(value)} {unit}".strip()
    wanted = "" if target is None else f"{'≤' if row['at_most'] else '≥'} {number_text(target)} {unit}".strip()
    return row["section"], row["what"], measured, wanted, {True: "met", False: "missed", None: ""}[row["met"]]
