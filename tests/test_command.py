"""Flags into dataclasses, and exceptions into one line and an exit status."""

import dataclasses
import sys

import pytest

from xray.command import FlagError, InputError, command, parse_flags, run_command


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
def test_wrong_flags_end_with_status_2_and_are_named(args, named, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_flags(Config, args)
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


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
    ],
)  # fmt: skip
def test_an_exception_becomes_one_line_and_a_status(error, status, line, capsys):
    def main():
        raise error

    assert run_command(main) == status
    captured = capsys.readouterr()
    assert captured.err == line
    assert captured.out == ""


@pytest.mark.parametrize("error", [InputError("a"), FlagError("b"), KeyError("c")])
def test_debug_keeps_the_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error)):
        run_command(main, debug=True)


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
