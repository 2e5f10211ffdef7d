"""`fcos export`: convert weights to one file for another runtime and compare it with PyTorch before reporting success.

OpenVINO and TensorRT files are made from an ONNX file. For OpenVINO it is temporary. For TensorRT it is kept, under a
name that is free: if this machine cannot build the engine, the command that finishes the job elsewhere is printed.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcos_cli import __version__
from fcos_cli.console import emit_json, say
from fcos_cli.convert.zoo import cache_folder
from fcos_cli.errors import ModelError, ParityError
from fcos_cli.export.compare import check_parity, report_of
from fcos_cli.export.formats import FORMATS
from fcos_cli.export.job import ExportJob, check_job
from fcos_cli.export.onnx import OPSET, finalize, store_in_half, trace, write
from fcos_cli.export.options import ExportOptions
from fcos_cli.export.sample_images import SampleImages, network_inputs, read_sample_images
from fcos_cli.export.staging import staged
from fcos_cli.export.tensorrt.graph_check import check_detections
from fcos_cli.export.vectors import vector_size, with_vectors
from fcos_cli.export.winograd import use_winograd
from fcos_cli.model.artifact import Artifact, load
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import output_names
from fcos_cli.runtime.open import default_weights, find_artifact
from fcos_cli.runtime.pytorch import facts_of
from fcos_cli.runtime.speed import typical_size, with_cost
from fcos_cli.runtime.tensorrt.sidecar import write_sidecar

if TYPE_CHECKING:
    import onnx

    from fcos_cli.parity.prove import Parity
    from fcos_cli.runtime.tensorrt.package import Flavour

Save = Callable[[Path, Facts], None]
"""Writes a model file with these facts."""

Check = Callable[[Path, Save], "tuple[Facts, Parity | None]"]
"""`_save_and_check` of an export, for one of its files."""

FEW_CALIBRATION_IMAGES = 32
"""With fewer images, int8 calibration says little."""


@dataclass(frozen=True)
class ExportResult:
    """The result of an export.

    parity: None if not measured. unfinished: why only the ONNX file could be written here.
    """

    path: Path
    facts: Facts
    parity: Parity | None
    unfinished: str | None = None


class ExportDiffers(ParityError):
    """The outputs differ from PyTorch's. All files were written, marked as unverified; `exported` names them."""

    def __init__(self, exported: ExportResult, failure: str) -> None:
        super().__init__(
            f"the exported model's outputs differ from PyTorch: {failure}",
            where=report_of(exported.path),
            remedy=f"the file is kept, marked as unverified; {_way_out(exported)}report this with the .parity.json",
        )
        self.exported, self.failure = exported, failure


def _way_out(exported: ExportResult) -> str:
    """What may help if the outputs differ, to be followed by what else can be done."""
    facts, parity = exported.facts, exported.parity
    if facts.precision == "fp32":
        return "try --no-winograd, or " if facts.winograd else ""
    if facts.precision == "int8" and (parity is None or parity.ap is None):
        return "judge int8 by its AP with --data, or "
    return "try --precision fp32, or "


def find_weights(model: str) -> Path:
    """The PyTorch weights file of a model as named by the user. Raises ModelError if there is none."""
    path = default_weights() if model == "default" else find_artifact(model)
    if path.suffix != ".safetensors":
        raise ModelError(
            "only PyTorch weights can be exported: they are the reference for the parity check",
            where=path,
            remedy="pass the .safetensors file or the run folder",
        )
    return path


def default_out(weights: Path, options: ExportOptions) -> Path:
    """Default output file: beside the weights, or in the current folder for pretrained weights.

    For example `best.onnx`, `best-fp16.onnx`, `best-openvino.xml`. Each format has its own stem, because the
    intermediate ONNX file and the parity report have the same one.
    """
    folder = Path() if weights.parent in (default_weights().parent, cache_folder()) else weights.parent
    precision = "" if options.precision == "fp32" else f"-{options.precision}"
    suffix = "" if options.format == "onnx" else f"-{options.format}"
    return folder / f"{weights.stem}{suffix}{precision}{FORMATS[options.format].suffix}"


def export(weights: Path, job: ExportJob) -> ExportResult:
    """Export, check parity, and record the result in the file.

    What can be known to fail is found before anything is written: UsageError if a file could not be, and what
    `read_sample_images` raises. Raises ExportDiffers, after all files were written, if the outputs differ from PyTorch.
    """
    target = FORMATS[job.options.format]
    check_job(job)
    writer = target.load_writer()
    artifact = load(weights)
    candidates = artifact.config.candidates * len(artifact.config.strides)
    command = job.command or job.options.command(weights, out=job.out, data=job.data, limit=job.limit)
    job = replace(job, options=job.options.for_candidates(candidates), command=command)
    facts = facts_of(artifact)
    int8 = job.options.precision == "int8"
    images = read_sample_images(job.data, limit=job.limit, model=facts, weights=weights, int8=int8, compare=job.verify)
    facts = job.options.apply(facts)
    if target.engine:
        check_detections(min(facts.max_detections, candidates))
    if profile := job.engine.get("profile"):
        profile.check((job.options.batch, *(job.options.size or (None, None))), facts.resize)
    facts = with_cost(replace(facts, provenance={**facts.provenance, "export": _provenance(weights)}))
    say(f"exporting {weights} to {job.options.format} {job.options.precision}")
    proto, facts = build_graph(artifact, facts, job, calibration=images.calibration)
    check = partial(_save_and_check, artifact, job, images, facts)
    if target.engine:
        return _export_engine(target.engine, job, proto, check)
    if writer is None:
        return _write(job.out, partial(write, proto), check)
    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder, "model.onnx")
        write(proto, onnx_file, facts)
        return _write(job.out, partial(writer, onnx_file), check)


