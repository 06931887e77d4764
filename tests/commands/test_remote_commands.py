"""Commands from s3:// to s3://: the same files as on the disk, and whoever dies goes on, here or on another machine."""

import csv
import json
import os
import re
import signal
import time
import urllib.request

import cv2
import numpy as np
import pytest
from conftest import CLASSIFICATION_FLAGS
from forking import contents

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ANY_IMAGE = ("--gate-image", "off")
"""These pictures are noise."""
PLACES = ("--n-workers", "0", "--device", "cpu", "--precision", "32")
TRAINING = (
    *CLASSIFICATION_FLAGS, "--network", "test_resnet", "--batch-size", "2", "--n-epochs", "16", "--n-pictures", "0",
    "--save-every-n-steps", "2", "--augment", "strong",
)  # fmt: skip
"""A fifth of a second an epoch: it is not over when its first checkpoint has been uploaded."""


@pytest.fixture
def start(forks, s3, tmp_path):
    """(tool, *flags, machine="one", every=30, **orders) → a started command; machines differ in their cache."""
    started = []

    def start(tool, *flags, machine="one", every=30, patch=None, **orders):
        environ = dict(os.environ) | s3.environ(tmp_path / machine, XRAY_UPLOAD_SECONDS=str(every))
        started.append(forks.start(tool, *flags, patch={"os:environ": environ} | (patch or {}), **orders))
        return started[-1]

    yield start
    for command in started:
        command.kill()


@pytest.fixture
def run(start):
    """The same, run to its end."""

    def run(tool, *flags, **orders):
        command = start(tool, *flags, **orders)
        command.wait(150)
        return command

    return run


def without_events(objects):
    return {name: content for name, content in objects.items() if "tfevents" not in name}


def wait_until(is_so, command, seconds=600):
    end = time.monotonic() + seconds
    while not is_so():
        assert command.poll() is None, command.err
        assert time.monotonic() < end
        time.sleep(0.01)


def stopped_in_the_middle(begin, is_begun, which):
    """Starts a command and sends it `which` as soon as its uploads have begun → what was started, and to where.

    begin: (number of the attempt) → (command, address). is_begun: address → whether enough of it is there.
    On a busy machine a command may be done before that is seen: then it is tried once more, at another address.
    """
    for attempt in range(20):
        command, address = begin(attempt)
        while command.poll() is None and not is_begun(address):
            time.sleep(0.01)
        if which == signal.SIGKILL:
            command.kill()
        elif command.poll() is None:
            os.kill(command.pid, which)
        if command.wait() != 0:
            return command, address
    raise AssertionError("it was done too soon each time")


