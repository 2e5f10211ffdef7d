"""Convert a foreign FCOS checkpoint to an artifact.

What the file does not state is requested from the user, tensors that do not fit are listed, and changes and assumptions
are recorded in the notes.
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
from fcos_cli.convert.backbones import (
    WITHOUT_1X1,
    BackboneInfo,
    deformable_parts,
    identify_backbone,
    refuse_unsupported,
)
from fcos_cli.convert.check_keys import check_fit, describe_towers
from fcos_cli.convert.checkpoint_metadata import CheckpointMetadata
from fcos_cli.convert.dialect import choose_preset, find_family, read_metadata
from fcos_cli.convert.families import FAMILIES, Family
from fcos_cli.convert.labels import class_rows
from fcos_cli.convert.mmdet_config import TEST_CFG
from fcos_cli.convert.read import read_checkpoint
from fcos_cli.convert.towers import identify_pyramid, identify_towers
from fcos_cli.errors import ModelError
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.config import REALTIME_STRIDES, ModelConfig
from fcos_cli.model.presets import PRESETS, REALTIME_SIZE

_CLASSES = "head.classification_head.cls_logits"


@dataclass(frozen=True)
class Converted:
    """Result of a conversion.

    family, preset: where the file comes from. notes: what was changed, dropped or assumed, for the user.
    """

    artifact: Artifact
    family: str
    preset: str
    notes: tuple[str, ...]


def convert(
    path: Path,
    *,
    source: str = "auto",
    preset: str | None = None,
    names: Sequence[str] | str | None = None,
    size: tuple[int, int] | None = None,
) -> Converted:
    """Convert a foreign checkpoint.

    source: a key of FAMILIES, or `auto`. names: as for `labels.class_rows`. size: shorter side of the network's input
    and limit of the longer one, in pixels; None for those of the file, or else of the published models.

    Raises UsageError if the user's choices are missing or contradict the file, ModelError if it cannot be converted.
    """
    checkpoint = read_checkpoint(path)
    refuse_unsupported(checkpoint.weights, where=path)
    family_name = find_family(checkpoint.weights, requested=source, where=path)
    family = FAMILIES[family_name]
    metadata = read_metadata(family, checkpoint, requested=preset)
    if metadata.unsupported is not None:
        raise ModelError(metadata.unsupported, where=path, remedy="use a model whose config is like a published one's")
    preset_name = choose_preset(family, metadata, requested=preset, where=path)
    weights, unknown, ignored = _rename(checkpoint.weights, family)
    backbone = identify_backbone(weights, where=path)
    biased = not corrections.add_tower_biases(weights)
    corrections.reshape_scales(weights)
    corrections.add_counters(weights)
    config, bgr = _config(weights, backbone, family, preset_name, metadata, where=path)
    rows = _class_rows(weights)
    check_fit(weights, unknown, config, rows=rows, names=family.names_with(backbone.name), where=path)

    without_eps = family.norm_without_eps and not backbone.own_norm
    if without_eps:
        corrections.subtract_eps_from_variances(weights, config.backbone_norm_eps)
    if bgr:
        corrections.reverse_input_channels(weights, backbone.stem)
    classes, selected = class_rows(rows, names or metadata.names, rows_are_ids=family.rows_are_ids, where=path)
    corrections.select_class_rows(weights, selected)

    geometry, input_note = _geometry(preset_name, config, requested=size, stated=metadata.size)
    notes = [
        f"{family.title}, preset {preset_name}" + (f" (from {metadata.evidence})" if metadata.evidence else ""),
        f"backbone {config.backbone}, {config.channels} channels, {describe_towers(config)}",
        f"class layer: {rows} rows, {len(classes)} classes, {classes.names[0]} to {classes.names[-1]}",
        input_note,
        *_changes(metadata, config, bgr=bgr, biased=biased, without_eps=without_eps),
    ]
    if dropped := _grouped([*checkpoint.dropped, *ignored]):
        notes.append(f"dropped: {', '.join(dropped)}")
    artifact = Artifact(
        weights=weights,
        config=config,
        classes=classes,
        geometry=geometry,
        provenance={
            "fcos_cli": __version__,
            "converted_from": {"file": path.name, "sha256": _hash(path), "family": family_name, "preset": preset_name},
            "conversion": notes,
        },
    )
    return Converted(artifact, family_name, preset_name, tuple(notes))


def _rename(foreign: dict[str, Tensor], family: Family) -> tuple[dict[str, Tensor], list[str], tuple[str, ...]]:
    """Return the float32 tensors by native name, the unknown tensors, and the dropped names."""
    weights: dict[str, Tensor] = {}
    unknown, dropped = [], []
    names = family.names_with(*family.bodies)
    for key, value in foreign.items():
        native = names.to_native(key)
        if re.fullmatch(family.dropped, key):
            dropped.append(key)
        elif native is None or native in weights:
            unknown.append(f"{key} {list(value.shape)}")
        else:
            weights[native] = value.float()
    return weights, unknown, tuple(dropped)


def _config(
    weights: dict[str, Tensor],
    backbone: BackboneInfo,
    family: Family,
    preset_name: str,
    metadata: CheckpointMetadata,
    *,
    where: Path,
) -> tuple[ModelConfig, bool]:
    """Return the network's config, and whether it takes BGR input.

    Values come from the preset, then the backbone, then the file's metadata.
    """
    preset = PRESETS[preset_name]
    lateral = weights.get("backbone.fpn.inner_blocks.0.0.weight")
    values: dict[str, Any] = {
        **preset.model,
        "backbone": backbone.name,
        "channels": 256 if lateral is None else lateral.shape[0],
        **identify_towers(weights),
        **identify_pyramid(weights, realtime=family.realtime),
        "stride_in_1x1": preset.model.get("stride_in_1x1", False) and backbone.caffe,
        **deformable_parts(weights),
        **family.by_backbone.get(backbone.name, {}),
        **metadata.model,
    }
    if backbone.name in WITHOUT_1X1:  # where mmdetection ignores `style`
        values["stride_in_1x1"] = False
    bgr = bool(values.pop("bgr", family.bgr)) if metadata.bgr is None else metadata.bgr
    values.pop("bgr", None)
    conventions = replace(preset.conventions, **metadata.conventions)
    if family.optional is not None and not any(key.startswith(family.optional) for key in weights):
        conventions = replace(conventions, scales=False)
    values["ranges"] = values["ranges"][: len(values["strides"]) - 1]
    try:
        return ModelConfig(**values, conventions=conventions), bgr
    except ValidationError as error:
        problem = error.errors()[0]
        what = f"the network in this file is not supported: {problem['msg']}"
        remedy = "use a network whose towers have GroupNorm with 32 groups and a multiple of 32 channels"
        if (key := str(next(iter(problem["loc"]), ""))) in metadata.model:
            name = TEST_CFG.get(key, key)
            what = f"the file has {name} = {metadata.model[key]}, which is not supported: {problem['msg']}"
            remedy = f"change {name} in the file (mmdetection has it in the text of its config, in `meta`)"
        raise ModelError(what, where=where, remedy=remedy) from error


def _geometry(
    preset_name: str, config: ModelConfig, *, requested: tuple[int, int] | None, stated: tuple[int, int] | None
) -> tuple[dict[str, Any], str]:
    """The preset's resize rule, padded with the mean colour: 0 when normalized. And a note about the size.

    requested, stated: the size that the user and the file give, if any.
    """
    geometry = {**PRESETS[preset_name].geometry, "pad_value": list(config.mean)}
    usual = REALTIME_SIZE if config.strides == REALTIME_STRIDES else geometry["size"]
    short, long = geometry["size"] = list(requested or stated or usual)
    origin = "from the file" if stated else "that of the published models; not stated in the file, --size sets another"
    note = f"input: shorter side {short} px, longer at most {long} ({'from --size' if requested else origin})"
    return geometry, note


def _class_rows(weights: dict[str, Tensor]) -> int:
    layer = weights.get(f"{_CLASSES}.weight", weights.get(f"{_CLASSES}.bias"))
    return 1 if layer is None or layer.ndim == 0 else layer.shape[0]


def _changes(
    metadata: CheckpointMetadata, config: ModelConfig, *, bgr: bool, biased: bool, without_eps: bool
) -> list[str]:
    """Describe the corrections and assumptions."""
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (config.mean, config.std))
    pixels = f"RGB mean {mean}, standard deviation {std}, trained on {'BGR' if bgr else 'RGB'} input"
    origin = "from the file" if "mean" in metadata.model else "from the preset; not stated in the file"
    if "mean" in metadata.model and metadata.bgr is None:
        origin = f"from the file, except for {'BGR' if bgr else 'RGB'}, which is from the preset"
    stride = "stride in the 1x1 convolutions" if config.stride_in_1x1 else "stride in the 3x3 convolutions"
    notes = [f"pixels: {pixels} ({origin})"]
    if config.backbone.startswith("res") and config.backbone not in WITHOUT_1X1:
        notes += [f"{stride} (from the {'file' if 'stride_in_1x1' in metadata.model else 'preset'})"]
    notes += [f"deformable convolutions: {text}"] if (text := _deformable(config)) else []
    notes += ["first convolution: input channels reversed from BGR to RGB"] if bgr else []
    notes += ["frozen BatchNorm: epsilon subtracted from the variances"] if without_eps else []
    notes += [] if biased else ["towers: zero biases added to the convolutions"]
    notes += ["boxes are inclusive: 1 px is added to the results"] if config.conventions.box_ends == "inclusive" else []
    if config.strides == REALTIME_STRIDES:
        notes += ["three levels, P3 to P5"]
    return notes


def _deformable(config: ModelConfig) -> str:
    """Where the network has deformable convolutions, or an empty string."""
    stages = ", ".join(f"layer{stage}" for stage in config.deformable_stages)
    return " and ".join(filter(None, (stages, "the last of each tower" if config.deformable_tower else "")))


def _grouped(names: list[str]) -> list[str]:
    """Return the names; those with the same last component are replaced by a count."""
    counts: dict[str, int] = {}
    for name in names:
        suffix = name.rpartition(".")[2]
        counts[suffix] = counts.get(suffix, 0) + 1
    return [suffix if count == 1 else f"{count} {suffix}" for suffix, count in counts.items()]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
