"""What a command has to say about single files: collected while it runs, told once at its end.

A warning concerns a file that *is* used, though not as it stands, or one that was passed over. What cannot be used at
all is a failure (`failures.csv`, `dropped` in conversion.json) instead.
"""

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True, order=True)
class RunWarning:
    """Something about one file.

    kind: one of a few fixed texts, to count by. where: the file, relative to the data path, or the row of a table.
    detail: anything more.
    """

    kind: str
    where: str
    detail: str = ""


def summary_of(warnings: Iterable[RunWarning]) -> list[str]:
    """A line for each kind, most frequent first: the kind, how many, and the first of them."""
    ordered = list(warnings)
    counts = Counter(warning.kind for warning in ordered)
    first: dict[str, RunWarning] = {}
    for warning in ordered:
        first.setdefault(warning.kind, warning)
    lines = []
    for kind, count in counts.most_common():
        detail = f": {first[kind].detail}" if first[kind].detail else ""
        lines.append(f"{count} × {kind} ({'first: ' if count > 1 else ''}{first[kind].where}{detail})")
    return lines


def tell(warnings: Sequence[RunWarning], where: str = "") -> None:
    """Prints the summary on stderr, and `where` all of them stand."""
    lines = summary_of(warnings)
    for line in lines:
        print(f"warning: {line}", file=sys.stderr)
    if lines and where:
        print(f"warnings: {where}", file=sys.stderr)
