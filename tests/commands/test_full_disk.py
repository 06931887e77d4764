"""A full disk amid the work: one clear line, nothing half-written under its name, and it goes on afterwards."""

import shutil
import subprocess

import cv2
import numpy as np
import pytest
from conftest import rarely
from forking import contents, under_final_names
from test_killed_conversion import flags as convert_flags
from test_killed_conversion import raw  # noqa: F401 (a fixture)

FULL = "error: the disk is full: make room there, then give the same command again"


@pytest.fixture
def small_disk(tmp_path):
    """(bytes) → the folder of a file system of that size, as long as the test runs."""
    mounted = []

    def mount(n_bytes):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("mount") else None
        if done is None or done.returncode:
            pytest.skip("no file system can be mounted here: it takes the administrator of a Linux machine")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder, left):
    """Takes all but that many bytes of a disk."""
    free = shutil.disk_usage(folder).free
    (folder / "others").write_bytes(b"\0" * max(0, free - left))


def exhaust(forks, disk, command_flags, whole, rooms, **orders):
    """Runs a command with so much room on the disk, each time anew, and again after room was made; returns how many

    ran out of it.
    """
    expected, n_full = contents(whole), 0
    for room in rooms:
        out = disk / "out"
        fill(disk, room)
        command = forks.run(*command_flags(out), **orders)
        left = under_final_names(out) if out.exists() else {}
        assert left.items() <= expected.items(), room
        if "could not be read" not in command.err.splitlines()[-1] and command.status:
            n_full += 1
            assert command.status == 1
            last = command.err.splitlines()[-1]
            # Conversion looks at the disk before it begins.
            assert last == FULL or "need" in last, command.err
            assert "Traceback" not in command.err
        (disk / "others").unlink()
        forks.run(*command_flags(out), **orders)
        assert contents(out) == expected, room
        shutil.rmtree(out)
    return n_full


EAGER = {"xray.datasets.journal:CHECKPOINT_SECONDS": 0.0}


def test_a_conversion_goes_on_once_there_is_room(forks, raw, small_disk, tmp_path):  # noqa: F811
    def flags(out):
        return convert_flags("vinbig", raw, out)

    assert forks.run(*flags(tmp_path / "whole"), alone=True).status == 0
    disk = small_disk(300_000)
    # 9 canvases take 20 kB; with less it does not begin.
    rooms = [12_288, 24_576, 28_672]
    assert exhaust(forks, disk, flags, tmp_path / "whole", rooms, alone=True, patch=EAGER) >= 2


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", rarely(["pictures", "maps"]))
def test_inference_goes_on_once_there_is_room(what, forks, vinbig_run, segmentation_run, small_disk, tmp_path):
    grey = np.random.default_rng(0)
    (tmp_path / "raw").mkdir()
    for number in range(10):
        pixels = grey.integers(20, 60, (70 + number, 90), dtype=np.uint8)
        assert cv2.imwrite(str(tmp_path / "raw" / f"{number}.png"), pixels)
    run, more = (vinbig_run, "--overlays") if what == "pictures" else (segmentation_run, "--probabilities")

    def flags(out):
        places = ["--weights", run, "--data-path", tmp_path / "raw", "--save-path", out]
        return ["tools/infer.py", *places, "--device", "cpu", "--precision", 32, "--n-workers", 0, more]

    assert forks.run(*flags(tmp_path / "whole")).status == 0
    size = sum(map(len, contents(tmp_path / "whole").values()))
    disk = small_disk(4 * size + 500_000)
    rooms = [0, 4096, *(int(size * share) for share in (0.2, 0.5, 0.8, 0.95))]
    assert exhaust(forks, disk, flags, tmp_path / "whole", rooms) >= 4


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_other_commands_say_so(forks, vinbig_store, side_run, small_disk, tmp_path):
    disk = small_disk(20_000_000)
    truth = [str(vinbig_store), "--save-path", disk / "out"]
    commands = {
        "tools/view.py": ["--data-path", *truth, "--n", 3],
        "tools/export.py": ["--weights", side_run, "--format", "torchvision", "--save-path", disk / "model.pth"],
        "tools/phantoms.py": [
            "--save-path",
            disk / "out",
            "--n-train",
            5,
            "--n-test",
            0,
            "--size",
            96,
            "--n-workers",
            0,
        ],
    }
    for tool, flags in commands.items():
        fill(disk, 8192)
        command = forks.run(tool, *flags)
        if tool == "tools/export.py":
            # torchvision has no mobilenet: what matters is that it is said before anything is written.
            assert command.status == 1
        else:
            assert (command.status, command.err.splitlines()[-1]) == (1, FULL), tool
            assert not list((disk / "out").rglob("*.png"))
        assert "Traceback" not in command.err
        (disk / "others").unlink()
        if tool != "tools/export.py":
            assert forks.run(tool, *flags).status == 0
            shutil.rmtree(disk / "out")
