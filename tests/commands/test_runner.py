"""Flags into dataclasses, and exceptions into one line and an exit status."""

import contextlib
import dataclasses
import os
import sys
from pathlib import Path

import pytest

from xray.commands.runner import command, run_command
from xray.errors import DISK_FULL, FlagError, InputError, need
from xray.flags import Share, ShareBelowOne, check_ranges, parse_flags
from xray.interrupts import Terminated


@dataclasses.dataclass(frozen=True)
class Config:
    """A command."""

    data_path: str
    """Where."""
    lr: float = 0.1
    """Rate."""
    tta: bool = True
    """Flip."""
    names: tuple[str, ...] = ()
    """Names."""
    debug: bool = False
    """Traceback."""


def test_flags_become_a_dataclass():
    config = parse_flags(Config, ["--data-path", "d", "--lr", "1e-3", "--no-tta", "--names", "a", "b"])
    assert config == Config("d", 0.001, False, ("a", "b"))
    assert parse_flags(Config, ["--data_path=d"]) == Config("d")
    assert parse_flags(Config, ["--lr", "2"], default=Config("x")) == Config("x", 2.0)


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--data-path", "d", "--learning-rate", "1"], "--learning-rate"),
        (["--data-path", "d", "--lr", "fast"], "--lr"),
        ([], "--data-path"),
        (["--data-path", "d", "stray"], "stray"),
    ],
)
def test_wrong_flags_end_with_status_2_and_are_named(args, named, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tool.py", *args])
    assert command(Config, lambda config: None) == 2
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1


def test_a_path_that_is_not_there_comes_with_the_one_beside_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "vinbig").mkdir()
    monkeypatch.setattr(sys, "argv", ["tool.py", "--data-path", str(tmp_path / "vinbg")])

    def fail(config):
        raise InputError(f"no data at {config.data_path}: make it")

    assert command(Config, fail) == 1
    said = capsys.readouterr().err
    assert said == f"error: no data at {tmp_path / 'vinbg'} (did you mean {tmp_path / 'vinbig'}?): make it\n"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("no data at x:\n  give another"), 1, "error: no data at x: give another\n"),
        (FlagError("--lr is 0"), 2, "error: --lr is 0\n"),
        (
            KeyError("weight"), 1,
            "error: unexpected KeyError: 'weight' (run again with --debug for the traceback)\n",
        ),
        (ValueError(), 1, "error: unexpected ValueError: ValueError (run again with --debug for the traceback)\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (Terminated(), 143, "terminated\n"),
        (OSError(28, "No space left on device"), 1, f"error: {DISK_FULL}\n"),
        (RuntimeError("write failed: No space left on device (os error 28)"), 1, f"error: {DISK_FULL}\n"),
        (
            OSError("AF_UNIX path too long"), 1,
            "error: the path of the folder for temporary files is too long for sockets: set TMPDIR to a shorter one\n",
        ),
        # The folders may name a patient.
        (
            PermissionError(13, "Permission denied", "/data/Doe/1.dcm"), 1,
            "error: unexpected PermissionError: Permission denied: 1.dcm (run again with --debug for the traceback)\n",
        ),
    ],
)  # fmt: skip
def test_an_exception_becomes_one_line_and_a_status(error, status, line, capsys):
    def main():
        raise error

    assert run_command(main) == status
    captured = capsys.readouterr()
    assert captured.err == line
    assert captured.out == ""


def test_a_name_in_an_error_commands_no_terminal(capsys):
    def main():
        raise InputError("no 'a\x1b[2J\nb\x9b1m'")

    assert run_command(main) == 1
    assert capsys.readouterr().err == "error: no 'a\\x1b[2J b\\x9b1m'\n"


@pytest.mark.parametrize("error", [InputError("a"), FlagError("b"), KeyError("c")])
def test_debug_keeps_the_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error)):
        run_command(main, debug=True)


def test_a_reader_who_has_gone_is_no_error(monkeypatch, capsys):
    read, write = os.pipe()
    os.close(read)
    gone = os.fdopen(write, "w")
    monkeypatch.setattr(sys, "stdout", gone)
    with pytest.raises(BrokenPipeError):
        run_command(lambda: print("help" * 20_000))
    monkeypatch.undo()

    def lose():
        raise BrokenPipeError(32, "Broken pipe")

    with contextlib.suppress(BrokenPipeError):
        gone.close()
    # Of a worker, where somebody reads.
    assert run_command(lose) == 1
    assert "unexpected BrokenPipeError" in capsys.readouterr().err


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1), (3, 3)])
def test_main_returns_the_status(returned, status):
    assert run_command(lambda: returned) == status


def test_command_reads_the_arguments_of_the_process(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tool.py", "--data-path", "d", "--debug"])
    seen = []
    assert command(Config, seen.append) == 0
    assert seen == [Config("d", debug=True)]

    def fail(config):
        raise InputError("bad")

    with pytest.raises(InputError):
        command(Config, fail)
    monkeypatch.setattr(sys, "argv", ["tool.py", "--data-path", "d"])
    assert command(Config, fail) == 1


@dataclasses.dataclass(frozen=True)
class Paths:
    """A command with paths."""

    weights: tuple[Path, ...]
    """Where."""
    save_path: Path | None = None
    """Where to."""
    name: str = ""
    """A name."""
    share: Share | None = None
    """A share."""


@pytest.mark.parametrize(
    "args",
    [
        ["--weights", ""],
        ["--weights="],
        ["--weights", "a", ""],
        ["--weights", "a", "--save-path", ""],
        ["--save_path="],
    ],
)
def test_an_empty_path_is_not_the_current_folder(args, monkeypatch, capsys):
    with pytest.raises(FlagError, match=r"--(weights|save.path) is empty: give a path"):
        parse_flags(Paths, args)
    monkeypatch.setattr(sys, "argv", ["tool.py", *args])
    assert command(Paths, lambda config: None) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert parse_flags(Paths, ["--weights", ".", "--name", ""]) == Paths((Path("."),))


@dataclasses.dataclass(frozen=True)
class Inheriting(Paths):
    """A command whose parent declares the share."""

    rest: ShareBelowOne = 0.0
    """Another."""


@pytest.mark.parametrize("config_type", [Paths, Inheriting])
@pytest.mark.parametrize(
    ("share", "fits"), [(None, True), (0.0, True), (1.0, True), (1.1, False), (float("nan"), False)]
)
def test_ranges(config_type, share, fits):
    config = config_type((), share=share)
    if fits:
        check_ranges(config)
    else:
        with pytest.raises(FlagError, match=r"^--share is (1\.1|nan): give 0 to 1$"):
            check_ranges(config)


def test_ranges_that_are_open_at_one_end():
    with pytest.raises(FlagError, match=r"^--rest is 1: it must be below 1$"):
        check_ranges(Inheriting((), rest=1))
    with pytest.raises(FlagError, match=r"^--rest is -1: it must be at least 0$"):
        check_ranges(Inheriting((), rest=-1))
    with pytest.raises(FlagError, match=r"^--share is 2: give 0 to 1$"):
        check_ranges(Inheriting((), share=2, rest=2), Paths)


def test_a_missing_extra_is_named_with_its_installation():
    need("--this", "remote", "json", "os")
    with pytest.raises(
        InputError, match=r'^--this needs no_such: pip install -e "\.\[remote\]" in the folder of xray$'
    ):
        need("--this", "remote", "json", "no_such")
