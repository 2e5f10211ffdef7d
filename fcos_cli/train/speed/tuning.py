"""Choose how each convolution and GroupNorm of a network is computed in training, by measuring on this machine.

Only for CPUs; GPU libraries have good kernels for all of these passes. The choice belongs to the state of a run, since
methods round differently.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fcos_cli.model.fcos import FCOS
from fcos_cli.model.head import GroupNorm
from fcos_cli.model.optimize.fuse import CONVOLUTIONS
from fcos_cli.train.speed.convolution import (
    Geometry,
    Method,
    Plan,
    TunedConv2d,
    can_split,
    forward_pass,
    input_gradient,
    weight_gradient,
)
from fcos_cli.train.speed.group_norm import TunedGroupNorm, group_norm

TUNABLE = (*CONVOLUTIONS, TunedConv2d, GroupNorm)

BUDGET = 2.0
"""Seconds for trying methods. The layers that take the most time come first."""

CONFIRMING = 1.0
"""Seconds for timing again, alternately, the default and the method that beat it: what else runs on the machine may
have slowed one of them down."""

REPEATS = 2
"""Timed calls of each method, after one that is not timed."""

METHODS: tuple[Method, ...] = ("fp32", "split", "nchw", "fp32-nchw")
"""In the order in which they are tried, the most promising first."""

MIN_GAIN = 1e-4
"""Seconds that a method has to save in one call; less is noise."""

HOPELESS = 2.0
"""A method whose first call takes more than this times the default is not tried again."""

WORTHWHILE: dict[Method, float] = {"fp32": 0.85, "split": 0.85, "nchw": 0.7, "fp32-nchw": 0.7}
"""A method replaces the default only if it takes less than this share of its time. Another layout has to gain more: the
layers around it may not find its output in their caches."""


class ConvCase(NamedTuple):
    """A distinct convolution: everything that its time depends on.

    input: [B, C, H, W], padded if the convolution pads its input itself. needs_input_grad, needs_weight_grad: False for
    layers that are not trained, and for the first one.
    """

    input: tuple[int, ...]
    weight: tuple[int, ...]
    geometry: Geometry
    needs_input_grad: bool
    needs_weight_grad: bool

    def passes(self, dtype: torch.dtype, share: float) -> dict[str, Pass]:
        """What to time, on a share of the batch, in the order of `Plan`."""
        x = _example(self.input, dtype, share)
        weight = _example(self.weight, torch.float32)
        grad = torch.rand_like(forward_pass(x, weight, None, self.geometry, "default"))
        methods: tuple[Method, ...] = ("nchw",) if dtype == torch.float32 else ("nchw", "fp32", "fp32-nchw")
        last: tuple[Method, ...] = ("split",) if can_split(self.weight, self.geometry) else ()
        return {
            "forward": Pass(methods, lambda method: forward_pass(x, weight, None, self.geometry, method)),
            "input_grad": Pass(
                methods if self.needs_input_grad else (),
                lambda method: input_gradient(grad, x, weight, self.geometry, method),
            ),
            "weight_grad": Pass(
                (*methods, *last) if self.needs_weight_grad else (),
                lambda method: weight_gradient(grad, x, weight, self.geometry, method),
            ),
        }


class NormCase(NamedTuple):
    """A distinct GroupNorm; its forward and backward pass are timed together. input: [B, C, H, W]."""

    input: tuple[int, ...]
    groups: int

    def passes(self, dtype: torch.dtype, share: float) -> dict[str, Pass]:
        """What to time, on a share of the batch."""
        batch = max(2, round(self.input[0] * share))  # GroupNorm refuses a single value per group
        x = _example((batch, *self.input[1:]), dtype).requires_grad_()
        weight, bias = (torch.rand(self.input[1], requires_grad=True) for _ in range(2))
        grad = torch.rand_like(x, requires_grad=False)

        def run(method: Method) -> object:
            result = group_norm(x, self.groups, weight, bias, 1e-5, method)
            return torch.autograd.grad(result, (x, weight, bias), grad)

        return {"both": Pass(("nchw",), run)}


class Pass(NamedTuple):
    """One pass of a layer. methods: those to try besides the default. run: computes it by a method."""

    methods: tuple[Method, ...]
    run: Callable[[Method], object]


class Call(NamedTuple):
    """One call of a layer in a forward pass. size: "HEIGHTxWIDTH" of its input."""

    name: str
    size: str
    case: ConvCase | NormCase


@dataclass
class Tuning:
    """The plans of a network, and what they save.

    plans: by name of the layer and "HEIGHTxWIDTH" of its input, the method of each pass; only where one of them is not
    the default. default_ms, tuned_ms: time that one step spends in all measured layers, before and after.
    """

    plans: dict[str, dict[str, tuple[Method, ...]]] = field(default_factory=dict)
    default_ms: float = 0.0
    tuned_ms: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As JSON values; `from_json` is the inverse."""
        plans = {name: {size: list(plan) for size, plan in sizes.items()} for name, sizes in self.plans.items()}
        return {"plans": plans, "default_ms": self.default_ms, "tuned_ms": self.tuned_ms}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Tuning:
        plans = {name: {size: tuple(plan) for size, plan in sizes.items()} for name, sizes in content["plans"].items()}
        return cls(plans, content["default_ms"], content["tuned_ms"])

    def describe(self) -> str:
        """One line, empty if every layer stays as it is."""
        if not self.plans:
            return ""
        passes = [method for sizes in self.plans.values() for plan in sizes.values() for method in plan]
        counts = {method: passes.count(method) for method in dict.fromkeys(passes) if method != "default"}
        methods = ", ".join(f"{count} in {NAMES[method]}" for method, count in counts.items())
        saved = self.default_ms - self.tuned_ms
        return f"tuned {len(self.plans)} layers for this CPU ({methods}): {saved:.0f} ms less per step"


