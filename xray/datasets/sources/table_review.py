"""Columns beside the labels that say what a review made of each row: `status` (confirmed, rejected), `deleted` (0, 1).

A rejected row is no finding, and no box; nor does it say that the finding is absent: somebody may have rejected the box
alone. What is pending is neither. Both are unknown.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
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
    r"|completed?|final(i[sz]ed)?|finished|reviewed|truepositive|tp|signed(off)?|amended|addend(um|ed)|revised"
)
_REJECTED = re.compile(
    r"reject(ed)?|declined?|deleted?|removed?|denied|refused?|invalid(ated)?|incorrect|wrong|discard(ed)?|dismiss(ed)?"
    r"|disagree(d)?|disapproved?|falsepositive|fp|fail(ed)?|excluded?|cancell?ed|withdrawn|superseded|obsolete|void(ed)?"
    r"|erroneous|error|mistake|retracted|revoked|dropp?(ed)?|ignored?|hidden|not(accepted|approved|valid|correct|ok)"
)
_OF_ANYTHING = re.compile(
    r"removed?|declined?|denied|refused?|fail(ed)?|excluded?|cancell?ed|withdrawn|void(ed)?|error|hidden|ignored?"
    r"|dropp?(ed)?|deleted?|revoked"
)
"""Those of them that are said of patients, devices and appointments, too."""
_PENDING = re.compile(
    r"pending|open|waiting|draft|preliminary|provisional|deferred|onhold|inprogress|disputed|questioned|flagged"
    r"|(not|un)?(yet)?(started|assigned)|queued|skip(ped)?|(annotat|label?l)ing|to(annotate|label)"
    r"|(to|needs?|for|in|under|awaits?|awaiting|requires?|pending)(be)?(second)?(re)?(view|check|confirmation)(ed|ing)?"
    r"|(un|not)(yet)?(confirmed|verified|validated|accepted|approved|reviewed|checked|finished|completed?|done)"
)
_PREFIX = re.compile(r"^(is|was|are|has|hasbeen|markedas|marked)(?=.)")
_NAME = re.compile(
    r"status|state|review|approv|verif|verdict|decision|confirm|accept|reject|adjudic|validat|curat|disposition|^q[ac]"
)
_BESIDE = re.compile(r"(by|(?<!vali)date|time|(?<!val)id|comments?|notes?|reason)$")
"""Of reviews, too: who made them and when. Words are not looked for there."""
_ITS_WORDS = re.compile(
    r"(status|state|review(s|ed|ers?|ing)?|approv(al|ed)|verif(ied|ication)|verdict|decision|confirm(ed|ation)"
    r"|accept(ed|ance)|reject(ed|ion)|adjudicat(ed|ion|or)|validat(ed|ion|or)|curat(ed|ion|or)|disposition|q[ac])"
)
_BESIDE_THEM = re.compile(
    r"(label(s|l?ers?|l?ing|l?ed)?|annotat(ions?|ors?|ed)|box(es)?|bbox|findings?|lesions?|objects?|regions?|roi|masks?"
    r"|segmentation|row|record|entry|item|task|image|img|picture|radiograph|file|readers?|radiologists?|rad|experts?"
    r"|doctors?|dr|physicians?|md|senior|junior|consensus|quality|control|assurance|check|result|outcome|final|first"
    r"|second|third|current|last|latest|overall|manual|human|gt|ground|truth|by|of|the|is|was|has|been|\d+)"
)
_UNSTATED = re.compile(r"status|state|reviews?|q[ac]")
"""Those of its words by which a yes says nothing: of qc_passed the other does."""
_ITS_NAME = re.compile(f"({_ITS_WORDS.pattern}|{_BESIDE_THEM.pattern})+")
"""How a column is called that is of the labels' review, and not of a patient, an examination or an infection."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")
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
    return (state_in(value) or COUNTS) if _is_of_labels(name, [value]) else COUNTS


def is_review(column: str) -> bool:
    """Whether a column of yes and no is called after what a review makes of a row: deleted, is_confirmed, to review.

    One called valid may be of the split for validating.
    """
    return _named_state(column) is not None and not is_named_as_split(column)


def is_state(name: str) -> bool:
    """Whether an attribute is called after the state of labels: status, review_state, annotationStatus."""
    plain = plain_name(name)
    return bool(_NAME.search(plain) and _ITS_NAME.fullmatch(plain))


