"""Folded networks: the same outputs from fewer norms, and nothing folded that something else reads."""

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from xray.models.classification.classifier import build_classifier
from xray.models.detection.detector import build_detector
from xray.models.kernels.norms import _is_norm, fold_batch_norms
from xray.models.segmentation.segmenter import build_segmenter


def lively(model):
    """Norms that change what they are given, as trained ones do."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
    return model.eval()


def count_norms(model):
    return sum(_is_norm(module) for module in model.modules())


def canvases(size=128):
    return torch.randint(0, 256, (2, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def pyramid(detector, images):
    return detector.backbone((images - detector.mean) / detector.std)


# name, builder, norms before, norms left. A DenseNet's layers normalise what they concatenate: only the norms between
# the two convolutions of a layer, and the first, follow a convolution that nothing else reads.
NETWORKS = [
    ("resnet18", lambda: build_detector(3, 128, "resnet18", fpn_channels=16), 20, 0),
    ("resnet50", lambda: build_detector(3, 128, "resnet50", fpn_channels=16), 53, 0),
    ("resnet50, batch norms", lambda: build_detector(3, 128, "resnet50", norm="batch", fpn_channels=16), 53, 0),
    ("resnet18, v2 head", lambda: build_detector(3, 128, "resnet18", head="v2", fpn_channels=16), 32, 0),
    ("mobilenet_v2", lambda: build_detector(3, 128, "mobilenet_v2", fpn_channels=16), 52, 0),
    ("unet resnet34", lambda: build_segmenter("unet", "resnet34"), 46, 0),
    ("unetplusplus resnet34", lambda: build_segmenter("unetplusplus", "resnet34"), 58, 0),
    ("unetplusplus, side outputs", lambda: build_segmenter("unetplusplus", "resnet18", deep_supervision=True), 48, 6),
    ("densenet121", lambda: build_classifier("densenet121", 2), 121, 62),
    ("timm resnet10t", lambda: build_classifier("resnet10t", 2), 14, 0),
]


@pytest.mark.parametrize(("name", "build", "n_before", "n_left"), NETWORKS, ids=[case[0] for case in NETWORKS])
def test_a_folded_network_gives_the_same(name, build, n_before, n_left):
    torch.manual_seed(0)
    model = lively(build())
    images = canvases()
    is_detector = hasattr(model, "backbone")
    look = (lambda: list(pyramid(model, images).values())) if is_detector else (lambda: [model(images)])
    assert count_norms(model) == n_before
    with torch.inference_mode():
        before = look()
        found_before = model(images)
        n_folded = fold_batch_norms(model, images[:1, :, :64, :64])
        after = look()
        found_after = model(images)
    assert (n_folded, count_norms(model)) == (n_before - n_left, n_left)
    for one, other in zip(before, after, strict=True):
        assert (one - other).abs().max() <= 1e-4 * one.abs().max()
    if is_detector:
        for one, other in zip(found_before, found_after, strict=True):
            assert len(one["boxes"]) > 10
            torch.testing.assert_close(one["boxes"], other["boxes"], rtol=0, atol=1e-2)
            torch.testing.assert_close(one["scores"], other["scores"], rtol=0, atol=1e-4)
    # There is nothing left to fold.
    assert fold_batch_norms(model, images) == 0


class Net(nn.Module):
    """A convolution and a norm, and what else is done with them."""

    def __init__(self, use):
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.norm, self.use = nn.BatchNorm2d(4), use

    def forward(self, images):
        return self.use(self, images.expand(-1, 3, -1, -1) / 255)


def skips(net, x):
    y = net.conv(x)
    return net.norm(y) + y


def returns_both(net, x):
    y = net.conv(x)
    return net.norm(y), y


def after_relu(net, x):
    return net.norm(torch.relu_(net.conv(x)))


def half(net, x):
    y = net.conv(x)
    net.norm(y.view(2, -1, *y.shape[2:])[:, :4]) if len(y) > 1 else None
    return net.norm(y[:, :, ::2])


def norm_of_two(net, x):
    return net.norm(net.conv(x)) + net.norm(net.other(x))


def conv_into_conv_and_norm(net, x):
    y = net.conv(x)
    return net.norm(y), net.other(y[:, :3])


@pytest.mark.parametrize("use", [skips, returns_both, after_relu, half, norm_of_two, conv_into_conv_and_norm])
def test_a_convolution_that_something_else_reads_is_left_alone(use):
    net = lively(Net(use))
    weight = net.conv.weight.clone()
    before = net(canvases(8))
    assert fold_batch_norms(net, canvases(8)) == 0
    torch.testing.assert_close(net(canvases(8)), before, rtol=0, atol=0)
    assert torch.equal(net.conv.weight, weight)


def test_a_shared_convolution_with_its_own_norm_is_folded():
    net = lively(Net(lambda net, x: net.norm(net.conv(x)) + net.norm(net.conv(x * 2))))
    before = net(canvases(8))
    assert fold_batch_norms(net, canvases(8)) == 1
    torch.testing.assert_close(net(canvases(8)), before)


def test_norms_in_training_are_not_folded():
    with pytest.raises(ValueError, match="call eval"):
        fold_batch_norms(Net(skips), canvases(8))