def test_phantoms_go_up_and_are_not_drawn_twice(run, s3, tmp_path):
    bucket = s3.bucket()
    flags = ("--n-train", 2, "--n-test", 1, "--size", 128, "--trees", "vinbig", "--n-workers", 0)
    done = run("tools/phantoms.py", "--save-path", f"s3://{bucket}/raw", *flags)
    assert done.status == 0, done.err
    assert f"python tools/convert.py vinbig --data-path s3://{bucket}/raw/vinbig --save-path DATA" in done.out
    assert run("tools/phantoms.py", "--save-path", tmp_path / "raw", *flags).status == 0
    drawn = contents(tmp_path / "raw")
    assert s3.objects(f"s3://{bucket}/raw") == drawn
    again = run("tools/phantoms.py", "--save-path", f"s3://{bucket}/raw", *flags, machine="two")
    assert again.status == 0, again.err
    assert "(3 of them were there already)" in again.out
    assert s3.objects(f"s3://{bucket}/raw") == drawn


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Radiographs in two classes that take a second or two to convert."""
    folder = tmp_path_factory.mktemp("pictures") / "raw"
    grey = np.random.default_rng(0)
    for number in range(60):
        path = folder / ("ill" if number % 2 else "normal") / f"Doe_{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = grey.integers(20, 60, (700, 600), dtype=np.uint8)
        assert cv2.imwrite(str(path), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return folder


def test_a_conversion_killed_goes_on_on_another_machine(run, start, s3, pictures, tmp_path):
    bucket = s3.bucket()
    s3.put(f"s3://{bucket}/raw", pictures)
    data = ("folders", "--data-path", f"s3://{bucket}/raw/")
    flags = ("--image-size", 256, "--n-folds", 2, "--n-workers", 1)

    def begin(attempt):
        address = f"s3://{bucket}/data{attempt}"
        often = {"xray.datasets.journal:CHECKPOINT_SECONDS": 0.0}
        return start("tools/convert.py", *data, "--save-path", address, *flags, every=0.02, patch=often), address

    parts = {"conversion.part", "images.npy.part"}
    command, address = stopped_in_the_middle(begin, lambda at: parts <= s3.objects(at).keys(), signal.SIGKILL)
    assert command.status == -signal.SIGKILL, command.err
    assert not {"conversion.json", "annotations.json", "images.npy"} & s3.objects(address).keys()

    done = run("tools/convert.py", *data, "--save-path", address, *flags, machine="two")
    assert done.status == 0, done.err
    assert run("tools/convert.py", "folders", "--data-path", pictures, "--save-path", tmp_path / "data",
               *flags).status == 0  # fmt: skip
    assert s3.objects(address) == contents(tmp_path / "data")
    assert "Doe" not in command.err + done.err + done.out

    # Of what is finished nothing large is downloaded, and nothing changes.
    again = run("tools/convert.py", *data, "--save-path", address, *flags, machine="three")
    assert again.status == 1
    assert f"error: {address} holds a finished dataset" in again.err
    assert [path.stat().st_size for path in (tmp_path / "three").rglob("images.npy")] == [0]
    assert s3.objects(address) == contents(tmp_path / "data")


def test_a_training_killed_goes_on_on_another_machine_bit_for_bit(run, start, s3, mask_store, tmp_path):
    import torch

    bucket = s3.bucket()
    s3.put(f"s3://{bucket}/data", mask_store)

    def begin(attempt):
        address = f"s3://{bucket}/runs/{attempt}"
        places = ("--data-path", f"s3://{bucket}/data", "--save-path", address)
        return start("xray/train.py", *TRAINING, *places, every=0.05), address

    command, address = stopped_in_the_middle(begin, lambda at: "last.ckpt" in s3.objects(at), signal.SIGKILL)
    assert command.status == -signal.SIGKILL, command.err
    places = ("--data-path", f"s3://{bucket}/data", "--save-path", address)
    half = s3.objects(address)
    assert f"data_path: s3://{bucket}/data\n".encode() in half["config.yaml"]

    refused = run("xray/train.py", *TRAINING, *places, machine="two")
    assert refused.status == 1
    assert f"error: {address} exists already: continue it with --resume" in refused.err
    resumed = run("xray/train.py", "--task", "classification", "--save-path", address, "--resume", machine="two")
    assert resumed.status == 0, resumed.err
    assert "goes on after" in resumed.out
    assert f"tools/infer.py --weights {address}" in resumed.out

    undisturbed = tmp_path / "undisturbed"
    done = run("xray/train.py", *TRAINING, "--data-path", mask_store, "--save-path", undisturbed)
    assert done.status == 0, done.err
    remote, local = s3.objects(address), contents(undisturbed)
    assert without_events(remote).keys() == without_events(local).keys()
    for name in ("model.safetensors", "model.json", "validation/predictions.json"):
        assert remote[name] == local[name]
    for name in ("last.ckpt", "best.ckpt"):
        (tmp_path / name).write_bytes(remote[name])
        one, other = (
            torch.load(path, weights_only=True)["state_dict"] for path in (tmp_path / name, undisturbed / name)
        )
        assert all(torch.equal(one[key], other[key]) for key in one | other)
    tables = [
        list(csv.DictReader(text.decode().splitlines())) for text in (remote["metrics.csv"], local["metrics.csv"])
    ]
    measured = [name for name in tables[0][0] if name == "seconds" or name.startswith("speed/")]
    assert [{k: v for k, v in row.items() if k not in measured} for row in tables[0]] == [
        {k: v for k, v in row.items() if k not in measured} for row in tables[1]
    ]
    # Where on whose machine the copies lay is nobody's business.
    assert not [name for name, content in remote.items() if str(tmp_path).encode() in content]


def test_a_training_that_is_terminated_saves_and_uploads(start, run, s3, mask_store):
    bucket = s3.bucket()
    s3.put(f"s3://{bucket}/data", mask_store)
    address = f"s3://{bucket}/run"
    places = ("--data-path", f"s3://{bucket}/data", "--save-path", address, "--n-epochs", 500)
    command = start("xray/train.py", *TRAINING, *places, every=0.1)
    wait_until(lambda: "last.ckpt" in s3.objects(address), command)
    os.kill(command.pid, signal.SIGTERM)
    assert command.wait() == 143
    assert "stopped by SIGTERM and saved" in command.err
    assert f"--save-path {address} --resume" in command.err
    assert "lacks" not in command.err


def test_inference_and_evaluation_from_s3_to_s3_give_the_same_files(run, s3, vinbig_store, vinbig_run, tmp_path):
    bucket = s3.bucket()
    raw = vinbig_store.parent / "source" / "test"
    for name, folder in (("data", vinbig_store), ("run", vinbig_run), ("raw/test", raw)):
        s3.put(f"s3://{bucket}/{name}", folder)
    sample = b"image_id,PredictionString\n15,14 1 0 0 1 1\n14,14 1 0 0 1 1\n"
    s3.put(f"s3://{bucket}/raw/sample_submission.csv", sample)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "sample_submission.csv").write_bytes(sample)
    (tmp_path / "raw" / "test").symlink_to(raw)
    run_, out = f"s3://{bucket}/run", f"s3://{bucket}/out"
    done = run("tools/infer.py", "--weights", run_, "--data-path", f"s3://{bucket}/raw/test", "--save-path", out,
               "--overlays", *ANY_IMAGE, *PLACES)  # fmt: skip
    assert done.status == 0, done.err
    local = run("tools/infer.py", "--weights", vinbig_run, "--data-path", tmp_path / "raw/test", "--save-path",
                tmp_path / "out", "--overlays", *ANY_IMAGE, *PLACES)  # fmt: skip
    assert local.status == 0, local.err
    files = {name: dict(there) for name, there in (("there", s3.objects(out)), ("here", contents(tmp_path / "out")))}
    made_by = {name: json.loads(of.pop("made_by.json")) for name, of in files.items()}
    assert files["there"] == files["here"]
    # The same but for the run's name, which is that of its folder.
    names = {name: [model.pop("name") for model in content["models"]] for name, content in made_by.items()}
    assert names == {"there": ["run"], "here": [vinbig_run.name]}
    assert made_by["there"] == made_by["here"]
    assert done.out == local.out.replace(str(tmp_path / "out"), out)
    # Of a run only the model is needed.
    assert not list((tmp_path / "one").rglob("last.ckpt"))
    assert {path.name for path in (tmp_path / "one/in").rglob("*.safetensors")} == {"model.safetensors"}
    # Object names may name a patient. How much has come, and how fast, are no names.
    said = re.sub(r"[\d.]+(/[\d.]+)? [kMG]?B(/s)?|\d+:\d\d:\d\d|\d+/\d+|\d+%", "", done.err + done.out)
    assert "radiographs" in said
    assert not re.search(r"\b1[45]\b", said)

    found = f"s3://{bucket}/run/validation/predictions.json"
    flags = ("--resamples", 0)
    done = run("tools/evaluate.py", "--predictions", found, "--data-path", f"s3://{bucket}/data", "--save-path",
               f"s3://{bucket}/report", *flags)  # fmt: skip
    assert done.status == 0, done.err
    local = run("tools/evaluate.py", "--predictions", vinbig_run / "validation/predictions.json", "--data-path",
                vinbig_store, "--save-path", tmp_path / "report", *flags)  # fmt: skip
    remote, local = s3.objects(f"s3://{bucket}/report"), contents(tmp_path / "report")
    assert remote.keys() == local.keys()
    assert remote["metrics.json"] == local["metrics.json"]


def test_interrupted_it_ends_at_once_and_goes_on_on_another_machine(start, run, s3, vinbig_run, pictures):
    bucket = s3.bucket()
    s3.put(f"s3://{bucket}/run", vinbig_run)
    flags = ("--weights", f"s3://{bucket}/run", "--data-path", pictures, "--batch-size", 1, *ANY_IMAGE, *PLACES)

    def begin(attempt):
        out = f"s3://{bucket}/out{attempt}"
        return start("tools/infer.py", *flags, "--save-path", out, every=0.05), out

    def is_begun(out):
        return s3.objects(out).get("predictions.part", b"").count(b"\n") > 3

    command, out = stopped_in_the_middle(begin, is_begun, signal.SIGINT)
    assert command.status == 130, command.err
    assert command.err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in command.err
    done = run("tools/infer.py", *flags, "--save-path", out, machine="two")
    assert done.status == 0, done.err
    assert "continuing after" in done.err
    assert sorted(s3.objects(out)) == ["made_by.json", "predictions.json", "submission.csv"]


def test_a_server_takes_its_model_from_s3(start, s3, vinbig_run, pictures):
    bucket = s3.bucket()
    s3.put(f"s3://{bucket}/runs/vinbig", vinbig_run)
    flags = ("--port", 0, "--device", "cpu", "--n-workers", 1)
    command = start("tools/serve.py", "--weights", f"s3://{bucket}/runs/vinbig", *flags)
    wait_until(lambda: "Ctrl-C ends it" in command.said(), command)
    address = re.search(r"http://\S+", command.said())[0]
    radiograph = next(pictures.rglob("*.png")).read_bytes()
    request = urllib.request.Request(f"{address}predict", radiograph, {"Content-Type": "image/png"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        found = json.load(answer)
    assert found["models"] == ["vinbig"]
    os.kill(command.pid, signal.SIGINT)
    assert command.wait() == 130
