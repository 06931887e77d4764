"""scSE attention in decoders: the library's numbers, the paper's formula, and no weight that never trains."""

import pytest
import segmentation_models_pytorch as smp
import torch

from xray.models.segmentation.segmenter import build_segmenter
from xray.training.optimizers import build_optimizer
from xray.training.recipes import read_training_flags

SIZE = 64
KINDS = [("unet", smp.Unet), ("unetplusplus", smp.UnetPlusPlus)]


def canvases(n=2):
    return torch.randint(0, 256, (n, 1, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("architecture", "library"), KINDS)
def test_it_is_the_library_s_network(architecture, library):
    torch.manual_seed(0)
    theirs = library("resnet18", encoder_weights=None, classes=2, decoder_attention_type="scse").eval()
    ours = build_segmenter(architecture, "resnet18", 2, attention="scse").eval()
    ours.load_state_dict(theirs.state_dict())
    images = canvases()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    colours = (images.expand(-1, 3, -1, -1) / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(colours), rtol=1e-4, atol=1e-4)
        plain = build_segmenter(architecture, "resnet18", 2).eval()
        plain.load_state_dict(theirs.state_dict(), strict=False)
        assert not torch.allclose(ours(images), plain(images), atol=1e-3)


def test_the_formula_of_the_paper():
    block = build_segmenter("unet", "resnet18", 1, attention="scse").decoder.blocks[0]
    layer = block.attention2.attention
    features = torch.randn(2, block.conv1[0].out_channels, 5, 7, generator=torch.Generator().manual_seed(1))
    first, second, place = layer.cSE[1], layer.cSE[3], layer.sSE[0]
    hidden = (features.mean((2, 3)) @ first.weight[:, :, 0, 0].T + first.bias).clamp(min=0)
    of_channels = (hidden @ second.weight[:, :, 0, 0].T + second.bias).sigmoid()[:, :, None, None]
    of_places = (torch.einsum("bchw,c->bhw", features, place.weight[0, :, 0, 0]) + place.bias).sigmoid()[:, None]
    with torch.no_grad():
        torch.testing.assert_close(layer(features), features * of_channels + features * of_places)


@pytest.mark.parametrize(
    ("architecture", "deep"), [("unet", False), ("unetplusplus", False), ("unetplusplus", True)], ids=str
)
def test_all_that_the_optimizer_gets_has_a_gradient(architecture, deep):
    segmenter = build_segmenter(architecture, "resnet18", 1, 1, depth=4, deep_supervision=deep, attention="scse")
    outputs = segmenter.train()(canvases())
    sum(output.mean() for output in (outputs if deep else [outputs])).backward()
    _, config = read_training_flags(["--task", "segmentation"])
    trained = [p for group in build_optimizer(segmenter, config).param_groups for p in group["params"]]
    # One that never gets a gradient would stop a training on several devices.
    assert all(parameter.grad is not None for parameter in trained)
    idle = [name for name, parameter in segmenter.named_parameters() if parameter.grad is None]
    assert idle
    assert all("attention1" in name for name in idle)


def test_a_pruned_network_with_attention():
    options = {"architecture": "unetplusplus", "encoder": "resnet18", "deep_supervision": True, "attention": "scse"}
    segmenter = build_segmenter(**options).train()
    with torch.no_grad():
        # Statistics of norms that are those of these canvases, without which all outputs are nearly equal.
        segmenter(canvases())
        side = segmenter.train()(canvases())[1]
        segmenter.prune(2)
        torch.testing.assert_close(segmenter(canvases()), side, rtol=1e-4, atol=1e-4)


def test_an_unknown_attention_is_refused():
    with pytest.raises(ValueError, match="attention is senet: it must be one of none, scse"):
        build_segmenter(encoder="resnet18", attention="senet")
