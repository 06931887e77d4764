"""The infer command's SR and SEG: which files get one, what is said of the others, and after an interruption."""

import json
import shutil

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from xray.commands import card
from xray.commands.infer import Config, main
from xray.errors import FlagError, InputError
from xray.flags import parse_flags
from xray.inference.prediction_journal import PredictionJournal
from xray.phantoms.dicom import Storage, dicom_of, save_dicom
from xray.radiographs.image_check import Gate
from xray.structures.predictions import read_predictions
from xray.structures.probability_maps import read_maps

pytest.importorskip("highdicom")


def write_bright(path, has_mask, **elements):
    """A radiograph with or without a bright rectangle, which the segmenter takes for a pneumothorax."""
    rng = np.random.default_rng(2)
    pixels = rng.uniform(0.08, 0.23, (72, 80)).astype(np.float32)
    if has_mask:
        pixels[20:44, 30:60] = 0.82
    # Its window is the whole range, so that dark radiographs stay dark.
    storage = Storage(8, False, True, ExplicitVRLittleEndian, True)
    dataset = dicom_of(pixels, storage, path.stem, 0.14, "M", 50, "PA", rng)
    for keyword, value in elements.items():
        delattr(dataset, keyword) if value is None else setattr(dataset, keyword, value)
    path.parent.mkdir(exist_ok=True)
    save_dicom(dataset, path)


@pytest.fixture
def folder(tmp_path):
    """Two radiographs with a mask and one without, one that says not which study it is of, and a PNG."""
    import cv2

    raw = tmp_path / "raw"
    write_bright(raw / "a.dcm", True)
    write_bright(raw / "b.dcm", False)
    write_bright(raw / "c.dcm", True)
    write_bright(raw / "lost.dcm", True, StudyInstanceUID=None)
    assert cv2.imwrite(str(raw / "picture.png"), np.full((72, 80), 40, np.uint8))
    return raw


def infer(data, run, out, **changes):
    options = {"device": "cpu", "n_workers": 0, "batch_size": 1, "tta": False, **changes}
    return main(Config(weights=(str(run),), data_path=str(data), save_path=str(out), **options))


def test_the_server_and_its_node_give_the_same_objects(folder, segmentation_run, tmp_path):
    """An archive that has the one does not get another."""
    from xray.commands import serve
    from xray.serving.service import Limits, load_service, objects_of

    kinds = ("sr", "seg", "gsps", "sc")
    assert infer(folder, segmentation_run, tmp_path / "out", **dict.fromkeys(kinds, True)) == 0
    config = serve.Config(weights=(str(segmentation_run),), tta=False, dicom_objects=kinds)
    with load_service([segmentation_run], Limits(n_workers=1), "cpu", tta=False, gate_image=Gate("warn")) as service:
        results = serve.results_of(config, service, serve.algorithm_in(config, service, [segmentation_run]))
        objects = objects_of(service, results, folder / "a.dcm")
    assert set(objects) == set(kinds)
    for kind, made in objects.items():
        file = pydicom.dcmread(tmp_path / "out" / kind / "a.dcm")
        assert (made.SOPInstanceUID, made.SeriesInstanceUID) == (file.SOPInstanceUID, file.SeriesInstanceUID), kind


def test_dicom_files_get_a_report_and_where_there_is_a_mask_a_segmentation(folder, segmentation_run, tmp_path, capsys):
    assert infer(folder, segmentation_run, tmp_path / "out", sr=True, seg=True, report_threshold=0.0) == 0
    assert sorted(path.name for path in (tmp_path / "out" / "sr").iterdir()) == ["a.dcm", "b.dcm", "c.dcm"]
    assert sorted(path.name for path in (tmp_path / "out" / "seg").iterdir()) == ["a.dcm", "c.dcm"]
    said = capsys.readouterr().out
    assert f"3 SR: {tmp_path / 'out' / 'sr'}\n" in said
    assert f"2 SEG: {tmp_path / 'out' / 'seg'} (radiographs without a mask: 1)\n" in said
    assert "left out by SR and SEG: 1 (not said which image of which study it is), 1 (no DICOM file)\n" in said

    found = read_predictions(tmp_path / "out" / "predictions.json")
    rows = np.flatnonzero(found.table.images == found.image_ids.index("a"))
    from xray.structures.masks import decode_mask

    mask = np.max([decode_mask(found.masks[row]) for row in rows.tolist()], axis=0)
    seg = pydicom.dcmread(tmp_path / "out" / "seg" / "a.dcm")
    np.testing.assert_array_equal(seg.pixel_array, mask)
    assert seg.PatientID == "a"
    parameters = str(seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters)
    assert "segmentation sha256:" in parameters


