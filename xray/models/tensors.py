"""Tensors of a run directory: complete on the disk or not there, and read without trusting what is in them."""

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from xray.files import replacing


def save_tensors(content: Any, path: Path) -> None:
    """`torch.save`, complete or not at all. Raises OSError where the disk is full."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        writer = _Writer(file)
        torch.save(content, writer)  # type: ignore[arg-type]  # write and flush are all that it calls
        if writer.error is not None:
            raise writer.error


class _Writer:
    """A file to hand to torch.save, whose C++ ends the process where writing to it raises an exception.

    error: what the first failed write raised; what came after it was not written.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: BaseException | None = None

    def write(self, data: Any) -> int:
        self._try(lambda: self._file.write(data))
        return len(data)

    def flush(self) -> None:
        self._try(self._file.flush)

    def _try(self, act: Callable[[], Any]) -> None:
        if self.error is None:
            try:
                act()
            except BaseException as error:  # Ctrl-C among them
                self.error = error


def load_tensors(path: Path, device: str = "cpu") -> Any:
    """`torch.load` with `weights_only`: numbers, texts, lists, dicts and tensors, and nothing else.

    device: "cpu", or "meta" for tensors without their values, which are then not read from the file.
    Raises OSError, or any other exception where the file is foreign, cut short, changed, or holds anything else.
    """
    if device != "meta" and zipfile.is_zipfile(path):
        _check_archive(path)
    with warnings.catch_warnings():
        # Of foreign pickles, which are refused in one line.
        warnings.simplefilter("ignore")
        return torch.load(path, map_location=device, weights_only=True)


def _check_archive(path: Path) -> None:
    """Raises ValueError unless the archive is as torch.save writes them: uncompressed, nothing twice, sums right."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # A small file must not unpack to more than the memory holds.
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its parts are compressed or overlap")
        # PyTorch itself reads over changed bytes.
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} has changed")
