"""A folder on this machine that stands for an s3:// address while a command runs.

    CACHE/in/<hash>/    files    what was downloaded, as …/<last names of the address>
    CACHE/out/<hash>/   index    a line of JSON for each change of what is known: [kind, name, value]
                        parts    downloads that are not complete

CACHE is $XRAY_CACHE, or xray below the user's cache. It may be deleted whenever no command runs; what was not uploaded
yet goes with it. Each file is there as a whole or not at all, and an interrupted download is continued.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from rich import filesize

from xray.errors import InputError
from xray.files import complete
from xray.storage.addresses import split_address
from xray.storage.objects import RemoteFile, download, explained, in_threads, list_files, object_at

try:
    import fcntl
except ImportError:  # Windows has no such locks; there, two commands with one address are not told apart.
    fcntl = None  # type: ignore[assignment]

RESERVE = 2**26
"""Bytes of the disk that downloads leave free."""


class Known(NamedTuple):
    """One file on both sides when they were last the same. local: its `signature` here.

    is_stand_in: it is empty here, since no command reads it: that it exists is enough.
    """

    size: int
    etag: str
    local: list[int] | None = None
    is_stand_in: bool = False


def cache_folder() -> Path:
    """Where mirrors lie."""
    if folder := os.environ.get("XRAY_CACHE"):
        return Path(folder).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "xray"


class Mirror:
    """An address and its folder here.

    path: where the file or folder of the address itself lies. known: name → what both sides were when they were the
    same. begun: name → size and id (of one in parts) of uploads of which it is not known that they were completed.
    notes: what a command leaves for the next one.
    """

    def __init__(self, address: str, kind: str, names: Sequence[str] = ()) -> None:
        """kind: "in" or "out", or of an address that is no s3:// one. names: of the last folders of such an address."""
        self.address = address
        self.home = cache_folder() / kind / _digest(address, 20)
        if not names:
            bucket, key = split_address(address)
            # Some commands look at the folders around a file, and reports bear the name of the last.
            names = [bucket, *filter(None, key.split("/"))][-3:]
        self.path = self.home.joinpath(
            "files", *(name if len(name.encode()) <= 250 else _digest(name, 20) for name in names)
        )
        self.known: dict[str, Known] = {}
        self.begun: dict[str, tuple[int, str]] = {}
        self.notes: dict[str, Any] = {}
        self._entries: dict[str, dict[str, Any]] = {"known": self.known, "begun": self.begun, "notes": self.notes}
        self._index: TextIO | None = None
        self._writing = threading.Lock()
        self._lock_file: Any = None

    def local(self, name: str) -> Path:
        """Where the file of that name lies here; "" is the address itself, ../a lies beside it."""
        return Path(os.path.normpath(self.path / name))

    def note(self, name: str, known: Known | None) -> None:
        """Writes down that both sides of a file are the same now, or, with None, that it is gone from both."""
        self.write("known", name, known)

    def write(self, kind: str, name: str, value: Any) -> None:
        """Sets an entry of known, begun or notes, or deletes it with None; here and in the index."""
        with self._writing:
            assert self._index is not None  # `open_index` comes first
            self._set(kind, name, value)
            self._index.write(json.dumps([kind, name, value]) + "\n")
            self._index.flush()

    def _set(self, kind: str, name: str, value: Any) -> None:
        if kind == "known":
            self.begun.pop(name, None)
            value = value and Known(*value)
        if value is None:
            self._entries[kind].pop(name, None)
        else:
            self._entries[kind][name] = value

    def open_index(self) -> None:
        """Reads what is known, and begins to note. Only for a command that keeps others out meanwhile."""
        path = self.home / "index"
        for entries in self._entries.values():
            entries.clear()
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            # A line may have been cut short.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._set(*json.loads(line))
        # Written anew, it does not grow from command to command, and the next entry begins a line.
        lines = [[kind, name, value] for kind, entries in self._entries.items() for name, value in entries.items()]
        self._close_index()
        with complete(path) as fresh:
            fresh.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self._index = path.open("a")

    @contextlib.contextmanager
    def syncing(self) -> Iterator[None]:
        """While this command, and no other, compares the two sides; waits for another one that does.

        Raises InputError where the folder cannot be made.
        """
        try:
            # Readable by this user alone: radiographs are private.
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the cache {cache_folder()} cannot be written ({error.strerror}): set XRAY_CACHE to another folder"
            ) from error
        with open(self.home / "sync.lock", "a+b") as file:
            if fcntl is not None and not _lock(file, fcntl.LOCK_EX):
                print(f"{self.address}: another command is downloading it, waiting", file=sys.stderr)
                fcntl.lockf(file, fcntl.LOCK_EX)
            yield

    def hold(self, alone: bool) -> bool:
        """Keeps other commands from changing the folder until this process ends, or, `alone`, from using it at all.

        False where another command is in the way. These locks do not pass to forked processes, which may live longer.
        """
        if fcntl is None:
            return True
        file = self._lock_file or open(self.home / "use.lock", "a+b")  # noqa: SIM115 (until the end)
        if _lock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
            self._lock_file = file
            return True
        return False

    def close(self) -> None:
        """Lets go of the lock and the index."""
        if self._lock_file is not None:
            self._lock_file.close()
        self._lock_file = None
        self._close_index()

    def _close_index(self) -> None:
        if self._index is not None:
            self._index.close()
        self._index = None

    def download(self, files: list[RemoteFile], wanted: Collection[RemoteFile]) -> None:
        """Brings these files here, several at once, with a progress bar; each is noted as soon as it is complete.

        wanted: these and those that are here already. Raises InputError where the disk has too little space, or a file
        cannot be had; what came is kept.
        """
        if not files:
            return
        size = filesize.decimal(sum(file.size for file in wanted))
        already = f", {len(wanted) - len(files)} of them are here already" if len(wanted) > len(files) else ""
        print(f"{self.address}: {len(wanted)} objects, {size}{already}", file=sys.stderr)
        parts = self.home / "parts"
        parts.mkdir(exist_ok=True)
        part_of = {file: parts / _digest(f"{file.name}\n{file.etag}", 32) for file in files}
        for stale in set(parts.iterdir()) - set(part_of.values()):
            stale.unlink()
        begun = sum(part.stat().st_size for part in part_of.values() if part.exists())
        needed, free = sum(file.size for file in files) - begun, shutil.disk_usage(self.home).free
        if needed + RESERVE > free:
            raise InputError(
                f"{self.address} needs {filesize.decimal(max(needed, 0))} here, and {cache_folder()} has "
                f"{filesize.decimal(free)}: make room there, or set XRAY_CACHE to a folder of a larger disk"
            )
        self.make_way(files)
        with progress("downloading", needed) as add, explained(self.address):

            def bring(file: RemoteFile) -> RemoteFile:
                part, target = part_of[file], self.local(file.name)
                download(self.address, file, part, add)
                if file.modified:
                    # The same on each machine: some commands decide by it whether they may continue.
                    os.utime(part, (file.modified, file.modified))
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(part, target)
                return file

            for file in in_threads(bring, files):
                self.note(file.name, Known(file.size, file.etag, signature(self.local(file.name))))

    def make_way(self, files: list[RemoteFile]) -> None:
        """Deletes what has been a file here and is a folder now, or the other way round."""
        for path in {self.local(file.name) for file in files}:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            for above in path.parents:
                if above == self.path.parent:
                    break
                if above.is_file():
                    above.unlink()


