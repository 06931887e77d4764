"""The queue of the DICOM node on disk: after a kill or a power failure, nothing that was acknowledged is missing.

A folder of mode 0700 with `queue.db` (SQLite, a write-ahead log, synced at each commit) and three folders of files:
`coming` holds what is being received, `received` the radiographs that wait for their answer, `answers` what another
node has not taken yet. A file is complete and synced before a row names it, and a row is gone before its file is, so
that a file without a row is a leftover: these are removed at the start. Rows hold identifiers (UIDs) and hashes, files
alone hold names of patients. A radiograph's file is removed once its answers lie on the disk, an answer's file once
the other node has it. The row of an answered radiograph stays for REMEMBER seconds, so that it is not answered twice.
"""

import contextlib
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from xray.errors import InputError
from xray.files import sync

try:
    import fcntl
except ImportError:  # Windows has no flock; there, two nodes with one queue are not told apart.
    fcntl = None  # type: ignore[assignment]

REMEMBER = 90 * 86_400.0
"""Seconds for which it is known what was answered, and for which files of what failed are kept."""
MAX_STARTS = 10
"""Times that work on one radiograph may begin, and the process end before it is done."""
VERSION = 1
_SCHEMA = """
CREATE TABLE received (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL,                  -- SOP Instance UID
    sent TEXT NOT NULL,                 -- hash of its bytes as they came
    digest TEXT NOT NULL,               -- of its content, see dicom_contents.py
    edition TEXT NOT NULL,              -- the digest, where other content came under the same UID before
    state TEXT NOT NULL,                -- waiting, working, returning, answered, failed
    file TEXT NOT NULL,
    starts INTEGER NOT NULL DEFAULT 0,
    why TEXT NOT NULL DEFAULT '',
    at REAL NOT NULL,                   -- seconds since 1970, of its arrival, later of its end
    UNIQUE (uid, digest)
);
CREATE INDEX received_by_state ON received (state, starts, id);
CREATE TABLE answers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    received INTEGER NOT NULL REFERENCES received (id) ON DELETE CASCADE,
    uid TEXT NOT NULL,                  -- SOP Instance UID
    sop_class TEXT NOT NULL,
    file TEXT NOT NULL,
    state TEXT NOT NULL,                -- returning, stored (not committed yet), failed
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL,                  -- when it is sent next, or sent again if it is not committed
    transaction_uid TEXT NOT NULL DEFAULT '',
    why TEXT NOT NULL DEFAULT '',
    at REAL NOT NULL
);
CREATE INDEX answers_by_due ON answers (state, due);
CREATE INDEX answers_by_received ON answers (received);
"""


