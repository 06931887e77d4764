"""Small datasets of phantoms, written by hand, and faults planted into copies of them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xray.findings import CATEGORIES
from xray.phantoms.drawing import draw_phantom
from xray.radiographs.canvas import Canvas

N_FOLDS = 4


@dataclasses.dataclass
class Planted:
    """A dataset and what is wrong with it: copies (pairs of rows), and rows that are inverted, turned, or have a box of
    another category than they should."""

    path: Path
    copies: list[tuple[int, int]]
    inverted: list[int]
    turned: list[int]
    swapped: list[int]

    @property
    def rows(self) -> set[int]:
        return {*self.inverted, *self.turned, *self.swapped, *(row for pair in self.copies for row in pair)}


def write_dataset(folder: Path, pictures: list[np.ndarray], boxes: list[list[tuple[int, list[float]]]]) -> Path:
    """A dataset of pictures (height, width) uint8 and their boxes (category, corners), dealt into folds in turn."""
    size = max(max(picture.shape) for picture in pictures)
    folder.mkdir(parents=True)
    canvases, records, annotations = [], [], []
    for row, (picture, of_picture) in enumerate(zip(pictures, boxes, strict=True)):
        height, width = picture.shape
        canvases.append(Canvas(width, height, size).letterbox(picture))
        records.append(
            {
                "id": row, "file_name": f"{row}.png", "source_id": f"r{row}", "width": width, "height": height,
                "split": "train", "fold": row % N_FOLDS, "labels": sorted({label for label, _ in of_picture}),
            }
        )  # fmt: skip
        for label, (x1, y1, x2, y2) in of_picture:
            bbox = [x1, y1, x2 - x1, y2 - y1]
            annotations.append({"id": len(annotations) + 1, "image_id": row, "category_id": label, "bbox": bbox})
    np.save(folder / "images.npy", np.stack(canvases))
    content = {"images": records, "annotations": annotations, "categories": CATEGORIES}
    (folder / "annotations.json").write_text(json.dumps(content))
    conversion = {"source": "test", "parameters": {"image_size": size, "readers": "fuse"}}
    (folder / "conversion.json").write_text(json.dumps(conversion))
    return folder


def draw_pictures(n: int, size: int, seed: int = 0) -> tuple[list[np.ndarray], list[list[tuple[int, list[float]]]]]:
    """n phantoms with random findings, and their boxes."""
    random = np.random.default_rng(seed)
    pictures, boxes = [], []
    for number in range(n):
        width, height = int(size * random.uniform(0.8, 1)), size
        findings = tuple(random.choice(14, 3, replace=False).tolist()) if number % 3 == 0 else ()
        phantom = draw_phantom((seed, number), width, height, findings)
        pictures.append((phantom.pixels * 255).clip(0, 255).astype(np.uint8))
        boxes.append([(int(k) + 1, box.tolist()) for k, box in zip(phantom.class_ids, phantom.boxes, strict=True)])
    return pictures, boxes


def plant(
    folder: Path,
    pictures: list[np.ndarray],
    boxes: list[list[tuple[int, list[float]]]],
    n_copies: int = 0,
    n_inverted: int = 0,
    n_turned: int = 0,
    n_swapped: int = 0,
    n_categories: int = 14,
    seed: int = 0,
) -> Planted:
    """Writes a dataset with faults, no radiograph having two. Copies stand at its end, in the disguises in turn."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(pictures)).tolist()
    with_boxes = [row for row in order if boxes[row]]
    pictures, boxes = list(pictures), list(boxes)
    swapped = with_boxes[:n_swapped]
    for row in swapped:
        place = int(random.integers(len(boxes[row])))
        of_row = list(boxes[row])
        label, box = of_row[place]
        # Never one that the radiograph shows anyway.
        others = [k for k in range(1, n_categories + 1) if k not in {one for one, _ in of_row}] or [3 - label]
        of_row[place] = int(random.choice(others)), box
        boxes[row] = of_row
    rest = [row for row in order if row not in swapped]
    inverted, turned = rest[:n_inverted], rest[n_inverted : n_inverted + n_turned]
    copied = rest[n_inverted + n_turned : n_inverted + n_turned + n_copies]
    for row in inverted:
        pictures[row] = 255 - pictures[row]
    for row in turned:
        pictures[row] = np.ascontiguousarray(np.rot90(pictures[row], int(random.integers(1, 4))))
    pairs = []
    all_disguises = list(disguises(random).values())
    for number, row in enumerate(copied):
        pairs.append((row, len(pictures)))
        pictures.append(all_disguises[number % len(all_disguises)](pictures[row]))
        boxes.append([])
    return Planted(write_dataset(folder, pictures, boxes), pairs, inverted, turned, swapped)


