"""A detector and a segmenter on one trunk, run by the pipeline: the same findings, one pass of the trunk a view."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from xray.commands.export import Config, main
from xray.datasets.store import open_store
from xray.inference.pipeline_loading import load_pipeline

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def masks_on_trunk(vinbig_run, mask_store, train_masks, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "head"
    flags = ("--encoder", "mobilenet_v2", "--depth", "4", "--encoder-from", vinbig_run, "--freeze-encoder")
    return train_masks(mask_store, run, *flags)


@pytest.fixture(scope="module")
def both(vinbig_run, masks_on_trunk, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "both"
    main(Config(weights=(vinbig_run, masks_on_trunk), format="run", save_path=out))
    return out


def count(pipeline):
    calls = Counter()
    for kind, models in (("trunk", [d.model.backbone.body["0"] for d in pipeline.detectors]),
                         ("encoder", [s.model.encoder for s in pipeline.segmenters])):  # fmt: skip
        for number, model in enumerate(models):
            name = f"{kind} {number}"
            model.register_forward_hook(lambda *_, name=name: calls.update([name]))
    return calls


def same(one, other):
    np.testing.assert_array_equal(one.table.labels, other.table.labels)
    np.testing.assert_allclose(one.table.boxes, other.table.boxes, atol=1e-3)
    np.testing.assert_allclose(one.table.scores, other.table.scores, atol=1e-5)
    np.testing.assert_allclose(one.maps, other.maps, atol=1 / 255 + 1e-6)
    assert one.masks.keys() == other.masks.keys()


def test_one_run_or_two_find_the_same_in_one_pass(vinbig_run, masks_on_trunk, both, vinbig_store):
    store = open_store(vinbig_store)
    sizes = [(record["width"], record["height"]) for record in store.records[:3]]
    canvases = store.images[:3]
    joined = load_pipeline([both], CPU)
    two = load_pipeline([masks_on_trunk, vinbig_run], CPU)
    apart = dataclasses.replace(two, pairs=())
    calls = [count(pipeline) for pipeline in (joined, two)]
    expected = apart.find(canvases, sizes)
    assert calls[1] == {"trunk 0": 2, "encoder 0": 2}
    calls[1].clear()
    for pipeline, seen in zip((joined, two), calls, strict=True):
        assert len(pipeline.pairs) == 1
        same(pipeline.find(canvases, sizes), expected)
        assert seen == {"trunk 0": 2}


def test_one_pass_serves_views_of_every_size(both, vinbig_store):
    store = open_store(vinbig_store)
    sizes = [(record["width"], record["height"]) for record in store.records[:2]]
    pipeline = load_pipeline([both], CPU, scales=(1.0, 1.5, 2.0))
    calls = count(pipeline)
    found = pipeline.find(store.images[:2], sizes)
    assert calls == {"trunk 0": 6}
    same(found, dataclasses.replace(pipeline, pairs=()).find(store.images[:2], sizes))


def test_only_those_on_one_trunk_are_paired(vinbig_run, masks_on_trunk, segmentation_run, both, vinbig_store):
    store = open_store(vinbig_store)
    sizes = [(record["width"], record["height"]) for record in store.records[:2]]
    # The U-Net that was trained by itself sees no mirrored radiographs.
    pipeline = load_pipeline([segmentation_run, both, vinbig_run, masks_on_trunk], CPU)
    assert [pair.segmenter is pipeline.segmenters[n] for n, pair in enumerate(pipeline.pairs, 1)] == [True, True]
    assert [pair.detector is pipeline.detectors[n] for n, pair in enumerate(pipeline.pairs)] == [True, True]
    calls = count(pipeline)
    found = pipeline.find(store.images[:2], sizes)
    assert calls == {"trunk 0": 2, "trunk 1": 2, "encoder 0": 1}
    same(dataclasses.replace(pipeline, pairs=()).find(store.images[:2], sizes), found)
    (pair,) = load_pipeline([both], CPU).pairs
    assert pair.flips


def test_where_one_of_a_pair_is_shown_no_mirrored_radiographs(both, vinbig_store):
    store = open_store(vinbig_store)
    sizes = [(record["width"], record["height"]) for record in store.records[:2]]
    pipeline = load_pipeline([both], CPU)
    (pair,) = pipeline.pairs
    segmenter = dataclasses.replace(pair.segmenter, flips=False)
    pipeline = dataclasses.replace(
        pipeline, segmenters=(segmenter,), pairs=(dataclasses.replace(pair, segmenter=segmenter),)
    )
    calls = count(pipeline)
    found = pipeline.find(store.images[:2], sizes)
    assert calls == {"trunk 0": 2}
    same(dataclasses.replace(pipeline, pairs=()).find(store.images[:2], sizes), found)
