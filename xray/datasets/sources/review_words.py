"""What words say that a review made of a row or an object, and which names columns and attributes of reviews have.

`status: rejected`, `is_verified: 0` and `deleted_at: 2024-05-01` are of reviews; `covid_status: confirmed` is not.
"""

import functools
import re
from collections.abc import Collection, Iterable

from xray.datasets.sources.table_answers import answer, is_named_as_split, is_question, is_unsaid, is_unsure
from xray.datasets.sources.tables import plain_name
from xray.structures.values import is_missing

COUNTS, PENDING, REJECTED = 0, 1, 2
"""What a review made of a row; of several columns the largest counts."""

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
_MOST_WORDS = 20
"""More different cells are no states."""

_WHEN = re.compile(r"at|on|by|when|who|user|date|time|datetime|timestamp|ts|utc|since")
"""Words of a name that make it one of when something was done, or by whom: deleted_at, date_deleted, removedBy."""
_TAKEN = re.compile(
    r"(soft)?delet(ed|ion)|removed|removal|reject(ed|ion)|retract(ed|ion)|superseded|replaced|invalidated|discarded"
    r"|dismissed|disapproved|trashed"
)
_PASSED = re.compile(
    r"verif(ied|ication)|validat(ed|ion)|approv(ed|al)|accept(ed|ance)|confirm(ed|ation)|review(ed)?|checked|signed"
    r"|signature"
)
_NOT_TAKEN = re.compile(r"nat|no|none|no ?one|nobody|never|false|f|n|not( yet)? \w+|nil|undefined|\W+")
_NO_DATE = re.compile(
    r"0000\D|(19)?00\D0+\D0+|0*1\D0*1\D0001|0001\D01\D01|9999\D12\D31|1970\D01\D01\D+00\D00|1899\D12\D30"
)
"""What tools write where there is no date: the first or the last that they know."""


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
    if is_of_taking(name):
        return REJECTED if is_taken(value) else COUNTS
    if is_review(name):
        try:
            return (named_state(name) or COUNTS) if answer(value) == 1 else COUNTS
        except ValueError:
            return state_in(value) or COUNTS
    if not may_say(name, {value: 1}) or (is_unsaid(value) and not _PENDING.fullmatch(plain_name(value))):
        return COUNTS
    return (state_in(value) or COUNTS) if is_of_labels(name, [value]) else COUNTS


def is_review(column: str) -> bool:
    """Whether a column of yes and no is called after what a review makes of a row: deleted, is_confirmed, to review.

    One called valid may be of the split for validating.
    """
    return named_state(column) is not None and not is_named_as_split(column)


def is_state(name: str) -> bool:
    """Whether an attribute is called after the state of labels: status, review_state, annotationStatus."""
    plain = plain_name(name)
    return bool(_NAME.search(plain) and _ITS_NAME.fullmatch(plain))


def is_of_taking(name: str) -> bool:
    """Whether a column is called after when, or by whom, a row was taken away: deleted_at, removedBy, rejection date.

    Such a cell is empty where the row is still there, see `is_taken`.
    """
    return _is_of(_TAKEN, name)


def is_of_passing(name: str) -> bool:
    """Whether a column is called after when, or by whom, a row was confirmed: verified_by, approvedAt, review_date."""
    return _is_of(_PASSED, name)


def is_taken(text: str) -> bool:
    """Whether a cell of a column as `is_of_taking` finds it says that its row was taken away: a date, a name, a 1.

    False for empty ones, for "never", and for what tools write as no date: 0, 0000-00-00, 0001-01-01, 9999-12-31.
    """
    plain = " ".join(text.casefold().replace("_", " ").split())
    if is_missing(plain) or _NOT_TAKEN.fullmatch(plain) or _NO_DATE.match(plain):
        return False
    digits = [mark for mark in plain if mark.isdigit()]
    return not digits or any(mark != "0" for mark in digits)


def named_state(column: str) -> int | None:
    """What a yes in a column says of its row; None for a column that is not called after a review."""
    for name in (_PREFIX.sub("", plain_name(column)), _without_companions(column)):
        if (state := _state_of_name(name)) is not None:
            return state
    return None


def may_say(column: str, texts: Collection[str]) -> bool:
    """Whether a column is called as those are that hold states of a review, and holds words.

    texts: its distinct filled cells.
    """
    has_words = any(any(map(str.isalpha, text)) for text in texts)
    return has_words and len(texts) <= _MOST_WORDS and _is_named_for_states(column)


def is_of_labels(column: str, texts: Iterable[str]) -> bool:
    """Whether a column called status or alike is of the labels, by its name or by a cell that rejects as only reviews
    do. Of a test that is positive or negative it is not."""
    if _ITS_NAME.fullmatch(plain_name(column)):
        return True
    texts = list(texts)
    return not any(map(_is_answer, texts)) and any(may_reject(text, only_reviews=True) for text in texts)


def may_reject(text: str, only_reviews: bool = False) -> bool:
    """Whether a cell has a word that rejects its row, or has it wait for a review.

    only_reviews: words that are said of other things, too, do not count.
    """
    words = [plain_name(word) for word in (*re.split(r"[\s,;:/()\-_]+", text), text)]
    if only_reviews:
        return any(_REJECTED.fullmatch(word) and not _OF_ANYTHING.fullmatch(word) for word in words)
    return any(_REJECTED.fullmatch(word) or _PENDING.fullmatch(word) for word in words)


@functools.lru_cache(maxsize=1024)
def _is_called_so(name: str) -> bool:
    return is_of_taking(name) or is_review(name) or _is_named_for_states(name)


def _is_named_for_states(name: str) -> bool:
    plain = plain_name(name)
    return bool(_NAME.search(plain)) and not _BESIDE.search(plain)


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


@functools.lru_cache(maxsize=1024)
def _is_of(done: re.Pattern[str], name: str) -> bool:
    """Whether a name is one word of done, one of when or who, and none but those that go with them."""
    words = [plain_name(word) for word in _WORD.findall(name)]
    others = [word for word in words if not _WHEN.fullmatch(word)]
    if len(others) == len(words):
        return False
    n_done = sum(done.fullmatch(word) is not None for word in others)
    return n_done == 1 and all(done.fullmatch(word) or _BESIDE_THEM.fullmatch(word) for word in others)


def _is_answer(text: str) -> bool:
    try:
        return answer(text) in (0, 1)
    except ValueError:
        return False
