"""What archives, films and bodies of another build do to a picture: the examples of scripts/train_frontal.py."""

import cv2
import numpy as np
from frontal_pictures import CHEST, Picture

from xray.radiographs import frontal

WORK = 136
"""Height, in pixels, at which pictures are changed."""


def example(
    picture: Picture, pictures: list[Picture], rng: np.random.Generator
) -> tuple[np.ndarray, bool, frozenset[str]]:
    """A thumbnail of a picture, changed as archives change them; whether it is a chest; the groups it comes from."""
    pixels, is_chest, groups = picture.pixels, picture.kind == CHEST, {picture.group}
    if is_chest and rng.random() < 0.14:
        pixels, is_chest = (part if rng.random() < 0.6 else jumbled)(pixels, rng), False
    elif rng.random() < 0.03:
        other = pictures[rng.integers(len(pictures))]
        pixels, is_chest = beside(pixels, other.pixels), False
        groups.add(other.group)
    elif is_chest and rng.random() < 0.15:
        pixels = veiled(pixels, rng)
    if rng.random() < 0.1:
        pixels = bordered(pixels, rng)
    pixels = warped(pixels, rng, 1.0 if is_chest else 1.6)
    pixels = marked(toned(bordered(pixels, rng), rng), rng)
    return frontal.thumbnail(pixels), is_chest, frozenset(groups)


def part(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A third of a picture or less: no whole chest."""
    height, width = pixels.shape
    share = rng.uniform(0.08, 0.33)
    tall = float(np.clip(np.sqrt(share) * np.exp(rng.normal(0, 0.3)), share, 1))
    rows, columns = max(8, round(height * tall)), max(8, round(width * share / tall))
    top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
    return pixels[top : top + rows, left : left + columns]


def jumbled(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Both halves of a chest exchanged, one of them upside down, or one of them twice: its parts, and no chest."""
    pixels = cv2.resize(pixels, (144, 144), interpolation=cv2.INTER_AREA)
    across = rng.random() < 0.5
    halves = np.split(pixels, 2, axis=1 if across else 0)
    kind = rng.integers(3)
    if kind == 0:
        halves = halves[::-1]
    elif kind == 1:
        halves[rng.integers(2)] = halves[rng.integers(2)][::-1, ::-1]
    else:
        # The left half twice, not mirrored; the upper or the lower one twice.
        halves = [halves[rng.integers(2)]] * 2
    return np.concatenate(halves, axis=1 if across else 0)


def beside(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Two pictures on one sheet."""
    return np.hstack([cv2.resize(picture, (96, 144), interpolation=cv2.INTER_AREA) for picture in (one, other)])


def veiled(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lungs that show little: both fade to the grey of what lies around them, the lower parts more."""
    y = np.linspace(0, 1, pixels.shape[0])[:, None]
    share = rng.uniform(0.2, 0.75) * np.clip(0.5 + rng.uniform(-1, 2) * (y - 0.4), 0.2, 1)
    white = np.percentile(pixels, rng.uniform(60, 95))
    veil: np.ndarray = np.maximum(pixels, pixels + share * (white - pixels))
    return veil.clip(0, 255).astype(np.uint8)


def warped(pixels: np.ndarray, rng: np.random.Generator, much: float) -> np.ndarray:
    """Tilted, stretched, cut, mirrored, and bent as bodies of another build are."""
    height, width = pixels.shape
    size = (round(WORK * np.exp(rng.normal(0, 0.15))), WORK)
    angle = np.deg2rad(rng.normal(0, 5 if rng.random() < 0.8 else 12) * much)
    zoom = np.exp(rng.normal(0.05, 0.15) * much)
    stretch = np.exp(rng.normal(0, 0.15) * much)
    shear = rng.normal(0, 0.04) * much
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = np.diag([size[0] / width * zoom * stretch, size[1] / height * zoom / stretch])
    matrix = turn @ np.array([[1, shear], [0, 1]]) @ scale
    if rng.random() < 0.5:
        matrix[:, 0] *= -1
    middle = np.array(size) / 2 + rng.normal(0, 0.04, 2) * much * size
    back = np.linalg.inv(matrix)
    shift = np.array([width / 2, height / 2]) - back @ middle
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32)
    bend = rng.normal(0, 0.025, (2, 4, 4)).astype(np.float32) * np.array([width, height], np.float32)[:, None, None]
    bends = [cv2.resize(one, size, interpolation=cv2.INTER_CUBIC) for one in bend]
    # The middle wider and the sides narrower, as in small children, or the other way round; above and below likewise.
    wide, tall = rng.normal(0, 0.035, 2) * (width, height)
    bends[0] += wide * np.sin(2 * np.pi * x / size[0])
    bends[1] += tall * np.sin(2 * np.pi * y / size[1])
    maps = [(back[k, 0] * x + back[k, 1] * y + shift[k] + bends[k]).astype(np.float32) for k in (0, 1)]
    border = cv2.BORDER_CONSTANT if rng.random() < 0.6 else cv2.BORDER_REPLICATE
    return cv2.remap(pixels, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=border, borderValue=0)


def bordered(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Black, white or grey borders now and then, of each side another."""
    if rng.random() < 0.6:
        return pixels
    height, width = pixels.shape
    sides = (rng.uniform(0, 0.3, 4) * (rng.random(4) < 0.6) * [height, height, width, width]).astype(int).tolist()
    grey = int(rng.choice([0, 0, 0, 255, rng.integers(0, 256)]))
    return cv2.copyMakeBorder(pixels, *sides, cv2.BORDER_CONSTANT, value=grey)


def toned(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uneven exposure, blur, noise, cut off whites and blacks, low contrast."""
    values = pixels.astype(np.float32)
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    if rng.random() < 0.5:
        values += rng.normal(0, 25) * (x / pixels.shape[1] - 0.5) + rng.normal(0, 30) * (y / pixels.shape[0] - 0.5)
    if rng.random() < 0.3:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.5, 2.5))
    if rng.random() < 0.3:
        low, high = np.percentile(values, [rng.uniform(0, 20), rng.uniform(60, 100)])
        values = (values - low) / max(float(high - low), 1) * 255
    if rng.random() < 0.3:
        values += rng.standard_normal(values.shape) * rng.uniform(2, 12)
    if rng.random() < 0.3:
        values = 128 + (values - 128) * rng.uniform(0.1, 0.5)
    return values.clip(0, 255).astype(np.uint8)


