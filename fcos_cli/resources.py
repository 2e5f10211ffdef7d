"""Files that ship in the package: the default weights, demo photos, and the parts of pages."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).resolve().parent / "assets"


def demo_photos() -> list[Path]:
    """The two photos that come with the package, sorted by name."""
    return sorted((ASSETS / "photos").glob("*.jpg"))
