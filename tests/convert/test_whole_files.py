"""Whole foreign networks, converted: the answers of the originals, or of their documented rules, to a known picture.

Weights and picture follow from names and shapes (`vectors/seeded.py`); the answers are frozen in `vectors/`, and its
README says which of them the original code gave.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fcos_cli.convert.run import convert

VECTORS = Path(__file__).parent.parent / "vectors"
sys.path.insert(0, str(VECTORS))  # its scripts are no package: they are run by themselves

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
def test_a_converted_network_answers_as_the_original(preset: str, tmp_path: Path) -> None:
    keys, file, prefix = CASES[preset]
    shapes = json.loads((VECTORS / f"keys_{keys}.json").read_text(encoding="utf-8"))
    save_file(seeded_state(shapes), tmp_path / "theirs.safetensors")
    model = convert(tmp_path / "theirs.safetensors", preset=preset).artifact.build()
    model.mean.zero_()  # the picture is normalised already, blue first
    model.std.fill_(1)
    with torch.inference_mode():
        cls, ltrb, ctr = model(seeded_picture(64, 64).flip(1)).flat()
    theirs = load_file(VECTORS / f"{file}.safetensors")
    for part, ours in (("cls", cls[0, :, ::8]), ("ltrb", ltrb[0]), ("ctr", ctr[0])):
        wanted = theirs[f"{prefix}{part}"]
        assert float((ours - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max()), part
