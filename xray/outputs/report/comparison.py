"""The report that puts two sets of predictions side by side."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from xray.evaluation.comparison import P_VALUE, TITLES, TOTAL, Comparison, Difference
from xray.outputs.report import parts as parts
from xray.outputs.report.figures import BLUE, FAINT, ORANGE, row_chart
from xray.outputs.report.page import Page, write_page
from xray.outputs.report.parts import DASH, Section, Tile, figure

MEANS = {"map40": "Mean of the findings", "coco_ap": "Mean of the findings", "auroc": "Mean of the labels"}


def write_comparison(
    path: Path, comparison: Comparison, names: tuple[str, str], dataset: str, warnings: Sequence[str] = ()
) -> Page:
    """Writes report.html, report.md and the figures.

    names: what the reader should call the two. dataset: its name.
    """
    sections = [
        *_difference_sections(comparison, names),
        figure("compare_values.png", values_figure(comparison.differences)),
        figure("compare_differences.png", differences_figure(comparison.differences)),
        _dataset_section(comparison),
        _method_section(comparison.n_patients is not None),
    ]
    subtitle = f"A: {names[0]} · B: {names[1]} · against {dataset}"
    return write_page(path, Page("Comparison report", subtitle, warnings, _tiles(comparison), sections))


def difference_text(value: float) -> str:
    """A difference with its sign."""
    return DASH if math.isnan(value) else "0" if value == 0 else f"{value:+.3f}".replace("-", "−")


def p_text(value: float | None, n_resamples: int) -> str:
    """A p-value, no finer than the resamples allow."""
    if value is None or math.isnan(value):
        return DASH
    least = 2 / (n_resamples + 1)
    return f"≤ {least:.2g}" if value <= least * (1 + 1e-9) else f"{value:.3f}" if value >= 0.01 else f"{value:.4f}"


def _ends_text(ends: list[float] | None) -> str:
    """The interval of a difference."""
    return DASH if ends is None or math.isnan(ends[0]) else " to ".join(map(difference_text, ends))


def _tiles(comparison: Comparison) -> list[Tile]:
    """The total of each metric, or its first row where it has none."""
    firsts: dict[str, Difference] = {}
    for one in comparison.differences:
        firsts.setdefault(one.metric, one)
    tiles: list[Tile] = []
    for metric, one in firsts.items():
        title = f"m{TITLES[metric]}" if metric == "map40" else TITLES[metric]
        ends = _ends_text(one.ends)
        note = f"A {one.first:.3f} · B {one.second:.3f}" + (f" · {ends}" if ends != DASH else "")
        label = f"{title} {one.name}".strip() + ", B − A"
        tiles.append(Tile(label, difference_text(one.difference), note, is_main=not tiles))
    patients = f"{comparison.n_patients:,} patients" if comparison.n_patients else "patients not known"
    return [*tiles, Tile("Radiographs", f"{comparison.n_images:,}", patients)]


def _difference_sections(comparison: Comparison, names: tuple[str, str]) -> list[Section]:
    sections = []
    with_intervals = comparison.n_resamples > 0
    head = ["!", "#A", "#B", "#B − A", "#95 % interval" if with_intervals else None, "#p" if with_intervals else None]
    for metric, title in TITLES.items():
        differences = [one for one in comparison.differences if one.metric == metric]
        rows = [
            [
                one.name if one.name != TOTAL else MEANS.get(metric, title),
                parts.number(one.first),
                parts.number(one.second),
                difference_text(one.difference),
                _ends_text(one.ends),
                p_text(one.p_value, comparison.n_resamples),
                _verdict(one),
            ]
            for one in differences
        ]
        if rows:
            mean_row = 0 if differences[0].name == TOTAL and len(rows) > 1 else -1
            table = parts.table([*head, "~"], rows, mean_row)
            sections.append(Section(title, f"A: {names[0]}. B: {names[1]}.", table, is_printed=True))
    return sections


def _verdict(one: Difference) -> str:
    """Which is better, where the interval leaves no doubt of the direction."""
    if one.ends is None or math.isnan(one.ends[0]) or one.ends[0] <= 0 <= one.ends[1]:
        return ""
    return "B is higher" if one.ends[0] > 0 else "A is higher"


def _dataset_section(comparison: Comparison) -> Section:
    scored = comparison.scored
    patients = f"{comparison.n_patients:,}" if comparison.n_patients else "not known; each radiograph counts as one"
    facts = {
        "Radiographs": f"{comparison.n_images:,}, the same for both",
        "Patients": patients,
        "Boxes": f"{scored['n_boxes']:,}",
        "Annotations": f"SHA-256 {scored['annotations_sha256']}",
        "Split": f"SHA-256 {scored['split_sha256']}",
    }
    if comparison.left_out:
        facts["Not compared"] = f"{', '.join(comparison.left_out)}: only one of the two has them"
    return Section("Dataset", facts=facts)


def _method_section(with_patients: bool) -> Section:
    who = "patients, with all their radiographs" if with_patients else "radiographs, since no patient is known"
    text = (
        f"Intervals are percentiles of a paired bootstrap that draws {who}: each resample is the same for A and B, "
        "and what varies is the difference. Where an interval holds zero, the radiographs at hand do not tell which "
        "of the two is better."
    )
    return Section("How this is computed", paragraphs=[text, f"p: {P_VALUE}"])


def _row_names(differences: Sequence[Difference]) -> list[tuple[str, str]]:
    titles = {metric: f"{title}, mean" if metric in MEANS else title for metric, title in TITLES.items()}
    return [(one.metric, titles[one.metric] if one.name == TOTAL else one.name) for one in differences]


def values_figure(differences: Sequence[Difference]) -> bytes:
    """The numbers of both as dots → PNG."""

    def draw(axes: Axes, heights: Sequence[float], _: int) -> None:
        firsts, seconds = [one.first for one in differences], [one.second for one in differences]
        axes.hlines(heights, firsts, seconds, color=FAINT, linewidth=1.2, alpha=0.6)
        for values, colour, label in ((firsts, BLUE, "A"), (seconds, ORANGE, "B")):
            axes.plot(values, heights, "o", color=colour, markersize=5, label=label, clip_on=False, zorder=5)
        axes.set_xlim(0, 1)

    return row_chart(_row_names(differences), 5.3, draw)


def differences_figure(differences: Sequence[Difference]) -> bytes:
    """The differences with their intervals → PNG."""

    def draw(axes: Axes, heights: Sequence[float], _: int) -> None:
        axes.axvline(0, color=FAINT, linewidth=1)
        widest = 0.01
        for height, one in zip(heights, differences, strict=True):
            colour = FAINT if not _verdict(one) else ORANGE if one.difference > 0 else BLUE
            low, high = one.ends or (math.nan, math.nan)
            axes.plot([low, high], [height, height], color=colour, linewidth=1.8, alpha=0.7, solid_capstyle="butt")
            axes.plot(one.difference, height, "o", color=colour, markersize=5)
            widest = max(widest, *(abs(value) for value in (low, high, one.difference) if not math.isnan(value)), 0)
        axes.set(xlim=(-1.08 * widest, 1.08 * widest), xlabel="B − A")

    return row_chart(_row_names(differences), 5.3, draw)
