"""Places that are counted, in all and for each address, so that no client takes those of the others."""

import collections
import contextlib
import threading
from collections.abc import Callable, Iterator


class Places:
    """A bounded number of places; any thread may ask. total: in all. each: of one address."""

    def __init__(self, total: int, each: int) -> None:
        self.total, self.each = total, each
        self._taken: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many are taken."""
        with self._lock:
            return self._taken.total()

    def take(self, address: str) -> bool:
        """Takes a place for an address; False where none is left for it."""
        with self._lock:
            if self._taken.total() >= self.total or self._taken[address] >= self.each:
                return False
            self._taken[address] += 1
            return True

    def give(self, address: str) -> None:
        """Gives a place back."""
        with self._lock:
            self._taken[address] -= 1
            # Without this, every address that ever asked would be remembered.
            if self._taken[address] <= 0:
                del self._taken[address]

    @contextlib.contextmanager
    def taken(self, address: str) -> Iterator[bool]:
        """A place for as long as the block runs → whether there is one."""
        has = self.take(address)
        try:
            yield has
        finally:
            if has:
                self.give(address)


class Waiting:
    """Connections that have not said yet what they want, oldest first; any thread may ask.

    Where there are too many the oldest is ended, not the newest refused: who has something to say says it at once, and
    those who stay silent cannot shut others out. total: in all. each: of one address.
    """

    def __init__(self, total: int, each: int) -> None:
        self.total, self.each = total, each
        self._of: dict[object, tuple[str, Callable[[], None]]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many wait."""
        with self._lock:
            return len(self._of)

    def __contains__(self, connection: object) -> bool:
        """Whether a connection still waits, and was not ended for another."""
        with self._lock:
            return connection in self._of

    def add(self, connection: object, address: str, end: Callable[[], None]) -> None:
        """Notes a connection; `end` ends it, and is called by whoever makes it one too many."""
        with self._lock:
            same = [other for other, (of, _) in self._of.items() if of == address]
            too_many = same[: max(0, len(same) - self.each + 1)]
            if not too_many and len(self._of) >= self.total:
                too_many = [next(iter(self._of))]
            ends = [self._of.pop(other)[1] for other in too_many]
            self._of[connection] = (address, end)
        for end_other in ends:
            end_other()

    def remove(self, connection: object) -> None:
        """A connection has said what it wants, or is gone; one that is not known is no error."""
        with self._lock:
            self._of.pop(connection, None)
