"""What cells of yes and no say, and which columns hold them: all of them, or all but a few that nobody should lose."""

import re
from collections.abc import Iterable, Mapping

from xray.datasets.sources.splits import split_meant
from xray.datasets.sources.tables import plain_name
from xray.structures.values import finite_number, is_missing, whole_number

_YES = (
    "true", "yes", "y", "t", "positive", "present", "affirmed", "asserted", "definite", "certain", "detected", "found",
    "seen", "identified",
)  # fmt: skip
_NO = (
    "false", "no", "n", "f", "negative", "absent", "negated", "not present", "not detected", "not found", "not seen",
    "not identified", "ruled out",
)  # fmt: skip
_NAMES = frozenset((*_YES[4:], *_NO[4:]))
"""Answers that are labels by themselves: in a column called label, "positive" is the name of what was found."""
_OPPOSITE = {"f": "t", "n": "y"}
"""Letters that are a no only in a column where the yes stands, too: alone, F may be a woman and N a normal one."""
_UNSURE = re.compile(
    r"u|uncertain(ty)?|unsure|notsure|unclear|equivocal|indetermina(te|ble)|undetermined|(in|non)conclusive|ambiguous"
    r"|doubtful|dubious|questionable|borderline|possibl[ey]|probabl[ey]|(un)?likely|maybe|perhaps|suspect(ed)?"
    r"|suspicious|(can(no|)t|couldnot)(be)?(excluded?|ruleout|ruledout|tell)|not(excluded|ruledout)|do(nt|not)know"
)
_UNSAID = re.compile(
    r"na|unknown|missing|todo|tbd|tobe(determined|reviewed|read|labell?ed)|pending|skip(ped)?"
    r"|no(label|data|info|information|reading|answer)|(non|un)(diagnostic|interpretable|readable)"
    r"|(non?|not|un)(yet)?(labell?ed|annotated|read|reviewed|available|evaluated|evaluable|assessed|assessable|applicable|done"
    r"|performed|examined|tested|rated|scored|graded|recorded|reported|documented|specified|stated|mentioned|checked)"
    r"|(unableto|cannot|cant)(be)?(assess(ed)?|evaluated?|judged?)"
)
"""Words for -1, and those that say that nobody has said anything, without case, blanks and punctuation."""
_FEW = 0.5
"""Share of a column's filled cells that may be no answers before it is one of something else."""
_OF_SPLITS = ("", "is", "in", "isin", "for", "use", "usefor")


def answer(text: str) -> int | None:
    """1, 0 or -1 of a cell, in numbers or words; None where it is blank, or says that nobody has said anything.

    Raises ValueError for what is no answer.
    """
    if is_missing(text) or is_unsaid(text):
        return None
    if is_unsure(text) or is_question(text):
        return -1
    word = " ".join(text.casefold().replace("_", " ").split())
    if word in _YES or word in _NO:
        return int(word in _YES)
    number = whole_number(text)
    if number not in (0, 1, -1):
        raise ValueError(f"{text} is neither 1, 0 nor -1")
    return number


def is_unsaid(label: str) -> bool:
    """Whether a label says that nobody has said anything: "unknown", "To do", "not labelled", "not assessable"."""
    return _UNSAID.fullmatch(plain_name(label)) is not None


def is_unsure(label: str) -> bool:
    """Whether a label says that somebody is in doubt: "uncertain", "equivocal", "cannot exclude"."""
    return _UNSURE.fullmatch(plain_name(label)) is not None


def is_question(text: str) -> bool:
    """Whether a cell is nothing but question marks."""
    return "?" in text and not text.strip("? ")


def is_answers(texts: Iterable[str], is_named_label: bool = False) -> bool:
    """Whether all of a column's distinct filled cells are answers, and not all of them -1.

    is_named_label: the column is not called after a finding, so that its cells may be names.
    """
    found, texts = set(), list(texts)
    unclear = _unclear(texts)
    for text in texts:
        if text.casefold() in unclear or (is_named_label and text.casefold() in _NAMES):
            return False
        try:
            found.add(answer(text))
        except ValueError:
            return False
    return bool(found - {None, -1})


def is_uncertain_alone(texts: Iterable[str]) -> bool:
    """Whether all of a column's filled cells are -1, and there are some."""
    try:
        return {answer(text) for text in texts} - {None} == {-1}
    except ValueError:
        return False


def no_answer(counts: Mapping[str, int]) -> str | None:
    """A cell that is no answer, of a column of which most are, or that holds shares of readers such as 0.33.

    counts: filled cell → in how many rows it stands. None for a column of answers alone, and for one of other things.
    """
    others, has_no, unclear = {}, False, _unclear(counts)
    for text, count in counts.items():
        try:
            is_other, said = text.casefold() in unclear, answer(text)
        except ValueError:
            is_other, said = True, None
        if is_other:
            others[text] = count
        has_no |= said == 0 and not is_other
    if not others or not has_no:
        return None  # of answers, or of numbers of something that is always there
    if sum(others.values()) < _FEW * sum(counts.values()) or all(map(_is_share, others)):
        return max(others, key=lambda text: others[text])
    return None


def _unclear(texts: Iterable[str]) -> set[str]:
    """The letters of a column that are a no elsewhere, and here may be anything."""
    found = {text.casefold() for text in texts}
    return {no for no, yes in _OPPOSITE.items() if no in found and yes not in found}


def _is_share(text: str) -> bool:
    try:
        number = finite_number(text)
    except ValueError:
        return False
    return number is not None and 0 < number < 1


def is_named_as_split(column: str) -> bool:
    """Whether a column of yes and no is called as if it said who is in a split: is_test, in_train, validation."""
    plain = plain_name(column)
    return any(plain.startswith(word) and split_meant(plain.removeprefix(word)) for word in _OF_SPLITS)
