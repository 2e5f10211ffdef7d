"""Fold BatchNorm into the preceding convolution, for inference."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any, cast

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import FrozenBatchNormAct2d
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.ops.misc import FrozenBatchNorm2d

from fcos_cli.model.fcos import FCOS
from fcos_cli.model.head import PerLevel, Tower

NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d, FrozenBatchNormAct2d)
"""Batch normalization, also timm's kinds that hold their activation (its BatchNormAct2d is a BatchNorm2d)."""

CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
"""Convolutions that use their weights as they are; those with weight standardization and the like do not."""


def fold_batch_norm(model: FCOS) -> int:
    """Fold every BatchNorm of `model` (in eval mode) that directly follows a convolution. Return the number folded.

    Changes the network in place. Its outputs stay the same up to rounding, but it can no longer be trained or saved.
    Parts that cannot be traced symbolically are left unchanged.
    """
    head = model.head
    towers = (head.shared_tower, head.classification_head.conv, head.regression_head.conv)
    by_level = sum(_fold_by_level(tower) for tower in towers)
    parts = (model.backbone.body, head.shared_tower, head.classification_head, head.regression_head)
    return by_level + sum(fold_inside(part) for part in parts)


@torch.no_grad()
def _fold_by_level(tower: Tower) -> int:
    """Fold the BatchNorms of every level: the convolution before them then has different weights for each level."""
    folded = 0
    for place, (conv, norms) in enumerate(pairwise(list(tower))):
        if isinstance(norms, PerLevel) and isinstance(conv, nn.Conv2d) and all(_can_fold(conv, n) for n in norms):
            tower[place] = PerLevel(fuse_conv_bn_eval(conv, cast(Any, norm)) for norm in norms)
            tower[place + 1] = nn.Identity()
            folded += len(norms)
    return folded


class _Follower(fx.Tracer):
    """Traces a network symbolically, with convolutions and norms as leaves."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (nn.Conv2d, *NORMS)) or super().is_leaf_module(m, module_qualified_name)


@torch.no_grad()
def fold_inside(root: nn.Module) -> int:
    """`fold_batch_norm` for a module whose submodules are called by its own forward pass only."""
    folded = 0
    for places in conv_norm_pairs(root):
        conv, norm = (root.get_submodule(place) for place in places)
        if _can_fold(conv, norm):
            root.set_submodule(places[0], fuse_conv_bn_eval(cast(nn.Conv2d, conv), cast(Any, norm)))
            root.set_submodule(places[1], _rest(norm))
            folded += 1
    return folded


def conv_norm_pairs(root: nn.Module) -> list[tuple[str, str]]:
    """Names of the convolutions in `root` and of the BatchNorms that alone use their outputs; each is called once.

    Empty if `root` cannot be traced symbolically.
    """
    try:
        graph = _Follower().trace(root)
    except Exception:  # data-dependent control flow raises many types of error
        return []
    calls = [node for node in graph.nodes if node.op == "call_module"]
    times = Counter(str(node.target) for node in calls)
    pairs = []
    for node in calls:
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        conv, norm = str(before.target), str(node.target)
        kinds = isinstance(root.get_submodule(conv), nn.Conv2d), isinstance(root.get_submodule(norm), NORMS)
        if all(kinds) and times[conv] == times[norm] == 1:
            pairs.append((conv, norm))
    return pairs


def _can_fold(conv: nn.Module, norm: nn.Module) -> bool:
    still = isinstance(norm, NORMS) and not norm.training and getattr(norm, "running_mean", None) is not None
    return still and type(conv) in CONVOLUTIONS


def _rest(norm: nn.Module) -> nn.Module:
    """What a norm layer does after normalizing: timm's include the activation."""
    activation = getattr(norm, "act", None)
    return nn.Identity() if activation is None else cast(nn.Module, activation)
