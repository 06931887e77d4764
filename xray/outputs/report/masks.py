"""The report's sections about masks and the search of their thresholds."""

import math
from functools import partial
from typing import Any

import numpy as np

from xray.evaluation.mask_metrics import segmentation_metrics
from xray.evaluation.masks import MaskEvaluation, MaskSearch
from xray.outputs.report import parts as parts
from xray.outputs.report.figures import Figure
from xray.outputs.report.mask_figures import area_figure, dice_figure, gate_figure, triplet_figure
from xray.outputs.report.parts import DASH, MOST_LISTED

FLATTERED = (
    "These settings were chosen on the very radiographs that they are measured on, which flatters their own Dice. "
    "What they are worth shows on others: fit them on one fold or split, and measure on another."
)
"""Said wherever a searched setting's numbers are shown."""


def mask_tiles(masks: MaskEvaluation) -> list[str]:
    """The numbers of SIIM-ACR, none of which is to be read alone."""
    metrics = masks.metrics
    several = len(masks.categories) > 1
    note = f"mean over {len(masks.categories)} masks a radiograph" if several else "two empty masks count 1"
    tiles = [parts.tile("Dice", metrics["dice"], metrics.get("dice_ci95"), note, main=True)]
    if several:
        tiles.append(
            parts.tile("Dice, joined", metrics["dice_union"], metrics.get("dice_union_ci95"), "all masks as one")
        )
    is_mixed = "false_positive_rate" in metrics
    if "dice_positive" in metrics and is_mixed:
        ends = metrics.get("dice_positive_ci95")
        tiles.append(parts.tile("Dice, positives", metrics["dice_positive"], ends, "with a true mask"))
    if is_mixed:
        ends = metrics.get("false_positive_rate_ci95")
        tiles.append(
            parts.tile("False-positive rate", metrics["false_positive_rate"], ends, "of those without a true mask")
        )
    if "sensitivity" in metrics and is_mixed:
        tiles.append(
            parts.tile("Sensitivity", metrics["sensitivity"], metrics.get("sensitivity_ci95"), "any pixel of a mask")
        )
    return [*tiles, parts.tile("IoU", metrics["iou"], metrics.get("iou_ci95"), "intersection over union")]


def mask_sections(masks: MaskEvaluation) -> list[str | Figure]:
    """The numbers, their spread over the radiographs, the worst of these, and the search."""
    sections: list[str | Figure] = [
        _table_section(masks),
        Figure(
            "dice_histogram.png",
            "Dice over positives",
            "Of the radiographs with a true mask; the line is the median, “none” the share whose mask is missed "
            "altogether.",
            partial(dice_figure, masks),
        ),
        Figure(
            "mask_areas.png",
            "Areas",
            "Each dot is a radiograph; on the dashed line, the predicted mask is as large as the true one.",
            partial(area_figure, masks),
        ),
        *_worst_sections(masks),
    ]
    return [*sections, *(_search_sections(masks, masks.search) if masks.search else [])]


def mask_method(masks: MaskEvaluation) -> str:
    """How the numbers are computed, in HTML paragraphs."""
    said = (
        "<p>Masks are compared at original size; the components of one finding are joined before. Dice is "
        "2|P ∩ T| / (|P| + |T|), by the rule of SIIM-ACR 1 where both masks are empty and 0 where one is, so that "
        "empty masks alone already score the share of radiographs without a finding. A radiograph without a "
        "prediction counts as one with empty masks.</p>"
    )
    if masks.search:
        said += (
            "<p>A triplet calls a radiograph positive if at least <em>min area</em> of its pixels exceed "
            "<em>top</em>; its mask is then the pixels over <em>bottom</em> (SIIM-ACR's first place). Every setting "
            "of the search is in search.csv.</p>"
        )
    return said


def _table_section(masks: MaskEvaluation) -> str:
    metrics, n = masks.metrics, len(masks.alignment)
    has_intervals = "dice_ci95" in metrics
    head = ["Mask", "#Positive", "#Dice", *(["#95 % interval"] if has_intervals else []), ""]
    head += ["#Positives' Dice", "#Sensitivity", "#FP rate", "#IoU"]

    def row(title: str, sums: tuple[np.ndarray, ...], ends: list[float] | None) -> list[str]:
        scores = segmentation_metrics(*sums)
        cells = [parts.name(title), f"{(sums[2] > 0).sum():,}", parts.number(scores["dice"])]
        cells += [parts.interval(ends) or DASH] if has_intervals else []
        cells += [parts.bar(scores["dice"], ends)]
        names = ("dice_positive", "sensitivity", "false_positive_rate", "iou")
        return cells + [parts.number(scores.get(name, math.nan)) for name in names]

    by_category = metrics.get("dice_by_category_ci95", {})
    all_sums = (masks.intersections, masks.found, masks.true)
    rows = [
        row(
            name,
            tuple(column[:, k] for column in all_sums),
            by_category.get(name) if len(masks.categories) > 1 else metrics.get("dice_ci95"),
        )
        for k, name in enumerate(masks.categories.values())
    ]
    if len(masks.categories) > 1:
        rows.append(row("Mean of the masks", all_sums, metrics.get("dice_ci95")))
        rows.append(row("All joined", tuple(masks.joined.T), metrics.get("dice_union_ci95")))
    hint = f"Of {n:,} radiographs. Two empty masks have Dice 1; sensitivity and FP rate (false positives among "
    hint += "those without a true mask) ask for any pixel."
    if has_intervals:
        hint += " The thin line on a bar is its 95 % interval."
    return parts.section("Masks", hint, parts.table(head, rows, len(masks.categories) if len(rows) > 1 else -1))


