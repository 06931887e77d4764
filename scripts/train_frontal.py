"""Trains the network of xray/radiographs/frontal.py, fits its thresholds and prints its errors on held-out patients.

    python scripts/train_frontal.py --chests ../shared/data/chest-open     (some 20 minutes on one core)

Five networks are trained, each without a fifth of the patients, phantoms and origins of other pictures; they tell the
errors and the thresholds, on pictures that they have not seen. A sixth one, trained with all of them, is kept.
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from frontal_pictures import CHEST, Picture, drawn_others, phantom_chests, real_chests, test_files
from small_network import SmallNetwork
from torch import nn

from xray.radiographs import frontal

FOLDS = 5
NONE = 8
"""The class of what is no chest, behind those of (quarter turns, negative)."""
VIEWS = ((0, 0), (1, 0), (2, 0), (3, 0), (0, 1))
"""(quarter turns, negative) that held-out chests are shown in."""


def main() -> None:
    """Trains, tests, writes frontal.npz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chests", type=Path, required=True)
    parser.add_argument("--phantoms", type=int, default=300)
    parser.add_argument("--others", type=int, default=800)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-path", type=Path, default=frontal.WEIGHTS)
    parser.add_argument("--rows", type=Path, default=None, help="JSON of what held-out pictures got")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    pictures = [
        *real_chests(args.chests), *phantom_chests(args.phantoms, args.seed),
        *drawn_others(args.others, args.seed), *test_files(),
    ]  # fmt: skip
    groups = sorted({picture.group for picture in pictures})
    order = np.random.default_rng(args.seed).permutation(len(groups))
    fold_of = {groups[place]: number % FOLDS for number, place in enumerate(order)}
    rows = []
    for fold in range(FOLDS):
        values = train([p for p in pictures if fold_of[p.group] != fold], args.steps, args.seed)
        rows += test([p for p in pictures if fold_of[p.group] == fold], values, args.seed)
        print(f"fold {fold + 1} of {FOLDS}", file=sys.stderr, flush=True)
    thresholds = fit(rows)
    report(rows, thresholds)
    if args.rows:
        args.rows.write_text(json.dumps(rows))
    values = train(pictures, args.steps, args.seed)
    stored = {name: value.astype(np.float16) for name, value in values.items()}
    np.savez_compressed(args.save_path, thresholds=np.array(thresholds, np.float32), **stored)
    print(f"{args.save_path}: {args.save_path.stat().st_size} bytes, {sum(v.size for v in values.values())} weights")


class Network(SmallNetwork):
    """The network that knows a frontal chest."""

    def __init__(self) -> None:
        super().__init__((1, 12, 24, 32, 48), (5, 3, 3, 3), 16, 32)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(B, S, S) thumbnails → (B, 9), by (quarter turns, negative), then none of these."""
        turns = torch.stack([torch.rot90(x, turn, (1, 2)) for turn in frontal.TURNS], 1)
        z = self(turns.flatten(0, 1)[:, None]).reshape(len(x), NONE)
        return torch.cat([z, torch.zeros(len(x), 1)], 1)


def train(pictures: list[Picture], steps: int, seed: int, batch: int = 48) -> dict[str, np.ndarray]:
    """The weights of a network that has seen these pictures alone."""
    rng = np.random.default_rng([seed, 3])
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    by_source: dict[str, list[Picture]] = {}
    for picture in pictures:
        by_source.setdefault("real" if picture.source == "real" else picture.kind + picture.source, []).append(picture)
    names = sorted(by_source)
    share = np.array([{"real": 6.0, "chestphantom": 4.0}.get(name, 0.9) for name in names])
    loss = nn.CrossEntropyLoss(label_smoothing=0.005)
    for _ in range(steps):
        examples = []
        for source in rng.choice(len(names), batch, p=share / share.sum()):
            of_source = by_source[names[source]]
            examples.append(example(of_source[rng.integers(len(of_source))], pictures, rng))
        x = torch.from_numpy(np.stack([pixels for pixels, _ in examples]))
        optimizer.zero_grad()
        loss(model.logits(x), torch.tensor([label for _, label in examples])).backward()
        optimizer.step()
        schedule.step()
    return model.values()


def example(picture: Picture, pictures: list[Picture], rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A thumbnail of a picture, changed as archives change them, and its class."""
    pixels, is_chest = picture.pixels, picture.kind == CHEST
    if is_chest and rng.random() < 0.12:
        pixels, is_chest = part(pixels, rng), False
    elif rng.random() < 0.03:
        other = pictures[rng.integers(len(pictures))].pixels
        pixels, is_chest = beside(pixels, other), False
    pixels = warped(pixels, rng, 1.0 if is_chest else 1.6)
    pixels = marked(toned(bordered(pixels, rng), rng), rng)
    turn, negative = int(rng.integers(4)), int(rng.random() < 0.35)
    if negative:
        pixels = 255 - pixels
    # What has to be turned `turn` times to be upright.
    pixels = np.ascontiguousarray(np.rot90(pixels, -turn))
    return frontal.thumbnail(pixels), 2 * turn + negative if is_chest else NONE


