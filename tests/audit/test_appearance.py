"""The typical radiograph slid over others, against template matching of one radiograph and one turn at a time."""

import cv2
import numpy as np
import pytest

from xray.audit.appearance import BLOCK, GRID, SCALES, fit


def matched(part: np.ndarray, model: np.ndarray) -> np.ndarray:
    """(4, 2) by `cv2.matchTemplate` over the turned radiograph."""
    fits = np.zeros((4, 2))
    for turn in range(4):
        for side in SCALES:
            reduced = cv2.resize(model, (side, side), interpolation=cv2.INTER_AREA)[2:-2, 2:-2]
            turned, template = (np.ascontiguousarray(one) for one in (np.rot90(part, turn), reduced))
            found = cv2.matchTemplate(turned, template, cv2.TM_CCOEFF_NORMED)
            fits[turn] = np.maximum(fits[turn], (found.max(), -found.min()))
    return fits


def test_the_fit_is_that_of_template_matching():
    random = np.random.default_rng(0)
    # More than one block, of smooth fields and of ranks' size.
    fields = random.normal(size=(2, BLOCK + 5, GRID, GRID)).astype(np.float32)
    parts = [np.stack([cv2.GaussianBlur(field, (0, 0), 3) for field in kind]) for kind in fields]
    parts[1] = 500 + 3000 * parts[1]
    models = [parts[0][3], 40 * np.rot90(parts[1][7]) + 5]
    found = fit(parts, models)
    assert found.shape == (BLOCK + 5, 4, 2)
    for number in (0, 3, 7, BLOCK, BLOCK + 4):
        expected = np.mean([matched(part[number], model) for part, model in zip(parts, models, strict=True)], axis=0)
        assert found[number] == pytest.approx(expected, abs=1e-4)
    # The second model is the eighth radiograph turned by a quarter.
    assert found[7, 1, 0] > 0.5


def test_what_is_flat_fits_nothing():
    model = np.random.default_rng(0).normal(size=(GRID, GRID)).astype(np.float32)
    flat = np.full((2, GRID, GRID), 900, dtype=np.float32)
    assert fit([flat], [model]).tolist() == np.zeros((2, 4, 2)).tolist()
    # An edge at one side: windows beside it are flat, the others are not.
    flat[1, :, :2] = 0
    assert np.isfinite(fit([flat], [model])).all()
