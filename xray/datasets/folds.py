"""Stratified folds: every patient in one fold only, every finding spread over all folds as evenly as possible.

The iterative stratification of Sechidis, Tsoumakas and Vlahavas ("On the stratification of multi-label data", ECML
PKDD 2011) over patients instead of images: the patients of the rarest finding are dealt first, each to the fold that
still lacks that finding most. Dealing greedily may leave a fold without a finding whose patients also had rarer ones;
exchanging patients between two folds, as long as that evens the counts out, repairs this.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from xray.errors import InputError

SIZE_WEIGHT = 4.0
MAX_EXCHANGES = 200
MAX_KINDS = 1000


def assign_folds(present: np.ndarray, groups: Sequence[Hashable], n_folds: int, seed: int) -> np.ndarray:
    """Deals images into folds.

    present: (N, K) bool, which findings each image shows.
    groups: one value an image; images of equal value (a patient's) share a fold.
    seed: decides between patients that are alike; equal arguments give equal folds.

    Returns (N,) int64 folds from 0 to n_folds - 1. Raises InputError if there are fewer groups than folds.
    """
    present = np.asarray(present, dtype=bool)
    numbers: dict[Hashable, int] = {}
    group = np.array([numbers.setdefault(value, len(numbers)) for value in groups], dtype=np.int64)
    n_groups = len(numbers)
    check_folds(n_groups, n_folds, len(group))
    counts = np.zeros((n_groups, present.shape[1]), dtype=np.int64)
    np.add.at(counts, group, present)
    sizes = np.bincount(group, minlength=n_groups)
    fold_of_group = _deal(counts, sizes, n_folds, np.random.default_rng(seed))
    return _exchange(counts, sizes, fold_of_group, n_folds)[group]


def check_folds(n_groups: int, n_folds: int, n_images: int | None = None, left_out: str = "") -> None:
    """Raises InputError if there are fewer groups than folds.

    n_images: radiographs that the groups are of, where it is known. left_out: what else there was, for the message.
    """
    missing = f" ({left_out} left out)" if left_out else ""
    if n_folds == 1 and n_groups:
        return
    if n_images == 1:
        raise InputError(f"only one radiograph can be used to train on{missing}: folds need two or more, so add others")
    if n_groups == 1:
        raise InputError(
            f"all radiographs to train on are of one patient{missing}, and folds keep a patient together, so none "
            "would be left to validate on: add radiographs of others, or take the patient out of the table if it is "
            "not one person"
        )
    if n_groups < n_folds:
        fewer = f"--n-folds {n_groups}" + (" or fewer" if n_groups > 2 else "")
        raise InputError(f"{n_groups} patients cannot fill {n_folds} folds{missing}: use {fewer}, or more data")


def _deal(counts: np.ndarray, sizes: np.ndarray, n_folds: int, random: np.random.Generator) -> np.ndarray:
    """(G, K) images with each finding and (G,) images of each group → (G,) folds."""
    n_groups, n_findings = counts.shape
    fold = np.full(n_groups, -1, dtype=np.int64)
    # Large groups first, while there is still room to balance them; chance decides among equals.
    order = np.lexsort((random.permutation(n_groups), -sizes))
    # Plain lists from here on: NumPy's calls on five numbers would take longer than all the arithmetic.
    lacking = [(counts.sum(axis=0) / n_folds).tolist() for _ in range(n_folds)]
    room = [float(sizes.sum() / n_folds)] * n_folds
    open_groups = np.ones(n_groups, dtype=bool)
    holders = [order[counts[order, finding] > 0] for finding in range(n_findings)]
    while True:
        left = np.array([int(open_groups[of_finding].sum()) for of_finding in holders])
        if not (left > 0).any():
            break
        rarest = int(np.argmin(np.where(left > 0, left, n_groups + 1)))
        of_finding = holders[rarest][open_groups[holders[rarest]]]
        # Among a finding's groups those with most of it go first.
        of_finding = of_finding[np.argsort(-counts[of_finding, rarest], kind="stable")]
        for number in of_finding.tolist():
            counted = [(finding, count) for finding, count in enumerate(counts[number].tolist()) if count]
            needs = [
                (of_fold[rarest], sum(of_fold[finding] for finding, _ in counted), free)
                for of_fold, free in zip(lacking, room, strict=True)
            ]
            chosen = needs.index(max(needs))
            fold[number] = chosen
            for finding, count in counted:
                lacking[chosen][finding] -= count
            room[chosen] -= float(sizes[number])
        open_groups[of_finding] = False
    rest = order[open_groups[order]]
    for number, size in zip(rest.tolist(), sizes[rest].tolist(), strict=True):
        chosen = room.index(max(room))
        fold[number] = chosen
        room[chosen] -= size
    return fold


def _exchange(counts: np.ndarray, sizes: np.ndarray, fold: np.ndarray, n_folds: int) -> np.ndarray:
    """Swaps groups of two folds, or moves one, while that lowers the sum of (count - ideal)² / ideal over findings."""
    columns = np.column_stack([counts, sizes]).astype(np.float64)
    ideal = columns.sum(axis=0) / n_folds
    columns, ideal = columns[:, ideal > 0], ideal[ideal > 0]
    weights = 1 / ideal
    # A fold's size is one number beside many findings', but the one that every fold is asked for.
    weights[-1] *= SIZE_WEIGHT
    # Groups alike are interchangeable: only distinct ones are compared. "Nothing" as partner makes a swap a move.
    distinct, kind = np.unique(np.vstack([np.zeros_like(ideal), columns]), axis=0, return_inverse=True)
    nothing, kind = kind[0], kind[1:]
    scaled = distinct * np.sqrt(weights)
    squares = (scaled**2).sum(axis=1)
    fold = fold.copy()
    for _ in range(MAX_EXCHANGES):
        best, chosen = 0.0, None
        totals = np.stack([scaled[kind[fold == number]].sum(axis=0) for number in range(n_folds)])
        kinds = [_lightest(np.union1d(kind[fold == number], nothing), squares) for number in range(n_folds)]
        for first in range(n_folds):
            for second in range(first + 1, n_folds):
                ours, theirs = kinds[first], kinds[second]
                # The first fold (counts a) gains d, the second (b) loses it: the sum changes by 2d(a - b) + 2d².
                imbalance = scaled @ (totals[first] - totals[second])
                apart = squares[ours, None] + squares[theirs] - 2 * scaled[ours] @ scaled[theirs].T
                # Rounded, so that float noise decides between equal swaps on no machine.
                change = (2 * (imbalance[theirs] - imbalance[ours, None]) + 2 * apart).round(9)
                row, column = np.unravel_index(np.argmin(change), change.shape)
                if change[row, column] < best:
                    best, chosen = change[row, column], (first, second, ours[row], theirs[column])
        if chosen is None:
            break
        first, second, given, taken = chosen
        leaving = np.flatnonzero((fold == first) & (kind == given))[:1]
        coming = np.flatnonzero((fold == second) & (kind == taken))[:1]
        fold[leaving], fold[coming] = second, first
    return fold


def _lightest(kinds: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """At most MAX_KINDS of the kinds of group, those that change the least: it is they that tip a near balance."""
    return kinds[np.argsort(squares[kinds], kind="stable")[:MAX_KINDS]]
