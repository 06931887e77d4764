"""Convolutions that training computes in another way, and compiled networks: the numbers stay the same."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from xray.models.classification.classifier import build_classifier
from xray.models.detection.detector import build_detector
from xray.models.kernels import convolutions
from xray.models.kernels.convolutions import (
    AppliedNorm2d,
    NormedConv2d,
    WideConv2d,
    apply_norms_in_convolutions,
    convolve,
    speed_up_training,
)
from xray.models.segmentation.segmenter import build_segmenter


def off(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("height", "width", "bias"), [(32, 32, True), (64, 48, False), (36, 100, True)])
def test_a_wide_convolution_and_its_gradients(height, width, bias, layout):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 128, height, width, generator=generator).to(memory_format=layout)
    weight = torch.randn(160, 128, 3, 3, generator=generator).to(memory_format=layout)
    inputs = [features, weight] + ([torch.randn(160, generator=generator)] if bias else [])
    slope = torch.randn(2, 160, height, width, generator=generator)
    results = []
    for run in (convolve, lambda *args: F.conv2d(*(value.double() for value in args if value is not None), padding=1)):
        values = [value.clone().requires_grad_() for value in inputs]
        output = run(*values, *([] if bias else [None]))
        results.append([output, *torch.autograd.grad(output, values, slope.to(output.dtype))])
    assert type(results[0][0].grad_fn).__name__ == "_WinogradBackward"
    for found, expected in zip(*results, strict=True):
        assert found.shape == expected.shape
        assert off(found, expected) < 1e-5


@pytest.mark.parametrize(
    ("channels", "height", "width", "dtype"),
    [(128, 30, 64, torch.float32), (128, 16, 16, torch.float32), (128, 64, 64, torch.float64)],
)
def test_others_are_convolved_as_ever(channels, height, width, dtype):
    features = torch.randn(1, channels, height, width, dtype=dtype, requires_grad=True)
    weight = torch.randn(128, channels, 3, 3, dtype=dtype)
    assert torch.equal(convolve(features, weight, None), F.conv2d(features, weight, padding=1))


def test_no_pictures_are_convolved_as_ever():
    features, weight = torch.zeros(0, 128, 32, 32, requires_grad=True), torch.randn(128, 128, 3, 3)
    output = convolve(features, weight, None)
    assert output.shape == features.shape
    assert torch.autograd.grad(output.sum(), features)[0].shape == features.shape


def lively(model):
    """Frozen norms that change what they are given."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.uniform_(0.5, 1)
            module.bias.uniform_(-0.2, 0.2)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "mobilenet_v2"])
def test_convolutions_apply_the_norms_behind_them(backbone):
    torch.manual_seed(0)
    plain = lively(build_detector(2, 64, backbone, fpn_channels=16))
    applied = copy.deepcopy(plain)
    apply_norms_in_convolutions(applied)
    assert applied.state_dict().keys() == plain.state_dict().keys()
    kinds = [type(module) for module in applied.modules()]
    assert FrozenBatchNorm2d not in kinds
    assert (
        kinds.count(NormedConv2d)
        == kinds.count(AppliedNorm2d)
        == sum(isinstance(module, FrozenBatchNorm2d) for module in plain.modules())
    )
    images = torch.randn(2, 3, 64, 64)
    for model in (applied, copy.deepcopy(applied)):
        # A loaded state is that of the convolutions, too.
        changed = {name: value * 1.1 for name, value in plain.state_dict().items()}
        for one in (plain, model):
            one.load_state_dict(changed)
        outputs = [one.backbone.body(images) for one in (plain, model)]
        gradients = []
        for one, maps in zip((plain, model), outputs, strict=True):
            one.zero_grad()
            sum(value.square().mean() for value in maps.values()).backward()
            gradients.append({name: value.grad for name, value in one.backbone.body.named_parameters()})
        for name, value in outputs[0].items():
            assert off(outputs[1][name], value) < 1e-5
        for name, value in gradients[0].items():
            difference = (gradients[1][name] - value).norm() / value.norm()
            assert difference < 1e-3, name


