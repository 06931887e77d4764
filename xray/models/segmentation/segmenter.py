"""U-Net and U-Net++ on letterboxed canvases: segmentation-models-pytorch's encoders, deep supervision, pruning."""

import warnings
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.base import SegmentationHead, SegmentationModel
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from segmentation_models_pytorch.decoders.unetplusplus.decoder import DecoderBlock, UnetPlusPlusDecoder
from torch import Tensor, nn

from xray.errors import InputError
from xray.models.pretrained import Normalise, load_trunk, reads_as
from xray.models.segmentation.encoders import (
    build_encoder,
    check_encoder,
    drop_idle_stages,
    encoders_of,
    imagenet_state,
)
from xray.models.weights import load_deployed, read_weights

ARCHITECTURES = {"unet": smp.Unet, "unetplusplus": smp.UnetPlusPlus}

NO_ATTENTION, SCSE = "none", "scse"
ATTENTIONS = {NO_ATTENTION: None, SCSE: SCSE}
"""What decoder blocks weigh their features by, to its name in segmentation-models-pytorch. scse is Roy et al. 2018,
"Concurrent Spatial and Channel Squeeze & Excitation in Fully Convolutional Networks", arXiv:1803.02579: the features x
become x · channel(x) + x · place(x), each a sigmoid, of the channels' means and of the channels at each pixel."""

FINEST_CHANNELS = 16
"""Channels of the decoder at full resolution; each coarser one has twice as many, as in segmentation-models-pytorch."""


class Segmenter(nn.Module):
    """A U-Net or U-Net++ that takes uint8 canvases as they are.

    Without deep supervision its state dict has the names of segmentation-models-pytorch's model (encoder., decoder.,
    segmentation_head.), so each loads the other's.

    levels: of a U-Net++, how many nested U-Nets it holds (depth − 1), or the one that pruning left; 0 for a U-Net.
    """

    def __init__(
        self,
        network: SegmentationModel,
        encoder_name: str,
        in_channels: int,
        depth: int,
        deep_supervision: bool,
        attention: str = NO_ATTENTION,
    ) -> None:
        super().__init__()
        self.encoder_name, self.in_channels, self.depth = encoder_name, in_channels, depth
        self.deep_supervision, self.encoder_frozen = deep_supervision, False
        self.normalise = Normalise(in_channels)
        self.encoder: nn.Module = network.encoder
        self.decoder: UnetDecoder | NestedDecoder = network.decoder
        self.segmentation_head: nn.Module = network.segmentation_head
        self.levels = 0
        self.side_outputs = nn.ModuleDict()
        if isinstance(network.decoder, UnetPlusPlusDecoder):
            self.decoder = NestedDecoder(network.decoder)
            self.levels = self.decoder.levels
        if deep_supervision:
            channels, n_classes = network.encoder.out_channels[1], network.segmentation_head[0].out_channels
            for level in range(1, self.levels):
                self.side_outputs[str(level)] = _side_output(channels, n_classes, attention)
        # Without a skip connection a block does not use its first attention: one that trained would never get a
        # gradient, which stops a training on several devices. Its tensors stay, as in the library.
        for block in (self._finest_block(), *(next(output.children()) for output in self.side_outputs.values())):
            block.get_submodule("attention1").requires_grad_(False)

    def _finest_block(self) -> nn.Module:
        """The block at full resolution, which has no skip connection."""
        blocks: Any = self.decoder.blocks
        return blocks[f"x_0_{self.decoder.top}"] if isinstance(self.decoder, NestedDecoder) else blocks[-1]

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """The logits of every class's mask.

        images: (B, 1, H, W) uint8 canvases. Sides that are no multiple of 2**depth are padded inside, by repeating the
        last row and column, and the logits cropped back.
        Returns (B, K, H, W) float32; while training with deep supervision a list of them, of the nested U-Nets of
        level 1 to `levels` (the last is what inference returns).
        Raises ValueError for sides under 2 × 2**depth, of which the deepest features would keep a single pixel.
        """
        height, width = images.shape[-2:]
        multiple = 2**self.depth
        if min(height, width) < 2 * multiple:
            raise ValueError(
                f"canvases of {width} × {height} pixels are too small for a network of depth {self.depth}: they need "
                f"at least {2 * multiple} a side, or a smaller depth"
            )
        pixels = self.normalise(images)
        right, bottom = -width % multiple, -height % multiple
        if right or bottom:
            pixels = F.pad(pixels, (0, right, 0, bottom), mode="replicate")
        return self.decode(self.encoder(pixels), height, width)

    def decode(self, features: list[Tensor], height: int, width: int) -> Tensor | list[Tensor]:
        """The second half of `forward`, for a pipeline whose detector has run the same backbone already.

        features: of strides 1 (only its size is read), 2, 4, … 2**depth, as the encoder gives them for the normalised
        and padded canvas. height, width: the canvas without padding.
        """
        if not self.levels:
            return _cropped(self.segmentation_head(self.decoder(features)), height, width)
        nodes = self.decoder(features, self.levels)
        if not (self.training and self.deep_supervision):
            return _cropped(self._output(nodes[-1], self.levels), height, width)
        return [_cropped(self._output(node, level), height, width) for level, node in enumerate(nodes, 1)]

    def _output(self, node: Tensor, level: int) -> Tensor:
        if str(level) in self.side_outputs:
            return self.side_outputs[str(level)](node)
        return self.segmentation_head(self.decoder.full_resolution(node))

    def train(self, mode: bool = True) -> "Segmenter":
        """As `nn.Module.train`; the norms of a frozen encoder keep their statistics."""
        super().train(mode)
        if self.encoder_frozen:
            self.encoder.eval()
        return self

    def prune(self, level: int) -> "Segmenter":
        """Cuts a U-Net++ trained with deep supervision down to its nested U-Net of `level`, for faster inference.

        Only the nodes X(i, j) with i + j ≤ level stay, and the encoder's stages that feed them; the rest is neither
        computed nor held (Zhou et al. 2020, UNet++, arXiv:1912.05074, section 3.3). In place; returns itself.
        Raises ValueError without deep supervision and for a level it does not have.
        """
        if not self.deep_supervision:
            raise ValueError(
                "only a unetplusplus trained with deep supervision can be pruned: the others have one output"
            )
        if not 1 <= level <= self.levels:
            raise ValueError(f"this network has the levels 1 to {self.levels}, not {level}")
        if level < self.levels:
            self.decoder.prune(level)
            del self.segmentation_head
            self.side_outputs = nn.ModuleDict({str(level): self.side_outputs[str(level)]})
            whole = self.encoder.state_dict()
            device = next(self.encoder.parameters()).device
            trains = any(parameter.requires_grad for parameter in self.encoder.parameters())
            self.depth = level + 1
            # The encoder is rebuilt, because each family of encoders decides by its depth what it computes.
            encoder = build_encoder(self.encoder_name, self.in_channels, self.depth)
            drop_idle_stages(encoder, self.in_channels)
            nn.Module.load_state_dict(encoder, {name: whole[name] for name in encoder.state_dict()})
            self.encoder = encoder.to(device).train(self.encoder.training).requires_grad_(trains)
        else:
            self.side_outputs = nn.ModuleDict()
        self.levels = level
        self.deep_supervision = False
        return self


