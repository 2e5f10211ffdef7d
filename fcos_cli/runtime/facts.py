"""Facts: the metadata stored in a model file, the same for every format. No torch.

Every artifact stores them as a dict of JSON strings: `.safetensors` in its metadata, ONNX in `metadata_props`, OpenVINO
in `rt_info`, and a TensorRT engine in a JSON file next to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.samples import Division
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.conventions import Conventions
from fcos_cli.model.metadata import FORMAT_VERSION, metadata_errors, read_facts, share
from fcos_cli.runtime.promises import KEY, Promise, read_promises

VECTORS = "vectors"
NOT_EXPORTED = "only models that `fcos export` wrote can be run"


@dataclass(frozen=True)
class Facts:
    """Everything needed to use a detector.

    threshold: minimum score of a detection worth showing; class_thresholds: the same per class index (best F1 on val),
    if known. score_threshold, nms_iou, max_detections: settings of post-processing; fixed inside an exported model.
    precision: of backbone and head as stored (`fp32`, `fp16`, `int8`). winograd: number of convolutions of an exported
    graph in Winograd form, which needs float32. verified: whether parity with PyTorch was measured and passed; None for
    the PyTorch weights themselves. model: the network's ModelConfig as JSON, for information. provenance: version,
    data, metrics, date and export, for information. promises: what the thresholds were shown to keep. vectors: test
    vectors of an exported file, as `parity.vectors` writes them; empty if it has none.
    """

    classes: ClassTable
    resize: ResizeRule
    conventions: Conventions = field(default_factory=Conventions)
    threshold: float = 0.3
    class_thresholds: tuple[float, ...] | None = None
    score_threshold: float = 0.05
    nms_iou: float = 0.6
    max_detections: int = 100
    precision: str = "fp32"
    winograd: int = 0
    verified: bool | None = None
    model: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    promises: tuple[Promise, ...] = ()
    vectors: str = field(default="", repr=False)

    @property
    def limits(self) -> dict[str, Any]:
        """The settings of post-processing by name, as in ModelConfig."""
        names = ("score_threshold", "nms_iou", "max_detections")
        return {name: getattr(self, name) for name in names}

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The threshold of each class index: its own, or the one for all."""
        return self.class_thresholds or (self.threshold,) * len(self.classes)

    @property
    def tile(self) -> int:
        """Side of the tiles that the model was trained on, in pixels of the source; 0 if on whole images."""
        side = self.provenance.get("tile", 0)
        return side if isinstance(side, int) else 0

    @property
    def data(self) -> dict[str, Any]:
        """What the file records of its training data: name, pictures, sha256 of the train split; maybe empty."""
        data = self.provenance.get("data")
        return data if isinstance(data, dict) else {}

    @property
    def division(self) -> Division | None:
        """How training divided its data into train and val; None if the data had a val split, or in older files."""
        division = self.data.get("division")
        if not isinstance(division, dict):
            return None
        fraction, seed = division.get("val_fraction"), division.get("seed")
        if not isinstance(fraction, float) or not 0 < fraction < 1 or not isinstance(seed, int):
            return None
        return Division(fraction, seed)

    @property
    def parameters(self) -> int | None:
        """Numbers in the network's state dict; None if the file does not say."""
        return self._cost("parameters")

    @property
    def macs(self) -> int | None:
        """Multiplications of one image at the input size (see `networks.cost.Cost`); None if the file does not say."""
        return self._cost("macs")

    def _cost(self, name: str) -> int | None:
        cost = self.provenance.get("cost")
        value = cost.get(name) if isinstance(cost, dict) else None
        return value if isinstance(value, int) and 0 < value < 2**63 else None

    def to_metadata(self) -> dict[str, str]:
        """Return JSON strings by key; `from_metadata` reads them back."""
        facts = {
            "format_version": FORMAT_VERSION,
            "classes": self.classes.to_json(),
            "geometry": self.resize.to_json(),
            "conventions": asdict(self.conventions),
            "thresholds": {"global": self.threshold, "per_class": self.class_thresholds},
            "limits": {"score": self.score_threshold, "nms_iou": self.nms_iou, "max_detections": self.max_detections},
            "precision": self.precision,
            "winograd": self.winograd,
            "verified": self.verified,
            "model": self.model,
            "provenance": self.provenance,
        }
        if self.promises:
            facts[KEY] = [promise.to_json() for promise in self.promises]
        texts = {key: json.dumps(value) for key, value in facts.items()}
        return {**texts, VECTORS: self.vectors} if self.vectors else texts

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, where: Path, remedy: str = NOT_EXPORTED) -> Facts:
        """Raises ModelError naming `where` if the file was not written by fcos, is too new, or has invalid facts.

        remedy: for a file that was not written by fcos.
        """
        with metadata_errors(where, remedy=remedy):
            shared, facts = read_facts(metadata, "limits", "precision", "verified")
            limits = facts["limits"]
            if facts["verified"] not in (True, False, None):
                raise ValueError(f"verified is {facts['verified']!r:.40}, not true, false or null")
            return cls(
                resize=ResizeRule.from_json(facts["geometry"]),
                conventions=facts["conventions"],
                score_threshold=share(limits["score"], "limits.score"),
                nms_iou=share(limits["nms_iou"], "limits.nms_iou"),
                max_detections=_count(limits["max_detections"]),
                precision=str(facts["precision"]),
                winograd=int(metadata.get("winograd", "0")),  # older files do not have it
                verified=facts["verified"],
                model=facts.get("model", {}),
                promises=read_promises(metadata),
                vectors=str(metadata.get(VECTORS, "")),
                **shared,
            )


def _count(value: Any) -> int:
    """The value as a whole number from 1. Raises ValueError."""
    if not 1 <= int(value) < 2**31:
        raise ValueError(f"limits.max_detections is {value}, not from 1")
    return int(value)
