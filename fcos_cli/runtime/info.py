"""What `fcos info` prints about a model file or a named network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fcos_cli.console import emit_json, say, table
from fcos_cli.extras import is_installed
from fcos_cli.model.networks.named import CLASSES, NETWORKS
from fcos_cli.model.presets import preset_name
from fcos_cli.runtime.headers import Header
from fcos_cli.runtime.speed import Speed, file_speed, named_speed, with_cost


def print_info(header: Header, *, path: Path, as_json: bool, speed: bool = False) -> None:
    """Print the metadata of a model file: tables for people, or one JSON document.

    speed: also time it, which takes seconds, and count the work of an older file that does not say, if torch is there.
    """
    measured = file_speed(path) if speed else None
    if speed and header.facts.macs is None and is_installed():
        header = header._replace(facts=with_cost(header.facts))
    document = to_json(header, path=path, speed=measured)
    if as_json:
        emit_json(document)
        return
    facts = header.facts
    weights = "" if document["parameters"] is None else f", {document['parameters'] / 1e6:.2f} M parameters"
    proof = {None: "", True: ", verified against PyTorch", False: ", not verified"}[facts.verified]
    form = f", {facts.winograd} Winograd convolutions" if facts.winograd else ""
    say(f"{path} ({header.bytes / 1e6:.1f} MB{weights}, {facts.precision}{form}{proof})")
    _say_cost(facts.macs, measured)
    table(
        ("class", "data-set id", "threshold"),
        list(zip(facts.classes.names, facts.classes.ids, facts.thresholds, strict=True)),
    )
    for promise in facts.promises:
        say(f"promise: {promise}")
        say(f"  {promise.details()}")
    parts = ("geometry", "limits", "model", "preset", "conventions", "engine", "provenance")
    table(("fact", "value"), list(_rows({part: document[part] for part in parts if document[part] is not None})))


def print_network(name: str, *, as_json: bool, speed: bool = False) -> None:
    """Print a network of `NETWORKS` and its cost. speed: also time it in PyTorch, which takes seconds."""
    network = NETWORKS[name]
    measured = named_speed(network) if speed else None
    if as_json:
        cost = {"classes": CLASSES, "parameters": network.parameters, "macs": network.macs}
        timed = None if measured is None else measured.to_json()
        emit_json(
            {
                "network": name,
                "purpose": network.purpose,
                "size": network.size,
                **network.settings(),
                **cost,
                "speed": timed,
            }
        )
        return
    parameters = f"{network.parameters / 1e6:.2f} M parameters"
    say(f"{name}: {network.purpose}; at {network.size} px and with {CLASSES} classes, {parameters}")
    _say_cost(network.macs, measured)
    table(("setting", "value"), list(_rows(network.settings())))


def _say_cost(macs: int | None, speed: Speed | None) -> None:
    if macs is not None:
        say(f"{macs / 1e9:.2f} G multiplications (MACs) per image")
    if speed is not None:
        say(str(speed))


def to_json(header: Header, *, path: Path, speed: Speed | None = None) -> dict[str, Any]:
    """The `fcos info --json` document. parameters, macs: None if the file does not say. engine: only for engines.
    speed: None unless measured.
    """
    facts = header.facts
    return {
        "file": str(path),
        "format": path.suffix.lower().removeprefix("."),
        "bytes": header.bytes,
        "parameters": facts.parameters if header.parameters is None else header.parameters,
        "macs": facts.macs,
        "speed": None if speed is None else speed.to_json(),
        "precision": facts.precision,
        "winograd": facts.winograd,
        "verified": facts.verified,
        "classes": facts.classes.to_json(),
        "geometry": facts.resize.to_json(),
        "threshold": facts.threshold,
        "class_thresholds": facts.class_thresholds,
        "promises": [promise.to_json() for promise in facts.promises],
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
