"""Every architecture, encoder and loss through one contract; pruning; weights from every place they come from."""

import itertools
import time

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from xray.errors import InputError
from xray.models.classification.classifier import build_classifier
from xray.models.detection.detector import build_detector
from xray.models.pretrained import Normalise
from xray.models.segmentation.losses import LOSSES, loss_of_levels, segmentation_loss
from xray.models.segmentation.segmenter import build_segmenter, freeze_encoder, load_encoder_weights
from xray.models.weights import load_deployed, save_deployed

SIZE = 64
ENCODERS = ("resnet18", "resnet34", "mobilenet_v2", "densenet121", "efficientnet-b0", "tu-convnext_atto")
ARCHITECTURES = (("unet", False), ("unetplusplus", False), ("unetplusplus", True))
OPTIONS = {"weighted_bce": {"beta": 0.1}, "combined": {"beta": 0.1}}


def canvases(n=2, height=SIZE, width=SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 1, height, width), dtype=torch.uint8, generator=generator)


def squares(n=2, n_classes=1, size=SIZE):
    truth = torch.zeros(n, n_classes, size, size, dtype=torch.uint8)
    truth[:, :, 10:30, 20:50] = 1
    return truth


def is_possible(encoder, deep_supervision):
    # A network that starts at stride 4 has no finest nodes to supervise.
    return not (deep_supervision and "convnext" in encoder)


def contract(architecture, deep_supervision, encoder, loss_name, folder):
    """Forward, backward, empty masks, odd sizes, saving and loading, and a step that lowers the loss."""
    options = {
        "architecture": architecture,
        "encoder": encoder,
        "n_classes": 2,
        "in_channels": 1,
        "depth": 5,
        "deep_supervision": deep_supervision,
    }
    torch.manual_seed(0)
    segmenter = build_segmenter(**options)
    loss = segmentation_loss(loss_name, **OPTIONS.get(loss_name, {}))
    images, truth = canvases(), squares(n_classes=2)

    def of_batch(target):
        torch.manual_seed(1)  # the draws of stochastic depth
        return loss_of_levels(loss, segmenter(images), target)

    logits = segmenter(images)
    assert isinstance(logits, list) == deep_supervision
    for level in logits if deep_supervision else [logits]:
        assert level.shape == (2, 2, SIZE, SIZE)
        assert level.dtype == torch.float32

    of_batch(torch.zeros_like(truth)).backward()
    slopes = [parameter.grad for parameter in segmenter.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(slope).all() for slope in slopes)
    assert sum(float(slope.abs().sum()) for slope in slopes) > 0, "empty masks give no gradient"

    segmenter.zero_grad()
    before = of_batch(truth)
    before.backward()
    assert all(parameter.grad is not None for parameter in segmenter.parameters()), "a parameter that never trains"
    norm = nn.utils.get_total_norm([parameter.grad for parameter in segmenter.parameters()])
    with torch.no_grad():
        for parameter in segmenter.parameters():
            parameter -= 0.001 * parameter.grad / norm
        after = of_batch(truth)
    assert after < before

    segmenter.eval()
    with torch.no_grad():
        odd = canvases(1, 75, 101)
        expected = segmenter(odd)
        assert expected.shape == (1, 2, 75, 101)
        with pytest.raises(ValueError, match=r"63 × 64 pixels are too small for a network of depth 5.*at least 64"):
            segmenter(canvases(1, 64, 63))
        save_deployed(folder, segmenter.state_dict(), {"task": "segmentation", "architecture": options})
        description, state = load_deployed(folder)
        restored = build_segmenter(**description["architecture"])
        restored.load_state_dict(state)
        assert torch.equal(restored.eval()(odd), expected)


CASES = [
    (architecture, deep, encoder)
    for encoder, (architecture, deep) in itertools.product(ENCODERS, ARCHITECTURES)
    if is_possible(encoder, deep)
]
# The larger encoders meet the U-Net only, and each loss one network or two; the nightly test takes them all.
QUICK = [
    (architecture, deep, encoder)
    for architecture, deep, encoder in CASES
    if encoder in ("resnet18", "mobilenet_v2") or (architecture == "unet" and encoder != "resnet34")
]


