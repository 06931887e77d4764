"""Help is wrapped to the terminal, and nowhere else."""

import contextlib
import io
import itertools
import re

import pytest

from xray.commands import convert, evaluate, infer, serve
from xray.errors import FlagError
from xray.flags import parse_flags
from xray.flags.helptexts import description_of, helptexts
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