def part(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A third of a picture or less: no whole chest."""
    height, width = pixels.shape
    share = rng.uniform(0.08, 0.33)
    tall = float(np.clip(np.sqrt(share) * np.exp(rng.normal(0, 0.3)), share, 1))
    rows, columns = max(8, round(height * tall)), max(8, round(width * share / tall))
    top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
    return pixels[top : top + rows, left : left + columns]


def beside(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Two pictures on one sheet."""
    return np.hstack([cv2.resize(picture, (128, 192), interpolation=cv2.INTER_AREA) for picture in (one, other)])


def warped(pixels: np.ndarray, rng: np.random.Generator, much: float) -> np.ndarray:
    """Tilted, stretched, cut and mirrored."""
    height, width = pixels.shape
    size = (round(192 * np.exp(rng.normal(0, 0.12))), 192)
    angle = np.deg2rad(rng.normal(0, 5) * much)
    zoom = np.exp(rng.normal(0.04, 0.1) * much)
    stretch = np.exp(rng.normal(0, 0.08) * much)
    shear = rng.normal(0, 0.04) * much
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = np.diag([size[0] / width * zoom * stretch, size[1] / height * zoom / stretch])
    matrix = turn @ np.array([[1, shear], [0, 1]]) @ scale
    if rng.random() < 0.5:
        matrix[:, 0] *= -1
    middle = np.array(size) / 2 + rng.normal(0, 0.03, 2) * much * size
    shift = middle - matrix @ [width / 2, height / 2]
    border = cv2.BORDER_CONSTANT if rng.random() < 0.6 else cv2.BORDER_REPLICATE
    return cv2.warpAffine(
        pixels, np.column_stack([matrix, shift]), size, flags=cv2.INTER_LINEAR, borderMode=border, borderValue=0
    )


def bordered(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Black, white or grey borders now and then, of each side another."""
    if rng.random() < 0.6:
        return pixels
    height, width = pixels.shape
    sides = (rng.uniform(0, 0.3, 4) * (rng.random(4) < 0.6) * [height, height, width, width]).astype(int).tolist()
    grey = int(rng.choice([0, 0, 0, 255, rng.integers(0, 256)]))
    return cv2.copyMakeBorder(pixels, *sides, cv2.BORDER_CONSTANT, value=grey)


def toned(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uneven exposure, blur, noise, cut off whites and blacks, low contrast."""
    values = pixels.astype(np.float32)
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    if rng.random() < 0.5:
        values += rng.normal(0, 25) * (x / pixels.shape[1] - 0.5) + rng.normal(0, 30) * (y / pixels.shape[0] - 0.5)
    if rng.random() < 0.3:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.5, 2.5))
    if rng.random() < 0.3:
        low, high = np.percentile(values, [rng.uniform(0, 15), rng.uniform(75, 100)])
        values = (values - low) / max(float(high - low), 1) * 255
    if rng.random() < 0.3:
        values += rng.standard_normal(values.shape) * rng.uniform(2, 12)
    if rng.random() < 0.3:
        values = 128 + (values - 128) * rng.uniform(0.1, 0.5)
    return values.clip(0, 255).astype(np.uint8)


