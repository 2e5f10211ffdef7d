"""Every published FCOS as a whole file: convert, info, predict, and an ONNX export with its proof.

    python -m tests.benchmarks.published [--only PART_OF_A_NAME] [--height 192] [--width 256]

No released file is needed: the checkpoints have random weights, under the names and in the shapes of each zoo's
configs. A model takes about a minute, since the input is small; the network is the real one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection import fcos_resnet50_fpn

from fcos_cli.console import table
from fcos_cli.model.artifact import load, save
from fcos_cli.runtime.headers import read_header
from tests.convert.foreign import lsj_config, ours, theirs

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors"
sys.path.insert(0, str(VECTORS))  # its scripts are not a package

import deformable  # noqa: E402
import published  # noqa: E402
from deformable import R50, R101, Network  # noqa: E402
from seeded import seeded_state  # noqa: E402

PHOTO = ROOT / "examples" / "photos" / "cat.jpg"
State = dict[str, Tensor]


class Model(NamedTuple):
    """One published model: its zoo, `--preset`, and its tensors. config: of mmdetection, where the network needs it."""

    zoo: str
    preset: str
    tensors: Callable[[], State]
    config: str = ""


def models() -> dict[str, Model]:
    """All published models by the name of their config."""
    found = {
        "torchvision fcos_resnet50_fpn": Model("torchvision", "torchvision", _torchvision),
        "detectron2 fcos_R_50_FPN_1x": Model("detectron2", "detectron2", _listed("keys_detectron2.json")),
    }
    for name, network in _plain_networks().items():
        found[name] = Model(network.zoo, _preset(name, network.zoo), _seeded(network))
    for depth, backbone in ((18, "resnet18"), (50, "resnet50"), (101, "resnet101")):
        name = f"fcos_r{depth}_fpn_gn-head-center-normbbox-centeronreg-giou_8xb8-amp-lsj-200e_coco"
        found[name] = Model("mmdet", _preset(name, "mmdet"), _mmdet_of(backbone), lsj_config(depth))
    for name, network in deformable.PUBLISHED.items():
        found[name] = Model(network.zoo, _preset(name, network.zoo), _seeded(network))
    for name, keys in published.PUBLISHED.items():
        zoo = "adelaidet" if name.startswith("MS_") else "fcos"
        found[name] = Model(zoo, "adelaidet" if zoo == "adelaidet" else "fcos-v1", _seeded_keys(keys))
    return found


def _plain_networks() -> dict[str, Network]:
    """The networks with ResNets and ResNeXts without deformable convolutions."""
    found = {}
    caffe, wide = {"stride_in_1x1": True}, {"width": 256}
    for kind in ("fcos", "fcos_imprv"):
        found[f"{kind}_R_50_FPN_1x"] = Network("fcos", R50, **caffe)
        found[f"{kind}_R_101_FPN_2x"] = Network("fcos", R101, **caffe)
        for groups, per_group in ((32, 8), (64, 4)):
            found[f"{kind}_X_101_{groups}x{per_group}d_FPN_2x"] = Network("fcos", R101, groups=groups, **wide)
    found["R_50_1x"] = found["MS_R_50_2x"] = Network("adelaidet", R50, **caffe)
    found["MS_R_101_2x"] = Network("adelaidet", R101, **caffe)
    for groups, per_group in ((32, 8), (64, 4)):
        found[f"MS_X_101_{groups}x{per_group}d_2x"] = Network("adelaidet", R101, groups=groups, **wide)
    head = "caffe_fpn_gn-head"
    for config in ("_1x", "-center_1x", "-center-normbbox-centeronreg-giou_1x", "_ms-640-800-2x"):
        found[f"fcos_r50-{head}{config}_coco"] = Network("mmdet", R50, **caffe)
    for config in ("_1x", "_ms-640-800-2x"):
        found[f"fcos_r101-{head}{config}_coco"] = Network("mmdet", R101, **caffe)
    found["fcos_x101-64x4d_fpn_gn-head_ms-640-800-2x_coco"] = Network("mmdet", R101, groups=64, **wide)
    return found


def _preset(name: str, zoo: str) -> str:
    if zoo == "fcos":
        return "fcos-imprv" if "imprv" in name else "fcos-v1"
    if zoo == "mmdet":
        return "mmdet-tricks" if "normbbox" in name else "mmdet-base"
    return zoo


def _torchvision() -> State:
    network = fcos_resnet50_fpn(weights=None, weights_backbone=None)
    return seeded_state({key: list(value.shape) for key, value in network.state_dict().items()})


def _seeded(network: Network) -> Callable[[], State]:
    return _seeded_keys(lambda: deformable.keys(network))


def _seeded_keys(keys: Callable[[], dict[str, list[int]]]) -> Callable[[], State]:
    return lambda: seeded_state(keys())


def _listed(file: str) -> Callable[[], State]:
    return _seeded_keys(lambda: json.loads((VECTORS / file).read_text(encoding="utf-8")))


def _mmdet_of(backbone: str) -> Callable[[], State]:
    """Names by rule from our own; the values by name, as for the others."""

    def tensors() -> State:
        names = theirs("mmdet", ours(scales=True, backbone=backbone, channels=256, convs=4))
        return seeded_state({key: list(value.shape) for key, value in names.items()})

    return tensors


def calmed(state: State) -> State:
    """With a first convolution that gives small values: most of these networks take pixels of 0…255 as they are."""
    stem = next(key for key, value in state.items() if value.ndim == 4 and value.shape[1] == 3)
    return {**state, stem: state[stem] / 60}


def whole_way(model: Model, folder: Path, *, size: tuple[int, int]) -> Iterator[str]:
    """Yield the cells of a model's row as they become known. Raises SystemExit with what a command said if it fails."""
    state = calmed(model.tensors())
    yield f"{sum(value.numel() for value in state.values()) / 1e6:.1f} M"
    file: dict[str, Any] = {"model": state} if model.zoo in ("fcos", "adelaidet") else state
    if model.config:
        file = {"state_dict": state, "meta": {"cfg": model.config}}
    torch.save(file, folder / "theirs.pth")
    started = perf_counter()
    native = folder / "model.safetensors"
    run("convert", folder / "theirs.pth", "--from", model.zoo, "--preset", model.preset, "--out", native)
    yield f"{perf_counter() - started:.0f} s"
    artifact = load(native)
    save(native, replace(artifact, geometry={**artifact.geometry, "size": sorted(size)}))
    info = json.loads(run("info", native, "--json"))
    yield info["model"]["backbone"]
    found = json.loads(run("predict", PHOTO, "--model", native, "--json"))
    yield str(len(found["results"][0]["detections"]))
    started = perf_counter()
    shape = f"{size[0]}x{size[1]}"
    run("export", native, "--size", shape, "--batch", "1", "--out", folder / "model.onnx")
    verified = read_header(folder / "model.onnx").facts.verified
    yield f"{'verified' if verified else 'NOT verified'} in {perf_counter() - started:.0f} s"
    yield proof(json.loads((folder / "model.parity.json").read_text(encoding="utf-8")))


