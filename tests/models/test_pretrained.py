"""Weights of one grey channel as TorchXRayVision's, in networks of ours: the same features on the same picture."""

import pytest
import torch
import torchvision
from torch import nn

from xray.inference.loaded import load_run
from xray.models.classification.classifier import build_classifier
from xray.models.classification.classifier import load_initial_weights as load_classifier_weights
from xray.models.detection.detector import build_detector, load_initial_weights
from xray.models.pretrained import CENTRED, IMAGENET, Normalise, reads_as
from xray.models.segmentation.segmenter import build_segmenter, load_encoder_weights
from xray.models.weights import load_deployed

SIZE = 96


def canvases():
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (2, 1, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    images[:, :, 20:70, :40] = 250  # up to the border, where padding shows
    return images


def scaled(images):
    """`normalize` of torchxrayvision/utils.py, with maxval 255."""
    return (2 * (images.float() / 255) - 1.0) * 1024


def make(name, outputs=18):
    """A network at random with one channel, as TorchXRayVision changes torchvision's; its norms fit the pictures."""
    torch.manual_seed(2)
    network = getattr(torchvision.models, name)(weights=None, num_classes=outputs)
    first = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    if name.startswith("densenet"):
        network.features.conv0 = first
    else:
        network.conv1 = first
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
    with torch.no_grad():
        network.train()(scaled(canvases()))
    return network.eval()


@pytest.fixture(scope="module")
def donors(tmp_path_factory):
    """name → (the network, its file)."""
    folder = tmp_path_factory.mktemp("chest")
    made = {}
    for name in ("resnet50", "densenet121"):
        network = make(name)
        state = network.state_dict()
        if name == "resnet50":  # as the library's own class holds it
            state = {f"model.{key}": value for key, value in state.items()} | {"op_threshs": torch.zeros(18)}
        torch.save(state, folder / f"{name}.pt")
        made[name] = network, str(folder / f"{name}.pt")
    return made


def close(found, expected):
    """To rounding, at the border too: 2.3e-4 of the largest value on processors without AVX-512, less on others."""
    torch.testing.assert_close(found, expected, atol=1e-3 * float(expected.abs().max()), rtol=0)


def resnet_maps(network, pixels):
    pixels = network.maxpool(network.relu(network.bn1(network.conv1(pixels))))
    maps = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        pixels = stage(pixels)
        maps.append(pixels)
    return maps


@torch.no_grad()
@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_a_detectors_trunk_sees_what_the_resnet_saw(donors, norm):
    network, file = donors["resnet50"]
    detector = build_detector(1, SIZE, "resnet50", norm=norm, fpn_channels=16).eval()
    said = load_initial_weights(detector, file, "resnet50", "v1")
    assert said == "backbone starts from resnet50.pt, one grey channel of -1024 to 1024 as TorchXRayVision's"
    maps = detector.backbone.body(Normalise.forward(detector, canvases()))
    for found, expected in zip(maps.values(), resnet_maps(network, scaled(canvases())), strict=True):
        close(found, expected)


@torch.no_grad()
def test_a_detectors_trunk_sees_what_the_densenet_saw(donors):
    network, file = donors["densenet121"]
    detector = build_detector(1, SIZE, "densenet121", norm="frozen", fpn_channels=16).eval()
    assert "as TorchXRayVision's" in load_initial_weights(detector, file, "densenet121", "v1")
    maps = detector.backbone.body(Normalise.forward(detector, canvases()))
    close(maps[-1], torch.relu(network.features(scaled(canvases()))))


@torch.no_grad()
@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("name", ["resnet50", "densenet121"])
def test_encoders_and_classifiers_see_it_too(donors, name, in_channels):
    network, file = donors[name]
    segmenter = build_segmenter(encoder=name, in_channels=in_channels).eval()
    assert load_encoder_weights(segmenter, file).endswith("as TorchXRayVision's")
    found = segmenter.encoder(segmenter.normalise(canvases()))[-1]
    pixels = scaled(canvases())
    # segmentation-models-pytorch's DenseNet ends in the norm.
    close(found, resnet_maps(network, pixels)[-1] if name == "resnet50" else network.features(pixels))

    classifier = build_classifier(name, 18, in_channels, SIZE).eval()
    assert load_classifier_weights(classifier, file).endswith("as TorchXRayVision's")
    close(classifier(canvases()), network(pixels))
    other = build_classifier(name, 3, in_channels, SIZE)
    assert load_classifier_weights(other, file).endswith("as TorchXRayVision's, its last layer from random")

    # A segmenter from that classifier's weights, and a classifier from its own, see what it sees.
    states = classifier.state_dict()
    assert states["normalise.mean"].flatten().tolist() == [127.5] * in_channels
    again = build_classifier(name, 18, in_channels, SIZE).eval()
    again.load_state_dict(states)
    assert torch.equal(again(canvases()), classifier(canvases()))


@torch.no_grad()
def test_one_channel_and_three_take_over_from_each_other(donors, tmp_path):
    _, file = donors["resnet50"]
    sides = {}
    for channels in (1, 3):
        classifier = build_classifier("resnet50", 18, channels, SIZE).eval()
        load_classifier_weights(classifier, file)
        torch.save(classifier.state_dict(), tmp_path / f"{channels}.pth")
        sides[channels] = classifier(canvases())
        other = build_classifier("resnet50", 18, 4 - channels, SIZE).eval()
        load_classifier_weights(other, str(tmp_path / f"{channels}.pth"))
        close(other(canvases()), sides[channels])
    close(sides[1], sides[3])


def test_what_is_not_theirs_is_not_taken_for_it():
    state = make("resnet18").state_dict()
    assert reads_as(state)[1:] == (CENTRED, ", one grey channel of -1024 to 1024 as TorchXRayVision's")
    for other in (
        make("resnet18", 5).state_dict(),
        torchvision.models.resnet18(num_classes=18).state_dict(),
        {f"network.{name}": value for name, value in state.items()},
    ):
        read, reading, note = reads_as(other)
        assert (reading, note) == (IMAGENET, "")
        assert all(torch.equal(read[name], value) for name, value in other.items())


def test_a_training_keeps_how_pictures_are_read(side_store, tmp_path, train_tiny, capsys):
    """In its checkpoint, from which it is resumed, and in its run."""
    torch.save(make("resnet18").state_dict(), tmp_path / "chest.pt")
    flags = ("--backbone", "resnet18", "--weights", tmp_path / "chest.pt")
    run = train_tiny(side_store, tmp_path / "run", *flags)
    assert "one grey channel" in capsys.readouterr().out
    train_tiny(side_store, run, *flags, "--resume", "--n-epochs", 2)
    _, state = load_deployed(run)
    assert state["mean"].flatten().tolist() == state["std"].flatten().tolist() == [127.5] * 3
    ((_, loaded),) = load_run(run, torch.device("cpu"))
    assert loaded.model.reading == CENTRED.of_channels(3)
    # Another detector that starts from it, or from its checkpoint, reads as it does.
    for source in (run, run / "last.ckpt"):
        detector = build_detector(3, 64, "resnet18", fpn_channels=16)
        load_initial_weights(detector, str(source), "resnet18", "v1")
        assert detector.reading == loaded.model.reading
