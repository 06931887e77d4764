"""What models found in several radiographs: their tables, a contact sheet, and files to write."""

import dataclasses
import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, overload

import numpy as np

from xray.api.result import FITTED, IMAGE, Result
from xray.api.savable import Savable
from xray.errors import InputError
from xray.flags.wrong import nearest
from xray.outputs.pictures.overlays import draw_contact_sheet
from xray.radiographs.radiograph import source_id
from xray.structures.boxes import concatenate_with_masks
from xray.structures.predictions import Predictions

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NAMED = 5
"""Ids that an error names."""
MOST_COMPARED = 2000
SHOWN = 12
"""Radiographs of a contact sheet."""


class NoResultError(KeyError):
    """There is no result of this name; the message says which there are."""

    def __str__(self) -> str:
        # A KeyError's own text is in quotes, with escapes.
        return str(self.args[0])


class Results(Savable, Sequence[Result]):
    """The findings in several radiographs, a `Result` each, in the order of what was given.

    failures: file or name of each radiograph that could not be read → the reason; it has no result.
    passed_over: sentences about files of the folder that are no radiographs.
    """

    def __init__(
        self, results: Iterable[Result], failures: Mapping[str, str] | None = None, passed_over: Iterable[str] = ()
    ) -> None:
        self._results = list(results)
        self._places = {result.id: place for place, result in enumerate(self._results)}
        self.failures = dict(failures or {})
        self.passed_over = tuple(passed_over)

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results)

    @overload
    def __getitem__(self, which: int | str) -> Result: ...
    @overload
    def __getitem__(self, which: slice) -> "Results": ...
    def __getitem__(self, which: int | str | slice) -> "Result | Results":
        """A result by its place or by the radiograph's id; a slice of them.

        Raises IndexError, or KeyError that says which ids there are, or why a radiograph has no result.
        """
        if isinstance(which, slice):
            return Results(self._results[which])
        if isinstance(which, str) and which not in self._places:
            raise NoResultError(self._why_none(which))
        return self._results[self._places[which] if isinstance(which, str) else which]

    def _why_none(self, name: str) -> str:
        failed = {key: why for key, why in self.failures.items() if name in (key, source_id(PurePath(key).name))}
        if failed:
            return f"{name} has no result, as it could not be read: {next(iter(failed.values()))}"
        if not self._places:
            return f"there is no result of {name}: there is none at all"
        # Of very many names, comparing each takes long.
        meant = nearest(name, self._places, "; ") if len(self) <= MOST_COMPARED else ""
        more = f" and {len(self) - NAMED} more, see .ids" if len(self) > NAMED else ""
        return f"there is no result of {name}{meant or '.'} The ids are {', '.join(self.ids[:NAMED])}{more}"

    def __repr__(self) -> str:
        failures = f", {len(self.failures)} could not be read" if self.failures else ""
        return f"<xray.Results: {len(self)} radiographs, {sum(map(len, self))} findings{failures}>"

    @property
    def ids(self) -> list[str]:
        """Names of the radiographs."""
        return [result.id for result in self]

    @property
    def warnings(self) -> dict[str, tuple[str, ...]]:
        """Id → what the user of a radiograph should know although it was read; only of those with any."""
        return {result.id: result.warnings for result in self if result.warnings}

    @property
    def table(self) -> "pd.DataFrame":
        """The tables of all, below each other, with image_id in front."""
        import pandas as pd

        tables = [result.table.assign(image_id=result.id) for result in self if len(result)]
        columns = ["image_id", "category", "category_id", "score", "x1", "y1", "x2", "y2"]
        columns += FITTED if any(result.finder.thresholds for result in self) else ()
        columns += [IMAGE] if any(result.image_check for result in self) else ()
        if not tables:
            return pd.DataFrame(columns=columns)
        # Columns that not all have, as models with other settings found them, are empty there.
        return pd.concat(tables, ignore_index=True).reindex(columns=columns)

    @property
    def probabilities(self) -> "pd.DataFrame":
        """A row for each radiograph, by its id, and a column for each label of the classifiers, and "normal"."""
        import pandas as pd

        index = pd.Index(self.ids, name="image_id")
        return pd.DataFrame([result.probabilities for result in self], index=index)

    def to_predictions(self) -> Predictions:
        """All rows as commands know them, "No finding" among them."""
        table, masks = concatenate_with_masks(
            (dataclasses.replace(result.rows, images=np.full(len(result.rows), number)), result.segmentations)
            for number, result in enumerate(self)
        )
        return Predictions(tuple(self.ids), table, masks)

    def above(self, threshold: float) -> "Results":
        """The same with those findings alone that score at least `threshold`, in [0, 1]."""
        return Results([result.above(threshold) for result in self], self.failures, self.passed_over)

    def plot(self, threshold: float | None = None, columns: int = 4, most: int = SHOWN, side: int = 512) -> "Figure":
        """A matplotlib figure with the first `most` radiographs and their findings, `columns` in a row.

        threshold: lowest confidence, in [0, 1], of the findings that are drawn; None for what was fitted, or 0.3.
        side: pixels of the longer side of each.
        Raises InputError as `Result.pixels` does.
        """
        from xray.api.figures import figure_of

        if not len(self):
            raise InputError("there is no radiograph to draw: see failures")
        pictures = [result.picture(threshold, max_side=side) for result in self._results[:most]]
        return figure_of(draw_contact_sheet(pictures, min(columns, len(pictures))))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = self.table.to_html(max_rows=SHOWN, float_format="{:.3f}".format)
        return f"<p>{html.escape(repr(self)[1:-1])}</p>{rows}"
