"""Phantoms, drawn chest radiographs: `draw_phantom` draws one, `write_vinbig` a whole set in VinBigData's own layout.

A set has DICOM files, the rows of three readers for each training radiograph, and a hidden truth of the test set.
"""

from pathlib import Path
from typing import Any

import numpy as np

from xray.findings import FINDINGS, NO_FINDING, NO_FINDING_NAME, PNEUMOTHORAX
from xray.phantoms.dicom import sample_storage, write_phantom
from xray.phantoms.drawing import FINDING_RATES, Phantom, draw_phantom
from xray.phantoms.readers import read_by_three
from xray.phantoms.tree import SPLITS, Job, Order, PhantomSet, draw_tree, image_id, write_csv

__all__ = ["Phantom", "PhantomSet", "draw_phantom", "plan_findings", "write_vinbig"]

TRAIN_COLUMNS = ("image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max")
TRUTH_COLUMNS = ("image_id", "class_name", "class_id", "x_min", "y_min", "x_max", "y_max")


def plan_findings(
    n: int, normal_fraction: float, rng: np.random.Generator, pneumothorax_fraction: float | None = None
) -> list[tuple[int, ...]]:
    """Which findings each of n radiographs shows: class ids, () for none.

    The share of normal radiographs is met exactly, and among the others each finding occurs as often as its rate says
    (`FINDING_RATES`), but at least once, so that a small set has them all.

    pneumothorax_fraction: share (0–1) of the n radiographs with one, as far as there are abnormal ones; None for its
        rate.
    """
    n_abnormal = n - round(n * normal_fraction)
    shown: list[list[int]] = [[] for _ in range(n_abnormal)]
    quotas = np.maximum(1, np.round(FINDING_RATES * n_abnormal)).astype(int)
    if pneumothorax_fraction is not None:
        quotas[PNEUMOTHORAX] = round(pneumothorax_fraction * n)
    for class_id in np.argsort(quotas, kind="stable"):
        # Radiographs with few findings so far come first: nobody has everything and none of them has nothing.
        order = np.argsort([len(ids) + 1.5 * rng.random() for ids in shown], kind="stable")
        for image in order[: quotas[class_id]]:
            shown[image].append(int(class_id))
    plan = [tuple(sorted(ids)) for ids in shown] + [()] * (n - n_abnormal)
    return [plan[k] for k in rng.permutation(n)]


def write_vinbig(save_path: str | Path, n_train: int, n_test: int, **options: Any) -> PhantomSet:
    """Writes `<save_path>/vinbig` with train.csv, sample_submission.csv, train/*.dicom and test/*.dicom.

    Beside them stand the hidden truth of the test set (test_truth.csv), the true boxes of all radiographs
    (phantoms.jsonl) and what they were made with (phantoms.json).

    options: those of `xray.phantoms.tree.Order`; without a size, the longer side is 1900 to 3000 as in VinBigData.
    Raises InputError where a number makes no sense, or the folder holds something else.
    """
    order = Order(n_train, n_test, **options)
    folder, share = Path(save_path) / "vinbig", order.pneumothorax_fraction
    jobs = []
    for number, (split, n) in enumerate(zip(SPLITS, (n_train, n_test), strict=True)):
        plan = plan_findings(n, order.normal_fraction, np.random.default_rng([order.seed, number]), share)
        for index, findings in enumerate(plan):
            name = image_id(order.seed, split, index)
            path = folder / split / f"{name}.dicom"
            jobs.append(Job(name, split, path, findings, (order.seed, 4 + number, index), order.size))
    # Only where it is given, so that trees which were begun before there was a choice are still continued.
    more = {} if share is None else {"pneumothorax": share}
    made = ("train.csv", "sample_submission.csv", "test_truth.csv", *SPLITS)
    records, n_drawn = draw_tree(folder, order, jobs, _draw, made, **more)
    for split in SPLITS:
        (folder / split).mkdir(exist_ok=True)
    _write_tables(folder, order.seed, records[:n_train], records[n_train:])
    images_with = {name: sum(k in record["class_ids"] for record in records) for k, name in enumerate(FINDINGS)}
    images_with[NO_FINDING_NAME] = sum(not record["class_ids"] for record in records)
    return PhantomSet(folder, n_train, n_test, n_drawn, images_with)


def _draw(job: Job) -> dict[str, Any]:
    """Draws and writes one file; returns its truth as it goes to phantoms.jsonl."""
    seed, stream, index = job.seeds
    rng = np.random.default_rng([seed, stream - 2, index])
    height = rng.uniform(1900, 3000) if job.size is None else job.size * rng.uniform(0.94, 1.0)
    # Detectors have even sides; a few pictures are wider than high.
    sides = [2 * round(height / 2), 2 * round(height * rng.uniform(0.8, 1.0) / 2)]
    height, width = sides if rng.random() < 0.95 else sides[::-1]
    phantom = draw_phantom(job.seeds, width, height, job.findings)
    write_phantom(job.path, phantom, sample_storage(rng), job.image_id, rng)
    return {
        "image_id": job.image_id,
        "split": job.split,
        "width": width,
        "height": height,
        "class_ids": phantom.class_ids.tolist(),
        "boxes": phantom.boxes.round(2).tolist(),
    }


def _write_tables(folder: Path, seed: int, train: list[dict[str, Any]], test: list[dict[str, Any]]) -> None:
    rows = []
    for index, record in enumerate(train):
        boxes = np.array(record["boxes"], dtype=np.float64).reshape(-1, 4)
        rng = np.random.default_rng([seed, 6, index])
        read = read_by_three(
            rng, boxes, np.array(record["class_ids"], dtype=np.int64), record["width"], record["height"]
        )
        rows += [(record["image_id"], *row) for row in read]
    # VinBigData's rows stand in no order.
    rows = [rows[k] for k in np.random.default_rng([seed, 7]).permutation(len(rows))]
    write_csv(folder / "train.csv", TRAIN_COLUMNS, rows)

    truth = []
    for record in test:
        for class_id, box in zip(record["class_ids"], record["boxes"], strict=True):
            truth.append((record["image_id"], FINDINGS[class_id], class_id, *box))
        if not record["class_ids"]:
            truth.append((record["image_id"], NO_FINDING_NAME, NO_FINDING, None, None, None, None))
    write_csv(folder / "test_truth.csv", TRUTH_COLUMNS, truth)
    predictions = [(record["image_id"], f"{NO_FINDING} 1 0 0 1 1") for record in test]
    write_csv(folder / "sample_submission.csv", ("image_id", "PredictionString"), predictions)
