"""Wrong flags of every command: one line, status 2, nothing done. And its help: complete, at once, without torch."""

import ast
import dataclasses
import importlib
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from xray.errors import FlagError
from xray.training.config import TASKS

ROOT = Path(__file__).resolve().parents[2]

NAN, INF = math.nan, math.inf
CONVERT = ["--data-path", "none", "--save-path", "out"]
INFER = ["--weights", "none", "--data-path", "none", "--save-path", "out"]

# Command and its necessary flags → the wrong ones, each with the flag that must be named.
WRONG = {
    ("tools/convert.py", "vinbig", *CONVERT): [
        ("--image-size -1", "--image-size"), ("--image-size 0", "--image-size"), ("--image-size 31", "--image-size"),
        ("--image-size 100000", "--image-size"), ("--n-folds 1", "--n-folds"), ("--n-folds -5", "--n-folds"),
        ("--n-folds 1000", "--n-folds"), ("--n-workers -1", "--n-workers"), ("--n-workers 100000", "--n-workers"),
        ("--seed -1", "--seed"), ("--seed 4294967296", "--seed"), ("--data-path ", "--data-path"),
        ("--save-path ", "--save-path"), ("--save-path=", "--save-path"),
        ("--address localhost:6379", "--address"), ("--engine ray --address ray://head:10001", "--address"),
        ("--engine ray --address head", "--address"), ("--cores-per-actor 2", "--cores-per-actor"),
        ("--engine ray --cores-per-actor -1", "--cores-per-actor"), ("--engine ray --table-only", "--engine"),
    ],
    ("tools/convert.py", "coco", *CONVERT): [("--annotations ", "--annotations"), ("--n-folds 0", "--n-folds")],
    ("tools/convert.py", "siim", *CONVERT): [
        ("--mask-size 0", "--mask-size"), ("--mask-size -3", "--mask-size"), ("--mask-size 100000", "--mask-size"),
        ("--table ", "--table"),
    ],
    ("tools/convert.py", "lungs", *CONVERT): [
        ("--images a", "--images"), ("--masks a", "--masks"), ("--images  --masks b", "--images"),
        ("--category ", "--category"), ("--patients ", "--patients"),
    ],
    ("tools/convert.py", "folders", *CONVERT): [("--patients ", "--patients"), ("--n-workers 513", "--n-workers")],
    ("tools/phantoms.py", "--save-path", "out"): [
        ("--n-train -1", "--n-train"), ("--n-test -1", "--n-test"), ("--n-train 0 --n-test 0", "--n-train"),
        ("--n-train 100000000", "--n-train"), ("--seed -1", "--seed"), ("--size 0", "--size"), ("--size 95", "--size"),
        ("--size 100000", "--size"), ("--normal-fraction -0.1", "--normal-fraction"),
        ("--normal-fraction nan", "--normal-fraction"), ("--normal-fraction 1.1", "--normal-fraction"),
        ("--pneumothorax-fraction 2", "--pneumothorax-fraction"),
        ("--pneumothorax-fraction inf", "--pneumothorax-fraction"), ("--n-workers -1", "--n-workers"),
        ("--trees lungs --pneumothorax-fraction 0.5", "--pneumothorax-fraction"), ("--trees", "--trees"),
        ("--save-path ", "--save-path"),
    ],
    ("tools/view.py", "--data-path", "none", "--save-path", "out"): [
        ("--n 0", "--n"), ("--n -3", "--n"), ("--n 10000000", "--n"), ("--fold -1", "--fold"),
        ("--fold 1000", "--fold"), ("--seed -1", "--seed"), ("--finding ", "--finding"),
        ("--split test --fold 0", "--split"), ("--data-path ", "--data-path"), ("--save-path ", "--save-path"),
    ],
    ("tools/audit.py", "--data-path", "none", "--save-path", "out"): [
        ("--predictions ", "--predictions"), ("--data-path ", "--data-path"), ("--save-path ", "--save-path"),
    ],
    ("tools/infer.py", *INFER): [
        ("--batch-size -1", "--batch-size"), ("--batch-size 100000", "--batch-size"), ("--n-workers -1", "--n-workers"),
        ("--n-workers 100000", "--n-workers"), ("--timeout 0", "--timeout"), ("--timeout -1", "--timeout"),
        ("--timeout nan", "--timeout"), ("--timeout inf", "--timeout"),
        ("--report-threshold 2", "--report-threshold"), ("--overlay-threshold 2", "--overlay-threshold"),
        ("--overlay-threshold nan", "--overlay-threshold"), ("--gate hard --gate-threshold -1", "--gate-threshold"),
        ("--gate hard --gate-threshold nan", "--gate-threshold"), ("--gate-threshold 0.5", "--gate-threshold"),
        ("--triplet 0.5 0.1 0.7", "--triplet"), ("--triplet 2 0 0", "--triplet"), ("--triplet nan 0 0", "--triplet"),
        ("--prune 5", "--prune"), ("--prune -1", "--prune"), ("--runtime onnx --prune 1", "--prune"),
        ("--runtime onnx --precision bf16", "--precision"), ("--runtime onnx --engine ray", "--engine"),
        ("--fold -2", "--fold"), ("--fold 1000", "--fold"),
        ("--split other", "--split"), ("--split test --fold 0", "--split"), ("--device gpu", "--device"),
        ("--device ", "--device"), ("--truth there", "--truth"), ("--weights ", "--weights"),
        ("--weights", "--weights"), ("--address auto", "--address"),
        ("--engine ray --address head:x", "--address"), ("--engine ray --cores-per-actor 513", "--cores-per-actor"),
        ("--engine ray --device cuda:1", "--device"),
        ("--data-path ", "--data-path"), ("--save-path ", "--save-path"),
    ],
    ("tools/evaluate.py", "--predictions", "none.json", "--data-path", "none", "--save-path", "out"): [
        ("--resamples -1", "--resamples"), ("--resamples 1000000", "--resamples"), ("--fold -1", "--fold"),
        ("--fold 100", "--fold"), ("--threshold -0.1", "--threshold"), ("--threshold nan", "--threshold"),
        ("--triplet 0.5 0.1 0.7", "--triplet"), ("--triplet 0.5 nan 0.1", "--triplet"),
        ("--triplet 0.5 0.1 0.1 --fit run", "--triplet"), ("--split test --fold 1", "--split"), ("--fit ", "--fit"),
        ("--predictions ", "--predictions"), ("--data-path ", "--data-path"), ("--save-path ", "--save-path"),
    ],
    ("tools/fuse.py", "--predictions", "a.json", "b.json", "--data-path", "none", "--save-path", "out"): [
        ("--iou 0", "--iou"), ("--iou 1", "--iou"), ("--iou nan", "--iou"), ("--iou -1", "--iou"),
        ("--skip -1", "--skip"),
        ("--skip nan", "--skip"), ("--weights 1", "--weights"), ("--weights 1 0", "--weights"),
        ("--weights 1 nan", "--weights"), ("--weights 1 inf", "--weights"), ("--weights 1 -1", "--weights"),
        ("--predictions ", "--predictions"), ("--predictions", "--predictions"), ("--save-path ", "--save-path"),
        ("--sigma 0", "--sigma"), ("--scale 0.4", "--scale"), ("--scale 1.1", "--scale"), ("--labels ", "--labels"),
        ("--ensemble ", "--ensemble"), ("--ensemble e.yaml --iou 0.5", "--iou"),
        ("--ensemble e.yaml --weights 1 2", "--weights"),
    ],
    ("tools/tune.py", "--predictions", "a.json", "b.json", "--data-path", "none", "--save-path", "out"): [
        ("--predictions", "--predictions"), ("--predictions ", "--predictions"),
        ("--predictions a.json a.json", "--predictions"), ("--runs a", "--runs"),
        ("--labels c.csv --runs a b", "--runs"),
        ("--labels ", "--labels"), ("--resamples -1", "--resamples"),
        ("--seed -1", "--seed"), ("--save-path ", "--save-path"), ("--data-path ", "--data-path"),
        ("--save-path s3://bucket/out", "--save-path"), ("--runs s3://bucket/a s3://bucket/b", "--runs"),
    ],
    ("tools/pseudo.py", *INFER, "--images", "none"): [
        ("--min-score 0", "--min-score"), ("--min-score nan", "--min-score"), ("--min-score 1.1", "--min-score"),
        ("--device tpu", "--device"), ("--batch-size -1", "--batch-size"), ("--n-workers 513", "--n-workers"),
        ("--images ", "--images"), ("--weights ", "--weights"), ("--save-path ", "--save-path"),
    ],
    ("tools/refine.py", "--predictions", "a.json", "--masks", "b.json", "--data-path", "none", "--save-path", "out"): [
        ("", "--fit"), ("--fit --fold -1", "--fold"), ("--fit --fold 100", "--fold"),
        ("--fit --split test --fold 1", "--split"), ("--weights ", "--weights"), ("--masks ", "--masks"),
    ],
    ("tools/export.py", "--weights", "none", "--save-path", "out"): [
        ("--format run", "--weights"), ("--format torchvision", "--save-path"),
        ("--format torchvision --weights a b", "--weights"), ("--format run --weights ", "--weights"),
        ("--format run --save-path ", "--save-path"), ("--format onnx", "--save-path"),
        ("--format onnx --weights a b", "--weights"), ("--format onnx --prune 5", "--prune"),
        ("--format run --prune 1", "--prune"), ("--format onnx --check-data ", "--check-data"),
        ("--format run --check-data a", "--check-data"), ("--format run --weights a.pth", "--categories"),
        ("--format onnx --canvas-size 5", "--canvas-size"), ("--format onnx --categories a", "--categories"),
    ],
    ("tools/lr_find.py", "--data-path", "none", "--save-path", "out"): [
        ("--min-lr 0", "--min-lr"), ("--min-lr nan", "--min-lr"), ("--min-lr 2", "--min-lr"),
        ("--max-lr inf", "--max-lr"),
        ("--max-lr -1", "--max-lr"), ("--n-steps 19", "--n-steps"), ("--n-steps 10000000", "--n-steps"),
        ("--n-steps many", "--n-steps"), ("--resume", "--resume"), ("--batch-size 0", "--batch-size"),
    ],
    ("tools/cv.py", "--data-path", "none", "--save-path", "out"): [
        ("--folds 100", "--folds"), ("--folds 1 1", "--folds"), ("--fold 1", "--fold"),
        ("--parallel 0", "--parallel"), ("--batch-size 0", "--batch-size"), ("--save-path ", "--save-path"),
        ("--task ear", "--task"),
    ],
    ("xray/train.py", "--data-path", "none", "--save-path", "out"): [
        ("--lr nan", "--lr"), ("--batch-size -1", "--batch-size"), ("--weights coco --backbone resnet18", "--weights"),
        ("--data-path ", "--data-path"), ("--save-path ", "--save-path"), ("--weights ", "--weights"),
        ("--task ", "--task"), ("--config ", "--config"), ("--task ear", "--task"), ("--task", "--task"),
        ("--device ", "--device"), ("--task segmentation --deep-supervision", "--deep-supervision"),
        ("--task segmentation --depth 2", "--depth"), ("--task segmentation --encoder ", "--encoder"),
        ("--task classification --network ", "--network"), ("--pseudo ", "--pseudo"),
        ("--task classification --pseudo out", "--pseudo"), ("--pseudo out --store-device cuda", "--store-device"),
    ],
    ("tools/serve.py", "--weights", "none"): [
        ("--port -1", "--port"), ("--port 70000", "--port"), ("--batch-size -1", "--batch-size"),
        ("--places 0", "--places"),
        ("--max-megabytes nan", "--max-megabytes"), ("--n-workers 0", "--n-workers"), ("--timeout 0", "--timeout"),
        ("--dicom-port 70000", "--dicom-port"), ("--report-threshold 2", "--report-threshold"),
        ("--dicom-return A@b:1", "--dicom-return"), ("--workers 0", "--workers"), ("--workers 65", "--workers"),
        ("--workers 4 --places 3", "--places"), ("--auth ", "--auth"), ("--auth-open health", "--auth-open"),
        ("--tls-cert a", "--tls-cert"), ("--tls-key a", "--tls-key"),
    ],
    ("tools/card.py", "none"): [
        ("--report ", "--report"), ("--data-path ", "--data-path"), ("--notes ", "--notes"),
        ("--save-path ", "--save-path"),
    ],
    ("tools/account.py", "ali"): [("--auth ", "--auth")],
    ("tools/benchmark.py", "convert"): [
        ("--n-images 0", "--n-images"), ("--repeats 0", "--repeats"), ("--width 1", "--width"),
        ("--height 1000000", "--height"), ("--image-size 1", "--image-size"), ("--n-workers -1", "--n-workers"),
        ("--n-workers 10000", "--n-workers"), ("--data-path ", "--data-path"), ("--save-path ", "--save-path"),
    ],
    ("tools/benchmark.py", "load"): [("--n-images 1", "--n-images"), ("--batch-size 0", "--batch-size")],
    ("tools/benchmark.py", "train"): [
        ("--n-images 1", "--n-images"), ("--n-steps 0", "--n-steps"), ("--batch-size 0", "--batch-size"),
        ("--n-images 4 --batch-size 8", "--n-images"), ("--roi-samples 0", "--roi-samples"),
    ],
    ("tools/benchmark.py", "infer"): [
        ("--n-images 1", "--n-images"), ("--score-threshold nan", "--score-threshold"),
        ("--score-threshold 1", "--score-threshold"), ("--proposals 0", "--proposals"),
    ],
    ("tools/benchmark.py", "evaluate"): [("--n-boxes 101", "--n-boxes"), ("--n-boxes 0", "--n-boxes")],
    ("tools/benchmark.py", "fuse"): [("--iou nan", "--iou"), ("--iou 1", "--iou"), ("--n-models 0", "--n-models")],
    ("tools/benchmark.py", "memory"): [
        ("--n-images 100", "--n-images"), ("--n-images 100 50", "--n-images"),
        ("--image-size 1", "--image-size"), ("--batch-size 0", "--batch-size"),
    ],
}  # fmt: skip

