"""Sections of the benchmark `gpu` on what the GPU computes: its rates, the same boxes and weights as elsewhere."""

import dataclasses
import subprocess
import sys

from benchmarks.gpu_rows import Rows, Settings, dataset, inference_config, own_folder
from xray.errors import InputError
from xray.file_names import LAST, WEIGHTS_FILE


def machine(settings: Settings, rows: Rows) -> None:
    """The GPU, and the rates of its matrix products and copies, which bound all others."""
    import torch

    from benchmarks.ceiling import machine_rates
    from xray.models.device import resolve_device

    device = resolve_device(settings.device)
    rows.add("device", device.type)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        memory = properties.total_memory / 2**30
        rows.add("GPU", f"{properties.name}, {properties.major}.{properties.minor}, {memory:.0f} GiB")
        rows.add("CUDA of PyTorch, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}")
    if settings.miniature:
        return
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        rates = machine_rates(device, dtype, 5)
        rows.add(f"product of large matrices, {name}", rates["flops"] / 1e12, "TFLOP/s")
    rows.add("copy within its memory", rates["bytes"] / 1e9, "GB/s")


def boxes(settings: Settings, rows: Rows) -> None:
    """The same run on the GPU and on the CPU finds the same boxes."""
    import torch

    from benchmarks import infer

    config = dataclasses.replace(inference_config(settings, 4), precision="32", batch_size=2)
    folder = own_folder(settings, "boxes")
    infer.prepare(config, folder)
    torch.backends.cudnn.allow_tf32 = False
    expected = infer.Ours(config, "cpu", folder).find("canvases")
    with rows.attempt("float32 against the CPU's"):
        found = infer.Ours(config, settings.device, folder).find("canvases")
        agreement = infer.check({"canvases": found}, expected, exact=True)
        rows.add("boxes held against each other", agreement.boxes, target=1)
        rows.add("float32: found by both", 100 * agreement.matched, "%", target=100)
        rows.add("float32: largest difference of coordinates", agreement.pixels, "px")
        rows.add("float32: largest difference of scores", agreement.score, target=infer.SCORE, at_most=True)
    with rows.attempt("bfloat16 against float32 on the CPU"):
        lower = dataclasses.replace(config, precision="bf16")
        found = infer.Ours(lower, settings.device, folder).find("canvases")
        agreement = infer.compare(found, expected, infer.FLOOR, infer.SCORE)
        # Told and not judged: of weights at random, rounding changes the order of many nearly equal boxes.
        rows.add("bfloat16: found by both", 100 * agreement.matched, "%")


def determinism(settings: Settings, rows: Rows) -> None:
    """Two trainings with --deterministic end with the same weights."""
    reference = _reference(settings)
    _train(settings, "again")
    rows.add("largest difference of two trainings' weights", _difference(settings, reference, "again"), "", 0.0, True)


def resume(settings: Settings, rows: Rows) -> None:
    """A training of one epoch that goes on ends as the one of two did."""
    reference = _reference(settings)
    _train(settings, "resumed", "--n-epochs", "1")
    _train(settings, "resumed", "--resume", "--n-epochs", "2")
    difference = _difference(settings, reference, "resumed")
    rows.add("largest difference of a resumed training's weights", difference, "", 0.0, True)


def ddp(settings: Settings, rows: Rows) -> None:
    """One process of torchrun, with DDP around the model, trains as one without does."""
    from benchmarks.processes import ROOT

    reference = _reference(settings)
    flags = _flags(settings, "ddp")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "--"]
    done = subprocess.run([*start, str(ROOT / "xray" / "train.py"), *flags], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise InputError((done.stderr.strip().splitlines() or ["torchrun failed without a word"])[-1])
    rows.add("largest difference of its weights", _difference(settings, reference, "ddp"), "", 1e-5, True)


def _flags(settings: Settings, name: str, *more: str) -> list[str]:
    """Flags of xray/train.py for a training of seconds, in strict mode."""
    data = dataset(dataclasses.replace(settings, miniature=True), 12)
    flags = f"""
        --task detection --data-path {data} --save-path {settings.folder / "trainings" / name}
        --device {settings.device} --backbone resnet18 --weights none --deterministic --batch-size 2 --n-workers 0
        --rpn-samples 32 --roi-samples 16 --proposals 100 --max-detections 20 --lr 0.01 --warmup-steps 2 --n-pictures 0
        --schedule step --no-ema --anchor-scale 1 --normals 1 --norm frozen
    """.split()
    return [*flags, *(more or ("--n-epochs", "2"))]


def _train(settings: Settings, name: str, *more: str) -> None:
    from xray.commands.train import main
    from xray.training.recipes import read_training_flags

    flags = _flags(settings, name, *more)
    if main(*read_training_flags(flags)):
        raise InputError(f"xray/train.py {' '.join(flags)} failed")


def _reference(settings: Settings) -> str:
    """The training that others are held against, by whichever section is first."""
    if not (settings.folder / "trainings" / "reference" / WEIGHTS_FILE).exists():
        _train(settings, "reference")
    return "reference"


def _difference(settings: Settings, one: str, other: str) -> float:
    """Largest difference of two trainings' weights at their ends."""
    import torch

    paths = (settings.folder / "trainings" / name / LAST for name in (one, other))
    first, second = (torch.load(path, map_location="cpu", weights_only=True)["state_dict"] for path in paths)
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)
