"""Synthetic inputs of the vectors: true boxes of pictures, and what a head might say about them → inputs.safetensors.

python tests/vectors/make_inputs.py
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

HERE = Path(__file__).parent
STRIDES = (8, 16, 32, 64, 128)
SCALES = (1.0, 0.875, 1.125, 1.25, 0.75)
"""The learned factor of each level; exact in binary."""

# picture size and the boxes of each picture; the class of a box is its place, so that a label tells the box
ASSIGN: dict[str, tuple[tuple[int, int], list[list[list[float]]]]] = {
    # longest distances of exactly 64 (P3 | P4) and 128 (P4 | P5), points exactly 1.5 strides from a centre
    "borders": (
        (256, 320),
        [
            [[12, 20, 124, 92], [168, 104, 280, 184], [8, 104, 120, 184]],
            [[8, 16, 248, 112], [16, 128, 240, 240], [256, 100, 300, 250]],
        ],
    ),
    # equal areas; areas that differ by 1, 3 and 12 px² with the smaller box last; 1 px² with the smaller box first
    "areas": (
        (128, 160),
        [
            [[20, 20, 80, 60], [30, 10, 70, 70], [100, 60, 150, 110], [90, 70, 155, 100], [110, 75, 140, 95]],
            [[8, 8, 57, 57], [7, 9, 57, 57], [80, 8, 160, 38], [90, 0, 137, 51], [20, 70, 70, 118], [15, 70, 75, 110.2],
             [100, 60, 160, 100], [105, 55, 154, 104]],
        ],
    ),
    # no box; 3 px boxes with and without a point inside; a point exactly on an edge; boxes up to the picture's edges
    "edges": (
        (128, 160),
        [
            [],
            [[3, 3, 6, 6], [9, 9, 11, 11], [20, 100, 36, 116], [100, 90, 160, 128], [0, 40, 30, 70], [60, 0, 90, 6]],
        ],
    ),
}  # fmt: skip

TRUTH = [
    [[10, 12, 58, 60], [30, 20, 90, 100], [70, 30, 156, 118], [100, 4, 130, 30]],
    [[4, 4, 40, 110], [60, 50, 140, 110], [50, 10, 76, 36]],
]
CLASSES = [[0, 1, 2, 1], [2, 0, 1]]


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    return [(-(-height // s), -(-width // s)) for s in STRIDES]


def points_of(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """x, y and stride of every point, P3 first, row by row; cell centres."""
    xs, ys, strides = [], [], []
    for (h, w), s in zip(level_sizes(height, width), STRIDES, strict=True):
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        xs.append((x.flatten() + 0.5) * s)
        ys.append((y.flatten() + 0.5) * s)
        strides.append(torch.full((h * w,), float(s)))
    return torch.cat(xs), torch.cat(ys), torch.cat(strides)


def made_head(height: int, width: int, classes: int, *, seed: int) -> dict[str, Tensor]:
    """What a half-trained head might say: boxes near the true ones, so that many overlap, and noise elsewhere.

    `cls` [2, P, C], `ctr` [2, P] logits; `box_exp`, `box_relu` [2, P, 4] the box branch before the level's scale, for
    heads that end in exp (pixels) and in relu · stride. Points P3 first, row by row.
    """
    draw = torch.Generator().manual_seed(seed)
    x, y, stride = points_of(height, width)
    level = stride.log2().long() - 3
    factor = torch.tensor(SCALES)[level][:, None]
    out: dict[str, list[Tensor]] = {"cls": [], "ctr": [], "box_exp": [], "box_relu": []}
    for boxes, labels in zip(TRUTH, CLASSES, strict=True):
        truth = torch.tensor(boxes, dtype=torch.float32) * min(height / 128, width / 160)
        distance = torch.stack(
            [x[:, None] - truth[:, 0], y[:, None] - truth[:, 1], truth[:, 2] - x[:, None], truth[:, 3] - y[:, None]], -1
        )
        inside = distance.amin(-1) > 0
        nearest = torch.where(inside, distance.amax(-1), torch.inf).argmin(1)
        found = inside.any(1)
        side = (truth[:, 2:] - truth[:, :2]).amax(-1)[nearest]
        chosen = distance[torch.arange(len(x)), nearest]
        noise = torch.randn(len(x), 4, generator=draw) * 0.08 * side[:, None]
        free = (torch.randn(len(x), 4, generator=draw) * 1.5 + 1.5) * stride[:, None]
        pixels = torch.where(found[:, None], chosen + noise, free)
        out["box_relu"].append(pixels / stride[:, None] / factor)
        out["box_exp"].append(pixels.clamp(min=0.25).log() / factor)
        logits = torch.randn(len(x), classes, generator=draw) - (5 if classes == 3 else 5.5)
        favourite = torch.randint(classes, (len(x),), generator=draw)
        favourite[found] = torch.tensor(labels)[nearest][found] * (classes // 3)
        hot = found | (torch.rand(len(x), generator=draw) < 0.15)  # some of these lie outside the picture
        logits[torch.arange(len(x)), favourite] += hot * (4 + 1.5 * torch.randn(len(x), generator=draw))
        out["cls"].append(logits)
        out["ctr"].append(torch.randn(len(x), generator=draw))
    return {name: torch.stack(parts) for name, parts in out.items()}


def main() -> None:
    tensors: dict[str, Tensor] = {}
    for name, (_, pictures) in ASSIGN.items():
        for place, boxes in enumerate(pictures):
            tensors[f"assign.{name}.{place}.boxes"] = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
            tensors[f"assign.{name}.{place}.labels"] = torch.arange(len(boxes))
    for place, (boxes, labels) in enumerate(zip(TRUTH, CLASSES, strict=True)):
        tensors[f"truth.{place}.boxes"] = torch.tensor(boxes, dtype=torch.float32)
        tensors[f"truth.{place}.labels"] = torch.tensor(labels)
    heads = {"c3": (128, 160, 3, 11), "c80": (64, 64, 80, 12)}
    for name, (height, width, classes, seed) in heads.items():
        for part, value in made_head(height, width, classes, seed=seed).items():
            tensors[f"raw.{name}.{part}"] = value
    picture = torch.randint(256, (24, 30, 3), generator=torch.Generator().manual_seed(5))
    picture[6:18, 8:26] = torch.tensor([200, 100, 50])
    tensors["picture"] = picture.to(torch.uint8)
    about = {
        "strides": STRIDES,
        "scales": SCALES,
        "assign": {name: {"padded": size, "pictures": len(pictures)} for name, (size, pictures) in ASSIGN.items()},
        "raw": {n: {"padded": [h, w], "classes": c, "levels": level_sizes(h, w)} for n, (h, w, c, _) in heads.items()},
    }
    save_file(tensors, HERE / "inputs.safetensors", metadata={"about": json.dumps(about)})


if __name__ == "__main__":
    main()
