"""Key tables and raw outputs of the models with deformable convolutions, by rule → keys/*.json, deformable.safetensors.

python tests/vectors/make_deformable.py [NAME …]    (names: only these tables and outputs; the others stay)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from deformable import PUBLISHED, SMALL, Network, forward, keys
from safetensors.torch import load_file, save_file
from seeded import seeded_picture, seeded_state
from torch import Tensor

HERE = Path(__file__).parent


def whole(name: str, net: Network) -> dict[str, Tensor]:
    cls, ltrb, ctr = forward(net, seeded_state(keys(net)), seeded_picture(64, 64))
    found = {"cls": cls[:, ::8], "ltrb": ltrb, "ctr": ctr}
    return {f"{name}.{part}": value.float().contiguous() for part, value in found.items()}


def main() -> None:
    file = HERE / "deformable.safetensors"
    tensors = load_file(file) if file.exists() else {}
    for name, net in (SMALL | PUBLISHED).items():
        if name not in (sys.argv[1:] or (*SMALL, *PUBLISHED)):
            continue
        if name in PUBLISHED:
            text = json.dumps(keys(net), separators=(",", ":")).replace("],", "],\n") + "\n"
            (HERE / "keys" / f"{name}.json").write_text(text, encoding="utf-8")
        tensors |= whole(name, net)
    about = {"picture": [64, 64], "classes": "every eighth of 80"}
    save_file(dict(sorted(tensors.items())), file, metadata={"about": json.dumps(about)})


if __name__ == "__main__":
    main()
