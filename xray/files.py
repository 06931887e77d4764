"""Files that are complete or not there, journals of checked lines, and outputs of several files.

A command that is killed between two of its output files leaves the one without the other. A mark calls them unfinished
until all are there, so that the command may write over them when it is repeated.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xray.errors import InputError, is_disk_full

try:
    import fcntl
except ImportError:  # Windows has no flock; there, two commands that write into one folder are not told apart.
    fcntl = None  # type: ignore[assignment]


PART = ".part"
"""What a file's name ends in while it is being written."""


@contextlib.contextmanager
def complete(path: Path, private: bool = False) -> Iterator[Path]:
    """A temporary path beside `path` to write to; on leaving, it takes the place of `path`.

    Where writing fails nothing of it is left. A process that is killed leaves PATH.part.
    private: leaves a file that its owner alone may read as it is; others get the mode that the umask allows.
    """
    temporary = path.with_name(path.name + PART)
    try:
        yield temporary
        if not private:
            _share(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _share(path: Path) -> None:
    """Gives a file the mode of any new one: some writers, as that of safetensors, let nobody but its owner read it."""
    if os.name != "posix" or not path.is_file() or path.stat().st_mode & 0o077:
        return
    # Only a new file tells the umask without changing it, which other threads would see.
    probe = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    with contextlib.suppress(OSError):
        try:
            probe.touch(0o666, exist_ok=False)
            path.chmod(probe.stat().st_mode & 0o777)
        finally:
            probe.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path, private: bool = False) -> Iterator[Path]:
    """`complete`, with file and folder synced: after a power failure, too, there is the old file or the new one."""
    with complete(path, private) as temporary:
        yield temporary
        sync(temporary)
    if os.name == "posix":
        # Some network drives do not sync folders.
        with contextlib.suppress(OSError):
            sync(path.parent)


def sync(path: Path) -> None:
    """Has what was written to a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size_in_words(n_bytes: int) -> str:
    """Such as "35.2 GB" or "1.9 MB", in decimal units as disks are sold; bytes below 1 kB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes} bytes"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_line(content: dict[str, Any], number: int) -> bytes:
    """Line `number`, from 0, of a journal: CRC-32 of the JSON as 8 hexadecimal digits, a space, the JSON, a line feed.

    The checksum begins with the number: a line that is missing, or there twice, makes those after it wrong.
    """
    text = json.dumps(content).encode()
    return b"%08x %s\n" % (zlib.crc32(text, number), text)


def from_line(line: bytes, number: int) -> dict[str, Any] | None:
    """The content of what should be line `number`; None where it is not, or is empty, cut short or damaged."""
    checksum, _, text = line.partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text[:-1], number):
        return None
    with contextlib.suppress(ValueError):
        content = json.loads(text)
        return content if isinstance(content, dict) else None
    return None


class CheckedLog:
    """An open file of checked lines, which one process at a time has open.

    ends: where each line ends, in bytes.
    """

    def __init__(self, path: Path, in_use: str) -> None:
        """Opens the file, or makes it. in_use: the message of the InputError where another process has it open."""
        self.ends: list[int] = []
        self._file = open(path, "a+b")  # noqa: SIM115 (closed by `close`)
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._file.close()
                raise InputError(in_use) from None

    def read(self) -> Iterator[dict[str, Any]]:
        """The contents of the lines, from the first to the last before one that is missing or damaged."""
        self._file.seek(0)
        while (content := from_line(line := self._file.readline(), len(self.ends))) is not None:
            self.ends.append(self._end + len(line))
            yield content

    def line(self, number: int) -> dict[str, Any]:
        """The content of one line that was read or written before."""
        self._file.seek(self.ends[number - 1] if number else 0)
        content = from_line(self._file.readline(), number)
        assert content is not None
        return content

    def cut(self, n_lines: int) -> None:
        """Removes all but the first lines; what stands behind the last good line goes, too."""
        del self.ends[n_lines:]
        self._file.truncate(self._end)

    def append(self, contents: Iterable[dict[str, Any]], sync: bool = False) -> None:
        """Writes lines; from then on they survive the end of this process, with `sync` that of the machine."""
        lines = [to_line(content, number) for number, content in enumerate(contents, len(self.ends))]
        self._file.seek(0, os.SEEK_END)
        self._file.write(b"".join(lines))
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())
        self.ends += itertools.islice(itertools.accumulate(map(len, lines), initial=self._end), 1, None)

    def close(self) -> None:
        """Closes the file. What a full disk did not take before, it would refuse again: nothing is said of that."""
        with contextlib.suppress(OSError):
            self._file.close()

    @property
    def _end(self) -> int:
        return self.ends[-1] if self.ends else 0


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names whose values are not the same in both."""
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


def read_yaml_text(path: Path, what: str, where: str, longest: int) -> Any:
    """The content of a YAML file of plain values; None for an empty one.

    what: "config", what it should be. where: how to come by one. longest: number of characters that it may have;
    PyYAML reads some 100,000 in a second or two.
    Raises InputError if it is missing, longer, or no YAML.
    """
    import yaml

    try:
        text = path.read_text()
    except OSError as error:
        raise InputError(f"no {what} at {path} ({error.strerror}): {where}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not YAML: {error}") from None
    if len(text) > longest:
        raise InputError(f"{path} has {len(text)} characters: no {what} needs more than {longest}")
    try:
        return yaml.safe_load(text)
    except Exception as error:  # PyYAML's own, and others of malformed files
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def check_output(folder: Path, names: Iterable[str] = (), command: str = "", overwrite: bool = False) -> None:
    """Raises InputError if --save-path is a file, or a folder with one of these files that the command may not replace.

    It may with --overwrite, and where it was cut off.
    """
    existing = [folder / name for name in names if (folder / name).exists()]
    if existing and not overwrite and not is_unfinished(folder, command):
        raise InputError(f"{existing[0]} exists: give --overwrite, or another --save-path")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give --save-path a folder")
    check_writable(folder)


def check_writable(folder: Path) -> None:
    """Raises InputError where --save-path cannot be written to, or cannot be made; makes nothing.

    Called before any work: hours later it would be lost.
    """
    place = Path(os.path.abspath(folder))
    while not os.path.exists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise InputError(f"{folder} cannot be made, {place} is a file: choose another --save-path")
    if not os.access(place, os.W_OK | os.X_OK):
        is_read_only = hasattr(os, "statvfs") and bool(os.statvfs(place).f_flag & os.ST_RDONLY)
        raise _unwritable(folder, errno.EROFS if is_read_only else errno.EACCES)


def make_folder(folder: Path) -> None:
    """Makes a folder that a command writes into, where it is missing. Raises InputError where that cannot be."""
    with _writing_into(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def _writing_into(folder: Path) -> Iterator[None]:
    """Turns an OSError into one line, that the folder cannot be written to; a full disk is reported elsewhere."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise
        raise _unwritable(folder, error.errno) from None


def _unwritable(folder: Path, number: int | None) -> InputError:
    what = "be written to" if folder.is_dir() else "be made"
    return InputError(f"{folder} cannot {what} ({os.strerror(number or 0)}): choose another --save-path")


def is_unfinished(folder: Path, command: str) -> bool:
    """Whether this command was cut off while it wrote into the folder."""
    return (folder / f"{command}{PART}").exists()


@contextlib.contextmanager
def finishing(folder: Path, command: str) -> Iterator[None]:
    """For writing a command's files into a folder, which is made where it is missing; the mark stays if it fails."""
    mark = folder / f"{command}{PART}"
    make_folder(folder)
    with _writing_into(folder):
        mark.touch()
    yield
    mark.unlink()
