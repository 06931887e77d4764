"""Which requests are being answered, by the tickets that their clients gave them; of all workers of one server."""

import contextlib
import hashlib
import json
import threading
from pathlib import Path
from typing import cast

from xray.files import complete
from xray.serving.worker import Place, State

REFRESH = 0.5
"""Seconds between two looks at how far the requests are, for other workers to read."""


class Tickets(dict[str, Place | None]):
    """Ticket → the place of its request, None while it comes in.

    folder: where several workers tell each other of theirs, each ticket in a file named by its hash; None for one.
    """

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self._folder = folder
        if folder is not None:
            threading.Thread(target=self._tell_now_and_then, name="tickets", daemon=True).start()

    def __setitem__(self, ticket: str, place: Place | None) -> None:
        super().__setitem__(ticket, place)
        self._tell(ticket)

    def __delitem__(self, ticket: str) -> None:
        super().__delitem__(ticket)
        if self._folder is not None:
            self._file(ticket).unlink(missing_ok=True)

    def state(self, ticket: str, n_waiting: int) -> tuple[State, int] | None:
        """How far a request is, and the number of radiographs before it; None where there is no such ticket.

        n_waiting: how many wait, for a request that still comes in.
        """
        if ticket in self:
            place = self[ticket]
            return ("receiving", n_waiting) if place is None else place.state
        if self._folder is not None:
            with contextlib.suppress(OSError, ValueError):
                name, before = json.loads(self._file(ticket).read_text())
                return cast(State, name), int(before)
        return None

    def _file(self, ticket: str) -> Path:
        assert self._folder is not None  # or nobody asks
        return self._folder / hashlib.sha256(ticket.encode()).hexdigest()

    def _tell(self, ticket: str) -> None:
        if self._folder is None or ticket not in self:
            return
        # Whoever asks gets no answer once: the request itself is not disturbed.
        with contextlib.suppress(OSError), complete(self._file(ticket)) as temporary:
            temporary.write_text(json.dumps(self.state(ticket, 0)))

    def _tell_now_and_then(self) -> None:
        pause = threading.Event()
        while not pause.wait(REFRESH):
            for ticket in list(self):
                with contextlib.suppress(KeyError):
                    self._tell(ticket)
                if ticket not in self and self._folder is not None:
                    self._file(ticket).unlink(missing_ok=True)
