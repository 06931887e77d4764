"""With fitted thresholds: what the API answers, and what reports then hold."""

import io
import json
from dataclasses import replace

import pydicom
import pytest
from serving_cases import TWELVE_BITS, Oracle, write_phantom
from starlette.testclient import TestClient

from xray.findings import FINDINGS
from xray.outputs.dicom.objects import Algorithm
from xray.outputs.dicom.results import DicomResults
from xray.radiographs.decoding import decode_canvas
from xray.serving.app import create_app
from xray.serving.service import Limits, Service
from xray.structures.thresholds import ABNORMAL, Point, Thresholds

SCORES = (0.9, 0.7, 0.5, 0.1)
CLASSES = (0, 3, 10, 12)
# In the order of the scores: 0.75 and found, 0.7 and not, 0.5 from 0.3, 0.1 and found.
POINTS = (Point(2.0, 0.9), Point(1.0, 0.8), None, Point(1.0, 0.05))
FITTED = Thresholds(
    "boxes",
    {FINDINGS[c]: point for c, point in zip(CLASSES, POINTS, strict=True) if point} | {ABNORMAL: Point(2.0)},
    "sensitivity=0.9",
    "0123456789abcdef0123",
)
ALGORITHM = Algorithm("xray", "1", {"model 1": "sha256:0"})


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """An oracle, and a file that it knows."""
    path, oracle = tmp_path_factory.mktemp("radiographs") / "a.dcm", Oracle()
    phantom = write_phantom(path, 3, CLASSES, (256, 300), TWELVE_BITS)
    of_class = dict(zip(CLASSES, SCORES, strict=True))
    oracle.learn(path, phantom, [of_class[class_id] for class_id in phantom.class_ids.tolist()])
    return oracle, path


@pytest.fixture(scope="module")
def answers(known):
    """(thresholds, lowest confidence) → the answers of /predict and /about, and a report of what is shown."""
    pytest.importorskip("highdicom")
    oracle, path = known

    def ask(thresholds, shown_from=0.3):
        with (
            Service(oracle, ["run"], Limits(n_workers=1), thresholds, shown_from) as service,
            TestClient(create_app(service, ALGORITHM)) as client,
        ):
            content = path.read_bytes()
            predicted = client.post("/predict", content=content)
            assert predicted.status_code == 200, predicted.text
            answer, about = predicted.json(), client.get("/about").json()
            form = {"files": {"file": content}, "data": {"findings": json.dumps(answer)}}
            sent = client.post("/dicom/sr", **form)
            assert sent.status_code == 200, sent.text
            asked = client.post("/invocations", content=content, headers={"Accept": "application/dicom"})
            return answer, about, *(pydicom.dcmread(io.BytesIO(response.content)) for response in (sent, asked))

    return ask


def certainties(report):
    """Of each finding of a report, by its name: the certainty in percent."""
    found = {}
    for group in next(item for item in report.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "126010")[
        0x0040A730
    ].value:
        items = {item.ConceptNameCodeSequence[0].CodeMeaning: item for item in group.ContentSequence}
        if "Certainty of Finding" in items:
            name = items["Tracking Identifier"].TextValue.split(": ")[1]
            found[name] = float(items["Certainty of Finding"].MeasuredValueSequence[0].NumericValue)
    return found


def test_an_answer_has_both_numbers_and_reports_the_calibrated(answers):
    answer, about, sent, asked = answers(FITTED)
    by_name = {finding["category"]: finding for finding in answer["findings"]}
    of_class = [by_name[FINDINGS[class_id]] for class_id in CLASSES]
    assert [finding["score"] for finding in of_class] == list(SCORES)
    assert [finding["probability"] for finding in of_class] == [0.75, 0.7, 0.5, 0.1]
    assert [finding["is_positive"] for finding in of_class] == [True, False, True, True]
    # "No finding" is 0.1, abnormal 9 : 1 and calibrated 3 : 1.
    assert (answer["normal"], answer["normal_probability"]) == (0.1, 0.25)
    assert answer["thresholds"]["found_at"] == about["found_at"] == "sensitivity=0.9"
    # Reports hold what counts as found.
    names = [FINDINGS[class_id] for class_id in CLASSES]
    for report in (sent, asked):
        assert certainties(report) == pytest.approx({names[0]: 75, names[2]: 50, names[3]: 10, "No finding": 25})


