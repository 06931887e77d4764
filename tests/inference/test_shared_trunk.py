"""One trunk, two heads: the same numbers as two models apart, from a single pass, and never from another trunk."""

from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from xray.errors import InputError
from xray.inference.shared_trunk import (
    RUN_TASK,
    DetectorWithMask,
    join_runs,
    load_detector_with_mask,
    trunk_difference,
)
from xray.models.detection.detector import build_detector
from xray.models.pretrained import load_trunk
from xray.models.segmentation.segmenter import build_segmenter
from xray.models.weights import load_deployed, save_deployed

SIZE = 128


def canvases(n=2, size=SIZE):
    return torch.randint(0, 256, (n, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def on_one_trunk(
    backbone="resnet18", architecture="unet", depth=5, deep=False, norm="frozen", level=0, family="faster_rcnn"
):
    """A detector whose norms have learned something, and a segmenter whose encoder is its trunk; level: of pruning."""
    torch.manual_seed(0)
    detector = build_detector(3, SIZE, backbone, norm=norm, fpn_channels=16, family=family).eval()
    for name, value in detector.backbone.body.state_dict().items():
        if "running_var" in name:
            value.uniform_(0.5, 2)
        if "running_mean" in name:
            value.uniform_(-0.2, 0.2)
    segmenter = build_segmenter(architecture, backbone, 2, 3, depth, deep).eval()
    trunk = detector.backbone.body.state_dict()
    own = segmenter.encoder.state_dict()
    # Norms that are not frozen count batches; nothing else may be missing.
    copied = {name: trunk.get(name.removeprefix("features."), value) for name, value in own.items()}
    nn.Module.load_state_dict(segmenter.encoder, copied)
    if level:
        segmenter.prune(level)
    return detector, segmenter


CASES = [
    ("resnet18", "unet", 5, False, "frozen", 0),
    ("resnet18", "unet", 3, False, "batch", 0),
    ("resnet18", "unetplusplus", 5, False, "frozen", 0),
    ("resnet18", "unetplusplus", 5, True, "frozen", 2),
    ("mobilenet_v2", "unet", 5, False, "batch", 0),
    ("mobilenet_v2", "unet", 4, False, "frozen", 0),
    ("mobilenet_v2", "unetplusplus", 5, True, "frozen", 1),
    ("resnet50", "unet", 5, False, "frozen", 0),
    ("resnet18", "unet", 5, False, "frozen", 0, "retinanet"),
    ("mobilenet_v2", "unetplusplus", 5, True, "frozen", 1, "retinanet"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_pass_gives_what_two_models_give(case):
    detector, segmenter = on_one_trunk(*case)
    images = canvases()
    with torch.inference_mode():
        apart, logits_apart = detector(images), segmenter(images)
        calls = Counter()

        def count(name):
            return lambda *_: calls.update([name])

        hooks = [
            module.register_forward_hook(count(f"{part} {name}"))
            for part, trunk in (("trunk", detector.backbone.body), ("encoder", segmenter.encoder))
            for name, module in trunk.named_modules()
            if isinstance(module, nn.Conv2d)
        ]
        together, logits = DetectorWithMask(detector, segmenter).eval()(images)
    assert len(hooks) > 20
    assert set(calls) == {f"trunk {n}" for n, m in detector.backbone.body.named_modules() if isinstance(m, nn.Conv2d)}
    assert set(calls.values()) == {1}
    for ours, theirs in zip(together, apart, strict=True):
        assert len(theirs["boxes"]) > 10
        torch.testing.assert_close(ours["boxes"], theirs["boxes"], rtol=0, atol=1e-3)
        torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=0, atol=1e-5)
        assert torch.equal(ours["labels"], theirs["labels"])
    assert logits.shape == (2, 2, SIZE, SIZE)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, logits_apart, rtol=0, atol=5e-4)


def changes():
    def weight(detector, segmenter):
        segmenter.encoder.layer4[1].conv2.weight.data.view(-1)[7] += 1e-6

    def mean(detector, segmenter):
        segmenter.encoder.layer1[0].bn1.running_mean[3] += 1e-6

    def eps(detector, segmenter):
        segmenter.encoder.bn1.eps = 1e-3

    def trunk(detector, segmenter):
        detector.backbone.body.layer2[0].bn1.weight[0] += 1e-6

    return weight, mean, eps, trunk


@pytest.mark.parametrize("change", changes(), ids=lambda change: change.__name__)
def test_a_trunk_that_was_trained_on_is_another(change):
    detector, segmenter = on_one_trunk()
    assert not trunk_difference(detector, segmenter)
    # What a training does to the count of batches does not matter to inference.
    segmenter.encoder.bn1.num_batches_tracked += 5
    assert not trunk_difference(detector, segmenter)
    with torch.no_grad():
        change(detector, segmenter)
    assert trunk_difference(detector, segmenter)
    assert "1 of" in trunk_difference(detector, segmenter)
    with pytest.raises(ValueError, match=r"does not stand on the detector's trunk: 1 of \d+ tensors differ, "):
        DetectorWithMask(detector, segmenter)


def test_other_networks_are_other_trunks():
    detector, _ = on_one_trunk()
    assert "reads 1 channels" in trunk_difference(detector, build_segmenter(encoder="resnet18", in_channels=1))
    # timm's has the same tensors, but so have its variants that compute something else with them.
    alike = build_segmenter(encoder="tu-resnet18")
    load_trunk(alike.encoder, detector.state_dict(), "no")
    assert "tu-resnet18 is not one of torchvision's" in trunk_difference(detector, alike)
    # A ResNet-18's tensors are all in a ResNet-34, by name and by shape.
    larger = build_detector(3, SIZE, "resnet34", fpn_channels=16)
    smaller = build_segmenter(encoder="resnet18")
    own = smaller.encoder.state_dict()
    state = {name: larger.backbone.body.state_dict().get(name, value) for name, value in own.items()}
    nn.Module.load_state_dict(smaller.encoder, state)
    assert "tensors differ, layer" in trunk_difference(larger, smaller)
    assert trunk_difference(larger, build_segmenter(encoder="mobilenet_v2"))


@pytest.mark.parametrize("size", [48, 136])
def test_canvases_that_the_segmenter_pads_are_refused(size):
    detector, segmenter = on_one_trunk()
    with pytest.raises(ValueError, match=f"canvases of {size} pixels: the segmenter pads them"):
        DetectorWithMask(detector, segmenter)(canvases(1, size))


# One run of two


def describe(detector, segmenter, backbone, **architecture):
    detection = {
        "task": "detection",
        "architecture": {"backbone": backbone, "fpn_channels": 16},
        "categories": {"1": "a", "2": "b", "3": "c"},
        "canvas_size": SIZE,
    }
    segmentation = {
        "task": "segmentation",
        "architecture": {"encoder": backbone, **architecture},
        "categories": {"1": "a", "2": "b"},
        "canvas_size": SIZE,
        "thresholds": {"mask": 0.5},
    }
    return detection, segmentation


@pytest.fixture
def two_runs(tmp_path):
    """(case of on_one_trunk) → the models, and their run directories."""

    def write(backbone="resnet18", depth=5, norm="frozen"):
        models = on_one_trunk(backbone, depth=depth, norm=norm)
        descriptions = describe(*models, backbone, depth=depth)
        descriptions[0]["architecture"]["norm"] = norm
        folders = tmp_path / "detector", tmp_path / "segmenter"
        for folder, model, description in zip(folders, models, descriptions, strict=True):
            folder.mkdir()
            save_deployed(folder, model.state_dict(), description)
        return models, folders

    return write


@pytest.mark.parametrize(
    "case", [("resnet18", 5, "frozen"), ("mobilenet_v2", 4, "batch"), ("resnet18", 3, "batch")], ids=str
)
def test_two_runs_become_one_with_the_trunk_stored_once(two_runs, tmp_path, case):
    (detector, segmenter), folders = two_runs(*case)
    description, state = join_runs(*reversed(folders))
    both = tmp_path / "both"
    both.mkdir()
    save_deployed(both, state, description)
    stored = load_file(both / "model.safetensors")
    shared = len([name for name in segmenter.state_dict() if name.startswith("encoder.")])
    assert len(stored) == len(detector.state_dict()) + len(segmenter.state_dict()) - shared

    found, detection, masks, segmentation = load_detector_with_mask(both)
    assert load_deployed(both)[0]["task"] == RUN_TASK
    assert detection == load_deployed(folders[0])[0]
    assert segmentation == load_deployed(folders[1])[0]
    assert not trunk_difference(found, masks)
    images = canvases(1)
    with torch.inference_mode():
        expected, logits = DetectorWithMask(detector, segmenter)(images)
        again, logits_again = DetectorWithMask(found, masks)(images)
    assert torch.equal(logits, logits_again)
    assert torch.equal(expected[0]["boxes"], again[0]["boxes"])


def test_runs_that_cannot_be_one(two_runs):
    _, (detection_run, segmentation_run) = two_runs()
    with pytest.raises(InputError, match="are runs of the tasks detection: give one of detection and one of segm"):
        join_runs(detection_run, detection_run)
    description, state = load_deployed(segmentation_run)
    save_deployed(segmentation_run, state, {**description, "canvas_size": 64})
    with pytest.raises(InputError, match=r"canvases of 128 pixels, .*segmenter of 64: .* one --image-size"):
        join_runs(detection_run, segmentation_run)
    state["encoder.conv1.weight"][0, 0, 0, 0] += 1
    save_deployed(segmentation_run, state, description)
    with pytest.raises(
        InputError,
        match=r"segmenter does not stand on the trunk of .*detector \(1 of \d+ tensors differ, conv1.weight first\): "
        r"train it with --task segmentation --encoder resnet18 --in-channels 3 --encoder-from .*detector --freeze-enc",
    ):
        join_runs(detection_run, segmentation_run)
    save_deployed(segmentation_run, state, {**description, "architecture": {"encoder": "resnet34"}})
    with pytest.raises(InputError, match=r"segmenter does not hold the model that its model.json describes"):
        join_runs(detection_run, segmentation_run)


def test_a_damaged_run_of_both_is_one_line(two_runs, tmp_path):
    _, folders = two_runs()
    description, state = join_runs(*folders)
    both = tmp_path / "both"
    both.mkdir()
    first = "detector.backbone.body.layer1.0.conv1.weight"
    halves = {name: description[name] for name in ("task", "detection")}
    cases = [
        ({name: value for name, value in state.items() if name != first}, description),
        ({name: value for name, value in state.items() if "segmenter.decoder" not in name}, description),
        (state, halves),
        (state, {**description, "detection": "a detector"}),
        (state, {**halves, "segmentation": {**description["segmentation"], "categories": {}}}),
    ]
    for tensors, described in cases:
        save_deployed(both, tensors, described)
        with pytest.raises(
            InputError, match=r"both does not hold the model that its model\.json describes: "
        ) as raised:
            load_detector_with_mask(both)
        assert len(str(raised.value)) < 500


# Through the train command


def test_a_frozen_encoder_stays_the_detector_s_to_the_last_bit(vinbig_run, mask_store, train_masks, tmp_path):
    # Averaged weights and a resumed run are where it might drift, its norms' statistics where it might be forgotten.
    run = tmp_path / "run"
    train_masks(
        mask_store, run, "--encoder", "mobilenet_v2", "--depth", "4", "--encoder-from", vinbig_run, "--freeze-encoder",
        "--ema", "--n-epochs", "2",
    )  # fmt: skip
    first = load_file(run / "model.safetensors")
    train_masks(mask_store, run, "--resume", "--n-epochs", "3", "--lr", "0.01")
    trunk = {
        name.removeprefix("backbone.body."): value
        for name, value in load_file(vinbig_run / "model.safetensors").items()
    }
    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    states = [first, *({n.removeprefix("model."): v for n, v in checkpoint[key].items()}
                       for key in ("state_dict", "current_model_state"))]  # fmt: skip
    for state in states:
        encoder = {name.removeprefix("encoder.features."): v for name, v in state.items() if name.startswith("encoder")}
        assert len(encoder) > 100
        assert [name for name, value in encoder.items() if not torch.equal(value, trunk[name])] == []
    assert any(not torch.equal(value, states[2][name]) for name, value in first.items())
    description, state = join_runs(vinbig_run, run)
    assert description["segmentation"]["task"] == "segmentation"
    assert not any(name.startswith("segmenter.encoder") for name in state)
