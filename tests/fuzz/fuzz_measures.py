"""What is counted and measured of the inputs of a kind, and the limits that none may pass."""

import dataclasses
import resource
from pathlib import Path

MAX_SECONDS = 10.0
MAX_BYTES = 2**30


@dataclasses.dataclass(frozen=True)
class Breach:
    """An input that did what none may. name: says how it is made. what: what it did."""

    name: str
    what: str


@dataclasses.dataclass
class Row:
    """Counts of one kind. seconds: of the slowest input. peak: bytes of the process that read the most expensive."""

    kind: str
    tried: int = 0
    refused: int = 0
    crashes: int = 0
    slowest: float = 0.0
    peak: int = 0

    def add(self, refused: bool, seconds: float, peak: int) -> None:
        """Counts an input that a worker survived."""
        self.tried += 1
        self.refused += refused
        self.slowest, self.peak = max(self.slowest, seconds), max(self.peak, peak)
        self._last = seconds, peak

    def breach(self, name: str) -> Breach | None:
        """Whether the input counted last passed a limit."""
        seconds, peak = self._last
        if seconds > MAX_SECONDS:
            return Breach(name, f"took {seconds:.1f} s")
        if peak > MAX_BYTES:
            return Breach(name, f"its process took {peak / 2**20:.0f} MiB")
        return None


def reset_peak() -> None:
    """Lets the peak of this process start anew from what it holds."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # the peak then is that of all inputs so far
        return


def peak_of_process() -> int:
    """The most bytes that this process held since `reset_peak`."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
