"""Open any model: from a name or path to a detector. The only place that knows which backend runs which file."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Literal, get_args

from fcos_cli.errors import ModelError, UsageError
from fcos_cli.extras import require_train
from fcos_cli.resources import ASSETS
from fcos_cli.runtime.detector import Adjustable, Detector
from fcos_cli.runtime.exported import check_limits

Backend = Literal["pytorch", "onnxruntime", "openvino", "tensorrt"]

BACKENDS: dict[str, tuple[Backend, ...]] = {
    ".safetensors": ("pytorch",),
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".engine": ("tensorrt",),
}
"""Suffix of a model file → the backends that can run it, the default first."""

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


def default_weights() -> Path:
    """The bundled weights: what `default` means for training, export and PyTorch."""
    return ASSETS / "default.safetensors"


def find_artifact(model: str | Path, *, backend: Backend | None = None, device: str = "auto") -> Path:
    """Resolve a model argument to a file: a path, a run folder (its best weights), `default` or `coco`.

    `default` is default.onnx, the exported form of the bundled weights, which starts much faster than PyTorch. It is
    `default_weights()` if PyTorch is requested, by backend or by `cuda` without a backend. (`auto` does not look for
    torch's GPUs: that would take longer than the prediction.) `coco` is torchvision's published FCOS, which is
    downloaded, converted and cached on first use. Raises ModelError naming what is there instead, and MissingExtra for
    `coco` without the extra `train`.
    """
    if str(model) == "default":
        exported = ASSETS / "default.onnx"
        if backend == "pytorch" or (backend is None and (device.startswith("cuda") or not exported.is_file())):
            return default_weights()
        return exported
    if str(model) == "coco":
        require_train("the model `coco`")
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
        remedy = f"name a run folder, or a file: {', '.join(BACKENDS)}"
        if near := _nearest(path):
            remedy = f"did you mean {near}? Or {remedy}"
        raise ModelError("there is no such model", where=path, remedy=remedy)
    return path


def _nearest(path: Path) -> Path | str | None:
    """What may have been meant by a path that does not exist: a model's name, or something beside it."""
    try:
        beside = list(path.parent.iterdir())
    except OSError:  # absent, or not ours to read
        beside = []
    there = {entry.name: entry for entry in beside if entry.is_dir() or entry.suffix.lower() in BACKENDS}
    names = [*there, *(("default", "coco") if path.name == str(path) else ())]
    return next((there.get(name, name) for name in get_close_matches(path.name, names, n=1, cutoff=0.75)), None)


def model_file(model: str | Path, *, backend: str | None = None, device: str = "auto") -> Path:
    """The file that `open_detector` opens for these arguments. Raises UsageError, ModelError, MissingExtra."""
    return find_artifact(model, backend=_known_backend(backend), device=device)


def open_detector(
    model: str | Path = "default",
    *,
    score: float | None = None,
    iou: float | None = None,
    max_detections: int | None = None,
    device: str = "auto",
    backend: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
) -> Detector:
    """Open a detector from a file with a suffix in BACKENDS, a run folder, or a name (`default`, `coco`).

    score: minimum score to return. Default: the artifact's own candidate threshold; an exported model cannot go below
    it. iou: threshold of NMS. max_detections: number of detections per image that must be possible, which is not a
    limit. Both are fixed inside an exported model, which cannot exceed them. device: `auto`, `cpu`, or a name of the
    backend's devices. backend: one that can run the file; default: the first. precision: default: as stored; OpenVINO
    can run unquantized models in `bf16`, PyTorch weights in `bf16` and on a GPU in `fp16`. threads: CPU threads,
    default all; for PyTorch the setting applies to the whole process. Only `.safetensors` files import torch. Raises
    UsageError, ModelError, MissingExtra.
    """
    if score is not None and not 0 <= score <= 1:
        raise UsageError(f"score must be between 0 and 1, not {score:g}", where="--score")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}", where="--threads")
    if precision is not None and precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}", where="--precision", remedy=_one_of(PRECISIONS))
    asked = _known_backend(backend)
    path = find_artifact(model, backend=asked, device=device)
    chosen = _choose(path, asked)
    if chosen == "pytorch":
        _require_pytorch(path, asked)
    detector = _open(path, chosen, str(model), score=score, device=device, precision=precision, threads=threads)
    if isinstance(detector, Adjustable):
        detector.set_limits(iou=iou, max_detections=max_detections)
    elif iou is not None or max_detections is not None:
        check_limits(iou, max_detections, detector.facts, path)
    if (
        precision not in (None, detector.precision) and detector.precision != "mixed"
    ):  # mixed: int8 with other layers in the requested precision
        raise UsageError(
            f"{detector.backend} cannot run this {detector.precision} model in {precision}",
            where=path,
            remedy="omit --precision, export the model in that precision, or for bf16 use the .safetensors "
            "(for `default`: --backend pytorch)",
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

    try:
        return PyTorchDetector.from_artifact(
            load(path), name=name, score=score, device=device, precision=precision, threads=threads
        )
    except ModelError as error:  # building a network does not know the file
        place = error.where if error.where and str(path) in error.where else f"{path}: {error.where or 'model'}"
        raise ModelError(error.what, where=place, remedy=error.remedy) from error


def _require_pytorch(path: Path, asked: Backend | None) -> None:
    """Raise MissingExtra if PyTorch cannot be used here, naming the export beside the weights if there is one."""
    exported, instead = path.with_suffix(".onnx"), None
    if exported.is_file():
        bundled = asked and path == default_weights()
        instead = "omit --backend" if bundled else f"use {exported}" + (" without --backend" if asked else "")
    require_train("--backend pytorch" if asked else f"a {path.suffix} file", where=path, instead=instead)


def _known_backend(backend: str | None) -> Backend | None:
    for known in get_args(Backend):
        if backend == known:
            return known  # type: ignore[no-any-return]
    if backend is None:
        return None
    raise UsageError(f"unknown backend {backend!r}", where="--backend", remedy=_one_of(get_args(Backend)))


def _choose(path: Path, asked: Backend | None) -> Backend:
    """Choose the backend. Raises ModelError for an unknown file type, UsageError for a backend that cannot run it."""
    able = BACKENDS.get(path.suffix.lower())
    if able is None:
        raise ModelError(
            f"{path.suffix or 'a file without a suffix'} is not a supported model format",
            where=path,
            remedy=f"use a run folder or one of {', '.join(BACKENDS)}; fcos convert reads other projects' checkpoints",
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
