"""Names and shapes of the tensors in the files of AdelaiDet's FCOS_RT and of the authors' MobileNetV2, by rule.

Written from the configs and the layers' documented names, independently of fcos_cli. `make_published.py` writes the
lists. A file of AdelaiDet may also hold `pixel_mean` and `pixel_std`, and one of the authors puts `module.` in front.
"""

from __future__ import annotations

from collections.abc import Callable

Keys = dict[str, list[int]]

NORMS = ("GN", "SyncBN", "none")
"""MODEL.FCOS.NORM. The configs without `bn_head` in their name leave it at its default, GN."""


def conv(name: str, outputs: int, inputs: int, size: int, *, bias: bool = False) -> Keys:
    return {f"{name}.weight": [outputs, inputs, size, size]} | ({f"{name}.bias": [outputs]} if bias else {})


def group_norm(name: str, channels: int) -> Keys:
    return {f"{name}.weight": [channels], f"{name}.bias": [channels]}


def frozen_norm(name: str, channels: int) -> Keys:
    return {f"{name}.{part}": [channels] for part in ("weight", "bias", "running_mean", "running_var")}


def batch_norm(name: str, channels: int) -> Keys:
    return frozen_norm(name, channels) | {f"{name}.num_batches_tracked": []}


# DLA-34 and ResNets of AdelaiDet


def dla34(name: str = "backbone.bottom_up") -> tuple[Keys, list[int]]:
    """Tensors, and the channels at strides 8, 16 and 32. Every norm is a SyncBN."""
    widths, depths = (16, 32, 64, 128, 256, 512), (1, 1, 1, 2, 2, 1)
    keys = conv(f"{name}.base_layer.0", widths[0], 3, 7) | batch_norm(f"{name}.base_layer.1", widths[0])
    for level, inputs in ((0, widths[0]), (1, widths[0])):
        keys |= conv(f"{name}.level{level}.0", widths[level], inputs, 3)
        keys |= batch_norm(f"{name}.level{level}.1", widths[level])
    for level in (2, 3, 4, 5):
        inputs, outputs = widths[level - 1], widths[level]
        joined = 2 * outputs + (inputs if level > 2 else 0)
        keys |= tree(f"{name}.level{level}", depths[level], inputs, outputs, joined)
    return keys, list(widths[3:])


def tree(name: str, depth: int, inputs: int, outputs: int, joined: int) -> Keys:
    """joined: channels that the last root of the tree concatenates. A projection is there even where none is used."""
    keys: Keys = {}
    if inputs != outputs:
        keys |= conv(f"{name}.project.0", outputs, inputs, 1) | batch_norm(f"{name}.project.1", outputs)
    if depth > 1:
        keys |= tree(f"{name}.tree1", depth - 1, inputs, outputs, 2 * outputs)
        return keys | tree(f"{name}.tree2", depth - 1, outputs, outputs, joined + outputs)
    for part, given in (("tree1", inputs), ("tree2", outputs)):
        keys |= conv(f"{name}.{part}.conv1", outputs, given, 3) | batch_norm(f"{name}.{part}.bn1", outputs)
        keys |= conv(f"{name}.{part}.conv2", outputs, outputs, 3) | batch_norm(f"{name}.{part}.bn2", outputs)
    return keys | conv(f"{name}.root.conv", outputs, joined, 1) | batch_norm(f"{name}.root.bn", outputs)


def resnet(depth: int, name: str = "backbone.bottom_up") -> tuple[Keys, list[int]]:
    """Tensors, and the channels of res3, res4 and res5. Stem and res2 are frozen, the other norms are SyncBN."""
    blocks = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]
    keys = conv(f"{name}.stem.conv1", 64, 3, 7) | frozen_norm(f"{name}.stem.conv1.norm", 64)
    inputs, channels = 64, []
    for stage, count in enumerate(blocks):
        norm: Callable[[str, int], Keys] = frozen_norm if stage == 0 else batch_norm
        width = 64 * 2**stage
        outputs = width * (4 if depth >= 50 else 1)
        for block in range(count):
            place = f"{name}.res{stage + 2}.{block}"
            sizes = [(inputs, width, 1), (width, width, 3), (width, outputs, 1)]
            for number, (given, made, size) in enumerate(sizes if depth >= 50 else [(inputs, width, 3), sizes[1]]):
                keys |= conv(f"{place}.conv{number + 1}", made, given, size)
                keys |= norm(f"{place}.conv{number + 1}.norm", made)
            if inputs != outputs:
                keys |= conv(f"{place}.shortcut", outputs, inputs, 1) | norm(f"{place}.shortcut.norm", outputs)
            inputs = outputs
        channels.append(outputs)
    return keys, channels[1:]


