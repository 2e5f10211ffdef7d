"""`fcos export --format triton`: a model in a repository of NVIDIA's Triton Inference Server.

models/NAME/config.pbtxt      inputs, outputs, batching, warm-up, and the facts of the newest version
models/NAME/labels.txt        line n names class n - 1
models/NAME/1/model.onnx      a version; the next export adds 2
models/NAME/unverified/       the last version that gave other results than PyTorch; Triton ignores it
models.unverified/NAME/       the same, if there is no version yet: Triton would try to load a folder without any; in
                              the folder for temporary files if nothing can be written beside the repository
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from fcos_cli.atomic import atomic_write, check_writable
from fcos_cli.console import say
from fcos_cli.errors import UsageError
from fcos_cli.export import run
from fcos_cli.export.job import ExportJob
from fcos_cli.export.options import make_options
from fcos_cli.export.triton.config import Served, config_text, interface_text, with_facts
from fcos_cli.export.triton.describe import describe
from fcos_cli.runtime.headers import read_header, sidecar_path
from fcos_cli.runtime.open import find_artifact

CONFIG, LABELS, UNVERIFIED = "config.pbtxt", "labels.txt", "unverified"
FINISHED = (".onnx", ".engine")
"""Files that are served as they are."""


def export_repository(model: str, job: ExportJob) -> run.ExportResult:
    """Add a version of `model` to the repository `job.out`, which is created if there is none.

    model: weights, which are exported to ONNX and compared with PyTorch, or a finished .onnx or .engine file. Raises
    UsageError if the folder is not a repository or holds another model of this name, ModelError if Triton cannot serve
    the file, ExportDiffers as `run.export` does. What was exported from weights is kept, see above.
    """
    finished = find_artifact(model) if Path(model).suffix.lower() in FINISHED else None
    weights = finished or run.find_weights(model)
    check_repository(job.out)
    folder = job.out / served_name(weights)
    _check_model(folder)
    served = _check_finished(finished, job) if finished else None
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{UNVERIFIED}-") as temporary:
            staged = Path(temporary, "version")  # it becomes the version, so it has the usual permissions
            if finished and served:
                exported = _take(finished, staged / served.file)
                version = _publish(folder, served, exported.path)
            else:
                exported, version = _export(weights, replace(job, out=staged / "model.onnx"), folder)
    finally:
        if not any(folder.iterdir()):
            folder.rmdir()
    say(f"to serve it: tritonserver --model-repository={job.out}")
    return replace(exported, path=version)


def _export(weights: Path, job: ExportJob, folder: Path) -> tuple[run.ExportResult, Path]:
    """Export to `job.out` and publish it. What cannot be published is kept elsewhere, and the error names the place."""
    try:
        exported = run.export(weights, job)
    except run.ExportDiffers as error:
        kept = _keep(error.exported.path, folder)
        raise run.ExportDiffers(replace(error.exported, path=kept), error.failure) from error
    try:
        return exported, _publish(folder, describe(exported.path), exported.path)
    except UsageError:
        say(f"what was exported is kept: {_keep(exported.path, folder)}")
        raise


def _keep(file: Path, folder: Path) -> Path:
    """Move the folder of a model file that is not to be served, in place of an earlier one. Returns the file's path."""
    repository = folder.parent.resolve()
    beside = repository.with_name(f"{repository.name}.{UNVERIFIED}") / folder.name
    kept = folder / UNVERIFIED if (folder / CONFIG).is_file() else beside
    shutil.rmtree(kept, ignore_errors=True)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
    except OSError:  # the repository may be a mounted volume, beside which nothing can be written
        kept = Path(tempfile.mkdtemp(prefix="fcos-"), folder.name)
    shutil.move(file.parent, kept)
    return kept / file.name


def served_name(weights: Path) -> str:
    """The name of a model: of its file, or of the run for `best` and `last`, also in `best-fp16`.

    Other characters than A-Z a-z 0-9 _ . - become _.
    """
    name, best = weights.stem, re.fullmatch(r"(?:best|last)(-.*)?", weights.stem)
    if best and (run_name := weights.resolve().parent.name):
        name = run_name + (best[1] or "")
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".-") or "fcos"


def check_repository(root: Path) -> None:
    """Raise UsageError if `root` exists and is neither empty nor a model repository, or cannot be written to."""
    check_writable(root, folder=True)
    found = [entry for entry in sorted(root.iterdir()) if entry.name[0] != "."] if root.exists() else []
    models = [entry for entry in found if (entry / CONFIG).is_file() or _versions(entry) or _left_over(entry)]
    strange = [entry for entry in found if entry not in models and (entry.is_dir() or not models)]
    if strange:
        raise UsageError(
            f"this folder is not a model repository of Triton: {strange[0].name} is not a model",
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


def _left_over(folder: Path) -> bool:
    """Whether there is a version that was not published, as after an export that was killed."""
    return any(folder.glob(f"{UNVERIFIED}*"))


def _check_finished(file: Path, job: ExportJob) -> Served:
    """Describe a finished file. Its options are inside, so others are an error."""
    if job != replace(ExportJob(make_options("onnx"), out=job.out), command=job.command):
        what = "this file is finished: it can be served, but not exported with other options"
        raise UsageError(what, where=file, remedy="omit them, or give the weights")
    return describe(file)


def _take(file: Path, out: Path) -> run.ExportResult:
    """Copy a finished file."""
    out.parent.mkdir()
    shutil.copyfile(file, out)
    if file.suffix.lower() == ".engine":
        shutil.copyfile(sidecar_path(file), sidecar_path(out))
    return run.ExportResult(out, read_header(file).facts, None)


def _lines(config: str) -> set[str]:
    """The lines of a config, between which the user may have added others.

    The number of the largest batch is left out: the user may change it, but not to or from none.
    """
    text = re.sub(r"max_batch_size: [1-9]\d*", "max_batch_size: N", config)
    return {line.strip() for line in text.splitlines() if line.strip()}


def _publish(folder: Path, served: Served, file: Path) -> Path:
    """Write what describes the model, then give the staged folder its number. Returns the path of the model file."""
    config, labels = folder / CONFIG, folder / LABELS
    names = "".join(f"{' '.join(name.split())}\n" for name in served.facts.classes.names)
    text = config_text(served, folder.name)
    if config.is_file():
        before = config.read_text(encoding="utf-8")
        known = labels.is_file() and labels.read_text(encoding="utf-8") == names
        if not _lines(interface_text(served)) <= _lines(before) or not known:
            what = "the model of this name has different inputs, outputs or classes, so this cannot be its next version"
            raise UsageError(what, where=config, remedy="use another --out, or move that model away")
        text = with_facts(before, served.facts)
    for path, content in ((labels, names), (config, text)):
        with atomic_write(path) as stream:
            stream.write(content)
    version = folder / str(max(_versions(folder), default=0) + 1)
    file.parent.rename(version)
    return version / file.name
