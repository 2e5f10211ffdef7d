"""`fcos export`: weights → one file for another runtime, compared with PyTorch before success is reported.

The ONNX file comes first, whatever the format; OpenVINO and TensorRT are made from it. A machine that cannot make the
asked format keeps the ONNX and is told the command that finishes the job elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcos_cli import __version__
from fcos_cli.console import emit_json, progress, say
from fcos_cli.convert.zoo import cache_folder
from fcos_cli.data.formats import read_dataset
from fcos_cli.errors import ModelError, ParityError
from fcos_cli.export.formats import FORMATS
from fcos_cli.export.onnx import OPSET, finalize, store_in_half, trace, write
from fcos_cli.export.options import ExportOptions
from fcos_cli.export.pictures import calibration_pictures, network_inputs, parity_pictures
from fcos_cli.export.winograd import use_winograd
from fcos_cli.model.artifact import Artifact, load
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import output_names
from fcos_cli.runtime.open import default_weights, find_artifact
from fcos_cli.runtime.pytorch import PyTorchDetector, facts_of

if TYPE_CHECKING:
    import onnx

    from fcos_cli.parity.prove import Parity
    from fcos_cli.runtime.tensorrt.package import Flavour


@dataclass(frozen=True)
class ExportJob:
    """One export.

    out: the file to write. data: the user's data set, for int8 ranges, pictures and AP; limit: of its val split only
    the first N for AP. verify: measure parity. engine: how a TensorRT engine is built. command: the whole command line,
    which finishes the job on another machine.
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
    """What came out. parity: None where it was not measured. unfinished: why only the ONNX could be made here."""

    path: Path
    facts: Facts
    parity: Parity | None
    unfinished: str | None = None


def find_weights(model: str) -> Path:
    """The PyTorch weights behind what a user calls a model. Raises ModelError."""
    path = default_weights() if model == "default" else find_artifact(model)
    if path.suffix != ".safetensors":
        raise ModelError(
            "only PyTorch weights can be exported: they are the reference that the result is compared with",
            where=path,
            remedy="name the .safetensors file or the run folder",
        )
    return path


def default_out(weights: Path, options: ExportOptions) -> Path:
    """Beside the weights, or in the current folder for those with a name: `best.onnx`, `best-fp16.onnx`,
    `best-openvino.xml`. Each format has a stem of its own: the ONNX it is made from and its report lie beside it."""
    folder = Path() if weights.parent in (default_weights().parent, cache_folder()) else weights.parent
    precision = "" if options.precision == "fp32" else f"-{options.precision}"
    made = "" if options.format == "onnx" else f"-{options.format}"
    return folder / f"{weights.stem}{made}{precision}{FORMATS[options.format].suffix}"


def export(weights: Path, job: ExportJob) -> ExportResult:
    """Export, prove, and say so in the file. Raises ParityError after everything was written where they differ."""
    target = FORMATS[job.options.format]
    if job.out.suffix != target.suffix:
        raise ModelError(f"{job.options.format} files end in {target.suffix}", where=job.out, remedy="change --out")
    artifact = load(weights)
    facts = job.options.apply(facts_of(artifact))
    facts = replace(facts, provenance={**facts.provenance, "export": _origin(weights)})
    say(f"exporting {weights} to {job.options.format} {job.options.precision}")
    proto, facts = build_graph(artifact, facts, job, weights=weights)
    onnx_file = job.out if job.options.format == "onnx" else job.out.with_suffix(".onnx")
    if target.engine:
        return _engine(artifact, job, facts, proto, onnx_file)
    writer = target.load_writer()
    if writer is None:
        return _proved(artifact, job, facts, onnx_file, partial(write, proto, onnx_file))
    write(proto, onnx_file, facts)
    return _proved(artifact, job, facts, job.out, partial(writer, onnx_file, job.out))


def build_graph(artifact: Artifact, facts: Facts, job: ExportJob, *, weights: Path) -> tuple[onnx.ModelProto, Facts]:
    """The traced graph, quantised or in Winograd's form where that was asked, and the facts to write with it."""
    proto = trace(artifact, facts, job.options)
    if job.options.winograd:
        usual = facts.resize.canvas([facts.resize.geometry(4, 3)])
        facts = replace(facts, winograd=use_winograd(proto, size=usual))
        if facts.winograd:
            say(f"{facts.winograd} convolutions in Winograd's form")
    if job.options.precision == "int8":
        from fcos_cli.export.quantize import quantize

        pictures = network_inputs(calibration_pictures(job.data, weights=weights), facts.resize)
        say(f"measuring ranges on {len(pictures)} pictures")
        between = job.options.format != "openvino"
        proto = quantize(proto, pictures, target=job.options.target, between=between, say=say)
    if job.options.format == "onnx" and job.options.precision == "fp32":
        proto = store_in_half(proto)
    return finalize(proto, outputs=output_names(job.options.nms)), facts


