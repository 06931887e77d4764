"""Which split a word means, or the name of a file or folder: Training, instances_train2017.json, valid/, test_set."""

import re

from xray.datasets.source import TEST, TRAIN, VAL
from xray.datasets.sources.tables import plain_name

WORDS_OF_SPLITS = {
    "train": TRAIN, "training": TRAIN, "trainval": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "dev": VAL,
    "test": TEST, "testing": TEST,
}  # fmt: skip
"""Words in the names of folders and files, and the split that each means."""
MORE_WORDS = {
    "trn": TRAIN, "development": TRAIN, "validate": VAL, "tune": VAL, "tuning": VAL, "tst": TEST, "holdout": TEST,
}  # fmt: skip
"""What sets call their splits, too; as a part of a name these may mean something else."""


def split_meant(text: str) -> str | None:
    """The split that a word means, without case and punctuation: "Training" is "train". None where it means none."""
    word = plain_name(text)
    return WORDS_OF_SPLITS.get(word) or MORE_WORDS.get(word)


def split_named(name: str) -> str | None:
    """The split that a name says, such as instances_train2017 or valid; None where it says none."""
    words = re.split(r"[^a-z]+", name.casefold())
    return next((WORDS_OF_SPLITS[word] for word in words if word in WORDS_OF_SPLITS), None)


def split_of(path: str) -> str | None:
    """The split of a file by its own name or, nearest first, by that of a folder that it is in."""
    *folders, name = path.split("/")
    return next((split for part in (name, *reversed(folders)) if (split := split_named(part))), None)


def split_of_folder(path: str) -> str | None:
    """The split of a file by the folders that it is in, nearest first."""
    folders = path.split("/")[:-1]
    return next((split for part in reversed(folders) if (split := split_named(part))), None)
