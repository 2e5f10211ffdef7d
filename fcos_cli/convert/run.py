"""From a foreign FCOS checkpoint to an artifact of ours.

Reads top to bottom: tensors, family, dialect, names, body, shapes, corrections, class rows. What the file cannot tell
is asked for; what does not fit is listed; what was assumed or changed is said in the notes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from fcos_cli import __version__
from fcos_cli.convert import corrections
from fcos_cli.convert.backbones import Body, find_body, refuse_unsupported
from fcos_cli.convert.check_keys import check_fit
from fcos_cli.convert.checkpoint_metadata import CheckpointMetadata
from fcos_cli.convert.dialect import choose_preset, find_family, read_metadata
from fcos_cli.convert.families import FAMILIES, Family
from fcos_cli.convert.labels import class_rows
from fcos_cli.convert.read import read_checkpoint
from fcos_cli.errors import ModelError
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.config import ModelConfig
from fcos_cli.model.presets import PRESETS

_CLASSES = "head.classification_head.cls_logits"


@dataclass(frozen=True)
class Converted:
    """family, preset: whose file it was and what it speaks. notes: what was changed, dropped or assumed, for people."""

    artifact: Artifact
    family: str
    preset: str
    notes: tuple[str, ...]


def convert(
    path: Path, *, source: str = "auto", preset: str | None = None, names: Sequence[str] | str | None = None
) -> Converted:
    """Read a foreign checkpoint. source: a family of FAMILIES, or `auto`. names: as `labels.class_rows` takes them.

    Raises UsageError for what the file cannot tell or contradicts, ModelError for a file that cannot be converted.
    """
    checkpoint = read_checkpoint(path)
    refuse_unsupported(checkpoint.weights, where=path)
    family_name = find_family(checkpoint.weights, asked=source, where=path)
    family = FAMILIES[family_name]
    metadata = read_metadata(family, checkpoint)
    if metadata.refusal is not None:
        raise ModelError(metadata.refusal, where=path)
    preset_name = choose_preset(family, metadata, asked=preset, where=path)
    weights, unknown, silent = _rename(checkpoint.weights, family)
    body = find_body(weights, where=path)
    biased = not corrections.give_towers_a_bias(weights)
    corrections.give_scales_a_shape(weights)
    config, bgr = _config(weights, body, family, preset_name, metadata, where=path)
    rows = _rows(weights)
    check_fit(weights, unknown, config, rows=rows, names=family.names, where=path)

    if family.norm_without_eps:
        corrections.take_eps_from_variance(weights, config.backbone_norm_eps)
    if bgr:
        corrections.turn_channels_round(weights)
    classes, kept = class_rows(rows, names or metadata.names, rows_are_ids=family.rows_are_ids, where=path)
    corrections.gather_classes(weights, kept)

    notes = [
        f"{family.title}, preset {preset_name}" + (f" ({metadata.why} says so)" if metadata.why else ""),
        f"body {config.backbone}, {config.channels} channels, {config.convs} convolutions per tower",
        f"class layer: {rows} rows, {len(classes)} classes, {classes.names[0]} to {classes.names[-1]}",
        *_changes(family, metadata, config, bgr=bgr, biased=biased),
    ]
    if dropped := _grouped([*checkpoint.dropped, *silent]):
        notes.append(f"dropped: {', '.join(dropped)}")
    artifact = Artifact(
        weights=weights,
        config=config,
        classes=classes,
        # padded with the colour that normalisation turns to zero
        geometry={**PRESETS[preset_name].geometry, "pad_value": list(config.mean)},
        provenance={
            "fcos_cli": __version__,
            "converted_from": {"file": path.name, "sha256": _hash(path), "family": family_name, "preset": preset_name},
            "conversion": notes,
        },
    )
    return Converted(artifact, family_name, preset_name, tuple(notes))


def _rename(theirs: dict[str, Tensor], family: Family) -> tuple[dict[str, Tensor], list[str], tuple[str, ...]]:
    """Tensors by our names, float32; and their names of those that have none of ours, and of those that say nothing."""
    weights: dict[str, Tensor] = {}
    unknown, dropped = [], []
    for key, value in theirs.items():
        ours = family.names.to_ours(key)
        if re.fullmatch(family.dropped, key):
            dropped.append(key)
        elif ours is None or ours in weights:
            unknown.append(f"{key} {list(value.shape)}")
        else:
            weights[ours] = value.float()
    return weights, unknown, tuple(dropped)


def _config(
    weights: dict[str, Tensor],
    body: Body,
    family: Family,
    preset_name: str,
    metadata: CheckpointMetadata,
    *,
    where: Path,
) -> tuple[ModelConfig, bool]:
    """The network's config, and whether it sees blue first: the preset's, the body's, then what the file tells."""
    preset = PRESETS[preset_name]
    lateral = weights.get("backbone.fpn.inner_blocks.0.0.weight")
    tower = [key for key in weights if re.fullmatch(r"head\.classification_head\.conv\.\d+\.weight", key)]
    values: dict[str, Any] = {
        **preset.model,
        "backbone": body.name,
        "channels": 256 if lateral is None else lateral.shape[0],
        "convs": sum(weights[key].ndim == 4 for key in tower) or preset.model["convs"],
        "stride_in_1x1": preset.model.get("stride_in_1x1", False) and body.caffe,
        **family.by_body.get(body.name, {}),
        **metadata.model,
    }
    bgr = bool(values.pop("bgr", family.bgr)) if metadata.bgr is None else metadata.bgr
    values.pop("bgr", None)
    conventions = replace(preset.conventions, **metadata.conventions)
    if family.optional is not None and not any(key.startswith(family.optional) for key in weights):
        conventions = replace(conventions, scales=False)
    try:
        return ModelConfig(**values, conventions=conventions), bgr
    except ValidationError as error:
        raise ModelError(
            f"the file's network is none that fcos builds: {error.errors()[0]['msg']}",
            where=where,
            remedy="towers have GroupNorm with 32 groups, and channels that 32 divides",
        ) from error


