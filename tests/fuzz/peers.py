"""What pydicom's plain read, dcmread and pixel_array, makes of the same hostile DICOM files, a process for each.

python tests/fuzz/peers.py [--n 300 --seed 0]
"""

import collections
import dataclasses
import json
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "fuzz")]

MEBIBYTE = 2**20


@dataclasses.dataclass
class Config:
    """Reads the same mutated DICOM files with pydicom alone and with xray."""

    n: int = 300
    """Mutated DICOM files, the two denial-of-service files aside."""
    seed: int = 0
    """Other files."""
    timeout: int = 60
    """Seconds after which a process is ended."""
    memory: float = 12.0
    """GiB that a process may take."""


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What came of a file: "read", an exception's name, or how its process ended. peak: bytes on top of its start."""

    what: str
    seconds: float
    peak: int = 0


def plain(path: Path) -> None:
    """What every tutorial does."""
    import pydicom

    assert pydicom.dcmread(path, force=True).pixel_array.size


def ours(path: Path) -> None:
    """What every command does, without the pool's limits."""
    from xray.radiographs.radiograph import read_radiograph

    assert read_radiograph(path).pixels.size


def main(config: Config) -> None:
    """Prints what came of the mutated files, and a line for each denial-of-service file."""
    from fuzz_files import deflate_bomb, run_length_bomb, write_originals
    from fuzz_images import made, name_of

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        kinds = [kind for kind in write_originals(folder / "originals") if kind.startswith("dicom")]
        paths = [deflate_bomb(folder / "deflated, 261 kB"), run_length_bomb(folder / "RLE, 670 bytes")]
        for number in range(config.n):
            name = name_of(kinds[number % len(kinds)], config.seed, number // len(kinds))
            paths.append(folder / name)
            paths[-1].write_bytes(made(folder, name))
        for title, read in (("pydicom", plain), ("xray", ours)):
            for kind in kinds:  # whatever is imported at the first use, before anything is measured
                read_quietly(read, folder / "originals" / kind)
            found = [attempt(read, path, config) for path in paths]
            print(f"{title}:")
            for path, each in zip(paths[:2], found[:2], strict=True):
                print(f"  {path.name}: {each.what}, {each.seconds:.2f} s, {each.peak / MEBIBYTE:.0f} MiB")
            mutated = found[2:]
            counts = collections.Counter(each.what for each in mutated)
            print(f"  {len(mutated)} mutated files: {', '.join(f'{n} {what}' for what, n in counts.most_common())}")
            slowest, highest = max(each.seconds for each in mutated), max(each.peak for each in mutated)
            over = sum(each.seconds > 10 or each.peak > 2**30 for each in mutated)
            print(f"  slowest {slowest:.1f} s, highest {highest / MEBIBYTE:.0f} MiB, {over} over 10 s or 1 GiB")


def read_quietly(read: Callable[[Path], None], path: Path) -> str:
    """ "read", or the name of what it raised."""
    try:
        read(path)
    except MemoryError:
        return "MemoryError"
    except Exception as error:
        return type(error).__name__
    return "read"


def attempt(read: Callable[[Path], None], path: Path, config: Config) -> Attempt:
    """Reads one file in a process of its own, which holds nothing but the libraries."""
    from fuzz_measures import peak_of_process, reset_peak

    source, target = os.pipe()
    held = peak_of_process()
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        signal.alarm(config.timeout)
        resource.setrlimit(resource.RLIMIT_AS, (int(config.memory * 2**30),) * 2)
        reset_peak()
        before, start = peak_of_process(), time.perf_counter()
        what = read_quietly(read, path)
        result = [what, time.perf_counter() - start, peak_of_process() - before]
        os.write(target, json.dumps(result).encode())
        os._exit(0)
    os.close(target)
    with open(source, "rb") as pipe:
        said = pipe.read()
    _, status, usage = os.wait4(child, 0)
    if said:
        return Attempt(*json.loads(said))
    peak = max(0, usage.ru_maxrss * 1024 - held)
    ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status >> 8}"
    return Attempt("hangs" if ended == "SIGALRM" else f"ended by {ended}", time.perf_counter() - start, peak)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config))
