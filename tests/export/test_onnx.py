"""ONNX files: the same findings as PyTorch's, from files that tell all there is to know, and refused where they lie."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import rarely
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import MultiScaleRoIAlign, nms

from xray.datasets.inputs import open_inputs
from xray.errors import InputError
from xray.inference.exported import DESCRIPTION, OUTPUTS
from xray.inference.loaded import LoadedDetector, load_run
from xray.inference.pipeline_loading import load_pipeline
from xray.inference.shared_trunk import join_runs
from xray.models.detection.anchors import Layout
from xray.models.detection.detector import build_detector
from xray.models.detection.pooling import level_of
from xray.models.segmentation.segmenter import build_segmenter
from xray.models.weights import load_deployed, rewrite_description, save_deployed
from xray.radiographs.canvas import Canvas

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from xray.export import onnx as onnx_export  # noqa: E402
from xray.export import onnx_check  # noqa: E402
from xray.export.onnx import FasterRCNNGraph, RetinaNetGraph, to_onnx  # noqa: E402
from xray.export.onnx_check import Difference, compare, compare_boxes, given_canvases, pair, phantom_canvases  # noqa: E402
from xray.export.onnx_operators import pooled, suppressed  # noqa: E402
from xray.inference.onnx_runtime import load_onnx, onnx_device  # noqa: E402

CPU = torch.device("cpu")
NAMES = ("Left shadow", "Right shadow", "Nodule", "Pneumothorax")


def shaken(model):
    """Its norms have learned something."""
    torch.manual_seed(1)
    for name, value in model.state_dict().items():
        if "running_var" in name:
            value.uniform_(0.5, 2)
        if "running_mean" in name:
            value.uniform_(-0.2, 0.2)
    return model.eval()


def write_detector(run, size=64, **options):
    """A detector at random: hundreds of boxes to compare, in many categories."""
    architecture = {
        "backbone": "resnet18", "head": "v1", "norm": "frozen", "fpn_channels": 16, "proposals": 120,
        "score_threshold": 0.02, "max_detections": 60, **options,
    }  # fmt: skip
    torch.manual_seed(0)
    detector = shaken(build_detector(len(NAMES), size, **architecture))
    # Random predictors are undecided everywhere: boxes would be equal to the last bit, or nearly.
    is_dense = architecture.get("family") == "retinanet"
    factor = 12 if is_dense and architecture["head"] == "v1" else 4  # norms hold those of v2 apart
    for part in (detector.head,) if is_dense else (detector.roi_heads.box_predictor, detector.rpn.head):
        for name, value in part.state_dict().items():
            value.mul_(factor if name.endswith("weight") else 1)
    save(run, "detection", detector, architecture, dict(enumerate(NAMES, 1)), size, {"detection": 0.02})
    return detector


def write_segmenter(run, size=64, detector=None, **architecture):
    torch.manual_seed(0)
    segmenter = shaken(build_segmenter(n_classes=1, **architecture))
    if detector is not None:
        trunk, own = detector.backbone.body.state_dict(), segmenter.encoder.state_dict()
        nn.Module.load_state_dict(segmenter.encoder, {name: trunk.get(name, value) for name, value in own.items()})
    save(run, "segmentation", segmenter, architecture, {1: "Pneumothorax"}, size, {"mask": 0.4, "gate": 0.3})


def save(run, task, model, architecture, categories, size, thresholds, **more):
    run.mkdir()
    categories = {str(number): name for number, name in categories.items()}
    description = {"task": task, "architecture": architecture, "categories": categories, "canvas_size": size}
    save_deployed(run, model.state_dict(), {**description, "thresholds": thresholds, **more})


def write_joined(folder):
    """Two runs and the one of both."""
    detector = write_detector(folder / "boxes")
    write_segmenter(folder / "masks", detector=detector, encoder="resnet18", depth=4)
    description, state = join_runs(folder / "boxes", folder / "masks")
    (folder / "both").mkdir()
    save_deployed(folder / "both", state, description)
    return folder / "both"


@pytest.fixture(scope="module")
def real(shared_data):
    """(canvas size) → three real radiographs."""
    return lambda size: given_canvases(open_inputs(shared_data / "chest-open" / "images" / "0003.jpg"), size, 1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with the runs boxes, masks and both, and both/model.onnx. Not to be changed."""
    folder = tmp_path_factory.mktemp("exported")
    (write_joined(folder) / "model.onnx").write_bytes(to_onnx(folder / "both"))
    return folder


