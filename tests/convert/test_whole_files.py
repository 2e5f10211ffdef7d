"""Outputs of whole converted networks, compared with recorded outputs of the originals or of their documented rules.

Weights and image are computed from names and shapes (`vectors/seeded.py`). The README in `vectors/` says which outputs
were recorded with the original code.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fcos_cli.convert.run import convert

VECTORS = Path(__file__).parent.parent / "vectors"
sys.path.insert(0, str(VECTORS))  # its scripts are not a package

from seeded import seeded_picture, seeded_state  # noqa: E402

pytestmark = pytest.mark.slow

# preset: (key list, tensors, prefix of their names)
CASES = {
    "fcos-v1": ("fcos", "whole", "fcos-v1."),
    "fcos-imprv": ("fcos", "whole", "fcos-imprv."),
    "adelaidet": ("adelaidet", "whole", "adelaidet."),
    "detectron2": ("detectron2", "detectron2", "whole."),
    "mmdet-base": ("mmdet-base", "mmdet-base", "whole."),
    "mmdet-tricks": ("mmdet-tricks", "mmdet-tricks", "whole."),
}


@pytest.mark.parametrize("preset", CASES)
def test_converted_network_gives_the_same_outputs(preset: str, tmp_path: Path) -> None:
    keys, file, prefix = CASES[preset]
    shapes = json.loads((VECTORS / f"keys_{keys}.json").read_text(encoding="utf-8"))
    save_file(seeded_state(shapes), tmp_path / "theirs.safetensors")
    model = convert(tmp_path / "theirs.safetensors", preset=preset).artifact.build()
    model.mean.zero_()  # the image is already normalized, in BGR order
    model.std.fill_(1)
    with torch.inference_mode():
        cls, ltrb, ctr = model(seeded_picture(64, 64).flip(1)).flat()
    theirs = load_file(VECTORS / f"{file}.safetensors")
    for part, ours in (("cls", cls[0, :, ::8]), ("ltrb", ltrb[0]), ("ctr", ctr[0])):
        expected = theirs[f"{prefix}{part}"]
        assert float((ours - expected).abs().max()) <= 1e-5 * float(expected.abs().max()), part
