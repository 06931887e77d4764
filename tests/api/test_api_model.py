"""The API's models: they find what the command finds, whatever radiographs come as, in a script without a guard too."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from api_cases import write_dicom, write_png

import xray
from xray.commands import infer
from xray.datasets.fingerprint import ids_sha256
from xray.errors import InputError
from xray.structures.made_by import read_made_by
from xray.structures.predictions import NO_FINDING_CATEGORY, read_predictions
from xray.structures.probability_maps import read_maps

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    """Four good radiographs, one that is empty, and one that is no radiograph."""
    raw = tmp_path / "raw"
    write_dicom(raw / "b.dicom", 1, width=90, height=70)
    write_png(raw / "a.png", 2, width=70, height=90)
    write_dicom(raw / "deep" / "c.dcm", 3, width=80, height=80)
    write_png(raw / "e.png", 4, width=90, height=60)
    (raw / "d.png").write_bytes(b"")
    (raw / "f.tif").write_bytes(b"II*\0 and so on")
    return raw


@pytest.fixture(scope="module")
def detector(vinbig_run):
    return xray.load(vinbig_run, device="cpu")


@pytest.fixture(scope="module")
def segmenter(segmentation_run, classification_run):
    """A segmenter, and a classifier beside it."""
    return xray.load(segmentation_run, classification_run, device="cpu")


def rows_by_image(predictions):
    """{image id: [(category, score, box, counts of the mask)]}, sorted."""
    table, found = predictions.table, {}
    for row in range(len(table)):
        name = predictions.image_ids[table.images[row]]
        counts = predictions.masks[row]["counts"] if row in predictions.masks else ""
        values = (int(table.labels[row]), float(table.scores[row]), *table.boxes[row].tolist(), counts)
        found.setdefault(name, []).append(values)
    return {name: sorted(rows) for name, rows in found.items()}


def command(runs, data, out, **changes):
    config = infer.Config(
        weights=tuple(map(str, runs)), data_path=str(data), save_path=str(out), device="cpu", n_workers=0, **changes
    )
    infer.main(config)
    return read_predictions(out / "predictions.json")


def test_a_detector_finds_what_the_command_finds(detector, vinbig_run, folder, tmp_path):
    results = detector(folder)
    expected = command([vinbig_run], folder, tmp_path / "command")
    results.save(tmp_path / "api")
    assert rows_by_image(read_predictions(tmp_path / "api" / "predictions.json")) == rows_by_image(expected)
    made, by_command = (read_made_by(tmp_path / name / "predictions.json") for name in ("api", "command"))
    assert made["models"] == by_command["models"]
    assert made["settings"] == by_command["settings"]
    assert made["radiographs"] == {"n": 4, "ids_sha256": ids_sha256("abce"), "dataset": None}
    assert results.ids == ["a", "b", "c", "e"]
    assert results.failures == {str(folder / "d.png"): "d.png: the file is empty"}
    assert results.passed_over == ("f.tif: neither DICOM nor PNG nor JPEG, passed over",)
    for result in results:
        assert len(result) > 0
        assert result.normal == pytest.approx(1 - result.scores.max())
        assert result.path.parent.is_absolute()
        assert NO_FINDING_CATEGORY not in result.labels


def test_a_segmenter_and_a_classifier_find_what_the_command_finds(
    segmenter, segmentation_run, classification_run, mask_source, tmp_path
):
    data, runs = mask_source / "png_images", (segmentation_run, classification_run)
    results = segmenter.predict(data, maps=True)
    expected = command(runs, data, tmp_path / "command", probabilities=True)
    results.save(tmp_path / "api")
    assert rows_by_image(read_predictions(tmp_path / "api" / "predictions.json")) == rows_by_image(expected)
    assert any(len(result) for result in results)
    maps = read_maps(tmp_path / "command")
    for number, result in enumerate(results):
        assert result.id == maps.image_ids[number]
        np.testing.assert_array_equal(result.probability_map[0], maps.original(number, 0))
        probability = {name: column[number] for name, column in maps.labels.items()}
        assert result.probabilities == pytest.approx(probability, abs=1e-6)
        union = result.masks.any(axis=0)
        assert union.shape == result.pixels.shape == (72, 80)
        if len(result):
            assert union.any(axis=0).nonzero()[0][0] == result.boxes[:, 0].min()


def test_files_arrays_and_data_sets_give_the_same(detector, folder):
    path = folder / "b.dicom"
    expected = detector(path)
    pixels = xray.read_radiograph(path).pixels
    for x in (str(path), pixels, pydicom.dcmread(path)):
        found = detector(x)
        assert type(found) is xray.Result
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.pixels, pixels)
    several = detector([path, folder / "a.png"])
    assert type(several) is xray.Results
    np.testing.assert_allclose(several["b"].boxes, expected.boxes, atol=1e-3)
    assert detector([]).table.empty


def test_one_radiograph_that_cannot_be_read_is_an_error(detector, folder):
    with pytest.raises(InputError, match=r"^d\.png: the file is empty$"):
        detector(folder / "d.png")
    dataset = pydicom.dcmread(folder / "b.dicom")
    del dataset.PixelData
    with pytest.raises(InputError, match=r"^b\.dicom: "):
        detector(dataset)


def test_warnings_of_the_decoder_are_kept(detector, tmp_path):
    assert cv2.imwrite(str(tmp_path / "grey.png"), np.full((50, 60), 90, dtype=np.uint8))
    write_png(tmp_path / "good.png", 1)
    results = detector(tmp_path)
    assert results.warnings["grey"][0] == "nearly all of its pixels are of one grey"
    assert detector(tmp_path / "grey.png").warnings == results["grey"].warnings


def test_threads_may_share_a_model(detector, folder):
    paths = [folder / "a.png", folder / "b.dicom"] * 4
    expected = {path: detector(path).table for path in set(paths)}
    with ThreadPoolExecutor(4) as threads:
        for path, result in zip(paths, threads.map(detector, paths), strict=True):
            assert result.table.equals(expected[path])


def test_reports_of_files_name_their_images(detector, folder, tmp_path):
    pytest.importorskip("highdicom")
    written = detector(folder).save(tmp_path / "out", sr=True)
    reports = [path.relative_to(tmp_path / "out").as_posix() for path in written[:-1]]
    assert reports == ["sr/b.dcm", "sr/c.dcm"]
    report = pydicom.dcmread(written[0])
    written = detector(folder).save(tmp_path / "pictures", gsps=True, sc=True)
    pictures = [path.relative_to(tmp_path / "pictures").as_posix() for path in written[:-1]]
    assert pictures == ["gsps/b.dcm", "sc/b.dcm", "gsps/c.dcm", "sc/c.dcm"]
    # And of a data set in memory, whose pixels and header are what there is.
    again = detector(pydicom.dcmread(folder / "b.dicom")).save(tmp_path / "memory", gsps=True)
    states = [pydicom.dcmread(path) for path in (written[0], again[0])]
    assert states[0].SOPInstanceUID == states[1].SOPInstanceUID
    assert states[0].SoftcopyVOILUTSequence == states[1].SoftcopyVOILUTSequence
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.1"


def test_reports_of_the_other_class_probabilities_and_fhir(segmenter, folder, tmp_path):
    pytest.importorskip("highdicom")
    results = segmenter.predict(folder / "b.dicom", maps=True)
    results = xray.Results([results]) if isinstance(results, xray.Result) else results
    written = results.save(tmp_path / "out", sr="comprehensive3d", seg="fractional", fhir=True)
    names = [path.relative_to(tmp_path / "out").as_posix() for path in written]
    assert names == ["sr/b.dcm", "seg/b.dcm", "fhir/b.json", "predictions.json"]
    assert pydicom.dcmread(written[0]).SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    steps = np.rint(results[0].probability_map[0] * 255)
    np.testing.assert_array_equal(pydicom.dcmread(written[1]).pixel_array, steps)
    with pytest.raises(InputError, match=r"have them kept, by predict\(…, maps=True\)"):
        segmenter.predict([folder / "b.dicom"]).save(tmp_path / "other", seg="fractional")
    with pytest.raises(InputError, match=r"sr is '3d': give True, False, 'comprehensive' or 'comprehensive3d'"):
        results.save(tmp_path / "other", sr="3d")
    assert not (tmp_path / "other").exists()


def test_maps_need_a_segmenter(detector, folder):
    with pytest.raises(InputError, match="maps are those of segmenters"):
        detector.predict(folder, maps=True)


def test_what_a_model_says_of_itself(detector, segmenter):
    assert repr(detector) == "<xray.Model: 1 detector on cpu, 14 categories>"
    assert repr(segmenter) == "<xray.Model: 1 segmenter, 1 classifier on cpu, 1 categories>"
    assert segmenter.categories == {1: "Pneumothorax"}
    assert (detector.device.type, detector.canvas_size) == ("cpu", 64)


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ((), {}, "no run directory given"),
        ((["a", "b"],), {}, "is no path: give the run directories one by one"),
        (("s3://bucket/run",), {}, "is an address"),
        (("nowhere",), {}, "no run directory at nowhere"),
        (("nowhere",), {"device": "gpu"}, "device is 'gpu': it must be auto, cpu or cuda; did you mean cuda[?]"),
        (("nowhere",), {"gate": "no"}, "gate is no: it must be soft or hard"),
        (("nowhere",), {"gate_threshold": 0.5}, "gate_threshold is 0.5: it must be left out, or with gate hard"),
        (("nowhere",), {"gate": "hard", "gate_threshold": 2}, "gate_threshold is 2: give 0 to 1"),
        (("nowhere",), {"triplet": (0.2, 0, 0.5)}, "BOTTOM not above TOP"),
        (("nowhere",), {"prune": 5}, "prune is 5"),
        (("nowhere",), {"precision": 32}, "precision is 32"),
        (("nowhere",), {"batch_size": -1}, "batch_size is -1"),
        (("nowhere",), {"runtime": "onnx", "prune": 1}, "prune is 1: it must be 0 with runtime onnx"),
    ],
)
def test_what_cannot_be_loaded(runs, options, message):
    with pytest.raises(InputError, match=message):
        xray.load(*runs, **options)


def test_fused_with_itself_nothing_changes_but_what_overlaps(detector, folder, tmp_path):
    results = detector(folder).above(0.05)
    results.save(tmp_path / "out")
    fused = xray.fuse([results, tmp_path / "out" / "predictions.json"], weights=[2, 1])
    assert fused.ids == results.ids
    for one, two in zip(fused, results, strict=True):
        assert one.normal == pytest.approx(two.normal, abs=1e-6)
        np.testing.assert_array_equal(one.pixels, two.pixels)
        assert set(one.names) <= set(two.names)
    files = xray.fuse([tmp_path / "out" / "predictions.json"] * 2)
    assert files.table["category"].isin(results.table["category"]).all()
    assert files[0].size is None


SCRIPT = """
import sys
from pathlib import Path
import xray
print("started", flush=True)
model = xray.load(sys.argv[1], device="cpu")
results = model(sys.argv[2])
print(len(results), len(results.failures))
import multiprocessing
print(multiprocessing.active_children())
"""


def test_a_script_without_a_guard(vinbig_run, folder, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(vinbig_run), str(folder)],
        capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "started\n4 1\n[]\n"
