"""YAML recipes of a training, as the flags that they stand for."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from xray.errors import InputError
from xray.structures.sides import NONE

MAX_CHARACTERS = 2**17
"""Longest recipe; PyYAML reads that many in a second or two."""

CHOSEN = "chosen"
"""Of a run's config: sentences about the values that training chose itself. It is no flag."""

_PLAIN = (str, int, float, bool, datetime.date, type(None))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of flags, names with dashes or underscores. Raises InputError if it is missing or not a mapping."""
    try:
        text = path.read_text()
        if len(text) > MAX_CHARACTERS:
            raise InputError(f"{path} has {len(text)} characters: a recipe needs no more than {MAX_CHARACTERS}")
        content = yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"no config at {path} ({error.strerror}): the recipes are in configs/") from None
    except InputError:
        raise
    except Exception as error:  # PyYAML's own, and others of malformed files
        raise InputError(f"{path} is not YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path} must have one `flag: value` on each line")
    if "help" in content:
        raise InputError(f"{path}: help is no flag of a recipe")
    for key, value in content.items():
        # Nested lists, which may refer to each other, are small in the file and endless as text.
        if not all(isinstance(item, _PLAIN) for item in (value if isinstance(value, list) else [value])):
            raise InputError(f"{path}: {key[:80]} must be one value, or a list of values")
    return {key.replace("-", "_"): value for key, value in content.items()}


def yaml_flags(recipe: dict[str, Any]) -> list[str]:
    """A recipe as command-line flags, so that both are checked by the same parser.

    It also reads `lr: 1e-3`, which YAML 1.1 takes for a text.
    """
    flags: list[str] = []
    for key, value in recipe.items():
        if key in ("task", CHOSEN):
            continue
        name = "--" + key.replace("_", "-")
        if isinstance(value, bool):
            flags.append(name if value else "--no-" + key.replace("_", "-"))
        elif isinstance(value, list):
            flags += [name, *(str(item) for item in value)]
        else:
            flags += [name, "" if value is None else str(value)]
    return flags


def joined_swaps(flags: Sequence[str]) -> list[str]:
    """Flags in which all of `--swap A=B`, `--swap=A=B` and `--no-swap` are joined to one `--swap`, at the end."""
    rest: list[str] = []
    swaps: list[str] = []
    open_ended = False
    for flag in flags:
        if flag.startswith("--"):
            open_ended = flag == "--swap"
            if flag == "--no-swap" or flag == "--no_swap":
                swaps.append(NONE)
            elif flag.startswith("--swap="):
                swaps.append(flag.removeprefix("--swap="))
            elif not open_ended:
                rest.append(flag)
        elif open_ended:
            swaps.append(flag)
        else:
            rest.append(flag)
    if "--swap" in flags and not swaps:
        return [*rest, "--swap", ""]
    return [*rest, "--swap", *dict.fromkeys(swaps)] if swaps else rest
