"""Models as their model.json describes them: which sides they swap, and whether they are shown mirrored radiographs."""

import numpy as np
import pytest
import torch
from torch import nn

from xray.inference.loaded import LoadedClassifier, loaded_of

SIDES = {"1": "Left lung", "2": "Right lung", "3": "Nodule"}
DETECTOR = {"task": "detection", "categories": SIDES, "canvas_size": 8, "flips": True}
CLASSIFIER = {"task": "classification", "categories": SIDES, "canvas_size": 8, "labels": list(SIDES.values())}


class BrightHalf(nn.Module):
    """A classifier whose first label is a bright left half of the canvas, and the second a bright right one."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        left, right = images[..., :4].float().mean((1, 2, 3)), images[..., 4:].float().mean((1, 2, 3))
        return torch.stack([left, right, torch.zeros_like(left)], dim=1) / 50 - 2


@pytest.mark.parametrize(
    ("description", "mirror"),
    [
        # Runs of versions that kept no swap.
        (DETECTOR, {1: 2, 2: 1, 3: 3}),
        ({**DETECTOR, "swap": []}, {1: 1, 2: 2, 3: 3}),
        ({**DETECTOR, "swap": [[1, 3]]}, {1: 3, 2: 2, 3: 1}),
    ],
)
def test_a_run_swaps_what_its_training_did(description, mirror):
    assert loaded_of(description, nn.Identity()).mirror == mirror


@pytest.mark.parametrize("swap", [[[1, 7]], [[1, 2], [1, 3]], [["1", "2"]], 3, [[1]]])
def test_a_damaged_swap(swap):
    with pytest.raises((ValueError, TypeError)):
        loaded_of({**DETECTOR, "swap": swap}, nn.Identity())


def test_a_classifier_names_sides_of_mirrored_radiographs_as_of_others():
    model = loaded_of({**CLASSIFIER, "swap": [[1, 2]]}, BrightHalf())
    assert isinstance(model, LoadedClassifier)
    assert model.flips
    canvases = np.zeros((1, 8, 8), dtype=np.uint8)
    canvases[..., :4] = 200
    seen = model.probability(canvases, False)
    assert seen[0].argmax() == 0
    np.testing.assert_array_equal(model.probability(canvases, True), seen)


def test_classifiers_of_earlier_versions_do_not_see_sides_mirrored():
    assert not loaded_of(CLASSIFIER, nn.Identity()).flips
    abnormal = {**CLASSIFIER, "labels": ["abnormal"]}
    assert loaded_of({**abnormal, "swap": [[1, 2]]}, nn.Identity()).flips
    assert loaded_of({**abnormal, "swap": [[1, 2]]}, nn.Identity()).order == ()
