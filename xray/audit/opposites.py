"""Boxes on the wrong side: "Left lung" where right lungs are. Either its label is swapped or its radiograph mirrored.

It needs no predictions. A category's boxes are described by middle and size, as shares of the radiograph; a normal
distribution with a robust covariance is fitted to them, and one to those of the category's opposite.
"""

import numpy as np
from scipy.stats import chi2

from xray.audit.named import SIDE_SWAPPED, Named
from xray.datasets.store import Store
from xray.structures.sides import mirrored

FEWEST = 20
"""Boxes that the usual place of a category needs."""
NEVER = 1e-6
"""Share of a normal distribution that lies as far off as a box that does not fit its own category does."""
OFTEN = 1e-3
"""The same of the opposite that it fits."""
ONE_PLACE = 0.85
"""Share of a category's boxes that its normal distribution must hold."""


def on_the_wrong_side(store: Store) -> list[Named]:
    """The boxes that fit the opposite of their category, and not their category, the clearest first."""
    opposites = {label: other for label, other in mirrored(store.categories).items() if label != other}
    sizes = np.array([(r.get("width") or np.nan, r.get("height") or np.nan) for r in store.records]).reshape(-1, 2)
    shares = store.boxes.boxes / np.tile(sizes[store.boxes.images], 2)
    sides = np.maximum(shares[:, 2:] - shares[:, :2], 1e-4)
    features = np.concatenate([(shares[:, :2] + shares[:, 2:]) / 2, np.log(sides)], axis=1)
    usable = np.isfinite(features).all(axis=1)
    usual = {}
    for label in opposites:
        rows = usable & (store.boxes.labels == label)
        if rows.sum() >= FEWEST:
            normal = _robust_normal(features[rows])
            if (_distances(features[rows], *normal) < chi2.isf(OFTEN, features.shape[1])).mean() >= ONE_PLACE:
                usual[label] = normal
    far, near = chi2.isf(NEVER, features.shape[1]), chi2.isf(OFTEN, features.shape[1])
    distances = {label: _distances(features, *normal) for label, normal in usual.items()}
    named = []
    for label, other in opposites.items():
        if label not in usual or other not in usual:
            continue
        name = store.categories[label]
        fits = (distances[label] > far) & (distances[other] < near)
        for box in np.flatnonzero(usable & (store.boxes.labels == label) & fits).tolist():
            detail = f"{name}, lies where {store.categories[other]} does"
            row, corners = int(store.boxes.images[box]), tuple(store.boxes.boxes[box].tolist())
            score = float(np.sqrt(distances[label][box]))
            named.append(Named(row, SIDE_SWAPPED, score, detail, box=corners, category=name))
    return sorted(named, key=lambda one: (-one.score, one.row))


def _robust_normal(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and inverse covariance of (M, D) features without what lies far off: rows are left out until it stays.

    A twentieth of the boxes, or less, may be of another category without a say in them.
    """
    centre = np.median(features, axis=0)
    spread = 1.4826 * np.median(np.abs(features - centre), axis=0) + 0.01
    kept = (np.abs(features - centre) < 4 * spread).all(axis=1)
    for _ in range(3):
        if kept.sum() < FEWEST // 2:
            break
        centre = features[kept].mean(axis=0)
        # Annotators' hands shake by a hundredth of the radiograph.
        covariance = np.cov(features[kept].T) + 1e-4 * np.eye(features.shape[1])
        inverse = np.linalg.inv(covariance)
        kept = _distances(features, centre, inverse) < chi2.isf(1e-3, features.shape[1])
    else:
        return centre, inverse
    return centre, np.diag(1 / spread**2)


def _distances(features: np.ndarray, centre: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """(M,) squared Mahalanobis distances."""
    apart = features - centre
    return np.asarray(np.einsum("nd,de,ne->n", apart, inverse, apart))
