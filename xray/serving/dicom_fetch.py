"""Brings studies from another DICOM node here: by C-GET where it offers that, else by C-MOVE to a node of our own."""

import contextlib
import dataclasses
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts, build_role, evt

from xray.errors import InputError
from xray.files import complete
from xray.outputs.dicom.objects import OwnPictureError, read_source
from xray.radiographs.codestream import COMPRESSED
from xray.radiographs.dicom import NATIVE
from xray.radiographs.file_warnings import NOT_RETRIEVED, OWN_PICTURE, FileWarning
from xray.serving.dicom_connections import MAX_PDU, Limits
from xray.serving.dicom_peers import ACCEPTED, let_sender_choose
from xray.serving.dicom_query import Image, Query, Study, find_studies
from xray.serving.dicom_sending import ae_of, linked, status_of_response
from xray.serving.dicom_statuses import Outcome
from xray.serving.quiet import silence_libraries

GET = "1.2.840.10008.5.1.4.1.2.2.3"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
"""Study Root Query/Retrieve Information Model – GET and MOVE."""
UNFINISHED = "studies.part"
PATIENCE = Limits(seconds=120.0)
_OTHERS = [str(one.abstract_syntax) for one in AllStoragePresentationContexts if one.abstract_syntax not in ACCEPTED]
OTHER_CLASSES = sorted(_OTHERS, key=lambda sop_class: UID(sop_class).name.endswith("Image Storage"))
"""Classes that are refused by their name, documents first, where a node does not say which class its objects are of,
as dcmqrscp 3.6.7: without a context for them it would only be seen that something did not come."""
MAX_CONTEXTS = 128
"""Of an association (PS3.8 9.3.2.2)."""


@dataclasses.dataclass(frozen=True)
class Fetched:
    """What came of a query. folder: <study>/<series>/<instance>.dcm. failures: (such a name, why) of what did not come.
    warnings: what the other node has that is no radiograph, or a picture of ours."""

    folder: Path
    studies: Sequence[Study]
    failures: list[tuple[str, str]]
    warnings: list[FileWarning]


