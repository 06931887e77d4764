"""Precision: what a trial chooses, that later commands need none, and bfloat16 beside boxes and scores in float32."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

import xray.inference.metric_moves
import xray.inference.precision
import xray.inference.trial
import xray.inference.ways
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.inference.pipeline_loading import load_pipeline
from xray.inference.precision import choose_precision, choose_precision_by_trial, ready, trial_size
from xray.inference.prediction_journal import PredictionJournal
from xray.inference.trial import Outcome, fastest_way, find_in_batches, lowered
from xray.inference.ways import DTYPES, PLAIN, QUANTISED, Models, Way
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


def timed(monkeypatch, seconds):
    """The clock of a trial: seconds of each way in turn, the first round disturbed."""
    clock = iter(np.cumsum([step for n in (5, 1) for one in seconds for step in (0, one * n)]).tolist())
    monkeypatch.setattr(xray.inference.trial.time, "perf_counter", lambda: next(clock))


def trial(monkeypatch, pipeline, batch, gain, seconds=(2.0, 1.0), moves=None, change=lambda found: found, **more):
    """fastest_way with a processor and times as given; change: of what others find, moves: what is expected of them."""
    monkeypatch.setattr(xray.inference.trial, "has_bfloat16", lambda: gain is not None)
    monkeypatch.setattr(xray.inference.trial, "bfloat16_gain", lambda: gain)
    timed(monkeypatch, seconds)
    if moves is not None:
        each = iter(moves if isinstance(moves, list) else [moves])
        monkeypatch.setattr(xray.inference.metric_moves, "expected_moves", lambda *args: next(each))
    find = type(pipeline).find
    monkeypatch.setattr(
        type(pipeline),
        "find",
        lambda self, *args: find(self, *args) if self is pipeline else change(find(pipeline, *args)),
    )
    return fastest_way(pipeline, *batch, **more)


def surer(found):
    """As a well trained detector would find them: enough to tell something."""
    return dataclasses.replace(found, table=dataclasses.replace(found.table, scores=found.table.scores**0.1))


def test_bfloat16_is_taken_where_the_metric_is_kept_and_it_is_faster(monkeypatch, pipeline, batch):
    find = type(pipeline).find
    monkeypatch.setattr(type(pipeline), "find", lambda *args: surer(find(*args)))
    chosen = trial(monkeypatch, pipeline, batch, gain=2.0)
    assert chosen.pipeline.precision == torch.bfloat16
    assert (chosen.way, chosen.is_sure, chosen.saved) == (Way("torch", "bf16"), True, 0.5)
    words = "mAP@0.4 +0.0000, COCO AP +0.0000 on the first 3 radiographs"
    assert chosen.why == f"2.0 × faster, the metric is expected to move by {words}"
    # The other one is unharmed.
    assert next(pipeline.detectors[0].model.parameters()).dtype == torch.float32


def nothing(found):
    return dataclasses.replace(found, table=found.table.select(np.zeros(0, dtype=int)))


@pytest.mark.parametrize(
    ("options", "why", "is_sure"),
    [
        ({"gain": 0.5}, "a convolution in bfloat16 takes 2.0 times as long on this processor", True),
        ({"gain": None}, "no other way is available", True),
        ({"gain": 2.0, "seconds": (1.0, 1.5)}, "bf16 takes 1.5 times as long", True),
        (
            {"gain": 2.0, "moves": {"mAP@0.4": -0.0041, "COCO AP": 0.0}},
            "bf16 is 2.0 × faster, but the metric is expected to move by mAP@0.4 -0.0041, COCO AP +0.0000 on the "
            "first 3 radiographs",
            True,
        ),
        (
            {"gain": 2.0, "moves": {}},
            "too few findings on the first 3 radiographs to estimate how bf16 changes the metric",
            False,
        ),
    ],
)
def test_float32_stays_otherwise(monkeypatch, pipeline, batch, options, why, is_sure):
    assert trial(monkeypatch, pipeline, batch, **options) == Outcome(pipeline, PLAIN, why, is_sure)


def test_lost_boxes_are_no_small_move(monkeypatch, pipeline, batch):
    find = type(pipeline).find
    monkeypatch.setattr(type(pipeline), "find", lambda *args: surer(find(*args)))
    chosen = trial(monkeypatch, pipeline, batch, gain=2.0, change=nothing)
    assert chosen.pipeline is pipeline
    assert chosen.why.startswith("bf16 is 2.0 × faster, but the metric is expected to move by mAP@0.4 -0.")


MEASURED = [{"exact": {"mAP@0.4": 0.5}, "int8": {"mAP@0.4": 0.499}, "expected": {"mAP@0.4": -0.006}}]


@pytest.mark.parametrize(
    ("moves", "measured", "way", "why"),
    [
        # Where a truth was, 0.001 was lost and 0.006 expected: 0.007 here is 0.001 more than there.
        ([-0.007], MEASURED, QUANTISED, "3.0 × faster (bf16 2.0 ×), the metric is expected to move by mAP@0.4 -0.0020"),
        ([-0.002], MEASURED, QUANTISED, "3.0 × faster (bf16 2.0 ×), the metric is expected to move by mAP@0.4 -0.0010"),
        ([-0.009, -0.001], MEASURED, Way("torch", "bf16"),
         "2.0 × faster, the metric is expected to move by mAP@0.4 -0.0010 on the first 3 radiographs; int8 is 3.0 × "
         "faster, but the metric is expected to move by mAP@0.4 -0.0040 on the first 3 radiographs"),
        # Without a measurement the estimate counts as it is.
        ([-0.007, -0.005], [{}], PLAIN, "int8 is 3.0 × faster, but the metric is expected to move by mAP@0.4 -0.0070"),
    ],
)  # fmt: skip
def test_8_bits_are_taken_where_they_lose_no_more_than_measured(
    monkeypatch, pipeline, batch, moves, measured, way, why
):
    def quantised():
        return dataclasses.replace(pipeline)

    chosen = trial(
        monkeypatch, pipeline, batch, 2.0, (3.0, 1.5, 1.0), [{"mAP@0.4": move} for move in moves],
        others={QUANTISED: quantised}, measured=measured,
    )  # fmt: skip
    assert chosen.way == way
    assert chosen.why.startswith(why)
    assert chosen.saved == {QUANTISED: 1.0, PLAIN: 0.0}.get(way, 0.75)


def test_a_model_that_cannot_be_read_does_not_end_the_job(monkeypatch, pipeline, batch):
    def damaged():
        raise InputError("x.xml is damaged")

    chosen = trial(monkeypatch, pipeline, batch, None, (1.0,), others={QUANTISED: damaged})
    assert (chosen.way, chosen.why) == (PLAIN, "int8 cannot be tried: x.xml is damaged")


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
        xray.inference.ways,
        "inference_precision",
        lambda name, device: {"bf16": torch.bfloat16, "32": torch.float32}.get(name),
    )


@pytest.fixture
def own_run(vinbig_run, tmp_path, monkeypatch):
    """A copy, which may be written to."""
    monkeypatch.setenv("XRAY_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(vinbig_run, tmp_path / "run", ignore=shutil.ignore_patterns("*.ckpt"))


def outcome(name, is_sure=True, saved=0.0):
    return lambda pipeline, *args: Outcome(lowered(pipeline, DTYPES[name]), Way("torch", name), "why", is_sure, saved)


def no_trial(monkeypatch):
    monkeypatch.setattr(xray.inference.precision, "fastest_way", lambda *args: pytest.fail("a trial"))


def noted(precision, batch_size=2):
    return {"runtime": "torch", "precision": precision, "batch_size": batch_size, "models": []}


def test_a_command_that_goes_on_keeps_what_the_first_one_chose(
    monkeypatch, pipeline, batch, tmp_path, capsys, bfloat16_here, own_run
):
    models = Models((own_run,), "cpu")
    monkeypatch.setattr(xray.inference.precision, "fastest_way", outcome("bf16", is_sure=False))
    with PredictionJournal(tmp_path / "j", {}, "abc") as journal:
        _, size, undecided = choose_precision(pipeline, journal, models, models.start(100), 0)
        assert (size, undecided) == (2, True)
        first = [Decoded(0, tmp_path / "a.png", batch[0][0], *batch[1][0], None)]
        assert choose_precision_by_trial(pipeline, journal, models, first, 2, n=100).precision == torch.bfloat16
        assert capsys.readouterr().err == "precision bf16: why\n"
        assert journal.choices == noted("bf16")
    no_trial(monkeypatch)
    with PredictionJournal(tmp_path / "j", {}, "abc") as journal:
        # Nothing was added, so nothing binds.
        assert journal.choices is None
        journal.choose_once(noted("bf16", 3))
        again, size, undecided = choose_precision(pipeline, journal, models, models.start(100), 0)
        assert (again.precision, size, undecided) == (torch.bfloat16, 3, False)


@pytest.mark.parametrize(("is_sure", "name"), [(True, "bf16"), (True, "32"), (False, "32")])
def test_the_next_command_makes_no_trial(monkeypatch, own_run, batch, tmp_path, capsys, bfloat16_here, is_sure, name):
    models = Models((own_run,), "cpu")
    pipeline = load_pipeline([own_run], CPU)
    first = [Decoded(0, tmp_path / "a.png", batch[0][0], *batch[1][0], None)]
    monkeypatch.setattr(xray.inference.precision, "fastest_way", outcome(name, is_sure))
    with PredictionJournal(tmp_path / "j", {}, "abc") as journal:
        choose_precision_by_trial(pipeline, journal, models, first, 2, 100)
    assert (own_run / "precision.json").exists() == is_sure
    capsys.readouterr()
    for n in (100, 3):
        pipeline = load_pipeline([own_run], CPU)
        with PredictionJournal(tmp_path / f"k{n}", {}, "abc") as journal:
            chosen, _, undecided = choose_precision(pipeline, journal, models, models.start(n), 0)
            assert undecided == (n == 100 and not is_sure)
            if is_sure:
                assert journal.choices == noted(name)
                assert chosen.precision == DTYPES[name]
                line = f"precision {name}: why (remembered in {own_run / 'precision.json'})\n"
                assert capsys.readouterr().err == line
    # A server knows of it, too, and a flag is above what is remembered.
    assert ready(models, models.start()).precision == (DTYPES[name] if is_sure else torch.float32)
    asked = dataclasses.replace(models, precision="32")
    with PredictionJournal(tmp_path / "l", {}, "abc") as journal:
        assert choose_precision(load_pipeline([own_run], CPU), journal, asked, asked.start(100), 0)[2] is False
        assert journal.choices == noted("32")


def test_few_radiographs_are_not_worth_a_trial(monkeypatch, pipeline, tmp_path, own_run, bfloat16_here):
    no_trial(monkeypatch)
    models = Models((own_run,), "cpu")
    with PredictionJournal(tmp_path / "j", {}, "abc") as journal:
        assert choose_precision(pipeline, journal, models, models.start(3), 0)[1:] == (2, False)
        assert journal.choices == noted("32")
    with PredictionJournal(tmp_path / "k", {}, "abc") as journal:
        first = [Decoded(0, tmp_path / "a.png", np.zeros((64, 64), np.uint8), 9, 9, None)]
        assert choose_precision_by_trial(pipeline, journal, models, first, 2, n=3) is pipeline
        assert journal.choices == noted("32")
    assert [trial_size(n, size) for n, size in ((3, 2), (63, 2), (64, 2), (64, 5), (64, 100))] == [1, 1, 16, 7, 1]
