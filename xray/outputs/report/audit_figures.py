"""Figures of an audit: where boxes lie, how readers agree, and pictures of what is named."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from xray.audit.audit import Audit
from xray.audit.named import Named, where
from xray.audit.readers import ANY, Agreement
from xray.datasets.store import Store
from xray.findings import colour_of
from xray.outputs.pictures.marks import Mark
from xray.outputs.pictures.overlays import draw_contact_sheet, draw_overlay, draw_side_by_side, encoded
from xray.outputs.report.figures import BLUE, INK, STYLE, png_of
from xray.outputs.report.parts import Section

MOST_PICTURES = 24
COLUMNS = 3
SIDE, HALF_SIDE = 420, 330
"""Of a picture, and of each half of a pair, in pixels."""
QUALITY = 82
TRUTH_COLOUR = "#F4F6F8"
MOST_PLACES = 40
MOST_SHOWN = 24
"""Readers in a matrix."""


def places_figure(audit: Audit) -> bytes:
    """A panel for each category with boxes, of many the MOST_PLACES with most: the share of its boxes that covers each
    place → PNG."""
    places = audit.counts.places
    if len(places) > MOST_PLACES:
        numbers = audit.counts.categories
        chosen = sorted(places, key=lambda name: -numbers[name]["boxes"])[:MOST_PLACES]
        places = {name: places[name] for name in chosen}
    columns = min(5, max(1, len(places)))
    rows = math.ceil(len(places) / columns)
    colours = LinearSegmentedColormap.from_list("share", ["white", BLUE, INK])
    with plt.rc_context(STYLE):
        drawing, grid = plt.subplots(
            rows, columns, figsize=(1.9 * columns + 0.1, 2.15 * rows), layout="constrained", squeeze=False
        )
        for axes in grid.flat[len(places) :]:
            axes.set_axis_off()
        for axes, (name, covered) in zip(grid.flat, places.items(), strict=False):
            axes.imshow(covered, cmap=colours, vmin=0, vmax=max(covered.max(), 1e-9), extent=(0, 1, 1, 0))
            axes.set(xticks=[], yticks=[])
            axes.set_title(name if len(name) < 22 else f"{name[:20]}…")
            axes.spines[:].set_visible(True)
        return png_of(drawing)


def readers_figure(agreement: Agreement) -> bytes:
    """Matrices of readers: kappa of any finding, and below it the IoU of matched boxes where it is known → PNG."""
    n = min(len(agreement.names), MOST_SHOWN)
    kappa, iou = np.full((n, n), np.nan), np.full((n, n), np.nan)
    for pair in agreement.pairs:
        if pair.second < n:
            for i, j in ((pair.first, pair.second), (pair.second, pair.first)):
                kappa[i, j], iou[i, j] = pair.kappa[ANY], pair.iou
    panels = [("Kappa of any finding", kappa)]
    if not np.isnan(iou).all():
        panels.append(("Mean IoU of matched boxes", iou))
    side = 1.0 + 0.4 * n
    with plt.rc_context(STYLE):
        size = (side + 0.6, (side + 0.2) * len(panels))
        drawing, grid = plt.subplots(len(panels), 1, figsize=size, layout="constrained", squeeze=False)
        for axes, (title, values) in zip(grid.flat, panels, strict=True):
            _matrix(axes, title, values, agreement.names[:n])
        return png_of(drawing)


def _matrix(axes: Axes, title: str, values: np.ndarray, names: Sequence[str]) -> None:
    n = len(names)
    colours = LinearSegmentedColormap.from_list("share", ["white", BLUE])
    axes.imshow(np.nan_to_num(values).clip(0, 1), cmap=colours, vmin=0, vmax=1)
    for i, j in np.argwhere(np.isfinite(values)).tolist():
        colour = "white" if values[i, j] > 0.55 else INK
        axes.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", fontsize=6, color=colour)
    axes.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(n), names)
    axes.set_title(title)
    axes.spines[:].set_visible(False)


def gallery(audit: Audit, named: Sequence[Named], title: str, hint: str, file: str) -> Section | None:
    """Pictures of the first of what is named; None where there is none, or the dataset has no pixels."""
    if not named or audit.store.images is None:
        return None
    pictures = [_picture(audit.store, one) for one in named[:MOST_PICTURES]]
    sheet = encoded(draw_contact_sheet(pictures, COLUMNS))
    shown = [
        (encoded(picture, ".jpg", QUALITY), f"{one.why} · {_ids(audit.store, one)} · {one.detail}")
        for picture, one in zip(pictures, named, strict=False)
    ]
    return Section(title, hint, file=file, png=sheet, pictures=shown)


def _ids(store: Store, one: Named) -> str:
    return " and ".join(str(store.records[row]["source_id"]) for row in one.rows)


def _picture(store: Store, one: Named) -> np.ndarray:
    if one.other >= 0:
        halves = [_drawn(store, row, [], HALF_SIDE) for row in one.rows]
        height = max(half.shape[0] for half in halves)
        halves = [cv2.copyMakeBorder(half, 0, height - half.shape[0], 0, 0, cv2.BORDER_CONSTANT) for half in halves]
        return draw_side_by_side(halves[0], halves[1], (where(store, one.row), where(store, one.other)))
    return _drawn(store, one.row, _marks(store, one), SIDE)


def _marks(store: Store, one: Named) -> list[Mark]:
    canvas = store.canvas(one.row)
    left, top, _, _ = canvas.content
    ids = {name: label for label, name in store.categories.items()}
    marks = []
    for box, name, is_true in ((one.box, one.category, True), (one.seen, one.seen_as, False)):
        if box is None:
            continue
        corners = canvas.to_canvas(np.array(box))[0] - (left, top, left, top)
        colour = TRUTH_COLOUR if is_true else colour_of(ids[name])
        score, note = (None, "label") if is_true else (one.score, "")
        marks.append(Mark(tuple(corners.tolist()), name, colour, score, note, dashed=is_true))
    return marks


def _drawn(store: Store, row: int, marks: Sequence[Mark], side: int) -> np.ndarray:
    assert store.images is not None
    left, top, right, bottom = store.canvas(row).content
    pixels = np.ascontiguousarray(store.images[row, top:bottom, left:right])
    return draw_overlay(pixels, marks, threshold=0.0, max_side=side, min_side=side, nothing="")
