"""The OpenVINO backend: `.xml` (with its `.bin`) and `.onnx` files on CPUs and Intel GPUs."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcos_cli.data.geometry import Pixels
from fcos_cli.errors import FcosError, MissingExtra, ModelError, UsageError, one_line
from fcos_cli.runtime.exported import InputLimits, Inputs, Outputs, check_score, run_in_batches
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import CONVERGED, INPUT, OUTPUTS, SIZES
from fcos_cli.runtime.headers import read_header
from fcos_cli.runtime.results import RawDetections

TYPES = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
"""Our names of precisions → OpenVINO's names."""


class OpenVinoDetector:
    """Runs an exported graph. Created by `open`.

    precision: as reported by the compiled model; `int8` if the file is quantized, `mixed` if its other layers do not
    run in float32. device: `cpu`, `gpu`, `gpu.1` ….
    """

    backend = "openvino"

    def __init__(self, compiled: Any, facts: Facts, *, path: Path, name: str, device: str, score: float | None) -> None:
        self.facts, self.path, self.name, self.device, self.score = facts, path, name, device, score
        self.request = compiled.create_infer_request()
        inputs, outputs = _ports(compiled.inputs), _ports(compiled.outputs)
        self.inputs = [name for name in (INPUT, SIZES) if name in inputs]  # a port may have other names too
        if INPUT not in inputs or len(compiled.inputs) != len(self.inputs) or not set(OUTPUTS) <= set(outputs):
            raise ModelError(
                f"the graph maps {', '.join(inputs)} to {', '.join(outputs)}, not {INPUT} to {', '.join(OUTPUTS)}",
                where=path,
                remedy="only models that `fcos export` wrote can be run",
            )
        self.outputs = [output for output in (*OUTPUTS, CONVERGED) if output in outputs]
        shape = inputs[INPUT].get_partial_shape()
        batch, _, height, width = (None if size.is_dynamic else size.get_length() for size in shape)
        self.limits = InputLimits.of_shape(batch, height, width)
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        body = next((ours for ours, theirs in TYPES.items() if theirs == used), str(used))
        self.precision = body if facts.precision != "int8" else "int8" if body == "fp32" else "mixed"

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        name: str,
        score: float | None = None,
        device: str = "auto",
        precision: str | None = None,
        threads: int | None = None,
    ) -> OpenVinoDetector:
        """Open an exported model.

        score: minimum score to return (default: the file's own). device: `auto` (the CPU), `cpu`, `gpu`, `gpu.1` ….
        precision of the layers that are not quantized: `fp32` (default), or `bf16` and `fp16` if the device supports
        them. The default is explicit because OpenVINO would use bf16 on some CPUs, and results would differ between
        machines. threads: CPU threads, default all. Raises UsageError, ModelError, MissingExtra.
        """
        facts = read_header(path).facts
        check_score(score, facts, path)
        core = make_core()
        picked = pick_device(device, core.available_devices)
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _inference_type(core, picked, precision, facts, path),
        }
        if threads is not None and picked == "CPU":
            config["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            compiled = core.compile_model(core.read_model(path), picked, config)
            leave_signal_stack()
        except Exception as error:  # RuntimeError, and others from its plugins
            raise ModelError(
                f"OpenVINO cannot load this model ({one_line(error)})",
                where=path,
                remedy="copy the file again (an .xml with its .bin), or export the model again with this version",
            ) from error
        return cls(compiled, facts, path=path, name=name, device=picked.lower(), score=score)

    def __call__(self, images: Pixels, sizes: npt.NDArray[np.int64] | None = None) -> RawDetections:
        return run_in_batches(images, sizes, self._run, limits=self.limits, score=self.score, where=self.path)

    def _run(self, given: Inputs) -> Outputs:
        try:
            found = self.request.infer(
                {name: given[name] for name in self.inputs}, share_inputs=True, share_outputs=False
            )
            return {name: found[name] for name in self.outputs}
        except Exception as error:
            raise FcosError(f"OpenVINO failed ({one_line(error)})", where=self.path) from error


def pick_device(device: str, available: list[str]) -> str:
    """`auto`, `cpu`, `gpu`, `gpu:1`, `gpu.1` → OpenVINO's name of the device. Raises UsageError if it is missing."""
    wanted = "CPU" if device == "auto" else device.upper().replace(":", ".")
    known = {*available, *(name.partition(".")[0] for name in available)}
    if wanted not in known:
        raise UsageError(
            f"device {device!r} is not available in OpenVINO, which has: {', '.join(sorted(known)).lower()}",
            remedy="--device cpu",
        )
    return wanted


def _inference_type(core: Any, device: str, precision: str | None, facts: Facts, path: Path) -> str:
    """OpenVINO's name of the type to compute in. Raises UsageError if the device or the file does not support it."""
    if precision is None or precision == facts.precision == "int8":
        return TYPES["fp32"]
    if facts.winograd and precision != "fp32":
        raise UsageError(
            f"this file has Winograd convolutions, which are not accurate enough in {precision}",
            where=path,
            remedy="export it again with --no-winograd",
        )
    if precision not in TYPES or (precision == "fp32" and facts.precision == "int8"):
        raise UsageError(
            f"this {facts.precision} model cannot run in {precision}",
            where=path,
            remedy=f"export it again with --precision {precision}",
        )
    able = [ours for ours in TYPES if ours.upper() in core.get_property(device, "OPTIMIZATION_CAPABILITIES")]
    if precision not in able:
        raise UsageError(
            f"this {device} does not support {precision}", remedy=f"leave it out, or use one of {', '.join(able)}"
        )
    return TYPES[precision]


class _SignalStack(ctypes.Structure):
    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def leave_signal_stack() -> None:
    """Restore the default signal stack of this thread. Call it after each compilation of a model.

    OpenVINO's compiler installs an alternate stack and, when a model is released, restores what it found when that
    model was compiled. With two models, that can be freed memory of the first, and the next Ctrl-C or SIGTERM crashes.
    """
    if sys.platform == "linux":
        disabled = 2  # SS_DISABLE
        ctypes.CDLL(None).sigaltstack(ctypes.byref(_SignalStack(None, disabled, 0)), None)


def _ports(ports: Any) -> dict[str, Any]:
    return {name: port for port in ports for name in port.get_names()}


def make_core() -> Any:
    """OpenVINO's Core, with a rule for ONNX's DeformConv, which its ONNX reader does not know (2026.4).

    OpenVINO has the operation itself: models saved as .xml can be read without the rule. Raises MissingExtra if it is
    not installed.
    """
    try:
        import openvino
        from openvino.frontend.onnx import ConversionExtension
    except ImportError as error:
        raise MissingExtra("OpenVINO is not installed", extra="openvino") from error
    core = openvino.Core()
    core.add_extension(ConversionExtension("DeformConv", _deform_conv))
    return core


def _deform_conv(node: Any) -> list[Any]:
    from openvino import opset8

    pads = node.get_attribute("pads")
    images, weight, offset, bias, mask = (node.get_input(place) for place in range(5))
    moved = opset8.deformable_convolution(
        images,
        offset,
        weight,
        mask=mask,
        strides=node.get_attribute("strides"),
        pads_begin=pads[:2],
        pads_end=pads[2:],
        dilations=node.get_attribute("dilations"),
        group=node.get_attribute("group"),
        deformable_group=node.get_attribute("offset_group"),
        bilinear_interpolation_pad=True,  # taps that are partly outside are interpolated with zeros
    )
    return [opset8.add(moved, opset8.reshape(bias, [1, -1, 1, 1], False)).output(0)]
