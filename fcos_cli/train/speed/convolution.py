"""A convolution for training on a CPU whose three passes each run in the fastest of several equivalent ways.

oneDNN has no fast bfloat16 kernels for some gradients, above all those of depthwise convolutions with a stride or with
kernels larger than 3×3, and falls back to code that is up to fifty times slower. The same pass is fast in float32, or
as several passes with 3×3 kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn

from fcos_cli.model.optimize.fuse import CONVOLUTIONS

Method = Literal["default", "fp32", "fp32-nchw", "nchw", "split"]
"""How one pass is computed. default: in autocast's dtype, channels last. fp32: in float32. nchw: channels first.
split: the gradient of a large depthwise kernel, 3×3 weights at a time."""


class Plan(NamedTuple):
    """The method of each pass: forward, gradient of the input, gradient of the weights."""

    forward: Method = "default"
    input_grad: Method = "default"
    weight_grad: Method = "default"


class Geometry(NamedTuple):
    """Arguments of a convolution besides its tensors."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, *self)

    def gradients(self, grad: Tensor, x: Tensor, weight: Tensor, *, of_input: bool) -> Tensor:
        """The gradient of the input, or else of the weights."""
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
            grad, x, weight, None, self.stride, self.padding, self.dilation, False, (0, 0), self.groups,
            [of_input, not of_input, False],
        )  # fmt: skip
        return found[0] if of_input else found[1]


class TunedConv2d(nn.Conv2d):
    """An `nn.Conv2d` or timm's `Conv2dSame` that trains by a plan. Its state dict is that of the original.

    plans: by (height, width) of the input, before padding; other sizes use the default. norm: a frozen BatchNorm that
    directly follows, applied by scaling the weights (see `folding`).
    """

    plans: dict[tuple[int, int], Plan]
    same: bool
    scale: Tensor | None
    shift: Tensor | None

    @classmethod
    def wrap(cls, conv: nn.Conv2d) -> TunedConv2d:
        """A tuned convolution that shares the parameters of `conv`."""
        tuned = cls.__new__(cls)
        tuned.__dict__.update(conv.__dict__)
        tuned.plans, tuned.same = {}, isinstance(conv, Conv2dSame)
        tuned.scale = tuned.shift = None
        return tuned

    @property
    def geometry(self) -> Geometry:
        stride, padding, dilation = (_pair(value) for value in (self.stride, self.padding, self.dilation))
        return Geometry(stride, padding, dilation, self.groups)

    def pad(self, x: Tensor) -> Tensor:
        """The input with the zeros that timm's `Conv2dSame` adds by itself."""
        if not self.same:
            return x
        padded: Tensor = pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation))
        return padded

    def forward(self, x: Tensor) -> Tensor:
        plan = self.plans.get((x.shape[-2], x.shape[-1]), Plan())
        x = self.pad(x)
        if x.shape[-1] == 1 and self.geometry.stride != (1, 1):
            plan = plan._replace(weight_grad="fp32")  # see `guard_narrow_maps`
        weight, bias = self.weight, self.bias
        if self.training and self.scale is not None and self.shift is not None:
            weight = weight * self.scale
            bias = self.shift if bias is None else self.shift + bias * self.scale.flatten()
        if plan == Plan() or not torch.is_grad_enabled():
            return self.geometry.run(x, weight, bias)
        result: Tensor = _Convolution.apply(x, weight, bias, self.geometry, plan)
        return result


def guard_narrow_maps(model: nn.Module) -> None:
    """Wrap every strided convolution of `model` in a TunedConv2d, which is safe for maps one cell wide.

    oneDNN's bfloat16 gradient of the weights of such a convolution is uninitialized memory (seen with oneDNN 3.12):
    infinite, or finite and huge, and then clipping wipes out all other gradients. An input of 64 px has such maps.
    """
    for name, layer in list(model.named_modules()):
        if type(layer) in CONVOLUTIONS and isinstance(layer, nn.Conv2d) and _pair(layer.stride) != (1, 1):
            model.set_submodule(name, TunedConv2d.wrap(layer))


