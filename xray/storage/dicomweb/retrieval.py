"""What is retrieved from an archive, by WADO-RS (PS3.18 10.4), as files of this machine while a command runs.

    CACHE/dicomweb/<hash>/files/studies/<study>/<series>/<instance>.dcm

It is readable by this user alone, and deleted once the command has come to its end. One that was interrupted leaves
it, so that the same command goes on from there; after LIFETIME the next command deletes it.
"""

import contextlib
import hashlib
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.uid import SecondaryCaptureImageStorage

from xray.errors import InputError
from xray.radiographs.dicom import is_dicom, read_elements
from xray.radiographs.file_warnings import NOT_RETRIEVED, OWN_PICTURE, FileWarning
from xray.radiographs.radiograph import RadiographError
from xray.storage.dicomweb.addresses import Resource
from xray.storage.dicomweb.client import CUT_SHORT, PASSING, Client, PassingError, RefusedError, persist
from xray.storage.dicomweb.multipart import DICOM, RELATED, MultipartError, media_type, read_parts
from xray.storage.dicomweb.search import Found, Instance, find
from xray.storage.mirror import Known, Mirror, cache_folder, is_in_use, signature
from xray.storage.objects import in_threads

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

KIND = "dicomweb"
LIFETIME = 24 * 3600.0
"""Seconds after which what an interrupted command left is deleted."""
N_THREADS = 4
HOPELESS = 10
"""Objects that may fail before the first is retrieved."""
ACCEPT = (f'{RELATED}; type="{DICOM}"; transfer-syntax=*', f'{RELATED}; type="{DICOM}"', DICOM)
"""What is asked for: first an object as the archive has it stored, compressed or not. One after the other: Orthanc's
plugin (1.7) answers 400 to a list of several."""


class Retrieved(Mirror):
    """A resource and its folder here.

    found: what the archive holds of it. failures: (path below the folder, why) of what could not be retrieved.
    warnings: what was left out.
    """

    def __init__(self, resource: Resource) -> None:
        # Two queries of one service are two folders.
        super().__init__(f"{resource}", KIND, ["studies"])
        self.resource, self.address = resource, resource.address
        self.found = Found()
        self.failures: list[tuple[str, str]] = []
        self.warnings: list[FileWarning] = []

    def bring(self, client: Client) -> None:
        """Retrieves what is missing here of what may be radiographs.

        Raises InputError where there is nothing, or the archive fails; what came is kept.
        """
        delete_old()
        with self.syncing():
            if not self.hold(alone=True):
                raise InputError(f"another command is retrieving {self.address}: wait for it, or stop it")
            self.open_index()
            self.found = find(client, self.resource)
            self._tell()
            self.path.mkdir(exist_ok=True)
            wanted = {name_of(instance): instance for instance in self.found.instances}
            for name in set(self.known) - set(wanted):
                self.local(name).unlink(missing_ok=True)
                self.note(name, None)
            missing = [name for name in wanted if not self._is_here(name)]
            self._retrieve(client, {name: wanted[name] for name in missing}, len(wanted))
            self._sort_out(wanted)

    def remove(self) -> None:
        """Deletes all of it."""
        self.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def leave(self) -> None:
        """Says what an interrupted command leaves here; where that is nothing, it is deleted."""
        if self.home.exists() and not any(path.is_file() for path in self.path.rglob("*")):
            self.remove()
        elif self.home.exists():
            print(f"what was retrieved stays in {self.home} for the same command, which deletes it", file=sys.stderr)

    def _is_here(self, name: str) -> bool:
        known = self.known.get(name)
        return known is not None and known.local == signature(self.local(name))

    def _tell(self) -> None:
        left_out = f"; left out: {', '.join(self.found.left_out.in_words)}" if self.found.left_out.in_words else ""
        self.warnings = [FileWarning(NOT_RETRIEVED, self.address, what) for what in self.found.left_out.in_words]
        if not self.found.instances:
            raise InputError(f"{self.address} holds no radiographs, but {', '.join(self.found.left_out.in_words)}")
        print(f"{self.address}: {len(self.found.instances)} objects may be radiographs{left_out}", file=sys.stderr)

    def _retrieve(self, client: Client, missing: dict[str, Instance], n_wanted: int) -> None:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

        if not missing:
            return
        (self.home / "parts").mkdir(exist_ok=True)
        for stale in (self.home / "parts").iterdir():
            stale.unlink()

        stopped = threading.Event()

        def bring(name: str) -> tuple[str, str | None]:
            part = self.home / "parts" / hashlib.sha256(name.encode()).hexdigest()[:32]
            try:
                persist(lambda: retrieve(client, self.resource.base, missing[name], part), stopped)
            except RefusedError as error:
                if is_of_all(error):
                    raise
                part.unlink(missing_ok=True)
                return name, str(error)
            if stopped.is_set():
                # Nothing may appear any more in a folder that is being deleted.
                part.unlink(missing_ok=True)
                return name, "interrupted"
            target = self.local(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, target)
            here = signature(target)
            assert here is not None  # it was put there just now
            self.note(name, Known(here[0], "", here))
            return name, None

        columns = (*Progress.get_default_columns()[:3], MofNCompleteColumn(), TimeRemainingColumn())
        with contextlib.ExitStack() as stack, Progress(*columns, console=Console(stderr=True)) as progress:
            # After a failure the other threads need not wait for an archive that is busy.
            stack.callback(stopped.set)
            task = progress.add_task("retrieving", total=n_wanted, completed=n_wanted - len(missing))
            for name, fault in in_threads(bring, missing, N_THREADS):
                if fault is not None:
                    self.failures.append((name, fault))
                    if len(self.failures) == HOPELESS and not self.known:
                        raise InputError(f"nothing of {self.address} can be retrieved: {fault}")
                progress.advance(task)

    def _sort_out(self, wanted: dict[str, Instance]) -> None:
        """Leaves out what an earlier command had stored there: its findings would be found again."""
        own = [name for name in sorted(self.known) if is_own_picture(self.local(name))]
        for name in own:
            self.local(name).unlink()
            self.note(name, None)
            self.warnings.append(FileWarning(OWN_PICTURE, name))
        if own:
            print(f"{self.address}: {len(own)} of them left out: {OWN_PICTURE}", file=sys.stderr)
        if len(self.failures) == len(wanted):
            raise InputError(f"nothing of {self.address} can be retrieved: {self.failures[0][1]}")
        if not self.known:
            raise InputError(f"{self.address} holds no radiographs that can be retrieved, but {len(own)} {OWN_PICTURE}")