def test_presentation_states_and_pictures_are_of_the_same_findings(folder, segmentation_run, tmp_path, capsys):
    out, options = tmp_path / "out", {"gsps": True, "sc": True, "report_threshold": 0.0}
    assert infer(folder, segmentation_run, out, **options) == 0
    said = capsys.readouterr().out
    for kind in ("gsps", "sc"):
        assert sorted(path.name for path in (out / kind).iterdir()) == ["a.dcm", "b.dcm", "c.dcm"]
        assert f"3 {kind.upper()}: {out / kind}\n" in said
    assert not (out / "sr").exists()
    state, picture = (pydicom.dcmread(out / kind / "a.dcm") for kind in ("gsps", "sc"))
    assert state.PatientID == picture.PatientID == "a"
    found = read_predictions(out / "predictions.json")
    boxes = found.table.boxes[found.table.images == found.image_ids.index("a")]
    (annotation,) = [item for item in state.GraphicAnnotationSequence if item.GraphicLayer == "FINDING_1"]
    lines = [np.array(line.GraphicData).reshape(-1, 2) for line in annotation.GraphicObjectSequence]
    for (x1, y1, x2, y2), line in zip(boxes.tolist(), lines, strict=False):
        np.testing.assert_allclose(line, [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)], atol=1e-3)
    assert len(lines) > len(boxes), "the outlines of the masks"
    # Again, decoded by another process: the same object, whose copy an archive does not keep.
    assert infer(folder, segmentation_run, tmp_path / "again", n_workers=1, **options) == 0
    for kind, made in (("gsps", state), ("sc", picture)):
        again = pydicom.dcmread(tmp_path / "again" / kind / "a.dcm")
        assert (again.SOPInstanceUID, again.SeriesInstanceUID) == (made.SOPInstanceUID, made.SeriesInstanceUID)
    assert pydicom.dcmread(tmp_path / "again" / "sc" / "a.dcm").PixelData == picture.PixelData


def test_the_other_class_probabilities_and_fhir(folder, segmentation_run, tmp_path, capsys):
    out, options = tmp_path / "out", {"sr": "comprehensive3d", "seg": "fractional", "fhir": True, "probabilities": True}
    assert infer(folder, segmentation_run, out, **options, report_threshold=0.0) == 0
    said = capsys.readouterr().out
    for kind, suffix in (("sr", "dcm"), ("seg", "dcm"), ("fhir", "json")):
        assert sorted(path.name for path in (out / kind).iterdir()) == [f"{name}.{suffix}" for name in "abc"]
        assert f"3 {kind.upper()}: {out / kind}\n" in said
    assert "left out by SR, SEG and FHIR: 1 (not said which image of which study it is), 1 (no DICOM file)" in said
    report, seg = (pydicom.dcmread(out / kind / "a.dcm") for kind in ("sr", "seg"))
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    assert seg.SegmentationType == "FRACTIONAL"
    maps = read_maps(out)
    expected = np.rint(maps.original(maps.image_ids.index("a"), 0) * 255)
    np.testing.assert_array_equal(seg.pixel_array, expected)
    bundle = json.loads((out / "fhir" / "a.json").read_text())
    found = [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == "ImagingSelection"]
    assert {one["studyUid"] for one in found} == {report.StudyInstanceUID}
    # As often as the structured report has regions.
    assert len(found) == str(report).count("Code Meaning                        LO: 'Image Region'") > 0
    # Again: the same objects, which an archive and a server keep once.
    assert infer(folder, segmentation_run, tmp_path / "again", **options, report_threshold=0.0) == 0
    for kind in ("sr", "seg"):
        again = pydicom.dcmread(tmp_path / "again" / kind / "a.dcm")
        assert again.SOPInstanceUID == pydicom.dcmread(out / kind / "a.dcm").SOPInstanceUID
    again = json.loads((tmp_path / "again" / "fhir" / "a.json").read_text())
    assert again["entry"] == bundle["entry"]


def test_what_changes_findings_changes_identifiers(folder, segmentation_run, tmp_path):
    """By the flags that change what objects hold; the others leave the object what it is."""
    uids = []
    flags = ({}, {"triplet": (0.9, 0.001, 0.5)}, {"scales": (1.0, 2.0)}, {"upright": True}, {"batch_size": 2})
    for number, changes in enumerate(flags):
        out = tmp_path / str(number)
        assert infer(folder, segmentation_run, out, sr=True, fhir=True, **changes) == 0
        bundle = json.loads((out / "fhir" / "a.json").read_text())
        uids.append((pydicom.dcmread(out / "sr" / "a.dcm").SOPInstanceUID, bundle["id"]))
    assert uids[-1] == uids[0]
    assert len({sr for sr, _ in uids[:-1]}) == len({fhir for _, fhir in uids[:-1]}) == len(flags) - 1


