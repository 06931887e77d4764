"""ensemble.yaml: what is written is read again, by hand or by tune, and what cannot be used is refused in one line."""

import dataclasses
import os
from pathlib import Path

import pytest
import yaml

from xray.errors import InputError
from xray.inference.ensemble import Settings
from xray.inference.ensemble_file import Ensemble, Member, expanded, files_of, read_ensemble, write_ensemble

BY_HAND = """
version: 1
models:
- runs: [runs/a]
- runs: [../b0, /c/b1]
default: {method: wbf, score: sum, iou: 0.5}
categories:
  Nodule/Mass: {weights: [1, 0.5], exponents: [1, 2]}
"""


def test_by_hand(tmp_path: Path) -> None:
    (tmp_path / "ensemble.yaml").write_text(BY_HAND)
    ensemble = read_ensemble(tmp_path / "ensemble.yaml")
    assert [member.runs for member in ensemble.models] == [
        (tmp_path / "runs/a",),
        (tmp_path.parent / "b0", Path("/c/b1")),
    ]
    default = Settings(score="sum", iou=0.5)
    assert ensemble.default == default
    by = ensemble.by_category({8: "Other lesion", 9: "Nodule/Mass"})
    assert by[8] == default
    # What a category does not say is the default's.
    assert by[9] == dataclasses.replace(default, weights=(1, 0.5), exponents=(1, 2))
    assert not ensemble.needs_classifier  # there is none
    with pytest.raises(InputError, match=r"settings of Nodule/Mass, which are no categories here: these are lung"):
        ensemble.by_category({1: "lung"})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    ensemble = Ensemble(
        (Member((tmp_path / "a",), (tmp_path / "a/validation/predictions.json",)), Member((tmp_path / "b",))),
        (Member((), (tmp_path / "labels.csv",)),),
        Settings(weights=(1, 0), method="none", exponents=(1, 0.25)),
        {"Ärmel": Settings(weights=(0.5, 1), scale=0.875, skip=0.01, sigma=0.1)},
    )
    path = tmp_path / "out" / "ensemble.yaml"
    path.parent.mkdir()
    write_ensemble(path, ensemble, {"numbers": {"metric": "map40"}})
    assert read_ensemble(path) == ensemble
    assert ensemble.needs_classifier
    content = yaml.safe_load(path.read_text())
    assert content["models"][0]["runs"] == ["../a"]
    assert content["numbers"] == {"metric": "map40"}
    assert sorted(file.name for file in path.parent.iterdir()) == ["ensemble.yaml"]
    # The folder may move, as long as all of it does.
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    os.rename(tmp_path, moved)
    assert read_ensemble(moved / "out/ensemble.yaml").models[1].runs == (moved / "b",)
    os.rename(moved, tmp_path)


def test_run_directories_of_what_is_given(tmp_path: Path) -> None:
    path = tmp_path / "ensemble.yaml"
    path.write_text("version: 1\nmodels: [{runs: [a0, a1]}, {runs: [b]}]\nclassifiers: [{runs: [c]}]\n")
    names = [tmp_path / name for name in ("a0", "a1", "b", "c")]
    ensemble, runs = expanded([path, Path("masks")])
    assert ensemble is not None
    assert runs == [(Path("masks"), -1), *zip(names, (0, 0, 1, -1), strict=True)]
    assert files_of([path, Path("masks")]) == [path, Path("masks"), *names]
    assert expanded([Path("a"), Path("b")]) == (None, [(Path("a"), -1), (Path("b"), -1)])
    with pytest.raises(InputError, match="give one ensemble"):
        expanded([path, tmp_path / "other.yml"])
    path.write_text("version: 1\nmodels: [{predictions: [p.json]}]\n")
    with pytest.raises(
        InputError, match=r"names no run directory of .*p\.json: put it under runs, or tune with --runs"
    ):
        expanded([path])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it has no version: 1"),
        ("models: [{runs: [a]}]", "it has no version: 1"),
        ("version: 2", "it has no version: 1"),
        ("version: 1", "it names no models"),
        ("version: 1\nmodels: a", "models is no list"),
        ("version: 1\nmodels: [a]", "models has 'a' where it needs names and values"),
        ("version: 1\nmodels: [{runs: a}]", "runs of models is no list of paths"),
        ("version: 1\nmodels: [{runs: [1]}]", "runs of models is no list of paths"),
        ("version: 1\nmodels: [{runs: [a]}]\ndefault: {iuo: 0.4}", "default has iuo, and settings are weights, method"),
        ("version: 1\nmodels: [{runs: [a]}]\ndefault: {iou: 1.4}", "default: the IoU threshold is 1.4"),
        ("version: 1\nmodels: [{runs: [a]}]\ndefault: {iou: yes}", "is no .*number"),
        ("version: 1\nmodels: [{runs: [a]}]\ndefault: {iou: null}", "default: iou is empty"),
        ("version: 1\nmodels: [{runs: [a]}]\ndefault: {weights: 1}", "weights must be a list of numbers"),
        ("version: 1\nmodels: [{runs: [a]}]\ncategories: {x: {weights: [1, 2]}}", "x: 2 weights for 1"),
        ("version: 1\nmodels: [{runs: [a]}]\ncategories: {x: {weights: [0]}}", "x: weights must be positive"),
        ("version: 1\nmodels: [{runs: [a]}]\ncategories: {x: {exponents: [1]}}", "exponents must be two numbers"),
        ("version: 1\nmodels: [{runs: [a]}]\ncategories: {x: {exponents: [0, 1]}}", "x: exponents are 0.0 and 1.0"),
        ("version: 1\nmodels: [{runs: [a]}]\ncategories: {x: {scale: 2}}", "x: the scale of boxes is 2.0"),
        ("version: 1\nmodels: [{runs: [a]}]\ncategories: {x: {method: best}}", "x: unknown fusion method 'best'"),
        ("version: 1\nmodels: [{runs: [a]}]\ncategories: [x]", "categories has .* where it needs names and values"),
        ("a: [", "is not YAML"),
        ("a: !!python/object:os.system {}", "is not YAML"),
        ("a: " + "b" * 1_000_001, "has 1000004 characters"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "ensemble.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as refused:
        read_ensemble(path)
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="no ensemble at"):
        read_ensemble(tmp_path / "none.yaml")