NAMES = {"fp32": "float32", "fp32-nchw": "float32 channels first", "nchw": "channels first", "split": "3×3 parts"}


def tune(model: FCOS, *, batch: int, size: tuple[int, int], dtype: torch.dtype | None) -> Tuning:
    """Measure the layers of `model` on this CPU, for training on batches of `batch` inputs of (height, width).

    dtype: that of autocast; None for float32. The model is not changed; `apply_tuning` does that.
    """
    calls = record_calls(model, batch=batch, size=size)
    counts = Counter(call.case for call in calls)
    share = min(1.0, torch.get_num_threads() / batch)  # of the batch: enough to keep all threads busy
    with torch.random.fork_rng(devices=[]):
        timers = {case: LayerTimer(case.passes(dtype or torch.float32, share)) for case in counts}
    started = time.monotonic()
    by_cost = sorted(counts, key=lambda case: -counts[case] * timers[case].default_seconds)
    for method, case in product(METHODS, by_cost):
        if time.monotonic() - started < BUDGET:
            timers[case].try_method(method)
    for case in by_cost:
        if time.monotonic() - started < BUDGET + CONFIRMING:
            timers[case].confirm()
    tuning = Tuning()
    for call in calls:
        timer = timers[call.case]
        tuning.default_ms += 1000 * timer.default_seconds / share
        tuning.tuned_ms += 1000 * timer.best_seconds / share
        if set(timer.plan) != {"default"}:
            tuning.plans.setdefault(call.name, {})[call.size] = timer.plan
    return tuning


def apply_tuning(model: FCOS, tuning: Tuning) -> None:
    """Make the layers of `model` follow their plans in training, in place. Names and parameters stay the same."""
    for name, sizes in tuning.plans.items():
        layer = model.get_submodule(name)
        plans = {(int(size.split("x")[0]), int(size.split("x")[1])): plan for size, plan in sizes.items()}
        if isinstance(layer, nn.GroupNorm):
            norm = TunedGroupNorm.wrap(layer)
            norm.layouts = {size: method for size, (method,) in plans.items()}
            model.set_submodule(name, norm)
        else:
            assert isinstance(layer, nn.Conv2d)
            conv = layer if isinstance(layer, TunedConv2d) else TunedConv2d.wrap(layer)
            conv.plans = {size: Plan(*plan) for size, plan in plans.items()}
            model.set_submodule(name, conv)


