"""tools/export.py: torchvision's own constructors load what it writes, and two runs become one."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from xray.commands.export import Config, main, run
from xray.errors import FlagError, InputError
from xray.inference.shared_trunk import load_detector_with_mask
from xray.models.detection.detector import build_detector
from xray.models.pretrained import CENTRED, IMAGENET, load_trunk
from xray.models.segmentation.segmenter import build_segmenter
from xray.models.weights import load_deployed, save_deployed

SIZE = 64


def save_detector(run, reading=IMAGENET, **options):
    """A detector with its own way in everything that torchvision's constructors take."""
    architecture = {
        "backbone": "resnet50", "head": "v1", "norm": "frozen", "fpn_channels": 256, "anchor_scale": 0.7,
        "proposals": 60, "score_threshold": 0.002, "max_detections": 30, **options,
    }  # fmt: skip
    torch.manual_seed(0)
    detector = build_detector(4, SIZE, **architecture).eval()
    detector.read_as(reading)
    for name, value in detector.state_dict().items():
        if "running_var" in name:
            value.uniform_(0.5, 2)
    categories = {str(number): f"finding {number}" for number in range(1, 5)}
    run.mkdir()
    description = {"task": "detection", "architecture": architecture, "categories": categories, "canvas_size": SIZE}
    save_deployed(run, detector.state_dict(), description)
    return detector


def save_segmenter(run, detector, encoder="resnet18", canvas_size=SIZE):
    segmenter = build_segmenter(encoder=encoder, depth=4)
    load_trunk(segmenter.encoder, detector.state_dict(), "no", left_out=detector.backbone.body.state_dict())
    run.mkdir()
    description = {
        "task": "segmentation", "architecture": {"encoder": encoder, "depth": 4}, "categories": {"1": "finding 1"},
        "canvas_size": canvas_size, "thresholds": {"mask": 0.5},
    }  # fmt: skip
    save_deployed(run, segmenter.state_dict(), description)
    return segmenter


def found_by_both(detector, printed):
    """What a detector finds in two canvases, beside what is found by the one that the printed Python makes."""
    made = {}
    exec(printed, made)
    images = torch.randint(0, 256, (2, 1, SIZE, SIZE), dtype=torch.uint8)
    with torch.inference_mode():
        ours = detector(images)
        theirs = made["model"].eval()(list(images.expand(-1, 3, -1, -1) / 255))
    return zip(ours, theirs, strict=True)


@pytest.mark.parametrize(
    ("backbone", "head", "norm"),
    [
        ("resnet50", "v1", "frozen"),
        ("resnet34", "v1", "batch"),
        ("resnet50", "v2", "frozen"),
        ("resnet18", "v1", "batch"),
    ],
)
def test_torchvision_finds_the_same_boxes(tmp_path, capsys, backbone, head, norm):
    detector = save_detector(tmp_path / "run", backbone=backbone, head=head, norm=norm)
    out = tmp_path / "new" / "detector.pth"
    main(Config(weights=(tmp_path / "run",), format="torchvision", save_path=out))
    assert [path.name for path in out.parent.iterdir()] == ["detector.pth"]
    if (backbone, head) == ("resnet50", "v1"):
        plain = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5)
        plain.load_state_dict(torch.load(out, weights_only=True), strict=True)

    for one, other in found_by_both(detector, capsys.readouterr().out):
        assert len(one["boxes"]) == 30
        torch.testing.assert_close(one["boxes"], other["boxes"], rtol=0, atol=1e-2)
        torch.testing.assert_close(one["scores"], other["scores"], rtol=0, atol=1e-4)
        assert torch.equal(one["labels"], other["labels"])


@pytest.mark.parametrize(
    ("backbone", "head", "norm"),
    [("resnet50", "v1", "frozen"), ("resnet18", "v1", "batch"), ("resnet50", "v2", "batch")],
)
def test_torchvisions_retinanet_finds_the_same_boxes(tmp_path, capsys, backbone, head, norm):
    """Of weights that read pictures in another way than ImageNet's, too."""
    options = {"backbone": backbone, "head": head, "norm": norm, "family": "retinanet", "anchor_scale": 2.0}
    detector = save_detector(tmp_path / "run", CENTRED, **options)
    with torch.no_grad():
        for name, value in detector.head.named_parameters():
            if "conv" not in name:
                torch.nn.init.normal_(value, std=0.05)
        # Never of the class that torchvision keeps for the background.
        detector.head.classification_head.cls_logits.bias.view(-1, 5)[:, 0] = -60
    description, _ = load_deployed(tmp_path / "run")
    save_deployed(tmp_path / "run", detector.state_dict(), description)
    main(Config(weights=(tmp_path / "run",), format="torchvision", save_path=tmp_path / "out.pth"))
    for one, other in found_by_both(detector, capsys.readouterr().out):
        assert len(one["boxes"]) == 30
        torch.testing.assert_close(one["scores"], other["scores"], rtol=0, atol=1e-4)
        order, other_order = one["boxes"].sum(1).argsort(), other["boxes"].sum(1).argsort()
        torch.testing.assert_close(one["boxes"][order], other["boxes"][other_order], rtol=0, atol=1e-2)


