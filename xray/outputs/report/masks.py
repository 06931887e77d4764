"""The report's sections about masks and the search of their thresholds."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from xray.evaluation.mask_metrics import dice_scores, segmentation_metrics
from xray.evaluation.masks import MaskEvaluation, MaskSearch
from xray.outputs.report import parts as parts
from xray.outputs.report.figures import BLUE, DASHED, FAINT, GRID, INK, ORANGE, PANELS, STYLE, panel_grid, png_of
from xray.outputs.report.parts import MOST_LISTED, Bar, Section, Tile, figure

FLATTERED = (
    "These settings were chosen on the very radiographs that they are measured on, which flatters their own Dice. "
    "What they are worth shows on others: fit them on one fold or split, and measure on another."
)
"""Stands wherever a searched setting's numbers are shown."""
DICE_BINS = np.linspace(0, 1, 21)
AREA_TICKS = (0.1, 1, 5, 10, 20, 40, 80)
"""Percent of the radiograph."""
SEARCHED = ("dice", "dice_positive", "sensitivity", "false_positive_rate")


def mask_tiles(masks: MaskEvaluation) -> list[Tile]:
    """The numbers of SIIM-ACR, none of which is to be read alone."""
    several = len(masks.categories) > 1
    rows = [("dice", "Dice", f"mean over {len(masks.categories)} masks a radiograph")]
    if not several:
        rows = [("dice", "Dice", "two empty masks count 1")]
    rows.append(("dice_union", "Dice, joined", "all masks as one"))
    # Where every radiograph has the mask, the positives are all of them.
    if "false_positive_rate" in masks.metrics:
        rows.append(("dice_positive", "Dice, positives", "with a true mask"))
        rows.append(("false_positive_rate", "False-positive rate", "of those without a true mask"))
        rows.append(("sensitivity", "Sensitivity", "any pixel of a mask"))
    return parts.metric_tiles(masks.metrics, *rows, ("iou", "IoU", "intersection over union"), is_main=True)


def mask_sections(masks: MaskEvaluation) -> list[Section]:
    """The numbers, their spread over the radiographs, the worst of these, and the search."""
    sections = [
        _numbers_section(masks),
        figure("dice_histogram.png", dice_figure(masks)),
        figure("mask_areas.png", area_figure(masks)),
        _worst_section(masks),
    ]
    sections += [_false_section(masks)] if ((masks.true == 0) & masks.counted).any() else []
    return sections + (_search_sections(masks, masks.search) if masks.search else [])


def _numbers_section(masks: MaskEvaluation) -> Section:
    metrics, n_categories = masks.metrics, len(masks.categories)

    def row(title: str, sums: tuple[np.ndarray, ...], ends: list[float] | None, counted: np.ndarray) -> list[str | Bar]:
        scores = segmentation_metrics(*sums, counted=counted) if counted.any() else {"dice": math.nan}
        numbers = [f"{(sums[2] > 0).sum():,}", parts.number(scores["dice"]), parts.interval(ends)]
        others = ("dice_positive", "sensitivity", "false_positive_rate", "iou")
        others_text = [parts.number(scores.get(name, math.nan)) for name in others]
        return [title, *numbers, Bar(scores["dice"], ends), *others_text]

    by_category = metrics.get("dice_by_category_ci95", {})
    if n_categories == 1:
        by_category = dict.fromkeys(masks.categories.values(), metrics.get("dice_ci95"))
    sums = (masks.intersections, masks.predicted, masks.true)
    rows = [
        row(name, tuple(column[:, k] for column in sums), by_category.get(name), masks.counted[:, k])
        for k, name in enumerate(masks.categories.values())
    ]
    if n_categories > 1:
        rows.append(row("Mean of the masks", sums, metrics.get("dice_ci95"), masks.counted))
        whole: np.ndarray = np.all(masks.counted, axis=1)
        rows.append(row("All joined", tuple(masks.joined.T), metrics.get("dice_union_ci95"), whole))
    hint = f"Of {len(masks.alignment):,} radiographs. Two empty masks have Dice 1; sensitivity and FP rate (false "
    hint += "positives among those without a true mask) ask for any pixel."
    if unknown := metrics.get("n_unknown_masks"):
        named = ", ".join(f"{name} on {number:,}" for name, number in unknown.items())
        hint += f" Masks that are not known count for nothing: {named}."
    if "dice_ci95" in metrics:
        hint += " The thin line on a bar is its 95 % interval."
    head = ["!Mask", "#Positive", "#Dice", "#95 % interval" if "dice_ci95" in metrics else None, "|"]
    head += ["#Positives' Dice", "#Sensitivity", "#FP rate", "#IoU"]
    table = parts.table(head, rows, n_categories if n_categories > 1 else -1)
    return Section("Masks", hint, table, is_printed=True)


