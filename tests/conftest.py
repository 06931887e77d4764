"""Fixtures that several rooms share: real radiographs where they are, small datasets, and a small trained run."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Read when torch is first imported, here and in the commands that tests start. On tensors this small a second thread
# gains nothing, and where the cores are busy its threads wait for each other: 50 times longer was seen.
os.environ["OMP_NUM_THREADS"] = "1"

# The highest instructions without bfloat16. With it, commands choose a precision by its speed on this processor, and
# say so. Tests of that choice set what they need.
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_VNNI"

# A shell that runs tests in the background has them ignore Ctrl-C, and so would every command that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test depends on how fast the machine is, or how busy.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

ROOT = Path(__file__).resolve().parents[1]


def rarely(values: Iterable[Any], *slow: Any) -> list[Any]:
    """Parameters of which a sample, by default the first, is tested with what is slow, and the rest by night."""
    values = list(values)
    slow = slow or (values[0],)
    assert set(slow) <= set(values)
    return [pytest.param(each, marks=pytest.mark.slow if each in slow else pytest.mark.nightly) for each in values]


CANVAS = 64
SIDES = [{"id": 1, "name": "Left shadow"}, {"id": 2, "name": "Right shadow"}, {"id": 3, "name": "Nodule"}]

TINY_FLAGS = (
    "--backbone", "mobilenet_v2", "--weights", "none", "--fpn-channels", "16", "--rpn-samples", "32",
    "--roi-samples", "16", "--device", "cpu", "--n-workers", "0", "--n-epochs", "1", "--batch-size", "4",
    "--n-pictures", "1", "--lr", "0.01", "--monitor", "map40", "--warmup-steps", "2", "--log-step", "1",
    "--normals", "1", "--max-detections", "20",
    # Chosen by the number of epochs otherwise, and a training that goes on has more.
    "--schedule", "step", "--step-size", "30", "--no-ema", "--ema-decay", "0.999", "--anchor-scale", "1",
    # The same on every processor.
    "--precision", "32",
)  # fmt: skip
"""A training of a few seconds on two cores."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real radiographs that stands beside the repository, where there is one."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real radiographs are not here (no folder {folder})")
    return folder


def write_bright_store(
    folder: Path, categories: list[dict[str, Any]], labels: tuple[int, ...], n_test: int = 2, size: int = CANVAS
) -> Path:
    """A dataset of 14 training and `n_test` test radiographs of about 90 x 70, in two folds.

    Two of three training radiographs have one bright rectangle, the box of a finding from `labels` in turn; the others
    are normal. The rectangle's grey level tells the finding.
    """
    from xray.datasets.conversion import write_store
    from xray.datasets.source import Source, SourceImage
    from xray.structures.boxes import BoxTable

    random = np.random.default_rng(5)
    source_folder = folder / "source"
    images, rows, kinds, boxes = [], [], [], []
    for number in range(14 + n_test):
        split = "train" if number < 14 else "test"
        pixels = random.integers(20, 60, (70 + number % 3 * 10, 90), dtype=np.uint8)
        if split == "train" and number % 3:
            kind = number % len(labels)
            width, height = random.integers(18, 36, 2).tolist()
            x, y = random.integers(0, 90 - width), random.integers(0, pixels.shape[0] - height)
            pixels[y : y + height, x : x + width] = 150 + 30 * kind
            rows.append(number)
            kinds.append(labels[kind])
            boxes.append([x, y, x + width, y + height])
        path = source_folder / split / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), pixels)
        images.append(SourceImage(path, f"{split}/{path.name}", path.stem, split=split))
    table = BoxTable.of(rows, kinds, boxes)
    source = Source(
        "test", "pictures", images, table, [("R1",)] * len(table), [f"line {row}" for row in rows], categories, "f"
    )
    write_store(source, folder / "data", image_size=size, n_folds=2, n_workers=0)
    return folder / "data"


@pytest.fixture(scope="session")
def side_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose categories have sides: "Left shadow", "Right shadow", "Nodule"; sources in ../source."""
    return write_bright_store(tmp_path_factory.mktemp("sides"), SIDES, (1, 2, 3))


@pytest.fixture(scope="session")
def vinbig_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with the 14 categories of VinBigData, of which it shows three; sources in ../source."""
    from xray.findings import CATEGORIES

    return write_bright_store(tmp_path_factory.mktemp("vinbig"), CATEGORIES, (1, 4, 9))


@pytest.fixture(scope="session")
def train_tiny() -> Callable[..., Path]:
    """(data, run, *flags) → run: trains with TINY_FLAGS and these, in this process."""

    def train(data: Path, run: Path, *flags: object) -> Path:
        from xray.commands.train import main
        from xray.training.recipes import read_training_flags

        places = ["--data-path", str(data), "--save-path", str(run)]
        main(*read_training_flags([*TINY_FLAGS, *places, *map(str, flags)]))
        return run

    return train


