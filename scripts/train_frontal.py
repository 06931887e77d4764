"""Trains the network of xray/radiographs/frontal.py, fits its thresholds and prints its errors on held-out patients.

    python scripts/train_frontal.py --chests ../shared/data/chest-open     (some 20 minutes on one core)

Four networks are trained, each without a quarter of the patients, phantoms and origins of other pictures; they tell the
errors and the thresholds, on pictures that they have not seen. A fifth one, trained with all of them, is kept.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import torch
from frontal_changes import example, part
from frontal_pictures import CHEST, Picture, drawn_others, phantom_chests, real_chests, test_files
from small_network import SmallNetwork
from torch import nn

from xray.radiographs import frontal

FOLDS = 4
NONE = 8
"""The class of what is no chest, behind those of (quarter turns, negative)."""
SHARES = {
    "real": 8.0, "chestphantom": 4.0, "otherdrawn chest slice": 1.4, "otherdrawn hand": 1.4,
    "otherdrawn lateral chest": 1.6, "otherdrawn other slice": 1.4,
}  # fmt: skip
"""How often pictures of a kind are drawn in training, beside 0.7 for those of any other kind."""
VIEWS = ((0, 0), (1, 0), (2, 0), (3, 0), (0, 1))
"""(quarter turns, negative) that held-out chests are shown in."""


def main() -> None:
    """Trains, tests, writes frontal.npz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chests", type=Path, required=True)
    parser.add_argument("--phantoms", type=int, default=300)
    parser.add_argument("--others", type=int, default=1600)
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--examples", type=int, default=36000)
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
    pool = changed_pictures(pictures, args.examples, args.seed)
    kept = train(pool, np.arange(args.examples), args.steps, args.seed)
    rows = []
    for fold in range(FOLDS):
        held_out = np.array([any(fold_of[group] == fold for group in groups) for groups in pool.groups])
        values = train(pool, np.flatnonzero(~held_out), args.steps, args.seed)
        rows += test([p for p in pictures if fold_of[p.group] == fold], values, args.seed)
        print(f"fold {fold + 1} of {FOLDS}", file=sys.stderr, flush=True)
    thresholds = fit(rows)
    report(rows, thresholds)
    if args.rows:
        args.rows.write_text(json.dumps(rows))
    stored = {name: value.astype(np.float16) for name, value in kept.items()}
    np.savez_compressed(args.save_path, thresholds=np.array(thresholds, np.float32), **stored)
    print(f"{args.save_path}: {args.save_path.stat().st_size} bytes, {sum(v.size for v in kept.values())} weights")


class Network(SmallNetwork):
    """The network that knows a frontal chest."""

    def __init__(self) -> None:
        super().__init__((1, 12, 24, 32, 48), (5, 3, 3, 3), 16, 32)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(B, S, S) thumbnails → (B, 9), by (quarter turns, negative), then none of these."""
        turns = torch.stack([torch.rot90(x, turn, (1, 2)) for turn in frontal.TURNS], 1)
        z = self(turns.flatten(0, 1)[:, None]).reshape(len(x), NONE)
        return torch.cat([z, torch.zeros(len(x), 1)], 1)


@dataclasses.dataclass(frozen=True)
class Pool:
    """Thumbnails of changed pictures, upright and no negatives: how they are turned does not change them otherwise.

    thumbnails: (N, S, S) float16. is_chest: (N,) bool. groups: of each, the groups that its pixels come from. sources:
    of each, the name by which it is drawn in training.
    """

    thumbnails: np.ndarray
    is_chest: np.ndarray
    groups: list[frozenset[str]]
    sources: np.ndarray


def changed_pictures(pictures: list[Picture], n: int, seed: int) -> Pool:
    """n examples, real radiographs and phantoms more often than each kind of other pictures."""
    rng = np.random.default_rng([seed, 3])
    by_source: dict[str, list[Picture]] = {}
    for picture in pictures:
        by_source.setdefault("real" if picture.source == "real" else picture.kind + picture.source, []).append(picture)
    names = sorted(by_source)
    share = np.array([SHARES.get(name, 0.7) for name in names])
    chosen = rng.choice(len(names), n, p=share / share.sum())
    thumbnails = np.zeros((n, frontal.SIDE, frontal.SIDE), np.float16)
    is_chest, groups = np.zeros(n, bool), []
    for number, source in enumerate(chosen):
        of_source = by_source[names[source]]
        thumbnails[number], is_chest[number], of = example(of_source[rng.integers(len(of_source))], pictures, rng)
        groups.append(of)
    return Pool(thumbnails, is_chest, groups, chosen)


def train(pool: Pool, rows: np.ndarray, steps: int, seed: int, batch: int = 48) -> dict[str, np.ndarray]:
    """The weights of a network that has seen these rows of a pool alone."""
    rng = np.random.default_rng([seed, 4])
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    loss = nn.CrossEntropyLoss(label_smoothing=0.005)
    for _ in range(steps):
        pictures, labels = [], []
        for row in rng.choice(rows, batch):
            turn, negative = int(rng.integers(4)), int(rng.random() < 0.35)
            picture = pool.thumbnails[row].astype(np.float32)
            # What has to be turned `turn` times to be upright. The ranks of a negative are the negative ranks.
            pictures.append(np.rot90(-picture if negative else picture, -turn))
            labels.append(2 * turn + negative if pool.is_chest[row] else NONE)
        optimizer.zero_grad()
        loss(model.logits(torch.from_numpy(np.stack(pictures))), torch.tensor(labels)).backward()
        optimizer.step()
        schedule.step()
    return model.values()


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