def proof(report: dict[str, Any]) -> str:
    """Largest relative error of the raw outputs, and matches and largest box difference end to end."""
    raw = max(output["relative"] for output in report["raw_outputs"]["outputs"])
    pictures = report["end_to_end"]["pictures"]
    matched, wanted = (sum(picture[key] for picture in pictures) for key in ("matched", "reference"))
    return f"raw {raw:.1e}; {matched} of {wanted}, {max(picture['max_px'] for picture in pictures):.1e} px"


def run(*arguments: object) -> str:
    """Run a command of fcos and return what it printed. Raises SystemExit."""
    ended = subprocess.run(
        [sys.executable, "-m", "fcos_cli", *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if ended.returncode:
        raise SystemExit(f"fcos {' '.join(map(str, arguments))}: exit {ended.returncode}\n{ended.stderr[-2000:]}")
    return ended.stdout


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="models whose names contain this")
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=256)
    options = parser.parse_args()
    rows, failed = [], 0
    chosen = {name: model for name, model in models().items() if options.only in name}
    for number, (name, model) in enumerate(chosen.items(), 1):
        cells: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            try:
                cells.extend(whole_way(model, Path(folder), size=(options.height, options.width)))
            except SystemExit as error:
                cells.append(f"FAILED: {error}")
                failed += 1
        print(f"{number}/{len(chosen)} {name}: {', '.join(cells)}", file=sys.stderr, flush=True)
        rows.append((name, model.preset, *(cells + [""] * 6)[:6]))
    table(
        ("model", "preset", "parameters", "convert", "backbone", "found", "export", "proof"), rows, title="whole files"
    )
    print(f"{len(rows) - failed} of {len(rows)} models went the whole way", file=sys.stderr)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
