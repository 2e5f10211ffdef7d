"""The Python interface: train, evaluate and export from a notebook or a program. `docs/python.md` has examples.

Each function does what the command of its name does, and raises the errors of `fcos_cli.errors` instead of ending the
program. Nothing is printed without `progress=True`, but `load` says what it downloads. Signal handlers are set only in
the main thread and while training, and random number generators are left as they were, so the functions may be called
from any thread.
"""

from __future__ import annotations

import time as clock
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fcos_cli.console import quiet
from fcos_cli.runtime.open import open_detector as load

if TYPE_CHECKING:
    from fcos_cli.evaluate.coco import CocoResult, Evaluator
    from fcos_cli.export.run import ExportResult
    from fcos_cli.parity.verdict import Parity
    from fcos_cli.runtime.detector import Detector
    from fcos_cli.train.start import Outcome

__all__ = ["TrainingResult", "evaluate", "export", "load", "resume", "train", "verify"]

Size = int | tuple[int, int]
"""Side of a square, or (height, width), in pixels of the network input."""


@dataclass(frozen=True)
class TrainingResult:
    """A training run that has ended.

    folder: of the run. weights: its best.safetensors; the last weights if val has no boxes. onnx: the verified export
    of the best weights; None if it was left out. metrics: COCO's 12 metrics of `weights` on val, 0…1, or -1 if they
    could not be measured. epoch: of the best weights, from 1; None without an AP.
    """

    folder: Path
    weights: Path
    onnx: Path | None
    metrics: dict[str, float]
    epoch: int | None


def train(
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    name: str | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    model: Literal["nano", "small", "medium"] | None = None,
    init: str | None = None,
    size: Size | None = None,
    tile: int | None = None,
    teacher: str | Path | None = None,
    epochs: int | None = None,
    time: str | float | None = None,
    patience: int | None = None,
    batch: int | Literal["auto"] | None = None,
    lr: float | None = None,
    device: str | None = None,
    workers: int | None = None,
    seed: int | None = None,
    export: bool | None = None,
    demo: bool = False,
    progress: bool = False,
) -> TrainingResult:
    """Train on the data set `data` as `fcos train` does, and return when the run has ended.

    out: run folder; default: runs/train/NAME. config: TOML file. settings: any setting by its dotted key, such as
    `{"train.repeat": 0.1}`. time: limit, `30m` or seconds. The others are the command's flags. Raises UsageError,
    DataError, FcosError, MissingExtra without the extra `train`, and in the main thread Interrupted after Ctrl-C.
    """
    from fcos_cli.extras import require_train

    require_train("train")
    started = clock.monotonic()
    from fcos_cli.train import start

    named: dict[str, Any] = {"init": init, "tile": tile, "epochs": epochs, "patience": patience, "batch": batch}
    named |= {"size": _pair(size), "lr": lr, "device": device, "workers": workers, "seed": seed, "export": export}
    named["teacher"] = None if teacher is None else str(teacher)
    with _output(progress=progress), _same_random_numbers():
        plan, folder = start.plan_new(
            None if data is None else Path(data),
            name=name,
            out=None if out is None else Path(out),
            file=None if config is None else Path(config),
            assignments=[],
            flags={**(settings or {}), **start.settings_of(**named)},
            time=time,
            network=model,
            demo=demo,
            choose_batch=batch == "auto",
        )
        return _result(start.start(plan, folder=folder, started=started))


def resume(
    folder: str | Path,
    *,
    epochs: int | None = None,
    time: str | float | None = None,
    device: str | None = None,
    workers: int | None = None,
    export: bool | None = None,
    progress: bool = False,
) -> TrainingResult:
    """Continue the run in `folder` as `fcos train --resume` does.

    epochs: in all. time: `2h` or seconds in all, or `+20m` more from now on. The others are the command's flags.
    """
    from fcos_cli.extras import require_train

    require_train("resume")
    started = clock.monotonic()
    from fcos_cli.train import start

    flags = start.settings_of(epochs=epochs, device=device, workers=workers, export=export)
    with _output(progress=progress), _same_random_numbers():
        return _result(start.resume(Path(folder), flags={**flags, "train.time": time}, started=started))


