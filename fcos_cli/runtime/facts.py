"""Facts: what a model file says of itself, the same in every format. No torch.

Every kind of artifact carries them as a dict of JSON strings: `.safetensors` in its metadata, ONNX in
`metadata_props`, OpenVINO in `rt_info`, a TensorRT engine in the JSON file beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.errors import ModelError
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.conventions import Conventions

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Facts:
    """What has to be known to use a detector.

    threshold: the score from which a detection is worth showing; class_thresholds: the same per class index (best F1
    on val), where known. score_threshold, nms_iou, max_detections: what post-processing keeps; in an exported model
    they are part of the graph. precision: of the network's body as stored (`fp32`, `fp16`, `int8`). verified: whether
    parity with the PyTorch reference was measured and passed; None for the reference itself. model: the network's
    ModelConfig as JSON, for people. provenance: our version, data, metrics, date, export; for people.
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
    verified: bool | None = None
    model: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_metadata(self) -> dict[str, str]:
        """JSON strings by key; `from_metadata` reads them back."""
        facts = {
            "format_version": FORMAT_VERSION,
            "classes": self.classes.to_json(),
            "geometry": self.resize.to_json(),
            "conventions": asdict(self.conventions),
            "thresholds": {"global": self.threshold, "per_class": self.class_thresholds},
            "limits": {"score": self.score_threshold, "nms_iou": self.nms_iou, "max_detections": self.max_detections},
            "precision": self.precision,
            "verified": self.verified,
            "model": self.model,
            "provenance": self.provenance,
        }
        return {key: json.dumps(value) for key, value in facts.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, where: Path) -> Facts:
        """Raises ModelError naming `where` for a file that is not ours, too new, or has facts that cannot be used."""
        try:
            version = json.loads(metadata["format_version"])
            if version > FORMAT_VERSION:  # first of all: a newer file may lack or mean anything else
                raise ModelError(
                    f"the file has format version {version}, this program knows up to {FORMAT_VERSION}",
                    where=where,
                    remedy="pip install --upgrade fcos-cli",
                )
            facts = {key: json.loads(value) for key, value in metadata.items() if key in _KEYS}
            classes, per_class = ClassTable.from_json(facts["classes"]), facts["thresholds"]["per_class"]
            if per_class is not None and len(per_class) != len(classes):
                raise ValueError(f"{len(per_class)} thresholds for {len(classes)} classes")
            return cls(
                classes=classes,
                resize=ResizeRule.from_json(facts["geometry"]),
                conventions=Conventions.from_json(facts["conventions"]),
                threshold=float(facts["thresholds"]["global"]),
                class_thresholds=None if per_class is None else tuple(float(v) for v in per_class),
                score_threshold=float(facts["limits"]["score"]),
                nms_iou=float(facts["limits"]["nms_iou"]),
                max_detections=int(facts["limits"]["max_detections"]),
                precision=str(facts["precision"]),
                verified=facts["verified"],
                model=facts.get("model", {}),
                provenance=facts.get("provenance", {}),
            )
        except ModelError as error:
            raise ModelError(error.what, where=where, remedy=error.remedy) from error
        except KeyError as error:
            raise ModelError(
                f"the file lacks the fact {error}",
                where=where,
                remedy="only models that `fcos export` wrote can be run",
            ) from error
        except (json.JSONDecodeError, TypeError, ValueError) as error:
            raise ModelError(f"the file's facts cannot be used: {error}", where=where) from error


_KEYS = {
    "classes", "geometry", "conventions", "thresholds", "limits", "precision", "verified", "model", "provenance",
}  # fmt: skip
