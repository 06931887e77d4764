"""Folds: no patient in two, every finding in all."""

import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from xray.commands.convert import check
from xray.commands.convert_flags import Coco
from xray.datasets.folds import assign_folds
from xray.errors import InputError


def counts_of(folds, present, n_folds):
    """(K, n_folds) positives of each finding in each fold."""
    return np.stack([np.bincount(folds[column], minlength=n_folds) for column in present.T])


@st.composite
def image_sets(draw):
    n_folds = draw(st.integers(2, 8))
    n_images = draw(st.integers(n_folds * 4, 300))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = random.uniform(0.01, 0.35, draw(st.integers(0, 14)))
    present = (random.random((n_images, len(share))) < share) & (random.random(n_images) < 0.6)[:, None]
    return present, n_folds, random


@settings(max_examples=60, deadline=None)
@given(image_sets(), st.integers(0, 5))
def test_single_images_are_spread_evenly(case, seed):
    present, n_folds, _ = case
    folds = assign_folds(present, list(range(len(present))), n_folds, seed)
    assert folds.dtype == np.int64
    sizes = np.bincount(folds, minlength=n_folds)
    assert len(sizes) == n_folds
    assert np.abs(sizes - len(present) / n_folds).max() <= 2
    if present.shape[1]:
        counts = counts_of(folds, present, n_folds)
        assert np.abs(counts - counts.mean(axis=1, keepdims=True)).max() <= 2
        assert (counts[counts.sum(axis=1) >= 2 * n_folds] > 0).all()


@settings(max_examples=60, deadline=None)
@given(image_sets())
def test_no_patient_is_in_two_folds(case):
    present, n_folds, random = case
    patients = random.integers(0, max(n_folds, len(present) // 3), len(present)).tolist()
    assume(len(set(patients)) >= n_folds)
    folds = assign_folds(present, patients, n_folds, 0)
    assert len(set(zip(patients, folds.tolist(), strict=True))) == len(set(patients))
    assert set(folds.tolist()) == set(range(n_folds))


def test_the_rarest_finding_is_in_every_fold_although_its_patients_have_others_too():
    # Five patients with the rare finding, each also one of the ten with another: dealt blindly, folds would lack one.
    present = np.zeros((100, 2), dtype=bool)
    present[:5, 0] = True
    present[:10, 1] = True
    counts = counts_of(assign_folds(present, list(range(100)), 5, 0), present, 5)
    np.testing.assert_array_equal(counts, [[1] * 5, [2] * 5])


def test_exchanges_repair_what_dealing_one_by_one_leaves():
    # Eight findings on thirty patients, found by trial: dealing alone leaves a fold without the seventh finding.
    present = np.random.default_rng(3).random((30, 8)) < 0.22
    counts = counts_of(assign_folds(present, list(range(30)), 5, 0), present, 5)
    assert present.sum(axis=0).min() >= 5
    assert counts.min() >= 1


def test_equal_arguments_give_equal_folds_and_another_seed_others():
    present = np.random.default_rng(0).random((200, 3)) < 0.1
    groups = list(range(200))
    first, second, other = (assign_folds(present, groups, 5, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_patients_of_many_images_do_not_unbalance_the_folds():
    # One patient with 20 images, and 80 with one each: the ideal is 20 a fold.
    groups = [0] * 20 + list(range(1, 81))
    folds = assign_folds(np.zeros((100, 1), dtype=bool), groups, 5, 0)
    np.testing.assert_array_equal(np.bincount(folds), [20] * 5)


def test_too_few_patients_are_refused():
    with pytest.raises(InputError, match="2 patients cannot fill 3 folds: use --n-folds 2"):
        assign_folds(np.zeros((6, 1), dtype=bool), ["a", "a", "a", "b", "b", "b"], 3, 0)


@pytest.mark.parametrize("n_patients", [2, 3, 7])
def test_what_is_advised_works(n_patients):
    present, groups = np.zeros((20, 1), dtype=bool), [number % n_patients for number in range(20)]
    with pytest.raises(InputError) as error:
        assign_folds(present, groups, 8, 0)
    advised = int(re.search(r"--n-folds (\d+)", str(error.value)).group(1))
    assert set(assign_folds(present, groups, advised, 0).tolist()) == set(range(advised))
    check(Coco(Path("a"), Path("b"), n_folds=advised))


def test_radiographs_of_one_patient_cannot_be_dealt():
    # Fewer folds would not help: no number that --n-folds takes does.
    with pytest.raises(InputError, match=r"are of one patient, .*: add radiographs of others, or take the patient out"):
        assign_folds(np.zeros((3, 1), dtype=bool), ["a"] * 3, 2, 0)
    # What is advised works: without a patient each is one of its own.
    assert sorted(assign_folds(np.zeros((3, 1), dtype=bool), range(3), 2, 0).tolist()) in ([0, 0, 1], [0, 1, 1])


def test_a_dataset_of_vinbigs_size_is_quick():
    random = np.random.default_rng(0)
    share = np.array([7162, 5427, 4842, 4655, 2580, 2483, 2476, 2203, 1247, 1000, 960, 556, 279, 226]) / 3 / 4394
    present = np.zeros((15_000, 14), dtype=bool)
    present[random.permutation(15_000)[:4394]] = random.random((4394, 14)) < share
    # Processor time: another program on the machine must not fail this.
    start = time.process_time()
    folds = assign_folds(present, list(range(15_000)), 5, 0)
    assert time.process_time() - start < 3
    counts = counts_of(folds, present, 5)
    assert np.ptp(counts, axis=1).max() <= 2
    assert np.ptp(np.bincount(folds)) <= 2