def test_wide_convolutions_keep_their_weights():
    detector = build_detector(2, 64, "resnet18", head="v2", fpn_channels=128, norm="batch")
    names, parameters = list(detector.state_dict()), list(detector.parameters())
    speed_up_training(detector)
    assert list(detector.state_dict()) == names
    assert all(one is other for one, other in zip(detector.parameters(), parameters, strict=True))
    quick = {name for name, module in detector.named_modules() if type(module) is WideConv2d}
    assert {"backbone.fpn.layer_blocks.0.0", "rpn.head.conv.0.0", "rpn.head.conv.1.0"} <= quick
    assert "backbone.body.layer4.1.conv2" in quick
    # Strides and 1 × 1 kernels are not for it, nor are narrow layers.
    assert not quick & {"backbone.body.layer4.0.conv1", "backbone.fpn.inner_blocks.0.0", "backbone.body.layer1.0.conv1"}


def test_training_takes_the_quick_way(monkeypatch):
    calls = []
    function = convolutions.weight_gradient
    monkeypatch.setattr(convolutions, "weight_gradient", lambda *args: calls.append(args[0].shape) or function(*args))
    detector = build_detector(2, 128, "resnet18", fpn_channels=128, rpn_samples=16, roi_samples=8)
    speed_up_training(detector)
    targets = [{"boxes": torch.tensor([[10.0, 10, 60, 60]]), "labels": torch.tensor([1])}]
    torch.stack(
        list(detector.train()(torch.zeros(1, 1, 128, 128, dtype=torch.uint8), targets).values())
    ).sum().backward()
    assert (1, 128, 32, 32) in calls


# Compiled


def targets_of(count):
    return [
        {"boxes": torch.tensor([[4.0, 4, 40, 40]] * count).view(-1, 4), "labels": torch.ones(count, dtype=torch.int64)}
        for _ in range(2)
    ]


@pytest.fixture
def no_recompilation():
    """A function after which compiling anything raises."""
    torch.compiler.reset()
    yield lambda: torch.compiler.set_stance("fail_on_recompile")
    torch.compiler.set_stance("default")
    torch.compiler.reset()


def test_a_compiled_detector_is_compiled_once(no_recompilation):
    torch.manual_seed(0)
    detector = lively(build_detector(3, 64, "resnet18", fpn_channels=16, rpn_samples=32, roi_samples=16))
    apply_norms_in_convolutions(detector)
    speed_up_training(detector)
    plain = copy.deepcopy(detector)
    names = list(detector.state_dict())
    detector.compile(backend="aot_eager", dynamic=False)
    images = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    for step in range(4):
        if step == 2:
            no_recompilation()
        torch.manual_seed(step)
        losses = detector.train()(images, targets_of(step))
        torch.stack(list(losses.values())).sum().backward()
        torch.manual_seed(step)
        for name, value in plain.train()(images, targets_of(step)).items():
            torch.testing.assert_close(losses[name], value, atol=1e-4, rtol=1e-4)
        if step < 2:
            with torch.no_grad():
                detector.eval()(images)
        images = images.flip(-1)
    with torch.no_grad():
        found, expected = detector.eval()(images), plain.eval()(images)
    torch.testing.assert_close(found[0]["scores"], expected[0]["scores"], atol=1e-4, rtol=0)
    with torch.no_grad(), pytest.raises(RuntimeError, match="recompile"):
        detector(images[..., :32, :32])
    assert list(detector.state_dict()) == names
    assert copy.deepcopy(detector).state_dict().keys() == detector.state_dict().keys()


@pytest.mark.parametrize(
    "build", [lambda: build_segmenter("unet", "resnet18"), lambda: build_classifier("resnet10t", 2)]
)
def test_other_compiled_networks_are_compiled_once(build, no_recompilation):
    torch.manual_seed(0)
    model = build().train()
    names = list(model.state_dict())
    model.compile(backend="aot_eager", dynamic=False)
    for step in range(3):
        if step == 2:
            no_recompilation()
        images = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
        model(images).float().square().mean().backward()
    assert list(model.state_dict()) == names


def test_a_run_with_compile_is_like_any_other(side_store, train_tiny, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, **options: compiled.append((type(module), options)))
    run = train_tiny(side_store, tmp_path / "run", "--compile")
    assert [options for _, options in compiled] == [{"dynamic": False}] * 2
    state = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    assert not any("_orig_mod" in name for name in state)
