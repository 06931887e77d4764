"""An s3:// address that a command writes to: it writes into a folder here, which is uploaded as it grows.

What is there already is downloaded first, as far as commands look at it, so that their own rules hold: "exists
already", --overwrite, --resume, continuing where it stopped. While the command runs, what has changed is uploaded every
$XRAY_UPLOAD_SECONDS; when it has ended, everything, and what it deleted is deleted there. Nothing else in the bucket is
touched.

An upload takes files in such an order that the address always looks as after a killed command: a file that says
something about others (a checkpoint, a journal, the file that says that a folder is complete) is opened before them and
uploaded after them.
"""

import contextlib
import hashlib
import os
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from xray.errors import InputError
from xray.file_names import ANNOTATIONS, CONVERSION, IMAGES, LAST, METRICS, MODEL_FILE, PREDICTIONS, UNFINISHED
from xray.files import PART
from xray.radiographs.names import visible
from xray.storage.mirror import Known, Mirror, progress, signature
from xray.storage.objects import RemoteFile, abort, delete, explained, in_threads, list_files, try_to_write, upload

DELETED = -1
"""Stands for the size of an object whose deletion was begun."""
EVERY = 30.0
"""Seconds between uploads."""
COMPLETE = (MODEL_FILE, ANNOTATIONS, METRICS, PREDICTIONS, CONVERSION)
"""Files that say that those beside them are complete, in the order in which they are uploaded."""
WITHDRAWN = (METRICS, PREDICTIONS, CONVERSION)
"""Of these, those that would be wrong while the files beside them are replaced. (Weights have their own.)"""
PICTURES = (".png", ".dcm", ".dicom", ".jpg", ".jpeg")
ROWS, MAPS = "images.npy.part", "probabilities.npy.part"
"""Growing files: of a conversion, and of an inference with --probabilities, which has its full size from the start."""
GROWTH = 1.5
"""How much of its size when it was last uploaded the former must have before it is uploaded again meanwhile."""


