"""Convolutions that a CPU does faster: 3 × 3 with a quarter of the products, sums and activations in the same pass."""

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from xray.models.kernels.winograd import NOTHING, RELU, RELU6, weights_of_products, winograd

WIDE = 128
"""Channels from which on the products saved are worth the way there and back."""
LARGE = 1024
"""Pixels of the output from which on they are."""


def quicken(model: nn.Module) -> nn.Module:
    """Puts faster convolutions into a model for inference on a CPU, in place; returns it.

    Comes after `xray.models.kernels.norms.fold_batch_norms`: where a norm stands between, nothing is joined.
    """
    if not torch.backends.mkldnn.is_available():
        return model
    for module in list(model.modules()):
        # A class of its own may run its parts in another order.
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _join_blocks(module)
            _join_activations(module)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Conv2d and _is_zero_padded(child):
                setattr(module, name, QuickConv2d(child))
    return model


class QuickConv2d(nn.Module):
    """A convolution, a sum and an activation as one, with the weights of an nn.Conv2d.

    Where it is faster and weights are float32, by Winograd's algorithm: it is off by about 3e-6 of the largest output,
    a plain convolution by 1e-6.
    """

    def __init__(self, conv: nn.Conv2d, activation: tuple[str, list[float]] = NOTHING) -> None:
        super().__init__()
        self.weight, self.bias, self.activation = conv.weight, conv.bias, activation
        self.places = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.is_wide = _is_wide(conv)
        self._products: Tensor | None = None

    def forward(self, features: Tensor, addend: Tensor | None = None) -> Tensor:
        """(B, C, H, W) → (B, K, H', W').

        addend: of the output's shape, added before the activation; it is overwritten with the output.
        """
        features = features.to(self.weight.dtype)
        height, width = features.shape[-2:]
        even = height % 4 == 0 and width % 4 == 0 and height * width >= LARGE
        if self.is_wide and even and self.weight.dtype == torch.float32:
            if self._products is None:
                self._products = weights_of_products(self.weight)
            return winograd(features, self._products, self.bias, self.activation, addend)
        if addend is None:
            return torch.ops.mkldnn._convolution_pointwise(
                features, self.weight, self.bias, *self.places, *self.activation, ""
            )
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            addend, features, self.weight, self.bias, *self.places, "add", 1.0, *self.activation, ""
        )


class QuickBlock(nn.Module):
    """torchvision's residual block, its norms folded, with sums and activations inside its convolutions.

    overwrites: whether nobody else reads its input, in whose memory it then leaves its output.
    """

    def __init__(self, block: BasicBlock | Bottleneck, overwrites: bool) -> None:
        super().__init__()
        convs = [block.conv1, block.conv2] + ([block.conv3] if isinstance(block, Bottleneck) else [])
        self.convs = nn.ModuleList(QuickConv2d(conv, RELU) for conv in convs)
        self.downsample = None if block.downsample is None else QuickConv2d(block.downsample[0])
        self.overwrites = overwrites

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H', W')."""
        found = features
        *first, last = self.convs
        for conv in first:
            found = conv(found)
        features = features.to(found.dtype)
        if self.downsample is not None:
            features = self.downsample(features)
        elif not self.overwrites:
            features = features.clone()
        return last(found, features)


def _is_zero_padded(conv: nn.Conv2d) -> bool:
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _is_wide(conv: nn.Conv2d) -> bool:
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    plain = shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")
    return plain and min(conv.in_channels, conv.out_channels) >= WIDE


def _join_blocks(stage: nn.Sequential) -> None:
    before = None
    for name, block in list(stage.named_children()):
        if type(block) in (BasicBlock, Bottleneck) and _is_folded(block):
            # What the first block of a stage reads, others may read too.
            block = QuickBlock(block, overwrites=isinstance(before, QuickBlock))
            setattr(stage, name, block)
        before = block


def _is_folded(block: BasicBlock | Bottleneck) -> bool:
    norms = [module for name, module in block.named_children() if name.startswith("bn")]
    if block.downsample is not None:
        norms += list(block.downsample)[1:]
    return all(type(norm) is nn.Identity for norm in norms) and type(block.relu) is nn.ReLU


def _join_activations(sequence: nn.Sequential) -> None:
    conv_name, conv = "", None
    for name, module in list(sequence.named_children()):
        if type(module) is nn.Conv2d and _is_zero_padded(module):
            conv_name, conv = name, module
        elif type(module) in (nn.ReLU, nn.ReLU6) and conv is not None:
            setattr(sequence, conv_name, QuickConv2d(conv, RELU if type(module) is nn.ReLU else RELU6))
            setattr(sequence, name, nn.Identity())
            conv = None
        elif type(module) is not nn.Identity:
            conv = None
