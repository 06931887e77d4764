"""What models found in radiographs: tables, boxes, masks and probabilities, pictures, and files to write."""

import dataclasses
import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from xray.api.finder import Finder
from xray.api.origin import Origin
from xray.errors import InputError
from xray.outputs.pictures.findings import as_shown, draw_findings
from xray.outputs.pictures.overlays import draw_contact_sheet
from xray.radiographs.canvas import Canvas
from xray.radiographs.image_check import ImageCheck
from xray.structures.boxes import BoxTable, concatenate_with_masks
from xray.structures.masks import decode_mask
from xray.structures.predictions import NO_FINDING_CATEGORY, Predictions

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from xray.outputs.dicom.results import SegKind, SrKind

NORMAL = "normal"
FITTED = ("probability", "is_positive")
"""Columns of a table where thresholds were fitted."""
IMAGE = "image_check"
"""Column of a table where radiographs were looked at."""
SHOWN = 12
"""Radiographs of a contact sheet."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The findings in one radiograph; n are the boxes, surest first for each kind of model.

    id: name of the radiograph. size: its (width, height) in original pixels; None where only a file of predictions
    tells of it. warnings: what its user should know although it was read. image_check: whether it is an upright frontal
    chest radiograph, by its header and its pixels; None where that was not looked at.

    rows, segmentations, classified, maps: what was found as it came. The rows, "No finding" among them; row → COCO RLE;
    label of a classifier → probability; (K, S, S) uint8 maps on the canvas. finder: what found it. origin: where the
    radiograph came from.
    """

    id: str
    size: tuple[int, int] | None
    rows: BoxTable
    segmentations: Mapping[int, dict[str, Any]]
    classified: Mapping[str, float]
    finder: Finder
    origin: Origin = dataclasses.field(default_factory=Origin)
    warnings: tuple[str, ...] = ()
    maps: np.ndarray | None = None
    image_check: ImageCheck | None = None

    def __len__(self) -> int:
        return int((~self._is_no_finding).sum())

    def __repr__(self) -> str:
        normal = "" if self.normal is None else f", normal {self.normal:.3f}"
        return f"<xray.Result {self.id}: {len(self)} findings{normal}>"

    @property
    def categories(self) -> dict[int, str]:
        """Category id → name of all that the models can find."""
        return dict(self.finder.categories)

    @property
    def path(self) -> Path | None:
        """The file, None for what was not read from one."""
        return self.origin.path

    @property
    def boxes(self) -> np.ndarray:
        """(n, 4) float64, x1, y1, x2, y2 in original pixels. Of classifiers alone, a row has the whole radiograph."""
        return self._shown[0].boxes

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64, category ids."""
        return self._shown[0].labels

    @property
    def scores(self) -> np.ndarray:
        """(n,) float64 in [0, 1]."""
        return self._shown[0].scores

    @property
    def names(self) -> list[str]:
        """The n names of the categories."""
        categories = self.finder.categories
        return [categories.get(label, f"category {label}") for label in self.labels.tolist()]

    @property
    def masks(self) -> np.ndarray | None:
        """(n, height, width) bool, all False for a row without a mask; None where the models find no masks.

        Decoded anew each time: keep it in a variable. It takes n × height × width bytes; `rles` are smaller.
        """
        if not self.finder.has_masks or self._mask_shape is None:
            return None
        masks = np.zeros((len(self), *self._mask_shape), dtype=bool)
        for place, rle in self.rles.items():
            masks[place] = decode_mask(rle)
        return masks

    @property
    def rles(self) -> dict[int, dict[str, Any]]:
        """Number of a box, 0 to n - 1, → its mask as COCO run lengths, {"size": [height, width], "counts": str}."""
        return {row: dict(rle) for row, rle in self._shown[1].items()}

    @property
    def normal(self) -> float | None:
        """Probability that the radiograph is normal, None where the models do not tell."""
        scores = self.rows.scores[self._is_no_finding]
        return float(scores[0]) if len(scores) else None

    @property
    def probabilities(self) -> dict[str, float]:
        """Label of a classifier → probability in [0, 1], and "normal" where it is known."""
        return dict(self.classified) | ({} if self.normal is None else {NORMAL: self.normal})

    @property
    def probability_map(self) -> np.ndarray | None:
        """(K, height, width) float32 in [0, 1], the segmenters' mean probability of each category of theirs.

        None unless `predict` was to keep maps. Enlarged anew each time.
        """
        if self.maps is None or self.size is None:
            return None
        canvas = Canvas(*self.size, self.maps.shape[-1])
        return np.stack([canvas.unletterbox(channel.astype(np.float32) / 255) for channel in self.maps])

    @property
    def pixels(self) -> np.ndarray:
        """(height, width) uint8, the radiograph as a display shows it; a file is read anew each time.

        Raises InputError where it is not there any more, or only a file of predictions tells of it.
        """
        return self.origin.pixels()

    @property
    def table(self) -> "pd.DataFrame":
        """A row for each finding: category, category_id, score, x1, y1, x2, y2 (original pixels).

        Where thresholds were fitted for the models also probability, the calibrated score, and is_positive, whether the
        finding counts as found. Where the radiograph was looked at also image_check, what it is: "chest
        frontal", or why it is not one, or not upright.
        """
        import pandas as pd

        columns = {"category": self.names, "category_id": self.labels, "score": self.scores}
        columns |= dict(zip(("x1", "y1", "x2", "y2"), self.boxes.T, strict=True))
        if (fitted := self.finder.thresholds) is not None:
            rows = self._shown[0]
            values = (fitted.probabilities(rows, self.categories), fitted.is_positive(rows, self.categories))
            columns |= dict(zip(FITTED, values, strict=True))
        if self.image_check is not None:
            columns[IMAGE] = [self.image_check.fault or self.image_check.kind] * len(self)
        return pd.DataFrame(columns)

    def above(self, threshold: float) -> "Result":
        """The same with those findings alone that score at least `threshold`, in [0, 1]."""
        is_shown = (self.rows.scores >= threshold) | self._is_no_finding
        rows, segmentations = self.rows.select_masked(is_shown, self.segmentations)
        return dataclasses.replace(self, rows=rows, segmentations=segmentations)

    def plot(self, threshold: float | None = None, max_side: int = 1600) -> "Figure":
        """A matplotlib figure of the radiograph with its findings, a pixel of the picture for a pixel of the figure.

        threshold: lowest confidence, in [0, 1], of the findings that are drawn; None for what was fitted, or 0.3.
        max_side: most pixels of the longer side.
        A notebook shows it by itself. Raises InputError as `pixels` does.
        """
        from xray.api.figures import figure_of

        return figure_of(self.picture(threshold, max_side))

    def picture(self, threshold: float | None = None, max_side: int = 1600) -> np.ndarray:
        """What `plot` shows, as (h, w, 3) uint8 RGB."""
        findings = (self.rows, self.segmentations, self.finder.categories)
        lowest, fitted = self.finder.shown(threshold)
        rows, masks, lowest, notes = as_shown(*findings, fitted, lowest)
        sides = (max_side, min(512, max_side))
        return draw_findings(self.pixels, rows, masks, findings[2], self.id, True, lowest, *sides, notes)

    def save(
        self,
        folder: str | Path,
        *,
        overlays: bool = False,
        sr: "SrKind" = False,
        seg: "SegKind" = False,
        gsps: bool = False,
        sc: bool = False,
        fhir: bool = False,
        threshold: float | None = None,
        overwrite: bool = False,
    ) -> list[Path]:
        """`Results.save` of this one radiograph."""
        wanted: dict[str, Any] = {"sr": sr, "seg": seg, "gsps": gsps, "sc": sc, "fhir": fhir}
        return Results([self]).save(folder, overlays=overlays, **wanted, threshold=threshold, overwrite=overwrite)

    def to_supervision(self) -> Any:
        """`supervision.Detections` of the package supervision (checked with version 0.31.2), which must be installed.

        xyxy: (n, 4) float32. confidence: (n,) float32. class_id: (n,) int64, category ids. mask: (n, height, width)
        bool, or None. data: "class_name", (n,) str.
        Raises InputError where supervision is not installed.
        """
        try:
            import supervision
        except ImportError:
            raise InputError("to_supervision() needs the package supervision: pip install supervision") from None
        return supervision.Detections(
            xyxy=self.boxes.astype(np.float32),
            mask=self.masks,
            confidence=self.scores.astype(np.float32),
            class_id=self.labels,
            data={"class_name": np.array(self.names, dtype=np.str_)},
        )

    def to_torchvision(self) -> dict[str, Any]:
        """The dictionary that torchvision's detectors return, on the CPU.

        boxes: (n, 4) float32, x1, y1, x2, y2 in original pixels. labels: (n,) int64, category ids. scores: (n,)
        float32. masks: (n, height, width) bool, only where the models find masks.
        """
        import torch

        tensors = {
            "boxes": torch.as_tensor(self.boxes, dtype=torch.float32),
            "labels": torch.as_tensor(self.labels),
            "scores": torch.as_tensor(self.scores, dtype=torch.float32),
        }
        masks = self.masks
        return tensors if masks is None else tensors | {"masks": torch.as_tensor(masks)}

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows."""
        from xray.api.figures import png_of

        try:
            return png_of(self.picture(max_side=800))
        except InputError:
            # IPython shows the text instead.
            return None

    @property
    def _is_no_finding(self) -> np.ndarray:
        """(rows,) bool, whether a row is the probability that the radiograph is normal."""
        if NO_FINDING_CATEGORY in self.finder.categories:
            return np.zeros(len(self.rows), dtype=bool)
        return np.asarray(self.rows.labels == NO_FINDING_CATEGORY)

    @property
    def _shown(self) -> tuple[BoxTable, dict[int, dict[str, Any]]]:
        """The n rows that are findings, and their masks."""
        return self.rows.select_masked(~self._is_no_finding, self.segmentations)

    @property
    def _mask_shape(self) -> tuple[int, int] | None:
        if self.size is not None:
            return self.size[1], self.size[0]
        return next((tuple(rle["size"]) for rle in self.segmentations.values()), None)


