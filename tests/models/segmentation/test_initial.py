"""Initial weights of a segmenter from an earlier run: all of it, or what fits."""

import pytest
import torch

from xray.errors import InputError
from xray.models.pretrained import Reading
from xray.models.segmentation.initial import load_initial_weights
from xray.models.segmentation.segmenter import build_segmenter
from xray.models.weights import save_deployed

CATEGORIES = {"1": "Pneumothorax"}


def written(run, *options, reading=None, **more):
    """A run of a segmenter, and the segmenter."""
    segmenter = build_segmenter(*options, **more)
    if reading is not None:
        segmenter.normalise.read_as(reading)
    save_deployed(run, segmenter.state_dict(), {"task": "segmentation", "architecture": {"encoder": options[1]}})
    return segmenter


def equal_parts(one, other):
    """Beginnings of the names of tensors that are equal in two networks, but for those of whole numbers."""
    theirs = other.state_dict()
    return {
        name.partition(".")[0]
        for name, value in one.state_dict().items()
        if value.ndim > 1 and name in theirs and torch.equal(value, theirs[name])
    }


@pytest.mark.parametrize("attention", ["none", "scse"])
def test_a_run_of_the_same_network_is_taken_whole(tmp_path, attention):
    before = written(tmp_path, "unet", "resnet18", 1, 1, attention=attention, reading=Reading((0.5,), (0.5,)))
    after = build_segmenter("unet", "resnet18", 1, 1, attention=attention)
    assert (
        load_initial_weights(after, str(tmp_path)) == f"the whole network starts from {tmp_path} (a segmentation run)"
    )
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items())
    assert (after.normalise.mean.item(), after.normalise.std.item()) == (0.5, 0.5)


def test_other_categories_leave_the_last_layer_at_random(tmp_path):
    before = written(tmp_path, "unetplusplus", "resnet18", 1, 1, depth=4, deep_supervision=True)
    after = build_segmenter("unetplusplus", "resnet18", 2, 1, depth=4, deep_supervision=True)
    said = load_initial_weights(after, str(tmp_path))
    assert said == f"all but the last layer starts from {tmp_path} (a segmentation run)"
    assert equal_parts(after, before) == {"encoder", "decoder", "side_outputs"}
    assert not torch.equal(after.side_outputs["1"][1][0].weight[:1], before.side_outputs["1"][1][0].weight)


@pytest.mark.parametrize("other", [("unetplusplus", {}), ("unet", {"attention": "scse"})], ids=str)
def test_another_decoder_starts_at_random(tmp_path, other):
    before = written(tmp_path, "unet", "resnet18", 1, 1)
    after = build_segmenter(other[0], "resnet18", 1, 1, **other[1])
    said = load_initial_weights(after, str(tmp_path))
    assert said.endswith("; its decoder is another one, and starts at random")
    assert equal_parts(after, before) == {"encoder"}


def test_the_encoder_alone_where_that_is_asked_for(tmp_path):
    before = written(tmp_path, "unet", "resnet18", 1, 1)
    after = build_segmenter("unet", "resnet18", 1, 1)
    assert load_initial_weights(after, "none", str(tmp_path)).startswith("encoder resnet18 starts from")
    assert equal_parts(after, before) == {"encoder"}


def test_another_encoder_is_refused(tmp_path):
    written(tmp_path, "unet", "resnet18", 1, 1)
    with pytest.raises(InputError, match="does not hold the weights of the encoder resnet34"):
        load_initial_weights(build_segmenter("unet", "resnet34", 1, 1), str(tmp_path))
