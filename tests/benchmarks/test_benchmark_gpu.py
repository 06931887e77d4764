"""The benchmark of a GPU, on a CPU in miniature: what fails or takes too long becomes a row, and the rest is kept."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import rarely
from contending import Here

from benchmarks import gpu, gpu_sections, processes
from benchmarks.gpu_rows import Rows, Settings
from benchmarks.gpu_sections import SECTIONS, Section
from benchmarks.needs import unmet
from xray.errors import FlagError, InputError

ROOT = Path(__file__).resolve().parents[2]


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_are_held_against_their_targets(tmp_path):
    rows = Rows("speed", tmp_path / "rows")
    rows.add("fast", 300.0, "images/s", target=250)
    rows.add("slow", 200.0, "images/s", target=250)
    rows.add("difference", 0.0, target=0.0, at_most=True)
    rows.add("name", "H200", target=1)
    assert [row["met"] for row in read(tmp_path / "rows")] == [True, False, True, None]
    with rows.attempt("boxes"):
        raise InputError("they differ\nby much")
    with rows.attempt("import"):
        raise ModuleNotFoundError("No module named 'timm'")
    assert [row["failed"] for row in read(tmp_path / "rows")[4:]] == [
        "they differ",
        "ModuleNotFoundError: No module named 'timm'",
    ]
    Rows("speed", tmp_path / "miniature", judged=False).add("slow", 1.0, target=250)
    assert read(tmp_path / "miniature")[0]["met"] is None


def test_a_section_that_fails_says_so(tmp_path, monkeypatch):
    def fails(settings, rows):
        rows.add("before", 1.0)
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setitem(SECTIONS, "fails", Section(fails, "memory", 1))
    settings = Settings("cpu", True, tmp_path)
    gpu_sections.run("fails", Settings.of(json.loads(json.dumps(settings.plain()))))
    rows = read(settings.rows_of("fails"))
    assert [row["what"] for row in rows] == ["before", "memory"]
    assert rows[1]["failed"] == "RuntimeError: CUDA out of memory"


SECTION = """
import json, subprocess, sys, time
from pathlib import Path
name, folder = sys.argv[-2], Path(json.loads(sys.argv[-1])["folder"])
(folder / f"{name}.jsonl").write_text(json.dumps({"section": name, "what": "early", "value": 1.0}) + chr(10))
if name == "hangs":
    child = subprocess.Popen(["sleep", "600"])
    (folder / "child.part").write_text(str(child.pid))
    (folder / "child.part").rename(folder / "child")
    time.sleep(600)
