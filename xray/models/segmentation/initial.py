"""What a segmenter starts from: the weights of its encoder, or all those of an earlier run of the same network."""

from pathlib import Path

from torch import Tensor

from xray.models.segmentation.segmenter import Segmenter, load_encoder_weights
from xray.models.weights import load_deployed

LAST = ("segmentation_head.", "side_outputs.")
"""Prefixes of the tensors that give logits, whose number is that of the categories."""


def load_initial_weights(segmenter: Segmenter, weights: str, encoder_from: str = "") -> str:
    """Puts initial weights into a segmenter.

    weights: "imagenet", "none" or a file, all for the encoder, or a run directory. Of a segmenter's run all weights are
    taken, if its network is the same; where only the categories are others, all but the last layers. Of any other run
    the encoder's alone. encoder_from: a run of which the encoder is taken, whatever it is; it wins over `weights`.
    Returns a sentence saying what was loaded. Raises InputError as `load_encoder_weights` does.
    """
    if encoder_from or not Path(weights).is_dir():
        return load_encoder_weights(segmenter, encoder_from or weights)
    description, state = load_deployed(weights)
    if description["task"] != "segmentation":
        return load_encoder_weights(segmenter, weights)
    before = segmenter.state_dict()
    differing = _differing(before, state)
    if any(not name.startswith(LAST) for name in differing):
        return f"{load_encoder_weights(segmenter, weights)}; its decoder is another one, and starts at random"
    # The normalisation of that network is loaded with it.
    segmenter.load_state_dict({**before, **{name: value for name, value in state.items() if name not in differing}})
    what = "all but the last layer" if differing else "the whole network"
    return f"{what} starts from {weights} (a segmentation run)"


def _differing(before: dict[str, Tensor], state: dict[str, Tensor]) -> set[str]:
    """Names of tensors that only one of two networks has, or that have another shape in each."""
    names = {name for name in before.keys() | state.keys() if not name.startswith("normalise.")}
    return {
        name for name in names if name not in before or name not in state or before[name].shape != state[name].shape
    }
