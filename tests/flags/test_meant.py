"""Paths that are not there, and what was probably meant."""

import dataclasses
import importlib
import pkgutil
import typing
from pathlib import Path

import pytest

from xray import commands
from xray.flags.meant import MOST_LISTED, PATHS, meant_by, with_meant


@pytest.fixture(autouse=True)
def tree(tmp_path, monkeypatch):
    for name in ("data/vinbig/test", "data/lungs", "runs/fold0", "runs/Unet", "two words/in"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("demo.yaml", "out.json", "data/vinbig/train.csv"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("data/vinbg", "data/vinbig"),
        ("dta/vinbig/test", "data/vinbig/test"),
        ("data/vinbg/test/", "data/vinbig/test"),
        ("data/vinbg/absent", None),
        ("demo.yml", "demo.yaml"),
        ("runs/unet", "runs/Unet"),
        ("runs/fold1", None),  # another fold, and no slip
        ("two word/in", "two words/in"),
        ("data/vinbig", None),
        ("data/siim", None),
        ("demo.yaml/in", None),  # a file has nothing in it
        ("", None),
    ],
)
def test_what_was_meant(path, meant):
    assert meant_by(path) == (None if meant is None else Path(meant))
    whole = None if meant is None else Path.cwd() / meant
    assert meant_by(Path.cwd() / path) == whole


def test_a_folder_of_data_is_not_searched(tmp_path):
    for number in range(MOST_LISTED):
        (tmp_path / "data" / f"{number}.png").touch()
    assert meant_by("data/vinbg") is None


@pytest.mark.parametrize(
    ("message", "words", "said"),
    [
        ("no data at data/vinbg: load it", ["--data-path", "data/vinbg/"],
         "no data at data/vinbg (did you mean data/vinbig?): load it"),
        ("no config at demo.yml (gone)", ["--config=demo.yml"],
         "no config at demo.yml (did you mean demo.yaml?) (gone)"),
        ("no folder two word/in", ["two word/in"], "no folder two word/in (did you mean two words/in?)"),
        # Of a longer path, or of nothing at all.
        ("no data at data/vinbg/x.csv", ["--data-path", "data/vinbg"], None),
        ("--lr is 0", ["--data-path", "data/vinbg"], None),
        # What is to be written, and what lies elsewhere.
        ("data/vinbg is full", ["--save-path", "data/vinbg"], None),
        ("data/vinbg is full", ["--save_path=data/vinbg"], None),
        ("no s3://data/vinbg", ["--data-path", "s3://data/vinbg"], None),
        ("no data at data/vinbig", ["--data-path", "data/vinbig"], None),
        ("no \0 and no " + "x" * 999, ["\0", "x" * 999], None),
    ],
)  # fmt: skip
def test_what_a_message_says(message, words, said):
    assert with_meant(message, words) == (message if said is None else said)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        # Names of labels, columns and commands are no paths, whatever lies beside.
        ("--normal dmo: t.csv has no such label (its labels are dta)", ["table", "--normal", "dmo", "--label=dta"]),
        ("there is no table x.csv", ["convert", "tabel", "table", "--table", "x.csv"]),
        ("vinbg.csv: no column run", ["--id", "run", "--label", "vinbg.csv"]),
        # A table in the data path, whose namesake here is not meant.
        ("train.csv has no such column", ["--data-path", "data/vinbig", "--table", "train.csv"]),
    ],
)
def test_what_is_no_path_is_not_meant_for_one(tmp_path, message, words):
    for name in ("Dmo", "data2", "tables", "runs/vinbig.csv", "trains.csv", "run.csv", "demo2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert with_meant(message, words) == message


def test_what_lies_in_the_data_path_is_meant_as_it_is_to_be_given():
    words = ["--data-path", "data/vinbig", "--table", "trian.csv"]
    assert with_meant("there is no table trian.csv, neither in data/vinbig nor here", words) == (
        "there is no table trian.csv (did you mean train.csv?), neither in data/vinbig nor here"
    )


def test_every_flag_of_a_path_is_known():
    """PATHS is a list by hand: a flag that some command adds must be in it, or need not exist."""
    paths = set()
    for module in pkgutil.iter_modules(commands.__path__):
        for one in vars(importlib.import_module(f"xray.commands.{module.name}")).values():
            if dataclasses.is_dataclass(one) and isinstance(one, type) and one.__name__ == "Config":
                hints = typing.get_type_hints(one)
                paths |= {name for name, hint in hints.items() if Path in (hint, *typing.get_args(hint))}
    assert {name.replace("_", "-") for name in paths} - {"save-path"} <= PATHS
