"""Precision: what counts as agreement, what a trial chooses, and bfloat16 beside boxes and scores in float32."""

import dataclasses

import numpy as np
import pytest
import torch

import xray.inference.precision
from xray.datasets.store import open_store
from xray.inference.pipeline import Findings, load_pipeline
from xray.inference.precision import (
    choose_precision,
    choose_precision_by_trial,
    disagreement,
    faster_precision,
    lowered,
)
from xray.inference.prediction_journal import PredictionJournal
from xray.radiographs.decoding import Decoded
from xray.structures.boxes import BoxTable

CPU = torch.device("cpu")
BOXES = [[10, 10, 110, 110], [50, 50, 90, 90], [0, 0, 30, 30]]


def findings(boxes=BOXES, scores=(0.9, 0.5, 0.05), labels=(1, 2, 3), maps=0.5, label=0.3):
    table = BoxTable.of([0, 1, 1], labels, boxes, scores)
    return Findings(table, {}, np.full((2, 1, 4, 4), maps), {"x": np.array([label, 0.5])})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"scores": (0.91, 0.49, 0.09)}, ""),
        ({"boxes": [[10, 10, 112, 110], [50, 50, 90, 90], [5, 5, 9, 9]]}, ""),  # the faint one may go elsewhere
        ({"scores": (0.9, 0.53, 0.05)}, "a score differs by 0.030 of radiograph 2"),
        ({"boxes": [[10, 10, 125, 110], *BOXES[1:]]}, "a box is not found again of radiograph 1"),
        ({"labels": (1, 3, 3)}, "a box is not found again of radiograph 2"),
        ({"scores": (0.9, 0.5, 0.2)}, "a score differs by 0.150 of radiograph 2"),
        ({"maps": 0.53}, "masks' probabilities differ by 0.030 on average"),
        ({"label": 0.33}, "the probability of x differs by 0.030"),
    ],
)
def test_what_is_agreement(changes, expected):
    assert disagreement(findings(), findings(**changes), 2) == expected


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


def trial(monkeypatch, pipeline, batch, gain, seconds=(2.0, 1.0), change=lambda found: found):
    """faster_precision with a processor and times as given; change: of what bfloat16 finds."""
    clock = iter(np.cumsum([0, seconds[0], 0, seconds[1]]).tolist())
    monkeypatch.setattr(xray.inference.precision, "bfloat16_gain", lambda: gain)
    monkeypatch.setattr(xray.inference.precision.time, "perf_counter", lambda: next(clock))
    find = type(pipeline).find
    monkeypatch.setattr(
        type(pipeline),
        "find",
        lambda self, *args: find(self, *args) if self.precision == torch.float32 else change(find(pipeline, *args)),
    )
    return faster_precision(pipeline, *batch)


def test_bfloat16_is_taken_where_it_agrees_and_is_faster(monkeypatch, pipeline, batch):
    chosen, why = trial(monkeypatch, pipeline, batch, gain=2.0)
    assert chosen.precision == torch.bfloat16
    assert why == "precision bf16: it agrees with 32 on the first 3 radiographs and is 2.0 × faster"
    # The other one is unharmed.
    assert next(pipeline.detectors[0].model.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"gain": 0.5}, "a convolution in bfloat16 takes 2.0 times as long on this processor"),
        ({"gain": 2.0, "seconds": (1.0, 1.5)}, "bfloat16 agrees, but takes 1.5 times as long"),
        (
            {"gain": 2.0, "change": lambda f: dataclasses.replace(f, table=f.table.select(np.zeros(0, dtype=int)))},
            "in bfloat16, a box is not found again of radiograph 1",
        ),
    ],
)
def test_float32_stays_otherwise(monkeypatch, pipeline, batch, options, why):
    chosen, said = trial(monkeypatch, pipeline, batch, **options)
    assert chosen is pipeline
    assert said == f"precision 32: {why}"


def test_a_command_that_goes_on_keeps_what_the_first_one_chose(monkeypatch, pipeline, batch, tmp_path, capsys):
    monkeypatch.setattr(
        xray.inference.precision, "inference_precision", lambda name, device: {"bf16": torch.bfloat16}.get(name)
    )
    monkeypatch.setattr(
        xray.inference.precision, "faster_precision", lambda *args: (lowered(args[0], torch.bfloat16), "why")
    )
    with PredictionJournal(tmp_path / "j", {}, "abc") as journal:
        _, size, undecided = choose_precision(pipeline, journal, "auto", 0)
        assert (size, undecided) == (2, True)
        first = [Decoded(0, tmp_path / "a.png", batch[0][0], *batch[1][0], None)]
        assert choose_precision_by_trial(pipeline, journal, first, 2, n=100).precision == torch.bfloat16
        assert capsys.readouterr().err == "why\n"
    monkeypatch.setattr(xray.inference.precision, "faster_precision", lambda *args: pytest.fail("no second trial"))
    with PredictionJournal(tmp_path / "j", {}, "abc") as journal:
        # Nothing was added, so nothing binds.
        assert journal.choices is None
        journal.choose_once({"precision": "bf16", "batch_size": 3})
        again, size, undecided = choose_precision(pipeline, journal, "auto", 0)
        assert (again.precision, size, undecided) == (torch.bfloat16, 3, False)


def test_few_radiographs_are_not_worth_a_trial(monkeypatch, pipeline, tmp_path):
    monkeypatch.setattr(xray.inference.precision, "faster_precision", lambda *args: pytest.fail("a trial"))
    with PredictionJournal(tmp_path / "j", {}, "abc") as journal:
        first = [Decoded(0, tmp_path / "a.png", np.zeros((64, 64), np.uint8), 9, 9, None)]
        assert choose_precision_by_trial(pipeline, journal, first, 2, n=3) is pipeline
        assert journal.choices == {"precision": "32", "batch_size": 2}
