"""What the workers of one server say of themselves, so that whichever is asked speaks of all."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xray.files import complete

REFRESH = 0.5
"""Seconds between two times that a worker says how it is."""
FRESH = 30.0
"""Seconds after which one that has said nothing does not count as working."""


class Together:
    """The states of all workers, each in a file of its own, which `forget` removes once its worker has ended.

    A state is {"status": "ok" or another word, "dicom": numbers or None, name: number of the load, …}.
    folder: shared by the workers. number, of: as `Role` has them. state: of this worker. clock: seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        number: int,
        of: int,
        state: Callable[[], Mapping[str, Any]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._number, self._of, self._state, self._clock = folder, number, of, state, clock
        self._is_over = threading.Event()

    def tell(self) -> None:
        """Says how this worker is."""
        content = {**self._state(), "at": self._clock()}
        # Such as a full disk: the others take this one for one that does not work, and the next time may do.
        with contextlib.suppress(OSError), complete(_file(self._folder, self._number)) as temporary:
            temporary.write_text(json.dumps(content))

    def keep_telling(self) -> None:
        """Says so now and then, in a thread of its own, until `close`."""
        self.tell()
        threading.Thread(target=self._tell_now_and_then, name="workers", daemon=True).start()

    def _tell_now_and_then(self) -> None:
        while not self._is_over.wait(REFRESH):
            self.tell()

    def close(self) -> None:
        """Ends that thread."""
        self._is_over.set()

    def of_all(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """The state of the server. own: of this worker.

        Numbers of the load are added up; the DICOM node's are those of the worker that has it. "workers" says how many
        there should be, and how many work.
        """
        states = [own, *filter(None, map(self._read, range(self._of)))]
        working = [state for state in states if state["status"] == "ok"]
        counted = working or [own]
        names = [name for name, value in own.items() if isinstance(value, int)]
        found = {**own, **{name: sum(int(state.get(name, 0)) for state in counted) for name in names}}
        found["dicom"] = next((state["dicom"] for state in states if state.get("dicom") is not None), None)
        return {**found, "workers": {"wanted": self._of, "working": len(working)}}

    def _read(self, number: int) -> dict[str, Any] | None:
        """What another worker said last; None where it has said nothing for long, and of this one."""
        if number == self._number:
            return None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            state = json.loads(_file(self._folder, number).read_text())
            if abs(self._clock() - state["at"]) <= FRESH and isinstance(state["status"], str):
                return dict(state)
        return None


def forget(folder: Path, number: int) -> None:
    """A worker has ended: what it said of itself is over."""
    _file(folder, number).unlink(missing_ok=True)


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number}.json"
