"""Decoding in worker processes: order, limits, and what becomes of files that kill their worker."""

import ctypes
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dicom_cases as cases
import numpy as np
import pytest
from pydicom import uid

from xray.errors import InputError
from xray.radiographs import workers as workers_module
from xray.radiographs.canvas import Canvas
from xray.radiographs.decoding import Decoded, Undecodable, decode_canvas, decode_canvases
from xray.radiographs.radiograph import read_radiograph

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def radiographs(tmp_path: Path) -> list[Path]:
    """Ten files of different sizes."""
    return [
        cases.save(tmp_path / f"{n:02}.dcm", cases.dataset(cases.chest_values(40 + n, 60 - 3 * n, seed=n), 12))
        for n in range(10)
    ]


def workers() -> list[int]:
    """Process ids of the living pool workers of this process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            children = b"pebble_pool_worker" in (entry / "comm").read_bytes() or (
                b"forkserver" in (entry / "cmdline").read_bytes() and is_descendant(int(entry.name))
            )
        except OSError:
            continue
        if children:
            found.append(int(entry.name))
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def is_descendant(pid: int) -> bool:
    """A grandchild: the fork server is a child of this process, its workers are the server's children."""
    try:
        return parent_of(parent_of(pid)) == os.getpid()
    except (OSError, IndexError):
        return False


# --- what workers are asked to do in place of decoding: importable, and named after what goes wrong -------------------


def kill_itself(index: int, path: Path, size: int) -> Decoded:
    if index % 4 == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return decode_canvas(index, path, size)


def crash_in_c(index: int, path: Path, size: int) -> Decoded:
    if index == 2:
        ctypes.string_at(0)
    return decode_canvas(index, path, size)


def hang(index: int, path: Path, size: int) -> Decoded:
    if index == 3:
        # In C, where no Python signal handler runs.
        ctypes.PyDLL(None).usleep(600_000_000)
    return decode_canvas(index, path, size)


def eat_memory(index: int, path: Path, size: int) -> Decoded:
    if index == 4:
        np.ones(2**29, dtype=np.uint8)
    return decode_canvas(index, path, size)