# The same flags of training by their values: reading all its flags takes a tenth of a second.
OUT_OF_RANGE = {
    "detection": {
        "n_epochs": (0, -1, 10**11), "batch_size": (0, -1, 10**11), "lr": (0.0, -1.0, NAN, INF),
        "momentum": (-0.1, 1.0, NAN, INF), "weight_decay": (-1.0, NAN, INF), "step_size": (0, -1),
        "gamma": (0.0, 1.1, NAN), "warmup_steps": (-1,), "clip_grad": (-1.0, NAN, INF), "accumulate": (0,),
        "ema_decay": (0.0, 1.0, NAN), "devices": (0, 10**5), "num_nodes": (0, 10**5), "n_workers": (-1, 10**5),
        "fold": (-1,), "seed": (-1, 2**32), "flip": (-0.1, 1.1, NAN), "log_step": (0,), "early_stop": (-1,),
        "val_every": (0, 101), "n_pictures": (-1,), "device": ("gpu", ""), "trainable_layers": (-1, 6),
        "fpn_channels": (0,), "anchor_scale": (0.0, -1.0, NAN, INF), "repeat_threshold": (-1.0, 2.0, NAN),
        "normals": (-1.0, 2.0, NAN), "rpn_samples": (0,), "roi_samples": (0,), "proposals": (1,),
        "score_threshold": (-1.0, 1.0, NAN), "max_detections": (0,), "data_path": ("",), "weights": ("",),
        "pseudo_share": (0.0, 1.1, NAN),
    },
    "segmentation": {
        "depth": (2, 6), "beta": (-1.0, 2.0, NAN), "positives": (-1.0, 2.0, NAN), "positives_end": (-1.0, 2.0, NAN),
        "threshold": (0.0, 1.0, NAN), "encoder": ("",),
    },
    "classification": {"network": ("",), "lr": (INF,), "save_path": ("",)},
}  # fmt: skip