def worst_masks(masks: MaskEvaluation) -> list[tuple[int, int]]:
    """(radiograph, column of the category) of the true masks from the lowest Dice up, the largest first of equals."""
    positive = np.nonzero(masks.true > 0)
    order = np.lexsort((-masks.shares(masks.true)[positive], masks.dice[positive]))
    return [tuple(pair) for pair in np.transpose(positive)[order].tolist()]


def false_masks(masks: MaskEvaluation) -> list[tuple[int, int]]:
    """(radiograph, column of the category) of masks that should be empty and are not, from the largest down."""
    false = np.nonzero((masks.true == 0) & (masks.predicted > 0))
    order = np.argsort(-masks.shares(masks.predicted)[false], kind="stable")
    return [tuple(pair) for pair in np.transpose(false)[order].tolist()]


def _worst_section(masks: MaskEvaluation) -> Section:
    """The true masks that are met worst."""
    worst, names = worst_masks(masks), list(masks.categories.values())
    true, predicted, shared = (masks.shares(sums) for sums in (masks.true, masks.predicted, masks.intersections))
    rows = [
        [parts.source_id(masks.alignment, image), names[k], parts.number(masks.dice[image, k])]
        + [parts.percent(part[image, k], 2) for part in (true, predicted, true - shared)]
        for image, k in worst[:MOST_LISTED]
    ]
    head = ["@Radiograph", "!Mask" if len(names) > 1 else None, "#Dice", "#True area", "#Predicted area"]
    hint = (
        f"{parts.shown(len(rows), len(worst))} true masks from the lowest Dice up, the largest first; areas in percent "
        "of the radiograph."
    )
    return Section("Worst masks", hint, parts.table([*head, "#Missed area"], rows))


def _false_section(masks: MaskEvaluation) -> Section:
    """The largest masks where there is nothing."""
    false, names, areas = false_masks(masks), list(masks.categories.values()), masks.shares(masks.predicted)
    rows = [
        [
            parts.source_id(masks.alignment, image),
            names[k],
            f"{masks.predicted[image, k]:,}",
            parts.percent(areas[image, k], 2),
        ]
        for image, k in false[:MOST_LISTED]
    ]
    head = ["@Radiograph", "!Mask" if len(names) > 1 else None, "#Predicted pixels", "#Predicted area"]
    hint = (
        f"{len(false):,} of {((masks.true == 0) & masks.counted).sum():,} masks that should be empty are not; "
        f"{parts.shown(len(rows), len(false)).lower()} from the largest down."
    )
    return Section("Largest false masks", hint, parts.table(head, rows))


def _search_sections(masks: MaskEvaluation, search: MaskSearch) -> list[Section]:
    best, gate = search.triplet.best, search.gate
    settings = [("Predictions as they are", "", masks.metrics), ("Best triplet", _setting_text(best), best)]
    if search.scores != best:
        settings.append(("Triplet asked for", _setting_text(search.scores), search.scores))
    if gate:
        settings.append(("The marked triplet behind a gate", f"gate {gate.best['gate']:g}", gate.best))
    rows = [
        [title, setting, *(parts.number(scores.get(name, math.nan), 4) for name in SEARCHED)]
        for title, setting, scores in settings
    ]
    head = ["!Setting", "~", "#Dice", "#Positives' Dice", "#Sensitivity", "#False-positive rate"]
    several = " One setting serves all masks." if len(masks.categories) > 1 else ""
    hint = f"{len(search.triplet.table):,} settings of the triplet rule over the probability maps.{several}"
    sections = [
        Section("Search of the thresholds", hint, parts.table(head, rows), warning=FLATTERED, is_printed=True),
        figure(
            "triplet.png",
            triplet_figure(search),
            hint_end="the best setting." if search.scores == best else "the setting asked for.",
        ),
    ]
    if gate:
        sections.append(figure("gate.png", gate_figure(gate.table, gate.best)))
    return sections


