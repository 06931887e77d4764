"""Findings of one radiograph as a picture, with the truth beside it where it is known, and the confidence in words."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from xray.findings import NO_FINDING_NAME, colour_of
from xray.outputs.pictures.marks import Region, marks_of
from xray.outputs.pictures.overlays import draw_overlay, draw_side_by_side
from xray.structures.boxes import BoxTable
from xray.structures.masks import decode_mask
from xray.structures.radiograph_findings import RadiographFindings
from xray.structures.thresholds import Thresholds

LESS_LIKELY = "less likely"
CERTAINTY = ((0.9, "consistent with"), (0.625, "probable"), (0.375, "possible"), (0.1, LESS_LIKELY))
"""Lowest probability of each term of the lexicon that radiologists were proposed for their reports, whose terms mean
more than 90, about 75, about 50, about 25, and less than 10 % (Panicek and Hricak 2016, doi:10.2214/AJR.15.15895)."""
UNLIKELY = "unlikely"
MOST_NAMED = 3


def certainty(probability: float) -> str:
    """A probability in [0, 1] as a radiologist's term, from "unlikely" to "consistent with"."""
    return next((term for lowest, term in CERTAINTY if probability >= lowest), UNLIKELY)


def in_words(table: BoxTable, categories: Mapping[int, str]) -> str:
    """The findings of one radiograph, surest first: "consistent with Pneumothorax (0.93), possible Nodule (0.41)".

    Of each finding the surest row counts; at most three are named, and none under 0.1.
    """
    surest: dict[int, float] = {}
    for label, score in zip(table.labels.tolist(), table.scores.tolist(), strict=True):
        if label in categories:
            surest[label] = max(score, surest.get(label, 0.0))
    named = sorted(((score, label) for label, score in surest.items() if score >= CERTAINTY[-1][0]), reverse=True)
    if not named:
        what = next(iter(categories.values())) if len(categories) == 1 else "any finding"
        return f"{UNLIKELY}: {what} ({max(surest.values(), default=0.0):.2f})"
    return ", ".join(_phrase(score, categories[label]) for score, label in named[:MOST_NAMED])


def _phrase(score: float, name: str) -> str:
    """A finding with its term. By "less likely Nodule" a reader asks: than what?"""
    term = certainty(score)
    return f"{term}{':' if term == LESS_LIKELY else ''} {name} ({score:.2f})"


def draw_findings(
    pixels: np.ndarray,
    findings: RadiographFindings,
    title: str = "",
    scored: bool = True,
    threshold: float = 0.3,
    max_side: int = 1600,
    min_side: int = 512,
    notes: Sequence[str] = (),
) -> np.ndarray:
    """Boxes and masks of one radiograph on its pixels → (h, w, 3) uint8 RGB.

    pixels: (height, width) uint8. findings: their boxes in these pixels, their masks of the whole radiograph at
    whatever size. scored: False for the truth, which is drawn whole; otherwise what scores less than `threshold` is
    left out. max_side, min_side, notes: as for `draw_overlay`.
    """
    table, categories = findings.table, findings.categories
    height, width = pixels.shape
    marks, normal = marks_of(table, categories, scored)
    regions = []
    for row, rle in findings.masks.items():
        if scored and table.scores[row] < threshold:
            continue
        mask = decode_mask(rle)
        if mask.shape != pixels.shape:
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
        regions.append(Region(mask, colour_of(int(table.labels[row]))))
    nothing = nothing_of(categories)
    return draw_overlay(
        pixels, marks, regions, title, normal, threshold, max_side=max_side, min_side=min_side, nothing=nothing,
        notes=notes,
    )  # fmt: skip


def as_shown(
    findings: RadiographFindings, thresholds: Thresholds | None, threshold: float
) -> tuple[RadiographFindings, float, list[str]]:
    """What a picture of one radiograph shows → findings, `threshold` and `notes` of `draw_findings`.

    thresholds: fitted ones, which take the place of `threshold`; probabilities then take that of scores. The notes of
    the findings are among these: a picture that may be of something else than a chest says so itself.
    """
    if thresholds is None:
        return findings, threshold, [*findings.notes]
    shown = thresholds.shown(findings)
    n_left_out = len(findings.table) - len(shown.table)
    where = "their thresholds" if thresholds.from_probability is None else f"{thresholds.from_probability:.2f}"
    return shown, -1.0, [*([f"{n_left_out} below {where} not drawn"] if n_left_out else []), *findings.notes]


def not_said(record: Mapping[str, Any], categories: Mapping[int, str]) -> list[str]:
    """What an entry of annotations.json does not say, for the legend: which findings it may show without a box, and of
    which nobody says whether it shows them."""
    notes = []
    for words, key in (("not located", "unlocated"), ("not known", "unknown")):
        names = [categories[label] for label in record.get(key, ())]
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        notes += [f"{words}: {', '.join(names[:MOST_NAMED])}{more}"] if names else []
    return notes


def nothing_of(categories: Mapping[int, str]) -> str:
    """The words for a radiograph without any of the categories; without the only one it may have other findings."""
    return f"no {next(iter(categories.values()))}" if len(categories) == 1 else NO_FINDING_NAME


def draw_with_truth(
    truth: np.ndarray,
    predicted: np.ndarray,
    shown: BoxTable,
    words: str,
    categories: Any,
    record: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """The pictures of the truth and of the predictions side by side, under the names of the true findings and `words`.

    shown: the truth's rows. categories: id → name. record: the radiograph's entry in annotations.json, which may say
    what is not known.
    """
    names = list(dict.fromkeys(categories[label] for label in sorted(shown.labels.tolist()) if label in categories))
    names += not_said(record or {}, categories)
    return draw_side_by_side(
        truth, predicted, (f"truth: {', '.join(names) or nothing_of(categories)}", f"prediction: {words}")
    )


def rows_of(table: BoxTable, masks: Mapping[int, Any], image: int) -> tuple[BoxTable, dict[int, Any]]:
    """The rows of one image, and their masks by the row's new number."""
    return table.select_masked(table.images == image, masks)
