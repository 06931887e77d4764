"""Mutated tables, run lengths, JSON and YAML through the functions that commands read them with."""

import collections
import contextlib
import dataclasses
import functools
import io
import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import safetensors.numpy
from fuzz_files import cases
from fuzz_measures import Breach, Row, peak_of_process, reset_peak
from fuzz_texts import mutated

from xray.datasets.inputs import open_inputs
from xray.datasets.mask_canvas import mask_canvas
from xray.datasets.prediction_ids import resolve
from xray.datasets.sources import convert
from xray.datasets.sources.folders import read_folders
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.evaluation.evaluate import evaluate
from xray.inference.ensemble import fuse
from xray.radiographs.names import safe_path
from xray.radiographs.workers import Failed, in_workers
from xray.structures import rle
from xray.structures.masks import decode_mask, encode_mask
from xray.structures.predictions import read_predictions, write_predictions
from xray.structures.probability_maps import read_maps
from xray.structures.submission import read_submission, submission_order, write_mask_submission, write_submission
from xray.training.recipes import read_training_flags

TIMEOUT = 60.0
"""Seconds until a worker is ended, by the clock; the first input of a worker also waits for its imports."""
MEMORY = 2 * 2**30
WIDTH, HEIGHT = 24, 16
IDS = ("a", "b", "c", "d")

POLYGON = [[2, 2, 12, 2, 12, 10, 2, 10]]
COUNTS = {"size": [HEIGHT, WIDTH], "counts": [20, 30, 334]}


@dataclasses.dataclass
class Tried:
    """What became of one input: as for images."""

    refused: str = ""
    breach: str = ""
    seconds: float = 0.0
    peak: int = 0


@dataclasses.dataclass(frozen=True)
class Kind:
    """A file that commands read. style: how it is mutated. original: what it holds. read: (folder, content, number)."""

    style: str
    original: Callable[[], bytes]
    read: Callable[[Path, bytes, int], None]


# --- originals -------------------------------------------------------------------------------------------------------


def vinbig_table() -> bytes:
    rows = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
    for number, name in enumerate(IDS):
        for reader in ("R8", "R9", "R10"):
            if number % 2:
                rows.append(f"{name},Cardiomegaly,3,{reader},{2 + number},3,{14 + number},12.5")
            else:
                rows.append(f"{name},No finding,14,{reader},,,,")
    return ("\n".join(rows) + "\n").encode()


def vinbig_sizes() -> bytes:
    return ("image_id,dim0,dim1\n" + "".join(f"{name},{HEIGHT},{WIDTH}\n" for name in IDS)).encode()


def siim_runs() -> bytes:
    return b"ImageId, EncodedPixels\na, -1\nb, 20 30 5 10\nc, 3 4\nc, 100 20\nd,-1\n"


def siim_pictures() -> bytes:
    return b"new_filename,ImageId,has_pneumo\na.png,1.2.3,0\nb.png,1.2.4,1\nc.png,1.2.5,0\nd.png,1.2.6,1\n"


def siim_labels() -> bytes:
    return b"ImageId,Class\na,0\nb,1\nc,0\nd,1\n"


def coco() -> bytes:
    mask, _ = encode_mask(COUNTS, WIDTH, HEIGHT)
    parts: tuple[Any, ...] = (POLYGON, COUNTS, mask, None)
    annotations = [
        {
            "id": n,
            "image_id": n % 4,
            "category_id": 3 + n % 2,
            "bbox": [2, 3, 10, 7.5],
            "iscrowd": 0,
            "readers": ["R1", "R2"],
        }
        | ({"segmentation": parts[n % 4]} if parts[n % 4] else {})
        for n in range(6)
    ]
    images = [
        {
            "id": n,
            "file_name": f"{name}.png",
            "width": WIDTH,
            "height": HEIGHT,
            "patient": f"P{n}",
            "view": "PA",
            "age": 50,
        }
        for n, name in enumerate(IDS)
    ]
    return json.dumps(
        {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "x"}, {"id": 4, "name": "y"}]}
    ).encode()


