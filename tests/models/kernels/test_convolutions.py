"""Faster convolutions: the numbers of plain ones, wherever they are put."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from xray.models.classification.classifier import build_classifier
from xray.models.detection.detector import build_detector
from xray.models.kernels import convolutions
from xray.models.kernels.convolutions import InferenceBlock, InferenceConv2d, speed_up_inference
from xray.models.kernels.norms import fold_batch_norms
from xray.models.kernels.winograd import NOTHING, RELU, RELU6, matrices, weights_of_products, winograd
from xray.models.segmentation.segmenter import build_segmenter

ACTIVATIONS = {NOTHING[0]: (NOTHING, lambda x: x), RELU[0]: (RELU, F.relu), RELU6[0]: (RELU6, F.relu6)}


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_matrices_convolve():
    to_output, kernel, to_products = matrices()
    row, weights = np.array([3.0, -1, 4, 1, -5, 9]), np.array([2.0, 7, -1])
    expected = [row[start : start + 3] @ weights for start in range(4)]
    np.testing.assert_allclose(to_output @ ((kernel @ weights) * (to_products @ row)), expected, rtol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 4, 4), (2, 8, 12), (1, 68, 4), (1, 4, 300), (2, 36, 40)])
def test_winograd_is_the_convolution(batch, height, width, summed, activation):
    own, expected = ACTIVATIONS[activation]
    features, weight, bias = random(batch, 5, height, width), random(7, 5, 3, 3), random(7)
    addend = random(batch, 7, height, width) if summed else None
    exact = F.conv2d(features.double(), weight.double(), bias.double(), padding=1)
    exact = expected(exact + addend.double() if summed else exact)
    for used in (features, features.contiguous(memory_format=torch.channels_last)):
        given = addend.clone(memory_format=torch.channels_last) if summed else None
        found = winograd(used, weights_of_products(weight), bias, own, given)
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert (found - exact).abs().max() < 1e-5 * exact.abs().max()
        assert given is None or given.data_ptr() == found.data_ptr()


@pytest.mark.parametrize("size", [32, 33, 36, 8])
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"groups": 4}, {"dilation": 2}, {"bias": False}])
def test_a_quick_convolution_is_a_convolution(size, options):
    conv = nn.Conv2d(128, 128, 3, padding=1, **options).to(memory_format=torch.channels_last)
    features = random(1, 128, size, size)
    with torch.inference_mode():
        expected = conv(features)
        addend = random(*expected.shape).contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(InferenceConv2d(conv)(features), expected, rtol=0, atol=2e-5)
        summed = F.relu(expected + addend)
        torch.testing.assert_close(InferenceConv2d(conv, RELU)(features, addend), summed, rtol=0, atol=2e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("by_onednn", [False, True])
def test_bfloat16_on_processors_with_and_without_it(monkeypatch, by_onednn, summed, activation):
    """Before AVX-512, oneDNN refuses to convolve bfloat16 (PyTorch 2.14: a RuntimeError)."""
    if by_onednn and not convolutions.onednn_has_bfloat16():
        pytest.skip("oneDNN has no bfloat16 on this processor")
    monkeypatch.setattr(convolutions, "onednn_has_bfloat16", lambda: by_onednn)
    own, expected = ACTIVATIONS[activation]
    conv = nn.Conv2d(16, 16, 3, padding=2, stride=2, dilation=2, groups=2).to(memory_format=torch.channels_last)
    features, addend = random(2, 16, 9, 9), random(2, 16, 5, 5).bfloat16()
    with torch.inference_mode():
        exact = expected(conv(features) + (addend if summed else 0))
        given = addend.clone(memory_format=torch.channels_last) if summed else None
        output = InferenceConv2d(conv.bfloat16(), own)(features, given)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), exact, rtol=0.02, atol=0.04)
    assert given is None or given.data_ptr() == output.data_ptr()


@pytest.mark.parametrize("block", [BasicBlock(128, 128), Bottleneck(128, 32)])
def test_a_block_leaves_what_others_read(block):
    block = block.eval()
    features = random(1, 128, 32, 32).contiguous(memory_format=torch.channels_last)
    before = features.clone()
    with torch.inference_mode():
        expected = block(features)
        stage = nn.Sequential(block, copy.deepcopy(block))
        assert fold_batch_norms(stage, features) in (4, 6)
        speed_up_inference(stage)
        assert [stage[0].overwrites, stage[1].overwrites] == [False, True]
        torch.testing.assert_close(stage[0](features), expected, rtol=0, atol=1e-4)
    assert torch.equal(features, before)


NETWORKS = {
    "resnet18 detector": (lambda: build_detector(3, 256, "resnet18", fpn_channels=128), 8),
    "resnet50 detector": (lambda: build_detector(3, 256, "resnet50", fpn_channels=128), 16),
    "mobilenet_v2 detector": (lambda: build_detector(3, 256, "mobilenet_v2", fpn_channels=128), 0),
    "unet resnet34": (lambda: build_segmenter("unet", "resnet34"), 16),
    "unetplusplus resnet18": (lambda: build_segmenter("unetplusplus", "resnet18"), 8),
    "densenet121": (lambda: build_classifier("densenet121", 2), 0),
    "timm resnet18": (lambda: build_classifier("resnet18", 2), 0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_with_faster_convolutions_gives_the_same(name):
    build, n_blocks = NETWORKS[name]
    torch.manual_seed(0)
    model = build().eval().to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (1, 1, 256, 256), dtype=torch.uint8)
    is_detector = hasattr(model, "backbone")

    def look():
        if not is_detector:
            return [model(images)]
        pyramid = list(model.backbone((images - model.mean) / model.std).values())
        logits, offsets = model.rpn.head(pyramid)
        return [*pyramid, *logits, *offsets]

    with torch.inference_mode():
        before = look()
        fold_batch_norms(model, images)
        speed_up_inference(model)
        after = look()
    assert sum(isinstance(module, InferenceBlock) for module in model.modules()) == n_blocks
    assert not any(type(module) is nn.Conv2d for module in model.modules())
    for one, other in zip(before, after, strict=True):
        assert (one - other).abs().max() <= 1e-4 * one.abs().max()
        # Nothing converts back to PyTorch's own order, which convolutions would have to undo.
        assert other.ndim < 4 or other.shape[1] == 1 or other.is_contiguous(memory_format=torch.channels_last)


def test_threads_do_not_change_a_bit():
    features, products = random(2, 128, 64, 32), weights_of_products(random(128, 128, 3, 3))
    n_threads = torch.get_num_threads()
    found = []
    try:
        for n in (1, 3, 3):
            torch.set_num_threads(n)
            with torch.inference_mode():
                found.append(winograd(features, products, random(128), RELU, None))
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(n_threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