@pytest.fixture
def copy(exported, tmp_path):
    """The run `both` with its file, to be changed."""
    return shutil.copytree(exported / "both", tmp_path / "copy")


# ---- the two operators

K = 10


class Suppress(nn.Module):
    def forward(self, boxes, scores):
        return suppressed(boxes, scores, 0.25, 0.5)


class Pool(nn.Module):
    def __init__(self, layout):
        super().__init__()
        self.layout = layout

    def forward(self, one, two, three, four, boxes, images):
        strides = self.layout.stride.tolist()
        return pooled([one, two, three, four], boxes, images, level_of(boxes, self.layout), strides)


def session_of(module, args, dynamic):
    """onnxruntime's session of one module."""
    program = torch.onnx.export(
        module.eval(), args, dynamo=True, opset_version=18, dynamic_shapes=dynamic, verbose=False,
        custom_translation_table=onnx_export.TRANSLATIONS, external_data=False,
    )  # fmt: skip
    return onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])


def run(session, *tensors):
    names = [value.name for value in session.get_inputs()]
    (found,) = session.run(None, dict(zip(names, (tensor.numpy() for tensor in tensors), strict=True)))
    return torch.from_numpy(found)


@pytest.fixture(scope="module")
def suppression():
    groups = torch.export.Dim("groups")
    return session_of(Suppress(), (torch.rand(2, K, 4), torch.rand(2, K)), ({0: groups}, {0: groups}))


def greedy(boxes, scores):
    """torchvision's own, one group at a time."""
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for group, score, mark in zip(boxes, scores, kept, strict=True):
        (there,) = (score > 0.25).nonzero(as_tuple=True)
        order = there[score[there].argsort(descending=True, stable=True)]
        mark[order[nms(group[order], -torch.arange(len(order), dtype=torch.float32), 0.5)]] = True
    return kept


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_suppression_is_torchvisions(suppression, data):
    """Whole numbers, so that overlaps of exactly a half, equal scores and equal boxes occur."""
    n = data.draw(st.integers(1, 3))
    corner = st.tuples(*[st.integers(0, 4)] * 2, *[st.integers(1, 4)] * 2)
    rows = data.draw(st.lists(corner, min_size=n * K, max_size=n * K))
    boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in rows], dtype=torch.float32).view(n, K, 4)
    steps = data.draw(st.lists(st.integers(0, 8), min_size=n * K, max_size=n * K))
    scores = torch.tensor(steps, dtype=torch.float32).view(n, K) / 8
    wanted = greedy(boxes, scores)
    assert torch.equal(run(suppression, boxes, scores), wanted)
    assert torch.equal(suppressed(boxes, scores, 0.25, 0.5), wanted)


def test_suppression_by_hand(suppression):
    boxes = torch.zeros(1, K, 4)
    scores = torch.zeros(1, K)
    # The second covers exactly half of the first, which is not more than a half; the third lies two thirds in it.
    boxes[0, :4] = torch.tensor([[0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 4, 3], [8, 8, 9, 9]])
    scores[0, :4] = torch.tensor([0.9, 0.8, 0.7, 0.25])
    # At the threshold a box is not there: it must be above.
    assert run(suppression, boxes, scores)[0].tolist() == [True, True, False, False] + [False] * 6
    assert not run(suppression, boxes, torch.zeros(1, K)).any()


