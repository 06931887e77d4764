"""Batches of a dataset directory: what they hold, how often each radiograph comes, and that only the seed decides."""

import gc
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.datasets.store import open_store
from xray.errors import InputError
from xray.structures.sides import mirrored
from xray.training.augment import Augmentation
from xray.training.changes import change_images
from xray.training.loaders import collate_boxes, make_loader, shared_with_workers
from xray.training.loading import BoxDataset, LabelDataset, sample_seed
from xray.training.sampling import EpochSampler, repeat_factors


@pytest.fixture(scope="module")
def store(side_store):
    return open_store(side_store)


def test_an_item_holds_the_canvas_and_its_boxes(store):
    dataset = BoxDataset(store, np.array([5, 0, 4]))
    assert len(dataset) == 3
    item = dataset[0]
    assert item["row"] == 5
    assert item["image"].shape == (1, 64, 64)
    assert item["image"].dtype == torch.uint8
    np.testing.assert_array_equal(item["image"][0].numpy(), store.images[5])
    assert item["boxes"].dtype == torch.float32
    assert item["labels"].dtype == torch.int64
    # The rectangle is what is bright: 64 / 90 of its original size.
    mask = item["image"][0].numpy() > 120
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose(item["boxes"].numpy(), [seen], atol=1)
    assert dataset.labels_of()[0].tolist() == item["labels"].tolist() == [store.boxes.labels[store.boxes.images == 5]]
    empty = dataset[1]
    assert empty["row"] == 0
    assert empty["boxes"].shape == (0, 4)
    assert empty["labels"].shape == (0,)


def test_boxes_below_a_pixel_are_widened_to_one(store):
    import dataclasses

    boxes = store.boxes.boxes.copy()
    boxes[:, 2] = boxes[:, 0] + 1.2  # 0.85 pixels on the canvas
    thin = dataclasses.replace(store, boxes=dataclasses.replace(store.boxes, boxes=boxes))
    whole, widened = (BoxDataset(each, np.array([5]))[0] for each in (store, thin))
    assert widened["labels"].tolist() == whole["labels"].tolist()
    x1, _, x2, _ = widened["boxes"][0].tolist()
    assert x2 - x1 == pytest.approx(1.0)
    assert x1 == pytest.approx(float(whole["boxes"][0, 0]), abs=0.1)


def test_a_batch(store):
    dataset = BoxDataset(store, np.array([0, 5, 7]))
    batch = collate_boxes([dataset[i] for i in range(3)])
    assert batch["images"].shape == (3, 1, 64, 64)
    assert batch["images"].dtype == torch.uint8
    assert batch["rows"].tolist() == [0, 5, 7]
    assert [len(target["boxes"]) for target in batch["targets"]] == [0, 1, 1]


def test_the_key_of_the_sampler_decides_the_augmentation(store):
    dataset = BoxDataset(store, np.arange(14), Augmentation("light", mirrored(store.categories)), seed=1)
    same = [dataset[2, 3, 5]["image"], dataset[2, 3, 5]["image"]]
    assert torch.equal(*same)
    for other in ((3, 3, 5), (2, 4, 5)):
        assert not torch.equal(same[0], dataset[other]["image"])
        assert dataset[other]["row"] == 5


def _batches(store, n_workers, epochs=(0, 1), seed=0, **options):
    dataset = BoxDataset(store, np.arange(14), Augmentation("light", mirrored(store.categories)), seed, **options)
    repeats = repeat_factors(dataset.labels_of(), 0.5, normals=0.5)
    sampler = EpochSampler(repeats, seed)
    loader = make_loader(dataset, 4, n_workers, collate_boxes, sampler)
    batches = []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        batches += list(loader)
    return batches


def own_megabytes():
    """Of this process's memory, what no other has too."""
    pages = Path("/proc/self/smaps_rollup").read_text()
    return int(pages.partition("Private_Dirty:")[2].split()[0]) / 1024