class QueueStore:
    """The folder and the database of a queue, which one process has open; any thread may call.

    changed: notified when there is something to do. clock: seconds since 1970.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time, remember: float = REMEMBER) -> None:
        """Opens the queue, or makes it, and removes leftovers.

        Raises InputError where the folder cannot be used, is another one's, or is in use.
        """
        self.folder, self._clock, self._remember = folder, clock, remember
        self._coming, self._received, self._answers = (folder / name for name in ("coming", "received", "answers"))
        self._lock, self._stack = threading.RLock(), contextlib.ExitStack()
        self.changed = threading.Condition(self._lock)
        try:
            with contextlib.ExitStack() as stack:
                self._open(stack)
                self._stack = stack.pop_all()
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"--dicom-queue {folder} cannot be used ({reason}): give another folder") from None

    def _open(self, stack: contextlib.ExitStack) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        others = {path.name for path in self.folder.iterdir()} - {"lock"}
        if others and "queue.db" not in others:
            raise InputError(f"--dicom-queue {self.folder} holds something else: give an empty folder, or none yet")
        os.chmod(self.folder, 0o700)
        lock = stack.enter_context((self.folder / "lock").open("a"))
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(
                    f"--dicom-queue {self.folder} is in use by another node: end it, or give another folder"
                ) from None
        for path in (self._coming, self._received, self._answers):
            path.mkdir(mode=0o700, exist_ok=True)
        self._db = sqlite3.connect(self.folder / "queue.db", check_same_thread=False, isolation_level=None)
        stack.callback(self._db.close)
        self._db.row_factory = sqlite3.Row
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._db.execute(f"PRAGMA {pragma}")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
            sync(self.folder)
        elif version != VERSION:
            raise InputError(f"--dicom-queue {self.folder} was made by another version of xray: give another folder")
        self._clean()

    def close(self) -> None:
        """Closes the queue; what is in it stays."""
        with self._lock:
            with contextlib.suppress(sqlite3.Error), self._writing():
                # Work that is cut short now did not end the node.
                self._db.execute("UPDATE received SET state = 'waiting', starts = starts - 1 WHERE state = 'working'")
            self._stack.close()

    def _clean(self) -> None:
        """What was under way when the process ended begins again; files that no row names are removed."""
        with self._writing():
            self._db.execute("UPDATE received SET state = 'waiting' WHERE state = 'working'")
            self._db.execute(
                "UPDATE received SET state = 'failed', why = 'the node ended each time' "
                "WHERE state = 'waiting' AND starts >= ?",
                (MAX_STARTS,),
            )
        self.prune()
        named = {
            row["file"] for table in ("received", "answers") for row in self._db.execute(f"SELECT file FROM {table}")
        }
        for folder in (self._coming, self._received, self._answers):
            for path in folder.iterdir():
                if path.name not in named or folder == self._coming:
                    remove(path)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: all of it is on the disk when the block ends, or nothing."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                commit(self._db)
            except BaseException:
                # A full disk has it rolled back already.
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def prune(self) -> int:
        """Forgets what was answered, or failed, long ago → how many failed answers and radiographs went with it."""
        before = self._clock() - self._remember
        with self._writing():
            old = "SELECT id FROM received WHERE state IN ('answered', 'failed') AND at < ?"
            files = [
                *(
                    self._received / row["file"]
                    for row in self._db.execute(
                        f"SELECT file FROM received WHERE id IN ({old}) AND file != ''", (before,)
                    )
                ),
                *(
                    self._answers / row["file"]
                    for row in self._db.execute(f"SELECT file FROM answers WHERE received IN ({old})", (before,))
                ),
            ]
            self._db.execute(f"DELETE FROM received WHERE id IN ({old})", (before,))
        for path in files:
            remove(path)
        return len(files)

    def _count(self, table: str, state: str) -> int:
        with self._lock:
            return int(self._db.execute(f"SELECT count(*) FROM {table} WHERE state = ?", (state,)).fetchone()[0])

    def status(self) -> Mapping[str, int | float]:
        """Radiographs waiting, being worked on, answered and failed without an answer; answers returning, not
        committed and failed; seconds since the oldest arrived of those radiographs that are not answered yet."""
        with self._lock:
            of = {
                (kind, state): n
                for kind, state, n in self._db.execute(
                    "SELECT 'received', state, count(*) FROM received GROUP BY state "
                    "UNION ALL SELECT 'answers', state, count(*) FROM answers GROUP BY state"
                )
            }
            oldest = self._db.execute(
                "SELECT min(at) FROM (SELECT at FROM received WHERE state IN ('waiting', 'working') "
                "UNION ALL SELECT at FROM answers WHERE state IN ('returning', 'stored'))"
            ).fetchone()[0]
            without = self._db.execute(
                "SELECT count(*) FROM received WHERE state = 'failed' AND id NOT IN (SELECT received FROM answers)"
            ).fetchone()[0]
        return {
            "waiting": of.get(("received", "waiting"), 0),
            "working": of.get(("received", "working"), 0),
            "answered": of.get(("received", "answered"), 0),
            "unanswered": without,
            "returning": of.get(("answers", "returning"), 0),
            "uncommitted": of.get(("answers", "stored"), 0),
            "failed": of.get(("answers", "failed"), 0),
            "oldest_seconds": 0.0 if oldest is None else max(0.0, round(self._clock() - oldest, 3)),
        }


def move(source: Path, target: Path) -> None:
    """Gives a file that was written its place, for good."""
    sync(source)
    os.replace(source, target)
    sync(target.parent)


def remove(path: Path) -> None:
    """Removes a file that no row names; after a failure the next start does it."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def commit(db: sqlite3.Connection) -> None:
    """Ends a transaction; it is on the disk when this returns."""
    db.execute("COMMIT")


def forget(folder: Path) -> None:
    """Removes a queue that was to last no longer than its node."""
    shutil.rmtree(folder, ignore_errors=True)


def queue_folder(aet: str, port: int) -> Path:
    """Where the queue of a node lies that was not told where. Raises InputError where there is no home folder."""
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    except RuntimeError:
        raise InputError("there is no home folder for the DICOM node's queue: give --dicom-queue DIR") from None
    return state / "xray" / "dicom" / f"{quote(aet, safe=' ')}-{port}"
