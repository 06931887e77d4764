"""Rows of images.npy as they are decoded, and a journal by which an interrupted conversion continues.

Canvases are appended to images.npy.part with plain writes (a mapping of a dataset larger than memory would count as
memory of the process); every few seconds the file is synced, and only then are the rows entered in the journal. Rows
that are not in the journal after a crash are cut off and decoded again.
"""

import contextlib
import io
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xray.datasets.store import JOURNAL
from xray.datasets.store_files import dtype_of
from xray.errors import InputError
from xray.file_names import CONVERSION, IMAGES
from xray.files import CheckedLog, differing

CHECKPOINT_SECONDS = 2.0


class Journal:
    """An open images.npy.part with its journal. Use as a context manager: leaving it enters all rows written.

    outcomes: one dict an image done so far, in the source's order: {"width", "height"} for a row written (the file's
    own size; "attributes" and "warnings" where there are any), {"reason", "detail"} for an image left out.
    """

    def __init__(
        self, folder: Path, size: int, fingerprint: dict[str, Any], discard: bool = False, bits: int = 8
    ) -> None:
        """Opens or continues the unfinished conversion in `folder`.

        fingerprint: what must not change between runs; the journal's first line.
        discard: an unfinished conversion with another fingerprint is thrown away instead of an InputError.
        bits: of a pixel, 8 or 16.
        """
        self.folder, self.size = folder, size
        self._dtype = dtype_of(bits)
        self.outcomes: list[dict[str, Any]] = []
        self._pending: list[dict[str, Any]] = []
        self._checked = time.monotonic()
        self._is_torn = False
        self._part = folder / f"{IMAGES}.part"
        self._log = CheckedLog(
            folder / JOURNAL, f"another conversion is writing into {folder}: wait for it, or stop it"
        )
        try:
            if not self._part.exists() and (folder / IMAGES).exists() and not (folder / CONVERSION).exists():
                # The last run ended between renaming the images and writing the rest.
                os.replace(folder / IMAGES, self._part)
            self._read(fingerprint, discard)
            if not self.outcomes:
                self._log.cut(0)
                self._log.append([fingerprint])
            self._rows = open(self._part, "r+b" if self._part.exists() else "w+b")  # noqa: SIM115 (closed on exit)
            self._rows.truncate(self._bytes(self.n_rows))
            self._rows.seek(self._bytes(self.n_rows))
        except BaseException:
            self._log.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: Any, *exception: object) -> None:
        try:
            self.checkpoint()
        finally:
            # What a full disk did not take once, it would refuse again.
            with contextlib.suppress(OSError):
                self._rows.close()
            self._log.close()

    @property
    def n_rows(self) -> int:
        """Rows written so far, with those not yet in the journal."""
        return sum("width" in outcome for outcome in self.outcomes)

    def add(
        self,
        canvas: np.ndarray,
        width: int,
        height: int,
        attributes: Mapping[str, str] | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        """Appends one (S, S) canvas, uint8 or uint16, of a file with these sides, attributes and kinds of warning."""
        self._rows.write(np.ascontiguousarray(canvas, dtype=self._dtype).data)
        extra: dict[str, Any] = {"attributes": dict(attributes)} if attributes else {}
        if warnings:
            extra["warnings"] = list(warnings)
        self._note({"width": int(width), "height": int(height), **extra})

    def leave_out(self, reason: str, detail: str = "") -> None:
        """Notes an image that gets no row."""
        self._note({"reason": reason, "detail": detail})

    def checkpoint(self) -> None:
        """Makes everything so far survive a crash."""
        if self._is_torn:
            return
        # After Ctrl-C or a full disk in between, it is not known what the log holds. An outcome that is written twice
        # would shift all rows after it: nothing more is written, and the next run reads what is there.
        self._is_torn = True
        self._rows.flush()
        os.fsync(self._rows.fileno())
        self._log.append(self._pending, sync=True)
        self._pending.clear()
        self._checked = time.monotonic()
        self._is_torn = False

    def complete(self) -> Path:
        """Writes the array's header over its place at the front; returns the finished but not yet renamed file."""
        self.checkpoint()
        self._rows.seek(0)
        self._rows.write(self._header(self.n_rows))
        self._rows.flush()
        os.fsync(self._rows.fileno())
        return self._part

    def _note(self, outcome: dict[str, Any]) -> None:
        self.outcomes.append(outcome)
        self._pending.append(outcome)
        if time.monotonic() - self._checked > CHECKPOINT_SECONDS:
            self.checkpoint()

    def _read(self, fingerprint: dict[str, Any], discard: bool) -> None:
        """Fills `outcomes` from the journal, and cuts off what is damaged or has lost its pixels."""
        lines = self._log.read()
        before, outcomes = next(lines, {}), list(lines)
        names = differing(before, fingerprint)
        if names and outcomes and not discard:
            values = ", ".join(
                f"{name} was {_short(before.get(name))}, now {_short(fingerprint.get(name))}" for name in names
            )
            raise InputError(
                f"{self.folder} holds an unfinished conversion with other parameters ({values}): "
                "repeat the first command to continue with it, or add --overwrite to start again"
            )
        n_left = (self._part.stat().st_size - self._bytes(0)) // self._bytes_a_row if self._part.exists() else -1
        for outcome in outcomes if not names else []:
            n_left -= "width" in outcome
            if n_left < 0:
                break
            self.outcomes.append(outcome)
        self._log.cut(len(self.outcomes) + 1)

    def _header(self, n_rows: int) -> bytes:
        # NumPy pads the header so that the first axis may grow in place: its length does not depend on n_rows.
        header = io.BytesIO()
        description = {"descr": self._dtype.str, "fortran_order": False, "shape": (n_rows, self.size, self.size)}
        np.lib.format.write_array_header_1_0(header, description)
        return header.getvalue()

    def _bytes(self, n_rows: int) -> int:
        return len(self._header(0)) + n_rows * self._bytes_a_row

    @property
    def _bytes_a_row(self) -> int:
        return self.size**2 * self._dtype.itemsize


def _short(value: object) -> str:
    return f"{value[:8]}…" if isinstance(value, str) and len(value) > 20 else str(value)
