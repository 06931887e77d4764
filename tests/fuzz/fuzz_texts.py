"""Mutations of tables, run lengths, JSON and YAML: of their bytes, cells, values and lines.

A mutation is decided by (seed, kind, number) alone, so that any of millions can be made again.
"""

import json
import random
from typing import Any

from fuzz_bytes import any_bytes

NASTY = (
    "", " ", "-1", "0", "1", "0.0", "-0", "1e308", "1e400", "-1e400", "nan", "NaN", "inf", "-inf", "Infinity", "None",
    "null", "True", "9" * 25, "9" * 5000, "1" * 18, "-" + "9" * 30, "0x10", "1_000", "١٢٣", "²", "½", "1,5", "1;5",
    "=1+1", "@x", "'", '"', '""', "\\", "\0", "\r", "\n", "\t", "\ufeff", "\u202e", "\U0001f4a9", "é", "e\u0301",
    "../../etc/passwd", "..\\..\\x", "/etc/passwd", "C:\\x", "a" * 300, "a" * 100_000, "%s%n", "{0}", "<script>",
    "CON", ".", "..", "-rf", "~root", "a\x1b[31m", "1 2 3", "1 1", "0 0",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 14, 15, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e-320,
    1e308, float("nan"), float("inf"), float("-inf"), "", "a", "0", "nan", "../x", "\ud800", "\0", "x" * 5000, [], {},
    [[]], [None], [1, 2, 3, 4], [0, 0, 1e308, 1e308], [1, 2, 3], ["a"] * 4, [[1, 2, 3, 4, 5, 6]],
    [[0, 0, 1e6, 1e6, 0, 0]] * 3, [[float("nan")] * 6], [10**400] * 4, {"size": [40, 60], "counts": [2400]},
    {"size": [2**31, 2**31], "counts": "0"}, {"size": [1, 2**62], "counts": [2**62]},
    {"size": [40, 60], "counts": "ooooooo0"}, {"size": [0, 0], "counts": ""}, {"size": "ab", "counts": 1},
    {"counts": [1]}, {"a": {"b": {"c": []}}},
)  # fmt: skip
PAIRS = ("ab", "bc", "cd", "de", "ef", "fg", "gh")
LINES = (
    "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in PAIRS),
    "a: &a [*a]", "lr: !!python/object/apply:os.system ['true']", "lr: !!binary x", "? [1]\n: 2", "lr: 2024-13-45",
    "lr: 2024-02-30", "lr: 2024-01-01", "lr: 0b", "lr: 0x", "lr: 1:61:61", "lr: .inf", "lr: .nan", "lr: 1e-3",
    "lr: |\n  x", "- 1", "lr: {a: 1}", "<<: *a", "<<: [1]", "=: 1", "lr: '", 'lr: "', "\tlr: 1", "lr: " + "[" * 3000,
    "lr: " + "9" * 5000, "task: segmentation", "task: [1]", "task: ../x", "n_epochs: -1", "n_epochs: " + "9" * 30,
    "fold: yes", "---\na: 1", "%YAML 9.9", "\0", "\ufeff", "\x85", "lr: !!float x", "lr: !!int ''",
    "lr: !!timestamp x", "lr: !!bool x", "lr: !!set {a}", "lr: !!omap [a: 1]", "config: x.yaml", "save_path: \"\\0\"",
    "help: true", "a-b_c: 1", "resume: true", "debug: true",
)  # fmt: skip

Random = random.Random


def mutated(original: bytes, style: str, kind: str, seed: int, number: int) -> bytes:
    """The numbered mutation of a text of this style: csv, json, yaml or runs."""
    rng = random.Random(f"{seed} {kind} {number}")
    data = original
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if rng.random() < 0.25:
            data = any_bytes(data, rng)
            continue
        try:
            data = _STYLES[style](data, rng)
        except (ValueError, IndexError, RecursionError, OverflowError):
            data = any_bytes(data, rng)
    return data[: 2**22]