def patients() -> bytes:
    return b"file_name,patient\nNORMAL/a.dicom,1\nNORMAL/b.dicom,1\nSICK/c.dicom,2\nd,3\n"


def patients_coco() -> bytes:
    return json.dumps({"images": [{"file_name": f"{name}.dicom", "patient": f"P{name}"} for name in IDS]}).encode()


def predictions() -> bytes:
    rows = [
        {"image_id": name, "category_id": 1 + n % 2, "bbox": [2.0, 3.0, 10.0, 7.5], "score": 0.5 + n / 10}
        | ({"segmentation": COUNTS if n % 2 else POLYGON} if n else {})
        for n, name in enumerate(IDS)
    ]
    return json.dumps(rows).encode()


def submission() -> bytes:
    rows = ("a,14 1 0 0 1 1", "b,0 0.5 2 3 12 10.5 1 0.25 1 1 5 5", "c,14 0.9 0 0 1 1", "d,1 1 0 0 3 3")
    return "\n".join(("image_id,PredictionString", *rows, "")).encode()


def recipe() -> bytes:
    return (
        b"# A recipe.\ntask: detection\ndata_path: data/vinbig\nsave-path: runs/x\nlr: 0.005\nn_epochs: 30\nema: true\n"
        b"backbone: resnet18\nschedule: cosine\nweights: none\nfold: 1\naugment: strong\nflip: 0.5\n"
    )


def run_text() -> bytes:
    return b"20 30 5 10 100 20 3 4"


def counts_text() -> bytes:
    return json.dumps(encode_mask(COUNTS, WIDTH, HEIGHT)[0]).encode()


def maps_index() -> bytes:
    content = {"image_ids": list(IDS), "sizes": [[WIDTH, HEIGHT], None, [WIDTH, HEIGHT], [WIDTH, HEIGHT]],
               "categories": [[1, "x"]], "labels": {"x": [0.5, None, 0.25, 1.0]}}  # fmt: skip
    return json.dumps(content).encode()


def model() -> bytes:
    description = {
        "task": "classification", "architecture": {"name": "resnet10t", "n_outputs": 2, "in_channels": 1},
        "labels": ["x", "y"], "categories": {"1": "x", "2": "y"}, "canvas_size": 32, "thresholds": {}, "flips": True,
    }  # fmt: skip
    return json.dumps(description).encode()


def weights() -> bytes:
    return safetensors.numpy.save({"a": np.zeros((2, 3), dtype=np.float32), "b": np.ones(4, dtype=np.int64)})


def names() -> bytes:
    return "\n".join(("train/NORMAL/a.png", "train/SICK/b.png", "test/SICK/c.dcm", "train/SICK/d", "e.jpg")).encode()


# --- reading ---------------------------------------------------------------------------------------------------------


@functools.cache
def pictures(folder: Path, process: int, suffix: str) -> Path:
    """A folder of four small radiographs, made once by each worker."""
    root = folder / f"{process}{suffix}"
    root.mkdir(parents=True)
    for number, name in enumerate(IDS):
        values = cases.chest_values(HEIGHT, WIDTH, 8, seed=number)
        if suffix == ".png":
            PIL.Image.fromarray(values.astype(np.uint8)).save(root / f"{name}.png")
        else:
            cases.save(root / f"{name}{suffix}", cases.dataset(values, 8))
    return root


def linked(folder: Path, target: Path, suffix: str = ".png") -> Path:
    """A folder with the four radiographs."""
    target.mkdir(parents=True, exist_ok=True)
    for path in pictures(folder.parent, os.getpid(), suffix).iterdir():
        os.link(path, target / path.name)
    return target


def check_dataset(path: Path, pixels: bool = True) -> None:
    """A dataset that was written can be opened and used."""
    try:
        store = open_store(path, pixels=pixels)
        use_store(store)
    except InputError as error:
        raise AssertionError(f"a dataset that was just written is refused: {error}") from error