@pytest.fixture(scope="module")
def pooling():
    """A pyramid over canvases of 256 pixels, in two radiographs, and its session."""
    torch.manual_seed(0)
    pyramid = [torch.randn(2, 3, 256 // stride, 256 // stride) for stride in (4, 8, 16, 32)]
    stride = torch.tensor([4.0, 8.0, 16.0, 32.0])
    sides = tuple(level.shape[-1] for level in pyramid)
    layout = Layout(256, sides, 3, torch.zeros(0, 4), torch.tensor(sides), torch.zeros(4, dtype=torch.int64), stride)
    rows = {0: torch.export.Dim("boxes")}
    args = (*pyramid, torch.tensor([[0.0, 0, 10, 10], [5, 5, 90, 90]]), torch.tensor([0, 1]))
    return pyramid, layout, session_of(Pool(layout), args, ({}, {}, {}, {}, rows, rows))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 256, width=32)] * 4, st.integers(0, 1)), min_size=1, max_size=12))
def test_pooling_is_torchvisions(pooling, rows):
    """Boxes of all sizes, without area and at the canvas's edges too, on whichever levels."""
    pyramid, layout, session = pooling
    corners = torch.tensor([row[:4] for row in rows]).view(-1, 2, 2)
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    images = torch.tensor([row[4] for row in rows])
    found = run(session, *pyramid, boxes, images)
    align = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    apart = [boxes[images == image] for image in (0, 1)]
    wanted = torch.empty_like(found)
    theirs = align(dict(zip("0123", pyramid, strict=True)), apart, [(256, 256)] * 2)
    wanted[torch.cat([(images == image).nonzero()[:, 0] for image in (0, 1)])] = theirs
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)
    torch.testing.assert_close(
        pooled(pyramid, boxes, images, level_of(boxes, layout), layout.stride.tolist()), wanted, rtol=0, atol=0
    )


def test_pooling_by_hand(pooling):
    """A map whose value is its column, read at a box of 7 bins of 2 cells: 1, 3, 5, … and no half cell less."""
    pyramid, _, session = pooling
    ramp = [torch.arange(level.shape[-1], dtype=torch.float32).expand_as(level).contiguous() for level in pyramid]
    found = run(session, *ramp, torch.tensor([[0.0, 0.0, 56.0, 56.0]]), torch.tensor([1]))
    assert found[0, 2, 4].tolist() == [1, 3, 5, 7, 9, 11, 13]


# ---- whole models


def partners(boxes, scores, found):
    """For each box that was found the number of another's nearest one, of those whose score is the same."""
    far = torch.cdist(found["boxes"], boxes, p=float("inf"))
    far[(found["scores"][:, None] - scores).abs() > 2e-6] = torch.inf
    order = far.argmin(dim=1)
    assert sorted(order.tolist()) == list(range(len(order)))
    return order


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (64, {}),
        (100, {"head": "v2", "norm": "batch"}),
        (72, {"backbone": "mobilenet_v2", "max_detections": 100, "score_threshold": 0.0}),
        (128, {"anchor_scale": 4.0, "proposals": 2000, "max_detections": 10**4}),
        (96, {"backbone": "convnext_atto"}),
        (64, {"family": "retinanet", "anchor_scale": 2.0}),
        (128, {"family": "retinanet", "head": "v2", "fpn_channels": 32, "norm": "batch"}),
    ],
    ids=str,
)
def test_a_detector_of_fixed_shapes_finds_the_same(tmp_path, size, options):
    detector = write_detector(tmp_path / "run", size, **options)
    images = torch.from_numpy(phantom_canvases(size, 3))[:, None]
    with torch.inference_mode(False), torch.no_grad():
        pyramid = list(detector.backbone(torch.zeros(1, 3, size, size)).values())
        is_dense = options.get("family") == "retinanet"
        graph, part = (RetinaNetGraph, detector) if is_dense else (FasterRCNNGraph, detector.rpn)
        boxes, labels, scores = graph(detector, part.layout(pyramid, size))(images)
        wanted = detector(images)
    for image, found in enumerate(wanted):
        n = len(found["boxes"])
        assert n > 10
        assert (scores[image] > 0).sum() == n
        torch.testing.assert_close(scores[image, :n], found["scores"], rtol=0, atol=1e-6)
        # Which of two nearly equal scores comes first depends on the processor.
        order = partners(boxes[image, :n], scores[image, :n], found)
        torch.testing.assert_close(boxes[image, order], found["boxes"], rtol=0, atol=1e-3)
        assert torch.equal(labels[image, order], found["labels"])
        assert not boxes[image, n:].any()
        assert not labels[image, n:].any()


