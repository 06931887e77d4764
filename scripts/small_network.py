"""`xray.radiographs.frontal.network` in PyTorch, to be trained for one question or another."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn


class SmallNetwork(nn.Module):
    """Convolutions of stride 2, then two products; a subclass says what its two answers mean.

    widths: channels of the input and of each convolution. sizes: of their kernels. places: of the last one's output,
    (height) × (width). hidden: numbers between the two products.
    """

    def __init__(self, widths: Sequence[int], sizes: Sequence[int], places: int, hidden: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(n_in, n_out, size, 2, size // 2)
            for n_in, n_out, size in zip(widths[:-1], widths[1:], sizes, strict=True)
        )
        self.dense = nn.ModuleList([nn.Linear(widths[-1] * places, hidden), nn.Linear(hidden, 2)])
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, S, S) → (B, 2)."""
        for conv in self.convs:
            x = torch.relu(conv(x))
        return self.dense[1](torch.relu(self.dense[0](self.dropout(x.flatten(1)))))

    def values(self) -> dict[str, np.ndarray]:
        """By the names that `frontal.network` has for them."""
        modules = {f"conv{k}": conv for k, conv in enumerate(self.convs)}
        modules |= {f"dense{k}": dense for k, dense in enumerate(self.dense)}
        tensors = {f"{name}.{key}": value for name, m in modules.items() for key, value in m.state_dict().items()}
        return {name: value.detach().numpy().astype(np.float16).astype(np.float32) for name, value in tensors.items()}
