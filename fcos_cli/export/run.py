"""`fcos export`: convert weights to one file for another runtime and compare it with PyTorch before reporting success.

OpenVINO and TensorRT files are made from an ONNX file. For OpenVINO it is temporary. For TensorRT it is kept, under a
name that is free: if this machine cannot build the engine, the command that finishes the job elsewhere is printed.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcos_cli import __version__
from fcos_cli.atomic import check_writable
from fcos_cli.console import emit_json, say
from fcos_cli.convert.zoo import cache_folder
from fcos_cli.errors import ModelError, ParityError, UsageError
from fcos_cli.export.compare import check_parity, remove_report, report_of
from fcos_cli.export.formats import FORMATS
from fcos_cli.export.onnx import OPSET, finalize, store_in_half, trace, write
from fcos_cli.export.options import ExportOptions
from fcos_cli.export.sample_images import SampleImages, network_inputs, read_sample_images
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

FEW_CALIBRATION_IMAGES = 32
"""With fewer images, int8 calibration says little."""


@dataclass(frozen=True)
class ExportJob:
    """One export.

    out: output file. data: the user's data set, for int8 calibration, the images of the parity check, and AP. limit:
    number of images of its val split for AP; None = all. verify: whether to check parity. engine: keyword arguments of
    `build_engine`. command: what finishes the job on another machine; default: the command line of the options.
    """

    options: ExportOptions
    out: Path
    data: Path | None = None
    limit: int | None = None
    verify: bool = True
    engine: dict[str, Any] = field(default_factory=dict)
    command: str = ""


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
        by_matching = exported.parity is None or exported.parity.ap is None
        int8 = exported.facts.precision == "int8"
        way = "judge int8 by its AP with --data" if int8 and by_matching else "try --precision fp32"
        super().__init__(
            f"the exported model's outputs differ from PyTorch: {failure}",
            where=report_of(exported.path),
            remedy=f"the file is kept, marked as unverified; {way}, or report this with the .parity.json",
        )
        self.exported = exported


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
    command = job.command or job.options.command(weights, data=job.data)
    job = replace(job, options=job.options.for_candidates(candidates), command=command)
    facts = facts_of(artifact)
    int8 = job.options.precision == "int8"
    images = read_sample_images(job.data, limit=job.limit, model=facts, weights=weights, int8=int8)
    facts = job.options.apply(facts)
    if profile := job.engine.get("profile"):
        profile.check((job.options.batch, *(job.options.size or (None, None))), facts.resize)
    facts = with_cost(replace(facts, provenance={**facts.provenance, "export": _provenance(weights)}))
    say(f"exporting {weights} to {job.options.format} {job.options.precision}")
    proto, facts = build_graph(artifact, facts, job, calibration=images.calibration)
    save_and_verify = partial(_save_and_verify, artifact, job, images)
    if target.engine:
        return _export_engine(target.engine, job, facts, proto, _free(job.out.with_suffix(".onnx")), save_and_verify)
    if writer is None:
        return save_and_verify(facts, job.out, partial(write, proto, job.out))
    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder, "model.onnx")
        write(proto, onnx_file, facts)
        return save_and_verify(facts, job.out, partial(writer, onnx_file, job.out))


def check_job(job: ExportJob) -> None:
    """Raise UsageError for options that do not fit together, and for files that have another suffix than the format or
    could not be written; MissingExtra without OpenVINO.
    """
    target = FORMATS[job.options.format]
    if job.engine and not target.engine:
        engines = " and ".join(name for name, row in FORMATS.items() if row.engine)
        raise UsageError(f"--engine is for --format {engines}", remedy="omit --engine, or choose one of them")
    if job.limit is not None and job.data is None:
        raise UsageError("--limit is the number of images of --data", remedy="omit --limit, or add --data")
    if job.limit is not None and job.limit < 1:
        raise UsageError(f"limit is {job.limit}, not a number of images", remedy="use a number from 1, or None")
    if target.engine:
        from fcos_cli.export.tensorrt.settings import check_settings

        check_settings(target.engine, job.engine)
    if job.options.format == "openvino":
        from fcos_cli.runtime.openvino import make_core

        make_core()
    if job.out.suffix != target.suffix:
        raise UsageError(
            f"{job.options.format} files end in {target.suffix}",
            where=job.out,
            remedy=f"use --out with a {target.suffix} file",
        )
    beside = [job.out.with_suffix(".bin")] if target.suffix == ".xml" else []
    for file in filter(None, (job.out, report_of(job.out), *beside, job.engine.get("timing_cache"))):
        check_writable(file)


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

        pictures = network_inputs(calibration, facts.resize)
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


def _save_and_verify(
    artifact: Artifact, job: ExportJob, images: SampleImages, facts: Facts, path: Path, save: Callable[[Facts], None]
) -> ExportResult:
    """Write the file, check its parity, and write the facts again if it passed."""
    remove_report(path)
    save(facts)
    say(f"wrote {path} ({_file_size(path) / 1e6:.1f} MB)")
    if not job.verify:
        say("not compared with PyTorch (--no-verify); the file is marked as unverified")
        return ExportResult(path, facts, None)
    parity = check_parity(artifact, facts, path, images=images)
    if not parity.passed:
        raise ExportDiffers(ExportResult(path, facts, parity), parity.failures[0])
    facts = replace(_noted(facts, ap_images=parity.ap.images) if parity.ap else facts, verified=True)
    size = vector_size(job.options, facts, profile=job.engine.get("profile"))
    facts = with_vectors(artifact, facts, path, size=size)
    save(facts)
    return ExportResult(path, facts, parity)


def _noted(facts: Facts, **values: Any) -> Facts:
    """The facts with more values about the export in their provenance."""
    export = {**facts.provenance.get("export", {}), **values}
    return replace(facts, provenance={**facts.provenance, "export": export})


def _file_size(path: Path) -> int:
    """Size of a model file in bytes, including the .bin file of an OpenVINO model."""
    weights = path.with_suffix(".bin")
    return path.stat().st_size + (weights.stat().st_size if path.suffix == ".xml" and weights.exists() else 0)


def _export_engine(
    flavour: Flavour,
    job: ExportJob,
    facts: Facts,
    proto: onnx.ModelProto,
    onnx_file: Path,
    save_and_verify: Callable[[Facts, Path, Callable[[Facts], None]], ExportResult],
) -> ExportResult:
    """Write and verify the ONNX file, then build the engine and verify it if a GPU can run it.

    If the engine cannot be built here, keep the ONNX file and print the reason.
    """
    from fcos_cli.export.tensorrt.engine import BuildUnavailable, build_engine, why_not_run

    exported = save_and_verify(facts, onnx_file, partial(write, proto, onnx_file))
    try:
        record = build_engine(onnx_file, job.out, flavour=flavour, command=job.command, say=say, **job.engine)
    except BuildUnavailable as error:
        say(f"{error.what}. The ONNX file is ready; {error.remedy}")
        return replace(exported, unfinished=error.what)
    if job.verify and (reason := why_not_run(record, job.out)):
        remove_report(job.out)
        later = f"; where it can run: fcos verify {job.out}" if exported.facts.vectors else ""
        say(f"the engine was not compared with PyTorch: {reason}{later}")
        return ExportResult(job.out, facts, None)
    return save_and_verify(facts, job.out, lambda facts: write_sidecar(job.out, facts, record))


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