def realtime(body: str, *, norm: str, shared: bool, channels: int = 256, convs: int = 4, classes: int = 80) -> Keys:
    """A network of FCOS_RT: TOP_LEVELS 0, and either four convolutions per branch or four that both share."""
    keys, given = dla34() if body == "DLA34" else resnet(int(body[1:]))
    for level, inputs in zip((3, 4, 5), given, strict=True):
        keys |= conv(f"backbone.fpn_lateral{level}", channels, inputs, 1, bias=True)
        keys |= conv(f"backbone.fpn_output{level}", channels, channels, 3, bias=True)
    head = "proposal_generator.fcos_head"
    for tower in ("share",) if shared else ("cls", "bbox"):
        for number in range(convs):
            place = number * (2 if norm == "none" else 3)  # convolution, norm, ReLU
            keys |= conv(f"{head}.{tower}_tower.{place}", channels, channels, 3, bias=True)
            if norm == "GN":
                keys |= group_norm(f"{head}.{tower}_tower.{place + 1}", channels)
            if norm == "SyncBN":
                for level in range(3):
                    keys |= batch_norm(f"{head}.{tower}_tower.{place + 1}.{level}", channels)
    for branch, outputs in (("cls_logits", classes), ("bbox_pred", 4), ("ctrness", 1)):
        keys |= conv(f"{head}.{branch}", outputs, channels, 3, bias=True)
    return keys | {f"{head}.scales.{level}.scale": [1] for level in range(3)}


# MobileNetV2 of the authors

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""(factor of widening, channels, blocks, stride of the first), as in table 2 of the MobileNetV2 paper."""


def mobilenet_v2(*, channels: int = 256, convs: int = 4, classes: int = 80) -> Keys:
    name = "backbone.body.features"
    keys = conv(f"{name}.0.0", 32, 3, 3) | batch_norm(f"{name}.0.1", 32)
    inputs, number = 32, 0
    for factor, outputs, count, _ in STAGES:
        for _ in range(count):
            number += 1
            wide, block, place = inputs * factor, f"{name}.{number}.conv", 0
            if factor > 1:
                keys |= conv(f"{block}.0", wide, inputs, 1) | batch_norm(f"{block}.1", wide)
                place = 3
            keys |= conv(f"{block}.{place}", wide, 1, 3) | batch_norm(f"{block}.{place + 1}", wide)
            keys |= conv(f"{block}.{place + 3}", outputs, wide, 1) | batch_norm(f"{block}.{place + 4}", outputs)
            inputs = outputs
    for level, given in ((2, 32), (3, 96), (4, 320)):
        keys |= conv(f"backbone.fpn.fpn_inner{level}", channels, given, 1, bias=True)
        keys |= conv(f"backbone.fpn.fpn_layer{level}", channels, channels, 3, bias=True)
    for level in ("p6", "p7"):
        keys |= conv(f"backbone.fpn.top_blocks.{level}", channels, channels, 3, bias=True)
    for tower in ("cls", "bbox"):
        for number in range(convs):
            keys |= conv(f"rpn.head.{tower}_tower.{3 * number}", channels, channels, 3, bias=True)
            keys |= group_norm(f"rpn.head.{tower}_tower.{3 * number + 1}", channels)
    for branch, outputs in (("cls_logits", classes), ("bbox_pred", 4), ("centerness", 1)):
        keys |= conv(f"rpn.head.{branch}", outputs, channels, 3, bias=True)
    return keys | {f"rpn.head.scales.{level}.scale": [1] for level in range(5)}


PUBLISHED: dict[str, Callable[[], Keys]] = {
    "MS_DLA_34_4x_syncbn_shared_towers": lambda: realtime("DLA34", norm="GN", shared=True),
    "MS_DLA_34_4x_syncbn_shared_towers_bn_head": lambda: realtime("DLA34", norm="SyncBN", shared=True),
    "MS_DLA_34_4x_syncbn": lambda: realtime("DLA34", norm="GN", shared=False),
    "MS_DLA_34_4x_syncbn_bn_head": lambda: realtime("DLA34", norm="SyncBN", shared=False),
    "MS_R_50_4x_syncbn": lambda: realtime("R50", norm="GN", shared=False),
    "MS_R_50_4x_syncbn_bn_head": lambda: realtime("R50", norm="SyncBN", shared=False),
    "fcos_syncbn_bs32_c128_MNV2_FPN_1x": lambda: mobilenet_v2(channels=128),
    "fcos_syncbn_bs32_MNV2_FPN_1x": lambda: mobilenet_v2(),
    "fcos_bn_bs16_MNV2_FPN_1x": lambda: mobilenet_v2(),
}
"""Name of the config → its tensors."""
