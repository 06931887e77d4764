"""Every other command that writes, killed before its file operations: nothing half-written, and it can be repeated."""

import json
import random
import re
import shutil
import signal
import time

import pytest
import torch
from coco_cases import result
from conftest import rarely
from forking import contents, under_final_names

from xray.findings import CATEGORIES, FINDINGS, PNEUMOTHORAX
from xray.models.weights import save_deployed

PTX = PNEUMOTHORAX + 1


@pytest.fixture
def table_store(tmp_path, write_table_store):
    images = [(f"p{n}", "train", n % 2, f"patient {n}") for n in range(8)]
    boxes = [(row, PTX, (100, 100, 400, 400)) for row in range(7)]
    return write_table_store(tmp_path / "table", images, boxes, CATEGORIES)


def write_inputs(folder):
    """Predictions of two models and of a segmenter, and the segmenter's run."""
    folder.mkdir()
    for number, shift in enumerate((150, 40)):
        rows = [result(f"p{n}", PTX, (100 + shift, 100, 300, 300), 0.8) for n in range(8)]
        (folder / f"boxes{number}.json").write_text(json.dumps(rows))
    masks = [result(f"p{n}", 1, (100, 100, 300, 300), 0.9, masked=True) for n in range(8)]
    (folder / "masks.json").write_text(json.dumps(masks))
    (folder / "run").mkdir()
    description = {"task": "segmentation", "categories": {"1": FINDINGS[PNEUMOTHORAX]}, "thresholds": {"mask": 0.5}}
    save_deployed(folder / "run", {"weight": torch.zeros(2)}, description)


def plain(files):
    """Without what differs from minute to minute."""
    when = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d \w+")
    return {
        name: when.sub(b"", content) if name.endswith((".html", ".md")) else content for name, content in files.items()
    }


def kill_and_repeat(forks, folder, prepare, tool, flags, n_kills, seed=0):
    """Kills a command that many times, each time in a folder made anew; returns how many were hit."""
    whole = folder / "whole"
    prepare(whole)
    before = plain(contents(whole))
    done = forks.run(tool, *flags(whole), under=str(whole))
    assert done.status == 0, done.err
    expected = plain(contents(whole))
    assert expected != before
    assert not [name for name in expected if name.endswith(".part")]
    moments = list(range(1, done.n_operations + 1))
    if len(moments) > n_kills:
        # Its last operations, between which finished files meet each other, in any case.
        last = n_kills // 2
        moments = sorted([*moments[-last:], *random.Random(seed).sample(moments[:-last], n_kills - last)])
    for die_at in moments:
        work = folder / str(die_at)
        prepare(work)
        command = forks.run(tool, *flags(work), under=str(work), die_at=die_at)
        assert command.status == -signal.SIGKILL, command.err
        for name, content in plain(under_final_names(work)).items():
            assert content in (before.get(name), expected.get(name)), (die_at, name)
        again = forks.run(tool, *flags(work))
        assert again.status == 0, (die_at, again.err)
        assert plain(contents(work)) == expected, die_at
        shutil.rmtree(work)
    return len(moments)


def fuse(store, work):
    return [
        "--predictions",
        work / "boxes0.json",
        work / "boxes1.json",
        "--data-path",
        store,
        "--save-path",
        work / "o",
    ]


def evaluate(store, work):
    places = ["--predictions", work / "boxes0.json", "--data-path", store, "--save-path", work / "out"]
    return [*places, "--resamples", 20]


def refine(store, work):
    inputs = ["--predictions", work / "boxes0.json", "--masks", work / "masks.json", "--weights", work / "run"]
    return [*inputs, "--data-path", store, "--save-path", work / "out", "--fit"]


TABLE_COMMANDS = {"tools/fuse.py": fuse, "tools/evaluate.py": evaluate, "tools/refine.py": refine}


def test_fuse_killed_is_repeated(forks, table_store, tmp_path):
    assert kill_and_repeat(forks, tmp_path, write_inputs, "tools/fuse.py", lambda w: fuse(table_store, w), 4) >= 3


