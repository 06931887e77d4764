"""The detector: one contract for every backbone and head, and torchvision's Faster R-CNN as its reference."""

import urllib.error

import pytest
import safetensors.torch
import torch
import torchvision
from torchvision.models.detection import fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2

from xray.errors import InputError
from xray.models.detection.detector import build_detector, load_initial_weights
from xray.models.pretrained import MEAN, STD

CANVAS = 64
SMALL = {"fpn_channels": 16, "rpn_samples": 32, "roi_samples": 16}


def batch(n=2, size=CANVAS, seed=0):
    """Dark canvases with one bright rectangle each, which is the box of category 1 or 2."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (n, 1, size, size), generator=generator, dtype=torch.uint8)
    targets = []
    for number in range(n):
        x, y = 8 + 6 * number, 12 + 4 * number
        images[number, 0, y : y + size // 2, x : x + size // 2] = 220
        box = [[x, y, x + size // 2, y + size // 2]]
        targets.append({"boxes": torch.tensor(box, dtype=torch.float32), "labels": torch.tensor([1 + number % 2])})
    return images, targets


def total(losses):
    return torch.stack(list(losses.values())).sum()


@pytest.mark.parametrize("head", ["v1", "v2"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2"])
def test_the_contract_of_every_detector(backbone, head):
    torch.manual_seed(0)
    detector = build_detector(3, CANVAS, backbone, head, norm="batch", **SMALL, max_detections=7)
    images, targets = batch()
    names = {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}

    detector.train()
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.002, momentum=0.5)
    seen = []
    for step in range(3):
        torch.manual_seed(1)  # the same anchors and proposals are sampled each time
        losses = detector(images, targets)
        assert losses.keys() == names
        loss = total(losses)
        assert torch.isfinite(loss)
        seen.append(float(loss.detach()))
        loss.backward()
        if step == 0:
            first = next(iter(detector.backbone.body.parameters()))
            assert first.grad.abs().sum() > 0, "the loss does not reach the trunk's first layer"
            untrained = [name for name, value in detector.named_parameters() if value.grad is None]
            assert untrained == []
        optimizer.step()
        optimizer.zero_grad()
    assert min(seen[1:]) < seen[0]

    nothing = [{"boxes": torch.zeros((0, 4)), "labels": torch.zeros(0, dtype=torch.int64)} for _ in targets]
    losses = detector(images, nothing)
    loss = total(losses)
    assert torch.isfinite(loss)
    assert losses["loss_box_reg"] == losses["loss_rpn_box_reg"] == 0
    loss.backward()

    detector.eval()
    with torch.inference_mode():
        found = detector(images)
    assert len(found) == 2
    for one in found:
        assert len(one["boxes"]) == len(one["labels"]) == len(one["scores"]) <= 7
        assert ((one["scores"] >= 0) & (one["scores"] <= 1)).all()
        assert (one["scores"].diff() <= 0).all()
        assert ((one["labels"] >= 1) & (one["labels"] <= 3)).all()
        assert ((one["boxes"] >= 0) & (one["boxes"] <= CANVAS)).all()


def test_training_needs_targets():
    with pytest.raises(ValueError, match="needs targets"):
        build_detector(1, CANVAS, "mobilenet_v2", **SMALL).train()(batch()[0])


@pytest.fixture(scope="module")
def references():
    """torchvision's own Faster R-CNNs of 5 classes, which do not resize, on a canvas on which anchors are theirs."""
    size = 128
    models = {}
    for head, build in (("v1", fasterrcnn_resnet50_fpn), ("v2", fasterrcnn_resnet50_fpn_v2)):
        torch.manual_seed(3)
        options = {"min_size": size, "max_size": size, "box_score_thresh": 0.001, "image_mean": MEAN, "image_std": STD}
        reference = build(weights=None, weights_backbone=None, num_classes=5, **options)
        # Random weights score everything alike; larger ones let detections differ, too large ones are all certain.
        for name, value in reference.named_parameters():
            if "cls_logits" in name or "cls_score" in name:
                torch.nn.init.normal_(value, std={"v1": 0.02, "v2": 0.05}[head])
        models[head] = reference.eval()
    return size, models


