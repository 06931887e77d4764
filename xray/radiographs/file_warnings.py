"""What a command has to say about single files: collected while it runs, printed once at its end.

A warning is about a file that *is* used, though not as it stands, or about one that was skipped. A file that should
have been used and cannot be is a failure (`failures.csv`, `dropped` in conversion.json) instead.
"""

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from xray.radiographs.names import visible

NOT_RETRIEVED = "no radiograph, not retrieved"
"""Of objects that an archive has beside radiographs: reports, presentation states, CT."""
OWN_PICTURE = "pictures of findings, made by xray"
"""Of secondary captures of ours that came back to an archive: their findings would be found again."""


@dataclasses.dataclass(frozen=True, order=True)
class FileWarning:
    """Something about one file.

    kind: one of a few fixed texts, to count by. where: the file, relative to the data path, or the row of a table.
    detail: anything more.
    """

    kind: str
    where: str
    detail: str = ""


def summary_of(warnings: Iterable[FileWarning]) -> list[str]:
    """A line for each kind, most frequent first: the kind, how many, and the first of them."""
    by_kind: dict[str, FileWarning] = {}
    counts: Counter[str] = Counter()
    for warning in warnings:
        by_kind.setdefault(warning.kind, warning)
        counts[warning.kind] += 1
    lines = []
    for kind, count in counts.most_common():
        first = by_kind[kind]
        detail = f": {first.detail}" if first.detail else ""
        lines.append(visible(f"{count} × {kind} ({'first: ' if count > 1 else ''}{first.where}{detail})"))
    return lines


def print_warnings(warnings: Sequence[FileWarning], where: str = "") -> None:
    """Prints the summary on stderr, and `where` all of them are listed."""
    lines = summary_of(warnings)
    for line in lines:
        print(f"warning: {line}", file=sys.stderr)
    if lines and where:
        print(f"warnings: {where}", file=sys.stderr)
