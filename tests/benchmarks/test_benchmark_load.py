"""The loading benchmark: what the peer loads, what is counted, and that different pixels or boxes are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.load import Config, Ways, main
from benchmarks.material import open_material, write_pngs
from benchmarks.peers import PngDataset, as_float_images, collate_lists
from xray.datasets.store import open_store
from xray.errors import FlagError, InputError
from xray.training.loading import BoxDataset

SMALL = {"n_images": 6, "repeats": 2, "image_size": 64, "batch_size": 4, "device": "cpu"}


@pytest.fixture
def ways(vinbig_store, tmp_path):
    store = open_store(vinbig_store)
    rows = np.arange(6)
    return Ways(store, rows, write_pngs(store, rows, tmp_path), 4, torch.device("cpu"))


def test_the_peer_loads_what_the_file_shows(vinbig_store, tmp_path):
    store = open_store(vinbig_store)
    rows = np.arange(2, 5)
    paths = write_pngs(store, rows, tmp_path)
    truth = BoxDataset(store, rows)
    for flip in (0.0, 1.0):
        images, targets = collate_lists([PngDataset(paths, truth, flip)[position] for position in range(3)])
        for position, (image, target) in enumerate(zip(images, targets, strict=True)):
            pixels = np.asarray(Image.open(paths[position]))
            boxes = truth[position]["boxes"].numpy()
            if flip:
                pixels, boxes = pixels[:, ::-1], np.array([64, 0, 64, 0]) + boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1]
            assert image.dtype == torch.float32
            assert image.shape == (3, 64, 64)
            np.testing.assert_allclose(image.numpy(), np.broadcast_to(pixels / 255, (3, 64, 64)), atol=1e-7)
            np.testing.assert_allclose(target["boxes"].numpy(), boxes, atol=1e-4)
            assert target["labels"].tolist() == truth[position]["labels"].tolist()
    canvases = torch.from_numpy(store.images[rows])[:, None]
    assert all(
        torch.allclose(a, b[0]) for a, b in zip(as_float_images(canvases), PngDataset(paths, truth, 0.0), strict=True)
    )


@pytest.mark.parametrize(("workers", "n"), [(0, 6), (1, 32)])
@pytest.mark.parametrize("way", ["ours", "augmented", "device", "stored", "png"])
def test_counts_what_is_timed(ways, way, workers, n):
    # With a process, eight batches of four beside the one that is not counted.
    assert ways.time(way, workers).n == n


def test_what_is_completed_on_the_device_is_what_training_gets(ways):
    from xray.training.loaders import collate_boxes

    keys = [(0, draw, draw) for draw in range(6)]
    found = {
        way: ways.complete(collate_boxes([dataset[key] for key in keys])) for way, dataset in ways.datasets.items()
    }
    assert torch.equal(found["device"], found["stored"])
    assert not torch.equal(found["device"], found["ours"])
    difference = (found["device"].float() - found["augmented"].float()).abs()
    assert difference.mean() < 1
    assert torch.equal(found["ours"][:, 0], torch.from_numpy(np.array(ways.plain.store.images[:6])))


def test_both_ways_are_equal_until_one_is_changed(ways, monkeypatch):
    ways.check()
    right = PngDataset.__getitem__

    def brighter(dataset, position):
        image, target = right(dataset, position)
        image[0, 3, 4] += 1 / 255
        return image, target

    monkeypatch.setattr(PngDataset, "__getitem__", brighter)
    with pytest.raises(InputError, match="pixels of radiograph 0 differ"):
        ways.check()

    def moved(dataset, position):
        image, target = right(dataset, position)
        return image, {**target, "boxes": target["boxes"] + 0.5}

    monkeypatch.setattr(PngDataset, "__getitem__", moved)
    with pytest.raises(InputError, match="boxes of radiograph 1 differ"):
        ways.check()


def test_writes_its_numbers(tmp_path, capsys):
    main(Config(**SMALL, n_workers=1, save_path=tmp_path / "load.json"))
    report = json.loads((tmp_path / "load.json").read_text())
    assert report["bytes_per_image"] == {"ours": 64 * 64, "png": 3 * 4 * 64 * 64}
    [measured] = report["results"]
    assert measured["label"] == "1"
    assert [pair["ours"] for pair in measured["ratios"]] == ["ours", "augmented", "device", "stored"]
    for pair in measured["ratios"]:
        ours, theirs = (measured["contenders"][name]["seconds"] for name in (pair["ours"], "png"))
        quotients = sorted(b / a for a, b in zip(ours, theirs, strict=True))
        ratio = pair["ratio"]
        np.testing.assert_allclose(
            [ratio["low"], ratio["median"], ratio["high"]], [quotients[0], np.mean(quotients), quotients[1]]
        )
    assert "PNG files" in capsys.readouterr().out


@pytest.mark.slow
def test_measures_several_processes():
    script = Path(__file__).resolve().parents[2] / "tools" / "benchmark.py"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    run = [sys.executable, str(script), "load", *flags, "--repeats=1", "--n-workers=2"]
    wide = {**os.environ, "COLUMNS": "200"}
    result = subprocess.run(run, capture_output=True, text=True, timeout=600, env=wide)
    assert result.returncode == 0, result.stderr
    # An empty row parts the numbers of processes.
    rows = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("│")]
    assert [row for row in rows if row != "│"] == ["1"] * 4 + ["2"] * 4


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({"n_images": 3}, FlagError, "--n-images is 3"),
        ({"batch_size": 0}, FlagError, "--batch-size is 0"),
        ({"data_path": Path("nowhere")}, InputError, "no dataset at nowhere"),
        ({"device": "tpu"}, InputError, "--device tpu"),
        ({"save_path": Path("nowhere/x.json")}, InputError, "no folder nowhere"),
    ],
)
def test_refuses_unusable_flags(flags, error, message):
    with pytest.raises(error, match=message):
        main(Config(**{**SMALL, "n_workers": 1, **flags}))


def test_a_dataset_must_have_as_many(vinbig_store, tmp_path):
    store, rows = open_material(vinbig_store, tmp_path, 16, 999, 0)
    assert (store.canvas_size, len(rows)) == (64, 16)
    with pytest.raises(InputError, match="has 16 radiographs, 17 were asked for"):
        open_material(vinbig_store, tmp_path, 17, 999, 0)
