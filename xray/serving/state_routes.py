"""What the API says of itself: whether it works, how busy it is, what it runs."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from xray.serving.answers import about
from xray.serving.operations import Operations
from xray.serving.schemas import About, Health
from xray.serving.service import Service


def add_state(
    app: FastAPI,
    service: Service,
    operations: Operations,
    node: Callable[[], dict[str, int | float]] | None,
    kinds: Sequence[str],
) -> None:
    """Adds /execution-parameters, /ping, /health and /about. kinds: of reports that can be made of an answer.

    The other arguments are those of `xray.serving.app.create_app`.
    """
    limits = service.limits

    @app.get("/execution-parameters", tags=["SageMaker"])
    async def execution_parameters() -> dict[str, int | str]:
        """How a batch transform should ask: one radiograph a request, as many at a time as decoding workers."""
        n_megabytes = max(1, min(100, limits.max_bytes // 2**20))
        n = limits.n_workers
        return {"MaxConcurrentTransforms": n, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": n_megabytes}

    @app.get("/ping", tags=["SageMaker"])
    async def ping() -> Response:
        """Whether the models are loaded and at work: 200, or 503."""
        return Response(status_code=200 if service.model.is_alive else 503)

    def own_state() -> dict[str, Any]:
        told = None if node is None else node()
        return {"status": "ok" if service.model.is_alive else "stopped", "dicom": told, **service.model.load}

    together = None if operations.together is None else operations.together(own_state)

    @app.get("/health", response_model=Health, tags=["server"], responses={503: {"model": Health}})
    async def health() -> Health | JSONResponse:
        """Whether the server works, and how busy it is: all of its workers, where there are several."""
        own = own_state()
        state = Health(**(own if together is None else await asyncio.to_thread(together.of_all, own)))
        return state if own["status"] == "ok" else JSONResponse(state.model_dump(), 503)

    @app.get("/about", tags=["server"])
    async def describe() -> About:
        """What this server runs, and its limits."""
        shown = (service.thresholds, service.shown_from)
        found = about(service.pipeline, service.models, limits.max_bytes, kinds, *shown)
        return found.model_copy(update={"has_card": operations.card is not None})
