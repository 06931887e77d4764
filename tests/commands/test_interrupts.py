"""Ctrl-C and SIGTERM at any moment: the end comes soon, in one line, without traceback, and leaves nothing running."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import rarely
from forking import ROOT, session_of

HANGS = 300
"""Seconds after which a command that was to end is taken to hang; what it does takes longer."""
GROUP, ALONE, TERM = "Ctrl-C", "SIGINT to the process alone", "SIGTERM"


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Work that takes a while: pictures in two classes, and predictions of two models for a dataset of tables."""
    root = tmp_path_factory.mktemp("material")
    grey = np.random.default_rng(0)
    for number in range(100):
        folder = root / "raw" / ("ill" if number % 2 else "normal")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = grey.integers(20, 60, (1000, 900), dtype=np.uint8)
        pixels[200:300, 100 + number : 500] = 200
        assert cv2.imwrite(str(folder / f"{number:03d}.png"), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    (root / "table").mkdir()
    records = [
        {
            "id": row, "file_name": f"p{row}", "source_id": f"p{row}", "width": 1000, "height": 2000, "split": "train",
            "fold": row % 2,
        }
        for row in range(2000)
    ]  # fmt: skip
    boxes = [
        {"id": row + 1, "image_id": row, "category_id": 13, "bbox": [100, 100, 300, 300], "iscrowd": 0}
        for row in range(2000)
    ]
    from xray.findings import CATEGORIES

    content = {"images": records, "annotations": boxes, "categories": CATEGORIES}
    (root / "table" / "annotations.json").write_text(json.dumps(content))
    (root / "table" / "conversion.json").write_text(json.dumps({"source": "test", "parameters": {"image_size": 64}}))
    for name, shift in (("one", 20), ("two", 90)):
        rows = [
            {
                "image_id": f"p{row}", "category_id": 1 + number % 14, "bbox": [100 + shift, 90, 290, 300 + number],
                "score": 0.5,
            }
            for row in range(2000)
            for number in range(14)
        ]  # fmt: skip
        (root / f"{name}.json").write_text(json.dumps(rows))
    return root


def check_end(status, err, pid, how):
    wanted, word = (143, "terminated") if how == TERM else (130, "interrupted")
    assert status == wanted, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].endswith(word), err
    assert session_of(pid) == []


def send(pid, how):
    if how == GROUP:
        os.killpg(pid, signal.SIGINT)
    else:
        os.kill(pid, signal.SIGTERM if how == TERM else signal.SIGINT)


def wait_for_work(path, command):
    """Until something stands in a folder, which happens when the work begins."""
    end = time.monotonic() + 600
    while not (path.exists() and any(path.iterdir())):
        assert command.poll() is None, command.err
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("how", [GROUP, ALONE, TERM])
def test_work_in_pools_is_ended(forks, material, tmp_path, how):
    places = ["--data-path", material / "raw", "--save-path", tmp_path / "out"]
    command = forks.start("tools/convert.py", "folders", *places, "--n-workers", 2)
    wait_for_work(tmp_path / "out", command)
    time.sleep(0.3)
    send(command.pid, how)
    command.wait(HANGS)
    check_end(command.status, command.err, command.pid, how)
    assert not (tmp_path / "out" / "images.npy").exists()


def test_a_main_thread_that_computes_is_ended(tmp_path):
    """Handlers written in Python wait for the main thread; the signal itself wakes what ends the process."""
    program = (
        "import sys; sys.path[0] = sys.argv[1]\n"
        "from xray import interrupts; interrupts.watch()\n"
        "from xray.commands.runner import run_command\n"
        "import hashlib\n"
        "def main():\n"
        "    print('now', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)  # many minutes in one call\n"
        "run_command(main)\n"
    )
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen([sys.executable, "-c", program, str(ROOT)], **options)
    assert process.stdout.readline() == "now\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=HANGS)[1]
    assert (process.returncode, err) == (130, "interrupted\n")


def test_what_swallows_the_interruption_is_ended(tmp_path):
    program = (
        "import sys, time; sys.path[0] = sys.argv[1]\n"
        "from xray import interrupts; interrupts.watch()\n"
        "from xray.commands.runner import run_command\n"
        "class Deaf:\n"
        "    def __del__(self):\n"
        "        print('now', flush=True)\n"
        "        time.sleep(3000)\n"
        "def main():\n"
        "    Deaf()\n"
        "    time.sleep(3000)\n"
        "run_command(main)\n"
    )
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen([sys.executable, "-c", program, str(ROOT)], **options)
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGTERM)
    err = process.communicate(timeout=HANGS)[1]
    assert (process.returncode, err) == (143, "terminated\n")


