"""Every training radiograph trains or validates, never both; test radiographs do neither."""

import dataclasses

import numpy as np
import pytest

from xray.datasets.store import open_store
from xray.errors import InputError
from xray.training.loading import training_rows


@pytest.mark.parametrize("fold", [0, 1])
def test_a_fold_validates_and_the_others_train(side_store, fold):
    store = open_store(side_store)
    train, validation = training_rows(store, fold)
    assert sorted([*train, *validation]) == list(range(14))
    assert {store.records[row]["fold"] for row in validation} == {fold}
    assert {store.records[row]["fold"] for row in train} == {1 - fold}


def test_a_fold_that_does_not_exist(side_store):
    with pytest.raises(InputError, match="has no fold 7: its folds are 0, 1"):
        training_rows(open_store(side_store), 7)


def test_one_fold_leaves_nothing_to_train(side_store):
    store = open_store(side_store)
    records = [{**record, "fold": 0 if record["split"] == "train" else -1} for record in store.records]
    with pytest.raises(InputError, match="all 14 training radiographs are in fold 0: convert with --n-folds 2"):
        training_rows(dataclasses.replace(store, records=records), 0)


def test_only_test_radiographs(side_store):
    store = open_store(side_store)
    records = [{**record, "fold": -1, "split": "test"} for record in store.records]
    with pytest.raises(InputError, match="no 'train' images"):
        training_rows(dataclasses.replace(store, records=records), 0)
    assert np.array_equal(store.rows(split="test"), [14, 15])