def evaluate(
    model: str | Path | Detector,
    data: str | Path,
    *,
    split: str | None = None,
    score: float | None = None,
    limit: int | None = None,
    tile: int | None = None,
    batch: int = 8,
    device: str = "auto",
    backend: str | None = None,
    precision: str | None = None,
    evaluator: Evaluator = "hotcoco",
    report: str | Path | None = None,
    save: str | Path | None = None,
    progress: bool = False,
) -> CocoResult:
    """The COCO metrics of a model on a split of `data`, in all (`metrics`) and of each class (`per_class`).

    model: anything that `load` opens, or what it returned; then score, device, backend and precision have no effect.
    report, save: HTML report and detections to write as well. The others are the flags of `fcos eval`. Raises
    UsageError, ModelError, DataError, MissingExtra.
    """
    from fcos_cli.data.tiling import Tiling
    from fcos_cli.errors import UsageError
    from fcos_cli.evaluate.run import check_evaluator, check_outputs, run_eval
    from fcos_cli.evaluate.split import read_split

    if limit is not None and limit < 1:
        raise UsageError(
            f"limit is {limit}, not the number of images to evaluate", remedy="use a number from 1, or None"
        )
    check_evaluator(evaluator)
    page, found = (None if path is None else Path(path) for path in (report, save))
    check_outputs(page, found, models=1)
    detector = model
    with _output(progress=progress):
        if isinstance(detector, str | Path):
            detector = load(detector, score=score, device=device, backend=backend, precision=precision)
        (result,) = run_eval(
            [detector],
            read_split(Path(data), [detector.facts], split=split),
            evaluator=evaluator,
            batch=batch,
            limit=limit,
            as_json=False,
            report=page,
            save=found,
            tiling=None if tile is None else Tiling(tile),
        )
    return result.result


def export(
    model: str | Path,
    *,
    out: str | Path | None = None,
    format: str = "onnx",
    precision: str = "fp32",
    size: Size | None = None,
    batch: int | None = None,
    score: float | None = None,
    iou: float | None = None,
    max_detections: int | None = None,
    data: str | Path | None = None,
    limit: int | None = None,
    target: str | None = None,
    winograd: bool | None = None,
    verify: bool = True,
    progress: bool = False,
) -> ExportResult:
    """Export weights to one file as `fcos export` does. The result has its `path` and the measured `parity`.

    model: a .safetensors file or a run folder; for format `triton` also an .onnx or .engine file. out: default: beside
    the weights; for `triton` the repository, by default `models`. size, batch: None = dynamic. The others are the
    command's flags. Raises UsageError, ModelError, DataError, MissingExtra, and ParityError if the file gives other
    results than PyTorch.
    """
    from fcos_cli.extras import require_train

    require_train("export")
    from fcos_cli.export import run
    from fcos_cli.export.formats import REPOSITORY
    from fcos_cli.export.job import ExportJob
    from fcos_cli.export.options import make_options
    from fcos_cli.export.triton.repository import export_repository

    options = make_options(
        "onnx" if format == REPOSITORY else format,
        precision=precision,
        size=_pair(size),
        batch="dynamic" if batch is None else str(batch),
        score=score,
        iou=iou,
        max_detections=max_detections,
        target=target,
        winograd=winograd,
    )
    job = ExportJob(
        options, Path(out or "models"), data=None if data is None else Path(data), limit=limit, verify=verify
    )
    with _output(progress=progress), _same_random_numbers():
        if format == REPOSITORY:
            return export_repository(str(model), job)
        weights = run.find_weights(str(model))
        return run.export(weights, replace(job, out=run.default_out(weights, options) if out is None else Path(out)))


def verify(
    model: str | Path = "default", *, device: str = "auto", backend: str | None = None, precision: str | None = None
) -> Parity:
    """Repeat the comparison with PyTorch for an exported file, as `fcos verify` does. `passed` is the verdict.

    Raises ModelError if the file has no test vectors.
    """
    from fcos_cli.parity.check import find_exported
    from fcos_cli.parity.verify import vectors_of
    from fcos_cli.parity.verify import verify as run

    path = find_exported(str(model))
    detector = load(path, device=device, backend=backend, precision=precision)
    return run(detector, vectors_of(detector.facts, where=path))


def _output(*, progress: bool) -> AbstractContextManager[None]:
    return nullcontext() if progress else quiet()


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Restore torch's random number generators at the end; those of GPUs only if they were in use before."""
    import torch

    # Reading the state of a GPU would initialize CUDA, also for a run on the CPU.
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if used else []):
        yield


def _pair(size: Size | None) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size


def _result(outcome: Outcome) -> TrainingResult:
    """What is known of a run that has ended, from the file of its weights."""
    from fcos_cli.runtime.headers import read_header

    folder, done, onnx = outcome
    best = folder / "best.safetensors"
    weights = best if best.is_file() else folder / "last.safetensors"
    metrics = read_header(weights).facts.provenance.get("metrics", {})
    return TrainingResult(folder, weights, onnx, metrics, done.best_epoch + 1 if done.best >= 0 else None)
