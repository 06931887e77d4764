"""Precision: what a trial chooses, that later commands need none, and bfloat16 beside boxes and scores in float32."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

import xray.inference.metric_moves
import xray.inference.precision
from xray.datasets.store import open_store
from xray.inference.pipeline import load_pipeline
from xray.inference.precision import (
    DTYPES,
    choose_precision,
    choose_precision_by_trial,
    faster_precision,
    find_in_batches,
    lowered,
    trial_size,
)
from xray.inference.prediction_journal import PredictionJournal
from xray.radiographs.decoding import Decoded

CPU = torch.device("cpu")


@pytest.fixture
def pipeline(vinbig_run):
    return load_pipeline([vinbig_run], CPU)


@pytest.fixture
def batch(vinbig_store):
    store = open_store(vinbig_store)
    return store.images[:3].copy(), [(record["width"], record["height"]) for record in store.records[:3]]


def test_bfloat16_is_near_and_its_boxes_are_float32(vinbig_run, segmentation_run, classification_run, batch):
    runs = [vinbig_run, segmentation_run, classification_run]
    exact = load_pipeline(runs, CPU).find(*batch)
    pipeline = lowered(load_pipeline(runs, CPU), torch.bfloat16)
    seen = []
    for loaded in pipeline.models:
        own = [m for m in loaded.model.modules() if getattr(m, "weight", None) is not None and m.weight.ndim == 4]
        assert own
        assert all(module.weight.dtype == torch.bfloat16 for module in own)
        own[-1].register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))
    rough = pipeline.find(*batch)
    assert set(seen) == {torch.bfloat16}
    assert np.abs(rough.maps - exact.maps).mean() < 0.02
    assert rough.maps.dtype == np.float32
    for label, column in exact.labels.items():
        np.testing.assert_allclose(rough.labels[label], column, atol=0.02)
    # Scores rounded to bfloat16 would all have at most 8 binary digits.
    scores = torch.from_numpy(rough.table.scores)
    assert (scores.bfloat16().double() != scores).any()
    best = [found.table.scores[found.table.labels < 15].max() for found in (exact, rough)]
    assert best[0] == pytest.approx(best[1], abs=0.02)


def trial(monkeypatch, pipeline, batch, gain, seconds=(2.0, 1.0), moves=None, change=lambda found: found):
    """faster_precision with a processor and times as given; change: of what bfloat16 finds, moves: what is expected."""
    clock = iter(np.cumsum([0, seconds[0], 0, seconds[1]]).tolist())
    monkeypatch.setattr(xray.inference.precision, "bfloat16_gain", lambda: gain)
    monkeypatch.setattr(xray.inference.precision.time, "perf_counter", lambda: next(clock))
    if moves is not None:
        monkeypatch.setattr(xray.inference.metric_moves, "expected_moves", lambda *args: moves)
    find = type(pipeline).find
    monkeypatch.setattr(
        type(pipeline),
        "find",
        lambda self, *args: find(self, *args) if self.precision == torch.float32 else change(find(pipeline, *args)),
    )
    return faster_precision(pipeline, *batch)


def surer(found):
    """As a well trained detector would find them: enough to tell something."""
    return dataclasses.replace(found, table=dataclasses.replace(found.table, scores=found.table.scores**0.1))


def test_bfloat16_is_taken_where_the_metric_is_kept_and_it_is_faster(monkeypatch, pipeline, batch):
    find = type(pipeline).find
    monkeypatch.setattr(type(pipeline), "find", lambda *args: surer(find(*args)))
    chosen, why, is_sure = trial(monkeypatch, pipeline, batch, gain=2.0)
    assert chosen.precision == torch.bfloat16
    assert is_sure
    words = "mAP@0.4 +0.0000, COCO AP +0.0000 on the first 3 radiographs"
    assert why == f"2.0 × faster, the metric is expected to move by {words}"
    # The other one is unharmed.
    assert next(pipeline.detectors[0].model.parameters()).dtype == torch.float32


def nothing(found):
    return dataclasses.replace(found, table=found.table.select(np.zeros(0, dtype=int)))


@pytest.mark.parametrize(
    ("options", "why", "is_sure"),
    [
        ({"gain": 0.5}, "a convolution in bfloat16 takes 2.0 times as long on this processor", True),
        ({"gain": 2.0, "seconds": (1.0, 1.5)}, "these models take 1.5 times as long in bfloat16", True),
        (
            {"gain": 2.0, "moves": {"mAP@0.4": -0.0041, "COCO AP": 0.0}},
            "bfloat16 is 2.0 × faster, but the metric is expected to move by mAP@0.4 -0.0041, COCO AP +0.0000 on the "
            "first 3 radiographs",
            True,
        ),
        (
            {"gain": 2.0, "moves": {}},
            "too little is found on the first 3 radiographs to tell what bfloat16 would do to the metric",
            False,
        ),
    ],
)
def test_float32_stays_otherwise(monkeypatch, pipeline, batch, options, why, is_sure):
    assert trial(monkeypatch, pipeline, batch, **options) == (pipeline, why, is_sure)


def test_lost_boxes_are_no_small_move(monkeypatch, pipeline, batch):
    find = type(pipeline).find
    monkeypatch.setattr(type(pipeline), "find", lambda *args: surer(find(*args)))
    chosen, why, _ = trial(monkeypatch, pipeline, batch, gain=2.0, change=nothing)
    assert chosen is pipeline
    assert why.startswith("bfloat16 is 2.0 × faster, but the metric is expected to move by mAP@0.4 -0.")


def test_batches_are_joined(vinbig_run, segmentation_run, classification_run, batch):
    pipeline = load_pipeline([vinbig_run, segmentation_run, classification_run], CPU)
    halves = [(batch[0][part], batch[1][part]) for part in (slice(2), slice(2, 3))]
    whole, parts = pipeline.find(*batch), find_in_batches(pipeline, halves)
    assert find_in_batches(pipeline, halves, with_maps=False).maps is None
    for image in range(3):
        scores = [np.sort(found.table.scores[found.table.images == image]) for found in (parts, whole)]
        np.testing.assert_allclose(*scores, atol=1e-4)
    np.testing.assert_allclose(parts.maps, whole.maps, atol=0.01)
    assert {label: column.shape for label, column in parts.labels.items()} == dict.fromkeys(whole.labels, (3,))


@pytest.fixture
def bfloat16_here(monkeypatch):
    """A processor on which a trial must decide, whatever this one is."""
    monkeypatch.setattr(
        xray.inference.precision,
        "inference_precision",
        lambda name, device: {"bf16": torch.bfloat16, "32": torch.float32}.get(name),
    )


@pytest.fixture
def own_run(vinbig_run, tmp_path, monkeypatch):
    """A copy, which may be written to."""
    monkeypatch.setenv("XRAY_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(vinbig_run, tmp_path / "run", ignore=shutil.ignore_patterns("*.ckpt"))


def test_a_command_that_goes_on_keeps_what_the_first_one_chose(
    monkeypatch, pipeline, batch, tmp_path, capsys, bfloat16_here
):
    monkeypatch.setattr(
        xray.inference.precision, "faster_precision", lambda *args: (lowered(args[0], torch.bfloat16), "why", True)
    )
    with PredictionJournal(tmp_path / "j", {}, "abc") as journal:
        _, size, undecided = choose_precision(pipeline, journal, "auto", 0)
        assert (size, undecided) == (2, True)
        first = [Decoded(0, tmp_path / "a.png", batch[0][0], *batch[1][0], None)]
        assert choose_precision_by_trial(pipeline, journal, first, 2, n=100).precision == torch.bfloat16
        assert capsys.readouterr().err == "precision bf16: why\n"
    monkeypatch.setattr(xray.inference.precision, "faster_precision", lambda *args: pytest.fail("no second trial"))
    with PredictionJournal(tmp_path / "j", {}, "abc") as journal:
        # Nothing was added, so nothing binds.
        assert journal.choices is None
        journal.choose_once({"precision": "bf16", "batch_size": 3})
        again, size, undecided = choose_precision(pipeline, journal, "auto", 0)
        assert (again.precision, size, undecided) == (torch.bfloat16, 3, False)


@pytest.mark.parametrize(("is_sure", "name"), [(True, "bf16"), (True, "32"), (False, "32")])
def test_the_next_command_makes_no_trial(monkeypatch, own_run, batch, tmp_path, capsys, bfloat16_here, is_sure, name):
    pipeline = load_pipeline([own_run], CPU)
    first = [Decoded(0, tmp_path / "a.png", batch[0][0], *batch[1][0], None)]
    monkeypatch.setattr(
        xray.inference.precision, "faster_precision", lambda *args: (lowered(args[0], DTYPES[name]), "why", is_sure)
    )
    with PredictionJournal(tmp_path / "j", {}, "abc") as journal:
        choose_precision_by_trial(pipeline, journal, first, 2, 100, [own_run])
    assert (own_run / "precision.json").exists() == is_sure
    capsys.readouterr()
    pipeline = load_pipeline([own_run], CPU)
    with PredictionJournal(tmp_path / "k", {}, "abc") as journal:
        chosen, _, undecided = choose_precision(pipeline, journal, "auto", 0, [own_run])
        assert undecided != is_sure
        if is_sure:
            assert journal.choices == {"precision": name, "batch_size": 2}
            assert chosen.precision == DTYPES[name]
            assert capsys.readouterr().err == f"precision {name}: why (remembered in {own_run / 'precision.json'})\n"
    # A flag is above what is remembered.
    with PredictionJournal(tmp_path / "l", {}, "abc") as journal:
        assert choose_precision(pipeline, journal, "32", 0, [own_run])[2] is False
        assert journal.choices == {"precision": "32", "batch_size": 2}


def test_few_radiographs_are_not_worth_a_trial(monkeypatch, pipeline, tmp_path):
    monkeypatch.setattr(xray.inference.precision, "faster_precision", lambda *args: pytest.fail("a trial"))
    with PredictionJournal(tmp_path / "j", {}, "abc") as journal:
        first = [Decoded(0, tmp_path / "a.png", np.zeros((64, 64), np.uint8), 9, 9, None)]
        assert choose_precision_by_trial(pipeline, journal, first, 2, n=3) is pipeline
        assert journal.choices == {"precision": "32", "batch_size": 2}
    assert [trial_size(n, size) for n, size in ((3, 2), (63, 2), (64, 2), (64, 5), (64, 100))] == [1, 1, 16, 7, 1]
