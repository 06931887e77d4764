"""One seed gives the same batches with any number of workers, and strict mode the same weights."""

import numpy as np
import pytest
import torch
from conftest import CLASSIFICATION_FLAGS, SEGMENTATION_FLAGS, TINY_FLAGS

from xray.commands.train import main
from xray.datasets.store import open_store
from xray.structures.sides import mirrored
from xray.training.augment import Augmentation
from xray.training.loaders import collate_boxes, collate_images, make_loader
from xray.training.loading import BoxDataset, LabelDataset, MaskDataset
from xray.training.recipes import read_training_flags
from xray.training.sampling import EpochSampler, PositiveSampler


def flat(value):
    """The tensors of a batch in a fixed order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for name in sorted(value) for tensor in flat(value[name])]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in flat(item)]
    return flat(vars(value)) if hasattr(value, "__dict__") else [torch.tensor(value)]


def batches(task, store, n_workers, later=False, begin=(0, 0), epochs=(0, 1)):
    """Two epochs of a task's training batches, as lists of tensors."""
    augmentation, rows = Augmentation("strong", mirrored(store.categories)), np.arange(14)
    options = {"later": later}
    sampler = EpochSampler(np.linspace(0.5, 2, 14), 3)
    if task == "detection":
        dataset, collate = BoxDataset(store, rows, augmentation, 3, **options), collate_boxes
    elif task == "segmentation":
        dataset, collate = MaskDataset(store, rows, augmentation, 3, **options), collate_images
        sampler = PositiveSampler(np.arange(14) % 2 > 0, 0.8, 0.4, 2, 3)
    else:
        dataset, collate = LabelDataset(store, rows, store.labels, augmentation, 3, **options), collate_images
    sampler.first = begin
    loader = make_loader(dataset, 4, n_workers, collate, sampler)
    found = []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        found += [flat(batch) for batch in loader]
    return found


def assert_equal(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert len(left) == len(right)
        assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("task", ["detection", "segmentation", "classification"])
def test_any_number_of_workers_gives_the_same_batches_with_strong_augmentation(side_store, mask_store, task, later):
    store = open_store(mask_store if task == "segmentation" else side_store)
    torch.manual_seed(1)
    expected = batches(task, store, 0, later)
    for n_workers in (1, 2):
        torch.manual_seed(n_workers)
        np.random.seed(n_workers)  # noqa: NPY002
        assert_equal(batches(task, store, n_workers, later), expected)


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("task", ["detection", "segmentation", "classification"])
def test_an_epoch_goes_on_with_the_batch_at_which_it_was_cut(side_store, mask_store, task, n_workers):
    store = open_store(mask_store if task == "segmentation" else side_store)
    whole = batches(task, store, 0)
    per_epoch = len(whole) // 2
    for cut in (1, 2):
        begin = (1, 4 * cut)
        assert_equal(batches(task, store, n_workers, begin=begin, epochs=(1,)), whole[per_epoch + cut :])
        # Other epochs are whole.
        assert_equal(batches(task, store, n_workers, begin=begin, epochs=(0,)), whole[:per_epoch])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_several_processes_go_on_with_their_own_draws(world):
    repeats = np.linspace(0.5, 2, 20)
    for rank in range(world):
        whole = EpochSampler(repeats, 3, rank, world)
        cut = EpochSampler(repeats, 3, rank, world)
        cut.first = (0, 3)
        assert list(cut) == list(whole)[3:]
        assert len(cut) == len(whole)


@pytest.mark.parametrize(
    "flags",
    [
        (*CLASSIFICATION_FLAGS, "--network", "test_resnet"),
        pytest.param(TINY_FLAGS, marks=pytest.mark.slow),
        pytest.param((*SEGMENTATION_FLAGS, "--loss", "lovasz"), marks=pytest.mark.slow),
    ],
)
def test_strict_mode_trains_every_task_and_changes_nothing_on_a_cpu(side_store, mask_store, tmp_path, flags):
    store, states = mask_store if "segmentation" in flags else side_store, []
    for name, strict in (("plain", []), ("strict", ["--deterministic", "--n-workers", "2"])):
        places = ["--data-path", str(store), "--save-path", str(tmp_path / name)]
        main(*read_training_flags([*flags, *places, "--n-pictures", "0", *strict]))
        states.append(torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"])
        assert not torch.are_deterministic_algorithms_enabled()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
