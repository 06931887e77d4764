"""Serves trained models: a page to look at, and an HTTP API. python tools/serve.py --weights RUN --port 8080."""

import contextlib
import dataclasses
import io
import json
import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from xray import interrupts
from xray.commands import operations
from xray.commands.runner import command
from xray.commands.serve_flags import Config
from xray.errors import FlagError, InputError, need
from xray.flags import check_ranges
from xray.inference.options import check_precision
from xray.serving.accepting import Door
from xray.serving.quiet import silence_libraries, telling
from xray.serving.request_guard import HostNames, host_names

if TYPE_CHECKING:
    from fastapi import FastAPI

    from xray.outputs.dicom.objects import Algorithm
    from xray.outputs.dicom.results import DicomResults
    from xray.radiographs.image_check import Gate, Mode
    from xray.serving.dicom_node import DicomNode
    from xray.serving.dicom_peers import Peer
    from xray.serving.dicom_tls import Tls
    from xray.serving.service import Service
    from xray.serving.supervising import Role

GRACE = 0.3
"""Seconds that answers under way may take once the server is interrupted."""


def main(config: Config) -> int | None:
    """Serves until it is interrupted."""
    check_ranges(config)
    check_precision(config.precision, config.runtime)
    check_dicom(config)
    host_names(config.host, config.port, config.host_name)
    checked = operations.check(config)
    # Before the models are loaded, which takes seconds: a port that is taken is known at once.
    level = logging.DEBUG if config.debug else logging.WARNING
    with listening(config.host, config.port) as door, telling(level):
        if config.workers > 1:
            return operations.run_workers(config, door)
        serve(config, door, checked)
    return None


def serve(config: Config, door: Door, checked: "operations.Checked", role: "Role | None" = None) -> None:
    """Serves at a socket until it is interrupted. role: of one of several workers."""
    # The flags are checked by now: the rest imports torch.
    from xray.serving.app import create_app
    from xray.serving.connections import server_of
    from xray.serving.service import Limits, load_service

    silence_libraries()
    runs = [Path(run) for run in config.weights]
    n_bytes = int(config.max_megabytes * 2**20)
    limits = Limits(config.places, n_bytes, config.n_workers, config.timeout, batch_size=config.batch_size)
    gates = (gate_of(config, "warn"), gate_of(config, "refuse"))
    how = (config.device, config.precision, config.tta, config.gate, config.runtime, config.threshold, *gates)
    is_first = role is None or not (role.number or role.is_again)
    # What there is to say of the models is said once.
    with contextlib.nullcontext() if is_first else contextlib.redirect_stderr(io.StringIO()):
        service = load_service(runs, limits, *how)
    algorithm = algorithm_in(config, service, runs)
    with (
        service,
        dicom_node(config, check_dicom(config), service, algorithm) as node,
        operations.operations_of(config, checked, service, algorithm, node, role) as around,
    ):
        host, port = door.getsockname()[:2]
        names = host_names(config.host, port, config.host_name, config.sagemaker)
        app = create_app(service, algorithm, names, around, None if node is None else node.status)
        if config.dicomweb:
            open_dicomweb(config, app, service, algorithm, names)
        server = server_of(app, GRACE, tls=checked.tls)
        if checked.tls is not None:
            operations.behind_tls(door)
        door.listen(1024)
        if is_first:
            scheme = "http" if checked.tls is None else "https"
            place = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"
            print(f"xray is at {place} (Ctrl-C ends it)", flush=True)
        if node is not None:
            print(f"DICOM node {config.dicom_aet} is at {config.host}:{node.port}", flush=True)
        if role is not None:
            role.is_ready()
        server.run(sockets=[door])


def run_worker() -> NoReturn:
    """One of several workers: a process that `xray serve --workers` started."""
    from xray.serving.supervising import Role, from_plain

    given = json.load(sys.stdin)
    config, role = from_plain(Config, given[0]), from_plain(Role, given[1])
    interrupts.watch()
    interrupts.follow_parent()

    def work() -> None:
        mine = operations.share_of(config, role)
        checked = operations.check(mine, warn=lambda line: None)
        with operations.door_of(role) as door, telling(logging.DEBUG if config.debug else logging.WARNING):
            serve(mine, door, checked, role)

    sys.exit(operations.ends_quietly(work, config.debug))


def check_dicom(config: Config) -> "Peer | None":
    """Where the DICOM node returns answers, None without one. Raises FlagError if a flag of it is wrong or missing."""
    if not config.dicom_objects:
        raise FlagError("--dicom-objects names nothing to return: give one or more of sr, seg, gsps, sc")
    for kind, other in (("sr", "sr-comprehensive3d"), ("seg", "seg-fractional")):
        if kind in config.dicom_objects and other in config.dicom_objects:
            raise FlagError(f"--dicom-objects names {kind} and {other}, which say the same: give one of them")
    if config.dicomweb:
        need("--dicomweb", "serve,dicom-out", "highdicom")
        if config.workers > 1:
            raise FlagError("--dicomweb keeps results in one process, and --workers starts several: leave one out")
    if config.dicom_port is None:
        for name in ("return", "queue", "resend", "commitment", "tls_cert", "tls_key", "tls_ca"):
            if getattr(config, f"dicom_{name}"):
                raise FlagError(f"--dicom-{name.replace('_', '-')} is for --dicom-port: add that, or leave it out")
        return None
    need("--dicom-port", "serve,dicom-out", "pynetdicom", "highdicom")
    from xray.serving.dicom_peers import check_aet, parse_peer

    check_aet("--dicom-aet", config.dicom_aet)
    for title in config.dicom_callers:
        check_aet("--dicom-callers", title)
    dicom_tls(config)
    if not config.dicom_return:
        raise FlagError("--dicom-port needs --dicom-return AET@HOST:PORT, the node that gets the findings")
    return parse_peer("--dicom-return", config.dicom_return)