def marked(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Letters burnt in, devices, and one lung that shows white, now and then."""
    if rng.random() < 0.55:
        return pixels
    pixels = pixels.copy()
    height, width = pixels.shape
    for _ in range(int(rng.integers(1, 5))):
        place = (int(rng.uniform(-0.05, 0.9) * width), int(rng.uniform(0.02, 1) * height))
        text = "".join(rng.choice(list("RLAPSUPINE 0123456789"), int(rng.integers(1, 12))))
        size, grey = rng.uniform(0.2, 0.7), int(rng.choice([255, 255, 0]))
        cv2.putText(pixels, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, grey, 1, cv2.LINE_AA)
    if rng.random() < 0.25:
        corner = rng.uniform(0, 0.85, 2) * [width, height]
        size = rng.uniform(0.03, 0.25, 2) * [width, height]
        ends = [tuple(np.round(p).astype(int).tolist()) for p in (corner, corner + size)]
        cv2.rectangle(pixels, *ends, int(rng.choice([0, 255, 200])), -1)
    if rng.random() < 0.25:
        line = (rng.uniform(0, 1, (4, 2)) * [width, height]).astype(np.int32)
        cv2.polylines(pixels, [line], False, 255, int(rng.integers(1, 4)), cv2.LINE_AA)
    if rng.random() < 0.2:
        x, y = rng.choice((0.3, 0.7)) * width, rng.uniform(0.3, 0.7) * height
        layer = np.zeros(pixels.shape, np.float32)
        cv2.ellipse(layer, ((x, y), (0.3 * width, rng.uniform(0.2, 0.6) * height), 0), 255, -1)
        share = cv2.GaussianBlur(layer, (0, 0), 6) / 255 * rng.uniform(0.4, 1)
        pixels = (pixels + (210 - pixels.astype(np.float32)).clip(0) * share).clip(0, 255).astype(np.uint8)
    return pixels
