"""Compare an exported file with PyTorch, and write the report beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fcos_cli.console import progress, say
from fcos_cli.data.samples import Dataset
from fcos_cli.export.sample_images import SampleImages
from fcos_cli.model.artifact import Artifact
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.headers import read_header
from fcos_cli.runtime.pytorch import PyTorchDetector

if TYPE_CHECKING:
    from fcos_cli.parity.prove import Parity
    from fcos_cli.parity.verdict import ApParity

FEW_AP_IMAGES = 50
"""With fewer images, the comparison of AP says little."""


def check_parity(artifact: Artifact, facts: Facts, path: Path, *, images: SampleImages) -> Parity:
    """Check the parity of the file at `path` with PyTorch, print it, and write plots and `.parity.json` beside it.

    facts: that the file should have.
    """
    from fcos_cli.parity import report, subgraphs
    from fcos_cli.parity.prove import prove
    from fcos_cli.runtime.open import open_detector

    strides = artifact.config.strides
    if path.suffix == ".onnx":
        exported: subgraphs.ExportedModel = subgraphs.OnnxModel(path, strides=strides)
    elif path.suffix == ".xml":
        exported = subgraphs.OpenVinoModel(path, strides=strides)
    else:
        exported = subgraphs.OpaqueModel(open_detector(path))
    ap = None if images.val is None else _compare_ap(artifact, facts, path, images.val)
    with progress("checking parity") as update:
        stored = read_header(path).facts
        parity = prove(artifact, exported, facts, pictures=images.parity, stored=stored, ap=ap, on_progress=update)
    report.print_parity(parity, more="see the .parity.json")
    report.write_report(parity, path)
    return parity


def _compare_ap(artifact: Artifact, facts: Facts, path: Path, dataset: Dataset) -> ApParity | None:
    """AP of both models, or None if there are no boxes to measure it with."""
    from fcos_cli.parity.prove import ap_parity
    from fcos_cli.runtime.open import open_detector

    config = artifact.config.model_copy(update=facts.limits)
    same_limits = replace(artifact, config=config, geometry=facts.resize.to_json())
    reference = PyTorchDetector.from_artifact(same_limits, name="PyTorch", device="cpu")
    with progress("evaluating both models", total=2 * len(dataset)) as update:
        ap = ap_parity(reference, open_detector(path), dataset, on_progress=update)
    if not ap.is_measurable:
        say(f"the AP cannot be compared: the {dataset.split} split has no boxes; judged by matching")
        return None
    if ap.images < FEW_AP_IMAGES:
        say(f"the AP was compared on only {ap.images} images; use {FEW_AP_IMAGES} or more for a more reliable result")
    return ap


def report_of(path: Path) -> Path:
    """The report of the parity check of an exported file."""
    from fcos_cli.parity.report import report_path

    return report_path(path)


def remove_report(path: Path) -> None:
    """Remove the report of an earlier file at `path`, which must not pass for that of a new one."""
    for file in (report_of(path), report_of(path).with_suffix(".png")):
        file.unlink(missing_ok=True)