def _setting_text(setting: dict[str, Any]) -> str:
    """A triplet in words."""
    return f"top {setting['top']:g}, min area {100 * setting['min_area']:.3g} %, bottom {setting['bottom']:g}"


def dice_figure(masks: MaskEvaluation) -> bytes:
    """How many radiographs with a true mask have which Dice, for each category and all joined → PNG."""
    panels = [(name, masks.dice[masks.true[:, k] > 0, k]) for k, name in enumerate(masks.categories.values())]
    if len(panels) > 1:
        panels.append(("All joined", dice_scores(*masks.joined.T)[masks.joined[:, 2] > 0]))

    def draw(axes: Axes, scores: np.ndarray) -> None:
        counts, _ = np.histogram(scores, DICE_BINS)
        axes.stairs(counts, DICE_BINS, color=BLUE, alpha=0.35, fill=True)
        axes.stairs(counts, DICE_BINS, color=BLUE, linewidth=1.2)
        axes.set(xlim=(0, 1), xticks=(0, 0.25, 0.5, 0.75, 1))
        axes.locator_params("y", integer=True, nbins=5)
        # The numbers go where the bars are lower, above them if need be.
        third, highest = len(counts) // 3, max(1, counts.max())
        low, x, side = min((counts[:third].max(), 0.04, "left"), (counts[-third:].max(), 0.96, "right"))
        axes.set_ylim(0, highest * (1.12 if low < 0.6 * highest else 1.5))
        if len(scores):
            median = float(np.median(scores))
            axes.axvline(median, color=ORANGE, linewidth=1.2)
            text = f"median {median:.2f}\nmean {scores.mean():.2f}\nnone {np.mean(scores == 0):.0%}"
            axes.text(x, 0.97, text, transform=axes.transAxes, ha=side, va="top", fontsize=8, linespacing=1.35)

    return panel_grid(panels, "Dice", "radiographs with a true mask", draw)


def area_figure(masks: MaskEvaluation) -> bytes:
    """Predicted over true area of each radiograph's mask, in percent of the radiograph, for each category → PNG."""
    true, predicted = 100 * masks.shares(masks.true), 100 * masks.shares(masks.predicted)
    lowest, highest = min(true.min(), predicted.min()), 1.1 * max(true.max(), predicted.max(), 0.1)
    # Lungs are all of about one size. Where there are empty masks too, a square root keeps zero on the axis and small
    # masks apart.
    is_narrow = lowest > highest / 4

    def draw(axes: Axes, k: int) -> None:
        axes.plot([0, highest], [0, highest], color=FAINT, linewidth=0.8, linestyle=DASHED)
        for chosen, colour, label in (
            (true[:, k] > 0, BLUE, "with a true mask"),
            ((true[:, k] == 0) & (predicted[:, k] > 0), ORANGE, "without, called positive"),
        ):
            points = (true[chosen, k], predicted[chosen, k])
            axes.scatter(*points, 13, colour, alpha=0.55, linewidths=0, label=label, clip_on=False)
        if is_narrow:
            axes.set(xlim=(0.9 * lowest, highest), ylim=(0.9 * lowest, highest))
            return
        ticks = [0, *(tick for tick in AREA_TICKS if tick < highest)]
        for set_scale, axis in ((axes.set_xscale, axes.xaxis), (axes.set_yscale, axes.yaxis)):
            set_scale("function", functions=(_root, np.square))
            axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set(xlim=(0, highest), ylim=(0, highest))

    panels = [(name, k) for k, name in enumerate(masks.categories.values())]
    x_label = "true area, % of the radiograph" + ("" if is_narrow else " (square-root scale)")
    return panel_grid(panels, x_label, "predicted area, %", draw, legend=True)


