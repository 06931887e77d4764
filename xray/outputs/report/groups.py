"""The report's section about groups of radiographs, and that about confusion between findings."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from xray.evaluation.confusion import BACKGROUND, CONFUSION_IOU, Confusion
from xray.evaluation.subgroups import BOX_SIZE, Group
from xray.outputs.report import parts as parts
from xray.outputs.report.figures import BLUE, FAINT, INK, STYLE, png_of, row_chart
from xray.outputs.report.parts import DASH, Section, figure

MEASURES = {
    "map40": ("mAP@0.4", "n_boxes", "#Boxes"),
    "dice": ("Dice", "n_positive", "#Positive"),
    "dice_positive": ("Dice, positives", "", None),
    "mean_auroc": ("AUROC", "", None),
}
"""Number of a group → its title, and the number that counts the boxes or masks behind it, with its title."""


def group_sections(groups: tuple[Group, ...]) -> list[Section]:
    """A table and a figure of all groups; nothing where there are not two."""
    measured = [name for name in MEASURES if any(not math.isnan(group.numbers.get(name, math.nan)) for group in groups)]
    if len(groups) < 2 or not measured:
        return []
    head: list[str | None] = ["!Group", "!", "#Radiographs", "#Patients"]
    for name in measured:
        title, _, count_title = MEASURES[name]
        head += [count_title, f"#{title}", "#95 % interval"]
    rows, attribute = [], ""
    for group in groups:
        numbers = group.numbers
        row = ["" if group.attribute == attribute else group.attribute, group.name]
        row += [f"{numbers['n_images']:,}", f"{numbers['n_patients']:,}"]
        for name in measured:
            count = numbers.get(MEASURES[name][1])
            row += [DASH if count is None else f"{count:,}", parts.number(numbers.get(name, math.nan))]
            row.append(parts.interval(numbers.get(f"{name}_ci95")))
        rows.append(row)
        attribute = group.attribute
    hint = (
        "Each group scored by itself, with intervals from resamples of its own patients. A mean is over the findings "
        "that a group has, which may not be those of another; and many groups are looked at, so that one may stand "
        "out by chance."
    )
    if any(group.attribute == BOX_SIZE for group in groups):
        hint += " Box sizes are shares of the radiograph."
    if all(group.attribute == BOX_SIZE for group in groups):
        hint += " The dataset says nothing of view, sex, age or manufacturer."
    return [
        Section("Groups", hint, parts.table(head, rows)),
        figure("groups.png", groups_figure(groups, measured)),
    ]


def groups_figure(groups: Sequence[Group], measured: Sequence[str]) -> bytes:
    """Each number of each group as a dot with its interval → PNG."""

    def draw(axes: Axes, heights: Sequence[float], number: int) -> None:
        name = measured[number]
        for height, group in zip(heights, groups, strict=True):
            ends = group.numbers.get(f"{name}_ci95", (math.nan, math.nan))
            axes.plot(ends, [height, height], color=BLUE, linewidth=1.6, alpha=0.55, solid_capstyle="butt")
            value = group.numbers.get(name, math.nan)
            axes.plot(value, height, "o", color=BLUE, markersize=4.5, clip_on=False, zorder=5)
        axes.set(xlim=(0, 1), title=MEASURES[name][0])
        axes.set_xticks((0, 0.25, 0.5, 0.75, 1), ("0", "¼", "½", "¾", "1"))

    labels = [f"{group.attribute}: {group.name} ({group.numbers['n_images']:,})" for group in groups]
    names = [(group.attribute, label) for group, label in zip(groups, labels, strict=True)]
    return row_chart(names, 2.6, draw, len(measured))


def confusion_sections(confusion: Confusion | None) -> list[Section]:
    """A table of the findings that are taken for others, and the matrix as a figure."""
    if confusion is None or not confusion.counts.any():
        return []
    hint = (
        f"Rows are true boxes, columns what met them: boxes with a score of at least {confusion.threshold:g} and an "
        f"IoU of at least {CONFUSION_IOU:g}, each in one pair, those of the same finding first. The last column are "
        "true boxes that nothing met, the last row boxes that met nothing."
    )
    names, counts, k = confusion.names, confusion.counts, len(confusion.names)
    rows = []
    for i in _occurring(counts)[:-1]:
        total, met = counts[i].sum(), counts[i, i]
        others = [j for j in np.argsort(-counts[i, :k], kind="stable").tolist() if j != i and counts[i, j]]
        numbers = [f"{count:,}" for count in (total, met, counts[i, :k].sum() - met, counts[i, k])]
        share = parts.percent(met / total if total else math.nan)
        most = ", ".join(f"{names[j]} {counts[i, j]:,}" for j in others[:3])
        rows.append([names[i], *numbers, share, f"{counts[k, i]:,}", most or DASH])
    head = ["!Finding", "#True boxes", "#Met", "#By another", "#Not met", "#Met, %", "#Boxes on nothing"]
    return [
        Section("Confusion between findings", hint, parts.table([*head, "Most taken for"], rows)),
        figure("confusion.png", confusion_figure(confusion)),
    ]


def _occurring(counts: np.ndarray) -> list[int]:
    """Categories that occur at all, and last the background."""
    occurs = (counts.sum(axis=0) + counts.sum(axis=1)) > 0
    occurs[-1] = True
    return np.flatnonzero(occurs).tolist()


def confusion_figure(confusion: Confusion) -> bytes:
    """The matrix with its numbers, shaded by the share of each row → PNG."""
    places = _occurring(confusion.counts)
    counts = confusion.counts[np.ix_(places, places)]
    names = [[*confusion.names, BACKGROUND][place] for place in places]
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    n = len(places)
    with plt.rc_context(STYLE):
        side = 1.7 + 0.46 * n
        drawing, axes = plt.subplots(figsize=(side + 0.5, side * 0.86), layout="constrained")
        colours = LinearSegmentedColormap.from_list("share", ["white", BLUE])
        axes.imshow(shares, cmap=colours, vmin=0, vmax=1, aspect="auto")
        for i, j in np.argwhere(counts).tolist():
            axes.text(
                j, i, f"{counts[i, j]:,}", ha="center", va="center", fontsize=7,
                color="white" if shares[i, j] > 0.55 else INK, fontweight="bold" if i == j else "normal",
            )  # fmt: skip
        axes.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(n), names)
        axes.set(xlabel="predicted", ylabel="true")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(np.arange(n + 1) - 0.5, minor=True)
        axes.grid(True, which="minor")
        for line in (axes.axhline, axes.axvline):
            line(n - 1.5, color=FAINT, linewidth=1)
        axes.spines[:].set_visible(False)
        return png_of(drawing)


def group_facts(groups: tuple[Group, ...]) -> dict[str, str]:
    """How many radiographs each attribute's groups have, for the account of the dataset."""
    facts: dict[str, list[str]] = {}
    for group in groups:
        if group.attribute != BOX_SIZE:
            facts.setdefault(group.attribute, []).append(f"{group.numbers['n_images']:,} {group.name}")
    return {attribute: ", ".join(several) for attribute, several in facts.items()}
