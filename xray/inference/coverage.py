"""Which radiographs a model was run on, as far as its predictions say so: only on these does it have a vote."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from xray.datasets.store import Store
from xray.evaluation.alignment import whole_groups
from xray.structures.predictions import Predictions, is_no_finding


def rows_covered(store: Store, predictions: Predictions) -> np.ndarray:
    """(N,) bool, which radiographs of the store a file of predictions covers.

    Those that it names, where each of them has a "No finding" row; otherwise all of each split and fold that it
    touches, since a radiograph without findings has no row.
    """
    rows = store.resolve(predictions.image_ids)
    covered = rows if _names_all(predictions) else whole_groups(store, rows[rows >= 0])
    return np.isin(np.arange(len(store)), covered)


def _names_all(predictions: Predictions) -> bool:
    """Whether each radiograph has a "No finding" row, so that those that were found empty are named, too."""
    table = predictions.table
    return len(np.unique(table.images[is_no_finding(table)])) == len(predictions.image_ids)


@dataclasses.dataclass(frozen=True)
class Coverage:
    """What each of several models was run on.

    image_ids: radiographs that any of them has. covered: of each model those of them that it was run on.
    """

    image_ids: tuple[str | int, ...]
    covered: tuple[frozenset[str | int], ...]

    @classmethod
    def of(cls, models: Sequence[Predictions], store: Store | None = None, is_whole: Sequence[bool] = ()) -> "Coverage":
        """From what the models found.

        store: the dataset of files. Without it, one whose radiographs do not all have a "No finding" row covers all.
        is_whole: of each model whether its `image_ids` are all that it was run on, as those of results in memory are.
        """
        image_ids = tuple(dict.fromkeys(image_id for model in models for image_id in model.image_ids))
        covered = []
        for model, names_all in zip(models, is_whole or [False] * len(models), strict=True):
            names: set[str | int] = set(model.image_ids)
            if names_all or _names_all(model):
                pass
            elif store is None:
                names.update(image_ids)
            else:
                inside = np.append(rows_covered(store, model), False)[store.resolve(image_ids)]
                names.update(name for name, is_inside in zip(image_ids, inside.tolist(), strict=True) if is_inside)
            covered.append(frozenset(names))
        return cls(image_ids, tuple(covered))

    def gaps(self, names: Sequence[str]) -> Iterator[str]:
        """A sentence for each model that was not run on all radiographs. names: of the models."""
        for name, covered in zip(names, self.covered, strict=True):
            missing = [image_id for image_id in self.image_ids if image_id not in covered]
            if missing and not covered:
                yield (
                    f"{name} has no rows, so that nothing says on what its model was run: it has no vote, and the "
                    "others' weights count alone"
                )
            elif missing:
                yield (
                    f"{name} was not run on {len(missing)} of {len(self.image_ids)} radiographs (such as "
                    f"{missing[0]!r}): its model has no vote there, and the others' weights count alone"
                )
