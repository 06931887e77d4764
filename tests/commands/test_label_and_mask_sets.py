"""Phantoms of sets with labels, masks or sentences, end to end: convert, one epoch, infer, evaluate."""

import json

import pytest
from conftest import CLASSIFICATION_FLAGS, SEGMENTATION_FLAGS, TINY_FLAGS
from in_process import run

from xray.commands.train import main
from xray.training.recipes import read_training_flags

pytestmark = pytest.mark.usefixtures("sketched")

FLAGS = {
    "mimic": CLASSIFICATION_FLAGS,
    "chexpert": CLASSIFICATION_FLAGS,
    "padchest": CLASSIFICATION_FLAGS,
    "padchestgr": TINY_FLAGS,
    "mscxr": TINY_FLAGS,
    "jsrt": TINY_FLAGS,
    "candid": SEGMENTATION_FLAGS,
    # The set has nothing to train on but what is for validation.
    "chexlocalize": (*SEGMENTATION_FLAGS, "--fold", "all"),
}
"""Kind → flags of a tiny network for the task that the set is for."""
FAST = ("mimic", "padchestgr")
"""Those that are trained on in the fast suite; the others take as long again, each."""


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=() if kind in FAST else pytest.mark.slow) for kind in FLAGS])
def test_a_network_trains_on_it_and_is_scored(layout_tree, tmp_path, kind):
    data, found = tmp_path / "data", tmp_path / "found"
    flags = ("--image-size", 64, "--n-folds", 2, "--n-workers", 1)
    done = run("convert", kind, "--data-path", layout_tree(kind), "--save-path", data, *flags)
    assert done.returncode == 0, done.stderr
    main(*read_training_flags([*FLAGS[kind], "--data-path", str(data), "--save-path", str(tmp_path / "run")]))
    done = run("infer", "--weights", tmp_path / "run", "--data-path", data, "--save-path", found,
               "--device", "cpu", "--n-workers", 0, "--no-tta")  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run("evaluate", "--predictions", found / "predictions.json", "--data-path", data,
               "--save-path", tmp_path / "report", "--resamples", 0)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "report/metrics.json").read_text())["n_images"] >= 4