def _worst_sections(masks: MaskEvaluation) -> list[str]:
    """The true masks that are met worst, and the largest masks where there is nothing."""
    pixels = masks.alignment.sizes.prod(axis=1)[:, None]
    found, true, names = masks.found / pixels, masks.true / pixels, list(masks.categories.values())

    def rows(images: np.ndarray, columns: np.ndarray, with_dice: bool) -> list[list[str]]:
        listed = []
        for place, k in zip(images[:MOST_LISTED].tolist(), columns[:MOST_LISTED].tolist(), strict=True):
            cells = [parts.image(masks.alignment, place), *([parts.name(names[k])] if len(names) > 1 else [])]
            if with_dice:
                missed = true[place, k] - masks.intersections[place, k] / pixels[place, 0]
                cells += [parts.number(masks.dice[place, k]), parts.percent(true[place, k], 2)]
                cells += [parts.percent(found[place, k], 2), parts.percent(missed, 2)]
            else:
                cells += [f"{masks.found[place, k]:,}", parts.percent(found[place, k], 2)]
            listed.append(cells)
        return listed

    positive = np.nonzero(true > 0)
    order = np.lexsort((-true[positive], masks.dice[positive]))
    images, columns = (axis[order] for axis in positive)
    named = ["Radiograph", *(["Mask"] if len(names) > 1 else [])]
    head = [*named, "#Dice", "#True area", "#Predicted area", "#Missed area"]
    hint = (
        f"{parts.shown(min(MOST_LISTED, len(images)), len(images))} true masks from the lowest Dice up, the largest "
        "first; areas in percent of the radiograph."
    )
    sections = [parts.section("Worst masks", hint, parts.table(head, rows(images, columns, True)))]
    if (true == 0).any():
        false = np.nonzero((true == 0) & (found > 0))
        order = np.argsort(-found[false], kind="stable")
        images, columns = (axis[order] for axis in false)
        n_negative = int((true == 0).sum())
        hint = (
            f"{len(images):,} of {n_negative:,} masks that should be empty are not; "
            f"{parts.shown(min(MOST_LISTED, len(images)), len(images)).lower()} from the largest down."
        )
        head = [*named, "#Predicted pixels", "#Predicted area"]
        sections.append(parts.section("Largest false masks", hint, parts.table(head, rows(images, columns, False))))
    return sections


def _search_sections(masks: MaskEvaluation, search: MaskSearch) -> list[str | Figure]:
    best, gate = search.triplet.best, search.gate
    rows = [("Predictions as they are", "", masks.metrics), ("Best triplet", setting_text(best), best)]
    if search.scores != best:
        rows.append(("Triplet asked for", setting_text(search.scores), search.scores))
    if gate:
        rows.append(("The marked triplet behind a gate", f"gate {gate.best['gate']:g}", gate.best))
    head = ["Setting", "", "#Dice", "#Positives' Dice", "#Sensitivity", "#False-positive rate"]
    names = ("dice", "dice_positive", "sensitivity", "false_positive_rate")
    cells = [
        [parts.name(title), f'<span class="dim">{parts.text(setting)}</span>']
        + [parts.number(scores.get(name, math.nan), 4) for name in names]
        for title, setting, scores in rows
    ]
    several = " One setting serves all masks." if len(masks.categories) > 1 else ""
    hint = f"{len(search.triplet.table):,} settings of the triplet rule over the probability maps.{several}"
    body = f'<p class="warning">{parts.text(FLATTERED)}</p>' + parts.table(head, cells)
    sections: list[str | Figure] = [
        parts.section("Search of the thresholds", hint, body),
        Figure(
            "triplet.png",
            "Dice by top, bottom and min area",
            "The square marks " + ("the best setting." if search.scores == best else "the setting asked for."),
            partial(triplet_figure, search),
        ),
    ]
    if gate:
        sections.append(
            Figure(
                "gate.png",
                "Dice by the classifier's gate",
                "A radiograph whose probability is under the gate has its mask emptied.",
                partial(gate_figure, search),
            )
        )
    return sections


def setting_text(setting: dict[str, Any]) -> str:
    """A triplet in words."""
    return f"top {setting['top']:g}, min area {100 * setting['min_area']:.3g} %, bottom {setting['bottom']:g}"