def check(run, file, canvases, prune=0):
    """The file's bytes find what the run finds in drawn and real radiographs."""
    content = to_onnx(run, prune)
    file.write_bytes(content)
    found = compare(run, file, canvases, prune)
    print(f"{run.name}: {len(content)} bytes; {found}")
    assert found.is_small
    assert found.ties == 0
    return content, found


@pytest.mark.slow
def test_two_heads_on_one_trunk(exported, real):
    canvases = np.concatenate([real(64), phantom_canvases(64, 2)])
    content = (exported / "both" / "model.onnx").read_bytes()
    found = compare(exported / "both", exported / "both" / "model.onnx", canvases)
    assert found.is_small
    assert found.boxes > 60
    assert 0 < found.probability < 1e-4

    model = onnx.ModelProto.FromString(content)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert [output.name for output in model.graph.output] == [*OUTPUTS["detection"], *OUTPUTS["segmentation"]]
    assert all(value.doc_string for value in (*model.graph.input, *model.graph.output))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata[DESCRIPTION]) == load_deployed(exported / "both")[0]
    # Nothing of the machine that it was made on.
    assert b"/site-packages/" not in content
    assert str(exported).encode() not in content
    assert b".py" not in content


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(exported):
    assert to_onnx(exported / "both") == (exported / "both" / "model.onnx").read_bytes()


def test_a_pipeline_finds_the_same_in_onnxruntime(exported, real):
    """Flips, thresholds, refinement and fusion around the models are the same code."""
    canvases = np.concatenate([real(64), phantom_canvases(64, 2)])
    sizes = [(900, 1000)] * 3
    pipelines = [load_pipeline([exported / "both"], CPU, runtime=runtime) for runtime in ("torch", "onnx")]
    assert [len(pipeline.pairs) for pipeline in pipelines] == [1, 1]
    assert pipelines[0].triplet == pipelines[1].triplet
    assert pipelines[1].gate_threshold == 0.3
    one, two = (pipeline.find(canvases, sizes) for pipeline in pipelines)
    np.testing.assert_array_equal(one.table.labels, two.table.labels)
    scale = 1000 / 64
    np.testing.assert_allclose(one.table.boxes, two.table.boxes, rtol=0, atol=0.1 * scale)
    np.testing.assert_allclose(one.table.scores, two.table.scores, rtol=0, atol=1e-3)
    assert np.abs(one.maps - two.maps).max() < 1.5 / 255
    assert len(one.table) > 60


@pytest.mark.parametrize(
    ("size", "options"),
    [
        pytest.param(100, {"head": "v2", "norm": "batch"}, marks=pytest.mark.slow),
        pytest.param(64, {"family": "retinanet", "anchor_scale": 2.0}, marks=pytest.mark.slow),
        *(
            pytest.param(*others, marks=pytest.mark.nightly)
            for others in (
                (128, {"backbone": "mobilenet_v2", "norm": "batch", "fpn_channels": 32, "proposals": 2000}),
                (256, {"backbone": "resnet18", "anchor_scale": 2.0}),
                (96, {"backbone": "convnext_atto"}),
                (128, {"family": "retinanet", "anchor_scale": 2.0}),
            )
        ),
    ],
    ids=str,
)
def test_detectors(tmp_path, real, size, options):
    write_detector(tmp_path / "run", size, **options)
    canvases = np.concatenate([real(size), phantom_canvases(size, 2)])
    _, found = check(tmp_path / "run", tmp_path / "model.onnx", canvases)
    assert found.boxes > 20


