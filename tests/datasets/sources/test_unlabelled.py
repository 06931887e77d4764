"""Which unlabelled radiographs may be labelled beside a dataset, built by hand: its test split and folds are known."""

import json

import cv2
import numpy as np
import pytest

from xray.datasets.conversion import write_store
from xray.datasets.source import Source, SourceImage
from xray.datasets.sources.unlabelled import IN_TEST, LABELLED, TEST_PATIENT, read_unlabelled
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.phantoms.dicom import dicom_of, sample_storage, save_dicom
from xray.structures.boxes import BoxTable


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (48, 40), dtype=np.uint8)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Four training radiographs of the patients 1 to 4 in two folds, two test radiographs of 5 and 6."""
    root, images = tmp_path_factory.mktemp("labelled"), []
    for number in range(1, 7):
        path = root / f"known{number}.png"
        cv2.imwrite(str(path), picture(number))
        split = "test" if number > 4 else "train"
        images.append(SourceImage(path, path.name, path.stem, patient=str(number), split=split))
    categories = [{"id": 1, "name": "Nodule"}]
    source = Source("test", "pictures", images, BoxTable.empty(), [], [], categories, "f")
    write_store(source, root / "data", image_size=32, n_folds=2, n_workers=0)
    return open_store(root / "data")


@pytest.fixture
def folder(tmp_path):
    """(names of pictures by number, table) → a folder with them, and the table."""

    def write(numbers: dict[str, int], patients: dict[str, str] | None = None):
        root = tmp_path / "new"
        for name, number in numbers.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(root / name), picture(number))
        table = tmp_path / "patients.csv"
        rows = [f"{name},{patient}" for name, patient in (patients or {}).items()]
        table.write_text("\n".join(["file_name,patient", *rows]) + "\n")
        return root, table if patients else None

    return write


def reasons(source):
    return {drop.where: drop.reason for drop in source.dropped if drop.action == "left out"}


def test_the_test_split_is_left_out_by_id_patient_and_pixels(labelled, folder, tmp_path):
    names = {"known5.png": 90, "a/other.png": 91, "again.png": 6, "mine.png": 92, "known1.png": 93, "same.png": 2}
    root, table = folder(names, {"other.png": "5.0", "mine.png": "7"})
    source = read_unlabelled(root, labelled, patients=table)
    assert reasons(source) == {"known5.png": IN_TEST, "a/other.png": TEST_PATIENT, "known1.png": LABELLED}
    conversion = write_store(source, tmp_path / "out", image_size=32, n_folds=1, n_workers=0)
    # Pixels are compared when they are decoded; what is left is one radiograph, in one fold.
    assert conversion["counts"]["images"] == 1
    assert conversion["dropped"]["counts"][IN_TEST] == 2
    assert conversion["dropped"]["counts"][LABELLED] == 2
    store = open_store(tmp_path / "out")
    assert [(record["source_id"], record["patient"], record["fold"]) for record in store.records] == [("mine", "7", 0)]


def test_a_patient_of_a_fold_is_noted(labelled, folder):
    root, table = folder({"x.png": 90, "y.png": 91, "z.png": 92}, {"x.png": "3", "y.png": "4", "z.png": "new"})
    source = read_unlabelled(root, labelled, patients=table)
    fold_of = {record["patient"]: record["fold"] for record in labelled.records}
    assert [image.extra for image in source.images] == [
        {"not_for_folds": [fold_of["3"]]},
        {"not_for_folds": [fold_of["4"]]},
        {},
    ]


def test_the_patient_id_of_a_dicom_file_counts_and_is_not_kept(labelled, tmp_path):
    root = tmp_path / "new"
    root.mkdir()
    for name, patient in (("p", " 5"), ("q", "3"), ("r", "someone")):
        random = np.random.default_rng(ord(name))
        pixels = random.random((48, 40), dtype=np.float32)
        save_dicom(
            dicom_of(pixels, sample_storage(random), patient, 0.2, "F", 50, "PA", random), root / f"{name}.dicom"
        )
    source = read_unlabelled(root, labelled)
    assert reasons(source) == {"p.dicom": TEST_PATIENT}
    assert [image.extra.get("not_for_folds") for image in source.images] == [[labelled.records[2]["fold"]], None]
    write_store(source, tmp_path / "out", image_size=32, n_folds=1, n_workers=0)
    assert "someone" not in (tmp_path / "out" / "annotations.json").read_text()


def test_nothing_left_is_one_line(labelled, folder):
    root, _ = folder({"known1.png": 1})
    with pytest.raises(InputError, match="none of its 1 radiographs is left to label"):
        read_unlabelled(root, labelled)


def test_another_dataset_or_folder_is_another_source(labelled, folder):
    root, _ = folder({"x.png": 90})
    before = read_unlabelled(root, labelled).fingerprint
    assert read_unlabelled(root, labelled).fingerprint == before
    folder({"y.png": 91})
    assert read_unlabelled(root, labelled).fingerprint != before


def test_folders_that_may_name_a_patient_are_hidden(labelled, folder, tmp_path):
    root, _ = folder({"Jane Doe/x.png": 90})
    write_store(read_unlabelled(root, labelled), tmp_path / "out", image_size=32, n_folds=1, n_workers=0)
    assert json.loads((tmp_path / "out" / "annotations.json").read_text())["images"][0]["file_name"] == "…/x.png"