def reviews_in(columns: Mapping[str, Mapping[str, int]], file: str) -> tuple[Review, ...]:
    """The columns that say which rows count.

    columns: those that have no other use → their distinct filled cells, and in how many rows each stands. file: for
    messages. Raises InputError for one that is called so and has words for rejected or pending beside others.

    One that may be of something else (covid_status: confirmed, suspected; consent_status: declined) is none unless it
    rejects as only reviews do.
    """
    found = []
    for column, texts in columns.items():
        if texts and is_review(column) and is_answers(texts):
            found.append(_of_answers(column, texts))
            continue
        if not _may_say(column, texts) or not _is_of_labels(column, texts):
            continue
        states = {text: state_in(text) for text in texts}
        others = [text for text, state in states.items() if state is None]
        if not others:
            blank = PENDING if COUNTS in states.values() else COUNTS
            found.append(Review(column, {text: state for text, state in states.items() if state is not None}, blank))
        elif refused := next((text for text in texts if _may_reject(text)), None):
            # Passed over, it would make findings of what was rejected.
            beside = [text for text in others if text != refused][:3] or list(texts)[:3]
            raise InputError(
                f"{file}: {column} has {shown(refused)} beside {', '.join(map(shown, beside))}, and may say which "
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


def said_of_rows(reviews: tuple[Review, ...], states: np.ndarray, is_wide: bool = False) -> dict[str, str]:
    """What a user is told: kind → how many rows, by which cells of which columns. is_wide: beside columns of labels,
    of which a column of yes and no may be one."""
    said = {}
    for state, kind in ((REJECTED, REJECTED_ROWS), (PENDING, PENDING_ROWS)):
        if not (n_rows := int((states == state).sum())):
            continue
        cells = [
            f"{review.column}: {', '.join([text for text, of in review.states.items() if of == state][:_MOST_SHOWN])}"
            if state in review.states.values()
            else f"{review.column}: empty cells"
            for review in reviews
            if state in (review.blank, *review.states.values())
        ]
        may_be_labels = [review.column for review in reviews if is_wide and is_answers(review.states)]
        hint = (
            [f"--label with {', '.join(may_be_labels)} among the others if that is a finding"] if may_be_labels else []
        )
        said[kind] = "; ".join([f"{n_rows} of {len(states)}", *cells, *hint])
    return said


@functools.lru_cache(maxsize=1024)
def _is_called_so(name: str) -> bool:
    return is_review(name) or _is_named_for_states(name)


def _may_say(column: str, texts: Mapping[str, int]) -> bool:
    """Whether a column is called as those are that hold states of a review, and holds words."""
    has_words = any(any(map(str.isalpha, text)) for text in texts)
    return has_words and len(texts) <= _MOST_WORDS and _is_named_for_states(column)


def _is_named_for_states(name: str) -> bool:
    plain = plain_name(name)
    return bool(_NAME.search(plain)) and not _BESIDE.search(plain)


def _named_state(column: str) -> int | None:
    """What a yes in a column says of its row."""
    for name in (_PREFIX.sub("", plain_name(column)), _without_companions(column)):
        if (state := _state_of_name(name)) is not None:
            return state
    return None


def _without_companions(column: str) -> str:
    """verified of verified_by_radiologist and label_verified; empty for who has verified, and when."""
    if _BESIDE.search(plain_name(column)):
        return ""
    words = [plain_name(word) for word in _WORD.findall(column)]
    return "".join(word for word in words if not (_BESIDE_THEM.fullmatch(word) or _UNSTATED.fullmatch(word)))


def _state_of_name(name: str) -> int | None:
    if _REJECTED.fullmatch(name):
        return REJECTED
    if _ACCEPTED.fullmatch(name):
        return COUNTS
    # U may be short for anything.
    return PENDING if _PENDING.fullmatch(name) or (len(name) > 1 and is_unsure(name)) else None


def _is_of_labels(column: str, texts: Iterable[str]) -> bool:
    """Whether a column called status or alike is of the labels, by its name or by a cell that rejects as only reviews
    do. Of a test that is positive or negative it is not."""
    if _ITS_NAME.fullmatch(plain_name(column)):
        return True
    texts = list(texts)
    return not any(map(_is_answer, texts)) and any(_may_reject(text, only_reviews=True) for text in texts)


def _is_answer(text: str) -> bool:
    try:
        return answer(text) in (0, 1)
    except ValueError:
        return False


def _of_answers(column: str, texts: Mapping[str, int]) -> Review:
    """A column of yes and no. Who has not confirmed a row has not rejected it either."""
    yes = _named_state(column) or COUNTS
    no = PENDING if yes == COUNTS else COUNTS
    states = {1: yes, 0: no, -1: PENDING, None: PENDING}
    return Review(column, {text: states[answer(text)] for text in texts}, no)


def _may_reject(text: str, only_reviews: bool = False) -> bool:
    """Whether a cell has a word that rejects its row, or has it wait for a review.

    only_reviews: words that are said of other things, too, do not count.
    """
    words = [plain_name(word) for word in (*re.split(r"[\s,;:/()\-_]+", text), text)]
    if only_reviews:
        return any(_REJECTED.fullmatch(word) and not _OF_ANYTHING.fullmatch(word) for word in words)
    return any(_REJECTED.fullmatch(word) or _PENDING.fullmatch(word) for word in words)
