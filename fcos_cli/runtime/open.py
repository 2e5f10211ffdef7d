"""Opens any model: from what a user types to a detector. The only place that knows which backend runs which file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from fcos_cli.errors import ModelError, UsageError
from fcos_cli.resources import ASSETS
from fcos_cli.runtime.detector import Detector

Backend = Literal["pytorch", "onnxruntime", "openvino", "tensorrt"]

BACKENDS: dict[str, tuple[Backend, ...]] = {
    ".safetensors": ("pytorch",),
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".engine": ("tensorrt",),
}
"""Suffix of a model file → what can run it, the usual one first."""

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


def default_weights() -> Path:
    """The weights that ship in the package: what `default` means to training and export, and to PyTorch."""
    return ASSETS / "default.safetensors"


def find_artifact(model: str | Path, *, backend: Backend | None = None, device: str = "auto") -> Path:
    """The file behind what a user calls a model: a file, a run folder (its best weights), `default` or `coco`.

    `default` is the exported form of the shipped weights, default.onnx, which starts in a fraction of PyTorch's time.
    It is `default_weights()` where PyTorch is asked for, by backend, or by `cuda` without naming a backend (`auto` does
    not look for torch's GPUs, since that would take longer than to answer). `coco` is torchvision's published FCOS,
    converted and cached; it is fetched when it is first named.
    Raises ModelError naming what is there instead.
    """
    if str(model) == "default":
        exported = ASSETS / "default.onnx"
        if backend == "pytorch" or (backend is None and (device.startswith("cuda") or not exported.is_file())):
            return default_weights()
        return exported
    if str(model) == "coco":
        from fcos_cli.convert.zoo import coco_weights

        return coco_weights()
    path = Path(model)
    if path.is_dir():
        for name in ("best.safetensors", "last.safetensors"):
            if (path / name).is_file():
                return path / name
        raise ModelError(
            "this folder holds neither best.safetensors nor last.safetensors",
            where=path,
            remedy="name a run folder that `fcos train` wrote, or a model file",
        )
    if not path.is_file():
        raise ModelError(
            "there is no such model", where=path, remedy=f"name a run folder, or a file: {', '.join(BACKENDS)}"
        )
    return path


def open_detector(
    model: str | Path = "default",
    *,
    score: float | None = None,
    device: str = "auto",
    backend: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
) -> Detector:
    """A detector from any artifact: a file of BACKENDS' suffixes, a run folder, or a name from the zoo (`default`).

    score: lowest score to return (default: the artifact's own candidate threshold; an exported model cannot go below
    it). device: `auto`, `cpu`, or as the backend names its devices. backend: what runs it, of those that can run the
    file; default the first. precision: None is the file's own; OpenVINO can compute in `bf16` what is not quantised,
    PyTorch weights in `bf16`, and on a GPU in `fp16`. threads: of the CPU (PyTorch's are the whole process's); default
    all. Nothing but a `.safetensors` imports torch.
    Raises UsageError, ModelError, MissingExtra.
    """
    if score is not None and not 0 <= score <= 1:
        raise UsageError(f"a score is a number from 0 to 1, not {score:g}", where="--score")
    if threads is not None and threads < 1:
        raise UsageError(f"there is no work for {threads} threads", where="--threads", remedy="use at least 1")
    if precision is not None and precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}", where="--precision", remedy=_one_of(PRECISIONS))
    asked = _known_backend(backend)
    path = find_artifact(model, backend=asked, device=device)
    detector = _open(
        path, _choose(path, asked), str(model), score=score, device=device, precision=precision, threads=threads
    )
    if precision not in (None, detector.precision) and detector.precision != "mixed":  # mixed: int8, the rest as asked
        raise UsageError(
            f"the precision {precision} cannot be had from a model of {detector.precision} by {detector.backend}",
            where=path,
            remedy="leave --precision out, export the model in that precision, or try --backend openvino",
        )
    return detector


def _open(
    path: Path,
    backend: Backend,
    name: str,
    *,
    score: float | None,
    device: str,
    precision: str | None,
    threads: int | None,
) -> Detector:
    if backend == "onnxruntime":
        from fcos_cli.runtime.onnxruntime import OnnxRuntimeDetector

        return OnnxRuntimeDetector.open(path, name=name, score=score, device=device, threads=threads)
    if backend == "openvino":
        from fcos_cli.runtime.openvino import OpenVinoDetector

        return OpenVinoDetector.open(path, name=name, score=score, device=device, precision=precision, threads=threads)
    if backend == "tensorrt":
        from fcos_cli.runtime.tensorrt.detector import TensorRtDetector

        return TensorRtDetector.open(path, name=name, score=score, device=device)
    from fcos_cli.model.artifact import load
    from fcos_cli.runtime.pytorch import PyTorchDetector

    return PyTorchDetector.from_artifact(
        load(path), name=name, score=score, device=device, precision=precision, threads=threads
    )


def _known_backend(backend: str | None) -> Backend | None:
    for known in get_args(Backend):
        if backend == known:
            return known  # type: ignore[no-any-return]
    if backend is None:
        return None
    raise UsageError(f"unknown backend {backend!r}", where="--backend", remedy=_one_of(get_args(Backend)))


def _choose(path: Path, asked: Backend | None) -> Backend:
    """What runs the file. Raises ModelError for an unknown kind of file, UsageError for a backend that cannot."""
    able = BACKENDS.get(path.suffix.lower())
    if able is None:
        raise ModelError(
            f"{path.suffix or 'a file without a suffix'} is no kind of model that can be run",
            where=path,
            remedy=f"use a run folder or one of {', '.join(BACKENDS)}; fcos convert makes one of a foreign checkpoint",
        )
    if asked is None:
        return able[0]
    if asked not in able:
        kinds = ", ".join(suffix for suffix, backends in BACKENDS.items() if asked in backends)
        raise UsageError(
            f"{asked} cannot run a {path.suffix} file",
            where=path,
            remedy=f"leave --backend out, or use --backend {' or '.join(able)}; {asked} runs {kinds}",
        )
    return asked


def _one_of(names: tuple[str, ...]) -> str:
    return f"use one of {', '.join(names)}"
