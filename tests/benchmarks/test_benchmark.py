"""Benchmarks: the arithmetic of timings by hand, and a small conversion benchmark end to end."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest

from benchmarks import convert
from benchmarks.harness import Timing, alternate, entry, spread, timed, timed_stream
from xray.errors import FlagError, InputError

SMALL = {"n_images": 2, "repeats": 2, "width": 400, "height": 520, "image_size": 128}


def test_rates_and_ratios_by_hand():
    timings = {
        "ours": [Timing(12, 2.0, 0.0), Timing(12, 4.0, 0.0), Timing(12, 3.0, 0.0)],  # 6, 3, 4 a second
        "usual": [Timing(12, 6.0, 0.0), Timing(12, 24.0, 0.0), Timing(6, 6.0, 0.0)],  # 2, 0.5, 1 a second
    }
    # Round by round 3, 6 and 4; the medians' quotient would be 4 as well, the means' 3.7.
    [pair] = entry("", timings, [("ours", "usual")])["ratios"]
    assert pair["ratio"] == {"median": 4.0, "low": 3.0, "high": 6.0}
    assert spread([5.0]) == {"median": 5.0, "low": 5.0, "high": 5.0}


def test_alternates_and_drops_the_first_round():
    calls, steps = [], []

    def fake(name: str) -> Timing:
        calls.append(name)
        return Timing(1, len(calls), 0.0)

    timings = alternate({"a": lambda: fake("a"), "b": lambda: fake("b")}, 3, steps.append)
    assert calls == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert len(steps) == 8
    assert [run.seconds for run in timings["a"]] == [3, 6, 7]
    assert [run.seconds for run in timings["b"]] == [4, 5, 8]


def test_times_wall_clock_and_processor():
    def sleep(seconds: float) -> str:
        time.sleep(seconds)
        return "done"

    begun = time.perf_counter()
    timing = timed(3, sleep, 0.1)
    assert (timing.n, timing.result) == (3, "done")
    assert 0.1 <= timing.seconds <= time.perf_counter() - begun
    assert timing.cpu_seconds < timing.seconds


def test_a_streams_start_does_not_count():
    def stream():
        time.sleep(0.3)
        yield from range(2)
        for number in range(4):
            time.sleep(0.02)
            yield number

    begun = time.perf_counter()
    timing = timed_stream(stream(), 2)
    assert timing.n == 4
    assert 0.08 <= timing.seconds <= time.perf_counter() - begun - 0.3
    with pytest.raises(ValueError, match="ended after 2 results, 2 of them"):
        timed_stream(iter("ab"), 2)


def test_files_are_what_the_table_says(tmp_path):
    paths = convert.write_files(tmp_path, 2, 300, 400)
    first, second = (pydicom.dcmread(path) for path in paths)
    assert first.pixel_array.shape == (400, 300)
    assert first.BitsStored == 12
    assert first.BitsAllocated == 16
    assert not first.file_meta.TransferSyntaxUID.is_compressed
    assert (first.PhotometricInterpretation, second.PhotometricInterpretation) == ("MONOCHROME2", "MONOCHROME1")
    for dataset in (first, second):
        pixels = dataset.pixel_array
        assert 0.5 * 4095 < np.ptp(pixels) < pixels.max() <= 4095
        assert 0.9 < dataset.WindowWidth / np.ptp(pixels) < 1.2


def test_both_ways_make_the_same_picture(tmp_path):
    paths = convert.write_files(tmp_path, 2, 1200, 1500)
    assert max(convert.differences(paths, 512)) < 1.5


def test_writes_its_numbers(tmp_path, capsys):
    convert.main(convert.Config(**SMALL, n_workers=1, save_path=tmp_path / "convert.json"))
    report = json.loads((tmp_path / "convert.json").read_text())
    [measured] = report["results"]
    assert measured["label"] == "1"
    for side in measured["contenders"].values():
        assert side["n"] == 2
        assert len(side["seconds"]) == len(side["cpu_seconds"]) == 2
        rates = sorted(2 / seconds for seconds in side["seconds"])
        per_second = side["per_second"]
        np.testing.assert_allclose(
            [per_second["low"], per_second["median"], per_second["high"]], [rates[0], np.mean(rates), rates[1]]
        )
    [pair] = measured["ratios"]
    assert (pair["ours"], pair["peer"]) == ("ours", "usual")
    assert pair["ratio"]["low"] <= pair["ratio"]["median"] <= pair["ratio"]["high"]
    assert report["machine"]["cores"] >= 1
    assert report["versions"]["pydicom"] == pydicom.__version__
    assert "ratio" in capsys.readouterr().out


@pytest.mark.slow
def test_measures_several_processes():
    script = Path(__file__).resolve().parents[2] / "tools" / "benchmark.py"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    run = [sys.executable, str(script), "convert", *flags, "--repeats=1", "--n-workers=2"]
    result = subprocess.run(run, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert [line.split()[1] for line in result.stdout.splitlines() if line.startswith("│")] == ["1", "2"]


def test_refuses_to_compare_different_pictures(monkeypatch):
    right = convert.usual_recipe
    monkeypatch.setattr(convert, "usual_recipe", lambda path, size: 255 - right(path, size))
    with pytest.raises(InputError, match="nothing to compare"):
        convert.main(convert.Config(**SMALL, n_workers=1))


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({"repeats": 0}, FlagError, "--repeats is 0"),
        ({"data_path": Path("nowhere")}, InputError, "no folder nowhere"),
        ({"save_path": Path("nowhere/x.json")}, InputError, "no folder nowhere"),
    ],
)
def test_refuses_unusable_flags(flags, error, message):
    with pytest.raises(error, match=message):
        convert.main(convert.Config(**{**SMALL, "n_workers": 1, **flags}))


def test_refuses_a_folder_without_dicom(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match="no DICOM file"):
        convert.main(convert.Config(**SMALL, n_workers=1, data_path=tmp_path))