def marked(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Letters burnt in, devices, and one lung that shows white, now and then."""
    if rng.random() < 0.55:
        return pixels
    pixels = pixels.copy()
    height, width = pixels.shape
    for _ in range(int(rng.integers(1, 5))):
        place = (int(rng.uniform(-0.05, 0.9) * width), int(rng.uniform(0.02, 1) * height))
        text = "".join(rng.choice(list("RLAPSUPINE 0123456789"), int(rng.integers(1, 12))))
        size, grey = rng.uniform(0.2, 0.7), int(rng.choice([255, 255, 0]))
        cv2.putText(pixels, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, grey, 1, cv2.LINE_AA)
    if rng.random() < 0.25:
        corner = rng.uniform(0, 0.85, 2) * [width, height]
        size = rng.uniform(0.03, 0.25, 2) * [width, height]
        ends = [tuple(np.round(p).astype(int).tolist()) for p in (corner, corner + size)]
        cv2.rectangle(pixels, *ends, int(rng.choice([0, 255, 200])), -1)
    if rng.random() < 0.25:
        line = (rng.uniform(0, 1, (4, 2)) * [width, height]).astype(np.int32)
        cv2.polylines(pixels, [line], False, 255, int(rng.integers(1, 4)), cv2.LINE_AA)
    if rng.random() < 0.2:
        x, y = rng.choice((0.3, 0.7)) * width, rng.uniform(0.3, 0.7) * height
        layer = np.zeros(pixels.shape, np.float32)
        cv2.ellipse(layer, ((x, y), (0.3 * width, rng.uniform(0.2, 0.6) * height), 0), 255, -1)
        share = cv2.GaussianBlur(layer, (0, 0), 6) / 255 * rng.uniform(0.4, 1)
        pixels = (pixels + (210 - pixels.astype(np.float32)).clip(0) * share).clip(0, 255).astype(np.uint8)
    return pixels


def test(pictures: list[Picture], values: dict[str, np.ndarray], seed: int) -> list[dict[str, object]]:
    """What a network says of pictures it has not seen, as they are, turned, as negatives; and of parts of chests."""
    rows: list[dict[str, object]] = []
    rng = np.random.default_rng([seed, 9])

    def add(pixels: np.ndarray, picture: Picture, kind: str, source: str, turn: int = 0, negative: int = 0) -> None:
        shown = 255 - pixels if negative else pixels
        small = frontal.thumbnail(np.ascontiguousarray(np.rot90(shown, -turn)))
        turns = np.stack([np.rot90(small, k) for k in frontal.TURNS])[:, None]
        view = frontal.view_of(frontal.network(turns, values))
        rows.append({
            "source": source, "group": picture.group, "kind": kind, "turn": turn, "negative": negative,
            "frontal": view.frontal, "turned": view.turned, "says": view.turn, "inverted": view.inverted,
        })  # fmt: skip

    for picture in pictures:
        for turn, negative in VIEWS if picture.kind == CHEST else VIEWS[:1]:
            add(picture.pixels, picture, picture.kind, picture.source, turn, negative)
        if picture.source == "real":
            add(part(picture.pixels, rng), picture, "other", "part of a chest")
    return rows


def fit(rows: list[dict[str, object]]) -> list[float]:
    """[surely none, surely one, surely turned, surely a negative]: the four thresholds of `image_check`.

    The first is halfway, in log odds, between a half and the least that an upright real radiograph got; the others are
    as far beyond the worst of the upright real radiographs, but at least 0.5, 0.9 and 0.9.
    """
    upright = [row for row in rows if row["source"] == "real" and not row["turn"] and not row["negative"]]
    p = np.sort([float(str(row["frontal"])) for row in upright])
    turned = max(float(str(row["turned"])) for row in upright)
    inverted = max(float(str(row["inverted"])) for row in upright)
    return [float(min(0.2, p[0] / 2)), 0.5, max(0.9, (1 + turned) / 2), max(0.9, (1 + inverted) / 2)]


def report(rows: list[dict[str, object]], thresholds: list[float]) -> None:
    """Prints the errors on held-out pictures."""
    none, one, turned_from, inverted_from = thresholds
    print(f"no chest below {none:.4f}, one from {one:g}; turned from {turned_from:.4f}, negative {inverted_from:.4f}")
    table: dict[tuple[str, str], list[dict[str, object]]] = {}
    for row in rows:
        how = "negative" if row["negative"] else f"turned by {90 * int(str(row['turn']))}" if row["turn"] else "upright"
        table.setdefault((str(row["source"]), how if row["kind"] == CHEST else ""), []).append(row)
    head = ("frontal", "unsure", "none", "turn right", "negative right")
    print(f"{'source':22s} {'shown':16s} {'n':>5s} {'groups':>6s}" + "".join(f" {name:>14s}" for name in head))
    for (source, how), of_kind in sorted(table.items()):
        p = np.array([float(str(row["frontal"])) for row in of_kind])
        says_turn = np.array([row["says"] if float(str(row["turned"])) >= turned_from else 0 for row in of_kind])
        says_negative = np.array([float(str(row["inverted"])) >= inverted_from for row in of_kind])
        turns = np.array([row["turn"] for row in of_kind])
        negatives = np.array([bool(row["negative"]) for row in of_kind])
        values = [np.mean(p >= one), np.mean((p < one) & (p >= none)), np.mean(p < none)]
        if how:
            values += [np.mean(says_turn == turns), np.mean(says_negative == negatives)]
        n_groups = len({row["group"] for row in of_kind})
        print(f"{source:22s} {how:16s} {len(p):5d} {n_groups:6d}" + "".join(f" {value:14.4f}" for value in values))


if __name__ == "__main__":
    main()
