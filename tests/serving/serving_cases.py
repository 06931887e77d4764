"""What the tests of the server share: phantoms as files, models that know them, and a server in a thread."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from xray.findings import CATEGORIES, NO_FINDING_BOX, PNEUMOTHORAX
from xray.inference.findings import Findings
from xray.phantoms.dicom import Storage, dicom_of, save_dicom
from xray.phantoms.vinbig import Phantom, draw_phantom
from xray.radiographs.decoding import decode_canvas
from xray.structures.boxes import BoxTable
from xray.structures.predictions import NO_FINDING_CATEGORY
from xray.structures.triplet import Triplet

TWELVE_BITS = Storage(12, False, True, "1.2.840.10008.1.2.1", False)


@dataclasses.dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 1000.0

    def __call__(self):
        return self.now


def write_phantom(path: Path, seed: int, findings: Sequence[int], size: tuple[int, int], storage: Storage) -> Phantom:
    """Draws a phantom of (width, height) into a DICOM file."""
    phantom = draw_phantom(seed, *size, findings)
    rng = np.random.default_rng(seed)
    dataset = dicom_of(phantom.pixels, storage, path.stem, phantom.pixel_spacing, "F", 50, "PA", rng)
    save_dicom(dataset, path)
    return phantom


def rle_of(mask: np.ndarray) -> dict:
    """COCO's compressed run lengths of a (height, width) mask."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


@dataclasses.dataclass
class Oracle:
    """Stands where a Pipeline would, and knows what the phantoms that it was shown before truly have.

    delay: seconds that a pass takes. seen: how many radiographs each pass had.
    """

    canvas_size: int = 64
    bits: int = 8
    delay: float = 0.0
    detectors: tuple = (None,)
    segmenters: tuple = (None,)
    classifiers: tuple = ()
    triplet: Triplet = dataclasses.field(default_factory=Triplet)
    gate: str = "soft"
    gate_threshold: float = 0.5
    is_vinbig: bool = True

    @property
    def has_places(self) -> bool:
        return bool(self.detectors or self.segmenters)

    def __post_init__(self) -> None:
        self.categories = {category["id"]: category["name"] for category in CATEGORIES}
        self.seen: list[int] = []
        self.gate_open = threading.Event()
        self.gate_open.set()
        self._known: dict[bytes, Findings] = {}

    def learn(self, path: Path, phantom: Phantom, scores: Sequence[float]) -> None:
        """The phantom's true boxes get these scores in turn; the first pneumothorax gets its mask."""
        n = len(phantom.boxes)
        scores = np.resize(np.asarray(scores, dtype=np.float64), n)
        labels = phantom.class_ids + 1
        table = BoxTable.of(
            np.zeros(n + 1),
            [*labels, NO_FINDING_CATEGORY],
            np.concatenate([phantom.boxes, [NO_FINDING_BOX]]),
            [*scores, 1 - scores.max(initial=0.0)],
        )
        rows = np.flatnonzero(labels == PNEUMOTHORAX + 1)
        masks = {int(rows[0]): rle_of(phantom.pneumothorax_mask)} if len(rows) else {}
        self._known[self._key(decode_canvas(0, path, self.canvas_size).canvas)] = Findings(table, masks)

    def find(self, canvases: np.ndarray, sizes: Sequence[tuple[int, int]]) -> Findings:
        """What `learn` was told; of other radiographs, that they are normal."""
        self.seen.append(len(canvases))
        self.gate_open.wait(20)
        time.sleep(self.delay)
        tables, masks, n = [], {}, 0
        for image, canvas in enumerate(canvases):
            unknown = Findings(BoxTable.of([0], [NO_FINDING_CATEGORY], [NO_FINDING_BOX], [0.9]))
            found = self._known.get(self._key(canvas), unknown)
            tables.append(dataclasses.replace(found.table, images=found.table.images + image))
            masks |= {n + row: mask for row, mask in found.masks.items()}
            n += len(found.table)
        return Findings(BoxTable.concatenate(tables), masks)

    @staticmethod
    def _key(canvas: np.ndarray) -> bytes:
        return canvas.tobytes()


@contextlib.contextmanager
def serving(
    app: object,
    limits: object = None,
    started: list | None = None,
    tls: object = None,
    make: Callable[[int], object] | None = None,
) -> Iterator[str]:
    """Runs an application at a free port in a thread → its address.

    limits: of its connections. started: gets the server itself. tls: for HTTPS. make: makes the application of one
    that must know its port.
    """
    from xray.serving.accepting import Door
    from xray.serving.connections import server_of

    with Door() as door:
        door.bind(("127.0.0.1", 0))
        server = server_of(app if make is None else make(door.getsockname()[1]), 1, limits, tls)
        if started is not None:
            started.append(server)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 600
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.started
        try:
            yield f"{'http' if tls is None else 'https'}://127.0.0.1:{door.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(5)
