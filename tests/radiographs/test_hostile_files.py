"""Files made to cost much, in the pool that every command decodes with: refused at once, and at no one else's cost."""

import io
import json
import os
import struct
import time
import zlib
from pathlib import Path

import cv2
import dicom_cases as cases
import numpy as np
import PIL.Image
import pytest
from fuzz_files import deflate_bomb, png, run_length_bomb
from fuzz_measures import peak_of_process, reset_peak
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom import uid
from source_cases import write_picture, write_table

from xray.datasets.inputs import open_inputs
from xray.datasets.sources.coco import read_coco
from xray.datasets.sources.lungs import read_lungs
from xray.datasets.sources.mask_reading import Pictures, Runs, read_pictures, read_runs, regions
from xray.datasets.sources.siim import read_siim
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.radiographs import decoding
from xray.radiographs.decoding import Decoded, Undecodable, decode_canvas, decode_canvases
from xray.radiographs.dicom import MAX_FRAGMENTS
from xray.radiographs.radiograph import RadiographError, radiograph_size, read_radiograph
from xray.radiographs.workers import Failed, in_workers
from xray.structures.masks import MaskError, decode_mask, encode_mask
from xray.structures.predictions import read_predictions

MEBIBYTE = 2**20


def measured(index: int, path: Path, size: int) -> Decoded:
    """Decodes in a worker and says what it cost, as "seconds MiB reason" in place of the reason."""
    reset_peak()
    # Of the processor: whatever else the machine does is not the file's fault.
    before, start = peak_of_process(), time.process_time()
    try:
        return decode_canvas(index, path, size)
    except RadiographError as error:
        cost = f"{time.process_time() - start} {(peak_of_process() - before) / MEBIBYTE}"
        raise RadiographError(f"{cost} {error}") from None


SYNTAXES = (
    uid.RLELossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
)  # fmt: skip
REASONS = {
    "deflated, 261 kB": "deflated data set is larger than 64 MiB",
    "RLE, 65535 squared, 670 bytes": "65535 x 65535 pixels are more than 100 million",
    **{f"9999 squared, {syntax.keyword}": "cannot be in" for syntax in SYNTAXES},
    "very many pieces": "comes in more than 65536 pieces",
    **{f"{kind}, 9999 squared": "cannot be in" for kind in ("PNG", "JPEG")},
    **{f"{kind}, 30000 squared": "more than 100 million" for kind in ("PNG", "JPEG")},
}


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, float, float, str]]:
    """Name of a hostile file → its bytes; seconds of the processor and MiB on top of its worker; and the reason."""
    folder = tmp_path_factory.mktemp("hostile")
    files = {name: folder / name for name in REASONS}
    deflate_bomb(files["deflated, 261 kB"])
    run_length_bomb(files["RLE, 65535 squared, 670 bytes"])
    for syntax in SYNTAXES:
        claim_more(files[f"9999 squared, {syntax.keyword}"], syntax, 9999)
    in_pieces(files["very many pieces"])
    for name, path in files.items():
        if name.startswith(("PNG", "JPEG")):
            kind, sides = name.removesuffix(" squared").split(", ")
            claim_more_in_picture(path, kind, int(sides))
    sizes = [path.stat().st_size for path in files.values()]
    outcomes = list(decode_canvases(list(files.values()), 64, 1, decode=measured))
    assert all(isinstance(outcome, Undecodable) for outcome in outcomes)
    parts = [outcome.reason.split(maxsplit=2) for outcome in outcomes]
    return {
        name: (size, float(seconds), float(mebibytes), reason)
        for name, size, (seconds, mebibytes, reason) in zip(files, sizes, parts, strict=True)
    }


