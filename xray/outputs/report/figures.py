"""What the report's figures share: colours of light and dark pages, the grid of panels, PNG."""

import dataclasses
import io
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


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of one page background; blue and orange are told apart by any colour vision."""

    ink: str
    faint: str
    grid: str
    blue: str
    orange: str
    on_blue: str


LIGHT = Theme(ink="#1b1f24", faint="#5f6b76", grid="#dde2e7", blue="#0072B2", orange="#D55E00", on_blue="#ffffff")
DARK = Theme(ink="#e8eaec", faint="#9aa4ae", grid="#343a41", blue="#56B4E9", orange="#EE9C66", on_blue="#101214")


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure of the report. file: its name beside the report. draw: (theme) → transparent PNG."""

    file: str
    title: str
    hint: str
    draw: Callable[[Theme], bytes]


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
    kept = [first, last]
    for y in ys:
        order = np.lexsort((y, step))
        kept += [order[first], order[last]]
    rows = np.unique(np.concatenate(kept))
    return x[rows], *(y[rows] for y in ys)


def style(theme: Theme) -> "dict[RcKeyType, Any]":
    """matplotlib's settings for a theme."""
    return {
        "font.size": 8,
        "text.color": theme.ink,
        "axes.edgecolor": theme.faint,
        "axes.labelcolor": theme.faint,
        "xtick.color": theme.faint,
        "ytick.color": theme.faint,
        "grid.color": theme.grid,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }


def panel_grid(
    shown: Sequence[tuple[str, Any]],
    theme: Theme,
    x_label: str,
    y_label: str,
    draw: Callable[[Axes, Any], None],
    legend: bool = False,
) -> bytes:
    """A panel for each (title, item), drawn by `draw(axes, item)` → PNG. legend: that of the first panel, for all."""
    columns = min(MOST_COLUMNS, max(1, len(shown)))
    n_rows = max(1, math.ceil(len(shown) / columns))
    with plt.rc_context(style(theme)):
        width, height = PANELS.get(columns, SMALL_PANEL)
        size = (width * columns + 0.2, height * n_rows + 0.3)
        layout = ConstrainedLayoutEngine(hspace=0.07, h_pad=0.05)
        figure, grid = plt.subplots(n_rows, columns, figsize=size, layout=layout, squeeze=False)
        for number, axes in enumerate(grid.flat):
            if number >= len(shown):
                axes.set_axis_off()
                continue
            axes.grid(True, linewidth=0.6)
            axes.set_axisbelow(True)
            title, item = shown[number]
            draw(axes, item)
            axes.set_title(title, loc="left", fontsize=8.5, fontweight="bold")
            axes.tick_params(length=0)
        figure.supxlabel(x_label, fontsize=9, color=theme.faint)
        figure.supylabel(y_label, fontsize=9, color=theme.faint)
        if legend and shown:
            handles, labels = grid.flat[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False, handlelength=1.2)
        return png_of(figure)


def png_of(figure: Drawing) -> bytes:
    """Closes a figure → transparent PNG of N_COLOURS, two pixels for one of the page."""
    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=2 * PIXELS_PER_INCH, transparent=True, pil_kwargs={"compress_level": 1})
    plt.close(figure)
    # A palette makes the page a third as large.
    picture = Image.open(drawn).convert("RGBA")
    picture.quantize(N_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(file, "PNG")
    return file.getvalue()


def for_dark(png: bytes) -> bytes:
    """A figure drawn for a light page, of a palette → the same for a dark one, a good second sooner than drawn anew.

    Each colour is one of the light theme's, or (where lines are smooth or lie on one another) a blend of two of them;
    it becomes the same blend of the dark theme's.
    """
    picture = Image.open(io.BytesIO(png))
    if picture.mode != "P":
        raise ValueError(f"a figure of mode {picture.mode}, expected one with a palette, as png_of makes it")
    palette = np.array(picture.getpalette("RGBA"), dtype=np.float64).reshape(-1, 4)
    light, dark = (
        np.array([[int(colour[place : place + 2], 16) for place in (1, 3, 5)] for colour in dataclasses.astuple(theme)])
        for theme in (LIGHT, DARK)
    )
    first, second = np.triu_indices(len(light))
    span = light[second] - light[first]
    # Where on the line between two colours each of the palette's comes closest, and how close.
    offset = palette[:, None, :3] - light[first]
    length = np.maximum((span**2).sum(axis=1), 1e-9)
    share = np.clip((offset * span).sum(axis=2) / length, 0, 1)
    distance = ((offset - share[..., None] * span) ** 2).sum(axis=2)
    # A plain colour before a blend that happens to come as close.
    best = np.argmin(distance + 4.0 * (first != second), axis=1)
    share = np.take_along_axis(share, best[:, None], axis=1)
    palette[:, :3] = (1 - share) * dark[first[best]] + share * dark[second[best]]
    picture.putpalette(np.rint(palette).astype(np.uint8).tobytes(), "RGBA")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def on_white(png: bytes) -> bytes:
    """A transparent PNG on white, for a file that any viewer may show."""
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    file = io.BytesIO()
    Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB").save(file, "PNG")
    return file.getvalue()
