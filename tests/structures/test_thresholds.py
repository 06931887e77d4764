"""Fitted thresholds: what counts as found, with which probability, and that the order never changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from xray.errors import FlagError
from xray.findings import NO_FINDING_BOX
from xray.structures.boxes import BoxTable
from xray.structures.radiograph_findings import RadiographFindings
from xray.structures.thresholds import ABNORMAL, OperatingPoint, Point, Thresholds, in_force

CATEGORIES = {1: "Nodule", 2: "Mass", 3: "Other"}
BOX = (0, 0, 10, 10)
# Of temperature 2, 0.9 = 9 : 1 becomes 3 : 1.
FITTED = Thresholds("boxes", {"Nodule": Point(2.0, 0.9), "Mass": Point(1.0, 0.05), ABNORMAL: Point(2.0)}, "x=1", "abc")


def rows(*labelled: tuple[int, float]) -> BoxTable:
    boxes = [NO_FINDING_BOX if label == 15 else BOX for label, _ in labelled]
    return BoxTable.of([0] * len(labelled), [label for label, _ in labelled], boxes, [score for _, score in labelled])


def test_probabilities_and_what_is_found_by_hand() -> None:
    table = rows((1, 0.9), (1, 0.89), (2, 0.06), (2, 0.04), (3, 0.4), (3, 0.2), (15, 0.1))
    expected = [0.75, expit(logit(0.89) / 2), 0.06, 0.04, 0.4, 0.2, 0.25]
    np.testing.assert_allclose(FITTED.probabilities(table, CATEGORIES), expected)
    # Of "Other" nothing was fitted: it counts from 0.3. "No finding" is none.
    np.testing.assert_array_equal(FITTED.is_positive(table, CATEGORIES), [1, 0, 1, 0, 1, 0, 0])
    shown = FITTED.shown(RadiographFindings(table, {2: "m", 3: "n"}, CATEGORIES))
    np.testing.assert_allclose(shown.table.scores, [0.75, 0.06, 0.4, 0.25])
    assert shown.masks == {1: "m"}
    assert shown.has_findings
    # What a user sets is held against what is shown.
    found = FITTED.instead(0.74).is_positive(table, CATEGORIES)
    np.testing.assert_array_equal(found, [*expected[:6], 0] >= np.float64(0.74))


def test_an_intercept_makes_a_half_another_probability() -> None:
    # ln 3 to the odds: 1 : 1 becomes 3 : 1, and 1 : 9 becomes 1 : 3.
    point = Point(1.0, None, float(np.log(3)))
    np.testing.assert_allclose(point.probability(np.array([0.5, 0.1])), [0.75, 0.25])
    fitted = Thresholds("boxes", {ABNORMAL: point}, "x=1")
    # Of "No finding" it is that of the opposite.
    np.testing.assert_allclose(fitted.probabilities(rows((15, 0.5), (15, 0.9)), CATEGORIES), [0.25, 0.75])


def test_a_score_does_not_fail_by_digits_that_files_do_not_hold() -> None:
    point = Point(1.0, 0.123457)
    assert point.is_positive(np.array([0.1234567]))
    assert not point.is_positive(np.array([0.1234563]))


def test_labels_beside_boxes_stay_and_alone_are_calibrated() -> None:
    labels = {"Nodule": 0.9, ABNORMAL: 0.9, "New": 0.2}
    assert FITTED.probabilities_of_labels(labels) == pytest.approx({"Nodule": 0.9, ABNORMAL: 0.75, "New": 0.2})
    alone = Thresholds("labels", FITTED.of, "x=1")
    assert alone.probabilities_of_labels(labels) == pytest.approx({"Nodule": 0.75, ABNORMAL: 0.75, "New": 0.2})
    assert alone.positive_labels(labels) == ["Nodule", ABNORMAL]
    assert FITTED.positive_labels(labels) == []
    assert alone.shown(RadiographFindings(rows(), {}, CATEGORIES, labels)).has_findings
    assert not FITTED.shown(RadiographFindings(rows((1, 0.5)), {}, CATEGORIES, labels)).has_findings


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=30),
    st.floats(0.05, 20),
    st.floats(0, 1),
    st.sampled_from([0.0, -5.5, 3.0]),
)
def test_the_order_never_changes(scores: list[float], temperature: float, threshold: float, intercept: float) -> None:
    point, ordered = Point(temperature, round(threshold, 6), intercept), np.sort(scores)
    probabilities = point.probability(ordered)
    assert (np.diff(probabilities) >= 0).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert (np.diff(point.is_positive(ordered).astype(int)) >= 0).all()


def test_who_asks_last_is_not_who_decides() -> None:
    assert in_force(None) == (0.3, None)
    assert in_force(None, None, 0.7) == (0.7, None)
    assert in_force(FITTED, None)[1] is FITTED
    assert in_force(FITTED, 0.0, 0.7)[1] == FITTED.instead(0.0)
    assert FITTED.description != FITTED.instead(0.2).description


@pytest.mark.parametrize("text", ["", "0.9", "sensitivity", "sensitivity=0", "sensitivity=1.1", "fp-per-image=-1",
                                  "fp-per-image=inf", "sensitivity=nan", "dice=0.5"])  # fmt: skip
def test_operating_points_that_are_none(text: str) -> None:
    with pytest.raises(FlagError, match=r"--at is .*such as sensitivity=0.9"):
        OperatingPoint.of(text)
    assert str(OperatingPoint.of("fp-per-image=0.25")) == "fp-per-image=0.25"
