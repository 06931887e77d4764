"""thresholds.json: written and read, and not used where it is of something else."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from xray.errors import InputError
from xray.evaluation.calibration import Outcomes, fit_line, smoothed
from xray.inference.thresholds import read_thresholds, thresholds_file, thresholds_of, write_thresholds
from xray.structures.thresholds import Point, Thresholds

FITTED = Thresholds("boxes", {"Nodule/Mass": Point(2.0, 0.4, -1.5), "Other": Point()}, "sensitivity=0.9")


def run(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_what_was_written_is_read(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write_thresholds(run(tmp_path / "a"), FITTED, {"dataset": {"n_images": 3}})
    assert path == tmp_path / "a/thresholds.json"
    found = thresholds_of([tmp_path / "a"])
    assert found is not None
    assert (found.kind, found.of, found.at) == (FITTED.kind, FITTED.of, FITTED.at)
    content = path.read_bytes()
    write_thresholds(tmp_path / "a", FITTED, {"dataset": {"n_images": 3}})
    assert path.read_bytes() == content
    (tmp_path / "a/model.onnx").write_bytes(b"")
    assert thresholds_of([tmp_path / "a/model.onnx"]) == found
    override = thresholds_of([tmp_path / "a"], 0.25)
    assert override is not None
    assert override.from_probability == 0.25
    path.unlink()
    assert thresholds_of([tmp_path / "a"]) is None
    assert capsys.readouterr().err == ""


def test_whatever_a_fit_comes_to_is_read(tmp_path: Path) -> None:
    # Saturated scores, close to one another: a temperature of 0.05 shifts their logits, 7 to 8, by some 145.
    scores = np.linspace(0.999, 0.9995, 200)
    line = fit_line(smoothed(Outcomes.of(scores, scores > 0.9993, np.arange(200))))
    assert line[1] < -100
    point = Point(line[0], 0.9993, line[1])
    write_thresholds(run(tmp_path / "a"), Thresholds("boxes", {"Nodule/Mass": point}, "sensitivity=0.9"), {})
    found = read_thresholds(tmp_path / "a")
    assert found is not None
    assert found.of["Nodule/Mass"] == point


def test_only_files_of_the_first_version_have_no_intercepts(tmp_path: Path) -> None:
    path = write_thresholds(run(tmp_path / "a"), FITTED, {})
    content = json.loads(path.read_text())
    for point in content["findings"].values():
        del point["intercept"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"is damaged \(no 'intercept'\): fit again"):
        read_thresholds(tmp_path / "a")
    huge = {"Other": {"temperature": 10**400, "threshold": 0.5, "intercept": 0.0}}
    path.write_text(json.dumps(content | {"findings": huge}))
    with pytest.raises(InputError, match="is damaged"):
        read_thresholds(tmp_path / "a")
    path.write_text(json.dumps(content | {"version": 1}))
    found = read_thresholds(tmp_path / "a")
    assert found is not None
    assert found.of["Nodule/Mass"] == Point(2.0, 0.4)


def test_other_weights_and_several_models_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first, second = run(tmp_path / "a"), run(tmp_path / "b")
    assert thresholds_of([first, second]) is None
    assert capsys.readouterr().err == ""
    write_thresholds(first, FITTED, {})
    assert thresholds_of([second, first]) is None
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "is of one model alone, and here are 2" in lines[0]
    run(first, b"others")
    assert thresholds_of([first]) is None
    [line] = capsys.readouterr().err.splitlines()
    assert "was fitted before the weights changed: fit again" in line


def test_an_ensemble_has_a_file_of_its_own(tmp_path: Path) -> None:
    run(tmp_path / "a"), run(tmp_path / "b")
    ensemble = tmp_path / "best.yaml"
    text = "version: 1\nmodels:\n- runs: [a]\n- runs: [b]\ndefault: {iou: 0.4}\n"
    ensemble.write_text(text)
    assert write_thresholds(ensemble, FITTED, {}) == tmp_path / "best.thresholds.json" == thresholds_file(ensemble)
    assert read_thresholds(ensemble) is not None
    ensemble.write_text(text.replace("0.4", "0.5"))
    with pytest.raises(InputError, match="before the ensemble or its weights changed"):
        read_thresholds(ensemble)
    ensemble.write_text(text)
    run(tmp_path / "b", b"others")
    with pytest.raises(InputError, match="before the ensemble or its weights changed"):
        read_thresholds(ensemble)


def test_a_file_of_an_earlier_version_has_no_intercept(tmp_path: Path) -> None:
    path = write_thresholds(run(tmp_path / "a"), FITTED, {})
    content = json.loads(path.read_text()) | {"version": 1}
    for point in content["findings"].values():
        del point["intercept"]
    path.write_text(json.dumps(content))
    fitted = read_thresholds(tmp_path / "a")
    assert fitted is not None
    assert fitted.of == {"Nodule/Mass": Point(2.0, 0.4), "Other": Point()}


def test_a_damaged_file_is_one_line_and_not_used(tmp_path: Path) -> None:
    path = write_thresholds(run(tmp_path / "a"), FITTED, {})
    good = json.loads(path.read_text())
    one = good["findings"]["Nodule/Mass"]
    for content in (
        "{", "[]", "7", json.dumps(good | {"version": 3}), json.dumps(good | {"kind": "x"}),
        json.dumps({name: value for name, value in good.items() if name != "weights"}),
        *(json.dumps(good | {"findings": {"a": one | wrong}}) for wrong in (
            {"temperature": 0}, {"temperature": None}, {"temperature": "1"}, {"threshold": -1}, {"threshold": 3},
            {"threshold": True}, {"temperature": float("nan")}, {"intercept": None}, {"intercept": 1e9},
        )),
    ):  # fmt: skip
        path.write_text(content)
        said: list[str] = []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert thresholds_of([tmp_path / "a"], warn=said.append) is None
        assert len(said) == 1, content
        assert "is damaged (" in said[0]
        assert "\n" not in said[0]
