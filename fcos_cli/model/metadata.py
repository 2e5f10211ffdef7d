"""The facts stored in every kind of model file, as JSON strings by key. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fcos_cli.errors import ModelError
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.conventions import Conventions

FORMAT_VERSION = 1
MAX_CLASSES = 100_000  # four times as many as any data set has

KEYS = ("format_version", "classes", "geometry", "conventions", "thresholds", "model", "provenance")
"""In every file; exported ones have more."""

FOREIGN_WEIGHTS = "it was not written by fcos; if another project wrote it, use fcos convert FILE"
"""Remedy for a .safetensors file that lacks a fact."""


def read_facts(metadata: Mapping[str, str], *more: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parse the facts shared by weights and exports. Return them as keyword arguments, and `more`, geometry and model
    raw.

    Call it within `metadata_errors`. Raises whatever parsing raises.
    """
    version = json.loads(metadata["format_version"])
    if isinstance(version, bool) or not isinstance(version, (int, float)) or not version >= 1:
        raise ValueError(f"format_version is {version!r:.40}, not a number from 1")
    if version > FORMAT_VERSION:  # checked first: anything else may differ in a newer file
        raise ModelError(
            f"the file has format version {version:.20g}; this program reads up to {FORMAT_VERSION}",
            remedy="install a newer version of fcos-cli",
        )
    raw = {key: json.loads(metadata[key]) for key in (*KEYS, *more) if key in metadata or key not in KEYS[-2:]}
    classes, per_class = ClassTable.from_json(raw["classes"]), raw["thresholds"]["per_class"]
    for key in ("geometry", "model", "provenance"):
        if not isinstance(raw.get(key, {}), dict):
            raise ValueError(f"{key} is not a table")
    _check_classes(classes)
    if per_class is not None and len(per_class) != len(classes):
        raise ValueError(f"{len(per_class)} thresholds for {len(classes)} classes")
    shared = {
        "classes": classes,
        "threshold": share(raw["thresholds"]["global"], "threshold"),
        "class_thresholds": None if per_class is None else tuple(share(value, "threshold") for value in per_class),
        "provenance": raw.get("provenance", {}),
    }
    return shared, {**raw, "conventions": Conventions.from_json(raw["conventions"])}


def share(value: Any, name: str) -> float:
    """The value as a number from 0 to 1. Raises ValueError."""
    number = float(value)
    if not 0 <= number <= 1:  # NaN fails this, too
        raise ValueError(f"{name} is {number:g}, not from 0 to 1")
    return number


def _check_classes(classes: ClassTable) -> None:
    if not 1 <= len(classes) <= MAX_CLASSES:
        raise ValueError(f"there are {len(classes)} classes, not 1 to {MAX_CLASSES:,}")
    if not all(-(2**63) <= number < 2**63 for number in classes.ids):
        raise ValueError("a class id does not fit into 64 bits")


@contextmanager
def metadata_errors(where: Path, *, remedy: str) -> Iterator[None]:
    """Turn parsing errors into ModelErrors that name the file. remedy: for a file that lacks a fact."""
    try:
        yield
    except ModelError as error:
        raise ModelError(error.what, where=where, remedy=error.remedy) from error
    except KeyError as error:
        raise ModelError(f"the file lacks the fact {error}", where=where, remedy=remedy) from error
    except (TypeError, ValueError, OverflowError, RecursionError, AttributeError) as error:  # json's and pydantic's too
        raise ModelError(f"the file's facts cannot be used: {error}", where=where) from error
