"""A dataset looked through: what it holds, and which of its radiographs and labels somebody should look at."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from xray.audit.appearance import look
from xray.audit.counts import Counts, count, shared_patients
from xray.audit.duplicates import Search, find_duplicates, named_pairs
from xray.audit.labels import Contradictions, contradictions
from xray.audit.named import EMPTY, REASONS, Named
from xray.audit.opposites import on_the_wrong_side
from xray.audit.pictures import read_pictures
from xray.audit.readers import Agreement, reader_agreement
from xray.datasets.store import Store
from xray.evaluation.alignment import align
from xray.structures.predictions import Predictions
from xray.structures.probability_maps import ProbabilityMaps


@dataclasses.dataclass(frozen=True)
class Audit:
    """named: all reasons to look, in the order of REASONS, the surest first within one. counts, agreement: see there.
    search: None of a dataset without pixels. labels: None without predictions. n_predicted: radiographs
    that the predictions were held against. warnings: sentences on the dataset as a whole."""

    store: Store
    named: list[Named]
    counts: Counts
    agreement: Agreement | None
    search: Search | None
    labels: Contradictions | None
    n_predicted: int
    warnings: list[str]

    @property
    def n_named(self) -> int:
        """Radiographs that are named for anything."""
        return len({row for one in self.named for row in one.rows})

    def of(self, *reasons: str) -> list[Named]:
        """What is named for one of these reasons."""
        return [one for one in self.named if one.why in reasons]

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of audit.json; NaN where something is not defined."""
        by_reason = {why: len({row for one in self.of(why) for row in one.rows}) for why in REASONS if self.of(why)}
        metrics: dict[str, Any] = {
            "n_images": len(self.store),
            "n_boxes": len(self.store.boxes),
            "n_named": self.n_named,
            "named_by_reason": by_reason,
            "warnings": self.warnings,
            "counts": self.counts.metrics,
            "readers": self.agreement.metrics if self.agreement else None,
        }
        if self.search:
            metrics["duplicates"] = {
                "pairs": len(self.search.pairs),
                "threshold": self.search.threshold,
                "compared": self.search.n_compared,
                "expected_false": self.search.expected_false,
                "disguised_copies": {
                    name: {"made": made, "found": found} for name, (made, found) in self.search.disguised.items()
                },
            }
        if self.labels:
            metrics["labels"] = {"images": self.n_predicted, "by_reason": self.labels.metrics}
        return metrics | {"named": [one.record(self.store) for one in self.named]}


def audit(
    store: Store,
    predictions: Predictions | None = None,
    maps: ProbabilityMaps | None = None,
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> Audit:
    """Looks through a dataset.

    store: with its pixels, or without: then nothing is said of looks and copies. predictions: out of fold, for labels
        that they contradict. maps: beside them.
    progress: called with what is done, and the share of it in [0, 1].
    Raises InputError where predictions are not of this dataset.
    """
    warnings: list[str] = []
    # Predictions first, which may be refused.
    alignment = align(store, predictions) if predictions is not None else None
    progress("counting", 0.0)
    counts, agreement = count(store), reader_agreement(store)
    named = [*shared_patients(store), *on_the_wrong_side(store)]
    search = labels = None
    if store.images is not None:
        n = len(store)
        pictures = read_pictures(store, lambda done: progress("reading", done / n))
        appearance = look(store, pictures, lambda done: progress("comparing with the others", done / n))
        empty = {one.row for one in appearance.named if one.why == EMPTY}
        rows = np.array([row for row in range(n) if row not in empty], dtype=np.int64)
        search = find_duplicates(
            store, pictures, appearance.turns, appearance.inverted, rows,
            lambda share: progress("looking for copies", share),
        )  # fmt: skip
        named += [*appearance.named, *named_pairs(store, search.pairs)]
        warnings += appearance.warnings
    else:
        warnings.append("the dataset has no pixels: inverted, odd and double radiographs are not looked for")
    if alignment is not None:
        progress("labels", 0.0)
        labels = contradictions(store, alignment, maps)
        named += labels.named
        warnings += labels.notes
        if alignment.n_without_prediction:
            warnings.append(
                f"{alignment.n_without_prediction:,} of {len(alignment):,} radiographs have no prediction at all: they "
                "count as ones in which nothing is seen"
            )
    if search and not math.isnan(search.share_found) and search.share_found < 0.9:
        warnings.append(
            f"of disguised copies of these radiographs only {100 * search.share_found:.0f} % are found: some copies "
            "may be missed"
        )
    order = {why: place for place, why in enumerate(REASONS)}
    named.sort(key=lambda one: (order[one.why], -one.score, one.row, one.other))
    n_predicted = len(alignment) if alignment is not None else 0
    return Audit(store, named, counts, agreement, search, labels, n_predicted, warnings)
