"""OpenVINO: the same findings as PyTorch's from all three kinds of models, 8 bits only where the metric is kept."""

# ruff: noqa: F811 (fixtures that are imported are arguments of tests)

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from openvino_runs import cache, quantised, runs  # noqa: F401

from xray.commands import export, infer
from xray.datasets.store import open_store
from xray.errors import FlagError, InputError
from xray.inference.pipeline_loading import load_pipeline
from xray.inference.precision import is_quantised, runtime_of
from xray.inference.ways import Models, place_of
from xray.models.weights import load_deployed

openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")
pytest.importorskip("onnxscript")

from xray.export.ready import make_ready  # noqa: E402
from xray.inference.openvino_files import FLOAT_FILE, INT8_FILE, openvino_file  # noqa: E402
from xray.inference.openvino_runtime import load_openvino, read_model  # noqa: E402

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def batch(vinbig_store):
    store = open_store(vinbig_store)
    return store.images[:3].copy(), [(record["width"], record["height"]) for record in store.records[:3]]


def test_all_three_find_what_pytorch_finds(runs, batch):
    exact = load_pipeline(runs, CPU)
    pipeline = load_pipeline(runs, CPU, runtime="openvino")
    assert (runtime_of(exact), runtime_of(pipeline)) == ("torch", "openvino")
    assert not is_quantised(pipeline)
    one, two = exact.find(*batch), pipeline.find(*batch)
    assert len(one.table) == len(two.table) > 20
    for image in range(3):
        scores = [np.sort(found.table.scores[found.table.images == image]) for found in (one, two)]
        np.testing.assert_allclose(*scores, atol=1e-3)
    assert np.abs(one.maps - two.maps).max() <= 1 / 255
    for label, column in one.labels.items():
        np.testing.assert_allclose(two.labels[label], column, atol=1e-4)
    # One radiograph, after three: the batch is free.
    assert len(pipeline.find(batch[0][:1], batch[1][:1]).table) > 0


def test_a_float_file_is_exported_once_and_described(runs, capsys, tmp_path):
    out = tmp_path / "labels.xml"
    export.main(export.Config(weights=(runs[2],), format="openvino", save_path=out))
    said = capsys.readouterr().out
    assert said.startswith(f"{out}: ")
    assert " MiB; on 3 phantoms up to " in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.bin", "labels.xml"]
    ((task, loaded),), pairs = load_openvino(out)
    assert (task, pairs, loaded.labels) == ("classification", (), tuple(load_deployed(runs[2])[0]["labels"]))
    with pytest.raises(InputError, match=r"labels.xml exists: give --overwrite"):
        export.main(export.Config(weights=(runs[2],), format="openvino", save_path=out))
    with pytest.raises(InputError, match=r"is an OpenVINO file: add --runtime openvino"):
        load_pipeline([out], CPU)


def test_what_is_missing_is_made_once_in_the_cache(classification_run, cache, capsys, mask_source, tmp_path):
    data = str(mask_source / "png_images" / "1_train.png")
    config = infer.Config(weights=(str(classification_run),), data_path=data, save_path=str(tmp_path / "a"),
                          runtime="openvino", n_workers=0, device="cpu", precision="32")  # fmt: skip
    assert infer.main(config) == 0
    made = f"making OpenVINO's model of {classification_run}, once for its weights"
    assert made in capsys.readouterr().err
    assert infer.main(dataclasses.replace(config, save_path=str(tmp_path / "b"))) == 0
    assert made not in capsys.readouterr().err
    assert infer.main(dataclasses.replace(config, save_path=str(tmp_path / "c"), runtime="torch")) == 0
    found = [json.loads((tmp_path / name / "predictions.json").read_text()) for name in "abc"]
    assert found[0] == found[1]
    for ours, theirs in zip(found[0], found[2], strict=True):
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-4)
    models = sorted(path.suffix for path in (cache / "openvino" / "models").iterdir())
    assert models == [".bin", ".xml"]
    assert list((cache / "openvino" / "compiled").iterdir())
    assert not (classification_run / FLOAT_FILE).exists()


def test_bfloat16_is_near(runs, batch):
    """Whatever the processor: where it has no bfloat16, OpenVINO computes in float32."""
    exact, rough = (load_pipeline([runs[2]], CPU, runtime="openvino") for _ in range(2))
    (classifier,) = rough.classifiers
    classifier.model.lower(torch.bfloat16)
    for label, column in exact.find(*batch).labels.items():
        np.testing.assert_allclose(rough.find(*batch).labels[label], column, atol=0.03)


