"""--precision int8 and auto: the INT8 model is made once beside the weights, and used only if it is theirs and kept."""

# ruff: noqa: F811 (fixtures that are imported are arguments of tests)

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from openvino_runs import cache, quantised, runs  # noqa: F401

import xray
from xray.commands import export, infer, pseudo
from xray.datasets.store import open_store
from xray.errors import FlagError, InputError
from xray.inference import openvino_files, ways
from xray.inference.openvino_files import (
    FAILED_FILE,
    FLOAT_FILE,
    INT8_FILE,
    WEIGHTS,
    failure_of,
    file_beside,
    measured_in,
    models_beside,
    sha256_of,
)
from xray.inference.pipeline_loading import load_pipeline
from xray.inference.precision import is_quantised, runtime_of
from xray.inference.remembered import Choice, recall, remember
from xray.inference.ways import PLAIN, QUANTISED, Models, Way

pytest.importorskip("openvino", reason="the extra openvino is not installed")
pytest.importorskip("onnxscript")

from xray.export import int8
from xray.export.ready import make_ready, own_dataset

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def own(quantised, tmp_path):
    """A copy of the detector with its INT8 file, which may be written to."""
    return shutil.copytree(quantised, tmp_path / "run")


@pytest.fixture
def bare(own):
    """One that has no INT8 model yet."""
    for suffix in (".xml", ".bin"):
        (own / INT8_FILE).with_suffix(suffix).unlink()
    return own


@pytest.fixture
def quick(monkeypatch, quantised):
    """Exporting and quantising take no time: what comes of them is known; returns the attempts."""
    from xray.inference.openvino_runtime import PLACE, read_model

    tried, weights = [], {}

    def marked(model):
        model.set_rt_info(weights["now"], [PLACE, WEIGHTS])
        return model

    def to_openvino(run, prune):
        weights["now"] = sha256_of(run / "model.safetensors")
        return marked(read_model(quantised / FLOAT_FILE))

    def quantise(model, canvases, names):
        tried.append(names)
        return marked(read_model(quantised / INT8_FILE))

    monkeypatch.setattr("xray.export.openvino.to_openvino", to_openvino)
    monkeypatch.setattr(int8, "quantise", quantise)
    return tried


@pytest.fixture
def kept(monkeypatch):
    """A detector of seconds moves by chance."""
    monkeypatch.setattr(int8, "MOST_MOVE", 1.0)


@pytest.fixture
def run_infer(vinbig_store, tmp_path):
    """Runs the command with these flags, by default on the 16 radiographs of the dataset; returns its predictions."""

    def run(weights, name="out", **flags):
        places = {"weights": (str(weights),), "data_path": str(vinbig_store), "save_path": str(tmp_path / name)}
        assert infer.main(infer.Config(**{**places, "n_workers": 0, "device": "cpu", **flags})) == 0
        return json.loads((tmp_path / name / "predictions.json").read_text())

    return run


def test_it_is_made_once_with_the_dataset_of_the_run(bare, quick, kept, run_infer, capsys, vinbig_store):
    one = run_infer(bare, "a", precision="int8")
    said = capsys.readouterr().err
    assert f"making the INT8 model of {bare}, once for its weights, with {vinbig_store}" in said
    assert "precision int8: mAP@0.4 0." in said
    assert f" radiographs of fold 0 of data ({bare / INT8_FILE})" in said
    measured = measured_in(bare / INT8_FILE)
    assert measured["exact"].keys() == measured["int8"].keys() == {"mAP@0.4", "COCO AP"}
    assert measured["expected"].keys() <= measured["exact"].keys()  # none where too little is found
    assert run_infer(bare, "b", precision="int8") == one
    assert "making the INT8 model" not in capsys.readouterr().err
    assert len(quick) == 1
    assert run_infer(bare, "c", precision="32") != one
    # Other weights: it is never used for them, but made again.
    weights = bare / "model.safetensors"
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    save_file({name: value.clone() for name, value in load_file(weights).items()}, weights, {**metadata, "x": "y"})
    assert file_beside(bare, INT8_FILE) is None
    make_ready(Models((bare,), "cpu", "int8"))
    assert len(quick) == 2
    assert file_beside(bare, INT8_FILE) == bare / INT8_FILE