def disguises(random: np.random.Generator) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Ways in which a copy differs from its original; not the ones that the product checks itself with."""

    def gamma(picture: np.ndarray) -> np.ndarray:
        return (255 * (picture / 255.0) ** random.choice([0.6, 1.6])).astype(np.uint8)

    def contrast(picture: np.ndarray) -> np.ndarray:
        return (picture * random.uniform(0.6, 0.9) + random.uniform(5, 30)).clip(0, 255).astype(np.uint8)

    def smaller(picture: np.ndarray) -> np.ndarray:
        return np.asarray(cv2.resize(picture, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_LINEAR))

    def cropped(picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape
        left, top, right, bottom = random.uniform(0.01, 0.05, 4)
        return np.ascontiguousarray(
            picture[int(top * height) : int((1 - bottom) * height), int(left * width) : int((1 - right) * width)]
        )

    def padded(picture: np.ndarray) -> np.ndarray:
        side = max(picture.shape)
        above, left = side - picture.shape[0], (side - picture.shape[1]) // 2
        return np.pad(picture, ((above, 0), (left, side - picture.shape[1] - left)))

    def compressed(picture: np.ndarray) -> np.ndarray:
        _, coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 35])
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE))

    def noisy(picture: np.ndarray) -> np.ndarray:
        return (picture + random.normal(0, 4, picture.shape)).clip(0, 255).astype(np.uint8)

    def tilted(picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), random.uniform(-3, 3), 1.0)
        return np.asarray(cv2.warpAffine(picture, turn, (width, height)))

    return {
        "same": np.copy,
        "gamma": gamma,
        "contrast": contrast,
        "smaller": smaller,
        "cropped": cropped,
        "padded": padded,
        "compressed": compressed,
        "noisy": noisy,
        "tilted": tilted,
        "mirrored": lambda picture: np.ascontiguousarray(picture[:, ::-1]),
        "several": lambda picture: compressed(contrast(cropped(smaller(picture[:, ::-1])))),
    }


def predict(planted: Planted, boxes: list[list[tuple[int, list[float]]]], path: Path, seed: int = 0) -> Path:
    """Predictions of a good model, which saw the true boxes: each a little off, with a score, and faint others."""
    random = np.random.default_rng(seed)
    records = json.loads((planted.path / "annotations.json").read_text())["images"]
    rows: list[dict[str, Any]] = []
    for record, of_picture in zip(records, boxes, strict=False):
        for label, box in of_picture:
            sides = np.tile(np.subtract(box[2:], box[:2]), 2)
            x1, y1, x2, y2 = (np.array(box) + random.normal(0, 0.03, 4) * sides).tolist()
            found = {"image_id": record["source_id"], "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            rows.append(found | {"score": float(random.beta(8, 2))})
        for _ in range(3):
            x, y = random.uniform(0, 0.7, 2) * (record["width"], record["height"])
            bbox = [x, y, 0.2 * record["width"], 0.2 * record["height"]]
            found = {"image_id": record["source_id"], "category_id": int(random.integers(1, 15)), "bbox": bbox}
            rows.append(found | {"score": float(random.beta(1, 20))})
    path.write_text(json.dumps(rows))
    return path