class Results(Sequence[Result]):
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
        """A result by its place or by the radiograph's id; a slice of them. Raises IndexError or KeyError."""
        if isinstance(which, slice):
            return Results(self._results[which])
        return self._results[self._places[which] if isinstance(which, str) else which]

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

    def save(
        self,
        folder: str | Path,
        *,
        overlays: bool = False,
        sr: "SrKind" = False,
        seg: "SegKind" = False,
        gsps: bool = False,
        sc: bool = False,
        fhir: bool = False,
        threshold: float | None = None,
        overwrite: bool = False,
    ) -> list[Path]:
        """Writes FOLDER/predictions.json, COCO results as `xray infer` writes them, and what else is asked for.

        overlays: pictures, FOLDER/overlays/<id>.png. sr: structured reports, FOLDER/sr/<id>.dcm (TID 1500), True for
        Comprehensive SR or "comprehensive3d" for Comprehensive 3D SR. seg: masks as DICOM segmentations,
        FOLDER/seg/<id>.dcm, of which a radiograph without a mask has none; "fractional" for the probabilities of all
        that `predict(…, maps=True)` kept. gsps: what viewers draw over the image, FOLDER/gsps/<id>.dcm (presentation
        states); an image in colour has none. sc: the image with the findings drawn on it, FOLDER/sc/<id>.dcm (secondary
        captures). fhir: what a structured report says as HL7 FHIR R5, FOLDER/fhir/<id>.json. Radiographs that are no
        DICOM image, or do not say which one, have none of these.
        threshold: lowest confidence, in [0, 1], that overlays, reports and pictures show; None for what was fitted, or
            0.3.
        overwrite: replaces what is there.
        Returns the files, each written whole; predictions.json is the last. Raises InputError if the folder holds
        predictions already, no radiograph is a DICOM image, or highdicom is not installed (for DICOM).
        """
        from xray.api.saving import save_results

        wanted = {"sr": sr, "seg": seg, "gsps": gsps, "sc": sc, "fhir": fhir}
        return save_results(self, Path(folder), overlays, wanted, threshold, overwrite)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = self.table.to_html(max_rows=SHOWN, float_format="{:.3f}".format)
        return f"<p>{html.escape(repr(self)[1:-1])}</p>{rows}"