def _origin(weights: Path) -> dict[str, Any]:
    import torch

    return {
        "weights": weights.name,
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "opset": OPSET,
        "fcos": __version__,
        "torch": torch.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _proved(
    artifact: Artifact, job: ExportJob, facts: Facts, path: Path, save: Callable[[Facts], None]
) -> ExportResult:
    """Write the file, compare it, and write into it whether it passed."""
    save(facts)
    say(f"wrote {path} ({_size(path) / 1e6:.1f} MB)")
    if not job.verify:
        say("not compared with PyTorch (--no-verify): the file says that it is unverified")
        return ExportResult(path, facts, None)
    parity = check_parity(artifact, job, facts, path)
    if not parity.passed:
        raise ParityError(
            f"the exported model answers differently from PyTorch: {parity.failures[0]}",
            where=path.with_suffix(".parity.json"),
            remedy="the file stays, marked as unverified; try --precision fp32, or report this with the .parity.json",
        )
    facts = replace(facts, verified=True)
    save(facts)
    return ExportResult(path, facts, parity)


def _size(path: Path) -> int:
    """Bytes of a model file; of OpenVINO's two files both."""
    beside = path.with_suffix(".bin")
    return path.stat().st_size + (beside.stat().st_size if path.suffix == ".xml" and beside.exists() else 0)


def check_parity(artifact: Artifact, job: ExportJob, facts: Facts, path: Path) -> Parity:
    """Parity of the file at `path` with PyTorch, told, drawn and written beside it as `.parity.json`."""
    from fcos_cli.parity import report, subgraphs
    from fcos_cli.parity.prove import ap_parity, prove
    from fcos_cli.runtime.open import open_detector

    if path.suffix == ".onnx":
        opened: subgraphs.ExportedModel = subgraphs.OnnxModel(path)
    elif path.suffix == ".xml":
        opened = subgraphs.OpenVinoModel(path)
    else:
        opened = subgraphs.OpaqueModel(open_detector(path))
    ap = None
    if job.data is not None:
        dataset = read_dataset(job.data)
        if job.limit is not None:
            dataset = replace(dataset, samples=dataset.samples[: job.limit])
        reference = PyTorchDetector.from_artifact(_limited(artifact, facts), name="PyTorch", device="cpu")
        with progress("AP of both", total=2 * len(dataset)) as update:
            ap = ap_parity(reference, open_detector(path), dataset, on_progress=update)
    with progress("comparing") as update:
        parity = prove(artifact, opened, facts, pictures=parity_pictures(job.data), ap=ap, on_progress=update)
    report.print_parity(parity)
    report.write_report(parity, path)
    return parity


def _limited(artifact: Artifact, facts: Facts) -> Artifact:
    """The reference with the limits and the input size of the exported file."""
    limits = {"score_threshold": facts.score_threshold, "nms_iou": facts.nms_iou}
    config = artifact.config.model_copy(update={**limits, "max_detections": facts.max_detections})
    return replace(artifact, config=config, geometry=facts.resize.to_json())


def _engine(artifact: Artifact, job: ExportJob, facts: Facts, proto: onnx.ModelProto, onnx_file: Path) -> ExportResult:
    """The ONNX, proved by itself, then the engine, proved where a GPU can run it. Where it cannot be built here, the
    ONNX stays and we say why."""
    from fcos_cli.export.tensorrt.engine import BuildUnavailable, build_engine, write_sidecar
    from fcos_cli.runtime.tensorrt.package import find_gpu

    made = _proved(artifact, job, facts, onnx_file, partial(write, proto, onnx_file))
    flavour: Flavour = "trt" if job.options.format == "trt" else "trt-rtx"
    try:
        record = build_engine(onnx_file, job.out, flavour=flavour, command=job.command, say=say, **job.engine)
    except BuildUnavailable as error:
        say(f"{error.what}. The ONNX is ready; {error.remedy}")
        return replace(made, unfinished=error.what)
    if find_gpu() is None:
        say("the engine itself was not compared: no GPU here can run it")
        return ExportResult(job.out, facts, None)
    return _proved(artifact, job, facts, job.out, lambda told: write_sidecar(job.out, told, record))


def print_result(exported: ExportResult, *, as_json: bool) -> None:
    """The last word: one line for people, or the `export` document."""
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
    say(f"{exported.path}: {'answers as PyTorch does' if verified else 'unverified'}")


def report_of(path: Path) -> Path:
    return path.with_suffix(".parity.json")