class Staging(Mirror):
    """The folder here of an address that is written to.

    is_first: whether this process uploads. Of a training over several only the first does; the others use its folder.
    """

    def __init__(self, address: str, is_first: bool = True) -> None:
        super().__init__(address, "out")
        self.is_first = is_first
        self._stopping = threading.Event()
        self._pushing = threading.Lock()

    # ---- downwards

    def bring_down(self) -> None:
        """Makes the folder here what the address is, with what was not uploaded yet by a command that was killed.

        Raises InputError where another command here writes to the address, or where it cannot be read.
        """
        with self.syncing():
            if not self.hold(alone=True):
                if self.is_first:
                    raise InputError(f"another command is writing to {self.address}: wait for it, or stop it")
                # The first process of this training, which has downloaded what there is.
                return
            self.open_index()
            listing = {file.name: file for file in list_files(self.address)}
            if self.is_first:
                self._finish_begun(listing)
            if self._is_changed(listing):
                aside = self.home / f"aside-{time.time_ns()}"
                os.replace(self.path, aside)
                print(
                    f"{self.address} was changed by another machine since: goes on from there (what was here is in "
                    f"{aside})",
                    file=sys.stderr,
                )
                for name in list(self.known):
                    self.note(name, None)
            self._take(listing)
            if not self.is_first:
                self.close()
                return
            # Refused now rather than after hours of work.
            with explained(self.address, "write"):
                try_to_write(self.address)

    def _take(self, listing: dict[str, RemoteFile]) -> None:
        """Downloads what is not here of a listing; files that no command reads get an empty stand-in."""
        read = {name: file for name, file in listing.items() if not is_never_read(name, listing)}
        missing = [file for name, file in listing.items() if not self._has(file, name in read)]
        self.download([file for file in missing if file.name in read], read.values())
        for file in missing:
            if file.name not in read:
                self.make_way([file])
                path = self.local(file.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"")
                self.note(file.name, Known(file.size, file.etag, signature(path), True))

    def _has(self, file: RemoteFile, is_read: bool) -> bool:
        known = self.known.get(file.name)
        is_same = known is not None and known.etag == file.etag and not (is_read and known.is_stand_in)
        return is_same and self.local(file.name).exists()

    def _finish_begun(self, listing: dict[str, RemoteFile]) -> None:
        """Ends the uploads and deletions that a killed command had begun."""
        for name, (size, upload_id) in list(self.begun.items()):
            if upload_id:
                abort(self.address, name, upload_id)
            file, known = listing.get(name), self.known.get(name)
            if size == DELETED and file is None:
                known = None
            if file is not None and file.size == size and self.local(name).is_file():
                # It had arrived without being noted; the file here may be newer.
                known = Known(size, file.etag)
            self.note(name, known)
        for name in self.notes.get("finished", {}).get("deleting", ()):
            if name in listing and name in self.known and listing[name].etag == self.known[name].etag:
                with explained(self.address, "write"):
                    self.note(self._remove(name), None)
                del listing[name]

    def _is_changed(self, listing: dict[str, RemoteFile]) -> bool:
        """Whether somebody else changed or deleted at the address what was known of it, or put what is here too."""
        others = [name for name in listing if name not in self.known]
        return (
            any(name not in listing or listing[name].etag != known.etag for name, known in self.known.items())
            or any(self.local(name).is_file() for name in others)
            or bool(not self.known and others and any(self.path.rglob("*")))
        )

    # ---- upwards

    def start(self) -> None:
        """Begins to upload every few seconds what has changed."""
        if self.is_first:
            threading.Thread(target=self._keep_pushing, name="upload", daemon=True).start()

    def stop(self) -> None:
        """Ends that, but for an upload that is under way."""
        self._stopping.set()

    def _keep_pushing(self) -> None:
        pause = every = float(os.environ.get("XRAY_UPLOAD_SECONDS") or EVERY)
        is_warned = False
        while not self._stopping.wait(pause):
            began = time.monotonic()
            try:
                self.push()
                is_warned = False
            except Exception as error:
                if not is_warned and not self._stopping.is_set():
                    line = error if isinstance(error, InputError) else f"{type(error).__name__} while uploading"
                    print(f"warning: {visible(str(line))} (trying again, the command goes on)", file=sys.stderr)
                is_warned = True
            # Never more than a fifth of the time.
            pause = max(every, 4 * (time.monotonic() - began))

    def push(self, is_last: bool = False) -> None:
        """Uploads what has changed here. is_last: growing files too, then deletes there what the command deleted.

        Raises InputError where that fails; what has arrived has.
        """
        if not self.is_first:
            return
        with self._pushing, contextlib.ExitStack() as stack, explained(self.address, "write"):
            opened: dict[str, BinaryIO] = {}
            for name in sorted(filter(is_about_others, self._changed(is_last)), key=rank):
                with contextlib.suppress(FileNotFoundError):
                    opened[name] = stack.enter_context(self.local(name).open("rb"))
            sizes = {name: os.fstat(file.fileno()).st_size for name, file in opened.items()}
            # These may be newer than what the opened files say about them, but not older.
            ordinary = [name for name in self._changed(is_last) if not is_about_others(name)]
            self._withdraw(ordinary, opened, is_last)
            total = sum(sizes.values()) + sum((signature(self.local(name)) or [0])[0] for name in ordinary)
            bar = progress("uploading", total) if is_last and total else contextlib.nullcontext(lambda n_bytes: None)
            with bar as add:
                for _ in in_threads(lambda name: self._put(name, add), ordinary):
                    pass
                for name, file in opened.items():
                    self._put_open(name, file, sizes[name], add)
            if is_last:
                for name in in_threads(self._remove, sorted(self._gone(), key=rank)):
                    self.note(name, None)

    def finish(self, status: int) -> None:
        """The last upload of a command that has come to its end; if it fails, the same command given again does it."""
        self.stop()
        if not self.is_first:
            return
        finished = {"command": command_line(), "status": status, "deleting": self._gone()}
        self.write("notes", "finished", finished)
        try:
            self.push(is_last=True)
        except InputError as error:
            raise InputError(
                f"{error}. What was not uploaded is kept: the same command, given again, uploads it"
            ) from error
        self.write("notes", "finished", None)

    def left_over(self) -> int | None:
        """The status of the command before, if it was this very one and had come to its end but for the upload."""
        finished = self.notes.get("finished")
        if not finished or not self.is_first:
            return None
        print(f"{self.address}: uploading what the command before had not", file=sys.stderr)
        self.finish(finished["status"])
        self._stopping.clear()
        # One of several processes cannot leave the others alone, and one that was terminated is to continue.
        is_over = finished["status"] < 128 and os.environ.get("WORLD_SIZE", "1") == "1"
        return finished["status"] if is_over and finished["command"] == command_line() else None

    def lacks(self) -> bool:
        """Whether something here was not uploaded yet."""
        if not self.is_first:
            return False
        with contextlib.suppress(OSError):
            return bool(self._changed(True) or self._gone())
        return True

    def _gone(self) -> list[str]:
        """Names of the files that were deleted here since they were uploaded."""
        return [name for name in self.known if not self.local(name).exists()]

    def _changed(self, is_last: bool) -> list[str]:
        """Names of the files here that differ from what was uploaded."""
        changed = []
        alone: list[tuple[str, list[str], list[str]]] = [(str(self.path.parent), [], [self.path.name])]
        for folder, _, names in os.walk(self.path) if self.path.is_dir() else alone:
            for name in filter(is_uploaded, names):
                path = Path(folder, name)
                here = signature(path)
                if here is None or path.is_symlink() or not stat.S_ISREG(path.stat().st_mode):
                    continue
                relative = "" if path == self.path else path.relative_to(self.path).as_posix()
                known = self.known.get(relative)
                if known is not None and known.local == here:
                    continue
                # Uploaded every few seconds, a file of many gigabytes would be uploaded many times.
                if name == ROWS and known is not None and not is_last and here[0] < GROWTH * known.size:
                    continue
                # With a journal, but without the maps it speaks of, these would be taken for drawn.
                if name == UNFINISHED and Path(folder, MAPS).exists():
                    continue
                changed.append(relative)
        return changed

    def _put(self, name: str, add: Callable[[int], None]) -> None:
        # Deleted meanwhile, it need not be uploaded.
        with contextlib.suppress(FileNotFoundError), self.local(name).open("rb") as file:
            self._put_open(name, file, os.fstat(file.fileno()).st_size, add)

    def _put_open(self, name: str, file: BinaryIO, size: int, add: Callable[[int], None]) -> None:
        status = os.fstat(file.fileno())

        def begin(upload_id: str) -> None:
            self.write("begun", name, [size, upload_id])

        begin("")
        etag = upload(self.address, name, file, size, begin)
        self.note(name, Known(size, etag, [size, status.st_mtime_ns, status.st_ino]))
        add(size)

    def _withdraw(self, ordinary: list[str], opened: dict[str, Any], is_last: bool) -> None:
        """Deletes there what says that a folder is complete before anything in it is replaced."""
        for name in list(self.known) if ordinary else ():
            is_gone = is_last and not self.local(name).exists()
            folder, _, last = name.rpartition("/")
            # A run's validation is one file, and says nothing of others.
            if last in WITHDRAWN and folder != "validation" and (name in opened or is_gone):
                self.note(self._remove(name), None)

    def _remove(self, name: str) -> str:
        self.write("begun", name, [DELETED, ""])
        delete(self.address, name)
        return name