def use_store(store: Any) -> None:
    assert store.labels.shape == (len(store), len(store.categories))
    assert len(store.folds) == len(store.splits) == len(store.index_of) == len(store) or len(store.index_of) <= len(
        store
    )
    assert (store.agreement > 0).all()
    if store.images is not None:
        for row in range(len(store)):
            canvas = mask_canvas(store, row)
            assert canvas.shape == (len(store.categories), store.canvas_size, store.canvas_size)


FLAGS = {"image_size": 32, "n_folds": 2, "n_workers": 0}


def read_vinbig_table(folder: Path, data: bytes, number: int) -> None:
    linked(folder, folder / "raw" / "train", ".dicom")
    (folder / "raw" / "train.csv").write_bytes(data)
    table_only = number % 2 == 0
    convert("vinbig", folder / "raw", folder / "data", **FLAGS, table_only=table_only)
    check_dataset(folder / "data", pixels=not table_only)


def read_vinbig_sizes(folder: Path, data: bytes, number: int) -> None:
    linked(folder, folder / "raw" / "train")
    (folder / "raw" / "train.csv").write_bytes(vinbig_table())
    (folder / "raw" / "train_meta.csv").write_bytes(data)
    convert("vinbig", folder / "raw", folder / "data", **FLAGS)
    check_dataset(folder / "data")


def read_siim_runs(folder: Path, data: bytes, number: int) -> None:
    linked(folder, folder / "raw" / "dicom-images-train", ".dicom")
    (folder / "raw" / "train-rle.csv").write_bytes(data)
    convert("siim", folder / "raw", folder / "data", **FLAGS, dialect=("relative", "absolute")[number % 2])
    check_dataset(folder / "data")


def read_siim_pictures(folder: Path, data: bytes, number: int) -> None:
    linked(folder, folder / "raw" / "png_images")
    (folder / "raw" / "png_masks").mkdir()
    for n, name in enumerate(IDS):
        mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        mask[3:9, 4:12] = 255 * (n % 2)
        PIL.Image.fromarray(mask).save(folder / "raw" / "png_masks" / f"{name}.png")
    (folder / "raw" / "stage_1_train_images.csv").write_bytes(data)
    convert("siim", folder / "raw", folder / "data", **FLAGS)
    check_dataset(folder / "data")


def read_siim_labels(folder: Path, data: bytes, number: int) -> None:
    linked(folder, folder / "raw" / "images", ".dicom")
    (folder / "raw" / "labels.csv").write_bytes(data)
    convert("siim", folder / "raw", folder / "data", **FLAGS)
    check_dataset(folder / "data")


def read_coco_file(folder: Path, data: bytes, number: int) -> None:
    linked(folder, folder / "raw" / "images")
    (folder / "raw" / "annotations.json").write_bytes(data)
    convert("coco", folder / "raw", folder / "data", **FLAGS, readers=("fuse", "all")[number % 2])
    check_dataset(folder / "data")


def read_patients(folder: Path, data: bytes, number: int, suffix: str = ".csv") -> None:
    # No PNG files: whether those are masks is asked of a process of its own, which takes longer than the table.
    normal, sick = linked(folder, folder / "raw" / "NORMAL", ".dicom"), folder / "raw" / "SICK"
    sick.mkdir()
    for path in sorted(normal.iterdir())[2:]:
        path.rename(sick / path.name)
    (folder / f"patients{suffix}").write_bytes(data)
    read_folders(folder / "raw", patients=folder / f"patients{suffix}")


def read_patients_coco(folder: Path, data: bytes, number: int) -> None:
    read_patients(folder, data, number, ".json")


