"""Sides of categories in training: what is mirrored, and what a run keeps of it."""

import pytest

from xray.commands.training_inputs import build_task
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.file_names import CONFIG_FILE
from xray.training.recipes import read_training_flags, save_config


def task_of(store, *flags):
    name, config = read_training_flags(["--weights", "none", "--device", "cpu", *flags])
    return build_task(name, config, store)


@pytest.fixture
def lungs(write_table_store, tmp_path):
    """(names) → a dataset of two folds with these categories."""

    def write(*names):
        images = [(f"r{number}", "train", number % 2, None) for number in range(4)]
        boxes = [(number, number % len(names) + 1, (100, 100, 300, 400)) for number in range(4)]
        categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        return open_store(write_table_store(tmp_path / "-".join(names), images, boxes, categories), pixels=False)

    return write


DETECTOR = ("--backbone", "resnet18")
SEGMENTER = ("--task", "segmentation", "--encoder", "resnet18", "--depth", "3")
CLASSIFIER = ("--task", "classification", "--network", "resnet10t")


@pytest.mark.parametrize("flags", [DETECTOR, CLASSIFIER])
def test_a_run_keeps_what_swaps(lungs, flags):
    store = lungs("lung_l", "lung_r", "Nodule")
    description = task_of(store, *flags).describe()
    assert (description["flips"], description["swap"]) == (True, [(1, 2)])
    described = task_of(store, *flags, "--swap", "Nodule=lung_l").describe()
    assert (described["flips"], described["swap"]) == (True, [(1, 3)])


@pytest.mark.parametrize("flags", [DETECTOR, CLASSIFIER])
def test_a_side_without_its_opposite_is_not_mirrored_unless_asked(lungs, flags):
    store = lungs("Effusion left", "Nodule")
    alone = task_of(store, *flags)
    assert (alone.flip, alone.augmentation().flip, alone.describe()["flips"]) == (0, 0, False)
    for asked in (["--no-swap"], ["--swap", "Effusion left=Effusion left"]):
        task = task_of(store, *flags, *asked)
        assert (task.flip, task.augmentation().flip, task.describe()) == (0.5, 0.5, task.describe() | {"swap": []})


def test_abnormal_is_the_same_from_both_sides(lungs):
    task = task_of(lungs("Effusion left", "Nodule"), *CLASSIFIER, "--target", "abnormal")
    assert task.flip == 0.5
    assert task.describe()["flips"]


def test_names_that_no_category_has(lungs):
    with pytest.raises(InputError, match="'Liver' is no category of this dataset; it has Nodule, Mass"):
        task_of(lungs("Nodule", "Mass"), *DETECTOR, "--swap", "Nodule=Liver")


def test_a_resumed_run_swaps_as_before(tmp_path):
    flags = ["--save-path", str(tmp_path), "--swap", "A=B", "--swap=C D=E"]
    save_config(tmp_path / CONFIG_FILE, *read_training_flags(flags))
    assert read_training_flags(["--save-path", str(tmp_path), "--resume"])[1].swap == ("A=B", "C D=E")
    with pytest.raises(InputError, match=r"--swap is .*the run was started with it"):
        read_training_flags(["--save-path", str(tmp_path), "--resume", "--no-swap"])


@pytest.mark.parametrize(
    ("flags", "swap"),
    [
        ([], ("auto",)),
        (["--no-swap"], ("none",)),
        (["--swap", "A=B", "C=D", "--lr", "0.1", "--swap", "E=F"], ("A=B", "C=D", "E=F")),
        (["--no-swap", "--swap=A=B"], ("none", "A=B")),
    ],
)
def test_the_flags(flags, swap, tmp_path):
    task, config = read_training_flags(flags)
    assert config.swap == swap
    save_config(tmp_path / CONFIG_FILE, task, config)
    assert read_training_flags(["--config", str(tmp_path / CONFIG_FILE)])[1] == config


@pytest.mark.parametrize(
    "said", [["--swap"], ["--swap", "A"], ["--swap", "="], ["--swap", "A="], ["--swap", "none", "x"]]
)
def test_flags_that_are_no_pairs(said):
    with pytest.raises(InputError, match=r'must be auto, none or "A=B"'):
        read_training_flags(said)
