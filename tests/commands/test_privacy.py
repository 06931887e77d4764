"""Nothing that tells who a patient is leaves a DICOM file: planted values are searched for in all that is written."""

import base64
import io
import json
import re
import shutil
import struct
import zipfile
import zlib

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

PERSON = {
    "PatientName": "Zzyzxson^Jörgenhild",
    "PatientID": "PID-8392-0174",
    "PatientBirthDate": "19430617",
    "AccessionNumber": "ACC5566778899",
    "InstitutionName": "Sankt Quirinus Spital",
    "ReferringPhysicianName": "Überweiserin^Doktora",
    "PatientAddress": "Plantagengasse 77",
    "OtherPatientIDs": "OTHER-55-GHX",
    "PatientTelephoneNumbers": "0800-4711-0815",
    "StudyDescription": "Thorax Zzyzxson pa",
    "StudyDate": "20190831",
}
PRIVATE = "PRIVATVERMERK-31"
FOLDER = "Akte_Zzyzxson"
SUBFOLDER = "Zzyzxson_2019"
IN_PIXEL_TAG = "QUIXOTRON 7"
"""Stands where a word that matters for the pixels belongs, as in a damaged file."""
PLANTED = {
    *PERSON.values(), PRIVATE, FOLDER, SUBFOLDER, IN_PIXEL_TAG, "Zzyzxson", "Jörgenhild", "Überweiserin", "1943-06-17",
    "17.06.1943",
}  # fmt: skip
N = 12


def pixels_of(number, side=72):
    grey = np.random.default_rng(number).integers(20, 60, (side, 80), dtype=np.uint8)
    if number % 3:
        grey[10 + number : 34 + number, 20:50] = 150 + 30 * (number % 3)
    return grey


