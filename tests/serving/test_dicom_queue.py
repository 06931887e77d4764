"""The queue on disk: killed at each step, it loses nothing that was acknowledged and answers nothing twice."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

pytest.importorskip("pynetdicom")
pytest.importorskip("highdicom")

from serving_cases import Clock

from xray.errors import InputError
from xray.serving import dicom_queue, dicom_queue_store
from xray.serving.dicom_contents import Contents
from xray.serving.dicom_queue import Queue, Taken
from xray.serving.dicom_queue_store import MAX_STARTS, REMEMBER, queue_folder

MOST = 100


class Killed(BaseException):
    """Stands for kill -9: nothing that would clean up may run afterwards."""


@pytest.fixture
def clock():
    return Clock(1e9)


@pytest.fixture
def queue(tmp_path, clock):
    opened = Queue(tmp_path / "queue", clock)
    yield opened
    opened.close()


def come(queue, uid, content="content", sent=None, most=MOST):
    """An instance comes in."""
    path = queue.new_path()
    path.write_text(f"{uid} Planted^Name")
    taken = queue.take(path, uid, Contents(sent or f"sent {uid} {content}", content), most)
    path.unlink(missing_ok=True)
    return taken


def answer(queue, work, *uids):
    queue.answered(work, [(uid, "1.2.3", lambda path: path.write_text("Planted^Name")) for uid in uids])


def due(queue):
    return queue.due_answers(100, latest=1000)


def names(queue):
    """Files of instances and answers."""
    return sorted(path for folder in ("coming", "received", "answers") for path in (queue.folder / folder).iterdir())


def test_an_instance_goes_through_and_leaves_only_its_record(queue):
    assert come(queue, "1.1") == Taken.NEW
    work = queue.next_work()
    assert work.path.read_text() == "1.1 Planted^Name"
    assert queue.next_work() is None
    answer(queue, work, "2.1", "2.2")
    assert not work.path.exists()
    for one in due(queue):
        queue.returned(one)
    assert names(queue) == []
    status = queue.status()
    assert status["answered"] == 1
    assert status["returning"] == status["waiting"] == status["working"] == status["oldest_seconds"] == 0
    everything = b"".join(path.read_bytes() for path in queue.folder.iterdir() if path.is_file())
    assert b"Planted" not in everything


def test_nobody_else_can_look_into_the_folder(queue):
    assert stat.S_IMODE(os.stat(queue.folder).st_mode) == 0o700
    with pytest.raises(InputError, match="is in use by another node"):
        Queue(queue.folder)


def test_a_folder_of_something_else_stays_as_it_is(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        Queue(tmp_path)
    assert stat.S_IMODE(os.stat(tmp_path).st_mode) == 0o755
    assert os.listdir(tmp_path) == ["thesis.txt"]
    with pytest.raises(InputError, match="cannot be used"):
        Queue(tmp_path / "thesis.txt")


def test_a_damaged_database_is_said_in_one_line(tmp_path):
    (tmp_path / "queue.db").write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match="cannot be used"):
        Queue(tmp_path)


def test_the_same_content_is_not_answered_again(queue):
    assert come(queue, "1.1") == Taken.NEW
    assert come(queue, "1.1") == Taken.REPEATED
    # The same pixels in other bytes, such as another transfer syntax; and the same bytes whose pixels nobody looked at.
    assert come(queue, "1.1", sent="compressed") == Taken.REPEATED
    assert come(queue, "1.1", "not known", sent="sent 1.1 content") == Taken.REPEATED
    answer(queue, queue.next_work(), "2.1")
    assert come(queue, "1.1") == Taken.REPEATED
    (one,) = due(queue)
    queue.returned(one)
    assert come(queue, "1.1") == Taken.REPEATED
    assert queue.next_work() is None


def test_other_content_under_the_same_uid_is_answered_under_another_one(queue):
    assert come(queue, "1.1", "first") == Taken.NEW
    assert come(queue, "1.1", "second") == Taken.NEW
    assert [queue.next_work().edition, queue.next_work().edition] == ["", "second"]
    assert come(queue, "1.1", "second") == Taken.REPEATED


def test_what_failed_is_sent_again_when_the_instance_comes_again(queue):
    come(queue, "1.1")
    answer(queue, queue.next_work(), "2.1", "2.2")
    first, second = due(queue)
    queue.returned(first)
    queue.failed(second, "status C000")
    assert queue.status()["failed"] == 1
    assert due(queue) == []
    assert come(queue, "1.1") == Taken.REPEATED
    assert [one.uid for one in due(queue)] == ["2.2"]
    # What gave no answer is made again.
    come(queue, "1.2")
    queue.unusable(queue.next_work(), "damaged", is_kept=False)
    assert queue.status()["unanswered"] == 1
    assert come(queue, "1.2") == Taken.NEW
    assert queue.next_work().uid == "1.2"


def test_what_failed_and_is_kept_can_be_tried_again(queue):
    for number in range(3):
        come(queue, f"1.{number}")
    works = [queue.next_work() for _ in range(3)]
    answer(queue, works[0], "2.0")
    queue.failed(due(queue)[0], "status A900")
    queue.unusable(works[1], "RuntimeError", is_kept=True)
    queue.unusable(works[2], "damaged", is_kept=False)
    assert queue.resend() == 2
    assert [one.uid for one in due(queue)] == ["2.0"]
    assert queue.next_work().uid == "1.1"
    assert queue.next_work() is None


def test_what_cannot_be_recorded_is_not_kept(queue, monkeypatch):
    def full(db):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(dicom_queue_store, "commit", full)
        with pytest.raises(sqlite3.OperationalError):
            come(queue, "1.1")
    assert not list((queue.folder / "received").iterdir())
    assert queue.status()["waiting"] == 0
    assert come(queue, "1.1") == Taken.NEW


def test_a_full_queue_takes_no_more(queue):
    assert [come(queue, f"1.{number}", most=2) for number in range(3)] == [Taken.NEW, Taken.NEW, Taken.FULL]
    assert len(names(queue)) == 2


def test_answers_come_back_when_their_pause_is_over(queue, clock):
    come(queue, "1.1")
    answer(queue, queue.next_work(), "2.1")
    queue.again(due(queue)[0], 60, "status A700")
    assert due(queue) == []
    assert queue.seconds_to_next() == 60
    clock.now += 61
    (one,) = due(queue)
    assert one.attempts == 1
    assert queue.status()["oldest_seconds"] == 61
    queue.again(one, 60, "status A700")
    # A clock that was set back by years would keep it for as long.
    clock.now -= 1e8
    assert len(due(queue)) == 1


def test_old_records_are_forgotten_with_their_files(queue, clock):
    come(queue, "1.1")
    answer(queue, queue.next_work())
    come(queue, "1.2")
    answer(queue, queue.next_work(), "2.2")
    queue.failed(due(queue)[0], "status C000")
    come(queue, "1.3")
    clock.now += REMEMBER + 1
    assert queue.prune() == 1
    assert len(names(queue)) == 1
    assert come(queue, "1.1") == Taken.NEW
    assert [queue.next_work().uid, queue.next_work().uid] == ["1.3", "1.1"]


def test_one_that_ends_the_node_each_time_comes_last_and_is_given_up(tmp_path):
    folder = tmp_path / "queue"
    queue = Queue(folder)
    come(queue, "1.1")
    come(queue, "1.2")
    assert queue.next_work().uid == "1.1"
    for _ in range(MAX_STARTS - 1):
        queue._stack.close()  # as a kill leaves it
        queue = Queue(folder)
        assert queue.next_work().uid == "1.2" or queue.next_work().uid == "1.1"
        queue._db.execute("UPDATE received SET state = 'waiting', starts = 0 WHERE uid = '1.2'")
        queue._db.execute(
            "UPDATE received SET starts = starts + (state = 'waiting'), state = 'working' WHERE uid = '1.1'"
        )
    queue._stack.close()
    queue = Queue(folder)
    assert queue.status()["unanswered"] == 1
    assert queue.next_work().uid == "1.2"
    queue.close()


def test_a_clean_end_is_no_start_that_failed(tmp_path):
    for _ in range(2 * MAX_STARTS):
        queue = Queue(tmp_path / "queue")
        come(queue, "1.1")
        assert queue.next_work().uid == "1.1"
        queue.close()


STEPS = ("sync", "move", "commit", "remove")


def run(queue, acknowledged, sent):
    """Two instances come, are answered, and their answers are sent; what was known before is not done again."""
    for number in range(2):
        if come(queue, f"1.{number}") in (Taken.NEW, Taken.REPEATED):
            acknowledged.add(f"1.{number}")
    while (work := queue.next_work()) is not None:
        answer(queue, work, f"{work.uid}.1", f"{work.uid}.2")
    for one in due(queue):
        assert "Planted" in one.path.read_text()
        sent.append(one.uid)
        queue.returned(one)


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_step_it_goes_on_where_it_stopped(tmp_path, monkeypatch, when):
    steps = {"done": 0, "fatal": None}

    def killing(function):
        def step(*arguments):
            number, steps["done"] = steps["done"], steps["done"] + 1
            if when == "before" and number == steps["fatal"]:
                raise Killed
            result = function(*arguments)
            if when == "after" and number == steps["fatal"]:
                raise Killed
            return result

        return step

    for module in (dicom_queue, dicom_queue_store):
        for name in STEPS:
            if hasattr(module, name):
                monkeypatch.setattr(module, name, killing(getattr(module, name)))
    n_kills = 0
    for at in range(200):
        folder = tmp_path / str(at)
        acknowledged, sent = set(), []
        steps["done"], steps["fatal"] = 0, at
        queue = None
        try:
            queue = Queue(folder)
            run(queue, acknowledged, sent)
            steps["fatal"] = None
            queue.close()
            break
        except Killed:
            n_kills += 1
        steps["fatal"] = None
        if queue is not None:
            queue._stack.close()
        queue = Queue(folder)
        # Each file is of a row, and each row has its file.
        known = {
            row["file"] for table in ("received", "answers") for row in queue._db.execute(f"SELECT file FROM {table}")
        }
        assert {path.name for path in names(queue)} == known - {""}
        rows = queue._db.execute("SELECT uid, count(*) FROM received GROUP BY uid").fetchall()
        assert {row["uid"] for row in rows} >= acknowledged
        assert all(row[1] == 1 for row in rows)
        run(queue, acknowledged, sent)
        assert acknowledged == {"1.0", "1.1"}
        assert set(sent) == {f"1.{number}.{part}" for number in range(2) for part in (1, 2)}
        # An answer is sent once more only if the kill fell between its sending and its record: with the same UID.
        assert len(sent) <= 5
        assert names(queue) == []
        assert queue.status()["answered"] == 2
        queue.close()
    else:
        pytest.fail("it has no end")
    assert n_kills > 20


def test_where_it_lies_by_default(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert queue_folder("A/B", 104) == tmp_path / "xray" / "dicom" / "A%2FB-104"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert queue_folder("XRAY", 104).parent == tmp_path / ".local" / "state" / "xray" / "dicom"
