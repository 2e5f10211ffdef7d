"""Find out which implementation wrote a checkpoint and which preset it follows.

The preset comes from metadata or from the user. One is assumed: for mmdetection's tensors without a config, if the
towers have no bias, as in all published files with this preset.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from fcos_cli.convert.checkpoint_metadata import CheckpointMetadata
from fcos_cli.convert.families import FAMILIES, PRESET_HINTS, Family
from fcos_cli.convert.mmdet_config import metadata_from_meta
from fcos_cli.convert.read import Checkpoint
from fcos_cli.errors import ModelError, UsageError


def find_family(keys: Iterable[str], *, requested: str, where: Path) -> str:
    """Return the family whose tensor names match `keys`. requested: `auto` or the family given by --from.

    Raises ModelError if no family matches, UsageError if --from is unknown or contradicts the file.
    """
    if requested not in ("auto", *FAMILIES):
        raise UsageError(f"unknown --from {requested!r}", remedy=f"use one of auto, {', '.join(FAMILIES)}")
    names = list(keys)
    matches = [name for name, family in FAMILIES.items() if any(re.match(family.signature, key) for key in names)]
    if len(matches) != 1:
        raise ModelError(
            "the tensor names match no known FCOS implementation",
            where=where,
            remedy=f"use a checkpoint of {', '.join(family.title for family in FAMILIES.values())}",
            details=(f"{len(names)} tensors, starting with:", *(f"  {key}" for key in sorted(names)[:10])),
        )
    if requested not in ("auto", matches[0]):
        raise UsageError(
            f"--from {requested} contradicts the file, whose tensor names are those of {FAMILIES[matches[0]].title}",
            where=where,
            remedy=f"omit --from, or use --from {matches[0]}",
        )
    return matches[0]


def read_metadata(family: Family, checkpoint: Checkpoint, *, requested: str | None) -> CheckpointMetadata:
    """Read what the checkpoint states in its config and pixel statistics; and in its tower biases, without --preset."""
    metadata = metadata_from_meta(checkpoint.meta)
    biased = any(re.match(r"bbox_head\.(cls|reg)_convs\.\d+\.conv\.bias$", key) for key in checkpoint.weights)
    if family.preset_without_bias is not None and (metadata.preset or requested) is None and not biased:
        others = " or ".join(f"--preset {name}" for name in family.presets if name != family.preset_without_bias)
        evidence = f"the towers without bias, an assumption; if it is wrong, use {others}"
        metadata = metadata.updated(preset=family.preset_without_bias, evidence=evidence)
    return _with_pixels(metadata, checkpoint.weights, family_bgr=family.bgr)


def _with_pixels(
    metadata: CheckpointMetadata, weights: Mapping[str, Tensor], *, family_bgr: bool
) -> CheckpointMetadata:
    """Add the pixel mean and standard deviation that detectron2 models store, and the channel order they imply.

    family_bgr: the order of the family's networks, for a mean that implies none.
    """
    mean, std = weights.get("pixel_mean"), weights.get("pixel_std")
    if mean is None or std is None or mean.numel() != 3 or std.numel() != 3:
        return metadata
    values, deviations = ([round(float(v), 4) for v in tensor.flatten()] for tensor in (mean, std))
    # red has the largest mean in all published models
    bgr = None if values[0] == values[2] else values[0] < values[2]
    order = slice(None, None, -1) if (family_bgr if bgr is None else bgr) else slice(None)
    return metadata.updated(model={"mean": tuple(values[order]), "std": tuple(deviations[order])}, bgr=bgr)


def choose_preset(family: Family, metadata: CheckpointMetadata, *, requested: str | None, where: Path) -> str:
    """Return the preset of the checkpoint. requested: the value of --preset.

    Raises UsageError if neither the file nor the user names a preset, or if they disagree.
    """
    if requested is not None and requested not in family.presets:
        raise UsageError(
            f"--preset {requested} is not a preset of {family.title}, which wrote this file",
            where=where,
            remedy=f"use {' or '.join(family.presets)}",
        )
    if metadata.preset is not None and requested not in (None, metadata.preset):
        raise UsageError(
            f"--preset {requested} contradicts the file: according to {metadata.evidence} it is {metadata.preset}",
            where=where,
            remedy=f"omit --preset, or use --preset {metadata.preset}",
        )
    preset = requested or metadata.preset or (family.presets[0] if len(family.presets) == 1 else None)
    if preset is None:
        raise UsageError(
            f"the preset of this {family.title} file may be {' or '.join(family.presets)}; its tensors do not show "
            "which, and the wrong one gives wrong boxes or scores",
            where=where,
            remedy="choose one:\n    "
            + "\n    ".join(f"--preset {choice}: {PRESET_HINTS[choice]}" for choice in family.presets),
        )
    return preset
