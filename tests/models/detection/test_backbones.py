"""Trunks of timm's under a detector: one contract for the kinds of networks that there are, and what is refused."""

import copy

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from xray.errors import InputError
from xray.inference.loaded import LoadedDetector, prepare
from xray.inference.shared_trunk import trunk_difference
from xray.models.detection import backbones
from xray.models.detection.backbones import reading_of_timm
from xray.models.detection.detector import build_detector, load_initial_weights
from xray.models.kernels.convolutions import speed_up_training
from xray.models.pretrained import CENTRED, IMAGENET
from xray.models.segmentation.segmenter import build_segmenter, load_encoder_weights

SMALL = {"fpn_channels": 16, "rpn_samples": 32, "roi_samples": 16, "max_detections": 20}
CANVAS = 64
KINDS = ["convnext_atto", "tf_efficientnetv2_b0", "resnet18d", "densenet121", "swin_tiny_patch4_window7_224"]
"""Layer norms, batch norms with an activation, plain batch norms, norms before convolutions, channels last."""


def batch(size=CANVAS):
    images = torch.randint(0, 60, (2, 1, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[:, :, 10:42, 12:44] = 220
    target = {"boxes": torch.tensor([[12.0, 10, 44, 42]]), "labels": torch.tensor([1])}
    return images, [target, target]


@pytest.mark.parametrize(
    ("backbone", "family"), [*((kind, "faster_rcnn") for kind in KINDS), ("convnext_atto", "retinanet")]
)
def test_the_contract(backbone, family):
    torch.manual_seed(0)
    detector = build_detector(2, CANVAS, backbone, norm="frozen", trainable_layers=3, family=family, **SMALL)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in detector.backbone.body.modules())
    images, targets = batch()
    speed_up_training(detector)
    losses = detector.train().to(memory_format=torch.channels_last)(images, targets)
    torch.stack(list(losses.values())).sum().backward()
    for name, value in detector.named_parameters():
        # Else a training on several devices waits for them.
        assert (value.grad is not None) == value.requires_grad, name
    maps = detector.backbone(torch.zeros(1, 3, CANVAS, CANVAS))
    assert [features.shape[1] for features in maps.values()] == [16] * 5

    loaded = LoadedDetector(detector.eval(), CANVAS, {1: "a", 2: "b"}, {1: 1, 2: 2})
    canvases = images[:, 0].numpy()
    plain = loaded.detect(canvases, False)
    state = copy.deepcopy(detector.state_dict())
    prepare(loaded, torch.device("cpu"))
    for (boxes, labels, scores), (fast_boxes, _, fast_scores) in zip(
        plain, loaded.detect(canvases, False), strict=True
    ):
        assert len(boxes) == len(fast_boxes) > 0
        np.testing.assert_allclose(scores, fast_scores, atol=1e-4)
        assert set(labels) <= {1, 2}
    again = build_detector(2, CANVAS, backbone, norm="frozen", family=family, **SMALL)
    again.load_state_dict(state)


@pytest.mark.parametrize(
    ("backbone", "stages"),
    [
        ("convnext_atto", ["stem_0", "stages_0", "stages_1", "stages_2", "stages_3"]),
        ("resnet18d", ["conv1", "layer1", "layer2", "layer3", "layer4"]),
        ("mobilenetv3_small_050", ["conv_stem", "blocks.0", "blocks.1", "blocks.2", "blocks.4"]),
        ("densenet121", ["features_conv0", "features_denseblock1", "features_transition1", "features_denseblock3",
                         "features_norm5"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("trainable", [0, 1, 3, 4])
def test_trainable_layers_count_stages_from_the_last(backbone, stages, trainable):
    body = build_detector(2, CANVAS, backbone, norm="batch", trainable_layers=trainable, **SMALL).backbone.body
    assert body.training
    parameters = dict(body.named_parameters())
    for stage, first in enumerate(stages):
        of_stage = [value.requires_grad for name, value in parameters.items() if name.startswith(f"{first}.")]
        assert set(of_stage) == {stage >= 5 - trainable}, first


def test_batch_norms_are_frozen_as_they_are():
    torch.manual_seed(0)
    learning = build_detector(1, CANVAS, "tf_efficientnetv2_b0", norm="batch", **SMALL).eval()
    for name, value in learning.state_dict().items():
        if "running" in name:
            value.uniform_(0.5, 2.0)
    torch.manual_seed(0)
    frozen = build_detector(1, CANVAS, "tf_efficientnetv2_b0", norm="frozen", **SMALL).eval()
    frozen.load_state_dict(learning.state_dict())
    kinds = {type(module).__name__ for module in frozen.backbone.body.modules()}
    assert "FrozenBatchNormAct2d" in kinds
    assert kinds.isdisjoint({"BatchNormAct2d", "BatchNorm2d"})
    pixels = torch.randn(1, 3, CANVAS, CANVAS)
    with torch.inference_mode():
        for one, other in zip(learning.backbone.body(pixels), frozen.backbone.body(pixels), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    plain = build_detector(1, CANVAS, "resnet18d", norm="frozen", **SMALL)
    assert any(isinstance(module, FrozenBatchNorm2d) for module in plain.backbone.body.modules())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convnext_tinny", r"^--backbone convnext_tinny is unknown: did you mean convnext_tiny or "),
        ("resnet51", r"is unknown: did you mean resnet51q or resnet50 or (?!resnet50)"),
        ("mobilenet_v3", r"is unknown: did you mean mobilenet_v2 or "),
        ("vit_tiny_patch16_224", r"^--backbone vit_tiny_patch16_224 cannot be .*no features at stride 4, a pyramid"),
        ("maxvit_pico_rw_256", r"^--backbone maxvit_pico_rw_256 cannot be the trunk of a detector: .*use another one$"),
    ],
)
def test_what_cannot_be_a_trunk_is_refused_in_a_line(name, message):
    with pytest.raises(InputError, match=message) as raised:
        build_detector(1, CANVAS, name, **SMALL)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("backbone", "family"),
    [("convnext_atto", "retinanet"), ("efficientnet_lite0", "faster_rcnn"), ("resnet18d", "faster_rcnn")],
)
def test_a_trunk_starts_from_a_file_of_timms(tmp_path, backbone, family):
    torch.manual_seed(1)
    donor = timm.create_model(backbone).eval()
    torch.save(donor.state_dict(), tmp_path / "timm.pth")
    detector = build_detector(1, CANVAS, backbone, norm="frozen", family=family, **SMALL).eval()
    said = load_initial_weights(detector, str(tmp_path / "timm.pth"), backbone, "v1")
    assert said == "backbone starts from timm.pth"
    pixels = torch.randn(1, 3, CANVAS, CANVAS)
    with torch.inference_mode():
        torch.testing.assert_close(detector.backbone.body(pixels)[-1], _last_map(donor, pixels), atol=1e-4, rtol=1e-4)
    torch.save(timm.create_model("resnet34d").state_dict(), tmp_path / "other.pth")
    with pytest.raises(InputError, match=rf"does not hold the weights of this backbone \({backbone}\)"):
        load_initial_weights(detector, str(tmp_path / "other.pth"), backbone, "v1")


def _last_map(donor, pixels):
    """The map of stride 32, from timm's own way to it."""
    indices = timm.create_model(donor.default_cfg["architecture"], features_only=True).feature_info.out_indices
    with_features = timm.create_model(donor.default_cfg["architecture"], features_only=True, out_indices=indices[-1:])
    names = {name.replace(".", "_"): value for name, value in donor.state_dict().items()}
    with_features.load_state_dict({name: names[name.replace(".", "_")] for name in with_features.state_dict()})
    return with_features.eval()(pixels)[-1]


def test_each_weights_read_pictures_in_their_own_way(monkeypatch, tmp_path):
    """tf_efficientnetv2 was fed with −1 to 1, unlike most; that is kept with the weights."""
    assert reading_of_timm("convnext_tiny") == IMAGENET
    assert reading_of_timm("tf_efficientnetv2_b0") == IMAGENET
    assert reading_of_timm("tf_efficientnetv2_s") == CENTRED.of_channels(3)
    donor = build_detector(1, CANVAS, "resnetv2_18", norm="frozen", **SMALL)
    state = {name.removeprefix("backbone.body."): v for name, v in donor.state_dict().items() if ".body." in name}
    created = []

    def create(name, pretrained=False):
        created.append((name, pretrained))
        return donor.backbone.body

    detector = build_detector(1, CANVAS, "resnetv2_18", norm="frozen", **SMALL)
    monkeypatch.setattr(backbones, "_create_timm", create)
    monkeypatch.setattr(backbones, "reading_of_timm", lambda name: CENTRED)
    assert load_initial_weights(detector, "imagenet", "resnetv2_18", "v1") == "backbone starts from imagenet"
    assert created == [("resnetv2_18", True)]
    body = detector.backbone.body.state_dict()
    assert all(torch.equal(body[name], value) for name, value in state.items())
    assert detector.mean.flatten().tolist() == [127.5] * 3
    monkeypatch.undo()
    # A copy of it, by its state alone, reads as it does; one of ImageNet's does not say so in its state.
    again = build_detector(1, CANVAS, "resnetv2_18", norm="frozen", **SMALL)
    again.load_state_dict(detector.state_dict())
    assert again.reading == CENTRED.of_channels(3)
    again.load_state_dict(donor.state_dict())
    assert again.reading == IMAGENET
    assert "mean" not in donor.state_dict()


def test_without_internet_the_message_says_what_to_do(monkeypatch):
    def offline(*_, **__):
        raise OSError("Name or service not known")

    detector = build_detector(1, CANVAS, "convnext_atto", **SMALL)
    monkeypatch.setattr(backbones, "_create_timm", offline)
    with pytest.raises(
        InputError, match=r"the ImageNet weights of convnext_atto could not be downloaded .*--weights FILE"
    ):
        load_initial_weights(detector, "imagenet", "convnext_atto", "v1")


def test_a_segmenter_starts_from_such_a_trunk_and_does_not_share_it(tmp_path):
    detector = build_detector(1, CANVAS, "convnext_atto", **SMALL)
    torch.save(detector.state_dict(), tmp_path / "detector.pth")
    segmenter = build_segmenter(encoder="tu-convnext_atto", depth=4)
    load_encoder_weights(segmenter, str(tmp_path / "detector.pth"))
    ours, theirs = segmenter.encoder.state_dict(), detector.backbone.body.state_dict()
    assert torch.equal(ours["model.stages_2.blocks.0.conv_dw.weight"], theirs["stages_2.blocks.0.conv_dw.weight"])
    assert "the detector's is a network of timm's" in trunk_difference(detector, segmenter)