@pytest.mark.parametrize(
    ("size", "options", "prune"),
    [
        pytest.param(72, {"encoder": "resnet18", "depth": 4}, 0, marks=pytest.mark.slow),
        pytest.param(
            64, {"architecture": "unetplusplus", "encoder": "resnet18", "depth": 4}, 0, marks=pytest.mark.slow
        ),
        (64, {"architecture": "unetplusplus", "encoder": "resnet18", "depth": 4, "deep_supervision": True}, 1),
        (64, {"encoder": "resnet18", "depth": 3, "attention": "scse"}, 0),
    ],
    ids=str,
)
def test_segmenters(tmp_path, real, size, options, prune):
    write_segmenter(tmp_path / "run", size, **options)
    content, found = check(tmp_path / "run", tmp_path / "model.onnx", real(size), prune)
    assert found.probability > 0
    if prune:
        assert len(content) < (tmp_path / "run" / "model.safetensors").stat().st_size / 2


@pytest.mark.parametrize("name", rarely(["resnet10t", "densenet121"]))
def test_classifiers(tmp_path, real, name):
    from xray.models.classification.classifier import build_classifier

    torch.manual_seed(0)
    classifier = shaken(build_classifier(name, 2, 1, 64))
    labels = ["Left shadow", "Nodule"]
    architecture = {"name": name, "n_outputs": 2, "in_channels": 1}
    save(tmp_path / "run", "classification", classifier, architecture, {1: "Left shadow", 3: "Nodule"}, 64, {},
         labels=labels)  # fmt: skip
    _, found = check(tmp_path / "run", tmp_path / "model.onnx", np.concatenate([real(64), phantom_canvases(64, 2)]))
    assert found.probability > 0
    ((task, loaded),), pairs = load_onnx(tmp_path / "model.onnx", CPU)
    assert (task, loaded.labels, pairs) == ("classification", tuple(labels), ())


# ---- the comparison


def detections(*rows):
    """(x, category, score), each a box of 10 × 10."""
    boxes = np.array([[x, 0, x + 10, 10] for x, *_ in rows], dtype=np.float64).reshape(-1, 4)
    return boxes, np.array([row[1] for row in rows]), np.array([row[2] for row in rows])


def test_boxes_are_paired_by_category_and_place():
    one = detections((0, 1, 0.9), (0, 2, 0.9), (50, 1, 0.5), (52, 1, 0.5))
    two = detections((0.05, 2, 0.9), (51.9, 1, 0.5), (50.1, 1, 0.5), (90, 1, 0.2))
    assert pair(one, two) == [(1, 0), (2, 2), (3, 1)]
    assert pair(one, detections()) == []


def found_by(one, two, undecided, monkeypatch, most=100):
    model = build_detector(2, 64, "resnet18", fpn_channels=16, max_detections=most)
    detector = LoadedDetector(model, 64, {1: "a", 2: "b"}, {1: 1, 2: 2})
    monkeypatch.setattr(onnx_check, "_undecided", lambda *_: undecided)
    total = Difference()
    compare_boxes(one, two, detector, np.zeros((64, 64), dtype=np.uint8), total)
    return total