def test_a_card_beside_the_weights_leaves_identifiers_as_they_are(folder, segmentation_run, tmp_path):
    run, uids = tmp_path / "run", []
    shutil.copytree(segmentation_run, run)
    for number in range(2):
        out = tmp_path / str(number)
        assert infer(folder, run, out, sr=True) == 0
        report = pydicom.dcmread(out / "sr" / "a.dcm")
        uids.append(report.SOPInstanceUID)
        said = [element.value for element in report.iterall() if element.keyword == "TextValue"]
        assert ("model card: card.html beside the weights" in said) == (number == 1)
        if not number:
            card.main(card.Config(weights=run))
    assert uids[0] == uids[1]


def test_flags_stand_alone_or_with_a_word():
    def read(*flags):
        config = parse_flags(Config, ["--weights", "a", *flags, "--data-path", "b", "--save-path", "c"])
        return config.sr, config.seg

    assert read() == (False, False)
    assert read("--sr", "--seg") == (True, True)
    assert read("--sr", "comprehensive", "--seg", "binary") == (True, True)
    assert read("--sr", "comprehensive3d", "--seg", "fractional") == ("comprehensive3d", "fractional")
    assert read("--sr=comprehensive3d", "--seg=off") == ("comprehensive3d", False)
    assert read("--sr", "--no-sr", "--no_seg") == (False, False)


@pytest.mark.parametrize("flags", [("--sr", "3d"), ("--sr", "comprehensive3d", "comprehensive"), ("--seg", "0.5")])
def test_other_words_are_refused(flags):
    with pytest.raises(FlagError, match=f"^{flags[0]} takes nothing, or .* or off; it was given "):
        parse_flags(Config, ["--weights", "a", *flags, "--data-path", "b", "--save-path", "c"])


def test_an_interrupted_command_leaves_whole_reports_and_makes_the_others(
    folder, segmentation_run, tmp_path, monkeypatch
):
    add, done = PredictionJournal.add, []

    def add_two(self, portion):
        if len(done) == 2:
            raise KeyboardInterrupt
        add(self, portion)
        done.append(portion.stop)

    with monkeypatch.context() as patch:
        patch.setattr(PredictionJournal, "add", add_two)
        with pytest.raises(KeyboardInterrupt):
            infer(folder, segmentation_run, tmp_path / "out", sr=True)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "sr").glob("[ab].dcm")}
    assert len(before) == 2
    assert infer(folder, segmentation_run, tmp_path / "out", sr=True) == 0
    reports = {path.name: path for path in (tmp_path / "out" / "sr").iterdir()}
    assert sorted(reports) == ["a.dcm", "b.dcm", "c.dcm"]
    for name, content in before.items():
        assert reports[name].read_bytes() == content
    assert all(pydicom.dcmread(path).Modality == "SR" for path in reports.values())


def test_reports_of_earlier_findings_do_not_stay(folder, segmentation_run, tmp_path):
    assert infer(folder, segmentation_run, tmp_path / "out", sr=True) == 0
    first = (tmp_path / "out" / "sr" / "a.dcm").read_bytes()
    (folder / "c.dcm").write_bytes(b"\0" * 128 + b"DICM damaged")
    assert infer(folder, segmentation_run, tmp_path / "out", sr=True, overwrite=True) == 1
    assert sorted(path.name for path in (tmp_path / "out" / "sr").iterdir()) == ["a.dcm", "b.dcm"]
    assert (tmp_path / "out" / "sr" / "a.dcm").read_bytes() != first


def test_what_cannot_be_is_said_before_anything_is_done(folder, segmentation_run, vinbig_run, mask_store, tmp_path):
    with pytest.raises(InputError, match="is a dataset directory: give the files"):
        infer(mask_store, segmentation_run, tmp_path / "out", sr=True)
    with pytest.raises(InputError, match=r"^--gsps --sc: these refer to DICOM files"):
        infer(mask_store, segmentation_run, tmp_path / "out", gsps=True, sc=True)
    with pytest.raises(InputError, match="--seg writes the masks of segmenters"):
        infer(folder, vinbig_run, tmp_path / "out", seg=True)
    with pytest.raises(InputError, match="--seg writes the masks of segmenters"):
        infer(folder, vinbig_run, tmp_path / "out", seg="fractional")
    assert not (tmp_path / "out").exists()
