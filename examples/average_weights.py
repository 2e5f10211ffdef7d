"""Average the weights of trained detectors of the same network, and measure the average on val.

    python examples/average_weights.py OUT.safetensors DATA RUN RUN [RUN ...]

The runs should have started from the same detector (`fcos train DATA --init DETECTOR`), with other seeds or settings.
The average then often has a higher AP than each of them, and costs no more than one (Wortsman et al., 2022, "Model
soups"). Only of runs whose weights are close to each other does the mean make sense: with others it may find nothing,
as the measurement shows.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fcos_cli import __version__
from fcos_cli.atomic import check_writable
from fcos_cli.console import say
from fcos_cli.data.samples import Dataset
from fcos_cli.data.tiling import Tiling
from fcos_cli.errors import FcosError, UsageError
from fcos_cli.evaluate.coco import CocoResult, evaluate
from fcos_cli.evaluate.split import read_split
from fcos_cli.model.artifact import Artifact, load, save
from fcos_cli.runtime.open import find_artifact
from fcos_cli.runtime.pytorch import PyTorchDetector, facts_of
from fcos_cli.train.initial_weights import recorded_name
from fcos_cli.train.validation import with_result


def average(artifacts: list[Artifact], names: list[str]) -> Artifact:
    """The mean of the weights, with those facts about the training that are the same for all.

    Raises UsageError naming the artifact whose network, classes or resize rule differ from those of the first.
    """
    first = artifacts[0]
    for artifact, name in zip(artifacts, names, strict=True):
        for part in ("config", "classes", "geometry"):
            if getattr(artifact, part) != getattr(first, part):
                raise UsageError(f"this detector differs from {names[0]} in its {part}", where=name)
    weights = {key: _mean([artifact.weights[key] for artifact in artifacts]) for key in first.weights}
    kept: dict[str, Any] = {
        key: first.provenance[key]
        for key in ("data", "tile", "cost")
        if key in first.provenance and all(a.provenance.get(key) == first.provenance[key] for a in artifacts)
    }
    return replace(first, weights=weights, provenance={"fcos_cli": __version__, **kept, "average_of": names})


def _mean(tensors: list[Tensor]) -> Tensor:
    """Counters, the only integers among the weights, are those of the first."""
    return torch.stack(tensors).mean(0) if tensors[0].is_floating_point() else tensors[0]


def measure(artifact: Artifact, val: Dataset, *, name: str) -> CocoResult:
    """Evaluate the weights in float32, on tiles if they were trained on tiles, and print AP and AP50."""
    detector = PyTorchDetector.from_artifact(artifact, name=name, device="cpu")
    side = detector.facts.tile
    result = evaluate(detector, val, tiling=Tiling(side) if side else None)
    say(f"{name}: AP {result.metrics['AP']:.4f}, AP50 {result.metrics['AP50']:.4f} on {result.images} images")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path, metavar="OUT.safetensors")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("runs", nargs="+", metavar="RUN")
    options = parser.parse_args()
    check_writable(options.out)
    files = [find_artifact(run, backend="pytorch") for run in options.runs]
    artifacts, names = [load(file) for file in files], [recorded_name(file) for file in files]
    mean = average(artifacts, names)
    val = read_split(options.data, [facts_of(artifact) for artifact in artifacts])
    for name, artifact in zip(names, artifacts, strict=True):
        measure(artifact, val, name=name)
    save(options.out, with_result(mean, measure(mean, val, name="average")))
    say(f"wrote {options.out}")


if __name__ == "__main__":
    try:
        main()
    except FcosError as error:
        sys.exit(str(error))