def retrieve(client: Client, base: str, instance: Instance, part: Path) -> None:
    """Writes one object of an archive into the file `part`. Raises PassingError, or RefusedError."""
    url = f"{base}/{instance.path}"
    # Not its address: the identifiers in it are the patient's.
    where = f"object {instance.uid}"
    try:
        for accept in ACCEPT:
            also = () if accept == ACCEPT[-1] else (400, 406)
            with client.answer("GET", url, {"Accept": accept}, also=also) as response:
                if response.status not in also:
                    _write(response, part, where)
                    break
    except RefusedError as error:
        raise RefusedError(f"{where}: {error}", error.status) if error.status in (404, 410) else error from None
    except MultipartError as error:
        raise PassingError(f"{where}: the answer is damaged ({error})", status=CUT_SHORT) from None
    _check(part, instance, where)


def _write(response: "BaseHTTPResponse", part: Path, where: str) -> None:
    content_type = response.headers.get("content-type", "")
    if media_type(content_type) not in (RELATED, DICOM):
        kind = media_type(content_type)[:60] or "something without a type"
        raise RefusedError(f"{where}: the answer is {kind}, and no DICOM object")
    n_parts = 0
    digest = hashlib.sha256()
    with part.open("wb") as file:
        for event in read_parts(content_type, response.stream(2**16)):
            if isinstance(event, dict):
                n_parts += 1
            elif event is not None and n_parts == 1:
                file.write(event)
                digest.update(event)
    if n_parts != 1:
        raise RefusedError(f"{where}: the answer holds {n_parts} objects in place of one")
    # Commands that go on where they stopped know a file by its size and time: the same for the same content.
    seconds = int.from_bytes(digest.digest()[:4]) % 2**31
    os.utime(part, (seconds, seconds))


def _check(part: Path, instance: Instance, where: str) -> None:
    try:
        with part.open("rb") as file:
            if not is_dicom(file.read(132)):
                raise RadiographError("no DICOM file")
        received = str(read_elements(part, ["SOPInstanceUID"]).get("SOPInstanceUID", "")).strip(" \0")
    except RadiographError as error:
        raise RefusedError(f"{where}: what came is damaged ({str(error).removeprefix(f'{part.name}: ')})") from None
    if received != instance.uid:
        raise RefusedError(f"{where}: another object came in its place")


def name_of(instance: Instance) -> str:
    """Where an instance lies in the folder."""
    return f"{instance.study}/{instance.series}/{instance.uid}.dcm"


def is_own_picture(path: Path) -> bool:
    """Whether a file is a secondary capture of findings, as xray.outputs.dicom.secondary_capture makes them."""
    try:
        elements = read_elements(path, ["SOPClassUID", "Manufacturer", "BurnedInAnnotation"])
    except RadiographError:
        return False
    is_picture = elements.get("SOPClassUID") == SecondaryCaptureImageStorage
    return is_picture and elements.get("Manufacturer") == "xray" and elements.get("BurnedInAnnotation") == "YES"


def is_of_all(error: RefusedError) -> bool:
    """Whether a failure is one of the archive, and not of a single object: some fail with 500 on a damaged one."""
    is_silent = error.status == 0 and isinstance(error.__cause__, PassingError)
    return is_silent or error.status in {401, 403, *PASSING} - {500}


def delete_old() -> None:
    """Deletes what commands that were interrupted left, once it is older than LIFETIME and nobody uses it."""
    for home in (cache_folder() / KIND).glob("*"):
        with contextlib.suppress(OSError):
            newest = max(path.stat().st_mtime for path in (home, home / "index", home / "parts") if path.exists())
            if time.time() - newest > LIFETIME and not is_in_use(home):
                shutil.rmtree(home, ignore_errors=True)