class NestedDecoder(nn.Module):
    """segmentation-models-pytorch's U-Net++ decoder, whose nodes can be computed up to any level.

    In the paper's terms node X(i, j) lies i halvings below the finest features and j steps right of the encoder, whose
    features are X(i, 0); here the finest have stride 2. The blocks keep the library's names.
    """

    def __init__(self, decoder: UnetPlusPlusDecoder) -> None:
        super().__init__()
        self.blocks = decoder.blocks
        self.top = decoder.depth
        self.levels = decoder.depth

    def _name(self, i: int, j: int) -> str:
        return f"x_{self.top - i - j}_{self.top - 1 - i}"

    def forward(self, features: list[Tensor], level: int) -> list[Tensor]:
        """Features of strides 1, 2, 4, … → X(0, 1) … X(0, level), each (B, channels, S/2, S/2)."""
        nodes = {(i, 0): feature for i, feature in enumerate(features[1:])}
        for j in range(1, level + 1):
            for i in range(level - j + 1):
                row = torch.cat([nodes[i, step] for step in reversed(range(j))], dim=1)
                nodes[i, j] = self.blocks[self._name(i, j)](nodes[i + 1, j - 1], row)
        return [nodes[0, j] for j in range(1, level + 1)]

    def full_resolution(self, node: Tensor) -> Tensor:
        """X(0, levels) at stride 2 → (B, 16, S, S)."""
        return self.blocks[f"x_0_{self.top}"](node)

    def prune(self, level: int) -> None:
        """Keeps the nodes up to `level`, which must be lower than the highest, and drops the others."""
        needed = {self._name(i, j) for j in range(1, level + 1) for i in range(level - j + 1)}
        self.blocks = nn.ModuleDict({name: block for name, block in self.blocks.items() if name in needed})
        self.levels = level


def _cropped(logits: Tensor, height: int, width: int) -> Tensor:
    return logits[..., :height, :width].float()


def _side_output(channels: int, n_classes: int, attention: str) -> nn.Sequential:
    block = DecoderBlock(channels, 0, FINEST_CHANNELS, attention_type=ATTENTIONS[attention])
    head = SegmentationHead(FINEST_CHANNELS, n_classes, kernel_size=3)
    initialize_decoder(block)
    initialize_head(head)
    return nn.Sequential(block, head)


