"""What models found in one radiograph: a table, boxes, masks and probabilities, a picture, and files to write."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.api.finder import Finder
from xray.api.origin import Origin
from xray.api.savable import Savable
from xray.errors import InputError
from xray.outputs.pictures.findings import as_shown, draw_findings
from xray.radiographs.canvas import Canvas
from xray.radiographs.image_check import ImageCheck
from xray.structures.boxes import BoxTable
from xray.structures.masks import decode_mask
from xray.structures.predictions import NO_FINDING_CATEGORY
from xray.structures.radiograph_findings import RadiographFindings

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NORMAL = "normal"
FITTED = ("probability", "is_positive")
"""Columns of a table where thresholds were fitted."""
IMAGE = "image_check"
"""Column of a table where radiographs were looked at."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Result(Savable):
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
        return [findings_of(self).name_of(label) for label in self.labels.tolist()]

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
        lowest, fitted = self.finder.shown(threshold)
        shown, lowest, notes = as_shown(findings_of(self), fitted, lowest)
        return draw_findings(self.pixels, shown, self.id, True, lowest, max_side, min(512, max_side), notes)

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


def findings_of(result: Result) -> RadiographFindings:
    """What was found, as it came, for what draws and writes it."""
    notes = () if result.image_check is None else result.image_check.warnings
    found = (result.rows, result.segmentations, result.finder.categories, result.classified, result.maps)
    return RadiographFindings(*found, notes, has_places=result.finder.has_places)
