"""What made results in memory, or what was given to `xray.fuse`, for made_by.json."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xray.api.result import Result
from xray.api.results import Results
from xray.datasets.store import Store
from xray.structures.made_by import MadeBy
from xray.structures.predictions import Predictions


def made_by_results(results: Results) -> MadeBy | None:
    """What made the results; None where that is not known, or is not the same of all."""
    from xray.outputs.made_by import made_by_models, radiographs_of

    finders, stores = [result.finder for result in results], [result.origin.store for result in results]
    if not finders or any(finder != finders[0] for finder in finders):
        return None
    if finders[0].fused is not None:
        return dict(finders[0].fused)
    if not finders[0].runs:
        return None
    first, settings = stores[0], dict(finders[0].settings)
    if is_of_store := first is not None and all(store is first for store in stores):
        settings["gate_image"] = None
    return made_by_models(finders[0].runs, settings, radiographs_of(results.ids, first if is_of_store else None))


def made_by_fused(
    given: Sequence[Any], models: Sequence[Predictions], store: Store | None, settings: dict[str, Any]
) -> MadeBy | None:
    """What made fused predictions; None where it is not known of one of them.

    given: files or results, one a model; models: what was read of them. settings: those of the fusion, as JSON.
    """
    from xray.outputs.made_by import made_by_of

    known: list[MadeBy | None] = []
    for one, model in zip(given, models, strict=True):
        if isinstance(one, (str, os.PathLike)):
            known.append(made_by_of(Path(one), list(map(str, model.image_ids)), store))
        elif isinstance(one, Predictions):
            known.append(None)
        else:
            known.append(made_by_results(Results([one] if isinstance(one, Result) else one)))
    if not known or any(one is None for one in known):
        return None
    return {"fused": known, "settings": settings}
