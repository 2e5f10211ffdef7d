"""`fcos export --format triton`: a model in a repository of NVIDIA's Triton Inference Server.

models/NAME/config.pbtxt      inputs, outputs, batching, warm-up, and the facts of the newest version
models/NAME/labels.txt        line n names class n - 1
models/NAME/1/model.onnx      a version; the next export adds 2
models/NAME/unverified/       a version while it is compared with PyTorch, and after it failed; Triton ignores it
"""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

from fcos_cli.atomic import atomic_write, check_writable
from fcos_cli.console import say
from fcos_cli.errors import UsageError
from fcos_cli.export import run
from fcos_cli.export.compare import remove_report
from fcos_cli.export.options import make_options
from fcos_cli.export.triton.config import Served, config_text, interface_text, with_facts
from fcos_cli.export.triton.describe import describe
from fcos_cli.runtime.headers import read_header, sidecar_path
from fcos_cli.runtime.open import find_artifact

CONFIG, LABELS, STAGED = "config.pbtxt", "labels.txt", "unverified"
FINISHED = (".onnx", ".engine")
"""Files that are served as they are."""


def export_repository(model: str, job: run.ExportJob) -> run.ExportResult:
    """Add a version of `model` to the repository `job.out`, which is created if there is none.

    model: weights, which are exported to ONNX and compared with PyTorch, or a finished .onnx or .engine file. Raises
    UsageError if the folder is no repository or holds another model of this name, ModelError if Triton cannot serve the
    file, ParityError as `run.export` does. What was exported then stays in the folder `unverified`.
    """
    finished = find_artifact(model) if Path(model).suffix in FINISHED else None
    weights = finished or run.find_weights(model)
    check_repository(job.out)
    folder = job.out / served_name(weights)
    staged = folder / STAGED
    _check_model(folder)
    try:
        exported = _take(finished, staged, job) if finished else run.export(weights, _onnx_job(job, staged))
        try:
            version = _publish(folder, describe(exported.path), exported.path)
        except UsageError:
            if finished:  # where it was copied from, it still is
                shutil.rmtree(staged)
            raise
    finally:
        for place in (staged, folder):
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
    say(f"to serve it: tritonserver --model-repository={job.out}")
    return replace(exported, path=version)


def served_name(weights: Path) -> str:
    """The name of a model: of its file, or of the run for `best` and `last`. Other than A-Z a-z 0-9 _ . - becomes _."""
    known = weights.stem in ("best", "last") and weights.resolve().parent.name
    return re.sub(r"[^A-Za-z0-9_.-]", "_", known or weights.stem).lstrip(".-") or "fcos"


def check_repository(root: Path) -> None:
    """Raise UsageError if `root` exists and is neither empty nor a model repository, or cannot be written to."""
    check_writable(root, folder=True)
    found = [entry for entry in sorted(root.iterdir()) if entry.name[0] != "."] if root.exists() else []
    models = [entry for entry in found if _versions(entry) or (entry / CONFIG).is_file() or (entry / STAGED).is_dir()]
    strange = [entry for entry in found if entry not in models and (entry.is_dir() or not models)]
    if strange:
        raise UsageError(
            f"this folder is not a model repository of Triton: {strange[0].name} is no model",
            where=root,
            remedy="use --out with a new folder, or with a repository, whose folders hold config.pbtxt and versions",
        )


def _check_model(folder: Path) -> None:
    """Raise UsageError if versions are there that another program wrote."""
    if _versions(folder) and not (folder / CONFIG).is_file():
        what = f"there is a model of this name without {CONFIG}"
        raise UsageError(what, where=folder, remedy="use another --out, or move it away")


def _versions(folder: Path) -> list[int]:
    return [int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()] if folder.is_dir() else []


def _onnx_job(job: run.ExportJob, staged: Path) -> run.ExportJob:
    return replace(job, out=staged / "model.onnx")


def _take(file: Path, staged: Path, job: run.ExportJob) -> run.ExportResult:
    """Copy a finished file. Its options are inside, so others are an error."""
    if job != replace(run.ExportJob(make_options("onnx"), out=job.out), command=job.command):
        what = "this file is finished: it can be served, but not exported with other options"
        raise UsageError(what, where=file, remedy="omit them, or give the weights")
    served = describe(file)
    staged.mkdir(parents=True, exist_ok=True)
    remove_report(staged / served.file)
    shutil.copyfile(file, staged / served.file)
    if file.suffix == ".engine":
        shutil.copyfile(sidecar_path(file), sidecar_path(staged / served.file))
    return run.ExportResult(staged / served.file, read_header(file).facts, None)


def _without_batch(config: str) -> str:
    """A config's text without the largest batch, which the user may change, but not between none and some."""
    return re.sub(r"max_batch_size: [1-9]\d*", "max_batch_size: N", config)


def _publish(folder: Path, served: Served, file: Path) -> Path:
    """Write what describes the model, then give the staged folder its number. Returns the path of the model file."""
    config, labels = folder / CONFIG, folder / LABELS
    names = "".join(f"{' '.join(name.split())}\n" for name in served.facts.classes.names)
    text = config_text(served, folder.name)
    if config.is_file():
        before = config.read_text(encoding="utf-8")
        known = labels.is_file() and labels.read_text(encoding="utf-8") == names
        if _without_batch(interface_text(served)) not in _without_batch(before) or not known:
            what = "the model of this name has other inputs, outputs or classes, so this cannot be its next version"
            raise UsageError(what, where=config, remedy="use another --out, or move that model away")
        text = with_facts(before, served.facts)
    for path, content in ((labels, names), (config, text)):
        with atomic_write(path) as stream:
            stream.write(content)
    version = folder / str(max(_versions(folder), default=0) + 1)
    file.parent.rename(version)
    return version / file.name
