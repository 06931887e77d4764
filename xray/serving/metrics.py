"""What a Prometheus server reads at /metrics: requests, radiographs, queues, failures, the models, the DICOM node.

Several worker processes of one server keep their numbers in files of one folder, which whoever is asked adds up.
"""

import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xray import __version__
from xray.serving.accepting import Throttle
from xray.serving.observing import GONE, Observed

log = logging.getLogger("xray.serving")

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable by which prometheus_client knows, when it is imported, where several processes count."""
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds."""
FINDING = ("/predict", "/invocations")
"""Routes whose answers are findings of a radiograph."""
REASONS = {
    400: "damaged_request",
    401: "no_account",
    403: "not_allowed",
    404: "not_found",
    405: "wrong_method",
    406: "not_acceptable",
    408: "too_slow",
    413: "too_large",
    415: "no_radiograph",
    421: "unknown_name",
    422: "unreadable",
    429: "busy",
    GONE: "client_gone",
    500: "failed",
    502: "upstream_failed",
    503: "stopped",
    504: "upstream_slow",
}
"""Status → why a request got no answer."""
LOAD = {
    "places": "Requests that may be worked on at a time.",
    "taken": "Requests that are being worked on.",
    "waiting": "Radiographs that wait for the models.",
    "running": "Radiographs that the models are working on.",
}
REFRESH = 2.0
"""Seconds between two looks of a worker at what it has to tell."""
NODE = "xray_dicom_"
"""What the names of the DICOM node's numbers begin with."""


class Metrics:
    """All numbers of a server, or of one of its workers.

    load: numbers of LOAD. models: label → value of `xray_model_info`, one mapping for each model. dicom: the DICOM
    node's numbers, where there is one.
    """

    def __init__(
        self,
        load: Callable[[], Mapping[str, float]],
        models: Sequence[Mapping[str, str]],
        dicom: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        import prometheus_client as prometheus

        self._registry = registry = prometheus.CollectorRegistry()
        self._load, self._dicom = load, dicom
        self._folder = os.environ.get(FOLDER, "")
        names = ["method", "route", "status"]
        self._requests = prometheus.Counter("xray_http_requests", "Requests.", names, registry=registry)
        self._seconds = prometheus.Histogram(
            "xray_http_request_seconds", "From a request's header to the end of its answer.", ["route"],
            buckets=BUCKETS, registry=registry,
        )  # fmt: skip
        self._received = prometheus.Counter("xray_http_received_bytes", "Of bodies.", ["route"], registry=registry)
        self._sent = prometheus.Counter("xray_http_sent_bytes", "Of bodies.", ["route"], registry=registry)
        self._radiographs = prometheus.Counter("xray_radiographs", "Radiographs answered by HTTP.", registry=registry)
        self._failures = prometheus.Counter("xray_failures", "Requests without answer.", ["reason"], registry=registry)
        self._by_name: dict[str, Any] = {}
        self._gauges = {name: self._gauge(f"xray_{name}", what) for name, what in LOAD.items()}
        self._gauge("xray_info", "The version of xray.", ["version"], "livemax").labels(__version__).set(1)
        for labels in models:
            info = self._gauge("xray_model_info", "A model that is loaded.", list(labels), "livemax")
            info.labels(*labels.values()).set(1)
        if not self._folder:
            prometheus.ProcessCollector(registry=registry)
        self._throttle, self._lock, self._is_over = Throttle(), threading.Lock(), threading.Event()

    def _gauge(self, name: str, what: str, labels: list[str] | None = None, mode: str = "livesum") -> Any:
        """A number that may fall. mode: what becomes of those of several workers."""
        import prometheus_client as prometheus

        if name not in self._by_name:
            options: dict[str, Any] = {"multiprocess_mode": mode} if self._folder else {}
            self._by_name[name] = prometheus.Gauge(name, what, labels or [], registry=self._registry, **options)
        return self._by_name[name]

    def __call__(self, one: Observed) -> None:
        """Counts a request."""
        self._requests.labels(one.method, one.route, str(one.status)).inc()
        self._seconds.labels(one.route).observe(one.seconds)
        self._received.labels(one.route).inc(one.received)
        self._sent.labels(one.route).inc(one.sent)
        if one.status >= 400:
            self._failures.labels(REASONS.get(one.status, "other")).inc()
        elif one.route in FINDING and one.status == 200:
            self._radiographs.inc()

    def refresh(self) -> None:
        """Takes over what is true now: the load, and what the DICOM node says."""
        with self._lock:
            for name, value in self._load().items():
                if name in self._gauges:
                    self._gauges[name].set(value)
            try:
                told = self._dicom() if self._dicom is not None else {}
            except Exception as error:
                # What a node cannot say of itself must not hide the rest.
                if self._throttle.is_due(time.monotonic()):
                    log.error("the DICOM node does not say how it is: %s", type(error).__name__)
                told = {}
            for name, value in told.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    self._of_node(name).set(value)

    def _of_node(self, key: str) -> Any:
        return self._gauge(NODE + re.sub(r"[^a-z0-9_]", "_", key.lower()), f"The DICOM node: {key.replace('_', ' ')}.")

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The text of all numbers, and its media type. accept: the header of the request."""
        import prometheus_client as prometheus
        from prometheus_client import exposition, multiprocess

        self.refresh()
        registry: Any = self._registry
        if self._folder:
            registry = prometheus.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry, self._folder)
        encode, kind = exposition.choose_encoder(accept)
        return encode(registry), kind

    def keep_fresh(self) -> None:
        """Of several workers each is asked now and then only: its numbers are written by a thread of their own."""
        if self._folder:
            threading.Thread(target=self._refresh_now_and_then, name="metrics", daemon=True).start()

    def _refresh_now_and_then(self) -> None:
        while not self._is_over.wait(REFRESH):
            self.refresh()

    def close(self) -> None:
        """Ends that thread."""
        self._is_over.set()


def forget_process(folder: Path, process: int) -> None:
    """A worker has ended: what it was doing is over, what it counted stays."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(process, str(folder))
