"""Artifacts: self-describing `.safetensors` files, with weights as tensors and all facts as JSON metadata."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from fcos_cli.atomic import atomic_write
from fcos_cli.errors import ModelError, UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.config import ModelConfig
from fcos_cli.model.fcos import FCOS
from fcos_cli.model.metadata import FOREIGN_WEIGHTS, FORMAT_VERSION, metadata_errors, read_facts


@dataclass(frozen=True)
class Artifact:
    """A network and everything needed to use it.

    weights: FCOS state dict, float32 in memory. config, classes: as the network was built. geometry: the resize rule,
    as returned by `ResizeRule.to_json`. threshold: minimum score of a detection worth showing; class_thresholds: the
    same per class index (best F1 on val), if known. provenance: version, data, metrics and date, for information.
    """

    weights: dict[str, Tensor]
    config: ModelConfig
    classes: ClassTable
    geometry: dict[str, Any]
    threshold: float = 0.3
    class_thresholds: tuple[float, ...] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def build(self) -> FCOS:
        """Build the network with its weights, in eval mode. Raises ModelError naming keys that do not fit."""
        self.check_weights()
        try:
            with torch.random.fork_rng(devices=[]):  # opening a file must not change what a caller draws next
                model = FCOS(self.config, classes=len(self.classes))
        except UsageError as error:
            raise ModelError(
                f"the installed timm cannot build the model's backbone {self.config.backbone!r}",
                remedy="pip install --upgrade timm",
            ) from error
        wanted, given = model.state_dict(), self.weights
        problems = [f"missing {key}" for key in sorted(wanted.keys() - given.keys())]
        problems += [f"unknown {key}" for key in sorted(given.keys() - wanted.keys())]
        problems += [
            f"{key}: shape {tuple(given[key].shape)}, expected {tuple(wanted[key].shape)}"
            for key in sorted(wanted.keys() & given.keys())
            if wanted[key].shape != given[key].shape
        ]
        if problems:
            listed = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
            raise ModelError("the weights do not match the network they describe", where=listed)
        model.load_state_dict(given)
        return model.eval()

    def check_weights(self) -> None:
        """Raise ModelError for weights that no network has. Even a small file may claim terabytes of them."""
        layers = 2 * self.config.convs + self.config.shared_convs
        towers, given = layers * self.config.channels**2, sum(map(Tensor.numel, self.weights.values()))
        if towers > max(given, 10_000_000):  # fewer do no harm, and `build` says which are missing
            raise ModelError(
                "the weights do not match the network they describe",
                where=f"{given:,} weights for towers of {self.config.convs} layers and {self.config.channels} channels",
            )
        for key, value in self.weights.items():
            if value.is_floating_point() and not value.isfinite().all():
                raise ModelError(
                    "the weights are not finite numbers", where=key, remedy="use an earlier checkpoint of the run"
                )

    def with_thresholds(self, threshold: float, per_class: tuple[float, ...]) -> Artifact:
        return replace(self, threshold=threshold, class_thresholds=per_class)


def save(path: Path, artifact: Artifact, *, half: bool = False) -> None:
    """Write the artifact atomically: after a crash, the file is either the old or the new one.

    half: store floating-point tensors as float16 (half the size; `load` casts them back).
    """
    # shared memory (EMA, tied weights) and channels_last strides must not be stored
    weights = {key: value.detach().to("cpu").contiguous().clone() for key, value in artifact.weights.items()}
    if half:
        weights = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    facts = {
        "format_version": FORMAT_VERSION,
        "model": artifact.config.model_dump(mode="json", exclude={"conventions"}),
        "conventions": asdict(artifact.config.conventions),
        "classes": artifact.classes.to_json(),
        "geometry": artifact.geometry,
        "thresholds": {"global": artifact.threshold, "per_class": artifact.class_thresholds},
        "provenance": artifact.provenance,
    }
    with atomic_write(path, binary=True) as file:
        file.write(to_bytes(weights, metadata={key: json.dumps(value) for key, value in facts.items()}))


def load(path: Path) -> Artifact:
    """Read an artifact. Raises ModelError naming the file if it is not an fcos artifact."""
    if not path.is_file():
        raise ModelError("there is no such model file", where=path, remedy="check the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"this is not a readable .safetensors file ({error})",
            where=path,
            remedy="the file may be truncated: copy it again; fcos convert reads other projects' checkpoints",
        ) from error
    weights = {key: value.float() if value.dtype == torch.float16 else value for key, value in weights.items()}
    return _from_metadata(path, metadata, weights)


def _from_metadata(path: Path, metadata: dict[str, str], weights: dict[str, Tensor]) -> Artifact:
    with metadata_errors(path, remedy=FOREIGN_WEIGHTS):
        shared, facts = read_facts(metadata)
        config = ModelConfig.model_validate({**facts["model"], "conventions": facts["conventions"]})
        return Artifact(weights, config, geometry=facts["geometry"], **shared)
