"""`fcos verify`: open an exported file, run its test vectors, and print or save the result. No torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from fcos_cli.atomic import atomic_write, check_writable
from fcos_cli.console import emit_json, json_text, say
from fcos_cli.errors import ModelError, ParityError
from fcos_cli.parity.report import environment, print_parity, to_json
from fcos_cli.parity.tolerance import tolerance_of
from fcos_cli.parity.vectors import Vector
from fcos_cli.parity.verdict import Parity
from fcos_cli.parity.verify import vectors_of, verify
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.headers import read_header
from fcos_cli.runtime.open import find_artifact, open_detector

INDEX = "vectors.json"

TOLERANCE_KEYS = ("matched", "max_px", "median_px", "max_score", "same_iou", "same_px", "sure", "score_eps")
"""The parts of `Tolerance` that a comparison of final detections needs."""


def check_file(
    model: str, *, save: Path | None, device: str, backend: str | None, precision: str | None, as_json: bool
) -> None:
    """Run the test vectors of a file and print the outcome. save: folder for the vectors.

    Raises ParityError, after printing, if the results differ; ModelError if the file has no test vectors.
    """
    path = find_exported(model)
    facts = read_header(path).facts
    vectors = vectors_of(facts, where=path)
    if save is not None:
        save_vectors(vectors, facts, save)
        say(f"test vectors: {save / INDEX}")
    detector = open_detector(path, device=device, backend=backend, precision=precision)
    parity = verify(detector, vectors)
    print_parity(parity, more="which --json lists")
    if as_json:
        emit_json(document(parity, detector, path=path))
    if not parity.passed:
        raise ParityError(
            f"this machine gives different results from PyTorch: {parity.failures[0]}",
            where=path,
            remedy="copy the file again; try another --backend, --device or version of the runtime; "
            "do not use it here until it passes",
        )
    say(f"{path}: the same as PyTorch on {len(vectors)} images ({detector.backend}, {detector.device})")


def find_exported(model: str) -> Path:
    """The exported file that the user named; of a run folder, best.onnx. Raises ModelError for weights."""
    if model == "coco":  # it would be downloaded in vain
        remedy = "fcos export coco, then fcos verify the file that it names"
        raise ModelError("PyTorch weights are the reference itself; exported files are verified", remedy=remedy)
    exported = Path(model, "best.onnx")
    is_name = model == "default"
    path = exported if exported.is_file() and not is_name else find_artifact(model)
    if path.suffix == ".safetensors":
        other = path.with_suffix(".onnx")
        raise ModelError(
            "PyTorch weights are the reference itself; exported files are verified",
            where=path,
            remedy=f"fcos verify {other}" if other.is_file() else f"fcos export {model}, then fcos verify {other}",
        )
    return path


def document(parity: Parity, detector: Detector, *, path: Path) -> dict[str, Any]:
    """The `fcos verify --json` document: that of the parity report, without the layers that are not measured here."""
    whole = to_json(parity, artifact=str(path))
    keys = ("artifact", "passed", "precision", "backend", "failures", "notes", "worst", "end_to_end")
    tolerance = whole["tolerance"]["raw_outputs_and_end_to_end"]
    shown = {key: whole[key] for key in keys}
    return {**shown, "device": str(detector.device), "tolerance": tolerance, "environment": environment()}


def save_vectors(vectors: list[Vector], facts: Facts, folder: Path) -> None:
    """Write `N.raw`, the network input [3, H, W] as in memory, for each vector, and vectors.json, which describes them.

    The tolerance is in it too, so that other programs judge as `fcos verify` does. Each file is complete or not there.
    Raises UsageError if the folder cannot be written.
    """
    check_writable(folder, folder=True)
    entries = []
    for number, vector in enumerate(vectors):
        images = vector.images(facts.resize)
        with atomic_write(folder / f"{number}.raw", binary=True) as file:
            file.write(images[0].tobytes())
        boxes, scores, classes = vector.expected
        entries.append(
            {
                "file": f"{number}.raw",
                "name": vector.name,
                "dtype": str(images.dtype),
                "shape": list(images.shape[1:]),
                "inside": vector.inside[0].tolist(),
                "boxes": boxes.tolist(),
                "scores": scores.tolist(),
                "classes": classes.tolist(),
            }
        )
    tolerance = asdict(tolerance_of(facts.precision))
    content = {
        "classes": facts.classes.to_json(),
        "threshold": facts.threshold,
        "precision": facts.precision,
        "tolerance": {key: tolerance[key] for key in TOLERANCE_KEYS},
        "vectors": entries,
    }
    with atomic_write(folder / INDEX) as file:
        file.write(json_text(content))
