"""Backbones that others trained: what they read, where they come from, and how their tensors are named."""

import difflib
import re
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
import torchvision
from torch import Tensor, nn

from xray.errors import InputError

# ImageNet's statistics, in units of the full grey scale: what the pretrained backbones were fed with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
GREY_MEAN = sum(MEAN) / 3
GREY_STD = sum(STD) / 3


class Reading(NamedTuple):
    """How a network reads the grey levels of a canvas, 0 to 255, in each of its channels: (grey − mean) / std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def of_channels(self, n: int) -> "Reading":
        """What comes closest to it with 1 or 3 channels: their mean, or ImageNet's or equal colours."""
        if n == len(self.mean):
            return self
        if self in (IMAGENET, GREY):
            return IMAGENET if n == 3 else GREY
        if n == 1:
            return Reading((sum(self.mean) / 3,), (sum(self.std) / 3,))
        return Reading(self.mean * 3, self.std * 3)

    @classmethod
    def of_full_scale(cls, mean: Iterable[float], std: Iterable[float]) -> "Reading":
        """mean, std: in units of the full grey scale, as libraries give them."""
        return cls.of_buffers(*(torch.tensor(tuple(values)) * 255 for values in (mean, std)))

    @classmethod
    def of_buffers(cls, mean: Tensor, std: Tensor) -> "Reading":
        """mean, std: as `Normalise` holds them, of any shape."""
        return cls(tuple(mean.flatten().tolist()), tuple(std.flatten().tolist()))


IMAGENET = Reading.of_full_scale(MEAN, STD)
GREY = Reading.of_full_scale((GREY_MEAN,), (GREY_STD,))
CENTRED = Reading((127.5,), (127.5,))
"""Black is −1, white is 1."""

CHEST_SCALE = 1024.0
"""TorchXRayVision's networks read one channel of CHEST_SCALE · (2 grey / 255 − 1), of −1024 to 1024: `normalize` of
torchxrayvision/utils.py in mlmed/torchxrayvision, commit 05ee60c."""
CHEST_LABELS = 18
"""Outputs of each of its networks: a label that a network never saw has one, too (torchxrayvision/models.py, commit
3a10ce3). The names are those of torchvision's DenseNet, and of torchvision's ResNet, in the model itself after
`model.`."""
CHEST_NOTE = ", one grey channel of -1024 to 1024 as TorchXRayVision's"

PREFIXES = ("", "encoder.", "network.", "backbone.body.", "backbone.")
"""Where a backbone sits in a weights file: alone, in a segmenter, in a classifier, in a detector."""


