"""Canvases of 16 bits from conversion to inference, beside the same radiographs in 8 bits."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch

from xray.commands import export
from xray.datasets.conversion import write_store
from xray.datasets.inputs import open_inputs
from xray.datasets.source import Source, SourceImage
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.inference.loaded import load_run
from xray.inference.pipeline_loading import load_pipeline
from xray.inference.streaming import radiographs
from xray.radiographs.canvas import in_8_bits, in_levels
from xray.radiographs.radiograph import EIGHT_BITS
from xray.structures.boxes import BoxTable
from xray.structures.sides import mirrored
from xray.training.augment import Augmentation
from xray.training.changes import Change, change_canvas, change_images, stack_changes
from xray.training.device_store import DeviceStore
from xray.training.loaders import collate_boxes as collate
from xray.training.loaders import make_loader
from xray.training.loading import BoxDataset, MaskDataset

SIZE = 64


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Fourteen smooth pictures of 16 bits with a box in two of three, and one of 8 bits."""
    folder = tmp_path_factory.mktemp("fine") / "source"
    folder.mkdir()
    random = np.random.default_rng(2)
    images, rows, boxes = [], [], []
    for number in range(15):
        shades = cv2.resize(random.random((5, 5), dtype=np.float32), (90, 70 + number), interpolation=cv2.INTER_CUBIC)
        pixels = np.rint(shades.clip(0, 1) * 40000).astype(np.uint16)
        if number % 3:
            pixels[20:50, 10:40] = 60000 + number
            rows.append(number)
            boxes.append([10, 20, 40, 50])
        if number == 14:
            pixels = in_8_bits(pixels)
        assert cv2.imwrite(str(folder / f"{number:02d}.png"), pixels)
        images.append(SourceImage(folder / f"{number:02d}.png", f"{number:02d}.png", f"{number:02d}", split="train"))
    table = BoxTable.of(rows, [1] * len(rows), boxes)
    readers, places = [("R1",)] * len(rows), [f"line {row}" for row in rows]
    return Source("test", "pictures", images, table, readers, places, [{"id": 1, "name": "Nodule"}], "f")


@pytest.fixture(scope="module")
def stores(source, tmp_path_factory):
    """bits → the dataset."""
    folder = tmp_path_factory.mktemp("bits")
    for bits in (8, 16):
        write_store(source, folder / str(bits), image_size=SIZE, bits=bits, n_folds=2, n_workers=0)
    return {bits: folder / str(bits) for bits in (8, 16)}


@pytest.fixture(scope="module")
def runs(stores, train_tiny, tmp_path_factory):
    """bits → a run on that dataset."""
    folder = tmp_path_factory.mktemp("runs")
    return {bits: train_tiny(data, folder / str(bits)) for bits, data in stores.items()}


def test_every_word_becomes_the_nearest_level():
    words = np.arange(2**16, dtype=np.uint16)
    np.testing.assert_array_equal(in_8_bits(words), np.rint(words / 257).astype(np.uint8))
    levels = in_levels(np.arange(256, dtype=np.uint16) * np.uint16(257))
    assert levels.dtype == np.float32
    np.testing.assert_array_equal(levels, np.arange(256))
    np.testing.assert_allclose(in_levels(words), words / 257, rtol=1e-6)
    narrow = np.arange(256, dtype=np.uint8)
    assert in_8_bits(narrow) is narrow
    assert in_levels(narrow) is narrow


def test_a_dataset_of_16_bits(stores):
    wide, narrow = open_store(stores[16]), open_store(stores[8])
    assert (wide.images.dtype, wide.bits, narrow.images.dtype, narrow.bits) == (np.uint16, 16, np.uint8, 8)
    assert wide.conversion["parameters"]["bits"] == 16
    assert [record["fold"] for record in wide.records] == [record["fold"] for record in narrow.records]
    apart = in_8_bits(np.asarray(wide.images)).astype(int) - narrow.images
    assert np.abs(apart).max() <= 1
    assert len(np.unique(wide.images[0])) > 1000
    np.testing.assert_array_equal(wide.shown(3), in_8_bits(np.asarray(wide.images[3])))
    # One file has 8 bits, which more cannot make finer; in 8 bits there is nothing to say.
    assert [row["where"] for row in wide.conversion["warnings"]["rows"] if row["kind"] == EIGHT_BITS] == ["14.png"]
    assert not narrow.conversion["warnings"]["rows"]


def test_a_store_whose_pixels_are_not_as_it_says(stores, tmp_path):
    for name in ("annotations.json", "images.npy"):
        (tmp_path / name).write_bytes((stores[16] / name).read_bytes())
    (tmp_path / "conversion.json").write_bytes((stores[8] / "conversion.json").read_bytes())
    with pytest.raises(InputError, match=r"images\.npy is uint16 \(15, 64, 64\), not uint8"):
        open_store(tmp_path)
    for bits in (12, "x", None):
        conversion = json.loads((stores[8] / "conversion.json").read_text())
        conversion["parameters"]["bits"] = bits
        (tmp_path / "conversion.json").write_text(json.dumps(conversion))
        with pytest.raises(InputError, match="is damaged"):
            open_store(tmp_path)


