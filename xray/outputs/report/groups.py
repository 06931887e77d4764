"""The report's section about groups of radiographs, and that about confusion between findings."""

import math
from functools import partial
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap

from xray.evaluation.confusion import BACKGROUND, CONFUSION_IOU, Confusion
from xray.evaluation.subgroups import BOX_SIZE, Group
from xray.outputs.report import parts as parts
from xray.outputs.report.figures import Figure, Theme, png_of, style
from xray.outputs.report.parts import DASH

MEASURES = {
    "map40": ("mAP@0.4", "n_boxes", "Boxes"),
    "dice": ("Dice", "n_positive", "Positive"),
    "dice_positive": ("Dice, positives", "", ""),
    "mean_auroc": ("AUROC", "", ""),
}
"""Number of a group → its title, and what says how much it rests on."""


def group_sections(groups: tuple[Group, ...]) -> list[str | Figure]:
    """A table and a figure of all groups; nothing where there are not two."""
    if len(groups) < 2:
        return []
    shown = [name for name in MEASURES if any(name in group.numbers for group in groups)]
    shown = [name for name in shown if any(not math.isnan(group.numbers.get(name, math.nan)) for group in groups)]
    if not shown:
        return []
    head = ["Group", "", "#Radiographs", "#Patients"]
    for name in shown:
        title, resting, resting_title = MEASURES[name]
        head += [f"#{resting_title}"] if resting else []
        head += [f"#{title}", "#95 % interval"]
    rows = []
    for before, group in zip((None, *groups), groups, strict=False):
        numbers = group.numbers
        is_first = before is None or before.attribute != group.attribute
        row = [parts.name(group.attribute) if is_first else "", parts.name(group.name)]
        row += [f"{numbers['n_images']:,}", f"{numbers['n_patients']:,}"]
        for name in shown:
            resting = MEASURES[name][1]
            row += [f"{numbers[resting]:,}" if resting in numbers else DASH] if resting else []
            row += [parts.number(numbers.get(name, math.nan)), parts.interval(numbers.get(f"{name}_ci95")) or DASH]
        rows.append(row)
    hint = (
        "Each group scored by itself, with intervals from resamples of its own patients. A mean is over the findings "
        "that a group has, which may not be those of another; and many groups are looked at, so that one may stand "
        "out by chance."
    )
    if any(group.attribute == BOX_SIZE for group in groups):
        hint += " Box sizes are shares of the radiograph."
    if not any(group.attribute != BOX_SIZE for group in groups):
        hint += " The dataset says nothing of view, sex, age or manufacturer."
    sections: list[str | Figure] = [parts.section("Groups", hint, parts.table(head, rows))]
    title = "Groups at a glance"
    hint = "Dots with their 95 % intervals; the number of radiographs in brackets."
    return [*sections, Figure("groups.png", title, hint, partial(draw_groups, groups, shown))]


def draw_groups(groups: tuple[Group, ...], shown: list[str], theme: Theme) -> bytes:
    """Each number of each group as a dot with its interval → PNG."""
    places, labels, y = [], [], 0.0
    for before, group in zip((None, *groups), groups, strict=False):
        y += 0.0 if before is None else 1.0 if before.attribute == group.attribute else 1.6
        places.append(y)
        labels.append(f"{group.attribute}: {group.name} ({group.numbers['n_images']:,})")
    with plt.rc_context(style(theme)):
        size = (2.3 + 2.6 * len(shown), 0.8 + 0.23 * (places[-1] + 1))
        figure, grid = plt.subplots(1, len(shown), figsize=size, layout="constrained", squeeze=False, sharey=True)
        for axes, name in zip(grid.flat, shown, strict=True):
            axes.grid(True, axis="x", linewidth=0.6)
            axes.set_axisbelow(True)
            for place, group in zip(places, groups, strict=True):
                value, ends = group.numbers.get(name, math.nan), group.numbers.get(f"{name}_ci95")
                if ends and not math.isnan(ends[0]):
                    axes.plot(ends, [place, place], color=theme.blue, linewidth=1.6, alpha=0.55, solid_capstyle="butt")
                axes.plot(value, place, "o", color=theme.blue, markersize=4.5, clip_on=False, zorder=5)
            axes.set_title(MEASURES[name][0], loc="left", fontsize=8.5, fontweight="bold")
            axes.set(xlim=(0, 1), ylim=(places[-1] + 0.7, -0.7), yticks=places)
            axes.set_xticks((0, 0.25, 0.5, 0.75, 1), ("0", "¼", "½", "¾", "1"))
            axes.tick_params(length=0)
            axes.spines["left"].set_visible(False)
        grid.flat[0].set_yticklabels(labels)
        return png_of(figure)


