"""Faster convolutions on a CPU: 3 × 3 with a quarter of the products; sums, activations, norms in the same pass.

Wide 3 × 3 convolutions of the pyramid and the proposals' head alone are a third of a training step. Winograd's
F(4 × 4, 3 × 3) of `xray.models.kernels.winograd` computes their output, the gradient of their input, which is a
convolution too, and that of their weights, whose products run over tiles in place of pixels (Lavin and Gray 2016,
arXiv:1509.09308).
"""

import functools
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d

from xray.models.kernels.products import BatchedProducts, point_convolution, speed_up_linear
from xray.models.kernels.winograd import (
    LIMITS,
    NOTHING,
    RELU,
    RELU6,
    products_of,
    weight_gradient,
    weights_of_products,
    winograd,
)

WIDE = 128
"""Channels from which on Winograd's transforms cost less than the products that they save."""
LARGE = 1024
"""Pixels of a map from which on they do."""


def is_wide(conv: nn.Conv2d) -> bool:
    """Whether it is 3 × 3 with stride 1 and padding 1, and has so many channels that `winograd` may be faster."""
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    plain = shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")
    return plain and min(conv.in_channels, conv.out_channels) >= WIDE


def is_point(conv: nn.Conv2d) -> bool:
    """Whether it is 1 × 1 with stride 1, so that it is a product of matrices."""
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.groups)
    return shape == ((1, 1), (1, 1), (0, 0), 1)


def _is_large(features: Tensor) -> bool:
    height, width = features.shape[-2:]
    return len(features) > 0 and height % 4 == 0 and width % 4 == 0 and height * width >= LARGE


# Inference


@functools.cache
def onednn_has_bfloat16() -> bool:
    """Whether oneDNN convolves bfloat16 on this processor, fast or slow: from AVX-512 on. Without, PyTorch does it."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def speed_up_inference(model: nn.Module) -> nn.Module:
    """Puts faster convolutions into a model for inference on a CPU, in place; returns it.

    Comes after `xray.models.kernels.norms.fold_batch_norms`: where a norm stands between, nothing is joined.
    """
    if not torch.backends.mkldnn.is_available():
        return model
    for module in list(model.modules()):
        # A subclass may run its parts in another order.
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _join_blocks(module)
            _join_activations(module)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Conv2d and _is_zero_padded(child):
                setattr(module, name, InferenceConv2d(child))
    speed_up_linear(model)
    return model


class InferenceConv2d(nn.Module):
    """A convolution, a sum and an activation as one, with the weights of an nn.Conv2d.

    Where it is faster and weights are float32, by Winograd's algorithm: it is off by about 3e-6 of the largest output,
    a plain convolution by 1e-6.
    """

    def __init__(self, conv: nn.Conv2d, activation: tuple[str, list[float]] = NOTHING) -> None:
        super().__init__()
        self.weight, self.bias, self.activation = conv.weight, conv.bias, activation
        self.places = (list(map(int, conv.padding)), list(conv.stride), list(conv.dilation), conv.groups)
        self.is_wide = is_wide(conv)
        self._products: BatchedProducts | None = None

    def forward(self, features: Tensor, addend: Tensor | None = None) -> Tensor:
        """(B, C, H, W) → (B, K, H', W').

        addend: of the output's shape, added before the activation; it is overwritten with the output.
        """
        features = features.to(self.weight.dtype)
        if self.is_wide and _is_large(features) and self.weight.dtype == torch.float32:
            if self._products is None:
                self._products = weights_of_products(self.weight)
            return winograd(features, self._products, self.bias, self.activation, addend)
        if self.weight.dtype == torch.bfloat16 and not onednn_has_bfloat16():
            return self._by_pytorch(features, addend)
        if addend is None:
            return torch.ops.mkldnn._convolution_pointwise(
                features, self.weight, self.bias, *self.places, *self.activation, ""
            )
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            addend, features, self.weight, self.bias, *self.places, "add", 1.0, *self.activation, ""
        )

    def _by_pytorch(self, features: Tensor, addend: Tensor | None) -> Tensor:
        padding, stride, dilation, groups = self.places
        output = F.conv2d(features, self.weight, self.bias, stride, padding, dilation, groups)
        if addend is not None:
            output = addend.add_(output)
        return output if self.activation == NOTHING else output.clamp_(*LIMITS[self.activation[0]])


class InferenceBlock(nn.Module):
    """torchvision's residual block, its norms folded, with sums and activations inside its convolutions.

    overwrites: whether it writes its output into the memory of its input, which nothing else reads.
    """

    def __init__(self, block: BasicBlock | Bottleneck, overwrites: bool) -> None:
        super().__init__()
        convs = [block.conv1, block.conv2] + ([block.conv3] if isinstance(block, Bottleneck) else [])
        self.convs = nn.ModuleList(InferenceConv2d(conv, RELU) for conv in convs)
        self.downsample = None if block.downsample is None else InferenceConv2d(block.downsample[0])
        self.overwrites = overwrites

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H', W')."""
        inner = features
        *first, last = self.convs
        for conv in first:
            inner = conv(inner)
        features = features.to(inner.dtype)
        if self.downsample is not None:
            features = self.downsample(features)
        elif not self.overwrites:
            features = features.clone()
        return last(inner, features)