def record_calls(model: FCOS, *, batch: int, size: tuple[int, int]) -> list[Call]:
    """Every call of a convolution or GroupNorm in one forward pass, in order. The model stays as it is."""
    calls: list[Call] = []

    def listen(name: str, layer: nn.Module) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
            calls.append(Call(name, f"{inputs[0].shape[2]}x{inputs[0].shape[3]}", _case(layer, inputs[0], batch)))

        return layer.register_forward_hook(hook)

    handles = [listen(name, module) for name, module in model.named_modules() if type(module) in TUNABLE]
    training = model.training
    try:
        model.eval()(torch.zeros(2, 3, *size))  # GroupNorm refuses a single value per group
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return calls


def _case(layer: nn.Module, x: Tensor, batch: int) -> ConvCase | NormCase:
    if isinstance(layer, nn.GroupNorm):
        return NormCase((batch, *x.shape[1:]), layer.num_groups)
    assert isinstance(layer, nn.Conv2d)
    conv = layer if isinstance(layer, TunedConv2d) else TunedConv2d.wrap(layer)
    shape, kernel = (batch, *conv.pad(x).shape[1:]), tuple(conv.weight.shape)
    return ConvCase(shape, kernel, conv.geometry, x.requires_grad, conv.weight.requires_grad)


class LayerTimer:
    """Times the passes of one layer: the default at once, other methods on request."""

    def __init__(self, passes: dict[str, Pass]) -> None:
        self.passes = passes
        self.times: dict[str, dict[Method, float]] = {name: {} for name in passes}
        for name, entry in passes.items():
            if entry.methods:
                self._time(name, "default")

    def try_method(self, method: Method) -> None:
        """Time the passes that have this method."""
        for name, entry in self.passes.items():
            if method in entry.methods:
                self._time(name, method)

    def confirm(self) -> None:
        """Time the default and the methods of the plan once more, alternately. The least time of each counts."""
        for (name, times), method in zip(self.times.items(), self.plan, strict=True):
            if method != "default":
                for chosen in ("default", method) * REPEATS:
                    times[chosen] = min(times[chosen], _timed(self.passes[name].run, chosen))

    def _time(self, name: str, method: Method) -> None:
        times, run = self.times[name], self.passes[name].run
        seconds = _timed(run, method)  # the first call also builds the kernels
        if method == "default" or seconds < HOPELESS * times["default"]:
            seconds = min(_timed(run, method) for _ in range(REPEATS))
        times[method] = seconds

    @property
    def plan(self) -> tuple[Method, ...]:
        """The fastest method of each pass; the default unless another is clearly faster."""
        return tuple(self._fastest(times) for times in self.times.values())

    @property
    def default_seconds(self) -> float:
        """Time of all passes by the default method."""
        return sum(times["default"] for times in self.times.values() if times)

    @property
    def best_seconds(self) -> float:
        """Time of all passes by the plan."""
        return sum(times[method] for method, times in zip(self.plan, self.times.values(), strict=True) if times)

    def _fastest(self, times: dict[Method, float]) -> Method:
        gains: dict[Method, float] = {
            method: seconds
            for method, seconds in times.items()
            if method != "default"
            and seconds < WORTHWHILE[method] * times["default"]
            and times["default"] - seconds > MIN_GAIN
        }
        return min(gains, key=lambda method: gains[method], default="default")


def _example(shape: tuple[int, ...], dtype: torch.dtype, share: float = 1.0) -> Tensor:
    batch, *sides = shape
    example = torch.rand(max(1, round(batch * share)), *sides)
    return example.to(dtype).contiguous(memory_format=torch.channels_last)


def _timed(run: Callable[[Method], object], method: Method) -> float:
    started = time.perf_counter()
    run(method)
    return time.perf_counter() - started
