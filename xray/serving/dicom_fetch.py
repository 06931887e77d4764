"""Brings studies from another DICOM node here: by C-GET where it offers that, else by C-MOVE to a node of our own."""

import contextlib
import csv
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt

from xray.errors import InputError
from xray.files import complete
from xray.outputs.dicom.objects import OwnPictureError, read_source
from xray.radiographs.codestream import COMPRESSED
from xray.radiographs.dicom import NATIVE, read_elements
from xray.serving.dicom_connections import MAX_PDU, Limits
from xray.serving.dicom_peers import ACCEPTED, let_sender_choose
from xray.serving.dicom_query import Image, Query, Study, find_studies
from xray.serving.dicom_sending import ae_of, linked, status_of_response
from xray.serving.dicom_statuses import Outcome
from xray.serving.quiet import silence_libraries

GET = "1.2.840.10008.5.1.4.1.2.2.3"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
"""Study Root Query/Retrieve Information Model – GET and MOVE."""
STUDIES, UNFINISHED = "studies.csv", "studies.part"
COLUMNS = {
    "SeriesNumber": "series_number",
    "SeriesDescription": "series_description",
    "InstanceNumber": "instance_number",
    "ViewPosition": "view_position",
    "ImageLaterality": "laterality",
}
PATIENCE = Limits(seconds=120.0)


@contextlib.contextmanager
def fetched(query: Query, out: Path) -> Iterator[tuple[Path, list[Study]]]:
    """OUT/studies.part with the radiographs of a query, <study>/<series>/<instance>.dcm, which is deleted at the end.

    Raises InputError where there is none, or one that the other node has did not come.
    """
    silence_libraries()
    ae = ae_of(query.aet, PATIENCE)
    ae.maximum_pdu_size = MAX_PDU
    studies = find_studies(query, ae)
    images = [image for study in studies for image in study.images]
    _tell(studies)
    if not images:
        raise InputError(f"{query.peer.aet} has no radiographs of this study, neither CR, DX nor secondary captures")
    folder = out / UNFINISHED
    # What a killed command left.
    shutil.rmtree(folder, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700)
    try:
        came = _retrieve(query, ae, studies, folder)
        if missing := [image for image in images if image.uid not in came]:
            raise InputError(
                f"{len(missing)} of {len(images)} images did not come from {query.peer.aet}, the first is "
                f"{missing[0].uid}: give the same command again, or ask there"
            )
        if count := _without_own_pictures(folder):
            print(f"left out: {count} pictures of findings that xray has made", file=sys.stderr)
            if count == len(images):
                raise InputError(f"{query.peer.aet} has no radiographs of this study, only pictures that xray has made")
        yield folder, studies
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tell(studies: Sequence[Study]) -> None:
    for study in studies:
        kind = f"prior of {study.date or 'unknown date'}" if study.is_prior else f"study of {study.date or 'no date'}"
        rest = "".join(f", without {count} {what}" for what, count in study.left_out.items())
        print(f"{kind}: {len(study.images)} images{rest}", file=sys.stderr)


def _retrieve(query: Query, ae: AE, studies: Sequence[Study], folder: Path) -> set[str]:
    """Brings all images → the UIDs of those that came."""
    kept = _Kept(folder, studies)
    if query.retrieve in ("auto", "get") and _get(query, ae, studies, kept):
        return kept.came
    if query.retrieve == "get":
        raise InputError(f"{query.peer.aet} offers no C-GET: have it send by C-MOVE, with retrieve=move")
    _move(query, ae, studies, kept)
    return kept.came


class _Kept:
    """Files of what comes. came: SOP Instance UIDs."""

    def __init__(self, folder: Path, studies: Sequence[Study]) -> None:
        self.came: set[str] = set()
        self._folder = folder
        self._wanted = {image.uid: image for study in studies for image in study.images}

    def store(self, event: Any) -> int:
        """Handles a C-STORE request: nothing is kept that was not asked for."""
        uid = str(event.request.AffectedSOPInstanceUID)
        image = self._wanted.get(uid)
        if image is None:
            return 0x0112
        path = self._folder / image.study / image.series / f"{uid}.dcm"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with complete(path) as temporary:
                temporary.write_bytes(event.encoded_dataset())
            # The same command, given again, finds the same files: it resumes where it stopped.
            os.utime(path, (0, 0))
        except OSError:
            return 0xA700
        self.came.add(uid)
        return 0x0000


def _get(query: Query, ae: AE, studies: Sequence[Study], kept: _Kept) -> bool:
    """Whether the other node offers C-GET, by which it then sends on the same association."""
    # A context of its own for each: in one of several, an archive would decompress what it has compressed.
    if not _get_in(query, ae, studies, kept, [list(NATIVE[:2]), *([syntax] for syntax in COMPRESSED)]):
        return False
    for syntax in COMPRESSED:
        # dcmqrscp 3.6.7 takes the first context of a class, whatever the image is in, and fails: now that is the only.
        if len(kept.came) == sum(len(study.images) for study in studies):
            break
        _get_in(query, ae, studies, kept, [[syntax]])
    return True