def _is_zero_padded(conv: nn.Conv2d) -> bool:
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _join_blocks(stage: nn.Sequential) -> None:
    before = None
    for name, block in list(stage.named_children()):
        if type(block) in (BasicBlock, Bottleneck) and _is_folded(block):
            # Other modules may read the input of a stage's first block.
            block = InferenceBlock(block, overwrites=isinstance(before, InferenceBlock))
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
            setattr(sequence, conv_name, InferenceConv2d(conv, RELU if type(module) is nn.ReLU else RELU6))
            setattr(sequence, name, nn.Identity())
            conv = None
        elif type(module) is not nn.Identity:
            conv = None


# Training. Layers change their class, so that the state dict keeps its names and tensors.


def speed_up_training(model: nn.Module) -> None:
    """Lets each convolution of `model` that `is_wide` be computed by `convolve`, in place, and what is a product of
    matrices by the faster library."""
    for module in model.modules():
        if type(module) is nn.Conv2d and is_wide(module):
            module.__class__ = WideConv2d
        elif type(module) is nn.Conv2d and is_point(module):
            module.__class__ = PointConv2d
    speed_up_linear(model)


def apply_norms_in_convolutions(model: nn.Module) -> None:
    """Lets each convolution of `model` apply the FrozenBatchNorm2d that follows it, in place.

    Modules must run in the order in which their parent holds them, as in torchvision's ResNets and MobileNets.
    """
    for parent in model.modules():
        for conv, norm in pairwise(parent.children()):
            if type(conv) is nn.Conv2d and type(norm) is FrozenBatchNorm2d:
                conv.__class__, norm.__class__ = NormedConv2d, AppliedNorm2d
                # The norm stays a child of its parent: within a tuple, it is not a child of the convolution too.
                conv.norm = (norm,)  # type: ignore[assignment]  # no module, see above


class WideConv2d(nn.Conv2d):
    """A convolution that `is_wide`, by `convolve`."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, K, H, W)."""
        return convolve(features, self.weight, self.bias)


class PointConv2d(nn.Conv2d):
    """A convolution that `is_point`, by `xray.models.kernels.products`."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, K, H, W)."""
        return point_convolution(features, self.weight, self.bias)


class NormedConv2d(nn.Conv2d):
    """A convolution that also does what the frozen norm behind it would: norm(conv(x)).

    A frozen norm is a factor and an addend of each channel. Applied to the weights, in every step, it reads a few
    megabytes, applied to the features a few hundred. The gradient of the weights passes through the factor, so it is
    that of the two modules one after the other.
    """

    norm: tuple[FrozenBatchNorm2d]

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H', W')."""
        (norm,) = self.norm
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        addend = norm.bias - norm.running_mean * factor
        if self.bias is not None:
            addend = addend + self.bias * factor
        weight = self.weight * factor.view(-1, 1, 1, 1)
        if is_wide(self):
            return convolve(features, weight, addend)
        if is_point(self):
            return point_convolution(features, weight, addend)
        return self._conv_forward(features, weight, addend)


class AppliedNorm2d(FrozenBatchNorm2d):
    """A frozen norm that the convolution before it applies; it only keeps the numbers."""

    def forward(self, features: Tensor) -> Tensor:
        """Features as they come."""
        return features


def convolve(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3 × 3 convolution with padding 1: (B, C, H, W) → (B, K, H, W).

    By Winograd's algorithm on a CPU in float32 where maps are large enough: the same numbers to about 3e-6 of the
    largest, where a plain convolution's are to 1e-6.
    """
    is_float = features.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    on_cpu = features.device.type == "cpu" and not torch.compiler.is_compiling()
    if on_cpu and is_float and _is_large(features):
        return _Winograd.apply(features, weight, bias)
    return F.conv2d(features, weight, bias, padding=1)


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(features, weight)
        output = winograd(features, products_of(weight), bias, NOTHING, None)
        # It is the only view of its tensor. If it were marked as a view, activations could not change it in place.
        return torch.ops.aten._unsafe_view(output, output.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        features, weight = ctx.saved_tensors
        of_features = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            turned = weight.flip(2, 3).transpose(0, 1)
            of_features = winograd(gradient, products_of(turned), None, NOTHING, None)
        if ctx.needs_input_grad[1]:
            is_last = weight.is_contiguous(memory_format=torch.channels_last)
            memory_format = torch.channels_last if is_last else torch.contiguous_format
            of_weight = weight_gradient(features, gradient).contiguous(memory_format=memory_format)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_features, of_weight, of_bias
