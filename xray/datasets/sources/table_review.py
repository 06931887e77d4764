"""Columns beside the labels that say what a review made of each row: `status` (confirmed, rejected), `deleted` (0, 1).

A rejected row is no finding, and no box; nor does it say that the finding is absent: somebody may have rejected the box
alone. What is pending is neither. Both are unknown.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from xray.datasets.sources.table_answers import answer, is_answers, is_named_as_split, is_question, is_unsaid, is_unsure
from xray.datasets.sources.tables import factorize, plain_name
from xray.errors import InputError
from xray.structures.values import is_missing, shown

if TYPE_CHECKING:
    import pandas as pd

COUNTS, PENDING, REJECTED = 0, 1, 2
"""What a review made of a row; of several columns the largest counts."""

OF_REVIEW = "columns that may say which rows a review took, and are not used: all rows count"
REJECTED_ROWS = "rows that a review has rejected: no findings, and unknown unless another reader says otherwise"
PENDING_ROWS = "rows that a review has not confirmed: unknown"

_ACCEPTED = re.compile(
    r"(re)?confirmed|accept(ed)?|approved?|verified|valid(ated)?|agree(d)?|correct(ed)?|ok(ay)?|pass(ed)?|keep|kept|done"
    r"|completed?|final(i[sz]ed)?|finished|reviewed|truepositive|tp|signed(off)?"
)
_REJECTED = re.compile(
    r"reject(ed)?|declined?|deleted?|removed?|denied|refused?|invalid(ated)?|incorrect|wrong|discard(ed)?|dismiss(ed)?"
    r"|disagree(d)?|disapproved?|falsepositive|fp|fail(ed)?|excluded?|cancell?ed|withdrawn|superseded|obsolete|void(ed)?"
    r"|erroneous|error|mistake|retracted|revoked|dropp?(ed)?|ignored?|hidden|not(accepted|approved|valid|correct|ok)"
)
_PENDING = re.compile(
    r"pending|open|waiting|draft|preliminary|provisional|deferred|onhold|inprogress|disputed|questioned|flagged"
    r"|(to|needs?|for|in|under|awaits?|awaiting|requires?|pending)(be)?(second)?(re)?(view|check|confirmation)(ed|ing)?"
    r"|(un|not)(yet)?(confirmed|verified|validated|accepted|approved|reviewed|checked|finished|completed?|done)"
)
_PREFIX = re.compile(r"^(is|was|are|has|hasbeen|markedas|marked)(?=.)")
_NAME = re.compile(
    r"status|state|review|approv|verif|verdict|decision|confirm|accept|reject|adjudic|validat|curat|disposition|^q[ac]"
)
_BESIDE = re.compile(r"(by|date|time|datetime|id|comments?|notes?|reason)$")
"""Of reviews, too: who made them and when. Words are not looked for there."""
_MOST_SHOWN, _MOST_WORDS = 6, 20
"""Cells that are shown; more different ones are no states."""


@dataclasses.dataclass(frozen=True)
class Review:
    """A column of a table that says which rows count. states: cell → COUNTS, PENDING or REJECTED. blank: of an empty
    cell."""

    column: str
    states: Mapping[str, int]
    blank: int = COUNTS

    def of_rows(self, table: "pd.DataFrame") -> np.ndarray:
        """(N,) int8, what it says of each row."""
        texts, code_of = factorize(table[self.column])
        of_text = [self.blank if is_missing(text) else self.states[text] for text in texts]
        states: np.ndarray = np.array([*of_text, self.blank], dtype=np.int8)[code_of]
        return states


def state_in(text: str) -> int | None:
    """What a word says of a row; None for what is no such word."""
    word = plain_name(text)
    if _REJECTED.fullmatch(word):
        return REJECTED
    if _ACCEPTED.fullmatch(word):
        return COUNTS
    return PENDING if _PENDING.fullmatch(word) or is_unsure(text) or is_unsaid(text) or is_question(text) else None


def state_said(name: str, value: str) -> int:
    """What one attribute of a drawn object says of it; COUNTS for what is none of a review, or confirms it or not."""
    if not _is_called_so(name):
        return COUNTS
    if is_review(name):
        try:
            return (_named_state(name) or COUNTS) if answer(value) == 1 else COUNTS
        except ValueError:
            return state_in(value) or COUNTS
    if not _may_say(name, {value: 1}) or (is_unsaid(value) and not _PENDING.fullmatch(plain_name(value))):
        return COUNTS
    return state_in(value) or COUNTS


def is_review(column: str) -> bool:
    """Whether a column of yes and no is called after what a review makes of a row: deleted, is_confirmed, to review.

    One called valid may be of the split for validating.
    """
    return _named_state(column) is not None and not is_named_as_split(column)


def reviews_in(columns: Mapping[str, Mapping[str, int]], file: str) -> tuple[Review, ...]:
    """The columns that say which rows count.

    columns: those that have no other use → their distinct filled cells, and in how many rows each stands. file: for
    messages. Raises InputError for one that is called so and has words for rejected or pending beside others.
    """
    found = []
    for column, texts in columns.items():
        if texts and is_review(column) and is_answers(texts):
            found.append(_of_answers(column, texts))
            continue
        if not _may_say(column, texts):
            continue
        states = {text: state_in(text) for text in texts}
        others = [text for text, state in states.items() if state is None]
        if not others:
            blank = PENDING if COUNTS in states.values() else COUNTS
            found.append(Review(column, {text: state for text, state in states.items() if state is not None}, blank))
        elif refused := next((text for text in texts if _may_reject(text)), None):
            # Passed over, it would make findings of what was rejected.
            raise InputError(
                f"{file}: {column} has {shown(refused)} beside {', '.join(map(shown, others[:3]))}, and may say which "
                "rows count: write accepted, rejected or pending there, or rename the column if it says something else"
            )
    return tuple(found)


def doubtful_reviews(columns: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Of columns that are not used those that may be of a review, with their cells.

    columns: as for `reviews_in`.
    """
    said = []
    for column, texts in columns.items():
        states = [state_in(text) for text in texts]
        is_known = bool(texts) and None not in states and REJECTED in states
        if is_known or (_may_say(column, texts) and not is_answers(texts)):
            more = f" and {len(texts) - _MOST_SHOWN} more" if len(texts) > _MOST_SHOWN else ""
            said.append(f"{column} ({', '.join(text[:30] for text in list(texts)[:_MOST_SHOWN])}{more})")
    return said