def csv_cells(data: bytes, rng: Random) -> bytes:
    """One mutation of a table's cells, rows or columns."""
    text = data.decode()
    rows = [row.split(",") for row in text.splitlines()]
    row = rng.choice(rows)
    column = rng.randrange(len(row))
    what = rng.randrange(12)
    if what <= 3:
        row[column] = rng.choice(NASTY)
    elif what == 4:
        row[column] = row[column] + rng.choice(NASTY)
    elif what == 5:
        rows.insert(rng.randrange(len(rows) + 1), list(rng.choice(rows)))
    elif what == 6:
        rows.pop(rng.randrange(len(rows)))
    elif what == 7:
        other = rng.randrange(len(row))
        for each in rows if rng.random() < 0.5 else [row]:
            each[column], each[other] = each[other], each[column]
    elif what == 8:
        row[column:column] = [rng.choice(NASTY)] * rng.choice((1, 2, 30))
    elif what == 9:
        del row[column:]
    elif what == 10:
        value = rng.choice(NASTY)
        for each in rows[1:]:
            each[column] = value
    else:
        made = rng.choice(("\n", "\r\n", "\r", "\n\n")).join(
            rng.choice((",", ",", ";", "\t")).join(row) for row in rows
        )
        return made.encode(rng.choice(("utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1")), "replace")
    return ("\n".join(",".join(row) for row in rows) + "\n").encode("utf-8", "surrogatepass")


def json_values(data: bytes, rng: Random) -> bytes:
    """One mutation of a value, a key or a list in JSON."""
    content = json.loads(data)
    places = list(_places(content))
    if not places:
        return json.dumps(rng.choice(VALUES)).encode()
    holder, key = rng.choice(places)
    what = rng.randrange(9)
    if what <= 3:
        holder[key] = rng.choice(VALUES)
    elif what == 4:
        del holder[key]
    elif what == 5:
        other_holder, other_key = rng.choice(places)
        holder[key] = json.loads(json.dumps(other_holder[other_key]))
    elif what == 6 and isinstance(holder, dict):
        holder[rng.choice(NASTY)] = holder.pop(key)
    elif what == 6:
        holder.insert(key, json.loads(json.dumps(rng.choice(holder))))
    elif what == 7:
        numbers = [place for place in places if type(place[0][place[1]]) in (int, float)]
        holder, key = rng.choice(numbers)
        holder[key] = rng.choice(
            (holder[key] + 1, -holder[key], holder[key] * 1000, holder[key] + 0.5, rng.uniform(-1e4, 1e4))
        )
    else:
        depth = rng.choice((10, 900, 3000, 100_000))
        made = json.dumps(content).encode()
        at = rng.randrange(len(made))
        return made[:at] + rng.choice((b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth)) + made[at:]
    return json.dumps(content).encode("utf-8", "surrogatepass")


def _places(content: Any) -> Any:
    """(holder, key or index) of every value."""
    if isinstance(content, dict | list):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            yield content, key
            yield from _places(content[key])


def yaml_lines(data: bytes, rng: Random) -> bytes:
    """One mutation of a recipe's lines."""
    lines = data.decode().splitlines()
    place = rng.randrange(len(lines))
    what = rng.randrange(7)
    if what <= 1:
        lines[place] = lines[place].partition(":")[0] + ": " + rng.choice(NASTY)
    elif what == 2:
        lines[place] = rng.choice(LINES)
    elif what == 3:
        lines.insert(place, rng.choice(LINES))
    elif what == 4:
        lines[place] = rng.choice((" ", "\t", "- ", "? ")) + lines[place]
    elif what == 5:
        lines[place] = rng.choice(NASTY) + ":" + lines[place].partition(":")[2]
    else:
        lines[place] = lines[place].partition(":")[0] + ": " + json.dumps(rng.choice(VALUES))
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def run_lengths(data: bytes, rng: Random) -> bytes:
    """One mutation of a list of numbers as text."""
    words = data.decode().split(" ")
    place = rng.randrange(len(words))
    what = rng.randrange(6)
    if what == 0:
        words[place] = rng.choice(NASTY)
    elif what == 1:
        words[place] = str(rng.randrange(-5, 3000))
    elif what == 2:
        words.pop(place)
    elif what == 3:
        words.insert(place, str(rng.choice((0, 1, -1, 2**31, 2**63, 2**64, 10**17))))
    elif what == 4:
        words *= rng.choice((2, 50 if len(words) < 1000 else 2))
    else:
        return rng.choice(("\t", "  ", ",", "\n", "")).join(words).encode()
    return " ".join(words).encode("utf-8", "surrogatepass")


_STYLES = {"csv": csv_cells, "json": json_values, "yaml": yaml_lines, "runs": run_lengths}