def test_without_its_dataset_one_line_tells_how_to_make_it(bare, tmp_path, vinbig_store):
    def refused():
        with pytest.raises(InputError) as caught:
            make_ready(Models((bare,), "cpu", "int8"))
        command = f"python tools/export.py --weights {bare} --format openvino --int8 --check-data DATASET"
        assert str(caught.value).endswith(f": make it with {command}")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    text = (bare / "config.yaml").read_text()
    (bare / "config.yaml").write_text(text.replace(str(vinbig_store), str(tmp_path / "gone")))
    assert f"the dataset that it was trained on is not at {tmp_path / 'gone'}" in refused()
    # Another dataset has taken its place.
    other = shutil.copytree(vinbig_store, tmp_path / "gone")
    records = json.loads((other / "annotations.json").read_text())
    for record in records["images"]:
        record["source_id"] = f"other {record['source_id']}"
    (other / "annotations.json").write_text(json.dumps(records))
    assert "is not what it was trained on: it validated radiographs that are not in fold 0" in refused()
    (bare / "config.yaml").unlink()
    assert "has no config.yaml that says what it was trained on" in refused()
    assert own_dataset(bare)[0] is None
    assert models_beside([bare]).keys() == {"32"}


def test_a_lost_metric_is_told_at_once_the_next_time(bare, quick, run_infer, monkeypatch):
    monkeypatch.setattr(int8, "is_kept", lambda exact, rough: False)
    for _ in range(2):
        with pytest.raises(InputError, match=r"has no INT8 model: INT8 loses 0.003 or more of the metric, .*mAP@0.4"):
            run_infer(bare, precision="int8")
    assert len(quick) == 2  # the attempts of the first command
    assert not (bare / INT8_FILE).exists()
    note = json.loads((bare / FAILED_FILE).read_text())
    assert note["why"].startswith("INT8 loses")
    assert failure_of(bare, note["versions"]) == note["why"]
    # Other versions may do better, other weights are another question, and what is damaged says nothing.
    assert failure_of(bare, {"nncf": "99"}) == ""
    for content in ("{", "[]", json.dumps({**note, "weights": "0"})):
        (bare / FAILED_FILE).write_text(content)
        assert failure_of(bare, note["versions"]) == ""
    # auto does without.
    assert Models((bare,), "cpu").start(3).way == Way("torch", "auto")


@pytest.fixture
def easy(monkeypatch):
    """A trial pays for 4 radiographs, 8 bits are the fastest, and what they find is near enough."""
    from xray.inference import metric_moves, precision, trial

    monkeypatch.setattr(ways, "WORTH_A_TRIAL", 4)
    monkeypatch.setattr(precision, "WORTH_A_TRIAL", 4)
    rank = {"int8": 1.0, "bf16": 2.0, "32 by OpenVINO": 3.0, "bf16 by OpenVINO": 2.5, "32": 4.0}
    monkeypatch.setattr(trial, "_seconds", lambda known, *_: {way: rank[way.name] for way in known})
    monkeypatch.setattr(metric_moves, "expected_moves", lambda *_: {"mAP@0.4": -0.001})
    monkeypatch.setattr(trial, "corrected", lambda moves, measured: moves)


def test_auto_takes_it_where_it_is_faster_and_remembers(own, easy, run_infer, capsys, monkeypatch):
    one = run_infer(own, "a")
    said = capsys.readouterr().err
    assert "precision int8: 4.0 × faster (" in said
    assert "the metric is expected to move by mAP@0.4 -0.0010 on the first" in said
    assert one == run_infer(own, "b", precision="int8")
    capsys.readouterr()
    choice, file = recall([own], "auto")
    assert (choice.precision, choice.runtime, choice.saved) == ("int8", "openvino", 1.5)
    assert set(choice.considered) == {name for models in models_beside([own]).values() for name in models}
    # The next command makes no trial.
    monkeypatch.setattr("xray.inference.precision.fastest_way", lambda *args: pytest.fail("a trial"))
    assert run_infer(own, "c") == one
    assert f"(remembered in {file})" in capsys.readouterr().err
    models = Models((own,), "cpu")
    assert models.start().way == QUANTISED
    assert is_quantised(xray.load(own, device="cpu")._pipeline)
    # A copy is the same run; PyTorch alone is another question.
    assert Models((shutil.copytree(own, own.with_name("copy")),), "cpu").start().way == QUANTISED
    assert dataclasses.replace(models, runtime="torch").start(3).way.runtime == "torch"
    # One radiograph is not worth importing OpenVINO if that saves less.
    remember([own], dataclasses.replace(choice, saved=0.01), "auto")
    few = models.start(1)
    assert few.way == PLAIN
    assert few.why.startswith("precision 32: of 1 radiograph int8 would save less time than it takes to open")
    assert models.start(1000).way == QUANTISED
    # The file is gone, or another one: what was found of it does not count.
    (own / INT8_FILE).rename(own / "elsewhere.xml")
    assert models.start(1).way.runtime == "torch"
    (own / INT8_FILE).write_text((own / "elsewhere.xml").read_text() + "\n")
    assert models.start(1).way.runtime == "torch"


