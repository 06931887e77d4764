"""Columns beside the labels that say what a review made of each row: `status` (confirmed, rejected), `deleted` (0, 1).

A rejected row is no finding, and no box; nor does it say that the finding is absent: somebody may have rejected the box
alone. What is pending is neither. Both are unknown. `review_words` knows the names and the words.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from xray.datasets.sources.review_words import (
    COUNTS,
    PENDING,
    REJECTED,
    is_of_labels,
    is_of_passing,
    is_of_taking,
    is_review,
    is_taken,
    may_reject,
    may_say,
    named_state,
    state_in,
)
from xray.datasets.sources.table_answers import answer, is_answers
from xray.datasets.sources.tables import factorize
from xray.errors import InputError
from xray.structures.values import is_missing, shown

if TYPE_CHECKING:
    import pandas as pd

OF_REVIEW = "columns that may say which rows a review took, and are not used: all rows count"
REJECTED_ROWS = "rows that a review has rejected: no findings, and unknown unless another reader says otherwise"
PENDING_ROWS = "rows that a review has not confirmed: unknown"

_MOST_SHOWN = 6
"""Cells that are shown."""


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


def reviews_in(columns: Mapping[str, Mapping[str, int]], file: str) -> tuple[Review, ...]:
    """The columns that say which rows count.

    columns: those that have no other use → their distinct filled cells, and in how many rows each stands. file: for
    messages. Raises InputError for one that is called so and has words for rejected or pending beside others.

    One that may be of something else (covid_status: confirmed, suspected; consent_status: declined) is none unless it
    rejects as only reviews do.
    """
    found = []
    for column, texts in columns.items():
        if texts and is_of_taking(column):
            found.append(Review(column, {text: REJECTED if is_taken(text) else COUNTS for text in texts}))
            continue
        if texts and is_review(column) and is_answers(texts):
            found.append(_of_answers(column, texts))
            continue
        if not may_say(column, texts) or not is_of_labels(column, texts):
            continue
        states = {text: state_in(text) for text in texts}
        others = [text for text, state in states.items() if state is None]
        if not others:
            blank = PENDING if COUNTS in states.values() else COUNTS
            found.append(Review(column, {text: state for text, state in states.items() if state is not None}, blank))
        elif refused := next((text for text in texts if may_reject(text)), None):
            # Passed over, it would make findings of what was rejected.
            beside = [text for text in others if text != refused][:3] or list(texts)[:3]
            raise InputError(
                f"{file}: {column} has {shown(refused)} beside {', '.join(map(shown, beside))}, and may say which "
                "rows count: write accepted, rejected or pending there, or rename the column if it says something else"
            )
    return tuple(found)


def doubtful_reviews(columns: Mapping[str, Mapping[str, int]], n_rows: int) -> list[str]:
    """Of columns that are not used those that may be of a review, with their cells.

    columns: as for `reviews_in`. n_rows: of the table. One of who has confirmed a row, or when, is named where it is
    empty in some: a column of initials does not say that the others are wrong.
    """
    said = []
    for column, texts in columns.items():
        states = [state_in(text) for text in texts]
        is_known = bool(texts) and None not in states and REJECTED in states
        is_partial = is_of_passing(column) and (is_answers(texts) or 0 < sum(texts.values()) < n_rows)
        if is_known or is_partial or (may_say(column, texts) and not is_answers(texts)):
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


def _of_answers(column: str, texts: Mapping[str, int]) -> Review:
    """A column of yes and no. Who has not confirmed a row has not rejected it either."""
    yes = named_state(column) or COUNTS
    no = PENDING if yes == COUNTS else COUNTS
    states = {1: yes, 0: no, -1: PENDING, None: PENDING}
    return Review(column, {text: states[answer(text)] for text in texts}, no)
