"""Help is wrapped to the terminal, and nowhere else."""

import contextlib
import io
import itertools
import os
import re
import shutil

import pytest

from xray.commands import convert, evaluate, infer, phantoms, serve
from xray.commands.lr_find import read_sweep
from xray.errors import FlagError
from xray.flags import parse_flags
from xray.flags.helptexts import description_of, helptexts, wide_enough
from xray.phantoms.layouts import LAYOUTS
from xray.training.config import TASKS
from xray.training.recipes import read_training_flags


def help_of(call) -> list[str]:
    # As a terminal that can draw boxes.
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
        call()
    said.seek(0)
    return re.sub(r"\x1b\[[0-9;]*m", "", said.read()).splitlines()


CALLS = {
    "infer": lambda: parse_flags(infer.Config, ["--help"]),
    "serve": lambda: parse_flags(serve.Config, ["--help"]),
    "evaluate": lambda: parse_flags(evaluate.Config, ["-h"]),
    "convert": lambda: parse_flags(convert.Config, ["coco", "--help"]),
    **{task: lambda task=task: read_training_flags(["--task", task, "--help"]) for task in TASKS},
}


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("name", CALLS)
def test_lines_end_where_the_next_word_does_not_fit(name, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = help_of(CALLS[name])
    assert max(map(len, lines[1:])) <= max(width, 102 if name == "convert" else 0)
    inside = [line[2:-2] for line in lines if line.startswith("│")]
    # The texts stand right of the flags, all at one place.
    start = min(len(one) - len(one.lstrip()) for one in inside if one.startswith("      "))
    n = 0
    for one, below in itertools.pairwise(inside):
        is_text = one[start - 2 : start] == "  " and one[start:].strip() and below.startswith(" " * start)
        if is_text and not below.startswith(" " * (start + 1)) and not one.startswith("--") | ("]" in one[:start]):
            n += 1
            assert len(one.rstrip()) + 1 + len(below.split()[0]) > len(one), (one, below)
    assert n > 10


def test_what_is_said_is_what_stands_under_the_field():
    texts = helptexts(infer.Config)
    assert texts["scales"].startswith("Sizes of the canvas that detectors and segmenters look at, 0.25 to 4 times the ")
    assert "such as 0.8 1 1.25: the decoded canvas" in texts["scales"]
    assert set(texts) == set(infer.Config.__dataclass_fields__)
    assert helptexts(int) == helptexts(type("New", (), {})) == {}


def test_flags_are_the_same_after_their_help():
    before = dict(infer.Config.__annotations__)
    help_of(CALLS["infer"])
    assert infer.Config.__annotations__ == before
    help_of(CALLS["detection"])
    with pytest.raises(FlagError, match="--fold is 100"):
        read_training_flags(["--fold", "100"])


def test_a_description_is_wrapped_by_paragraphs(monkeypatch):
    monkeypatch.setenv("COLUMNS", "24")
    assert description_of("One sentence that is\n    longer than a line.\n\n  And another.\n") == (
        "One sentence that is\n  longer than a line.\n\nAnd another."
    )


@pytest.mark.parametrize("width", ["1", "20", "39"])
def test_a_terminal_of_a_few_columns_gets_lines_of_40(width, monkeypatch, capsys):
    """In which tyro itself does not come to an end."""
    monkeypatch.setenv("COLUMNS", width)
    # The first line names the program.
    assert max(map(len, help_of(lambda: parse_flags(phantoms.Config, ["--help"]))[1:])) == 40
    read_sweep(["--help"])
    assert "--help" in capsys.readouterr().out
    # What is wrong is said, too, and other programs see the terminal as it is.
    with pytest.raises(FlagError, match="--n-trian"):
        parse_flags(phantoms.Config, ["--save-path", "x", "--n-trian", "3"])
    assert os.environ["COLUMNS"] == width


def test_a_width_that_is_not_in_the_environment_does_not_stay_there(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((7, 24)))
    with wide_enough():
        assert shutil.get_terminal_size().columns == 40
    assert shutil.get_terminal_size().columns == 7


def test_phantoms_names_each_of_its_trees(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    said = " ".join(help_of(lambda: parse_flags(phantoms.Config, ["--help"])))
    listed = re.sub(r"[\s│]", "", said.split("--trees [{")[1].split("}")[0]).split(",")
    assert listed == [*phantoms.DEFAULT_TREES, *LAYOUTS]
    assert len(listed) == 24