def claim_more(path: Path, syntax: uid.UID, side: int) -> None:
    """A header and a codestream that agree on a size for which there are by far too few bytes."""
    bits = 8 if syntax == uid.JPEGBaseline8Bit else 12
    cases.save(path, cases.dataset(cases.chest_values(32, 32, bits), bits), syntax)
    data = bytearray(path.read_bytes())
    for tag in (b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x11\x00US\x02\x00"):
        at = data.index(tag) + 8
        data[at : at + 2] = struct.pack("<H", side)
    if syntax == uid.JPEG2000Lossless:
        at = data.index(b"\xff\x4f\xff\x51") + 8
        data[at : at + 8] = struct.pack(">2L", side, side)
    elif syntax != uid.RLELossless:
        at = data.index(struct.pack(">HH", 32, 32), data.index(b"\xe0\x7f\x10\x00"))
        data[at : at + 4] = struct.pack(">HH", side, side)
    path.write_bytes(data)


def in_pieces(path: Path) -> None:
    """Compressed pixels in very many pieces of nothing."""
    ds = cases.dataset(cases.chest_values(32, 32, 8), 8)
    data = cases.encapsulated(path, ds, uid.RLELossless, [b"\0" * 64]).read_bytes()
    at = data.index(b"\xfe\xff\xdd\xe0")
    path.write_bytes(data[:at] + b"\xfe\xff\x00\xe0\0\0\0\0" * (4 * MAX_FRAGMENTS) + data[at:])


def claim_more_in_picture(path: Path, kind: str, side: int) -> None:
    """A small picture whose header claims other sides."""
    stream = io.BytesIO()
    PIL.Image.fromarray(cases.chest_values(32, 32, 8).astype(np.uint8)).save(stream, kind)
    data = stream.getvalue()
    if kind == "PNG":
        data = data.replace(struct.pack(">LL", 32, 32), struct.pack(">LL", side, side), 1)
        data = data[:29] + struct.pack(">L", zlib.crc32(data[12:29])) + data[33:]
    else:
        data = data.replace(struct.pack(">HH", 32, 32), struct.pack(">HH", side, side), 1)
    path.write_bytes(data)
    with pytest.raises(RadiographError):
        radiograph_size(path)


@pytest.mark.parametrize("name", REASONS)
def test_denial_of_service_is_refused_cheaply(name: str, costs: dict[str, tuple[int, float, float, str]]) -> None:
    n_bytes, seconds, mebibytes, reason = costs[name]
    assert REASONS[name] in reason
    assert seconds < 30  # 0.1 s where it was written; taken at their word, they cost minutes
    assert mebibytes < 200
    if name.startswith(("deflated", "RLE")):
        assert n_bytes < (270_000 if name.startswith("deflated") else 700)


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP", b"iTXt"])
def test_inflating_texts_in_a_picture(name: bytes, tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(2**26), 6)
    content = {b"zTXt": b"a\0\0", b"iCCP": b"a\0\0", b"iTXt": b"a\0\1\0\0\0"}[name] + bomb
    head = (b"IHDR", struct.pack(">LLBBBBB", 8, 8, 8, 0, 0, 0, 0))
    rows = (b"IDAT", zlib.compress((b"\0" + bytes(8)) * 8))
    path = tmp_path / "a.png"
    path.write_bytes(png([head, (name, content), rows, (b"IEND", b"")]))
    (outcome,) = decode_canvases([path], 64, 1, memory_limit=50 * MEBIBYTE)
    if isinstance(outcome, Undecodable):
        assert "more memory" not in outcome.reason


def test_pictures_as_large_as_their_bytes_allow_are_read(tmp_path: Path) -> None:
    """The best that each format does, a picture of one grey, is no attack."""
    black = PIL.Image.new("L", (5000, 4000))
    black.save(tmp_path / "a.png", optimize=True)
    black.save(tmp_path / "b.jpg", optimize=True)
    black.save(tmp_path / "c.jpg", progressive=True)
    black.convert("1").save(tmp_path / "d.png", optimize=True)
    for path in sorted(tmp_path.iterdir()):
        assert read_radiograph(path).pixels.shape == (4000, 5000), path.name


def test_the_limit_keeps_a_worker_below_a_gibibyte(tmp_path: Path) -> None:
    (outcome,) = decode_canvases([write_picture(tmp_path / "a.png")], 64, 1, decode=take_all)
    assert isinstance(outcome, Undecodable)
    taken, peak, _ = outcome.reason.split(maxsplit=2)
    assert 600 < int(taken) <= decoding.MEMORY_LIMIT / MEBIBYTE
    assert int(peak) < 1024


def take_all(index: int, path: Path, size: int) -> Decoded:
    """Takes memory until there is no more."""
    held: list[bytearray] = []
    try:
        while True:
            held.append(bytearray(b"x" * MEBIBYTE))
    except MemoryError:
        taken = len(held)
        del held[:50]
    raise RadiographError(f"{taken} {peak_of_process() // MEBIBYTE} of memory")


@pytest.mark.slow
def test_the_largest_radiographs_fit_into_the_limit(tmp_path: Path) -> None:
    """43 x 43 cm at 100 µm, compressed, and the 74 million pixels of 50 µm as they are."""
    values = cases.chest_values(4300, 4300, 12)
    paths = [cases.save(tmp_path / "a.dcm", cases.dataset(values, 12), uid.JPEGLosslessSV1)]
    paths.append(cases.save(tmp_path / "b.dcm", cases.dataset(np.tile(values, (2, 2)), 12)))
    outcomes = list(decode_canvases(paths, 1024, 1))
    assert [(type(o), getattr(o, "width", None)) for o in outcomes] == [(Decoded, 4300), (Decoded, 8600)]


# --- masks, which are read before any radiograph ---------------------------------------------------------------------


def crash(item: int) -> int:
    """Works, or ends its process."""
    if item == 2:
        os.abort()
    return item * 10


def test_other_work_is_limited_as_decoding_is() -> None:
    outcomes = list(in_workers(crash, range(5), 2, lambda item: f"item {item}", timeout=5))
    assert [outcome for outcome in outcomes if not isinstance(outcome, Failed)] == [0, 10, 30, 40]
    assert outcomes[2] == Failed("item 2: its decoder crashed (SIGABRT)")


def test_a_mask_that_kills_its_reader_costs_its_image(tmp_path: Path) -> None:
    """The pictures of masks come from outside like radiographs, and are read by workers with limits too."""
    for number in range(3):
        write_picture(tmp_path / "CXR_png" / f"{number}.png", 400, 400)
        mask = np.zeros((400, 400), dtype=np.uint8)
        mask[10:90, 10:90] = 255
        (tmp_path / "mask").mkdir(exist_ok=True)
        assert cv2.imwrite(str(tmp_path / "mask" / f"{number}_mask.png"), mask)
    bomb = PIL.Image.new("1", (9999, 9999))
    bomb.save(tmp_path / "mask" / "1_mask.png", optimize=True)
    source = read_lungs(tmp_path)
    assert [image.source_id for image in source.images] == ["0", "2"]
    assert [drop.where for drop in source.dropped] == ["mask/1_mask.png"]


def test_the_parts_of_a_mask_are_found_in_time(tmp_path: Path) -> None:
    """Ten thousand components, each of which used to cost a look at the whole mask."""
    mask = np.zeros((3000, 2500), dtype=bool)
    mask[:200:2, :200:2] = True
    start = time.process_time()
    found, n_small = regions(mask)
    assert (len(found), n_small) == (100 * 100, 0)
    assert time.process_time() - start < 30
    encoded, n_pixels = encode_mask(found[-1].rle, 2500, 3000)
    assert n_pixels == 1
    assert np.argwhere(decode_mask(encoded)).tolist() == [[198, 198]]
    mask[:, 300] = True
    mask[200, 202] = True
    with pytest.raises(RadiographError, match="10002 parts"):
        regions(mask)
    assert len(regions(mask, joined=True)[0]) == 1


def test_run_lengths_and_masks_of_unreadable_radiographs(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 200)
    runs = in_workers(read_runs, [Runs(path, ("1 2",), "relative")], 1, lambda item: item.image.name)
    pictures = in_workers(read_pictures, [Pictures(path, ((1, path),))], 1, lambda item: item.image.name)
    for outcomes in (runs, pictures):
        (outcome,) = outcomes
        assert isinstance(outcome, Failed)
        assert "a.png" in outcome.reason


def test_pixels_for_overlays_are_read_by_a_worker(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 200)
    inputs = open_inputs(tmp_path)
    assert inputs.pixels(0).shape == (40, 60)
    with pytest.raises(RadiographError, match=r"^b\.png"):
        inputs.pixels(1)


# --- tables and JSON -------------------------------------------------------------------------------------------------


def test_a_pipe_in_place_of_a_table_is_not_waited_for(tmp_path: Path) -> None:
    write_picture(tmp_path / "images" / "a.png")
    os.mkfifo(tmp_path / "pipe.csv")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(InputError, match="no table"):
        read_siim(tmp_path)
    with pytest.raises(InputError, match="no COCO file"):
        read_coco(tmp_path)


def test_a_polygon_without_end_is_refused() -> None:
    """pycocotools would need 8 GB for it."""
    points = [[0, 0, 999_999, 0, 0, 1] * 300]
    with pytest.raises(MaskError, match="outline"):
        encode_mask(points, 100, 100)


@pytest.mark.parametrize(
    "mask",
    [
        {"size": [2**31, 2**31], "counts": "0"}, {"size": [9, 9], "counts": [80]}, {"size": [9, 9], "counts": "0"},
        {"size": [9, 9], "counts": "PPPPPPP0" * 9}, {"size": [0, 0], "counts": ""}, {"size": "ab", "counts": 1},
        {"size": [9], "counts": [9]}, {"size": [9.0, 9.0], "counts": [81]}, {"counts": [1]}, ["x"], "x", 1,
        {"size": [9, 9], "counts": [10**400]}, {"size": [9, 9], "counts": [-1, 82]},
    ],
)  # fmt: skip
def test_run_lengths_that_the_c_code_must_not_see(mask: object, tmp_path: Path) -> None:
    with pytest.raises(MaskError):
        decode_mask(mask)
    row = {"image_id": "a", "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5, "segmentation": mask}
    (tmp_path / "p.json").write_text(json.dumps([row]))
    with pytest.raises(InputError, match="row 0 has a mask that is none"):
        read_predictions(tmp_path / "p.json")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"images": ' * 5000, "\ud800", "1" * 5000, "[1e400]", ""])
def test_json_without_end(text: str, tmp_path: Path) -> None:
    content = text.encode("utf-8", "surrogatepass")
    (tmp_path / "predictions.json").write_bytes(content)
    with pytest.raises(InputError):
        read_predictions(tmp_path / "predictions.json")
    for name in ("conversion.json", "annotations.json"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError):
        open_store(tmp_path)
    with pytest.raises(InputError):
        read_coco(tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["size", "counts", "id"]), inner),
    max_leaves=8,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "image_id": VALUES | st.sampled_from(["a", "b", 1]),
            "category_id": VALUES | st.integers(1, 15),
            "bbox": VALUES | st.lists(st.floats(0, 100), min_size=4, max_size=4),
            "score": VALUES | st.floats(0, 1),
            "segmentation": VALUES,
        },
    )
    | VALUES,
    max_size=3,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
