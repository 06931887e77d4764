"""Trains the network of xray/radiographs/side_marker.py, sets its threshold and prints its errors on held-out patients.

    python scripts/train_side_marker.py --table radiographs.csv     (some 20 minutes on one core)

The table is that of scripts/side_marker_pictures.py. Five networks are trained, each without a fifth of the patients;
they tell the errors and the threshold, on radiographs that they have not seen, each as it is and mirrored. A sixth one,
trained with all of them, is kept.
"""

import argparse
import csv
import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch
from side_marker_pictures import NONE, STORED, UNCLEAR, Piece, drawn_pieces, read_table, real_pieces
from small_network import SmallNetwork
from torch import nn

from xray.radiographs import side_marker
from xray.radiographs.side_marker import SIDE

FOLDS = 5
WIDTHS = (1, 8, 16, 24)
LEAST_THRESHOLD = 0.9
SHARES = (14, 28, 32, 22)
"""Of a batch: real letters, drawn letters, other real pieces, other drawn ones."""
NAMES = ("R", "L", "mirrored R", "mirrored L", "none")


def main() -> None:
    """Trains, tests, writes side_marker.npz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--drawn", type=int, default=2, help="times that letters are drawn into each radiograph")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-path", type=Path, default=side_marker.WEIGHTS)
    parser.add_argument("--pieces", type=Path, default=None, help="where found pieces are kept for another time")
    parser.add_argument("--scores", type=Path, default=None, help="CSV of what each held-out real piece got")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    pieces = kept(args.pieces, args.table, args.drawn, args.seed)
    patients = sorted({piece.patient for piece in pieces})
    order = np.random.default_rng(args.seed).permutation(len(patients))
    fold_of = {patients[place]: number % FOLDS for number, place in enumerate(order)}
    shares = np.zeros((len(pieces), 4), np.float32)
    for fold in range(FOLDS):
        held = np.array([fold_of[piece.patient] == fold for piece in pieces])
        values = train([piece for piece, out in zip(pieces, held, strict=True) if not out], args.steps, args.seed)
        shares[held] = tested([piece for piece, out in zip(pieces, held, strict=True) if out], values)
        print(f"fold {fold + 1} of {FOLDS}", file=sys.stderr, flush=True)
    threshold = fitted(pieces, shares)
    report(pieces, shares, threshold)
    report_radiographs(pieces, shares, threshold)
    if args.scores:
        write_scores(args.scores, pieces, shares)
    values = train(pieces, args.steps, args.seed)
    stored = {name: value.astype(np.float16) for name, value in values.items()}
    np.savez_compressed(args.save_path, threshold=np.float32(threshold), **stored)
    print(f"{args.save_path}: {args.save_path.stat().st_size} bytes, {sum(v.size for v in values.values())} weights")


def kept(path: Path | None, table: Path, drawn: int, seed: int) -> list[Piece]:
    """As `collected`, from a file that an earlier run wrote, where there is one."""
    if path and path.exists():
        with np.load(path, allow_pickle=False) as stored:
            columns = [stored[name] for name in ("pixels", "kind", "patient", "source", "path", "place")]
        return [
            Piece(pixels, int(kind), str(patient), str(source), str(of), (float(place[0]), float(place[1])))
            for pixels, kind, patient, source, of, place in zip(*columns, strict=True)
        ]
    pieces = collected(table, drawn, seed)
    if path:
        names = [field.name for field in dataclasses.fields(Piece)]
        np.savez(path, **{name: np.array([getattr(piece, name) for piece in pieces]) for name in names})
    return pieces


def collected(table: Path, drawn: int, seed: int) -> list[Piece]:
    """The pieces of all radiographs, as they are and with letters drawn into them."""
    pieces, n_letters, n_found = [], 0, 0
    rows = read_table(table)
    for number, row in enumerate(rows):
        rng = np.random.default_rng([seed, number])
        pixels = row.read()
        pieces += real_pieces(row, pixels)
        for _ in range(drawn):
            found, n = drawn_pieces(row, pixels, rng)
            pieces += found
            n_letters, n_found = n_letters + n, n_found + sum(0 <= piece.kind < NONE for piece in found)
        if number % 100 == 0:
            print(f"radiograph {number} of {len(rows)}", file=sys.stderr, flush=True)
    seen = [marker for row in rows for marker in row.markers if marker[0] >= 0]
    real = sum(0 <= piece.kind < NONE for piece in pieces if piece.source == "real")
    print(f"{len(rows)} radiographs; {len(seen)} markers seen, {real} found")
    print(f"{n_letters} letters drawn, {n_found} found; {len(pieces)} pieces")
    return pieces


class Network(SmallNetwork):
    """The network that knows the letters R and L."""

    def __init__(self) -> None:
        super().__init__(WIDTHS, (5, 3, 3), 16, 24)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(B, S, S) pieces → (B, 5), by LETTERS, then none of these."""
        z = self(torch.cat([x, x.flip(2)])[:, None])
        return torch.cat([z[: len(x)], z[len(x) :], torch.zeros(len(x), 1)], 1)