def dicom_tls(config: Config) -> "Tls | None":
    """The DICOM node's TLS, None without a certificate. Raises FlagError for files that cannot be used."""
    if bool(config.dicom_tls_cert) != bool(config.dicom_tls_key) or (config.dicom_tls_ca and not config.dicom_tls_cert):
        raise FlagError("--dicom-tls-cert and --dicom-tls-key belong together, and --dicom-tls-ca to both: give them")
    if not config.dicom_tls_cert:
        return None
    from xray.serving.dicom_tls import tls_of

    files = (Path(config.dicom_tls_cert), Path(config.dicom_tls_key))
    authorities = Path(config.dicom_tls_ca) if config.dicom_tls_ca else None
    return tls_of(*files, authorities, config.dicom_tls_clients, config.dicom_tls_names, config.dicom_tls)


def dicom_node(
    config: Config, peer: "Peer | None", service: "Service", algorithm: "Algorithm"
) -> contextlib.AbstractContextManager["DicomNode | None"]:
    """The running DICOM node, None without --dicom-port."""
    if config.dicom_port is None or peer is None:
        return contextlib.nullcontext()
    from xray.radiographs.image_check import fault_of_header
    from xray.serving.dicom_connections import Limits
    from xray.serving.dicom_node import DicomNode, answering
    from xray.serving.dicom_queue_store import queue_folder

    logging.getLogger("xray.dicom").setLevel(logging.INFO)
    results = results_of(config, service, algorithm)
    limits = Limits(n_bytes=int(config.max_megabytes * 2**20))
    place = (config.dicom_port, config.dicom_aet, config.host)
    fault_of = fault_of_header if service.node_gate.mode == "refuse" else None
    folder = Path(config.dicom_queue) if config.dicom_queue else queue_folder(config.dicom_aet, config.dicom_port)
    node = DicomNode(
        answering(service, results),
        peer,
        *place,
        config.dicom_callers,
        limits,
        service.workers,
        fault_of,
        folder=folder,
        tls=dicom_tls(config),
        commits=config.dicom_commitment,
    )
    if config.dicom_resend:
        print(f"{node.resend()} radiographs and answers that had failed are tried again", flush=True)
    return node


def results_of(config: Config, service: "Service", algorithm: "Algorithm") -> "DicomResults":
    """The maker of --dicom-objects. Raises InputError for one that these models cannot give."""
    from xray.outputs.dicom.results import DicomResults
    from xray.structures.thresholds import in_force

    segmenters = service.pipeline.segmenters
    if "seg-fractional" in config.dicom_objects and not segmenters:
        raise InputError("--dicom-objects seg-fractional is of segmenters, and --weights names none")
    wanted = wanted_of(config.dicom_objects)
    lowest, thresholds = in_force(service.thresholds, config.report_threshold, default=service.shown_from)
    map_labels = tuple(segmenters[0].categories) if segmenters else ()
    results = DicomResults(algorithm, lowest, thresholds=thresholds, map_labels=map_labels, **wanted)
    service.model.keeps_maps = results.need_maps
    return results


def algorithm_in(config: Config, service: "Service", runs: Sequence[Path]) -> "Algorithm":
    """What DICOM objects and FHIR say of the models and how they are used: as `xray infer` says it."""
    from xray.inference.ensemble_file import files_of
    from xray.outputs.card.reference import SERVED, SETTING
    from xray.outputs.dicom.objects import inference_algorithm
    from xray.structures.thresholds import in_force

    pipeline = service.pipeline
    lowest, thresholds = in_force(service.thresholds, config.report_threshold, default=service.shown_from)
    threshold = lowest if thresholds is None else thresholds.description
    # What xray evaluate --fit stored in a run may change, and its weights stay the same.
    triplet = dataclasses.astuple(pipeline.triplet) if pipeline.segmenters else ()
    others: dict[str, Any] = {"gate_threshold": pipeline.hard_gate, SETTING: SERVED}
    how = (threshold, config.tta, config.gate, triplet)
    return inference_algorithm(files_of(runs), *how, upright=config.upright, **others)


def gate_of(config: Config, default: "Mode") -> "Gate":
    """What happens to files that are no upright frontal chest radiographs. default: what auto stands for."""
    from xray.radiographs.image_check import Gate

    return Gate(default if config.gate_image == "auto" else config.gate_image, config.upright)


def wanted_of(names: Sequence[str]) -> dict[str, Any]:
    """--dicom-objects as arguments of DicomResults."""
    plain: dict[str, Any] = {kind: kind in names for kind in ("sr", "seg", "gsps", "sc")}
    return plain | dict(name.split("-") for name in names if "-" in name)


def open_dicomweb(config: Config, app: "FastAPI", service: "Service", algorithm: "Algorithm", names: HostNames) -> None:
    """Adds the endpoint of --dicomweb to the application."""
    from xray.serving.dicomweb import add_dicomweb
    from xray.serving.dicomweb_store import ResultStore

    store = ResultStore(int(config.dicomweb_megabytes * 2**20), config.dicomweb_minutes * 60)
    add_dicomweb(app, service, results_of(config, service, algorithm), store, names)


def listening(host: str, port: int) -> Door:
    """A socket that listens at an address. Raises InputError where none can."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        door = Door(family, kind, protocol)
        try:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind(address)
        except OSError:
            door.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot listen at {host}, port {port} ({reason}): give another --host or --port") from None
    return door


def run() -> int:
    """The command; returns its exit status."""
    # Names of machines and titles of nodes are no addresses of data, whatever they look like.
    return command(Config, main, stay_remote=lambda config: ("host", "host_name", "dicom_return"))
