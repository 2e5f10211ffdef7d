"""`fcos export`: convert weights to one file for another runtime and compare it with PyTorch before reporting success.

OpenVINO and TensorRT files are made from an ONNX file. For OpenVINO it is temporary. For TensorRT it is kept, under a
name that is free: if this machine cannot build the engine, the command that finishes the job elsewhere is printed.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcos_cli import __version__
from fcos_cli.atomic import check_writable
from fcos_cli.console import emit_json, progress, say
from fcos_cli.convert.zoo import cache_folder
from fcos_cli.data.doctor import print_findings
from fcos_cli.data.formats.read import read_dataset
from fcos_cli.errors import ModelError, ParityError
from fcos_cli.export.formats import FORMATS
from fcos_cli.export.onnx import OPSET, finalize, store_in_half, trace, write
from fcos_cli.export.options import ExportOptions
from fcos_cli.export.sample_images import calibration_pictures, network_inputs, parity_pictures
from fcos_cli.export.vectors import vector_size, with_vectors
from fcos_cli.export.winograd import use_winograd
from fcos_cli.model.artifact import Artifact, load
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import output_names
from fcos_cli.runtime.open import default_weights, find_artifact
from fcos_cli.runtime.pytorch import PyTorchDetector, facts_of
from fcos_cli.runtime.speed import typical_size, with_cost

if TYPE_CHECKING:
    import onnx

    from fcos_cli.parity.prove import Parity
    from fcos_cli.runtime.tensorrt.package import Flavour


FEW_CALIBRATION_IMAGES, FEW_AP_IMAGES = 32, 50
"""With fewer images, int8 calibration or the comparison of AP says little."""


@dataclass(frozen=True)
class ExportJob:
    """One export.

    out: output file. data: the user's data set, for int8 calibration, the images of the parity check, and AP. limit:
    number of images of its val split for AP; None = all. verify: whether to check parity. engine: keyword arguments of
    `build_engine`. command: the full command line, which finishes the job on another machine.
    """

    options: ExportOptions
    out: Path
    data: Path | None = None
    limit: int | None = None
    verify: bool = True
    engine: dict[str, Any] = field(default_factory=dict)
    command: str | None = None


@dataclass(frozen=True)
class ExportResult:
    """The result of an export.

    parity: None if not measured. unfinished: why only the ONNX file could be written here.
    """

    path: Path
    facts: Facts
    parity: Parity | None
    unfinished: str | None = None


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

    Raises UsageError before anything runs if a file could not be written; ParityError, after all files were written, if
    the outputs differ from PyTorch.
    """
    target = FORMATS[job.options.format]
    if job.out.suffix != target.suffix:
        raise ModelError(
            f"{job.options.format} files end in {target.suffix}",
            where=job.out,
            remedy=f"use --out with a {target.suffix} file",
        )
    for file in filter(None, (job.out, report_of(job.out), job.engine.get("timing_cache"))):
        check_writable(file)
    artifact = load(weights)
    facts = job.options.apply(facts_of(artifact))
    facts = with_cost(replace(facts, provenance={**facts.provenance, "export": _provenance(weights)}))
    say(f"exporting {weights} to {job.options.format} {job.options.precision}")
    proto, facts = build_graph(artifact, facts, job, weights=weights)
    if target.engine:
        return _export_engine(artifact, job, facts, proto, _free(job.out.with_suffix(".onnx")))
    writer = target.load_writer()
    if writer is None:
        return _save_and_verify(artifact, job, facts, job.out, partial(write, proto, job.out))
    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder, "model.onnx")
        write(proto, onnx_file, facts)
        return _save_and_verify(artifact, job, facts, job.out, partial(writer, onnx_file, job.out))


def _free(path: Path) -> Path:
    """`path`, or with a number in its name if there is such a file or a report beside it."""
    name, number = path, 1
    while name.exists() or report_of(name).exists():
        number += 1
        name = path.with_stem(f"{path.stem}-{number}")
    return name


