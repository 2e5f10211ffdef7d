"""The ONNX Runtime backend: `.onnx` files on a CPU, or on NVIDIA GPUs with onnxruntime-gpu."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcos_cli.data.geometry import Pixels
from fcos_cli.errors import FcosError, ModelError, UsageError, one_line
from fcos_cli.hardware import allowed_cores
from fcos_cli.runtime.exported import InputLimits, Inputs, Outputs, check_score, run_in_batches
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import CONVERGED, INPUT, OUTPUTS, SIZES
from fcos_cli.runtime.headers import read_header
from fcos_cli.runtime.results import RawDetections

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
NAMES = {CPU: "cpu", CUDA: "cuda", TENSORRT: "tensorrt"}

GPU_PACKAGE = "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
"""Both packages have the same files: with both, the one that was installed last is used."""

Provider = tuple[str, dict[str, str]]


class OnnxRuntimeDetector:
    """Runs an exported graph. Created by `open`.

    precision: of the file. device: what actually runs it: `cpu`, `cuda:N` or `tensorrt:N`.
    """

    backend = "onnxruntime"

    def __init__(self, session: Any, facts: Facts, *, path: Path, name: str, device: str, score: float | None) -> None:
        self.session, self.facts, self.path, self.name = session, facts, path, name
        self.device, self.score = device, score
        self.precision = facts.precision
        self.outputs = [output.name for output in session.get_outputs()]
        inputs = {value.name: value.shape for value in session.get_inputs()}
        if INPUT not in inputs or not set(inputs) <= {INPUT, SIZES} or not set(OUTPUTS) <= set(self.outputs):
            raise ModelError(
                f"the graph maps {', '.join(inputs)} to {', '.join(self.outputs)}, not {INPUT} to {', '.join(OUTPUTS)}",
                where=path,
                remedy="only models that `fcos export` wrote can be run",
            )
        self.inputs = list(inputs)
        self.outputs = [value for value in self.outputs if value in (*OUTPUTS, CONVERGED)]
        batch, _, height, width = (value if isinstance(value, int) else None for value in inputs[INPUT])
        self.limits = InputLimits.of_shape(batch, height, width)

    @classmethod
    def open(
        cls, path: Path, *, name: str, score: float | None = None, device: str = "auto", threads: int | None = None
    ) -> OnnxRuntimeDetector:
        """Open an exported model.

        score: minimum score to return (default: the file's own). device: `auto` (CUDA if this ONNX Runtime has it, else
        the CPU), `cpu`, `cuda`, `cuda:1` …, or `tensorrt` (the TensorRT provider, with CUDA or the CPU for the rest).
        threads: CPU threads, by default all available to the process. Raises UsageError, ModelError, FcosError.
        """
        facts = read_header(path).facts
        check_score(score, facts, path)
        runtime = _import()
        attempts = providers(device, runtime.get_available_providers(), one_size=facts.resize.mode == "letterbox")
        if attempts[0][0][0] != CPU:
            _preload(runtime, said=device != "auto")
        session = _session(runtime, path, attempts, threads=threads)
        first = session.get_providers()[0]
        wanted, options = attempts[0][0]
        if device != "auto" and first != wanted:
            raise UsageError(
                f"device {device!r} is not available: ONNX Runtime fell back to {NAMES.get(first, first)}",
                remedy="check CUDA's libraries (and TensorRT's), or use --device cpu",
            )
        number = "" if first == CPU else f":{options.get('device_id', 0)}"
        return cls(session, facts, path=path, name=name, device=NAMES.get(first, first) + number, score=score)

    def __call__(self, images: Pixels, sizes: npt.NDArray[np.int64] | None = None) -> RawDetections:
        return run_in_batches(images, sizes, self._run, limits=self.limits, score=self.score, where=self.path)

    def _run(self, given: Inputs) -> Outputs:
        feed = {name: given[name] for name in self.inputs}
        try:
            return dict(zip(self.outputs, self.session.run(self.outputs, feed), strict=True))
        except Exception as error:  # its exceptions have no common base class
            raise FcosError(f"ONNX Runtime failed ({one_line(error)})", where=self.path) from error


def providers(device: str, available: list[str], *, one_size: bool = True) -> list[list[Provider]]:
    """Return the lists of providers to try in turn for `device`, each in order of preference.

    one_size: whether all images have the same size. Raises UsageError if the device is unknown or not available in this
    build of ONNX Runtime.
    """
    kind, _, number = device.partition(":")
    cpu: Provider = (CPU, {})
    # TensorFloat-32 would round the convolutions' inputs to 10 bits: fp32 means fp32
    cuda: Provider = (CUDA, {"device_id": number or "0", "use_tf32": "0"})
    if not one_size:  # by default it times all algorithms again for every new size
        cuda[1]["cudnn_conv_algo_search"] = "HEURISTIC"
    if device == "auto":
        return [[cuda, cpu], [cpu]] if CUDA in available else [[cpu]]
    if device == "cpu":
        return [[cpu]]
    wanted = {"cuda": CUDA, "tensorrt": TENSORRT}.get(kind)
    if wanted not in available or not (number or "0").isdecimal():
        here = ", ".join(NAMES[provider] for provider in available if provider in NAMES)
        raise UsageError(
            f"device {device!r} is not available in this ONNX Runtime, which has: {here}",
            remedy="--device cpu" + ("" if wanted in (None, *available) else f", or {GPU_PACKAGE}"),
        )
    below = [cuda, cpu] if CUDA in available else [cpu]
    return [below if wanted == CUDA else [(TENSORRT, {"device_id": number or "0"}), *below]]


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise FcosError(
            "ONNX Runtime is not installed", remedy="pip install onnxruntime (or onnxruntime-gpu)"
        ) from error
    onnxruntime.set_default_logger_severity(3)  # errors only; its warnings are about devices that are not used
    return onnxruntime


def _preload(runtime: Any, *, said: bool) -> None:
    """Load CUDA and cuDNN from NVIDIA's packages, which are not found otherwise unless torch was imported before.

    said: whether to print which libraries are missing.
    """
    if hasattr(runtime, "preload_dlls"):  # from version 1.21
        with redirect_stdout(sys.stderr if said else io.StringIO()):  # it prints to stdout, which is for data
            runtime.preload_dlls()


def _session(runtime: Any, path: Path, attempts: list[list[Provider]], *, threads: int | None) -> Any:
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # failures are raised, so they need not be logged too
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads or allowed_threads()
    # threads spin while an image is processed, for speed, and sleep between images
    options.add_session_config_entry("session.force_spinning_stop", "1")
    for attempt in attempts:
        try:
            # without enable_fallback=0 it prints to stdout, which is for data
            return runtime.InferenceSession(str(path), options, providers=attempt, enable_fallback=0)
        except Exception as error:  # its exceptions have no common base class
            if attempt is attempts[-1]:
                on_gpu = attempt[0][0] != CPU
                raise ModelError(
                    f"ONNX Runtime cannot load this model ({one_line(error)})",
                    where=path,
                    remedy=("use --device cpu, " if on_gpu else "")
                    + "copy the file again, or export the model again with this version",
                ) from error
    raise AssertionError("no attempt")


def allowed_threads() -> int:
    """Threads of a session: 0, which is ONNX Runtime's default of all physical cores, pinned, unless the process is
    limited to some cores.
    """
    return 0 if allowed_cores() == os.cpu_count() else allowed_cores()
