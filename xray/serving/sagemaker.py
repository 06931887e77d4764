"""Handler functions for SageMaker's inference toolkit: model_fn, input_fn, predict_fn, output_fn.

An inference.py of one line, `from xray.serving.sagemaker import *`, is what script mode asks for; docs/sagemaker.md has
the rest. The toolkit sends the traceback of every exception to the client. So a request that cannot be answered passes
through the functions as `Refused`, and `output_fn` gives it its status and one line.
"""

import atexit
import contextlib
import dataclasses
import io
import json
import logging
from pathlib import Path
from typing import Any

from sagemaker_inference.errors import GenericInferenceToolkitError

from xray.inference.pipeline import Findings, Pipeline
from xray.outputs.dicom.objects import Algorithm
from xray.serving import invocations
from xray.serving.answers import SHOWN_FROM, Answer, answer
from xray.serving.invocations import CSV, DICOM, JSON, RefusedError
from xray.serving.runs import runs_in
from xray.serving.service import Limits, Service, UnreadableError, readable
from xray.serving.worker import BusyError, ModelError

__all__ = ["input_fn", "model_fn", "output_fn", "predict_fn"]

KINDS = ("application/dicom", "image/png", "image/jpeg", "application/octet-stream")
MAX_BYTES = Limits.max_bytes

log = logging.getLogger("xray.serving")


@dataclasses.dataclass(frozen=True)
class Model:
    """What `model_fn` loads. algorithm: what a DICOM SR names as its maker."""

    service: Service
    algorithm: Algorithm


@dataclasses.dataclass(frozen=True)
class Refused:
    """A request that cannot be answered: a status of HTTP, and why in one line."""

    status: int
    line: str


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The findings of one radiograph. content: its file, to which a DICOM SR refers."""

    content: bytes
    found: Findings
    answer: Answer
    model: Model


def model_fn(model_dir: str) -> Model:
    """Loads the run, or runs, of a model directory. Raises InputError if there is none, or a damaged one."""
    import numpy as np
    import torch

    from xray.inference.pipeline import load_pipeline
    from xray.inference.precision import lowered
    from xray.models.device import inference_precision, keep_freed_memory, resolve_device
    from xray.outputs.dicom.objects import algorithm_of

    runs = runs_in(Path(model_dir))
    device = resolve_device("auto")
    if device.type == "cpu":
        keep_freed_memory()
    pipeline: Pipeline = load_pipeline(runs, device)
    precision = inference_precision("auto", device)
    if precision not in (None, torch.float32):
        pipeline = lowered(pipeline, precision)
    # The first pass prepares weights and compiles; nobody shall wait for it.
    size = pipeline.canvas_size
    pipeline.find(np.zeros((1, size, size), dtype=np.uint8), [(size, size)])
    # The model server gives each of its processes one request at a time.
    service = Service(pipeline, [run.resolve().name for run in runs], Limits(n_workers=1))
    stack = contextlib.ExitStack()
    stack.enter_context(service)
    atexit.register(stack.close)
    settings: dict[str, object] = {"threshold": SHOWN_FROM, "mirrored": True, "gate": "soft"}
    if pipeline.segmenters:
        settings["triplet"] = " ".join(f"{value:g}" for value in dataclasses.astuple(pipeline.triplet))
    return Model(service, algorithm_of(runs, **settings))


def input_fn(body: bytes | bytearray | str, content_type: str | None) -> bytes | Refused:
    """A request's body → the file that it is or names. body: text where the toolkit has decoded it."""
    kind = (content_type or KINDS[-1]).partition(";")[0].strip().lower()
    try:
        if kind == JSON:
            buffer = io.BytesIO()
            wanted = invocations.object_of(body if isinstance(body, str) else bytes(body))
            invocations.fetch(wanted, buffer, MAX_BYTES)
            return buffer.getvalue()
        if kind not in KINDS or isinstance(body, str):
            return Refused(415, f"this is {kind[:60]!r}: send {', '.join((*KINDS, JSON))}")
        if len(body) > MAX_BYTES:
            return Refused(413, f"the request has more than the {MAX_BYTES / 2**20:g} MiB allowed")
        return bytes(body) or Refused(400, "the body is empty: send one DICOM, PNG or JPEG file")
    except Exception as error:
        return refusal_of(error)


def predict_fn(data: bytes | Refused, model: Model) -> Prediction | Refused:
    """The findings of one file."""
    if isinstance(data, Refused):
        return data
    service = model.service
    try:
        with service.upload() as path:
            path.write_bytes(data)
            found, size, seconds = service.find(path)
        return Prediction(data, found, answer(found, size, service.pipeline, service.models, seconds), model)
    except Exception as error:
        return refusal_of(error)


def output_fn(prediction: Prediction | Refused, accept: str, context: Any = None) -> tuple[str | bytes, str]:
    """The answer and its media type: JSON, CSV or a DICOM SR.

    context: the toolkit's, whose status a refusal sets; without one it raises the toolkit's error.
    """
    outcome = prediction if isinstance(prediction, Refused) else _written(prediction, accept)
    if not isinstance(outcome, Refused):
        return outcome
    if context is None:
        raise GenericInferenceToolkitError(outcome.status, outcome.line)
    context.set_response_status(code=outcome.status, phrase=outcome.line)
    return json.dumps({"detail": outcome.line}), JSON


def _written(prediction: Prediction, accept: str) -> tuple[str | bytes, str] | Refused:
    model = prediction.model
    try:
        kind = invocations.choose(accept, invocations.offered(model.algorithm))
        if kind == CSV:
            return invocations.csv_of(prediction.answer), kind
        if kind == DICOM:
            categories = model.service.pipeline.categories
            work = invocations.report_of(prediction.found, prediction.answer, categories, model.algorithm)
            with model.service.upload() as path:
                path.write_bytes(prediction.content)
                return readable(model.service.in_worker(work, path).result(), path), kind
        return prediction.answer.model_dump_json(), kind
    except Exception as error:
        return refusal_of(error)


def refusal_of(error: Exception) -> Refused:
    """What a client is told of an exception: of one that nobody expected its type alone."""
    if isinstance(error, RefusedError):
        return Refused(error.status, error.line)
    if isinstance(error, UnreadableError):
        return Refused(invocations.status_of(error), str(error))
    if isinstance(error, BusyError):
        return Refused(429, f"all places are taken: try again in {error.retry_after} s")
    if isinstance(error, ModelError):
        return Refused(500, str(error))
    is_debug = log.isEnabledFor(logging.DEBUG)
    log.error("a request failed: %s", type(error).__name__, exc_info=is_debug)
    return Refused(500, f"the request failed ({type(error).__name__})")