def bring_input(mirror: Mirror, wants: Callable[[str, Any], bool], beside: Callable[[bool], list[str]]) -> None:
    """Downloads what is missing or has changed of an address.

    wants: (name, all names) → whether the command needs it. beside: (whether the address is one object) → names,
    relative to the address, of objects around it that the command needs where they are there.
    Raises InputError where there is nothing, where it cannot be had, or where it has changed under a running command.
    """
    with mirror.syncing():
        mirror.open_index()
        listing = {file.name: file for file in list_files(mirror.address)}
        if not listing:
            raise InputError(f"there is nothing at {mirror.address}: check the address")
        is_file = set(listing) == {""}
        wanted = {name: file for name, file in listing.items() if wants(name, listing)}
        around = {name: object_at(mirror.address, name) for name in beside(is_file)}
        wanted |= {name: file for name, file in around.items() if file is not None}
        missing = [file for file in wanted.values() if not _is_here(mirror, file)]
        # What only other commands need may stay, as long as it is still the same.
        gone = [
            name
            for name, known in mirror.known.items()
            if name not in wanted
            and (name in around if name.startswith("../") else name not in listing or listing[name].etag != known.etag)
        ]
        if (gone or any(file.name in mirror.known for file in missing)) and not mirror.hold(alone=True):
            raise InputError(
                f"{mirror.address} has changed, and another command here uses what it was: wait for that, or set "
                "XRAY_CACHE to another folder"
            )
        for name in gone:
            mirror.local(name).unlink(missing_ok=True)
            mirror.note(name, None)
        mirror.download(missing, wanted.values())
        if not is_file:
            # Where it is empty, the command says what it misses there.
            mirror.path.mkdir(exist_ok=True)
        mirror.hold(alone=False)


def _is_here(mirror: Mirror, file: RemoteFile) -> bool:
    """Whether a listed object was downloaded, and neither side has changed since."""
    known = mirror.known.get(file.name)
    return known is not None and known.etag == file.etag and known.local == signature(mirror.local(file.name))


def signature(path: Path) -> list[int] | None:
    """Size, time of change (ns) and inode of a file, None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ino]


@contextlib.contextmanager
def progress(what: str, n_bytes: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over bytes on stderr, and the function to call with each number of them."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=n_bytes)
        yield lambda n_more: bar.advance(task, n_more)


def is_in_use(home: Path) -> bool:
    """Whether another process holds the mirror in this folder."""
    if fcntl is None or not (home / "use.lock").exists():
        return False
    with open(home / "use.lock", "a+b") as file:
        return not _lock(file, fcntl.LOCK_EX)


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _lock(file: Any, how: int) -> bool:
    try:
        fcntl.lockf(file, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