def test_int8_is_what_auto_takes(quantised, batch, capsys, vinbig_store, tmp_path):
    assert openvino_file(quantised, "auto").name == openvino_file(quantised, "int8").name == INT8_FILE
    assert openvino_file(quantised, "32").name == FLOAT_FILE
    pipeline = load_pipeline([quantised], CPU, runtime="openvino")
    assert is_quantised(pipeline)
    ops = [op.get_type_name() for op in pipeline.detectors[0].model.engine.model.get_ops()]
    assert ops.count("FakeQuantize") > 20
    exact = load_pipeline([quantised], CPU).find(*batch).table
    rough = pipeline.find(*batch).table
    assert rough.scores.max() == pytest.approx(exact.scores.max(), abs=0.15)
    config = infer.Config(weights=(str(quantised),), data_path=str(vinbig_store), save_path=str(tmp_path / "out"),
                          runtime="openvino", n_workers=0, device="cpu")  # fmt: skip
    assert infer.main(config) == 0
    said = capsys.readouterr().err
    assert "precision int8: mAP@0.4 0." in said
    assert f"radiographs of fold 0 of data ({quantised / INT8_FILE})" in said


def test_other_weights_are_not_served_by_an_old_file(quantised, runs, tmp_path):
    run = shutil.copytree(quantised, tmp_path / "run")
    shutil.copy(runs[2] / "model.safetensors", run)
    shutil.copy(runs[2] / "model.json", run)
    with pytest.raises(
        InputError, match=r"was made from other weights than .* --int8 --check-data DATASET --overwrite"
    ):
        load_pipeline([run], CPU, runtime="openvino", precision="int8")
    with pytest.raises(InputError, match=r"holds no openvino.xml|was made from other weights"):
        load_pipeline([run], CPU, runtime="openvino")


def test_boxes_are_never_in_8_bits(runs):
    """By hand: what is left in float32 holds box decoding, suppression and scores; what is not, all layers."""
    from xray.export.int8 import LINEAR, attempts, parts_of

    model = read_model(runs[0] / FLOAT_FILE)
    parts = parts_of(model)
    kinds = {op.get_friendly_name(): op.get_type_name() for op in model.get_ops()}
    rest = {kinds[name] for name in parts.rest}
    assert {"NonMaxSuppression", "TopK", "Exp", "Softmax"} <= rest
    assert not rest.intersection((*LINEAR, "ROIAlign", "Relu"))
    # Two layers of the proposals' head on each of five levels, and the two of the box predictor.
    assert len(parts.heads[0]) == 12
    words = [what for what, _ in attempts(parts, True)]
    assert [what.partition(" (")[0] for what in words] == ["the layers of the outputs", "the heads"]
    segmenter = parts_of(read_model(runs[1] / FLOAT_FILE))
    assert len(segmenter.heads[0]) == 1
    assert [what.partition(" (")[0] for what, _ in attempts(segmenter, False)] == [
        "nothing", "the layers of the outputs", "the heads",
    ]  # fmt: skip


def test_more_layers_stay_in_float32_until_the_metric_is_kept(runs, monkeypatch):
    from xray.export import int8

    model, tried, told = read_model(runs[1] / FLOAT_FILE), [], []
    monkeypatch.setattr(int8, "quantise", lambda model, canvases, names: tried.append(names) or len(tried))
    values = {1: 0.7, 2: 0.7965, 3: 0.7971}
    exact = {"Dice": 0.8}

    def best(measure):
        tried.clear()
        return int8.best_quantised(model, False, [], measure, exact, told.append)

    chosen = best(lambda n: ({"Dice": values[n]}, {"Dice": -0.009}))
    assert (chosen.model, chosen.values, chosen.expected) == (3, {"Dice": 0.7971}, {"Dice": -0.009})
    assert chosen.float32.startswith("the heads (")
    assert [len(names) for names in tried] == [0, 1, 2]
    assert told[0] == "INT8 with nothing in float32: Dice 0.8000 → 0.7000 (-0.1000)"
    with pytest.raises(
        int8.LostMetricError, match=r"INT8 loses 0.003 or more of the metric, nothing was written: Dice 0.8000 → 0"
    ):
        best(lambda n: ({"Dice": 0.5}, {}))
    best(lambda n: ({"Dice": 0.9}, {}))
    assert told[-1].startswith("a rise of 0.003 or more is chance")
    # A metric without a truth: what is expected of it decides.
    chosen = best(lambda n: ({"Dice": 0.8}, {"mAP@0.4": -0.004 if n == 1 else -0.002}))
    assert chosen.model == 2
    assert "0.8000 (+0.0000), without a truth expected to move by mAP@0.4 -0.0020" in told[-1]


def test_a_metric_that_is_lost_leaves_nothing_behind(runs, mask_store, tmp_path, monkeypatch):
    pytest.importorskip("nncf", reason="the extra openvino is not installed")
    from xray.export import int8

    values = iter([0.9, 0.1, 0.1, 0.1])
    monkeypatch.setattr(int8, "metrics_on", lambda *args: {"Dice": next(values)})
    monkeypatch.setattr(int8, "expected_on", lambda *args: {})
    monkeypatch.setattr(int8, "quantise", lambda model, canvases, names: model)
    out = tmp_path / "new" / "x.xml"
    with pytest.raises(InputError, match="nothing was written"):
        export.main(
            export.Config(weights=(runs[1],), format="openvino", int8=True, check_data=mask_store, save_path=out)
        )
    assert list(out.parent.iterdir()) == []


