"""A model file in words: `fcos info`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from fcos_cli.config import flatten
from fcos_cli.console import emit_json, say, table
from fcos_cli.model.artifact import Artifact


def describe(artifact: Artifact, *, path: Path, as_json: bool) -> None:
    """Print the artifact's facts: a table for people, or one JSON document."""
    facts: dict[str, Any] = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "parameters": sum(weight.numel() for weight in artifact.weights.values()),
        "classes": artifact.classes.to_json(),
        "geometry": artifact.geometry,
        "threshold": artifact.threshold,
        "class_thresholds": artifact.class_thresholds,
        "model": artifact.config.model_dump(mode="json", exclude={"conventions"}),
        "conventions": asdict(artifact.config.conventions),
        "provenance": artifact.provenance,
    }
    if as_json:
        emit_json(facts)
        return
    say(f"{path} ({facts['bytes'] / 1e6:.1f} MB, {facts['parameters'] / 1e6:.2f} M parameters)")
    limits = artifact.class_thresholds or (artifact.threshold,) * len(artifact.classes)
    table(
        ("class", "data-set id", "threshold"),
        [(n, i, t) for n, i, t in zip(artifact.classes.names, artifact.classes.ids, limits, strict=True)],
    )
    parts = ("geometry", "model", "conventions", "provenance")
    table(("fact", "value"), [(k, str(v)) for k, v in flatten({part: facts[part] for part in parts}).items()])
