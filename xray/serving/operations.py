"""What who runs a server asks of it beside findings: accounts, a request log, metrics, the models' card."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xray.errors import InputError
from xray.serving.authentication import Authentication, Checker
from xray.serving.metrics import Metrics
from xray.serving.observing import Observed, Observing

if TYPE_CHECKING:
    from fastapi import FastAPI

    from xray.serving.together import Together

CARD_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; base-uri 'none'; form-action 'none'"
)
"""Of the card's page, whose style stands in it: it may be a file that came with a run, and can do nothing."""


@dataclasses.dataclass(frozen=True)
class Operations:
    """Parts that are not there are None, or empty.

    checker: of those who may ask; None lets everybody. open_paths: for which nobody needs an account. requests: is told
    of each request. card: the models' card as HTML. tickets: folder in which several workers tell of theirs. together:
    makes what several workers say of themselves from the state of this one.
    """

    checker: Checker | None = None
    open_paths: frozenset[str] = frozenset()
    requests: Callable[[Observed], object] | None = None
    metrics: Metrics | None = None
    card: Callable[[], str] | None = None
    tickets: Path | None = None
    together: "Callable[[Callable[[], Mapping[str, Any]]], Together] | None" = None

    def protect(self, app: "FastAPI") -> None:
        """Has accounts asked for. To be called before what shall pass requests on to it."""
        if self.checker is not None:
            app.add_middleware(Authentication, checker=self.checker, open_paths=self.open_paths)

    def observe(self, app: "FastAPI") -> None:
        """Has all requests told of, also those that are refused. To be called last, but for `Slashes`."""
        to = [one for one in (self.metrics, self.requests) if one is not None]
        if to:
            app.add_middleware(Observing, routes=app.router.routes, to=to)

    def add_routes(self, app: "FastAPI") -> None:
        """Adds the pages that there are."""
        from fastapi import Request
        from fastapi.responses import HTMLResponse, Response

        metrics, card = self.metrics, self.card
        if metrics is not None:

            @app.get("/metrics", tags=["server"], response_class=Response)
            def read_metrics(request: Request) -> Response:
                """What a Prometheus server reads."""
                text, kind = metrics.exposition(request.headers.get("accept", ""))
                return Response(text, headers={"content-type": kind})

        if card is not None:

            @app.get("/card", tags=["server"], response_class=HTMLResponse)
            def read_card() -> HTMLResponse:
                """The models' card: what they learned from, what they are worth, and what is not known of them."""
                return HTMLResponse(card(), headers={"content-security-policy": CARD_POLICY})


def card_of(runs: Sequence[Path]) -> Callable[[], str]:
    """The card that `xray card` left with a run, or one made of its files, once somebody asks for it."""
    kept: list[str] = []

    def card() -> str:
        if not kept:
            from xray.outputs.card.card import card_texts, written_card
            from xray.outputs.card.facts import read_facts

            try:
                facts = read_facts(runs)
                written = written_card(runs[0], facts) if len(runs) == 1 else None
                kept.append(written or card_texts(facts)[0])
            except InputError:
                # A file without its run, or a run that was changed while it is served.
                return (
                    "<!doctype html><title>Model card</title><p>The files beside the models do not say what they are."
                )
        return kept[0]

    return card


def models_of(parameters: Any, names: Sequence[str]) -> list[dict[str, str]]:
    """Labels of `xray_model_info`: number, task and hash of each model, as `Algorithm.parameters` has them.

    names: of what was given as --weights, shown where each is one model.
    """
    found = [(key, value.partition(" sha256:")) for key, value in parameters.items() if key.startswith("model ")]
    found = [(key, parts) for key, parts in found if parts[1]]
    shown = names if len(names) == len(found) else [""] * len(found)
    return [
        {"model": key.removeprefix("model "), "name": name, "task": task, "sha256": digest}
        for (key, (task, _, digest)), name in zip(found, shown, strict=True)
    ]