def test_what_a_user_set_is_in_the_place_of_thresholds(answers):
    answer, about, _, asked = answers(FITTED.instead(0.72), 0.72)
    assert [finding["category"] for finding in answer["findings"] if finding["is_positive"]] == [FINDINGS[CLASSES[0]]]
    assert "found_at" not in about
    assert about["shown_from"] == answer["thresholds"]["shown_from"] == 0.72
    assert certainties(asked) == pytest.approx({FINDINGS[CLASSES[0]]: 75, "No finding": 25})


def test_without_a_fit_nothing_is_added(answers):
    answer, about, sent, asked = answers(None)
    fields = {"width", "height", "findings", "normal", "labels", "models", "thresholds", "seconds", "version",
              "file_sha256"}  # fmt: skip
    assert set(answer) == fields
    assert all(set(f) == {"category_id", "category", "score", "box", "mask"} for f in answer["findings"])
    assert "found_at" not in about
    assert answer["thresholds"].keys() == {"shown_from", "mask_top", "mask_min_area", "mask_bottom"}
    for report in (sent, asked):
        assert sorted(certainties(report).values()) == pytest.approx([10, 50, 70, 90])


@pytest.mark.parametrize("kind", ["boxes", "labels"])
def test_a_report_of_files_holds_what_counts_as_found(known, kind):
    pytest.importorskip("highdicom")
    oracle, path = known
    decoded = decode_canvas(0, path, oracle.canvas_size)
    found = oracle.find(decoded.canvas[None], [(decoded.width, decoded.height)])
    results = DicomResults(ALGORITHM, seg=False, thresholds=replace(FITTED, kind=kind))
    findings = replace(found.of(0, oracle.categories), labels={FINDINGS[CLASSES[0]]: 0.9})
    report = results.of(path, findings)["sr"]
    whole = certainties(report)
    assert whole["No finding"] == pytest.approx(25)
    assert FINDINGS[CLASSES[1]] not in whole
    # The label of a classifier beside detectors was not fitted, that of a classifier alone was.
    nothing = replace(
        FITTED, kind=kind, of={name: Point(2.0, 1.000001) for name in FINDINGS} | {FINDINGS[0]: POINTS[0]}
    )
    normal = replace(findings, table=found.table.select(found.table.labels == 15), masks={})
    only = replace(results, thresholds=nothing).of(path, normal)["sr"]
    assert certainties(only)[FINDINGS[0]] == pytest.approx(75 if kind == "labels" else 90)
    # And so a report without a box says that there are findings.
    summaries = {
        "labels": "All algorithms succeeded; with findings",
        "boxes": "All algorithms succeeded; without findings",
    }
    assert summaries[kind] in str(only)


def test_what_viewers_draw_is_what_counts_as_found(known):
    pytest.importorskip("highdicom")
    oracle, path = known
    decoded = decode_canvas(0, path, oracle.canvas_size)
    found = oracle.find(decoded.canvas[None], [(decoded.width, decoded.height)])
    objects = {}
    for name, thresholds in (("plain", None), ("fitted", FITTED)):
        results = DicomResults(ALGORITHM, seg=False, gsps=True, sc=True, thresholds=thresholds)
        objects[name] = results.of(path, found.of(0, oracle.categories))
    texts = {name: str(made["gsps"]) for name, made in objects.items()}
    names = [FINDINGS[class_id] for class_id in CLASSES]
    # From 0.3 the first three; from their own thresholds all but the second, the first as 0.75.
    assert [name.split("/")[0] in texts["plain"] for name in names] == [True, True, True, False]
    assert [name.split("/")[0] in texts["fitted"] for name in names] == [True, False, True, True]
    assert "0.75" in texts["fitted"]
    assert objects["plain"]["sc"].PixelData != objects["fitted"]["sc"].PixelData
