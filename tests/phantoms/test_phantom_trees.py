"""Phantoms with masks: in SIIM's and Montgomery's layouts, and what the converters make of them."""

import csv
import hashlib
import shutil

import numpy as np
import pydicom
import pytest

from xray.datasets.sources import convert
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.findings import PNEUMOTHORAX
from xray.phantoms.drawing import draw_phantom
from xray.phantoms.siim_lungs import write_lungs, write_siim
from xray.phantoms.vinbig import plan_findings, write_vinbig
from xray.radiographs.radiograph import read_radiograph
from xray.structures.masks import decode_mask
from xray.structures.rle import decode, is_empty

WRITERS = {"siim": write_siim, "lungs": write_lungs}
NUMBERS = {"siim": (13, 4), "lungs": (5, 3)}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """RAW/siim with 13 + 4 and RAW/lungs with 5 + 3 phantoms of about 128 pixels."""
    folder = tmp_path_factory.mktemp("raw")
    for tree, write in WRITERS.items():
        assert write(folder, *NUMBERS[tree], seed=3, size=128, progress=False).n_drawn == sum(NUMBERS[tree])
    return folder


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_rows(path):
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    return header, rows


def test_siim_layout(raw):
    folder = raw / "siim"
    positive = set()
    for split, table, n in (("train", "train-rle.csv", 13), ("test", "test-rle-truth.csv", 4)):
        header, rows = read_rows(folder / table)
        assert header == ["ImageId", " EncodedPixels"]
        assert all(text.startswith(" ") for _, text in rows)
        files = {path.stem: path for path in folder.glob(f"dicom-images-{split}/*/*/*.dcm")}
        assert len(files) == n
        assert set(files) == {image for image, _ in rows}
        for image, text in rows:
            dataset = pydicom.dcmread(files[image])
            assert (dataset.SOPInstanceUID, dataset.Rows, dataset.Columns) == (image, 128, 128)
            assert (dataset.BitsStored, dataset.PhotometricInterpretation) == (8, "MONOCHROME2")
            assert dataset.file_meta.TransferSyntaxUID == pydicom.uid.JPEGBaseline8Bit
            if not is_empty(text):
                positive.add(image)
                assert 5 < decode(text, 128, 128, "relative").sum() < 0.25 * 128**2
    # A quarter of 13 and of 4.
    assert len(positive) == 4
    header, rows = read_rows(folder / "sample_submission.csv")
    assert header == ["ImageId", "EncodedPixels"]
    assert {image for image, _ in rows} == {path.stem for path in folder.glob("dicom-images-test/*/*/*.dcm")}
    assert {text for _, text in rows} == {"-1"}


def test_siim_phantoms_are_converted(raw, tmp_path):
    result = convert("siim", raw / "siim", tmp_path / "data", image_size=64, n_folds=2, n_workers=0)
    store = open_store(tmp_path / "data")
    assert (result["dropped"]["counts"], result["counts"]["train_images"], result["counts"]["test_images"]) == (
        {},
        13,
        4,
    )
    assert store.labels[store.splits == "train"].sum() == 3
    # The mask is where the radiograph is dark: air without lung.
    darker = []
    for row, rle in store.masks.items():
        record = store.records[store.boxes.images[row]]
        pixels = read_radiograph(raw / "siim" / record["file_name"]).pixels
        darker.append(np.median(pixels) - pixels[decode_mask(rle).astype(bool)].mean())
    assert min(darker) > 10


def test_lungs_layout(raw, tmp_path):
    folder = raw / "lungs"
    names = sorted(path.name for path in (folder / "CXR_png").iterdir())
    assert [name[:11] for name in names] == [f"MCUCXR_{number:04d}" for number in range(1, 6)]
    assert {name[11:] for name in names} <= {"_0.png", "_1.png"}
    for side in ("leftMask", "rightMask"):
        assert sorted(path.name for path in (folder / "ManualMask" / side).iterdir()) == names
    for path in (folder / "ManualMask").rglob("*.png"):
        mask = read_radiograph(path).pixels
        assert mask.shape == read_radiograph(folder / "CXR_png" / path.name).pixels.shape
        assert set(np.unique(mask)) == {0, 255}
    result = convert("lungs", folder, tmp_path / "data", lungs="apart", image_size=64, n_folds=2, n_workers=0)
    store = open_store(tmp_path / "data")
    assert (result["counts"]["train_images"], result["counts"]["test_images"]) == (5, 3)
    assert result["counts"]["annotations_per_category"] == {"Right lung": 8, "Left lung": 8}
    # The patient's right lung is on the viewer's left.
    middles = store.boxes.boxes[:, [0, 2]].mean(axis=1)
    assert (middles[store.boxes.labels == 1] < middles[store.boxes.labels == 2]).all()


