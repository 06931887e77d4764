"""The report's figures of masks, and of the search of their thresholds."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from xray.evaluation.mask_metrics import dice_scores
from xray.evaluation.masks import MaskEvaluation, MaskSearch
from xray.outputs.report.figures import PANELS, Theme, panel_grid, png_of, style

DICE_BINS = np.linspace(0, 1, 21)
AREA_TICKS = (0.1, 1, 5, 10, 20, 40, 80)
"""Percent of the radiograph."""


def dice_figure(masks: MaskEvaluation, theme: Theme) -> bytes:
    """How many radiographs with a true mask have which Dice, for each category and all joined → PNG."""
    shown = [(name, masks.dice[masks.true[:, k] > 0, k]) for k, name in enumerate(masks.categories.values())]
    if len(shown) > 1:
        shown.append(("All joined", dice_scores(*masks.joined.T)[masks.joined[:, 2] > 0]))

    def draw(axes: Axes, scores: np.ndarray) -> None:
        counts, _ = np.histogram(scores, DICE_BINS)
        axes.stairs(counts, DICE_BINS, color=theme.blue, alpha=0.35, fill=True)
        axes.stairs(counts, DICE_BINS, color=theme.blue, linewidth=1.2)
        axes.set(xlim=(0, 1), xticks=(0, 0.25, 0.5, 0.75, 1))
        axes.locator_params("y", integer=True, nbins=5)
        # The numbers go where the bars are lower, above them if need be.
        third, highest = len(counts) // 3, max(1, counts.max())
        low, x, side = min((counts[:third].max(), 0.04, "left"), (counts[-third:].max(), 0.96, "right"))
        axes.set_ylim(0, highest * (1.12 if low < 0.6 * highest else 1.5))
        if len(scores):
            median = float(np.median(scores))
            axes.axvline(median, color=theme.orange, linewidth=1.2)
            said = f"median {median:.2f}\nmean {scores.mean():.2f}\nnone {np.mean(scores == 0):.0%}"
            axes.text(x, 0.97, said, transform=axes.transAxes, ha=side, va="top", fontsize=8, linespacing=1.35)

    return panel_grid(shown, theme, "Dice", "radiographs with a true mask", draw)


def area_figure(masks: MaskEvaluation, theme: Theme) -> bytes:
    """Predicted over true area of each radiograph's mask, in percent of the radiograph, for each category → PNG."""
    pixels = masks.alignment.sizes.prod(axis=1)[:, None]
    true, found = 100 * masks.true / pixels, 100 * masks.found / pixels
    highest = 1.1 * max(true.max(), found.max(), 0.1)
    # Lungs are all of about one size. Where there are empty masks too, a square root keeps zero on the axis and small
    # masks apart.
    lowest = min(true.min(), found.min())
    is_narrow = lowest > highest / 4

    def draw(axes: Axes, k: int) -> None:
        axes.plot([0, highest], [0, highest], color=theme.faint, linewidth=0.8, linestyle=(0, (4, 3)))
        for chosen, colour, label in (
            (true[:, k] > 0, theme.blue, "with a true mask"),
            ((true[:, k] == 0) & (found[:, k] > 0), theme.orange, "without, called positive"),
        ):
            points = (true[chosen, k], found[chosen, k])
            axes.scatter(*points, 13, colour, alpha=0.55, linewidths=0, label=label, clip_on=False)
        if is_narrow:
            axes.set(xlim=(0.9 * lowest, highest), ylim=(0.9 * lowest, highest))
            return
        axes.set_xscale("function", functions=(_root, np.square))
        axes.set_yscale("function", functions=(_root, np.square))
        ticks = [0, *(tick for tick in AREA_TICKS if tick < highest)]
        axes.set(xlim=(0, highest), ylim=(0, highest), xticks=ticks, yticks=ticks)
        axes.set_xticklabels([f"{tick:g}" for tick in ticks])
        axes.set_yticklabels([f"{tick:g}" for tick in ticks])

    shown = [(name, k) for k, name in enumerate(masks.categories.values())]
    x_label = "true area, % of the radiograph" + ("" if is_narrow else " (square-root scale)")
    return panel_grid(shown, theme, x_label, "predicted area, %", draw, legend=True)


def _root(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.clip(values, 0, None))


