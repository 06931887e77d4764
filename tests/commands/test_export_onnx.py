"""tools/export.py --format onnx, tools/infer.py --runtime onnx, and torchvision's weights as a run directory."""

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import in_process
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import detection

from xray.commands import export, infer
from xray.commands.export import Config, main
from xray.errors import FlagError, InputError
from xray.export.torchvision import read_torchvision
from xray.inference.loaded import load_run
from xray.models.detection.detector import build_detector

TOOLS = Path(__file__).resolve().parents[2] / "tools"
COMMANDS = {"torch": [], "onnx": ["--runtime", "onnx"]}


def onnx_of(run, **more):
    pytest.importorskip("onnxscript")
    main(Config(weights=(run,), format="onnx", **more))


def predictions(out):
    return json.loads((out / "predictions.json").read_text())


def assert_same(one, two):
    """Two lists of predictions: boxes to 0.1 canvas pixels of 1.5 original ones, scores to 0.001."""
    assert [(row["image_id"], row["category_id"]) for row in one] == [(r["image_id"], r["category_id"]) for r in two]
    for ours, theirs in zip(one, two, strict=True):
        np.testing.assert_allclose(ours["bbox"], theirs["bbox"], rtol=0, atol=0.15)
        assert abs(ours["score"] - theirs["score"]) <= 1e-3


def test_export_and_inference(classification_run, mask_source, tmp_path, capsys):
    """In this process: the file appears, its metadata are the run's, and onnxruntime finds the same."""
    out = tmp_path / "new" / "labels.onnx"
    onnx_of(classification_run, save_path=out)
    said = capsys.readouterr()
    assert "labels.onnx: opset 18, " in said.out
    assert " on 3 phantoms up to " in said.out
    assert [path.name for path in out.parent.iterdir()] == ["labels.onnx"]
    found = {}
    for runtime, weights in (("torch", classification_run), ("onnx", out)):
        data = str(mask_source / "png_images" / "1_train.png")
        config = infer.Config(weights=(str(weights),), data_path=data, save_path=str(tmp_path / runtime),
                                   runtime=runtime, n_workers=0, device="cpu")  # fmt: skip
        assert infer.main(config) == 0
        found[runtime] = predictions(tmp_path / runtime)
    assert_same(*found.values())
    assert len(found["torch"]) > 0

    # What is there stays, whatever happens.
    with pytest.raises(InputError, match=r"labels.onnx exists: give --overwrite"):
        onnx_of(classification_run, save_path=out)
    content = out.read_bytes()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(InputError, match=r"no radiograph of --check-data can be read"):
        onnx_of(classification_run, save_path=out, overwrite=True, check_data=broken)
    assert out.read_bytes() == content
    with pytest.raises(
        InputError, match=r"holds no model.onnx: write it with python tools/export.py --weights .*labels"
    ):
        infer.main(dataclasses.replace(config, weights=(str(classification_run),), overwrite=True))