def write_dicom(path, number, **elements):
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.SpecificCharacterSet = "ISO_IR 100"
    for name, value in PERSON.items():
        setattr(ds, name, value)
    block = ds.private_block(0x0099, "MAKER", create=True)
    block.add_new(0x01, "LO", PRIVATE)
    pixels = pixels_of(number)
    ds.Rows, ds.Columns, ds.SamplesPerPixel = *pixels.shape, 1
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(ds, name, value)
    with pydicom.config.disable_value_validation():
        pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def write_broken(folder, suffix):
    """Files that cannot be read, each in another way, with the person in them; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = write_dicom(folder / f"b_whole{suffix}", 1).read_bytes()
    (folder / f"b_whole{suffix}").unlink()
    person = PERSON["PatientName"].encode("latin-1")
    files = {
        "b_cut": whole[:-2000],
        "b_header": whole[: whole.index(person) + len(person)],
        "b_no_pixels": whole[: whole.index(struct.pack("<HH", 0x7FE0, 0x0010))],
        "b_text": person * 40,
        "b_png": b"\x89PNG\r\n\x1a\n" + person * 40,
        "b_jpeg": b"\xff\xd8\xff\xfe\x00\x40" + person * 40,
        "b_empty": b"",
    }
    for name, content in files.items():
        (folder / f"{name}{suffix}").write_bytes(content)
    words = {
        "b_photometric": {"PhotometricInterpretation": IN_PIXEL_TAG},
        "b_slope": {"RescaleSlope": "1", "RescaleIntercept": "0", "WindowCenter": "1", "WindowWidth": "-1"},
        "b_shape": {"PresentationLUTShape": IN_PIXEL_TAG},
        "b_frames": {"NumberOfFrames": "77"},
        "b_samples": {"SamplesPerPixel": 3},
        "b_bits": {"BitsAllocated": 12},
    }
    for name, elements in words.items():
        write_dicom(folder / f"{name}{suffix}", 1, **elements)
    syntax = write_dicom(folder / f"b_syntax{suffix}", 1)
    # A transfer syntax that is text, of the same length.
    text = IN_PIXEL_TAG.encode().ljust(len(ExplicitVRLittleEndian), b" ")
    syntax.write_bytes(syntax.read_bytes().replace(ExplicitVRLittleEndian.encode(), text))
    return sorted(path.name.removesuffix(suffix) for path in folder.glob(f"b_*{suffix}"))


def write_sources(root):
    """A source of each kind, of DICOM files."""
    rows = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
    for number in range(N):
        write_dicom(root / "vinbig" / "train" / f"v{number:02d}.dicom", number)
        box = f"Aortic enlargement,0,R1,20,{10 + number},50,{34 + number}" if number % 3 else "No finding,14,R1,,,,"
        rows.append(f"v{number:02d},{box}")
    broken = write_broken(root / "vinbig" / "train", ".dicom")
    rows += [f"{name},No finding,14,R1,,,," for name in broken]
    (root / "vinbig" / "train.csv").write_text("\n".join(rows) + "\n")

    rows = ["ImageId,EncodedPixels"]
    for number in range(N):
        # Some of a real archive's folders are UIDs, and some are what somebody called them.
        folder = root / "siim" / "dicom-images-train" / (SUBFOLDER if number % 2 else f"1.2.276.0.{number}")
        write_dicom(folder / "1.2.3.4.5" / f"s{number:02d}.dcm", number)
        rows.append(f"s{number:02d},{f'{20 * 72 + 12} 20 52 20 52 20' if number % 3 else '-1'}")
    rows += [f"{name},-1" for name in write_broken(root / "siim" / "dicom-images-train" / SUBFOLDER, ".dcm")]
    (root / "siim" / "train-rle.csv").write_text("\n".join(rows) + "\n")

    images, annotations = [], []
    for number in range(6):
        write_dicom(root / "coco" / "images" / f"c{number}.dcm", number)
        images.append({"id": number, "file_name": f"c{number}.dcm"})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": [20, 10 + number, 30, 24]})
    for name in write_broken(root / "coco" / "images", ".dcm"):
        images.append({"id": len(images), "file_name": f"{name}.dcm"})
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "bright"}]}
    (root / "coco" / "annotations.json").write_text(json.dumps(coco))

    for number in range(6):
        write_dicom(root / "lungs" / "CXR_png" / f"l{number}.dcm", number)
        mask = np.zeros((72, 80), dtype=np.uint8)
        mask[20:50, 10:40] = 255
        (root / "lungs" / "mask").mkdir(exist_ok=True)
        assert cv2.imwrite(str(root / "lungs" / "mask" / f"l{number}_mask.png"), mask)
    write_broken(root / "lungs" / "CXR_png", ".dcm")
    shutil.copy(root / "lungs" / "mask" / "l0_mask.png", root / "lungs" / "mask" / "b_cut_mask.png")
    shutil.copy(root / "lungs" / "CXR_png" / "b_cut.dcm", root / "lungs" / "mask" / "l1_mask.dcm")
    (root / "lungs" / "mask" / "l1_mask.png").unlink()

    for number in range(N):
        folder = root / "folders" / ("ill" if number % 2 else "normal") / SUBFOLDER
        write_dicom(folder / f"f{number:02d}.dcm", number)
    write_broken(root / "folders" / "ill" / SUBFOLDER, ".dcm")
    shutil.copy(root / "folders" / "ill" / SUBFOLDER / "f01.dcm", root / "folders" / "normal" / SUBFOLDER / "copy.dcm")
    return root


FORMS = {
    value.encode(encoding): value
    for text in PLANTED
    for value in {text, text.upper(), text.replace("^", " "), text.replace("^", ", ")}
    for encoding in ("utf-8", "latin-1", "utf-16-le", "utf-16-be")
} | {json.dumps(text).strip('"').encode(): text for text in PLANTED}


def found_in(content):
    """The planted values in some bytes, and in what they hold: archives, compressed text of PNG, base64 of HTML."""
    found = {value for form, value in FORMS.items() if form in content}
    # All four bytes: a tensor may begin with two of them by chance.
    if content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                found |= found_in(name.encode()) | found_in(archive.read(name))
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        place = 8
        while place < len(content):
            length, kind = struct.unpack(">I4s", content[place : place + 8])
            data = content[place + 8 : place + 8 + length]
            assert kind not in (b"eXIf", b"tEXt") or b"Software" in data, kind
            if kind in (b"zTXt", b"iTXt", b"iCCP"):
                for start in range(len(data)):
                    try:
                        found |= found_in(zlib.decompress(data[start:]))
                        break
                    except zlib.error:
                        continue
            place += 12 + length
    for text in re.findall(rb"base64,([A-Za-z0-9+/=]+)", content):
        found |= found_in(base64.b64decode(text))
    if content[:2] == b"\x1f\x8b":
        found |= found_in(zlib.decompress(content, 31))
    return found


def test_the_search_finds_what_is_hidden(tmp_path):
    """Otherwise the tests below would show nothing."""
    person = PERSON["PatientName"]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", person)
    picture = cv2.imencode(".png", np.zeros((4, 4), dtype=np.uint8))[1].tobytes()
    text = b"Comment\0\0" + zlib.compress(person.encode("latin-1"))
    chunk = struct.pack(">I4s", len(text), b"zTXt") + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    hidden = [
        person.encode("utf-16"), archive.getvalue(), picture[:33] + chunk + picture[33:],
        b"<img src='data:image/png;base64," + base64.b64encode(archive.getvalue()) + b"'>", json.dumps(person).encode(),
    ]  # fmt: skip
    for content in hidden:
        assert found_in(content)
    assert not found_in(picture)
    assert found_in(write_dicom(tmp_path / "a.dcm", 1).read_bytes()) >= {*PERSON.values(), PRIVATE}


class Watched:
    """Runs commands in a folder; what they say is searched at once, what they write by `check`."""

    def __init__(self, forks, root):
        self.forks, self.root, self.n_commands = forks, root, 0

    def run(self, tool, *flags, status=0, **orders):
        command = self.forks.run(tool, *flags, cwd=str(self.root), timeout=600, **orders)
        self.n_commands += 1
        print(f"{tool} {flags[0]}: status {command.status}", flush=True)
        assert command.status == status, (tool, command.err, command.out)
        for text in (command.out, command.err):
            assert "Traceback" not in text
            assert str(self.root) not in text, (tool, text)
            # The path that the user gave is repeated as it was given.
            own = text
            for flag in flags:
                own = own.replace(str(flag), "") if "/" in str(flag) else own
            assert not found_in(own.encode()), (tool, found_in(own.encode()), text)
        return command

    def check(self, folder="out", left_alone=()):
        """Searches all files below a folder; returns how many."""
        n_files = 0
        for path in sorted((self.root / folder).rglob("*")):
            assert not found_in(path.name.encode()), path
            if path.is_file():
                content = path.read_bytes()
                if path.name == "config.yaml":
                    # Needed to resume; it stays in the run directory.
                    content = re.sub(rb"^(data_path|save_path): .*$", b"", content, flags=re.MULTILINE)
                if path.name not in left_alone:
                    assert str(self.root).encode() not in content, path
                assert not found_in(content), (path, found_in(content))
                n_files += 1
        return n_files


@pytest.fixture
def watched(forks, tmp_path):
    write_sources(tmp_path / FOLDER)
    return Watched(forks, tmp_path)


def convert(watched, kind, out, **orders):
    places = ["--data-path", f"{FOLDER}/{kind}", "--save-path", out, "--image-size", 64, "--n-folds", 2]
    return watched.run("tools/convert.py", kind, *places, "--n-workers", 1, **orders)


def test_converted_and_drawn(watched):
    convert(watched, "vinbig", "out/vinbig", alone=True)
    convert(watched, "siim", "out/siim", alone=True)
    watched.run("tools/view.py", "--data-path", "out/vinbig", "--save-path", "out/view", "--n", 2)
    conversion = json.loads((watched.root / "out" / "vinbig" / "conversion.json").read_text())
    # The broken files were met, and are named with what is wrong with them.
    assert conversion["dropped"]["counts"]["unreadable file"] >= 9
    assert "dicom-images-train/…/1.2.3.4.5/s01.dcm" in (watched.root / "out" / "siim" / "annotations.json").read_text()
    assert watched.check() >= 9


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command(watched):
    run, root = watched.run, watched.root
    for kind in ("vinbig", "siim", "coco", "lungs", "folders"):
        convert(watched, kind, f"out/data/{kind}")
    run("tools/view.py", "--data-path", "out/data/vinbig", "--save-path", "out/view")
    common = [
        "--device", "cpu", "--n-workers", 0, "--n-pictures", 2, "--log-step", 1, "--weights", "none",
        "--warmup-steps", 2,
    ]  # fmt: skip
    boxes = [
        *common, "--backbone", "mobilenet_v2", "--fpn-channels", 16, "--rpn-samples", 32, "--roi-samples", 16,
        "--normals", 1, "--lr", 0.01, "--max-detections", 20, "--n-epochs", 1,
    ]  # fmt: skip
    masks = ["--task", "segmentation", *common, "--encoder", "resnet18", "--depth", 3, "--n-epochs", 4, "--lr", 0.003]
    labels = ["--task", "classification", *common, "--network", "resnet10t", "--n-epochs", 1]
    for flags, data, name in (
        (boxes, "out/data/vinbig", "boxes"),
        (masks, "out/data/siim", "masks"),
        (labels, "out/data/folders", "labels"),
        # Converted within the run, in canvases of 1024 pixels, of which a detector takes gigabytes.
        ([*labels, "--network", "test_resnet"], f"{FOLDER}/vinbig", "raw"),
    ):
        run("xray/train.py", *flags, "--batch-size", 4, "--data-path", data, "--save-path", f"out/runs/{name}")
    run("xray/train.py", "--resume", "--save-path", "out/runs/boxes", "--n-epochs", 2)

    # Of the broken files some are read all the same; others cost themselves, and the status says so.
    infer = ["tools/infer.py", "--device", "cpu", "--precision", 32, "--n-workers", 1, "--overlays"]
    raw, truth = f"{FOLDER}/vinbig/train", "out/data/vinbig"
    run(*infer, "--weights", "out/runs/boxes", "out/runs/masks", "--data-path", raw, "--save-path", "out/found",
        "--truth", truth, "--probabilities", status=1)  # fmt: skip
    assert len((root / "out/found/failures.csv").read_text().splitlines()) >= 9
    run(*infer, "--weights", "out/runs/masks", "--data-path", "out/data/siim", "--save-path", "out/masks",
        "--probabilities")  # fmt: skip
    run(*infer, "--weights", "out/runs/labels", "--data-path", f"{FOLDER}/siim", "--save-path", "out/labels", status=1)
    run(*infer, "--weights", "out/runs/masks", "--data-path", raw, "--save-path", "out/ptx", status=1)
    places = ["--data-path", "out/data/vinbig", "--save-path"]
    run("tools/evaluate.py", "--predictions", "out/found/predictions.json", *places, "out/report", "--resamples", 10)
    run("tools/evaluate.py", "--predictions", "out/masks/predictions.json", "--data-path", "out/data/siim",
        "--save-path", "out/report-masks", "--resamples", 10, "--fit", "out/runs/masks")  # fmt: skip
    both = ["out/found/predictions.json", "out/found/submission.csv"]
    run("tools/fuse.py", "--predictions", *both, *places, "out/fused")
    for tool, flags in {
        "tools/lr_find.py": [*labels, "--data-path", "out/data/folders", "--save-path", "out/lr", "--n-steps", 20],
        "tools/export.py": ["--weights", "out/runs/boxes", "--format", "torchvision", "--save-path", "out/model.pth"],
        "tools/refine.py": ["--predictions", both[0], "--masks", "out/ptx/predictions.json", *places, "out/refined",
                            "--fit", "--weights", "out/runs/masks"],
        "tools/benchmark.py": ["convert", "--data-path", raw, "--save-path", "out/benchmark.json", "--n-images", 4,
                               "--repeats", 1, "--n-workers", 1],
    }.items():  # fmt: skip
        # Some have nothing to do here, and say so: what matters is what they say.
        command = watched.forks.run(tool, *flags, cwd=str(root), timeout=600)
        said = (command.out + command.err).replace(raw, "")
        assert not found_in(said.encode()), said
        assert str(root) not in said
        assert "unexpected" not in said, said
    n_files = watched.check()
    print(f"{watched.n_commands + 4} commands, {n_files} files, {len(PLANTED)} values in {len(FORMS)} forms")
    assert n_files > 60
