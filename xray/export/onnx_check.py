"""Whether an exported file finds what PyTorch finds in the same radiographs."""

import contextlib
import dataclasses
import itertools
from collections.abc import Generator
from pathlib import Path
from typing import cast

import numpy as np
import torch

from xray.datasets.inputs import Inputs
from xray.errors import InputError
from xray.inference.loaded import Loaded, LoadedDetector, load_run, prepare
from xray.models.detection.detector import Detector
from xray.phantoms.vinbig import draw_phantom
from xray.radiographs.canvas import Canvas
from xray.radiographs.decoding import Decoded, Undecodable
from xray.radiographs.workers import TIMEOUT

MOST_PIXELS, MOST_SCORE = 0.1, 1e-3
"""How far boxes, in canvas pixels, and scores or probabilities may be apart."""
RADIOGRAPHS = 3
SAME_PIXELS, SAME_SCORE = 4.0, 0.05
"""Within these a box of one side is that of the other, with a difference; otherwise the other side lacks it."""
NOISE = 1e-3
"""Grey levels: about the rounding of float32 in the canvas as the network sees it."""
ATTEMPTS = 12
SMALLEST_PHANTOM = 96
"""Pixels; smaller ones are not drawn."""

Detections = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Boxes (M, 4) in canvas pixels, category ids (M,), scores (M,)."""


@dataclasses.dataclass
class Difference:
    """The largest there are: of boxes' sides in canvas pixels, of scores, of masks' and labels' probabilities.

    boxes: how many PyTorch found. ties: boxes that one side alone has, where PyTorch itself is undecided.
    """

    pixels: float = 0.0
    score: float = 0.0
    probability: float = 0.0
    boxes: int = 0
    ties: int = 0

    def __str__(self) -> str:
        parts = []
        if self.boxes or self.pixels or self.score:
            parts.append(f"{self.pixels:.2g} pixels and {self.score:.2g} in score ({self.boxes} boxes)")
        if self.probability or not parts:
            parts.append(f"{self.probability:.2g} in probability")
        return ", ".join(parts) + (f"; {self.ties} boxes at ties" if self.ties else "")

    @property
    def is_small(self) -> bool:
        """Whether the file may be used in the place of the run."""
        return self.pixels <= MOST_PIXELS and max(self.score, self.probability) <= MOST_SCORE


def compare(run: Path, file: Path, canvases: np.ndarray, prune: int = 0, runtime: str = "onnx") -> Difference:
    """Runs both over canvases (B, S, S) uint8, in batches of two and of what is left.

    runtime: what runs the file, onnx or openvino.
    Raises InputError if one cannot be loaded, or the file holds other models than the run.
    """
    cpu = torch.device("cpu")
    of_run, (of_file, _) = load_run(run, cpu, prune), _loaded(file, runtime)
    for _, model in of_run:
        prepare(model, cpu)
    if [task for task, _ in of_run] != [task for task, _ in of_file]:
        raise InputError(f"{file} and {run} are of other tasks: {', '.join(task for task, _ in of_file)} in the file")
    total = Difference()
    for first in range(0, len(canvases), 2):
        batch = canvases[first : first + 2]
        for (_, model), (_, exported) in zip(of_run, of_file, strict=True):
            if isinstance(model, LoadedDetector):
                assert isinstance(exported, LoadedDetector)
                for one, two, canvas in zip(
                    model.detect(batch, False), exported.detect(batch, False), batch, strict=True
                ):
                    compare_boxes(one, two, model, canvas, total)
            else:
                assert not isinstance(exported, LoadedDetector)
                gap = np.abs(model.probability(batch, False) - exported.probability(batch, False)).max()
                # What is not a number is no small difference.
                total.probability = max(total.probability, float(np.nan_to_num(gap, nan=1.0)))
    return total


def _loaded(file: Path, runtime: str) -> tuple[list[tuple[str, Loaded]], object]:
    if runtime == "openvino":
        from xray.inference.openvino_runtime import load_openvino

        return load_openvino(file)
    from xray.inference.onnx_runtime import load_onnx

    return load_onnx(file, torch.device("cpu"))


def compare_boxes(
    one: Detections, two: Detections, detector: LoadedDetector, canvas: np.ndarray, total: Difference
) -> None:
    """Adds the differences between PyTorch's detections and another side's of one canvas (S, S) to `total`.

    A box that one side lacks counts by how far its score is above the lowest that this side kept, or could have kept.
    But where two boxes overlap by just as much as suppression allows, the last bit decides which of them, and of those
    that they suppress, remain: a box that PyTorch itself wins or loses when the canvas is changed by `NOISE` is a tie.
    """
    pairs = pair(one, two)
    total.boxes += len(one[0])
    for a, b in pairs:
        total.pixels = max(total.pixels, float(np.abs(one[0][a] - two[0][b]).max()))
        total.score = max(total.score, float(abs(one[2][a] - two[2][b])))
    assert isinstance(detector.model, Detector)
    unpaired: list[tuple[Detections, float]] = []
    for place, (side, other) in enumerate(((one, two), (two, one))):
        full = len(other[0]) >= detector.model.max_detections
        floor = other[2].min() if full else detector.model.score_threshold
        for row in sorted(set(range(len(side[0]))).difference(couple[place] for couple in pairs)):
            if (above := float(side[2][row] - floor)) > 0:
                boxes, labels, scores = (values[row : row + 1] for values in side)
                unpaired.append(((boxes, labels, scores), above))
    undecided = _undecided(detector, canvas) if any(above > MOST_SCORE for _, above in unpaired) else []
    for box, above in unpaired:
        n_with = sum(bool(pair(box, detections)) for detections in undecided)
        if above > MOST_SCORE and 0 < n_with < len(undecided):
            total.ties += 1
        else:
            total.score = max(total.score, above)


def pair(one: Detections, two: Detections) -> list[tuple[int, int]]:
    """Rows of both that are the same box, each once, the closest first."""
    if not (len(one[0]) and len(two[0])):
        return []
    pixels = np.abs(one[0][:, None] - two[0]).max(-1)
    scores = np.abs(one[2][:, None] - two[2])
    fits = (one[1][:, None] == two[1]) & (pixels <= SAME_PIXELS) & (scores <= SAME_SCORE)
    rows, columns = fits.nonzero()
    apart = pixels[rows, columns] / MOST_PIXELS + scores[rows, columns] / MOST_SCORE
    pairs: dict[int, int] = {}
    for place in np.argsort(apart, kind="stable").tolist():
        row, column = int(rows[place]), int(columns[place])
        if row not in pairs and column not in pairs.values():
            pairs[row] = column
    return sorted(pairs.items())


@torch.inference_mode()
def _undecided(detector: LoadedDetector, canvas: np.ndarray) -> list[Detections]:
    """What PyTorch finds in a canvas with each of `ATTEMPTS` noises."""
    generator = torch.Generator().manual_seed(0)
    image = torch.from_numpy(canvas.astype(np.float32))[None, None]
    detections: list[Detections] = []
    for _ in range(ATTEMPTS):
        noise = torch.rand(image.shape, generator=generator) * 2 - 1
        detections += detector.results(detector.model(image + NOISE * noise), False)
    return detections


def phantom_canvases(size: int, n: int = RADIOGRAPHS) -> np.ndarray:
    """Drawn radiographs with several findings: (n, size, size) uint8."""
    side = max(size, SMALLEST_PHANTOM)
    canvases = []
    for number in range(n):
        findings = list(range(number % 2, 14, 2))
        width = max(SMALLEST_PHANTOM, round(side * 0.9))
        pixels = draw_phantom([2026, number], width, side, findings).pixels
        low, high = pixels.min(), pixels.max()
        grey = np.rint((pixels - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
        canvases.append(Canvas(width, side, size).letterbox(grey))
    return np.stack(canvases)


def given_canvases(inputs: Inputs, size: int, n: int = RADIOGRAPHS) -> np.ndarray:
    """The first `n` radiographs that can be read, (n, size, size) uint8. Raises InputError if none can."""
    decoding = cast("Generator[Decoded | Undecodable, None, None]", inputs.canvases(size, 1, TIMEOUT))
    with contextlib.closing(decoding) as items:
        decoded = (np.array(item.canvas) for item in items if isinstance(item, Decoded))
        canvases = list(itertools.islice(decoded, n))
    if not canvases:
        raise InputError("no radiograph of --check-data can be read")
    return np.stack(canvases)