def confusion_sections(confusion: Confusion | None) -> list[str | Figure]:
    """The matrix as a figure, and as a table what is taken for something else."""
    if confusion is None or not confusion.counts.any():
        return []
    hint = (
        f"Rows are true boxes, columns what met them: boxes with a score of at least {confusion.threshold:g} and an "
        f"IoU of at least {CONFUSION_IOU:g}, each in one pair, those of the same finding first. The last column are "
        "true boxes that nothing met, the last row boxes that met nothing."
    )
    names = [*confusion.names, BACKGROUND]
    counts = confusion.counts
    kept = _kept(counts)
    k = len(confusion.names)
    rows = []
    for i in [place for place in kept if place < k]:
        total = counts[i].sum()
        others = [j for j in np.argsort(-counts[i, :k], kind="stable").tolist() if j != i and counts[i, j]]
        taken = ", ".join(f"{parts.text(names[j])} {counts[i, j]:,}" for j in others[:3]) or DASH
        cells = [parts.name(names[i]), f"{total:,}", f"{counts[i, i]:,}", f"{counts[i, :k].sum() - counts[i, i]:,}"]
        share = counts[i, i] / total if total else math.nan
        rows.append([*cells, f"{counts[i, k]:,}", parts.percent(share), f"{counts[k, i]:,}", taken])
    head = [
        "Finding",
        "#True boxes",
        "#Met",
        "#By another",
        "#Not met",
        "#Met, %",
        "#Boxes on nothing",
        "Most taken for",
    ]
    section = parts.section("Confusion between findings", hint, parts.table(head, rows))
    title = "Confusion matrix"
    hint = "Numbers are boxes, shades are shares of a row; the corner has no meaning and is left out."
    return [section, Figure("confusion.png", title, hint, partial(draw_confusion, confusion))]


def _kept(counts: np.ndarray) -> list[int]:
    """Categories that occur at all, and the background."""
    occurs = (counts.sum(axis=0) + counts.sum(axis=1)) > 0
    occurs[-1] = True
    return np.flatnonzero(occurs).tolist()


def draw_confusion(confusion: Confusion, theme: Theme) -> bytes:
    """The matrix with its numbers, shaded by the share of each row → PNG."""
    kept = _kept(confusion.counts)
    counts = confusion.counts[np.ix_(kept, kept)]
    names = [[*confusion.names, BACKGROUND][place] for place in kept]
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    n = len(kept)
    with plt.rc_context(style(theme)):
        side = 1.7 + 0.46 * n
        figure, axes = plt.subplots(figsize=(side + 0.5, side * 0.86), layout="constrained")
        clear = (*_rgb(theme.blue), 0.0)
        colours = LinearSegmentedColormap.from_list("share", [clear, (*_rgb(theme.blue), 1.0)])
        axes.imshow(shares, cmap=colours, vmin=0, vmax=1, aspect="auto")
        for i in range(n):
            for j in range(n):
                if counts[i, j] and not (i == j == n - 1):
                    ink = theme.on_blue if shares[i, j] > 0.55 else theme.ink
                    weight = "bold" if i == j else "normal"
                    said = f"{counts[i, j]:,}"
                    axes.text(j, i, said, ha="center", va="center", fontsize=7, color=ink, fontweight=weight)
        axes.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(n), names)
        axes.set(xlabel="predicted", ylabel="true")
        axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        axes.grid(True, which="minor", linewidth=0.6)
        for line in (axes.axhline, axes.axvline):
            line(n - 1.5, color=theme.faint, linewidth=1)
        axes.tick_params(which="both", length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return png_of(figure)


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))


def group_facts(groups: tuple[Group, ...]) -> dict[str, Any]:
    """How many radiographs each attribute's groups have, for the account of the dataset."""
    facts: dict[str, list[str]] = {}
    for group in groups:
        if group.attribute != BOX_SIZE:
            facts.setdefault(group.attribute, []).append(f"{group.numbers['n_images']:,} {group.name}")
    return {attribute: ", ".join(several) for attribute, several in facts.items()}
