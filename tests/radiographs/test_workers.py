"""Workers that stay: what becomes of work that raises, crashes, hangs or is cancelled, and that the others go on."""

import os
import signal
import time
from concurrent.futures import Future, wait
from pathlib import Path

import pytest

from xray.radiographs.radiograph import RadiographError
from xray.radiographs.workers import Failed, Workers, in_workers


def work(item: str) -> object:
    """Does what it is told, in the worker."""
    match item:
        case "raise":
            raise RadiographError("raise: no radiograph")
        case "fail":
            raise ValueError("oops")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(60)
        case "share":
            return [outcome for outcome, _ in in_workers(work, ["a", "b"], 2, str)], os.getpid()
        case "eat":
            return len(bytearray(2**31))
        case _:
            time.sleep(0.1 if item == "slow" else 0)
            return item, os.getpid()


@pytest.fixture(scope="module")
def workers():
    with Workers(2, __name__) as pool:
        yield pool


def test_works_in_other_processes(workers):
    results = [workers.submit(work, str(number), "name").result(30) for number in range(8)]
    assert [item for item, _ in results] == list("01234567")
    assert os.getpid() not in {process for _, process in results}


def test_a_worker_has_no_workers_of_its_own(workers):
    found, _ = workers.submit(work, "share", "name").result(30)
    assert found == ["a", "b"]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("raise", "raise: no radiograph"),
        ("fail", "name: ValueError: oops"),
        ("die", "name: its decoder crashed (SIGKILL)"),
        ("hang", "name: decoding it took longer than 0.5 s"),
        ("eat", "name: decoding it needs more memory than allowed"),
    ],
)
def test_a_fault_costs_its_item_alone(workers, item, reason):
    faulty = workers.submit(work, item, "name", timeout=0.5)
    others = [workers.submit(work, str(number), "name") for number in range(4)]
    assert faulty.result(30) == Failed(reason)
    assert [other.result(30)[0] for other in others] == list("0123")


def test_cancelled_work_never_starts(workers):
    busy = [workers.submit(work, "slow", "name") for _ in range(2)]
    left = workers.submit(work, "die", "name")
    assert left.cancel()
    assert not wait(busy, 30).not_done
    assert workers.submit(work, "on", "name").result(30)[0] == "on"


def test_leaving_ends_the_processes():
    with Workers(1, __name__) as pool:
        _, process = pool.submit(work, "first", "name").result(30)
        waiting = [pool.submit(work, "hang", "name") for _ in range(2)]
    assert all(future.cancelled() or isinstance(future.result(5), Failed) for future in waiting)
    deadline = time.monotonic() + 600
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{process}").exists()


def test_leaving_before_they_have_started_leaves_nobody_waiting():
    """As where a server's port is taken: the end of the process would wait for whoever waits for a job."""
    for _ in range(3):
        with Workers(1, __name__) as pool:
            waiting = [pool.submit(work, "hang", "name", 3600) for _ in range(2)]
            wait(waiting, 0.01)
        assert all(future.cancelled() or isinstance(future.result(600), Failed) for future in waiting)


def test_abandoned_work_is_ended_and_its_worker_replaced():
    with Workers(1, __name__) as pool:
        _, process = pool.submit(work, "first", "name").result(60)
        hanging = pool.submit(work, "hang", "name")
        after = pool.submit(work, "after", "name")
        deadline = time.monotonic() + 600
        while not any(one.job and one.job.future.running() for one in pool._under_way.values()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        pool.abandon(hanging)
        assert isinstance(hanging.result(60), Failed)
        assert after.result(60)[1] != process
        # What is done, or unknown, is no matter.
        pool.abandon(after)
        pool.abandon(Future())
