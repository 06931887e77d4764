"""What a labelling tool keeps of reviews with each drawn object: an attribute status, or a mark that it was deleted.

As in tables (`table_review`): what was rejected, or waits for a review, is no box, and its finding is unknown there.
"""

from collections.abc import Mapping

from xray.datasets.sources.table_review import COUNTS, state_said
from xray.structures.values import is_missing, shown

REVIEWED = "object that a review has rejected or not confirmed: its finding is unknown there"
IGNORED = "box ignored"


def withheld_by(said: Mapping[str, object]) -> str:
    """The attribute by which an object does not count, as "status: 'rejected'"; empty where it does.

    said: name → value of all that a file says of the object. Only what rejects it counts, or has it wait: tools write
    that nobody has verified an object of all that they have.
    """
    for name, value in said.items():
        if isinstance(value, bool):
            value = str(value)
        if isinstance(value, str | int) and not is_missing(value) and state_said(str(name), str(value)) != COUNTS:
            return f"{name}: {shown(value)}"
    return ""