def test_an_import_is_cut_off(tmp_path):
    """Its C++ code may abort the process for the exception: the module here stands for such a library."""
    (tmp_path / "library.py").write_text(
        "import os, time\n"
        "print('now', flush=True)\n"
        "try:\n"
        "    time.sleep(3000)\n"
        "except KeyboardInterrupt:\n"
        "    os.abort()\n"
    )
    program = (
        "import sys; sys.path[0] = sys.argv[1]; sys.path.append(sys.argv[2])\n"
        "from xray import interrupts; interrupts.watch()\n"
        "from xray.commands.runner import run_command\n"
        "run_command(lambda: __import__('library'))\n"
    )
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen([sys.executable, "-c", program, str(ROOT), str(tmp_path)], **options)
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=HANGS)[1]
    assert (process.returncode, err) == (130, "interrupted\n")


def test_an_ignored_signal_stays_ignored(tmp_path):
    """As `nohup` and a shell's background jobs ask for."""
    program = (
        "import os, signal, sys, time; sys.path[0] = sys.argv[1]\n"
        "from xray import interrupts; interrupts.watch()\n"
        "from xray.commands.runner import run_command\n"
        "run_command(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "print('still here')\n"
    )
    command = f"trap '' INT; exec {sys.executable} -c \"$0\" {ROOT}"
    done = subprocess.run(["sh", "-c", command, program], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "still here\n", "")


# ---- the commands as they are started by hand


def commands(material, runs, out):
    """Name → flags of commands that take long."""
    raw, table, one, two = (str(material / name) for name in ("raw", "table", "one.json", "two.json"))
    tiny = [
        "--backbone", "mobilenet_v2", "--fpn-channels", "16", "--rpn-samples", "8", "--roi-samples", "8", "--weights",
        "none", "--device", "cpu", "--n-workers", "2", "--batch-size", "2", "--data-path", str(runs["store"]),
        "--save-path", out,
    ]  # fmt: skip
    return {
        "tools/convert.py": ["folders", "--data-path", raw, "--save-path", out, "--n-workers", "2"],
        "tools/phantoms.py": ["--save-path", out, "--size", "1500", "--n-workers", "2"],
        "tools/view.py": ["--data-path", str(runs["store"]), "--save-path", out, "--all"],
        "tools/infer.py": [
            "--weights", str(runs["run"]), "--data-path", raw, "--save-path", out, "--device", "cpu", "--overlays",
            "--n-workers", "2",
        ],
        "tools/evaluate.py": [
            "--predictions", one, "--data-path", table, "--save-path", out, "--resamples", "100000",
        ],
        "tools/fuse.py": ["--predictions", *[one, two] * 3, "--data-path", table, "--save-path", out],
        "tools/refine.py": ["--predictions", one, "--masks", two, "--data-path", table, "--save-path", out, "--fit"],
        "tools/export.py": ["--weights", str(runs["run"]), str(runs["run"]), "--format", "run", "--save-path", out],
        "tools/lr_find.py": [*tiny, "--n-steps", "100000", "--max-lr", "1e-6"],
        "tools/benchmark.py convert": ["--n-images", "8", "--n-workers", "2", "--repeats", "50"],
        "tools/benchmark.py fuse": ["--n-images", "2000"],
        "tools/benchmark.py memory": ["--n-images", "200", "400", "800"],
        "tools/cv.py": [*tiny, "--n-epochs", "10000"],
        "xray/train.py": [*tiny, "--n-epochs", "10000"],
    }  # fmt: skip


def wait_until_watching(process):
    """Until the command's first lines have run; before that it is the interpreter's start that is interrupted."""
    while process.poll() is None and len(os.listdir(f"/proc/{process.pid}/task")) < 2:
        time.sleep(0.002)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "name", rarely(commands(Path(), {"store": "", "run": ""}, ""), "tools/infer.py", "xray/train.py")
)
def test_every_command_ends_at_any_moment(name, material, vinbig_store, vinbig_run, tmp_path):
    tool, *sub = name.split()
    chance, n_hit = random.Random(name), 0
    # At once, while it imports, when it has just begun, and in the midst of it.
    for number, delay in enumerate((0.0, 0.5, 1.5, 3.0, 5.0)):
        how = (GROUP, ALONE, TERM)[number % 3]
        if name in ("xray/train.py", "tools/cv.py") and how == TERM:
            # It saves what it has reached, which other tests are about.
            how = GROUP
        out = str(tmp_path / f"out{number}")
        flags = commands(material, {"store": vinbig_store, "run": vinbig_run}, out)[name]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
        process = subprocess.Popen([sys.executable, ROOT / tool, *sub, *flags], cwd=tmp_path, **options)
        wait_until_watching(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay * (0.7 + 0.6 * chance.random()))
        if process.poll() is not None:
            process.communicate()
            break
        send(process.pid, how)
        _, err = process.communicate(timeout=HANGS)
        if process.returncode == 0:
            break  # its work was done, and it was on its way out
        check_end(process.returncode, err, process.pid, how)
        n_hit += 1
    assert n_hit >= 2