def test_metrics_of_masks_and_labels(runs, mask_store):
    """PyTorch's own pipelines, so that the numbers are those of evaluate."""
    from xray.export.int8 import metrics_on

    dice = metrics_on(load_pipeline([runs[1]], CPU, flips=False), open_store(mask_store), 0, "segmentation")
    assert dice["Dice"] > 0.7
    auroc = metrics_on(load_pipeline([runs[2]], CPU, flips=False), open_store(mask_store), 0, "classification")
    assert 0 <= auroc["AUROC"] <= 1


def test_the_fold_that_training_held_back(tmp_path):
    from xray.export.int8 import fold_of

    assert fold_of(tmp_path, -1) == 0
    for text, fold in (
        ("fold: 3", 3),
        ("fold: val", "val"),
        ("fold: all", 0),
        ("[", 0),
        ("fold: -1", 0),
        ("fold: true", 0),
    ):
        (tmp_path / "config.yaml").write_text(text)
        assert fold_of(tmp_path, -1) == fold
    assert fold_of(tmp_path, 2) == 2


def test_nothing_is_reported_to_the_makers():
    """The library that would is not there for NNCF, and convert_model, which uses it too, is not called."""
    pytest.importorskip("nncf", reason="the extra openvino is not installed")
    from xray.export.int8 import _nncf

    _nncf()
    from nncf.telemetry.wrapper import NNCFTelemetry, telemetry

    assert not isinstance(telemetry, NNCFTelemetry)


def test_files_that_lie_or_are_damaged(runs, tmp_path):
    with pytest.raises(InputError, match=r"no run directory or file at .*nowhere"):
        openvino_file(tmp_path / "nowhere", "auto")
    with pytest.raises(InputError, match=r"holds no openvino.xml: write it with python tools/export.py"):
        openvino_file(tmp_path, "auto")
    text = tmp_path / "a.txt"
    text.write_text("x")
    with pytest.raises(InputError, match="is no model of OpenVINO: give a run directory"):
        openvino_file(text, "auto")
    alone = tmp_path / "alone.xml"
    shutil.copy(runs[2] / FLOAT_FILE, alone)
    with pytest.raises(InputError, match=r"alone.xml has no alone.bin beside it"):
        load_openvino(alone)
    alone.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"alone.xml is no model of OpenVINO|cannot run"):
        load_openvino(alone)
    alone.write_text("<net")
    with pytest.raises(InputError, match=r"alone.xml is no model of OpenVINO"):
        load_openvino(alone)
    other = tmp_path / "other.xml"
    shutil.copy((runs[2] / FLOAT_FILE).with_suffix(".bin"), tmp_path / "other.bin")
    other.write_text((runs[2] / FLOAT_FILE).read_text().replace("xray.description", "description"))
    with pytest.raises(InputError, match=r"other.xml does not say what it finds"):
        load_openvino(other)
    # The description of another model than the graph's.
    lies = (runs[2] / FLOAT_FILE).read_text().replace("&quot;canvas_size&quot;: 64", "&quot;canvas_size&quot;: 96")
    other.write_text(lies)
    with pytest.raises(InputError, match=r"does not hold the model that its description names: its inputs are"):
        load_openvino(other)
    with pytest.raises(InputError, match=r"is not quantised"):
        load_openvino(runs[2] / FLOAT_FILE, "int8")


def test_onnx_files_are_read_unchanged(runs, batch, tmp_path):
    from xray.export.onnx import to_onnx

    file = tmp_path / "labels.onnx"
    file.write_bytes(to_onnx(runs[2]))
    one, two = (load_pipeline([path], CPU, runtime="openvino").find(*batch).labels for path in (file, runs[2]))
    assert {name: column.tolist() for name, column in one.items()} == {n: column.tolist() for n, column in two.items()}


def test_flags_that_do_not_go_together(runs, tmp_path, monkeypatch):
    def exported(**more):
        export.main(export.Config(weights=(runs[0],), **more))

    for options, words in (
        ({"format": "onnx", "int8": True}, "--int8 is for --format openvino"),
        ({"format": "openvino", "int8": True}, "--int8 needs --check-data DATASET"),
        ({"format": "openvino", "fold": 1}, "--fold is for --int8"),
        ({"format": "openvino", "save_path": tmp_path / "x.onnx"}, "writes a file that ends in .xml"),
    ):
        with pytest.raises(FlagError, match=words):
            exported(**options)
    with pytest.raises(InputError, match="--runtime openvino computes on the CPU"):
        place_of("cuda", "auto", "openvino")
    find = sys.modules["importlib.util"].find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "openvino" else find(name))
    with pytest.raises(InputError, match=r'--runtime openvino needs openvino: pip install -e "\.\[openvino\]"'):
        place_of("cpu", "auto", "openvino")


def test_a_cache_that_cannot_be_written(classification_run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XRAY_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        InputError, match=r"cannot be written .*: set XRAY_CACHE to another folder, or run python tools"
    ):
        make_ready(Models((classification_run,), "cpu", "32", "openvino"))
