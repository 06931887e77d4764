"""RUN/precision.json: what one command found counts for the next, for these weights, versions and processor alone."""

import json
import os
import shutil

import pytest

from xray.inference import remembered
from xray.inference.remembered import FILE, Choice, processor, recall, remember

CHOICE = Choice("bf16", "2.0 × faster, the metric is expected to move by mAP@0.4 +0.0001 on the first 32 radiographs")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("XRAY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(b"weights")
    return tmp_path / "run"


def test_round_trip(run):
    assert recall([run]) is None
    assert remember([run], CHOICE) == run / FILE
    assert recall([run]) == (CHOICE, run / FILE)
    assert [path.name for path in run.iterdir() if path.name.endswith(".part")] == []
    # A copy of the run is the same run; another runtime is another question, and so are more models.
    copied = shutil.copytree(run, run.with_name("copy"))
    assert recall([copied]) == (CHOICE, copied / FILE)
    assert recall([run], "openvino-like") is None
    (copied / "model.safetensors").write_bytes(b"others")
    assert recall([run, copied]) is None
    (run / FILE).unlink()
    assert recall([run]) is None


def test_other_weights_versions_and_processors_do_not_count(run, monkeypatch):
    remember([run], CHOICE)
    with monkeypatch.context() as patch:
        patch.setattr(remembered, "__version__", "0.0.1")
        assert recall([run]) is None
    with monkeypatch.context() as patch:
        patch.setattr(remembered, "processor", lambda: "another")
        assert recall([run]) is None
        # Each machine that shares the folder has its own entry.
        remember([run], Choice("32", "slower"))
        assert recall([run])[0].precision == "32"
    assert recall([run])[0] == CHOICE
    (run / "model.safetensors").write_bytes(b"trained again")
    assert recall([run]) is None


def test_a_limit_to_the_instructions_is_another_processor(monkeypatch):
    for name in remembered.LIMITS:
        monkeypatch.delenv(name, raising=False)
    free = processor()
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "AVX512_CORE")
            assert processor() == f"{free} {name}=AVX512_CORE"


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"choices": 3}', '{"choices": [3, {}, {"for": 1, "precision": "bf16"}]}', "[" * 100_000],
)
def test_a_damaged_file_says_nothing_and_is_replaced(run, content):
    (run / FILE).write_text(content)
    assert recall([run]) is None
    remember([run], CHOICE)
    assert recall([run]) == (CHOICE, run / FILE)


def test_a_precision_that_is_none_of_ours_does_not_count(run):
    remember([run], CHOICE)
    content = json.loads((run / FILE).read_text())
    content["choices"][0]["precision"] = "8"
    (run / FILE).write_text(json.dumps(content))
    assert recall([run]) is None


def test_the_file_stays_small(run, monkeypatch):
    for number in range(remembered.MOST_ENTRIES + 5):
        monkeypatch.setattr(remembered, "processor", lambda number=number: f"machine {number}")
        remember([run], CHOICE)
    assert len(json.loads((run / FILE).read_text())["choices"]) == remembered.MOST_ENTRIES
    assert recall([run])[0] == CHOICE


def test_where_the_run_cannot_be_written_the_cache_remembers(run, tmp_path, monkeypatch):
    """As in a folder without the right to write, which the administrator has everywhere."""
    complete = remembered.complete

    def refusing(path):
        if path.parent == run:
            raise PermissionError(13, "Permission denied")
        return complete(path)

    monkeypatch.setattr(remembered, "complete", refusing)
    file = remember([run], CHOICE)
    assert file.is_relative_to(tmp_path / "cache")
    assert recall([run]) == (CHOICE, file)
    assert sorted(os.listdir(run)) == ["model.safetensors"]
    monkeypatch.setattr(remembered, "complete", lambda path: refusing(run / "x"))
    (tmp_path / "cache" / "precision" / file.name).unlink()
    assert remember([run], CHOICE) is None
    assert recall([run]) is None


def test_a_run_behind_an_address_is_remembered_in_the_cache(run, tmp_path, monkeypatch):
    monkeypatch.setattr(remembered, "as_given", lambda path: "s3://bucket/run")
    file = remember([run], CHOICE)
    assert file.is_relative_to(tmp_path / "cache")
    assert recall([run]) == (CHOICE, file)
    assert sorted(os.listdir(run)) == ["model.safetensors"]