class Normalise(nn.Module):
    """Canvases → what a backbone reads: (B, 1, S, S) uint8 → (B, C, S, S) float32, by default with ImageNet's mean and
    deviation.

    in_channels: 3 repeats the grey value under each colour's statistics; 1 uses the mean of the three.
    """

    mean: Tensor
    std: Tensor
    reading: Reading

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels is {in_channels}: it must be 1 or 3")
        # Not in the state dict where they are ImageNet's, so that it stays that of the network alone.
        self.register_buffer("mean", torch.empty(1, in_channels, 1, 1), persistent=False)
        self.register_buffer("std", torch.empty(1, in_channels, 1, 1), persistent=False)
        self.read_as(IMAGENET)

    def read_as(self, reading: Reading) -> None:
        """Normalises as `reading` says from now on, which is kept as its `reading`."""
        self.reading = reading.of_channels(self.mean.shape[1])
        self.mean.copy_(torch.tensor(self.reading.mean).view(1, -1, 1, 1))
        self.std.copy_(torch.tensor(self.reading.std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.reading != IMAGENET.of_channels(self.mean.shape[1]):
            destination |= {f"{prefix}mean": self.mean.detach(), f"{prefix}std": self.std.detach()}

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        mean, std = (state.pop(f"{prefix}{name}", None) for name in ("mean", "std"))
        self.read_as(IMAGENET if mean is None or std is None else Reading.of_buffers(mean, std))
        super()._load_from_state_dict(state, prefix, *args)


def reads_as(state: Mapping[str, Tensor], of_others: Reading = IMAGENET) -> tuple[dict[str, Tensor], Reading, str]:
    """A file's tensors, how the network that they are of reads grey levels, and what is to be said of it.

    of_others: for files in which nothing tells it and that are none of ours.
    Weights of TorchXRayVision (ResNet-50 and DenseNet of one channel) are told by their 18 outputs, or by its
    `op_threshs`. Their scale of 1024 goes into the first convolution: it is a power of two, so nothing is rounded. The
    middle of their scale cannot: they pad with it, so the canvas must be normalised to it.
    """
    state = dict(state)
    for prefix in ("", "normalise."):
        if f"{prefix}mean" in state and f"{prefix}std" in state:
            return state, Reading.of_buffers(state.pop(f"{prefix}mean"), state.pop(f"{prefix}std")), ""
    if name := _first_of_chest(state):
        state[name] = state[name] * CHEST_SCALE
        return state, CENTRED, CHEST_NOTE
    is_ours = any(name.startswith(prefix) for name in state for prefix in PREFIXES if prefix)
    return state, IMAGENET if is_ours else of_others, ""


def _first_of_chest(state: Mapping[str, Tensor]) -> str:
    """The name of the first convolution's weights of one of TorchXRayVision's networks; empty for others."""
    for first, last in (("conv1.weight", "fc.weight"), ("features.conv0.weight", "classifier.weight")):
        weight, outputs = state.get(first), state.get(last)
        of_18 = "op_threshs" in state or (outputs is not None and len(outputs) == CHEST_LABELS)
        if weight is not None and weight.shape[1:2] == (1,) and of_18:
            return first
    return ""


def unknown_network(what: str, name: str, known: Iterable[str], otherwise: str) -> InputError:
    """The error for a network that does not exist, with up to three of the known names that are much like it.

    what: the flag, or "the network". otherwise: the name that is suggested where none is.
    """
    close = difflib.get_close_matches(name, dict.fromkeys(known), n=3, cutoff=0.5) or [otherwise]
    return InputError(f"{what} {name} is unknown: did you mean {' or '.join(close)}?")


def download(fetch: Callable[[], Mapping[str, Tensor]], what: str, address: str = "them") -> dict[str, Tensor]:
    """The state dict that `fetch` downloads or finds in the local cache.

    what: what it is, for the error. address: where it is. Raises InputError where they cannot be had.
    """
    try:
        with _without_retries_offline():
            return dict(fetch())
    except Exception as error:
        # The hub's client, its HTTP library, timm and the operating system each raise exceptions of their own.
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"{what} could not be downloaded ({reason}): on a machine without internet, fetch {address} "
            "elsewhere and give the file as --weights FILE, or train from --weights none"
        ) from None


@contextmanager
def _without_retries_offline() -> Iterator[None]:
    """Where the hub's name does not resolve, its client reads the cache or fails at once.

    Otherwise it retries for 20 to 50 seconds before it says that there is no network.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, None)
    except OSError:
        # A proxy resolves names itself.
        constants.HF_HUB_OFFLINE = before or not getproxies()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def load_trunk(
    backbone: nn.Module,
    state: dict[str, Tensor],
    mismatch: str,
    last_layer: str = "",
    left_out: Collection[str] = (),
    reading: Reading = IMAGENET,
) -> bool:
    """Loads a backbone from a file's tensors, whichever of its usual names they go by.

    They may lie under a prefix (PREFIXES), be named as torchvision or as timm names MobileNetV2 and DenseNet, and be of
    three input channels where the backbone has one, or the other way round.

    mismatch: the error's beginning, which says what does not fit what. last_layer: start of the names of a last layer,
    which is left as it is where the file's has another shape. left_out: tensors of the same network that this backbone
    has no use for. reading: how the file's network reads grey levels; the backbone must be given them likewise.
    Returns whether the last layer was loaded too (True without one).
    Raises InputError if a tensor of the backbone is missing or of another shape, or the file's network is a larger one.
    """
    expected = backbone.state_dict()
    matching, spare = _by_own_names(expected, state)
    _fit_first_convolution(backbone, matching, reading)
    fitting = {name: value for name, value in matching.items() if value.shape == expected[name].shape}
    missing = [name for name in expected if name not in fitting and not name.endswith("num_batches_tracked")]
    last = [name for name in missing if last_layer and name.startswith(last_layer)]
    if len(missing) > len(last):
        first = next(name for name in missing if name not in last)
        raise InputError(
            f"{mismatch}: {len(missing)} of {len(expected)} tensors are missing or of another shape, {first} first"
        )
    larger = _of_more_layers(expected, spare - {_spelling(name) for name in left_out})
    if larger:
        raise InputError(f"{mismatch}: it has {len(larger)} tensors more, {min(larger)} among them")
    # Some encoders override load_state_dict to drop names that have been dropped here already.
    nn.Module.load_state_dict(backbone, {**expected, **fitting})
    return not last


def _by_own_names(expected: dict[str, Tensor], state: dict[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors that go by the backbone's names, and the spellings of the others beside them."""
    best: dict[str, Tensor] = {}
    spare: set[str] = set()
    for renamed in _mobilenet_spellings(state):
        for prefix in PREFIXES:
            spelled = {_spelling(name[len(prefix) :]): v for name, v in renamed.items() if name.startswith(prefix)}
            matching = {name: spelled[_spelling(name)] for name in expected if _spelling(name) in spelled}
            if len(matching) > len(best):
                best, spare = matching, spelled.keys() - {_spelling(name) for name in matching}
    return best, spare


def _of_more_layers(expected: Iterable[str], spare: set[str]) -> set[str]:
    """Those of the spare tensors that continue a numbered row of the backbone's, as a ResNet-34's do a ResNet-18's.

    All names of the smaller network are in the larger one's file, with equal shapes. A classifying layer, or a norm
    that only stands before one, continues no row: its name has a single number or none.
    """

    def row(name: str) -> str:
        return re.sub(r"\d+", "#", name)

    rows = {row(_spelling(name)) for name in expected}
    return {name for name in spare if row(name) in rows and row(name).count("#") > 1}


def _spelling(name: str) -> str:
    """One spelling for the names that libraries give the same tensor.

    torchvision's old DenseNet files say `denselayer1.norm.1.weight`; timm joins nested names with "_" where it
    extracts features; MobileNetV2's stages are `features.0`, or `0` where the backbone is the features alone.
    """
    name = re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", name)
    return name.replace(".", "_").removeprefix("model_").removeprefix("features_")


def _mobilenet_spellings(state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The state as it is and, where it may be a MobileNetV2, under the other library's names.

    torchvision and timm register the same tensors in the same order, under names that have nothing in common.
    """
    if not any("conv_stem" in name or "features.0.0." in name for name in state):
        return [state]
    # Its import takes seconds.
    import timm

    with torch.device("meta"):
        timms = list(timm.create_model("mobilenetv2_100").state_dict())
        torchvisions = list(torchvision.models.mobilenet_v2().state_dict())
    spellings = [state]
    for here, there in ((timms, torchvisions), (torchvisions, timms)):
        names = dict(zip(here, there, strict=True))
        for prefix in PREFIXES:
            renamed = {
                names[name[len(prefix) :]]: value
                for name, value in state.items()
                if name.startswith(prefix) and name[len(prefix) :] in names
            }
            if renamed:
                spellings.append(renamed)
    return spellings


def _fit_first_convolution(backbone: nn.Module, matching: dict[str, Tensor], reading: Reading) -> None:
    """Turns the first convolution's weights of three channels into those of one, or the other way round.

    On a grey radiograph x, three channels compute Σ w_c (x − m_c) / s_c, one channel w (x − m) / s. They agree with
    w = s Σ w_c / s_c up to the constant Σ w_c (m − m_c) / s_c, which goes into the bias or the norm that follows (exact
    but for the frame of pixels that see the zero padding, and there too where all m_c are equal). From one to three,
    w_c = w s_c / 3s is exact.
    """
    modules = list(backbone.named_modules())
    position = next(i for i, (_, module) in enumerate(modules) if isinstance(module, nn.Conv2d))
    name, convolution = modules[position]
    weight = matching.get(f"{name}.weight")
    if weight is None or weight.ndim != 4:
        return
    before, after = weight.shape[1], convolution.in_channels
    if (before, after) not in ((1, 3), (3, 1)):
        return
    (mean, std), (new_mean, new_std) = (
        (torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1) for values in reading.of_channels(n))
        for n in (before, after)
    )
    if before == 1:
        matching[f"{name}.weight"] = (weight * new_std / (3 * std)).to(weight.dtype)
        return
    scaled = weight / std
    matching[f"{name}.weight"] = (new_std * scaled.sum(1, keepdim=True)).to(weight.dtype)
    constant = (scaled * (new_mean - mean)).sum((1, 2, 3))
    if f"{name}.bias" in matching:
        matching[f"{name}.bias"] = (matching[f"{name}.bias"] + constant).to(weight.dtype)
        return
    next_name = next((key for key, module in modules[position + 1 :] if list(module.parameters(recurse=False))), "")
    running_mean = matching.get(f"{next_name}.running_mean")
    if running_mean is not None and running_mean.shape == constant.shape:
        matching[f"{next_name}.running_mean"] = (running_mean - constant).to(running_mean.dtype)
