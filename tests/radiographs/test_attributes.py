"""What is kept of a header beside the pixels: our own words, and nothing that could name anybody."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.datasets.conversion import write_store
from xray.datasets.source import Source, SourceImage
from xray.phantoms.dicom import dicom_of, sample_storage
from xray.radiographs import attributes
from xray.radiographs.attributes import age_band, manufacturer, plain_attributes
from xray.structures.boxes import BoxTable


@pytest.mark.parametrize(
    ("value", "band"),
    [
        ("064Y", "60-69"), ("000Y", "0-9"), ("009Y", "0-9"), ("010Y", "10-19"), ("089Y", "80-89"), ("090Y", "90+"),
        ("104Y", "90+"), ("018M", "0-9"), ("130M", "10-19"), ("003W", "0-9"), ("010D", "0-9"), (64, "60-69"),
        (64.5, "60-69"), ("64", "60-69"), ("60-69", "60-69"), ("0-9", "0-9"), ("90+", "90+"), ("", None), (None, None),
        ("-5", None), ("999Y", None), ("90-99", None), ("60-68", None), ("Doe^Jane", None), ("19640102", None),
        (float("nan"), None), (True, None),
    ],
)  # fmt: skip
def test_ages_become_decades(value: object, band: str | None) -> None:
    assert age_band(value) == band
    assert band is None or age_band(band) == band


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("GE Healthcare", "GE"), ('"GE MEDICAL SYSTEMS"', "GE"), ("General Electric Co.", "GE"), ("SIEMENS", "Siemens"),
        ("FUJIFILM Corporation", "Fujifilm"), ("KONICA MINOLTA", "Konica Minolta"), ("Agfa-Gevaert", "Agfa"),
        ("St. Bridget's Hospital", "other"), ("Doe^Jane", "other"), ("  ", None), ("", None),
    ],
)  # fmt: skip
def test_manufacturers_are_names_of_ours(value: str, name: str | None) -> None:
    assert manufacturer(value) == name


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("PA", "PA"), ("ap", "AP"), ("AP Supine", "AP"), ("AP_horizontal", "AP"), ("PA (erect)", "PA"),
        ("AP semi-erect portable", "AP"), ("Left lateral", "LATERAL"), ("lateral, upright", "LATERAL"), ("LL", "LL"),
        ("supine", None), ("AP AXIAL", None), ("AP Jane Doe", None), ("AP supine 2", None), ("AP PA supine", None),
        ("", None),
    ],
)  # fmt: skip
def test_views_in_words(value: str, expected: str | None) -> None:
    assert attributes.view(value) == expected


ALLOWED = {
    "view": set(attributes.VIEWS),
    "sex": set(attributes.SEXES),
    "age": {f"{10 * decade}-{10 * decade + 9}" for decade in range(9)} | {"90+"},
    "manufacturer": {*attributes._MANUFACTURERS.values(), "other"},
}


@given(st.dictionaries(st.sampled_from([*attributes.ATTRIBUTES, "name"]), st.one_of(st.text(), st.integers())))
def test_nothing_but_our_own_words_comes_out(found: dict) -> None:
    for name, value in plain_attributes(found).items():
        assert value in ALLOWED[name]


def test_convert_keeps_them_and_nothing_that_names_anybody(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.random((40, 60), dtype=np.float32)
    images = []
    for number, age in enumerate((67, 93, 30)):
        dataset = dicom_of(pixels, sample_storage(rng), f"i{number}", 0.2, "F", age, "PA", rng)
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Doe^Jane", "MRN-0815", "19641231"
        dataset.Manufacturer = "Doe's own" if number == 2 else "Philips Medical Systems"
        if number == 1:
            dataset.ViewPosition = "Doe^Jane"
        path = tmp_path / f"i{number}.dicom"
        pydicom.dcmwrite(path, dataset)
        images.append(SourceImage(path, path.name, path.stem))
    categories = [{"id": 1, "name": "Nodule"}]
    source = Source("test", "files", images, BoxTable.empty(), [], [], categories, "f")
    write_store(source, tmp_path / "data", image_size=32, n_folds=2, n_workers=0)
    text = (tmp_path / "data/annotations.json").read_text() + (tmp_path / "data/conversion.json").read_text()
    records = json.loads((tmp_path / "data/annotations.json").read_text())["images"]
    kept = [{name: record.get(name) for name in attributes.ATTRIBUTES} for record in records]
    assert kept == [
        {"view": "PA", "sex": "F", "age": "60-69", "manufacturer": "Philips"},
        {"view": None, "sex": "F", "age": "90+", "manufacturer": "Philips"},
        {"view": "PA", "sex": "F", "age": "30-39", "manufacturer": "other"},
    ]
    for planted in ("Doe", "Jane", "MRN", "0815", "1964", "1231", "93Y", "093"):
        assert planted not in text