def the_store(folder: Path, annotations: bytes | None = None, conversion: bytes | None = None) -> Path:
    """A dataset with boxes and masks, converted once by each worker, with another file in place of one of its own."""
    own = folder.parent / f"{os.getpid()}.store"
    if not own.exists():
        raw = linked(own / "x", own / "raw" / "images").parent
        (raw / "annotations.json").write_bytes(coco())
        convert("coco", raw, own / "data", **FLAGS)
    target = folder / "data"
    shutil.copytree(own / "data", target)
    for name, content in (("annotations.json", annotations), ("conversion.json", conversion)):
        if content is not None:
            (target / name).write_bytes(content)
    return target


def read_store(folder: Path, data: bytes, number: int) -> None:
    use_store(open_store(the_store(folder, annotations=data), pixels=number % 2 == 0))


def read_conversion(folder: Path, data: bytes, number: int) -> None:
    use_store(open_store(the_store(folder, conversion=data)))


@functools.cache
def store_files() -> tuple[bytes, bytes]:
    """annotations.json and conversion.json of `the_store`, as text that does not depend on the worker."""
    images = [
        {"id": n, "file_name": f"images/{name}.png", "source_id": name, "width": WIDTH, "height": HEIGHT,
         "split": "train", "fold": n % 2, "labels": [1 + n % 2], "patient": f"P{n}", "readers": ["R1", "R2"],
         "coco_id": n, "view": "PA"}
        for n, name in enumerate(IDS)
    ]  # fmt: skip
    rle_text = encode_mask(COUNTS, WIDTH, HEIGHT)[0]
    annotations = [
        {"id": n + 1, "image_id": n, "category_id": 1 + n % 2, "bbox": [2.0, 3.0, 10.0, 7.5], "area": 75.0,
         "iscrowd": 0, "readers": ["R1"], "segmentation": rle_text}
        for n in range(4)
    ]  # fmt: skip
    categories = [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}]
    conversion = {"source": "coco", "parameters": {"image_size": 32, "readers": "fuse"}, "counts": {}, "layout": "x"}
    return (
        json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode(),
        json.dumps(conversion).encode(),
    )


def read_predictions_file(folder: Path, data: bytes, number: int) -> None:
    path = folder / "predictions.json"
    path.write_bytes(data)
    found = read_predictions(path)
    write_predictions(folder / "again.json", found)
    again = read_predictions(folder / "again.json")
    assert again.image_ids == found.image_ids
    assert len(again.table) == len(found.table)
    store = open_store(the_store(folder))
    # What ids mean is decided first; where nobody could say, the rest is still tried.
    with contextlib.suppress(InputError):
        resolve(store, found, ids="rows", category_ids="source")
    try:
        found = resolve(store, found)
    except InputError:
        found = dataclasses.replace(found, image_ids=tuple(map(str, found.image_ids)), is_foreign=False)
    # Each may refuse what the others take.
    for use in (
        lambda: evaluate(store, found, n_resamples=10),
        lambda: write_predictions(folder / "fused.json", fuse([found, found])),
        lambda: write_submission(folder / "submission.csv", found, found.image_ids),
        lambda: write_mask_submission(folder / "masks.csv", found, found.image_ids),
    ):
        try:
            use()
        except InputError:
            continue


def read_submission_file(folder: Path, data: bytes, number: int) -> None:
    path = folder / "submission.csv"
    path.write_bytes(data)
    submission_order(path)
    found = read_submission(path)
    write_submission(folder / "again.csv", found, found.image_ids)
    again = read_submission(folder / "again.csv")
    assert again.image_ids == found.image_ids
    write_predictions(folder / "fused.json", fuse([found, found]))


def read_recipe(folder: Path, data: bytes, number: int) -> None:
    path = folder / "recipe.yaml"
    path.write_bytes(data)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            read_training_flags(["--config", str(path), "--save-path", str(folder / "run")])
    except SystemExit as exit_:
        # The parser of flags has said what is wrong; --help ends with 0.
        if exit_.code not in (0, 2):
            raise
        raise InputError("wrong flags") from None


