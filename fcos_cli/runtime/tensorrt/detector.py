"""The TensorRT backend: `.engine` files of TensorRT 10 and 11 and of TensorRT-RTX, on an NVIDIA GPU.

Everything known about an engine before it is loaded is checked first, from the JSON file next to it, because TensorRT's
own errors for a mismatch are hard to act on. torch manages the GPU's memory.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fcos_cli.data.geometry import Pixels
from fcos_cli.errors import ModelError
from fcos_cli.runtime.exported import InputLimits, Inputs, Outputs, check_score, run_in_batches
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import CONVERGED, OUTPUTS
from fcos_cli.runtime.results import RawDetections
from fcos_cli.runtime.tensorrt.compatibility import check_gpu, check_version
from fcos_cli.runtime.tensorrt.engine import LoadedEngine, load_engine, read_engine_layers
from fcos_cli.runtime.tensorrt.package import (
    find_gpu,
    find_package,
)
from fcos_cli.runtime.tensorrt.sidecar import EngineRecord, read_sidecar


class TensorRtDetector:
    """Runs an engine. Created by `open`. Not thread-safe: its memory is reused between calls.

    precision: of most layers with weights, as read back from the engine if possible. device: `cuda:N`.
    """

    backend = "tensorrt"

    def __init__(
        self, loaded: LoadedEngine, facts: Facts, record: EngineRecord, *, path: Path, name: str, score: float | None
    ) -> None:
        self.facts, self.record, self.path, self.name, self.score = facts, record, path, name, score
        self.precision, self.device = record.precision_used, str(loaded.gpu.device)
        self._loaded = loaded
        low, high = record.min, record.max
        fixed = {
            side: getattr(low, side) if getattr(low, side) == getattr(high, side) else None
            for side in ("height", "width")
        }
        self.limits = InputLimits(low.batch, high.batch, **fixed)

    @classmethod
    def open(cls, path: Path, *, name: str, score: float | None = None, device: str = "auto") -> TensorRtDetector:
        """Open an engine.

        score: minimum score to return (default: the file's own). device: `auto`, `cuda` or `cuda:N`. Raises UsageError,
        MissingExtra if TensorRT is not installed, and ModelError with a remedy if this machine cannot run the engine.
        """
        facts, record = read_sidecar(path)
        check_score(score, facts, path)
        gpu = find_gpu(device, flavour=record.flavour)  # report an invalid --device first
        package = find_package(record.flavour)
        check_version(record, package, path)
        if gpu is None:
            raise ModelError(
                "an engine needs an NVIDIA GPU, and torch finds none",
                where=path,
                remedy="use the model's .onnx file",
            )
        check_gpu(record, gpu, path)
        plan = path.read_bytes()
        if hashlib.sha256(plan).hexdigest() != record.engine_sha256:
            raise ModelError(
                "the .json file next to this engine belongs to another one, or the engine is damaged",
                where=path,
                remedy="copy both files again, or export the engine again",
            )
        loaded = load_engine(plan, package, gpu, where=path)
        return cls(loaded, facts, _read_now(record, loaded), path=path, name=name, score=score)

    def __call__(self, images: Pixels, sizes: npt.NDArray[np.int64] | None = None) -> RawDetections:
        self._check_size(images)
        return run_in_batches(images, sizes, self._run, limits=self.limits, score=self.score, where=self.path)

    def _run(self, given: Inputs) -> Outputs:
        found = self._loaded.run(given, where=self.path)
        return {name: found[name] for name in (*OUTPUTS, CONVERGED) if name in found}

    def _check_size(self, images: Pixels) -> None:
        low, high = self.record.min, self.record.max
        height, width = images.shape[2:]
        if not (low.height <= height <= high.height and low.width <= width <= high.width):
            raise ModelError(
                f"the engine takes images of {low.height} to {high.height} x {low.width} to {high.width} pixels "
                f"(height x width), not {height} x {width}",
                where=self.path,
                remedy="export it again with a profile that includes this size",
            )


def _read_now(record: EngineRecord, loaded: LoadedEngine) -> EngineRecord:
    """Add the precision of the layers to `record` if the machine that built the engine had no GPU to read it."""
    if record.body is not None:
        return record
    try:
        layers = read_engine_layers(loaded)
    except ValueError as error:
        return replace(record, unread=str(error))
    return replace(record, layers=layers.all, body=layers.body or None, unread=None)
