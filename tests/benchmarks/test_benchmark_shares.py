"""The benchmark of shares: a stopwatch by hand, and a small run whose stages add up."""

import contextlib
import json

import pytest

from benchmarks import shares, stopwatch
from benchmarks.stopwatch import AtOnce, Stopwatch, replaced, watching
from xray.errors import InputError
from xray.radiographs import canvas


@pytest.fixture
def clock(monkeypatch):
    """A clock that only `clock.tick` moves."""

    class Clock:
        now = 0.0

        def tick(self, seconds):
            self.now += seconds

    made = Clock()
    monkeypatch.setattr(stopwatch.time, "process_time", lambda: made.now)
    return made


def test_the_innermost_stage_counts(clock):
    watch = Stopwatch()

    def inner():
        clock.tick(2)
        raise ValueError("a decoder's")

    measured = watch.measured("inner", inner)

    def outer():
        clock.tick(1)
        with pytest.raises(ValueError, match="a decoder's"):
            measured()
        clock.tick(4)

    clock.tick(100)
    watch.measured("outer", outer)()
    clock.tick(100)
    watch.measured("outer", outer)()
    assert watch.seconds == {"outer": 10, "inner": 4}


def test_functions_are_as_before_afterwards():
    before, stages = canvas.Canvas.letterbox, [("resize", "xray.radiographs.canvas:Canvas.letterbox")]
    with contextlib.suppress(RuntimeError), watching(Stopwatch(), stages):
        assert canvas.Canvas.letterbox is not before
        raise RuntimeError
    assert canvas.Canvas.letterbox is before
    with pytest.raises(AttributeError, match="letterboxed"), replaced("xray.radiographs.canvas:Canvas.letterboxed", id):
        pass


def test_what_is_submitted_is_done_at_once():
    done, executor = [], AtOnce()
    assert executor.submit(done.append, 3).result() is None
    assert done == [3]
    failed = executor.submit(int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        failed.result()


def test_shares_by_hand():
    assert shares.shares_of({"start": 50.0, "network": 6.0, "decode": 2.0}) == {"network": 0.75, "decode": 0.25}


def test_stages_of_the_command(vinbig_run, vinbig_store, tmp_path, monkeypatch):
    """In this process, in place of one of its own; the stages are those that --overlays and mirroring have."""
    source = vinbig_store.parent / "source" / "test"
    command = shares.Command("32", overlays=True)
    seconds = command.run([vinbig_run, vinbig_run], source, tmp_path / "out", mirrored=True)
    assert set(seconds) == {"start", *shares.NAMES, "everything else"}
    assert (tmp_path / "out" / "predictions.json").exists()
    assert (tmp_path / "out" / "submission.csv").exists()
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 2
    for name in ("decode", "resize", "network", "suppression", "fusion", "overlays", "writing"):
        assert seconds[name] > 0, name
    assert seconds["masks"] == 0
    # What threads do that run beside this one would be nobody's.
    assert seconds["everything else"] >= 0


def test_a_radiograph_that_cannot_be_read_is_told(vinbig_run, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match="could not be read"):
        shares.Command("32", overlays=False).run([vinbig_run], tmp_path / "raw", tmp_path / "out", mirrored=False)


@pytest.mark.slow
def test_writes_its_numbers(tmp_path, capsys):
    path = tmp_path / "shares.json"
    config = shares.Config(n_images=4, image_size=64, backbone="resnet18", ways=("two",), repeats=1, save_path=path)
    shares.main(config)
    report = json.loads(path.read_text())
    assert report["parameters"]["n_images"] == 4
    assert set(report["results"]) == {"two"}
    assert sum(shares.shares_of(report["results"]["two"]).values()) == pytest.approx(1)
    out = capsys.readouterr().out
    assert "largest outside the network" in out
    assert "masks" not in out