@pytest.mark.timeout(300)
@pytest.mark.parametrize("tool", rarely(TABLE_COMMANDS))
def test_commands_on_tables_killed_are_repeated(forks, table_store, tmp_path, tool):
    flags = TABLE_COMMANDS[tool]
    n_hit = kill_and_repeat(forks, tmp_path, write_inputs, tool, lambda work: flags(table_store, work), 10)
    print(f"{tool}: {n_hit} killed")


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.parametrize("tool", ["tools/view.py", "tools/lr_find.py"])
def test_commands_on_pictures_killed_are_repeated(forks, side_store, tmp_path, tool):
    flags = ["--data-path", side_store]
    if tool == "tools/view.py":
        flags += ["--n", 3]
    else:
        tiny = ["--backbone", "mobilenet_v2", "--fpn-channels", 16, "--roi-samples", 8]
        flags += [*tiny, "--weights", "none", "--device", "cpu", "--n-workers", 0, "--batch-size", 2]
        flags += ["--n-steps", 24, "--min-lr", 1e-6, "--max-lr", 0.1]
    prepare, n_kills = (lambda work: work.mkdir()), 8 if tool == "tools/view.py" else 4
    n_hit = kill_and_repeat(forks, tmp_path, prepare, tool, lambda work: [*flags, "--save-path", work / "out"], n_kills)
    print(f"{tool}: {n_hit} killed")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", rarely(["run", "torchvision"]))
def test_export_killed_is_repeated(forks, tmp_path, kind):
    from xray.models.detection.detector import build_detector
    from xray.models.pretrained import load_trunk
    from xray.models.segmentation.segmenter import build_segmenter

    architecture = {
        "backbone": "resnet18", "head": "v1", "norm": "frozen", "fpn_channels": 256, "anchor_scale": 1.0,
        "proposals": 60, "score_threshold": 0.002, "max_detections": 30,
    }  # fmt: skip
    detector, segmenter = build_detector(4, 64, **architecture), build_segmenter(encoder="resnet18", depth=4)
    load_trunk(segmenter.encoder, detector.state_dict(), "no", left_out=detector.backbone.body.state_dict())
    shared = {"canvas_size": 64, "categories": {str(number): f"finding {number}" for number in range(1, 5)}}
    boxes = {"task": "detection", "architecture": architecture, **shared}
    masks = {
        "task": "segmentation", "architecture": {"encoder": "resnet18", "depth": 4}, "thresholds": {"mask": 0.5},
        **shared, "categories": {"1": "finding 1"},
    }  # fmt: skip
    for name, model, description in (("boxes", detector, boxes), ("masks", segmenter, masks)):
        (tmp_path / name).mkdir()
        save_deployed(tmp_path / name, model.state_dict(), description)
    runs = [tmp_path / "boxes", tmp_path / "masks"][: 2 if kind == "run" else 1]

    def flags(work):
        out = work / ("out" if kind == "run" else "model.pth")
        return ["--weights", *runs, "--format", kind, "--save-path", out]

    n_hit = kill_and_repeat(forks, tmp_path, lambda work: work.mkdir(), "tools/export.py", flags, 8)
    print(f"export {kind}: {n_hit} killed")


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_phantoms_killed_go_on(forks, tmp_path):
    def flags(work, n_workers=0):
        numbers = ["--n-train", 5, "--n-test", 2, "--size", 96, "--n-workers", n_workers]
        return ["--save-path", work / "out", *numbers]

    n_hit = kill_and_repeat(forks, tmp_path, lambda work: work.mkdir(), "tools/phantoms.py", flags, 12)
    expected, chance = contents(tmp_path / "whole"), random.Random(1)
    for number in range(2):
        work = tmp_path / f"pool{number}"
        work.mkdir()
        command = forks.start("tools/phantoms.py", *flags(work, 2))
        time.sleep(1 + 3 * chance.random())
        command.kill()
        n_hit += command.wait() == -signal.SIGKILL
        assert forks.run("tools/phantoms.py", *flags(work, 2)).status == 0
        assert contents(work) == expected
    print(f"tools/phantoms.py: {n_hit} killed")
