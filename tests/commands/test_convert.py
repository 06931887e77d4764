"""The convert command from outside: its output, its exit status, and what interruptions leave behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import in_process
import numpy as np
import pandas as pd
import pytest

from xray.commands.convert import following, main
from xray.commands.convert_flags import Coco
from xray.datasets.store import open_store
from xray.findings import FINDINGS

TOOL = Path(__file__).resolve().parents[2] / "tools" / "convert.py"

ROWS = {
    "Aortic enlargement": 7162, "Cardiomegaly": 5427, "Pleural thickening": 4842, "Pulmonary fibrosis": 4655,
    "Nodule/Mass": 2580, "Lung Opacity": 2483, "Pleural effusion": 2476, "Other lesion": 2203, "Infiltration": 1247,
    "ILD": 1000, "Calcification": 960, "Consolidation": 556, "Atelectasis": 279, "Pneumothorax": 226,
}  # fmt: skip
"""How often each finding was drawn in VinBigData's train.csv."""


def run(*args, **options):
    return in_process.run("convert", *args, **options)


def write_raw(folder, n, side=40):
    """n radiographs as a COCO directory; one with a box."""
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(n):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), random.integers(0, 255, (side, side), dtype=np.uint8))
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(n)]
    boxes = [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [0, 0, 20, 50]}]
    coco = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "nodule"}]}
    (folder / "annotations.json").write_text(json.dumps(coco))
    return folder


