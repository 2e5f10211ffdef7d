"""FCOS: train, evaluate and run anchor-free object detectors on your own images.

Public names load on first use, so importing the package (and `fcos --help`) stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fcos_cli import api
    from fcos_cli.model.fcos import FCOS
    from fcos_cli.runtime.open import open_detector as load
    from fcos_cli.runtime.results import Detections

__version__ = "0.1.0"
__all__ = ["FCOS", "Detections", "__version__", "api", "load"]

_EXPORTS = {
    "FCOS": ("fcos_cli.model.fcos", "FCOS"),
    "Detections": ("fcos_cli.runtime.results", "Detections"),
    "load": ("fcos_cli.runtime.open", "open_detector"),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "api":
        return import_module("fcos_cli.api")
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _EXPORTS[name]
    return getattr(import_module(module), attribute)
