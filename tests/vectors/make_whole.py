"""Whole networks of fcos-v1, fcos-imprv and adelaidet: detectron2's layers, joined by rule → whole.safetensors.

python tests/vectors/make_whole.py FOLDER    (detectron2 importable; FOLDER: its repository's configs/)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import FrozenBatchNorm2d
from make_by_hand import adelaidet_keys, original_keys
from safetensors.torch import save_file
from seeded import seeded_picture, seeded_state
from torch import Tensor

HERE = Path(__file__).parent


def whole(folder: Path, family: str) -> dict[str, Tensor]:
    """The weights carry the family's own names, and are put where detectron2 has the same layer."""
    network = instantiate(LazyConfig.load(str(folder / "COCO-Detection/fcos_R_50_FPN_1x.py")).model).eval()
    own = {key: list(value.shape) for key, value in network.state_dict().items()}
    keys = adelaidet_keys(own)
    names = keys if family == "adelaidet" else original_keys(keys)
    weights = list(seeded_state(names).values())  # in detectron2's order, the scales last
    network.load_state_dict(dict(zip(own, weights, strict=False)), strict=True)
    if family != "adelaidet":
        for module in network.modules():
            if isinstance(module, FrozenBatchNorm2d):
                module.eps = 0.0
    head, found = network.head, []
    with torch.no_grad():
        features = network.backbone(seeded_picture(64, 64))
        for level, name in enumerate(network.head_in_features):
            on_class, on_box = head.cls_subnet(features[name]), head.bbox_subnet(features[name])
            ctr = head.ctrness(on_class if family == "fcos-v1" else on_box)
            scaled = weights[len(own) + level] * head.bbox_pred(on_box)
            ltrb = scaled.exp() if family == "fcos-v1" else scaled.clamp(min=0) * 8 * 2**level
            found.append(torch.cat([head.cls_score(on_class), ltrb, ctr], 1).flatten(2)[0].T)
    cls, ltrb, ctr = torch.cat(found).split([80, 4, 1], 1)
    return {f"{family}.cls": cls[:, ::8], f"{family}.ltrb": ltrb, f"{family}.ctr": ctr[:, 0]}


def main() -> None:
    tensors: dict[str, Tensor] = {}
    for family in ("fcos-v1", "fcos-imprv", "adelaidet"):
        tensors |= {name: value.contiguous() for name, value in whole(Path(sys.argv[1]), family).items()}
    about = {"picture": [64, 64], "classes": "every eighth of 80"}
    save_file(tensors, HERE / "whole.safetensors", metadata={"about": json.dumps(about)})


if __name__ == "__main__":
    main()
