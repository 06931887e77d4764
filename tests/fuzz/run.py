"""Mutated radiographs, tables, run lengths, JSON and YAML through the readers of every command; prints one table.

Exit status 1 where an input raised what is no clear error, took more than 10 s (of the processor; 30 or 60 by
the clock) or a process more than 1 GiB; such
inputs are saved, and named by how they are made: kind@seed@number.
"""

import dataclasses
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Here too where worker processes import this file, which are to have the modules beside it beforehand.
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "fuzz")]

import fuzz_images  # noqa: E402
import fuzz_tables  # noqa: E402
import tyro  # noqa: E402 (after the paths above)
from rich.console import Console  # noqa: E402
from rich.progress import track  # noqa: E402
from rich.table import Table  # noqa: E402


@dataclasses.dataclass
class Config:
    """Mutates small files and reads them as commands do, in worker processes."""

    images: int = 20_000
    """Radiographs (DICOM, PNG, JPEG)."""
    tables: int = 20_000
    """Tables, run lengths, JSON and YAML."""
    seed: int = 0
    """Other inputs."""
    n_workers: int = os.cpu_count() or 2
    """Processes that read."""
    save_path: Path = Path(tempfile.gettempdir()) / "xray-fuzz"
    """Folder for the inputs of breaches."""
    only: str = ""
    """Only kinds whose name holds this."""
    again: str = ""
    """Save this one input, kind@seed@number, and read nothing."""


def main(config: Config) -> int:
    """Exit status 0, or 1 if there was a breach."""
    from fuzz_files import write_originals

    console = Console(width=None if sys.stdout.isatty() else 120)
    breaches, sections = [], []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        kinds = [kind for kind in write_originals(folder / "originals") if config.only in kind]
        if config.again:
            console.print(f"saved {save(config.save_path, config.again, content_of(folder, config.again))}")
            return 0
        tables = [kind for kind in fuzz_tables.KINDS if config.only in kind]
        # Those need torch, which the other readers' processes are to be measured without.
        models = [kind for kind in tables if kind.startswith("model")]
        others = [kind for kind in tables if kind not in models]
        n_models = config.tables * len(models) // max(1, len(tables))
        texts, count_text = fuzz_tables.run_tables, fuzz_tables.count
        parts = (
            (
                "radiographs",
                kinds,
                config.images,
                fuzz_images.run_images,
                fuzz_images.count,
                fuzz_images.new_rows(kinds),
            ),
            ("texts", others, config.tables - n_models, texts, count_text, fuzz_tables.new_rows()),
            ("models", models, n_models, texts, count_text, fuzz_tables.new_rows()),
        )
        for title, chosen, n, run, count, rows in parts:
            if not chosen or not n:
                continue
            names = [
                fuzz_images.name_of(chosen[number % len(chosen)], config.seed, number // len(chosen))
                for number in range(n)
            ]
            start = time.perf_counter()
            outcomes = run(folder, names, config.n_workers)
            stderr = Console(stderr=True)
            for name, outcome in track(outcomes, title, len(names), console=stderr, disable=not stderr.is_terminal):
                if breach := count(rows, name, outcome):
                    breaches.append(breach)
                    where = save(config.save_path, name, content_of(folder, name), breach.what)
                    print(f"breach: {name}: {breach.what.strip().splitlines()[-1]}: {where}", file=sys.stderr)
            sections.append((title, rows, time.perf_counter() - start))
    console.print(table_of(sections))
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"seed {config.seed}, {config.n_workers} workers; this process took {own:.0f} MiB; {len(breaches)} breaches")
    return 1 if breaches else 0


def content_of(folder: Path, name: str) -> bytes:
    """The input of that name."""
    return fuzz_tables.made(name) if name.partition("@")[0] in fuzz_tables.KINDS else fuzz_images.made(folder, name)


def save(folder: Path, name: str, content: bytes, what: str = "") -> Path:
    """Writes an input, and what it did beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name.replace(" ", "_").replace("/", "_")
    path.write_bytes(content)
    if what:
        path.with_name(path.name + ".txt").write_text(what)
    return path


def table_of(sections: list) -> Table:
    """A line for each kind and one for all of a section."""
    table = Table(box=None, pad_edge=False)
    table.add_column("kind", no_wrap=True)
    for name in ("tried", "refused", "read", "crashes of workers", "slowest, s of processor", "highest memory, MiB"):
        table.add_column(name, justify="right")
    for title, rows, seconds in sections:
        found = [row for row in rows.values() if row.tried]
        for row in found:
            table.add_row(*cells(row.kind, [row]))
        table.add_row(*cells(f"[bold]all {title}, in {seconds:.0f} s", found), end_section=True)
    return table


def cells(title: str, rows: list) -> list[str]:
    """The line of some kinds together."""
    tried, refused, crashes = (sum(getattr(row, name) for row in rows) for name in ("tried", "refused", "crashes"))
    slowest, peak = max(row.slowest for row in rows), max(row.peak for row in rows)
    return [
        title,
        f"{tried}",
        f"{refused}",
        f"{tried - refused}",
        f"{crashes}",
        f"{slowest:.2f}",
        f"{peak / 2**20:.0f}",
    ]


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