def is_about_others(name: str) -> bool:
    """Whether a file says something about others: that they are complete, or how far they have come."""
    last = name.rpartition("/")[2]
    return last in COMPLETE or last == LAST or last.endswith((PART, ".jsonl"))


def rank(name: str) -> tuple[int, str]:
    """Journals first, then what says that a folder is complete, then the checkpoint from which a training resumes."""
    last = name.rpartition("/")[2]
    return 1 + COMPLETE.index(last) if last in COMPLETE else 99 if last == LAST else 0, name


def is_uploaded(name: str) -> bool:
    """Whether a file is uploaded; of unfinished ones only those from which a command can continue."""
    base = name.removesuffix(PART)
    return name in (base, ROWS) or (not name.startswith(".") and Path(base).suffix in ("", ".jsonl"))


def is_never_read(name: str, names: Any) -> bool:
    """Whether no command reads this file of a folder that it is to write to."""
    last = name.rpartition("/")[2].lower()
    return (name == IMAGES and CONVERSION in names) or (
        last.endswith(PICTURES) or last.startswith("events.out.tfevents")
    )


def command_line() -> str:
    """This command, as a hash: flags may hold names."""
    name = Path(sys.argv[0]).stem.removeprefix("xray ")
    return hashlib.sha256("\0".join([name, *sys.argv[1:]]).encode("utf-8", "replace")).hexdigest()
