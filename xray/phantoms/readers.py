"""How radiologists disagree: the boxes three readers draw around the same true findings."""

import numpy as np

from xray.findings import FINDINGS, NO_FINDING, NO_FINDING_NAME

N_READERS = 17
READERS_PER_IMAGE = 3
FALSE_FINDING_RATE = 0.01
"""How often a reader marks something on a radiograph without findings."""

# In VinBigData a few readers read most of the radiographs.
_WORKLOAD = np.array([1, 1, 1, 1, 1, 1, 1, 6, 6, 6, 2, 2, 2, 2, 2, 2, 2], dtype=np.float64)

# Share of the true findings that an average reader overlooks: large shadows are hard to miss, faint and small ones
# are not.
_MISSES = {
    "Aortic enlargement": 0.10,
    "Atelectasis": 0.25,
    "Calcification": 0.30,
    "Cardiomegaly": 0.06,
    "Consolidation": 0.10,
    "ILD": 0.30,
    "Infiltration": 0.25,
    "Lung Opacity": 0.20,
    "Nodule/Mass": 0.25,
    "Other lesion": 0.25,
    "Pleural effusion": 0.12,
    "Pleural thickening": 0.28,
    "Pneumothorax": 0.10,
    "Pulmonary fibrosis": 0.25,
}

# What a finding may be called instead.
_NEIGHBOURS = {
    "Consolidation": ("Infiltration", "Lung Opacity"),
    "Infiltration": ("Consolidation", "Lung Opacity"),
    "Lung Opacity": ("Infiltration", "Consolidation"),
    "ILD": ("Pulmonary fibrosis",),
    "Pulmonary fibrosis": ("ILD", "Infiltration"),
    "Pleural effusion": ("Pleural thickening",),
    "Pleural thickening": ("Pleural effusion",),
    "Atelectasis": ("Lung Opacity", "Consolidation"),
    "Nodule/Mass": ("Other lesion", "Lung Opacity"),
    "Other lesion": ("Nodule/Mass",),
    "Calcification": ("Nodule/Mass",),
}
_CONFUSION = 0.10

_FALSE_FINDINGS = ("Aortic enlargement", "Pulmonary fibrosis", "Pleural thickening", "Nodule/Mass", "Lung Opacity")

Row = tuple[str, int, str, int | None, int | None, int | None, int | None]
"""class_name, class_id, rad_id, x_min, y_min, x_max, y_max: a row of train.csv without its image_id."""


def read_by_three(
    rng: np.random.Generator, boxes: np.ndarray, class_ids: np.ndarray, width: int, height: int
) -> list[Row]:
    """What three different readers of 17 mark on one radiograph.

    boxes: (N, 4) float64 x1, y1, x2, y2 of the true findings, in pixels. class_ids: (N,), 0–13.
    Their boxes differ by a few per cent of a side, findings are missed or called by a neighbouring name, and now and
    then something is seen where nothing is. A reader who marks nothing gives one row of class 14 with empty boxes.
    """
    readers = rng.choice(N_READERS, READERS_PER_IMAGE, replace=False, p=_WORKLOAD / _WORKLOAD.sum())
    rows: list[Row] = []
    for reader in readers:
        rad_id = f"R{reader + 1}"
        # The same reader is as careful on every radiograph: the number itself sets how.
        care = 0.75 + 0.5 * ((reader * 7) % N_READERS) / (N_READERS - 1)
        marked: list[Row] = []
        for box, class_id in zip(boxes, class_ids, strict=True):
            name = FINDINGS[int(class_id)]
            if rng.random() < _MISSES[name] * care:
                continue
            if name in _NEIGHBOURS and rng.random() < _CONFUSION * care:
                name = str(rng.choice(_NEIGHBOURS[name]))
            marked.append(_row(name, rad_id, _redrawn(rng, box, width, height, care)))
        false_rate = FALSE_FINDING_RATE * (1 if len(boxes) == 0 else 4)
        if rng.random() < false_rate * care:
            name = str(rng.choice(_FALSE_FINDINGS))
            side = rng.uniform(0.06, 0.16, 2) * [width, height]
            corner = rng.uniform([0.15, 0.2], [0.7, 0.6]) * [width, height]
            box = np.concatenate([corner, corner + side])
            marked.append(_row(name, rad_id, _redrawn(rng, box, width, height, care)))
        rows += marked or [(NO_FINDING_NAME, NO_FINDING, rad_id, None, None, None, None)]
    return rows


def _row(name: str, rad_id: str, box: list[int]) -> Row:
    x1, y1, x2, y2 = box
    return name, FINDINGS.index(name), rad_id, x1, y1, x2, y2


def _redrawn(rng: np.random.Generator, box: np.ndarray, width: int, height: int, care: float) -> list[int]:
    """The box as one reader draws it: whole pixels, inside the radiograph, at least 2 pixels wide and high."""
    sides = np.array([box[2] - box[0], box[3] - box[1]])
    # People err by a share of the side, and by some pixels however small the finding is.
    error = np.tile(0.045 * care * sides + 0.0015 * max(width, height), 2)
    x1, y1, x2, y2 = box + rng.normal(0, 1, 4) * error
    margin = 0.02 * sides  # rather a little too large than too small
    x1, x2 = np.clip([x1 - margin[0], x2 + margin[0]], 0, width)
    y1, y2 = np.clip([y1 - margin[1], y2 + margin[1]], 0, height)
    x1, y1 = min(round(x1), width - 2), min(round(y1), height - 2)
    return [x1, y1, max(round(x2), x1 + 2), max(round(y2), y1 + 2)]