class Collected(torch.utils.data.Dataset):
    """What a worker has for itself after it has looked for garbage."""

    def __len__(self):
        return 1

    def __getitem__(self, _):
        gc.collect()
        return own_megabytes()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_workers_share_what_there_was_before_them():
    # Lists are what the collector looks at: dictionaries of numbers it leaves alone.
    many = [[number] for number in range(400_000)]
    copied = {}
    for shared in (False, True):
        with shared_with_workers() if shared else nullcontext():
            batches = iter(make_loader(Collected(), 1, 1, lambda items: items))
            gc.collect()
            (own,) = next(batches)
            copied[shared] = max(own, own_megabytes())
    assert len(many) == 400_000
    # What else this process has held before counts for both.
    assert copied[True] < copied[False] - 30, copied


def test_any_number_of_workers_gives_the_same_batches(store):
    torch.manual_seed(1)
    expected = _batches(store, 0)
    torch.manual_seed(2)
    for n_workers in (1, 2):
        found = _batches(store, n_workers)
        assert len(found) == len(expected)
        for one, other in zip(expected, found, strict=True):
            assert torch.equal(one["images"], other["images"])
            assert torch.equal(one["rows"], other["rows"])
            for target, again in zip(one["targets"], other["targets"], strict=True):
                assert torch.equal(target["boxes"], again["boxes"])
                assert torch.equal(target["labels"], again["labels"])


def test_any_number_of_workers_gives_the_same_batches_on_the_device(store):
    by_workers = _batches(store, 0)
    stored = torch.from_numpy(np.array(store.images))[:, None]
    for options in ({"later": True}, {"pixels": False}):
        results = []
        for n_workers in (0, 2):
            batches = _batches(store, n_workers, **options)
            images = [batch.get("images", stored[batch["rows"]]) for batch in batches]
            results.append([change_images(*pair) for pair in zip(images, (b["changes"] for b in batches), strict=True)])
            for batch, expected in zip(batches, by_workers, strict=True):
                assert ("images" in batch) == (options == {"later": True})
                assert torch.equal(batch["rows"], expected["rows"])
                for target, again in zip(batch["targets"], expected["targets"], strict=True):
                    assert torch.equal(target["boxes"], again["boxes"])
                    assert torch.equal(target["labels"], again["labels"])
        for one, other in zip(*results, strict=True):
            assert torch.equal(one, other)
        differences = [(one.float() - b["images"].float()).abs() for one, b in zip(results[0], by_workers, strict=True)]
        assert torch.cat(differences).flatten(1).mean(1).median() < 0.5


def test_epochs_and_seeds_give_other_batches_and_an_epoch_does_not_need_those_before_it(store):
    both = _batches(store, 0)
    half = len(both) // 2
    first, second = both[:half], both[half:]
    assert not torch.equal(first[0]["images"], second[0]["images"])
    assert not torch.equal(first[0]["images"], _batches(store, 0, seed=1)[0]["images"])
    for one, other in zip(second, _batches(store, 0, epochs=(1,)), strict=True):
        assert torch.equal(one["images"], other["images"])


def test_loading_does_not_touch_the_generator_of_the_losses(store):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    _batches(store, 2)
    assert torch.equal(before, torch.get_rng_state())


repeats_of_images = st.lists(
    st.one_of(st.sampled_from([0.0, 0.25, 1.0]), st.floats(0.01, 6)), min_size=1, max_size=60
).filter(lambda repeats: sum(repeats) > 0.01)


