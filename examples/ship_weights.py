"""Bundle a trained detector with the package, with its tensors in half precision.

    python examples/ship_weights.py runs/train/x/best.safetensors

This halves the file size. To measure its effect, run `fcos eval default DATA` before and after.
"""

import sys
from pathlib import Path

from fcos_cli.model.artifact import load, save
from fcos_cli.runtime.open import default_weights


def main(source: Path) -> None:
    save(default_weights(), load(source), half=True)
    print(f"{default_weights()}: {default_weights().stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