def states_of(table: "pd.DataFrame", reviews: tuple[Review, ...], file: str) -> np.ndarray:
    """(N,) int8, COUNTS, PENDING or REJECTED, of each row. Raises InputError where none counts."""
    states = np.zeros(len(table), dtype=np.int8)
    for review in reviews:
        states = np.maximum(states, review.of_rows(table))
    if len(states) and (states != COUNTS).all():
        columns = ", ".join(review.column for review in reviews)
        raise InputError(
            f"{file}: by {columns} no row is confirmed, all are rejected or pending: rename the column if it does not "
            "say which rows count"
        )
    return states


def said_of_rows(reviews: tuple[Review, ...], states: np.ndarray) -> dict[str, str]:
    """What a user is told: kind → how many rows, by which cells of which columns."""
    said = {}
    for state, kind in ((REJECTED, REJECTED_ROWS), (PENDING, PENDING_ROWS)):
        if not (n_rows := int((states == state).sum())):
            continue
        cells = [
            f"{review.column}: {', '.join([text for text, of in review.states.items() if of == state][:_MOST_SHOWN])}"
            for review in reviews
            if state in review.states.values()
        ]
        said[kind] = "; ".join([f"{n_rows} of {len(states)}", *cells])
    return said


@functools.lru_cache(maxsize=1024)
def _is_called_so(name: str) -> bool:
    plain = plain_name(name)
    return is_review(name) or (_NAME.search(plain) is not None and not _BESIDE.search(plain))


def _may_say(column: str, texts: Mapping[str, int]) -> bool:
    """Whether a column is called as those are that hold states of a review, and holds words."""
    name = plain_name(column)
    has_words = any(any(map(str.isalpha, text)) for text in texts)
    return has_words and len(texts) <= _MOST_WORDS and bool(_NAME.search(name)) and not _BESIDE.search(name)


def _named_state(column: str) -> int | None:
    """What a yes in a column says of its row."""
    name = _PREFIX.sub("", plain_name(column))
    if _REJECTED.fullmatch(name):
        return REJECTED
    if _ACCEPTED.fullmatch(name):
        return COUNTS
    return PENDING if _PENDING.fullmatch(name) or is_unsure(name) else None


def _of_answers(column: str, texts: Mapping[str, int]) -> Review:
    """A column of yes and no. Who has not confirmed a row has not rejected it either."""
    yes = _named_state(column) or COUNTS
    no = PENDING if yes == COUNTS else COUNTS
    states = {1: yes, 0: no, -1: PENDING, None: PENDING}
    return Review(column, {text: states[answer(text)] for text in texts}, no)


def _may_reject(text: str) -> bool:
    """Whether a cell has a word that rejects its row, or has it wait for a review."""
    words = [plain_name(word) for word in re.split(r"[\s,;:/()\-_]+", text)]
    return any(_REJECTED.fullmatch(word) or _PENDING.fullmatch(word) for word in (*words, plain_name(text)) if word)
