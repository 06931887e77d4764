"""Sections of the benchmark `gpu` on how fast it is: training, inference, loading, compiled networks."""

import functools
import importlib.util

from benchmarks.gpu_rows import Rows, Settings, dataset, inference_config, made_run, own_folder, training_config
from xray.errors import InputError

IMAGES_PER_SECOND = {"train": 250.0, "infer": 600.0}
TIMES_TORCHVISION = {"train": 4.0, "infer": 8.0}
"""What is wanted of an H100 or H200, at 1024 pixels."""


def train(settings: Settings, rows: Rows) -> None:
    """A training step against torchvision's loop with its own mixed precision, at 1024 pixels and batches of 16."""
    from benchmarks import train as benchmark
    from benchmarks.harness import entry
    from xray.models.device import resolve_device

    peers = ("torchvision-amp", "torchvision")
    config = training_config(settings, repeats=1 if settings.miniature else 3)
    training = benchmark.Training(config, peers, resolve_device(settings.device), own_folder(settings, "train"))
    with rows.attempt("float32: same losses and detections"):
        detections = training.check()["detections"]
        rows.add("float32: detections found by both", 100 * detections["matched"], "%", target=100)
    rounds, loaded = training.measure()
    measured = entry("", rounds, [("ours", peer) for peer in peers])
    title = f"{settings.image_size} px, batches of {settings.batch_size}"
    for name, side in measured["contenders"].items():
        target = IMAGES_PER_SECOND["train"] if name == "ours" else None
        rows.add(f"{name}, {title}", side["per_second"]["median"], "images/s", target=target)
        peaks = [run.result["memory"] for run in rounds[name] if run.result["memory"] is not None]
        if peaks:
            rows.add(f"{name}: most memory of a step", max(peaks) / 2**30, "GiB")
    for pair in measured["ratios"]:
        target = TIMES_TORCHVISION["train"] if pair["peer"] == "torchvision-amp" else None
        rows.add(f"ours, times {pair['peer']}", pair["ratio"]["median"], "×", target=target)
    rows.add("ours with its loader", loaded.rate, "images/s")
    rows.add("ours with its loader: waiting for data", 100 * loaded.result["waited"] / loaded.seconds, "%")


def infer(settings: Settings, rows: Rows) -> None:
    """Inference from canvases against torchvision's detector: eager, float32, one radiograph at a time."""
    from benchmarks import infer as benchmark
    from benchmarks.harness import alternate, entry
    from benchmarks.processes import Contender

    config = inference_config(settings, 4 if settings.miniature else 128)
    folder = own_folder(settings, "infer")
    benchmark.prepare(config, folder)
    with (
        Contender(benchmark.Ours, config, settings.device, folder) as ours,
        Contender(benchmark.Theirs, config, settings.device, folder) as theirs,
    ):
        chosen = ours.call("describe")
        title = f"{settings.image_size} px, {chosen['precision']}, batches of {chosen['batch_size']}"
        with rows.attempt("same boxes"):
            of_ours, of_theirs = (side.call("find", "canvases") for side in (ours, theirs))
            agreement = benchmark.compare(of_ours, of_theirs, benchmark.FLOOR, benchmark.SCORE)
            # Weights at random are told and not judged: rounding changes the order of many nearly equal boxes.
            rows.add("boxes found by both, in the arithmetic of each", 100 * agreement.matched, "%")
        contenders = {
            name: functools.partial(side.call, "time", "canvases")
            for name, side in (("ours", ours), ("torchvision", theirs))
        }
        timings = alternate(contenders, 1 if settings.miniature else 4)
    measured = entry("", timings, [("ours", "torchvision")])
    rates = {name: side["per_second"]["median"] for name, side in measured["contenders"].items()}
    rows.add(f"ours, {title}", rates["ours"], "images/s", target=IMAGES_PER_SECOND["infer"])
    rows.add("torchvision, eager, float32, batch 1", rates["torchvision"], "images/s")
    ratio = measured["ratios"][0]["ratio"]["median"]
    rows.add("ours, times torchvision", ratio, "×", target=TIMES_TORCHVISION["infer"])


