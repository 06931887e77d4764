"""The commands as processes of their own, on any number of small radiographs: what they take and how that grows."""

import dataclasses
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.errors import InputError
from xray.files import complete
from xray.findings import FINDINGS, NO_FINDING, NO_FINDING_NAME

if TYPE_CHECKING:
    from benchmarks.memory import Memory

ROOT = Path(__file__).resolve().parents[1]
INTERVAL = 0.1
"""Seconds between two looks at the memory."""
READERS = ("R1", "R2", "R3")
PICTURES = 16
"""Different radiographs among all that are written."""


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a command and its processes took.

    cpu_seconds: of processor time. held: most bytes of memory held at once, pages that processes share counted once.
    resident: with the pages of mapped files, which the system takes back when it needs them.
    """

    seconds: float
    cpu_seconds: float
    held: int
    resident: int


def write_radiographs(folder: Path, n_images: int, image_size: int) -> None:
    """Writes VinBigData's layout: DICOM files and train.csv with the rows of three readers, half of them without boxes.

    image_size: the longer side is a fifth more than this, in pixels.
    """
    from benchmarks.conversion import draw_pixels, write_dicom

    (folder / "train").mkdir(parents=True)
    height, width = round(1.2 * image_size), image_size
    rng = np.random.default_rng(0)
    tails = [draw_pixels(width, height, rng).tobytes() for _ in range(PICTURES)]
    template = folder / "train" / "template"
    write_dicom(template, np.frombuffer(tails[0], dtype=np.uint16).reshape(height, width), "MONOCHROME2")
    head = template.read_bytes()[: -len(tails[0])]
    template.unlink()
    rows = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
    for number in range(n_images):
        name = f"{number:06d}"
        (folder / "train" / f"{name}.dicom").write_bytes(head + tails[number % PICTURES])
        if number % 2:
            rows += [f"{name},{NO_FINDING_NAME},{NO_FINDING},{reader},,,," for reader in READERS]
            continue
        for finding in (number % len(FINDINGS), (number // 2) % len(FINDINGS)):
            x, y = rng.integers(0, width // 2, 2).tolist()
            side = width // 3
            rows += [
                f"{name},{FINDINGS[finding]},{finding},{reader},{x + shift},{y},{x + shift + side},{y + side}"
                for shift, reader in enumerate(READERS)
            ]
    (folder / "train.csv").write_text("\n".join(rows) + "\n")


def _convert(config: "Memory", folder: Path) -> list[str]:
    return [
        "tools/convert.py", "vinbig", f"--data-path={folder}/raw", f"--save-path={folder}/data",
        f"--image-size={config.image_size}", f"--n-workers={config.n_workers}",
    ]  # fmt: skip


def _train(config: "Memory", folder: Path) -> list[str]:
    return [
        "xray/train.py", f"--data-path={folder}/data", f"--save-path={folder}/run", f"--device={config.device}",
        f"--batch-size={config.batch_size}", f"--n-workers={config.n_workers}", "--n-epochs=1", "--normals=1",
        "--weights=none", "--backbone=mobilenet_v2", "--fpn-channels=16", "--rpn-samples=32", "--roi-samples=8",
        "--proposals=32", "--max-detections=10", "--n-pictures=0", "--lr=0.001",
    ]  # fmt: skip


def _infer(config: "Memory", folder: Path) -> list[str]:
    return [
        "tools/infer.py", f"--weights={folder}/run", f"--data-path={folder}/raw/train", f"--save-path={folder}/found",
        f"--device={config.device}", f"--batch-size={config.batch_size}", f"--n-workers={config.n_workers}", "--no-tta",
    ]  # fmt: skip


def _evaluate(config: "Memory", folder: Path) -> list[str]:
    return [
        "tools/evaluate.py", f"--predictions={folder}/found/predictions.json", f"--data-path={folder}/data",
        f"--save-path={folder}/report",
    ]  # fmt: skip


COMMANDS: dict[str, Callable[["Memory", Path], list[str]]] = {
    "convert": _convert,
    "train": _train,
    "infer": _infer,
    "evaluate": _evaluate,
}
"""Stages in their order, each with the command for (config, folder)."""


def run(command: Sequence[str]) -> Usage:
    """Runs a Python command of the repository, its path first, and watches all its processes.

    Raises InputError if it fails, or on a system without Linux's /proc.
    """
    if not Path("/proc/self/smaps_rollup").is_file():
        raise InputError("this system does not tell how much memory processes hold: run this benchmark on Linux")
    before, start = _processor_seconds(), time.perf_counter()
    held = resident = 0
    with tempfile.TemporaryFile() as errors:
        # Its own session, by which the processes that it starts are known.
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=errors, stderr=errors, start_new_session=True
        )
        try:
            while process.poll() is None:
                sample = memory_of_session(process.pid)
                held, resident = max(held, sample[0]), max(resident, sample[1])
                time.sleep(INTERVAL)
            seconds = time.perf_counter() - start
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines() or ["it says nothing"]
            raise InputError(f"{command[0]} ended with status {process.returncode}: {lines[-1]}")
    return Usage(seconds, _processor_seconds() - before, held, resident)


def memory_of_session(session: int) -> tuple[int, int]:
    """(held, resident) in bytes of all processes of a session, as in Usage."""
    held = resident = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name, in parentheses, may hold spaces; the session is the fourth field after it.
            if int((entry / "stat").read_text().rpartition(")")[2].split()[3]) != session:
                continue
            lines = (entry / "smaps_rollup").read_text().splitlines()[1:]
        except (OSError, IndexError, ValueError):
            continue  # it has ended meanwhile
        pages = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        held += pages.get("Pss_Anon", 0) + pages.get("Pss_Shmem", 0) + pages.get("SwapPss", 0)
        resident += pages.get("Pss", 0) + pages.get("SwapPss", 0)
    return held, resident


def _processor_seconds() -> float:
    """Of all processes that were started and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def fit(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """How time and memory grow over rows of `Usage` with `n_images`, ascending.

    exponent, cpu_exponent: p of the least-squares line through log(t − t₀) over log(n − n₀), the first row being 0, so
    that what a command takes to start does not count; None below three rows, or where time did not grow.
    seconds_per_image, held_per_image: between the first row and the last.
    """
    numbers = np.array([row["n_images"] for row in rows], dtype=np.float64)
    found: dict[str, float | None] = {}
    for name, column in (("exponent", "seconds"), ("cpu_exponent", "cpu_seconds")):
        more = np.array([row[column] for row in rows[1:]]) - rows[0][column]
        found[name] = None
        if len(more) > 1 and (more > 0).all():
            found[name] = float(np.polyfit(np.log(numbers[1:] - numbers[0]), np.log(more), 1)[0])
    for name, column in (("seconds_per_image", "seconds"), ("held_per_image", "held")):
        found[name] = (rows[-1][column] - rows[0][column]) / (numbers[-1] - numbers[0])
    return found


def draw(report: dict[str, Any], path: Path) -> None:
    """Writes the figure: time and memory over the number of radiographs, both axes logarithmic."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    results = report["results"]
    figure = Figure(figsize=(8.4, 3.9), dpi=150, layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, column, scale, label in (
        (panels[0], "seconds", 1, "seconds"),
        (panels[1], "held", 2**20, "peak memory held, MiB"),
    ):
        # Colours that any colour vision tells apart, and a marker each.
        for (stage, rows), colour, marker in zip(
            results.items(), ("#0072B2", "#D55E00", "#009E73", "#6B4C9A"), "osD^", strict=False
        ):
            numbers = [row["n_images"] for row in rows]
            panel.plot(numbers, [row[column] / scale for row in rows], color=colour, marker=marker, label=stage)
        values = [row[column] / scale for rows in results.values() for row in rows]
        # Whole decades, or the noise of what is flat would fill the panel.
        decades = 10.0 ** np.array([math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))])
        panel.set(xscale="log", yscale="log", xlabel="radiographs", ylabel=label, ylim=decades)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
            axis.set_minor_formatter(NullFormatter())
        panel.grid(color="#dde2e7", which="major")
        panel.spines[["top", "right"]].set_visible(False)
    least, most = (end(row["n_images"] for rows in results.values() for row in rows) for end in (min, max))
    low, high = panels[0].get_ylim()
    panels[0].plot([least, most], [high * least / most, high], color="#9aa4ae", linestyle=":", label="linear")
    panels[0].set_ylim(low, high)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    with complete(path) as temporary:
        figure.savefig(temporary, format="png")
