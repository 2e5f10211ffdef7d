"""CheckpointMetadata: what a foreign checkpoint states about itself besides its tensors' names and shapes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class CheckpointMetadata:
    """Facts read from a checkpoint. None or empty: not stated.

    preset: the dialect, if the file determines it. evidence: what determines it, for messages. conventions, model:
    values of Conventions and ModelConfig. bgr: whether the network takes BGR input. names: class names in the order of
    the rows. size: shorter side of the input and limit of the longer one, in pixels. unsupported: reason why the file
    cannot be converted.
    """

    preset: str | None = None
    evidence: str = ""
    conventions: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    bgr: bool | None = None
    names: tuple[str, ...] | None = None
    size: tuple[int, int] | None = None
    unsupported: str | None = None

    def updated(self, *, conventions: dict[str, Any] | None = None, **changes: Any) -> CheckpointMetadata:
        """Return a copy with these changes; `conventions` are merged into the existing ones."""
        return replace(self, conventions={**self.conventions, **(conventions or {})}, **changes)
