"""Orthanc takes reports of both classes and probabilities, keeps each once, and gives them back as they were."""

import subprocess
from dataclasses import replace

import numpy as np
import pydicom
import pytest

pytest.importorskip("pynetdicom")
pytest.importorskip("highdicom")

import highdicom as hd
from test_dicom_real_peers import FINDINGS, Orthanc, program, written

from xray.outputs.dicom.objects import Algorithm, save_object
from xray.outputs.dicom.results import DicomResults

MAPS = np.linspace(0, 1, 80 * 80, dtype=np.float32).reshape(1, 80, 80)


def test_orthanc_keeps_each_object_once(tmp_path):
    program("Orthanc", "orthanc")
    radiograph = written(tmp_path / "radiograph.dcm", "1.2.840.10008.1.2.1")
    findings = replace(FINDINGS, maps=MAPS)
    files = []
    for options in ({"sr": True, "seg": True}, {"sr": "comprehensive3d", "seg": "fractional"}):
        results = DicomResults(Algorithm("xray", "0.1.0"), map_labels=(1,), **options)
        for kind, made in results.of(radiograph, findings).items():
            files.append(tmp_path / f"{kind}-{len(files)}.dcm")
            save_object(files[-1], made)
    with Orthanc(tmp_path / "orthanc", 1) as orthanc:
        send = [program("storescu", "dcmtk"), "-R", "-aec", "ORTHANC", "127.0.0.1", str(orthanc.port)]
        # A second sending replaces nothing and doubles nothing.
        for _ in range(2):
            done = subprocess.run([*send, radiograph, *files], capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stderr
        (study,) = orthanc.ask("/studies")
        instances = [instance["ID"] for instance in orthanc.ask(f"/studies/{study}/instances")]
        assert len(instances) == 5
        kept = {}
        for number, instance in enumerate(instances):
            (tmp_path / f"back-{number}.dcm").write_bytes(orthanc.ask(f"/instances/{instance}/file"))
            read = pydicom.dcmread(tmp_path / f"back-{number}.dcm")
            kept[read.SOPInstanceUID] = read, tmp_path / f"back-{number}.dcm"
    for file in files:
        sent = pydicom.dcmread(file)
        back, path = kept[sent.SOPInstanceUID]
        assert back == sent
        if back.Modality == "SR":
            (group,) = hd.sr.srread(path).content.get_planar_roi_measurement_groups()
            np.testing.assert_array_equal(group.roi.value[[0, 2]], [(20, 10), (50, 30)])
    kinds = sorted(back.SegmentationType for back, _ in kept.values() if back.Modality == "SEG")
    assert kinds == ["BINARY", "FRACTIONAL"]
