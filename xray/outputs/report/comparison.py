"""The report that puts two sets of predictions side by side."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib import pyplot as plt

from xray.evaluation.comparison import P_VALUE, TITLES, TOTAL, Comparison, Difference
from xray.outputs.report import parts as parts
from xray.outputs.report.figures import Figure, Theme, png_of, style
from xray.outputs.report.page import Page, write_page
from xray.outputs.report.parts import DASH

MEANS = {"map40": "Mean of the findings", "coco_ap": "Mean of the findings", "auroc": "Mean of the labels"}


def write_comparison(
    path: Path, comparison: Comparison, names: tuple[str, str], dataset: str, warnings: Sequence[str] = ()
) -> list[Path]:
    """Writes report.html, report.md and the figures; returns the figures' paths.

    names: what the reader should call the two. dataset: its name.
    """
    known = comparison.n_patients
    page = Page(
        "Comparison report",
        f"A: {names[0]} · B: {names[1]} · against {dataset}",
        warnings,
        _tiles(comparison),
        [*_sections(comparison, names), _dataset(comparison), _method(known is not None)],
    )
    return write_page(path, page)


def difference_text(value: float) -> str:
    """A difference with its sign."""
    return DASH if math.isnan(value) else "0" if value == 0 else f"{value:+.3f}".replace("-", "−")


def ends_text(ends: list[float] | None) -> str:
    """The interval of a difference."""
    return DASH if ends is None or math.isnan(ends[0]) else " to ".join(map(difference_text, ends))


def p_text(value: float | None, n_resamples: int) -> str:
    """A p-value, no finer than the resamples allow."""
    if value is None or math.isnan(value):
        return DASH
    least = 2 / (n_resamples + 1)
    return f"≤ {least:.2g}" if value <= least * (1 + 1e-9) else f"{value:.3f}" if value >= 0.01 else f"{value:.4f}"


def row_name(one: Difference) -> str:
    """What a row is called."""
    return one.name if one.name != TOTAL else MEANS.get(one.metric, TITLES[one.metric])


def title_of(one: Difference) -> str:
    """What a total is called where its metric is not said beside it."""
    return f"{TITLES[one.metric]}, mean" if one.metric in MEANS else TITLES[one.metric]


def _tiles(comparison: Comparison) -> list[str]:
    tiles = []
    totals = {one.metric: one for one in comparison.differences if one.name == TOTAL}
    for one in comparison.differences:
        totals.setdefault(one.metric, one)
    for number, (metric, one) in enumerate(totals.items()):
        note = f"A {one.first:.3f} · B {one.second:.3f}"
        if one.ends and not math.isnan(one.ends[0]):
            note += f" · {ends_text(one.ends)}"
        title = f"m{TITLES[metric]}" if metric == "map40" else TITLES[metric]
        named = f"{title}, B − A" if one.name == TOTAL else f"{title} {one.name}, B − A"
        tiles.append(parts.tile(named, difference_text(one.difference), None, note, number == 0))
    patients = f"{comparison.n_patients:,} patients" if comparison.n_patients else "patients not known"
    return [*tiles, parts.tile("Radiographs", f"{comparison.n_images:,}", None, patients)]


def _sections(comparison: Comparison, names: tuple[str, str]) -> list[str | Figure]:
    sections: list[str | Figure] = []
    has_intervals = comparison.n_resamples > 0
    for metric, title in TITLES.items():
        own = [one for one in comparison.differences if one.metric == metric]
        if not own:
            continue
        head = ["", "#A", "#B", "#B − A", *(["#95 % interval", "#p"] if has_intervals else []), ""]
        rows = []
        for one in own:
            row = [parts.name(row_name(one)), parts.number(one.first), parts.number(one.second)]
            row.append(difference_text(one.difference))
            if has_intervals:
                row += [ends_text(one.ends), p_text(one.p_value, comparison.n_resamples)]
            rows.append([*row, _verdict(one)])
        mean_row = 0 if own[0].name == TOTAL and len(own) > 1 else -1
        sections.append(parts.section(title, f"A: {parts.text(names[0])}. B: {parts.text(names[1])}.",
                                      parts.table(head, rows, mean_row)))  # fmt: skip
    return [
        *sections,
        Figure("compare_values.png", "Both, number by number", "Blue: A, orange: B.",
               partial(draw_values, comparison)),
        Figure("compare_differences.png", "Differences",
               "B − A with 95 % intervals; right of the line B is better. Faint where the interval holds zero.",
               partial(draw_differences, comparison)),
    ]  # fmt: skip


def _verdict(one: Difference) -> str:
    """Which is better, where the interval leaves no doubt of the direction."""
    if one.ends is None or math.isnan(one.ends[0]) or one.ends[0] <= 0 <= one.ends[1]:
        return ""
    return '<span class="dim">B is higher</span>' if one.ends[0] > 0 else '<span class="dim">A is higher</span>'


def _dataset(comparison: Comparison) -> str:
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
    return parts.section("Dataset", "", parts.facts(facts))


def _method(with_patients: bool) -> str:
    who = "patients, with all their radiographs" if with_patients else "radiographs, since no patient is known"
    said = (
        f"<p>Intervals are percentiles of a paired bootstrap that draws {who}: each resample is the same for A and B, "
        "and what varies is the difference. Where an interval holds zero, the radiographs at hand do not tell which "
        f"of the two is better.</p><p>p: {parts.text(P_VALUE)}</p>"
    )
    return parts.section("How this is computed", "", said)


def _places(differences: Sequence[Difference]) -> list[float]:
    """Heights of the rows, with a gap before each metric."""
    places, y = [], 0.0
    for before, one in zip((None, *differences), differences, strict=False):
        y += 0.0 if before is None else 1.0 if before.metric == one.metric else 1.7
        places.append(y)
    return places


def _labels(differences: Sequence[Difference]) -> list[str]:
    return [title_of(one) if one.name == TOTAL else one.name for one in differences]


def draw_values(comparison: Comparison, theme: Theme) -> bytes:
    """The numbers of both as dots → PNG."""
    differences = comparison.differences
    places = _places(differences)
    with plt.rc_context(style(theme)):
        figure, axes = plt.subplots(figsize=(7.6, 0.9 + 0.21 * (places[-1] + 1)), layout="constrained")
        axes.grid(True, axis="x", linewidth=0.6)
        axes.set_axisbelow(True)
        for place, one in zip(places, differences, strict=True):
            axes.plot([one.first, one.second], [place, place], color=theme.faint, linewidth=1.2, alpha=0.6)
        for values, colour, label in (
            ([one.first for one in differences], theme.blue, "A"),
            ([one.second for one in differences], theme.orange, "B"),
        ):
            axes.plot(values, places, "o", color=colour, markersize=5, label=label, clip_on=False, zorder=5)
        axes.set(xlim=(0, 1), ylim=(places[-1] + 0.8, -0.8))
        axes.set_yticks(places, _labels(differences))
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside upper right", ncols=2, frameon=False)
        return png_of(figure)


def draw_differences(comparison: Comparison, theme: Theme) -> bytes:
    """The differences with their intervals → PNG."""
    differences = comparison.differences
    places = _places(differences)
    with plt.rc_context(style(theme)):
        figure, axes = plt.subplots(figsize=(7.6, 0.9 + 0.21 * (places[-1] + 1)), layout="constrained")
        axes.grid(True, axis="x", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.axvline(0, color=theme.faint, linewidth=1)
        widest = 0.01
        for place, one in zip(places, differences, strict=True):
            is_clear = bool(_verdict(one))
            colour = theme.faint if not is_clear else theme.orange if one.difference > 0 else theme.blue
            if one.ends and not math.isnan(one.ends[0]):
                axes.plot(one.ends, [place, place], color=colour, linewidth=1.8, alpha=0.7, solid_capstyle="butt")
                widest = max(widest, *map(abs, one.ends))
            if not math.isnan(one.difference):
                axes.plot(one.difference, place, "o", color=colour, markersize=5)
                widest = max(widest, abs(one.difference))
        axes.set(xlim=(-1.08 * widest, 1.08 * widest), ylim=(places[-1] + 0.8, -0.8), xlabel="B − A")
        axes.set_yticks(places, _labels(differences))
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        return png_of(figure)