sys.exit("it broke down" if name == "breaks" else 0)
"""


def test_what_hangs_or_breaks_leaves_what_it_measured(tmp_path, monkeypatch):
    started = tmp_path / "child"

    class Process(subprocess.Popen):
        def __init__(self, command, **options):
            super().__init__([sys.executable, "-c", SECTION, *command[-2:]], **options)

        def wait(self, timeout=None):
            if timeout == 7:
                # Its time is over once it has done what it does before it hangs, however slow the machine is.
                while not started.exists():
                    time.sleep(0.02)
                raise subprocess.TimeoutExpired("", timeout)
            return super().wait(timeout)

    monkeypatch.setattr(gpu.subprocess, "Popen", Process)
    settings = Settings("cpu", True, tmp_path)
    hung = gpu.run_section("hangs", settings, limit=7)
    assert [row["what"] for row in hung] == ["early", ""]
    assert hung[1]["failed"] == "it took more than 7 s"
    # What it had started is gone with it, or is about to be.
    child = Path("/proc") / started.read_text() / "stat"
    while child.exists() and " Z " not in child.read_text():
        time.sleep(0.02)
    assert gpu.run_section("breaks", settings, limit=600)[1]["failed"] == "it broke down"
    assert gpu.run_section("late", settings, limit=1) == [{"section": "late", "what": "", "failed": "no time was left"}]
    assert [row["what"] for row in gpu.run_section("well", settings, limit=600)] == ["early"]


def test_writes_after_each_section(tmp_path, monkeypatch, capsys):
    target, seen = tmp_path / "gpu.json", []

    def section(name, settings, limit):
        seen.append((name, limit, json.loads(target.read_text())["rows"] if target.exists() else []))
        if name == "train":
            return [{"section": name, "what": "", "failed": "a | b"}]
        row = {"section": name, "what": "rate", "value": 12.0, "unit": "images/s", "target": 250.0, "at_most": False}
        return [{**row, "met": False}]

    monkeypatch.setattr(gpu, "run_section", section)
    config = gpu.Config(device="cpu", save_path=target, sections=("train", "boxes"), seconds=100)
    assert gpu.main(config) == 1
    # In the order of the benchmark, each within its own limit and what is left.
    assert [(name, len(rows)) for name, _, rows in seen] == [("boxes", 0), ("train", 1)]
    assert 59 < seen[0][1] <= 60
    assert 94 < seen[1][1] <= 95
    report = json.loads(target.read_text())
    assert report["versions"]["torch"]
    assert set(report["seconds"]) == {"boxes", "train"}
    table = (tmp_path / "gpu.md").read_text()
    assert "| boxes | rate | 12 images/s | ≥ 250 images/s | missed |" in table
    assert "| train |  | failed: a / b |  |  |" in table
    assert "torch " in table
    assert str(target) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({}, FlagError, "--save-path is not given"),
        ({"save_path": Path("nowhere/x.json")}, InputError, "no folder nowhere"),
        ({"sections": ("trian",), "save_path": Path("x.json")}, FlagError, "--sections trian: give some of machine"),
        ({"seconds": 0.0}, FlagError, "--seconds is 0"),
    ],
)
def test_refuses_unusable_flags(flags, error, message):
    with pytest.raises(error, match=message):
        gpu.main(gpu.Config(**flags))


def test_says_what_is_missing(tmp_path):
    setup = tmp_path / "setup.cfg"
    setup.write_text("[options]\ninstall_requires =\n    torch>=999\n    no-such-package>=1\n    numpy>=1\n")
    torch, absent = unmet(setup)
    assert torch.startswith("torch>=999 (installed: ")
    assert absent == "no-such-package>=1 (not installed)"
    assert unmet() == []


@pytest.mark.slow
def test_the_script_starts_it(tmp_path):
    script = ROOT / "benchmarks" / "gpu.sh"
    flags = ["out", "--miniature", "--device", "cpu", "--sections", "machine"]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run([script, *flags], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| machine | device | cpu |  |  |" in (tmp_path / "out" / "gpu.md").read_text()
    assert (tmp_path / "out" / "gpu.json").exists()


def in_this_process(name, settings, limit):
    """The rows of a section without a process of its own, whose imports take longer than most sections."""
    gpu_sections.run(name, settings)
    return read(settings.rows_of(name))


@pytest.mark.parametrize("run_section", rarely([in_this_process, gpu.run_section]))
def test_in_miniature_on_a_cpu(tmp_path, monkeypatch, run_section):
    """With tiny networks; no section fails, by night neither in its process."""
    monkeypatch.setattr(gpu, "run_section", run_section)
    monkeypatch.setattr(processes, "Contender", Here)
    sections = ("boxes", "train", "infer", "determinism", "resume", "ddp", "train_loaded", "load")
    path = tmp_path / "gpu.json"
    assert gpu.main(gpu.Config(device="cpu", miniature=True, save_path=path, seconds=86_400, sections=sections)) == 0
    report = json.loads(path.read_text())
    assert list(report["seconds"]) == list(sections)
    assert not [row for row in report["rows"] if "failed" in row]
    # Nothing but rounding may differ where a CPU is held against itself.
    of = {(row["section"], row["what"]): row["value"] for row in report["rows"]}
    assert of["boxes", "float32: found by both"] == of["train", "float32: detections found by both"] == 100
    weights = {section: value for (section, what), value in of.items() if "weights" in what}
    assert weights == {"determinism": 0, "resume": 0, "ddp": pytest.approx(0, abs=1e-5)}


@pytest.mark.parametrize("name", rarely(["runtimes", "compiled"]))
def test_what_needs_a_compiler_or_another_runtime(name, tmp_path):
    settings = Settings("cpu", True, tmp_path)
    gpu_sections.run(name, settings)
    rows = read(settings.rows_of(name))
    assert rows
    if name == "runtimes":
        assert not [row for row in rows if "failed" in row]
