"""Shared by the report's figures: colours, the grid of panels, rows of dots, PNG."""

import io
import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from xray.radiographs.pictures import of_own

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

PANELS = {1: (4.4, 3.1), 2: (3.6, 2.7), 3: (2.7, 2.1)}
"""Width and height of a panel in inches by the number of columns."""
SMALL_PANEL = (2.05, 1.75)
PIXELS_PER_INCH = 96
MOST_COLUMNS = 5
N_COLOURS = 160
DRAWN = 800
"""Steps along a panel's axis that a curve is drawn in: more than the panel has pixels."""


INK, FAINT, GRID = "#1b1f24", "#5f6b76", "#dde2e7"
BLUE, ORANGE = "#0072B2", "#D55E00"
"""Told apart by any colour vision. Dark pages show figures inverted, with the hues turned back (report.html.j2)."""
DASHED = (0, (4, 3))
STYLE: "dict[RcKeyType, Any]" = {
    "font.size": 8,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
"""matplotlib's settings for all figures."""


def thinned(x: np.ndarray, *ys: np.ndarray, along: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """A curve with fewer points that looks the same: x (N,) ascending and each of ys (N,) at the points that are kept.

    along: (N,) where each point stands on the axis, ascending from 0 to 1; None takes x itself. Of the points in one
    of its DRAWN steps the first, the last, and the lowest and highest of each y are kept.
    """
    step = np.floor(np.clip(x if along is None else along, 0, 1) * DRAWN).astype(np.int64)
    if len(step) <= 2 * DRAWN:
        return x, *ys
    first = np.flatnonzero(np.diff(step, prepend=step[0] - 1))
    last = np.append(first[1:], len(step)) - 1
    rows = [first, last]
    for y in ys:
        order = np.lexsort((y, step))
        rows += [order[first], order[last]]
    chosen = np.unique(np.concatenate(rows))
    return x[chosen], *(y[chosen] for y in ys)


def panel_grid(
    panels: Sequence[tuple[str, Any]],
    x_label: str,
    y_label: str,
    draw: Callable[[Axes, Any], None],
    legend: bool = False,
    most_columns: int = MOST_COLUMNS,
) -> bytes:
    """A panel for each (title, item), drawn by `draw(axes, item)` → PNG. legend: that of the first panel, for all."""
    columns = min(most_columns, max(1, len(panels)))
    n_rows = max(1, math.ceil(len(panels) / columns))
    with plt.rc_context(STYLE):
        width, height = PANELS.get(columns, SMALL_PANEL)
        size = (width * columns + 0.2, height * n_rows + 0.3)
        layout = ConstrainedLayoutEngine(hspace=0.07, h_pad=0.05)
        figure, grid = plt.subplots(n_rows, columns, figsize=size, layout=layout, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes, (title, item) in zip(grid.flat, panels, strict=False):
            axes.grid(True)
            draw(axes, item)
            axes.set_title(title)
        figure.supxlabel(x_label, fontsize=9, color=FAINT)
        figure.supylabel(y_label, fontsize=9, color=FAINT)
        if legend and panels:
            handles, labels = grid.flat[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False, handlelength=1.2)
        return png_of(figure)


def row_chart(
    names: Sequence[tuple[str, str]], panel_width: float, draw: Callable[[Axes, Sequence[float], int], None], n: int = 1
) -> bytes:
    """n panels beside one another that share their rows, from the top down → PNG.

    names: (group, label) of each row; there is a gap where the group changes. draw: (axes, heights of the rows, number
    of the panel), draws one of the panels.
    """
    heights = [0.0]
    for (before, _), (group, _) in itertools.pairwise(names):
        heights.append(heights[-1] + (1.0 if group == before else 1.7))
    with plt.rc_context(STYLE):
        size = (2.3 + panel_width * n, 0.9 + 0.22 * (heights[-1] + 1))
        figure, grid = plt.subplots(1, n, figsize=size, layout="constrained", squeeze=False, sharey=True)
        for number, axes in enumerate(grid.flat):
            axes.grid(True, axis="x")
            axes.spines["left"].set_visible(False)
            draw(axes, heights, number)
        grid.flat[0].set_yticks(heights, [label for _, label in names])
        grid.flat[0].set_ylim(heights[-1] + 0.8, -0.8)
        if any(axes.get_legend_handles_labels()[0] for axes in grid.flat):
            figure.legend(loc="outside upper right", ncols=2, frameon=False)
        return png_of(figure)


def png_of(figure: Drawing) -> bytes:
    """Closes a figure → PNG of N_COLOURS on white, two pixels for one of the page; no radiograph, as it says."""
    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=2 * PIXELS_PER_INCH, pil_kwargs={"compress_level": 1})
    plt.close(figure)
    # A palette makes the page a third as large.
    picture = Image.open(drawn).convert("RGB")
    picture.quantize(N_COLOURS, dither=Image.Dither.NONE).save(file, "PNG")
    return of_own(file.getvalue())