def build_graph(artifact: Artifact, facts: Facts, job: ExportJob, *, weights: Path) -> tuple[onnx.ModelProto, Facts]:
    """Trace the graph and, as requested, quantize it or apply Winograd; return it with the facts to write."""
    proto = trace(artifact, facts, job.options)
    if job.options.winograd:
        facts = replace(facts, winograd=use_winograd(proto, size=typical_size(facts.resize)))
        if facts.winograd:
            say(f"using Winograd's algorithm for {facts.winograd} convolutions")
    if job.options.precision == "int8":
        from fcos_cli.export.quantize import quantize

        pictures = network_inputs(calibration_pictures(job.data, weights=weights), facts.resize)
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
    artifact: Artifact, job: ExportJob, facts: Facts, path: Path, save: Callable[[Facts], None]
) -> ExportResult:
    """Write the file, check its parity, and write the facts again if it passed."""
    save(facts)
    say(f"wrote {path} ({_file_size(path) / 1e6:.1f} MB)")
    if not job.verify:
        say("not compared with PyTorch (--no-verify); the file is marked as unverified")
        return ExportResult(path, facts, None)
    parity = check_parity(artifact, job, facts, path)
    if not parity.passed:
        raise ParityError(
            f"the exported model's outputs differ from PyTorch: {parity.failures[0]}",
            where=report_of(path),
            remedy="the file is kept, marked as unverified; try --precision fp32, or report this with the .parity.json",
        )
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


def check_parity(artifact: Artifact, job: ExportJob, facts: Facts, path: Path) -> Parity:
    """Check the parity of the file at `path` with PyTorch, print it, and write plots and `.parity.json` beside it."""
    from fcos_cli.parity import report, subgraphs
    from fcos_cli.parity.prove import ap_parity, prove
    from fcos_cli.runtime.open import open_detector

    strides = artifact.config.strides
    if path.suffix == ".onnx":
        exported: subgraphs.ExportedModel = subgraphs.OnnxModel(path, strides=strides)
    elif path.suffix == ".xml":
        exported = subgraphs.OpenVinoModel(path, strides=strides)
    else:
        exported = subgraphs.OpaqueModel(open_detector(path))
    ap = None
    if job.data is not None:
        dataset = read_dataset(job.data)
        print_findings(dataset.findings)
        if job.limit is not None:
            dataset = replace(dataset, samples=dataset.samples[: job.limit])
        reference = PyTorchDetector.from_artifact(_with_limits(artifact, facts), name="PyTorch", device="cpu")
        with progress("evaluating both models", total=2 * len(dataset)) as update:
            ap = ap_parity(reference, open_detector(path), dataset, on_progress=update)
        if not ap.is_measurable:
            say(f"the AP cannot be compared: the {dataset.split} split of {job.data} has no boxes; judged by matching")
            ap = None
        elif ap.images < FEW_AP_IMAGES:
            say(f"the AP was compared on only {ap.images} images; {FEW_AP_IMAGES} or more say more")
    with progress("checking parity") as update:
        parity = prove(artifact, exported, facts, pictures=parity_pictures(job.data), ap=ap, on_progress=update)
    report.print_parity(parity)
    report.write_report(parity, path)
    return parity


def _with_limits(artifact: Artifact, facts: Facts) -> Artifact:
    """The reference model with the limits and the input size of the exported file."""
    config = artifact.config.model_copy(update=facts.limits)
    return replace(artifact, config=config, geometry=facts.resize.to_json())


def _export_engine(
    artifact: Artifact, job: ExportJob, facts: Facts, proto: onnx.ModelProto, onnx_file: Path
) -> ExportResult:
    """Write and verify the ONNX file, then build the engine and verify it if a GPU can run it.

    If the engine cannot be built here, keep the ONNX file and print the reason.
    """
    from fcos_cli.export.tensorrt.engine import BuildUnavailable, build_engine, write_sidecar
    from fcos_cli.runtime.tensorrt.package import find_gpu

    exported = _save_and_verify(artifact, job, facts, onnx_file, partial(write, proto, onnx_file))
    flavour: Flavour = "trt" if job.options.format == "trt" else "trt-rtx"
    try:
        record = build_engine(onnx_file, job.out, flavour=flavour, command=job.command, say=say, **job.engine)
    except BuildUnavailable as error:
        say(f"{error.what}. The ONNX file is ready; {error.remedy}")
        return replace(exported, unfinished=error.what)
    if find_gpu() is None:
        say(f"the engine was not compared with PyTorch, for lack of a GPU; where there is one: fcos verify {job.out}")
        return ExportResult(job.out, facts, None)
    return _save_and_verify(artifact, job, facts, job.out, lambda facts: write_sidecar(job.out, facts, record))


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


def report_of(path: Path) -> Path:
    """The report of the parity check of an exported file."""
    from fcos_cli.parity.report import report_path

    return report_path(path)
