"""The command `xray`: what it lists, what it hands to which command, and what it costs to ask."""

import importlib
import os
import subprocess
import sys

import pytest

from xray import __main__, __version__

LIGHT = """
import sys
import xray.__main__
sys.argv = ["xray", "--help"]
status = xray.__main__.main()
heavy = {"torch", "numpy", "tyro", "rich", "pandas", "cv2"} & set(sys.modules)
sys.exit(f"status {status}, imported {heavy}" if status or heavy else 0)
"""


START = """
import atexit
import xray.__main__

class Last:
    def __del__(self):
        print("taken apart")

def run(name):
    xray.__main__.last = Last()
    atexit.register(print, "tidied up")
    print(f"ran {name}")
    if name == "train":
        raise ValueError("as Python prints it")
    return 3

xray.__main__.run = run
xray.__main__.start(NAME)
"""


@pytest.fixture
def xray(monkeypatch, capsys):
    """(arguments) → (exit status, stdout, stderr) of the command, in this process."""

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["/bin/xray", *args])
        try:
            status = __main__.main()
        except SystemExit as stop:
            status = stop.code or 0
        said = capsys.readouterr()
        return status, said.out, said.err

    monkeypatch.setattr(__main__.interrupts, "watch", lambda *signals: None)
    return call


@pytest.mark.parametrize("args", [(), ("--help",), ("-h",)])
def test_all_commands_are_listed_with_a_line_each(xray, args):
    status, out, err = xray(*args)
    assert (status, err) == (0, "")
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert listed == list(__main__.COMMANDS)


def test_asking_costs_no_heavy_import():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("name", "status", "out"), [("infer", 3, ""), ("train", 1, "taken apart\n")])
def test_a_command_ends_with_its_status_and_without_taking_modules_apart(name, status, out):
    code = START.replace("NAME", repr(name))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, f"ran {name}\ntidied up\n{out}")
    assert ("ValueError: as Python prints it" in done.stderr) == (name == "train")


@pytest.mark.parametrize("name", __main__.COMMANDS)
def test_each_name_is_a_module_with_flags(name):
    module = importlib.import_module(f"xray.commands.{name}")
    assert callable(module.run)
    assert module.Config is not None


def test_flags_reach_the_command_and_its_status_comes_back(xray, tmp_path):
    status, out, _ = xray("phantoms", "--help")
    assert status == 0
    assert out.startswith("usage: xray phantoms ")
    status, _, err = xray("fuse", "--predictions", str(tmp_path / "no.json"), "--save-path", str(tmp_path / "out"))
    assert status == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    # A command whose name has an underscore may be spelt with a hyphen.
    status, out, _ = xray("lr-find", "--help")
    assert status == 0
    assert "usage: xray lr-find" in out


def test_other_names(xray):
    status, out, err = xray("convrt")
    assert (status, out) == (2, "")
    assert err == "error: xray has no command convrt: did you mean convert?\n"
    assert xray("--version") == (0, f"xray {__version__}\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_flags(xray, tmp_path, shell):
    status, _, _ = xray("--tyro-write-completion", shell, str(tmp_path / "xray"))
    assert status == 0
    script = (tmp_path / "xray").read_text()
    assert all(word in script for word in (*__main__.COMMANDS, "vinbig", "--n-epochs", "--overlays"))


@pytest.mark.parametrize("args", [("--help",), ("fuse", "--help")])
def test_a_reader_that_has_gone_is_no_error(args):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "xray", *args], stdout=closed, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (__main__.PIPE_CLOSED, "")