class Unpicklable(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("unpicklable")


def raise_unpicklable(index: int, path: Path, size: int) -> Decoded:
    if index == 5:
        raise Unpicklable(1, 2)
    return decode_canvas(index, path, size)


def return_unpicklable_always(index: int, path: Path, size: int) -> object:
    decoded = decode_canvas(index, path, size)
    decoded.canvas = BreaksTheReader()
    return decoded


def return_unpicklable(index: int, path: Path, size: int) -> Decoded:
    decoded = decode_canvas(index, path, size)
    if index == 6:
        decoded.canvas = BreaksTheReader()
    return decoded


class BreaksTheReader:
    def __reduce__(self) -> tuple:
        return (_fail, ())


def _fail() -> None:
    raise ImportError("cannot be rebuilt")


def sleep(index: int, path: Path, size: int) -> Decoded:
    time.sleep(0.5)
    return decode_canvas(index, path, size)


def list_modules(index: int, path: Path, size: int) -> Decoded:
    raise RuntimeError(" ".join(sorted(name for name in sys.modules if "." not in name)))


def note(index: int, path: Path, size: int) -> Decoded:
    path.with_suffix(".started").touch()
    return decode_canvas(index, path, size)


def check(outcomes: list, radiographs: list[Path], bad: dict[int, str]) -> None:
    """All files have an outcome, in order; the bad ones a reason, the others their canvas."""
    assert [outcome.index for outcome in outcomes] == list(range(len(radiographs)))
    assert [outcome.path for outcome in outcomes] == radiographs
    for outcome in outcomes:
        if outcome.index in bad:
            assert isinstance(outcome, Undecodable)
            assert bad[outcome.index] in outcome.reason
            assert outcome.path.name in outcome.reason
            assert str(outcome.path.parent) not in outcome.reason
        else:
            assert isinstance(outcome, Decoded), outcome
            radiograph = read_radiograph(outcome.path)
            assert (outcome.width, outcome.height) == (radiograph.width, radiograph.height)
            expected = Canvas(radiograph.width, radiograph.height, 32).letterbox(radiograph.pixels)
            assert np.array_equal(outcome.canvas, expected)


@pytest.mark.parametrize("n_workers", [0, 1, 3])
def test_decodes_in_order(n_workers: int, radiographs: list[Path]) -> None:
    radiographs[7].write_text("not a radiograph")
    radiographs[2].unlink()
    check(list(decode_canvases(radiographs, 32, n_workers)), radiographs, {7: "neither", 2: "no such file"})
    assert not workers()


def test_nothing_to_decode() -> None:
    assert list(decode_canvases([], 32, 2)) == []


@pytest.mark.parametrize(
    ("decode", "bad"),
    [
        (kill_itself, {1: "SIGKILL", 5: "SIGKILL", 9: "SIGKILL"}),
        (crash_in_c, {2: "SIGSEGV"}),
        (hang, {3: "longer than 6 s"}),
        (eat_memory, {4: "memory"}),
        (raise_unpicklable, {5: "Unpicklable: unpicklable"}),
    ],
)
def test_a_bad_file_costs_itself_only(decode: object, bad: dict[int, str], radiographs: list[Path]) -> None:
    outcomes = list(decode_canvases(radiographs, 32, 2, timeout=6, memory_limit=2**28, decode=decode))
    check(outcomes, radiographs, bad)
    assert not workers()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_broken_pool_is_replaced(radiographs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "GRACE", 1.0)
    outcomes = list(decode_canvases(radiographs, 32, 2, timeout=5, decode=return_unpicklable))
    check(outcomes, radiographs, {6: "disappeared"})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_pools_that_never_live_are_not_tried_for_ever(radiographs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "GRACE", 0.5)
    monkeypatch.setattr(workers_module, "MAX_BROKEN", 5)
    outcomes = decode_canvases(radiographs, 32, 1, timeout=0.5, decode=return_unpicklable_always)
    assert "disappeared" in next(outcomes).reason
    with pytest.raises(InputError, match="ended 5 times in a row"):
        next(outcomes)
    assert not workers()


def test_workers_killed_from_outside(radiographs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any moment, even while idle or talking to the parent, a worker costs at most the file it decodes."""
    monkeypatch.setattr(workers_module, "GRACE", 2.0)
    paths = radiographs * 8
    rng = np.random.default_rng(0)
    outcomes, n_killed = [], 0
    for outcome in decode_canvases(paths, 32, 2, timeout=20):
        outcomes.append(outcome)
        if len(outcomes) % 9 == 0:
            time.sleep(rng.uniform(0, 0.01))
            for pid in workers()[:1]:
                os.kill(pid, signal.SIGKILL)
                n_killed += 1
    assert n_killed >= 5
    assert [outcome.index for outcome in outcomes] == list(range(80))
    lost = [outcome for outcome in outcomes if isinstance(outcome, Undecodable)]
    assert len(lost) <= n_killed
    assert not workers()


def test_closing_stops_the_workers(radiographs: list[Path]) -> None:
    outcomes = decode_canvases(radiographs, 32, 2, decode=sleep)
    next(outcomes)
    assert workers()
    outcomes.close()
    assert not workers()


def test_a_forgotten_iterator_stops_its_workers(radiographs: list[Path]) -> None:
    outcomes = decode_canvases(radiographs, 32, 2, decode=sleep)
    next(outcomes)
    del outcomes
    gc.collect()
    assert not workers()


def test_few_files_are_under_way(radiographs: list[Path]) -> None:
    """Files are not decoded far ahead of what is taken, so memory stays constant."""
    outcomes = decode_canvases(radiographs, 32, 1, decode=note)
    next(outcomes)
    time.sleep(1)
    started = [path for path in radiographs if path.with_suffix(".started").exists()]
    outcomes.close()
    assert 1 <= len(started) <= 4


def test_workers_are_light(radiographs: list[Path]) -> None:
    outcome = next(decode_canvases(radiographs, 32, 1, decode=list_modules))
    modules = outcome.reason.split()
    assert "numpy" in modules
    assert not {"torch", "lightning", "matplotlib", "albumentations", "pandas", "scipy"} & set(modules)


INTERRUPTED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_decoding
from xray.radiographs.decoding import decode_canvases

if __name__ == "__main__":
    for outcome in decode_canvases([Path({path!r})] * 1000, 32, 2, timeout=2, decode=test_decoding.{decode}):
        print(outcome.index, flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("decode", ["sleep", "hang"])
def test_no_orphans_are_left(how: signal.Signals, decode: str, radiographs: list[Path], tmp_path: Path) -> None:
    """Ctrl-C, or the end of the command by force, ends every process of its session."""
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED.format(tests=str(Path(__file__).parent), path=str(radiographs[0]), decode=decode))
    process = subprocess.Popen(
        [sys.executable, str(script)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.3)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)
    else:
        process.kill()
    try:
        process.wait(timeout=600)
        # Where the command is killed while a decoder hangs, that one ends when its own time is up.
        deadline = time.monotonic() + 600
        while session_of(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not session_of(process.pid)
    finally:
        for pid in session_of(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


def session_of(leader: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEGExtended12Bit],
    ids=lambda syntax: syntax.keyword,
)  # fmt: skip
def test_damaged_codestreams(syntax: uid.UID, tmp_path: Path) -> None:
    """What a decoder written in C does with damaged data is its own affair: it costs that file only."""
    data = cases.save(tmp_path / "a.dcm", cases.dataset(cases.chest_values(), 12), syntax).read_bytes()
    rng = np.random.default_rng(0)
    paths = []
    for n in range(100):
        damaged = bytearray(data)
        for at in rng.integers(len(data) // 8, len(data), 1 + n % 4):
            damaged[at] = rng.integers(256)
        paths.append(tmp_path / f"{n:03}.dcm")
        paths[-1].write_bytes(damaged)
    outcomes = list(decode_canvases(paths, 32, 2, timeout=10))
    assert [outcome.index for outcome in outcomes] == list(range(100))
    crashed = [outcome for outcome in outcomes if isinstance(outcome, Undecodable) and "crashed" in outcome.reason]
    print(f"{syntax.keyword}: {sum(isinstance(o, Decoded) for o in outcomes)} decoded, {len(crashed)} crashed")