def triplet_figure(search: MaskSearch, theme: Theme) -> bytes:
    """Dice over top and bottom at the marked least area, and over the least area at the marked two → PNG."""
    table, mark = search.triplet.table, search.scores
    areas = np.unique(table["min_area"])
    # A setting of the user's own may lie between those that were searched.
    area = areas[np.abs(areas - mark["min_area"]).argmin()]
    grid = table[table["min_area"] == area].pivot(index="top", columns="bottom", values="dice")
    levels = grid.to_numpy()
    tops, bottoms = grid.index.to_numpy(), grid.columns.to_numpy()
    spot = (int(np.abs(bottoms - mark["bottom"]).argmin()), int(np.abs(tops - mark["top"]).argmin()))
    with plt.rc_context(style(theme)):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(9.4, 3.7), layout="constrained", width_ratios=(1.45, 1), squeeze=True
        )
        low, high = np.nanmin(levels), np.nanmax(levels)
        colours = LinearSegmentedColormap.from_list("dice", [theme.grid, theme.blue])
        left.imshow(levels, cmap=colours, origin="lower", aspect="auto", vmin=low, vmax=max(high, low + 1e-6))
        for row, column in np.argwhere(~np.isnan(levels)).tolist():
            strong = levels[row, column] > low + 0.6 * (high - low)
            colour = theme.on_blue if strong else theme.ink
            left.text(
                column, row, f"{levels[row, column]:.3f}".lstrip("0"), fontsize=6.5, ha="center", va="center",
                color=colour,
            )  # fmt: skip
        left.plot(*spot, "s", markersize=18, markerfacecolor="none", markeredgecolor=theme.orange, markeredgewidth=1.8)
        left.set(xlabel="bottom", ylabel="top")
        left.set_xticks(range(len(bottoms)), [f"{value:g}" for value in bottoms])
        left.set_yticks(range(len(tops)), [f"{value:g}" for value in tops])
        left.set_title(f"Dice at min area {100 * area:g} %", loc="left", fontsize=8.5, fontweight="bold")
        top, bottom = tops[spot[1]], bottoms[spot[0]]
        line = table[(table["top"] == top) & (table["bottom"] == bottom)]
        right.plot(100 * line["min_area"], line["dice"], "o-", color=theme.blue, linewidth=1.5, markersize=3.5)
        at = line[line["min_area"] == area]
        right.plot(100 * at["min_area"], at["dice"], "s", markersize=11, markerfacecolor="none",
                   markeredgecolor=theme.orange, markeredgewidth=1.8)  # fmt: skip
        right.set_title(f"Dice at top {top:g}, bottom {bottom:g}", loc="left", fontsize=8.5, fontweight="bold")
        right.set(xlabel="min area, % of the radiograph")
        right.grid(True, linewidth=0.6)
        right.margins(y=0.15)
        for axes in (left, right):
            axes.tick_params(length=0)
        return png_of(figure)


def gate_figure(search: MaskSearch, theme: Theme) -> bytes:
    """Dice, sensitivity and false-positive rate over the classifier's gate, the best one marked → PNG."""
    if search.gate is None:
        raise ValueError("no gate was searched")
    table, best = search.gate.table, search.gate.best
    with plt.rc_context(style(theme)):
        figure, axes = plt.subplots(figsize=(1.35 * PANELS[1][0], PANELS[1][1]), layout="constrained")
        for column, label, colour, dash in (
            ("dice", "Dice", theme.blue, "-"),
            ("sensitivity", "sensitivity", theme.faint, (0, (4, 2))),
            ("false_positive_rate", "false-positive rate", theme.orange, (0, (1.5, 1.5))),
        ):
            if column in table:
                axes.plot(table["gate"], table[column], color=colour, linestyle=dash, linewidth=1.5, label=label)
        axes.axvline(best["gate"], color=theme.faint, linewidth=0.8)
        axes.plot(best["gate"], best["dice"], "o", color=theme.blue, markersize=6)
        title = f"Gate {best['gate']:g}: Dice {best['dice']:.3f}"
        axes.set_title(title, loc="left", fontsize=8.5, fontweight="bold")
        axes.set(xlim=(0, 1), ylim=(0, 1.03), xlabel="gate: least probability of the classifier")
        axes.grid(True, linewidth=0.6)
        axes.tick_params(length=0)
        figure.legend(loc="outside upper right", ncols=3, frameon=False, handlelength=1.8)
        return png_of(figure)
