"""CheckpointMetadata: what a foreign checkpoint says of its dialect beyond the names and shapes of its tensors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class CheckpointMetadata:
    """preset: the dialect, where the file settles it; why: by what. conventions, model: switches and values of
    ModelConfig that it gives. bgr: does the network see blue first? names: its classes, in the order of the rows.
    refusal: why it cannot be converted at all. None and empty mean that the file does not say."""

    preset: str | None = None
    why: str = ""
    conventions: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    bgr: bool | None = None
    names: tuple[str, ...] | None = None
    refusal: str | None = None

    def with_(self, *, conventions: dict[str, Any] | None = None, **changes: Any) -> CheckpointMetadata:
        """The same with more told; conventions are added to those that are known."""
        return replace(self, conventions={**self.conventions, **(conventions or {})}, **changes)