def test_a_conversion_and_its_summary(tmp_path):
    raw = write_raw(tmp_path / "raw", 6)
    # From anywhere else than the repository.
    command = [sys.executable, str(TOOL), "coco", "--data-path", str(raw), "--save-path", "data"]
    command += ["--image-size", "32", "--n-folds", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert (done.returncode, "error" in done.stderr) == (0, False)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines == [
        "radiographs 6", "for training, by fold 3, 3", "without a box 5", "boxes 1", "nodule 1",
        "left out or changed 1", "box beyond the edge 1",
        "each with its reason in data/conversion.json", "next: python xray/train.py --data-path data",
    ]  # fmt: skip
    assert len(open_store(tmp_path / "data")) == 6


def test_what_is_not_known_is_counted(tmp_path, capsys):
    raw = write_raw(tmp_path / "raw", 6)
    coco = json.loads((raw / "annotations.json").read_text())
    for image in coco["images"][1:3]:
        image["unknown"] = [1]
    (raw / "annotations.json").write_text(json.dumps(coco))
    main(Coco(raw, tmp_path / "data", image_size=32, n_folds=2, n_workers=1))
    said = capsys.readouterr().out
    assert "not known, so that neither training nor metrics count it: nodule in 2 of 6 radiographs" in said
    counts = json.loads((tmp_path / "data" / "conversion.json").read_text())["counts"]
    assert counts["unknown_per_label"] == {"nodule": 2}


def test_a_picture_that_contradicts_itself_is_counted_once(tmp_path, capsys):
    raw = write_raw(tmp_path / "raw", 6)
    coco = json.loads((raw / "annotations.json").read_text())
    coco["categories"].append({"id": 2, "name": "No finding"})
    coco["annotations"] += [{"id": 2, "image_id": 0, "category_id": 2}, {"id": 3, "image_id": 1, "category_id": 2}]
    coco["annotations"] += [{"id": 4, "image_id": 2, "category_id": 1, "bbox": [0, 0, 9, 9]}]
    (raw / "annotations.json").write_text(json.dumps(coco))
    main(Coco(raw, tmp_path / "data", image_size=32, n_folds=2, n_workers=1))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "left out or changed 1" in lines
    assert "picture said to be normal, with findings 1" in lines
    assert "1 radiograph left out: its annotations could not be used" in lines


def test_what_could_not_be_used_is_said_in_words(tmp_path, capsys):
    raw = write_raw(tmp_path / "raw", 8)
    coco = json.loads((raw / "annotations.json").read_text())
    inside = {"category_id": 1, "bbox": [0, 0, 20, 20]}
    lost = [{"image_id": number, **inside, **fault} for number, fault in enumerate(({"category_id": 9}, {"bbox": []}))]
    # Beyond the edge, which only the file itself shows.
    lost.append({"image_id": 2, **inside, "bbox": [50, 50, 9, 9]})
    brush = {"image_id": 3, **inside, "segmentation": {"size": [40, 40], "counts": [0, 80, 1520]}, "iscrowd": 1}
    coco["annotations"] = [*lost, {"image_id": 2, **inside}, brush]
    (raw / "annotations.json").write_text(json.dumps(coco))
    main(Coco(raw, tmp_path / "data", image_size=32, n_folds=2, n_workers=1))
    said = capsys.readouterr()
    assert "3 radiographs left out: their annotations could not be used\n" in said.out
    assert [line for line in said.err.splitlines() if line.startswith("warning")] == [
        "warning: 1 × run lengths with iscrowd 1 taken as one object each; --crowds ignore leaves their radiographs "
        "out (annotations.json annotation 4)",
        "warning: 1 × sizes that no file says are taken from the pictures, which must be as large as when annotated "
        "(annotations.json: 2 pictures with boxes)",
        f"warnings: {tmp_path / 'data' / 'conversion.json'}",
    ]
    store = open_store(tmp_path / "data")
    assert [record["source_id"] for record in store.records] == ["3", "4", "5", "6", "7"]
    assert store.conversion["dropped"]["counts"] == {
        "coordinates not numbers": 1,
        "image without a usable box": 2,
        "radiograph with an annotation that could not be used": 1,
        "unknown category": 1,
    }


def test_help_names_the_subcommands_and_the_flags():
    assert all(word in run("--help").stdout for word in ("vinbig", "coco"))
    done = run("vinbig", "--help")
    flags = (
        "--data-path",
        "--save-path",
        "--image-size",
        "--n-folds",
        "--readers",
        "--n-workers",
        "--overwrite",
        "--seed",
    )
    assert done.returncode == 0
    assert all(flag in done.stdout for flag in flags)


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["vinbig", "--data-path", "none", "--save-path", "data"], 1, "error: no data at none: put VinBigData's"),
        (["coco", "--data-path", "none", "--save-path", "data"], 1, "error: no data at none: give the directory"),
        (["coco", "--data-path", "empty", "--save-path", "data"], 1, "error: empty holds no COCO file"),
        (["coco", "--data-path", "raw", "--save-path", "raw"], 1, "error: --save-path and --data-path are both raw"),
        (["coco", "--data-path", "raw", "--save-path", "data", "--n-folds", "9"], 1, "6 patients cannot fill 9 folds"),
        (["coco", "--data-path", "raw", "--save-path", "data", "--n-folds", "1"], 2, "--n-folds is 1: give 2 to 100"),
        (["coco", "--data-path", "raw", "--save-path", "data", "--image-size", "9"], 2, "--image-size is 9: give 32"),
        (["coco", "--data-path", "raw", "--save-path", "data", "--image-size", "big"], 2, "--image-size"),
        (["coco", "--data-path", "raw"], 2, "--save-path"),
        (["dicom", "--data-path", "raw", "--save-path", "data"], 2, "dicom"),
    ],
)
def test_bad_input_gives_one_line_and_loses_nothing(tmp_path, flags, status, message):
    write_raw(tmp_path / "raw", 6)
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = run(*flags, cwd=tmp_path)
    assert done.returncode == status
    assert message in " ".join((done.stderr + done.stdout).split())
    assert "Traceback" not in done.stderr
    if status == 1:
        assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_finished_dataset_is_only_replaced_when_asked(tmp_path):
    flags = ["coco", "--data-path", write_raw(tmp_path / "raw", 4), "--save-path", tmp_path / "data", "--n-folds", 2]
    assert run(*flags, "--image-size", 32).returncode == 0
    done = run(*flags, "--image-size", 64)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "add --overwrite" in done.stderr
    assert open_store(tmp_path / "data").canvas_size == 32


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Flags of a conversion that takes a while, and what it makes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    raw = write_raw(folder / "raw", 150, side=600)
    flags = ["coco", "--data-path", raw, "--image-size", 512, "--n-workers", 1]
    assert run(*flags, "--save-path", folder / "whole").returncode == 0
    return flags, folder / "whole"


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_command_goes_on_when_run_again(undisturbed, tmp_path, how):
    flags, whole = undisturbed
    command = [sys.executable, str(TOOL), *map(str, flags), "--save-path", str(tmp_path / "data")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    part = tmp_path / "data" / "images.npy.part"
    deadline = time.monotonic() + 600
    while not (part.exists() and part.stat().st_size > 3 * 512 * 512) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(how)
    _, errors = process.communicate(timeout=600)
    assert not (tmp_path / "data" / "conversion.json").exists(), "it was too fast to be interrupted"
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "run the same command again to go on" in errors
        assert "Traceback" not in errors
    again = run(*flags, "--save-path", tmp_path / "data")
    assert again.returncode == 0
    for name in ("images.npy", "annotations.json", "conversion.json"):
        assert (tmp_path / "data" / name).read_bytes() == (whole / name).read_bytes()


@pytest.fixture(scope="module")
def big_table(tmp_path_factory):
    """A train.csv with the rows, images and frequencies of VinBigData's."""
    random = np.random.default_rng(0)
    ids = np.array([f"{number:032x}" for number in range(15_000)])
    readers = np.stack([random.permutation(17)[:3] + 1 for _ in ids])
    parts = [
        pd.DataFrame(
            {"image_id": ids[:10_606].repeat(3), "class_name": "No finding", "class_id": 14,
             "rad_id": [f"R{number}" for number in readers[:10_606].ravel()]}
        )
    ]  # fmt: skip
    for name, n in ROWS.items():
        images = random.integers(10_606, 15_000, n)
        drawn_by = readers[images, random.integers(0, 3, n)]
        corner, sides = random.integers(0, 1500, (2, n)), random.integers(20, 700, (2, n))
        parts.append(
            pd.DataFrame(
                {"image_id": ids[images], "class_name": name, "class_id": FINDINGS.index(name),
                 "rad_id": [f"R{number}" for number in drawn_by], "x_min": corner[0], "y_min": corner[1],
                 "x_max": corner[0] + sides[0], "y_max": corner[1] + sides[1]}
            )
        )  # fmt: skip
    folder = tmp_path_factory.mktemp("big")
    table = pd.concat(parts).sample(frac=1, random_state=0)
    assert len(table) == 67_914
    table.to_csv(folder / "train.csv", index=False)
    return folder


MEASURE = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""


def usage_of(command):
    """Exit status, processor seconds and peak memory (in the unit of ru_maxrss) of a command."""
    # Through a small process: on Linux the peak of a new process begins with that of the one that started it.
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, command)], capture_output=True, text=True, check=True
    )
    status, seconds, peak = run.stdout.split()
    return int(status), float(seconds), int(peak) if sys.platform != "darwin" else int(peak) // 1024