def test_an_interrupted_conversion_goes_on_with_the_same_bits(source, stores, tmp_path, monkeypatch):
    from xray.radiographs import decoding

    whole = decoding.decode_canvases

    def some(*args, **options):
        for number, item in enumerate(whole(*args, **options)):
            if number == 5:
                raise KeyboardInterrupt
            yield item

    flags = {"image_size": SIZE, "n_folds": 2, "n_workers": 0}
    monkeypatch.setattr(decoding, "decode_canvases", some)
    with pytest.raises(KeyboardInterrupt):
        write_store(source, tmp_path / "data", bits=16, **flags)
    monkeypatch.setattr(decoding, "decode_canvases", whole)
    with pytest.raises(InputError, match="bits was 16, now None"):
        write_store(source, tmp_path / "data", bits=8, **flags)
    write_store(source, tmp_path / "data", bits=16, **flags)
    for name in ("images.npy", "annotations.json", "conversion.json"):
        assert (tmp_path / "data" / name).read_bytes() == (stores[16] / name).read_bytes()


def test_the_space_on_the_disk_counts_twice(source, tmp_path, monkeypatch):
    import shutil
    from types import SimpleNamespace

    free = 15 * SIZE**2 + 1000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(InputError, match="or --bits 8"):
        write_store(source, tmp_path / "data", image_size=SIZE, bits=16, n_folds=2, n_workers=0)
    write_store(source, tmp_path / "narrow", image_size=SIZE, n_folds=2, n_workers=0)


@pytest.mark.parametrize(("strength", "distortion"), [("light", 0), ("strong", 0.4)])
def test_augmentation_is_that_of_8_bits_but_for_rounding(stores, strength, distortion):
    words = np.asarray(open_store(stores[16]).images[1])
    narrow, augmentation = in_8_bits(words), Augmentation(strength, mirrored({1: "a"}), distortion=distortion)
    boxes, labels = np.zeros((0, 4)), np.zeros(0, dtype=np.int64)
    fine = 0
    for seed in range(60):
        change = augmentation.draw(seed, SIZE, boxes, labels)[2]
        changed, _ = change_canvas(words, None, change, [0])
        expected = change_images(torch.from_numpy(narrow)[None, None], stack_changes([change]))[0, 0].numpy()
        assert changed.dtype == np.float32
        assert 0 <= changed.min() <= changed.max() <= 255
        apart = np.abs(changed - expected)
        # A table of CLAHE is steep: greys that differ by the rounding of the steps before it end up further apart.
        is_steep = change.clip_limit > 0
        assert np.median(apart) <= (3 if is_steep else 1)
        assert np.quantile(apart, 0.95) < (12 if is_steep else 2)
        fine += len(np.unique(changed)) > 300
    assert fine > 50


