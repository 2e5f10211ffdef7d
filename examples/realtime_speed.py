"""Measure the speed of AdelaiDet's FCOS_RT networks and of its R-50 with five levels, at the same input size.

    python examples/realtime_speed.py                    # all networks, as ONNX and OpenVINO files, 20 rounds
    python examples/realtime_speed.py --only r50 rt-dla34-shared-bn --threads 2 --rounds 40

Needs fcos-cli with its extra `train`, and `openvino` for its rows. Shorter side 512, at most 736. The weights are
random, and give a few hundred candidates per image; speed does not depend on their values. The files are made once, and
`fcos bench` measures them in turns.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

NETWORKS: dict[str, dict[str, Any]] = {
    "r50": {"backbone": "resnet50"},
    "rt-r50": {"backbone": "resnet50", "strides": (8, 16, 32)},
    "rt-r50-bn": {"backbone": "resnet50", "strides": (8, 16, 32), "norm": "batch-per-level"},
    "rt-dla34": {"backbone": "dla34", "strides": (8, 16, 32)},
    "rt-dla34-bn": {"backbone": "dla34", "strides": (8, 16, 32), "norm": "batch-per-level"},
    "rt-dla34-shared": {"backbone": "dla34", "strides": (8, 16, 32), "convs": 0, "shared_convs": 4},
    "rt-dla34-shared-bn": {
        "backbone": "dla34", "strides": (8, 16, 32), "convs": 0, "shared_convs": 4, "norm": "batch-per-level",
    },
}  # fmt: skip
"""Settings of ModelConfig. The others are AdelaiDet's: 256 channels, 4 convolutions per tower, GroupNorm."""


def make_weights(name: str, path: Path) -> None:
    """Save the network with random weights. With BatchNorm, most residual branches are small."""
    import torch

    from fcos_cli.convert.labels import coco_classes
    from fcos_cli.model.artifact import Artifact, save
    from fcos_cli.model.config import ModelConfig
    from fcos_cli.model.fcos import FCOS
    from fcos_cli.model.presets import PRESETS, REALTIME_SIZE

    torch.manual_seed(0)
    preset, settings = PRESETS["adelaidet"], NETWORKS[name]
    values = {**preset.model, "stride_in_1x1": settings["backbone"] == "resnet50", **settings}
    values["ranges"] = values["ranges"][: len(settings.get("strides", range(5))) - 1]
    config = ModelConfig(**values, conventions=preset.conventions)
    model = FCOS(config, classes=80)
    with torch.no_grad():
        for key, buffer in model.backbone.body.named_buffers():
            if key.endswith(("bn3.weight", "bn2.weight")):
                buffer.fill_(0.3)
        model.head.classification_head.cls_logits.weight.normal_(0, 0.03)
        model.head.classification_head.cls_logits.bias.fill_(-4.0)
    geometry = {**preset.geometry, "size": REALTIME_SIZE}
    save(path, Artifact(model.state_dict(), config, coco_classes(), geometry))


def make_files(folder: Path, names: list[str]) -> list[Path]:
    """Create the weights and their exports unless they exist. Exports are not compared with PyTorch."""
    from fcos_cli.export.job import ExportJob
    from fcos_cli.export.options import make_options
    from fcos_cli.export.run import export

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in names:
        weights = folder / f"{name}.safetensors"
        if not weights.exists():
            make_weights(name, weights)
        for format_, suffix in (("onnx", ".onnx"), ("openvino", ".xml")):
            path = weights.with_suffix(suffix)
            if not path.exists():
                try:
                    export(weights, ExportJob(make_options(format_), path, verify=False))
                except Exception as error:
                    print(f"{path.name}: {error}", file=sys.stderr)
                    continue
            files.append(path)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/realtime-speed"), help="folder for the files")
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    files = make_files(options.folder, options.only)
    command = [sys.executable, "-m", "fcos_cli", "bench", *map(str, files)]
    sys.exit(subprocess.run([*command, "--rounds", str(options.rounds), "--threads", str(options.threads)]).returncode)


if __name__ == "__main__":
    main()