def _rows(weights: dict[str, Tensor]) -> int:
    layer = weights.get(f"{_CLASSES}.weight", weights.get(f"{_CLASSES}.bias"))
    return 1 if layer is None or layer.ndim == 0 else layer.shape[0]


def _changes(
    family: Family, metadata: CheckpointMetadata, config: ModelConfig, *, bgr: bool, biased: bool
) -> list[str]:
    """What was corrected and what was assumed, in words."""
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (config.mean, config.std))
    pixels = f"RGB mean {mean}, deviation {std}, trained {'blue' if bgr else 'red'} first"
    said = metadata.bgr is not None and "mean" in metadata.model
    stride = "stride in the 1x1 convolutions" if config.stride_in_1x1 else "stride in the 3x3 convolutions"
    notes = [f"pixels: {pixels} ({'the file says so' if said else 'of the preset; the file does not say'})"]
    notes += [f"{stride} ({'the file says so' if 'stride_in_1x1' in metadata.model else 'of the preset'})"]
    notes += ["first convolution: input channels turned round, red first"] if bgr else []
    notes += ["frozen BatchNorm: epsilon taken from the variances"] if family.norm_without_eps else []
    notes += [] if biased else ["towers: zeros for the bias that their convolutions lack"]
    notes += ["boxes are inclusive: answers get 1 px more"] if config.conventions.box_ends == "inclusive" else []
    return notes


def _grouped(names: list[str]) -> list[str]:
    """Names, those with a common last part counted instead of listed."""
    counts: dict[str, int] = {}
    for name in names:
        last = name.rpartition(".")[2]
        counts[last] = counts.get(last, 0) + 1
    return [last if count == 1 else f"{count} {last}" for last, count in counts.items()]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
