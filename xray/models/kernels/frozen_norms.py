"""Frozen batch norms that cost nothing while training: the convolution before each applies it."""

from itertools import pairwise

from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from xray.models.kernels.detector_convolutions import convolve, is_wide


class NormedConv2d(nn.Conv2d):
    """A convolution that also does what the frozen norm behind it would: norm(conv(x)).

    A frozen norm is a factor and an addend of each channel. Applied to the weights, in every step, it reads a few
    megabytes, applied to the features a few hundred. The gradient of the weights passes through the factor, so it is
    that of the two modules one after the other.
    """

    def __init__(self, convolution: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
        super().__init__(
            convolution.in_channels,
            convolution.out_channels,
            convolution.kernel_size,  # type: ignore[arg-type]  # torch types its own attributes as of any length
            convolution.stride,  # type: ignore[arg-type]
            convolution.padding,  # type: ignore[arg-type]
            convolution.dilation,  # type: ignore[arg-type]
            convolution.groups,
            convolution.bias is not None,
            convolution.padding_mode,
            device="meta",
        )
        self.weight, self.bias = convolution.weight, convolution.bias
        # The norm stays a child of its old parent: within a tuple, it is none of this module too.
        self._norm = (norm,)
        self._is_wide = is_wide(convolution)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H', W')."""
        (norm,) = self._norm
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        addend = norm.bias - norm.running_mean * factor
        if self.bias is not None:
            addend = addend + self.bias * factor
        weight = self.weight * factor.view(-1, 1, 1, 1)
        if self._is_wide:
            return convolve(features, weight, addend)
        return self._conv_forward(features, weight, addend)


class AppliedNorm2d(FrozenBatchNorm2d):
    """A frozen norm that the convolution before it applies; it only keeps the numbers."""

    def __init__(self, norm: FrozenBatchNorm2d) -> None:
        super().__init__(norm.weight.numel(), norm.eps)
        for name in ("weight", "bias", "running_mean", "running_var"):
            setattr(self, name, getattr(norm, name))

    def forward(self, features: Tensor) -> Tensor:
        """Features as they come."""
        return features


def apply_norms_in_convolutions(model: nn.Module) -> None:
    """Lets each convolution of `model` apply the FrozenBatchNorm2d that follows it, in place.

    The state dict keeps its names and tensors. Modules must run in the order in which their parent holds them, as in
    torchvision's ResNets and MobileNets.
    """
    for parent in list(model.modules()):
        children = list(parent.named_children())
        for (name, convolution), (norm_name, norm) in pairwise(children):
            if type(convolution) is nn.Conv2d and type(norm) is FrozenBatchNorm2d:
                applied = AppliedNorm2d(norm)
                setattr(parent, norm_name, applied)
                setattr(parent, name, NormedConv2d(convolution, applied))