@pytest.mark.slow
def test_vinbigs_table_takes_less_than_1_gib(big_table, tmp_path):
    def convert(name):
        command = [sys.executable, TOOL, "vinbig", "--data-path", big_table, "--save-path", tmp_path / name]
        return usage_of([*command, "--table-only"])

    status, _, kilobytes = convert("data")
    assert status == 0
    assert kilobytes < 2**20
    counts = json.loads((tmp_path / "data" / "conversion.json").read_text())["counts"]
    assert (counts["images"], counts["images_without_boxes"] >= 10_606) == (15_000, True)
    # Random boxes overlap sometimes.
    assert 30_000 < counts["annotations"] <= 67_914 - 31_818
    assert set(counts["images_per_fold"].values()) == {3000}


@pytest.mark.slow
def test_nihs_table_takes_less_than_1_5_gib(tmp_path):
    """As many radiographs and patients as NIH ChestX-ray14 has, of 14 findings: names and a table, no pixels."""
    random, findings = np.random.default_rng(0), [f"Finding {number:02}" for number in range(14)]
    (tmp_path / "raw" / "images").mkdir(parents=True)
    patients = np.sort(random.integers(0, 30_805, 112_120))
    shown = random.random((112_120, 14)) < 0.06
    rows = ["Image Index,Finding Labels,Patient ID,Patient Age,Patient Sex,View Position"]
    for number, (patient, of_image) in enumerate(zip(patients.tolist(), shown, strict=True)):
        (tmp_path / "raw" / "images" / f"{number:08}.png").touch()
        labels = "|".join(findings[k] for k in np.flatnonzero(of_image)) or "No Finding"
        rows.append(f"{number:08}.png,{labels},{patient},{20 + patient % 60},{'FM'[patient % 2]},PA")
    (tmp_path / "raw" / "table.csv").write_text("\n".join(rows))
    # Every tenth patient is held out, by name.
    names = [f"images/{number:08}.png" for number in np.flatnonzero(patients % 10 == 0).tolist()]
    (tmp_path / "test.txt").write_text("\n".join(names))
    command = [sys.executable, TOOL, "table", "--data-path", tmp_path / "raw", "--save-path", tmp_path / "data"]
    status, _, kilobytes = usage_of([*command, "--table-only", "--splits", f"test={tmp_path / 'test.txt'}"])
    assert status == 0
    assert kilobytes < 1.5 * 2**20
    made = json.loads((tmp_path / "data" / "conversion.json").read_text())
    counts = made["counts"]
    assert (counts["images"], counts["test_images"], made["dropped"]["counts"]) == (112_120, len(names), {})
    assert list(counts["images_per_label"].values()) == shown.sum(axis=0).tolist()
    per_fold = list(counts["images_per_fold"].values())
    assert max(per_fold) - min(per_fold) <= 1


