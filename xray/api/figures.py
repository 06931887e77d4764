"""Pictures as matplotlib figures and as PNG."""

import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

DPI = 100


class ShownFigure(Figure):
    """A figure that a notebook shows by itself, with pyplot or without: pyplot would also show it a second time."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=DPI)
        return content.getvalue()


def figure_of(picture: np.ndarray) -> Figure:
    """(h, w, 3) uint8 RGB → a figure of h × w pixels, without margins."""
    height, width = picture.shape[:2]
    figure = ShownFigure(figsize=(width / DPI, height / DPI), dpi=DPI)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow(picture, interpolation="none")
    axes.set_axis_off()
    return figure


def png_of(picture: np.ndarray) -> bytes:
    """(h, w, 3) uint8 RGB → the content of a PNG file."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()