def test_a_new_model_is_tried_and_small_jobs_keep_what_they_have(own, easy):
    models, choice = Models((own,), "cpu"), Choice("bf16", "why", considered=("older",))
    remember([own], choice, "auto")
    assert models.start(3).way == Way("torch", "bf16")
    assert models.start(100) == ways.Start(Way("torch", "auto"), None)
    remember([own], dataclasses.replace(choice, considered=ways.considered(models.others())), "auto")
    assert models.start(100).way == Way("torch", "bf16")
    # Views of other sizes, and a pruned network, are not what the file holds.
    for options in ({"scales": (1.0, 1.25)}, {"prune": 1}):
        assert dataclasses.replace(models, options=options).others() == {}


def test_a_processor_without_bfloat16_tries_8_bits_too(own, monkeypatch):
    monkeypatch.setattr(ways, "inference_precision", lambda name, device: torch.float32)
    monkeypatch.setattr(ways, "has_bfloat16", lambda: False)
    models = Models((own,), "cpu")
    assert models.others().keys() == {QUANTISED, Way("openvino", "32")}
    assert models.start(100).dtype is None
    assert models.start(3).dtype == torch.float32
    (own / INT8_FILE).unlink()
    shutil.rmtree(own.parent / "cache", ignore_errors=True)
    (own / "openvino.xml").unlink()
    assert models.start(100).dtype == torch.float32


def test_a_command_that_goes_on_uses_the_model_that_it_began_with(own, easy, tmp_path, vinbig_store):
    from xray.inference.precision import choose_precision
    from xray.inference.prediction_journal import PredictionJournal

    models = Models((own,), "cpu")
    (identity,) = models_beside([own])["int8"]
    noted = {"runtime": "openvino", "precision": "int8", "batch_size": 3, "models": [identity]}
    start = models.start(100)
    pipeline = load_pipeline([own], CPU)
    with PredictionJournal(tmp_path / "j", {}, "abc") as journal:
        journal.choose_once(noted)
        again, size, undecided = choose_precision(pipeline, journal, models, start, 0)
        assert (is_quantised(again), size, undecided) == (True, 3, False)
    with PredictionJournal(tmp_path / "k", {}, "abc") as journal:
        journal.choose_once({**noted, "models": ["another"]})
        with pytest.raises(InputError, match="were done with int8 and other files of OpenVINO than there are now"):
            choose_precision(pipeline, journal, models, start, 0)


def test_compiled_models_are_kept(own, cache):
    """What OpenVINO says of itself: the second network of the same file came from the cache."""
    batch = np.zeros((1, 64, 64), dtype=np.uint8), [(64, 64)]
    compiled = []
    for _ in range(2):
        pipeline = load_pipeline([own], CPU, runtime="openvino", precision="int8")
        pipeline.find(*batch)
        engine = pipeline.detectors[0].model.engine
        compiled.append(engine._request.get_compiled_model().get_property("LOADED_FROM_CACHE"))
    assert compiled == [False, True]
    assert len(list((cache / "openvino" / "compiled").iterdir())) == 1


def test_each_of_an_ensemble_has_its_own(own, runs, kept, quick, vinbig_store):
    """A classifier without an INT8 model keeps auto from 8 bits, and int8 says which one lacks it."""
    pair = [own, runs[2]]
    assert models_beside(pair).keys() == {"32"}
    with pytest.raises(InputError, match=r"holds no openvino-int8.xml"):
        Models(tuple(pair), "cpu", "int8").start()
    twice = shutil.copytree(own, own.with_name("twice"))
    assert len(models_beside([own, twice])["int8"]) == 2
    pipeline = Models((own, twice), "cpu", "int8").load(QUANTISED)
    assert [detector.model.is_int8 for detector in pipeline.detectors] == [True, True]
    assert len(Models((own, twice), "cpu").measured()) == 2


def test_a_server_and_pseudo_labels_take_it(own, tmp_path, vinbig_store, capsys):
    from xray.serving.service import Limits, load_service

    service = load_service([own], Limits(n_workers=1), "cpu", "int8")
    assert is_quantised(service.pipeline)
    assert capsys.readouterr().err.startswith("precision int8: mAP@0.4 0.")
    model = xray.load(own, device="cpu", precision="int8")
    assert runtime_of(model._pipeline) == "openvino"
    images = open_store(vinbig_store).images
    assert len(model.predict(np.array(images[0])).rows) > 0
    config = pseudo.Config(weights=(str(own),), data_path="a", images="b", save_path=str(tmp_path), precision="int8")
    pseudo.check(config)
    flags = pseudo.infer_config(config, tmp_path / "x", [own])
    assert Models.of_flags(flags).start().way == QUANTISED


