"""Paths that are not there, and what was probably meant."""

from pathlib import Path

import pytest

from xray.flags.meant import MOST_LISTED, meant_by, with_meant


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
