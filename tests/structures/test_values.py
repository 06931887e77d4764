"""What a cell means, however it is spelt."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.structures.values import (
    Names,
    finite_number,
    flag_of,
    identity,
    is_missing,
    one_spelling,
    text_of,
    whole_number,
)

whole = st.integers(-(2**53), 2**53)


@given(number=whole)
def test_a_whole_number_in_every_spelling(number):
    spellings = [number, float(number), str(number), f"{number}.0", f" {number}.00 ", f"{number}.", np.int64(number)]
    assert {whole_number(spelling) for spelling in spellings} == {number}
    assert {identity(spelling) for spelling in spellings} == {number}
    # What JSON makes of each is the same again.
    assert {whole_number(json.loads(json.dumps(said))) for said in spellings[:-1]} == {number}


@pytest.mark.parametrize("value", [None, "", "  ", math.nan, "nan", "NaN", "null", "NA", "<NA>", np.nan])
def test_missing_in_every_spelling(value):
    assert is_missing(value)
    assert whole_number(value) is None
    assert finite_number(value) is None
    assert flag_of(value) is None


@pytest.mark.parametrize(
    "value", [3.5, "3.5", "x", "3e2", "0x3", "1_000", "٣", True, [3], {}, math.inf, 2.0**60, "--3"]
)
def test_no_whole_number(value):
    with pytest.raises(ValueError, match="is no whole number"):
        whole_number(value)


@pytest.mark.parametrize(
    ("value", "number"), [(3, 3.0), ("3", 3.0), (" 1e3 ", 1000.0), ("-.5", -0.5), ("2000.0", 2000.0), (2.25, 2.25)]
)
def test_finite_numbers(value, number):
    assert finite_number(value) == number


@pytest.mark.parametrize("value", ["inf", math.inf, "1,5", "x", True, [1.0], 10**400, "1e999", "1_0"])
def test_no_finite_number(value):
    with pytest.raises(ValueError, match="is no finite number"):
        finite_number(value)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a ", "a"),
        ("007", 7),
        (7.0, 7),
        # A hash or a UID is no number, whatever Python's own conversions make of it.
        ("12e5", "12e5"),
        ("1_2", "1_2"),
        ("1.2.840", "1.2.840"),
        ("1.20", "1.20"),
        (1.5, "1.5"),
        ("", None),
        (None, None),
        # These may be somebody's names.
        ("NA", "NA"),
        ("null", "null"),
    ],
)
def test_identities(value, found):
    assert identity(value) == found


@pytest.mark.parametrize("value", [True, [1], {}, math.inf])
def test_no_identity(value):
    with pytest.raises(ValueError, match="no whole number"):
        identity(value)


def test_texts():
    said = ["003", 3, 3.0, "3.0", " a b ", "", None]
    assert [text_of(value) for value in said] == ["003", "3", "3", "3", "a b", None, None]


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0", True, "true", "Yes"])
def test_flags(value):
    assert flag_of(value) is True
    assert flag_of({1: 0, "true": "False", "Yes": "n"}.get(value, 0)) is False


@pytest.mark.parametrize("value", [2, "maybe", 0.5, []])
def test_no_flag(value):
    with pytest.raises(ValueError, match=r"neither 0 nor 1|no whole number"):
        flag_of(value)


def test_names_are_found_as_spelt_or_by_their_number():
    names = Names({"007": "a", "x": "b", "12": "c", "012": "d"})
    assert [names.get(said) for said in ("007", "7", 7, 7.0, "7.0", "x", " x ")] == ["a", "a", "a", "a", "a", "b", "b"]
    # Two names spell 12: only the exact one counts.
    assert [names.get(said) for said in ("12", "012", 12, "12.0")] == ["c", "d", None, None]
    assert [names.get(said) for said in ("y", None, [], "", True)] == [None] * 5


def test_one_patient_in_several_spellings_is_one():
    said = ["17", 17, 17.0, "017", " 17.00 ", "a", None, "", "b ", "nan", math.nan, "NA"]
    assert one_spelling(said) == [*["17"] * 5, "a", None, None, "b", None, None, None]
