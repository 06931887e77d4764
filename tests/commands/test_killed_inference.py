"""tools/infer.py killed at any moment goes on where it was: the same bytes, and nothing half-written under its name."""

import random
import signal
import time

import cv2
import numpy as np
import pytest
from forking import contents, under_final_names


@pytest.fixture(scope="module")
def pngs(tmp_path_factory):
    """16 radiographs, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("few") / "raw"
    folder.mkdir()
    grey = np.random.default_rng(0)
    for number in range(16):
        pixels = grey.integers(20, 60, (70 + number % 9, 90), dtype=np.uint8)
        pixels[20:50, 20 + number : 60] = 200
        assert cv2.imwrite(str(folder / f"{number:02d}.png"), pixels)
    (folder / "05.png").write_bytes(b"broken")
    return folder


def flags(weights, data, out, *more):
    places = ["--data-path", data, "--save-path", out, "--n-workers", 0, "--device", "cpu", "--precision", 32]
    return ["tools/infer.py", "--weights", *weights, *places, *more]


def kill_and_go_on(forks, command_flags, folder, n_kills, seed):
    """Kills that many commands, at file operations and at any time, and completes each; returns how many were hit."""
    folder.mkdir(exist_ok=True)
    whole = folder / "whole"
    began = time.monotonic()
    done = forks.run(*command_flags(whole), under=str(whole))
    seconds = time.monotonic() - began
    # A file could not be read.
    assert done.status == 1, done.err
    expected = contents(whole)
    chance, n_hit, n_went_on = random.Random(seed), 0, 0
    for number in range(n_kills):
        out = folder / str(number)
        for _ in range(1 + number % 2):
            if number % 4 == 3:
                command = forks.kill_after(seconds * (0.3 + 0.7 * chance.random()), out, *command_flags(out))
            else:
                die_at = chance.randint(1, done.n_operations)
                command = forks.run(*command_flags(out), under=str(out), die_at=die_at)
            n_hit += command.status == -signal.SIGKILL
            left = under_final_names(out) if out.exists() else {}
            assert left.items() <= expected.items(), (number, command.err)
        command = forks.run(*command_flags(out))
        assert command.status == 1
        assert "1 of 16 radiographs could not be read" in command.err or "holds predictions already" in command.err
        n_went_on += "continuing after" in command.err
        assert contents(out) == expected, number
    return n_hit, n_went_on


def test_killed_it_goes_on(forks, pngs, vinbig_run, tmp_path):
    n_hit, _ = kill_and_go_on(forks, lambda out: flags([vinbig_run], pngs, out, "--overlays"), tmp_path / "out", 1, 0)
    assert n_hit == 1


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", ["boxes and pictures", "maps and labels"])
def test_killed_at_many_moments_it_goes_on(
    what, forks, pngs, vinbig_run, segmentation_run, classification_run, tmp_path
):
    if what == "boxes and pictures":
        weights, more = [vinbig_run], ["--overlays"]
    else:
        weights, more = [segmentation_run, classification_run], ["--probabilities", "--overlays"]
    n_hit, n_went_on = kill_and_go_on(forks, lambda out: flags(weights, pngs, out, *more), tmp_path / "out", 8, 2)
    print(f"{what}: {n_hit} commands killed, {n_went_on} of 8 went on after radiographs found before")
    assert n_hit >= 8
    assert n_went_on >= 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_finished_predictions_stay_until_they_are_replaced(forks, pngs, vinbig_run, tmp_path):
    """With --overwrite each file is the old one or the new one, and the same command goes on."""
    forks.run(*flags([vinbig_run], pngs, tmp_path / "new", "--no-tta"))
    new = contents(tmp_path / "new")
    done = forks.run(*flags([vinbig_run], pngs, tmp_path / "old"))
    old = contents(tmp_path / "old")
    assert done.status == 1
    assert old != new
    chance = random.Random(4)
    for number in range(5):
        out = tmp_path / f"out{number}"
        forks.run(*flags([vinbig_run], pngs, out))
        again = flags([vinbig_run], pngs, out, "--no-tta", "--overwrite")
        command = forks.run(*again, under=str(out), die_at=chance.randint(1, 8))
        assert command.status in (-signal.SIGKILL, 1)
        for name, content in under_final_names(out).items():
            assert content in (old[name], new[name])
        forks.run(*again)
        assert contents(out) == new
