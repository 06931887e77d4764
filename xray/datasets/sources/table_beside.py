"""Columns beside a column of labels that may change what its rows say: whether a label is there, or a row counts.

Tables of one row a radiograph and label (`finding, present`; what pandas' melt makes) name labels that are absent, too.
"""

from collections.abc import Iterable, Mapping

from xray.datasets.sources.table_answers import answer, is_answers, no_answer
from xray.datasets.sources.tables import plain_name
from xray.errors import InputError
from xray.structures.values import finite_number

SAID = (
    "present", "ispresent", "presence", "positive", "ispositive", "found", "isfound", "detected", "exists", "value",
    "answer", "status", "result", "assertion", "polarity", "certainty", "negated", "isnegated", "negation", "absent",
    "isabsent",
)  # fmt: skip
"""Names of columns that say of each row whether its label is there, without case and punctuation."""
_DENYING = ("negated", "isnegated", "negation", "absent", "isabsent")
"""Those of them in which a yes says that the label is not there."""
_CERTAINTY = "certainty"
"""One of them whose no is a doubt: its words are read, 0 and 1 are not."""
_MAY_MEASURE = ("value", "answer", "result", "status", "certainty")
"""Those of them that may as well hold a size in millimetres, or a grade."""
_SCORES = ("score", "scores", "confidence", "conf", "probability", "prob")

OF_ANSWERS = "columns of yes and no beside the labels, which are not used: all rows count"
OF_SCORES = "columns of scores, which are not used: a truth has none, are these predictions?"
OF_NUMBERS = "columns of numbers beside the labels, which are not used: all rows count"
OF_PLACES = "columns of numbers that may be boxes, and are not used: name them with --columns"


def said_column(columns: Mapping[str, Mapping[str, int]], file: str) -> str | None:
    """The column that says whether each row's label is there; None where there is none, or it never says no.

    columns: those that have no use yet → their distinct filled cells, and in how many rows each stands. file: for
    messages. Raises InputError for a column of such a name in which few cells are no answers.
    """
    by_name = {plain_name(column): column for column in columns}
    for name in SAID:
        texts = columns.get(by_name.get(name, ""), {})
        if name == _CERTAINTY and any(map(_is_no, texts)):
            continue
        if len(texts) > 1 and is_answers(texts):
            return by_name[name]
        if name in _MAY_MEASURE and _is_measured(texts):
            continue
        if (other := no_answer(texts)) is not None:
            # Passed over, it would make findings of those that it says are absent.
            raise InputError(
                f"{file}: {by_name[name]} has {other!r} beside 1, 0 and -1, and may say whether the label of its row "
                "is there: correct it, or rename the column if it says something else"
            )
    return None


def is_denying(column: str, texts: Iterable[str]) -> bool:
    """Whether a yes in the column says that the label of its row is not there. Words such as absent say so by
    themselves."""
    words = {" ".join(text.casefold().split()) for text in texts}
    return plain_name(column) in _DENYING and not words & {"absent", "present", "negated", "affirmed", "asserted"}


def _is_no(text: str) -> bool:
    try:
        return answer(text) == 0
    except ValueError:
        return False


def doubts_of(
    columns: Mapping[str, Mapping[str, int]], no_labels: Iterable[str], has_boxes: bool
) -> dict[str, list[str]]:
    """What is said of columns that are not used → these columns.

    columns: as for `said_column`. no_labels: plain names of columns that hold 0 and 1 and mean nothing here.
    """
    said: dict[str, list[str]] = {}
    passed_over = set(no_labels)
    of_places = [column for column in columns if not has_boxes and _is_numbers(columns[column])]
    initials = {plain_name(column)[:1] for column in of_places}
    for column, texts in columns.items():
        name = plain_name(column)
        if name in _SCORES and _is_numbers(texts) and len(texts) > 1:
            said.setdefault(OF_SCORES, []).append(column)
        elif name not in passed_over and len(texts) > 1 and is_answers(texts):
            said.setdefault(OF_ANSWERS, []).append(column)
        elif name in _MAY_MEASURE and len(texts) > 1 and _is_measured(texts):
            said.setdefault(OF_NUMBERS, []).append(column)
        elif column in of_places and {"x", "y"} <= initials and name[:1] in "xywh":
            said.setdefault(OF_PLACES, []).append(column)
    return said


def _is_measured(texts: Iterable[str]) -> bool:
    """Whether cells are measurements: numbers, of which several, or one with a fraction above 1, are no answers."""
    texts = list(texts)
    if not _is_numbers(texts):
        return False
    others = {number for text in texts if (number := float(text.replace(",", "."))) not in (0, 1, -1)}
    # Between 0 and 1 they may be shares of readers who say yes.
    return any(abs(number) > 1 for number in others) and (len(others) > 1 or not all(map(float.is_integer, others)))


def _is_numbers(texts: Iterable[str]) -> bool:
    try:
        return all(finite_number(text.replace(",", ".")) is not None for text in texts)
    except ValueError:
        return False
