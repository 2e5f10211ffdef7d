"""Files that ship with the package: default weights, demo photos and parts of HTML pages."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).resolve().parent / "assets"


def demo_photos() -> list[Path]:
    """The two demo photos, sorted by name."""
    return sorted((ASSETS / "photos").glob("*.jpg"))