def train_loaded(settings: Settings, rows: Rows) -> None:
    """Training with its real loader: augmentation and store on the device, on and off."""
    from benchmarks import train as benchmark
    from xray.models.device import resolve_device

    device = resolve_device(settings.device)
    training = benchmark.Training(training_config(settings), (), device, own_folder(settings, "train_loaded"))
    stores = ("cpu", "cuda") if device.type == "cuda" else ("cpu",)
    for store in stores:
        for place in ("workers", "device") if store == "cpu" else ("device",):
            what = f"augmented by the {place}, canvases {'on the device' if store == 'cuda' else 'in their file'}"
            with rows.attempt(what):
                timing = training.with_loader(augment_on=place, store_device=store)
                rows.add(what, timing.rate, "images/s")
                rows.add(f"{what}: waiting for data", 100 * timing.result["waited"] / timing.seconds, "%")


def load(settings: Settings, rows: Rows) -> None:
    """Loading with augmentation by the workers or the device, and with the canvases on the device."""
    from benchmarks import load as benchmark

    n = 8 if settings.miniature else 64
    config = benchmark.Config(
        data_path=dataset(settings, n),
        n_images=n,
        repeats=1 if settings.miniature else 2,
        device=settings.device,
        batch_size=settings.batch_size,
        n_workers=settings.n_workers or 1,
    )
    report = benchmark.measure(config, own_folder(settings, "load"), print)
    entry = report["results"][-1]
    for name, side in entry["contenders"].items():
        title = benchmark.TITLES[name]
        rows.add(f"{title}, {entry['label']} processes", side["per_second"]["median"], "images/s")


def compiled(settings: Settings, rows: Rows) -> None:
    """The network compiled, in inference and in training."""
    import numpy as np
    import torch

    from benchmarks import train as benchmark
    from benchmarks.harness import timed
    from benchmarks.peers import synchronize
    from xray.inference.pipeline_loading import load_pipeline
    from xray.inference.trial import lowered
    from xray.models.device import inference_precision, resolve_device

    device = resolve_device(settings.device)
    run, canvases = made_run(settings, "compiled")
    dtype = inference_precision("32" if settings.miniature else "auto", device) or torch.float32
    pipeline = lowered(load_pipeline([run], device, flips=False), dtype)
    batch = np.concatenate([canvases] * (settings.batch_size // 4 or 1))
    n_passes = 1 if settings.miniature else 20

    def passes() -> None:
        for _ in range(n_passes):
            pipeline.forward(batch)
        synchronize(device)

    for what in ("network as it is, inference", "network compiled, inference"):
        with rows.attempt(what):
            if "compiled" in what:
                pipeline.detectors[0].model.compile(dynamic=False)
            first = timed(1, passes).seconds
            rows.add(what, timed(len(batch) * n_passes, passes).rate, "images/s")
            rows.add(f"{what}: {n_passes} passes, the first time", first, "s")
    with rows.attempt("compiled, training"):
        config = training_config(settings, compile=True)
        training = benchmark.Training(config, (), device, own_folder(settings, "train_compiled"))
        [timing] = training.measure()[0]["ours"]
        rows.add("compiled, training", timing.rate, "images/s")


def runtimes(settings: Settings, rows: Rows) -> None:
    """Other runtimes, as far as they are at hand: onnxruntime on the GPU, TensorRT."""
    rows.add("TensorRT", "installed" if importlib.util.find_spec("tensorrt") else "not at hand")
    if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")):
        rows.add("onnxruntime", "not at hand")
        return
    from benchmarks.harness import timed
    from xray.export.onnx import to_onnx
    from xray.inference.onnx_runtime import onnx_device
    from xray.inference.pipeline_loading import load_pipeline

    try:
        device = onnx_device(settings.device)
    except InputError as error:
        rows.add("onnxruntime", str(error))
        return
    run, canvases = made_run(settings, "runtimes")
    file = run / "model.onnx"
    file.write_bytes(to_onnx(run))
    pipeline = load_pipeline([file], device, flips=False, runtime="onnx")

    def passes() -> None:
        for canvas in canvases:
            pipeline.forward(canvas[None])

    passes()
    rows.add(f"onnxruntime on {device.type}, float32, batch 1", timed(len(canvases), passes).rate, "images/s")
