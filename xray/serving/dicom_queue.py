"""The queue of the DICOM node on disk: takes radiographs, hands out work, keeps answers until they are sent.

dicom_queue_store.py says what lies where, and why nothing is lost.
"""

import dataclasses
import enum
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from xray.files import sync
from xray.serving.dicom_contents import Contents
from xray.serving.dicom_queue_store import QueueStore, move, remove


class Taken(enum.Enum):
    """What became of an instance that came: it is new, was known and is not answered again, or there is no room."""

    NEW = "new"
    REPEATED = "repeated"
    FULL = "full"


@dataclasses.dataclass(frozen=True)
class Work:
    """A radiograph to be answered. edition: empty, or what tells its answers from those of the same UID."""

    number: int
    uid: str
    edition: str
    path: Path


@dataclasses.dataclass(frozen=True)
class Answer:
    """An object to be sent. attempts: how often that was tried. transaction: of its storage commitment."""

    number: int
    uid: str
    sop_class: str
    path: Path
    attempts: int
    transaction: str


class Queue(QueueStore):
    """The queue in a folder, which one process has open; any thread may call."""

    def new_path(self) -> Path:
        """Where an instance may be written that is being received."""
        return self._coming / f"{secrets.token_hex(8)}.dcm"

    def take(self, path: Path, uid: str, contents: Contents, most: int) -> Taken:
        """Takes a file that was written to `new_path()`; where it is NEW, it is in the queue for good.

        uid: SOP Instance UID. most: radiographs that may wait. What comes again with the same bytes or the same content
        is not answered again; but if its answer failed, that is sent again, or made again.
        """
        with self._lock:
            now = self._clock()
            known = self._db.execute("SELECT * FROM received WHERE uid = ?", (uid,)).fetchall()
            sent, digest = contents
            same = next((row for row in known if sent == row["sent"] or digest == row["digest"]), None)
            if same is not None and (same["state"] != "failed" or self._send_failed(same["id"])):
                return Taken.REPEATED
            if self._count("received", "waiting") >= most:
                return Taken.FULL
            moved = self._received / path.name
            move(path, moved)
            try:
                with self._writing():
                    if same is not None:
                        self._db.execute(
                            "UPDATE received SET state = 'waiting', file = ?, starts = 0, at = ? WHERE id = ?",
                            (path.name, now, same["id"]),
                        )
                    else:
                        self._db.execute(
                            "INSERT INTO received (uid, sent, digest, edition, state, file, at) "
                            "VALUES (?, ?, ?, ?, 'waiting', ?, ?)",
                            (uid, sent, digest, digest if known else "", path.name, now),
                        )
            except sqlite3.Error:  # such as a full disk: it is not acknowledged
                remove(moved)
                raise
            if same is not None and same["file"]:
                remove(self._received / same["file"])
            self.changed.notify_all()
            return Taken.NEW

    def wait(self, seconds: float) -> None:
        """Waits until there is something to do, but no longer than so."""
        with self.changed:
            self.changed.wait(seconds)

    def is_full(self, most: int) -> bool:
        """Whether as many radiographs wait as may."""
        return self._count("received", "waiting") >= most

    def next_work(self) -> Work | None:
        """The radiograph whose turn it is, which is worked on from now on; those that ended the node come last."""
        with self._lock:
            row = self._db.execute(
                "SELECT * FROM received WHERE state = 'waiting' ORDER BY starts, id LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            with self._writing():
                self._db.execute(
                    "UPDATE received SET state = 'working', starts = starts + 1 WHERE id = ?", (row["id"],)
                )
            return Work(row["id"], row["uid"], row["edition"], self._received / row["file"])

    def answered(self, work: Work, answers: Sequence[tuple[str, str, Callable[[Path], None]]]) -> None:
        """The answers of a radiograph: (SOP Instance UID, SOP Class UID, what writes the file) of each.

        Once they are all on the disk, the radiograph's file is removed.
        """
        rows = []
        for uid, sop_class, write in answers:
            path = self._answers / f"{secrets.token_hex(8)}.dcm"
            write(path)
            sync(path)
            rows.append((work.number, uid, sop_class, path.name, self._clock(), self._clock()))
        if rows:
            sync(self._answers)
        with self._writing():
            self._db.executemany(
                "INSERT INTO answers (received, uid, sop_class, file, state, due, at) "
                "VALUES (?, ?, ?, ?, 'returning', ?, ?)",
                rows,
            )
            self._db.execute(
                "UPDATE received SET state = ?, file = '', at = ? WHERE id = ?",
                ("returning" if rows else "answered", self._clock(), work.number),
            )
            self.changed.notify_all()
        remove(work.path)

    def unusable(self, work: Work, why: str, is_kept: bool) -> None:
        """There is no answer for a radiograph. is_kept: whether its file is, to try it again on demand."""
        with self._writing():
            self._db.execute(
                "UPDATE received SET state = 'failed', file = ?, why = ?, at = ? WHERE id = ?",
                (work.path.name if is_kept else "", why, self._clock(), work.number),
            )
        if not is_kept:
            remove(work.path)

    def due_answers(self, most: int, latest: float) -> list[Answer]:
        """Answers to be sent now, at most so many, those that are due longest first.

        latest: seconds ahead that one can be due; what is due later was written before the clock was set back.
        """
        now = self._clock()
        with self._lock:
            rows = self._db.execute(
                "SELECT * FROM answers WHERE state = 'returning' AND (due <= ? OR due > ?) ORDER BY due, id LIMIT ?",
                (now, now + latest, most),
            ).fetchall()
        return [self._answer(row) for row in rows]

    def seconds_to_next(self) -> float | None:
        """Seconds until the next answer is due; None where none waits."""
        with self._lock:
            due = self._db.execute("SELECT min(due) FROM answers WHERE state = 'returning'").fetchone()[0]
        return None if due is None else max(0.0, due - self._clock())

    def _answer(self, row: sqlite3.Row) -> Answer:
        path = self._answers / row["file"]
        return Answer(row["id"], row["uid"], row["sop_class"], path, row["attempts"], row["transaction_uid"])

    def returned(self, answer: Answer) -> None:
        """The other node has an answer, for good: its file is removed."""
        with self._writing():
            row = self._db.execute("SELECT received FROM answers WHERE id = ?", (answer.number,)).fetchone()
            self._db.execute("DELETE FROM answers WHERE id = ?", (answer.number,))
            if row is not None:
                self._settle(row["received"])
        remove(answer.path)

    def _settle(self, number: int) -> None:
        """Sets what became of a radiograph whose answers have changed."""
        rows = self._db.execute("SELECT state FROM answers WHERE received = ?", (number,)).fetchall()
        states = {row["state"] for row in rows}
        state = "returning" if states & {"returning", "stored"} else "failed" if states else "answered"
        self._db.execute("UPDATE received SET state = ?, at = ? WHERE id = ?", (state, self._clock(), number))

    def again(self, answer: Answer, seconds: float, why: str, has_failed: bool = True) -> None:
        """An answer is to be sent again in so many seconds. has_failed: whether this counts as an attempt."""
        with self._writing():
            self._db.execute(
                "UPDATE answers SET state = 'returning', attempts = attempts + ?, due = ?, why = ? WHERE id = ?",
                (int(has_failed), self._clock() + seconds, why, answer.number),
            )

    def failed(self, answer: Answer, why: str) -> None:
        """An answer is not sent any more; its file is kept."""
        with self._writing():
            self._db.execute(
                "UPDATE answers SET state = 'failed', attempts = attempts + 1, why = ?, at = ? WHERE id = ?",
                (why, self._clock(), answer.number),
            )
            row = self._db.execute("SELECT received FROM answers WHERE id = ?", (answer.number,)).fetchone()
            self._settle(row["received"])

    def stored(self, answers: Sequence[Answer], transaction: str, seconds: float) -> None:
        """The other node has stored answers, and is to commit to them within so many seconds."""
        with self._writing():
            self._db.executemany(
                "UPDATE answers SET state = 'stored', transaction_uid = ?, due = ? WHERE id = ?",
                [(transaction, self._clock() + seconds, answer.number) for answer in answers],
            )

    def uncommitted(self, transaction: str | None = None) -> list[Answer]:
        """Answers that were stored and not committed: those of a transaction, or all whose time is over."""
        where, value = ("transaction_uid = ?", transaction) if transaction else ("due <= ?", self._clock())
        with self._lock:
            rows = self._db.execute(f"SELECT * FROM answers WHERE state = 'stored' AND {where}", (value,)).fetchall()
        return [self._answer(row) for row in rows]

    def _send_failed(self, number: int) -> int:
        """Has failed answers of a radiograph sent again → how many."""
        with self._writing():
            count = self._db.execute(
                "UPDATE answers SET state = 'returning', attempts = 0, due = ? WHERE state = 'failed' AND received = ?",
                (self._clock(), number),
            ).rowcount
            if count:
                self._settle(number)
                self.changed.notify_all()
        return count

    def resend(self) -> int:
        """Has all that failed tried again: answers that are kept, and radiographs that are → how many of both."""
        with self._lock:
            rows = self._db.execute(
                "SELECT id FROM received WHERE state = 'failed' OR id IN "
                "(SELECT received FROM answers WHERE state = 'failed')"
            ).fetchall()
            count = sum(self._send_failed(row["id"]) for row in rows)
            with self._writing():
                count += self._db.execute(
                    "UPDATE received SET state = 'waiting', starts = 0 WHERE state = 'failed' AND file != ''"
                ).rowcount
            self.changed.notify_all()
        return count

    def backlog(self) -> int:
        """Answers that wait to be sent."""
        return self._count("answers", "returning")