def test_a_box_that_one_side_lacks(monkeypatch):
    box, far = (0, 1, 0.9), (30, 1, 0.5)
    same = found_by(detections(box, far), detections((0.03, 1, 0.9004), far), [], monkeypatch)
    assert same.is_small
    assert (round(same.pixels, 6), round(same.score, 6), same.boxes) == (0.03, 0.0004, 2)
    # Lacking counts by the score above the threshold of 0.001, in both directions.
    for sides in ((detections(box, far), detections(box)), (detections(box), detections(box, far))):
        lacking = found_by(*sides, [detections(box, far)] * 3, monkeypatch)
        assert lacking.score == pytest.approx(0.499)
        assert not lacking.is_small
        # PyTorch itself finds it sometimes.
        tie = found_by(*sides, [detections(box, far), detections(box)], monkeypatch)
        assert tie.is_small
        assert tie.ties == 1
        nowhere = found_by(*sides, [detections(box)] * 2, monkeypatch)
        assert not nowhere.is_small
    # A full list ends where it ends: a box that comes just after is no difference.
    full = found_by(detections(box, far), detections(box, (60, 1, 0.4999)), [], monkeypatch, most=2)
    assert full.is_small
    moved = found_by(detections(box), detections((0.2, 1, 0.9)), [], monkeypatch)
    assert not moved.is_small


def test_noise_tells_what_pytorch_is_undecided_about(tmp_path):
    write_detector(tmp_path / "run")
    ((_, detector),) = load_run(tmp_path / "run", CPU)
    canvas = phantom_canvases(64, 1)[0]
    found = onnx_check._undecided(detector, canvas)
    (plain,) = detector.detect(canvas[None], False)
    assert len(found) == onnx_check.ATTEMPTS
    assert min(len(pair(plain, other)) for other in found) > 0.8 * len(plain[0])
    assert any(not np.array_equal(plain[0], other[0]) for other in found)


def test_another_model_is_not_taken_for_this_one(exported, tmp_path):
    """What changed after the export is found by the comparison."""
    write_detector(tmp_path / "run")
    with pytest.raises(InputError, match="are of other tasks: detection, segmentation in the file"):
        compare(tmp_path / "run", exported / "both" / "model.onnx", phantom_canvases(64, 1))
    description, state = load_deployed(exported / "both")
    state["detector.roi_heads.box_predictor.bbox_pred.bias"] += 0.5
    (tmp_path / "other").mkdir()
    save_deployed(tmp_path / "other", state, description)
    assert not compare(tmp_path / "other", exported / "both" / "model.onnx", phantom_canvases(64, 1)).is_small


def test_phantoms_fill_the_canvas():
    canvases = phantom_canvases(64, 2)
    assert canvases.shape == (2, 64, 64)
    assert canvases.dtype == np.uint8
    left, top, right, bottom = Canvas(86, 96, 64).content
    for canvas in canvases:
        assert canvas[top:bottom, left:right].max() > 250
        assert canvas[top:bottom, left:right].std() > 20
    assert not np.array_equal(*canvases)


# ---- files that are not what they seem


def changed(file, change):
    """Rewrites a file after `change` of its model."""
    model = onnx.ModelProto.FromString(file.read_bytes())
    change(model)
    file.write_bytes(model.SerializeToString())


def describe_as(**values):
    def change(model):
        for entry in model.metadata_props:
            if entry.key == DESCRIPTION:
                entry.value = json.dumps({**json.loads(entry.value), **values})

    return change


def without_metadata(model):
    model.ClearField("metadata_props")


def other_file(model):
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def hidden_other_file(model):
    """In a branch of an If, where the model's own list of tensors does not name it."""
    tensor = onnx.TensorProto(dims=[1], data_type=1, name="hidden", data_location=onnx.TensorProto.EXTERNAL)
    branch = onnx.helper.make_graph([], "branch", [], [], [tensor])
    model.graph.node.append(onnx.helper.make_node("If", [], [], then_branch=branch, else_branch=branch))


def foreign_operator(model):
    model.graph.node[0].domain = "com.microsoft"


