"""Products by oneDNN where MKL is slow: PyTorch's numbers and gradients, whatever the processor at hand prefers."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xray.models.detection.detector import build_detector
from xray.models.kernels import products
from xray.models.kernels.convolutions import PointConv2d, speed_up_training
from xray.models.kernels.products import (
    BatchedProducts,
    QuickLinear,
    add_batched_products,
    linear,
    point_convolution,
    speed_up_linear,
)

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")


@pytest.fixture(params=[pytest.param(True, marks=needs_onednn), False], ids=["oneDNN", "PyTorch"])
def by_onednn(request, monkeypatch):
    """Whether the processor prefers oneDNN, as is said here."""
    monkeypatch.setattr(products, "prefers_onednn", lambda: request.param)
    return request.param


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def same(run, reference, *inputs):
    """Output and gradients of both are the same, up to the rounding of float32."""
    results = []
    for function, kind in ((run, torch.float32), (reference, torch.float64)):
        values = [value.detach().to(kind).requires_grad_() for value in inputs]
        output = function(*values)
        slope = random(*output.shape).to(kind)
        results.append([output, *torch.autograd.grad(output, values, slope)])
    for found, expected in zip(*results, strict=True):
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= 2e-6 * expected.abs().max() * len(inputs[0].flatten(1)[0]) ** 0.5


@pytest.mark.parametrize(("n", "channels", "n_out"), [(1, 3, 2), (40, 65, 7), (300, 128, 96)])
def test_a_linear_layer_and_its_gradients(by_onednn, n, channels, n_out):
    inputs = random(n, channels), random(n_out, channels), random(n_out)
    same(linear, F.linear, *inputs)
    same(lambda x, w: linear(x, w, None), lambda x, w: F.linear(x, w), *inputs[:2])


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 4, 4), (2, 8, 12), (3, 5, 7), (16, 2, 2)])
def test_a_point_convolution_and_its_gradients(by_onednn, batch, height, width, layout):
    features = random(batch, 24, height, width).contiguous(memory_format=layout)
    inputs = features, random(10, 24, 1, 1), random(10)
    same(point_convolution, F.conv2d, *inputs)
    same(lambda x, w: point_convolution(x, w, None), F.conv2d, *inputs[:2])
    # Activations change it in place, without a copy of what they are given.
    features = features.clone(memory_format=torch.preserve_format).requires_grad_()
    output = F.relu(point_convolution(features, inputs[1], inputs[2]), inplace=True)
    output.sum().backward()
    assert features.grad.stride() == features.stride()


def test_a_point_convolution_of_no_pictures(by_onednn):
    features, weight = random(0, 24, 4, 4).requires_grad_(), random(8, 24, 1, 1).requires_grad_()
    output = point_convolution(features, weight, None)
    assert output.shape == (0, 8, 4, 4)
    assert [slope.shape for slope in torch.autograd.grad(output.sum(), (features, weight))] == [
        features.shape,
        weight.shape,
    ]


def test_batched_products(by_onednn):
    matrices, factors = random(6, 20, 33), random(6, 8, 20)
    batched = BatchedProducts(matrices)
    apart, row = batched.strides(8, 20)
    flat = torch.empty(6 * 8 * 20)
    flat.as_strided((6, 8, 20), (apart, row, 1)).copy_(factors)
    batched.prepare(8)
    found = batched.multiply(flat, 8, torch.empty(6 * 8 * 33))
    found = found.as_strided((6, 8, 33), (*batched.strides(8, 33), 1))
    torch.testing.assert_close(found, factors @ matrices, rtol=1e-5, atol=1e-5)
    for again in (copy.deepcopy(batched), pickle.loads(pickle.dumps(batched))):
        again.prepare(8)
        repeated = again.multiply(flat, 8, torch.empty(6 * 8 * 33))
        assert torch.equal(repeated, batched.multiply(flat, 8, torch.empty(6 * 8 * 33)))


def test_sums_of_batched_products(by_onednn):
    left, right, total = random(4, 9, 5), random(4, 9, 7), random(4, 5, 7)
    expected = total + left.mT @ right
    add_batched_products(left, right, total)
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)


def test_a_detector_learns_the_same(by_onednn):
    torch.manual_seed(0)
    detector = build_detector(2, 128, "resnet18", fpn_channels=128, rpn_samples=16, roi_samples=8).train()
    detector.to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (2, 1, 128, 128), dtype=torch.uint8)
    targets = [{"boxes": torch.tensor([[10.0, 10, 60, 60]]), "labels": torch.tensor([1])}] * 2

    def gradients():
        torch.manual_seed(1)
        detector.zero_grad()
        losses = detector(images, targets)
        torch.stack(list(losses.values())).sum().backward()
        return losses, {name: value.grad.clone() for name, value in detector.named_parameters()}

    expected = gradients()
    names = list(detector.state_dict())
    speed_up_training(detector)
    kinds = [type(module) for module in detector.modules()]
    assert PointConv2d in kinds
    assert (QuickLinear in kinds) is by_onednn
    found = gradients()
    assert list(detector.state_dict()) == names
    for name, value in expected[0].items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-4, atol=1e-5)
    for name, value in expected[1].items():
        assert (found[1][name] - value).norm() <= 2e-3 * value.norm() + 1e-6, name


@needs_onednn
def test_others_are_left_to_pytorch(monkeypatch):
    monkeypatch.setattr(products, "prefers_onednn", lambda: True)
    monkeypatch.setattr(products, "multiply", lambda *args: pytest.fail("multiplied by us"))
    layer = nn.Sequential(nn.Linear(4, 3))
    speed_up_linear(layer)
    features = random(2, 4)
    assert layer.double()(features.double()).dtype == torch.float64
    layer.float()
    assert layer(features[None]).shape == (1, 2, 3)
    assert layer(features[:0]).shape == (0, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(features).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("vendor", "capability", "expected"),
    [
        ("AuthenticAMD", "AVX512", True), ("GenuineIntel", "AVX512", False), ("AuthenticAMD", "AVX2", False),
        ("", "AVX512", False),
    ],
)  # fmt: skip
@needs_onednn
def test_what_a_processor_prefers(monkeypatch, vendor, capability, expected):
    monkeypatch.setattr(products, "_vendor", lambda: vendor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert products.prefers_onednn.__wrapped__() is expected