def run(command, monkeypatch, capsys):
    """Status and stderr of a command that runs in this process."""
    monkeypatch.setattr(sys, "argv", [str(ROOT / command[0]), *command[1:]])
    monkeypatch.setattr("xray.interrupts.watch", lambda *signals: None)
    name = Path(command[0]).stem
    module = importlib.import_module("benchmarks.__main__" if name == "benchmark" else f"xray.commands.{name}")
    try:
        status = module.run()
    except SystemExit as ended:
        status = ended.code
    return status, capsys.readouterr()


def words(text):
    """A line of flags; after a blank that nothing follows, or a second one, the value is empty."""
    return text.split(" ") if text else []


def joined(command, others):
    """A command with other flags, in place of its own where they are the same."""
    kept, is_other = [], False
    for word in command:
        is_other = word in {one.partition("=")[0] for one in others} if word.startswith("--") else is_other
        kept += [] if is_other else [word]
    return [*kept, *others]


@pytest.mark.parametrize("command", WRONG, ids=[" ".join(part for part in c[:2]) for c in WRONG])
def test_wrong_flags(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for wrong, named in WRONG[command]:
        status, said = run(joined(command, words(wrong)), monkeypatch, capsys)
        assert status == 2, (wrong, said)
        assert said.err.startswith("error: "), wrong
        assert said.err.count("\n") == 1, wrong
        assert re.search(rf"{named}\b", said.err), (wrong, said.err)
        assert said.out == ""
        assert not list(tmp_path.iterdir()), wrong


@pytest.mark.parametrize("task", OUT_OF_RANGE)
def test_values_of_training_out_of_range(task):
    for name, values in OUT_OF_RANGE[task].items():
        for value in values:
            with pytest.raises(FlagError, match=f"^--{name.replace('_', '-')} is "):
                TASKS[task](**{"n_epochs": 100, name: value}).check()
    # All numbers that must be finite are among them.
    config = TASKS[task]()
    for field in dataclasses.fields(config):
        if isinstance(getattr(config, field.name), float):
            with pytest.raises(FlagError, match=f"^--{field.name.replace('_', '-')} is nan"):
                dataclasses.replace(config, **{field.name: NAN}).check()


def test_unknown_flags(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in WRONG:
        needed = ["--format", "run"] if command[0] == "tools/export.py" else []
        status, said = run((*command, *needed, "--no-such-flag", "1"), monkeypatch, capsys)
        assert status == 2, command
        assert said.err.startswith("error: there is no flag --no-such-flag"), said.err
        assert said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


# ---- help

SUBCOMMANDS = {
    "tools/convert.py": ("vinbig", "coco", "siim", "lungs", "folders"),
    "tools/benchmark.py": ("convert", "load", "train", "infer", "evaluate", "fuse", "memory"),
}
TOOLS = ["xray/train.py", *sorted(f"tools/{path.name}" for path in (ROOT / "tools").glob("[a-z]*.py"))]


def dataclasses_in(path):
    """Name → (field, its docstring, or the help in its type) of the dataclasses in a file."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(mark) for mark in node.decorator_list):
            fields = []
            for place, line in enumerate(node.body):
                if isinstance(line, ast.AnnAssign):
                    after = node.body[place + 1] if place + 1 < len(node.body) else None
                    is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                    fields.append((line.target.id, after.value.value if is_text else help_in(path, line.annotation)))
            found[node.name] = fields
    return found


def help_in(path, annotation):
    """The help that a name for a type brings along, as `ImageIds` does; "" without one."""
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    marks = getattr(getattr(module, ast.unparse(annotation), None), "__metadata__", ())
    return next((mark.help for mark in marks if getattr(mark, "help", None)), "")


def test_every_flag_has_a_help_text():
    files = [*(ROOT / "xray" / "commands").glob("*.py"), ROOT / "xray" / "training" / "config.py"]
    files += [ROOT / "benchmarks" / f"{name}.py" for name in SUBCOMMANDS["tools/benchmark.py"]]
    n_flags = 0
    for path in files:
        for name, fields in dataclasses_in(path).items():
            for field, text in fields:
                assert text, f"{path.name}: {name}.{field} has no help"
                assert len(text.split()) >= 2, f"{path.name}: {name}.{field}: {text!r}"
                n_flags += 1
    assert n_flags > 150


@pytest.mark.parametrize("tool", TOOLS)
def test_help_is_complete_and_imports_little(tool, tmp_path):
    """Every flag with its default or "required"."""
    command = [sys.executable, "-X", "importtime", ROOT / tool, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=600, check=False)
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "lightning", "matplotlib", "pandas", "albumentations"}
    check_help(done.stdout, SUBCOMMANDS.get(tool, ()))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        *((tool, name) for tool, names in SUBCOMMANDS.items() for name in names),
        ("xray/train.py", "--task", "segmentation"),
        ("xray/train.py", "--task", "classification"),
    ],
)
def test_help_of_subcommands(command, monkeypatch, capsys):
    status, said = run((*command, "--help"), monkeypatch, capsys)
    assert status == 0
    check_help(said.out)


def check_help(text, subcommands=()):
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    if subcommands:
        assert [name for name in subcommands if not re.search(rf"\b{name}\b", plain)] == []
        return
    flags = re.findall(r"^[ │|]*(?:-h, )?(--[a-z0-9-]+)", plain, flags=re.MULTILINE)
    assert len(flags) > 3
    said = plain.count("(default:") + plain.count("(required)") + plain.count("(repeatable)") + plain.count("show this")
    # `--debug | --no-debug` are one flag.
    assert said >= len({flag for flag in flags if not flag.startswith("--no-")}) - 1, plain


def test_the_wrong_flags_cover_every_command():
    assert {command[0] for command in WRONG} == set(TOOLS)
    assert {command[1] for command in WRONG if command[0] in SUBCOMMANDS} == {
        name for names in SUBCOMMANDS.values() for name in names
    }