def build_segmenter(
    architecture: str = "unet",
    encoder: str = "resnet34",
    n_classes: int = 1,
    in_channels: int = 3,
    depth: int = 5,
    deep_supervision: bool = False,
    attention: str = NO_ATTENTION,
) -> Segmenter:
    """An untrained segmenter; the result depends on torch's random state.

    architecture: "unet" or "unetplusplus". encoder: a name of segmentation-models-pytorch's ("tu-NAME" for any of
    timm's). n_classes: masks it predicts, each by itself (sigmoid). in_channels: 1 grey, or 3 that repeat it.
    depth: how often the encoder halves the resolution, 3 to 5. deep_supervision: of unetplusplus only; trains an
    output for each nested U-Net. attention: of the decoder's blocks, "none" or "scse".
    Raises InputError for an encoder that is unknown or does not fit, ValueError for other values out of range.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture is {architecture}: it must be one of {', '.join(ARCHITECTURES)}")
    if not 3 <= depth <= 5:
        raise ValueError(f"depth is {depth}: it must be 3, 4 or 5")
    if n_classes < 1:
        raise ValueError(f"n_classes is {n_classes}: it must be at least 1")
    if deep_supervision and architecture != "unetplusplus":
        raise ValueError("deep supervision needs the architecture unetplusplus: a unet has one output")
    if attention not in ATTENTIONS:
        raise ValueError(f"attention is {attention}: it must be one of {', '.join(ATTENTIONS)}")
    check_encoder(encoder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            network = ARCHITECTURES[architecture](
                encoder,
                encoder_depth=depth,
                encoder_weights=None,
                decoder_attention_type=ATTENTIONS[attention],
                decoder_channels=[FINEST_CHANNELS * 2**step for step in reversed(range(depth))],
                in_channels=in_channels,
                classes=n_classes,
            )
    except (ValueError, KeyError, RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"--encoder {encoder} cannot be used in a {architecture} of depth {depth}: {error}; use another encoder"
        ) from None
    if deep_supervision and network.encoder.out_channels[1] == 0:
        raise InputError(
            f"--encoder {encoder} has no features at half the resolution, which deep supervision reads: use another one"
        )
    drop_idle_stages(network.encoder, in_channels)
    return Segmenter(network, encoder, in_channels, depth, deep_supervision, attention)


def load_encoder_weights(segmenter: Segmenter, weights: str) -> str:
    """Puts initial weights into the encoder: "imagenet", "none", a file, or a run directory.

    A file may hold a backbone of torchvision's, timm's, segmentation-models-pytorch's or TorchXRayVision's; a run may
    be a detection (its backbone), a classification or a segmentation. The first convolution is fitted to the number of
    channels.
    Returns a sentence saying what was loaded. Raises InputError if weights cannot be downloaded or read, or are of
    another network.
    """
    name = segmenter.encoder_name
    if weights == "none":
        return "encoder starts at random"
    advice = "give --encoder the name of the backbone in that file"
    if weights == "imagenet":
        state, source = imagenet_state(name, segmenter.depth), "ImageNet"
    elif Path(weights).is_dir():
        description, state = load_deployed(weights)
        backbone = _backbone_name(description)
        source = f"{weights} (a {description['task']} run{f' with {backbone}' if backbone else ''})"
        fitting = " or ".join(encoders_of(backbone))
        advice = "its backbone is none of the encoders"
        if fitting:
            advice = f"give --encoder {fitting}, the backbone of that run"
    else:
        state, source = read_weights(Path(weights)), weights
    mismatch = f"{source} does not hold the weights of the encoder {name}; {advice}"
    state, reading, note = reads_as(state)
    load_trunk(segmenter.encoder, state, mismatch, left_out=_names_of_all_depths(segmenter), reading=reading)
    segmenter.normalise.read_as(reading)
    return f"encoder {name} starts from {source}{note}"


def _names_of_all_depths(segmenter: Segmenter) -> list[str]:
    with torch.device("meta"):
        return list(build_encoder(segmenter.encoder_name, segmenter.in_channels, 5).state_dict())


def _backbone_name(description: dict[str, Any]) -> str:
    architecture = description.get("architecture")
    if not isinstance(architecture, dict):
        return ""
    return str(next((architecture[key] for key in ("backbone", "encoder", "name") if key in architecture), ""))


def freeze_encoder(segmenter: Segmenter) -> None:
    """Stops the training of the encoder: its weights get no gradient and its norms keep their statistics."""
    segmenter.encoder_frozen = True
    segmenter.encoder.requires_grad_(False)
    segmenter.encoder.eval()