@pytest.mark.parametrize(
    "options",
    [
        {"table": (np.arange(256) ** 2 // 255).astype(np.uint8)},
        {"clip_limit": 3.0},
        {"kernel": np.array([0.25, 0.5, 0.25])},
        {"holes": np.array([[3, 4, 20, 30]])},
        {"lattice": np.full((2, 11, 11), 1.5, dtype=np.float32)},
        {"source": np.array([[0.9, 0.1, 2], [-0.1, 0.9, 5]])},
    ],
    ids=lambda options: next(iter(options)),
)
def test_each_change_of_whole_levels_is_that_of_8_bits_without_its_rounding(stores, options):
    narrow = np.array(open_store(stores[8]).images[1])
    change = Change(**{"seed": 0, "flipped": False, "source": np.eye(2, 3), **options})
    changed, _ = change_canvas(narrow * np.uint16(257), None, change, [0])
    expected = change_images(torch.from_numpy(narrow)[None, None], stack_changes([change]))[0, 0].numpy()
    assert np.abs(changed - expected).max() <= 0.501


def test_batches_are_float32_levels_and_the_same_on_the_device(stores):
    store = open_store(stores[16])
    rows = np.arange(len(store))
    plain = BoxDataset(store, rows)
    item = plain[3]["image"]
    assert (item.dtype, tuple(item.shape)) == (torch.float32, (1, SIZE, SIZE))
    np.testing.assert_array_equal(item[0].numpy(), in_levels(np.asarray(store.images[3])))
    on_device = DeviceStore(store, rows, torch.device("cpu"))
    assert on_device.nbytes == 2 * len(store) * SIZE**2
    batch = next(iter(make_loader(plain, 4, 0, collate)))
    torch.testing.assert_close(on_device.images(batch["rows"]), batch["images"], rtol=0, atol=0)
    augmentation = Augmentation("strong", mirrored(store.categories))
    by_worker = BoxDataset(store, rows, augmentation)[2]
    later = BoxDataset(store, rows, augmentation, later=True)[2]
    made = change_images(later["image"][None], stack_changes([later["change"]]))[0]
    torch.testing.assert_close(by_worker["image"], made, rtol=0, atol=0)
    torch.testing.assert_close(by_worker["boxes"], later["boxes"], rtol=0, atol=0)
    assert BoxDataset(open_store(stores[8]), rows, augmentation)[2]["image"].dtype == torch.uint8


def test_masks_of_16_bits_change_with_their_canvas(mask_store):
    """The masks are those that 8 bits give on the device."""
    narrow = open_store(mask_store)
    conversion = {**narrow.conversion, "parameters": {**narrow.conversion["parameters"], "bits": 16}}
    wide = dataclasses.replace(
        narrow, images=np.asarray(narrow.images).astype(np.uint16) * np.uint16(257), conversion=conversion
    )
    augmentation = Augmentation("light", mirrored(narrow.categories))
    for number in range(4):
        item = MaskDataset(wide, np.arange(4), augmentation)[number]
        assert (item["image"].dtype, item["mask"].dtype) == (torch.float32, torch.uint8)
        assert set(np.unique(item["mask"])) <= {0, 1}
        expected = MaskDataset(narrow, np.arange(4), augmentation)[number]["mask"]
        assert (item["mask"] != expected).float().mean() < 0.01


def found(pipeline, inputs):
    items = list(radiographs(inputs, pipeline.canvas_size, 0, 60.0, bits=pipeline.bits))
    canvases = np.stack([item.canvas for item in items])
    return canvases, pipeline.find(canvases, [(item.width, item.height) for item in items]).table


def test_a_run_decodes_to_the_bits_that_it_was_trained_on(runs, stores, source):
    assert json.loads((runs[16] / "model.json").read_text())["bits"] == 16
    assert "bits" not in json.loads((runs[8] / "model.json").read_text())
    folder = source.images[0].path.parent
    for bits, run in runs.items():
        pipeline = load_pipeline([run], torch.device("cpu"), flips=False)
        assert pipeline.bits == bits
        canvases, table = found(pipeline, open_inputs(folder))
        assert canvases.dtype == (np.uint8 if bits == 8 else np.uint16)
        store = open_store(stores[bits])
        again, same = found(pipeline, open_inputs(stores[bits]))
        order = [open_inputs(folder).ids.index(record["source_id"]) for record in store.records]
        np.testing.assert_array_equal(again, canvases[order])
        assert len(same) == len(table)


def test_an_ensemble_of_8_and_16_bits(runs, source):
    folder = source.images[0].path.parent
    both = load_pipeline([runs[8], runs[16]], torch.device("cpu"), flips=False)
    assert both.bits == 16
    canvases, _ = found(both, open_inputs(folder))
    narrow, wide = both.detectors
    alone = load_run(runs[8], torch.device("cpu"))[0][1].detect(in_8_bits(canvases), False)
    for (boxes, _, scores), (expected, _, same) in zip(narrow.detect(canvases, False), alone, strict=True):
        np.testing.assert_allclose(boxes, expected, atol=1e-3)
        np.testing.assert_allclose(scores, same, atol=1e-4)
    seen = []
    wide.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    wide.detect(canvases, False)
    np.testing.assert_array_equal(seen[0][:, 0].numpy(), in_levels(canvases))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_run_looks_at_datasets_of_other_bits(bits, runs, stores):
    pipeline = load_pipeline([runs[bits]], torch.device("cpu"), flips=False)
    canvases, _ = found(pipeline, open_inputs(stores[24 - bits]))
    assert canvases.dtype == np.uint8


def test_pictures_are_of_8_bits(stores):
    inputs = open_inputs(stores[16])
    pixels = inputs.pixels(2)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (72, 90))


@pytest.mark.parametrize(("kind", "name"), [("onnx", "model.onnx"), ("openvino", "model.xml")])
def test_exports_say_that_they_take_8_bits(kind, name, runs, tmp_path):
    config = export.Config(weights=(runs[16],), format=kind, save_path=tmp_path / "out" / name)
    with pytest.raises(InputError, match="was trained on canvases of 16 bits, and exported models take 8"):
        export.main(config)
    assert not (tmp_path / "out").exists()


def test_a_damaged_description_is_told(runs, tmp_path):
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((runs[8] / name).read_bytes())
    description = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**description, "bits": 12}))
    with pytest.raises(InputError, match="bits is 12, neither 8 nor 16"):
        load_run(tmp_path, torch.device("cpu"))


def test_the_api_takes_arrays_and_files_of_any_bits(runs, source):
    import xray

    model = xray.load(runs[16], device="cpu")
    words = cv2.imread(str(source.images[1].path), cv2.IMREAD_UNCHANGED)
    results = model([words, in_8_bits(words)])
    assert [result.pixels.dtype for result in results] == [np.uint8, np.uint8]
    np.testing.assert_array_equal(results[0].pixels, results[1].pixels)
