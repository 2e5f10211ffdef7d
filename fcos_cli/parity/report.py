"""Report the outcome of the parity check: a table on stderr, MODEL.parity.json, and a drawing of the worst box."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fcos_cli import __version__
from fcos_cli.atomic import atomic_write
from fcos_cli.console import SCHEMA_VERSION, plain, say, table
from fcos_cli.extras import versions
from fcos_cli.hardware import processor
from fcos_cli.model.classes import ClassTable
from fcos_cli.parity.tolerance import POST, Tolerance
from fcos_cli.parity.verdict import Layer, MatchRow, Parity, RawRow, Worst, count_sure
from fcos_cli.predict.draw import draw, save_image
from fcos_cli.runtime.results import Detections

MAX_FAILURES = 8
"""Failures printed on stderr; the file has all of them."""

DRAWING_SIDE = 1000
"""Longer side of the drawing in pixels."""

BRANCHES = {"cls": "class logits", "ltrb": "distances", "ctr": "centerness logits"}
PACKAGES = ("torch", "onnx", "onnxruntime", "openvino", "tensorrt", "numpy")


# --- JSON ------------------------------------------------------------------------------------------------------------


def report_path(artifact: Path) -> Path:
    """`MODEL.parity.json` for MODEL.onnx, `MODEL.xml.parity.json` for MODEL.xml: a report of its own for each file."""
    return artifact.with_suffix(".parity.json" if artifact.suffix == ".onnx" else f"{artifact.suffix}.parity.json")


def write_report(parity: Parity, artifact: Path) -> Path:
    """Write `MODEL.parity.json` beside the exported file, and `MODEL.parity.png` if there is a box to draw.

    Returns the path of the JSON file. Raises UsageError if it cannot be written.
    """
    path = report_path(artifact)
    drawing = draw_worst_match(parity.worst, path.with_suffix(".png")) if parity.worst else None
    document = to_json(parity, artifact=artifact.name, drawn=drawing)
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)
    with atomic_write(path) as file:
        file.write(re.sub(r"\[\n[-+\d.eE,\s]+\]", lambda numbers: " ".join(numbers[0].split()), text) + "\n")
    return path


def to_json(parity: Parity, *, artifact: str, drawn: Path | None = None) -> dict[str, Any]:
    """The document of `MODEL.parity.json`; keys may be added. Values that are not finite become null."""
    worst = None
    if parity.worst is not None:
        facts = {key: value for key, value in vars(parity.worst).items() if key != "image"}
        worst = {**facts, "drawn": drawn.name if drawn else None}
    document = {
        "schema_version": SCHEMA_VERSION,
        "artifact": artifact,
        "passed": parity.passed,
        "precision": parity.precision,
        "backend": parity.backend,
        "failures": parity.failures,
        "notes": parity.notes,
        "worst": worst,
        "ap": None if parity.ap is None else {**asdict(parity.ap), "difference": parity.ap.difference},
        "raw_outputs": {**_measured(parity.raw), "outputs": _raw_summary(parity.raw.rows)},
        "post_processing": {**_measured(parity.post), "cases": _cases(parity.post.rows)},
        "end_to_end": {**_measured(parity.end), "pictures": _cases(parity.end.rows)},
        "tolerance": {"raw_outputs_and_end_to_end": asdict(parity.tolerance), "post_processing": asdict(POST)},
        "environment": environment(),
        "seconds": round(parity.seconds, 1),
    }
    result: dict[str, Any] = plain(document)
    return result


def _measured(layer: Layer[RawRow] | Layer[MatchRow]) -> dict[str, Any]:
    """Whether the layer passed, why it was not measured, and at which heights, widths and batch sizes it was."""
    shapes = sorted({(*row.size, row.batch) for row in layer.rows})
    return {"passed": not layer.failures, "not_measured": layer.skipped, "height_width_batch": shapes}


def _raw_summary(rows: Sequence[RawRow]) -> list[dict[str, Any]]:
    """Each raw output with its worst errors over all input and batch sizes."""
    return [
        {
            "output": name,
            "relative": _round(max(row.relative for row in group)),
            "largest": _round(max(row.largest for row in group)),
        }
        for name, group in _group_by(rows, lambda row: row.output)
    ]


def _cases(rows: Sequence[MatchRow]) -> list[dict[str, Any]]:
    """Each case or image, summed over all input sizes, batch sizes and positions in the batch."""
    return [{"case": name, **_sums(group)} for name, group in _group_by(rows, lambda row: row.case)]


def _sums(rows: Sequence[MatchRow]) -> dict[str, Any]:
    matches = [row.match for row in rows]
    px = np.concatenate([match.px for match in matches])
    reasons = [item.reason for match in matches for item in match.unmatched if item.reason is not None]
    return {
        "times": len(rows),
        "reference": sum(match.reference for match in matches),
        "exported": sum(match.exported for match in matches),
        "matched": sum(match.matched for match in matches),
        "excused": {reason: reasons.count(reason) for reason in sorted(set(reasons))},
        "unexplained": sum(len(match.unexplained) for match in matches),
        "same_order": all(match.same_order for match in matches),
        "not_converged": sum(not row.converged for row in rows),
        "max_px": _round(float(px.max(initial=0.0))),
        "median_px": _round(float(np.median(px)) if px.size else 0.0),
        "max_score": _round(max(match.max_score for match in matches)),
    }


def _group_by(rows: Iterable[Any], key: Any) -> list[tuple[str, list[Any]]]:
    """Rows grouped by a key, in order of first appearance."""
    order = {name: position for position, name in enumerate(dict.fromkeys(key(row) for row in rows))}
    ordered = sorted(rows, key=lambda row: order[key(row)])
    return [(name, list(group)) for name, group in groupby(ordered, key=key)]


def environment() -> dict[str, Any]:
    """The environment of the measurement: package versions, processor, number of cores."""
    return {
        "fcos": __version__,
        **versions(PACKAGES),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": processor(),
        "cores": os.cpu_count(),
    }


def _round(value: float) -> float:
    return float(f"{value:.3g}")


# --- stderr and the drawing ------------------------------------------------------------------------------------------


def print_parity(parity: Parity, *, more: str) -> None:
    """Print a table of measured and allowed differences, the failures and the largest difference on stderr.

    more: where the failures are that are too many to print.
    """
    rows = [*_raw_lines(parity), *_match_lines(parity.post, POST), *_match_lines(parity.end, parity.tolerance)]
    if parity.ap is not None:
        difference, most = f"{parity.ap.difference:+.4f}", f"{parity.tolerance.ap:g}"
        allowed = f"± {most}" if parity.precision == "fp32" else f"≥ -{most}"
        allowed = allowed if parity.ap.judges(parity.precision) else "reported"
        rows.append(("AP", f"{parity.ap.images} images", "difference", difference, allowed))
    title = f"parity with PyTorch, {parity.precision} on {parity.backend}, {parity.seconds:.0f} s"
    table(("layer", "inputs", "quantity", "measured", "allowed"), rows, title=title)
    for note in parity.notes:
        say(f"note: {note}")
    if parity.worst is not None:
        say(_worst_line(parity.worst))
    for failure in parity.failures[:MAX_FAILURES]:
        say(f"failed: {failure}", style="red")
    if len(parity.failures) > MAX_FAILURES:
        say(f"failed: and {len(parity.failures) - MAX_FAILURES} more, {more}")


Line = tuple[str, str, str, str, str]


def _raw_lines(parity: Parity) -> list[Line]:
    layer = parity.raw
    if layer.skipped is not None:
        return [(layer.name, "–", "not measured", layer.skipped, "")]
    batches = len({(row.size, row.batch) for row in layer.rows})
    lines = []
    for branch, label in BRANCHES.items():
        rows = [row for row in layer.rows if row.output.startswith(f"{branch}_")]
        if rows:
            worst = max(rows, key=lambda row: row.relative)
            level = worst.output.partition("_")[2].upper()
            measured = f"{worst.relative:.1e} ({level})"
            allowed = "reported" if parity.tolerance.raw is None else f"{parity.tolerance.raw:g}"
            lines.append((layer.name, f"{batches} batches", f"{label}, relative error", measured, allowed))
    return lines


def _match_lines(layer: Layer[MatchRow], tolerance: Tolerance) -> list[Line]:
    if layer.skipped is not None:
        return [(layer.name, "–", "not measured", layer.skipped, "")]
    if not layer.rows:
        return []
    sums, inputs = _sums(layer.rows), f"{len(layer.rows)} images"
    if tolerance.sure:
        matched, missing = count_sure(layer.rows, tolerance.sure)
        quantity, measured = f"matched, scores ≥ {tolerance.sure:g}", f"{matched} of {matched + missing}"
    else:
        excused = sum(sums["excused"].values())
        quantity, measured = "matched", f"{sums['matched']} of {max(sums['reference'], sums['exported'])}"
        measured += f", {excused} excused" if excused else ""
    lines = [(layer.name, inputs, quantity, measured, f"{tolerance.matched:.0%}")]
    for key, what, unit, allowed in (
        ("max_px", "largest box difference", " px", tolerance.max_px),
        ("median_px", "median box difference", " px", tolerance.median_px),
        ("max_score", "largest score difference", "", tolerance.max_score),
    ):
        if allowed is not None:
            lines.append((layer.name, inputs, what, f"{sums[key]:.1e}{unit}", f"{allowed:g}{unit}"))
    return lines


def _worst_line(worst: Worst) -> str:
    if worst.px is not None:
        return (
            f"largest difference: {worst.px:.2g} px, {worst.at}: {worst.label} {worst.reference_score:.4f} at "
            f"{_edges(worst.reference_box)}, exported {worst.exported_score:.4f} at {_edges(worst.exported_box)}"
        )
    side = "the exported model" if worst.reference_box is None else "the reference"
    score = worst.exported_score if worst.reference_score is None else worst.reference_score
    box = worst.exported_box if worst.reference_box is None else worst.reference_box
    return f"largest difference: only {side} finds {worst.label} {score:.4f} at {_edges(box)}, {worst.at}"


def _edges(box: tuple[float, ...] | None) -> str:
    return "nowhere" if box is None else f"[{', '.join(f'{edge:.2f}' for edge in box)}]"


def draw_worst_match(worst: Worst, path: Path) -> Path | None:
    """Draw the worst detection over the network input, enlarged. Returns None if it has no image.

    The boxes of the reference and of the exported model have two different colours.
    """
    if worst.image is None:
        return None
    canvas = Image.fromarray(worst.image)
    scale = max(1.0, DRAWING_SIDE / max(canvas.size))
    canvas = canvas.resize((round(canvas.width * scale), round(canvas.height * scale)), Image.Resampling.BICUBIC)
    sides = ((0, worst.reference_box, worst.reference_score), (1, worst.exported_box, worst.exported_score))
    present = [(side, box, score) for side, box, score in sides if box is not None and score is not None]
    detections = Detections(
        np.array([box for _, box, _ in present], np.float32) * np.float32(scale),
        np.array([score for _, _, score in present], np.float32),
        np.array([side for side, _, _ in present], np.int64),
    )
    labels = ClassTable.from_names((f"PyTorch: {worst.label}", f"exported: {worst.label}"))
    save_image(path, draw(np.asarray(canvas), detections, labels))
    return path
