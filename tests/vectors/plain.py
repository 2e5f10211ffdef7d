"""FCOS_RT and the authors' MobileNetV2 once more: plain functions of a state dict with the zoo's own names.

Written from the papers and the zoos' documented rules, independently of fcos_cli and of timm. A network is a picture
[1, 3, h, w], already normalised and in BGR order → logits [P, C], distances in pixels [P, 4], centerness logits [P].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from published import STAGES
from torch import Tensor

State = Mapping[str, Tensor]


class Net:
    """The layers of one file, called by their names."""

    def __init__(self, state: State) -> None:
        self.state = state

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.state

    def conv(self, name: str, x: Tensor, *, stride: int = 1, groups: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), stride, weight.shape[-1] // 2, groups=groups)

    def batch_norm(self, name: str, x: Tensor) -> Tensor:
        mean, variance, weight, bias = (
            self.state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def group_norm(self, name: str, x: Tensor) -> Tensor:
        groups = x.reshape(32, -1)
        groups = (groups - groups.mean(1, keepdim=True)) / (groups.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        weight, bias = (self.state[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
        return groups.reshape(x.shape) * weight + bias

    # bodies

    def dla34(self, x: Tensor) -> list[Tensor]:
        """Deep layer aggregation (Yu et al., 2018): maps at strides 8, 16 and 32."""
        name = "backbone.bottom_up"
        x = self.batch_norm(f"{name}.base_layer.1", self.conv(f"{name}.base_layer.0", x)).relu()
        for level, stride in ((0, 1), (1, 2)):
            x = self.conv(f"{name}.level{level}.0", x, stride=stride)
            x = self.batch_norm(f"{name}.level{level}.1", x).relu()
        maps = []
        for level, depth in ((2, 1), (3, 2), (4, 2), (5, 1)):
            x = self.tree(f"{name}.level{level}", x, depth, stride=2, joins_input=level > 2)
            maps.append(x)
        return maps[1:]

    def tree(
        self,
        name: str,
        x: Tensor,
        depth: int,
        *,
        stride: int = 1,
        joins_input: bool = False,
        more: Sequence[Tensor] = (),
    ) -> Tensor:
        """Two blocks whose outputs a 1×1 convolution joins, with `more` maps and the pooled input; or two trees."""
        pooled = F.max_pool2d(x, stride) if stride > 1 else x
        more = [*more, pooled] if joins_input else [*more]
        if depth > 1:
            first = self.tree(f"{name}.tree1", x, depth - 1, stride=stride)
            return self.tree(f"{name}.tree2", first, depth - 1, more=[*more, first])
        side = pooled
        if self.has(f"{name}.project.0"):
            side = self.batch_norm(f"{name}.project.1", self.conv(f"{name}.project.0", pooled))
        first = self.residual(f"{name}.tree1", x, side, stride)
        second = self.residual(f"{name}.tree2", first, first, 1)
        joined = self.conv(f"{name}.root.conv", torch.cat([second, first, *more], 1))
        return self.batch_norm(f"{name}.root.bn", joined).relu()

    def residual(self, name: str, x: Tensor, side: Tensor, stride: int) -> Tensor:
        x = self.batch_norm(f"{name}.bn1", self.conv(f"{name}.conv1", x, stride=stride)).relu()
        return (self.batch_norm(f"{name}.bn2", self.conv(f"{name}.conv2", x)) + side).relu()

    def resnet18(self, x: Tensor) -> list[Tensor]:
        name = "backbone.bottom_up"
        x = self.batch_norm(f"{name}.stem.conv1.norm", self.conv(f"{name}.stem.conv1", x, stride=2)).relu()
        x, maps = F.max_pool2d(x, 3, 2, 1), []
        for stage in (2, 3, 4, 5):
            for block in (0, 1):
                place, stride, side = f"{name}.res{stage}.{block}", 2 if stage > 2 and block == 0 else 1, x
                if self.has(f"{place}.shortcut"):
                    side = self.batch_norm(f"{place}.shortcut.norm", self.conv(f"{place}.shortcut", x, stride=stride))
                x = self.batch_norm(f"{place}.conv1.norm", self.conv(f"{place}.conv1", x, stride=stride)).relu()
                x = (self.batch_norm(f"{place}.conv2.norm", self.conv(f"{place}.conv2", x)) + side).relu()
            maps.append(x)
        return maps[1:]

    def mobilenet_v2(self, x: Tensor) -> list[Tensor]:
        """MobileNetV2 (Sandler et al., 2018): the outputs of blocks 6, 13 and 17, at strides 8, 16 and 32."""
        name = "backbone.body.features"
        x = self.batch_norm(f"{name}.0.1", self.conv(f"{name}.0.0", x, stride=2)).clamp(0, 6)
        maps, number = {}, 0
        for factor, outputs, count, first in STAGES:
            for stride in [first] + [1] * (count - 1):
                number += 1
                block, place, y = f"{name}.{number}.conv", 0, x
                if factor > 1:
                    y, place = self.batch_norm(f"{block}.1", self.conv(f"{block}.0", y)).clamp(0, 6), 3
                y = self.conv(f"{block}.{place}", y, stride=stride, groups=y.shape[1])
                y = self.batch_norm(f"{block}.{place + 1}", y).clamp(0, 6)
                y = self.batch_norm(f"{block}.{place + 4}", self.conv(f"{block}.{place + 3}", y))
                x = x + y if stride == 1 and x.shape[1] == outputs else y
                maps[number] = x
        return [maps[6], maps[13], maps[17]]

    # pyramid and head

    def pyramid(self, maps: list[Tensor], lateral: list[str], output: list[str]) -> list[Tensor]:
        """P3, P4 and P5. lateral, output: names of the convolutions by level."""
        inner, levels = torch.zeros(1), []
        for place in (2, 1, 0):
            side = self.conv(lateral[place], maps[place])
            inner = side if place == 2 else side + inner.repeat_interleave(2, 2).repeat_interleave(2, 3)
            levels.insert(0, self.conv(output[place], inner))
        return levels

    def tower(self, name: str, x: Tensor, level: int) -> Tensor:
        """All convolutions of a tower, however they are normalised; x itself if there is none."""
        place = 0
        while self.has(f"{name}.{place}"):
            x, norm = self.conv(f"{name}.{place}", x), f"{name}.{place + 1}"
            place += 3 if self.has(norm) or self.has(f"{norm}.{level}") else 2
            if self.has(f"{norm}.{level}"):
                x = self.batch_norm(f"{norm}.{level}", x)
            elif self.has(norm):
                x = self.group_norm(norm, x)
            x = x.relu()
        return x


def flat(levels: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    cls, ltrb, ctr = (torch.cat([part.flatten(2)[0].T for part in parts]) for parts in zip(*levels, strict=True))
    return cls, ltrb, ctr[:, 0]


def realtime(state: State, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A network of FCOS_RT. Distances are the ReLU of scale · branch, times the stride."""
    net, head, levels = Net(state), "proposal_generator.fcos_head", []
    body: Callable[[Tensor], list[Tensor]] = net.dla34 if net.has("backbone.bottom_up.base_layer.0") else net.resnet18
    maps = body(picture)
    names = ([f"backbone.fpn_{kind}{level}" for level in (3, 4, 5)] for kind in ("lateral", "output"))
    for level, x in enumerate(net.pyramid(maps, *names)):
        x = net.tower(f"{head}.share_tower", x, level)
        on_class, on_box = net.tower(f"{head}.cls_tower", x, level), net.tower(f"{head}.bbox_tower", x, level)
        box = net.conv(f"{head}.bbox_pred", on_box) * state[f"{head}.scales.{level}.scale"]
        ctr = net.conv(f"{head}.ctrness", on_box)
        levels.append((net.conv(f"{head}.cls_logits", on_class), box.relu() * 8 * 2**level, ctr))
    return flat(levels)


def mobilenet(state: State, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The authors' MobileNetV2, by the rules of v1: exp of scale · branch in pixels, centerness on the class tower."""
    net, head, levels = Net(state), "rpn.head", []
    names = ([f"backbone.fpn.fpn_{kind}{level}" for level in (2, 3, 4)] for kind in ("inner", "layer"))
    maps = net.pyramid(net.mobilenet_v2(picture), *names)
    maps.append(net.conv("backbone.fpn.top_blocks.p6", maps[-1], stride=2))
    maps.append(net.conv("backbone.fpn.top_blocks.p7", maps[-1].relu(), stride=2))
    for level, x in enumerate(maps):
        on_class, on_box = net.tower(f"{head}.cls_tower", x, level), net.tower(f"{head}.bbox_tower", x, level)
        box = net.conv(f"{head}.bbox_pred", on_box) * state[f"{head}.scales.{level}.scale"]
        levels.append((net.conv(f"{head}.cls_logits", on_class), box.exp(), net.conv(f"{head}.centerness", on_class)))
    return flat(levels)
