"""What the sections of the benchmark `gpu` share: their settings, their rows, datasets and runs.

Heavy imports stand in functions, so that a section that lacks a package fails alone.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xray.file_names import ANNOTATIONS


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all sections have in common.

    folder: shared by the sections, which find the datasets in it that others drew.
    """

    device: str
    miniature: bool
    folder: Path

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**dataclasses.asdict(self), "folder": str(self.folder)}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Settings":
        """From what `plain` gave."""
        return cls(plain["device"], plain["miniature"], Path(plain["folder"]))

    def rows_of(self, section: str) -> Path:
        """Where a section's rows go, a line of JSON each."""
        return self.folder / f"{section}.jsonl"

    @property
    def image_size(self) -> int:
        """Side of the canvas, in pixels."""
        return 64 if self.miniature else 1024

    @property
    def backbone(self) -> Any:
        """Trunk of the detectors."""
        return "resnet18" if self.miniature else "resnet50"

    @property
    def batch_size(self) -> int:
        """Radiographs of a step."""
        return 2 if self.miniature else 16

    @property
    def n_workers(self) -> int:
        """Processes that load or draw."""
        from benchmarks.harness import n_cores

        return 0 if self.miniature else min(8, n_cores())


class Rows:
    """A section's rows, on disk as soon as they are known."""

    def __init__(self, section: str, path: Path, judged: bool = True) -> None:
        self.section, self.path, self.judged = section, path, judged

    def add(
        self, what: str, value: float | str, unit: str = "", target: float | None = None, at_most: bool = False
    ) -> None:
        """Adds one. target: of the value; at_most: it may not be higher, in place of not lower."""
        met = None
        if target is not None and self.judged and not isinstance(value, str):
            met = value <= target if at_most else value >= target
        self._write(what, value=value, unit=unit, target=target, at_most=at_most, met=met)

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """What fails inside becomes a row that says so; what comes after it goes on."""
        try:
            yield
        except Exception as error:  # of whatever library
            # PyTorch's messages are long; their first line says what happened.
            reason = (str(error).strip().splitlines() or [""])[0][:300]
            self._write(what, failed=f"{type(error).__name__}: {reason}".removeprefix("InputError: "))

    def _write(self, what: str, **values: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"section": self.section, "what": what, **values}) + "\n")


def dataset(settings: Settings, n_images: int) -> Path:
    """A dataset of phantoms, drawn by whichever section is first."""
    from benchmarks.material import open_material

    folder = settings.folder / f"{n_images}-phantoms-{settings.image_size}"
    if not (folder / "data" / ANNOTATIONS).exists():
        # What a section left that was ended while it drew is continued.
        open_material(None, folder, n_images, settings.image_size, settings.n_workers or 1)
    return folder / "data"


def made_run(settings: Settings, name: str) -> tuple[Path, Any]:
    """A run whose weights find about as much as trained ones, and four canvases, (4, S, S) uint8."""
    import numpy as np
    import torch

    from benchmarks.runs import made, write_run
    from xray.datasets.store import open_store

    store = open_store(dataset(settings, 4))
    assert store.images is not None
    canvases = np.array(store.images[:4])
    description, state = made(store, settings.backbone, torch.from_numpy(canvases[:2, None]))
    return write_run(settings.folder / name, description, state), canvases


def own_folder(settings: Settings, name: str) -> Path:
    folder = settings.folder / name
    folder.mkdir()
    return folder


def training_config(settings: Settings, repeats: int = 1, **flags: Any) -> Any:
    """The config of the benchmark `train`."""
    from benchmarks import train as benchmark

    n = settings.batch_size * 2
    config = benchmark.Config(
        data_path=dataset(settings, n),
        n_images=n,
        repeats=repeats,
        device=settings.device,
        n_steps=1 if settings.miniature else 8,
        batch_size=settings.batch_size,
        backbone=settings.backbone,
        n_workers=settings.n_workers,
    )
    if settings.miniature:
        config = dataclasses.replace(config, roi_samples=8, proposals=40)
    return dataclasses.replace(config, **flags)


def inference_config(settings: Settings, n_images: int) -> Any:
    """The config of the benchmark `infer`."""
    from benchmarks import infer as benchmark

    config = benchmark.Config(
        data_path=dataset(settings, n_images),
        n_images=n_images,
        device=settings.device,
        backbone=settings.backbone,
        n_workers=settings.n_workers,
    )
    return dataclasses.replace(config, precision="32", proposals=40) if settings.miniature else config