def unchanged(run: Path) -> Iterator[Path]:
    """A run directory that tests share. One that leaves or changes a file there would change what the others see."""

    def files() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()}

    before = files()
    yield run
    assert files() == before, f"a test changed {run}, which others share"


@pytest.fixture(scope="session")
def vinbig_run(vinbig_store: Path, train_tiny: Callable[..., Path], tmp_path_factory: Any) -> Iterator[Path]:
    """Three epochs on `vinbig_store`, with an average of the weights. Not to be changed."""
    yield from unchanged(train_tiny(vinbig_store, tmp_path_factory.mktemp("runs") / "vinbig", "--n-epochs", 3, "--ema"))


@pytest.fixture(scope="session")
def side_run(side_store: Path, train_tiny: Callable[..., Path], tmp_path_factory: Any) -> Iterator[Path]:
    """One epoch on `side_store`. Not to be changed."""
    yield from unchanged(train_tiny(side_store, tmp_path_factory.mktemp("runs") / "sides"))


@pytest.fixture(scope="session")
def layout_tree(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """(kind) → the tree of 8 + 3 phantoms of 96 pixels in a layout of xray.phantoms.layouts. Not to be changed."""
    import functools
    from unittest import mock

    from xray.phantoms import layout

    folder = tmp_path_factory.mktemp("layouts")
    # Most layouts show the same radiographs: they are drawn once.
    draw_once = functools.cache(layout.draw_phantom)

    def tree(kind: str) -> Path:
        if not (folder / kind).exists():
            options = {"seed": 2, "size": 96, "normal_fraction": 0.4, "n_workers": 0, "progress": False}
            with mock.patch.object(layout, "draw_phantom", draw_once):
                layout.write_layout(kind, folder, 8, 3, **options)
        return folder / kind

    return tree


MASK_FLAGS = (
    "--device", "cpu", "--n-workers", "0", "--n-epochs", "1", "--batch-size", "4", "--n-pictures", "1",
    "--log-step", "1", "--warmup-steps", "2", "--weights", "none",
)  # fmt: skip
SEGMENTATION_FLAGS = ("--task", "segmentation", "--encoder", "resnet18", "--depth", "3", *MASK_FLAGS)
CLASSIFICATION_FLAGS = ("--task", "classification", "--network", "resnet10t", *MASK_FLAGS)


@pytest.fixture(scope="session")
def mask_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 radiographs of 80 x 72 in SIIM's PNG edition, every second with a bright rectangle as its mask."""
    root = tmp_path_factory.mktemp("siim")
    random = np.random.default_rng(1)
    rows = ["new_filename,ImageId,has_pneumo"]
    for number in range(16):
        pixels, mask = random.integers(20, 60, (72, 80), dtype=np.uint8), np.zeros((72, 80), dtype=np.uint8)
        if number % 2:
            x, y = random.integers(0, 50, 2)
            mask[y : y + 20, x : x + 28] = 255
            pixels[mask > 0] = 210
        for folder, content in (("png_images", pixels), ("png_masks", mask)):
            (root / folder).mkdir(exist_ok=True)
            assert cv2.imwrite(str(root / folder / f"{number}_train.png"), content)
        rows.append(f"{number}_train.png,1.2.{number},{number % 2}")
    (root / "stage_1_train_images.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="session")
def mask_store(mask_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`mask_source` converted, in two folds. Not to be changed."""
    from xray.datasets.sources import convert

    target = tmp_path_factory.mktemp("masks") / "data"
    convert("siim", mask_source, target, image_size=64, n_folds=2, n_workers=0)
    return target


@pytest.fixture(scope="session")
def train_masks() -> Callable[..., Path]:
    """(data, run, *flags) → run: trains a small segmenter, in this process; later flags win."""

    def train(data: Path, run: Path, *flags: object) -> Path:
        from xray.commands.train import main
        from xray.training.recipes import read_training_flags

        places = ["--data-path", str(data), "--save-path", str(run)]
        first = ["--task", "segmentation"] if "--resume" in flags else SEGMENTATION_FLAGS
        main(*read_training_flags([*first, *places, *map(str, flags)]))
        return run

    return train


@pytest.fixture(scope="session")
def segmentation_run(mask_store: Path, train_masks: Callable[..., Path], tmp_path_factory: Any) -> Iterator[Path]:
    """A U-Net that finds the bright rectangles of `mask_store`. Not to be changed."""
    flags = ("--n-epochs", "12", "--lr", "0.003", "--flip", "0", "--augment", "none", "--val-every", "4")
    yield from unchanged(train_masks(mask_store, tmp_path_factory.mktemp("runs") / "masks", *flags))


@pytest.fixture(scope="session")
def classification_run(mask_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A classifier of `mask_store` that has learned next to nothing. Not to be changed."""
    from xray.commands.train import main
    from xray.training.recipes import read_training_flags

    run = tmp_path_factory.mktemp("runs") / "labels"
    places = ["--data-path", str(mask_store), "--save-path", str(run)]
    main(*read_training_flags([*CLASSIFICATION_FLAGS, "--n-epochs", "2", *places]))
    yield from unchanged(run)


@pytest.fixture
def write_table_store() -> Callable[..., Path]:
    """(folder, images, boxes, categories=VinBig's) → folder: a dataset without pixels, written by hand.

    images: (source_id, split, fold, patient or None), each 1000 wide and 2000 high.
    boxes: (row, category_id, (x1, y1, x2, y2)).
    """
    import json

    from xray.findings import CATEGORIES

    def write(folder: Path, images: list, boxes: list, categories: list | None = None) -> Path:
        folder.mkdir(parents=True)
        records = [
            {
                "id": row,
                "file_name": name,
                "source_id": name,
                "width": 1000,
                "height": 2000,
                "split": split,
                "fold": fold,
            }
            | ({} if patient is None else {"patient": patient})
            for row, (name, split, fold, patient) in enumerate(images)
        ]
        annotations = [
            {"id": number, "image_id": row, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
            for number, (row, label, (x1, y1, x2, y2)) in enumerate(boxes, 1)
        ]
        content = {"images": records, "annotations": annotations, "categories": categories or CATEGORIES}
        (folder / "annotations.json").write_text(json.dumps(content))
        (folder / "conversion.json").write_text(json.dumps({"source": "test", "parameters": {"image_size": 64}}))
        return folder

    return write


@pytest.fixture
def mask_row() -> Callable[..., dict[str, Any]]:
    """(image_id, category_id, mask, score=1.0) → a COCO result with box and RLE; mask: (H, W) of 0 and 1."""
    from pycocotools import mask as coco_mask

    def row(image_id: object, category_id: int, mask: np.ndarray, score: float = 1.0) -> dict[str, Any]:
        rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        rle = {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}
        bbox = coco_mask.toBbox(rle).tolist()
        return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score, "segmentation": rle}

    return row


@pytest.fixture
def write_mask_store(mask_row: Callable[..., dict[str, Any]]) -> Callable[..., Path]:
    """(folder, images, masks, names=("Pneumothorax",)) → folder: a dataset with masks and without pixels, by hand.

    images: (source_id, width, height, fold, patient or None), fold -1 being the test split.
    masks: (row, category_id, (H, W) of 0 and 1), each an annotation.
    """
    import json

    def write(folder: Path, images: list, masks: list, names: tuple[str, ...] = ("Pneumothorax",)) -> Path:
        folder.mkdir(parents=True)
        records = [
            {"id": row, "file_name": name, "source_id": name, "width": width, "height": height, "fold": fold}
            | {"split": "test" if fold < 0 else "train"}
            | ({} if patient is None else {"patient": patient})
            for row, (name, width, height, fold, patient) in enumerate(images)
        ]
        annotations = [{"id": number, **mask_row(*mask)} for number, mask in enumerate(masks, 1)]
        categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        content = {"images": records, "annotations": annotations, "categories": categories}
        (folder / "annotations.json").write_text(json.dumps(content))
        (folder / "conversion.json").write_text(json.dumps({"source": "test", "parameters": {"image_size": 64}}))
        return folder

    return write


@pytest.fixture
def sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports' figures are put together but not rendered, which takes most of a report's time."""
    import io

    from matplotlib import pyplot as plt
    from PIL import Image

    from xray.outputs.report import figures, groups, masks

    def dot(figure: Any) -> bytes:
        plt.close(figure)
        file = io.BytesIO()
        Image.new("RGBA", (2, 2)).quantize(2, Image.Quantize.FASTOCTREE).save(file, "PNG")
        return file.getvalue()

    for module in (figures, groups, masks):
        monkeypatch.setattr(module, "png_of", dot)


@pytest.fixture(scope="session")
def forks() -> Iterator[Any]:
    """A process that forks commands (tests/commands/forking.py); it takes seconds to start: all tests share it."""
    from forking import Forks

    with Forks() as started:
        yield started


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """An S3 server on loopback (tests/s3_server.py)."""
    from s3_server import S3

    with S3() as server:
        yield server


@pytest.fixture
def raw_vinbig(tmp_path: Path) -> Callable[[Callable[[int], bool]], Path]:
    """has_box → VinBig's raw layout of ten PNG files, all three readers with Cardiomegaly where `has_box(number)`."""

    def write(has_box: Callable[[int], bool]) -> Path:
        raw = tmp_path / "raw"
        (raw / "train").mkdir(parents=True)
        rows = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
        for number in range(10):
            pixels = np.random.default_rng(number).integers(0, 255, (60, 50), dtype=np.uint8)
            cv2.imwrite(str(raw / "train" / f"{number}.png"), pixels)
            found, box = ("Cardiomegaly,3", "10,20,40,50") if has_box(number) else ("No finding,14", ",,,")
            rows += [f"{number},{found},{reader},{box}" for reader in ("R1", "R2", "R3")]
        (raw / "train.csv").write_text("\n".join(rows) + "\n")
        (raw / "train_meta.csv").write_text("image_id,dim0,dim1\n" + "".join(f"{n},60,50\n" for n in range(10)))
        return raw

    return write
