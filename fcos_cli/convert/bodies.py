"""Tensor names of the backbones that are not ResNets: MobileNetV2 as the authors built it, and DLA-34 in AdelaiDet.

timm has both, layer for layer and with the same strides of 8, 16 and 32: 32, 96 and 320 channels of `mobilenetv2_100`,
128, 256 and 512 of `dla34`. MobileNetV2's last 1×1 convolution, which only classifiers use, is in neither. Sources of
the foreign names: tianzhi0549/FCOS `modeling/backbone/mobilenet.py`; AdelaiDet `modeling/backbone/dla.py`.
"""

from __future__ import annotations

from fcos_cli.convert.key_map import Row

_BLOCKS = (1, 2, 3, 4, 3, 3, 1)
"""Inverted residual blocks of MobileNetV2 by stage. The authors number them in one row, from 1; 0 is the stem."""

_FIRST = {0: "conv_dw", 1: "bn1", 3: "conv_pw", 4: "bn2"}
"""Layers of the first block, which does not widen, by their place in the authors' block."""

_OTHERS = {0: "conv_pw", 1: "bn1", 3: "conv_dw", 4: "bn2", 6: "conv_pwl", 7: "bn3"}


def _mobilenet_v2(theirs: str) -> tuple[Row, ...]:
    rows = [(f"{theirs}0.0.{{tail}}", "backbone.body.conv_stem.{tail}")]
    rows += [(f"{theirs}0.1.{{tail}}", "backbone.body.bn1.{tail}")]
    feature = 0
    for stage, blocks in enumerate(_BLOCKS):
        for block in range(blocks):
            feature += 1
            for place, layer in (_OTHERS if stage else _FIRST).items():
                native = f"backbone.body.blocks.{stage}.{block}.{layer}"
                rows.append((f"{theirs}{feature}.conv.{place}.{{tail}}", f"{native}.{{tail}}"))
    return tuple(rows)


MOBILENET_V2 = _mobilenet_v2("backbone.body.features.")

DLA_34 = (
    ("backbone.bottom_up.base_layer.{rest}", "backbone.body.base_layer.{rest}"),
    ("backbone.bottom_up.level{k}.{rest}", "backbone.body.level{k}.{rest}"),
)

UNUSED_IN_DLA = r"backbone\.bottom_up\.level[34]\.project\..*"
"""Layers that no forward pass of DLA-34 uses: levels 3 and 4 are trees of trees, and only the inner ones project."""