def train(pieces: list[Piece], steps: int, seed: int) -> dict[str, np.ndarray]:
    """The weights of a network that has seen these pieces alone."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.from_numpy(np.stack([piece.pixels for piece in pieces]))
    kinds = torch.tensor([piece.kind for piece in pieces])
    is_real = torch.tensor([piece.source == "real" for piece in pieces])
    chosen = [
        (kinds >= 0) & (kinds < NONE) & is_real, (kinds >= 0) & (kinds < NONE) & ~is_real,
        (kinds == NONE) & is_real, (kinds == NONE) & ~is_real,
    ]  # fmt: skip
    groups = [(torch.nonzero(of_kind).flatten(), n) for of_kind, n in zip(chosen, SHARES, strict=True)]
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    loss = nn.CrossEntropyLoss()
    for _ in range(steps):
        places = torch.cat([
            group[torch.randint(len(group), (n,), generator=generator)] for group, n in groups if len(group)
        ])  # fmt: skip
        x = varied(pixels[places].float(), generator)
        optimizer.zero_grad()
        loss(model.logits(x), kinds[places]).backward()
        optimizer.step()
        schedule.step()
    return model.eval().values()


def varied(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(B, STORED, STORED) → (B, SIDE, SIDE) standardized, shifted, turned, scaled, toned and with noise."""
    n = len(x)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    angle, across, down = 0.06 * normal(n), torch.exp(0.05 * normal(n)), torch.exp(0.05 * normal(n))
    half = SIDE / STORED
    cos, sin = angle.cos() * half, angle.sin() * half
    shift = 0.9 / STORED * 2 * normal(n, 2)
    theta = torch.stack([
        torch.stack([cos * across, -sin, shift[:, 0]], 1), torch.stack([sin, cos * down, shift[:, 1]], 1),
    ], 1)  # fmt: skip
    grid = nn.functional.affine_grid(theta, [n, 1, SIDE, SIDE], align_corners=False)
    x = nn.functional.grid_sample(x[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    x = x / 255
    x = x ** torch.exp(0.25 * normal(n))[:, None, None] + 0.02 * normal(n, 1, 1).abs() * normal(*x.shape)
    edge = SIDE // 5
    middle = x[:, edge:-edge, edge:-edge]
    mean, deviation = middle.mean((1, 2), keepdim=True), middle.std((1, 2), keepdim=True)
    return ((x - mean) / deviation.clamp(min=1e-5)).clamp(-4, 4)


def tested(pieces: list[Piece], values: dict[str, np.ndarray]) -> np.ndarray:
    """(N, 4), what a network says of pieces that it has not seen."""
    edge = (STORED - SIDE) // 2
    squares = np.stack([piece.pixels[edge:-edge, edge:-edge] for piece in pieces]).astype(np.float32)
    return np.concatenate(
        [side_marker.probabilities(part, values) for part in np.array_split(squares, 50) if len(part)]
    )


def of_letters(shares: np.ndarray) -> np.ndarray:
    """(N, 4) → (N, 2): R and L, mirrored or not."""
    return np.stack([shares[:, 0] + shares[:, 2], shares[:, 1] + shares[:, 3]], axis=1)


def fitted(pieces: list[Piece], shares: np.ndarray) -> float:
    """The threshold: half as probable to be wrong as the surest wrong letter of a real piece, and LEAST at least.

    Mirrored radiographs get the mirrored answers, so that one number holds for both.
    """
    wrong = [
        max(share for letter, share in enumerate(of_piece.tolist()) if piece.kind not in (letter, letter + 2))
        for piece, of_piece in zip(pieces, of_letters(shares), strict=True)
        if piece.source == "real" and piece.kind != UNCLEAR
    ]
    print("surest wrong letters of real pieces:", " ".join(f"{share:.5f}" for share in sorted(wrong)[-10:]))
    return max(LEAST_THRESHOLD, (1 + max(wrong)) / 2)


def report(pieces: list[Piece], shares: np.ndarray, threshold: float) -> None:
    """Prints what held-out pieces were read as, by what they are."""
    print(f"threshold {threshold:.5f}")
    print(f"{'source':8s} {'is':12s} {'n':>6s} {'patients':>8s}" + "".join(f" {name:>10s}" for name in NAMES))
    said = np.where(of_letters(shares).max(axis=1) >= threshold, shares.argmax(axis=1), NONE)
    for source in ("real", "drawn"):
        for kind, name in [*enumerate(NAMES), (UNCLEAR, "unclear")]:
            chosen = [i for i, piece in enumerate(pieces) if piece.source == source and piece.kind == kind]
            counts = np.bincount(said[chosen], minlength=5)
            n_patients = len({pieces[i].patient for i in chosen})
            print(f"{source:8s} {name:12s} {len(chosen):6d} {n_patients:8d}" + "".join(f" {n:10d}" for n in counts))
    letter = of_letters(shares).argmax(axis=1)
    for source in ("real", "drawn"):
        read = [i for i, piece in enumerate(pieces) if piece.source == source and said[i] < NONE and piece.kind >= 0]
        right = sum(pieces[i].kind in (letter[i], letter[i] + 2) for i in read)
        there = sum(0 <= piece.kind < NONE for piece in pieces if piece.source == source)
        print(
            f"{source}: precision {right / max(len(read), 1):.4f}, recall {right / max(there, 1):.4f} of letters found"
        )


def report_radiographs(pieces: list[Piece], shares: np.ndarray, threshold: float) -> None:
    """Prints on which side markers are read on whole real radiographs; on the wrong one they are named as mirrored.

    A mirrored radiograph has the same letters on the other side.
    """
    of_path: dict[str, list[int]] = {}
    for number, piece in enumerate(pieces):
        if piece.source == "real":
            of_path.setdefault(piece.path, []).append(number)
    counts = dict.fromkeys(("without a letter", "with one", "read on its side", "on the wrong side", "contradict"), 0)
    for numbers in of_path.values():
        counts["with one" if any(0 <= pieces[k].kind < NONE for k in numbers) else "without a letter"] += 1
        letters = of_letters(shares[numbers])
        surest, sides = letters.max(axis=1), letters.argmax(axis=1) == [pieces[k].place[0] > 0.5 for k in numbers]
        if surest.max() < threshold:
            continue
        said = set(sides[surest >= side_marker.DOUBT].tolist())
        counts["contradict" if len(said) > 1 else "read on its side" if True in said else "on the wrong side"] += 1
    print("radiographs: " + ", ".join(f"{n} {name}" for name, n in counts.items()))


def write_scores(path: Path, pieces: list[Piece], shares: np.ndarray) -> None:
    """What each held-out real piece got."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "x", "y", "kind", *NAMES[:4]])
        for piece, of_piece in zip(pieces, shares, strict=True):
            if piece.source == "real":
                writer.writerow([piece.path, *piece.place, piece.kind, *of_piece.tolist()])


if __name__ == "__main__":
    main()
