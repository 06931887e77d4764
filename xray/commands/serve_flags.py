"""The flags of serve."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Literal

import tyro
from annotated_types import Interval

from xray.flags import Port, Share

DicomObject = Literal["sr", "sr-comprehensive3d", "seg", "seg-fractional", "gsps", "sc"]


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