def _free(path: Path) -> Path:
    """`path`, or with a number in its name if there is such a file or a report beside it."""
    name, number = path, 1
    while name.exists() or report_of(name).exists():
        number += 1
        name = path.with_stem(f"{path.stem}-{number}")
    return name


def build_graph(
    artifact: Artifact, facts: Facts, job: ExportJob, *, calibration: Sequence[Path]
) -> tuple[onnx.ModelProto, Facts]:
    """Trace the graph and, as requested, quantize it or apply Winograd; return it with the facts to write."""
    proto = trace(artifact, facts, job.options)
    if job.options.winograd:
        facts = replace(facts, winograd=use_winograd(proto, size=typical_size(facts.resize)))
        if facts.winograd:
            say(f"using Winograd's algorithm for {facts.winograd} convolutions")
    if job.options.precision == "int8":
        from fcos_cli.export.quantize import quantize

        pictures = network_inputs(calibration, facts.resize, tile=facts.tile)
        say(f"calibrating int8 on {len(pictures)} images")
        if len(pictures) < FEW_CALIBRATION_IMAGES:
            say(f"{FEW_CALIBRATION_IMAGES} or more images give better ranges: --data with more training images")
        facts = _noted(facts, calibration_images=len(pictures))
        between = job.options.format != "openvino"
        proto = quantize(proto, pictures, target=job.options.target, between=between, say=say)
    if job.options.format == "onnx" and job.options.precision == "fp32":
        proto = store_in_half(proto)
    return finalize(proto, outputs=output_names(job.options.nms)), facts


def _provenance(weights: Path) -> dict[str, Any]:
    import torch

    return {
        "weights": weights.name,
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "opset": OPSET,
        "fcos": __version__,
        "torch": torch.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _write(path: Path, save: Save, check: Check) -> ExportResult:
    """Write a file, which replaces an earlier one only when it is complete. Raises ExportDiffers."""
    with staged(path) as new:
        facts, parity = check(new, save)
    return _told(ExportResult(path, facts, parity))


def _save_and_check(
    artifact: Artifact, job: ExportJob, images: SampleImages, facts: Facts, path: Path, save: Save
) -> tuple[Facts, Parity | None]:
    """Save the file, check its parity if that is wanted, and save it again with other facts if it passed."""
    save(path, facts)
    if not job.verify:
        return facts, None
    parity = check_parity(artifact, facts, path, images=images)
    if parity.passed:
        facts = replace(_noted(facts, ap_images=parity.ap.images) if parity.ap else facts, verified=True)
        size = vector_size(job.options, facts, profile=job.engine.get("profile"))
        facts = with_vectors(artifact, facts, path, size=size)
        save(path, facts)
    return facts, parity


def _told(exported: ExportResult) -> ExportResult:
    """Say what was written. Raises ExportDiffers."""
    say(f"wrote {exported.path.name} ({_file_size(exported.path) / 1e6:.1f} MB)")
    if exported.parity is None:
        say("not compared with PyTorch (--no-verify); the file is marked as unverified")
    elif not exported.parity.passed:
        raise ExportDiffers(exported, exported.parity.failures[0])
    return exported


def _noted(facts: Facts, **values: Any) -> Facts:
    """The facts with more values about the export in their provenance."""
    export = {**facts.provenance.get("export", {}), **values}
    return replace(facts, provenance={**facts.provenance, "export": export})


def _file_size(path: Path) -> int:
    """Size of a model file in bytes, including the .bin file of an OpenVINO model."""
    weights = path.with_suffix(".bin")
    return path.stat().st_size + (weights.stat().st_size if path.suffix == ".xml" and weights.exists() else 0)


def _export_engine(flavour: Flavour, job: ExportJob, proto: onnx.ModelProto, check: Check) -> ExportResult:
    """Write and verify an ONNX file, then build the engine and verify it if a GPU can run it.

    If the engine cannot be built here, keep the ONNX file and print the reason.
    """
    from fcos_cli.export.tensorrt.engine import BuildUnavailable, build_engine, why_not_run

    onnx_file = _free(job.out.with_suffix(".onnx"))
    exported = _write(onnx_file, partial(write, proto), check)
    facts, parity, reason = replace(exported.facts, verified=False), None, None
    try:
        with staged(job.out) as new:
            record = build_engine(onnx_file, new, flavour=flavour, command=job.command, say=say, **job.engine)
            reason = why_not_run(record, new) if job.verify else None
            if reason is None:
                facts, parity = check(new, partial(write_sidecar, record=record))
    except BuildUnavailable as error:
        say(f"{error.what}. The ONNX file is ready; {error.remedy}")
        return replace(exported, unfinished=error.what)
    if reason is None:
        return _told(ExportResult(job.out, facts, parity))
    later = f"; where it can run: fcos verify {job.out}" if facts.vectors else ""
    say(f"the engine was not compared with PyTorch: {reason}{later}")
    return ExportResult(job.out, facts, None)


def print_result(exported: ExportResult, *, as_json: bool) -> None:
    """Print the result: one line, or the `export` document as JSON."""
    parity, verified = exported.parity, exported.facts.verified
    if as_json:
        emit_json(
            {
                "artifact": exported.path,
                "format": exported.path.suffix.lstrip("."),
                "precision": exported.facts.precision,
                "parity": None if parity is None else {"passed": parity.passed, "report": report_of(exported.path)},
                "verified": verified,
                "unfinished": exported.unfinished,
            }
        )
    say(f"{exported.path}: {'verified against PyTorch' if verified else 'unverified'}")