@pytest.mark.parametrize("head", ["v1", "v2"])
def test_weights_go_to_torchvision_and_back_and_detect_the_same(references, head):
    size, models = references
    reference = models[head]
    # On this canvas xray's anchors are an eighth of torchvision's: ask for theirs.
    detector = build_detector(4, size, "resnet50", head, norm="batch", anchor_scale=1024 / size).eval()
    state = reference.state_dict()
    # torchvision freezes the norms of the first model's trunk only when it comes with weights.
    assert detector.state_dict().keys() == state.keys()
    detector.load_state_dict(state)
    images, _ = batch(1, size)
    with torch.inference_mode():
        expected = reference(list((images / 255).repeat(1, 3, 1, 1)))[0]
        found = detector(images)[0]
    assert len(expected["boxes"]) > 10
    assert found["boxes"].shape == expected["boxes"].shape
    # Where scores are this close to each other, rounding decides which comes first.
    one, other = (
        {key: value[each["boxes"].sum(1).argsort()] for key, value in each.items()} for each in (found, expected)
    )
    torch.testing.assert_close(one["scores"], other["scores"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one["boxes"], other["boxes"], atol=1e-3, rtol=1e-4)
    assert torch.equal(one["labels"], other["labels"])
    # And back, the names and shapes being equal.
    reference.load_state_dict(detector.state_dict(), strict=True)


def test_parameter_counts_are_torchvisions(references):
    _, models = references
    for head, reference in models.items():
        detector = build_detector(4, CANVAS, "resnet50", head, norm="batch")
        counts = [sum(value.numel() for value in model.parameters()) for model in (detector, reference)]
        assert counts[0] == counts[1]
    # torchvision's documentation gives 41,755,286 for 91 classes, norms frozen.
    frozen = build_detector(90, CANVAS, "resnet50", "v1", norm="frozen")
    assert sum(value.numel() for value in frozen.parameters()) == 41_755_286


@pytest.mark.parametrize(
    ("backbone", "stages"),
    [
        ("resnet18", ["conv1", "layer1", "layer2", "layer3", "layer4"]),
        ("mobilenet_v2", ["1", "3", "5", "8", "18"]),
    ],
)
@pytest.mark.parametrize("trainable", range(6))
def test_trainable_layers_count_from_the_last(backbone, stages, trainable):
    detector = build_detector(2, CANVAS, backbone, trainable_layers=trainable, **SMALL)
    trains = {name.split(".")[0] for name, value in detector.backbone.body.named_parameters() if value.requires_grad}
    assert [stage in trains for stage in stages] == [index >= 5 - trainable for index in range(5)]
    assert all(value.requires_grad for value in detector.backbone.fpn.parameters())
    assert all(value.requires_grad for value in detector.roi_heads.parameters())


def test_anchors_shrink_with_the_canvas():
    for size, scale, sides in ((1024, 1.0, [32, 64, 128, 256, 512]), (256, 1.0, [8, 16, 32, 64, 128])):
        generator = build_detector(1, size, "mobilenet_v2", anchor_scale=scale, **SMALL).rpn.anchor_generator
        for anchors, side in zip(generator.cell_anchors, sides, strict=True):
            width, height = (anchors[:, 2:] - anchors[:, :2]).T
            torch.testing.assert_close(width * height, torch.full((3,), side**2.0), rtol=0.2, atol=0)
            torch.testing.assert_close(height / width, torch.tensor([0.5, 1, 2]), rtol=0.2, atol=0)
    half = build_detector(1, 1024, "mobilenet_v2", anchor_scale=0.5, **SMALL).rpn.anchor_generator
    assert half.sizes == ((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))


def test_norms_are_frozen_or_not():
    frozen = build_detector(1, CANVAS, "resnet18", norm="frozen", **SMALL)
    batch_norms = build_detector(1, CANVAS, "resnet18", norm="batch", **SMALL)
    kinds = [{type(module).__name__ for module in model.modules()} for model in (frozen, batch_norms)]
    assert "BatchNorm2d" not in kinds[0]
    assert "FrozenBatchNorm2d" in kinds[0]
    assert "FrozenBatchNorm2d" not in kinds[1]


# Initial weights


def saved(folder, state, name="weights.safetensors"):
    path = folder / name
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return str(path)


@pytest.mark.parametrize("norm", ["frozen", "batch"])
@pytest.mark.parametrize(
    ("backbone", "classifier"),
    [("resnet18", torchvision.models.resnet18), ("mobilenet_v2", torchvision.models.mobilenet_v2)],
)
def test_a_trunk_starts_from_a_classifiers_file(tmp_path, backbone, classifier, norm):
    torch.manual_seed(5)
    donor = classifier(weights=None)
    detector = build_detector(2, CANVAS, backbone, norm=norm, **SMALL)
    for name in ("a.safetensors", "a.pth"):
        said = load_initial_weights(detector, saved(tmp_path, donor.state_dict(), name), backbone, "v1")
        assert said == f"backbone starts from {name}"
    state = {name.removeprefix("features."): value for name, value in donor.state_dict().items()}
    body = detector.backbone.body.state_dict()
    assert len(body) > 50
    for name, value in body.items():
        assert torch.equal(value, state[name]), name


def test_the_shared_trunk_loads(shared_data):
    path = shared_data / "weights" / "mobilenet_v2_imagenet.safetensors"
    detector = build_detector(2, CANVAS, "mobilenet_v2", **SMALL)
    before = detector.backbone.body.state_dict()["0.0.weight"].clone()
    assert load_initial_weights(detector, str(path), "mobilenet_v2", "v1") == f"backbone starts from {path.name}"
    after = detector.backbone.body.state_dict()["0.0.weight"]
    assert not torch.equal(before, after)
    tensors = safetensors.torch.load_file(path)
    assert any(value.shape == after.shape and torch.equal(value, after) for value in tensors.values())


def test_a_detector_starts_from_a_detector_of_other_categories(tmp_path):
    torch.manual_seed(1)
    donor = build_detector(5, CANVAS, "mobilenet_v2", **SMALL)
    detector = build_detector(2, CANVAS, "mobilenet_v2", **SMALL)
    own = detector.roi_heads.box_predictor.cls_score.weight.clone()
    path = saved(tmp_path, {f"model.{name}": value for name, value in donor.state_dict().items()}, "lightning.ckpt")
    torch.save({"state_dict": torch.load(path, weights_only=True), "epoch": 3}, path)
    said = load_initial_weights(detector, path, "mobilenet_v2", "v1")
    assert said == "detector starts from lightning.ckpt, its last layer from random"
    assert torch.equal(detector.roi_heads.box_predictor.cls_score.weight, own)
    assert torch.equal(detector.rpn.head.cls_logits.weight, donor.rpn.head.cls_logits.weight)
    same = build_detector(5, CANVAS, "mobilenet_v2", **SMALL)
    assert load_initial_weights(same, path, "mobilenet_v2", "v1") == "detector starts from lightning.ckpt"
    assert torch.equal(same.roi_heads.box_predictor.cls_score.weight, donor.roi_heads.box_predictor.cls_score.weight)


@pytest.mark.parametrize(
    ("backbone", "donor"),
    [("resnet18", "resnet34"), ("resnet34", "resnet18"), ("resnet18", "resnet50"), ("mobilenet_v2", "resnet18")],
)
def test_weights_of_another_backbone_are_refused_and_change_nothing(tmp_path, backbone, donor):
    path = saved(tmp_path, getattr(torchvision.models, donor)(weights=None).state_dict())
    detector = build_detector(2, CANVAS, backbone, **SMALL)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with pytest.raises(
        InputError, match=rf"does not hold the weights of this backbone \({backbone}\).*check --backbone"
    ):
        load_initial_weights(detector, path, backbone, "v1")
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


@pytest.mark.parametrize("change", [{"fpn_channels": 24}, {"head": "v2"}, {"backbone": "resnet18"}])
def test_a_detector_of_another_architecture_is_refused(tmp_path, change):
    path = saved(tmp_path, build_detector(2, CANVAS, **{"backbone": "mobilenet_v2", **SMALL}).state_dict())
    detector = build_detector(2, CANVAS, **{"backbone": "mobilenet_v2", **SMALL, **change})
    with pytest.raises(InputError, match="does not hold the weights of this detector"):
        load_initial_weights(detector, path, "mobilenet_v2", "v1")


@pytest.mark.parametrize(("weights", "what"), [("imagenet", "resnet50"), ("coco", "the COCO detector")])
def test_a_download_that_fails_says_what_to_do(monkeypatch, tmp_path, weights, what):
    def offline(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    detector = build_detector(2, CANVAS, "mobilenet_v2", **SMALL)
    with pytest.raises(InputError, match=rf"weights of {what} could not be downloaded \(.*not known.*\)") as raised:
        load_initial_weights(detector, weights, "resnet50", "v1")
    message = str(raised.value)
    assert "https://download.pytorch.org/models/" in message
    assert "--weights FILE" in message
    assert "--weights none" in message


def test_no_weights_are_random():
    detector = build_detector(2, CANVAS, "mobilenet_v2", **SMALL)
    assert load_initial_weights(detector, "none", "mobilenet_v2", "v1") == "weights start at random"