def _get_in(query: Query, ae: AE, studies: Sequence[Study], kept: _Kept, syntaxes: Sequence[Sequence[str]]) -> bool:
    ae.requested_contexts = []
    ae.add_requested_context(GET)
    for storage in ACCEPTED:
        for group in syntaxes:
            ae.add_requested_context(storage, list(group))
    roles = [build_role(storage, scp_role=True) for storage in ACCEPTED]
    with linked(ae, query.peer, query.tls, [(evt.EVT_C_STORE, kept.store)], roles) as link:
        if isinstance(link, Outcome):
            raise InputError(f"{query.peer.aet} gives nothing: {link.why}")
        if not any(context.abstract_syntax == GET for context in link.accepted_contexts):
            return False
        _ask_for(studies, kept, lambda asked: link.send_c_get(asked, GET))
    return True


def _move(query: Query, ae: AE, studies: Sequence[Study], kept: _Kept) -> None:
    """Has the other node send to a node of our own, which listens as long as this takes."""
    for syntaxes in ((*NATIVE, *COMPRESSED), NATIVE):
        # dcmqrscp 3.6.7 offers several syntaxes in one context, and fails with images that are in another than was
        # taken: of those that did not come in the one that it prefers, the rest is uncompressed.
        if len(kept.came) < sum(len(study.images) for study in studies):
            _move_in(query, ae, studies, kept, syntaxes)


def _move_in(query: Query, ae: AE, studies: Sequence[Study], kept: _Kept, syntaxes: Sequence[str]) -> None:
    own = AE(ae_title=query.aet)
    own.require_called_aet = True
    own.maximum_pdu_size = MAX_PDU
    for storage in ACCEPTED:
        own.add_supported_context(storage, list(syntaxes))
    handlers: list[Any] = [
        (evt.EVT_C_STORE, kept.store),
        (evt.EVT_REQUESTED, lambda event: let_sender_choose(event.assoc)),
    ]
    context = None if query.tls is None else query.tls.accepting
    try:
        server: Any = own.start_server(("0.0.0.0", query.port), block=False, evt_handlers=handlers, ssl_context=context)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot listen at port {query.port} ({reason}): give port=… of another one") from None
    try:
        ae.requested_contexts = []
        ae.add_requested_context(MOVE)
        with linked(ae, query.peer, query.tls) as link:
            if isinstance(link, Outcome):
                raise InputError(f"{query.peer.aet} gives nothing: {link.why}")
            _ask_for(studies, kept, lambda asked: link.send_c_move(asked, query.aet, MOVE))
    finally:
        server.shutdown()


def _ask_for(studies: Sequence[Study], kept: _Kept, ask: Callable[[Dataset], Any]) -> None:
    """Asks for each series as a whole where that is wanted, then for each image that has not come."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    images = [image for study in studies for image in study.images]
    columns = (*Progress.get_default_columns()[:3], MofNCompleteColumn())
    whole = {
        (image.study, image.series) for study in studies for image in study.images if image.series in study.is_whole
    }
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("retrieving", total=len(images), completed=len(kept.came))

        def tell() -> None:
            progress.update(task, completed=len(kept.came))

        failures: list[str] = []
        if not kept.came:
            first = {(image.study, image.series): image for image in reversed(images)}
            for key in sorted(whole):
                failures += _wait_for(ask(_asked("SERIES", first[key])), tell)
        for image in images:
            if image.uid not in kept.came:
                failures += _wait_for(ask(_asked("IMAGE", image)), tell)
                tell()
    if failures and not kept.came:
        raise InputError(f"the other node gives nothing: {failures[0]}")


def _asked(level: str, image: Image) -> Dataset:
    asked = Dataset()
    asked.QueryRetrieveLevel = level
    asked.StudyInstanceUID, asked.SeriesInstanceUID = image.study, image.series
    if level == "IMAGE":
        asked.SOPInstanceUID = image.uid
    return asked


def _wait_for(responses: Any, tell: Callable[[], None]) -> list[str]:
    """Waits for the last response of a C-GET or C-MOVE → why it failed, if so."""
    status: int | None = None
    for response, _ in responses:
        status = status_of_response(response)
        tell()
    if status is None:
        return ["no answer"]
    known = {0xA801: "it does not know our title: add it there, with this machine's address and port"}
    return [] if status in (0x0000, 0xB000) else [f"status {status:04X} ({known.get(status, 'failed')})"]


def write_studies(out: Path, folder: Path, studies: Sequence[Study]) -> None:
    """Writes OUT/studies.csv: of each radiograph the study, whether that is a prior, the series and the view."""
    with complete(out / STUDIES) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "study_instance_uid", "study_date", "is_prior", *COLUMNS.values()])
        for study in studies:
            for image in study.images:
                path = folder / image.study / image.series / f"{image.uid}.dcm"
                if path.is_file():
                    told = _described(path)
                    writer.writerow([image.uid, study.uid, study.date, int(study.is_prior), *told.values()])


def _described(path: Path) -> Mapping[str, str]:
    told = dict.fromkeys(COLUMNS, "")
    with contextlib.suppress(Exception):  # whatever pydicom raises on a value that is none of its type
        elements = read_elements(path, tuple(COLUMNS))
        for name in COLUMNS:
            told[name] = " ".join(str(elements.get(name, "") or "").split())[:64]
    return told


def _without_own_pictures(folder: Path) -> int:
    """Removes pictures of findings that xray itself had sent to the archive → how many."""
    count = 0
    for path in sorted(folder.rglob("*.dcm")):
        try:
            read_source(path)
        except OwnPictureError:
            path.unlink()
            count += 1
        except InputError:
            pass
    return count
