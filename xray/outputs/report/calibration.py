"""The report's sections about calibration: reliability diagrams before and after temperature scaling."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from xray.evaluation.assess import Assessment
from xray.evaluation.calibration import HIGHEST, LOWEST, N_BINS, N_FOLDS, Calibration, Fit
from xray.outputs.report import parts as parts
from xray.outputs.report.figures import Figure, Theme, panel_grid
from xray.outputs.report.parts import DASH

KINDS = {
    "boxes": (
        "Calibration of boxes",
        "A box's score as the chance that it is right (IoU &gt; 0.4, no stronger box on the same finding).",
        "calibration_boxes.png",
    ),
    "labels": (
        "Calibration of whole radiographs",
        "A radiograph's score as the chance that it shows the finding.",
        "calibration_labels.png",
    ),
    "pixels": (
        "Calibration of probability maps",
        "A pixel's probability as the chance that it is in the true mask; every radiograph weighs the same.",
        "calibration_pixels.png",
    ),
}


def calibration_sections(assessment: Assessment) -> list[str | Figure]:
    """A table and a figure for each kind of score that there is."""
    sections: list[str | Figure] = []
    for kind, (title, what, file) in KINDS.items():
        found: Sequence[Calibration] = getattr(assessment, kind)
        if found:
            sections.append(_table_section(title, what, found, "pixels" if kind == "pixels" else kind))
            hint = (
                "Share that is right over the mean score of each bin, the diagonal being perfect; dot areas grow with "
                "what lies in a bin. Orange: as given, with 95 % intervals; blue: after temperature scaling."
            )
            sections.append(Figure(file, f"Reliability{title.removeprefix('Calibration')}", hint, partial(draw, found)))
    return sections


def calibration_method() -> str:
    """How the numbers are computed, in HTML paragraphs."""
    return (
        "<p>The Brier score is the mean squared distance of score and outcome. ECE, the expected calibration error, is "
        f"the mean distance of score and share that is right over {N_BINS} equal bins, weighted by what lies in them "
        "(Guo et al. 2017). Temperature scaling divides the scores’ logits by one number, the temperature, that "
        "minimises the log loss; it changes no order, so AP and AUROC stay. The temperature that is shown is fitted "
        f"on all that was scored here; what stands under “scaled” is cross-fitted: patients are dealt into {N_FOLDS} "
        "folds (fewer where there are fewer), and each is scaled by the temperature of the others, so that no patient "
        f"has a part in its own. Temperatures end at {LOWEST:g} and {HIGHEST:g}.</p>"
    )


def _table_section(title: str, what: str, found: Sequence[Calibration], kind: str) -> str:
    first = "Finding" if kind == "boxes" else "Mask" if kind == "pixels" else "Label"
    counted = [] if kind == "pixels" else [f"#{'Boxes' if kind == 'boxes' else 'Radiographs'}"]
    has_intervals = any(one.brier_ci95 for one in found)
    head = [first, *counted, "#Right" if kind == "boxes" else "#Positive", "#Brier"]
    head += ["#95 % interval"] if has_intervals else []
    head += ["#scaled", "#ECE", "#scaled", "#Temperature", "#of the folds"]
    rows = []
    for one in found:
        after = one.after
        row = [parts.name(one.name), *([] if kind == "pixels" else [f"{one.n:,}"])]
        row += [parts.percent(one.share, 2 if one.share < 0.01 else 1), parts.number(one.before.brier, 4)]
        row += [parts.interval(one.brier_ci95) or DASH] if has_intervals else []
        row += [parts.number(after.brier, 4) if after else DASH, parts.number(one.before.ece, 4)]
        row += [parts.number(after.ece, 4) if after else DASH, parts.number(one.temperature, 2)]
        ends = one.fold_temperatures
        row.append(f"{min(ends):.2f}–{max(ends):.2f}" if ends else DASH)
        rows.append(row)
    hint = f"{what} Lower Brier and ECE are better; a temperature over 1 says that the scores are too sure."
    return parts.section(title, hint, parts.table(head, rows))


def draw(found: Sequence[Calibration], theme: Theme) -> bytes:
    """A reliability diagram for each → PNG."""

    def draw_one(axes: Axes, one: Calibration) -> None:
        axes.plot([0, 1], [0, 1], color=theme.faint, linewidth=0.8, linestyle=(0, (4, 3)))
        ends = one.frequency_ci95
        _draw_fit(axes, one.before, theme.orange, ends, "as given")
        if one.after:
            _draw_fit(axes, one.after, theme.blue, None, "temperature-scaled")
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        said = f"ECE {one.before.ece:.3f}" + (f" → {one.after.ece:.3f}" if one.after else "")
        # On the side of the diagonal that the dots leave free.
        gap = np.nansum(one.before.reliability.frequency - one.before.reliability.confidence)
        x, y, side, edge = (0.03, 0.96, "left", "top") if gap < 0 else (0.98, 0.05, "right", "bottom")
        axes.text(x, y, said, transform=axes.transAxes, ha=side, va=edge, fontsize=7)

    shown = [(one.name, one) for one in found]
    return panel_grid(shown, theme, "mean score", "share that is right", draw_one, legend=True)


def _draw_fit(axes: Axes, fit: Fit, colour: str, ends: np.ndarray | None, label: str) -> None:
    filled = fit.reliability.weights > 0
    x, y = fit.reliability.confidence[filled], fit.reliability.frequency[filled]
    share = fit.reliability.weights[filled] / fit.reliability.weights.sum()
    if ends is not None:
        axes.vlines(x, *ends[filled].T, color=colour, linewidth=1.1, alpha=0.45)
    axes.plot(x, y, color=colour, linewidth=0.9, alpha=0.4)
    axes.plot([], [], "o", color=colour, markersize=4, label=label)
    # The area of a dot says how much lies in its bin; one that holds next to nothing is still seen.
    axes.scatter(x, y, 5 + 60 * np.sqrt(share) ** 1.2, colour, linewidths=0, alpha=0.85, clip_on=False, zorder=3)
