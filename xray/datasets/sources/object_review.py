"""What a labelling tool keeps of reviews with each drawn object: an attribute status, or a mark that it was deleted.

As in tables (`table_review`): what was rejected, or waits for a review, is no box, and its finding is unknown there.
"""

from collections.abc import Iterator, Mapping

from xray.datasets.sources.review_words import COUNTS, state_said
from xray.structures.values import is_missing, shown

REVIEWED = "object that a review has rejected or not confirmed: its finding is unknown there"
IGNORED = "box ignored"
_DEEPEST = 3


def withheld_by(said: Mapping[str, object]) -> str:
    """The attribute by which an object does not count, as "status: 'rejected'"; empty where it does.

    said: name → value of all that a file says of the object. Only what rejects it counts, or has it wait: tools write
    that nobody has verified an object of all that they have.
    """
    for name, value in _single(said):
        if not is_missing(value) and state_said(name, str(value)) != COUNTS:
            return f"{name}: {shown(value)}"
    return ""


def _single(said: Mapping[str, object], depth: int = 0) -> Iterator[tuple[str, str | float]]:
    """Names and values, also those within other values: review: {status: rejected}. Of several reviews the last counts;
    theirs has the name of the list where it has none that says more."""
    for name, value in said.items():
        last = value[-1] if isinstance(value, list) and value else value
        if isinstance(last, dict) and depth < _DEEPEST:
            yield from _single(last, depth + 1)
        elif isinstance(last, str | int | float) and (last is value or len(value) == 1):  # type: ignore[arg-type]
            yield str(name), last
