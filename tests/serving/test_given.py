"""Findings that come back with a request: numbers of any kind, and amounts, are answered in one line."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.serving import answers, schemas
from xray.serving.answers import given_findings
from xray.serving.exports import FoundIn
from xray.serving.worker import RefusedError

MASK = {"size": [4, 3], "counts": "06Q"}
FINDING = {"category_id": 4, "category": "Cardiomegaly", "score": 0.5, "box": [1, 2, 3, 4], "mask": None}
ANSWER = {
    "width": 3, "height": 4, "findings": [FINDING], "normal": 0.25, "labels": {"abnormal": 1}, "models": ["a"],
    "thresholds": {"gate": "soft", "mask_top": 0.75}, "seconds": 1, "version": "0.1.0",
}  # fmt: skip


def ask(text):
    """Status and line of the refusal, None where there is none."""
    try:
        given_findings({"findings": text}, {})
    except RefusedError as error:
        refusal = error
    else:
        return None
    assert "\n" not in refusal.line
    assert len(refusal.line) <= 300
    assert refusal.line.encode()
    return refusal.status, refusal.line


def with_number(where, text):
    """The answer's JSON with a number put in as it is written."""
    answer = json.loads(json.dumps(ANSWER))
    *path, last = where
    target = answer
    for key in path:
        target = target[key]
    target[last] = "@"
    return json.dumps(answer).replace('"@"', text)


WHERE = [
    ("width",), ("height",), ("normal",), ("seconds",), ("labels", "abnormal"), ("thresholds", "mask_top"),
    ("findings", 0, "category_id"), ("findings", 0, "score"), ("findings", 0, "box", 0), ("findings", 0, "box", 3),
]  # fmt: skip
NUMBERS = ["1e400", "-1e400", "NaN", "Infinity", "-Infinity", "9" * 400, "-" + "9" * 5000, "1" + "0" * 30, "-1e308"]


@pytest.mark.parametrize("where", WHERE, ids=lambda where: ".".join(map(str, where)))
@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:12])
def test_numbers_out_of_any_range_are_refused(where, number):
    refusal = ask(with_number(where, number))
    # A time may be any finite number: nothing is made of it.
    if where[0] in ("seconds", "thresholds") and refusal is None:
        assert number not in ("1e400", "-1e400", "NaN", "Infinity", "-Infinity")
    else:
        assert refusal[0] == 400
        assert "no answer of /predict" in refusal[1]


@pytest.mark.parametrize("size", ["[1e400, 3]", "[-1, 3]", f"[{'9' * 50}, 3]", "[4]", "[4.5, 3]", "null"])
def test_sizes_of_masks_are_whole_numbers_in_range(size):
    text = json.dumps({**ANSWER, "findings": [{**FINDING, "mask": {"size": "@", "counts": "0"}}]})
    assert ask(text.replace('"@"', size))[0] == 400


def test_what_is_written_otherwise_is_read_the_same():
    text = json.dumps(ANSWER).replace("0.5", "5e-1").replace('"box": [1, 2, 3, 4]', '"box": [1.0, 2e0, 3, 4.00]')
    findings, found_in = given_findings({"findings": text}, {})
    assert found_in == FoundIn(3, 4)
    assert findings.table.boxes.tolist() == [[1, 2, 3, 4], [0, 0, 1, 1]]
    assert findings.table.scores[0] == 0.5
    assert findings.labels["abnormal"] == 1.0


def test_there_must_be_some():
    with pytest.raises(RefusedError) as refusal:
        given_findings({}, {})
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "1", '"a"', "[" * 100_000, '{"a":' * 50_000, '{"findings": "\\ud800"}', "\ud800", "\x00"],
    ids=lambda text: ascii(text[:9]),
)
def test_what_is_no_json_of_an_answer_is_refused(text):
    assert ask(text)[0] == 400


def test_amounts_are_capped_before_any_work():
    many = schemas.MAX_FINDINGS + 1
    assert ask(json.dumps({**ANSWER, "findings": [FINDING] * (many - 1)})) is None
    assert ask(json.dumps({**ANSWER, "findings": [FINDING] * many}))[0] == 413
    assert ask(json.dumps({**ANSWER, "labels": {str(n): 0.5 for n in range(schemas.MAX_LABELS + 1)}}))[0] == 413
    assert ask(json.dumps({**ANSWER, "labels": {"a" * 65: 0.5}}))[0] == 413
    assert ask(json.dumps({**ANSWER, "findings": [{**FINDING, "category": "a" * 65}]}))[0] == 413
    huge = {**FINDING, "mask": {"size": [10_000, 10_000], "counts": "0"}}
    assert ask(json.dumps({**ANSWER, "findings": [huge] * 10})) is None
    assert ask(json.dumps({**ANSWER, "findings": [huge] * 11}))[0] == 413
    assert ask(" " * (answers.MAX_BYTES + 1))[0] == 413


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150)
@given(st.sampled_from([*ANSWER, "box", "mask", "score", "category_id"]), ODD)
def test_anything_in_place_of_a_value_is_read_or_refused_in_one_line(key, value):
    answer = json.loads(json.dumps(ANSWER))
    (answer if key in answer else answer["findings"][0])[key] = value
    refusal = ask(json.dumps(answer))
    assert refusal is None or refusal[0] in (400, 413)


@pytest.mark.parametrize(
    ("answer", "threshold", "places", "without"),
    [
        # Without a fit from what is shown at first, 0.3, and where a user asks, from that.
        ({"labels": {"Cardiomegaly": 0.31}}, None, False, True),
        ({"labels": {"Cardiomegaly": 0.29}}, None, False, False),
        ({"labels": {"Cardiomegaly": 0.31}}, 0.5, False, False),
        ({"labels": {"Cardiomegaly": 0.31}, "thresholds": {"shown_from": 0.4}}, None, False, False),
        ({"labels": {"Cardiomegaly": 0.31}, "thresholds": {"shown_from": "text"}}, None, False, True),
        # With one, what counts as found: places leave it to boxes where no label does.
        ({"labels": {"Cardiomegaly": 0.9}, "positive_labels": []}, None, None, False),
        ({"labels": {"Cardiomegaly": 0.1}, "positive_labels": ["Cardiomegaly"]}, None, True, True),
    ],
)
def test_labels_of_a_classifier_alone_say_whether_there_are_findings(answer, threshold, places, without):
    text = json.dumps({**ANSWER, "findings": [], **answer})
    of_detector, _ = given_findings({"findings": text}, {}, threshold)
    assert of_detector.has_places
    assert of_detector.has_findings is (places or None)
    of_classifier, _ = given_findings({"findings": text}, {}, threshold, False)
    assert not of_classifier.has_places
    assert of_classifier.has_findings is without
