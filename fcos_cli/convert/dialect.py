"""Dialect: whose file it is, and which of that family's presets it speaks. Never guessed: metadata, or asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from fcos_cli.convert.checkpoint_metadata import CheckpointMetadata
from fcos_cli.convert.families import FAMILIES, HOW_TO_KNOW, Family
from fcos_cli.convert.mmdet_config import metadata_of
from fcos_cli.convert.read import Checkpoint
from fcos_cli.errors import ModelError, UsageError


def find_family(keys: Iterable[str], *, asked: str, where: Path) -> str:
    """The family whose names the tensors have. asked: what --from says, `auto` or a family.

    Raises ModelError for names of no family, UsageError where --from says another than the file.
    """
    if asked not in ("auto", *FAMILIES):
        raise UsageError(f"unknown --from {asked!r}", remedy=f"use one of auto, {', '.join(FAMILIES)}")
    names = list(keys)
    found = [name for name, family in FAMILIES.items() if any(re.match(family.signature, key) for key in names)]
    if len(found) != 1:
        some = "\n    ".join(sorted(names)[:10])
        raise ModelError(
            "the tensors' names are those of no known FCOS",
            where=f"{where}, {len(names)} tensors, the first of them:\n    {some}",
            remedy=f"known are the files of {', '.join(family.title for family in FAMILIES.values())}",
        )
    if asked not in ("auto", found[0]):
        raise UsageError(
            f"--from {asked} contradicts the file, whose tensors have the names of {FAMILIES[found[0]].title}",
            where=where,
            remedy=f"leave --from out, or say --from {found[0]}",
        )
    return found[0]


def read_metadata(family: Family, checkpoint: Checkpoint) -> CheckpointMetadata:
    """What the file says of its dialect by its config, its towers, and the pixels it carries."""
    metadata = metadata_of(checkpoint.meta)
    biased = any(re.match(r"bbox_head\.(cls|reg)_convs\.\d+\.conv\.bias$", key) for key in checkpoint.weights)
    if family.without_bias is not None and metadata.preset is None and not biased:
        metadata = metadata.with_(preset=family.without_bias, why="the missing bias of its towers")
    return _with_pixels(metadata, checkpoint.weights)


def _with_pixels(metadata: CheckpointMetadata, weights: Mapping[str, Tensor]) -> CheckpointMetadata:
    """Mean and deviation that detectron2's models carry, in the order of their channels."""
    mean, std = weights.get("pixel_mean"), weights.get("pixel_std")
    if mean is None or std is None or mean.numel() != 3 or std.numel() != 3:
        return metadata
    values, deviations = ([round(float(v), 4) for v in tensor.flatten()] for tensor in (mean, std))
    if values[0] == values[2]:
        return metadata  # it may be of either order
    bgr = values[0] < values[2]  # of every published mean red is the largest
    turn = slice(None, None, -1) if bgr else slice(None)
    return metadata.with_(model={"mean": tuple(values[turn]), "std": tuple(deviations[turn])}, bgr=bgr)


def choose_preset(family: Family, metadata: CheckpointMetadata, *, asked: str | None, where: Path) -> str:
    """The preset the file speaks. asked: --preset. Raises UsageError where nobody says it, or both say otherwise."""
    if asked is not None and asked not in family.presets:
        raise UsageError(
            f"--preset {asked} is none of {family.title}'s, whose file this is",
            where=where,
            remedy=f"use {' or '.join(family.presets)}",
        )
    if metadata.preset is not None and asked not in (None, metadata.preset):
        raise UsageError(
            f"--preset {asked} contradicts the file: {metadata.why} says {metadata.preset}",
            where=where,
            remedy=f"leave --preset out, or say --preset {metadata.preset}",
        )
    preset = asked or metadata.preset or (family.presets[0] if len(family.presets) == 1 else None)
    if preset is None:
        raise UsageError(
            f"this file of {family.title} may speak {' or '.join(family.presets)}; its tensors do not tell which, and "
            "the wrong one gives wrong boxes or scores",
            where=where,
            remedy="say which:\n    "
            + "\n    ".join(f"--preset {choice}: {HOW_TO_KNOW[choice]}" for choice in family.presets),
        )
    return preset