@pytest.mark.parametrize("tree", ["siim", "lungs"])
def test_an_interrupted_run_goes_on_and_any_number_of_workers_writes_the_same(raw, tmp_path, tree):
    shutil.copytree(raw / tree, tmp_path / tree)
    for path in sorted(path for path in (tmp_path / tree).rglob("*") if path.suffix in (".dcm", ".png"))[::5]:
        path.unlink()
    journal = tmp_path / tree / "phantoms.jsonl"
    journal.write_text(journal.read_text()[:-30])
    (tmp_path / tree / "phantoms.json").write_text((raw / tree / "phantoms.json").read_text())
    written = WRITERS[tree](tmp_path, *NUMBERS[tree], seed=3, size=128, n_workers=2, progress=False)
    assert 0 < written.n_drawn < sum(NUMBERS[tree])
    assert digests(tmp_path / tree).keys() == digests(raw / tree).keys()
    assert digests(tmp_path / tree) == digests(raw / tree)


@pytest.mark.parametrize("tree", ["siim", "lungs"])
def test_other_parameters_need_overwrite_and_real_data_are_never_deleted(raw, tmp_path, tree):
    write = WRITERS[tree]
    write(tmp_path, 2, 0, size=96, progress=False)
    before = digests(tmp_path)
    with pytest.raises(InputError, match="--overwrite"):
        write(tmp_path, 1, 1, size=96, progress=False)
    assert digests(tmp_path) == before
    write(tmp_path, 1, 0, seed=1, size=96, overwrite=True, progress=False)
    n_masks = 0 if tree == "siim" else 2
    assert sum(path.suffix in (".dcm", ".png") for path in (tmp_path / tree).rglob("*")) == 1 + n_masks
    (tmp_path / "real" / tree).mkdir(parents=True)
    (tmp_path / "real" / tree / "train-rle.csv").write_text("real")
    with pytest.raises(InputError, match="holds no phantoms"):
        write(tmp_path / "real", 2, 0, size=96, overwrite=True, progress=False)
    assert (tmp_path / "real" / tree / "train-rle.csv").read_text() == "real"


def test_masks_are_what_was_drawn(raw):
    phantom = draw_phantom(
        (3, 22, 0), *reversed(read_radiograph(next((raw / "lungs" / "CXR_png").glob("MCUCXR_0001*"))).pixels.shape), ()
    )
    left, right = phantom.lung_masks
    for side, expected in (("leftMask", left), ("rightMask", right)):
        found = read_radiograph(next((raw / "lungs" / "ManualMask" / side).glob("MCUCXR_0001*"))).pixels > 127
        assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.9


def test_the_share_of_pneumothorax_can_be_chosen(tmp_path):
    options = {"size": 96, "n_workers": 0, "progress": False}
    siim = write_siim(tmp_path, 4, 4, pneumothorax_fraction=0.5, **options)
    assert siim.images_with == {"Pneumothorax": 4}
    rng = np.random.default_rng(0)
    plan = plan_findings(100, 0.4, rng, pneumothorax_fraction=0.2)
    assert sum(PNEUMOTHORAX in ids for ids in plan) == 20
    assert sum(not ids for ids in plan) == 40
    with pytest.raises(InputError, match=r"pneumothorax-fraction is 1\.5"):
        write_siim(tmp_path / "b", 1, 1, pneumothorax_fraction=1.5, **options)
    with pytest.raises(InputError, match=r"pneumothorax-fraction is -0\.1"):
        write_vinbig(tmp_path / "b", 1, 1, pneumothorax_fraction=-0.1, **options)
