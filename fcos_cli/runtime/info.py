"""What `fcos info` prints about a model file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fcos_cli.console import emit_json, say, table
from fcos_cli.model.presets import preset_name
from fcos_cli.runtime.headers import Header


def print_info(header: Header, *, path: Path, as_json: bool) -> None:
    """Print the metadata of a model file: tables for people, or one JSON document."""
    document = to_json(header, path=path)
    if as_json:
        emit_json(document)
        return
    facts = header.facts
    weights = "" if header.parameters is None else f", {header.parameters / 1e6:.2f} M parameters"
    proof = {None: "", True: ", verified against PyTorch", False: ", not verified"}[facts.verified]
    form = f", {facts.winograd} Winograd convolutions" if facts.winograd else ""
    say(f"{path} ({header.bytes / 1e6:.1f} MB{weights}, {facts.precision}{form}{proof})")
    thresholds = facts.class_thresholds or (facts.threshold,) * len(facts.classes)
    table(
        ("class", "data-set id", "threshold"),
        list(zip(facts.classes.names, facts.classes.ids, thresholds, strict=True)),
    )
    parts = ("geometry", "limits", "model", "preset", "conventions", "engine", "provenance")
    table(("fact", "value"), list(_rows({part: document[part] for part in parts if document[part] is not None})))


def to_json(header: Header, *, path: Path) -> dict[str, Any]:
    """The `fcos info --json` document. parameters: None if only the graph knows them. engine: only for engines."""
    facts = header.facts
    return {
        "file": str(path),
        "format": path.suffix.lower().removeprefix("."),
        "bytes": header.bytes,
        "parameters": header.parameters,
        "precision": facts.precision,
        "winograd": facts.winograd,
        "verified": facts.verified,
        "classes": facts.classes.to_json(),
        "geometry": facts.resize.to_json(),
        "threshold": facts.threshold,
        "class_thresholds": facts.class_thresholds,
        "limits": {
            "score": facts.score_threshold,
            "nms_iou": facts.nms_iou,
            "max_detections": facts.max_detections,
        },
        "model": facts.model,
        "preset": preset_name(facts.conventions),
        "conventions": asdict(facts.conventions),
        "engine": header.engine,
        "provenance": facts.provenance,
    }


def _rows(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """{"model": {"channels": 64}} → ("model.channels", "64")."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