def read_run_text(folder: Path, data: bytes, number: int) -> None:
    text = data.decode("utf-8", "replace")
    refused = 0
    for dialect in ("relative", "absolute"):
        fits = rle.fits(text, HEIGHT, WIDTH, dialect)
        try:
            mask = rle.decode(text, HEIGHT, WIDTH, dialect)
        except rle.RunLengthError:
            refused += 1
            assert not fits
            if rle.fits(text, HEIGHT, WIDTH, rle.other(dialect)):
                rle.is_telling(text, dialect)
            continue
        assert mask.shape == (HEIGHT, WIDTH)
        assert np.array_equal(rle.decode(rle.encode(mask, dialect), HEIGHT, WIDTH, dialect), mask)
    if refused == 2:
        raise InputError("no mask in either dialect")


def read_counts(folder: Path, data: bytes, number: int) -> None:
    try:
        segmentation = json.loads(data)
    except (ValueError, RecursionError):
        segmentation = {"size": [HEIGHT, WIDTH], "counts": data.decode("latin-1")}
    encoded, n_pixels = encode_mask(segmentation, WIDTH, HEIGHT)
    assert decode_mask(encoded).sum() == n_pixels
    if isinstance(segmentation, dict):
        assert decode_mask(segmentation).sum() == n_pixels


def read_maps_index(folder: Path, data: bytes, number: int) -> None:
    (folder / "probabilities.json").write_bytes(data)
    np.save(folder / "probabilities.npy", np.zeros((4, 1, 8, 8), dtype=np.uint8))
    maps = read_maps(folder)
    for place in range(len(maps)):
        maps.original(place, 0)


def read_maps_array(folder: Path, data: bytes, number: int) -> None:
    (folder / "probabilities.json").write_bytes(maps_index())
    (folder / "probabilities.npy").write_bytes(data)
    maps = read_maps(folder)
    for place in range(len(maps)):
        maps.original(place, 0)


def maps_array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros((4, 1, 8, 8), dtype=np.uint8))
    return stream.getvalue()


def read_model(folder: Path, data: bytes, number: int) -> None:
    import torch

    from xray.inference.loaded import load_run
    from xray.models.classification.classifier import build_classifier
    from xray.models.weights import save_deployed

    own = folder.parent / f"{os.getpid()}.run"
    if not own.exists():
        own.mkdir()
        built = build_classifier("resnet10t", 2, 1, 32)
        save_deployed(own, built.state_dict(), json.loads(model()))
    (folder / "run").mkdir()
    os.link(own / "model.safetensors", folder / "run" / "model.safetensors")
    (folder / "run" / "model.json").write_bytes(data)
    ((task, _),) = load_run(folder / "run", torch.device("cpu"))
    assert task == "classification"


def read_weights(folder: Path, data: bytes, number: int) -> None:
    from xray.models.weights import load_deployed

    (folder / "model.json").write_bytes(model())
    (folder / "model.safetensors").write_bytes(data)
    _, tensors = load_deployed(folder)
    for tensor in tensors.values():
        tensor.sum()


def read_names(folder: Path, data: bytes, number: int) -> None:
    """A folder with files of such names, as far as the system takes them."""
    content = next(pictures(folder.parent, os.getpid(), ".png").iterdir()).read_bytes()
    root = folder / "raw"
    for name in dict.fromkeys(data.split(b"\n")[:500]):
        path = Path(os.fsdecode(os.path.normpath(b"/" + name).lstrip(b"/")))
        try:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        except (OSError, ValueError):
            continue
    for read in (open_inputs, read_folders):
        try:
            found = read(root)
        except InputError:
            continue
        ids = found.ids if read is open_inputs else [image.source_id for image in found.images]
        assert len(set(ids)) == len(ids)
        for own_id in ids:
            written = (folder / "out" / f"{safe_path(own_id)}.png").resolve()
            assert written.is_relative_to((folder / "out").resolve())
            written.parent.mkdir(parents=True, exist_ok=True)
            written.with_name(written.name + ".part").touch()