@pytest.mark.slow
def test_memory_does_not_grow_with_the_radiographs(tmp_path):
    # 300 canvases of 1024 pixels are 315 MB: a conversion that held or mapped them would show.
    raw = tmp_path / "raw"
    write_raw(raw, 1)
    coco = json.loads((raw / "annotations.json").read_text())
    usage = {}
    for n in (10, 300):
        for number in range(n):
            link = raw / "images" / f"{number}.png"
            if not link.exists():
                os.link(raw / "images" / "0.png", link)
        coco["images"] = [{"id": number, "file_name": f"{number}.png"} for number in range(n)]
        (raw / "annotations.json").write_text(json.dumps(coco))
        command = [sys.executable, str(TOOL), "coco", "--data-path", str(raw), "--save-path", str(tmp_path / str(n))]
        status, _, usage[n] = usage_of(command)
        assert status == 0
    assert usage[300] - usage[10] < 100_000


@pytest.mark.parametrize(
    ("source", "counts", "command"),
    [
        ("nih", {"train_annotations": 5}, "python xray/train.py"),
        # NIH's own split has all boxes in its test set.
        ("nih", {"train_annotations": 0}, "python xray/train.py --task classification"),
        ("chexpert", {"train_annotations": 0}, "python xray/train.py --task classification"),
        ("candid", {"train_annotations": 5, "masks": 5}, "python xray/train.py --task segmentation"),
        (
            "chexlocalize",
            {"train_images": 0, "val_images": 3, "masks": 5},
            "python tools/infer.py --weights RUN --split val --save-path OUT",
        ),
        ("tree", {"train_images": 0}, "python tools/infer.py --weights RUN --split test --save-path OUT"),
    ],
)
def test_the_next_command_is_one_that_works(source, counts, command):
    counts = {"train_images": 9, "val_images": 0, "masks": 0} | counts
    assert following({"source": source, "counts": counts}) == command
