"""Work per image, and time per image on this machine, in a few seconds. `fcos bench` measures thoroughly."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from fcos_cli.data.geometry import Pixels, ResizeRule
from fcos_cli.errors import FcosError, UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.networks.named import CLASSES, Network
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.open import open_detector

SECONDS = 2.0
"""Duration of the measurement after the first image."""


@dataclass(frozen=True)
class Speed:
    """size: (height, width) of the network input. images: number of images timed. ms: median time per image, from
    pixels to boxes, on the CPU with one thread. batch: images per call, the fewest that the file accepts.
    """

    backend: str
    precision: str
    size: tuple[int, int]
    images: int
    ms: float
    batch: int = 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        height, width = self.size
        batch = "" if self.batch == 1 else f", batches of {self.batch}"
        return f"{self.ms:.1f} ms per image of {height} x {width} ({self.backend}, {self.precision}, 1 thread{batch})"


def measure_speed(detector: Detector) -> Speed:
    """Run a detector on noise for about `SECONDS`, and at least twice. A file with a fixed batch gets full batches."""
    size, limits = typical_size(detector.facts.resize), getattr(detector, "limits", None)
    batch = 1 if limits is None else limits.min_batch
    noise = np.random.default_rng(0).integers(0, 256, (batch, 3, *size))
    images: Pixels = noise.astype(detector.facts.resize.dtype, copy=False)
    detector(images)  # libraries prepare their kernels
    times: list[float] = []
    while sum(times) < SECONDS:
        start = perf_counter()
        detector(images)
        times.append(perf_counter() - start)
    ms = 1e3 * median(times) / batch
    return Speed(detector.backend, detector.precision, size, batch * len(times), ms, batch)


def file_speed(path: Path) -> Speed:
    """Time a model file with its default backend. Raises UsageError for an engine, which no CPU runs."""
    if path.suffix.lower() == ".engine":
        raise UsageError(
            "--speed times a model on the CPU, and an engine runs on a GPU only",
            where=path,
            remedy=f"fcos bench {path}",
        )
    return measure_speed(open_detector(path, device="cpu", threads=1))


def named_speed(network: Network) -> Speed:
    """Time a network with random weights in PyTorch."""
    from fcos_cli.model.artifact import Artifact
    from fcos_cli.model.config import ModelConfig
    from fcos_cli.model.fcos import FCOS
    from fcos_cli.runtime.pytorch import PyTorchDetector

    config = ModelConfig(**network.settings()["model"])
    classes = ClassTable.from_names(str(number) for number in range(CLASSES))
    rule = ResizeRule("letterbox", (network.size, network.size))
    artifact = Artifact(FCOS(config, classes=CLASSES).state_dict(), config, classes, rule.to_json())
    return measure_speed(PyTorchDetector.from_artifact(artifact, name="network", device="cpu", threads=1))


def with_cost(facts: Facts) -> Facts:
    """The facts with the cost of their network (see `Cost`) at `typical_size`, whatever the format and precision of the
    file. Needs torch.

    They stay as they are if they do not describe their network, or if it cannot be counted: the numbers are for
    information, and must not end a run or an export.
    """
    from fcos_cli.model.config import ModelConfig
    from fcos_cli.model.networks.cost import network_cost

    if not facts.model:
        return facts
    try:
        config = ModelConfig.model_validate({**facts.model, "conventions": facts.conventions})
        cost = network_cost(config, classes=len(facts.classes), size=typical_size(facts.resize))
    except (RuntimeError, ValueError, FcosError):
        return facts
    return replace(facts, provenance={**facts.provenance, "cost": cost._asdict()})


def typical_size(rule: ResizeRule) -> tuple[int, int]:
    """(height, width) of the network input for an image of 4:3."""
    return rule.canvas([rule.geometry(4, 3)])
