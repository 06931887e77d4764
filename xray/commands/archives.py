"""What the command infer has to do with archives that speak DICOMweb: what they did not give, what it sends back."""

import collections
import csv
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xray.errors import FlagError, InputError, need
from xray.files import CheckedLog, complete
from xray.storage.dicomweb.addresses import is_dicomweb, service_of, shown
from xray.storage.places import is_from_archive, not_retrieved

if TYPE_CHECKING:
    from xray.commands.infer_flags import Config
    from xray.datasets.inputs import Inputs
    from xray.outputs.dicom.results import DicomResults
    from xray.radiographs.file_warnings import FileWarning
    from xray.serving.dicom_fetch import Fetched

RETURNED = "returned.csv"
SENDING = "returned.part"
"""What was sent so far, in OUT, until all is."""
Failure = tuple[str, str, str]


def check_dicomweb(config: "Config") -> None:
    """Raises FlagError if a flag of DICOMweb is wrong, or has nothing to do; InputError where its library lacks."""
    if is_from_archive(Path(config.data_path)):
        # They were checked before it was retrieved.
        return
    is_retrieved = is_dicomweb(config.data_path)
    if not is_retrieved and not config.return_to:
        for flag in ("dicomweb_auth", "ca"):
            if getattr(config, flag):
                name = f"--{flag.replace('_', '-')}"
                raise FlagError(f"{name} is for a --data-path or a --return of DICOMweb, https://…: leave it out")
        return
    need("a DICOMweb address", "dicomweb", "urllib3")
    from xray.storage.dicomweb.client import trust_of
    from xray.storage.dicomweb.credentials import credentials_of

    if config.return_to:
        need("--return", "dicom-out", "highdicom")
        service_of("return", config.return_to)
    if is_retrieved and (config.split or config.fold >= 0 or config.sample_submission):
        raise FlagError("--split, --fold and --sample-submission are for data of this machine, not for an archive")
    trust_of(config.ca)
    credentials_of(config.dicomweb_auth, _hosts(config))


def with_kinds(config: "Config", has_segmenters: bool) -> "Config":
    """The config with the kinds of objects that --return stands for where none is named."""
    if not config.return_to or config.sr or config.seg or config.gsps or config.sc:
        return config
    return dataclasses.replace(config, sr=True, seg=has_segmenters)


def with_unretrieved(
    data: Path, order: Sequence[str], failures: Sequence[Failure], brought: "Fetched | None" = None
) -> tuple[list[str], list[Failure], list[tuple[str, "FileWarning"]]]:
    """The order of the submission's rows and the failures with those that an archive did not give, and what was left
    out of what it has. brought: what came of a DICOM node, None of a DICOMweb service or a folder."""
    failed, left_out = not_retrieved(data) if brought is None else (brought.failures, brought.warnings)
    more = [(Path(name).stem, name, reason) for name, reason in failed]
    return [*order, *(name for name, *_ in more)], [*failures, *more], [("", warning) for warning in left_out]


def send_back(config: "Config", results: "DicomResults", inputs: "Inputs") -> int:
    """Sends the objects of all radiographs to --return; writes OUT/returned.csv → how many were not stored.

    What was sent is known when the same command is given again. Raises InputError where the service takes nothing.
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from xray.outputs.dicom.results import KINDS, SUFFIXES, object_path
    from xray.storage.dicomweb.client import Client
    from xray.storage.dicomweb.credentials import credentials_of
    from xray.storage.dicomweb.storing import NOT_STORED, store, uid_of

    out, service = Path(config.save_path), service_of("return", config.return_to)
    objects: dict[str, dict[str, Path]] = {}
    for name in inputs.ids:
        paths = {kind: object_path(out, kind, name) for kind in results.kinds if SUFFIXES[kind] == ".dcm"}
        if there := {kind: path for kind, path in paths.items() if path.is_file()}:
            objects[name] = there
    rows: dict[tuple[str, str], dict[str, str]] = {}
    log = CheckedLog(out / SENDING, f"another command is sending from {out}: wait for it, or stop it")
    try:
        for row in list(log.read()):
            if row["to"] == service and row["status"] != NOT_STORED:
                rows[row["image_id"], row["kind"]] = row
        log.cut(len(log.ends))
        columns = (*Progress.get_default_columns()[:3], MofNCompleteColumn(), TimeRemainingColumn())
        credentials = credentials_of(config.dicomweb_auth, _hosts(config))
        with (
            Client(credentials, config.ca, config.dicomweb_timeout) as client,
            Progress(*columns, console=Console(stderr=True)) as progress,
        ):
            for name, paths in progress.track(objects.items(), description="returning"):
                # What was sent before may have been of other findings, which --overwrite has replaced.
                known = {kind: rows[name, kind]["uid"] for kind in paths if (name, kind) in rows}
                rest = {kind: path for kind, path in paths.items() if kind not in known or known[kind] != uid_of(path)}
                outcomes = store(client, service, list(rest.values())) if rest else []
                sent = [
                    {"image_id": name, "kind": kind, "to": service, **dataclasses.asdict(outcome)}
                    for kind, outcome in zip(rest, outcomes, strict=True)
                ]
                log.append(sent)
                rows |= {(name, row["kind"]): row for row in sent}
    except InputError as error:
        raise InputError(
            f"{error}. The findings are in {out}; the same command, given again, sends the rest"
        ) from error
    finally:
        log.close()
    order = [rows[name, kind] for name, paths in objects.items() for kind in paths]
    with complete(out / RETURNED) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "kind", "sop_instance_uid", "status", "reason"])
        writer.writerows([row[key] for key in ("image_id", "kind", "uid", "status", "reason")] for row in order)
    counts = collections.Counter((row["status"], KINDS[row["kind"]]) for row in order)
    said = (
        ", ".join(f"{count} {kind} {status}" for (status, kind), count in sorted(counts.items())) or "nothing to send"
    )
    print(f"{shown(service)}: {said}: {out / RETURNED}")
    unsent = [row for row in order if row["status"] == NOT_STORED]
    if unsent:
        first = unsent[0]
        print(
            f"error: {len(unsent)} of {len(order)} objects were not stored (first {KINDS[first['kind']]} of "
            f"{first['image_id']}: {first['reason']}): see {out / RETURNED}; the same command sends them again",
            file=sys.stderr,
        )
    else:
        (out / SENDING).unlink()
    return len(unsent)


def _hosts(config: "Config") -> list[str]:
    """The addresses of services that the flags name."""
    return [url for url in (config.data_path, config.return_to) if is_dicomweb(url)]