def _root(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.clip(values, 0, None))


def triplet_figure(search: MaskSearch) -> bytes:
    """Dice over top and bottom at the marked least area, and over the least area at the marked two → PNG."""
    table, scores = search.triplet.table, search.scores

    def nearest(name: str) -> float:
        # A setting of the user's own may lie between those that were searched.
        values = np.unique(table[name])
        return float(values[np.abs(values - scores[name]).argmin()])

    top, area, bottom = nearest("top"), nearest("min_area"), nearest("bottom")
    grid = table[table["min_area"] == area].pivot(index="top", columns="bottom", values="dice")
    line = table[(table["top"] == top) & (table["bottom"] == bottom)]
    levels = grid.to_numpy()
    low, high = np.nanmin(levels), np.nanmax(levels)
    square = {"marker": "s", "markerfacecolor": "none", "markeredgecolor": ORANGE, "markeredgewidth": 1.8}
    with plt.rc_context(STYLE):
        drawing, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.7), layout="constrained", width_ratios=(1.45, 1))
        colours = LinearSegmentedColormap.from_list("dice", [GRID, BLUE])
        left.imshow(levels, cmap=colours, origin="lower", aspect="auto", vmin=low, vmax=max(high, low + 1e-6))
        for row, column in np.argwhere(~np.isnan(levels)).tolist():
            ink = "white" if levels[row, column] > low + 0.6 * (high - low) else INK
            text = f"{levels[row, column]:.3f}".lstrip("0")
            left.text(column, row, text, fontsize=6.5, ha="center", va="center", color=ink)
        left.plot(grid.columns.get_loc(bottom), grid.index.get_loc(top), markersize=18, **square)
        left.set(xlabel="bottom", ylabel="top", title=f"Dice at min area {100 * area:g} %")
        left.set_xticks(range(len(grid.columns)), [f"{value:g}" for value in grid.columns])
        left.set_yticks(range(len(grid.index)), [f"{value:g}" for value in grid.index])
        right.plot(100 * line["min_area"], line["dice"], "o-", color=BLUE, linewidth=1.5, markersize=3.5)
        right.plot(100 * area, line["dice"][line["min_area"] == area], markersize=11, **square)
        right.set(xlabel="min area, % of the radiograph", title=f"Dice at top {top:g}, bottom {bottom:g}")
        right.grid(True)
        right.margins(y=0.15)
        return png_of(drawing)


def gate_figure(table: pd.DataFrame, best: dict[str, float]) -> bytes:
    """Dice, sensitivity and false-positive rate over the classifier's gate, the best one marked → PNG."""
    with plt.rc_context(STYLE):
        drawing, axes = plt.subplots(figsize=(1.35 * PANELS[1][0], PANELS[1][1]), layout="constrained")
        for column, label, colour, dash in (
            ("dice", "Dice", BLUE, "-"),
            ("sensitivity", "sensitivity", FAINT, (0, (4, 2))),
            ("false_positive_rate", "false-positive rate", ORANGE, (0, (1.5, 1.5))),
        ):
            if column in table:
                axes.plot(table["gate"], table[column], color=colour, linestyle=dash, linewidth=1.5, label=label)
        axes.axvline(best["gate"], color=FAINT, linewidth=0.8)
        axes.plot(best["gate"], best["dice"], "o", color=BLUE, markersize=6)
        axes.set(xlim=(0, 1), ylim=(0, 1.03), xlabel="gate: least probability of the classifier")
        axes.set_title(f"Gate {best['gate']:g}: Dice {best['dice']:.3f}")
        axes.grid(True)
        drawing.legend(loc="outside upper right", ncols=3, frameon=False, handlelength=1.8)
        return png_of(drawing)
