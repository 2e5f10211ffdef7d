"""Winograd convolution: 3×3 convolutions with a half or a quarter of the multiplications, for CPUs.

The minimal filtering of Lavin & Gray 2016 (https://arxiv.org/abs/1509.09308, §4): tiles of (m+2)×(m+2) input pixels, m
apart, give m×m outputs each, Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A. GPU libraries use it by themselves; oneDNN, which computes
PyTorch's convolutions on a CPU, does not.

Rounding errors are larger than in a direct convolution and grow with the tile. Relative to the outputs of 256 channels,
m = 4 in float32 errs by 1e-6 to 2e-6 (direct: 2e-7 to 4e-7), m = 2 in bfloat16 by 4e-3 (direct: 2e-3).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEWEST = 24
"""Tiles of 4×4 outputs in a batch; with fewer, reading the larger weights costs what is saved."""

STEP_BYTES = 8 << 20
"""Bytes of transformed input per step, so that what lies between the transforms stays in the processor's cache."""

Matrix = tuple[tuple[float, ...], ...]


class Filtering(NamedTuple):
    """F(m×m, 3×3). outputs: m. channels: fewest, of input and output, that gain. b: Bᵀ, g: G, a: Aᵀ.

    In every row of b and a, some coefficient is 1, which `_mix` starts from; the second column of a is all 1.
    """

    outputs: int
    channels: int
    b: Matrix
    g: Matrix
    a: Matrix


FILTERINGS = {
    torch.float32: Filtering(
        4,
        128,
        b=(
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        g=(
            (1 / 4, 0, 0),
            (-1 / 6, -1 / 6, -1 / 6),
            (-1 / 6, 1 / 6, -1 / 6),
            (1 / 24, 1 / 12, 1 / 6),
            (1 / 24, -1 / 12, 1 / 6),
            (0, 0, 1),
        ),
        a=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    ),
    torch.bfloat16: Filtering(
        2,
        256,
        b=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        g=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        a=((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
}
"""By the dtype of the computation."""


class WinogradConv2d(nn.Module):
    """A 3×3 convolution of stride 1 and padding 1, for inference: [B, C, h, w] → [B, O, h, w], channels_last."""

    filters: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        """conv: of a type in FILTERINGS. It is kept, for small maps."""
        super().__init__()
        self.conv, self.filtering = conv, FILTERINGS[conv.weight.dtype]
        g = torch.tensor(self.filtering.g, dtype=torch.float64, device=conv.weight.device)
        filters = torch.einsum("ai,bj,ocij->abco", g, g, conv.weight.detach().double()).flatten(0, 1)
        self.register_buffer("filters", filters.to(conv.weight.dtype).contiguous(), persistent=False)  # [(m+2)², C, O]

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        if batch * height * width < FEWEST * 16:
            answer: Tensor = self.conv(x)
            return answer
        m = self.filtering.outputs
        down, across = -(-height // m), -(-width // m)
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, m * across - width + 1, 1, m * down - height + 1))
        answer = x.new_empty(batch, down, m, across, m, self.filters.shape[2])
        per_row = across * channels * len(self.filters) * x.element_size()
        step = max(1, STEP_BYTES // per_row)
        for picture, target in zip(padded, answer, strict=True):
            for first in range(0, down, step):
                self._rows(picture[m * first :], target[first : first + step])
        whole = answer.view(batch, m * down, m * across, -1)
        return whole[:, :height, :width].permute(0, 3, 1, 2)

    def _rows(self, picture: Tensor, target: Tensor) -> None:
        """Rows of tiles of one padded picture [≥ m·rows + 2, m·across + 2, C] → target [rows, m, across, m, O]."""
        m, _, b, _, a = self.filtering
        size = m + 2
        rows, _, across, _, outputs = target.shape
        half = picture.new_empty(size, rows, *picture.shape[1:])
        _mix(b, [picture[i : i + m * rows - m + 1 : m] for i in range(size)], half.unbind(0))
        taken = picture.new_empty(size, size, rows, across, picture.shape[2])
        _mix(b, [half[:, :, j : j + m * across - m + 1 : m] for j in range(size)], taken.unbind(1))

        products = torch.bmm(taken.view(size * size, rows * across, -1), self.filters)
        products = products.view(size, size, rows, across, outputs)
        if self.conv.bias is not None:
            products[1, 1] += self.conv.bias  # the one product that is part of every output, once

        half = picture.new_empty(m, size, rows, across, outputs)
        _mix(a, products.unbind(0), half.unbind(0))
        _mix(a, half.unbind(1), target.permute(3, 1, 0, 2, 4).unbind(0))


def _mix(matrix: Matrix, parts: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    """targets = matrix · parts."""
    for row, target in zip(matrix, targets, strict=True):
        terms = sorted(compress(zip(row, parts, strict=True), row), key=lambda term: term[0] != 1)
        (_, first), (factor, second), *others = terms
        torch.add(first, second, alpha=factor, out=target)
        for factor, part in others:
            target.add_(part, alpha=factor)


def use_winograd(model: nn.Module) -> int:
    """Replace the convolutions in `model` that gain from it and return their number.

    The model can no longer be trained or saved.
    """
    chosen = [name for name, module in model.named_modules() if is_worthwhile(module)]
    for name in chosen:
        conv = model.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        model.set_submodule(name, WinogradConv2d(conv))
    return len(chosen)


def is_worthwhile(module: nn.Module) -> bool:
    """Whether F(m×m, 3×3) can compute this convolution, and it is wide enough to gain on large maps."""
    if type(module) is not nn.Conv2d or module.weight.dtype not in FILTERINGS:
        return False
    fewest = FILTERINGS[module.weight.dtype].channels
    return (
        min(module.in_channels, module.out_channels) >= fewest
        and (module.kernel_size, module.stride, module.dilation) == ((3, 3), (1, 1), (1, 1))
        and (module.padding, module.padding_mode, module.groups) == ((1, 1), "zeros", 1)
    )
