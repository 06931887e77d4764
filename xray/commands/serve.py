"""Serves trained models: a page to look at, and an HTTP API. python tools/serve.py --weights RUN --port 8080."""

import contextlib
import dataclasses
import io
import json
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import tyro
from annotated_types import Interval

from xray import interrupts
from xray.commands import operations
from xray.commands.runner import command
from xray.errors import FlagError, InputError, need
from xray.flags import Port, Share, check_ranges
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

DicomObject = Literal["sr", "sr-comprehensive3d", "seg", "seg-fractional", "gsps", "sc"]
GRACE = 0.3
"""Seconds that answers under way may take once the server is interrupted."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Answer requests with what trained models find: a page at /, the API's documentation at /docs. Ctrl-C ends it.

    Several detectors are fused, several segmenters or classifiers averaged, as in tools/infer.py. Nothing is kept of a
    radiograph once it is answered. Without --auth there are no accounts: let only those reach the port who may use it.
    """

    weights: tuple[str, ...]
    """Run directories of trained models of any task, or the ensemble.yaml that tools/tune.py wrote."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 is all of this machine's, so that others can reach it."""
    port: Port = 8080
    """Port to listen at; 0 takes a free one, which is printed."""
    host_name: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME or NAME:PORT under which the server answers too, such as the name that a proxy in front of it passes on in
    Host; may be repeated. localhost, 127.0.0.1, [::1] and --host are allowed, with --port; no other name is."""
    auth: Path | None = None
    """File of accounts, lines of `xray account NAME`: then every request needs one, by Basic authentication or as a
    bearer token, but for /ping."""
    auth_open: tuple[Literal["health", "metrics"], ...] = ()
    """Of /health and /metrics, those that need no account, such as for a load balancer."""
    tls_cert: Path | None = None
    """Certificate for HTTPS, PEM, followed by those that lead to its root; with --tls-key."""
    tls_key: Path | None = None
    """Its key, PEM without a passphrase."""
    request_log: str = ""
    """File to which a line of JSON for each request is appended, without names: method, route, status, milliseconds,
    bytes; - is stderr."""
    metrics: bool = True
    """Answer /metrics, for a Prometheus server."""
    workers: Annotated[int, Interval(ge=1, le=64)] = 1
    """Processes that answer at this port, each with models of its own: --places and --n-workers are shared among them.
    Another one is started where one ends. On a GPU each takes the models' memory again."""
    sagemaker: bool = False
    """Answer /ping, /invocations and /execution-parameters under any name, as SageMaker needs; pages of other sites
    are refused there, too. The container sets it."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu or cuda."""
    tta: bool = True
    """Look at the mirrored radiograph too and fuse both (test-time augmentation)."""
    gate: Literal["soft", "hard"] = "soft"
    """What a classifier does to the others' findings, as in tools/infer.py."""
    runtime: Literal["auto", "torch", "openvino"] = "auto"
    """What runs the models, as in tools/infer.py."""
    precision: Literal["auto", "32", "bf16", "16", "int8"] = "auto"
    """What convolutions are computed in; auto is bf16 on GPUs that have it, and on a CPU what a trial of
    tools/infer.py found right for these weights, bf16 or int8; else 32. int8 as in tools/infer.py."""
    batch_size: Annotated[int, Interval(ge=0, le=1024)] = 0
    """Most radiographs per pass, of those that wait; 0 chooses 2 on a CPU and 8 on a GPU."""
    places: Annotated[int, Interval(ge=1, le=10_000)] = 32
    """Requests that may be worked on at a time, once they have come in whole; more are answered 429 and told when to
    come back. Twice as many may be coming in, half of these from one address. The DICOM node has places of its own."""
    max_megabytes: Annotated[float, Interval(ge=0.01, le=1024)] = 100.0
    """Largest request, and largest object that the DICOM node takes, in MiB."""
    n_workers: Annotated[int, Interval(ge=1, le=256)] = min(4, os.cpu_count() or 1)
    """Processes that decode files."""
    timeout: Annotated[float, Interval(ge=0.1, le=3600)] = 60.0
    """Seconds that one file may take to decode."""
    dicom_port: Port | None = None
    """Port of a DICOM node that takes radiographs (CR, DX, SC) by C-STORE and returns findings; 0 takes a free one.
    None where it is not given. It listens at --host; DICOM knows no passwords either."""
    dicom_return: str = ""
    """AET@HOST:PORT of the node that gets the findings; needed with --dicom-port."""
    dicom_objects: tuple[DicomObject, ...] = ("sr", "seg")
    """What it gets for each radiograph, one or more of: sr, a structured report (Comprehensive SR), or
    sr-comprehensive3d; seg, a segmentation where there is a mask, or seg-fractional, the probabilities that masks are
    made of; gsps, a presentation state that viewers draw over the image; sc, the image with findings drawn on it."""
    dicom_aet: str = "XRAY"
    """Title of the DICOM node."""
    dicom_callers: tuple[str, ...] = ()
    """Titles of the nodes that may send; all may where none is given."""
    dicomweb: bool = False
    """Be a small DICOMweb archive of results too, at /dicom-web: who stores a radiograph there (STOW-RS) finds and
    retrieves what --dicom-objects names (QIDO-RS, WADO-RS). Results lie in memory; radiographs are not kept."""
    dicomweb_minutes: Annotated[float, Interval(gt=0, le=100_000)] = 60.0
    """Minutes for which DICOMweb keeps results, above 0 and up to 100000."""
    dicomweb_megabytes: Annotated[float, Interval(ge=1, le=1_000_000)] = 256.0
    """Room for results of DICOMweb, in MiB; where it is taken, more radiographs are refused until the oldest go."""
    dicom_queue: str = ""
    """Folder in which radiographs that were acknowledged and answers wait on the disk, so that a kill loses none; the
    node makes it, for its user alone. Default: ~/.local/state/xray/dicom/TITLE-PORT, or below $XDG_STATE_HOME."""
    dicom_resend: bool = False
    """Send again what is kept because the other node refused it for good, or what gave no answer."""
    dicom_commitment: bool = False
    """Ask the other node to commit to what it has stored (storage commitment); what it does not is sent again."""
    dicom_tls: Literal["both", "in", "out"] = "both"
    """Where the DICOM node uses TLS once it has a certificate: on connections that come in, go out, or both."""
    dicom_tls_cert: str = ""
    """PEM file with the DICOM node's certificate, and the chain that signed it; without one there is no TLS."""
    dicom_tls_key: str = ""
    """PEM file with the key of that certificate, without a password."""
    dicom_tls_ca: str = ""
    """PEM file with the authorities whose certificates other nodes may have; default: the system's."""
    dicom_tls_clients: bool = True
    """Let only those connect by TLS that have a certificate of these authorities."""
    dicom_tls_names: bool = True
    """Send only to a node whose certificate is for its host as --dicom-return names it."""
    report_threshold: Share | None = None
    """Lowest confidence of the findings in what the DICOM node and DICOMweb return, in [0, 1]; default: as
    --threshold."""
    threshold: Share | None = None
    """Lowest confidence, in [0, 1], of the findings that the page shows at first and that reports hold, calibrated
    where that was fitted. Default: for each finding what tools/evaluate.py --fit kept beside the models, else 0.3."""
    gate_image: Literal["auto", "off", "warn", "refuse"] = "auto"
    """What becomes of files that are no frontal chest radiographs, or not upright, by header and pixels. warn: answers,
    page and reports say so; refuse: they get no findings, requests status 422 and DICOM senders warning B007; off: they
    are not looked at. auto: warn for requests, refuse for the DICOM node."""
    upright: bool = False
    """Turn radiographs that lie on a side or upside down before the models look; boxes and masks are in the file's own
    pixels all the same."""
    debug: bool = False
    """Show the traceback of an error."""


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
    """What becomes of files that are no upright frontal chest radiographs. default: what auto is."""
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
    """A socket at an address. Raises InputError if it cannot be had."""
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