def test_what_cannot_be_is_one_line(own, monkeypatch, tmp_path):
    def checked(**flags):
        infer.check(infer.Config(weights=(str(own),), data_path="a", save_path="b", precision="int8", **flags))

    checked()
    for flags, words in (
        ({"runtime": "torch"}, "--precision is int8: it must be auto, 32, bf16 or 16 with --runtime torch: int8 is"),
        ({"runtime": "onnx"}, "--precision is int8"),
        ({"engine": "ray"}, "--engine is ray: it must be local with --precision int8"),
        ({"scales": (1.0, 1.25)}, "1 with --precision int8"),
        ({"prune": 1}, "0 with --precision int8"),
    ):  # fmt: skip
        with pytest.raises(FlagError, match=words):
            checked(**flags)
    with pytest.raises(InputError, match="--device cuda, but --precision int8 computes on the CPU: use --device cpu"):
        make_ready(Models((own,), "cuda", "int8"))
    with pytest.raises(InputError, match="precision is int8"):
        xray.load(own, precision="int8", runtime="torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Models((own,), "auto", "int8").start().why.endswith("the GPU of this machine is left alone")
    monkeypatch.undo()
    find = sys.modules["importlib.util"].find_spec
    without = lambda name: None if name == "openvino" else find(name)  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", without)
    monkeypatch.setattr(openvino_files, "find_spec", without)
    with pytest.raises(InputError, match=r'^--precision int8 needs openvino: pip install -e "\.\[openvino\]"'):
        infer.main(infer.Config(weights=(str(own),), data_path="a", save_path=str(tmp_path / "x"), precision="int8"))
    assert Models((own,), "cpu").others() == {}


def test_where_the_run_cannot_be_written_the_cache_has_it(bare, quick, kept, cache, monkeypatch):
    monkeypatch.setattr("xray.export.ready.can_be_written", lambda folder: False)
    make_ready(Models((bare,), "cpu", "int8"))
    file = file_beside(bare, INT8_FILE)
    assert file.is_relative_to(cache / "openvino" / "models")
    assert not (bare / INT8_FILE).exists()
    assert is_quantised(Models((bare,), "cpu", "int8").load(QUANTISED))


def test_files_that_say_nothing(tmp_path):
    path = tmp_path / "x.xml"
    assert openvino_files.value_in(path, "xray.kept") == ""
    path.write_bytes(b'<net><xray.kept value="a &quot;\xff')
    assert (openvino_files.value_in(path, "xray.kept"), measured_in(path)) == ("", {})
    for text in ("{", "[1]", '{"exact": {"a": "b"}}', "null", '{"exact": {}, "int8": [], "expected": {}}'):
        path.write_text(f'<xray.measured value="{text.replace(chr(34), "&quot;")}" />')
        assert measured_in(path) == {}


@pytest.fixture(scope="module")
def both(vinbig_run, mask_store, train_masks, tmp_path_factory):
    """A detector and a segmenter on its trunk as one run. Not to be changed."""
    folder = tmp_path_factory.mktemp("joined")
    flags = ("--encoder", "mobilenet_v2", "--depth", "4", "--encoder-from", vinbig_run, "--freeze-encoder")
    head = train_masks(mask_store, folder / "head", *flags)
    export.main(export.Config(weights=(vinbig_run, head), format="run", save_path=folder / "both"))
    return folder / "both"


@pytest.mark.slow
def test_two_heads_on_one_trunk(both, kept, capsys, monkeypatch, vinbig_store, mask_store, tmp_path):
    """With boxes as truth, masks go by what is expected of them; a dataset of masks measures these."""
    moves = {"mAP@0.4": -0.001, "COCO AP": -0.002, "Dice": -0.0005}
    monkeypatch.setattr(int8, "expected_moves", lambda *_: moves)
    run = shutil.copytree(both, tmp_path / "both")
    with pytest.raises(InputError, match=r"has no config.yaml that says what it was trained on"):
        make_ready(Models((run,), "cpu", "int8"))
    export.main(export.Config(weights=(run,), format="openvino", int8=True, check_data=vinbig_store))
    said = capsys.readouterr()
    assert "radiographs of fold 0 of data, Dice -0.0005 expected without a truth; in float32 stays" in said.out
    assert "--precision int8" in said.out
    pipeline = Models((run,), "cpu", "int8").load(QUANTISED)
    (detector,), (segmenter,) = pipeline.detectors, pipeline.segmenters
    assert detector.model.is_int8
    assert segmenter.model.is_int8
    assert len(pipeline.pairs) == 1
    store = open_store(mask_store)
    sizes = [(record["width"], record["height"]) for record in store.records[:4]]
    exact, rough = (one.find(store.images[:4], sizes) for one in (load_pipeline([run], CPU), pipeline))
    assert np.abs(exact.maps - rough.maps).mean() < 0.05
    # Its own masks, measured without the boxes, which that dataset does not know.
    for one in (load_pipeline([run], CPU), pipeline):
        assert int8.metrics_on(one, store, 0, "detection+segmentation").keys() == {"Dice"}