def test_a_file_that_differs_is_not_kept(classification_run, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    from xray.export import onnx as onnx_export
    from xray.export import onnx_check

    monkeypatch.setattr(onnx_export, "to_onnx", lambda *_: b"content")
    monkeypatch.setattr(onnx_check, "compare", lambda *_: onnx_check.Difference(pixels=0.2, score=1e-5, boxes=7))
    with pytest.raises(
        InputError, match=r"PyTorch differ by 0.2 pixels and 1e-05 in score \(7 boxes\): nothing was wr"
    ):
        onnx_of(classification_run, save_path=tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_commands_of_the_design(vinbig_run, segmentation_run, vinbig_store, tmp_path):
    """export --weights RUN --format onnx; infer --runtime onnx on two runs of different tasks, flipped and fused."""
    runs = []
    for run in (vinbig_run, segmentation_run):
        (tmp_path / run.name).mkdir()
        for name in ("model.json", "model.safetensors"):
            (tmp_path / run.name / name).write_bytes((run / name).read_bytes())
        runs.append(run.name)
        done = command("export.py", "--weights", run.name, "--format", "onnx", cwd=tmp_path)
        assert done.stderr == ""
        assert f"--runtime onnx --weights {run.name}" in done.stdout
        assert {path.name for path in (tmp_path / run.name).iterdir()} == {
            "model.json", "model.safetensors", "model.onnx",
        }  # fmt: skip
    source = vinbig_store.parent / "source" / "test"
    for runtime, flags in COMMANDS.items():
        # The real segmenter finds pneumothorax, which is among the detector's 14 findings.
        given = ("--weights", *runs, "--data-path", source, "--save-path", runtime, "--device", "cpu")
        given += ("--precision", "32", "--n-workers", "0", "--probabilities", *flags)
        done = in_process.run("infer", *given, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    one, two = predictions(tmp_path / "torch"), predictions(tmp_path / "onnx")
    assert len(one) > 10
    assert_same(one, two)


def command(tool, *args, cwd):
    done = subprocess.run(
        [sys.executable, TOOLS / tool, *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"runtime": "onnx", "precision": "bf16"}, "--precision is bf16: it must be auto or 32 with --runtime onnx"),
        ({"runtime": "onnx", "prune": 2}, "--prune is 2: it must be 0 with --runtime onnx"),
        ({"runtime": "onnx", "engine": "ray"}, "--engine is ray: it must be local with --runtime onnx"),
    ],
)
def test_flags_that_do_not_go_together(flags, message):
    with pytest.raises(FlagError, match=message):
        infer.check(infer.Config(weights=("a",), data_path="b", save_path="c", **flags))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"format": "onnx", "weights": (Path("a"), Path("b"))}, "names 2 runs: --format onnx takes one"),
        ({"format": "onnx", "save_path": Path("model.pb")}, r"writes a file that ends in \.onnx"),
        ({"format": "onnx", "prune": 5}, "--prune is 5: give 0 to 4"),
        ({"format": "onnx", "categories": ("a",)}, "--categories is for --format run with a .pth"),
        ({"format": "torchvision", "prune": 1}, "--prune is for --format onnx"),
        ({"format": "run", "check_data": Path("a")}, "--check-data is for --format onnx"),
        ({"format": "torchvision"}, "--save-path is missing: --format torchvision writes a file"),
        ({"format": "run", "weights": (Path("a.pth"),)}, "--categories is missing"),
        (
            {"format": "run", "weights": (Path("a.pth"),), "categories": ("a", "a")},
            "--categories has an empty name",
        ),
        ({"format": "run", "weights": (Path("a.pth"),), "categories": ("a",)}, "--save-path is missing"),
        ({"format": "run", "weights": (Path("a.pth"), Path("b.pth")), "categories": ("a",)}, "takes one of torchv"),
        ({"format": "run", "weights": (Path("a.pth"),), "canvas_size": 5}, "--canvas-size is 5: give 64 to 4096"),
    ],
)
def test_wrong_flags_of_export(flags, message):
    with pytest.raises(FlagError, match=message):
        main(Config(**{"weights": (Path("a"),), **flags}))


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("xray.errors.importlib.util.find_spec", lambda name: None)
    for start in (
        lambda: main(Config(weights=(tmp_path,), format="onnx")),
        lambda: infer.main(infer.Config(weights=("a",), data_path="b", save_path="c", runtime="onnx")),
    ):
        with pytest.raises(InputError, match=r'needs onnx: pip install -e "\.\[export\]"'):
            start()


# ---- torchvision's weights