def not_json(model):
    for entry in model.metadata_props:
        if entry.key == DESCRIPTION:
            entry.value = "[" * 10**5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_metadata, r"does not say what it finds \(no xray.description in its metadata\)"),
        (describe_as(task="classification"), "does not hold the model that its description names"),
        (describe_as(task="detection", categories={"1": "a"}, canvas_size=64), "its outputs are"),
        (describe_as(task="detection+segmentation", detection={}), "does not hold the model"),
        (describe_as(task="counting"), "its task is counting"),
        (describe_as(task=7), "is damaged.*it names no task"),
        (not_json, "is damaged"),
        (other_file, "keeps tensors in other files: only files that hold all of theirs are read"),
        (hidden_other_file, "keeps tensors in other files"),
        (foreign_operator, r"uses operators that are not ONNX's own \(com.microsoft\)"),
        (lambda model: model.graph.ClearField("node"), "onnxruntime .* cannot run"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_files_that_are_not_what_they_seem(copy, change, message):
    file = copy / "model.onnx"
    changed(file, change)
    with pytest.raises(InputError, match=message):
        load_onnx(file, CPU)


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short(exported, tmp_path_factory, share):
    content = (exported / "both" / "model.onnx").read_bytes()
    file = tmp_path_factory.mktemp("cut") / "model.onnx"
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"is no ONNX file, or is cut short|does not say what it finds"):
        load_onnx(file, CPU)


def test_a_run_and_its_file(copy, tmp_path):
    # What was fitted after the export counts; the weights must be the same.
    description, state = load_deployed(copy)
    description["segmentation"]["thresholds"]["gate"] = 0.7
    rewrite_description(copy, description)
    assert load_pipeline([copy], CPU, runtime="onnx").gate_threshold == 0.7
    assert load_pipeline([copy / "model.onnx"], CPU, runtime="onnx").gate_threshold == 0.3
    state["detector.roi_heads.box_predictor.bbox_pred.bias"] += 1
    save_deployed(copy, state, description)
    with pytest.raises(InputError, match=r"was made from other weights than .*copy has now.*--format onnx --overwrite"):
        load_pipeline([copy], CPU, runtime="onnx")
    load_pipeline([copy / "model.onnx"], CPU, runtime="onnx")
    with pytest.raises(InputError, match=r"model.onnx is an ONNX file: add --runtime onnx"):
        load_pipeline([copy / "model.onnx"], CPU)
    (copy / "model.onnx").unlink()
    with pytest.raises(InputError, match=r"copy holds no model.onnx: write it with python tools/export.py --weights"):
        load_pipeline([copy], CPU, runtime="onnx")
    with pytest.raises(InputError, match=r"no ONNX file or run directory at .*nowhere"):
        load_pipeline([tmp_path / "nowhere"], CPU, runtime="onnx")


def test_devices(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert onnx_device("auto") == onnx_device("cpu") == CPU
    with pytest.raises(InputError, match="--device cuda:1, but this onnxruntime has no CUDAExecutionProvider"):
        onnx_device("cuda:1")
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    assert onnx_device("auto") == torch.device("cuda")
    assert onnx_device("cuda:1") == torch.device("cuda:1")


def test_a_report_names_the_file(copy):
    pytest.importorskip("highdicom")
    from xray.outputs.dicom.objects import algorithm_of

    digest = hashlib.sha256((copy / "model.onnx").read_bytes()).hexdigest()
    assert algorithm_of([copy / "model.onnx"]).parameters == {"model 1": f"ONNX sha256:{digest}"}


def test_a_layer_without_a_translation(tmp_path, monkeypatch):
    class Layer(nn.Module):
        def forward(self, images):
            return suppressed(images.flatten(2).float()[..., :4], images.flatten(1)[:, :1].float(), 0.0, 0.5)

    monkeypatch.setattr(onnx_export, "TRANSLATIONS", {})
    monkeypatch.setattr(onnx_export, "_graph_of", lambda *_: (Layer(), 8, ["masks"]))
    write_segmenter(tmp_path / "masks", encoder="resnet18", depth=3)
    with pytest.raises(InputError, match=r"masks cannot be written as ONNX: .*xray.suppressed"):
        to_onnx(tmp_path / "masks")
