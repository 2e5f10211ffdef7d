"""Do all tensors of a foreign checkpoint fit the network they are meant for? Every one that does not is named."""

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
    """Raises ModelError listing all that is missing, unknown or of another shape, in the file's own names.

    weights: tensors by our names. unknown: their names of tensors that have no name of ours. rows: of the class layer.
    """
    with torch.device("meta"):
        wanted = FCOS(config, classes=rows).state_dict()
    theirs = {key: names.to_theirs(key) or key for key in (*wanted, *weights)}
    problems = {
        "missing": [f"{theirs[key]} {_shape(wanted[key])}" for key in wanted if key not in weights],
        "unknown": [*unknown, *(f"{theirs[key]} {_shape(weights[key])}" for key in weights if key not in wanted)],
        "misshapen": [
            f"{theirs[key]} {_shape(weights[key])}, expected {_shape(wanted[key])}"
            for key in wanted
            if key in weights and weights[key].shape != wanted[key].shape
        ],
    }
    if not any(problems.values()):
        return
    listed = "".join(
        f"\n  {kind} ({len(keys)}):" + "".join(f"\n    {key}" for key in sorted(keys))
        for kind, keys in problems.items()
        if keys
    )
    told = ", ".join(f"{len(keys)} {kind}" for kind, keys in problems.items() if keys)
    raise ModelError(
        f"the file does not fit an FCOS with body {config.backbone}, {config.channels} channels and {config.convs} "
        f"convolutions per tower: {told}",
        where=f"{where}{listed}",
        remedy=_advice(problems, weights),
    )


def _advice(problems: Mapping[str, list[str]], weights: Mapping[str, Tensor]) -> str:
    if not any(key.startswith("backbone.fpn.extra_blocks.") for key in weights):
        return "this network has no P6 and P7, as the real-time (RT) models with three levels; they are not supported"
    if not any(".bbox_ctrness." in key for key in weights):
        return "without a centerness branch this is another detector than FCOS"
    p6 = weights.get("backbone.fpn.extra_blocks.p6.weight")
    if p6 is not None and p6.ndim == 4 and p6.shape[0] != p6.shape[1]:
        return "this network makes P6 from C5; only those that make it from P5 are supported"
    if problems["missing"] and not problems["unknown"]:
        return "the file may be cut off or of the backbone alone; fetch or save it again, whole"
    return "if the network was changed, it cannot be converted; else report this with the list"


def _shape(value: Tensor) -> str:
    return str(list(value.shape))
