"""Whose turn it is at a server whose places are all taken: each refused client gets a turn of its own, in the order in
which they came, and a client that comes back at its turn goes before those that come for the first time.

A client is known by its ticket if it sends one (X-Ticket, the same each time); without, by its address: whoever comes
from there when a turn of that address is due takes the one that was given first.
"""

import asyncio
import collections
import dataclasses
import itertools
import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from xray.serving.worker import BusyError, RefusedError

T = TypeVar("T")

GRACE = 10.0
"""Seconds after its time for which a turn is kept for a client that does not come."""
EARLY = 0.2
"""Seconds before its time that a client may come: it counts from another moment."""
SHORTEST = 1.0
LONGEST = 900
"""Seconds that a client is told to wait at most."""
MOST, EACH = 4096, 1024
"""Turns that are given, in all and to one client or address; beyond, clients are told to come back much later."""
LINE_SECONDS = 60.0
"""For which a request that has come in whole waits for a place."""
LOOK = 0.02


@dataclasses.dataclass
class _Turn:
    number: int
    key: str
    due: float


class Turns:
    """Turns of the clients that were refused; for one thread.

    free: places that are free now. seconds: that a place takes to become free, on average. clock: seconds.
    """

    def __init__(
        self, free: Callable[[], int], seconds: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._free, self._seconds, self._clock = free, seconds, clock
        self._turns: dict[int, _Turn] = {}
        self._of: collections.Counter[str] = collections.Counter()
        self._numbers = itertools.count()
        self._line: collections.deque[object] = collections.deque()

    def __len__(self) -> int:
        """How many turns have been given and not been taken."""
        return len(self._turns)

    @property
    def line(self) -> int:
        """Requests that have come in whole and wait for a place."""
        return len(self._line)

    def ask(self, key: str, has_room: bool = True) -> None:
        """Lets a client in, or raises BusyError with the seconds after which its turn comes.

        key: the client's ticket or address. has_room: whether it could come in, as far as others decide that.
        """
        now = self._clock()
        self._drop_missed(now)
        own = next((turn for turn in self._turns.values() if turn.key == key), None)
        is_due = own is not None and own.due - EARLY <= now
        # Those whose turn has come, and was given before this client's.
        before = sum(
            turn.due - EARLY <= now and (own is None or not is_due or turn.number < own.number)
            for turn in self._turns.values()
        )
        is_known = own is not None and (is_due or key.startswith(TICKET))
        if has_room and self._free() - self.line > before:
            if own is not None and is_known:
                self._drop(own)
            return
        if own is not None and is_known:
            if is_due:
                rank = sum(turn.number < own.number for turn in self._turns.values())
                own.due = now + max(SHORTEST, self._seconds() * (rank + 1))
            raise BusyError(_whole(own.due - now))
        if len(self._turns) >= MOST or self._of[key] >= EACH:
            raise BusyError(LONGEST)
        # One after the other, as places become free.
        last = max((turn.due for turn in self._turns.values()), default=now)
        due = min(max(last, now) + self._seconds(), now + LONGEST)
        turn = _Turn(next(self._numbers), key, max(due, now + SHORTEST))
        self._turns[turn.number] = turn
        self._of[key] += 1
        raise BusyError(_whole(turn.due - now))

    def _drop(self, turn: _Turn) -> None:
        del self._turns[turn.number]
        self._of[turn.key] -= 1
        if self._of[turn.key] <= 0:
            del self._of[turn.key]

    def _drop_missed(self, now: float) -> None:
        for turn in [turn for turn in self._turns.values() if turn.due + GRACE < now]:
            self._drop(turn)

    async def enter(self, enter: Callable[[], T], is_gone: Callable[[], Awaitable[bool]]) -> T:
        """A place, once those who waited before have theirs.

        enter: takes one, or raises BusyError. is_gone: whether the client has hung up.
        Raises BusyError where there is none for LINE_SECONDS, RefusedError where it has.
        """
        me = object()
        self._line.append(me)
        end = self._clock() + LINE_SECONDS
        try:
            while True:
                if self._line[0] is me:
                    try:
                        return enter()
                    except BusyError:
                        if self._clock() > end:
                            raise
                if await is_gone():
                    from xray.serving.uploads import GONE

                    raise RefusedError(GONE, "the client hung up")
                await asyncio.sleep(LOOK)
        finally:
            self._line.remove(me)


TICKET = "ticket "


def key_of(ticket: str | None, address: str) -> str:
    """By what a client is known."""
    return f"address {address}" if ticket is None else f"{TICKET}{ticket}"


def _whole(seconds: float) -> int:
    return min(LONGEST, max(1, math.ceil(seconds)))
