"""Searches among the results that the server keeps: QIDO-RS (PS3.18 10.6, matching as in PS3.4 C.2.2.2)."""

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from xray.serving.dicomweb_store import INSTANCE_TAGS, SERIES_TAGS, STUDY_TAGS, Stored
from xray.serving.worker import RefusedError

MAX_MATCHES = 1000
"""Of one answer; more are had with offset."""
LEVELS = ("studies", "series", "instances")
_OWN = ("limit", "offset", "includefield", "fuzzymatching")
_COUNTED = ("ModalitiesInStudy",)


def tag_of(name: str) -> str:
    """8 hexadecimal digits of an attribute's keyword or tag. Raises RefusedError 400 if it is none."""
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        return name.upper()
    tag = tag_for_keyword(name)
    if tag is None:
        raise RefusedError(400, f"{name[:60]!r} is no attribute to search for: give a keyword or a tag")
    return f"{tag:08X}"


TAGS = {level: frozenset(map(tag_of, tags)) for level, tags in zip(LEVELS, (STUDY_TAGS, SERIES_TAGS, INSTANCE_TAGS))}  # noqa: B905
_SEARCHED = frozenset().union(*TAGS.values(), map(tag_of, _COUNTED))


def search(
    results: Sequence[Stored], level: str, query: Iterable[tuple[str, str]], base: str, is_below: bool = False
) -> tuple[list[dict[str, Any]], bool]:
    """The matches of a search: DICOM JSON objects, and whether there are more than those.

    level: of LEVELS. query: names and values, as they came. base: address of the service. is_below: whether the search
    names a study, whose attributes need not be repeated then.
    Raises RefusedError 400 for what cannot be searched for.
    """
    conditions, limit, offset = _conditions(query)
    matching = [one for one in results if all(condition(one, results) for condition in conditions)]
    groups: dict[str, list[Stored]] = {}
    for one in matching:
        groups.setdefault({"studies": one.study, "series": f"{one.study} {one.series}"}.get(level, one.uid), []).append(
            one
        )
    all_of = {"studies": lambda one: (one.study,), "series": lambda one: (one.study, one.series)}
    found = []
    for group in groups.values():
        whole = group
        if level in all_of:
            whole = [one for one in results if all_of[level](one) == all_of[level](group[0])]
        found.append(_match(whole, level, base, is_below))
    return found[offset : offset + limit], len(found) > offset + limit


def _conditions(query: Iterable[tuple[str, str]]) -> tuple[list[Callable[..., bool]], int, int]:
    limit, offset, conditions = MAX_MATCHES, 0, []
    for name, value in query:
        if name in ("limit", "offset"):
            if not re.fullmatch(r"\d{1,9}", value):
                raise RefusedError(400, f"{name} is no number")
            limit, offset = (min(int(value), limit), offset) if name == "limit" else (limit, int(value))
        elif name not in _OWN:
            tag = tag_of(name)
            if tag not in _SEARCHED:
                raise RefusedError(400, f"results cannot be searched for by {keyword_for_tag(tag) or tag}")
            _check_value(tag, value)
            if value:
                conditions.append(_condition(tag, value))
    return conditions, limit, offset


_DATE, _TIME = r"\d{8}", r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"


def _check_value(tag: str, wanted: str) -> None:
    """Raises RefusedError 400 for what is no date or time, or no range of them, and would match nothing."""
    one = {"DA": _DATE, "TM": _TIME}.get(dictionary_VR(tag))
    if one and wanted and not re.fullmatch(rf"{one}|{one}-|-{one}|{one}-{one}", wanted, re.ASCII):
        how = "20260131 or 20260101-20260131" if one == _DATE else "1030 or 1030-1200"
        raise RefusedError(400, f"{keyword_for_tag(tag)} is {wanted[:40]!r}: give it as {how}")


def _condition(tag: str, wanted: str) -> Callable[..., bool]:
    is_modalities = tag == tag_of("ModalitiesInStudy")

    def holds(one: Stored, results: Sequence[Stored]) -> bool:
        if is_modalities:
            there = {
                word for other in results if other.study == one.study for word in _texts(other, tag_of("Modality"))
            }
            return any(_is_like(text, "CS", wanted) for text in there)
        vr = str(one.attributes.get(tag, {}).get("vr", ""))
        return any(_is_like(text, vr, wanted) for text in _texts(one, tag) or [""])

    return holds


def _texts(one: Stored, tag: str) -> list[str]:
    values = one.attributes.get(tag, {}).get("Value", [])
    return [value.get("Alphabetic", "") if isinstance(value, dict) else str(value) for value in values]


def _is_like(text: str, vr: str, wanted: str) -> bool:
    """Whether a value matches: one of a list of identifiers, a range of dates or times, wild cards, or the same."""
    if vr == "UI":
        return text in re.split(r"[,\\]", wanted)
    if vr in ("DA", "TM") and "-" in wanted:
        first, _, last = wanted.partition("-")
        return bool(text) and (not first or text >= first) and (not last or text[: len(last)] <= last)
    if vr == "PN":
        text, wanted = text.lower(), wanted.lower()
    if vr in ("CS", "SH", "LO", "PN", "ST", "LT", "UT"):
        pattern = fnmatch.translate(wanted.replace("[", "[[]"))
        return re.fullmatch(pattern, text) is not None
    return text == wanted


def _match(group: Sequence[Stored], level: str, base: str, is_below: bool) -> dict[str, Any]:
    """The DICOM JSON of a study, a series or an object, of which `group` is all that is kept."""
    first = group[0]
    tags = set(TAGS[level])
    if level != "studies" and not is_below:
        tags |= TAGS["studies"]
    if level == "instances":
        tags |= TAGS["series"]
    tags |= {tag_of(name) for name in ("SpecificCharacterSet", "StudyInstanceUID")}
    match = {tag: value for tag, value in first.attributes.items() if tag in tags}
    address = f"{base}/studies/{first.study}"
    if level == "studies":
        modalities = sorted({word for one in group for word in _texts(one, tag_of("Modality"))})
        match |= _element("ModalitiesInStudy", "CS", *modalities)
        match |= _element("NumberOfStudyRelatedSeries", "IS", len({one.series for one in group}))
        match |= _element("NumberOfStudyRelatedInstances", "IS", len(group))
    elif level == "series":
        address += f"/series/{first.series}"
        match |= _element("NumberOfSeriesRelatedInstances", "IS", len(group))
    else:
        address += f"/series/{first.series}/instances/{first.uid}"
        match |= _element("AvailableTransferSyntaxUID", "UI", first.syntax)
    match |= _element("RetrieveURL", "UR", address) | _element("InstanceAvailability", "CS", "ONLINE")
    return dict(sorted(match.items()))


def _element(keyword: str, vr: str, *values: object) -> dict[str, Any]:
    return {tag_of(keyword): {"vr": vr, "Value": list(values)}}