def test_what_torchvision_has_no_place_for(tmp_path):
    save_detector(tmp_path / "other", backbone="convnext_atto")
    with pytest.raises(InputError, match=r"other is a convnext_atto detector with head v1"):
        main(Config(weights=(tmp_path / "other",), format="torchvision", save_path=tmp_path / "a.pth"))
    save_detector(tmp_path / "small", backbone="mobilenet_v2", fpn_channels=16)
    with pytest.raises(InputError, match=r"small is a mobilenet_v2 detector with head v1 and a pyramid of 16 channels"):
        main(Config(weights=(tmp_path / "small",), format="torchvision", save_path=tmp_path / "a.pth"))
    description, state = load_deployed(tmp_path / "small")
    save_deployed(tmp_path / "small", state, {**description, "task": "classification"})
    with pytest.raises(InputError, match="is a run of the task classification: --format torchvision is for detectors"):
        main(Config(weights=(tmp_path / "small",), format="torchvision", save_path=tmp_path / "a.pth"))
    with pytest.raises(FlagError, match="takes one"):
        main(Config(weights=(tmp_path / "small",) * 2, format="torchvision", save_path=tmp_path / "a.pth"))
    with pytest.raises(FlagError, match=r"ends in \.pth"):
        main(Config(weights=(tmp_path / "small",), format="torchvision", save_path=tmp_path / "a"))
    assert not (tmp_path / "a.pth").exists()
    (tmp_path / "a.pth").write_text("precious")
    with pytest.raises(InputError, match=r"a.pth exists: give --overwrite"):
        main(Config(weights=(tmp_path / "small",), format="torchvision", save_path=tmp_path / "a.pth"))
    assert (tmp_path / "a.pth").read_text() == "precious"


def test_one_run_of_two_from_the_command_line(tmp_path, monkeypatch, capsys):
    detector = save_detector(tmp_path / "boxes", backbone="resnet18", fpn_channels=16)
    segmenter = save_segmenter(tmp_path / "masks", detector)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["export.py", "--weights", "masks", "boxes", "--format", "run", "--save-path", "both"]
    )
    assert run() == 0
    done = capsys.readouterr()
    assert done.err == ""
    assert "python tools/infer.py --weights both" in done.out
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == ["model.json", "model.safetensors"]
    found, detection, masks, segmentation = load_detector_with_mask(tmp_path / "both")
    assert (detection["task"], segmentation["task"]) == ("detection", "segmentation")
    for ours, theirs in ((found, detector), (masks, segmenter)):
        wanted = theirs.state_dict()
        assert all(torch.equal(value, wanted[name]) for name, value in ours.state_dict().items())

    config = Config(weights=(tmp_path / "boxes", tmp_path / "masks"), format="run", save_path=tmp_path / "both")
    with pytest.raises(InputError, match="both holds an export already: give --overwrite, or another --save-path"):
        main(config)
    main(dataclasses.replace(config, overwrite=True))
    assert load_detector_with_mask(tmp_path / "both")[1] == detection


def test_runs_that_cannot_be_joined_leave_nothing(tmp_path):
    detector = save_detector(tmp_path / "boxes", backbone="resnet18", fpn_channels=16)
    other = build_detector(4, SIZE, "resnet18", fpn_channels=16)
    save_segmenter(tmp_path / "masks", other)
    save_segmenter(tmp_path / "larger", detector, canvas_size=128)
    out = tmp_path / "both"
    cases = [
        ("masks", r"masks does not stand on the trunk of .*boxes .* tensors differ.*--freeze-encoder"),
        ("larger", r"boxes looks at canvases of 64 pixels, .*larger of 128"),
        ("boxes", "are runs of the tasks detection: give one of detection and one of segmentation"),
        ("nowhere", "no run directory at .*nowhere"),
    ]
    for name, message in cases:
        with pytest.raises(InputError, match=message):
            main(Config(weights=(tmp_path / "boxes", tmp_path / name), format="run", save_path=out))
    with pytest.raises(FlagError, match="names 1 runs: --format run joins"):
        main(Config(weights=(tmp_path / "boxes",), format="run", save_path=out))
    assert not out.exists()


def test_a_training_run_is_never_exported_over(tmp_path):
    detector = save_detector(tmp_path / "boxes", backbone="resnet18", fpn_channels=16)
    save_segmenter(tmp_path / "masks", detector)
    runs = tmp_path / "boxes", tmp_path / "masks"
    another = tmp_path / "another"
    another.mkdir()
    (another / "last.ckpt").write_text("to resume")
    for out, message in (
        (runs[0], "boxes is one of the runs to join"),
        (tmp_path / "boxes" / ".." / "masks", "masks is one of the runs to join"),
        (another, r"another holds other things than an export \(last.ckpt\)"),
    ):
        with pytest.raises(InputError, match=message):
            main(Config(weights=runs, format="run", save_path=out, overwrite=True))
    assert [load_deployed(run)[0]["task"] for run in runs] == ["detection", "segmentation"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"format": "coco"}, "--data-path is missing"),
        ({"format": "yolo", "data_path": Path("x")}, "--save-path is missing"),
        ({"format": "voc", "weights": (Path("x"),)}, "--weights is for models"),
        ({"format": "onnx"}, "--weights is missing"),
        ({"format": "onnx", "weights": (Path("x"),), "bits": 16}, "--bits is for --format coco, yolo or voc"),
        ({"format": "run", "weights": (Path("x"),), "include_unsure": True}, "--include-unsure is for --format coco"),
    ],
)
def test_flags_of_models_and_of_datasets(flags, message):
    with pytest.raises(FlagError, match=message):
        main(Config(**flags))


def test_a_dataset_for_other_tools(side_store, tmp_path, capsys):
    main(Config(format="yolo", data_path=side_store, save_path=tmp_path / "tree", fold=0))
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path / 'tree'}: 16 radiographs (7 train, 7 val, 2 test)\n")
    assert (tmp_path / "tree" / "data.yaml").is_file()