@example([{"image_id": "\ud800", "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}])
@example([{"image_id": "a", "category_id": 10**400, "bbox": [0, 0, 1, 1], "score": 1}])
@example([{"image_id": "a", "category_id": 1, "bbox": [1e308, 0, 1e308, 1], "score": 1}])
def test_any_json_is_predictions_or_refused(tmp_path: Path, rows: list) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(rows))
    try:
        found = read_predictions(path)
    except InputError:
        return
    assert len(found.table) == len(rows)
    assert np.isfinite(found.table.boxes).all()
    for mask in found.masks.values():
        if isinstance(mask, dict):
            decode_mask(mask)


def test_a_table_of_one_endless_number(tmp_path: Path) -> None:
    """Readers are sorted by the numbers in their names, which Python refuses to read beyond 4300 digits."""
    from xray.datasets.sources.vinbig import read_vinbig

    rows = [["a", "No finding", 14, name, "", "", "", ""] for name in ("R" + "9" * 5000, "²", "R10", "R9", "١")]
    write_table(tmp_path / "train.csv", rows)
    source = read_vinbig(tmp_path, table_only=True)
    assert source.images[0].readers[:2] == ("R9", "R10")
    assert len(source.images[0].readers) == 5


def test_aliases_without_end_in_a_recipe(tmp_path: Path) -> None:
    from xray.training.recipes import read_yaml

    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join(lines))
    start = time.process_time()
    with pytest.raises(InputError, match="must be one value"):
        read_yaml(path)
    path.write_text("x: " + "a" * 10**6)
    with pytest.raises(InputError, match="characters"):
        read_yaml(path)
    assert time.process_time() - start < 60