KINDS = {
    "vinbig train.csv": Kind("csv", vinbig_table, read_vinbig_table),
    "vinbig train_meta.csv": Kind("csv", vinbig_sizes, read_vinbig_sizes),
    "siim train-rle.csv": Kind("csv", siim_runs, read_siim_runs),
    "siim stage_1_train_images.csv": Kind("csv", siim_pictures, read_siim_pictures),
    "siim labels.csv": Kind("csv", siim_labels, read_siim_labels),
    "coco annotations.json": Kind("json", coco, read_coco_file),
    "patients.csv": Kind("csv", patients, read_patients),
    "patients.json": Kind("json", patients_coco, read_patients_coco),
    "predictions.json": Kind("json", predictions, read_predictions_file),
    "submission.csv": Kind("csv", submission, read_submission_file),
    "recipe.yaml": Kind("yaml", recipe, read_recipe),
    "run lengths (Kaggle)": Kind("runs", run_text, read_run_text),
    "run lengths (COCO)": Kind("json", counts_text, read_counts),
    "dataset annotations.json": Kind("json", lambda: store_files()[0], read_store),
    "dataset conversion.json": Kind("json", lambda: store_files()[1], read_conversion),
    "probabilities.json": Kind("json", maps_index, read_maps_index),
    "probabilities.npy": Kind("runs", maps_array, read_maps_array),
    "model.json": Kind("json", model, read_model),
    "model.safetensors": Kind("runs", weights, read_weights),
    "names of files": Kind("runs", names, read_names),
}


# --- running ---------------------------------------------------------------------------------------------------------


def made(name: str) -> bytes:
    """The input of that name, `kind@seed@number`."""
    kind, seed, number = name.split("@")
    return mutated(KINDS[kind].original(), KINDS[kind].style, kind, int(seed), int(number))


def try_table(item: tuple[Path, str]) -> Tried:
    """Makes an input and reads it, as commands do; called by the pool's workers."""
    root, name = item
    kind, _, number = name.split("@")
    folder = root / f"input {os.getpid()}"
    folder.mkdir(parents=True)
    data, tried = made(name), Tried()
    reset_peak()
    start = time.process_time()
    try:
        KINDS[kind].read(folder, data, int(number))
    except InputError as error:
        tried.refused = " ".join(str(error).split())
        if not tried.refused:
            tried.breach = "an error without a word"
    except BaseException:
        tried.breach = traceback.format_exc()
    tried.seconds, tried.peak = time.process_time() - start, peak_of_process()
    shutil.rmtree(folder)
    return tried


def run_tables(folder: Path, names: Sequence[str], n_workers: int) -> Iterator[tuple[str, Tried | Failed]]:
    """Every input's outcome, in order; `folder` is where workers work."""
    items = [(folder, name) for name in names]
    attempt = try_table
    if any(name.startswith("model") for name in names):
        # Most readers do without torch.
        from fuzz_models import try_model as attempt
    outcomes = in_workers(attempt, items, n_workers, lambda item: item[1], TIMEOUT, MEMORY)
    yield from zip(names, outcomes, strict=True)


def count(rows: dict[str, Row], name: str, outcome: Tried | Failed) -> Breach | None:
    """Adds an outcome to the table's rows; returns the breach that it is, if it is one.

    These files are read by the command itself: what ends a worker would have ended that.
    """
    row = rows[name.partition("@")[0]]
    if isinstance(outcome, Failed):
        row.tried, row.crashes = row.tried + 1, row.crashes + 1
        return Breach(name, outcome.reason)
    row.add(bool(outcome.refused), outcome.seconds, outcome.peak)
    return Breach(name, outcome.breach) if outcome.breach else row.breach(name)


def new_rows() -> dict[str, Row]:
    """A row for each kind."""
    return collections.OrderedDict((kind, Row(kind)) for kind in KINDS)
