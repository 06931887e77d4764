"""What a search through folders takes for a radiograph, and what it says of the rest."""

import io
from pathlib import Path

import dicom_cases as cases
import PIL.Image
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from xray.datasets.inputs import open_inputs
from xray.errors import InputError
from xray.radiographs.file_kinds import Content, content_of, other_format
from xray.radiographs.radiograph import SUFFIXES, RadiographError, find_radiographs, read_radiograph


def radiograph(path: Path, syntax: str = uid.ExplicitVRLittleEndian) -> Path:
    return cases.save(path, cases.dataset(cases.chest_values(40, 50), 12), syntax)


def without_preamble(path: Path, is_implicit: bool) -> Path:
    """A bare data set, as archives of old store it."""
    ds = cases.dataset(cases.chest_values(40, 50), 12)
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, is_implicit
    write_dataset(stream, ds)
    path.write_bytes(stream.getvalue())
    return path


def directory(path: Path) -> Path:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = uid.MediaStorageDirectoryStorage
    ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    ds.FileSetID, ds.DirectoryRecordSequence = "X", []
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("name", ["x.IMA", "x.ima", "x", "1.2.840.113619.2.5", "IM0001.img", "x.dcm", "x.DCM"])
@pytest.mark.parametrize("how", ["preamble", "implicit", "explicit"])
def test_dicom_is_found_by_its_content(name, how, tmp_path):
    path = tmp_path / name
    if how == "preamble":
        radiograph(path)
    else:
        without_preamble(path, how == "implicit")
    assert content_of(path, SUFFIXES) == Content.RADIOGRAPH
    assert find_radiographs(tmp_path) == [path]
    assert open_inputs(tmp_path).warnings == ()
    assert read_radiograph(path).pixels.shape == (40, 50)


@pytest.mark.parametrize(
    ("name", "data", "content"),
    [
        ("DICOMDIR", None, Content.DIRECTORY),
        ("dicomdir.dcm", None, Content.DIRECTORY),
        ("index", None, Content.DIRECTORY),
        ("x.tiff", b"II*\0" + bytes(200), Content.UNREAD),
        ("x.jp2", b"", Content.UNREAD),
        ("x.dcm.gz", b"\x1f\x8b" + bytes(200), Content.UNREAD),
        ("x.nii.gz", b"\x1f\x8b" + bytes(200), Content.UNREAD),
        ("blob", b"\1\2\3\0" * 100, Content.UNREAD),
        ("x.scan", b"\x89PNG\r\n\x1a\n" + bytes(200), Content.NAMED_OTHERWISE),
        ("x", b"\xff\xd8\xff\xe0" + bytes(200), Content.NAMED_OTHERWISE),
        ("README", b"Radiographs of 2019.\n", Content.NOTHING),
        ("table.csv", b"a\0b", Content.NOTHING),
        ("weights.pt", bytes(200), Content.NOTHING),
        ("archive.tar.gz", b"\x1f\x8b" + bytes(200), Content.NOTHING),
        ("empty", b"", Content.NOTHING),
    ],
)
def test_others(name, data, content, tmp_path):
    path = tmp_path / name
    directory(path) if data is None else path.write_bytes(data)
    assert content_of(path, SUFFIXES) == content
    radiograph(tmp_path / "a.dcm")
    inputs = open_inputs(tmp_path)
    assert inputs.ids == ("a",)
    assert [warning.where for warning in inputs.warnings] == ([] if content == Content.NOTHING else [name])


def test_a_folder_without_radiographs_says_what_there_is(tmp_path):
    directory(tmp_path / "DICOMDIR")
    (tmp_path / "x.tiff").write_bytes(b"II*\0")
    passed_over = []
    with pytest.raises(InputError, match=r"no radiograph in .* \(2 other files, such as DICOMDIR, are no radiographs"):
        find_radiographs(tmp_path, passed_over=passed_over)
    assert [warning.where for warning in passed_over] == ["DICOMDIR", "x.tiff"]


@pytest.mark.parametrize(
    ("kind", "name"), [("JPEG2000", "JPEG 2000"), ("TIFF", "TIFF"), ("GIF", "GIF"), ("WEBP", "WebP")]
)
def test_other_formats_are_named(kind, name, tmp_path):
    stream = io.BytesIO()
    PIL.Image.new("L", (40, 40)).save(stream, kind)
    (tmp_path / "x.png").write_bytes(stream.getvalue())
    assert other_format(stream.getvalue()) == name
    with pytest.raises(RadiographError, match=rf"x\.png: {name}, which is not read: convert it to PNG"):
        read_radiograph(tmp_path / "x.png")


def test_jpeg_xl_is_named():
    assert other_format(b"\xff\x0a\xfa") == "JPEG XL"
    assert other_format(b"\0\0\0\x0cJXL \r\n\x87\n") == "JPEG XL"
    assert other_format(b"\xff\x4f\xff\x51\0") == "JPEG 2000"
    assert other_format(b"image_id,class_name") is None
