"""Handler functions for SageMaker's inference toolkit: model_fn, input_fn, predict_fn, output_fn.

An inference.py of one line, `from xray.serving.sagemaker import *`, is what script mode asks for; docs/sagemaker.md has
the rest. The toolkit sends the traceback of every exception to the client. So a request that cannot be answered passes
through the functions as a RefusedError that is returned, and `output_fn` answers with its status and line.
"""

import atexit
import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sagemaker_inference.errors import GenericInferenceToolkitError

from xray.inference.ensemble_file import files_of
from xray.outputs.dicom.objects import Algorithm, inference_algorithm
from xray.radiographs.image_check import Gate
from xray.serving import invocations
from xray.serving.answers import answer
from xray.serving.invocations import CSV, JSON
from xray.serving.runs import runs_in
from xray.serving.schemas import Answer
from xray.serving.service import Limits, Service, load_service, readable
from xray.serving.worker import RefusedError

__all__ = ["input_fn", "model_fn", "output_fn", "predict_fn"]

T = TypeVar("T")

KINDS = ("application/dicom", "image/png", "image/jpeg", "application/octet-stream")
MAX_BYTES = Limits.max_bytes

log = logging.getLogger("xray.serving")


@dataclasses.dataclass(frozen=True)
class Model:
    """What `model_fn` loads. algorithm: what a DICOM SR names as its maker."""

    service: Service
    algorithm: Algorithm


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The findings of one radiograph. content: its file, to which a DICOM SR refers."""

    content: bytes
    answer: Answer
    model: Model


def _refusing(function: Callable[..., T]) -> Callable[..., T | RefusedError]:
    """Has a function return what a client learns of an exception: of an unexpected one only its type."""

    @functools.wraps(function)
    def call(*arguments: Any) -> T | RefusedError:
        try:
            return function(*arguments)
        except RefusedError as error:
            return error
        except Exception as error:
            is_debug = log.isEnabledFor(logging.DEBUG)
            log.error("a request failed: %s", type(error).__name__, exc_info=is_debug)
            return RefusedError(500, f"the request failed ({type(error).__name__})")

    return call


def model_fn(model_dir: str) -> Model:
    """Loads the run, or runs, of a model directory. Raises InputError if there is none, or a damaged one."""
    runs = runs_in(Path(model_dir))
    # The model server gives each of its processes one request at a time.
    service = load_service(runs, Limits(n_workers=1), gate_image=Gate("warn"))
    stack = contextlib.ExitStack()
    stack.enter_context(service)
    atexit.register(stack.close)
    thresholds, pipeline = service.thresholds, service.pipeline
    threshold = service.shown_from if thresholds is None else thresholds.description
    triplet = dataclasses.astuple(pipeline.triplet) if pipeline.segmenters else ()
    return Model(service, inference_algorithm(files_of(runs), threshold, True, "soft", triplet))


@_refusing
def input_fn(body: bytes | bytearray | str, content_type: str | None) -> bytes:
    """A request's body → the file that it is or names. body: text where the toolkit has decoded it."""
    kind = (content_type or KINDS[-1]).partition(";")[0].strip().lower()
    if kind == JSON:
        buffer = io.BytesIO()
        wanted = invocations.object_of(body if isinstance(body, str) else bytes(body))
        invocations.fetch(wanted, buffer, MAX_BYTES)
        return buffer.getvalue()
    if kind not in KINDS or isinstance(body, str):
        raise RefusedError(415, f"this is {kind[:60]!r}: send {', '.join((*KINDS, JSON))}")
    if len(body) > MAX_BYTES:
        raise RefusedError(413, f"the request has more than the {MAX_BYTES / 2**20:g} MiB allowed")
    if not body:
        raise RefusedError(400, "the body is empty: send one DICOM, PNG or JPEG file")
    return bytes(body)


@_refusing
def predict_fn(data: bytes | RefusedError, model: Model) -> Prediction:
    """The findings of one file."""
    if isinstance(data, RefusedError):
        raise data
    service = model.service
    with service.upload() as path:
        path.write_bytes(data)
        findings, size, seconds, check = service.find(path)
    shown = (service.thresholds, service.shown_from, check, hashlib.sha256(data).hexdigest())
    return Prediction(data, answer(findings, size, service.pipeline, service.models, seconds, *shown), model)


def output_fn(prediction: Prediction | RefusedError, accept: str, context: Any = None) -> tuple[str | bytes, str]:
    """The answer and its media type: JSON, CSV, a DICOM SR or FHIR.

    context: the toolkit's, whose status a refusal sets; without one it raises the toolkit's error.
    """
    outcome = _written(prediction, accept)
    if not isinstance(outcome, RefusedError):
        return outcome
    if context is None:
        raise GenericInferenceToolkitError(outcome.status, outcome.line)
    context.set_response_status(code=outcome.status, phrase=outcome.line)
    return json.dumps({"detail": outcome.line}), JSON


@_refusing
def _written(prediction: Prediction | RefusedError, accept: str) -> tuple[str | bytes, str]:
    if isinstance(prediction, RefusedError):
        raise prediction
    service, algorithm = prediction.model.service, prediction.model.algorithm
    kind = invocations.choose(accept, invocations.offered(algorithm))
    if kind == CSV:
        return invocations.csv_of(prediction.answer), kind
    if kind in invocations.REPORTS:
        work = invocations.report_of(prediction.answer, service.pipeline, algorithm, kind)
        with service.upload() as path:
            path.write_bytes(prediction.content)
            return readable(service.in_worker(work, path).result(), path), kind
    return prediction.answer.model_dump_json(), kind
