"""The report's sections about calibration: reliability diagrams of scores as they are and as they are calibrated."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from xray.evaluation.assess import Assessment
from xray.evaluation.calibration import Calibration, Fit
from xray.outputs.report import parts as parts
from xray.outputs.report.figures import BLUE, DASHED, FAINT, ORANGE, panel_grid
from xray.outputs.report.parts import DASH, Section, figure

KINDS = {
    "boxes": (
        "boxes",
        "A box's score as the chance that it is right (IoU > 0.4, no stronger box on the same finding).",
        ("!Finding", "#Boxes", "#Right"),
    ),
    "labels": (
        "whole radiographs",
        "A radiograph's score as the chance that it shows the finding.",
        ("!Label", "#Radiographs", "#Positive"),
    ),
    "pixels": (
        "probability maps",
        "A pixel's probability as the chance that it is in the true mask; every radiograph weighs the same.",
        ("!Mask", None, "#Positive"),
    ),
}


def calibration_sections(assessment: Assessment) -> list[Section]:
    """A table and a figure for each kind of score that there is."""
    sections = []
    for kind, (what, meaning, head) in KINDS.items():
        calibrations: Sequence[Calibration] = getattr(assessment, kind)
        if calibrations:
            hint = f"{meaning} Lower Brier and ECE are better; a temperature over 1 says that the scores are too sure."
            if has_intercepts(calibrations):
                hint += " An intercept below 0 says that they are too high."
            sections.append(Section(f"Calibration of {what}", hint, _table(head, calibrations)))
            sections.append(figure(f"calibration_{kind}.png", reliability_figure(calibrations)))
    return sections


def has_intercepts(calibrations: Sequence[Calibration]) -> bool:
    """Whether any was fitted with an intercept."""
    return any(one.intercept is not None for one in calibrations)


def _table(head: tuple[str | None, ...], calibrations: Sequence[Calibration]) -> parts.Table:
    rows, with_intercepts = [], has_intercepts(calibrations)
    for one in calibrations:
        before, after, temperatures = one.before, one.after, one.fold_temperatures
        share = parts.percent(one.share, 2 if one.share < 0.01 else 1)
        brier = [parts.number(before.brier, 4), parts.interval(one.brier_ci95)]
        brier.append(parts.number(after.brier, 4) if after else DASH)
        ece = [parts.number(before.ece, 4), parts.number(after.ece, 4) if after else DASH]
        line = [parts.number(one.temperature, 2), _range(temperatures)]
        if with_intercepts:
            line += [DASH if one.intercept is None else parts.number(one.intercept, 2), _range(one.fold_intercepts)]
        rows.append([one.name, f"{one.n:,}", share, *brier, *ece, *line])
    ends_title = "#95 % interval" if any(one.brier_ci95 for one in calibrations) else None
    numbers = ["#Brier", ends_title, "#calibrated", "#ECE", "#calibrated", "#Temperature", "#of the folds"]
    numbers += ["#Intercept", "#of the folds"] if with_intercepts else []
    return parts.table([*head, *numbers], rows)


def _range(numbers: tuple[float, ...] | None) -> str:
    if not numbers:
        return DASH
    return f"{min(numbers):.2f} to {max(numbers):.2f}" if min(numbers) < 0 else f"{min(numbers):.2f}–{max(numbers):.2f}"


def reliability_figure(calibrations: Sequence[Calibration]) -> bytes:
    """A reliability diagram for each → PNG."""
    is_any = any(one.after for one in calibrations)

    def draw(axes: Axes, one: Calibration) -> None:
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=DASHED)
        _draw_fit(axes, one.before, ORANGE, one.frequency_ci95, "as given")
        if one.after:
            _draw_fit(axes, one.after, BLUE, None, "calibrated")
        elif is_any:
            # The legend is that of the first panel.
            axes.plot([], [], "o", color=BLUE, markersize=4, label="calibrated")
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        text = f"ECE {one.before.ece:.3f}" + (f" → {one.after.ece:.3f}" if one.after else "")
        # On the side of the diagonal that the dots leave free.
        gap = np.nansum(one.before.frequency - one.before.confidence)
        x, y, side, edge = (0.03, 0.96, "left", "top") if gap < 0 else (0.98, 0.05, "right", "bottom")
        # What lies below it must not be read as a part of it.
        ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
        axes.text(x, y, text, transform=axes.transAxes, ha=side, va=edge, fontsize=7, bbox=ground, zorder=5)

    panels = [(one.name, one) for one in calibrations]
    return panel_grid(panels, "mean score", "share that is right", draw, legend=True)


def _draw_fit(axes: Axes, fit: Fit, colour: str, ends: np.ndarray | None, label: str) -> None:
    filled = fit.weights > 0
    x, y = fit.confidence[filled], fit.frequency[filled]
    share = fit.weights[filled] / fit.weights.sum()
    if ends is not None:
        axes.vlines(x, *ends[filled].T, color=colour, linewidth=1.1, alpha=0.45)
    axes.plot(x, y, color=colour, linewidth=0.9, alpha=0.4)
    axes.plot([], [], "o", color=colour, markersize=4, label=label)
    # The area of a dot says how much lies in its bin; one that holds next to nothing is still seen.
    axes.scatter(x, y, 5 + 60 * np.sqrt(share) ** 1.2, colour, linewidths=0, alpha=0.85, clip_on=False, zorder=3)