@pytest.mark.parametrize(("number", "case"), list(enumerate(QUICK)), ids=str)
def test_contract(number, case, tmp_path):
    contract(*case, list(LOSSES)[number % len(LOSSES)], tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("loss_name", LOSSES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_contract_with_every_loss(case, loss_name, tmp_path):
    contract(*case, loss_name, tmp_path)


@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("architecture", ["unet", "unetplusplus"])
@pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v2", "efficientnet-b0"])
def test_shallow_networks_hold_nothing_that_never_trains(encoder, architecture, depth):
    segmenter = build_segmenter(architecture, encoder, 1, 3, depth)
    # Whatever is held must get a gradient, or a training on several devices stops.
    segmenter(canvases(2, 32, 48) if depth == 3 else canvases()).mean().backward()
    assert all(parameter.grad is not None for parameter in segmenter.parameters())
    whole = build_segmenter(architecture, encoder, 1, 3, 5)
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in (segmenter, whole)]
    assert sizes[0] < sizes[1] / 2
    with pytest.raises(ValueError, match=f"at least {2 * 2**depth} a side"):
        segmenter(canvases(2, 2 * 2**depth - 1))


@pytest.mark.parametrize(("architecture", "library"), [("unet", smp.Unet), ("unetplusplus", smp.UnetPlusPlus)])
def test_it_is_the_library_s_network(architecture, library):
    theirs = library("resnet18", encoder_weights=None, classes=2).eval()
    ours = build_segmenter(architecture, "resnet18", 2).eval()
    ours.load_state_dict(theirs.state_dict())
    images = canvases()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    colours = (images.expand(-1, 3, -1, -1) / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(colours), rtol=1e-4, atol=1e-4)


def test_normalise_one_channel_is_between_the_three():
    # Grey level 0 becomes −mean / std: −0.449 / 0.226 with the means (0.485 + 0.456 + 0.406) / 3 = 0.449 and
    # (0.229 + 0.224 + 0.225) / 3 = 0.226.
    black = torch.zeros(1, 1, 1, 1, dtype=torch.uint8)
    assert Normalise(1)(black).item() == pytest.approx(-0.449 / 0.226, rel=1e-6)
    assert Normalise(3)(black).flatten().tolist() == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    with pytest.raises(ValueError, match="in_channels is 2"):
        Normalise(2)


# Pruning


def randomise_norms(network):
    """Statistics as after a training, so that a norm that is lost or mixed up shows."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)


SLOW = [pytest.param(encoder, marks=pytest.mark.slow) for encoder in ("resnet18", "densenet121", "tu-resnet18")]


@pytest.mark.parametrize("encoder", ["mobilenet_v2", "efficientnet-b0", *SLOW])
def test_a_pruned_network_is_the_nested_one_and_costs_less(encoder):
    images = canvases(1)
    costs, sizes = [], []
    for level in (1, 2, 3, 4):
        torch.manual_seed(0)
        segmenter = build_segmenter("unetplusplus", encoder, 1, 1, 5, deep_supervision=True)
        randomise_norms(segmenter)
        segmenter.eval()
        with torch.no_grad():
            segmenter.training = True  # all outputs, with the norms' own statistics
            expected = segmenter(images)
            segmenter.training = False
            assert torch.equal(segmenter(images), expected[-1])
            assert segmenter.prune(level) is segmenter
            with FlopCounterMode(display=False) as counter:
                pruned = segmenter(images)
        assert torch.equal(pruned, expected[level - 1])
        # X(i, j) with i + j ≤ level: level (level + 1) / 2 nodes, and the last upsampling of the whole.
        assert len(segmenter.decoder.blocks) == level * (level + 1) // 2 + (level == 4)
        costs.append(counter.get_total_flops())
        sizes.append(sum(parameter.numel() for parameter in segmenter.parameters()))
        # The coarser features that a shallow network does not have need no padding either.
        assert segmenter(canvases(1, 2 * 2 ** (level + 1))).shape == (1, 1, 2 * 2 ** (level + 1), SIZE)
        assert isinstance(segmenter.train()(canvases(2)), torch.Tensor)
    assert costs == sorted(set(costs))
    assert sizes == sorted(set(sizes))
    assert costs[0] < costs[3] / 2
    assert sizes[0] < sizes[3] / 4


def test_what_cannot_be_pruned():
    with pytest.raises(ValueError, match="only a unetplusplus trained with deep supervision"):
        build_segmenter("unetplusplus", "resnet18").prune(2)
    segmenter = build_segmenter("unetplusplus", "resnet18", depth=4, deep_supervision=True)
    with pytest.raises(ValueError, match="levels 1 to 3, not 4"):
        segmenter.prune(4)
    with pytest.raises(ValueError, match="levels 1 to 3, not 0"):
        segmenter.prune(0)


def test_a_pruned_network_can_be_saved_and_loaded(tmp_path):
    options = {"architecture": "unetplusplus", "encoder": "mobilenet_v2", "deep_supervision": True}
    segmenter = build_segmenter(**options).eval().prune(2)
    save_deployed(tmp_path, segmenter.state_dict(), {"task": "segmentation"})
    restored = build_segmenter(**options).eval().prune(2)
    restored.load_state_dict(load_deployed(tmp_path)[1])
    with torch.no_grad():
        assert torch.equal(restored(canvases()), segmenter(canvases()))


# Bad values


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "vnet"}, "architecture is vnet: it must be one of unet, unetplusplus"),
        ({"depth": 2}, "depth is 2"),
        ({"depth": 6}, "depth is 6"),
        ({"n_classes": 0}, "n_classes is 0"),
        ({"in_channels": 2}, "in_channels is 2"),
        ({"deep_supervision": True}, "deep supervision needs the architecture unetplusplus"),
    ],
)
def test_values_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        build_segmenter(**({"encoder": "resnet18"} | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "resnet43"}, r"--encoder resnet43 is unknown: did you mean .*resnet34"),
        ({"encoder": "tu-densnet121"}, r"did you mean .*tu-densenet121"),
        ({"encoder": "mit_b0", "architecture": "unetplusplus"}, "--encoder mit_b0 cannot be used in a unetplusplus"),
        (
            {"encoder": "tu-convnext_atto", "architecture": "unetplusplus", "deep_supervision": True},
            "no features at half the resolution",
        ),
    ],
)
def test_encoders_that_do_not_fit(options, message):
    with pytest.raises(InputError, match=message):
        build_segmenter(**options)


# Weights


def trunk_state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_no_weights_leave_the_encoder_alone():
    segmenter = build_segmenter(encoder="resnet18")
    before = trunk_state(segmenter)
    assert load_encoder_weights(segmenter, "none") == "encoder starts at random"
    assert all(torch.equal(value, before[name]) for name, value in segmenter.state_dict().items())


def features_of(segmenter, images):
    return segmenter.encoder(segmenter.normalise(images))[1:]


def test_torchvision_s_mobilenet(shared_data):
    file = shared_data / "weights" / "mobilenet_v2_imagenet.safetensors"
    segmenter = build_segmenter(encoder="mobilenet_v2").eval()
    assert load_encoder_weights(segmenter, str(file)) == f"encoder mobilenet_v2 starts from {file}"
    reference = torchvision.models.mobilenet_v2().eval()
    from safetensors.torch import load_file

    reference.features.load_state_dict(
        {name.removeprefix("features."): value for name, value in load_file(file).items() if "features." in name}
    )
    with torch.no_grad():
        expected = reference.features(segmenter.normalise(canvases()))
        assert torch.equal(features_of(segmenter, canvases())[-1], expected)


@pytest.mark.parametrize(
    ("encoder", "build"),
    [
        ("resnet18", torchvision.models.resnet18),
        ("densenet121", torchvision.models.densenet121),
        ("densenet121", lambda: timm.create_model("densenet121")),
        pytest.param("tu-densenet121", torchvision.models.densenet121, marks=pytest.mark.slow),
        pytest.param("resnet34", lambda: timm.create_model("resnet34"), marks=pytest.mark.slow),
        ("tu-resnet18", torchvision.models.resnet18),
        ("mobilenet_v2", lambda: timm.create_model("mobilenetv2_100")),
        ("tu-mobilenetv2_100", torchvision.models.mobilenet_v2),
        ("tu-efficientnet_b0", lambda: timm.create_model("efficientnet_b0")),
        pytest.param("timm-efficientnet-b0", lambda: timm.create_model("efficientnet_b0"), marks=pytest.mark.slow),
        ("tu-convnext_atto", lambda: timm.create_model("convnext_atto")),
    ],
)
def test_files_of_classification_networks(encoder, build, tmp_path):
    torch.manual_seed(0)
    network = build().eval()
    randomise_norms(network)
    save_file(trunk_state(network), tmp_path / "trunk.safetensors")
    segmenter = build_segmenter(encoder=encoder).eval()
    load_encoder_weights(segmenter, str(tmp_path / "trunk.safetensors"))
    # Timm's and torchvision's own forward of the same tensors.
    seen = []
    deepest = {"densenet": "features.norm5", "efficientnet": "blocks", "convnext": "stages"}
    name = next((layer for kind, layer in deepest.items() if kind in encoder), None)
    if name is None:
        name = next(key for key in ("layer4", "blocks", "features") if hasattr(network, key))
    if encoder == "mobilenet_v2":
        name = "bn2"  # timm's norm after its last convolution
    network.get_submodule(name).register_forward_hook(lambda _module, _input, output: seen.append(output.clone()))
    if encoder == "tu-mobilenetv2_100":
        network.features[17].register_forward_hook(lambda _module, _input, output: seen.insert(0, output))
    with torch.no_grad():
        network(segmenter.normalise(canvases()))
        ours, theirs = features_of(segmenter, canvases())[-1], seen[0]
        if "densenet" in encoder:  # only some of them apply the last ReLU
            ours, theirs = ours.relu(), theirs.relu()
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("encoder", "build"),
    [
        ("resnet18", torchvision.models.resnet18),
        ("mobilenet_v2", torchvision.models.mobilenet_v2),
        ("densenet121", torchvision.models.densenet121),
        ("tu-efficientnet_b0", lambda: timm.create_model("efficientnet_b0")),
    ],
)
@pytest.mark.parametrize("depth", [3, 4])
def test_shallow_encoders_take_what_they_need(encoder, build, depth, tmp_path):
    state = trunk_state(build())
    save_file(state, tmp_path / "whole.safetensors")
    segmenter = build_segmenter(encoder=encoder, depth=depth)
    load_encoder_weights(segmenter, str(tmp_path / "whole.safetensors"))
    own = segmenter.encoder.state_dict()
    assert all(torch.equal(value, state[name.removeprefix("model.")]) for name, value in own.items())


@pytest.mark.parametrize(
    ("small", "large", "depth"),
    [("resnet18", "resnet34", 5), ("resnet18", "resnet34", 3), ("tu-resnet18", "resnet34", 4)],
)
def test_a_larger_network_of_the_family_is_another_one(small, large, depth, tmp_path):
    # Every tensor of a ResNet-18 is in a ResNet-34, by name and by shape.
    save_file(trunk_state(torchvision.models.get_model(large)), tmp_path / "large.safetensors")
    segmenter = build_segmenter(encoder=small, depth=depth)
    before = trunk_state(segmenter)
    with pytest.raises(InputError, match=rf"does not hold the weights of the encoder {small}.*tensors more, layer"):
        load_encoder_weights(segmenter, str(tmp_path / "large.safetensors"))
    assert all(torch.equal(value, before[name]) for name, value in segmenter.state_dict().items())


def test_old_densenet_files(tmp_path):
    # As torchvision's download is: "denselayer1.norm.1.weight", which it renames while loading.
    new = trunk_state(torchvision.models.densenet121())
    old = {}
    for name, value in new.items():
        for part in ("norm", "conv"):
            if "denselayer" in name:
                name = name.replace(f".{part}1.", f".{part}.1.").replace(f".{part}2.", f".{part}.2.")
        old[name] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet121.pth")
    segmenter = build_segmenter(encoder="densenet121")
    load_encoder_weights(segmenter, str(tmp_path / "densenet121.pth"))
    own = segmenter.encoder.state_dict()
    name = "features.denseblock1.denselayer1.norm1.weight"
    assert all(torch.equal(own[key], new[key]) for key in own)
    assert name in own


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v2", "tu-convnext_atto"])
def test_one_channel_sees_what_three_saw(encoder, tmp_path):
    torch.manual_seed(0)
    colour = build_segmenter(encoder=encoder, in_channels=3, depth=4).eval()
    randomise_norms(colour)
    save_file(trunk_state(colour), tmp_path / "colour.safetensors")
    grey = build_segmenter(encoder=encoder, in_channels=1, depth=4).eval()
    load_encoder_weights(grey, str(tmp_path / "colour.safetensors"))
    at = 0 if "convnext" not in encoder else 1
    with torch.no_grad():
        one, three = features_of(grey, canvases())[at], features_of(colour, canvases())[at]
    # The frame sees the zero padding, which is another grey for three channels than for one.
    inside = (..., slice(3, -3), slice(3, -3))
    scale = three[inside].abs().max()
    assert (one[inside] - three[inside]).abs().max() < 1e-4 * scale

    save_file(trunk_state(grey), tmp_path / "grey.safetensors")
    again = build_segmenter(encoder=encoder, in_channels=3, depth=4).eval()
    load_encoder_weights(again, str(tmp_path / "grey.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(
            features_of(again, canvases())[-1], features_of(grey, canvases())[-1], rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize(("trunk", "timms"), [("resnet18", "resnet18"), ("mobilenet_v2", "mobilenetv2_100")])
def test_the_detector_s_trunk(trunk, timms, tmp_path):
    torch.manual_seed(0)
    detector = build_detector(2, SIZE, trunk, fpn_channels=16).eval()
    for name, value in detector.backbone.body.state_dict().items():
        if "running_var" in name:
            value.uniform_(0.5, 2)
    description = {"task": "detection", "architecture": {"backbone": trunk}}
    save_deployed(tmp_path, detector.state_dict(), description)
    segmenter = build_segmenter(encoder=trunk).eval()
    assert load_encoder_weights(segmenter, str(tmp_path)).endswith(f"(a detection run with {trunk})")
    pixels = (canvases() - detector.mean) / detector.std
    with torch.no_grad():
        features = segmenter.encoder(pixels)
        # Strides 4, 8, 16 and 32: what the feature pyramid reads, so that one pass serves boxes and mask.
        for ours, theirs in zip(features[2:], detector.backbone.body(pixels).values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        assert torch.equal(segmenter.decode(features, SIZE, SIZE), segmenter(canvases()))

    other = build_segmenter(encoder="resnet34")
    with pytest.raises(
        InputError,
        match=rf"a detection run with {trunk}.*encoder resnet34; give --encoder {trunk} or tu-{timms}, the backbone of",
    ):
        load_encoder_weights(other, str(tmp_path))


@pytest.mark.parametrize("architecture", ["unet", "unetplusplus"])
@pytest.mark.parametrize(
    ("network", "encoder"),
    [
        ("resnet18", "resnet18"),
        ("densenet121", "densenet121"),
        ("densenet121", "tu-densenet121"),
        ("mobilenetv2_100", "mobilenet_v2"),
    ],
)
def test_classification_runs(network, encoder, architecture, tmp_path):
    torch.manual_seed(0)
    classifier = build_classifier(network, 3, 1, SIZE).eval()
    randomise_norms(classifier)
    save_deployed(tmp_path, classifier.state_dict(), {"task": "classification", "architecture": {"name": network}})
    segmenter = build_segmenter(architecture, encoder, 1, 1).eval()
    assert load_encoder_weights(segmenter, str(tmp_path)).endswith(f"(a classification run with {network})")
    # Each tensor of the encoder is one of the classifier's, whatever its name, and none is taken twice.
    left = [value for value in classifier.network.state_dict().values() if value.ndim]
    for value in segmenter.encoder.state_dict().values():
        if value.ndim:
            left.pop(
                next(n for n, other in enumerate(left) if other.shape == value.shape and torch.equal(value, other))
            )
    # Only the last layer is left over, its weight and its bias.
    assert [value.shape[0] for value in left] == [3, 3]
    with torch.no_grad():
        pixels = classifier.normalise(canvases())
        ours, theirs = segmenter.encoder(pixels)[-1].relu(), classifier.network.forward_features(pixels).relu()
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_segmentation_runs(tmp_path):
    segmenter = build_segmenter("unetplusplus", "resnet18", 1, 1)
    save_deployed(tmp_path, segmenter.state_dict(), {"task": "segmentation", "architecture": {"encoder": "resnet18"}})
    other = build_segmenter("unet", "resnet18", 2, 1)
    load_encoder_weights(other, str(tmp_path))
    own = segmenter.encoder.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in other.encoder.state_dict().items())


def test_runs_whose_trunk_is_another_one(tmp_path):
    classifier = build_classifier("efficientnet_b0")
    save_deployed(
        tmp_path, classifier.state_dict(), {"task": "classification", "architecture": {"name": "efficientnet_b0"}}
    )
    # segmentation-models-pytorch has an EfficientNet of its own, with other names and paddings.
    with pytest.raises(InputError, match="encoder efficientnet-b0; give --encoder tu-efficientnet_b0, the backbone"):
        load_encoder_weights(build_segmenter(encoder="efficientnet-b0"), str(tmp_path))
    save_deployed(tmp_path, classifier.state_dict(), {"task": "classification", "architecture": {"name": "mine"}})
    with pytest.raises(InputError, match=r"encoder resnet18; its backbone is none of the encoders: "):
        load_encoder_weights(build_segmenter(encoder="resnet18"), str(tmp_path))


def test_weights_that_cannot_be_had(tmp_path, monkeypatch):
    segmenter = build_segmenter(encoder="resnet18")
    with pytest.raises(InputError, match="no weights at"):
        load_encoder_weights(segmenter, str(tmp_path / "nothing.pth"))
    (tmp_path / "torn.safetensors").write_bytes(b"\x10")
    with pytest.raises(InputError, match="not a readable weights file"):
        load_encoder_weights(segmenter, str(tmp_path / "torn.safetensors"))
    with pytest.raises(InputError, match="holds no trained model"):
        load_encoder_weights(segmenter, str(tmp_path))
    before = trunk_state(segmenter)
    save_file(trunk_state(torchvision.models.resnet34()), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="does not hold the weights of the encoder resnet50"):
        load_encoder_weights(build_segmenter(encoder="resnet50"), str(tmp_path / "other.safetensors"))
    assert all(torch.equal(value, before[name]) for name, value in segmenter.state_dict().items())

    import huggingface_hub.constants

    def no_such_host(*_args, **_kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", no_such_host)
    monkeypatch.setattr("xray.models.pretrained.getproxies", dict)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for encoder in ("resnet18", "tu-resnet18"):
        start = time.process_time()
        with pytest.raises(
            InputError, match=rf"ImageNet weights of the encoder {encoder} could not be downloaded.*FILE"
        ):
            load_encoder_weights(build_segmenter(encoder=encoder), "imagenet")
        assert time.process_time() - start < 10
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


# A frozen encoder


def test_a_frozen_encoder_stays_as_it_is():
    segmenter = build_segmenter(encoder="resnet18", in_channels=1)
    freeze_encoder(segmenter)
    before = trunk_state(segmenter.encoder)
    segmenter.train()
    loss = segmentation_loss("bce")(segmenter(canvases()), squares())
    loss.backward()
    optimizer = torch.optim.SGD([p for p in segmenter.parameters() if p.requires_grad], lr=0.1)
    decoder = trunk_state(segmenter.decoder)
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in segmenter.encoder.state_dict().items())
    assert any(not torch.equal(value, decoder[name]) for name, value in segmenter.decoder.state_dict().items())
    assert segmenter.decoder.training


def test_logits_are_float32_under_16_bit_precision():
    segmenter = build_segmenter(encoder="resnet18", in_channels=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert segmenter(canvases()).dtype == torch.float32