@contextlib.contextmanager
def fetched(query: Query, out: Path) -> Iterator[Fetched]:
    """Has the radiographs of a query in OUT/studies.part, which is deleted at the end.

    Raises InputError where there is none, or none came.
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
        kept = _retrieve(query, ae, studies, folder)
        if len(kept.rest) == len(images):
            raise InputError(
                f"none of {len(images)} images came from {query.peer.aet}, the first is {images[0].uid}: give the same "
                f"command again, or ask there"
            )
        why = f"it did not come from {query.peer.aet}: ask there"
        own = _without_own_pictures(folder)
        others = [f"{count} {kind}" for kind, count in sorted(Counter(kept.others.values()).items())]
        late = [*others, *([f"{len(own)} {OWN_PICTURE}"] if own else [])]
        if late:
            print(f"left out of these: {', '.join(late)}", file=sys.stderr)
        if len(own) == len(kept.came):
            rest = f", and {len(kept.rest)} that did not come" if kept.rest else ""
            raise InputError(f"{query.peer.aet} has no radiographs of this study, only {', '.join(late)}{rest}")
        left_out = [(study.uid, what) for study in studies for what in study.left_out.in_words]
        left_out += [(query.peer.aet, what) for what in others]
        warnings = [FileWarning(NOT_RETRIEVED, *one) for one in left_out] + [FileWarning(OWN_PICTURE, n) for n in own]
        yield Fetched(folder, studies, [(image.name, why) for image in kept.rest], warnings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tell(studies: Sequence[Study]) -> None:
    for study in studies:
        kind = f"prior of {study.date or 'unknown date'}" if study.is_prior else f"study of {study.date or 'no date'}"
        rest = f"; left out: {', '.join(study.left_out.in_words)}" if study.left_out.in_words else ""
        n = len(study.images)
        print(f"{kind}: {n} {'object' if n == 1 else 'objects'} may be radiographs{rest}", file=sys.stderr)


def _retrieve(query: Query, ae: AE, studies: Sequence[Study], folder: Path) -> "_Kept":
    """Brings all images → what became of them."""
    kept = _Kept(folder, studies)
    if query.retrieve in ("auto", "get") and _get(query, ae, studies, kept):
        return kept
    if query.retrieve == "get":
        raise InputError(f"{query.peer.aet} offers no C-GET: have it send by C-MOVE, with retrieve=move")
    _move(query, ae, studies, kept)
    return kept


class _Kept:
    """Files of what comes. came: SOP Instance UIDs. others: of what is no radiograph, UID → its class in words.
    also: classes that are taken only to be named there."""

    def __init__(self, folder: Path, studies: Sequence[Study]) -> None:
        self.came: set[str] = set()
        self.others: dict[str, str] = {}
        self._folder = folder
        self._wanted = {image.uid: image for study in studies for image in study.images}
        self.also = OTHER_CLASSES if not all(image.sop_class for image in self._wanted.values()) else []

    @property
    def rest(self) -> list[Image]:
        """What has not come."""
        return [image for uid, image in self._wanted.items() if uid not in self.came and uid not in self.others]

    def store(self, event: Any) -> int:
        """Handles a C-STORE request: nothing is kept that was not asked for."""
        uid = str(event.request.AffectedSOPInstanceUID)
        image = self._wanted.get(uid)
        if image is None:
            return 0x0112
        sop_class = UID(str(event.request.AffectedSOPClassUID))
        if sop_class not in ACCEPTED:
            self.others[uid] = sop_class.name.removesuffix(" Storage")
            return 0x0122
        path = self._folder / image.name
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
    syntaxes = [list(NATIVE[:2]), *([syntax] for syntax in COMPRESSED)]
    n_free = MAX_CONTEXTS - 1 - len(ACCEPTED) * len(syntaxes)
    also, more = kept.also[:n_free], kept.also[n_free:]
    if not _get_in(query, ae, studies, kept, syntaxes, also, is_last=not more):
        return False
    # All classes that there are do not fit into one association.
    while more and kept.rest:
        also, more = more[: MAX_CONTEXTS - 1], more[MAX_CONTEXTS - 1 :]
        _get_in(query, ae, studies, kept, [], also, is_last=not more)
    for syntax in COMPRESSED:
        # dcmqrscp 3.6.7 takes the first context of a class, whatever the image is in, and fails: now that is the only.
        if not kept.rest:
            break
        _get_in(query, ae, studies, kept, [[syntax]])
    return True


def _get_in(
    query: Query,
    ae: AE,
    studies: Sequence[Study],
    kept: _Kept,
    syntaxes: Sequence[Sequence[str]],
    also: Sequence[str] = (),
    is_last: bool = True,
) -> bool:
    """One association. syntaxes: groups of them that radiographs may come in. also: other classes that are taken.

    is_last: the other node is given up where it gives nothing. Returns whether it offers C-GET.
    """
    ae.requested_contexts = []
    ae.add_requested_context(GET)
    for storage in ACCEPTED:
        for group in syntaxes:
            ae.add_requested_context(storage, list(group))
    for other in also:
        ae.add_requested_context(other, list(NATIVE[:2]))
    roles = [build_role(storage, scp_role=True) for storage in (*(ACCEPTED if syntaxes else ()), *also)]
    with linked(ae, query.peer, query.tls, [(evt.EVT_C_STORE, kept.store)], roles) as link:
        if isinstance(link, Outcome):
            raise InputError(f"{query.peer.aet} gives nothing: {link.why}")
        if not any(context.abstract_syntax == GET for context in link.accepted_contexts):
            return False
        _ask_for(studies, kept, lambda asked: link.send_c_get(asked, GET), is_last)
    return True


def _move(query: Query, ae: AE, studies: Sequence[Study], kept: _Kept) -> None:
    """Has the other node send to a node of our own, which listens as long as this takes."""
    for syntaxes in ((*NATIVE, *COMPRESSED), NATIVE):
        # dcmqrscp 3.6.7 offers several syntaxes in one context, and fails with images that are in another than was
        # taken: of those that did not come in the one that it prefers, the rest is uncompressed.
        if kept.rest:
            _move_in(query, ae, studies, kept, syntaxes)


def _move_in(query: Query, ae: AE, studies: Sequence[Study], kept: _Kept, syntaxes: Sequence[str]) -> None:
    own = AE(ae_title=query.aet)
    own.require_called_aet = True
    own.maximum_pdu_size = MAX_PDU
    for storage in ACCEPTED:
        own.add_supported_context(storage, list(syntaxes))
    for other in kept.also:
        own.add_supported_context(other, [*NATIVE, *COMPRESSED])
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


def _ask_for(studies: Sequence[Study], kept: _Kept, ask: Callable[[Dataset], Any], is_last: bool = True) -> None:
    """Asks for each series as a whole where that is wanted, then for each image that has not come."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    images = [image for study in studies for image in study.images]
    columns = (*Progress.get_default_columns()[:3], MofNCompleteColumn())
    whole = {
        (image.study, image.series) for study in studies for image in study.images if image.series in study.is_whole
    }
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("retrieving", total=len(images), completed=len(images) - len(kept.rest))

        def tell() -> None:
            progress.update(task, completed=len(images) - len(kept.rest))

        failures: list[str] = []
        if not kept.came:
            first = {(image.study, image.series): image for image in reversed(images)}
            for key in sorted(whole):
                failures += _wait_for(ask(_asked("SERIES", first[key])), tell)
        for image in kept.rest:
            failures += _wait_for(ask(_asked("IMAGE", image)), tell)
            tell()
    if is_last and failures and not kept.came and not kept.others:
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


def _without_own_pictures(folder: Path) -> list[str]:
    """Removes pictures of findings that xray itself had sent to the archive → their names."""
    own = []
    for path in sorted(folder.rglob("*.dcm")):
        try:
            read_source(path)
        except OwnPictureError:
            path.unlink()
            own.append(path.relative_to(folder).as_posix())
        except InputError:
            pass
    return own