@settings(max_examples=200, deadline=None)
@given(repeats_of_images, st.integers(0, 5), st.integers(0, 100), st.integers(1, 4))
def test_every_position_comes_floor_or_ceil_of_its_repeats(repeats, seed, epoch, world):
    repeats = np.array(repeats)
    samplers = [EpochSampler(repeats, seed, rank, world) for rank in range(world)]
    shares = []
    for sampler in samplers:
        sampler.set_epoch(epoch)
        shares.append(list(sampler))
        assert len(shares[-1]) == len(sampler)
        assert list(sampler) == shares[-1]
    total = max(1, round(repeats.sum()))
    # All have the same length, and together draw 0, 1, 2, … once each.
    assert {len(share) for share in shares} == {-(-total // world)}
    draws = {draw: position for share in shares for _, draw, position in share}
    assert sorted(draws) == list(range(len(shares[0]) * world))
    assert {key[0] for share in shares for key in share} == {epoch}
    counts = np.bincount([draws[draw] for draw in range(total)], minlength=len(repeats))
    assert (counts >= np.floor(repeats - 1e-6)).all()
    assert (counts <= np.ceil(repeats + 1e-6)).all()
    # Draws beyond the total repeat the first ones, so that every process has as many.
    for draw in range(total, len(draws)):
        assert draws[draw] == draws[draw % total]


def test_on_average_each_position_comes_as_often_as_asked():
    repeats = np.array([0.25] * 20 + [1.0] * 10 + [1.7, 2.5, 3.2])
    sampler = EpochSampler(repeats, seed=0)
    counts = np.zeros(len(repeats))
    for epoch in range(2000):
        sampler.set_epoch(epoch)
        counts += np.bincount([position for *_, position in sampler], minlength=len(repeats))
    np.testing.assert_allclose(counts / 2000, repeats, atol=0.05)


def test_the_order_is_random():
    sampler = EpochSampler(np.ones(50), seed=0)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        orders.append([position for *_, position in sampler])
        assert sorted(orders[-1]) == list(range(50))
    assert len({tuple(order) for order in [*orders, list(range(50))]}) == 4


def test_nothing_to_show_is_refused():
    with pytest.raises(InputError, match="--normals is 0"):
        EpochSampler(np.zeros(4), seed=0)


def test_repeat_factors_worked_by_hand():
    # Of 100 radiographs, category 1 is on 50 (f = 0.5), category 2 on 4 (f = 0.04), category 3 on 1 (f = 0.01).
    labels = [np.array([1, 1])] * 46 + [np.array([1, 2])] * 3 + [np.array([2, 3, 1])] + [np.array([], int)] * 50
    found = repeat_factors(labels, threshold=0.16, normals=0.25)
    # sqrt(0.16 / 0.5) < 1; sqrt(0.16 / 0.04) = 2; sqrt(0.16 / 0.01) = 4, and the rarest finding decides.
    np.testing.assert_allclose(found, [1.0] * 46 + [2.0] * 3 + [4.0] + [0.25] * 50)
    np.testing.assert_array_equal(repeat_factors(labels, threshold=0), [1.0] * 100)
    assert repeat_factors([], 0.1).shape == (0,)
    np.testing.assert_array_equal(repeat_factors([np.array([], int)] * 2, 0.1, 0.5), [0.5, 0.5])


def test_seeds_of_samples_differ():
    seeds = {sample_seed(seed, epoch, draw) for seed in range(3) for epoch in range(10) for draw in range(100)}
    assert len(seeds) == 3000
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_labels_of_sides_swap_on_mirrored_radiographs(side_store):
    store = open_store(side_store)
    rows, augmentation = np.arange(14), Augmentation("light", mirrored(store.categories), flip=0.5)
    order = augmentation.mirrored_channels
    assert order == [1, 0, 2]
    for later in (False, True):
        dataset = LabelDataset(store, rows, store.labels, augmentation, later=later, mirrored_labels=order)
        n_mirrored = 0
        for draw in range(14):
            item = dataset[0, draw, draw]
            is_mirrored = augmentation.mirrors(sample_seed(0, 0, draw))
            n_mirrored += is_mirrored
            expected = store.labels[draw][order] if is_mirrored else store.labels[draw]
            assert item["labels"].tolist() == expected.tolist()
            if later:
                assert item["change"].flipped == is_mirrored
        assert 0 < n_mirrored < 14
    plain = LabelDataset(store, rows, store.labels)
    assert plain[3]["labels"].tolist() == store.labels[3].tolist()
