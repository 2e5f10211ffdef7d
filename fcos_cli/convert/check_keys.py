"""Check that all tensors of a converted checkpoint fit the network, and list every one that does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fcos_cli.convert.key_map import KeyMap
from fcos_cli.errors import ModelError
from fcos_cli.model.config import ModelConfig
from fcos_cli.model.fcos import FCOS


def check_fit(
    weights: Mapping[str, Tensor], unknown: Sequence[str], config: ModelConfig, *, rows: int, names: KeyMap, where: Path
) -> None:
    """Raise ModelError listing all missing, unknown and misshapen tensors by the names in the file.

    weights: tensors by native name. unknown: file names of tensors that have no native name. rows: of the class layer.
    """
    with torch.device("meta"):
        expected = FCOS(config, classes=rows).state_dict()
    file_names = {key: name or key for key, name in names.to_all_foreign({**expected, **weights}).items()}
    problems = {
        "missing": [f"{file_names[key]} {_shape(expected[key])}" for key in expected if key not in weights],
        "unknown": [*unknown, *(f"{file_names[key]} {_shape(weights[key])}" for key in weights if key not in expected)],
        "misshapen": [
            f"{file_names[key]} {_shape(weights[key])}, expected {_shape(expected[key])}"
            for key in expected
            if key in weights and weights[key].shape != expected[key].shape
        ],
    }
    if not any(problems.values()):
        return
    counts = ", ".join(f"{len(keys)} {kind}" for kind, keys in problems.items() if keys)
    raise ModelError(
        f"the file does not fit an FCOS with backbone {config.backbone}, {config.channels} channels and "
        f"{describe_towers(config)}: {counts}",
        where=where,
        remedy=_advice(problems, weights),
        details=[
            line
            for kind, keys in problems.items()
            if keys
            for line in (f"{kind} ({len(keys)}):", *(f"  {key}" for key in sorted(keys)))
        ],
    )


def describe_towers(config: ModelConfig) -> str:
    """How many convolutions and which norms the towers have, in words."""
    shared = f"{config.shared_convs} convolutions in a tower shared by both branches"
    own = f"{config.convs} convolutions per tower"
    parts = [own] if config.convs else []
    parts += [shared] if config.shared_convs else []
    norms = {
        "group": "",
        "batch": ", with BatchNorm",
        "batch-per-level": ", with a BatchNorm per level",
        "none": ", without norm",
    }
    return " and ".join(parts) + norms[config.norm]


def _advice(problems: Mapping[str, list[str]], weights: Mapping[str, Tensor]) -> str:
    if not any(key.startswith("backbone.fpn.extra_blocks.") for key in weights):
        return "use a model with levels P3 to P7; models with three levels are supported in AdelaiDet's files"
    if not any(".bbox_ctrness." in key for key in weights):
        return "use an FCOS checkpoint; a detector without a centerness branch is not FCOS"
    if any(key.endswith(".offset.weight") and tuple(value.shape[:1]) != (27,) for key, value in weights.items()):
        return "use deformable convolutions of version 2, with masks, and one deformable group: 27 channels of offsets"
    if problems["missing"] and not problems["unknown"]:
        return "download or save the complete model again; the file may be truncated or hold only the backbone"
    return "a modified network cannot be converted; if it was not modified, report this error with the list above"


def _shape(value: Tensor) -> str:
    return str(list(value.shape))
