"""Bodies: which ResNet a checkpoint holds, told by the shapes of its tensors; and networks that are not supported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fcos_cli.errors import ModelError


@dataclass(frozen=True)
class Body:
    """name: timm's. caffe: where a dialect has the stride in a 1×1 convolution, as Caffe's weights do, this body is
    one of those that have it there."""

    name: str
    caffe: bool


_Shape = tuple[tuple[int, ...], int, tuple[int, int]]

_BODIES: dict[_Shape, Body] = {
    ((2, 2, 2, 2), 3, (64, 64)): Body("resnet18", caffe=False),
    ((3, 4, 6, 3), 3, (64, 64)): Body("resnet34", caffe=False),
    ((3, 4, 6, 3), 1, (64, 64)): Body("resnet50", caffe=True),
    ((3, 4, 23, 3), 1, (64, 64)): Body("resnet101", caffe=True),
    ((3, 4, 23, 3), 1, (256, 8)): Body("resnext101_32x8d", caffe=False),
    ((3, 4, 23, 3), 1, (256, 4)): Body("resnext101_64x4d", caffe=False),
}
"""Blocks per stage, kernel of a block's first convolution, channels out of and into each group of its second."""

_UNSUPPORTED = (
    (r"(^|[._])(conv_)?offset(\.|$)|(\.conv2|_tower\.\d+)\.conv\.", "deformable convolutions (DCN) are not supported"),
    (r"_tower\.\d+\.\d+\.", "towers with a BatchNorm of its own per level are not supported"),
    (r"(_tower|_subnet|_convs)\..*running_(mean|var)$", "towers with BatchNorm are not supported in foreign files"),
    (r"\bshare_tower\.", "a tower that both branches share is not supported"),
    (r"^backbone\.(bottom_up|body)\.(base\.|base_layer|level\d)", "a DLA body is not supported"),
    (r"^backbone\.(bottom_up|body)\..*OSA", "a VoVNet body is not supported"),
    (r"^backbone\.(bottom_up|body)\.(features|xif)", "a MobileNet body is not supported"),
    (r"^fcos_body\.", "checkpoints of VectXmy/FCOS.Pytorch are not supported"),
)


def refuse_unsupported(keys: Iterable[str], *, where: Path) -> None:
    """Raises ModelError for a network that ours cannot be, naming every tensor that says so."""
    names = list(keys)
    for pattern, what in _UNSUPPORTED:
        found = [key for key in names if re.search(pattern, key)]
        if found:
            raise ModelError(
                what,
                where=f"{where}\n  told by ({len(found)}):\n    " + "\n    ".join(found),
                remedy="use a checkpoint of a ResNet or ResNeXt body with plain towers",
            )


def find_body(weights: Mapping[str, Tensor], *, where: Path) -> Body:
    """The body, from tensors by our names. Raises ModelError for one that is not in the table."""
    stages: dict[int, set[int]] = {}
    for key in weights:
        if found := re.match(r"backbone\.body\.layer(\d+)\.(\d+)\.", key):
            stages.setdefault(int(found[1]), set()).add(int(found[2]))
    first, second = (weights.get(f"backbone.body.layer1.0.conv{n}.weight") for n in (1, 2))
    blocks = tuple(len(stages.get(stage, ())) for stage in range(1, 5))
    body = None
    if first is not None and second is not None and first.ndim == second.ndim == 4:
        body = _BODIES.get((blocks, first.shape[-1], (second.shape[0], second.shape[1])))
    if body is not None and set(stages) == {1, 2, 3, 4}:
        return body
    if not stages:
        what = "the file has no ResNet body"
    else:
        listed = ", ".join(
            f"{name} {'is missing' if value is None else list(value.shape)}"
            for name, value in (("layer1.0.conv1", first), ("layer1.0.conv2", second))
        )
        what = f"the body's shape is not known: blocks {list(blocks)}, {listed}"
    raise ModelError(what, where=where, remedy=f"supported bodies: {', '.join(b.name for b in _BODIES.values())}")