@pytest.mark.parametrize(
    ("make", "size", "backbone", "norm", "head"),
    [
        (lambda: resnet18_detector(), 128, "resnet18", "frozen", "v1"),
        pytest.param(
            lambda: detection.fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=4),
            96, "resnet50", "batch", "v2", marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda: detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4),
            96, "resnet50", "batch", "v1", marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_torchvisions_weights_become_a_run(tmp_path, capsys, make, size, backbone, norm, head):
    """What torchvision's own model finds on these canvases, the run finds."""
    torch.manual_seed(0)
    model = make().eval()
    for name, value in model.state_dict().items():
        if "running_var" in name:
            value.uniform_(0.5, 2)
    torch.save({"model": model.state_dict()}, tmp_path / "theirs.pth")
    run = tmp_path / "run"
    names = ("Nodule", "Right shadow", "Pneumothorax")
    main(Config(weights=(tmp_path / "theirs.pth",), format="run", save_path=run, categories=names, canvas_size=size))
    assert f"a {backbone} detector, head {head}, of 3 categories" in capsys.readouterr().out
    assert sorted(path.name for path in run.iterdir()) == ["model.json", "model.safetensors"]
    ((task, loaded),) = load_run(run, torch.device("cpu"))
    assert (task, loaded.canvas_size, loaded.flips) == ("detection", size, False)
    assert loaded.categories == dict(enumerate(names, 1))
    architecture = json.loads((run / "model.json").read_text())["architecture"]
    assert (architecture["backbone"], architecture["norm"], architecture["head"]) == (backbone, norm, head)
    images = torch.randint(0, 256, (2, 1, size, size), dtype=torch.uint8)
    model.transform.min_size, model.transform.max_size = (size,), size
    model.roi_heads.score_thresh = 0.001
    with torch.inference_mode():
        theirs = model(list(images.expand(-1, 3, -1, -1) / 255))
    for (boxes, labels, scores), other in zip(loaded.detect(images[:, 0].numpy(), False), theirs, strict=True):
        assert len(boxes) == 100
        np.testing.assert_allclose(boxes, other["boxes"], rtol=0, atol=1e-2)
        np.testing.assert_allclose(scores, other["scores"], rtol=0, atol=1e-4)
        np.testing.assert_array_equal(labels, other["labels"])
    # And back.
    back = load_file(run / "model.safetensors")
    state = model.state_dict()
    assert all(torch.equal(back[name], value) for name, value in state.items())


def resnet18_detector():
    """One whose norms are frozen, as torchvision's are where weights were given."""
    trunk = detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    return detection.FasterRCNN(trunk, num_classes=4)


@pytest.fixture(scope="module")
def tensors():
    """Named as torchvision's, of a smaller pyramid."""
    torch.manual_seed(0)
    return build_detector(3, 64, "resnet18", fpn_channels=16).state_dict()


def without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


def renamed(old, new):
    return lambda state: {key.replace(old, new): value for key, value in state.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {"fc.weight": torch.zeros(1), **state}, "no state dict of torchvision's .* it has no fc.weight"),
        (lambda state: {**state, "rpn.head.extra": torch.zeros(1)}, "with a resnet18: that has no rpn.head.extra"),
        (without("backbone.body.layer2.0.conv1.weight"), "needs backbone.body.layer2.0.conv1.weight"),
        (without("roi_heads.box_predictor.cls_score.weight"), "cls_score.weight is missing"),
        (renamed("layer3", "stage3"), "it has another trunk"),
        (renamed("layer_blocks", "blocks"), "it has no backbone.fpn.layer_blocks.0"),
        (lambda s: {**s, "backbone.body.conv1.weight": torch.zeros(1, 3, 7, 7)}, "size mismatch for backbone.bo"),
        (lambda s: {**s, "backbone.body.conv1.weight": s["backbone.body.conv1.weight"] * torch.nan}, "are no numbers"),
        (lambda state: {}, "holds no tensors"),
    ],
)  # fmt: skip
def test_weights_of_something_else(tensors, tmp_path, change, message):
    torch.save(change(tensors), tmp_path / "a.pth")
    with pytest.raises(InputError, match=message):
        main(
            Config(weights=(tmp_path / "a.pth",), format="run", save_path=tmp_path / "run", categories=("a", "b", "c"))
        )
    assert not (tmp_path / "run").exists()


def test_categories_files_and_folders(tensors, tmp_path):
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "a.safetensors")
    config = Config(
        weights=(tmp_path / "a.safetensors",), format="run", save_path=tmp_path / "run", categories=("a", "b", "c")
    )
    with pytest.raises(InputError, match="finds 3 categories, and --categories names 2: give their names in the order"):
        main(dataclasses.replace(config, categories=("a", "b")))
    main(config)
    with pytest.raises(InputError, match="run holds an export already: give --overwrite"):
        main(config)
    (tmp_path / "run" / "best.ckpt").write_text("a training's")
    with pytest.raises(InputError, match=r"run holds other things than an export \(best.ckpt\)"):
        main(dataclasses.replace(config, overwrite=True))
    with pytest.raises(InputError, match="no weights at"):
        main(dataclasses.replace(config, weights=(tmp_path / "none.pth",), save_path=tmp_path / "other"))
    # Anchors keep torchvision's sides, whatever the canvas.
    description, _ = read_torchvision(tmp_path / "a.safetensors", ("a", "b", "c"), 256)
    assert description["architecture"]["anchor_scale"] == 4.0


class Command:
    def __reduce__(self):
        return print, ("run by the pickle",)


def test_pickles_that_run_something_are_refused(tmp_path, capsys):
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"model": Command()}))
    with pytest.raises(InputError, match="it was not loaded"):
        main(Config(weights=(tmp_path / "a.pth",), format="run", save_path=tmp_path / "run", categories=("a",)))
    assert "run by the pickle" not in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_the_tool_is_a_page():
    assert len(Path(export.__file__).read_text().splitlines()) < 350
