"""AdelaiDet's FCOS_RT and the authors' MobileNetV2, by rule → published/*.json, realtime.safetensors.

python tests/vectors/make_published.py    (after make_inputs.py)
"""

from __future__ import annotations

import json
from pathlib import Path

import make_by_hand
import reference
import torch
from dialects import ADELAIDET
from plain import mobilenet, realtime
from published import PUBLISHED, Keys
from published import mobilenet_v2 as mobilenet_keys
from published import realtime as realtime_keys
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from seeded import seeded_picture, seeded_state
from torch import Tensor

HERE = Path(__file__).parent
SIDE = 64
STRIDES = (8, 16, 32)
NARROW = {"channels": 32, "convs": 2}

NETWORKS: dict[str, Keys] = {
    "dla34-shared-bn": realtime_keys("DLA34", norm="SyncBN", shared=True, **NARROW),
    "dla34": realtime_keys("DLA34", norm="GN", shared=False, **NARROW),
    "r18-bn": realtime_keys("R18", norm="SyncBN", shared=False, **NARROW),
    "r18-none": realtime_keys("R18", norm="none", shared=False, **NARROW),
    "mobilenetv2": mobilenet_keys(channels=64, convs=2),
}
"""Networks of the published layouts, with narrow pyramids and towers of two convolutions."""


def picture() -> Tensor:
    """Values of -6…6: large enough that ReLU6 cuts some of MobileNetV2's."""
    return 3 * seeded_picture(SIDE, SIDE)


def outputs() -> dict[str, Tensor]:
    """As `whole.*` of the others: logits of every eighth class, distances in pixels, centerness logits."""
    out = {}
    for name, keys in NETWORKS.items():
        network = mobilenet if name == "mobilenetv2" else realtime
        cls, ltrb, ctr = network(seeded_state(keys), picture())
        out |= {f"{name}.cls": cls[:, ::8], f"{name}.ltrb": ltrb, f"{name}.ctr": ctr}
    return out


def three_levels() -> tuple[dict[str, Tensor], dict]:
    """AdelaiDet's vectors once more, for the first three levels of the same inputs."""
    inputs = load_file(HERE / "inputs.safetensors")
    with safe_open(HERE / "inputs.safetensors", "pt") as file:
        about = json.loads(file.metadata()["about"])
    raw, reference.STRIDES = about["raw"]["c3"], STRIDES
    points = sum(height * width for height, width in raw["levels"][:3])
    cut = {key: value[:, :points] for key, value in inputs.items() if key.startswith("raw.c3.")}
    about["scales"] = about["scales"][:3]
    return make_by_hand.vectors(ADELAIDET, inputs | cut, about), make_by_hand.notes(ADELAIDET)


def main() -> None:
    (HERE / "published").mkdir(exist_ok=True)
    for name, keys in PUBLISHED.items():
        make_by_hand.write(f"published/{name}.json", keys())
    with torch.no_grad():
        tensors, notes = three_levels()
        tensors |= outputs()
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    save_file(tensors, HERE / "realtime.safetensors", metadata={"about": json.dumps({**notes, "strides": STRIDES})})


if __name__ == "__main__":
    main()