class _Convolution(torch.autograd.Function):
    """Convolution whose passes follow a plan. The result has autocast's dtype, the gradients those of their tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, plan: Plan) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        x = x.to(dtype)
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.plan, ctx.has_bias = geometry, plan, bias is not None
        with torch.autocast(kind, enabled=False):
            return forward_pass(x, weight, bias, geometry, plan.forward)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        geometry, plan = ctx.geometry, ctx.plan
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        of_x = input_gradient(grad, x, weight, geometry, plan.input_grad) if need_x else None
        of_weight = weight_gradient(grad, x, weight, geometry, plan.weight_grad) if need_weight else None
        of_bias = grad.sum((0, 2, 3), dtype=torch.float32) if ctx.has_bias and need_bias else None
        return of_x, of_weight, of_bias, None, None


def forward_pass(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, method: Method) -> Tensor:
    """Convolve `x` [B, C, H, W] by a method. Returns the dtype of `x`, channels last."""
    inputs, kernel = _convert(method, x, weight)
    result = geometry.run(inputs, kernel, None if bias is None else bias.to(inputs.dtype))
    return _restore(result, x.dtype)


def input_gradient(grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, method: Method) -> Tensor:
    """Gradient of the input from `grad`, that of the output, by a method. Returns the dtype of `x`, channels last."""
    dtype, layout = _format(method, x.dtype)
    kernel, out = (tensor.to(dtype).contiguous(memory_format=layout) for tensor in (weight, grad))
    inputs = torch.empty_like(x, dtype=dtype, memory_format=layout)  # only its shape counts
    return _restore(geometry.gradients(out, inputs, kernel, of_input=True), x.dtype)


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, method: Method) -> Tensor:
    """Gradient of the weights from `grad`, that of the output, by a method. Returns the dtype of `weight`."""
    if method == "split":
        return _split_weight_gradient(grad.to(x.dtype), x, weight, geometry)
    inputs, kernel, out = _convert(method, x, weight, grad)
    return geometry.gradients(out, inputs, kernel, of_input=False).to(weight.dtype)


def can_split(weight: Sequence[int], geometry: Geometry) -> bool:
    """Whether the gradient of weights of this shape can be computed 3×3 at a time: depthwise kernels, 4×4 or larger."""
    return weight[1] == 1 and geometry.groups > 1 and geometry.dilation == (1, 1) and min(weight[2:]) > 3


def _split_weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Each block of 3×3 weights has the gradient of a 3×3 convolution of a shifted input. Blocks may overlap."""
    rows, columns = weight.shape[2:]
    height, width = grad.shape[2:]
    (down, across), (top, left) = geometry.stride, geometry.padding
    padded = F.pad(x, (left, left, top, top))
    block = Geometry(geometry.stride, (0, 0), (1, 1), geometry.groups)
    kernel = weight.new_empty((len(weight), 1, 3, 3), dtype=x.dtype)
    result = torch.empty_like(weight)
    for row, column in product(_block_starts(rows), _block_starts(columns)):
        shifted = padded[:, :, row : row + down * (height - 1) + 3, column : column + across * (width - 1) + 3]
        shifted = shifted.contiguous(memory_format=torch.channels_last)
        result[:, :, row : row + 3, column : column + 3] = block.gradients(grad, shifted, kernel, of_input=False)
    return result


def _block_starts(size: int) -> list[int]:
    """Offsets of blocks of 3 that cover `size`: 5 → 0, 2; 7 → 0, 3, 4."""
    return [*range(0, size - 3, 3 if size > 5 else 2), size - 3]


def _convert(method: Method, x: Tensor, *others: Tensor) -> list[Tensor]:
    dtype, layout = _format(method, x.dtype)
    return [tensor.to(dtype).contiguous(memory_format=layout) for tensor in (x, *others)]


def _format(method: Method, dtype: torch.dtype) -> tuple[torch.dtype, torch.memory_format]:
    layout = torch.contiguous_format if method.endswith("nchw") else torch.channels_last
    return torch.float32 if method.startswith("fp32") else dtype, layout


def _restore(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype).contiguous(memory_format=torch.channels_last)


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    return int(first), int(second)
