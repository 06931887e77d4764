"""A folder on this machine that stands for an s3:// address while a command runs.

    CACHE/in/<hash>/    files    what was downloaded, as …/<last names of the address>
    CACHE/out/<hash>/   index    a line of JSON for each file of which both sides are known
                        parts    downloads that are not complete

CACHE is $XRAY_CACHE, or xray below the user's cache. It may be deleted whenever no command runs; what was not uploaded
yet goes with it. Each file is there as a whole or not at all, and an interrupted download goes on.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from xray.errors import InputError
from xray.storage.addresses import split_address
from xray.storage.objects import RemoteFile, clearly, download, fetch, in_threads, is_there, list_files

try:
    import fcntl
except ImportError:  # Windows has no such locks; there, two commands with one address are not told apart.
    fcntl = None  # type: ignore[assignment]

RESERVE = 2**26
"""Bytes of the disk that downloads leave free."""


@dataclasses.dataclass(frozen=True)
class Known:
    """One file on both sides when they were last the same. local: its `signature` here.

    is_stand_in: it is empty here, since no command reads it: that it exists is enough.
    """

    size: int
    etag: str
    local: tuple[int, int, int] | None = (0, 0, 0)
    is_stand_in: bool = False


def cache_folder() -> Path:
    """Where mirrors lie."""
    if own := os.environ.get("XRAY_CACHE"):
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "xray"


class Mirror:
    """An address and its folder here.

    path: where the file or folder of the address itself lies. known: name → what both sides were when they were the
    same. begun: name → size and id (of one in parts) of uploads of which it is not known that they were completed.
    """

    def __init__(self, address: str, kind: str) -> None:
        """kind: "in" or "out"."""
        self.address = address
        self.home = cache_folder() / kind / hashlib.sha256(address.encode()).hexdigest()[:20]
        bucket, key = split_address(address)
        # Some commands look at the folders around a file, and reports bear the name of the last.
        names = [name if len(name.encode()) <= 250 else hashlib.sha256(name.encode()).hexdigest()[:20]
                 for name in [bucket, *filter(None, key.split("/"))][-3:]]  # fmt: skip
        self.path = self.home.joinpath("files", *names)
        self.known: dict[str, Known] = {}
        self.begun: dict[str, tuple[int, str]] = {}
        self.notes: dict[str, Any] = {}
        self._index: TextIO | None = None
        self._writing = threading.Lock()
        self._locks: list[Any] = []

    def make(self) -> None:
        """Makes the folder. Raises InputError where it cannot be made."""
        try:
            # Radiographs are nobody else's business.
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the cache {cache_folder()} cannot be written ({error.strerror}): set XRAY_CACHE to another folder"
            ) from error

    def local(self, name: str) -> Path:
        """Where the file of that name lies here; "" is the address itself."""
        return self.path / name if name else self.path

    def note(self, name: str, known: Known | None) -> None:
        """Writes down that both sides of a file are the same now, or, with None, that it is gone from both."""
        if known is None:
            self.known.pop(name, None)
        else:
            self.known[name] = known
        self.write({"name": name, "known": known and dataclasses.astuple(known)})

    def write(self, entry: dict[str, Any]) -> None:
        """Appends to the index."""
        with self._writing:
            assert self._index is not None  # one notes only between `open_index` and `close_index`
            self._index.write(json.dumps(entry) + "\n")
            self._index.flush()

    def is_as_known(self, name: str) -> bool:
        """Whether a file here has not changed since it was last noted."""
        return name in self.known and signature(self.local(name)) == self.known[name].local

    @contextlib.contextmanager
    def indexing(self) -> Iterator[None]:
        """With the index read, and open for notes; one command at a time."""
        self.open_index()
        try:
            yield
        finally:
            self.close_index()

    @contextlib.contextmanager
    def syncing(self) -> Iterator[None]:
        """While this command, and no other, compares the two sides; waits for another one that does."""
        with contextlib.ExitStack() as stack:
            if fcntl is not None:
                file = stack.enter_context(open(self.home / "sync.lock", "a+b"))
                if not _lock(file, fcntl.LOCK_EX):
                    print(f"{self.address}: another command is downloading it, waiting", file=sys.stderr)
                    fcntl.lockf(file, fcntl.LOCK_EX)
            yield

    def hold(self, alone: bool) -> bool:
        """Keeps other commands from changing the folder until this process ends, or, `alone`, from using it at all.

        False where another command is in the way. These locks do not pass to forked processes, which may live longer.
        """
        if fcntl is None:
            return True
        file = self._locks[0] if self._locks else open(self.home / "use.lock", "a+b")  # noqa: SIM115 (until the end)
        if _lock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
            self._locks = [file]
            return True
        return False

    def close(self) -> None:
        """Lets go of the lock and the index."""
        for file in self._locks:
            file.close()
        self._locks = []
        self.close_index()

    def close_index(self) -> None:
        """Ends the notes."""
        if self._index is not None:
            self._index.close()
        self._index = None

    def download(self, files: list[RemoteFile], what: str = "downloading") -> None:
        """Brings these files here, several at once, with a progress bar; each is noted as soon as it is complete.

        Raises InputError where the disk has too little space, or a file cannot be had; what came is kept.
        """
        parts = self.home / "parts"
        parts.mkdir(exist_ok=True)
        part_of = {
            file: parts / hashlib.sha256(f"{file.name}\n{file.etag}".encode()).hexdigest()[:32] for file in files
        }
        for stale in set(parts.iterdir()) - set(part_of.values()):
            stale.unlink()
        begun = sum(part.stat().st_size for part in part_of.values() if part.exists())
        needed, free = sum(file.size for file in files) - begun, shutil.disk_usage(self.home).free
        if needed + RESERVE > free:
            raise InputError(
                f"{self.address} needs {in_words(needed)} here, and {cache_folder()} has {in_words(free)}: make room "
                "there, or set XRAY_CACHE to a folder of a larger disk"
            )
        with transfer(what, needed) as add, clearly(self.address):

            def bring(file: RemoteFile) -> RemoteFile:
                download(self.address, file, part_of[file], add)
                if file.modified:
                    # The same on each machine: some commands tell by it whether they may go on.
                    os.utime(part_of[file], (file.modified, file.modified))
                target = self.local(file.name)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(part_of[file], target)
                return file

            for file in in_threads(bring, files):
                self.note(file.name, Known(file.size, file.etag, signature(self.local(file.name))))

    def open_index(self) -> None:
        """Reads what is known, and begins to note."""
        path = self.home / "index"
        self.known, self.begun, self.notes = {}, {}, {}
        if path.is_file():
            for line in path.read_bytes().splitlines():
                # A line may have been cut short.
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(line)
                    if "begun" in entry:
                        self.begun[entry["begun"]] = entry["upload"]
                    elif "name" in entry:
                        self.begun.pop(entry["name"], None)
                        self.known.pop(entry["name"], None)
                        if entry["known"] is not None:
                            size, etag, local, is_stand_in = entry["known"]
                            self.known[entry["name"]] = Known(size, etag, tuple(local), is_stand_in)
                    else:
                        self.notes |= entry
        # Written anew it does not grow from command to command, and begins on a line of its own.
        begun = [{"begun": name, "upload": upload} for name, upload in self.begun.items()]
        lines = [{"name": name, "known": dataclasses.astuple(known)} for name, known in self.known.items()]
        fresh = path.with_name("index.part")
        fresh.write_text("".join(json.dumps(line) + "\n" for line in [self.notes, *lines, *begun] if line))
        self._index = fresh.open("a")
        os.replace(fresh, path)


def bring_input(mirror: Mirror, wants: Callable[[str, set[str]], bool], beside: Callable[[bool], list[str]]) -> None:
    """Downloads what is missing or has changed of an address.

    wants: (name, all names) → whether the command needs it. beside: (whether the address is one object) → addresses,
    relative to its folder, that the command looks at where they are.
    Raises InputError where there is nothing, where it cannot be had, or where it has changed under a running command.
    """
    mirror.make()
    with mirror.syncing(), mirror.indexing():
        found = list_files(mirror.address)
        if not found:
            raise InputError(f"there is nothing at {mirror.address}: check the address")
        names = {file.name for file in found}
        files = [file for file in found if wants(file.name, names)]
        todo = [
            file for file in files if not (mirror.is_as_known(file.name) and mirror.known[file.name].etag == file.etag)
        ]
        # What only other commands need may stay, as long as it is still the same.
        etags = {file.name: file.etag for file in found}
        asked = {file.name for file in files}
        gone = [
            n for n, known in mirror.known.items() if etags.get(n) != known.etag and not (n in asked and n in etags)
        ]
        if (gone or any(file.name in mirror.known for file in todo)) and not mirror.hold(alone=True):
            raise InputError(
                f"{mirror.address} has changed, and another command here uses what it was: wait for that, or set "
                "XRAY_CACHE to another folder"
            )
        count = f"{len(files)} objects, {in_words(sum(file.size for file in files))}"
        if todo:
            here = f", {len(files) - len(todo)} of them are here already" if len(todo) < len(files) else ""
            print(f"{mirror.address}: {count}{here}", file=sys.stderr)
        for name in gone:
            mirror.local(name).unlink(missing_ok=True)
            mirror.note(name, None)
        if todo:
            make_way(mirror.path, [file.name for file in todo])
            mirror.download(todo)
        elif not files:
            # The command says what it misses there.
            mirror.path.mkdir(exist_ok=True)
        bring_beside(mirror, beside(names == {""}))
        mirror.hold(alone=False)


def bring_beside(mirror: Mirror, names: list[str]) -> None:
    """Downloads single objects around that of an address where they are there, such as the maps beside predictions."""
    bucket, key = split_address(mirror.address)
    for name in names:
        folders = key.split("/")[:-1]
        n_up = name.count("../")
        target = Path(os.path.normpath(mirror.path.parent / name))
        if not key or n_up > len(folders) or mirror.home / "files" not in target.parents:
            continue
        address = "/".join([f"s3://{bucket}", *folders[: len(folders) - n_up], name[3 * n_up :]])
        found = is_there(address)
        here = target.stat() if target.is_file() else None
        if found is None:
            target.unlink(missing_ok=True)
        elif here is None or (here.st_size, here.st_mtime) != (found.size, found.modified):
            target.parent.mkdir(parents=True, exist_ok=True)
            fetch(address, target)
            os.utime(target, (found.modified, found.modified))


def make_way(folder: Path, names: list[str]) -> None:
    """Deletes what has been a file here and is a folder now, or the other way round."""
    for path in {folder / name if name else folder for name in names}:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        for above in path.parents:
            if above == folder.parent:
                break
            if above.is_file():
                above.unlink()


def signature(path: Path) -> tuple[int, int, int] | None:
    """Size, time of change (ns) and inode of a file, None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def in_words(n_bytes: int) -> str:
    """A number of bytes for people."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{max(n_bytes, 0)} bytes"


@contextlib.contextmanager
def transfer(what: str, n_bytes: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over bytes on stderr, and what is to be told of each number of them."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=n_bytes)
        yield lambda n_more: progress.advance(task, n_more)


def _lock(file: Any, how: int) -> bool:
    try:
        fcntl.lockf(file, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
